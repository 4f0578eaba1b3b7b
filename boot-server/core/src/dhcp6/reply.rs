//! The octets of a reply, and of the envelopes for the relays that it goes back through.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::boot::BootAnswer;
use super::config::{Config, Subnet};
use super::request::{Relay, Request};
use super::wire::{code, put};

/// Outcomes (RFC 8415 section 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Success = 0,
    NoAddrsAvail = 2,
    NoBinding = 3,
    NotOnLink = 4,
    NoPrefixAvail = 6,
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Content {
    /// An Advertise, not a Reply.
    pub advertise: bool,
    /// It answers a Solicit at once (option 14).
    pub rapid_commit: bool,
    /// The associations.
    pub ias: Vec<IaReply>,
    /// Associations that are not served are refused, and boot file and name servers are told.
    pub complete: bool,
    /// The outcome of the whole.
    pub status: Option<Status>,
}

/// One association in a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IaReply {
    pub id: [u8; 4],
    /// The address it is lent.
    pub address: Option<Ipv6Addr>,
    /// Addresses that the client must stop to use.
    pub ended: Vec<Ipv6Addr>,
    pub status: Option<Status>,
}

const ADVERTISE: u8 = 2;
const REPLY: u8 = 7;
const RELAY_REPLY: u8 = 13;
/// Intel's enterprise number and the vendor class of HTTP boot (UEFI 2.10 section 24.7.3.2): without it in the reply the
/// firmware ignores the URL.
const HTTP_CLASS: &[u8] = b"\0\0\x01\x57\0\x0aHTTPClient";

/// Makes the reply to a request, in the envelopes of its relays.
pub(crate) fn build(
    config: &Config,
    subnet: &Subnet,
    request: &Request<'_>,
    content: &Content,
    boot: Option<&BootAnswer>,
) -> Vec<u8> {
    let [a, b, c] = request.xid;
    let mut out = vec![if content.advertise { ADVERTISE } else { REPLY }, a, b, c];
    put(&mut out, code::SERVER_ID, &config.duid);
    if let Some(id) = request.client_id {
        put(&mut out, code::CLIENT_ID, id);
    }
    if content.advertise {
        put(&mut out, code::PREFERENCE, &[config.preference]);
    }
    if content.rapid_commit {
        put(&mut out, code::RAPID_COMMIT, &[]);
    }
    if let Some(status) = content.status {
        put(&mut out, code::STATUS, &status.option());
    }
    for ia in &content.ias {
        put(&mut out, code::IA_NA, &ia.option(subnet.lease_time));
    }
    if content.complete {
        refusals(&mut out, request);
        if request.wanted.contains(&code::DNS) && !subnet.dns.is_empty() {
            let octets: Vec<u8> = subnet.dns.iter().flat_map(Ipv6Addr::octets).collect();
            put(&mut out, code::DNS, &octets);
        }
        if let Some(boot) = boot {
            boot_options(&mut out, request, boot);
        }
    }
    // The relay nearest to us is the outermost envelope, so it is put on last.
    request.relays.iter().rev().fold(out, |inner, relay| envelope(relay, &inner))
}

/// Temporary addresses and prefixes are not served (RFC 8415 section 18.3.9 and section 6.3).
fn refusals(out: &mut Vec<u8>, request: &Request<'_>) {
    for (option, id) in &request.refused {
        let mut data = id.to_vec();
        let status = if *option == code::IA_PD { Status::NoPrefixAvail } else { Status::NoAddrsAvail };
        if *option == code::IA_PD {
            data.extend([0; 8]);
        }
        put(&mut data, code::STATUS, &status.option());
        put(out, *option, &data);
    }
}

fn boot_options(out: &mut Vec<u8>, request: &Request<'_>, boot: &BootAnswer) {
    // Who boots wants the URL, even if its list of wishes is missing (RFC 5970 section 3.1).
    if request.wanted.is_empty() || request.wanted.contains(&code::BOOT_FILE_URL) {
        put(out, code::BOOT_FILE_URL, boot.url.as_bytes());
        if boot.http_class {
            put(out, code::VENDOR_CLASS, HTTP_CLASS);
        }
    }
}

fn envelope(relay: &Relay<'_>, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![RELAY_REPLY, relay.hop_count];
    out.extend(relay.link.octets());
    out.extend(relay.peer.octets());
    if let Some(id) = relay.interface_id {
        put(&mut out, code::INTERFACE_ID, id);
    }
    put(&mut out, code::RELAY_MESSAGE, inner);
    out
}

impl Status {
    /// Code and a sentence for people.
    fn option(self) -> Vec<u8> {
        let text = match self {
            Self::Success => "done",
            Self::NoAddrsAvail => "no address is free",
            Self::NoBinding => "the address is not yours",
            Self::NotOnLink => "the address is not of this network",
            Self::NoPrefixAvail => "prefixes are not served",
        };
        let mut data = (self as u16).to_be_bytes().to_vec();
        data.extend(text.bytes());
        data
    }
}

impl IaReply {
    /// RFC 8415 sections 21.4 and 21.6. The client renews at half the lifetime and asks anybody at four fifths.
    fn option(&self, lifetime: Duration) -> Vec<u8> {
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let lent = if self.address.is_some() { seconds } else { 0 };
        let mut data = self.id.to_vec();
        data.extend((lent / 2).to_be_bytes());
        data.extend((lent / 5 * 4).to_be_bytes());
        let ended = self.ended.iter().map(|ip| (*ip, 0));
        for (ip, lifetime) in self.address.map(|ip| (ip, seconds)).into_iter().chain(ended) {
            let mut address = ip.octets().to_vec();
            // Preferred and valid for the same time.
            address.extend([lifetime.to_be_bytes(), lifetime.to_be_bytes()].concat());
            put(&mut data, code::IA_ADDRESS, &address);
        }
        if let Some(status) = self.status {
            put(&mut data, code::STATUS, &status.option());
        }
        data
    }
}
