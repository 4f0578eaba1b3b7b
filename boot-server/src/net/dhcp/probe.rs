//! Asking the wire whether somebody uses an address already, before it is offered (RFC 5227 section 2.1.1).
//!
//! Only the reply to that one client waits; all others are served meanwhile. Where too many probes are under way the
//! reply is sent without one: a hall of machines that is switched on must boot, and a client checks its address itself
//! (RFC 2131 section 3.1, step 5) and declines it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use boot_server_core::dhcp::{Port, Reply};
use protocol::MacAddr;
use smoltcp::wire::{ArpPacket, ArpRepr};
use tokio::time::Instant;

use crate::net::Interface;
use crate::net::packet::{ARP, PacketSocket, arp_replies, ethernet};
use crate::net::raw::{RawSender, arp_probe};

/// How long an answer is waited for. A host on the same wire answers within a millisecond, a busy BMC within tens.
const WAIT: Duration = Duration::from_millis(200);
/// When the question is asked a second time, as one may be lost.
const AGAIN: Duration = Duration::from_millis(80);
/// Probes under way: a few racks at once.
const PROBES_MAX: usize = 256;
/// Addresses that may turn out to be in use for one request; then the client has to ask again.
pub const ROUNDS_MAX: u8 = 4;

/// A request whose reply waits for a probe.
#[derive(Debug, Clone)]
pub struct Held {
    /// The request as it came.
    pub request: Vec<u8>,
    /// Where it came to.
    pub port: Port,
    /// Where it came from.
    pub from: SocketAddr,
    /// What is sent where nobody answers.
    pub reply: Reply,
    /// How many addresses were found in use for it.
    pub round: u8,
}

/// The replies that wait, by the address that is asked about.
#[derive(Debug, Default)]
pub struct Waiting(BTreeMap<Ipv4Addr, Probe>);

#[derive(Debug)]
struct Probe {
    held: Held,
    started: Instant,
    asked_again: bool,
}

impl Waiting {
    /// Holds a reply back. A client that asks again meanwhile gets the reply to its newer request. True where the
    /// question has to be asked now.
    ///
    /// # Errors
    /// Where too many wait: then it comes back.
    pub fn hold(&mut self, now: Instant, ip: Ipv4Addr, held: Held) -> Result<bool, Held> {
        if let Some(probe) = self.0.get_mut(&ip) {
            probe.held = held;
            return Ok(false);
        }
        if self.0.len() >= PROBES_MAX {
            return Err(held);
        }
        self.0.insert(ip, Probe { held, started: now, asked_again: false });
        Ok(true)
    }

    /// Somebody uses this address: the request that waits for it.
    pub fn answered(&mut self, ip: Ipv4Addr) -> Option<Held> {
        self.0.remove(&ip).map(|probe| probe.held)
    }

    /// When something is to be done next.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().map(|p| p.started + if p.asked_again { WAIT } else { AGAIN }).min()
    }

    /// Addresses to ask about once more now.
    pub fn ask_again(&mut self, now: Instant) -> Vec<Ipv4Addr> {
        let due = |p: &Probe| !p.asked_again && now >= p.started + AGAIN;
        let mut again = Vec::new();
        for (ip, probe) in self.0.iter_mut().filter(|(_, p)| due(p)) {
            probe.asked_again = true;
            again.push(*ip);
        }
        again
    }

    /// Addresses that nobody uses, and the replies that waited.
    pub fn unanswered(&mut self, now: Instant) -> Vec<(Ipv4Addr, Held)> {
        let over = self.0.extract_if(.., |_, p| now >= p.started + WAIT);
        over.map(|(ip, probe)| (ip, probe.held)).collect()
    }
}

/// Hears ARP replies.
#[derive(Debug)]
pub struct Listener(PacketSocket);

impl Listener {
    /// Opens it; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn open(interface: &Interface) -> io::Result<Self> {
        PacketSocket::open(&interface.name, ARP, &arp_replies()).map(Self)
    }

    /// The next host that says which address is its own. Errors of the interface are waited out.
    pub async fn heard(&self) -> (Ipv4Addr, MacAddr) {
        loop {
            match self.0.recv().await {
                Ok(frame) => {
                    if let Some(user) = user(&frame) {
                        return user;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "ARP receive failed");
                    tokio::time::sleep(WAIT).await;
                }
            }
        }
    }
}

/// Asks who has the address.
///
/// # Errors
/// The system's.
pub fn ask(raw: &RawSender, ip: Ipv4Addr) -> io::Result<()> {
    raw.send_frame(&arp_probe(raw.mac(), ip))
}

/// Who an ARP reply says has which address.
fn user(frame: &[u8]) -> Option<(Ipv4Addr, MacAddr)> {
    let (_, payload) = ethernet(frame)?;
    let packet = ArpPacket::new_checked(payload).ok()?;
    let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. } =
        ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    Some((source_protocol_addr, MacAddr(source_hardware_addr.0)))
}

#[cfg(test)]
mod tests {
    use boot_server_core::dhcp::Destination;

    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

    fn held(xid: u8) -> Held {
        let reply =
            Reply { bytes: vec![xid], destination: Destination::Broadcast, port: Port::Server67, nak: false };
        Held { request: vec![], port: Port::Server67, from: ([0; 4], 68).into(), reply, round: 0 }
    }

    #[test]
    fn a_reply_waits_once_asked_twice_and_is_let_go() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        assert_eq!(waiting.next(), None);
        assert!(waiting.hold(start, IP, held(1)).unwrap());
        assert!(!waiting.hold(start + AGAIN / 2, IP, held(2)).unwrap(), "the question is asked already");
        assert_eq!(waiting.next(), Some(start + AGAIN));
        assert_eq!(waiting.ask_again(start + AGAIN), [IP]);
        assert!(waiting.ask_again(start + AGAIN).is_empty());
        assert!(waiting.unanswered(start + AGAIN).is_empty());
        let over = waiting.unanswered(start + WAIT);
        assert_eq!(over.iter().map(|(ip, h)| (*ip, h.reply.bytes[0])).collect::<Vec<_>>(), [(IP, 2)]);
        assert_eq!(waiting.next(), None);
    }

    #[test]
    fn an_answer_ends_the_wait_and_too_many_do_not_wait() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        for n in 0..PROBES_MAX {
            let ip = Ipv4Addr::from(u32::from(IP) + n as u32);
            assert!(waiting.hold(start, ip, held(0)).unwrap());
        }
        assert!(waiting.hold(start, Ipv4Addr::new(10, 0, 0, 1), held(7)).is_err());
        assert!(waiting.answered(IP).is_some());
        assert!(waiting.answered(IP).is_none());
        assert!(waiting.hold(start, Ipv4Addr::new(10, 0, 0, 1), held(7)).unwrap());
    }

    #[test]
    fn a_question_and_an_answer() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let bytes = arp_probe(mac, IP);
        assert_eq!((bytes.len(), &bytes[..6], &bytes[28..32]), (42, &[0xff; 6][..], &[0; 4][..]));
        let mut answer = bytes;
        answer[21] = 2;
        answer[28..32].copy_from_slice(&IP.octets());
        assert_eq!(user(&answer), Some((IP, mac)));
        assert_eq!(user(&answer[..30]), None);
    }
}
