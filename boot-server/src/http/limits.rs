//! Bounds on what clients may ask for, each with the reason for the number.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body_util::{BodyExt as _, Limited};

use crate::view::Problem;

/// Connections per listener. Each of 20,000 nodes may hold one with its agent's request for work; a machine that writes
/// needs eight more for chunks, and 512 write at once.
/// How many one address may have is the site's to say (`provisioning.connections_per_address`).
pub const CONNECTIONS_MAX: usize = 24_576;
/// Octets that a client must take in each window of [`Times::write`]: 4 KiB/s, below any link that boots a machine.
pub const WRITE_MIN: u64 = 120 << 10;
/// How long open requests may go on after a stop was asked for.
pub const GRACE: Duration = Duration::from_secs(5);
/// Request line and headers, in octets.
pub const HEAD_MAX: usize = 32 << 10;
/// How long a client may take to send its headers; a kept-alive connection is closed after as much silence.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to send a small body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest that a request for work is held open; below what load balancers and firewalls cut.
pub const WAIT_MAX: Duration = Duration::from_secs(55);

/// How long a listener waits for its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// For the headers of a request.
    pub header: Duration,
    /// For a client's part of a TLS handshake; old firmware computes for a second or two.
    pub handshake: Duration,
    /// For a client that takes nothing, or next to nothing, of an answer that waits for it.
    pub write: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let [handshake, write] = [15, 30].map(Duration::from_secs);
        Self { header: HEADER_TIMEOUT, handshake, write }
    }
}

/// Reads a whole body of at most `max` octets.
///
/// # Errors
/// A [`Problem`] with 413 for a larger one, 408 for a slow one, 400 for one that breaks off.
pub async fn body(body: Body, max: usize) -> Result<Bytes, Problem> {
    let problem = |status: StatusCode, code: &str, message: String, hint: &str| Problem {
        status: status.as_u16(),
        code: code.to_owned(),
        message,
        hint: hint.to_owned(),
    };
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the body is larger than {max} bytes"),
            "send less",
        )),
        Ok(Err(error)) => Err(problem(
            StatusCode::BAD_REQUEST,
            "body",
            format!("the body broke off: {error}"),
            "send it again",
        )),
        Err(_) => Err(problem(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
            "send it again",
        )),
    }
}
