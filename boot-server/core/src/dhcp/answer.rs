//! What a request leads to: the answer, where it goes, and what the request told about the machine.

use std::net::Ipv4Addr;

use protocol::MacAddr;
use uuid::Uuid;

use super::boot::Architecture;
use super::config::Mode;
use super::lease::Lease;
use super::net::Ipv4Net;
use super::relay::Placement;
use super::reply::Kind;
use super::request::{MessageType, Request, Stage};

/// What a request led to. The leases are stored before the reply is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who asked for what.
    pub observed: Observed,
    /// Rows to store, each replacing the one of the same address.
    pub leases: Vec<Lease>,
    /// What to send, or why nothing.
    pub reply: Result<Reply, Silence>,
    /// Whether somebody uses this address is found out by ARP before the reply is sent, within a few hundred
    /// milliseconds (RFC 5227 section 2.1.1). Nobody: [`Server::handle_probe`] is told, and the reply is sent. Somebody:
    /// likewise, the reply is dropped, and the same request is handled again, which gives another address.
    pub probe: Option<Ipv4Addr>,
}

/// The two ports that requests come to and replies leave from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// 67: DHCP servers.
    Server67,
    /// 4011: boot servers (PXE 2.1 section 2.2.4). Requests are unicast, from clients that have an address.
    Boot4011,
}

impl Port {
    /// The number.
    pub fn number(self) -> u16 {
        match self {
            Self::Server67 => 67,
            Self::Boot4011 => 4011,
        }
    }
}

/// One message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// UDP payload.
    pub bytes: Vec<u8>,
    /// Where to.
    pub destination: Destination,
    /// The port it leaves from.
    pub port: Port,
    /// A refusal (DHCPNAK).
    pub nak: bool,
}

/// Where a reply goes (RFC 2131 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To 255.255.255.255 port 68, on the interface the request came from.
    Broadcast,
    /// To port 68 of a client that does not answer ARP yet: a raw frame.
    UnicastRaw {
        /// Hardware address.
        mac: MacAddr,
        /// The address it is given.
        ip: Ipv4Addr,
    },
    /// To port 67 of a relay.
    Relay(Ipv4Addr),
    /// To port 68 of a client that has its address.
    Unicast(Ipv4Addr),
    /// To the address and port that the request came from (port 4011 alone).
    Sender,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It came from a network that is not served.
    #[error("no subnet is configured for {0}")]
    NoSubnet(Ipv4Addr),
    /// Every address of the pools is in use.
    #[error("no address is free for it")]
    PoolExhausted,
    /// The client chose, or speaks to, another server.
    #[error("the client chose server {0}")]
    OtherServer(Ipv4Addr),
    /// DECLINE and RELEASE have no reply.
    #[error("this message has no reply")]
    NoReplyDue,
    /// A REQUEST that names no address, or a message that makes no sense.
    #[error("the request names no address")]
    NoAddress,
    /// The subnet's mode is [`Mode::Off`](super::Mode::Off).
    #[error("DHCP is off in {0}")]
    Off(Ipv4Net),
    /// [`Mode::Reserved`](super::Mode::Reserved), and the machine is neither known nor has a reservation.
    #[error("addresses of {0} are for known machines")]
    Stranger(Ipv4Net),
    /// [`Mode::Proxy`](super::Mode::Proxy) or port 4011, and the client does not boot from the network.
    #[error("the client does not boot from the network")]
    NotBooting,
    /// The same, and there is no loader for the client's architecture.
    #[error("there is no loader for the client's architecture")]
    NoLoader,
}

/// What a request tells about the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// SMBIOS UUID.
    pub uuid: Option<Uuid>,
    /// Processor and firmware.
    pub architecture: Option<Architecture>,
    /// Vendor class, printable.
    pub vendor_class: Option<String>,
    /// Host name, printable.
    pub hostname: Option<String>,
    /// Which program asks.
    pub stage: Stage,
    /// What it asks.
    pub message: MessageType,
    /// The address that it is offered or given by the reply.
    pub ip: Option<Ipv4Addr>,
    /// The relay that it is behind.
    pub relay: Option<Ipv4Addr>,
    /// Where it is plugged in, as told by the relay.
    pub placement: Option<Placement>,
    /// It is enrolled or has a reservation.
    pub known: bool,
    /// It took the address that this other server offered, where it should have had ours.
    pub elsewhere: Option<Ipv4Addr>,
    /// Beside the site's DHCP server: the address that it takes from that one.
    pub takes: Option<Ipv4Addr>,
}

impl Observed {
    pub(crate) fn of(request: &Request<'_>, known: bool) -> Self {
        Self {
            mac: request.mac,
            uuid: request.uuid,
            architecture: request.architecture,
            vendor_class: request.vendor_class.clone(),
            hostname: request.hostname.clone(),
            stage: request.stage,
            message: request.message,
            ip: None,
            relay: Some(request.giaddr).filter(|ip| !ip.is_unspecified()),
            placement: request.placement.clone(),
            known,
            elsewhere: None,
            takes: None,
        }
    }
}

impl Observed {
    /// It chose another server: the site's own where we only stand by, one that should not be there where we lend to it.
    /// `mode` is that of the subnet whose address it takes.
    pub(crate) fn chose(&mut self, server: Ipv4Addr, mode: Mode, wish: Option<Ipv4Addr>) {
        match mode {
            _ if self.message != MessageType::Request => {}
            Mode::Authoritative => self.elsewhere = Some(server),
            Mode::Reserved => self.elsewhere = Some(server).filter(|_| self.known),
            Mode::Proxy => self.takes = wish,
            Mode::Off => {}
        }
    }
}

impl Destination {
    /// RFC 2131 section 4.1.
    pub(crate) fn of(request: &Request<'_>, kind: Kind, port: Port) -> Self {
        if !request.giaddr.is_unspecified() {
            return Self::Relay(request.giaddr);
        }
        if port == Port::Boot4011 {
            return Self::Sender;
        }
        if matches!(kind, Kind::Nak(_)) {
            return Self::Broadcast;
        }
        // Only an address that was checked against the subnet, else anybody could have others sent what they never asked for.
        let checked = kind == Kind::Informed || kind.address() == Some(request.ciaddr);
        if checked && !request.ciaddr.is_unspecified() {
            return Self::Unicast(request.ciaddr);
        }
        match (kind.address(), request.mac) {
            (Some(ip), Some(mac)) if !request.broadcast => Self::UnicastRaw { mac, ip },
            _ => Self::Broadcast,
        }
    }
}
