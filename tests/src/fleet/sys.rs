//! The one call into the kernel that has no safe wrapper: making a TAP interface.
#![expect(unsafe_code, reason = "ioctl(TUNSETIFF) has no safe wrapper; each block states why it is sound")]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The open end of a TAP interface: frames, one at a time, without waiting.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes the interface `name` in the calling thread's namespace; it goes when this is dropped.
    ///
    /// # Errors
    /// What the system says; root is needed.
    pub fn open(name: &str) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        // SAFETY: ifreq is plain numbers, for which all zero is valid.
        let mut request: libc::ifreq = unsafe { zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the descriptor is open, and the pointer is that of a live ifreq, which is what TUNSETIFF takes.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(file))
    }

    /// The next frame, put into `buffer`; its length. `None` where there is none now.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.0).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame; false where the interface has no room.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, frame: &[u8]) -> io::Result<bool> {
        match (&self.0).write(frame) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for a frame, for at most `timeout`.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let timeout = u16::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(timeout)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
