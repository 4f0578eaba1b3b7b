//! A thin client of the REST API: JSON in, JSON out, so that tests say what goes over the wire.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::http::{Method, Request};
use ureq::{Agent, Body, SendBody};

/// Time for one answer; uploads and verifications take their time.
const ANSWER: Duration = Duration::from_secs(300);
/// Largest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 << 20;
/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(200);

/// A client with a token.
#[derive(Debug, Clone)]
pub struct Api {
    /// Base URL, without a slash at its end.
    pub base: String,
    /// Bearer token; empty for none.
    pub token: String,
    agent: Agent,
}

/// An answer that is not a success.
#[derive(Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The body: problem details, or text.
    pub body: Value,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the API answered {}: {}", self.status, self.body)
    }
}

impl std::error::Error for ApiError {}

impl Api {
    /// A client of the server at `base`.
    pub fn new(base: String, token: String) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(ANSWER))
            .build();
        Self { base, token, agent: config.new_agent() }
    }

    /// The same server with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`ApiError`] where the answer is no success.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, &[], SendBody::none())
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::POST, path, body)
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::PUT, path, body)
    }

    /// `PATCH path` with a JSON body.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::PATCH, path, body)
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.send(Method::DELETE, path, &[], SendBody::none())
    }

    /// `POST path` with the content of a file.
    ///
    /// # Errors
    /// As [`Api::get`], and where the file cannot be read.
    pub fn upload(&self, path: &str, file: &Path) -> Result<Value> {
        let file = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        let length = file.metadata()?.len().to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", length.as_str())];
        self.send(Method::POST, path, &headers, SendBody::from_owned_reader(file))
    }

    /// Any request. A header given here replaces none.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: SendBody<'_>,
    ) -> Result<Value> {
        let what = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.agent.run(request.body(body)?).with_context(|| what.clone())?;
        let status = answer.status().as_u16();
        let body = value(answer.into_body()).with_context(|| format!("the answer to {what}"))?;
        if (200..300).contains(&status) { Ok(body) } else { Err(ApiError { status, body }).context(what) }
    }

    /// Asks `GET path` until `done` finds what it looks for, and returns that.
    ///
    /// # Errors
    /// Where it is not found within `timeout`; the error shows the last answer. Refusals and a server that is away
    /// are waited out.
    pub fn wait<T>(
        &self,
        path: &str,
        timeout: Duration,
        mut done: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + timeout;
        loop {
            let answer = self.get(path);
            if let Some(found) = answer.as_ref().ok().and_then(&mut done) {
                return Ok(found);
            }
            if Instant::now() > end {
                match answer {
                    Ok(value) => {
                        bail!("GET {path} does not show what was waited for after {timeout:?}: {value:#}")
                    }
                    Err(e) => return Err(e.context(format!("waited {timeout:?}"))),
                }
            }
            std::thread::sleep(POLL);
        }
    }

    fn json(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let bytes = serde_json::to_vec(body)?;
        let length = bytes.len().to_string();
        let headers = [("content-type", "application/json"), ("content-length", length.as_str())];
        self.send(method, path, &headers, SendBody::from_owned_reader(std::io::Cursor::new(bytes)))
    }
}

/// JSON where it is JSON, a string where it is not, null where it is empty.
fn value(body: Body) -> Result<Value> {
    let mut text = String::new();
    body.into_reader().take(ANSWER_MAX).read_to_string(&mut text)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
