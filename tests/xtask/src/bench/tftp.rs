//! `cargo xtask bench tftp`: Billet's TFTP beside dnsmasq, tftpd-hpa and atftpd, in turn, with one and the same client.
//!
//! Servers run in one network namespace and clients in another, with a veth pair between them. Each client has an address
//! of its own, as machines have. atftpd comes from its package without being installed, because it would put tftpd-hpa
//! off the machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::tests::rack::{Handle, Namespace, Process, Server};
use ::tests::tftp::Wishes;
use ::tests::tftp::load::{self, Outcome, Plan};
use anyhow::{Context, Result, ensure};

use super::median;
use crate::deb::Apt;
use crate::{build, paths, tool};

/// Address of the servers, and the network that holds the clients' too.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Clients count up from here.
const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 64, 1);
/// The file of the single client. Its blocks do not wrap, which some servers do not survive.
const LARGE: (&str, usize) = ("snponly.efi", 64 << 20);
/// The file of many clients: as large as a loader.
const SMALL: (&str, usize) = ("undionly.kpxe", 1 << 20);
const MIB: f64 = (1 << 20) as f64;
/// Octets in a block: what Ethernet carries.
const BLKSIZE: u16 = 1468;
/// Windows of the single client (RFC 7440).
const WINDOWS: [u16; 4] = [1, 4, 16, 64];
/// Where a server has to listen by then.
const START: Duration = Duration::from_secs(10);

/// Arguments of `cargo xtask bench tftp`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often each is measured; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Number of clients at the same time, beside the single one.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=8000))]
    clients: u32,
    /// Also 20 clients over a link that loses 1 % and 5 % of all datagrams, with this seed. Takes minutes with the others.
    #[arg(long, value_name = "SEED")]
    loss: Option<u64>,
    /// Only Billet.
    #[arg(long)]
    alone: bool,
}

/// Runs the benchmark.
pub fn run(args: &Args) -> Result<()> {
    build::ui()?;
    build::server()?;
    let bench = Bench::new()?;
    let mut peers = vec![Peer::Billet];
    if !args.alone {
        peers.extend([Peer::Dnsmasq, Peer::TftpdHpa, Peer::Atftpd]);
    }
    let mut table: Vec<(Peer, Measured)> = peers.iter().map(|p| (*p, Measured::default())).collect();
    for round in 1..=args.rounds {
        for (peer, measured) in &mut table {
            bench
                .measure(*peer, args, measured)
                .with_context(|| format!("{}, round {round}", peer.name()))?;
        }
    }
    report(args, &table);
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Billet,
    Dnsmasq,
    TftpdHpa,
    Atftpd,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Billet => "ours",
            Self::Dnsmasq => "dnsmasq",
            Self::TftpdHpa => "tftpd-hpa",
            Self::Atftpd => "atftpd",
        }
    }
}

/// What was measured of one server.
#[derive(Debug, Default)]
struct Measured {
    /// For each window: MB/s and the server's CPU seconds for each GiB. Nothing where it grants no window.
    windows: [Vec<(f64, f64)>; WINDOWS.len()],
    many: Vec<Many>,
    /// Seconds of the last client, and clients that failed, for each rate of loss.
    lossy: Vec<(f64, f64, u32)>,
}

#[derive(Debug)]
struct Many {
    rate: f64,
    failed: u32,
    seconds: f64,
    cpu: f64,
    /// Peak of the server's resident memory and of the kernel's for its sockets, in MiB.
    memory: (f64, f64),
}

/// Two namespaces and the files.
struct Bench {
    server: Namespace,
    clients: Handle,
    _clients: Namespace,
    dir: PathBuf,
    large: Arc<[u8]>,
    small: Arc<[u8]>,
}

impl Bench {
    fn new() -> Result<Self> {
        let dir = paths::target().join("bench-tftp");
        let _ = fs::remove_dir_all(&dir);
        let files = dir.join("state/loaders");
        fs::create_dir_all(&files)?;
        let content = |len: usize| -> Arc<[u8]> { (0..len).map(|i| (i * 31 + i / 1021) as u8).collect() };
        let (large, small) = (content(LARGE.1), content(SMALL.1));
        fs::write(files.join(LARGE.0), &large)?;
        fs::write(files.join(SMALL.0), &small)?;
        let (server, clients) = (Namespace::new()?, Namespace::new()?);
        server.ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", clients.name()])?;
        server.ip(&["addr", "add", &format!("{SERVER}/16"), "dev", "v0"])?;
        server.ip(&["link", "set", "v0", "up"])?;
        clients.ip(&["addr", "add", "10.77.0.2/16", "dev", "v1"])?;
        clients.ip(&["link", "set", "v1", "up"])?;
        // Every address of the upper half is the clients': sockets bind to them, and ARP is answered.
        clients.ip(&["route", "add", "local", "10.77.64.0/18", "dev", "v1"])?;
        // The table of neighbours holds 1,024 by itself.
        let more = "for n in 1 2 3; do echo 16384 > /proc/sys/net/ipv4/neigh/default/gc_thresh$n; done";
        tool::quiet(&mut in_namespace(&server, "sh", &["-c", more]))
            .or_else(|_| tool::quiet(&mut tool::command("sh", &["-c", more])))
            .context("enlarging the kernel's table of neighbours")?;
        Ok(Self { clients: clients.clone_handle()?, server, _clients: clients, dir, large, small })
    }

    fn measure(&self, peer: Peer, args: &Args, measured: &mut Measured) -> Result<()> {
        let mut running = self.start(peer)?;
        for (n, window) in WINDOWS.into_iter().enumerate() {
            let wishes = Wishes { windowsize: (window > 1).then_some(window), ..wishes() };
            let (outcome, cpu) = self.load(&mut running, wishes, 1, 0.0, 0)?;
            ensure!(outcome.failures() == 0, "the single client failed: {:?}", outcome.failed);
            if window > 1 && !outcome.has_windows {
                break;
            }
            let rate = outcome.megabytes_per_second();
            println!("{}: 1 client, window {window}: {rate:.0} MB/s, {cpu:.2} CPU s/GiB", peer.name());
            measured.windows[n].push((rate, cpu));
        }
        let (outcome, cpu) = self.load(&mut running, wishes(), args.clients, 0.0, 0)?;
        let many = Many {
            rate: outcome.megabytes_per_second(),
            failed: outcome.failures(),
            seconds: outcome.elapsed.as_secs_f64(),
            cpu,
            memory: running.memory()?,
        };
        println!("{}: {} clients: {many:.2?} {:?}", peer.name(), args.clients, outcome.failed);
        measured.many.push(many);
        let Some(seed) = args.loss.filter(|_| measured.lossy.is_empty()) else { return Ok(()) };
        for loss in [0.01, 0.05] {
            let (outcome, _) = self.load(&mut running, wishes(), 20, loss, seed)?;
            let seconds = outcome.elapsed.as_secs_f64();
            println!("{}: 20 clients, loss {loss}: {seconds:.1} s, {:?}", peer.name(), outcome.failed);
            measured.lossy.push((loss, seconds, outcome.failures()));
        }
        Ok(())
    }

    /// Runs clients; returns also the server's CPU seconds for each GiB that it sent.
    fn load(
        &self,
        running: &mut Running,
        wishes: Wishes,
        clients: u32,
        loss: f64,
        seed: u64,
    ) -> Result<(Outcome, f64)> {
        let (name, content) = if clients == 1 { (LARGE.0, &self.large) } else { (SMALL.0, &self.small) };
        let plan = Plan {
            server: SocketAddr::from((SERVER, 69)),
            file: (name.to_owned(), content.clone()),
            wishes,
            clients,
            first: IpAddr::V4(FIRST_CLIENT),
            threads: if clients == 1 { 1 } else { 2 },
            loss,
            seed,
        };
        let before = running.cpu()?;
        let outcome = load::run(&plan, &self.clients)?;
        let cpu = (running.cpu()? - before).as_secs_f64();
        let gib = outcome.octets as f64 / (MIB * 1024.0);
        Ok((outcome, cpu / gib))
    }

    fn start(&self, peer: Peer) -> Result<Running> {
        let files = self.dir.join("state/loaders");
        let files = tool::text(&files)?;
        let address = SERVER.to_string();
        let command = match peer {
            Peer::Billet => return self.start_billet(),
            Peer::Dnsmasq => in_namespace(
                &self.server,
                "dnsmasq",
                // It serves 50 clients unless told otherwise.
                &[
                    "--no-daemon",
                    "--conf-file=/dev/null",
                    "--port=0",
                    "--enable-tftp",
                    "--interface=v0",
                    "--bind-interfaces",
                    "--user=root",
                    "--tftp-max=9000",
                    &format!("--tftp-root={files}"),
                ],
            ),
            Peer::TftpdHpa => in_namespace(
                &self.server,
                "in.tftpd",
                &["--foreground", "--address", &format!("{address}:69"), "--user", "root", "--secure", files],
            ),
            Peer::Atftpd => in_namespace(
                &self.server,
                tool::text(&atftpd()?)?,
                &[
                    "--daemon",
                    "--no-fork",
                    "--bind-address",
                    &address,
                    "--maxthread",
                    "9000",
                    "--user",
                    "root",
                    "--group",
                    "root",
                    files,
                ],
            ),
        };
        let process = Process::start(peer.name(), command, &self.dir.join(format!("{}.log", peer.name())))?;
        let end = Instant::now() + START;
        while !self.listens()? {
            ensure!(Instant::now() < end, "{} does not listen", peer.name());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Running { process: Some(process), billet: None, namespace: self.server.name().to_owned() })
    }

    fn start_billet(&self) -> Result<Running> {
        let config = Server::default_config(&self.dir, &self.dir)
            .replace("\"br0\"", "\"v0\"")
            .replace("info,boot_server=debug", "warn")
            + "\n[dhcp]\nenabled = false\n";
        let billet = Server::start_with(&self.server, &self.dir, &config)?;
        Ok(Running { process: None, billet: Some(billet), namespace: self.server.name().to_owned() })
    }

    /// True once somebody has port 69 (0x45) in the servers' namespace.
    fn listens(&self) -> Result<bool> {
        let table = tool::output(&mut in_namespace(&self.server, "cat", &["/proc/net/udp"]))?;
        Ok(table.lines().any(|l| l.split_whitespace().nth(1).is_some_and(|a| a.ends_with(":0045"))))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A running server; ended when dropped.
struct Running {
    process: Option<Process>,
    billet: Option<Server>,
    namespace: String,
}

impl Running {
    fn pid(&mut self) -> Result<u32> {
        match (&self.process, &mut self.billet) {
            (Some(process), _) => Ok(process.pid()),
            (None, Some(billet)) => Ok(billet.process()?.pid()),
            (None, None) => anyhow::bail!("no server runs"),
        }
    }

    /// CPU time of the server and of the children that it waited for (tftpd-hpa has one for each client).
    fn cpu(&mut self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        let rest = stat.rsplit_once(") ").context("/proc/PID/stat without a name")?.1;
        let ticks: u64 = rest.split(' ').skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Peak of the resident memory, and the kernel's memory for the namespace's UDP sockets now, in MiB.
    fn memory(&mut self) -> Result<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let peak = number_after(&status, "VmHWM:").unwrap_or(0.0) / 1024.0;
        let sockets = tool::output(&mut tool::command(
            "ip",
            &["netns", "exec", &self.namespace, "cat", "/proc/net/sockstat"],
        ))?;
        let udp = sockets.lines().find(|l| l.starts_with("UDP:")).unwrap_or_default();
        Ok((peak, number_after(udp, "mem").unwrap_or(0.0) * 4096.0 / MIB))
    }
}

fn number_after(text: &str, key: &str) -> Option<f64> {
    text.split_once(key)?.1.split_whitespace().next()?.parse().ok()
}

fn wishes() -> Wishes {
    Wishes { blksize: Some(BLKSIZE), windowsize: None, tsize: true }
}

fn in_namespace(namespace: &Namespace, program: &str, args: &[&str]) -> Command {
    let mut command = tool::command("ip", &["netns", "exec", namespace.name(), program]);
    command.args(args);
    command
}

/// The program out of its package, which is kept below `artifacts/`.
fn atftpd() -> Result<PathBuf> {
    let dir = paths::artifacts().join("peers/atftpd");
    let program = dir.join("usr/sbin/atftpd");
    if !program.exists() {
        let apt = Apt::Host;
        let (package, _) = apt.find("atftpd", None)?;
        apt.unpack(&package, Path::new(&dir))?;
    }
    Ok(program)
}

fn report(args: &Args, table: &[(Peer, Measured)]) {
    for (n, window) in WINDOWS.into_iter().enumerate() {
        print!("tftp_mb_per_s clients 1 window {window}");
        for (peer, measured) in table {
            let rates: Vec<_> = measured.windows[n].iter().map(|(rate, _)| *rate).collect();
            let cpu = median(measured.windows[n].iter().map(|(_, cpu)| *cpu).collect());
            match rates.len() {
                0 => print!(" {} -", peer.name()),
                _ => print!(" {} {:.0} ({cpu:.2} CPU s/GiB)", peer.name(), median(rates)),
            }
        }
        println!();
    }
    let column = |what: &str, digits: usize, of: &dyn Fn(&Many) -> f64| {
        print!("{what} clients {}", args.clients);
        for (peer, measured) in table {
            print!(" {} {:.digits$}", peer.name(), median(measured.many.iter().map(of).collect()));
        }
        println!();
    };
    column("tftp_mb_per_s", 0, &|m| m.rate);
    column("tftp_seconds", 1, &|m| m.seconds);
    column("tftp_failed", 0, &|m| f64::from(m.failed));
    column("tftp_cpu_s_per_gib", 2, &|m| m.cpu);
    column("tftp_peak_mib", 0, &|m| m.memory.0);
    for (n, loss) in [1, 5].into_iter().enumerate() {
        let lossy = table.iter().filter_map(|(peer, m)| Some((peer, m.lossy.get(n)?)));
        let words: Vec<_> =
            lossy.map(|(peer, (_, s, failed))| format!("{} {s:.1} failed {failed}", peer.name())).collect();
        if !words.is_empty() {
            println!("tftp_seconds clients 20 loss {loss} {}", words.join(" "));
        }
    }
    println!("windows (RFC 7440): {}", spoken(table));
}

fn spoken(table: &[(Peer, Measured)]) -> String {
    let words = table.iter().map(|(peer, measured)| {
        let has = measured.windows[1..].iter().any(|w| !w.is_empty());
        format!("{} {}", peer.name(), if has { "yes" } else { "no" })
    });
    words.collect::<Vec<_>>().join(", ")
}
