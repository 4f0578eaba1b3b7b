//! The only unsafe code of the server: socket addresses that no safe interface makes, sockets that tokio knows not, and the
//! allocator.
#![expect(
    unsafe_code,
    reason = "a link-layer socket address and malloc_trim have no safe form in socket2 or nix"
)]

use nix::libc;
use socket2::{SockAddr, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The address of an interface for sending whole Ethernet frames (packet(7)).
pub(crate) fn link_layer_address(interface_index: u32) -> std::io::Result<SockAddr> {
    let index = i32::try_from(interface_index).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let fill = |storage: *mut socket2::SockAddrStorage, len: *mut libc::socklen_t| {
        let link = storage.cast::<libc::sockaddr_ll>();
        // SAFETY: `storage` points to a zeroed `sockaddr_storage`, which is as large and as aligned as any socket
        // address (POSIX), so a `sockaddr_ll` fits; all-zero is a valid one; `len` points to an initialised length.
        unsafe {
            (*link).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*link).sll_ifindex = index;
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        }
        Ok(())
    };
    // SAFETY: `fill` sets the family and the length of the address that it writes.
    unsafe { SockAddr::try_init(fill) }.map(|((), address)| address)
}

/// Gives memory that was freed back to the system.
pub(crate) fn give_memory_back() {
    // SAFETY: it takes no pointer and may be called at any time, by any thread (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Waits for a socket to have something to read; must be called inside a tokio runtime.
pub(crate) fn wait_readable(socket: Socket) -> std::io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor and gives the same one as long as it lives, and the registration, which
    // owns the socket, ends before it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}
