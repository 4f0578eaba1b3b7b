//! HTTP/1.1 as the agents of nodes and DPUs speak it with the provisioning listener: kept connections, literal addresses, no
//! redirects, no proxy from the environment, no answer that is longer than expected. No name is ever looked up: a static
//! binary has no NSS. Who asks what, and how often, is the agents' business.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

pub mod backoff;

pub use backoff::Backoff;

/// Octets of a problem that are read, and characters of it that are told.
const PROBLEM_MAX: usize = 4 << 10;
/// See [`PROBLEM_MAX`].
const WORDS_MAX: usize = 300;

/// Longest waits for the three parts of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For a connection.
    pub connect: Duration,
    /// For the head of an answer.
    pub head: Duration,
    /// For its body.
    pub body: Duration,
}

/// Why one request failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection failed, or the answer broke off.
    #[error("{url}: {cause}")]
    Network {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        cause: Box<ureq::Error>,
    },
    /// An answer other than 2xx.
    #[error("{url}: HTTP status {status}{said}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status code.
        status: u16,
        /// What the server says to it: nothing, or words after a colon.
        said: String,
    },
    /// An answer larger than it may be.
    #[error("{url}: answer is larger than {max} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// Limit in bytes.
        max: usize,
    },
    /// The answer is not what it should be.
    #[error("{url}: the answer makes no sense: {cause}")]
    Answer {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
}

impl HttpError {
    /// HTTP status, where that is the failure.
    pub fn status(&self) -> Option<u16> {
        if let Self::Status { status, .. } = self { Some(*status) } else { None }
    }

    /// True where the server says no and means it (RFC 9110, 15.5), not "later" (408, 429).
    pub fn is_refusal(&self) -> bool {
        matches!(self.status(), Some(400..=499)) && !matches!(self.status(), Some(408 | 429))
    }

    /// True where the server does not know who asks (any more).
    pub fn is_unknown_session(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }

    /// A failure of the network.
    pub fn network(url: &str, cause: ureq::Error) -> Self {
        Self::Network { url: url.to_owned(), cause: Box::new(cause) }
    }
}

/// A client of our own kind.
pub fn agent(user_agent: &str, waits: Waits) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .timeout_connect(Some(waits.connect))
        .timeout_recv_response(Some(waits.head))
        .timeout_recv_body(Some(waits.body))
        .user_agent(user_agent)
        .build();
    Agent::with_parts(config, DefaultConnector::default(), LiteralResolver)
}

/// True for a base URL that [`agent`] can reach: `http://`, an address, and perhaps a port.
pub fn is_literal(base: &str) -> bool {
    let Ok(uri) = base.parse::<Uri>() else { return false };
    uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none() && address(&uri).is_some()
}

/// Resolves addresses only.
#[derive(Debug)]
struct LiteralResolver;

impl Resolver for LiteralResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        found.push(address(uri).ok_or(ureq::Error::HostNotFound)?);
        Ok(found)
    }
}

fn address(uri: &Uri) -> Option<SocketAddr> {
    let host: IpAddr = uri.host()?.trim_matches(['[', ']']).parse().ok()?;
    Some(SocketAddr::new(host, uri.port_u16().unwrap_or(80)))
}

/// Fetches a body of at most `max` bytes.
///
/// # Errors
/// [`HttpError`].
pub fn get(agent: &Agent, url: &str, max: usize, into: &mut Vec<u8>) -> Result<(), HttpError> {
    let response = agent.get(url).call().map_err(|e| HttpError::network(url, e))?;
    match response.status().as_u16() {
        200 => read(url, response, max, into),
        _ => Err(refused(url, response)),
    }
}

/// Posts JSON, with a bearer token where one is given, and reads the answer, JSON of at most `max` bytes.
///
/// # Errors
/// [`HttpError`].
pub fn post<T: DeserializeOwned>(
    agent: &Agent,
    url: &str,
    bearer: Option<&str>,
    body: &impl Serialize,
    max: usize,
) -> Result<T, HttpError> {
    let body = body_of(url, body)?;
    let mut request = agent.post(url).header("content-type", "application/json");
    if let Some(token) = bearer {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    json(url, request.send(&body[..]), max)
}

/// A value as JSON, to be sent to `url`.
///
/// # Errors
/// [`HttpError::Answer`], which types that have text for keys do not give.
pub fn body_of(url: &str, value: &impl Serialize) -> Result<Vec<u8>, HttpError> {
    serde_json::to_vec(value).map_err(|cause| HttpError::Answer { url: url.to_owned(), cause })
}

/// The answer as JSON of at most `max` bytes.
///
/// # Errors
/// [`HttpError`].
pub fn json<T: DeserializeOwned>(
    url: &str,
    response: Result<Response<Body>, ureq::Error>,
    max: usize,
) -> Result<T, HttpError> {
    let mut bytes = Vec::new();
    read(url, check(url, response)?, max, &mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|cause| HttpError::Answer { url: url.to_owned(), cause })
}

/// The answer, where it is a success.
///
/// # Errors
/// [`HttpError`].
pub fn check(url: &str, response: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, HttpError> {
    let response = response.map_err(|e| HttpError::network(url, e))?;
    match response.status().as_u16() {
        200..=299 => Ok(response),
        _ => Err(refused(url, response)),
    }
}

/// An answer that is no success, with the `message` and `hint` of the server's problem (RFC 9457), where it has them.
fn refused(url: &str, response: Response<Body>) -> HttpError {
    let status = response.status().as_u16();
    let mut problem = Vec::new();
    let said = match read(url, response, PROBLEM_MAX, &mut problem) {
        Ok(()) => words(&problem),
        Err(_) => String::new(),
    };
    HttpError::Status { url: url.to_owned(), status, said }
}

fn words(problem: &[u8]) -> String {
    let Ok(problem) = serde_json::from_slice::<serde_json::Value>(problem) else { return String::new() };
    let words =
        ["message", "hint"].iter().filter_map(|key| problem[*key].as_str()).filter(|text| !text.is_empty());
    let words: String = words.map(|text| format!(": {text}")).collect();
    words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

fn read(url: &str, response: Response<Body>, max: usize, into: &mut Vec<u8>) -> Result<(), HttpError> {
    let body = response.into_body();
    if body.content_length().is_some_and(|n| n > max as u64) {
        return Err(HttpError::TooLarge { url: url.to_owned(), max });
    }
    let reader = body.into_with_config().limit(max as u64 + 1).reader();
    reader
        .take(max as u64 + 1)
        .read_to_end(into)
        .map_err(|e| HttpError::network(url, ureq::Error::from(e)))?;
    if into.len() > max {
        return Err(HttpError::TooLarge { url: url.to_owned(), max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_to_a_refusal_is_told() {
        let problem =
            br#"{"status":403,"code":"dpu-token","message":"the token was used","hint":"register it\nanew"}"#;
        assert_eq!(words(problem), ": the token was used: register itanew");
        assert_eq!(words(b"<html>"), "");
        assert_eq!(words(br#"{"message": 5}"#), "");
    }

    #[test]
    fn only_addresses_are_reached() {
        for good in
            ["http://10.77.0.1:8080", "http://10.77.0.1:8080/", "http://[fd77::1]:8080", "http://10.77.0.1"]
        {
            assert!(is_literal(good), "{good}");
        }
        for bad in
            ["", "10.77.0.1:8080", "https://10.77.0.1", "http://billet:8080", "http://10.77.0.1/x", "http://"]
        {
            assert!(!is_literal(bad), "{bad}");
        }
    }
}
