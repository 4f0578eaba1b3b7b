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
}

impl Kind {
    /// The address it gives.
    pub(crate) fn address(self) -> Option<Ipv4Addr> {
        match self {
            Self::Offer(ip) | Self::Ack(ip) => Some(ip),
            Self::Informed | Self::Nak(_) => None,
        }
    }
}

/// PXE discovery control (PXE 2.1, table 2-1, tag 6): boot what the file name says, ask no boot server, show no menu.
const PXE_OPTIONS: [u8; 4] = [6, 1, 0b1000, 255];
/// iPXE's own options are encapsulated in 175; its `no-pxedhcp` (176) saves the 2 s that it would wait for a ProxyDHCP.
const IPXE_OPTION: u8 = 175;
const IPXE_OPTIONS: [u8; 3] = [176, 1, 1];
/// Length of the header field `file` (RFC 2131 figure 1), with its terminating zero.
const FILE_MAX: usize = 128;

/// Makes the reply to a request; at least [`limits::REPLY_MIN`] octets.
pub(crate) fn build(
    config: &Config,
    subnet: &Subnet,
    request: &Request<'_>,
    kind: Kind,
    boot: Option<&BootAnswer>,
) -> Vec<u8> {
    let mut message = header(request, kind);
    options(&mut message, config, subnet, request, kind);
    if let Some(boot) = boot.filter(|_| !matches!(kind, Kind::Nak(_))) {
        boot_options(&mut message, config, request, boot);
    }
    // Encoding fails only where a field is longer than its length octet, and none here can be.
    let mut bytes = message.to_vec().unwrap_or_default();
    if bytes.len() < limits::REPLY_MIN {
        bytes.resize(limits::REPLY_MIN, 0);
    }
    bytes
}

/// RFC 2131 table 3.
fn header(request: &Request<'_>, kind: Kind) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let given = kind.address().unwrap_or(none);
    let ciaddr = if matches!(kind, Kind::Nak(_) | Kind::Offer(_)) { none } else { request.ciaddr };
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
        Kind::Offer(_) => MessageType::Offer,
        Kind::Ack(_) | Kind::Informed => MessageType::Ack,
        Kind::Nak(_) => MessageType::Nak,
    }));
    options.insert(DhcpOption::ServerIdentifier(config.server_ip));
    if let Some(id) = &request.client_id {
        // RFC 6842 section 3: echoed.
        options.insert(DhcpOption::ClientIdentifier(id.clone()));
    }
    if let Some(info) = &request.relay_info {
        // RFC 3046 section 2.2: echoed as it came; the encoder puts it last.
        let code = OptionCode::RelayAgentInformation;
        options.insert(DhcpOption::Unknown(UnknownOption::new(code, info.clone())));
    }
    if let Kind::Nak(reason) = kind {
        options.insert(DhcpOption::Message(reason.into()));
        return;
    }
    if kind != Kind::Informed {
        let seconds = u32::try_from(subnet.lease_time.as_secs()).unwrap_or(u32::MAX);
        options.insert(DhcpOption::AddressLeaseTime(seconds));
        options.insert(DhcpOption::Renewal(seconds / 2));
        options.insert(DhcpOption::Rebinding(seconds / 8 * 7));
    }
    options.insert(DhcpOption::SubnetMask(subnet.net.mask()));
    options.insert(DhcpOption::BroadcastAddr(subnet.net.broadcast()));
    if let Some(router) = subnet.router {
        options.insert(DhcpOption::Router(vec![router]));
    }
    if !subnet.dns.is_empty() {
        options.insert(DhcpOption::DomainNameServer(subnet.dns.clone()));
    }
}

/// The file name goes into the header *and* into option 67, the server into `siaddr` and option 66: shim reads only the
/// header, other loaders only the options.
fn boot_options(message: &mut Message, config: &Config, request: &Request<'_>, boot: &BootAnswer) {
    let (BootAnswer::Tftp(file) | BootAnswer::HttpFirmware(file) | BootAnswer::Ipxe(file)) = boot;
    message.set_siaddr(config.next_server);
    if file.len() < FILE_MAX {
        message.set_fname(file.as_bytes());
    }
    let mut name = file.clone().into_bytes();
    if matches!(boot, BootAnswer::Tftp(_)) && request.architecture.is_none_or(|a| a == Architecture::BIOS) {
        // Old ROMs take the option for a C string and would ask for `undionly.kpxe\xff`.
        name.push(0);
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::TFTPServerName(config.next_server.to_string().into_bytes()));
    options.insert(DhcpOption::BootfileName(name));
    if let Some(uuid) = &request.raw_uuid {
        options.insert(DhcpOption::ClientMachineIdentifier(uuid.clone()));
    }
    match boot {
        BootAnswer::Tftp(_) => {
            options.insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
            options.insert(DhcpOption::VendorExtensions(PXE_OPTIONS.to_vec()));
        }
        BootAnswer::HttpFirmware(_) => {
            // UEFI 2.10 section 24.7.3.1: without this the firmware ignores the URL.
            options.insert(DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()));
        }
        BootAnswer::Ipxe(_) => {
            let code = OptionCode::from(IPXE_OPTION);
            options.insert(DhcpOption::Unknown(UnknownOption::new(code, IPXE_OPTIONS.to_vec())));
        }
    }
}
