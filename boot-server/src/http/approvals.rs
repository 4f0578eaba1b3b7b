//! The gate of four eyes at the operators' listener: a request that may destroy something on a machine that needs two people is
//! kept instead of done; and done later, by the same routes, as whoever asked.
//!
//! Before it is kept it is rehearsed, where that can be: the same handler runs and is stopped where it would store something or where
//! the engine says that it takes two. So nobody is asked to approve what would be refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HOST, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use boot_server_core::approval::{Approval, Person};
use boot_server_core::audit::weight::{is_mild_body, is_one_transaction, may_close_eyes, may_need_two};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use protocol::ProjectId;

use super::auth::{self, Operators};
use super::{Base, Peer, ProblemResponse};
use crate::asking::{Asked, People, Stops, asking};
use crate::engine::{Carried, Carry, Engine, Kept, Subject, Wanted};
use crate::view::{ApprovalAsked, Problem};

/// Why something is asked for, where no form has a field for it.
const REASON: HeaderName = HeaderName::from_static("billet-reason");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The pages of members name what to do in the path; these lose nothing.
const VERB: &str = "/{verb}";
const MILD_VERBS: [&str; 3] = ["/start", "/rename", "/fault"];
/// An answer is read as far as a problem goes.
const ANSWER_MAX: usize = 64 << 10;

/// A request as the gate sees it.
pub(super) struct Seen<'a> {
    pub parts: &'a Parts,
    pub template: Option<&'a str>,
    pub body: Option<&'a Bytes>,
    /// Reference of the node in the path.
    pub node: Option<String>,
    /// The project in the path, where whoever asks has a role in it, and the reference of a server of it.
    pub project: Option<ProjectId>,
    pub server: Option<String>,
}

/// The answer to a request that has to wait for a second person, or is refused before anybody is asked; `None` where it is to be
/// done.
pub(super) async fn gate(
    engine: &Engine,
    seen: Seen<'_>,
    next: Next,
) -> Result<Option<Response>, ProblemResponse> {
    let Some(template) = seen.template else { return Ok(None) };
    if asking().is_none_or(|asked| asked.is_approved())
        || !may_need_two(seen.parts.method.as_str(), template)
        || seen.body.is_some_and(|body| is_mild_body(template, body))
    {
        return Ok(None);
    }
    let mut subject = seen.machine(engine).await;
    if subject.is_none() && !may_close_eyes(template) {
        return Ok(None);
    }
    if is_rehearsed(template) {
        let (response, stops) = seen.rehearse(next).await;
        if !stops.needs_second() && !stops.would_write() {
            return Ok(Some(response));
        }
        // What is only told by its body is asked for where the engine says so; what the path tells, wherever it would store.
        if !stops.needs_second() && (subject.is_none() || seen.is_mild_verb(template)) {
            return Ok(None);
        }
        subject = stops.pool().map(Subject::Pool).or(subject);
    }
    let Some(subject) = subject else { return Ok(None) };
    let Some(who) = auth::who() else { return Ok(None) };
    let approval = engine.ask_approval(seen.wanted(template, subject, auth::person(&who))?).await?;
    Ok(Some(seen.told(approval, who.site.is_some())))
}

/// True for what is refused, if it is, before anything is done: it changes the database alone, or the engine looks whether it takes
/// two before it speaks to a controller.
fn is_rehearsed(template: &str) -> bool {
    let switches = ["/power", "/stop", "/reboot", VERB].iter().any(|last| template.ends_with(last));
    is_one_transaction(template) || switches
}

impl Seen<'_> {
    /// The machine, where it needs two. What is not there is refused as it always is.
    async fn machine(&self, engine: &Engine) -> Option<Subject> {
        let (node, name) = match (&self.node, self.project.zip(self.server.as_ref())) {
            (Some(node), _) => {
                let node = engine.node(node).await.ok()?;
                let name = node.name.clone();
                (node, name)
            }
            (None, Some((project, server))) => {
                let server = engine.server(project, server).await.ok()?;
                (engine.node(&server.node.to_string()).await.ok()?, format!("server {}", server.name))
            }
            (None, None) => return None,
        };
        engine.needs_two(node.id).then(|| Subject::Node(Box::new(node), name))
    }

    fn is_mild_verb(&self, template: &str) -> bool {
        template.ends_with(VERB) && MILD_VERBS.iter().any(|verb| self.parts.uri.path().ends_with(verb))
    }

    /// Does it as far as nothing is changed.
    async fn rehearse(&self, next: Next) -> (Response, Arc<Stops>) {
        let stops = Arc::new(Stops::default());
        let mut parts = self.parts.clone();
        // What was done under this key would be stored first.
        parts.headers.remove(IDEMPOTENCY_KEY);
        let body = self.body.cloned().map_or_else(Body::empty, Body::from);
        let trying = next.run(Request::from_parts(parts, body));
        let response = match asking() {
            Some(asked) => Asked { people: People::Rehearsal(stops.clone()), ..asked }.scope(trying).await,
            None => trying.await,
        };
        (response, stops)
    }

    fn wanted(&self, template: &str, subject: Subject, by: Person) -> Result<Wanted, ProblemResponse> {
        let headers = &self.parts.headers;
        let text = |name| headers.get(name).and_then(|h: &HeaderValue| h.to_str().ok()).map(str::to_owned);
        let body = self.body.map(|body| String::from_utf8(body.to_vec())).transpose();
        let body = body.map_err(|_| refuse("body", "the body is no text", "send JSON"))?;
        let request = Kept {
            method: self.parts.method.to_string(),
            path: self.path().to_owned(),
            template: template.to_owned(),
            kind: text(CONTENT_TYPE),
            key: text(IDEMPOTENCY_KEY),
            body: body.unwrap_or_default(),
        };
        Ok(Wanted { subject, project: self.project, by, reason: text(REASON), request })
    }

    fn path(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// What whoever asked is told: people of a project not which machine it is.
    fn told(&self, approval: Approval, of_site: bool) -> Response {
        if let Some((server, _)) = self.path().strip_prefix("/my/").and_then(|rest| rest.rsplit_once('/')) {
            // Their page says what waits.
            return (StatusCode::SEE_OTHER, [(LOCATION, format!("/my/{server}"))]).into_response();
        }
        if !self.path().starts_with("/api/") {
            let page = format!("/approvals/{}", approval.id);
            return (StatusCode::SEE_OTHER, [(LOCATION, page)]).into_response();
        }
        let location = format!("/api/v1/approvals/{}", approval.id);
        let asked = ApprovalAsked {
            message: "nothing was done yet: this waits until somebody else approves it".to_owned(),
            id: approval.id,
            approval: of_site.then_some(approval),
        };
        (StatusCode::ACCEPTED, [(LOCATION, location)], Json(asked)).into_response()
    }
}

fn refuse(code: &str, message: &str, hint: &str) -> ProblemResponse {
    ProblemResponse::new(StatusCode::BAD_REQUEST, code, message, hint)
}

/// Does kept requests by these routes, as whoever asked.
pub(super) fn carry(routes: Router, known: Arc<Operators>) -> Carry {
    Arc::new(move |approval, kept| {
        let (routes, known) = (routes.clone(), known.clone());
        Box::pin(async move { carry_one(routes, &known, &approval, kept).await })
    })
}

async fn carry_one(routes: Router, known: &Operators, approval: &Approval, kept: Kept) -> Carried {
    let Some(who) = known.again(&approval.asked_by) else {
        return (403, Some(format!("{} may not do this any more", approval.asked_by.name)));
    };
    let source: Option<IpAddr> = approval.source.as_ref().and_then(|source| source.parse().ok());
    let source = source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let request = match request(approval, kept, source) {
        Ok(request) => request,
        Err(error) => return (500, Some(error.to_string())),
    };
    let mut request = request;
    request.extensions_mut().insert(known.tenancy().clone());
    let asked = Asked { source, request: approval.id, people: People::Two };
    let answer = asked.scope(auth::acting(who, TowerToHyperService::new(routes).call(request))).await;
    let response = match answer {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    let octets = to_bytes(response.into_body(), ANSWER_MAX).await.unwrap_or_default();
    let problem: Option<Problem> = serde_json::from_slice(&octets).ok().filter(|_| !status.is_success());
    let outcome = match problem {
        Some(problem) => Some(problem.message),
        None if status.is_client_error() || status.is_server_error() => {
            Some(format!("it was answered {status}"))
        }
        None => None,
    };
    (status.as_u16(), outcome)
}

fn request(approval: &Approval, kept: Kept, source: IpAddr) -> Result<Request, axum::http::Error> {
    // The same each time, so that what was done once before a crash is not done twice.
    let key = format!("approval-{}", approval.id);
    let mut request = axum::http::Request::builder()
        .method(kept.method.as_str())
        .uri(kept.path)
        .header(HOST, "localhost")
        .header(IDEMPOTENCY_KEY, key)
        .extension(Peer(SocketAddr::new(source, 0)))
        .extension(Base("http://localhost".to_owned()));
    if let Some(kind) = kept.kind {
        request = request.header(CONTENT_TYPE, kind);
    }
    request.body(Body::from(kept.body))
}

/// Whoever may decide on what others ask for.
pub(super) fn decider() -> Result<Person, Problem> {
    auth::need(boot_server_core::access::Role::Operator).map(|who| auth::person(&who))
}
