//! A DHCP client as firmware, iPXE and our agent are one. Its octets are written and read here by hand: what the server
//! uses to do that is what is tried.
//!
//! ```text
//!  ask ──DISCOVER──▶ selecting ──OFFER that it can use──▶ requesting ──ACK──▶ bound
//!   ▲                 │ no patience left: failed             │ NAK, or no answer
//!   └─────────────────┴──────────────────────────────────────┘
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::MacAddr;
use uuid::Uuid;

use super::personality::Patience;
use super::rng::Rng;

/// DHCP's magic cookie (RFC 2131 section 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Octets before the options.
const FIXED: usize = 240;
/// Pause before a client that was refused starts again.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// Options that PXE ROMs ask for (option 55).
const ASKED: [u8; 24] =
    [1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 67];

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// What a client says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its address.
    pub mac: MacAddr,
    /// SMBIOS UUID (options 97 and, in ROMs, 61).
    pub uuid: Option<Uuid>,
    /// Option 60.
    pub vendor_class: &'static str,
    /// Option 93.
    pub architecture: Option<u16>,
    /// Sends the user class `iPXE` and iPXE's option 175.
    pub ipxe: bool,
    /// Sets the broadcast flag.
    pub broadcast: bool,
    /// Takes only offers that name a boot file.
    pub wants_file: bool,
    /// How long it waits.
    pub patience: Patience,
}

/// What it was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lease {
    /// The address.
    pub address: Option<Ipv4Addr>,
    /// Length of the mask.
    pub prefix: u8,
    /// Server identifier.
    pub server: Option<Ipv4Addr>,
    /// Where files are (`siaddr`).
    pub next_server: Option<Ipv4Addr>,
    /// Router.
    pub router: Option<Ipv4Addr>,
    /// Option 67 as it came.
    pub file_option: Vec<u8>,
    /// The header's `file`, to its first zero.
    pub file_field: Vec<u8>,
    /// Option 60 of the reply.
    pub vendor_class: Vec<u8>,
    /// Seconds that it lasts.
    pub seconds: u32,
    message: u8,
}

/// How long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Took {
    /// From the first DISCOVER to the ACK.
    pub all: Duration,
    /// From the first REQUEST for this address to the ACK.
    pub ack: Duration,
    /// Messages sent again.
    pub retries: u32,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    profile: Profile,
    rng: Rng,
    xid: u32,
    state: State,
    unsent: bool,
    attempt: u32,
    timer: Duration,
    began: Duration,
    asked: Duration,
    retries: u32,
}

#[derive(Debug)]
enum State {
    Selecting,
    Requesting { address: Ipv4Addr, server: Ipv4Addr },
    Bound(Box<Lease>, Took),
    Failed(&'static str),
}

impl Client {
    /// A client that begins now.
    pub fn new(now: Duration, profile: Profile, mut rng: Rng) -> Self {
        let xid = rng.next() as u32;
        Self {
            profile,
            rng,
            xid,
            state: State::Selecting,
            unsent: true,
            attempt: 0,
            timer: now,
            began: now,
            asked: now,
            retries: 0,
        }
    }

    /// Takes a datagram that came to port 68.
    pub fn handle_packet(&mut self, now: Duration, bytes: &[u8]) {
        let Some(lease) = Lease::read(bytes, self.xid, self.profile.mac) else { return };
        match (&self.state, lease.message, lease.address, lease.server) {
            (State::Selecting, OFFER, Some(address), Some(server)) if self.can_use(&lease) => {
                self.state = State::Requesting { address, server };
                self.asked = now;
                self.begin(now);
            }
            (State::Requesting { address, .. }, ACK, Some(given), _) if *address == given => {
                let took = Took {
                    all: now.saturating_sub(self.began),
                    ack: now.saturating_sub(self.asked),
                    retries: self.retries,
                };
                self.state = State::Bound(Box::new(lease), took);
            }
            (State::Requesting { .. }, NAK, _, _) => {
                self.restart();
                self.begin(now + REFUSED_PAUSE);
            }
            _ => {}
        }
    }

    /// Call at or after [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Duration) {
        if now < self.timer || matches!(self.state, State::Bound(..) | State::Failed(_)) {
            return;
        }
        if self.unsent {
            return;
        }
        self.retries += 1;
        self.attempt += 1;
        self.unsent = true;
        if self.profile.patience.wait(self.attempt).is_some() {
            return;
        }
        match self.state {
            State::Requesting { .. } => {
                self.restart();
                self.begin(now);
            }
            _ => self.state = State::Failed("no DHCP offer that it can use"),
        }
    }

    /// The payload of the next message to 255.255.255.255 port 67.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        if !self.unsent || now < self.timer {
            return None;
        }
        let message = match self.state {
            State::Selecting => self.message(DISCOVER, &[]),
            State::Requesting { address, server } => {
                let mut options = vec![50, 4];
                options.extend(address.octets());
                options.extend([54, 4]);
                options.extend(server.octets());
                self.message(REQUEST, &options)
            }
            State::Bound(..) | State::Failed(_) => return None,
        };
        self.unsent = false;
        self.timer = now + self.profile.patience.wait(self.attempt).unwrap_or_default();
        Some(message)
    }

    /// When it wants to be called again.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            State::Bound(..) | State::Failed(_) => None,
            _ => Some(self.timer),
        }
    }

    /// What it was given, or why it gave up; `None` while it tries.
    pub fn outcome(&self) -> Option<Result<(&Lease, Took), &'static str>> {
        match &self.state {
            State::Bound(lease, took) => Some(Ok((lease, *took))),
            State::Failed(why) => Some(Err(why)),
            _ => None,
        }
    }

    fn begin(&mut self, at: Duration) {
        self.unsent = true;
        self.attempt = 0;
        self.timer = at;
    }

    fn restart(&mut self) {
        self.state = State::Selecting;
        self.retries += 1;
        self.xid = self.rng.next() as u32;
    }

    fn can_use(&self, offer: &Lease) -> bool {
        !self.profile.wants_file || !offer.file_option.is_empty() || !offer.file_field.is_empty()
    }

    fn message(&self, kind: u8, options: &[u8]) -> Vec<u8> {
        let mut out = self.profile.header(self.xid, kind, Ipv4Addr::UNSPECIFIED);
        out.extend(options);
        self.profile.finish(&mut out);
        out
    }
}

impl Profile {
    /// A request to a boot server (PXE 2.1 section 2.2.3): a DHCPREQUEST to port 4011 by a machine with an address.
    pub fn boot_server_request(&self, xid: u32, address: Ipv4Addr) -> Vec<u8> {
        let mut out = self.header(xid, REQUEST, address);
        self.finish(&mut out);
        out
    }

    fn header(&self, xid: u32, kind: u8, address: Ipv4Addr) -> Vec<u8> {
        let mut out = vec![0; FIXED];
        out[..4].copy_from_slice(&[1, 1, 6, 0]);
        out[4..8].copy_from_slice(&xid.to_be_bytes());
        out[10] = u8::from(self.broadcast) << 7;
        out[12..16].copy_from_slice(&address.octets());
        out[28..34].copy_from_slice(&self.mac.0);
        out[236..240].copy_from_slice(&COOKIE);
        out.extend([53, 1, kind]);
        out
    }

    /// What every message has.
    fn finish(&self, out: &mut Vec<u8>) {
        let mut put = |code: u8, data: &[u8]| {
            out.push(code);
            out.push(u8::try_from(data.len()).unwrap_or(u8::MAX));
            out.extend(data);
        };
        put(55, &ASKED);
        put(57, &1260u16.to_be_bytes());
        if !self.vendor_class.is_empty() {
            put(60, self.vendor_class.as_bytes());
            put(94, &[1, 3, 16]);
        }
        if let Some(architecture) = self.architecture {
            put(93, &architecture.to_be_bytes());
        }
        if let Some(uuid) = self.uuid {
            let mut guid = vec![0];
            guid.extend(uuid.to_bytes_le());
            put(97, &guid);
            if self.ipxe {
                let mut id = vec![1];
                id.extend(self.mac.0);
                put(61, &id);
            } else if !self.vendor_class.is_empty() {
                put(61, &guid);
            }
        }
        if self.ipxe {
            put(77, b"iPXE");
            // Feature list: version 1.0.0, HTTP, TFTP, PXE.
            put(175, &[177, 5, 1, 0, 0, 0, 1, 235, 3, 1, 0, 0, 19, 1, 1, 21, 1, 1]);
        }
        out.push(255);
        // The BOOTP minimum (RFC 1542 section 2.1).
        if out.len() < 300 {
            out.resize(300, 0);
        }
    }
}

impl Lease {
    /// Reads a reply to this client; `None` for anything else.
    pub fn read(bytes: &[u8], xid: u32, mac: MacAddr) -> Option<Self> {
        let fixed: &[u8; FIXED] = bytes.first_chunk()?;
        let mine = fixed[0] == 2 && fixed[4..8] == xid.to_be_bytes() && fixed[28..34] == mac.0;
        if !mine || fixed[236..] != COOKIE {
            return None;
        }
        let field = |at: usize| ip(&fixed[at..at + 4]);
        let mut lease = Self {
            address: field(16),
            next_server: field(20),
            file_field: fixed[108..236].split(|b| *b == 0).next().unwrap_or_default().to_vec(),
            prefix: 32,
            ..Self::default()
        };
        let mut rest = &bytes[FIXED..];
        while let Some((code, after)) = rest.split_first() {
            match code {
                0 => rest = after,
                255 => break,
                _ => {
                    let (len, after) = after.split_first()?;
                    let (data, after) = after.split_at_checked(usize::from(*len))?;
                    lease.take(*code, data);
                    rest = after;
                }
            }
        }
        (lease.message != 0).then_some(lease)
    }

    fn take(&mut self, code: u8, data: &[u8]) {
        match code {
            1 => self.prefix = ip(data).map_or(0, |mask| u32::from(mask).leading_ones() as u8),
            3 => self.router = ip(data),
            51 => self.seconds = data.try_into().map(u32::from_be_bytes).unwrap_or(0),
            53 => self.message = data.first().copied().unwrap_or(0),
            54 => self.server = ip(data),
            60 => self.vendor_class = data.to_vec(),
            67 => self.file_option.extend(data),
            _ => {}
        }
    }

    /// The boot file as a good client reads it: the option before the header's field, to the first zero.
    pub fn file(&self) -> String {
        let bytes = if self.file_option.is_empty() { &self.file_field } else { &self.file_option };
        String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
    }

    /// The boot file as one reads it who takes the option for a C string: where no zero ends it, the next option's
    /// octets belong to the name (often the end mark 0xff).
    pub fn file_as_c_string(&self) -> Vec<u8> {
        let mut bytes =
            if self.file_option.is_empty() { self.file_field.clone() } else { self.file_option.clone() };
        match bytes.iter().position(|b| *b == 0) {
            Some(end) => bytes.truncate(end),
            None => bytes.push(0xff),
        }
        bytes
    }
}

/// Who is told by this message that an address is his, and for how many seconds: what an ACK says on the wire.
pub fn acknowledged(bytes: &[u8]) -> Option<(MacAddr, Ipv4Addr, u32)> {
    let (xid, mac) = (bytes.get(4..8)?.first_chunk()?, MacAddr(*bytes.get(28..34)?.first_chunk()?));
    let lease = Lease::read(bytes, u32::from_be_bytes(*xid), mac)?;
    Some((mac, lease.address.filter(|_| lease.message == ACK && lease.seconds > 0)?, lease.seconds))
}

fn ip(data: &[u8]) -> Option<Ipv4Addr> {
    let ip = Ipv4Addr::from(*data.first_chunk::<4>()?);
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use boot_server_core::dhcp::{MessageType, Request, Stage};

    use super::*;
    use crate::fleet::personality::FIRMWARE;

    fn profile() -> Profile {
        Profile {
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 9]),
            uuid: Some(Uuid::from_u128(9)),
            vendor_class: "PXEClient:Arch:00007:UNDI:003000",
            architecture: Some(7),
            ipxe: false,
            broadcast: true,
            wants_file: true,
            patience: FIRMWARE,
        }
    }

    fn reply(client: &Client, kind: u8, file: &[u8]) -> Vec<u8> {
        let mut out = vec![0; FIXED];
        out[0] = 2;
        out[4..8].copy_from_slice(&client.xid.to_be_bytes());
        out[16..20].copy_from_slice(&[10, 77, 0, 100]);
        out[28..34].copy_from_slice(&client.profile.mac.0);
        out[236..240].copy_from_slice(&COOKIE);
        out.extend([53, 1, kind, 1, 4, 255, 255, 0, 0, 54, 4, 10, 77, 0, 1]);
        if !file.is_empty() {
            out.extend([67, u8::try_from(file.len()).unwrap()]);
            out.extend(file);
        }
        out.push(255);
        out
    }

    #[test]
    fn the_server_reads_what_it_says() {
        let mut client = Client::new(Duration::ZERO, profile(), Rng::new(1));
        let bytes = client.poll_transmit(Duration::ZERO).unwrap();
        let request = Request::parse(&bytes).unwrap();
        assert_eq!((request.message, request.stage), (MessageType::Discover, Stage::Firmware));
        assert_eq!((request.mac, request.uuid), (Some(profile().mac), profile().uuid));
        assert!(request.broadcast);
        let ipxe = Profile { ipxe: true, ..profile() };
        let bytes = Client::new(Duration::ZERO, ipxe, Rng::new(1)).poll_transmit(Duration::ZERO).unwrap();
        assert_eq!(Request::parse(&bytes).unwrap().stage, Stage::Ipxe);
    }

    #[test]
    fn an_offer_without_a_file_is_not_for_firmware() {
        let second = Duration::from_secs(1);
        let mut client = Client::new(Duration::ZERO, profile(), Rng::new(1));
        client.poll_transmit(Duration::ZERO).unwrap();
        client.handle_packet(second, &reply(&client, OFFER, b""));
        assert_eq!(client.poll_transmit(second), None);
        client.handle_packet(second, &reply(&client, OFFER, b"snponly.efi"));
        assert!(client.poll_transmit(second).is_some());
        client.handle_packet(second * 2, &reply(&client, ACK, b"snponly.efi"));
        let (lease, took) = client.outcome().unwrap().unwrap();
        assert_eq!((lease.file().as_str(), lease.prefix), ("snponly.efi", 16));
        assert_eq!((took.all, took.ack, took.retries), (second * 2, second, 0));
        assert_eq!(lease.file_as_c_string(), b"snponly.efi\xff");
    }

    #[test]
    fn patience_ends_and_a_refusal_starts_again() {
        let mut client = Client::new(Duration::ZERO, profile(), Rng::new(1));
        let mut sent = 0;
        while let Some(at) = client.poll_timeout() {
            client.handle_timeout(at);
            sent += u32::from(client.poll_transmit(at).is_some());
        }
        assert_eq!(sent, 4);
        assert!(client.outcome().unwrap().is_err());
        let mut client = Client::new(Duration::ZERO, profile(), Rng::new(1));
        client.handle_packet(Duration::ZERO, &reply(&client, OFFER, b"x"));
        client.poll_transmit(Duration::ZERO).unwrap();
        client.handle_packet(Duration::ZERO, &reply(&client, NAK, b""));
        assert_eq!(client.poll_timeout(), Some(REFUSED_PAUSE));
        assert_eq!(client.poll_transmit(REFUSED_PAUSE).unwrap()[242], DISCOVER);
    }
}
