//! The sockets: the one that takes requests, and the one of each session. What they share is that an answer leaves from
//! the very address that was asked, over the interface that the request came in by.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recv, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use nix::{getsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::driver::ServerConfig;
use crate::limits;
use crate::transfer::Burst;

/// Octets of the headers of IPv4 and UDP, and of IPv6 and UDP.
const HEADERS_V4: u16 = 28;
const HEADERS_V6: u16 = 48;

sockopt_impl!(
    /// Path MTU of a connected IPv6 socket (RFC 3542 section 11.4).
    Ipv6Mtu,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);

/// A socket that takes requests.
pub(crate) fn listen(config: &ServerConfig) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(config.listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if config.listen.is_ipv6() {
        socket.set_only_v6(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    if let Some(interface) = &config.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    // Beyond the system's limit where we may, else up to it; the clients of what is lost ask again.
    if setsockopt(&socket, sockopt::RcvBufForce, &limits::LISTEN_BUFFER).is_err() {
        socket.set_recv_buffer_size(limits::LISTEN_BUFFER)?;
    }
    socket.bind(&config.listen.into())?;
    UdpSocket::from_std(socket.into())
}

/// A session's socket: bound to the address that was asked, connected to the client, with small buffers.
pub(crate) fn session(peer: SocketAddr, local: IpAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.set_send_buffer_size(limits::SEND_BUFFER)?;
    socket.set_recv_buffer_size(limits::RECEIVE_BUFFER)?;
    let local = match (local, peer) {
        // A link-local address is one only together with its link (RFC 4007 section 6).
        (IpAddr::V6(local), SocketAddr::V6(peer)) if local.is_unicast_link_local() => {
            SocketAddrV6::new(local, 0, 0, peer.scope_id()).into()
        }
        _ => SocketAddr::new(local, 0),
    };
    socket.bind(&local.into())?;
    socket.connect(&peer.into())?;
    UdpSocket::from_std(socket.into())
}

/// The largest block that goes to the client of a connected socket without fragments.
pub(crate) fn block_max(socket: &UdpSocket) -> u16 {
    let (mtu, headers) = match socket.peer_addr() {
        Ok(SocketAddr::V6(_)) => (getsockopt(&socket.as_fd(), Ipv6Mtu), HEADERS_V6),
        _ => (getsockopt(&socket.as_fd(), sockopt::IpMtu), HEADERS_V4),
    };
    let mtu = mtu.ok().and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(1500);
    mtu.saturating_sub(headers + limits::HEADER as u16).clamp(limits::BLOCK_DEFAULT, limits::BLOCK_MAX)
}

/// Buffers that bursts are made in. One is needed only for the moment in which a burst is handed to the kernel, so there
/// are no more of them than threads.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Box<[u8]>>>);

impl Buffers {
    /// Lends a buffer of [`limits::BURST_OCTETS`].
    pub fn with<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = spare.unwrap_or_else(|| vec![0; limits::BURST_OCTETS].into());
        let result = work(&mut buffer);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        result
    }
}

/// Hands a burst to the kernel, which cuts it into its packets (`UDP_SEGMENT`, udp(7)).
///
/// # Errors
/// The system's; `WouldBlock` where the socket is full.
pub(crate) fn send(socket: &UdpSocket, burst: &Burst, bytes: &[u8]) -> io::Result<()> {
    let segment = u16::try_from(burst.segment).unwrap_or(u16::MAX);
    let attempt = || {
        let bytes = &bytes[..burst.len];
        if burst.len <= burst.segment {
            return nix::sys::socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT).map(drop);
        }
        let cut = [ControlMessage::UdpGsoSegments(&segment)];
        let iov = [io::IoSlice::new(bytes)];
        sendmsg::<()>(socket.as_raw_fd(), &iov, &cut, MsgFlags::MSG_DONTWAIT, None).map(drop)
    };
    match attempt() {
        // Tokio believes a socket to be full before it heard of it, so it is asked only when the kernel says so.
        Err(Errno::EAGAIN) => socket.try_io(Interest::WRITABLE, || attempt().map_err(Into::into)),
        sent => Ok(sent?),
    }
}

/// Sends one packet, or none where the socket is full.
///
/// # Errors
/// The system's.
pub(crate) fn send_one(socket: &UdpSocket, packet: &[u8]) -> io::Result<()> {
    nix::sys::socket::send(socket.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Waits for a packet of a session and takes it. What has come behind it is not looked for: a client that goes in step
/// sends nothing until it is answered, so the look would cost a system call for each block and find nothing. Whoever
/// gets no further with what came has to ask [`receive_now`] for the rest.
///
/// # Errors
/// The system's.
pub(crate) async fn receive_one(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        let mut taken = None;
        let tried = socket.try_io(Interest::READABLE, || {
            taken = Some(receive_now(socket, buf)?);
            // Tokio waits for the next packet as if there were no other.
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
        match (taken, tried) {
            (Some(len), _) => return Ok(len),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            (None, _) => {}
        }
    }
}

/// Takes a packet of a session that is there.
///
/// # Errors
/// The system's; `WouldBlock` where there is none.
pub(crate) fn receive_now(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT)?)
}

/// True where the kernel, the interface or the path (a smaller MTU) lets no burst through; single packets may pass.
pub(crate) fn refuses_bursts(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(
        number,
        Some(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT)
    )
}

/// One datagram, as it came in.
pub(crate) struct Received {
    pub len: usize,
    pub peer: SocketAddr,
    /// The address of ours that it was sent to.
    pub local: IpAddr,
    /// It was sent to more than us.
    pub to_many: bool,
}

/// Waits for a datagram.
pub(crate) async fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
    socket.async_io(Interest::READABLE, || receive_request(socket, buf)).await
}

fn receive_request(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
    let mut control = nix::cmsg_space!([u8; 64]);
    let mut iov = [io::IoSliceMut::new(buf)];
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let peer = message.address.and_then(|a| to_std(&a)).ok_or_else(|| invalid("datagram without sender"))?;
    let mut asked = None;
    for control in message.cmsgs()? {
        match control {
            // spec_dst, unlike addr, is an address of ours even for a datagram to the broadcast address.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let local = IpAddr::V4(u32::from_be(info.ipi_spec_dst.s_addr).into());
                asked = Some((local, info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let local = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                asked = Some((IpAddr::V6(local), local.is_multicast()));
            }
            _ => {}
        }
    }
    let (local, to_many) = asked.ok_or_else(|| invalid("datagram without destination"))?;
    Ok(Received { len: message.bytes, peer, local, to_many })
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into())
}
