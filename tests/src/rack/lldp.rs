//! A switch that introduces itself on a machine's port by LLDP (IEEE 802.1AB), every second. Frames go straight into the
//! port's tap: a Linux bridge keeps those of 01:80:C2:00:00:0E to itself.

use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, bind, socket};

use super::namespace::{Handle, within};

/// Between two frames; real switches take 30 s.
const EVERY: Duration = Duration::from_secs(1);

/// One port of a switch; it falls silent when dropped.
#[derive(Debug)]
pub struct SwitchPort {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl SwitchPort {
    pub(super) fn start(namespace: Handle, tap: String, switch: &str, port: &str) -> Self {
        let frame = frame(switch, port);
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            within(&namespace, move || {
                let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)?;
                let link = getifaddrs()?
                    .filter(|found| found.interface_name == tap)
                    .find_map(|found| found.address?.as_link_addr().copied())
                    .with_context(|| format!("{tap} has no link address"))?;
                bind(fd.as_raw_fd(), &link).with_context(|| format!("binding to {tap} ({})", link.len()))?;
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                    // A tap of a machine that is off takes nothing.
                    let _ = nix::unistd::write(&fd, &frame);
                }
                Ok(())
            })
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for SwitchPort {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("a switch could not speak: {error:#}");
        }
    }
}

/// Chassis (MAC address), port (interface name), time to live, system name, end (IEEE 802.1AB-2016, 8.5).
fn frame(switch: &str, port: &str) -> Vec<u8> {
    let mut frame = vec![0x01, 0x80, 0xc2, 0, 0, 0x0e, 0xb8, 0x59, 0x9f, 0xaa, 0x01, 0x02, 0x88, 0xcc];
    let mut tlv = |kind: u16, value: &[u8]| {
        let length = u16::try_from(value.len()).unwrap_or(0) & 0x1ff;
        frame.extend(((kind << 9) | length).to_be_bytes());
        frame.extend(value);
    };
    tlv(1, &[4, 0xb8, 0x59, 0x9f, 0xaa, 0x01, 0x00]);
    tlv(2, &[&[5], port.as_bytes()].concat());
    tlv(3, &120_u16.to_be_bytes());
    tlv(5, switch.as_bytes());
    tlv(0, &[]);
    frame.resize(frame.len().max(60), 0);
    frame
}
