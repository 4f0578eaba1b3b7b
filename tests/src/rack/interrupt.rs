//! Ctrl-C as a value to look at, so that a rack in the foreground goes away in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

/// Becomes true at the first Ctrl-C.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes SIGINT from now on. To be called before any thread or child is started: they inherit that it is blocked, so
    /// that a Ctrl-C at the terminal ends nothing by itself.
    ///
    /// # Errors
    /// Where the signal mask cannot be changed.
    pub fn catch() -> Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
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

    /// True after a Ctrl-C.
    pub fn seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
