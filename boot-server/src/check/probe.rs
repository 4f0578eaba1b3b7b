//! What answers on the wire: a DISCOVER to find other DHCP servers, and ARP probes (RFC 5227) for addresses that should
//! be free. All through a packet socket, so that no port is needed and no address is taken.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use boot_server_core::check::{Offer, discover, offer};
use nix::libc;
use protocol::MacAddr;
use smoltcp::wire::{ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Ipv4Packet, UdpPacket};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::raw::{Path, arp_probe, frame};
use crate::sys;

/// Time for answers: dnsmasq pings an address for 3 s before it offers it.
const WAIT: Duration = Duration::from_millis(4500);
/// When the DISCOVER is sent, from the start: a lost one is sent again.
const DISCOVERS: [Duration; 2] = [Duration::ZERO, Duration::from_secs(1)];
/// Answers that are kept of each kind.
const ANSWERS_MAX: usize = 64;
/// Largest frame looked at.
const FRAME_MAX: usize = 2048;

/// What answered.
#[derive(Debug, Default)]
pub struct Heard {
    /// DHCP servers, by their addresses.
    pub offers: BTreeMap<Ipv4Addr, Offer>,
    /// Addresses that are in use, and by whom.
    pub occupied: BTreeMap<Ipv4Addr, MacAddr>,
}

/// Asks on the interface, for these addresses, and listens. Blocks for some seconds.
///
/// # Errors
/// Where no packet socket is to be had (root is needed).
pub fn run(interface: &str, addresses: &[Ipv4Addr]) -> io::Result<Heard> {
    let mac = super::interface(interface)?.mac;
    let index = nix::net::if_::if_nametoindex(interface)?;
    let everything = i32::from((libc::ETH_P_ALL as u16).to_be());
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(everything)))?;
    socket.bind(&sys::link_layer_address(index)?)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    // Chance is not needed: an answer to another's question is one of another server all the same.
    let xid = std::process::id() ^ 0x62_69_6c_6c;
    let start = Instant::now();
    for address in addresses {
        socket.send(&arp_probe(mac, *address))?;
    }
    let mut questions = DISCOVERS.iter();
    let mut next = questions.next();
    let (mut heard, mut buf) = (Heard::default(), [0; FRAME_MAX]);
    while start.elapsed() < WAIT {
        if next.is_some_and(|at| start.elapsed() >= *at) {
            let (any, all) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
            let path = Path { from: (any, 68), to: (all, 67), mac: MacAddr([0xff; 6]) };
            socket.send(&frame(mac, path, &discover(xid, probe_mac(mac))))?;
            next = questions.next();
        }
        match socket.read(&mut buf) {
            Ok(len) => heard.take(&buf[..len], xid, mac, addresses),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(heard)
}

/// The machine that the DISCOVER speaks of: one that does not exist, so that no lease of a real one is touched. Locally
/// administered (IEEE 802, bit 1 of the first octet).
fn probe_mac(own: MacAddr) -> MacAddr {
    let [_, _, a, b, c, d] = own.0;
    MacAddr([0x02, 0xb1, a, b, c, d])
}

impl Heard {
    fn take(&mut self, bytes: &[u8], xid: u32, own: MacAddr, addresses: &[Ipv4Addr]) {
        let Ok(frame) = EthernetFrame::new_checked(bytes) else { return };
        let sender = MacAddr(frame.src_addr().0);
        // A packet socket hears what leaves, too.
        if sender == own {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => {
                let arp = ArpPacket::new_checked(frame.payload()).and_then(|p| ArpRepr::parse(&p));
                let Ok(ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. }) = arp else {
                    return;
                };
                let known = self.occupied.len() >= ANSWERS_MAX;
                if !known && addresses.contains(&source_protocol_addr) {
                    self.occupied.insert(source_protocol_addr, MacAddr(source_hardware_addr.0));
                }
            }
            EthernetProtocol::Ipv4 if self.offers.len() < ANSWERS_MAX => {
                let found =
                    dhcp(frame.payload()).and_then(|(from, payload)| offer(payload, xid, (from, sender)));
                if let Some(offer) = found {
                    self.offers.insert(offer.server, offer);
                }
            }
            _ => {}
        }
    }
}

/// Sender and payload of a datagram from a DHCP server.
fn dhcp(bytes: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    let from = packet.src_addr();
    let length = usize::from(packet.header_len());
    let end = usize::from(packet.total_len());
    let datagram = UdpPacket::new_checked(bytes.get(length..end)?).ok()?;
    if datagram.src_port() != 67 {
        return None;
    }
    // The eight octets of the UDP header.
    Some((from, bytes.get(length + 8..length + usize::from(datagram.len()))?))
}
