//! What is asked of the operators' listener goes into the audit: a change before it is begun and once more with what came of
//! it, a look afterwards. What may destroy something is not begun where that cannot be written.
//!
//! ```text
//! require (auth) ─▶ record ─▶ handler
//!      └─ refused ──▶ refusals ─▶ audit
//! ```

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use boot_server_core::audit::{Fact, Kind, Weight, weight};
use protocol::limits::JSON_BODY_MAX;

use super::approvals::{Seen, gate};
use super::problem::Code;
use super::{ProblemResponse, auth, body};
use crate::asking::asking;
use crate::audit::Audit;
use crate::engine::{Engine, now};
use crate::tenancy::Tenancy;

/// Who signed in, in the extensions of an answer to a login; none there means that nobody did.
#[derive(Debug, Clone)]
pub struct Entered(pub String);

/// An answer that stands in the audit already.
#[derive(Debug, Clone, Copy)]
struct Recorded;

/// The paths that take files of any size: what is sent there stays a stream.
const UPLOADS: [&str; 2] = ["/api/v1/images/upload", "/api/v1/bundles/upload"];
/// What htmx says of its requests: among them are those of a page that is open and keeps itself up to date.
const REFRESH: &str = "hx-request";
/// Refusals that are not written down: without anything to show, or far too often.
const COMMON: [&str; 2] = ["unauthenticated", "too-many-attempts"];

/// To be laid over all routes, inside of `auth::require`.
pub async fn record(State(engine): State<Engine>, request: Request, next: Next) -> Response {
    let template = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let weight = weight(request.method().as_str(), template.as_deref());
    let mut response = match weight {
        Weight::Nothing => next.run(request).await,
        Weight::Read if !engine.settings().audit.reads => next.run(request).await,
        Weight::Read => {
            let fact = fact(&engine, &request, template.as_deref());
            let refresh = request.headers().contains_key(REFRESH);
            let response = next.run(request).await;
            // A page that is open asks again at each change; that it is looked at is told once in a while.
            let told = engine.audit().looked_lately(&fact) && refresh && response.status().is_success();
            if !told {
                engine.audit().later(Fact { kind: Kind::Read, ..answered(fact, &response) });
            }
            response
        }
        Weight::Login => {
            let fact = fact(&engine, &request, template.as_deref());
            let response = next.run(request).await;
            engine.audit().after(login(fact, &response)).await;
            response
        }
        Weight::Change | Weight::Destructive => change(&engine, request, next, template, weight).await,
    };
    response.extensions_mut().insert(Recorded);
    response
}

/// To be laid over `auth::require`: whoever was refused there.
pub async fn refusals(State(engine): State<Engine>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let source = request.extensions().get::<super::Peer>().map(|peer| peer.0.ip().to_canonical());
    let response = next.run(request).await;
    let code = response.extensions().get::<Code>().map(|code| code.0.clone());
    if response.extensions().get::<Recorded>().is_none()
        && let Some(code) = code.filter(|code| !COMMON.contains(&code.as_str()))
    {
        engine.audit().later(Fact {
            source: source.map(|source| source.to_string()),
            object: Some(path),
            status: Some(response.status().as_u16()),
            outcome: code,
            ..Fact::new(now(), Kind::Login, "nobody", format!("{method} refused"))
        });
    }
    response
}

async fn change(
    engine: &Engine,
    request: Request,
    next: Next,
    template: Option<String>,
    weight: Weight,
) -> Response {
    let mut fact = fact(engine, &request, template.as_deref());
    let (parts, body, octets) = match with_body(request, template.as_deref()).await {
        Ok(read) => read,
        Err(problem) => return problem.into_response(),
    };
    fact.digest = octets.as_ref().filter(|octets| !octets.is_empty()).map(|octets| engine.digest(octets));
    fact.kind = Kind::Asked;
    if let Err(error) = engine.audit().now(fact.clone()).await {
        tracing::error!(%error, what = fact.what, "a request was not written to the audit");
        if weight == Weight::Destructive {
            return unavailable().into_response();
        }
    }
    let named = |name| template.as_deref().and_then(|template| parameter(template, parts.uri.path(), name));
    let seen = Seen {
        parts: &parts,
        template: template.as_deref(),
        body: octets.as_ref(),
        node: named("{node}"),
        project: fact.project,
        server: named("{server}"),
    };
    let stopped =
        gate(engine, seen, next.clone()).await.unwrap_or_else(|problem| Some(problem.into_response()));
    if let Some(response) = stopped {
        engine.audit().after(answered(fact, &response)).await;
        return response;
    }
    let mut pending = Pending { audit: engine.audit(), fact: Some(fact) };
    let response = next.run(Request::from_parts(parts, body)).await;
    if let Some(fact) = pending.fact.take() {
        engine.audit().after(answered(fact, &response)).await;
    }
    response
}

/// The answer to whoever asks for something that must not happen unseen.
fn unavailable() -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "audit-unavailable",
        "nothing was done: the audit cannot be written",
        "look at the server's log and at the disk of its state directory, then try again",
    )
}

/// A request that was not answered: a client that goes away takes its handler along.
struct Pending<'a> {
    audit: &'a Audit,
    fact: Option<Fact>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(fact) = self.fact.take() {
            let outcome = "the client went away before the answer".to_owned();
            self.audit.later(Fact { at: now(), kind: Kind::Answered, outcome, ..fact });
        }
    }
}

fn answered(fact: Fact, response: &Response) -> Fact {
    let code = response.extensions().get::<Code>().map(|code| code.0.clone());
    Fact {
        at: now(),
        kind: Kind::Answered,
        status: Some(response.status().as_u16()),
        outcome: code.unwrap_or_default(),
        ..fact
    }
}

fn login(fact: Fact, response: &Response) -> Fact {
    let fact = Fact { kind: Kind::Login, ..answered(fact, response) };
    match response.extensions().get::<Entered>() {
        Some(Entered(name)) => Fact { actor: name.clone(), ..fact },
        None if fact.outcome.is_empty() => Fact { outcome: "refused".to_owned(), ..fact },
        None => fact,
    }
}

/// What is known of a request before it is answered.
fn fact(engine: &Engine, request: &Request, template: Option<&str>) -> Fact {
    let path = request.uri().path();
    let what = format!("{} {}", request.method(), template.unwrap_or("(no route)"));
    let who = auth::who();
    let name = who.as_ref().map_or_else(|| "nobody".to_owned(), |who| who.name());
    let named = |name| template.and_then(|template| parameter(template, path, name));
    let asked = asking();
    let tenancy = request.extensions().get::<Tenancy>();
    let project = named("{project}").and_then(|reference| tenancy?.project(&reference)).map(|p| p.id);
    // Nobody's people are told of others who only tried.
    let project = project.filter(|id| who.as_ref().is_some_and(|who| who.role_in(*id).is_some()));
    Fact {
        who: who.as_ref().and_then(|who| who.token.or(who.user.map(|user| user.0))),
        role: who
            .as_ref()
            .and_then(|who| project.and_then(|p| who.role_in(p)).or(who.site))
            .map(|r| r.to_string()),
        project,
        source: asked.as_ref().map(|asked| asked.source.to_string()),
        object: Some(path.to_owned()),
        node: named("{node}").and_then(|node| engine.node_id(&node)),
        request: asked.map(|asked| asked.request),
        ..Fact::new(now(), Kind::Read, name, what)
    }
}

/// The part of `path` that stands where `template` has `name`.
fn parameter(template: &str, path: &str, name: &str) -> Option<String> {
    let at = template.split('/').position(|part| part == name)?;
    let part = path.split('/').nth(at)?;
    decode(part)
}

/// Percent-decoding (RFC 3986 section 2.1).
fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        octets.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(octets).ok()
}

/// The request with its body, which is in memory as well unless it is a file: that stays a stream.
async fn with_body(
    request: Request,
    template: Option<&str>,
) -> Result<(Parts, Body, Option<Bytes>), ProblemResponse> {
    let (parts, rest) = request.into_parts();
    if template.is_none_or(|template| UPLOADS.contains(&template)) {
        return Ok((parts, rest, None));
    }
    let octets = body(rest, JSON_BODY_MAX).await?;
    Ok((parts, Body::from(octets.clone()), Some(octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_paths_are_found() {
        let find = |template, path| parameter(template, path, "{node}");
        assert_eq!(find("/nodes/{node}/deploy", "/nodes/r1/deploy").as_deref(), Some("r1"));
        assert_eq!(find("/nodes/{node}", "/nodes/a%2Db").as_deref(), Some("a-b"));
        assert_eq!(find("/nodes/{node}", "/nodes/a%2"), None);
        assert_eq!(find("/images/{image}", "/images/x"), None);
    }
}
