//! The one call into the kernel that neither the standard library nor nix wraps: waiting for a child together with what
//! it used.
#![expect(unsafe_code, reason = "wait4(2) has no safe wrapper; the block states why it is sound")]

use std::io;
use std::mem::zeroed;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// What a process used, with the children that it waited for.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// User and system time together.
    pub cpu: Duration,
    /// Largest resident set of any one of them, in bytes; includes what the starter had when it forked.
    pub rss: u64,
}

/// Waits for the end of a child that nobody else waits for.
pub fn wait(child: Child) -> io::Result<(ExitStatus, Usage)> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which all zero is valid.
    let mut usage: libc::rusage = unsafe { zeroed() };
    // SAFETY: both pointers are those of live locals, and the child was not waited for: it is owned and dropped here.
    while unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let time = |t: libc::timeval| Duration::from_micros((t.tv_sec * 1_000_000 + t.tv_usec).unsigned_abs());
    let used = Usage {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        rss: usage.ru_maxrss.unsigned_abs() * 1024,
    };
    Ok((ExitStatus::from_raw(status), used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_of_the_child() {
        let child = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let (status, usage) = wait(child).unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(usage.rss > 0 && usage.cpu < Duration::from_secs(5));
    }
}
