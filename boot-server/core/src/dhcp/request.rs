//! Parsing of what clients send. Reads the raw options: `dhcproto`'s owned decoder stops at the first option it dislikes
//! (a host name in Latin-1 is enough) and a PXE client would look like any other.

use std::net::Ipv4Addr;

use dhcproto::v4::{self, borrowed};
use protocol::MacAddr;
use uuid::Uuid;

use super::boot::Architecture;
use super::config::Machine;
use super::lease::ClientKey;
use super::limits;
use super::options::{FIXED_LEN, RawOptions, encapsulated};
use super::relay::{Placement, RelayInfo};

/// Why a packet is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Shorter than the fixed part.
    #[error("packet of {0} octets is too short")]
    Short(usize),
    /// A reply, or nonsense.
    #[error("not a BOOTREQUEST")]
    Opcode,
    /// No magic cookie (RFC 2131 section 3), so no options.
    #[error("no DHCP options")]
    Cookie,
    /// A hardware address longer than its field.
    #[error("hardware address of {0} octets")]
    HardwareAddress(u8),
    /// No message type (option 53): BOOTP, which is not served.
    #[error("no DHCP message type")]
    MessageType,
    /// Neither a station address nor a client identifier.
    #[error("client without an identity")]
    Anonymous,
}

/// Messages that clients send (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// Who is there?
    Discover,
    /// Give me this address.
    Request,
    /// Somebody has this address.
    Decline,
    /// I do not need it any more.
    Release,
    /// I have an address; tell me the rest.
    Inform,
}

/// Which program asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A PXE ROM, BIOS or UEFI.
    Firmware,
    /// iPXE. Told by the user class: option 175 alone does not tell our iPXE from the one in a NIC's ROM.
    Ipxe,
    /// UEFI HTTP boot.
    HttpClient,
    /// An operating system, our ramdisk agent, or anything else.
    Os,
}

/// A request, as far as it matters here.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What it is.
    pub message: MessageType,
    /// Who asks, for the lease table.
    pub client: ClientKey,
    /// Ethernet address; `None` where the hardware is not Ethernet.
    pub mac: Option<MacAddr>,
    /// Which program asks.
    pub stage: Stage,
    /// Option 93, the first of its values; else what the vendor class says (`PXEClient:Arch:00007:...`).
    pub architecture: Option<Architecture>,
    /// All values of option 93: firmware that can boot in several ways names them all (RFC 4578 section 2.1).
    pub architectures: Vec<Architecture>,
    /// SMBIOS UUID (option 97).
    pub uuid: Option<Uuid>,
    /// Vendor class (option 60), made printable and cut to [`limits::TEXT_MAX`].
    pub vendor_class: Option<String>,
    /// Host name (option 12), likewise.
    pub hostname: Option<String>,
    /// The address the client uses now, or unspecified.
    pub ciaddr: Ipv4Addr,
    /// The relay's address, or unspecified.
    pub giaddr: Ipv4Addr,
    /// The client cannot receive unicast yet.
    pub broadcast: bool,
    /// Option 50.
    pub requested_ip: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Where the client is plugged in, as its relay or switch says.
    pub placement: Option<Placement>,
    pub(crate) header: Header<'a>,
    pub(crate) client_id: Option<Vec<u8>>,
    pub(crate) raw_uuid: Option<Vec<u8>>,
    /// Option 82 as it came.
    pub(crate) raw_relay: Option<Vec<u8>>,
    /// Sub-option 5 of 82.
    pub(crate) link: Option<Ipv4Addr>,
    /// Sub-option 11 of 82.
    pub(crate) server_override: Option<Ipv4Addr>,
    /// Option 55; `None` where it is absent.
    wanted: Option<Vec<u8>>,
    /// Option 57, within [`limits::MESSAGE_MAX`] and [`limits::MESSAGE_LONGEST`].
    pub(crate) message_max: usize,
    /// PXE boot item (option 43, tag 71; PXE 2.1 table 2-1): which boot server type and layer is asked for.
    pub(crate) boot_item: Option<[u8; 4]>,
}

/// What a reply copies from the request's header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub htype: v4::HType,
    pub xid: u32,
    pub flags: v4::Flags,
    pub chaddr: &'a [u8],
}

/// Codes of the options that are read (RFC 2132, 3004, 3046, 4578).
mod code {
    pub const HOSTNAME: u8 = 12;
    pub const VENDOR: u8 = 43;
    pub const REQUESTED_IP: u8 = 50;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const WANTED: u8 = 55;
    pub const MESSAGE_MAX: u8 = 57;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const USER_CLASS: u8 = 77;
    pub const RELAY: u8 = 82;
    pub const ARCHITECTURE: u8 = 93;
    pub const UUID: u8 = 97;
}
/// Tag of the boot item in option 43.
const BOOT_ITEM: u8 = 71;

impl<'a> Request<'a> {
    /// Reads one datagram.
    ///
    /// # Errors
    /// [`RequestError`] where it is not a request that a DHCP server answers. An option that cannot be read is as if
    /// it were absent, and does not hide the ones after it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RequestError> {
        let packet = borrowed::Message::new(bytes).map_err(|_| RequestError::Short(bytes.len()))?;
        if packet.opcode() != v4::Opcode::BootRequest {
            return Err(RequestError::Opcode);
        }
        if bytes.get(FIXED_LEN - 4..FIXED_LEN) != Some(&v4::MAGIC) {
            return Err(RequestError::Cookie);
        }
        // `chaddr()` slices by this length unchecked.
        if packet.hlen() > 16 {
            return Err(RequestError::HardwareAddress(packet.hlen()));
        }
        let options = RawOptions::read(bytes);
        let message =
            options.first(code::MESSAGE_TYPE).and_then(MessageType::of).ok_or(RequestError::MessageType)?;
        let header = Header {
            htype: packet.htype(),
            xid: packet.xid(),
            flags: packet.flags(),
            chaddr: packet.chaddr(),
        };
        let mac = header.mac();
        let client = ClientKey::of(mac, options.get(code::CLIENT_ID)).ok_or(RequestError::Anonymous)?;
        let relay = options.get(code::RELAY).map(RelayInfo::read).unwrap_or_default();
        let architectures = architectures(&options);
        let address = |code| options.array::<4>(code).map(Ipv4Addr::from).filter(|ip| !ip.is_unspecified());
        let owned = |code| options.get(code).map(<[u8]>::to_vec);
        Ok(Self {
            message,
            client,
            mac,
            stage: stage(&options),
            architecture: architectures.first().copied(),
            architectures,
            uuid: options.get(code::UUID).and_then(smbios_uuid),
            vendor_class: options.get(code::VENDOR_CLASS).and_then(text),
            hostname: options.get(code::HOSTNAME).and_then(text),
            ciaddr: station(packet.ciaddr()),
            giaddr: station(packet.giaddr()),
            broadcast: packet.flags().broadcast(),
            requested_ip: address(code::REQUESTED_IP),
            server_id: address(code::SERVER_ID),
            placement: relay.placement,
            header,
            client_id: owned(code::CLIENT_ID),
            raw_uuid: owned(code::UUID),
            raw_relay: owned(code::RELAY),
            link: relay.link,
            server_override: relay.server_id,
            wanted: owned(code::WANTED),
            message_max: message_max(&options),
            boot_item: boot_item(&options),
        })
    }

    /// How the machine may be told, in the order in which reservations are looked up.
    pub(crate) fn machines(&self) -> impl Iterator<Item = Machine> {
        let mac = self.mac.map(Machine::Mac);
        let id = self.client_id.clone().map(Machine::ClientId);
        mac.into_iter().chain(id).chain(self.uuid.map(Machine::Uuid))
    }

    /// True where the client names this option in its list (55), or has none.
    pub(crate) fn wants(&self, code: u8) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&code))
    }

    /// True where the client names this option in its list.
    pub(crate) fn asks_for(&self, code: u8) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.contains(&code))
    }
}

impl Header<'_> {
    fn mac(&self) -> Option<MacAddr> {
        if self.htype != v4::HType::Eth {
            return None;
        }
        let mac = MacAddr(self.chaddr.try_into().ok()?);
        mac.is_station().then_some(mac)
    }
}

fn stage(options: &RawOptions) -> Stage {
    let starts = |what: &[u8]| options.get(code::VENDOR_CLASS).is_some_and(|c| c.starts_with(what));
    if options.get(code::USER_CLASS).is_some_and(is_ipxe) {
        Stage::Ipxe
    } else if starts(b"HTTPClient") {
        Stage::HttpClient
    } else if starts(b"PXEClient") {
        Stage::Firmware
    } else {
        Stage::Os
    }
}

/// iPXE sends its bare name; RFC 3004 wants a length before each class, of which there can be several.
fn is_ipxe(user_class: &[u8]) -> bool {
    const NAME: &[u8] = b"iPXE";
    if user_class == NAME {
        return true;
    }
    let mut rest = user_class;
    while let Some((len, after)) = rest.split_first() {
        let Some((class, after)) = after.split_at_checked(usize::from(*len)) else { return false };
        if class == NAME {
            return true;
        }
        rest = after;
    }
    false
}

/// Option 93; else the vendor class, which names the architecture too (PXE 2.1 table 2-1: `PXEClient:Arch:xxxxx:...`) and
/// which firmware of before RFC 4578, or that was told not to, sends alone.
fn architectures(options: &RawOptions) -> Vec<Architecture> {
    let (pairs, _) = options.get(code::ARCHITECTURE).unwrap_or_default().as_chunks::<2>();
    let list: Vec<_> = pairs.iter().map(|b| Architecture(u16::from_be_bytes(*b))).collect();
    if !list.is_empty() {
        return list;
    }
    let class = options.get(code::VENDOR_CLASS).and_then(|c| std::str::from_utf8(c).ok());
    let number = class.and_then(|c| c.split(":Arch:").nth(1)).and_then(|rest| rest.get(..5));
    number.and_then(|n| n.parse().ok()).map(Architecture).into_iter().collect()
}

fn message_max(options: &RawOptions) -> usize {
    // RFC 2132 section 9.10: the length of the message, which clients take for that of the IP datagram or of the frame.
    let told =
        options.array::<2>(code::MESSAGE_MAX).map(|b| usize::from(u16::from_be_bytes(b)).saturating_sub(28));
    told.unwrap_or(limits::MESSAGE_MAX).clamp(limits::MESSAGE_MAX, limits::MESSAGE_LONGEST)
}

fn boot_item(options: &RawOptions) -> Option<[u8; 4]> {
    let mut vendor = encapsulated(options.get(code::VENDOR)?);
    vendor.find(|(tag, _)| *tag == BOOT_ITEM)?.1.try_into().ok()
}

impl MessageType {
    fn of(code: u8) -> Option<Self> {
        match v4::MessageType::from(code) {
            v4::MessageType::Discover => Some(Self::Discover),
            v4::MessageType::Request => Some(Self::Request),
            v4::MessageType::Decline => Some(Self::Decline),
            v4::MessageType::Release => Some(Self::Release),
            v4::MessageType::Inform => Some(Self::Inform),
            _ => None,
        }
    }
}

/// The address where it is one that a single station can have, else none: replies are sent there.
fn station(address: Ipv4Addr) -> Ipv4Addr {
    let first = address.octets()[0];
    if first == 0 || first >= 224 || address.is_loopback() { Ipv4Addr::UNSPECIFIED } else { address }
}

/// Option 97 (RFC 4578 section 2.3): type 0 and 16 octets in SMBIOS byte order. Firmware that knows none sends all
/// zeros or all ones.
fn smbios_uuid(data: &[u8]) -> Option<Uuid> {
    let [0, uuid @ ..] = data else { return None };
    let uuid = Uuid::from_bytes_le(uuid.try_into().ok()?);
    (!uuid.is_nil() && !uuid.is_max()).then_some(uuid)
}

fn text(data: &[u8]) -> Option<String> {
    let data = &data[..data.len().min(limits::TEXT_MAX)];
    let text: String = String::from_utf8_lossy(data).chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}
