//! Who may come in at the operators' listener: the site's own token and named ones, as a bearer token for programs and
//! as a session cookie for browsers; who may only look; and what those do not see who have no role at the site. Which routes
//! exist is the business of `api` and `ui`, who is what in a project that of `tenancy`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Form, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, RETRY_AFTER, SET_COOKIE, USER_AGENT,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use boot_server_core::access::Role;
use boot_server_core::approval::Person;
use boot_server_core::node::Severity;
use futures_util::StreamExt as _;
use protocol::{Sha256, Timestamp, UserId};
use serde::Deserialize;
use uuid::Uuid;

use super::audit::Entered;
use super::{Peer, ProblemResponse, encode, problem};
use crate::accounts::{AccountError, Accounts, At, Typed, shown};
use crate::asking::Asked;
use crate::engine::{Actor, Engine, now};
use crate::secret;
use crate::tenancy::Tenancy;
use crate::tokens::{Principal, Tokens};
use crate::view::Problem;

/// Name of the session cookie.
pub const COOKIE_NAME: &str = "billet_session";
/// How long a browser stays logged in.
const SESSION: Duration = Duration::from_hours(12);
/// Wrong tokens that one address may send within [`WINDOW`] before it is told to wait.
const FAILURES_MAX: u32 = 10;
/// Length of the window in which wrong tokens are counted.
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are counted at once; the one whose window is oldest makes room.
const ADDRESSES_MAX: usize = 1024;
/// Paths that need no token. Everything else does, whether it exists or not.
const PUBLIC: [&str; 5] = ["/login", "/healthz", "/api/v1/login", "/oidc/login", "/oidc/callback"];
/// The one change that everybody may make: ending the own session.
const LOGOUT: &str = "/logout";
/// What those may ask for who have no role at the site: each handler behind these lets in whom it may. For everything else they
/// get the answer of a path that does not exist.
const FOR_MEMBERS: [&str; 4] = ["/api/v1/projects", "/api/v1/me", "/my", "/me"];
/// Where they land.
const HOME: &str = "/my/";
/// Prefix of files that need no token: style sheets and scripts of the login page.
const PUBLIC_PREFIX: &str = "/static/";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read or made.
    #[error("cannot {action} the operators' token file {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file is empty or far too short to be a secret.
    #[error("{} holds no token of at least 32 characters; remove it, and a new one is made", path.display())]
    Short {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] secret::NoRandomness),
}

tokio::task_local! {
    /// Whoever asks what this task answers. Set around every request that was let in, so that no handler can forget to
    /// pass it on; work that a handler spawns gets an [`Actor`] by value.
    static WHO: Principal;
}

/// Whoever asks what is being answered; `None` outside of a request.
pub fn who() -> Option<Principal> {
    WHO.try_with(Clone::clone).ok()
}

/// Does work as somebody.
pub async fn acting<F: Future>(who: Principal, work: F) -> F::Output {
    WHO.scope(who, work).await
}

/// Who that is, to be remembered.
pub fn person(who: &Principal) -> Person {
    let role = who.site.map_or("member", Role::as_str).to_owned();
    Person { name: who.name(), user: who.user.map(|user| user.0), token: who.token, role }
}

/// The same, for the event list.
pub fn actor() -> Actor {
    who().map_or_else(|| Actor::Operator(String::new()), |who| who.actor())
}

/// Refuses whoever has less than this role.
///
/// # Errors
/// A [`Problem`] with 403.
pub fn need(role: Role) -> Result<Principal, Problem> {
    who().filter(|who| who.has(role)).ok_or_else(|| match role {
        Role::Admin => Refusal::NotAdmin.problem(),
        Role::Auditor => Refusal::NotAuditor.problem(),
        _ => Refusal::ReadOnly.problem(),
    })
}

/// Refuses whoever may not say where the server connects to.
///
/// # Errors
/// A [`Problem`] with 403.
pub fn need_places() -> Result<Principal, Problem> {
    who().filter(Principal::may_name_places).ok_or_else(|| Refusal::NotAdmin.problem())
}

/// Knows the site's own token, by its hash alone, and the named ones.
#[derive(Debug)]
pub struct Operators {
    token: Sha256,
    named: Tokens,
    /// Signs session cookies; follows from the token, so sessions outlive a restart and end with the token.
    session_key: [u8; 32],
    failures: Mutex<BTreeMap<IpAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Timestamp,
    count: u32,
}

impl Operators {
    /// Reads the token at `path`; makes one, readable by the owner alone, where there is none.
    ///
    /// # Errors
    /// Where the file can be neither read nor made, or holds no token.
    pub fn open(path: &Path, named: Tokens) -> Result<Self, AuthError> {
        let file = |action| move |cause| AuthError::File { action, path: path.to_owned(), cause };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let token = secret::token()?;
                secret::write_private(path, &format!("{token}\n")).map_err(file("make"))?;
                tracing::info!(path = %path.display(), "made a new operators' token");
                token
            }
            Err(cause) => return Err(file("read")(cause)),
        };
        let token = text.trim();
        if token.len() < 32 {
            return Err(AuthError::Short { path: path.to_owned() });
        }
        Ok(Self::new(token, named))
    }

    /// Knows this token.
    pub fn new(token: &str, named: Tokens) -> Self {
        let session_key = secret::hmac(token.as_bytes(), b"billet session key 1");
        Self { token: secret::hash(token), named, session_key, failures: Mutex::default() }
    }

    /// The named tokens.
    pub fn named(&self) -> &Tokens {
        &self.named
    }

    /// Projects and users.
    pub fn tenancy(&self) -> &Tenancy {
        self.named.tenancy()
    }

    /// Whoever has this token; takes as long for a wrong one.
    pub fn with_token(&self, text: &str, now: Timestamp) -> Option<Principal> {
        let hash = secret::hash(text);
        if secret::same(&hash, &self.token) {
            return Some(Principal::site());
        }
        self.named.with_hash(&hash, now).or_else(|| self.named.accounts().with_hash(&hash, now))
    }

    /// Passwords, second factors and sessions of users.
    pub fn accounts(&self) -> &Accounts {
        self.named.accounts()
    }

    /// Whoever that was, if they may still come in.
    pub fn again(&self, person: &Person) -> Option<Principal> {
        match (person.token, person.user) {
            (Some(token), _) => self.named.with_id(token, now()),
            (None, Some(user)) => self.tenancy().principal(UserId(user)),
            (None, None) => Some(Principal::site()),
        }
    }

    /// As [`Operators::with_token`], counting wrong ones by address as the listener does; for ways in that are not HTTP.
    pub fn try_token(&self, text: &str, address: IpAddr) -> Option<Principal> {
        let found = self.with_token(text, now());
        if found.is_none() {
            self.failed(address, now());
        }
        found
    }

    /// A session that begins now: its end, whose it is and a signature over both.
    pub fn session(&self, who: &Principal, now: Timestamp) -> String {
        let end = now.after(SESSION).0;
        match who.token {
            None => format!("{end}.{}", self.sign(end, None)),
            Some(id) => format!("{end}.{id}.{}", self.sign(end, Some(id))),
        }
    }

    /// Whose session this is, if it is ours, has not ended, and neither has the token it began with.
    pub fn with_session(&self, text: &str, now: Timestamp) -> Option<Principal> {
        // Sessions of users are in the database; their secrets have no dot.
        let Some((end, rest)) = text.split_once('.') else {
            return self.named.accounts().with_hash(&secret::hash(text), now);
        };
        let (id, mac) = match rest.split_once('.') {
            Some((id, mac)) => (Some(id.parse().ok()?), mac),
            None => (None, rest),
        };
        let (end, mac): (u64, Sha256) = (end.parse().ok()?, mac.parse().ok()?);
        if !secret::same(&mac, &self.sign(end, id)) || now.0 >= end {
            return None;
        }
        match id {
            None => Some(Principal::site()),
            Some(id) => self.named.with_id(id, now),
        }
    }

    fn sign(&self, end: u64, token: Option<Uuid>) -> Sha256 {
        let mut message = end.to_be_bytes().to_vec();
        message.extend(token.iter().flat_map(|id| id.as_bytes()));
        Sha256(secret::hmac(&self.session_key, &message))
    }

    /// Counts a wrong token; true where the address has sent too many. A right one is taken even then: with 256 bits
    /// nobody guesses it, and nobody who shares an address with a misconfigured program is locked out. The limit
    /// keeps log and event loop from being flooded.
    pub(super) fn failed(&self, address: IpAddr, now: Timestamp) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, f| now.since(f.since) < WINDOW);
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&address) {
            let oldest = failures.iter().min_by_key(|(_, f)| f.since).map(|(address, _)| *address);
            if let Some(oldest) = oldest {
                failures.remove(&oldest);
            }
        }
        let entry = failures.entry(address).or_insert(Failures { since: now, count: 0 });
        entry.count = entry.count.saturating_add(1);
        if entry.count == FAILURES_MAX {
            tracing::warn!(%address, "{FAILURES_MAX} wrong operator tokens within a minute");
        }
        entry.count > FAILURES_MAX
    }

    fn check(&self, request: &Request, now: Timestamp) -> Result<Principal, Refusal> {
        let headers = request.headers();
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let who = match headers.get(AUTHORIZATION) {
            Some(given) => {
                let token = given.to_str().ok().and_then(bearer);
                match token.and_then(|token| self.with_token(token, now)) {
                    Some(who) => who,
                    None if self.failed(address_of(request), now) => return Err(Refusal::TooMany),
                    None => return Err(Refusal::WrongToken),
                }
            }
            None => {
                let session = cookie(headers, COOKIE_NAME).ok_or(Refusal::Nothing)?;
                let who = self.with_session(session, now).ok_or(Refusal::Nothing)?;
                if changes && !is_same_origin(headers) {
                    return Err(Refusal::OtherSite);
                }
                who
            }
        };
        let path = request.uri().path();
        if path == LOGOUT || is_for_members(path) {
            return Ok(who);
        }
        match who.site {
            None if path == "/" => Err(Refusal::Elsewhere),
            None => Err(Refusal::Hidden),
            Some(role) if changes && !role.may_change() => Err(Refusal::ReadOnly),
            Some(_) => Ok(who),
        }
    }
}

/// True where the handler, not this module, decides who may come in.
fn is_for_members(path: &str) -> bool {
    let below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    FOR_MEMBERS.into_iter().any(below)
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Nothing,
    WrongToken,
    TooMany,
    OtherSite,
    ReadOnly,
    NotAdmin,
    NotAuditor,
    /// As if there were no such path.
    Hidden,
    /// To the pages of members.
    Elsewhere,
}

impl Refusal {
    fn problem(self) -> Problem {
        let (status, code, message, hint) = match self {
            Self::Nothing => (
                401,
                "unauthenticated",
                "the operators' token is needed",
                "send `Authorization: Bearer`, or log in",
            ),
            Self::WrongToken => (
                401,
                "wrong-token",
                "the token is not one of this server's, or was revoked",
                "the site's own is in operator.token in the server's state directory",
            ),
            Self::TooMany => {
                (429, "too-many-attempts", "too many wrong tokens from this address", "wait a minute")
            }
            Self::OtherSite => (
                403,
                "other-site",
                "the request comes from another web site",
                "use this server's own pages, or a bearer token",
            ),
            Self::ReadOnly => (403, "read-only", "this token may only look", "use the token of an operator"),
            Self::NotAdmin => (
                403,
                "not-admin",
                "only an administrator of the site may do this",
                "the site's own token may; it is in operator.token in the server's state directory",
            ),
            Self::NotAuditor => {
                (403, "not-auditor", "only an auditor of the site may see this", "ask an administrator")
            }
            Self::Hidden | Self::Elsewhere => return problem::not_found_problem(),
        };
        Problem { status, code: code.into(), message: message.into(), hint: hint.into() }
    }

    fn respond(self, request: &Request) -> Response {
        let browser = !request.uri().path().starts_with("/api/") && self == Self::Nothing;
        let headers = request.headers();
        if browser && headers.contains_key("hx-request") {
            // htmx goes to the login page instead of putting it into a part of this one.
            return (StatusCode::UNAUTHORIZED, [("hx-redirect", "/login")]).into_response();
        }
        if browser && matches!(*request.method(), Method::GET | Method::HEAD) {
            let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
            let login = format!("/login?next={}", encode(target));
            return (StatusCode::SEE_OTHER, [(LOCATION, login)]).into_response();
        }
        if self == Self::Elsewhere && matches!(*request.method(), Method::GET | Method::HEAD) {
            return (StatusCode::SEE_OTHER, [(LOCATION, HOME)]).into_response();
        }
        let mut response = ProblemResponse(self.problem()).into_response();
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self == Self::TooMany {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(WINDOW.as_secs()));
        }
        response
    }
}

/// Lets a request pass that has the token or a session; to be laid over everything at the operators' listener.
pub async fn require(State(operators): State<Arc<Operators>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if PUBLIC.contains(&path) || path.starts_with(PUBLIC_PREFIX) {
        return Asked::from(address_of(&request)).scope(next.run(request)).await;
    }
    match operators.check(&request, now()) {
        Ok(who) => {
            // For `InProject`, whatever the state of the handler is.
            request.extensions_mut().insert(operators.tenancy().clone());
            let asking = Asked::from(address_of(&request));
            cut_streams(asking.scope(WHO.scope(who.clone(), next.run(request))).await, who)
        }
        Err(refusal) => refusal.respond(&request),
    }
}

/// A stream of events ends with the token that opened it; any other answer is over before that matters.
fn cut_streams(response: Response, who: Principal) -> Response {
    let streams = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    if !streams || !who.can_end() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let until = Box::pin(async move { who.ended().await });
    Response::from_parts(parts, Body::from_stream(body.into_data_stream().take_until(until)))
}

/// `POST /login` and `POST /logout`; the form itself is a page of the UI.
pub fn routes(operators: Arc<Operators>, engine: Engine) -> Router {
    Router::new()
        .route("/login", post(login))
        .route("/logout", post(logout))
        .with_state(Door { operators, engine })
}

#[derive(Clone)]
struct Door {
    operators: Arc<Operators>,
    engine: Engine,
}

#[derive(Deserialize)]
struct LoginForm {
    #[serde(default)]
    token: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    next: String,
}

async fn login(
    State(Door { operators, engine }): State<Door>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Response {
    // A page of another site must not log a browser in under a token of its choice. Programs send no Origin.
    if headers.contains_key(ORIGIN) && !is_same_origin(&headers) {
        return ProblemResponse(Refusal::OtherSite.problem()).into_response();
    }
    let next = if is_local(&form.next) { form.next.as_str() } else { "/" };
    if let Some(who) = operators.with_token(form.token.trim(), now()) {
        let cookie = set_cookie(&operators.session(&who, now()), SESSION);
        let headers = [(LOCATION, next.to_owned()), (SET_COOKIE, cookie)];
        return (StatusCode::SEE_OTHER, Extension(Entered(who.name())), headers).into_response();
    }
    let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |p| p.0.0.ip());
    if form.token.is_empty() && !form.user.is_empty() {
        let typed = Typed { name: form.user.trim(), password: &form.password, code: form.code.trim() };
        return match sign_in(&engine, &operators, typed, At { source: address, agent: agent(&headers) }).await
        {
            Ok((who, text)) => {
                let headers = [(LOCATION, next.to_owned()), (SET_COOKIE, set_cookie(&text, SESSION))];
                (StatusCode::SEE_OTHER, Extension(Entered(who.name())), headers).into_response()
            }
            Err(error) => {
                let refused = match error {
                    AccountError::Wait(_) => "locked",
                    AccountError::CodeMissing => "code",
                    AccountError::Wrong => "password",
                    _ => "busy",
                };
                let user = encode(&shown(form.user.trim()));
                let again = format!("/login?refused={refused}&user={user}&next={}", encode(next));
                (StatusCode::SEE_OTHER, refused_for(refused), [(LOCATION, again)]).into_response()
            }
        };
    }
    let refusal = if operators.failed(address, now()) { "wait" } else { "wrong" };
    let again = format!("/login?refused={refusal}&next={}", encode(next));
    (StatusCode::SEE_OTHER, refused_for(refusal), [(LOCATION, again)]).into_response()
}

/// Why nobody came in, for the audit.
pub(super) fn refused_for(code: &str) -> Extension<problem::Code> {
    Extension(problem::Code(code.to_owned()))
}

async fn logout(State(door): State<Door>) -> Response {
    if let Some(Principal { user: Some(user), session: Some(session), .. }) = who() {
        // Where the database fails, the cookie is taken away all the same; the session ends by itself.
        if let Err(error) = door.operators.accounts().end_session(user, &session.to_string()).await {
            tracing::warn!(%error, "a session was not ended");
        }
    }
    let cookie = set_cookie("", Duration::ZERO);
    (StatusCode::SEE_OTHER, [(LOCATION, "/login".to_owned()), (SET_COOKIE, cookie)]).into_response()
}

/// Signs a user in, and says so in the event list, whether it went well or not.
///
/// # Errors
/// As [`Accounts::sign_in`].
pub async fn sign_in(
    engine: &Engine,
    operators: &Operators,
    typed: Typed<'_>,
    at: At,
) -> Result<(Principal, String), AccountError> {
    let result = operators.accounts().sign_in(engine.vault(), typed, at.clone()).await;
    let name = shown(typed.name);
    let (actor, kind, severity, message) = match &result {
        Ok((who, _)) => (who.actor(), "login.ok", Severity::Info, format!("{name} signed in")),
        Err(AccountError::Wrong) if operators.accounts().is_locked(typed.name, at.source) => {
            let message = format!("too many wrong passwords for `{name}`: locked out for a while");
            (Actor::Server, "login.locked", Severity::Warning, message)
        }
        Err(AccountError::Wrong) => {
            (Actor::Server, "login.failed", Severity::Warning, format!("wrong password or code for `{name}`"))
        }
        // Whoever is locked out, or has not typed the code yet, tried nothing.
        Err(_) => return result,
    };
    let noted = engine.note(actor, None, kind, severity, message).await;
    noted.map_err(AccountError::from).and(result)
}

/// What the browser or program calls itself.
pub fn agent(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).and_then(|h| h.to_str().ok()).unwrap_or_default();
    crate::accounts::agent(text)
}

/// The cookie of a session that began now.
pub(super) fn session_cookie(text: &str) -> String {
    set_cookie(text, SESSION)
}

/// Not `Secure`: the listener speaks plain HTTP, on loopback by default; a proxy in front adds TLS.
fn set_cookie(value: &str, age: Duration) -> String {
    format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", age.as_secs())
}

/// True for a path on this server: no scheme, no other host (`//host`, `/\host`), nothing that splits a header.
pub(super) fn is_local(target: &str) -> bool {
    let second = target.as_bytes().get(1);
    target.starts_with('/')
        && !matches!(second, Some(b'/' | b'\\'))
        && target.bytes().all(|b| b.is_ascii_graphic())
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Value of a cookie (RFC 6265 section 4.2.1).
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|h| h.to_str().ok())
        .flat_map(|h| h.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// True where the browser says that a page of this server asks (Fetch metadata), or, where it is too old for that,
/// names us as the origin. A browser that says neither is not believed.
pub fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|h: &HeaderValue| h.to_str().ok());
    if let Some(site) = text(axum::http::HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let (Some(origin), Some(host)) = (text(ORIGIN), text(HOST)) else { return false };
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

/// True where a WebSocket may be opened: browsers send their cookies along for every site that asks, and say which one it
/// is (RFC 6455 section 10.2). A program that brings a bearer token of its own is no browser.
pub fn may_open_socket(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|h: &HeaderValue| h.to_str().ok());
    if headers.contains_key(AUTHORIZATION) && !headers.contains_key(ORIGIN) {
        return true;
    }
    let (Some(origin), Some(host)) = (text(ORIGIN), text(HOST)) else { return false };
    is_same_origin(headers)
        && origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

fn address_of(request: &Request) -> IpAddr {
    request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn tokens(dir: &Path) -> Tokens {
        Tokens::open(crate::store::Store::open(&dir.join("billet.db")).unwrap()).await.unwrap()
    }

    fn directory() -> PathBuf {
        std::env::temp_dir().join(format!("billet-auth-{}", Uuid::new_v4()))
    }

    #[tokio::test]
    async fn a_session_ends_and_cannot_be_made_up() {
        let dir = directory();
        let named = tokens(&dir).await;
        let (operators, other) = (Operators::new("one", named.clone()), Operators::new("two", named.clone()));
        let (start, site) = (Timestamp(1000), Principal::site());
        let session = operators.session(&site, start);
        let holds = |session: &str, at| operators.with_session(session, at).is_some();
        assert!(holds(&session, start));
        assert!(!holds(&session, start.after(SESSION)));
        assert!(other.with_session(&session, start).is_none(), "another token");
        let later = session.replacen('4', "5", 1);
        for bad in [later.as_str(), "", ".", "1.2", "99999999999999.", "1.2.3"] {
            assert!(bad == session || !holds(bad, start), "{bad}");
        }
        let (alice, text) = named.create("alice", Role::Reader, None).await.unwrap();
        let (bob, _) = named.create("bob", Role::Operator, None).await.unwrap();
        let who = operators.with_token(&text, start).unwrap();
        let session = operators.session(&who, start);
        assert_eq!(operators.with_session(&session, start).unwrap().name(), "alice");
        let swapped = session.replace(&alice.id.to_string(), &bob.id.to_string());
        assert!(!holds(&swapped, start), "the session of somebody else");
        named.revoke(boot_server_core::access::Scope::Site, "alice").await.unwrap();
        assert!(!holds(&session, start), "revoked");
        fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn the_token_file_is_made_once_and_for_the_owner() {
        let dir = directory();
        let path = dir.join("operator.token");
        let named = tokens(&dir).await;
        let made = Operators::open(&path, named.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let token = fs::read_to_string(&path).unwrap();
        assert!(token.trim().len() >= 43 && made.with_token(token.trim(), now()).is_some());
        let again = Operators::open(&path, named.clone()).unwrap();
        assert!(again.with_token(token.trim(), now()).is_some(), "the same one again");
        fs::write(&path, "short\n").unwrap();
        assert!(matches!(Operators::open(&path, named), Err(AuthError::Short { .. })));
        fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn wrong_tokens_are_counted_by_address_and_forgotten() {
        let dir = directory();
        let operators = Operators::new("t", tokens(&dir).await);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let results: Vec<bool> = (0..12).map(|_| operators.failed(a, Timestamp(5))).collect();
        assert_eq!(results.iter().filter(|r| **r).count(), 2);
        assert!(!operators.failed(b, Timestamp(5)));
        assert!(!operators.failed(a, Timestamp(5).after(WINDOW)), "a minute later");
        for n in 0..5000_u32 {
            operators.failed(IpAddr::from(n.to_be_bytes()), Timestamp(100_000));
        }
        assert!(operators.failures.lock().unwrap().len() <= ADDRESSES_MAX);
    }

    #[test]
    fn another_site_is_told_apart() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_same_origin(&headers)
        };
        assert!(of(&[("sec-fetch-site", "same-origin")]));
        assert!(!of(&[("sec-fetch-site", "same-site"), ("origin", "http://h:1"), ("host", "h:1")]));
        assert!(!of(&[("sec-fetch-site", "cross-site")]));
        assert!(of(&[("origin", "http://h:1"), ("host", "h:1")]));
        assert!(!of(&[("origin", "http://evil"), ("host", "h:1")]));
        assert!(!of(&[("origin", "null"), ("host", "h:1")]));
        assert!(!of(&[("host", "h:1")]));
    }

    #[test]
    fn only_our_own_pages_follow_a_login() {
        for good in ["/", "/nodes/x?tab=1"] {
            assert!(is_local(good), "{good}");
        }
        for bad in ["", "nodes", "//evil", "/\\evil", "http://evil", "/x\r\nset-cookie: a=b", "/ü"] {
            assert!(!is_local(bad), "{bad}");
        }
    }
}
