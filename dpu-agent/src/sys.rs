//! The one system call that has no safe wrapper.
#![expect(unsafe_code, reason = "between fork and exec; the block states why it is sound")]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The program gets a session of its own: no terminal and no signal to our process group reaches it (`setsid(2)`).
pub fn own_session(command: &mut Command) {
    let lead = || nix::unistd::setsid().map(drop).map_err(Into::into);
    // SAFETY: the closure runs in the child before exec and makes one system call, which is async-signal-safe; it takes no
    // lock and no memory.
    unsafe { command.pre_exec(lead) };
}
