//! The IPMI half of the stand-in: a real endpoint of RMCP+ on a UDP socket, with sensors, an event log, an inventory and
//! serial over LAN, whose power button is a [`Machine`]. On demand it does wrong things ([`Fault`]).

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use bmc::ipmi::suite::Suite;

mod commands;
mod controller;
mod handshake;
mod records;

use super::machine::Machine;
use controller::Controller;
pub use records::{FAN, SUPPLY, TEMPERATURE, VOLTAGE};

/// Between two looks at the console and the clock.
const TICK: Duration = Duration::from_millis(10);

/// What a controller is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of its one user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// Its own key, K_g.
    pub kg: Option<Vec<u8>>,
    /// Suites that it has.
    pub suites: Vec<Suite>,
    /// It does not know Get Channel Cipher Suites, and says nothing to it.
    pub hides_suites: bool,
    /// It does not know the boot option "set in progress".
    pub no_set_in_progress: bool,
    /// It gives records of the SDR repository in pieces only.
    pub sdr_in_pieces: bool,
}

impl Plan {
    /// A controller with suites 3 and 17.
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            kg: None,
            suites: Suite::ALL.to_vec(),
            hides_suites: false,
            no_set_in_progress: false,
            sdr_in_pieces: false,
        }
    }
}

/// What is wrong with what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing comes.
    Silent,
    /// It comes this much later.
    Slow(Duration),
    /// Half of each datagram.
    Truncated,
    /// One bit of the integrity check value is another, and of nothing else.
    WrongSignature,
    /// In a session, the first answer again and again.
    Replayed,
    /// Sixty thousand octets instead.
    Giant,
    /// Every datagram a thousand times over, without a session the same.
    Flood,
}

/// A controller that listens; it ends when dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    controller: Mutex<Controller>,
    fault: Mutex<Option<Fault>>,
    stop: AtomicBool,
}

impl Endpoint {
    /// Serves a machine on this socket.
    ///
    /// # Errors
    /// Where the socket cannot be used.
    pub fn start(socket: UdpSocket, plan: Plan, machine: Arc<dyn Machine>) -> Result<Self> {
        socket.set_read_timeout(Some(TICK))?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared {
            controller: Mutex::new(Controller::new(plan, machine, address.port())),
            fault: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let inside = shared.clone();
        let thread = std::thread::spawn(move || serve(&socket, &inside));
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Serves a machine on a free port of the loopback.
    ///
    /// # Errors
    /// As [`Endpoint::start`].
    pub fn here(plan: Plan, machine: Arc<dyn Machine>) -> Result<Self> {
        Self::start(UdpSocket::bind("127.0.0.1:0")?, plan, machine)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this is wrong with what it sends.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// What a sensor reads: the raw reading and the octet of thresholds that are passed (section 35.14).
    pub fn set_reading(&self, number: u8, raw: u8, passed: u8) {
        self.controller().set_reading(number, raw, passed);
    }

    /// Adds an event: seconds since 1970, then sensor type, number, direction and type, three octets of data.
    pub fn add_event(&self, seconds: u32, event: [u8; 6]) {
        self.controller().add_event(seconds, event);
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.controller().sessions()
    }

    /// Forgets all sessions, as a controller does that restarts.
    pub fn forget_sessions(&self) {
        self.controller().forget_sessions();
    }

    /// Suites that were asked for so far, as their three algorithms.
    pub fn asked_for(&self) -> Vec<bmc::ipmi::suite::Algorithms> {
        self.controller().asked_for.clone()
    }

    /// Commands of sessions so far: network function and command.
    pub fn commands(&self) -> Vec<(u8, u8)> {
        self.controller().commands.clone()
    }

    /// Whether its identify light is on.
    pub fn is_identified(&self) -> bool {
        self.controller().identified
    }

    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.shared.controller()
    }
}

impl Shared {
    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has already said why.
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 2048];
    let mut first_sealed = None;
    let mut late: Vec<(Instant, SocketAddr, Vec<u8>)> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let received = socket.recv_from(&mut buffer);
        let now = Instant::now();
        let out = {
            let mut controller = shared.controller();
            if let Ok((len, from)) = received {
                controller.handle_datagram(now, from, &buffer[..len]);
            }
            controller.handle_time(now);
            controller.take_out()
        };
        let fault = *shared.fault.lock().unwrap_or_else(PoisonError::into_inner);
        for (to, datagram) in out {
            for (delay, datagram) in spoil(fault, datagram, &mut first_sealed) {
                late.push((now + delay, to, datagram));
            }
        }
        late.retain(|(at, to, datagram)| {
            if *at <= now {
                // Who is gone hears nothing.
                let _ = socket.send_to(datagram, to);
            }
            *at > now
        });
    }
}

/// What becomes of a datagram.
fn spoil(
    fault: Option<Fault>,
    mut datagram: Vec<u8>,
    first: &mut Option<Vec<u8>>,
) -> Vec<(Duration, Vec<u8>)> {
    let sealed = datagram.get(5).is_some_and(|kind| kind & 0xc0 == 0xc0);
    if fault != Some(Fault::Replayed) {
        *first = None;
    }
    match fault {
        None => vec![(Duration::ZERO, datagram)],
        Some(Fault::Silent) => Vec::new(),
        Some(Fault::Slow(by)) => vec![(by, datagram)],
        Some(Fault::Truncated) => {
            datagram.truncate(datagram.len() / 2);
            vec![(Duration::ZERO, datagram)]
        }
        Some(Fault::WrongSignature) => {
            if let Some(last) = datagram.last_mut().filter(|_| sealed) {
                *last ^= 1;
            }
            vec![(Duration::ZERO, datagram)]
        }
        Some(Fault::Replayed) if sealed => {
            vec![(Duration::ZERO, first.get_or_insert(datagram).clone())]
        }
        Some(Fault::Replayed) => vec![(Duration::ZERO, datagram)],
        Some(Fault::Giant) => vec![(Duration::ZERO, vec![6; 60_000])],
        Some(Fault::Flood) => (0..1000).map(|_| (Duration::ZERO, vec![6, 0, 0xff, 7, 6, 0])).collect(),
    }
}
