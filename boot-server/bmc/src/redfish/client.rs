//! Requests in the name of an account: log in, log in again once where the session is gone, `If-Match`, redirects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::address::Link;
use super::json::{self, Resource, View};
use super::limits;
use super::quirks::Profile;
use super::refusal;
use super::wire::{Answer, Ask, Deadline, Wire};
use crate::{BmcError, Credentials};

/// Header of a session's token (DSP0266, section 13.3.4).
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// How requests are signed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// Not yet.
    None,
    /// By a session.
    Session {
        token: HeaderValue,
        link: Option<Link>,
        /// The account whose password must be changed before anything else (DSP0266, section 13.3.7).
        change: Option<Link>,
    },
    /// By user name and password with each request, where there is no session service.
    Basic,
    /// Refused at this time; see [`limits::LOGIN_PAUSE`].
    Refused(Instant),
}

/// A controller and an account.
pub(super) struct Client {
    pub(super) wire: Wire,
    credentials: std::sync::Mutex<Credentials>,
    /// Held while logging in, which is the point: many requests of one call, one login.
    login: tokio::sync::Mutex<Login>,
}

/// Where and how a service lets one log in.
#[derive(Clone, Copy)]
pub(super) struct Door<'a> {
    /// The collection of sessions.
    pub(super) sessions: Option<&'a Link>,
    pub(super) profile: &'a Profile,
}

impl Client {
    pub(super) fn new(wire: Wire, credentials: Credentials) -> Self {
        Self { wire, credentials: credentials.into(), login: Login::None.into() }
    }

    pub(super) fn credentials(&self) -> Credentials {
        self.credentials.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// From now on this is the password. The session stays, unless it was only good for changing the password.
    pub(super) async fn set_password(&self, password: &crate::Secret) {
        self.credentials.lock().unwrap_or_else(std::sync::PoisonError::into_inner).password =
            password.clone();
        let mut login = self.login.lock().await;
        if matches!(&*login, Login::Session { change: Some(_), .. }) {
            self.end(std::mem::replace(&mut *login, Login::None)).await;
        }
    }

    /// Sends a request without any credential: the service root, and nothing else.
    pub(super) async fn ask_openly(&self, deadline: Deadline, link: &Link) -> Result<Answer, BmcError> {
        self.follow(deadline, Ask { method: Method::GET, link, headers: Vec::new(), body: Bytes::new() })
            .await
    }

    /// Sends a request; 401 is answered by one new login.
    pub(super) async fn ask(
        &self,
        deadline: Deadline,
        door: Door<'_>,
        ask: Ask<'_>,
    ) -> Result<Answer, BmcError> {
        let what = ask.what();
        let first = self.login(deadline, door, None).await?;
        let answer = self.follow(deadline, self.signed(&ask, &first)?).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        if first == Login::Basic {
            *self.login.lock().await = Login::Refused(Instant::now());
            return Err(BmcError::Login);
        }
        let second = self.login(deadline, door, Some(&first)).await?;
        let answer = self.follow(deadline, self.signed(&ask, &second)?).await?;
        match answer.status {
            // The login was taken, so this is about rights, whatever the service calls it.
            StatusCode::UNAUTHORIZED if second == Login::Basic => Err(BmcError::Login),
            StatusCode::UNAUTHORIZED => Err(BmcError::Forbidden { what }),
            _ => Ok(answer),
        }
    }

    /// The headers of the account's present login, for what does not go through [`Client::ask`].
    pub(super) async fn login_headers(
        &self,
        deadline: Deadline,
        door: Door<'_>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, BmcError> {
        let login = self.login(deadline, door, None).await?;
        Ok(self.credential(&login)?.into_iter().collect())
    }

    /// See [`Login::Session`].
    pub(super) async fn account_to_change(&self) -> Option<Link> {
        match &*self.login.lock().await {
            Login::Session { change, .. } => change.clone(),
            _ => None,
        }
    }

    fn signed<'a>(&self, ask: &Ask<'a>, login: &Login) -> Result<Ask<'a>, BmcError> {
        let mut headers = ask.headers.clone();
        headers.extend(self.credential(login)?);
        Ok(Ask { method: ask.method.clone(), link: ask.link, headers, body: ask.body.clone() })
    }

    fn credential(&self, login: &Login) -> Result<Option<(HeaderName, HeaderValue)>, BmcError> {
        match login {
            Login::Session { token, .. } => Ok(Some((TOKEN, token.clone()))),
            Login::Basic => Ok(Some((header::AUTHORIZATION, self.basic()?))),
            Login::None | Login::Refused(_) => Ok(None),
        }
    }

    /// RFC 7617.
    fn basic(&self) -> Result<HeaderValue, BmcError> {
        let Credentials { user, password } = self.credentials();
        let text = STANDARD.encode(format!("{user}:{}", password.0));
        let mut value = HeaderValue::from_str(&format!("Basic {text}")).map_err(|_| BmcError::Login)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The present login, or a new one where there is none or it is the `stale` one.
    async fn login(
        &self,
        deadline: Deadline,
        door: Door<'_>,
        stale: Option<&Login>,
    ) -> Result<Login, BmcError> {
        let mut login = self.login.lock().await;
        match &*login {
            Login::Refused(at) if at.elapsed() < limits::LOGIN_PAUSE => return Err(BmcError::Login),
            Login::None | Login::Refused(_) => {}
            present if stale != Some(present) => return Ok(present.clone()),
            _ => {}
        }
        // Whatever comes, the old session is of no use any more.
        *login = Login::None;
        let result = self.new_session(deadline, door).await;
        *login = match &result {
            Ok(new) => new.clone(),
            Err(BmcError::Login) => Login::Refused(Instant::now()),
            Err(_) => Login::None,
        };
        result
    }

    /// DSP0266, section 13.3.4.2: POST to the collection of sessions.
    async fn new_session(&self, deadline: Deadline, door: Door<'_>) -> Result<Login, BmcError> {
        let Some(sessions) = door.sessions else { return Ok(Login::Basic) };
        let Credentials { user, password } = self.credentials();
        let body = json!({ "UserName": user, "Password": password.0 });
        let ask = Ask { method: Method::POST, link: sessions, headers: vec![json_type()], body: text(&body) };
        let what = ask.what();
        let answer = self.wire.exchange(deadline, &ask).await?;
        match answer.status {
            status if status.is_success() => self.session_of(&what, sessions, &answer),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                Ok(Login::Basic)
            }
            StatusCode::UNAUTHORIZED => Err(BmcError::Login),
            status if status.is_redirection() => Err(self.redirected(&what, &answer)),
            _ => Err(refusal::of(&what, &answer, door.profile)),
        }
    }

    fn session_of(&self, what: &str, sessions: &Link, answer: &Answer) -> Result<Login, BmcError> {
        let malformed = |why: &str| BmcError::Malformed { what: what.to_owned(), why: why.to_owned() };
        let origin = &self.wire.origin;
        let link = match answer.header("location") {
            Some(location) => Some(origin.link(what, location)?),
            // Some services tell it in the body only.
            None => json::parse(what, &answer.body)
                .ok()
                .map(|body| View::new(origin, sessions.to_string(), &body).id())
                .transpose()?
                .flatten(),
        };
        let mut token =
            answer.headers.get(&TOKEN).cloned().ok_or_else(|| malformed("a session without X-Auth-Token"))?;
        token.set_sensitive(true);
        let change = refusal::arguments(answer, "PasswordChangeRequired");
        let change = change.first().map(|l| origin.link(what, l)).transpose()?;
        Ok(Login::Session { token, link, change })
    }

    /// Sends, and follows redirects of reads to the controller itself.
    async fn follow(&self, deadline: Deadline, ask: Ask<'_>) -> Result<Answer, BmcError> {
        let what = ask.what();
        let mut answer = self.wire.exchange(deadline, &ask).await?;
        for _ in 0..limits::REDIRECTS {
            if !answer.status.is_redirection() || answer.status == StatusCode::NOT_MODIFIED {
                return Ok(answer);
            }
            let Some(location) = answer.header("location") else {
                return Err(self.redirected(&what, &answer));
            };
            let link = self.wire.origin.link(&what, location)?;
            if ask.method != Method::GET {
                return Err(self.redirected(&what, &answer));
            }
            let again =
                Ask { method: Method::GET, link: &link, headers: ask.headers.clone(), body: Bytes::new() };
            answer = self.wire.exchange(deadline, &again).await?;
        }
        if answer.status.is_redirection() { Err(self.redirected(&what, &answer)) } else { Ok(answer) }
    }

    /// Why a redirect is not followed: it leads elsewhere, or nowhere.
    fn redirected(&self, what: &str, answer: &Answer) -> BmcError {
        match answer.header("location").map(|l| self.wire.origin.link(what, l)) {
            Some(Err(error)) => error,
            _ => BmcError::Malformed {
                what: what.to_owned(),
                why: format!("a redirect ({}) that cannot be followed", answer.status.as_u16()),
            },
        }
    }

    /// Ends the session, where there is one, and closes the connections.
    pub(super) async fn close(&self) {
        let mut login = self.login.lock().await;
        self.end(std::mem::replace(&mut *login, Login::None)).await;
        self.wire.close();
    }

    async fn end(&self, login: Login) {
        let Login::Session { token, link: Some(link), .. } = login else { return };
        let ask =
            Ask { method: Method::DELETE, link: &link, headers: vec![(TOKEN, token)], body: Bytes::new() };
        match self.wire.exchange(Deadline::after(limits::LOGOUT), &ask).await {
            Ok(answer) if answer.status.is_success() => {}
            Ok(answer) => tracing::debug!(status = answer.status.as_u16(), "a BMC did not end the session"),
            Err(error) => tracing::debug!(%error, "a BMC did not end the session"),
        }
    }
}

/// The resource of an answer.
pub(super) fn resource(what: &str, link: &Link, answer: &Answer) -> Result<Resource, BmcError> {
    let body: Value = json::parse(what, &answer.body)?;
    if !body.is_object() {
        return Err(BmcError::Malformed { what: what.to_owned(), why: "the whole is no object".to_owned() });
    }
    let told = body.get("@odata.etag").and_then(Value::as_str).map(str::trim).filter(|e| !e.is_empty());
    let etag = answer.header("etag").or(told).map(str::to_owned);
    Ok(Resource { link: link.clone(), etag, body })
}

pub(super) fn json_type() -> (HeaderName, HeaderValue) {
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
}

pub(super) fn text(body: &Value) -> Bytes {
    Bytes::from(body.to_string())
}
