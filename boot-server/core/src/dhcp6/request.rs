//! Parsing of what clients and relays send. An option that cannot be read is as if it were absent, and does not hide the
//! ones after it.

use std::net::Ipv6Addr;

use protocol::MacAddr;

use super::limits;
use super::wire::{Options, class_items, code};
use crate::dhcp::boot::Architecture;
use crate::dhcp::request::Stage;

/// Why a packet is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Shorter than the fixed part.
    #[error("packet of {0} octets is too short")]
    Short(usize),
    /// A message of a server, or nonsense.
    #[error("message type {0} is not one that clients or relays send")]
    MessageType(u8),
    /// A relay's envelope with nothing in it.
    #[error("a relay forwarded no message")]
    EmptyRelay,
    /// More relays than a real network has.
    #[error("more than {} relays", limits::RELAYS_MAX)]
    Relays,
}

/// Messages that clients send (RFC 8415 section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// Who is there?
    Solicit,
    /// Give me these addresses.
    Request,
    /// Is my address still right on this link?
    Confirm,
    /// Prolong; to the server that gave them.
    Renew,
    /// Prolong; to any server.
    Rebind,
    /// I do not need them any more.
    Release,
    /// Somebody has this address.
    Decline,
    /// I have addresses; tell me the rest.
    InformationRequest,
}

/// A request, as far as it matters here.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What it is.
    pub message: MessageType,
    /// Transaction id.
    pub xid: [u8; 3],
    /// DHCP unique identifier of the client (option 1), of 3 to [`limits::DUID_MAX`] octets.
    pub client_id: Option<&'a [u8]>,
    /// The server that is meant (option 2).
    pub server_id: Option<&'a [u8]>,
    /// Addresses that are wanted or had, by association (option 3); at most [`limits::IAS_MAX`].
    pub ias: Vec<Ia>,
    /// Associations for temporary addresses and prefixes, which are not served: option code and association id.
    pub refused: Vec<(u16, [u8; 4])>,
    /// A Reply without an Advertise before is welcome (option 14).
    pub rapid_commit: bool,
    /// Options that are asked for (option 6).
    pub wanted: Vec<u16>,
    /// Which program asks.
    pub stage: Stage,
    /// Option 61, the first of its values.
    pub architecture: Option<Architecture>,
    /// Vendor class (option 16), made printable and cut.
    pub vendor_class: Option<String>,
    /// Ethernet address of the port, as the relay tells it or as its link-local address is made of it.
    pub port: Option<MacAddr>,
    /// Ethernet address in the client's identifier: of any of its ports.
    pub duid_mac: Option<MacAddr>,
    /// Relays that it came through, the one nearest to us first.
    pub relays: Vec<Relay<'a>>,
}

/// An association of addresses (IA_NA).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ia {
    /// Its id, the client's choice.
    pub id: [u8; 4],
    /// Addresses in it; at most [`limits::ADDRESSES_MAX`].
    pub addresses: Vec<Ipv6Addr>,
}

/// What a relay put around a message (RFC 8415 section 9), to be put around the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay<'a> {
    /// Relays before it.
    pub hop_count: u8,
    /// An address of the link that the client is on, or unspecified.
    pub link: Ipv6Addr,
    /// Whom it took the message from.
    pub peer: Ipv6Addr,
    /// Its own name for the interface (option 18).
    pub interface_id: Option<&'a [u8]>,
    /// The client's Ethernet address (option 79, RFC 6939).
    pub client: Option<MacAddr>,
}

const RELAY_FORWARD: u8 = 12;
const ETHERNET: u16 = 1;

impl<'a> Request<'a> {
    /// Reads one datagram that came from `from`.
    ///
    /// # Errors
    /// [`RequestError`] where it is not a message that a client or a relay sends.
    pub fn parse(bytes: &'a [u8], from: Ipv6Addr) -> Result<Self, RequestError> {
        let mut relays = Vec::new();
        let mut message = bytes;
        while message.first() == Some(&RELAY_FORWARD) {
            if relays.len() == limits::RELAYS_MAX {
                return Err(RequestError::Relays);
            }
            let (relay, inner) = Relay::parse(message)?;
            relays.push(relay);
            message = inner.ok_or(RequestError::EmptyRelay)?;
        }
        let Some(([kind, a, b, c], options)) = message.split_first_chunk::<4>() else {
            return Err(RequestError::Short(message.len()));
        };
        let kind = MessageType::of(*kind).ok_or(RequestError::MessageType(*kind))?;
        let peer = relays.last().map_or(from, |r| r.peer);
        let told = relays.iter().rev().find_map(|r| r.client);
        let mut request = Self {
            message: kind,
            xid: [*a, *b, *c],
            client_id: None,
            server_id: None,
            ias: Vec::new(),
            refused: Vec::new(),
            rapid_commit: false,
            wanted: Vec::new(),
            stage: Stage::Os,
            architecture: None,
            vendor_class: None,
            port: told.or_else(|| eui64(peer)),
            duid_mac: None,
            relays,
        };
        request.read(options);
        Ok(request)
    }

    /// The best guess at the machine's Ethernet address.
    pub fn mac(&self) -> Option<MacAddr> {
        self.port.or(self.duid_mac)
    }

    fn read(&mut self, options: &'a [u8]) {
        let (mut ipxe, mut vendor) = (false, None);
        for (option, data) in Options::new(options) {
            match option {
                code::CLIENT_ID => self.client_id = duid(data),
                code::SERVER_ID => self.server_id = duid(data),
                code::IA_NA if self.ias.len() < limits::IAS_MAX => self.ias.extend(Ia::parse(data)),
                code::IA_TA | code::IA_PD if self.refused.len() < limits::IAS_MAX => {
                    self.refused.extend(data.first_chunk().map(|id| (option, *id)));
                }
                code::RAPID_COMMIT => self.rapid_commit = true,
                code::REQUESTED => {
                    self.wanted = data.as_chunks().0.iter().map(|c| u16::from_be_bytes(*c)).collect();
                }
                code::ARCHITECTURE => {
                    self.architecture = data.first_chunk().map(|b| Architecture(u16::from_be_bytes(*b)));
                }
                code::USER_CLASS => ipxe |= class_items(data).any(|item| item == b"iPXE"),
                // The enterprise number of whoever made the program comes first.
                code::VENDOR_CLASS => vendor = vendor.or(data.get(4..).and_then(|d| class_items(d).next())),
                _ => {}
            }
        }
        let starts = |what: &[u8]| vendor.is_some_and(|v| v.starts_with(what));
        self.stage = if ipxe {
            Stage::Ipxe
        } else if starts(b"HTTPClient") {
            Stage::HttpClient
        } else if starts(b"PXEClient") || self.architecture.is_some() {
            Stage::Firmware
        } else {
            Stage::Os
        };
        self.vendor_class = vendor.and_then(text);
        self.duid_mac = self.client_id.and_then(mac_of_duid);
    }
}

impl MessageType {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Solicit,
            3 => Self::Request,
            4 => Self::Confirm,
            5 => Self::Renew,
            6 => Self::Rebind,
            8 => Self::Release,
            9 => Self::Decline,
            11 => Self::InformationRequest,
            _ => return None,
        })
    }
}

impl Ia {
    /// RFC 8415 section 21.4: id, T1, T2, options.
    fn parse(data: &[u8]) -> Option<Self> {
        let (id, rest) = data.split_first_chunk::<4>()?;
        let addresses = Options::new(rest.get(8..)?)
            .filter(|(option, _)| *option == code::IA_ADDRESS)
            .filter_map(|(_, data)| Some(Ipv6Addr::from(*data.first_chunk::<16>()?)));
        Some(Self { id: *id, addresses: addresses.take(limits::ADDRESSES_MAX).collect() })
    }
}

impl<'a> Relay<'a> {
    /// Reads the envelope and returns what is in it.
    fn parse(bytes: &'a [u8]) -> Result<(Self, Option<&'a [u8]>), RequestError> {
        let short = || RequestError::Short(bytes.len());
        let (head, options) = bytes.split_first_chunk::<34>().ok_or_else(short)?;
        let address = |at: usize| {
            let octets = head.get(at..at + 16).and_then(|b| <[u8; 16]>::try_from(b).ok());
            octets.map(Ipv6Addr::from).ok_or_else(short)
        };
        let mut relay = Self {
            hop_count: head[1],
            link: address(2)?,
            peer: address(18)?,
            interface_id: None,
            client: None,
        };
        let mut inner = None;
        for (option, data) in Options::new(options) {
            match option {
                code::RELAY_MESSAGE => inner = Some(data),
                code::INTERFACE_ID => relay.interface_id = Some(data),
                code::CLIENT_LINK_LAYER => relay.client = ethernet(data),
                _ => {}
            }
        }
        Ok((relay, inner))
    }
}

fn duid(data: &[u8]) -> Option<&[u8]> {
    (3..=limits::DUID_MAX).contains(&data.len()).then_some(data)
}

/// Hardware type and address.
fn ethernet(data: &[u8]) -> Option<MacAddr> {
    let (kind, address) = data.split_first_chunk::<2>()?;
    let mac = MacAddr(address.try_into().ok()?);
    (u16::from_be_bytes(*kind) == ETHERNET && mac.is_station()).then_some(mac)
}

/// The Ethernet address in identifiers of types 1 (with time) and 3 (RFC 8415 sections 11.2 and 11.4).
fn mac_of_duid(duid: &[u8]) -> Option<MacAddr> {
    let (kind, rest) = duid.split_first_chunk::<2>()?;
    match u16::from_be_bytes(*kind) {
        1 => {
            let (hardware, rest) = rest.split_first_chunk::<2>()?;
            ethernet(&[&hardware[..], rest.get(4..)?].concat())
        }
        3 => ethernet(rest),
        _ => None,
    }
}

/// The Ethernet address that a link-local address is made of (RFC 4291 appendix A), if it is. Firmware, iPXE and our agent
/// make theirs so, whatever they call themselves: by this one machine stays one machine from POST to login.
fn eui64(address: Ipv6Addr) -> Option<MacAddr> {
    let [.., a, b, c, 0xff, 0xfe, d, e, f] = address.octets() else { return None };
    let mac = MacAddr([a ^ 2, b, c, d, e, f]);
    (address.is_unicast_link_local() && mac.is_station()).then_some(mac)
}

fn text(data: &[u8]) -> Option<String> {
    let data = &data[..data.len().min(crate::dhcp::limits::TEXT_MAX)];
    let text: String = String::from_utf8_lossy(data).chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}
