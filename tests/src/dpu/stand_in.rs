//! The server's end of `protocol::dial` and nothing else: what a DPU's agent says is kept, what it is told is set by the test.
//! It stands in where no server is needed, and where a server must be away, forget, or say what a real one never would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::dial::{Hello, Report};
use protocol::dpu::Observed;
use serde_json::{Value, json};

/// Largest request that is read.
const BODY_MAX: usize = 2 << 20;
/// Id of every DPU: one stand-in has one.
const DPU: &str = "6c0b9f1e-0000-4000-8000-00000000000d";

/// A server with one DPU. Its threads end with the process.
#[derive(Debug, Clone)]
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<(Mutex<Now>, Condvar)>,
}

#[derive(Debug, Default)]
struct Now {
    hellos: Vec<Hello>,
    reports: Vec<Report>,
    observed: Option<Observed>,
    /// Who is accepted without a token: anybody.
    is_open: bool,
    token: Option<String>,
    accepted: Option<String>,
    state: Option<Value>,
    is_away: bool,
    asked: u32,
}

impl StandIn {
    /// Answers at a listener. It accepts nobody yet.
    ///
    /// # Errors
    /// Where the listener has no address.
    pub fn start(listener: TcpListener) -> std::io::Result<Self> {
        let stand_in = Self { address: listener.local_addr()?, shared: Arc::default() };
        let own = stand_in.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                // A peer that goes away in the middle is no error.
                std::thread::spawn(move || own.serve(&stream).ok());
            }
        });
        Ok(stand_in)
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Accepts whoever says hello from now on.
    pub fn accept_anybody(&self) {
        self.change(|now| now.is_open = true);
    }

    /// Accepts who has this token.
    pub fn accept_token(&self, token: &str) {
        self.change(|now| now.token = Some(token.to_owned()));
    }

    /// Does not know anybody any more, nor accepts anybody.
    pub fn forget(&self) {
        self.change(|now| (now.accepted, now.is_open, now.token) = (None, false, None));
    }

    /// Answers nobody, or answers again.
    pub fn set_away(&self, is_away: bool) {
        self.change(|now| now.is_away = is_away);
    }

    /// What the DPU is to be from now on.
    pub fn want(&self, state: Value) {
        self.change(|now| now.state = Some(state));
    }

    /// All hellos so far.
    pub fn hellos(&self) -> Vec<Hello> {
        self.lock().hellos.clone()
    }

    /// All reports so far.
    pub fn reports(&self) -> Vec<Report> {
        self.lock().reports.clone()
    }

    /// What the DPU was said to be last.
    pub fn observed(&self) -> Option<Observed> {
        self.lock().observed.clone()
    }

    /// How often the state was asked for.
    pub fn asked(&self) -> u32 {
        self.lock().asked
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.lock());
        self.shared.1.notify_all();
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut line, mut length, mut bearer) = (String::new(), 0, None);
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let Some((name, value)) = header.trim_end().split_once(':') else { break };
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().unwrap_or(0),
                    "authorization" => bearer = value.trim().strip_prefix("Bearer ").map(str::to_owned),
                    _ => {}
                }
            }
            let mut body = vec![0; length.min(BODY_MAX)];
            reader.read_exact(&mut body)?;
            let path = line.split(' ').nth(1).unwrap_or_default();
            let answer = self.answer(path, bearer.as_deref(), &body);
            if self.lock().is_away {
                return Ok(());
            }
            let (status, text) =
                answer.map_or_else(|status| (status, String::new()), |v| (200, v.to_string()));
            let head = format!("HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: ");
            (&mut &*stream).write_all(format!("{head}{}\r\n\r\n{text}", text.len()).as_bytes())?;
        }
    }

    fn answer(&self, path: &str, bearer: Option<&str>, body: &[u8]) -> Result<Value, u16> {
        if path == "/dpu/v1/hello" {
            let hello: Hello = serde_json::from_slice(body).map_err(|_| 400_u16)?;
            return Ok(self.hello(hello));
        }
        let wait =
            path.strip_prefix("/dpu/v1/state?wait=").and_then(|wait| wait.parse().ok()).ok_or(404_u16)?;
        let report: Report = serde_json::from_slice(body).map_err(|_| 400_u16)?;
        self.state(bearer, report, Duration::from_secs(wait))
    }

    fn hello(&self, hello: Hello) -> Value {
        let mut now = self.lock();
        let has_token = now.token.is_some() && hello.token.as_ref().map(|t| &t.0) == now.token.as_ref();
        let is_accepted = now.is_open || has_token || now.accepted.as_ref() == Some(&hello.secret.0);
        if is_accepted {
            now.accepted = Some(hello.secret.0.clone());
        }
        now.hellos.push(hello);
        match is_accepted {
            true => json!({ "kind": "accepted", "dpu": DPU, "name": "dpu" }),
            false => json!({ "kind": "waiting", "why": "nobody accepted it yet" }),
        }
    }

    fn state(&self, bearer: Option<&str>, report: Report, wait: Duration) -> Result<Value, u16> {
        let end = Instant::now() + wait;
        let mut now = self.lock();
        now.observed = report.observed.as_deref().cloned().or(now.observed.take());
        let has = report.generation;
        now.reports.push(report);
        now.asked += u32::from(!wait.is_zero());
        loop {
            if now.accepted.is_none() || now.accepted.as_deref() != bearer {
                return Err(401);
            }
            if let Some(state) = now.state.as_ref().filter(|state| state["generation"].as_u64() != has) {
                return Ok(json!({ "kind": "state", "state": state }));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || now.is_away {
                return Ok(json!({ "kind": "same" }));
            }
            let woken = self.shared.1.wait_timeout(now, left);
            now = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
