//! The DISCOVER that finds other DHCP servers, and what they answer.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use protocol::MacAddr;

/// Vendor class of an x64 UEFI machine: plain servers answer it, and boot servers that answer nobody else too.
const VENDOR_CLASS: &[u8] = b"PXEClient:Arch:00007:UNDI:003016";

/// What a server offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The server (option 54, or else the sender).
    pub server: Ipv4Addr,
    /// Ethernet address that the answer came from: the server's, or a relay's.
    pub mac: MacAddr,
    /// The address offered; `None` from a boot server that lends none.
    pub address: Option<Ipv4Addr>,
}

/// A DISCOVER that asks for an answer to everybody.
pub fn discover(xid: u32, mac: MacAddr) -> Vec<u8> {
    let any = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, any, any, any, any, &mac.0);
    message.set_opcode(Opcode::BootRequest).set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Discover));
    options.insert(DhcpOption::ClassIdentifier(VENDOR_CLASS.to_vec()));
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::BootfileName,
    ]));
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = message.encode(&mut Encoder::new(&mut bytes));
    bytes
}

/// The OFFER with this id in the payload of a datagram from `sender`.
pub fn offer(payload: &[u8], xid: u32, sender: (Ipv4Addr, MacAddr)) -> Option<Offer> {
    let message = Message::decode(&mut Decoder::new(payload)).ok()?;
    let options = message.opts();
    if message.xid() != xid || options.msg_type() != Some(MessageType::Offer) {
        return None;
    }
    let server = match options.get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(address)) => *address,
        _ => sender.0,
    };
    let address = Some(message.yiaddr()).filter(|address| !address.is_unspecified());
    Some(Offer { server, mac: sender.1, address })
}
