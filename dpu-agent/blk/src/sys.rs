//! The one system call that has no safe wrapper.
#![expect(unsafe_code, reason = "between fork and exec; the block states why it is sound")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// The program is killed when the thread that starts it ends, however that ends (`PR_SET_PDEATHSIG`).
pub fn dies_with_us(command: &mut Command) {
    let us = nix::unistd::getpid();
    let bind = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // Who started it may have died before.
        if nix::unistd::getppid() == us { Ok(()) } else { Err(std::io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: the closure runs in the child before exec and makes two system calls, which are async-signal-safe; it takes no
    // lock and no memory.
    unsafe { command.pre_exec(bind) };
}
