//! A DHCPv6 client for one address (RFC 8415), without sockets: bytes and the time in, bytes and a lease out.
//!
//! ```text
//!  Solicit ──Reply (Rapid Commit)───────────────▶ lease
//!     └─────Advertise──▶ Request ──Reply────────▶ lease
//!  Renew, Rebind ───────────────────Reply───────▶ lease
//! ```
//!
//! `handle_message` takes what came, `poll_transmit` gives what is to be sent, `poll_timeout` says when to look again. Times
//! are since the exchange began.

use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::MacAddr;

/// First wait for an answer, and the longest (section 7.6: SOL_TIMEOUT; the longest is ours, for somebody waits here).
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(8);
/// Shortest time before a lease is prolonged, whatever the server says.
const RENEW_MIN: Duration = Duration::from_secs(30);
/// For how long a lease without an end is believed.
const VALID_LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// Longest server identifier taken, in octets (section 11.1).
const DUID_MAX: usize = 130;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const DECLINE: u8 = 9;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;

/// An address and who lent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv6Addr,
    /// Identifier of the server.
    pub server: Vec<u8>,
    /// When to ask the server to prolong it.
    pub renew: Duration,
    /// When the address must not be used any more.
    pub valid: Duration,
}

/// One exchange of messages.
#[derive(Debug, Clone)]
pub struct Exchange {
    mac: MacAddr,
    xid: [u8; 3],
    kind: u8,
    /// The address that is asked for, and the server that is asked.
    address: Option<Ipv6Addr>,
    server: Option<Vec<u8>>,
    next: Duration,
    wait: Duration,
}

impl Exchange {
    /// Looks for a server that lends an address to the port with this Ethernet address. `chance` makes the transaction's
    /// number.
    pub fn solicit(mac: MacAddr, chance: u32) -> Self {
        Self::new(mac, chance, SOLICIT, None, None)
    }

    /// Asks the server of a lease to prolong it.
    pub fn renew(mac: MacAddr, chance: u32, lease: &Lease) -> Self {
        Self::new(mac, chance, RENEW, Some(lease.address), Some(lease.server.clone()))
    }

    /// Asks any server to prolong a lease.
    pub fn rebind(mac: MacAddr, chance: u32, lease: &Lease) -> Self {
        Self::new(mac, chance, REBIND, Some(lease.address), None)
    }

    /// The message that tells the server that somebody else uses the address. It is sent once; its answer says nothing.
    pub fn decline(mac: MacAddr, chance: u32, lease: &Lease) -> Vec<u8> {
        let server = Some(lease.server.clone());
        Self::new(mac, chance, DECLINE, Some(lease.address), server).message(Duration::ZERO)
    }

    fn new(mac: MacAddr, chance: u32, kind: u8, address: Option<Ipv6Addr>, server: Option<Vec<u8>>) -> Self {
        let [_, xid @ ..] = chance.to_be_bytes();
        Self { mac, xid, kind, address, server, next: Duration::ZERO, wait: RETRY_FIRST }
    }

    /// The message that is due at `now`, if one is.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        if now < self.next {
            return None;
        }
        self.next = now + self.wait;
        self.wait = (self.wait * 2).min(RETRY_LONGEST);
        Some(self.message(now))
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something to send again.
    pub fn poll_timeout(&self) -> Duration {
        self.next
    }

    /// Takes one datagram; the lease where it ends the exchange. Anything else, and what cannot be read, is left aside.
    pub fn handle_message(&mut self, now: Duration, bytes: &[u8]) -> Option<Lease> {
        let ([kind, xid @ ..], options) = bytes.split_first_chunk::<4>()?;
        let answer = Answer::read(options);
        if *xid != self.xid || answer.client != Some(&self.duid()[..]) {
            return None;
        }
        let server = answer.server.filter(|s| (3..=DUID_MAX).contains(&s.len()))?;
        let lease = answer.lease(self.iaid(), server)?;
        match (self.kind, *kind) {
            (SOLICIT, ADVERTISE) => {
                *self = Self { next: now, wait: RETRY_FIRST, ..self.clone() };
                self.kind = REQUEST;
                self.address = Some(lease.address);
                self.server = Some(server.to_vec());
                None
            }
            (SOLICIT, REPLY) => answer.rapid.then_some(lease),
            (REQUEST | RENEW, REPLY) => (self.server.as_deref() == Some(server)).then_some(lease),
            (REBIND, REPLY) => Some(lease),
            _ => None,
        }
    }

    fn message(&self, elapsed: Duration) -> Vec<u8> {
        let [a, b, c] = self.xid;
        let mut out = vec![self.kind, a, b, c];
        put(&mut out, CLIENT_ID, &self.duid());
        if let Some(server) = &self.server {
            put(&mut out, SERVER_ID, server);
        }
        let hundredths = u16::try_from(elapsed.as_millis() / 10).unwrap_or(u16::MAX);
        put(&mut out, ELAPSED, &hundredths.to_be_bytes());
        if self.kind == SOLICIT {
            put(&mut out, RAPID_COMMIT, &[]);
        }
        let mut ia = self.iaid().to_vec();
        ia.extend([0; 8]);
        if let Some(address) = self.address {
            put(&mut ia, IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        }
        put(&mut out, IA_NA, &ia);
        out
    }

    /// Identifier made of the port's address (section 11.4).
    fn duid(&self) -> [u8; 10] {
        let [a, b, c, d, e, f] = self.mac.0;
        [0, 3, 0, 1, a, b, c, d, e, f]
    }

    fn iaid(&self) -> [u8; 4] {
        let [_, _, id @ ..] = self.mac.0;
        id
    }
}

/// What of an answer matters.
#[derive(Default)]
struct Answer<'a> {
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    ia: Option<&'a [u8]>,
    rapid: bool,
    refused: bool,
}

impl<'a> Answer<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let mut answer = Self::default();
        for (code, data) in options(bytes) {
            match code {
                CLIENT_ID => answer.client = Some(data),
                SERVER_ID => answer.server = Some(data),
                IA_NA => answer.ia = answer.ia.or(Some(data)),
                RAPID_COMMIT => answer.rapid = true,
                STATUS => answer.refused |= !matches!(data, [0, 0, ..]),
                _ => {}
            }
        }
        answer
    }

    /// The first address that lasts.
    fn lease(&self, iaid: [u8; 4], server: &[u8]) -> Option<Lease> {
        let (id, rest) = self.ia.filter(|_| !self.refused)?.split_first_chunk::<4>()?;
        let (t1, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (address, valid) =
            options(rest).filter(|(code, _)| *code == IA_ADDRESS).find_map(|(_, data)| {
                let (address, rest) = data.split_first_chunk::<16>()?;
                let valid = seconds(*rest.get(4..)?.first_chunk::<4>()?);
                let address = Ipv6Addr::from(*address);
                let usable = !address.is_multicast() && !address.is_unspecified() && !address.is_loopback();
                (usable && !valid.is_zero()).then_some((address, valid))
            })?;
        let valid = valid.min(VALID_LONGEST);
        // Zero leaves the time to us (section 21.4).
        let renew = Some(seconds(*t1)).filter(|t| !t.is_zero() && *t < valid).unwrap_or(valid / 2);
        let renew = renew.max(RENEW_MIN);
        (*id == iaid).then(|| Lease { address, server: server.to_vec(), renew, valid })
    }
}

fn seconds(octets: [u8; 4]) -> Duration {
    Duration::from_secs(u32::from_be_bytes(octets).into())
}

/// Options (section 21.1), up to the first that is longer than what is left.
fn options(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let ([a, b, c, d], after) = rest.split_first_chunk::<4>()?;
        let (data, after) = after.split_at_checked(u16::from_be_bytes([*c, *d]).into())?;
        rest = after;
        Some((u16::from_be_bytes([*a, *b]), data))
    })
}

fn put(out: &mut Vec<u8>, code: u16, data: &[u8]) {
    if let Ok(len) = u16::try_from(data.len()) {
        out.extend(code.to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);
    const SERVER: &[u8] = b"\0\x04server";
    const T0: Duration = Duration::ZERO;

    fn address() -> Ipv6Addr {
        "fd77::1:5".parse().unwrap()
    }

    /// An answer of the server to this exchange.
    fn answer(kind: u8, to: &Exchange, t1: u32, valid: u32, more: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = vec![kind, to.xid[0], to.xid[1], to.xid[2]];
        put(&mut out, SERVER_ID, SERVER);
        put(&mut out, CLIENT_ID, &to.duid());
        let mut ia = [&to.iaid()[..], &t1.to_be_bytes(), &[0; 4]].concat();
        let lifetimes = [valid.to_be_bytes(), valid.to_be_bytes()].concat();
        put(&mut ia, IA_ADDRESS, &[&address().octets()[..], &lifetimes].concat());
        put(&mut out, IA_NA, &ia);
        for (code, data) in more {
            put(&mut out, *code, data);
        }
        out
    }

    #[test]
    fn rapid_commit_ends_it_in_two_messages() {
        let mut exchange = Exchange::solicit(MAC, 0xff0a_0b0c);
        let sent = exchange.poll_transmit(T0).unwrap();
        assert_eq!(sent[..4], [1, 0xa, 0xb, 0xc]);
        assert!(exchange.poll_transmit(T0).is_none());
        let plain = answer(REPLY, &exchange, 0, 3600, &[]);
        assert_eq!(exchange.handle_message(T0, &plain), None, "a Reply to a Solicit needs Rapid Commit");
        let reply = answer(REPLY, &exchange, 1800, 3600, &[(RAPID_COMMIT, &[])]);
        let lease = exchange.handle_message(T0, &reply).unwrap();
        let (renew, valid) = (Duration::from_secs(1800), Duration::from_secs(3600));
        assert_eq!(lease, Lease { address: address(), server: SERVER.to_vec(), renew, valid });
    }

    #[test]
    fn an_advertise_is_followed_by_a_request() {
        let mut exchange = Exchange::solicit(MAC, 7);
        exchange.poll_transmit(T0);
        let later = Duration::from_millis(1200);
        let advertise = answer(ADVERTISE, &exchange, 0, 3600, &[]);
        assert_eq!(exchange.handle_message(later, &advertise), None);
        let request = exchange.poll_transmit(later).unwrap();
        assert_eq!(request[0], REQUEST);
        let asked: Vec<_> = options(&request[4..]).map(|(code, _)| code).collect();
        assert_eq!(asked, [CLIENT_ID, SERVER_ID, ELAPSED, IA_NA]);
        assert!(options(&request[4..]).any(|(code, data)| code == ELAPSED && data == [0, 120]));
        let lease = exchange.handle_message(later, &answer(REPLY, &exchange, 0, 600, &[])).unwrap();
        assert_eq!(lease.renew, Duration::from_secs(300));
        // It is prolonged by the same server, or by any.
        let mut renew = Exchange::renew(MAC, 8, &lease);
        assert_eq!(renew.poll_transmit(T0).unwrap()[0], RENEW);
        assert!(renew.handle_message(T0, &answer(REPLY, &renew, 0, 600, &[])).is_some());
        let mut rebind = Exchange::rebind(MAC, 9, &lease);
        let sent = rebind.poll_transmit(T0).unwrap();
        assert!(options(&sent[4..]).all(|(code, _)| code != SERVER_ID));
        assert!(rebind.handle_message(T0, &answer(REPLY, &rebind, 0, 600, &[])).is_some());
        let decline = Exchange::decline(MAC, 1, &lease);
        assert_eq!(decline[0], DECLINE);
    }

    #[test]
    fn refusals_and_answers_to_others_are_left_aside() {
        let mut exchange = Exchange::solicit(MAC, 7);
        exchange.poll_transmit(T0);
        let rapid: (u16, &[u8]) = (RAPID_COMMIT, &[]);
        let refused = answer(REPLY, &exchange, 0, 600, &[rapid, (STATUS, &[0, 2])]);
        let ended = answer(REPLY, &exchange, 0, 0, &[rapid]);
        let other = answer(REPLY, &Exchange::solicit(MAC, 8), 0, 600, &[rapid]);
        let mut somebody = Exchange::solicit(MacAddr([2, 0, 0, 0, 0, 9]), 7);
        somebody.poll_transmit(T0);
        let somebodys = answer(REPLY, &somebody, 0, 600, &[rapid]);
        for bytes in [refused, ended, other, somebodys, vec![], vec![7]] {
            assert_eq!(exchange.handle_message(T0, &bytes), None);
        }
        // It asks again: after 1, 3, 7, 15, 23 seconds.
        for second in [1, 3, 7, 15, 23] {
            let due = Duration::from_secs(second);
            assert_eq!(exchange.poll_timeout(), due);
            assert!(exchange.poll_transmit(due - Duration::from_millis(1)).is_none());
            assert!(exchange.poll_transmit(due).is_some());
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut exchange = Exchange::solicit(MAC, 7);
            let whole = [answer(REPLY, &exchange, 0, 600, &[]), tail.clone()].concat();
            exchange.handle_message(T0, &whole);
            exchange.handle_message(T0, &tail);
            exchange.handle_message(T0, &[&[REPLY, 0, 0, 7][..], &tail].concat());
        }
    }
}
