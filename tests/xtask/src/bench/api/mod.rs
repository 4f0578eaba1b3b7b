//! `cargo xtask bench api`: the control plane, beside OpenStack Ironic standalone with fake hardware, in one run. Both answer
//! the same client over loopback; neither has anything to do with real machines.
//!
//! Ours is asked with 10,000 nodes in it, Ironic with 1,000: it would take a quarter of an hour to enrol more. What is
//! compared is the same work: enrolling durably, a list of 1,000 nodes, one node, memory.

mod client;
mod ironic;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ::tests::rack::{Namespace, SERVER_ADDRESS, Server, within};
use anyhow::{Context, Result, bail, ensure};
use tests_postgres::Postgres;

use super::median;
use crate::{build, paths};
use client::{Ask, Connection, rate};
use ironic::Ironic;

/// Nodes that Ironic is asked with.
const IRONIC_NODES: usize = 1000;
/// Lists that are asked for before any is timed.
const WARM: u32 = 3;
/// Nodes of one list.
const LIST: usize = 1000;
/// For how long rates are measured.
const MEASURED: Duration = Duration::from_secs(5);

/// Arguments of `cargo xtask bench api`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many nodes Billet is asked with.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=20_000))]
    nodes: u32,
    /// How many lists are asked for.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    lists: u32,
    /// Without Ironic.
    #[arg(long)]
    alone: bool,
    /// Where Billet keeps its data.
    #[arg(long, value_enum, default_value = "sqlite")]
    store: Database,
    /// Connections that ask Billet at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Database {
    /// A file on the disk of the target directory.
    Sqlite,
    /// A PostgreSQL that is started for it on the same disk.
    Postgres,
}

/// What one of them did.
#[derive(Debug, Default)]
struct Figures {
    /// MiB after the start.
    rest_mib: f64,
    /// MiB with all nodes.
    full_mib: f64,
    enrol_per_s: f64,
    get_per_s: f64,
    list_ms: Times,
    detail_ms: Times,
    /// Milliseconds of processor time of the server for each: what a busy machine does not change.
    spent: Spent,
}

/// Processor time for one request, in milliseconds.
#[derive(Debug, Default)]
struct Spent {
    enrol: f64,
    list: f64,
    detail: f64,
    get: f64,
}

/// Medians and the slowest of a hundred.
#[derive(Debug, Default, Clone, Copy)]
struct Times {
    p50: f64,
    p99: f64,
}

impl Times {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let p99 = all.get((all.len() * 99 / 100).min(all.len().saturating_sub(1))).copied();
        Self { p50: median(all), p99: p99.unwrap_or(f64::NAN) }
    }
}

/// Runs the benchmark, of the server that `BILLET_BIN` names, or of one that it builds.
pub fn run(args: &Args) -> Result<()> {
    // First what may not be there, before anything takes minutes.
    let environment = if args.alone { None } else { Some(ironic::environment()?) };
    if std::env::var_os("BILLET_BIN").is_none() {
        build::ui()?;
        build::server()?;
    }
    let dir = paths::target().join("bench-api");
    let _ = fs::remove_dir_all(&dir);
    let ours = billet(&dir, args)?;
    let Some(environment) = environment else { return Ok(()) };
    let theirs = Ironic::start(&environment, &dir.join("ironic"))?.measure()?;
    println!("Ironic 39, {IRONIC_NODES} nodes");
    print(&theirs);
    println!("ratios, Billet to Ironic");
    println!(
        "enrol_ratio {:.1} get_ratio {:.1}",
        ours.enrol_per_s / theirs.enrol_per_s,
        ours.get_per_s / theirs.get_per_s
    );
    println!(
        "list_ratio {:.1} detail_ratio {:.1}",
        theirs.list_ms.p50 / ours.list_ms.p50,
        theirs.detail_ms.p50 / ours.detail_ms.p50
    );
    println!(
        "memory_at_rest_ratio {:.3} memory_ratio {:.3}",
        ours.rest_mib / theirs.rest_mib,
        ours.full_mib / theirs.full_mib
    );
    Ok(())
}

fn print(figures: &Figures) {
    println!("enrol_per_s {:.1} get_per_s {:.1}", figures.enrol_per_s, figures.get_per_s);
    println!(
        "list_p50_ms {:.2} list_p99_ms {:.2} detail_p50_ms {:.2} detail_p99_ms {:.2}",
        figures.list_ms.p50, figures.list_ms.p99, figures.detail_ms.p50, figures.detail_ms.p99
    );
    let Spent { enrol, list, detail, get } = figures.spent;
    println!("enrol_cpu_ms {enrol:.3} list_cpu_ms {list:.2} detail_cpu_ms {detail:.2} get_cpu_ms {get:.3}");
    println!("rss_at_rest_mib {:.1} rss_full_mib {:.1}", figures.rest_mib, figures.full_mib);
}

/// Ours, in a namespace of its own, asked from inside of it.
fn billet(dir: &Path, args: &Args) -> Result<Figures> {
    let boot = dir.join("boot");
    fs::create_dir_all(&boot)?;
    for file in ["vmlinuz", "initramfs"] {
        fs::write(boot.join(file), "nobody boots it")?;
    }
    let namespace = Namespace::new()?;
    namespace.bridge("br0", &format!("{SERVER_ADDRESS}/24"))?;
    let config = Server::default_config(dir, &boot).replace("info,boot_server=debug", "warn");
    let database = match args.store {
        Database::Sqlite => None,
        Database::Postgres => {
            Some(Postgres::start_below(&std::env::temp_dir(), &[])?.context("PostgreSQL is not installed")?)
        }
    };
    let mut server = Server::start_on(&namespace, dir, &config, database)?;
    let (token, pid) = (server.token()?, server.process()?.pid());
    let at = SocketAddr::from(([127, 0, 0, 1], ::tests::rack::OPERATORS_PORT));
    let handle = namespace.clone_handle()?;
    within(&handle, || {
        let header = format!("Authorization: Bearer {token}\r\n");
        let (nodes, connections) = (args.nodes as usize, usize::from(args.connections));
        let mut figures = Figures { rest_mib: memory(&[pid])?, ..Figures::default() };
        let enrol = |n: usize| {
            let body = format!(
                r#"{{"name":"n{n:05}","macs":["52:54:{:02x}:{:02x}:{:02x}:01"],"serial":"SN-{n:05}"}}"#,
                n >> 16 & 255,
                n >> 8 & 255,
                n & 255
            );
            Ask::post("/api/v1/nodes", &header, &body)
        };
        let mut clock = Clock::new(vec![pid])?;
        figures.enrol_per_s = rate(at, connections, nodes, enrol, 201)?;
        figures.spent.enrol = clock.per(nodes as f64)?;
        let list = format!("/api/v1/nodes?limit={LIST}&fields=id,name,state,maintenance,power");
        let detail = format!("/api/v1/nodes?limit={LIST}");
        figures.list_ms = times(at, &Ask::get(&list, &header), args.lists)?;
        figures.spent.list = clock.per(f64::from(args.lists + WARM))?;
        figures.detail_ms = times(at, &Ask::get(&detail, &header), args.lists)?;
        figures.spent.detail = clock.per(f64::from(args.lists + WARM))?;
        let one = |n: usize| Ask::get(&format!("/api/v1/nodes/n{:05}", n * 7919 % nodes), &header);
        let begin = Instant::now();
        figures.get_per_s = for_a_while(at, connections, one)?;
        figures.spent.get = clock.per(figures.get_per_s * begin.elapsed().as_secs_f64())?;
        let events = events_per_s((at, connections), &header, nodes)?;
        figures.full_mib = memory(&[pid])?;
        println!("Billet, {nodes} nodes, {connections} connections, {:?}", args.store);
        print(&figures);
        println!(
            "list_p99_ms {:.2} events_per_s {events:.0} rss_mib {:.1}",
            figures.list_ms.p99, figures.full_mib
        );
        Ok(figures)
    })
}

/// How long each of so many takes, in milliseconds, one after the other; the first few warm up.
fn times(at: SocketAddr, ask: &Ask, count: u32) -> Result<Times> {
    let mut connection = Connection::open(at)?;
    for _ in 0..WARM {
        connection.ask(ask, 200)?;
    }
    let mut all = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        connection.ask(ask, 200)?;
        all.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Times::of(all))
}

/// Answers per second over many connections.
fn for_a_while(at: SocketAddr, connections: usize, ask: impl Fn(usize) -> Ask + Sync) -> Result<f64> {
    let begin = Instant::now();
    let counts: Vec<Result<usize>> = std::thread::scope(|scope| {
        let each = (0..connections).map(|first| {
            let ask = &ask;
            scope.spawn(move || {
                let mut connection = Connection::open(at)?;
                let mut count = 0;
                while begin.elapsed() < MEASURED {
                    connection.ask(&ask(first + count * connections), 200)?;
                    count += 1;
                }
                Ok(count)
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked"))).collect()
    });
    let all = counts.into_iter().sum::<Result<usize>>()?;
    Ok(all as f64 / begin.elapsed().as_secs_f64())
}

/// Events per second from a change to whoever follows the stream: each change is durable before it is told.
fn events_per_s((at, connections): (SocketAddr, usize), header: &str, nodes: usize) -> Result<f64> {
    let mut stream = Connection::open(at)?;
    stream.begin(&Ask::get("/api/v1/events/stream", header))?;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let told = scope.spawn(move || stream.count_events(b"event: event", begin + MEASURED));
        let change = |n: usize| {
            let body =
                if (n / nodes).is_multiple_of(2) { r#"{"reason":"measured"}"# } else { r#"{"reason":null}"# };
            Ask::post(&format!("/api/v1/nodes/n{:05}/maintenance", n % nodes), header, body)
        };
        for_a_while(at, connections, change)?;
        let told = told.join().map_err(|_| anyhow::anyhow!("the stream's reader panicked"))??;
        ensure!(told > 0, "no event was told");
        Ok(told as f64 / MEASURED.as_secs_f64())
    })
}

/// Processor time of processes, from one look to the next.
struct Clock {
    pids: Vec<u32>,
    before: f64,
}

impl Clock {
    fn new(pids: Vec<u32>) -> Result<Self> {
        let before = spent(&pids)?;
        Ok(Self { pids, before })
    }

    /// Milliseconds since the look before, for each of `count`.
    fn per(&mut self, count: f64) -> Result<f64> {
        let now = spent(&self.pids)?;
        Ok((now - std::mem::replace(&mut self.before, now)) / count)
    }
}

/// Milliseconds that processes spent on processors, for themselves and in the kernel (proc(5), `utime` and `stime`).
fn spent(pids: &[u32]) -> Result<f64> {
    // The kernel shows them in hundredths of a second whatever it counts in (`USER_HZ`).
    const TICK_MS: f64 = 10.0;
    let mut ticks = 0.0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        // The name, which may hold anything, ends with the last parenthesis; `utime` is the 12th field behind it.
        let (_, rest) = text.rsplit_once(')').context("no name")?;
        let fields = rest.split_whitespace().skip(11).take(2);
        ticks += fields.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    }
    Ok(ticks * TICK_MS)
}

/// Memory of processes in MiB: their own pages, and their share of those that they have together.
fn memory(pids: &[u32]) -> Result<f64> {
    let mut kib = 0.0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|rest| rest.split_whitespace().next()).context("no Pss line")?;
        kib += number.parse::<f64>()?;
    }
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_a_hundred() {
        let times = Times::of((1..=200).map(f64::from).collect());
        assert_eq!((times.p50, times.p99), (100.5, 199.0));
        assert!(Times::of(Vec::new()).p99.is_nan());
    }
}
