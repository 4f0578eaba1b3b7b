//! What is asked of the operators' listener goes into the audit: a change before it is begun and once more with what came of
//! it, a look afterwards. What may destroy something is not begun where that cannot be written.
//!
//! ```text
//! require (auth) ─▶ record ─▶ handler
//!      └─ refused ──▶ refusals ─▶ audit
//! ```

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
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

/// Takes files of any size, whatever type they are said to have (curl says that of a form).
const UPLOAD: &str = "/api/v1/images/upload";
/// Path of the login.
const LOGIN: &str = "/login";
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
            let response = next.run(request).await;
            engine.audit().later(Fact { kind: Kind::Read, ..answered(fact, &response) });
            response
        }
        Weight::Change | Weight::Destructive if template.as_deref() == Some(LOGIN) => {
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
    let (request, octets) = match with_body(request, template.as_deref()).await {
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
    let (node, server) = {
        let path = request.uri().path();
        let named = |name| template.as_deref().and_then(|template| parameter(template, path, name));
        (named("{node}"), named("{server}"))
    };
    // A request is not `Sync`: nothing of it is borrowed while the gate waits.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let seen = Seen {
        method: &method,
        path: &path,
        template: template.as_deref(),
        headers: &headers,
        body: octets.as_ref(),
        node: node.as_deref(),
        project: fact.project,
        server: server.as_deref(),
    };
    match gate(engine, seen).await {
        Ok(None) => {}
        Ok(Some(response)) => {
            engine.audit().after(answered(fact, &response)).await;
            return response;
        }
        Err(problem) => {
            let response = problem.into_response();
            engine.audit().after(answered(fact, &response)).await;
            return response;
        }
    }
    let mut pending = Pending { audit: engine.audit(), fact: Some(fact) };
    let response = next.run(request).await;
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
        source: asked.map(|asked| asked.source.to_string()),
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

/// The request with its body in memory, where that is a small one; files that are sent stay a stream.
async fn with_body(
    request: Request,
    template: Option<&str>,
) -> Result<(Request, Option<Bytes>), ProblemResponse> {
    if template == Some(UPLOAD) || !is_small(request.headers()) {
        return Ok((request, None));
    }
    let (parts, rest) = request.into_parts();
    let octets = body(rest, JSON_BODY_MAX).await?;
    Ok((Request::from_parts(parts, Body::from(octets.clone())), Some(octets)))
}

/// True for what is sent as a form or as JSON. An upload may come without a type: it is not waited for.
fn is_small(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/x-www-form-urlencoded", "text/csv", "text/plain"]
        .iter()
        .any(|small| kind.eq_ignore_ascii_case(small))
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
