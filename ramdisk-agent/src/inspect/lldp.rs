//! Listening for LLDP on every port, from the moment it is switched on. Nothing waits for it.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::inventory::LldpNeighbour;
use ramdisk_agent_core::lldp;

use crate::sys::{self, PacketSocket};

/// How long a port is listened to: switches speak every 30 s (IEEE 802.1AB-2016, 9.2.5.5), and may miss one.
pub const LISTEN: Duration = Duration::from_secs(65);
/// Longest frame that is read, in bytes.
const FRAME_MAX: usize = 1600;

/// What was heard, by port.
#[derive(Default)]
pub struct Neighbours {
    heard: Mutex<BTreeMap<String, LldpNeighbour>>,
}

impl Neighbours {
    /// Starts to listen on a port.
    pub fn listen(self: &Arc<Self>, port: &str) {
        let (all, port) = (self.clone(), port.to_owned());
        std::thread::spawn(move || {
            if let Err(e) = all.hear(&port) {
                eprintln!("billet: {port}: LLDP: {e}");
            }
        });
    }

    fn hear(&self, port: &str) -> std::io::Result<()> {
        let socket = PacketSocket::open(port, lldp::ETHERTYPE, Some(lldp::MULTICAST))?;
        let began = Instant::now();
        let mut frame = [0; FRAME_MAX];
        while let Some(left) = LISTEN.checked_sub(began.elapsed()).filter(|l| !l.is_zero()) {
            sys::wait_readable(&[socket.as_raw_fd()], left)?;
            let Ok(len) = socket.receive(&mut frame) else { continue };
            if let Some(neighbour) = lldp::parse(&frame[..len]) {
                let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.insert(port.to_owned(), neighbour);
            }
        }
        Ok(())
    }

    /// The neighbour on a port.
    pub fn of(&self, port: &str) -> Option<LldpNeighbour> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(port).cloned()
    }

    /// Ports whose neighbour is known.
    pub fn count(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
