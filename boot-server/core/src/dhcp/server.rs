//! The server: which subnet a request is of, and who decides about it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use protocol::{MacAddr, Timestamp};

use super::answer::{Answer, Destination, Observed, Port, Reply, Silence};
use super::boot;
use super::config::{Config, ConfigError, Machine, Mode, Reservation, Subnet};
use super::known::Known;
use super::lease::Lease;
use super::lend::{self, Lender};
use super::pxe;
use super::reply::{self, Kind};
use super::request::{Request, RequestError};
use super::table::Leases;

/// The server: its configuration and its leases.
#[derive(Debug)]
pub struct Server {
    config: Config,
    leases: Leases,
    known: Known,
    /// By machine and subnet: which of the subnet's reservations.
    reservations: BTreeMap<(Machine, usize), usize>,
}

/// A subnet that a request may be of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub index: usize,
    pub subnet: &'a Subnet,
    /// The client's own there.
    pub reservation: Option<&'a Reservation>,
}

/// What to reply, and as which subnet's server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision<'a> {
    pub kind: Kind,
    pub place: Candidate<'a>,
}

impl Server {
    /// A server with the leases that were stored.
    ///
    /// # Errors
    /// [`ConfigError`] where the configuration cannot be.
    pub fn new(config: Config, stored: Vec<Lease>) -> Result<Self, ConfigError> {
        config.check()?;
        let leases = Leases::restore(&config, stored);
        let of_subnet = |(index, subnet): (usize, &Subnet)| {
            let keys = subnet.reservations.iter().map(|r| r.machine.clone());
            keys.enumerate().map(|(n, machine)| ((machine, index), n)).collect::<Vec<_>>()
        };
        let reservations = config.subnets.iter().enumerate().flat_map(of_subnet).collect();
        Ok(Self { config, leases, known: Known::default(), reservations })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tells which machines are enrolled; replaces what was told before. Cheap where little changed.
    pub fn set_known(&mut self, known: Known) {
        let gone = self.known.macs.difference(&known.macs).map(|mac| (*mac, false));
        let come = known.macs.difference(&self.known.macs).map(|mac| (*mac, true));
        self.leases.set_known(u64::try_from(known.macs.len()).unwrap_or(u64::MAX), gone.chain(come));
        self.known = known;
    }

    /// The outcome of an [`Answer::probe`]: the hardware address of who uses the address, or that nobody answered. Returns
    /// the row to store, which says that the address rests; none where it is free, or was lent meanwhile.
    pub fn handle_probe(
        &mut self,
        now: Timestamp,
        ip: Ipv4Addr,
        in_use_by: Option<MacAddr>,
    ) -> Option<Lease> {
        // Another address may rest less long for it. Where that is not stored, it rests again after a restart.
        self.leases.probed(now, ip, in_use_by).into_iter().next()
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
        let Self { config, leases, known, reservations } = self;
        let candidates = candidates(config, reservations, &request);
        let reserved = candidates.iter().any(|c| c.reservation.is_some());
        let is_known = reserved || known.has(request.mac, request.uuid);
        let mut answer = Answer {
            observed: Observed::of(&request, is_known),
            leases: Vec::new(),
            reply: Err(Silence::NoReplyDue),
            probe: None,
        };
        // One that is off lends nothing, but one that shares its wire may.
        let served = candidates.iter().find(|c| c.subnet.mode != Mode::Off);
        let decided = match served.or(candidates.first()) {
            None => Err(Silence::NoSubnet(network_of(config, &request))),
            Some(place) if place.subnet.mode == Mode::Off => Err(Silence::Off(place.subnet.net)),
            Some(place) if port == Port::Boot4011 => pxe::on_4011(config, &request, *place),
            Some(place) if place.subnet.mode == Mode::Proxy => pxe::on_67(config, &request, *place),
            Some(_) => {
                let places = &candidates;
                let mut lender = Lender { now, config, leases, request: &request, known: is_known, places };
                lender.decide(&mut answer.leases)
            }
        };
        if let (Err(Silence::OtherServer(server)), Some(place)) = (&decided, served) {
            let wish = request.requested_ip;
            let of = wish.and_then(|ip| candidates.iter().find(|c| c.subnet.net.contains(ip)));
            answer.observed.chose(*server, of.unwrap_or(place).subnet.mode, wish);
        }
        answer.reply = decided.map(|decision| {
            answer.observed.ip = decision.kind.address();
            answer.probe = lend::to_probe(now, config, leases, &request, decision.kind);
            self::reply(config, &request, decision, port)
        });
        Ok(answer)
    }
}

/// The subnets that the request may be of, the likeliest first. By the relay's word (RFC 3527), else the relay's
/// address, else the address that the client renews from afar; else those of the server's own wire.
fn candidates<'a>(
    config: &'a Config,
    reservations: &BTreeMap<(Machine, usize), usize>,
    request: &Request<'_>,
) -> Vec<Candidate<'a>> {
    let relayed = !request.giaddr.is_unspecified();
    let from = network_of(config, request);
    let mine = |subnet: &Subnet| {
        let shares_wire = !relayed && from == config.server_ip && subnet.on_link;
        let by_relay = relayed && request.link.is_none() && subnet.relays.contains(&from);
        subnet.net.contains(from) || shares_wire || by_relay
    };
    let found = config.subnets.iter().enumerate().filter(|(_, s)| mine(s));
    let mut found: Vec<_> = found
        .map(|(index, subnet)| {
            let of = |machine| Some(&subnet.reservations[*reservations.get(&(machine, index))?]);
            let reservation = request.machines().find_map(of);
            Candidate { index, subnet, reservation }
        })
        .collect();
    // The subnet that the address is of comes before those that share its wire.
    found.sort_by_key(|c| !c.subnet.net.contains(from));
    found
}

/// An address of the network that the client is in.
fn network_of(config: &Config, request: &Request<'_>) -> Ipv4Addr {
    if !request.giaddr.is_unspecified() {
        request.link.unwrap_or(request.giaddr)
    } else if config.subnet_of(request.ciaddr).is_some_and(|s| !s.on_link) {
        request.ciaddr
    } else {
        config.server_ip
    }
}

fn reply(config: &Config, request: &Request<'_>, decision: Decision<'_>, port: Port) -> Reply {
    let Decision { kind, place } = decision;
    let boot = boot::answer(config, request);
    let hostname = place.reservation.and_then(|r| r.hostname.as_deref());
    let bytes = reply::build(config, place.subnet, request, kind, boot.as_ref(), hostname);
    let nak = matches!(kind, Kind::Nak(_));
    Reply { bytes, destination: Destination::of(request, kind, port), port, nak }
}

#[cfg(test)]
#[path = "server_tests.rs"]
pub(crate) mod tests;
