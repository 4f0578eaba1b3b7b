//! A place for the fleet: a namespace with a bridge, `billet serve` on it, and the TAP interfaces.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::fleet::{Crew, Fleet};
use super::link::Faults;
use super::live::{self, Cable, Flood, Flooded};
use super::report::{Phase, Report};
use super::rng::Rng;
use super::sys::Tap;
use crate::rack::{BRIDGE, Namespace, OPERATORS_PORT, SERVER_ADDRESS, Server};

/// Kernels, RAM disks and loaders that the server has here: as long as ours and iPXE's, and of no content, because nobody
/// starts them.
const FILES: [(&str, u64); 7] = [
    ("vmlinuz", 8 << 20),
    ("initramfs", 15 << 20),
    ("arm64/vmlinuz", 8 << 20),
    ("arm64/initramfs", 15 << 20),
    ("undionly.kpxe", 72 << 10),
    ("snponly.efi", 160 << 10),
    ("snponly-arm64.efi", 160 << 10),
];
/// A machine that is not up this long after the last one was switched on is lost.
const LIMIT: Duration = Duration::from_secs(120);
/// Room for 65,000 machines.
const PREFIX: u8 = 16;

/// What is tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The machines.
    pub crew: Crew,
    /// Faults of the cable.
    pub faults: Faults,
    /// Strangers, while machines boot that were there before.
    pub flood: Option<Flood>,
    /// Addresses that the server lends, as `10.77.1.0-10.77.1.255`; with the flood's the pool can be made short.
    pub pool: (String, String),
    /// Level of the server's log.
    pub log: String,
    /// The server is killed so long after the beginning, and started again at once.
    pub crash: Option<Duration>,
}

/// The place.
pub struct Field {
    // Dropped in this order: what runs in the namespace goes before it.
    server: Server,
    taps: [Tap; 2],
    _namespace: Namespace,
}

impl Plan {
    /// A crew, a good cable, no strangers, a large pool.
    pub fn new(crew: Crew) -> Self {
        Self {
            crew,
            faults: Faults::default(),
            flood: None,
            pool: ("10.77.1.0".to_owned(), "10.77.255.254".to_owned()),
            log: "info".to_owned(),
            crash: None,
        }
    }

    /// Does it; the server's files are in `dir`.
    ///
    /// # Errors
    /// Where the place cannot be made, or the server ends.
    pub fn run(&self, dir: &Path) -> Result<Report> {
        let mut field = Field::new(self, dir)?;
        let mut phases = Vec::new();
        let Some(flood) = self.flood else {
            phases.push(field.phase("boot", self, &self.crew, None)?);
            return field.report(self, phases);
        };
        phases.push(field.phase("first boot", self, &self.crew, None)?);
        phases.push(field.phase("boot in the flood", self, &self.crew, Some(flood))?);
        // Machines that nobody has seen get an address after it.
        let fresh = Crew { first: self.crew.first + self.crew.count, ..self.crew.clone() };
        phases.push(field.phase("newcomers after it", self, &fresh, None)?);
        field.report(self, phases)
    }
}

impl Field {
    fn new(plan: &Plan, dir: &Path) -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.bridge(BRIDGE, &format!("{SERVER_ADDRESS}/{PREFIX}"))?;
        let taps =
            [live::plug_in(&namespace, "fleet0", BRIDGE)?, live::plug_in(&namespace, "fleet1", BRIDGE)?];
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let boot = dir.join("boot");
        fs::create_dir_all(boot.join("arm64"))?;
        for (name, len) in FILES {
            File::create(boot.join(name))?.set_len(len)?;
        }
        let (state, (first, last), log) = (dir.join("state"), &plan.pool, &plan.log);
        let config = format!(
            "state_dir = {state:?}\n\n[provisioning]\ninterface = \"{BRIDGE}\"\n\n\
             [dhcp]\nrange_start = \"{first}\"\nrange_end = \"{last}\"\n\n[boot]\ndirectory = {boot:?}\n\
             loaders = {boot:?}\n\n[operators]\nlisten = \"127.0.0.1:{OPERATORS_PORT}\"\n\n[log]\nlevel = {log:?}\n"
        );
        let server = Server::start_with(&namespace, dir, &config)?;
        Ok(Self { server, taps, _namespace: namespace })
    }

    /// Boots a crew; in a flood, if there is one.
    fn phase(&mut self, name: &str, plan: &Plan, crew: &Crew, flood: Option<Flood>) -> Result<Phase> {
        let mut fleet = Fleet::new(crew.machines());
        let rng = Rng::new(crew.seed).fork(name.len() as u64);
        let (server_cpu, fleet_cpu) = (self.server.process()?.cpu_time()?, own_cpu()?);
        let began = Instant::now();
        let drive = Drive { faults: plan.faults, rng, limit: crew.over + LIMIT, flood };
        let (cable, flooded) = self.drive(&mut fleet, &drive, plan.crash)?;
        let mut phase = Phase::of(name, &fleet);
        phase.took = began.elapsed();
        phase.server_cpu = self.server.process()?.cpu_time()?.saturating_sub(server_cpu);
        phase.fleet_cpu = own_cpu()?.saturating_sub(fleet_cpu);
        phase.cable = cable;
        phase.flooded = flooded;
        Ok(phase)
    }

    /// Drives the fleet in a thread of its own, the flood in another; this one ends the server's life where that is
    /// planned.
    fn drive(
        &mut self,
        fleet: &mut Fleet,
        drive: &Drive,
        crash: Option<Duration>,
    ) -> Result<(Cable, Option<Flooded>)> {
        let [tap, second] = &self.taps;
        let stop = &AtomicBool::new(false);
        std::thread::scope(|threads| {
            let flood = |flood| threads.spawn(move || live::flood(second, flood, drive.rng.fork(3), stop));
            let strangers = drive.flood.map(flood);
            let machines = threads.spawn(|| {
                let cable = live::drive(fleet, tap, drive.faults, &drive.rng, drive.limit);
                // The flood goes on to its end also where the machines are up before.
                stop.store(cable.is_err(), Ordering::Relaxed);
                cable
            });
            if let Some(crash) = crash {
                std::thread::sleep(crash);
                self.server.kill()?;
                self.server.start_again()?;
            }
            let broke = |_| anyhow::anyhow!("a thread of the fleet broke");
            let cable = machines.join().map_err(broke)??;
            let flooded = strangers.map(|thread| thread.join().map_err(broke)).transpose()?.transpose()?;
            Ok((cable, flooded))
        })
    }

    fn report(&mut self, plan: &Plan, phases: Vec<Phase>) -> Result<Report> {
        let memory = self.server.process()?.peak_memory()?;
        Ok(Report::new(plan, phases, memory))
    }
}

struct Drive {
    faults: Faults,
    rng: Rng,
    limit: Duration,
    flood: Option<Flood>,
}

/// CPU time of this process.
fn own_cpu() -> Result<Duration> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let time = |t: nix::sys::time::TimeVal| {
        Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()).unsigned_abs())
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}
