//! The UDP sockets of one interface.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;

use boot_server_core::dhcp::Port;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// The kernel's receive queue asked for, in octets: some 2,000 requests.
const RECEIVE_BUFFER: usize = 2 << 20;

/// Binds a port of an interface; must be called inside a tokio runtime.
pub(super) fn listen(interface: &str, port: Port) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    // The kernel caps this at net.core.rmem_max without an error.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // Not the server's own address: a socket bound to that hears no broadcast.
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number())).into())?;
    UdpSocket::from_std(socket.into())
}

/// Sends by the kernel's routes, from this address of ours.
pub(super) fn send(socket: &UdpSocket, from: Ipv4Addr, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
    let source = nix::libc::in_addr { s_addr: u32::from(from).to_be() };
    let info = nix::libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: source,
        ipi_addr: nix::libc::in_addr { s_addr: 0 },
    };
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let iov = [io::IoSlice::new(bytes)];
    sendmsg(socket.as_raw_fd(), &iov, &control, MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn::from(to)))?;
    Ok(())
}
