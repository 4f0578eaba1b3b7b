//! Many downloads at once over real sockets, each from an address and port of its own, with loss where it is wanted.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Download, Reply, Wishes};
use crate::rack::Handle;

/// Waits of a client for an answer before it repeats itself, and then gives up: as firmware does it.
const PATIENCE: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(4),
    Duration::from_secs(4),
    Duration::from_secs(4),
];
/// Between two looks at the time-outs.
const TICK: Duration = Duration::from_millis(100);
/// Receive buffer of a client; a NIC's ring of 256 frames is smaller, but a window must never be lost here.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Largest datagram.
const DATAGRAM_MAX: usize = 65_536;

/// What all clients of a run do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Port 69 of the server.
    pub server: SocketAddr,
    /// The file's name and contents.
    pub file: (String, Arc<[u8]>),
    /// Options asked for.
    pub wishes: Wishes,
    /// How many clients.
    pub clients: u32,
    /// Address of the first client; each next one has the next address.
    pub first: IpAddr,
    /// Threads that they are spread over.
    pub threads: u32,
    /// Share of datagrams lost on the way, in each direction.
    pub loss: f64,
    /// Seed of the loss.
    pub seed: u64,
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Clients that have the whole file.
    pub done: u32,
    /// Why the others have not, with how often.
    pub failed: BTreeMap<String, u32>,
    /// From the first request to the last octet.
    pub elapsed: Duration,
    /// Octets of files that arrived.
    pub octets: u64,
    /// True where the server granted windows to all.
    pub has_windows: bool,
}

impl Outcome {
    /// Clients without the file.
    pub fn failures(&self) -> u32 {
        self.failed.values().sum()
    }

    /// Octets per microsecond.
    pub fn megabytes_per_second(&self) -> f64 {
        self.octets as f64 / self.elapsed.as_secs_f64() / 1e6
    }
}

/// Runs all clients to their ends, in the network namespace `inside`.
///
/// # Errors
/// Where a socket cannot be had.
pub fn run(plan: &Plan, inside: &Handle) -> Result<Outcome> {
    let start = Instant::now();
    let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let threads = 0..plan.threads.clamp(1, plan.clients.max(1));
        let threads: Vec<_> = threads.map(|n| scope.spawn(move || thread(plan, n, inside))).collect();
        let died = || Err(anyhow::anyhow!("a thread of clients died"));
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| died())).collect()
    });
    let mut all = Outcome { elapsed: start.elapsed(), has_windows: true, ..Outcome::default() };
    for outcome in outcomes {
        let outcome = outcome?;
        all.done += outcome.done;
        all.octets += outcome.octets;
        all.has_windows &= outcome.has_windows;
        for (why, count) in outcome.failed {
            *all.failed.entry(why).or_default() += count;
        }
    }
    Ok(all)
}

struct Client {
    socket: UdpSocket,
    download: Download,
    /// The session's address; requests go to `plan.server`.
    session: Option<SocketAddr>,
    tries: usize,
    wait_until: Instant,
}

fn thread(plan: &Plan, number: u32, inside: &Handle) -> Result<Outcome> {
    inside.enter()?;
    let mine = (0..plan.clients).filter(|n| n % plan.threads == number);
    let mut clients = mine.map(|n| Client::new(plan, n).map(Some)).collect::<Result<Vec<_>>>()?;
    let mut link =
        Link { loss: plan.loss, state: plan.seed ^ u64::from(number).wrapping_mul(0x9e37_79b9) | 1 };
    let mut outcome = Outcome { has_windows: true, ..Outcome::default() };
    // One client waits in the call that receives, as a real one does; many wait together.
    let alone = clients.len() == 1;
    if let [Some(client)] = &mut clients[..] {
        client.socket.set_nonblocking(false)?;
        client.socket.set_read_timeout(Some(TICK))?;
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (n, client) in clients.iter_mut().enumerate() {
        let Some(client) = client else { continue };
        epoll.add(client.socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, n as u64))?;
        client.ask(plan, &mut link);
    }
    let mut buf = vec![0; DATAGRAM_MAX];
    let mut events = vec![EpollEvent::empty(); 256];
    let mut looked = Instant::now();
    while clients.iter().any(Option::is_some) {
        let ready: Vec<usize> = if alone {
            vec![0]
        } else {
            let timeout = EpollTimeout::try_from(TICK).unwrap_or(EpollTimeout::ZERO);
            let count = epoll.wait(&mut events, timeout)?;
            events[..count].iter().map(|e| e.data() as usize).collect()
        };
        for n in ready {
            let Some(client) = &mut clients[n] else { continue };
            if let Some(end) = client.receive(&mut link, &mut buf) {
                outcome.take(client, end);
                clients[n] = None;
            }
        }
        if looked.elapsed() >= TICK {
            looked = Instant::now();
            for place in &mut clients {
                let Some(client) = place else { continue };
                if let Some(end) = client.look(plan, &mut link, looked) {
                    outcome.take(client, end);
                    *place = None;
                }
            }
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn take(&mut self, client: &Client, end: Result<(), String>) {
        self.octets += client.download.received();
        self.has_windows &= client.download.has_windows();
        match end {
            Ok(()) => self.done += 1,
            Err(why) => *self.failed.entry(why).or_default() += 1,
        }
    }
}

impl Client {
    fn new(plan: &Plan, n: u32) -> Result<Self> {
        let address = match plan.first {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + n).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + u128::from(n)).into()),
        };
        let socket = UdpSocket::bind((address, 0)).with_context(|| format!("binding {address}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        socket.set_nonblocking(true)?;
        let download = Download::new(&plan.file.0, plan.wishes, plan.file.1.clone());
        Ok(Self { socket, download, session: None, tries: 0, wait_until: Instant::now() })
    }

    fn ask(&mut self, plan: &Plan, link: &mut Link) {
        self.wait_until = Instant::now() + PATIENCE[self.tries.min(PATIENCE.len() - 1)];
        if link.passes() {
            let target = self.session.unwrap_or(plan.server);
            // What cannot be sent is as good as lost.
            let _ = self.socket.send_to(&self.download.repeat(), target);
        }
    }

    /// Takes what has come; its end, where that was it.
    fn receive(&mut self, link: &mut Link, buf: &mut [u8]) -> Option<Result<(), String>> {
        loop {
            let (len, from) = match self.socket.recv_from(buf) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(error.to_string())),
            };
            if self.session.is_some_and(|session| session != from) || !link.passes() {
                continue;
            }
            if self.session.replace(from).is_none() && self.socket.connect(from).is_err() {
                return Some(Err("the server's address cannot be reached".into()));
            }
            let before = self.download.received();
            let reply = self.download.handle(&buf[..len]);
            if self.download.received() > before || self.tries == 0 {
                self.tries = 0;
                self.wait_until = Instant::now() + PATIENCE[0];
            }
            let (packet, end) = match reply {
                Reply::Silent => continue,
                Reply::Send(packet) => (packet, false),
                Reply::Done(packet) => (packet, true),
                Reply::Failed(why) => return Some(Err(why)),
            };
            // The last acknowledgement is not lost: the server's wait for it is not the client's time.
            if link.passes() || end {
                let _ = self.socket.send(&packet);
            }
            if end {
                return Some(Ok(()));
            }
            // Nothing comes until the server has this answer, and a look costs as much as a packet; epoll tells if it
            // does all the same.
            return None;
        }
    }

    fn look(&mut self, plan: &Plan, link: &mut Link, now: Instant) -> Option<Result<(), String>> {
        if now < self.wait_until {
            return None;
        }
        self.tries += 1;
        if self.tries > PATIENCE.len() {
            let answered = if self.session.is_some() { "fell silent" } else { "never answered" };
            return Some(Err(format!("the server {answered}")));
        }
        self.ask(plan, link);
        None
    }
}

/// Loses datagrams by a seed (xorshift64*).
struct Link {
    loss: f64,
    state: u64,
}

impl Link {
    fn passes(&mut self) -> bool {
        if self.loss <= 0.0 {
            return true;
        }
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        random as f64 / (1u64 << 53) as f64 >= self.loss
    }
}
