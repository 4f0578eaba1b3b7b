//! Ctrl-C (and being told to end otherwise) as a value to look at, so that a rack in the foreground goes away in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

/// Becomes true at the first Ctrl-C, SIGTERM or hang-up of the terminal.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes these signals from now on. To be called before any thread or child is started: they inherit that they are
    /// blocked, so that a Ctrl-C at the terminal ends nothing by itself. What is started later ends with the rack.
    ///
    /// # Errors
    /// Where the signal mask cannot be changed.
    pub fn catch() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        let seen = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&seen);
        std::thread::spawn(move || {
            if set.wait().is_ok() {
                flag.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self(seen))
    }

    /// True after the first of them.
    pub fn seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
