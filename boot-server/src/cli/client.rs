//! The API's client: blocking HTTP, one method per shape of request, problems as the server worded them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, SendBody};

use super::Failure;
use super::context::{Context, Contexts};
pub(super) use crate::http::encode;
use crate::view::{ApprovalAsked, Page, Problem};

/// Where the server listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8090";
/// Where the server keeps its token by default.
const SERVER_TOKEN: &str = "/var/lib/billet/operator.token";
/// Time for a connection; the server is on the same site.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for an answer's headers, except uploads and verifications, which work for long before they answer.
const ANSWER: Duration = Duration::from_secs(75);
/// Largest answer that is read, in bytes: a page of nodes with their inventories stays far below.
const ANSWER_MAX: u64 = 64 << 20;

/// Where the server is, and how to prove who we are.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Connection {
    /// Address of the server
    // Of its own id: clap hands the value of whatever a subcommand calls `server` up to a global of that id.
    #[arg(id = "site", long = "server", global = true, env = "BILLET_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// One of the servers that `billet context` remembers
    #[arg(long, global = true, env = "BILLET_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// File with the operator's token
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The operator's token
    #[arg(skip = std::env::var("BILLET_TOKEN").ok())]
    pub token: Option<String>,
}

/// What `billet login` remembers.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Login {
    pub(super) server: String,
    pub(super) token: String,
}

impl Connection {
    /// The server's address: as told, as the context says, as logged in to, or the default.
    pub fn address(&self) -> String {
        // A context that cannot be found is complained of where the server is asked.
        let context = self.found().ok().flatten().map(|context| context.server);
        let address = self.given().or(context).or_else(|| remembered().map(|l| l.server));
        address.unwrap_or_else(|| DEFAULT_SERVER.to_owned()).trim_end_matches('/').to_owned()
    }

    /// The server that was told.
    pub(super) fn given(&self) -> Option<String> {
        self.server.as_ref().map(|server| server.trim_end_matches('/').to_owned())
    }

    /// The token that was told, by a file or the environment.
    pub(super) fn given_token(&self) -> Result<Option<String>, Failure> {
        if let Some(file) = &self.token_file {
            return read_token(file).map(Some);
        }
        Ok(self.token.as_ref().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
    }

    fn found(&self) -> Result<Option<Context>, Failure> {
        Ok(Contexts::read()?.find(self.context.as_deref())?.cloned())
    }

    /// A client.
    ///
    /// # Errors
    /// Where no token can be found, or no context of that name.
    pub fn client(&self) -> Result<Client, Failure> {
        // One that was named must be there.
        let context = if self.context.is_some() { self.found()? } else { self.found().unwrap_or_default() };
        let server = self.address();
        let token = self.find_token(&server, context)?;
        Ok(Client::new(server, token))
    }

    fn find_token(&self, server: &str, context: Option<Context>) -> Result<String, Failure> {
        if let Some(token) = self.given_token()? {
            return Ok(token);
        }
        // A token is sent only to the server it was given for.
        if let Some(context) = context.filter(|context| context.server == server) {
            return Ok(context.token);
        }
        if let Some(login) = remembered().filter(|l| l.server == server) {
            return Ok(login.token);
        }
        read_token(Path::new(SERVER_TOKEN))
    }
}

fn read_token(file: &Path) -> Result<String, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(e) => Err(Failure::Hinted {
            message: format!("cannot read the operator's token from {}: {e}", file.display()),
            hint: "run as root on the server, or give --token-file, BILLET_TOKEN, or use `billet login`"
                .to_owned(),
        }),
    }
}

/// File in which `billet login` remembers server and token.
pub(super) fn login_file() -> Option<PathBuf> {
    Some(directory()?.join("login.json"))
}

/// Where the command line keeps what it remembers of this user (XDG base directories).
pub(super) fn directory() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    config.is_absolute().then(|| config.join("billet"))
}

fn remembered() -> Option<Login> {
    serde_json::from_slice(&fs::read(login_file()?).ok()?).ok()
}

/// Talks to one server.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    server: String,
    token: String,
}

impl Client {
    /// A client of the server at `server` (scheme, host, port).
    pub fn new(server: String, token: String) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .user_agent(concat!("billet/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent(), server, token }
    }

    /// Where it talks to.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The token it uses.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Reads.
    ///
    /// # Errors
    /// As the server words it, or where it cannot be reached.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        let response = request.config().timeout_recv_response(Some(ANSWER)).build().call();
        parse(self.reached(response)?)
    }

    /// Reads all pages of a list.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Page<T>, Failure> {
        let mut page: Page<T> = self.get(path)?;
        while let Some(cursor) = page.next.take() {
            let mark = if path.contains('?') { '&' } else { '?' };
            let more: Page<T> = self.get(&format!("{path}{mark}cursor={}", encode(&cursor)))?;
            page.items.extend(more.items);
            page.next = more.next;
        }
        Ok(page)
    }

    /// Asks for something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        self.post_with(path, body, Some(ANSWER), None)
    }

    /// Asks for something that may take its time before it answers (`None`: as long as it takes), or that must happen
    /// once only, however often it is sent (`key`).
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_with<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        patience: Option<Duration>,
        key: Option<&str>,
    ) -> Result<T, Failure> {
        let mut request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.config().timeout_recv_response(patience).build().send_json(body);
        parse(self.reached(response)?)
    }

    /// Asks for something that must happen once only. With the caller's own key an answer that was lost can be had by asking
    /// again; without one a key is made.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_once<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        key: Option<String>,
    ) -> Result<T, Failure> {
        let key = key.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        self.post_with(path, body, Some(ANSWER), Some(&key))
    }

    /// Sets something; what has nothing to answer is `()`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        let request = self.agent.put(self.url(path)).header("authorization", self.bearer());
        let response = request.config().timeout_recv_response(Some(ANSWER)).build().send_json(body);
        parse(self.reached(response)?)
    }

    /// Reads something, and sets it to what `edit` makes of it, unless somebody else changed it in between.
    ///
    /// # Errors
    /// As [`Client::get`], and what `edit` says.
    pub fn change<T: DeserializeOwned, B: Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        edit: impl FnOnce(T) -> Result<B, Failure>,
    ) -> Result<R, Failure> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        let response = request.config().timeout_recv_response(Some(ANSWER)).build().call();
        let response = check(self.reached(response)?)?;
        let tag = response.headers().get("etag").cloned();
        let body = edit(parse(response)?)?;
        let mut request = self.agent.put(self.url(path)).header("authorization", self.bearer());
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        let response = request.config().timeout_recv_response(Some(ANSWER)).build().send_json(&body);
        parse(self.reached(response)?)
    }

    /// Changes a part of something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn patch<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        let request = self.agent.patch(self.url(path)).header("authorization", self.bearer());
        let response = request.config().timeout_recv_response(Some(ANSWER)).build().send_json(body);
        parse(self.reached(response)?)
    }

    /// Reads octets as they are, at most `max`, with one header of the answer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn octets_with(
        &self,
        path: &str,
        max: u64,
        header: &str,
    ) -> Result<(Vec<u8>, Option<String>), Failure> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        let response = request.config().timeout_recv_response(Some(ANSWER)).build().call();
        let mut response = check(self.reached(response)?)?;
        let value = response.headers().get(header).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let octets = response.body_mut().with_config().limit(max).read_to_vec();
        octets
            .map(|octets| (octets, value))
            .map_err(|e| Failure::Other(format!("the server's answer broke off: {e}")))
    }

    /// Reads octets as they are, at most `max`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn octets(&self, path: &str, max: u64) -> Result<Vec<u8>, Failure> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        let response = request.config().timeout_recv_response(Some(ANSWER)).build().call();
        let mut response = check(self.reached(response)?)?;
        let octets = response.body_mut().with_config().limit(max).read_to_vec();
        octets.map_err(|e| Failure::Other(format!("the server's answer broke off: {e}")))
    }

    /// Removes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete(&self, path: &str) -> Result<(), Failure> {
        let response = self.agent.delete(self.url(path)).header("authorization", self.bearer()).call();
        parse::<serde_json::Value>(self.reached(response)?).map(drop)
    }

    /// Removes, and says what was removed.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete_with<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.agent.delete(self.url(path)).header("authorization", self.bearer()).call();
        parse(self.reached(response)?)
    }

    /// Sends a file of `size` bytes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        size: u64,
        key: &str,
        body: &mut dyn Read,
    ) -> Result<T, Failure> {
        let request = self
            .agent
            .post(self.url(path))
            .header("authorization", self.bearer())
            .header("idempotency-key", key)
            .header("content-type", "application/octet-stream")
            .header("content-length", size.to_string())
            // So that a server that refuses the name does so before the bytes are sent (RFC 9110 section 10.1.1).
            .header("expect", "100-continue");
        let response = request.send(SendBody::from_reader(body));
        parse(self.reached(response)?)
    }

    /// Opens a stream of events, after `last` where given.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn stream(&self, path: &str, last: Option<i64>) -> Result<impl Read + use<>, Failure> {
        let mut request = self
            .agent
            .get(self.url(path))
            .header("authorization", self.bearer())
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        // The server sends a comment every 15 s; three missed ones mean that it is gone.
        let response = request.config().timeout_per_read(Some(Duration::from_secs(50))).build().call();
        let response = check(self.reached(response)?)?;
        Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.server)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn reached(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
        response.map_err(|e| match e {
            ureq::Error::Timeout(_) => Failure::Timeout(format!("{} did not answer in time", self.server)),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Failure::Usage(format!("`{}` is not the address of a server", self.server))
            }
            other => Failure::Unreachable { server: self.server.clone(), cause: other.to_string() },
        })
    }
}

fn check(mut response: Response<Body>) -> Result<Response<Body>, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.body_mut().with_config().limit(1 << 20).read_to_string().unwrap_or_default();
    let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
        status: status.as_u16(),
        code: "http".to_owned(),
        message: format!("the server answered {status}"),
        hint: match status {
            StatusCode::NOT_FOUND => "is this the operators' address of a Billet server?".to_owned(),
            _ => String::new(),
        },
    });
    Err(Failure::Problem(problem))
}

fn parse<T: DeserializeOwned>(response: Response<Body>) -> Result<T, Failure> {
    let mut response = check(response)?;
    let status = response.status();
    let text = response
        .body_mut()
        .with_config()
        .limit(ANSWER_MAX)
        .read_to_vec()
        .map_err(|e| Failure::Other(format!("the server's answer broke off: {e}")))?;
    if status == StatusCode::ACCEPTED
        && let Ok(ApprovalAsked { message, id, .. }) = serde_json::from_slice(&text)
    {
        let hint = format!("`billet approval approve {id}`, by another person, does it");
        return Err(Failure::Hinted { message, hint });
    }
    let body: &[u8] = if text.is_empty() { b"null" } else { &text };
    serde_json::from_slice(body).map_err(|e| Failure::Hinted {
        message: format!("the server's answer is not what was expected: {e}"),
        hint: "is the server of another version than this program? See `billet status`".to_owned(),
    })
}
