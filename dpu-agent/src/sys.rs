//! What is done between fork and exec, which has no safe wrapper.
#![expect(unsafe_code, reason = "between fork and exec; the block states why it is sound")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;

/// The program gets a session of its own: no terminal and no signal to our process group reaches it (`setsid(2)`). No signal is
/// blocked for it, whatever we inherited: it is ended by one.
pub fn own_session(command: &mut Command) {
    let lead = || {
        nix::unistd::setsid()?;
        SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: the closure runs in the child before exec and makes two system calls, which are async-signal-safe; it takes no
    // lock and no memory.
    unsafe { command.pre_exec(lead) };
}
