//! A load of DHCP clients, closed loop: a window of clients asks at once, each goes DISCOVER, OFFER, REQUEST, ACK, and
//! the next one starts when one is done. As `perfdhcp` does, it stands behind a relay's address, so that one socket
//! speaks for all clients and every server answers it the same way.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// A client asks again after this time, as firmware does; then the request counts as lost.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait for a packet before clients are looked through for silent ones.
const POLL: Duration = Duration::from_millis(100);
/// Length of the fixed part of a message, magic cookie included.
const FIXED: usize = 240;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
/// Bits of the transaction number that name the place in the window; the rest number the client.
const SLOT_BITS: u32 = 12;

/// Whom to ask, and how hard.
#[derive(Debug, Clone)]
pub struct Load {
    /// Our address in the server's network; it stands as the relay's.
    pub relay: Ipv4Addr,
    /// The server.
    pub server: Ipv4Addr,
    /// Clients that ask at once, at most 4096.
    pub window: usize,
    /// Clients in all; the load ends when all have their address.
    pub clients: u32,
    /// Number of the first client; a client's number is its MAC address.
    pub first: u32,
    /// The load ends at this time too.
    pub time: Duration,
    /// True: they are PXE ROMs, false: they are plain clients.
    pub pxe: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Clients that have their address.
    pub done: u32,
    /// Requests that were sent again because no answer came.
    pub retried: u32,
    /// How long it took.
    pub wall: Duration,
    /// From DISCOVER to ACK, of each that is done and needed no retry, sorted.
    pub dora: Vec<Duration>,
    /// From REQUEST to ACK, likewise.
    pub ack: Vec<Duration>,
    /// The addresses given.
    pub addresses: Vec<Ipv4Addr>,
    /// Who has which.
    pub lent: Vec<(u32, Ipv4Addr)>,
}

impl Outcome {
    /// Clients served in one second.
    pub fn per_second(&self) -> f64 {
        f64::from(self.done) / self.wall.as_secs_f64().max(1e-9)
    }
}

/// The value below which `share` of the sorted values lie; zero where there is none.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// One place of the window.
#[derive(Debug, Clone, Copy)]
struct Slot {
    client: u32,
    started: Instant,
    sent: Instant,
    /// Address and server of the offer that was taken.
    offer: Option<(Ipv4Addr, [u8; 4])>,
    retried: bool,
}

struct Driver<'a> {
    load: &'a Load,
    socket: UdpSocket,
    slots: Vec<Option<Slot>>,
    next: u32,
    outcome: Outcome,
}

/// Runs the load from the calling thread's network namespace.
///
/// # Errors
/// Where port 67 of the relay's address cannot be had, or nothing is sent.
pub fn run(load: &Load) -> Result<Outcome> {
    ensure!(load.window <= 1 << SLOT_BITS, "the window is larger than 4096");
    let socket = UdpSocket::bind((load.relay, 67)).context("binding the relay's port 67")?;
    socket.connect(SocketAddrV4::new(load.server, 67))?;
    socket.set_read_timeout(Some(POLL))?;
    let mut driver =
        Driver { load, socket, slots: vec![None; load.window], next: 0, outcome: Outcome::default() };
    driver.drive()?;
    let mut outcome = driver.outcome;
    outcome.dora.sort_unstable();
    outcome.ack.sort_unstable();
    Ok(outcome)
}

/// Whether this client may have an address that it says it has from before (INIT-REBOOT); `None`: no answer.
///
/// # Errors
/// Where port 67 of the relay's address cannot be had.
pub fn may_have(load: &Load, client: u32, address: Ipv4Addr) -> Result<Option<bool>> {
    let socket = UdpSocket::bind((load.relay, 67)).context("binding the relay's port 67")?;
    socket.connect(SocketAddrV4::new(load.server, 67))?;
    socket.set_read_timeout(Some(RETRY))?;
    socket.send(&message(load, client, client, Some((address, None))))?;
    let mut buf = [0; 2048];
    while let Ok(len) = socket.recv(&mut buf) {
        if let Some(reply) = Reply::parse(&buf[..len]).filter(|r| r.xid == client) {
            return Ok(Some(reply.kind == ACK));
        }
    }
    Ok(None)
}

impl Driver<'_> {
    fn drive(&mut self) -> Result<()> {
        let start = Instant::now();
        for slot in 0..self.slots.len() {
            self.start(slot);
        }
        let mut buf = [0; 2048];
        let mut swept = start;
        while start.elapsed() < self.load.time && self.slots.iter().any(Option::is_some) {
            // An error (refused: the server is not there yet) is as silence; the sweep asks again.
            if let Ok(len) = self.socket.recv(&mut buf) {
                self.handle(&buf[..len]);
            }
            if swept.elapsed() > POLL {
                swept = Instant::now();
                self.sweep();
            }
        }
        self.outcome.wall = start.elapsed();
        Ok(())
    }

    /// Begins the next client in a place of the window, where one is left.
    fn start(&mut self, slot: usize) {
        self.slots[slot] = None;
        if self.next >= self.load.clients {
            return;
        }
        let now = Instant::now();
        let client = self.load.first + self.next;
        self.next += 1;
        self.slots[slot] = Some(Slot { client, started: now, sent: now, offer: None, retried: false });
        self.ask(slot);
    }

    fn ask(&mut self, place: usize) {
        let Some(slot) = &mut self.slots[place] else { return };
        slot.sent = Instant::now();
        let xid = slot.client << SLOT_BITS | place as u32;
        let message = message(self.load, xid, slot.client, slot.offer.map(|(ip, server)| (ip, Some(server))));
        // A full queue is as a lost packet.
        let _ = self.socket.send(&message);
    }

    fn handle(&mut self, reply: &[u8]) {
        let Some(reply) = Reply::parse(reply) else { return };
        let place = (reply.xid & ((1 << SLOT_BITS) - 1)) as usize;
        let Some(slot) = self.slots.get_mut(place).and_then(Option::as_mut) else { return };
        if reply.xid != slot.client << SLOT_BITS | place as u32 {
            return;
        }
        match (reply.kind, slot.offer) {
            (OFFER, None) => {
                slot.offer = Some((reply.address, reply.server));
                self.ask(place);
            }
            (ACK, Some(_)) => {
                if !slot.retried {
                    self.outcome.dora.push(slot.started.elapsed());
                    self.outcome.ack.push(slot.sent.elapsed());
                }
                self.outcome.done += 1;
                self.outcome.addresses.push(reply.address);
                self.outcome.lent.push((slot.client, reply.address));
                self.start(place);
            }
            (OFFER, Some(_)) => {}
            // Refused: begin again.
            _ => {
                slot.offer = None;
                slot.retried = true;
                self.outcome.retried += 1;
                self.ask(place);
            }
        }
    }

    fn sweep(&mut self) {
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots[place].as_mut().filter(|s| s.sent.elapsed() > RETRY) else {
                continue;
            };
            slot.retried = true;
            self.outcome.retried += 1;
            self.ask(place);
        }
    }
}

/// A client's message (RFC 2131 figure 1): DISCOVER, or REQUEST of what was offered.
fn message(load: &Load, xid: u32, client: u32, offer: Option<(Ipv4Addr, Option<[u8; 4]>)>) -> Vec<u8> {
    let mut bytes = vec![0; FIXED];
    bytes[..4].copy_from_slice(&[1, 1, 6, 1]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[24..28].copy_from_slice(&load.relay.octets());
    let [a, b, c, d] = client.to_be_bytes();
    bytes[28..34].copy_from_slice(&[0x02, 0x50, a, b, c, d]);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, if offer.is_some() { REQUEST } else { DISCOVER }]);
    if let Some((address, server)) = offer {
        bytes.extend([50, 4]);
        bytes.extend(address.octets());
        if let Some(server) = server {
            bytes.extend([54, 4]);
            bytes.extend(server);
        }
    }
    bytes.extend([55, 7, 1, 28, 2, 3, 15, 6, 12]);
    if load.pxe {
        let class = b"PXEClient:Arch:00007:UNDI:003016";
        bytes.extend([60, class.len() as u8]);
        bytes.extend(class);
        bytes.extend([93, 2, 0, 7, 94, 3, 1, 3, 0x10, 97, 17, 0]);
        bytes.extend([0x42; 12]);
        bytes.extend(client.to_be_bytes());
    }
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

struct Reply {
    xid: u32,
    kind: u8,
    address: Ipv4Addr,
    server: [u8; 4],
}

impl Reply {
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.first() != Some(&2) {
            return None;
        }
        let word = |at: usize| bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        let mut reply =
            Self { xid: u32::from_be_bytes(word(4)?), kind: 0, address: word(16)?.into(), server: [0; 4] };
        let mut rest = bytes.get(FIXED..)?;
        while let [code, len, tail @ ..] = rest
            && *code != 255
        {
            if *code == 0 {
                rest = rest.get(1..)?;
                continue;
            }
            let data = tail.get(..usize::from(*len))?;
            match code {
                53 => reply.kind = *data.first()?,
                54 => reply.server = data.try_into().ok()?,
                _ => {}
            }
            rest = tail.get(usize::from(*len)..)?;
        }
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read() {
        let mut bytes = vec![0; FIXED];
        bytes[0] = 2;
        bytes[4..8].copy_from_slice(&7_u32.to_be_bytes());
        bytes[16..20].copy_from_slice(&[10, 0, 0, 9]);
        bytes.extend([0, 53, 1, 5, 54, 4, 10, 0, 0, 1, 255]);
        let reply = Reply::parse(&bytes).unwrap();
        assert_eq!((reply.xid, reply.kind, reply.address), (7, ACK, Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(reply.server, [10, 0, 0, 1]);
        assert!(Reply::parse(&bytes[..200]).is_none());
        bytes.truncate(FIXED);
        bytes.extend([53, 9, 1]);
        assert!(Reply::parse(&bytes).is_none(), "an option longer than the packet");
    }

    #[test]
    fn percentiles() {
        let ms = Duration::from_millis;
        let values: Vec<_> = (1..=100).map(ms).collect();
        assert_eq!(percentile(&values, 0.5), ms(51));
        assert_eq!(percentile(&values, 0.99), ms(100));
        assert_eq!(percentile(&[], 0.5), ms(0));
    }
}
