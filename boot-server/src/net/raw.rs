//! Sends UDP datagrams as whole Ethernet frames, to clients that have no address yet and so answer no ARP.
//!
//! The socket is send-only: with protocol 0 the kernel never queues a received frame to it (packet(7)).

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use protocol::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use socket2::{Domain, Socket, Type};

use super::{Interface, NetError};
use crate::sys;

/// Time to live of what we send; a frame crosses no router.
const HOP_LIMIT: u8 = 64;

/// A sender of frames on one interface.
#[derive(Debug)]
pub struct RawSender {
    socket: Socket,
    interface: String,
    mac: MacAddr,
    /// The interface's number as last looked up; 0 where it is to be looked up.
    index: AtomicU32,
}

/// Where a frame comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Source address and port.
    pub from: (Ipv4Addr, u16),
    /// Destination address and port.
    pub to: (Ipv4Addr, u16),
    /// Hardware address of the destination.
    pub mac: MacAddr,
}

impl RawSender {
    /// Opens the socket; needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// [`NetError::Socket`].
    pub fn open(interface: &Interface) -> Result<Self, NetError> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let error =
            |source| NetError::Socket { what: "send raw frames", interface: interface.name.clone(), source };
        let (name, mac) = (interface.name.clone(), interface.mac);
        Ok(Self { socket: socket.map_err(error)?, interface: name, mac, index: AtomicU32::new(0) })
    }

    /// The interface's hardware address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// The system's error; `WouldBlock` where the interface's queue is full.
    pub fn send(&self, path: Path, payload: &[u8]) -> io::Result<()> {
        self.send_frame(&frame(self.mac, path, payload))
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_frame(&self, frame: &[u8]) -> io::Result<()> {
        match self.try_send(frame) {
            // An interface that was taken away and came back has another number.
            Err(error) if is_gone(&error) => {
                self.index.store(0, Ordering::Relaxed);
                self.try_send(frame)
            }
            other => other,
        }
    }

    fn try_send(&self, frame: &[u8]) -> io::Result<()> {
        let mut index = self.index.load(Ordering::Relaxed);
        if index == 0 {
            index = nix::net::if_::if_nametoindex(self.interface.as_str())?;
            self.index.store(index, Ordering::Relaxed);
        }
        self.socket.send_to(frame, &sys::link_layer_address(index)?).map(drop)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ENXIO | nix::libc::ENODEV))
}

/// An ARP probe for `address`: asks who has it in nobody's name, so that no cache takes anything up (RFC 5227 section 2.1.1).
pub fn arp_probe(source: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let source = EthernetAddress(source.0);
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: source,
        source_protocol_addr: Ipv4Addr::UNSPECIFIED,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    let ethernet = EthernetRepr {
        src_addr: source,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// The frame's octets, checksums included.
pub fn frame(source: MacAddr, path: Path, payload: &[u8]) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: path.from.1, dst_port: path.to.1 };
    let ip = Ipv4Repr {
        src_addr: path.from.0,
        dst_addr: path.to.0,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: HOP_LIMIT,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(source.0),
        dst_addr: EthernetAddress(path.mac.0),
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let (from, to) = (path.from.0.into(), path.to.0.into());
    udp.emit(&mut datagram, &from, &to, payload.len(), |buf| buf.copy_from_slice(payload), &checksums);
    bytes
}
