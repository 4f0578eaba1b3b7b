//! Five hundred controllers, of which some hang: how long the others take, through the server's workers. `cargo xtask
//! bench bmc` runs it. All controllers are the suite's stand-ins, in this process and on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bmc::{Credentials, DriverKind, Identity, Secret};
use boot_server::power::{NEWS_MAX, Options, Power, Read, Target, Timing, drivers};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use protocol::{MacAddr, NodeId};
use tests::bmc::MemoryMachine;
use tests::bmc::redfish::{Fault, PASSWORD, Profile, RedfishBmc, USER};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Between two looks at one machine, while latency is measured.
const EACH: Duration = Duration::from_secs(2);

/// What is measured.
struct Wish {
    controllers: usize,
    hung_percent: usize,
    seconds: u64,
    /// How long each controller thinks about each request: real ones 50 ms to 300 ms.
    delay: Duration,
    tls: bool,
}

/// A controller that hangs: it never takes a connection, or never answers.
enum Hung {
    Deaf(TcpListener),
    Mute(RedfishBmc),
}

impl Hung {
    fn address(&self) -> Result<SocketAddr> {
        match self {
            Self::Deaf(listener) => Ok(listener.local_addr()?),
            Self::Mute(bmc) => Ok(bmc.address()),
        }
    }
}

fn main() -> Result<()> {
    let wish = wish()?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&wish))
}

fn wish() -> Result<Wish> {
    let mut wish = Wish {
        controllers: 500,
        hung_percent: 30,
        seconds: 30,
        delay: Duration::from_millis(100),
        tls: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number =
            || words.next().context("a number is missing")?.parse::<usize>().context("no number");
        match word.as_str() {
            "--controllers" => wish.controllers = number()?,
            "--hung" => wish.hung_percent = number()?.min(99),
            "--seconds" => wish.seconds = number()? as u64,
            "--delay-ms" => wish.delay = Duration::from_millis(number()? as u64),
            "--tls" => wish.tls = true,
            other => bail!("{other}: known are --controllers, --hung, --seconds, --delay-ms, --tls"),
        }
    }
    Ok(wish)
}

async fn run(wish: &Wish) -> Result<()> {
    let (news, mut told) = mpsc::channel(NEWS_MAX);
    let power = Power::new(drivers(None), Timing::default(), news);
    let listening = tokio::spawn(async move { while told.recv().await.is_some() {} });
    let hung_count = wish.controllers * wish.hung_percent / 100;
    let (healthy, _bmcs) = start(wish, &power, wish.controllers - hung_count).await?;
    let (hung, _deaf) = start_hung(wish, &power, hung_count).await?;
    // Somebody asks the hung ones all the time, as a page that shows them does.
    let mut asking = JoinSet::new();
    for node in hung {
        let power = power.clone();
        asking.spawn(async move {
            loop {
                let _ = power.read(node, Read::Power).await;
                tokio::time::sleep(EACH).await;
            }
        });
    }
    let took = inventory(&power, &healthy).await?;
    println!("inventory of {} healthy controllers: {:.1} s", healthy.len(), took.as_secs_f64());
    let mut latencies = latencies(&power, &healthy, Duration::from_secs(wish.seconds)).await?;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_millis();
    println!("{} reads of the power state: p50 {} ms, max {} ms", latencies.len(), at(0.5), at(1.0));
    println!("bmc_p99_ms {} inventory_500_s {:.1}", at(0.99), took.as_secs_f64());
    asking.shutdown().await;
    listening.abort();
    Ok(())
}

async fn start(wish: &Wish, power: &Power, count: usize) -> Result<(Vec<NodeId>, Vec<RedfishBmc>)> {
    let profiles: Vec<Profile> = Profile::all()?.into_iter().filter(|p| !p.password_change).collect();
    let (mut nodes, mut bmcs) = (Vec::new(), Vec::new());
    for n in 0..count {
        let machine = MemoryMachine::new(identity(n));
        let profile = profiles[n % profiles.len()].clone();
        let bmc = RedfishBmc::start(profile, Arc::new(machine), ANY, wish.tls).await?;
        bmc.delay(wish.delay);
        nodes.push(set(power, &bmc.url())?);
        bmcs.push(bmc);
    }
    Ok((nodes, bmcs))
}

async fn start_hung(wish: &Wish, power: &Power, count: usize) -> Result<(Vec<NodeId>, Vec<Hung>)> {
    let (mut nodes, mut all) = (Vec::new(), Vec::new());
    for n in 0..count {
        let hung = match n % 2 {
            0 => Hung::Deaf(TcpListener::bind(ANY).await?),
            _ => {
                let machine = MemoryMachine::new(identity(n));
                let bmc =
                    RedfishBmc::start(Profile::named("standard")?, Arc::new(machine), ANY, wish.tls).await?;
                bmc.fault(Fault::Hang);
                Hung::Mute(bmc)
            }
        };
        let scheme = if wish.tls { "https" } else { "http" };
        nodes.push(set(power, &format!("{scheme}://{}", hung.address()?))?);
        all.push(hung);
    }
    Ok((nodes, all))
}

fn identity(n: usize) -> Identity {
    let [.., a, b] = (n as u32).to_be_bytes();
    let macs = vec![MacAddr([0x52, 0x54, 0, 0x99, a, b])];
    Identity { serial: Some(format!("S{n}")), macs, ..Identity::default() }
}

fn set(power: &Power, url: &str) -> Result<NodeId> {
    let node = NodeId(uuid::Uuid::now_v7());
    power.set(Target {
        credentials: Some(Credentials { user: USER.into(), password: Secret(PASSWORD.into()) }),
        options: Options { plain_http: true, ..Options::default() },
        ..Target::new(node, DriverKind::Redfish, url)
    })?;
    Ok(node)
}

/// All of each machine, of all at once.
async fn inventory(power: &Power, nodes: &[NodeId]) -> Result<Duration> {
    let begin = Instant::now();
    let mut reading = JoinSet::new();
    for node in nodes.iter().copied() {
        let power = power.clone();
        reading.spawn(async move {
            for read in [Read::Identity, Read::Components, Read::Readings, Read::Firmware, Read::Boot] {
                power
                    .read(node, read.clone())
                    .await
                    .with_context(|| format!("{read:?} of a healthy controller"))?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(result) = reading.join_next().await {
        result??;
    }
    Ok(begin.elapsed())
}

/// Each machine is looked at every two seconds, spread over them.
async fn latencies(power: &Power, nodes: &[NodeId], whole: Duration) -> Result<Vec<Duration>> {
    let end = Instant::now() + whole;
    let mut looking = JoinSet::new();
    for (n, node) in nodes.iter().copied().enumerate() {
        let power = power.clone();
        let offset = EACH.mul_f64(n as f64 / nodes.len() as f64);
        looking.spawn(async move {
            tokio::time::sleep(offset).await;
            let mut took = Vec::new();
            while Instant::now() < end {
                let begin = Instant::now();
                power.power_state(node).await.context("the power of a healthy controller")?;
                took.push(begin.elapsed());
                tokio::time::sleep(EACH.saturating_sub(begin.elapsed())).await;
            }
            Ok::<_, anyhow::Error>(took)
        });
    }
    let mut all = Vec::new();
    while let Some(result) = looking.join_next().await {
        all.extend(result??);
    }
    ensure!(!all.is_empty(), "nothing was measured");
    Ok(all)
}
