//! One controller's socket and session, and how a command becomes an answer or a [`BmcError`]. A session is kept between
//! calls and made anew where it may be gone.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::limits::{BUSY_PAUSE, BUSY_TRIES, DATAGRAM_MAX, RETRANSMIT, RETRANSMIT_CHANGE, SESSION_IDLE};
use super::message::{Request, Response, completion, completion_words, net_fn};
use super::session::{Event, Failure, Login, Session};
use super::suite::Suite;
use crate::{BmcError, DriverKind};

/// A session older than this is asked for a sign of life before a change is sent through it.
const FRESH: Duration = Duration::from_secs(5);
const GET_DEVICE_ID: u8 = 0x01;

/// A command with its name for errors.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub what: &'static str,
    pub request: Request,
}

impl Ask {
    pub fn new(what: &'static str, net_fn: u8, command: u8, data: &[u8]) -> Self {
        Self { what, request: Request::new(net_fn, command, data) }
    }

    pub fn app(what: &'static str, command: u8, data: &[u8]) -> Self {
        Self::new(what, net_fn::APP, command, data)
    }

    pub fn chassis(what: &'static str, command: u8, data: &[u8]) -> Self {
        Self::new(what, net_fn::CHASSIS, command, data)
    }

    pub fn sensor(what: &'static str, command: u8, data: &[u8]) -> Self {
        Self::new(what, net_fn::SENSOR, command, data)
    }

    pub fn storage(what: &'static str, command: u8, data: &[u8]) -> Self {
        Self::new(what, net_fn::STORAGE, command, data)
    }
}

/// A controller, with or without a session.
pub(super) struct Link {
    address: SocketAddr,
    login: Login,
    open: Option<Open>,
}

impl Link {
    pub fn new(address: SocketAddr, login: Login) -> Self {
        Self { address, login, open: None }
    }

    /// A session of its own, for a console.
    pub async fn open_another(&self) -> Result<Open, BmcError> {
        Open::connect(self.address, self.login.clone()).await.map(|(open, _)| open)
    }

    /// The password.
    pub fn password(&self) -> &[u8] {
        &self.login.password
    }

    /// Logs in with another password, and out again.
    pub async fn try_login(&self, password: Vec<u8>) -> Result<(), BmcError> {
        let (open, _) = Open::connect(self.address, Login { password, ..self.login.clone() }).await?;
        open.close().await;
        Ok(())
    }

    /// The password from now on; the session is made anew.
    pub async fn set_password(&mut self, password: Vec<u8>) {
        self.close().await;
        self.login.password = password;
    }

    /// A command that only reads; its data.
    pub async fn read(&mut self, ask: &Ask) -> Result<Vec<u8>, BmcError> {
        data(ask, self.answer(ask).await?)
    }

    /// A command that only reads, whose completion code the caller looks at.
    pub async fn answer(&mut self, ask: &Ask) -> Result<Response, BmcError> {
        let kept = self.open.is_some();
        match self.try_answer(ask, RETRANSMIT).await {
            // A kept session may have ended unnoticed: the controller restarted, or it had too many.
            Err(e) if kept && e.is_transient() && self.open.is_none() => {
                self.try_answer(ask, RETRANSMIT).await
            }
            outcome => outcome,
        }
    }

    /// A command that changes something: it goes through a session that is known to live, and only once.
    pub async fn change(&mut self, ask: &Ask) -> Result<Vec<u8>, BmcError> {
        if self.open.as_ref().is_some_and(|o| o.heard.elapsed() > FRESH) {
            self.answer(&Ask::app("a sign of life", GET_DEVICE_ID, &[])).await?;
        }
        data(ask, self.try_answer(ask, RETRANSMIT_CHANGE).await?)
    }

    /// Ends the session.
    pub async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.close().await;
        }
    }

    async fn try_answer(&mut self, ask: &Ask, schedule: &'static [Duration]) -> Result<Response, BmcError> {
        if self.open.as_ref().is_some_and(|o| o.heard.elapsed() > SESSION_IDLE || !o.session.is_ready()) {
            self.close().await;
        }
        // Taken out meanwhile: where this call is dropped half-way, so is the session.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                // Until it is known again: the next call asks what the controller can.
                let known = self.login.suite.take();
                let login = Login { suite: known, ..self.login.clone() };
                let (open, suite) = Open::connect(self.address, login).await?;
                self.login.suite = Some(suite);
                open
            }
        };
        let outcome = open.ask(ask, schedule).await;
        if outcome.is_ok() {
            self.open = Some(open);
        }
        outcome
    }
}

/// A socket with a session.
pub(super) struct Open {
    socket: UdpSocket,
    session: Session,
    /// When the controller last answered.
    heard: Instant,
}

impl Open {
    async fn connect(address: SocketAddr, login: Login) -> Result<(Self, Suite), BmcError> {
        let known = login.suite.is_some();
        match Self::connect_by(address, login.clone()).await {
            // Another controller at the address, or other settings: ask again what it can.
            Err(BmcError::Unsupported { .. }) if known => {
                Self::connect_by(address, Login { suite: None, ..login }).await
            }
            outcome => outcome,
        }
    }

    async fn connect_by(address: SocketAddr, login: Login) -> Result<(Self, Suite), BmcError> {
        let socket = bind(address).await.map_err(|e| unreachable(&format!("a socket to {address}: {e}")))?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| unreachable(&format!("no random numbers: {e}")))?;
        let now = Instant::now();
        let mut open = Self { socket, session: Session::new(now, login, seed), heard: now };
        match open.event(None).await? {
            Some(Event::Up(suite)) => Ok((open, suite)),
            Some(Event::Failed(failure)) => {
                open.flush().await?;
                Err(failed(failure))
            }
            _ => Err(unreachable("no session")),
        }
    }

    /// A command and its answer, busy controllers waited for.
    pub async fn ask(&mut self, ask: &Ask, schedule: &'static [Duration]) -> Result<Response, BmcError> {
        let started = Instant::now();
        for _ in 0..BUSY_TRIES {
            self.session.request(Instant::now(), ask.request.clone(), schedule);
            match self.event(None).await? {
                Some(Event::Answered(response)) if response.completion == completion::BUSY => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Some(Event::Answered(response)) => return Ok(response),
                // A console's packet is for a console's session; here it is left over.
                Some(Event::Sol(_)) => {}
                _ => return Err(BmcError::TimedOut { what: ask.what.into(), after: started.elapsed() }),
            }
        }
        Err(BmcError::Busy { what: ask.what.into() })
    }

    /// The next event; `None` at `until`.
    pub async fn event(&mut self, until: Option<Instant>) -> Result<Option<Event>, BmcError> {
        let mut buffer = [0; DATAGRAM_MAX + 1];
        loop {
            self.flush().await?;
            if let Some(event) = self.session.poll_event() {
                return Ok(Some(event));
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Ok(None);
            }
            let wake = self.session.poll_timeout().into_iter().chain(until).min();
            if wake.is_some_and(|wake| now >= wake) {
                self.session.handle_timeout(now);
                continue;
            }
            tokio::select! {
                received = self.socket.recv(&mut buffer) => {
                    let len = received.map_err(|e| unreachable(&e.to_string()))?;
                    self.heard = Instant::now();
                    self.session.handle_datagram(self.heard, &buffer[..len]);
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub async fn close(mut self) {
        self.session.close();
        // Nobody is left to be told.
        let _ = self.flush().await;
    }

    pub async fn flush(&mut self) -> Result<(), BmcError> {
        while let Some(datagram) = self.session.poll_transmit() {
            self.socket.send(&datagram).await.map_err(|e| unreachable(&e.to_string()))?;
        }
        Ok(())
    }
}

/// A call that is given up takes its session with it. The controller, which has room for few, is told.
impl Drop for Open {
    fn drop(&mut self) {
        self.session.close();
        while let Some(datagram) = self.session.poll_transmit() {
            // A datagram that finds no room now is not worth waiting for: the session ends by itself in a minute.
            let _ = self.socket.try_send(&datagram);
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

async fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // Only its datagrams are received.
    socket.connect(address).await?;
    Ok(socket)
}

/// The data of an answer, or the error of its completion code.
pub(super) fn data(ask: &Ask, response: Response) -> Result<Vec<u8>, BmcError> {
    match response.completion {
        completion::OK => Ok(response.data),
        code => Err(refused(ask.what, code)),
    }
}

/// The error of a completion code.
pub(super) fn refused(what: &'static str, code: u8) -> BmcError {
    match code {
        completion::BUSY | completion::STARTING | completion::FIRMWARE | completion::UPDATING => {
            BmcError::Busy { what: format!("{what}: {}", completion_words(code)) }
        }
        completion::INVALID_COMMAND | completion::INVALID_LUN => {
            BmcError::Unsupported { driver: DriverKind::Ipmi, what }
        }
        completion::PRIVILEGE => BmcError::Forbidden { what: what.into() },
        code => BmcError::Refused {
            what: what.into(),
            why: format!("completion code {code:#04x} ({})", completion_words(code)),
        },
    }
}

/// The error of an answer that is too short or makes no sense.
pub(super) fn malformed(what: &'static str, why: &str) -> BmcError {
    BmcError::Malformed { what: what.into(), why: why.into() }
}

fn unreachable(what: &str) -> BmcError {
    BmcError::Unreachable { what: what.into() }
}

fn failed(failure: Failure) -> BmcError {
    match failure {
        Failure::Silent(_) => unreachable(&failure.to_string()),
        Failure::Login => BmcError::Login,
        Failure::Forbidden => BmcError::Forbidden { what: "a session as administrator".into() },
        Failure::Full => BmcError::Busy { what: failure.to_string() },
        Failure::Old => BmcError::Unsupported {
            driver: DriverKind::Ipmi,
            what: "an encrypted session with a controller that lacks IPMI 2.0",
        },
        Failure::NoSuite => BmcError::Unsupported {
            driver: DriverKind::Ipmi,
            what: "a session with a controller that has neither cipher suite 17 nor 3",
        },
        Failure::Status(what, code) => {
            BmcError::Refused { what: what.into(), why: format!("RMCP+ status {code:#04x}") }
        }
    }
}
