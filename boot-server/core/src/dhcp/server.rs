//! What is done about a request: RFC 2131 section 4.3, as the authoritative server of its subnets.

use std::net::Ipv4Addr;

use protocol::{MacAddr, Timestamp};
use uuid::Uuid;

use super::boot::{self, Architecture};
use super::config::{Config, ConfigError, Subnet};
use super::known::Known;
use super::lease::{Lease, Leases};
use super::net::Ipv4Net;
use super::reply::{self, Kind};
use super::request::{MessageType, Request, RequestError, Stage};

/// The server: its configuration and its leases.
#[derive(Debug)]
pub struct Server {
    config: Config,
    leases: Leases,
    known: Known,
}

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
    #[error("no address is free")]
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
}

/// Where a machine is plugged in, in the words of the relay or switch (option 82, RFC 3046), made printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Circuit id (sub-option 1): most often the switch's port.
    pub circuit: Option<String>,
    /// Remote id (sub-option 2): most often the switch.
    pub remote: Option<String>,
}

impl Server {
    /// A server with the leases that were stored.
    ///
    /// # Errors
    /// [`ConfigError`] where the configuration cannot be.
    pub fn new(config: Config, stored: Vec<Lease>) -> Result<Self, ConfigError> {
        config.check()?;
        let leases = Leases::restore(&config, stored);
        Ok(Self { config, leases, known: Known::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tells which machines are enrolled; replaces what was told before.
    pub fn set_known(&mut self, known: Known) {
        self.known = known;
    }

    /// The outcome of an [`Answer::probe`]: the hardware address of who uses the address, or that nobody answered. Returns
    /// the row to store.
    pub fn handle_probe(
        &mut self,
        now: Timestamp,
        ip: Ipv4Addr,
        in_use_by: Option<MacAddr>,
    ) -> Option<Lease> {
        self.leases.probed(now, ip, in_use_by)
    }

    /// The leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Takes one datagram that came to `port`.
    ///
    /// # Errors
    /// [`RequestError`] where it is no request; nothing changed then.
    pub fn handle_packet(
        &mut self,
        now: Timestamp,
        port: Port,
        bytes: &[u8],
    ) -> Result<Answer, RequestError> {
        let request = Request::parse(bytes)?;
        let mut answer = Answer {
            observed: Observed::of(&request),
            leases: Vec::new(),
            reply: Err(Silence::NoReplyDue),
            probe: None,
        };
        if port == Port::Boot4011 {
            answer.reply = Err(Silence::NotBooting);
            return Ok(answer);
        }
        let from = self.network_of(&request);
        let Some(subnet) = self.config.subnet_of(from).cloned() else {
            answer.reply = Err(Silence::NoSubnet(from));
            return Ok(answer);
        };
        answer.reply = match request.message {
            MessageType::Discover => self.discover(now, &subnet, &request),
            MessageType::Request => self.request(now, &subnet, &request, &mut answer.leases),
            MessageType::Inform => self.inform(&subnet, &request),
            MessageType::Decline | MessageType::Release => {
                answer.leases = self.give_back(now, &request).into_iter().collect();
                Err(Silence::NoReplyDue)
            }
        }
        .map(|kind| {
            answer.observed.ip = kind.address();
            self.reply(&subnet, &request, kind)
        });
        answer.observed.known = self.known.has(request.mac, request.uuid);
        answer.probe = answer.observed.ip.filter(|ip| {
            let local = self.config.probe && request.giaddr.is_unspecified();
            local && request.message == MessageType::Discover && self.leases.is_unproven(*ip)
        });
        Ok(answer)
    }

    /// An address of the network that the client is in: its relay's, or its own where it renews from afar, or ours.
    fn network_of(&self, request: &Request<'_>) -> Ipv4Addr {
        if !request.giaddr.is_unspecified() {
            request.giaddr
        } else if self.config.subnet_of(request.ciaddr).is_some() {
            request.ciaddr
        } else {
            self.config.server_ip
        }
    }

    fn discover(&mut self, now: Timestamp, subnet: &Subnet, request: &Request<'_>) -> Result<Kind, Silence> {
        let offer = self.leases.offer(now, &self.config, subnet, &request.client, request.requested_ip);
        offer.map(Kind::Offer).ok_or(Silence::PoolExhausted)
    }

    /// The four kinds of DHCPREQUEST (RFC 2131 section 4.3.2 and table 4).
    fn request(
        &mut self,
        now: Timestamp,
        subnet: &Subnet,
        request: &Request<'_>,
        changed: &mut Vec<Lease>,
    ) -> Result<Kind, Silence> {
        let ip = match (request.server_id, request.requested_ip) {
            // SELECTING
            (Some(server), _) if server != self.config.server_ip => {
                self.leases.withdraw(&request.client);
                return Err(Silence::OtherServer(server));
            }
            // SELECTING, INIT-REBOOT
            (_, Some(ip)) => ip,
            // RENEWING, REBINDING
            (_, None) if !request.ciaddr.is_unspecified() => request.ciaddr,
            (_, None) => return Err(Silence::NoAddress),
        };
        if !subnet.net.is_host(ip) {
            return Ok(Kind::Nak("the address is not of this network"));
        }
        if !subnet.lends(ip) || self.config.is_taken(subnet, ip) {
            return Ok(Kind::Nak("the address is not lent"));
        }
        match self.leases.bind(now, subnet, &request.client, ip) {
            Some(leases) => {
                *changed = leases;
                Ok(Kind::Ack(ip))
            }
            None => Ok(Kind::Nak("the address is in use")),
        }
    }

    fn inform(&self, subnet: &Subnet, request: &Request<'_>) -> Result<Kind, Silence> {
        if subnet.net.is_host(request.ciaddr) { Ok(Kind::Informed) } else { Err(Silence::NoAddress) }
    }

    fn give_back(&mut self, now: Timestamp, request: &Request<'_>) -> Option<Lease> {
        if request.server_id.is_some_and(|id| id != self.config.server_ip) {
            return None;
        }
        if request.message == MessageType::Decline {
            self.leases.decline(now, &request.client, request.requested_ip?)
        } else {
            self.leases.release(now, &request.client, request.ciaddr)
        }
    }

    fn reply(&self, subnet: &Subnet, request: &Request<'_>, kind: Kind) -> Reply {
        let boot = boot::answer(&self.config, request);
        let bytes = reply::build(&self.config, subnet, request, kind, boot.as_ref());
        let nak = matches!(kind, Kind::Nak(_));
        Reply { bytes, destination: destination(request, kind), port: Port::Server67, nak }
    }
}

fn destination(request: &Request<'_>, kind: Kind) -> Destination {
    if !request.giaddr.is_unspecified() {
        return Destination::Relay(request.giaddr);
    }
    if matches!(kind, Kind::Nak(_)) {
        return Destination::Broadcast;
    }
    if !request.ciaddr.is_unspecified() {
        return Destination::Unicast(request.ciaddr);
    }
    match (kind.address(), request.mac) {
        (Some(ip), Some(mac)) if !request.broadcast => Destination::UnicastRaw { mac, ip },
        _ => Destination::Broadcast,
    }
}

impl Observed {
    fn of(request: &Request<'_>) -> Self {
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
            placement: None,
            known: false,
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
pub(crate) mod tests;
