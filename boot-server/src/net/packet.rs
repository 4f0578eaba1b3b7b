//! Frames of one interface as they come in, past the IP stack: what is not for this machine's own sockets.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::sys::socket::{LinkAddr, recvfrom};
use protocol::MacAddr;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ARP: u16 = 0x0806;
/// Largest frame taken, in octets; what we look for is smaller.
const FRAME_MAX: usize = 2048;
/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// A socket that hears what a filter lets through.
#[derive(Debug)]
pub struct PacketSocket {
    socket: AsyncFd<Socket>,
    interface: String,
}

impl PacketSocket {
    /// Opens it for frames of an ethertype; must be called inside a tokio runtime and needs `CAP_NET_RAW`. It is not
    /// bound to the interface, only sorted by it: so it lives on where the interface goes away and comes back.
    ///
    /// # Errors
    /// The system's.
    pub fn open(interface: &str, ethertype: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(filter)?;
        Ok(Self { socket: sys::wait_readable(socket)?, interface: interface.to_owned() })
    }

    /// The next frame of the interface. Cancelling it loses none.
    ///
    /// # Errors
    /// The system's, such as an interface that went down; it may be called again.
    pub async fn recv(&self) -> io::Result<Vec<u8>> {
        let mut buf = [0; FRAME_MAX];
        loop {
            let read = |socket: &Socket| Ok(recvfrom::<LinkAddr>(socket.as_fd().as_raw_fd(), &mut buf)?);
            let (len, from) = self.socket.async_io(Interest::READABLE, read).await?;
            let index = from.and_then(|from| u32::try_from(from.ifindex()).ok());
            let ours = nix::net::if_::if_nametoindex(self.interface.as_str()).ok();
            if index.is_some() && index == ours {
                return Ok(buf[..len].to_vec());
            }
        }
    }
}

/// Source address and payload of an Ethernet frame.
pub fn ethernet(frame: &[u8]) -> Option<(MacAddr, &[u8])> {
    let source = frame.get(6..12)?.try_into().ok()?;
    Some((MacAddr(source), frame.get(ETHERNET..)?))
}

/// Lets ARP replies through and nothing else (classic BPF; offsets from the start of the frame).
pub fn arp_replies() -> [SockFilter; 4] {
    const REPLY: u32 = 2;
    [
        statement(LOAD_HALF, 20),
        jump(JUMP_EQUAL, REPLY, 0, 1),
        statement(RETURN, FRAME_MAX as u32),
        statement(RETURN, 0),
    ]
}

/// Lets unfragmented UDP datagrams to one port through and nothing else.
pub fn udp_to(port: u16) -> [SockFilter; 9] {
    const UDP: u32 = 17;
    /// More fragments follow, or the offset is not zero.
    const FRAGMENT: u32 = 0x3fff;
    [
        statement(LOAD_BYTE, 23),
        jump(JUMP_EQUAL, UDP, 0, 6),
        statement(LOAD_HALF, 20),
        jump(JUMP_SET, FRAGMENT, 4, 0),
        // X = length of the IP header
        statement(LOAD_HEADER_LENGTH, ETHERNET as u32),
        statement(LOAD_HALF_AT_X, 16),
        jump(JUMP_EQUAL, u32::from(port), 0, 1),
        statement(RETURN, FRAME_MAX as u32),
        statement(RETURN, 0),
    ]
}

// Instructions of the classic BPF machine (linux/bpf_common.h).
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

fn statement(code: u16, value: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, value)
}

fn jump(code: u16, value: u32, when_true: u8, when_false: u8) -> SockFilter {
    SockFilter::new(code, when_true, when_false, value)
}
