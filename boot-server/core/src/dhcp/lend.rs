//! What is done about a request where addresses are lent: RFC 2131 section 4.3.

use std::net::Ipv4Addr;

use protocol::Timestamp;

use super::answer::Silence;
use super::config::{Config, Mode};
use super::lease::Lease;
use super::reply::Kind;
use super::request::{MessageType, Request};
use super::server::{Candidate, Decision};
use super::table::{Leases, Place, Refusal, Who};

/// One request, and all that is needed to decide about it.
pub(crate) struct Lender<'a, 'r, 'l> {
    pub now: Timestamp,
    pub config: &'a Config,
    pub leases: &'l mut Leases,
    pub request: &'a Request<'r>,
    /// The client is enrolled or has a reservation.
    pub known: bool,
    /// At least one of them lends.
    pub places: &'a [Candidate<'a>],
}

impl<'a> Lender<'a, '_, '_> {
    /// Decides, and enters the rows that changed into `changed`.
    pub fn decide(&mut self, changed: &mut Vec<Lease>) -> Result<Decision<'a>, Silence> {
        match self.request.message {
            MessageType::Discover => self.discover(),
            MessageType::Request => self.request(changed),
            MessageType::Inform => self.inform(),
            MessageType::Decline | MessageType::Release => {
                changed.extend(self.give_back());
                Err(Silence::NoReplyDue)
            }
        }
    }

    /// Section 4.3.1: of the subnets of the wire, the one with the client's reservation, else the one with its address,
    /// else the first with room.
    fn discover(&mut self) -> Result<Decision<'a>, Silence> {
        let own = self.leases.of(&self.request.client).map(|l| l.ip);
        let mut places: Vec<_> = self.places.iter().filter(|c| lends(c)).copied().collect();
        places.sort_by_key(|c| (c.reservation.is_none(), !own.is_some_and(|ip| c.subnet.net.contains(ip))));
        let mut silence = None;
        for place in places {
            if let Err(why) = self.admit(place) {
                silence = silence.or(Some(why));
                continue;
            }
            let wish = self.request.requested_ip;
            if let Some(ip) = self.leases.offer(self.now, table_place(place), self.who(place), wish) {
                return Ok(Decision { kind: Kind::Offer(ip), place });
            }
            silence = Some(Silence::PoolExhausted);
        }
        Err(silence.unwrap_or(Silence::PoolExhausted))
    }

    /// The four kinds of DHCPREQUEST (section 4.3.2 and table 4).
    fn request(&mut self, changed: &mut Vec<Lease>) -> Result<Decision<'a>, Silence> {
        let request = self.request;
        let ip = match (request.server_id, request.requested_ip) {
            // SELECTING
            (Some(server), _) if !self.is_us(server) => {
                self.leases.withdraw(&request.client);
                return Err(Silence::OtherServer(server));
            }
            // SELECTING, INIT-REBOOT
            (_, Some(ip)) => ip,
            // RENEWING, REBINDING
            (_, None) if !request.ciaddr.is_unspecified() => request.ciaddr,
            (_, None) => return Err(Silence::NoAddress),
        };
        let first = self.places.iter().copied().find(lends).ok_or(Silence::NoAddress)?;
        let Some(place) = self.places.iter().copied().find(|c| c.subnet.net.is_host(ip)) else {
            // Not of this wire: whoever is the authority here says so at once, for the client to start again.
            self.admit(first)?;
            return Ok(nak(first, "the address is not of this network"));
        };
        // A subnet of the same wire that another server lends from.
        if !lends(&place) {
            return Err(Silence::Off(place.subnet.net));
        }
        self.admit(place)?;
        match self.leases.bind(self.now, table_place(place), self.who(place), ip) {
            Ok(leases) => {
                *changed = leases;
                Ok(Decision { kind: Kind::Ack(ip), place })
            }
            Err(Refusal::NotLent) => Ok(nak(place, "the address is not lent")),
            Err(Refusal::InUse) => Ok(nak(place, "the address is in use")),
            // Section 4.3.2: a client in INIT-REBOOT that we have no record of gets silence.
            Err(Refusal::Short) => Err(Silence::PoolExhausted),
        }
    }

    /// Section 4.3.5.
    fn inform(&self) -> Result<Decision<'a>, Silence> {
        let place = self.places.iter().copied().find(|c| c.subnet.net.is_host(self.request.ciaddr));
        let place = place.filter(lends).ok_or(Silence::NoAddress)?;
        self.admit(place)?;
        Ok(Decision { kind: Kind::Informed, place })
    }

    /// Sections 4.3.3 and 4.3.4.
    fn give_back(&mut self) -> Vec<Lease> {
        let request = self.request;
        if request.server_id.is_some_and(|id| !self.is_us(id)) {
            return Vec::new();
        }
        match (request.message, request.requested_ip) {
            (MessageType::Decline, Some(ip)) => self.leases.decline(self.now, &request.client, ip),
            (MessageType::Decline, None) => Vec::new(),
            _ => self.leases.release(self.now, &request.client, request.ciaddr).into_iter().collect(),
        }
    }

    fn admit(&self, place: Candidate<'_>) -> Result<(), Silence> {
        let open = place.subnet.mode != Mode::Reserved || self.known;
        if open { Ok(()) } else { Err(Silence::Stranger(place.subnet.net)) }
    }

    fn who(&self, place: Candidate<'_>) -> Who<'a> {
        Who {
            client: &self.request.client,
            uuid: self.request.uuid,
            known: self.known,
            reserved: place.reservation.map(|r| r.ip),
            placement: self.request.placement.as_ref(),
        }
    }

    fn is_us(&self, server: Ipv4Addr) -> bool {
        server == self.config.server_ip || Some(server) == self.request.server_override
    }
}

/// The address to probe before the reply leaves. Only on the server's own wire: ARP passes no relay.
pub(crate) fn to_probe(
    now: Timestamp,
    config: &Config,
    leases: &Leases,
    request: &Request<'_>,
    kind: Kind,
) -> Option<Ipv4Addr> {
    let Kind::Offer(ip) = kind else { return None };
    let local = config.probe && request.giaddr.is_unspecified();
    (local && leases.is_unproven(now, ip)).then_some(ip)
}

fn lends(place: &Candidate<'_>) -> bool {
    matches!(place.subnet.mode, Mode::Authoritative | Mode::Reserved)
}

fn table_place(place: Candidate<'_>) -> Place<'_> {
    Place { index: place.index, subnet: place.subnet }
}

fn nak<'a>(place: Candidate<'a>, why: &'static str) -> Decision<'a> {
    Decision { kind: Kind::Nak(why), place }
}
