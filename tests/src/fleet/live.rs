//! The fleet on a real wire: one TAP interface, real time. What leaves and what comes passes the faulty cable.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::MacAddr;

use super::dhcp::{Client, Profile};
use super::fleet::Fleet;
use super::frame::{self, BROADCAST, Path};
use super::link::{Counters, Faults, Link};
use super::personality::FIRMWARE;
use super::rng::Rng;
use super::sys::Tap;
use crate::rack::Namespace;

/// Frames taken from the wire before the machines are looked at.
const BATCH: usize = 256;
/// Longest wait: the limit of the run is looked at this often.
const LOOK: Duration = Duration::from_millis(200);
/// Longest frame.
const FRAME_MAX: usize = 2048;
/// Frames that the interface keeps for us; the kernel's own 1,000 are less than one answer to all machines.
const QUEUE: &str = "20000";

/// The two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cable {
    /// From the machines to the server.
    pub up: Counters,
    /// From the server to the machines.
    pub down: Counters,
    /// Frames for which the TAP had no room.
    pub refused: u64,
}

/// Makes a TAP interface in the namespace, on its bridge.
///
/// # Errors
/// Where the kernel refuses.
pub fn plug_in(namespace: &Namespace, name: &str, bridge: &str) -> Result<Tap> {
    let handle = namespace.clone_handle()?;
    let inside = name.to_owned();
    // A thread of its own, because entering a namespace is for the whole life of a thread.
    let tap = std::thread::spawn(move || {
        handle.enter()?;
        Tap::open(&inside).context("making a TAP interface")
    });
    let tap = tap.join().map_err(|_| anyhow::anyhow!("the thread that makes the TAP interface broke"))??;
    namespace.ip(&["link", "set", name, "txqueuelen", QUEUE])?;
    namespace.ip(&["link", "set", name, "master", bridge, "up"])?;
    Ok(tap)
}

/// Runs the fleet until it is settled or `limit` has passed.
///
/// # Errors
/// Where the wire breaks.
pub fn drive(fleet: &mut Fleet, tap: &Tap, faults: Faults, rng: &Rng, limit: Duration) -> Result<Cable> {
    let (mut up, mut down) = (Link::new(faults, rng.fork(1)), Link::new(faults, rng.fork(2)));
    let mut buffer = [0; FRAME_MAX];
    let mut refused = 0;
    let began = Instant::now();
    loop {
        let now = began.elapsed();
        let mut quiet = true;
        for _ in 0..BATCH {
            let Some(len) = tap.read(&mut buffer).context("reading from the TAP interface")? else { break };
            quiet = false;
            down.handle_frame(now, buffer[..len].to_vec());
        }
        while let Some(frame) = down.poll_frame(now) {
            fleet.handle_frame(now, frame);
        }
        fleet.poll(now);
        while let Some(frame) = fleet.poll_transmit() {
            up.handle_frame(now, frame);
        }
        while let Some(frame) = up.poll_frame(now) {
            let sent = tap.write(&frame).context("writing to the TAP interface")?;
            refused += u64::from(!sent);
        }
        if fleet.is_settled() || now > limit {
            return Ok(Cable { up: up.counters(), down: down.counters(), refused });
        }
        if quiet {
            let next = [fleet.poll_timeout(), up.poll_timeout(), down.poll_timeout()];
            let wait = next.into_iter().flatten().min().map_or(LOOK, |at| at.saturating_sub(began.elapsed()));
            if !wait.is_zero() {
                tap.wait(wait.min(LOOK)).context("waiting for the TAP interface")?;
            }
        }
    }
}

/// DISCOVERs of machines that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// How many, each from another address.
    pub count: u32,
    /// How many in one second.
    pub per_second: u32,
}

/// What became of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flooded {
    /// DISCOVERs sent.
    pub sent: u64,
    /// Frames that came back: offers.
    pub answered: u64,
    /// From the first to the last.
    pub took: Duration,
}

/// Sends a flood, until it is over or `stop` is set.
///
/// # Errors
/// Where the wire breaks.
pub fn flood(tap: &Tap, flood: Flood, mut rng: Rng, stop: &AtomicBool) -> Result<Flooded> {
    let mut done = Flooded::default();
    let mut buffer = [0; FRAME_MAX];
    let began = Instant::now();
    while done.sent < flood.count.into() && !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_secs_f64() * f64::from(flood.per_second);
        while (done.sent as f64) < due && done.sent < flood.count.into() {
            let frame = stranger(&mut rng);
            tap.write(&frame).context("writing to the TAP interface")?;
            done.sent += 1;
        }
        while tap.read(&mut buffer).context("reading from the TAP interface")?.is_some() {
            done.answered += u64::from(is_offer(&buffer));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    done.took = began.elapsed();
    Ok(done)
}

/// The DISCOVER of a machine that nobody has seen.
fn stranger(rng: &mut Rng) -> Vec<u8> {
    let [a, b, c, d, e, ..] = rng.next().to_be_bytes();
    // Locally administered, and never one of the fleet's.
    let mac = MacAddr([0x02, a, b, c, d, e]);
    let profile = Profile {
        mac,
        uuid: None,
        vendor_class: "PXEClient:Arch:00007:UNDI:003000",
        architecture: Some(7),
        ipxe: false,
        broadcast: false,
        wants_file: true,
        patience: FIRMWARE,
    };
    let message = Client::new(Duration::ZERO, profile, rng.fork(0)).poll_transmit(Duration::ZERO);
    let path = Path {
        from_mac: mac,
        to_mac: BROADCAST,
        from: (Ipv4Addr::UNSPECIFIED, 68),
        to: (Ipv4Addr::BROADCAST, 67),
    };
    frame::udp(path, &message.unwrap_or_default())
}

/// True for a frame to one of the strangers.
fn is_offer(frame: &[u8]) -> bool {
    frame::stations(frame).is_some_and(|(to, _)| to.0[0] == 0x02)
}
