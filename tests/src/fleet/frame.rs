//! Ethernet frames as machines without an address need them: UDP from 0.0.0.0, and a look at what came.

use std::net::Ipv4Addr;

use protocol::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

/// Where a datagram comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Sender's station.
    pub from_mac: MacAddr,
    /// Receiver's station.
    pub to_mac: MacAddr,
    /// Sender.
    pub from: (Ipv4Addr, u16),
    /// Receiver.
    pub to: (Ipv4Addr, u16),
}

/// What a frame is.
#[derive(Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Somebody asks who has an address.
    WhoHas {
        /// Who asks.
        from: (MacAddr, Ipv4Addr),
        /// The address.
        target: Ipv4Addr,
    },
    /// Somebody says who has an address.
    IsAt {
        /// Whose it is.
        mac: MacAddr,
        /// The address.
        address: Ipv4Addr,
    },
    /// A datagram whose checksums are right.
    Udp(Path, &'a [u8]),
    /// Anything else, damaged frames among it.
    Other,
}

/// The Ethernet broadcast address.
pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

/// A frame with one datagram.
pub fn udp(path: Path, payload: &[u8]) -> Vec<u8> {
    let datagram = UdpRepr { src_port: path.from.1, dst_port: path.to.1 };
    let packet = Ipv4Repr {
        src_addr: path.from.0,
        dst_addr: path.to.0,
        next_header: IpProtocol::Udp,
        payload_len: datagram.header_len() + payload.len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(path.from_mac.0),
        dst_addr: EthernetAddress(path.to_mac.0),
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + packet.buffer_len() + packet.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    let checksums = ChecksumCapabilities::default();
    let mut ip = Ipv4Packet::new_unchecked(frame.payload_mut());
    packet.emit(&mut ip, &checksums);
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    let write = |to: &mut [u8]| to.copy_from_slice(payload);
    datagram.emit(&mut udp, &path.from.0.into(), &path.to.0.into(), payload.len(), write, &checksums);
    bytes
}

/// The question who has an address; a probe (RFC 5227 section 2.1.1) where it comes from 0.0.0.0.
pub fn who_has(from: (MacAddr, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    arp(ArpOperation::Request, from, (BROADCAST, target))
}

/// The answer to [`Content::WhoHas`].
pub fn is_at(mac: MacAddr, address: Ipv4Addr, to: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    arp(ArpOperation::Reply, (mac, address), to)
}

fn arp(operation: ArpOperation, from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.0.0),
        source_protocol_addr: from.1,
        target_hardware_addr: EthernetAddress(to.0.0),
        target_protocol_addr: to.1,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(from.0.0),
        dst_addr: EthernetAddress(to.0.0),
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// Receiver and sender of a frame; `None` where it is too short to have them.
pub fn stations(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let (to, rest) = frame.split_first_chunk()?;
    Some((MacAddr(*to), MacAddr(*rest.first_chunk()?)))
}

/// Reads a frame.
pub fn read(frame: &[u8]) -> Content<'_> {
    content(frame).unwrap_or(Content::Other)
}

fn content(bytes: &[u8]) -> Option<Content<'_>> {
    let frame = EthernetFrame::new_checked(bytes).ok()?;
    let (to_mac, from_mac) = (MacAddr(frame.dst_addr().0), MacAddr(frame.src_addr().0));
    match frame.ethertype() {
        EthernetProtocol::Arp => {
            let arp = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()?;
            let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } = arp
            else {
                return None;
            };
            let ArpRepr::EthernetIpv4 { target_protocol_addr: target, .. } = arp else { return None };
            let from = (MacAddr(source_hardware_addr.0), source_protocol_addr);
            Some(match operation {
                ArpOperation::Request => Content::WhoHas { from, target },
                _ => Content::IsAt { mac: from.0, address: from.1 },
            })
        }
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
            if ip.next_header() != IpProtocol::Udp || !ip.verify_checksum() {
                return None;
            }
            let (from, to) = (ip.src_addr(), ip.dst_addr());
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            if !udp.verify_checksum(&from.into(), &to.into()) {
                return None;
            }
            let path = Path { from_mac, to_mac, from: (from, udp.src_port()), to: (to, udp.dst_port()) };
            Some(Content::Udp(path, udp.payload()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_back_and_a_wrong_bit_is_seen() {
        let path = Path {
            from_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            to_mac: BROADCAST,
            from: (Ipv4Addr::UNSPECIFIED, 68),
            to: (Ipv4Addr::BROADCAST, 67),
        };
        let mut bytes = udp(path, b"hello");
        assert_eq!(read(&bytes), Content::Udp(path, b"hello"));
        assert_eq!(stations(&bytes), Some((path.to_mac, path.from_mac)));
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(read(&bytes), Content::Other);
        assert_eq!(read(&[0; 5]), Content::Other);
        let (us, them) = ((path.from_mac, Ipv4Addr::UNSPECIFIED), Ipv4Addr::new(10, 77, 0, 9));
        assert_eq!(read(&who_has(us, them)), Content::WhoHas { from: us, target: them });
        let answer = is_at(MacAddr([2, 0, 0, 0, 0, 9]), them, us);
        assert_eq!(read(&answer), Content::IsAt { mac: MacAddr([2, 0, 0, 0, 0, 9]), address: them });
    }
}
