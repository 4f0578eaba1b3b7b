//! `cargo xtask bench dhcp`: addresses leased in a second, ours against dnsmasq and Kea, in turn, over a veth pair
//! between two network namespaces, each asked by the same load of clients.
//!
//! Ours stores every lease durably before its ACK leaves. dnsmasq writes its lease file, and Kea its memfile, without
//! waiting for the disk. No server logs each packet, and none pings an address first.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ::tests::dhcp_load::{Load, percentile};
use ::tests::dhcp_wire::{LINK, MASK, POOL, PREFIX, RELAY, SERVER, Wire};
use ::tests::rack::{Process, Server};
use anyhow::{Result, ensure};

use super::median;
use crate::{build, paths, tool};

/// Time for a daemon to begin to answer.
const START: Duration = Duration::from_secs(10);
/// Clients of the last part: as many as the largest site has machines and ports.
const MANY: u32 = 100_000;

/// Arguments of `cargo xtask bench dhcp`.
#[derive(clap::Args)]
pub struct Args {
    /// Clients that ask at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    window: u16,
    /// Seconds that each server is asked; medians of the rounds count.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// How often each server is measured, each time with no lease at its start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// The clients are PXE ROMs instead of plain clients.
    #[arg(long)]
    pxe: bool,
    /// Only ours.
    #[arg(long)]
    alone: bool,
    /// Leave out the run to 100,000 leases.
    #[arg(long)]
    short: bool,
}

/// Runs the benchmark.
pub fn run(args: &Args) -> Result<()> {
    build::ui()?;
    build::server()?;
    let dir = paths::target().join("bench-dhcp");
    let peers: &[Peer] = if args.alone { &[Peer::Ours] } else { &[Peer::Ours, Peer::Dnsmasq, Peer::Kea] };
    let mut taken: Vec<Vec<Run>> = vec![Vec::new(); peers.len()];
    for round in 1..=args.rounds {
        for (peer, taken) in peers.iter().zip(&mut taken) {
            let wire = quiet_wire(&dir)?;
            let mut daemon = start(&wire, *peer)?;
            let load = load(args, 0, MANY, Duration::from_secs(args.seconds));
            taken.push(daemon.measure(&wire, &load)?.shown(&format!("round {round}: {}", peer.name())));
        }
    }
    let wire = quiet_wire(&dir)?;
    let mut ours = start(&wire, Peer::Ours)?;
    one_at_a_time(&wire, &mut ours, args)?;
    if !args.short {
        to_many(&wire, &mut ours, args)?;
    }
    drop((ours, wire));
    let _ = fs::remove_dir_all(&dir);
    let figure = |of: fn(&Run) -> f64| -> String {
        let each = peers.iter().zip(&taken);
        let each = each.map(|(p, runs)| format!("{} {:.0}", p.name(), median(runs.iter().map(of).collect())));
        each.collect::<Vec<_>>().join(" ")
    };
    println!("cpu_us_per_dora {}", figure(|r| r.cpu_us));
    println!("p50_us {}", figure(|r| r.p50.as_secs_f64() * 1e6));
    println!("p99_us {}", figure(|r| r.p99.as_secs_f64() * 1e6));
    println!("dora_per_s {}", figure(|r| r.rate));
    Ok(())
}

fn load(args: &Args, first: u32, clients: u32, time: Duration) -> Load {
    let window = usize::from(args.window);
    Load { relay: RELAY, server: SERVER, window, clients, first, time, pxe: args.pxe }
}

/// How soon a new client has its address while nobody else asks.
fn one_at_a_time(wire: &Wire, ours: &mut Daemon, args: &Args) -> Result<()> {
    let load = Load { window: 1, ..load(args, 1 << 19, 500, Duration::from_secs(20)) };
    let outcome = wire.load(&load)?;
    ensure!(outcome.done == load.clients, "only {} of {} clients were served", outcome.done, load.clients);
    let us = |values: &[Duration], share| percentile(values, share).as_micros();
    println!(
        "ours, one new client at a time: REQUEST to ACK p50 {} us, p99 {} us; DISCOVER to ACK p50 {} us, p99 {} us",
        us(&outcome.ack, 0.5),
        us(&outcome.ack, 0.99),
        us(&outcome.dora, 0.5),
        us(&outcome.dora, 0.99)
    );
    ours.process()?;
    Ok(())
}

/// Whether it stays as quick while the table fills.
fn to_many(wire: &Wire, ours: &mut Daemon, args: &Args) -> Result<()> {
    let part = MANY / 10;
    for n in 0..10 {
        let load = load(args, n * part, part, Duration::from_secs(60));
        let run = ours.measure(wire, &load)?;
        ensure!(run.done == part, "only {} of {part} clients were served", run.done);
        run.shown(&format!("ours, leases {} to {}", n * part, (n + 1) * part));
    }
    let rss = fs::read_to_string(format!("/proc/{}/status", ours.process()?.pid()))?;
    let peak = rss.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("?").trim().to_owned();
    println!("ours, peak memory at {MANY} leases: {peak}");
    Ok(())
}

/// What was measured in one run.
#[derive(Debug, Clone)]
struct Run {
    done: u32,
    rate: f64,
    /// CPU time of the server's process for one client, microseconds.
    cpu_us: f64,
    p50: Duration,
    p99: Duration,
    retried: u32,
}

impl Run {
    fn shown(self, what: &str) -> Self {
        let Self { done, rate, cpu_us, p50, p99, retried } = &self;
        println!(
            "{what}: {done} clients, {rate:.0}/s, {cpu_us:.1} us CPU each, p50 {} us, p99 {} us, {retried} retries",
            p50.as_micros(),
            p99.as_micros()
        );
        self
    }
}

/// Who is measured.
#[derive(Debug, Clone, Copy)]
enum Peer {
    Ours,
    Dnsmasq,
    Kea,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Dnsmasq => "dnsmasq",
            Self::Kea => "kea",
        }
    }
}

/// A wire with nothing on its way to the disk that would be in the way of the next measurement.
fn quiet_wire(dir: &Path) -> Result<Wire> {
    let wire = Wire::new(dir)?;
    tool::quiet(&mut tool::command("sync", &[]))?;
    Ok(wire)
}

/// Starts a server and waits until it leases.
fn start(wire: &Wire, peer: Peer) -> Result<Daemon> {
    let daemon = match peer {
        Peer::Ours => Daemon::Ours(Box::new(wire.start()?)),
        Peer::Dnsmasq => Daemon::Peer(dnsmasq(wire)?),
        Peer::Kea => Daemon::Peer(kea(wire)?),
    };
    let (relay, server) = (RELAY, SERVER);
    let first = Load { relay, server, window: 1, clients: 1, first: 1 << 18, time: START, pxe: false };
    let outcome = wire.load(&first)?;
    ensure!(outcome.done == 1, "{} does not answer; see {}", peer.name(), wire.dir.display());
    Ok(daemon)
}

fn dnsmasq(wire: &Wire) -> Result<Process> {
    let mut command = wire.server.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"]);
    command.args(["--bind-interfaces", "--quiet-dhcp", "--dhcp-authoritative", "--log-facility=-"]);
    command.args([&format!("--interface={LINK}"), "--dhcp-lease-max=200000", "--user=root"]);
    command.arg(format!("--dhcp-range={},{},{MASK},1h", POOL.0, POOL.1));
    command.arg(format!("--dhcp-leasefile={}", wire.dir.join("dnsmasq.leases").display()));
    command.arg(format!("--pid-file={}", wire.dir.join("dnsmasq.pid").display()));
    Process::start("dnsmasq", command, &wire.dir.join("dnsmasq.log"))
}

fn kea(wire: &Wire) -> Result<Process> {
    let config = serde_json::json!({"Dhcp4": {
        "interfaces-config": {"interfaces": [LINK], "dhcp-socket-type": "udp"},
        "lease-database": {
            "type": "memfile", "persist": true, "lfc-interval": 0, "name": wire.dir.join("kea.csv"),
        },
        "valid-lifetime": 3600,
        "multi-threading": {"enable-multi-threading": true},
        "subnet4": [{
            "subnet": format!("10.64.0.0/{PREFIX}"), "pools": [{"pool": format!("{} - {}", POOL.0, POOL.1)}],
        }],
        "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": "stdout"}]}],
    }});
    let path = wire.dir.join("kea.json");
    fs::write(&path, config.to_string())?;
    let mut command = wire.server.command("kea-dhcp4");
    command.arg("-c").arg(&path).env("KEA_PIDFILE_DIR", &wire.dir).env("KEA_LOCKFILE_DIR", &wire.dir);
    Process::start("kea-dhcp4", command, &wire.dir.join("kea.log"))
}

/// A running server.
enum Daemon {
    Ours(Box<Server>),
    Peer(Process),
}

impl Daemon {
    fn process(&mut self) -> Result<&mut Process> {
        let process = match self {
            Self::Ours(server) => server.process()?,
            Self::Peer(process) => process,
        };
        ensure!(process.running(), "the server ended");
        Ok(process)
    }

    fn measure(&mut self, wire: &Wire, load: &Load) -> Result<Run> {
        let before = self.process()?.cpu_time()?;
        let outcome = wire.load(load)?;
        let cpu = self.process()?.cpu_time()? - before;
        ensure!(outcome.done > 0, "no client was served");
        let unique: std::collections::BTreeSet<_> = outcome.addresses.iter().collect();
        ensure!(unique.len() == outcome.addresses.len(), "an address was given to two clients");
        Ok(Run {
            done: outcome.done,
            rate: outcome.per_second(),
            cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(outcome.done),
            p50: percentile(&outcome.dora, 0.5),
            p99: percentile(&outcome.dora, 0.99),
            retried: outcome.retried,
        })
    }
}
