//! Parsing of what clients send. Reads the raw options one by one: `dhcproto`'s owned decoder stops at the first option
//! it dislikes (a host name in Latin-1 is enough) and a PXE client would look like any other.

use std::net::Ipv4Addr;

use dhcproto::v4::{self, OptionCode, borrowed};
use protocol::MacAddr;
use uuid::Uuid;

use super::boot::Architecture;
use super::lease::ClientKey;
use super::limits;

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
    /// Option 93, the first of its values.
    pub architecture: Option<Architecture>,
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
    pub(crate) header: Header<'a>,
    pub(crate) client_id: Option<Vec<u8>>,
    pub(crate) raw_uuid: Option<Vec<u8>>,
    pub(crate) relay_info: Option<Vec<u8>>,
}

/// What a reply copies from the request's header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub htype: v4::HType,
    pub xid: u32,
    pub flags: v4::Flags,
    pub chaddr: &'a [u8],
}

#[derive(Default)]
struct Options {
    message: Option<u8>,
    architecture: Option<Architecture>,
    vendor_class: Option<Vec<u8>>,
    user_class: Option<Vec<u8>>,
    hostname: Option<Vec<u8>>,
    requested_ip: Option<Ipv4Addr>,
    server_id: Option<Ipv4Addr>,
    client_id: Option<Vec<u8>>,
    uuid: Option<Vec<u8>>,
    relay_info: Option<Vec<u8>>,
}

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
        if bytes.get(236..240) != Some(&v4::MAGIC) {
            return Err(RequestError::Cookie);
        }
        // `chaddr()` slices by this length unchecked.
        if packet.hlen() > 16 {
            return Err(RequestError::HardwareAddress(packet.hlen()));
        }
        let options = Options::read(packet.opts());
        let message = options.message.and_then(MessageType::of).ok_or(RequestError::MessageType)?;
        let header = Header {
            htype: packet.htype(),
            xid: packet.xid(),
            flags: packet.flags(),
            chaddr: packet.chaddr(),
        };
        let mac = header.mac();
        let client = ClientKey::of(mac, options.client_id.as_deref()).ok_or(RequestError::Anonymous)?;
        Ok(Self {
            message,
            client,
            mac,
            stage: options.stage(),
            architecture: options.architecture,
            uuid: options.uuid.as_deref().and_then(smbios_uuid),
            vendor_class: options.vendor_class.as_deref().and_then(text),
            hostname: options.hostname.as_deref().and_then(text),
            ciaddr: packet.ciaddr(),
            giaddr: packet.giaddr(),
            broadcast: packet.flags().broadcast(),
            requested_ip: options.requested_ip.filter(|ip| !ip.is_unspecified()),
            server_id: options.server_id,
            header,
            client_id: options.client_id,
            raw_uuid: options.uuid,
            relay_info: options.relay_info,
        })
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

impl Options {
    fn read(raw: borrowed::DhcpOptionIterator<'_>) -> Self {
        let mut options = Self::default();
        for option in raw {
            let data = option.data();
            match option.code() {
                OptionCode::MessageType => options.message = data.first().copied(),
                OptionCode::ClientSystemArchitecture => {
                    options.architecture = data.first_chunk().map(|b| Architecture(u16::from_be_bytes(*b)));
                }
                OptionCode::ClassIdentifier => options.vendor_class = Some(data.to_vec()),
                OptionCode::UserClass => options.user_class = Some(data.to_vec()),
                OptionCode::Hostname => options.hostname = Some(data.to_vec()),
                OptionCode::RequestedIpAddress => options.requested_ip = address(data),
                OptionCode::ServerIdentifier => options.server_id = address(data),
                OptionCode::ClientIdentifier => options.client_id = Some(data.to_vec()),
                OptionCode::ClientMachineIdentifier => options.uuid = Some(data.to_vec()),
                OptionCode::RelayAgentInformation => options.relay_info = Some(data.to_vec()),
                _ => {}
            }
        }
        options
    }

    fn stage(&self) -> Stage {
        let starts = |what: &[u8]| self.vendor_class.as_ref().is_some_and(|c| c.starts_with(what));
        // iPXE sends the bare name; RFC 3004 wants a length before it.
        if matches!(self.user_class.as_deref(), Some(b"iPXE" | b"\x04iPXE")) {
            Stage::Ipxe
        } else if starts(b"HTTPClient") {
            Stage::HttpClient
        } else if starts(b"PXEClient") {
            Stage::Firmware
        } else {
            Stage::Os
        }
    }
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

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from)
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
