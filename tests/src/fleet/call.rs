//! One HTTP exchange over a machine's stack: connects, or takes the connection that is still open, sends, reads, and
//! gives up after a silence.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::http::{Reader, Request, Response};
use super::net::Net;
use super::rng::Rng;

/// A connection that is kept for the next request to the same server.
pub type Kept = Option<(Ipv4Addr, u16)>;

/// An exchange.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    bytes: Vec<u8>,
    sent: usize,
    reader: Reader,
    silence: Duration,
    deadline: Duration,
    started: bool,
    /// On a connection that may have been closed meanwhile.
    reused: bool,
}

impl Call {
    /// An exchange that begins at the next [`poll`](Self::poll) and is given up after `silence`.
    pub fn new(now: Duration, request: Request, silence: Duration) -> Self {
        Self {
            bytes: request.bytes(),
            reader: Reader::new(&request),
            request,
            sent: 0,
            silence,
            deadline: now + silence,
            started: false,
            reused: false,
        }
    }

    /// Goes on; the answer, or why there is none.
    pub fn poll(
        &mut self,
        now: Duration,
        net: &mut Net,
        kept: &mut Kept,
        rng: &mut Rng,
    ) -> Option<Result<Response, String>> {
        if !self.started {
            self.started = true;
            self.reused = *kept == Some(self.request.url.host) && net.is_connected();
            if !self.reused {
                self.connect(net, kept, rng);
            }
        }
        if self.sent < self.bytes.len() {
            self.sent += net.send(&self.bytes[self.sent..]);
        }
        let mut came = Vec::new();
        if net.receive(&mut came) {
            self.deadline = now + self.silence;
            match self.reader.push(&came) {
                Ok(Some(response)) => {
                    if response.closes {
                        net.close();
                        *kept = None;
                    }
                    return Some(Ok(response));
                }
                Ok(None) => {}
                Err(why) => return Some(Err(self.failed(net, kept, why))),
            }
        }
        if !net.is_connected() {
            if self.reused && self.reader.is_fresh() {
                self.reused = false;
                self.sent = 0;
                self.connect(net, kept, rng);
                return None;
            }
            return Some(Err(self.failed(net, kept, "the connection was cut".to_owned())));
        }
        if now >= self.deadline {
            return Some(Err(self.failed(net, kept, format!("silence of {} s", self.silence.as_secs()))));
        }
        None
    }

    /// When it is given up.
    pub fn poll_timeout(&self) -> Duration {
        self.deadline
    }

    fn connect(&self, net: &mut Net, kept: &mut Kept, rng: &mut Rng) {
        // The dynamic ports of RFC 6335 section 6.
        let port = 49_152 + u16::try_from(rng.below(16_384)).unwrap_or(0);
        net.connect(self.request.url.host, port);
        *kept = Some(self.request.url.host);
    }

    fn failed(&self, net: &mut Net, kept: &mut Kept, why: String) -> String {
        net.close();
        *kept = None;
        format!(
            "{} {}: {why}",
            self.request.method,
            self.request.url.path.split('?').next().unwrap_or_default()
        )
    }
}
