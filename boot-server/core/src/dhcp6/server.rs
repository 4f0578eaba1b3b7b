//! What is done about a request: RFC 8415 section 18.3, as the authoritative server of its subnets.

use std::net::Ipv6Addr;

use protocol::{MacAddr, Timestamp};

use super::boot;
use super::config::{Config, ConfigError, Subnet};
use super::lease::{ClientKey, Lease, LeaseState, Leases};
use super::reply::{self, Content, IaReply, Status};
use super::request::{Ia, MessageType, Request, RequestError};
use crate::dhcp::boot::Architecture;
use crate::dhcp::request::Stage;

/// The server: its configuration and its leases.
#[derive(Debug)]
pub struct Server {
    config: Config,
    leases: Leases,
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
}

/// One message to send, to the address that the request came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// UDP payload.
    pub bytes: Vec<u8>,
    /// It goes to a relay (port 547), not to a client (port 546).
    pub to_relay: bool,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It came from a network that is not served.
    #[error("no subnet is configured for {0}")]
    NoSubnet(Ipv6Addr),
    /// The client chose, or speaks to, another server.
    #[error("the client speaks to another server")]
    OtherServer,
    /// It breaks RFC 8415 section 16.
    #[error("{0}")]
    Invalid(&'static str),
}

/// What a request tells about the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// Processor and firmware.
    pub architecture: Option<Architecture>,
    /// Vendor class, printable.
    pub vendor_class: Option<String>,
    /// Which program asks.
    pub stage: Stage,
    /// What it asks.
    pub message: MessageType,
    /// The address that it is offered or given by the reply.
    pub ip: Option<Ipv6Addr>,
    /// The relay that it is behind, seen from us.
    pub relay: Option<Ipv6Addr>,
}

/// What is done with the associations of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lend {
    /// Addresses are chosen, and nothing is kept.
    Offer,
    /// Addresses are lent.
    Bind,
    /// Addresses are lent again.
    Prolong,
}

impl Server {
    /// A server with the leases that were stored.
    ///
    /// # Errors
    /// [`ConfigError`] where the configuration cannot be.
    pub fn new(config: Config, stored: Vec<Lease>) -> Result<Self, ConfigError> {
        config.check()?;
        let leases = Leases::restore(&config, stored);
        Ok(Self { config, leases })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Takes one datagram that came to port 547 from `from`.
    ///
    /// # Errors
    /// [`RequestError`] where it is no request; nothing changed then.
    pub fn handle_packet(
        &mut self,
        now: Timestamp,
        from: Ipv6Addr,
        bytes: &[u8],
    ) -> Result<Answer, RequestError> {
        let request = Request::parse(bytes, from)?;
        let mut observed = Observed::of(&request, from);
        let mut leases = Vec::new();
        let reply = self.decide(now, &request, &mut leases).map(|(subnet, content)| {
            observed.ip = content.ias.iter().find_map(|ia| ia.address);
            let boot = boot::answer(&self.config, &request);
            let bytes = reply::build(&self.config, &subnet, &request, &content, boot.as_ref());
            Reply { bytes, to_relay: !request.relays.is_empty() }
        });
        Ok(Answer { observed, leases, reply })
    }

    fn decide(
        &mut self,
        now: Timestamp,
        request: &Request<'_>,
        changed: &mut Vec<Lease>,
    ) -> Result<(Subnet, Content), Silence> {
        self.check(request)?;
        let link = self.link_of(request);
        let subnet = self.config.subnet_of(link).cloned().ok_or(Silence::NoSubnet(link))?;
        let content = match request.message {
            MessageType::Solicit if request.rapid_commit => {
                let ias = self.lend(now, &subnet, request, Lend::Bind, changed);
                Content { rapid_commit: true, ias, complete: true, ..Content::default() }
            }
            MessageType::Solicit => {
                let ias = self.lend(now, &subnet, request, Lend::Offer, changed);
                Content { advertise: true, ias, complete: true, ..Content::default() }
            }
            MessageType::Request | MessageType::Renew | MessageType::Rebind => {
                let how = if request.message == MessageType::Request { Lend::Bind } else { Lend::Prolong };
                let ias = self.lend(now, &subnet, request, how, changed);
                Content { ias, complete: true, ..Content::default() }
            }
            MessageType::Confirm => confirm(&subnet, request)?,
            MessageType::Release | MessageType::Decline => self.give_back(now, request, changed),
            MessageType::InformationRequest => Content { complete: true, ..Content::default() },
        };
        Ok((subnet, content))
    }

    /// RFC 8415 section 16: which identifiers a message must and must not have.
    fn check(&self, request: &Request<'_>) -> Result<(), Silence> {
        use MessageType as M;
        let ours = request.server_id == Some(&self.config.duid[..]);
        match request.message {
            M::Solicit | M::Confirm | M::Rebind if request.server_id.is_some() => {
                Err(Silence::Invalid("a message to all servers names one"))
            }
            M::Request | M::Renew | M::Release | M::Decline if !ours => Err(Silence::OtherServer),
            M::InformationRequest if request.server_id.is_some() && !ours => Err(Silence::OtherServer),
            M::InformationRequest if !request.ias.is_empty() || !request.refused.is_empty() => {
                Err(Silence::Invalid("an information request asks for addresses"))
            }
            M::InformationRequest => Ok(()),
            _ if request.client_id.is_none() => Err(Silence::Invalid("the client does not name itself")),
            _ => Ok(()),
        }
    }

    /// An address of the link that the client is on: its nearest relay's that tells one, or ours.
    fn link_of(&self, request: &Request<'_>) -> Ipv6Addr {
        let told = request.relays.iter().rev().map(|r| r.link).find(|link| !link.is_unspecified());
        told.unwrap_or(self.config.address)
    }

    fn lend(
        &mut self,
        now: Timestamp,
        subnet: &Subnet,
        request: &Request<'_>,
        how: Lend,
        changed: &mut Vec<Lease>,
    ) -> Vec<IaReply> {
        let mut replies: Vec<IaReply> = Vec::new();
        for (index, ia) in request.ias.iter().enumerate() {
            let Some(client) = self.key(now, request, index, ia) else { continue };
            let taken: Vec<_> = replies.iter().filter_map(|r| r.address).collect();
            replies.push(self.lend_one(now, subnet, &client, ia, how, &taken, changed));
        }
        replies
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `lend`, which has them all")]
    fn lend_one(
        &mut self,
        now: Timestamp,
        subnet: &Subnet,
        client: &ClientKey,
        ia: &Ia,
        how: Lend,
        taken: &[Ipv6Addr],
        changed: &mut Vec<Lease>,
    ) -> IaReply {
        let refused = |status| IaReply { id: ia.id, address: None, ended: Vec::new(), status: Some(status) };
        if how == Lend::Bind && ia.addresses.iter().any(|ip| !subnet.net.contains(*ip)) {
            return refused(Status::NotOnLink);
        }
        let chosen = self.leases.choose(now, &self.config, subnet, client, &ia.addresses, taken);
        let address = match how {
            Lend::Offer => chosen,
            Lend::Bind | Lend::Prolong => chosen.filter(|ip| {
                let rows = self.leases.bind(now, subnet, client, *ip);
                let bound = rows.is_some();
                changed.extend(rows.into_iter().flatten());
                bound
            }),
        };
        // What the client has and is not lent again ends now (section 18.3.4).
        let ended = ia.addresses.iter().filter(|ip| how == Lend::Prolong && Some(**ip) != address).copied();
        let status = address.is_none().then_some(match how {
            Lend::Prolong => Status::NoBinding,
            Lend::Offer | Lend::Bind => Status::NoAddrsAvail,
        });
        IaReply { id: ia.id, address, ended: ended.collect(), status }
    }

    /// Who holds the lease of an association. A port has one lease, however its programs number their associations; only
    /// what is asked for beside that is kept by the association's own name.
    fn key(&self, now: Timestamp, request: &Request<'_>, index: usize, ia: &Ia) -> Option<ClientKey> {
        let own = ClientKey::Ia(ia.id, request.client_id?.to_vec());
        let kept = self.leases.of(&own).is_some_and(|l| l.state == LeaseState::Bound && l.expires > now);
        match request.port {
            Some(mac) if index == 0 && !kept => Some(ClientKey::Mac(mac)),
            _ => Some(own),
        }
    }

    fn give_back(&mut self, now: Timestamp, request: &Request<'_>, changed: &mut Vec<Lease>) -> Content {
        let mut ias = Vec::new();
        for (index, ia) in request.ias.iter().enumerate() {
            let Some(client) = self.key(now, request, index, ia) else { continue };
            let before = changed.len();
            for ip in &ia.addresses {
                changed.extend(match request.message {
                    MessageType::Decline => self.leases.decline(now, &client, *ip),
                    _ => self.leases.release(now, &client, *ip),
                });
            }
            if changed.len() == before {
                let status = Some(Status::NoBinding);
                ias.push(IaReply { id: ia.id, address: None, ended: Vec::new(), status });
            }
        }
        Content { ias, status: Some(Status::Success), ..Content::default() }
    }
}

/// RFC 8415 section 18.3.3: only whether the addresses are of this link.
fn confirm(subnet: &Subnet, request: &Request<'_>) -> Result<Content, Silence> {
    let mut addresses = request.ias.iter().flat_map(|ia| &ia.addresses).peekable();
    if addresses.peek().is_none() {
        return Err(Silence::Invalid("nothing to confirm"));
    }
    let status =
        if addresses.all(|ip| subnet.net.contains(*ip)) { Status::Success } else { Status::NotOnLink };
    Ok(Content { status: Some(status), ..Content::default() })
}

impl Observed {
    fn of(request: &Request<'_>, from: Ipv6Addr) -> Self {
        Self {
            mac: request.mac(),
            architecture: request.architecture,
            vendor_class: request.vendor_class.clone(),
            stage: request.stage,
            message: request.message,
            ip: None,
            relay: (!request.relays.is_empty()).then_some(from),
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
