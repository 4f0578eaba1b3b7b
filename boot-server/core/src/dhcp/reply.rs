//! The octets of a reply.

use std::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption};

use super::boot::{Architecture, BootAnswer};
use super::config::{Config, Subnet};
use super::limits;
use super::request::Request;

/// What a reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// DHCPOFFER of this address.
    Offer(Ipv4Addr),
    /// DHCPACK of this address.
    Ack(Ipv4Addr),
    /// DHCPACK to a DHCPINFORM: no address, no lease.
    Informed,
    /// DHCPNAK, with the reason for people.
    Nak(&'static str),
    /// DHCPOFFER of a boot file and no address (ProxyDHCP).
    BootOffer,
    /// DHCPACK of a boot file and no address (boot server).
    BootAck,
}

impl Kind {
    /// The address it gives.
    pub(crate) fn address(self) -> Option<Ipv4Addr> {
        match self {
            Self::Offer(ip) | Self::Ack(ip) => Some(ip),
            Self::Informed | Self::Nak(_) | Self::BootOffer | Self::BootAck => None,
        }
    }

    /// It gives no address, beside another server that does.
    fn is_boot_only(self) -> bool {
        matches!(self, Self::BootOffer | Self::BootAck)
    }
}

/// PXE discovery control (PXE 2.1, table 2-1, tag 6): boot what the file name says, ask no boot server, show no menu.
const DISCOVERY_CONTROL: [u8; 3] = [6, 1, 0b1000];
/// PXE boot item (the same, tag 71), with its length.
const BOOT_ITEM: [u8; 2] = [71, 4];
const VENDOR_END: u8 = 255;
/// iPXE's own options are encapsulated in 175; its `no-pxedhcp` (176) saves the 2 s that it would wait for a ProxyDHCP.
const IPXE_OPTION: u8 = 175;
const IPXE_OPTIONS: [u8; 3] = [176, 1, 1];
/// Codes of options that are sent on request alone, or left out where a reply grows too long.
const BROADCAST: u8 = 28;
const TFTP_SERVERS: u8 = 150;
/// Length of the header field `file` (RFC 2131 figure 1), with its terminating zero.
const FILE_MAX: usize = 128;
const RELAY_OPTION: u8 = 82;
const END: u8 = 255;
/// Longest piece of an option (RFC 3396 section 4).
const PIECE_MAX: usize = 255;

/// Makes the reply to a request; at least [`limits::REPLY_MIN`] octets, and no more than the client takes.
pub(crate) fn build(
    config: &Config,
    subnet: &Subnet,
    request: &Request<'_>,
    kind: Kind,
    boot: Option<&BootAnswer>,
    hostname: Option<&str>,
) -> Vec<u8> {
    let mut message = header(request, kind);
    options(&mut message, config, subnet, request, kind);
    let refused = matches!(kind, Kind::Nak(_));
    if let Some(boot) = boot.filter(|_| !refused) {
        boot_options(&mut message, config, request, kind, boot);
    }
    if let Some(name) = hostname.filter(|_| !refused && !kind.is_boot_only()) {
        message.opts_mut().insert(DhcpOption::Hostname(name.into()));
    }
    let mut bytes = shortened(message, request.message_max);
    if let Some(info) = &request.raw_relay {
        append_relay_info(&mut bytes, info);
    }
    if bytes.len() < limits::REPLY_MIN {
        bytes.resize(limits::REPLY_MIN, 0);
    }
    bytes
}

/// The octets, without the options that are told twice or are not needed, as far as the client's limit asks for it.
/// What the relay takes out again does not count (RFC 3046 section 2.2).
fn shortened(mut message: Message, max: usize) -> Vec<u8> {
    let in_header = message.fname().is_some();
    let dispensable = [
        OptionCode::BroadcastAddr,
        OptionCode::TFTPServerAddress,
        OptionCode::Rebinding,
        OptionCode::Renewal,
        OptionCode::TFTPServerName,
        OptionCode::Hostname,
        OptionCode::BootfileName,
    ];
    let mut dispensable =
        dispensable.into_iter().filter(|code| *code != OptionCode::BootfileName || in_header);
    loop {
        // Encoding fails only where a field is longer than its length octet, and none here can be.
        let bytes = message.to_vec().unwrap_or_default();
        if bytes.len() <= max {
            return bytes;
        }
        let Some(code) = dispensable.next() else { return bytes };
        message.opts_mut().remove(code);
    }
}

/// Option 82 as it came, last (RFC 3046 section 2.2), in pieces where it is long (RFC 3396).
fn append_relay_info(bytes: &mut Vec<u8>, info: &[u8]) {
    if bytes.last() == Some(&END) {
        bytes.pop();
    }
    if info.is_empty() {
        bytes.extend([RELAY_OPTION, 0]);
    }
    for piece in info.chunks(PIECE_MAX) {
        bytes.extend([RELAY_OPTION, u8::try_from(piece.len()).unwrap_or(u8::MAX)]);
        bytes.extend(piece);
    }
    bytes.push(END);
}

/// RFC 2131 table 3.
fn header(request: &Request<'_>, kind: Kind) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let given = kind.address().unwrap_or(none);
    let ciaddr = match kind {
        Kind::Nak(_) | Kind::Offer(_) | Kind::BootOffer => none,
        Kind::Ack(_) | Kind::Informed | Kind::BootAck => request.ciaddr,
    };
    let from = request.header;
    let mut message = Message::new_with_id(from.xid, ciaddr, given, none, request.giaddr, from.chaddr);
    let flags = match kind {
        // The client behind the relay may have a wrong address, so the relay must broadcast (section 4.3.2).
        Kind::Nak(_) if !request.giaddr.is_unspecified() => from.flags.set_broadcast(),
        _ => from.flags,
    };
    message
        .set_opcode(Opcode::BootReply)
        .set_htype(from.htype)
        .set_hops(0)
        .set_secs(0)
        .set_flags(flags_of(flags));
    message
}

/// Only the broadcast bit is defined.
fn flags_of(flags: Flags) -> Flags {
    if flags.broadcast() { Flags::default().set_broadcast() } else { Flags::default() }
}

fn options(message: &mut Message, config: &Config, subnet: &Subnet, request: &Request<'_>, kind: Kind) {
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(match kind {
        Kind::Offer(_) | Kind::BootOffer => MessageType::Offer,
        Kind::Ack(_) | Kind::Informed | Kind::BootAck => MessageType::Ack,
        Kind::Nak(_) => MessageType::Nak,
    }));
    // RFC 5107 section 4: as the relay wishes.
    options.insert(DhcpOption::ServerIdentifier(request.server_override.unwrap_or(config.server_ip)));
    if let Some(id) = &request.client_id {
        // RFC 6842 section 3: echoed.
        options.insert(DhcpOption::ClientIdentifier(id.clone()));
    }
    if let Kind::Nak(reason) = kind {
        options.insert(DhcpOption::Message(reason.into()));
        return;
    }
    if kind.is_boot_only() {
        return;
    }
    if kind != Kind::Informed {
        let seconds = u32::try_from(subnet.lease_time.as_secs()).unwrap_or(u32::MAX);
        options.insert(DhcpOption::AddressLeaseTime(seconds));
        options.insert(DhcpOption::Renewal(seconds / 2));
        options.insert(DhcpOption::Rebinding(seconds / 8 * 7));
    }
    // What every client needs is sent unasked: small ROMs have a list that lacks half of it.
    options.insert(DhcpOption::SubnetMask(subnet.net.mask()));
    if request.wants(BROADCAST) {
        options.insert(DhcpOption::BroadcastAddr(subnet.net.broadcast()));
    }
    if let Some(router) = subnet.router {
        options.insert(DhcpOption::Router(vec![router]));
    }
    if !subnet.dns.is_empty() {
        options.insert(DhcpOption::DomainNameServer(subnet.dns.clone()));
    }
}

/// The file name goes into the header *and* into option 67, the server into `siaddr` and option 66: shim reads only the
/// header, other loaders only the options.
fn boot_options(
    message: &mut Message,
    config: &Config,
    request: &Request<'_>,
    kind: Kind,
    boot: &BootAnswer,
) {
    let (BootAnswer::Tftp(file) | BootAnswer::HttpFirmware(file) | BootAnswer::Ipxe(file)) = boot;
    message.set_siaddr(config.next_server);
    if file.len() < FILE_MAX {
        message.set_fname(file.as_bytes());
    }
    let mut name = file.clone().into_bytes();
    let bios = request.architecture.is_none_or(|a| a == Architecture::BIOS);
    if matches!(boot, BootAnswer::Tftp(_)) && bios {
        // Old ROMs take the option for a C string and would ask for `undionly.kpxe\xff`.
        name.push(0);
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::TFTPServerName(config.next_server.to_string().into_bytes()));
    options.insert(DhcpOption::BootfileName(name));
    if request.asks_for(TFTP_SERVERS) {
        // RFC 5859.
        options.insert(DhcpOption::TFTPServerAddress(config.next_server));
    }
    if let Some(uuid) = &request.raw_uuid {
        options.insert(DhcpOption::ClientMachineIdentifier(uuid.clone()));
    }
    match boot {
        BootAnswer::Tftp(_) => {
            options.insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
            if let Some(vendor) = pxe_options(request, kind, bios) {
                options.insert(DhcpOption::VendorExtensions(vendor));
            }
        }
        BootAnswer::HttpFirmware(_) => {
            // UEFI 2.10 section 24.7.3.1: without this the firmware ignores the URL.
            options.insert(DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()));
        }
        // iPXE tells a ProxyDHCP server by its class, and listens to it.
        BootAnswer::Ipxe(_) if kind.is_boot_only() => {
            options.insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
        }
        BootAnswer::Ipxe(_) => {
            let code = OptionCode::from(IPXE_OPTION);
            options.insert(DhcpOption::Unknown(UnknownOption::new(code, IPXE_OPTIONS.to_vec())));
        }
    }
}

/// Option 43. A ProxyDHCP offer to UEFI has none: firmware that finds no discovery control there asks port 4011, which all
/// of it can, while some of it ignores an offer that forbids to ask.
fn pxe_options(request: &Request<'_>, kind: Kind, bios: bool) -> Option<Vec<u8>> {
    if kind.is_boot_only() && !bios && request.boot_item.is_none() {
        return None;
    }
    let mut vendor = DISCOVERY_CONTROL.to_vec();
    if let Some(item) = request.boot_item.filter(|_| kind.is_boot_only()) {
        // PXE 2.1 section 2.4.4: the reply names the item that was asked for.
        vendor.extend(BOOT_ITEM);
        vendor.extend(item);
    }
    vendor.push(VENDOR_END);
    Some(vendor)
}
