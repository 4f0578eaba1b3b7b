//! The agent's life after the network is up: hello, inventory, then one job after the other until the server says to
//! leave. Every failure of the network is waited out; only an unknown session ends the loop.
//!
//! ```text
//!  hello ─▶ set clock ─▶ inventory ─▶ ┌ work? ─ Wait ──────────┐
//!                                     └◀─ job ─▶ run + report ─┘   Reboot, PowerOff, session unknown ─▶ Leave
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use failpoint::Point;
use protocol::agent::{Hello, Introduction, Work};
use protocol::fault::Fault;
use protocol::inventory::Inventory;
use protocol::job::{Job, Task};
use protocol::report::{Stage, Summary};
use protocol::{JobId, PROTOCOL_VERSION};
use protocol_http::{Backoff, HttpError};

use crate::client::Client;
use crate::feed::Feed;
use crate::fetch::random;
use crate::init::panic::Current;
use crate::inspect::lldp::{self, Neighbours};
use crate::inspect::{self, tree::Tree};
use crate::trust::Trust;
use crate::{bmc_account, cli, deploy, erase, sys, tpm};

/// Hellos that the server refused, before the machine boots again for a new nonce. More than one, because the answer
/// to the first may have been lost, and a server that restores its store may refuse for a moment.
const REFUSED_MAX: u32 = 3;
/// How long a lost session is shown on the console before the machine boots again.
const LOST_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the acknowledgement of the last report after the work is done, between tries of the server.
const DRAIN_LOOK: Duration = Duration::from_millis(500);

/// What the loop needs to know.
pub struct Settings {
    /// Base URL of the provisioning listener.
    pub server: String,
    /// One-time nonce.
    pub nonce: String,
    /// True in the ramdisk, where the agent owns the clock and the machine.
    pub owns_machine: bool,
    /// Device nodes.
    pub dev: PathBuf,
    /// Whose images are written.
    pub trust: Trust,
    /// What the switches say.
    pub neighbours: Arc<Neighbours>,
    /// What the panic hook has to know.
    pub current: Arc<Current>,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Boot again.
    Reboot,
    /// Switch off.
    PowerOff,
    /// The server does not know this session: boot again to get a new one.
    Lost,
}

/// Runs until it is time to leave. `collect` gives the inventory; it may wait for late devices.
pub fn run(settings: &Settings, collect: &(dyn Fn() -> Inventory + Sync)) -> Leave {
    let client = Client::new(&settings.server);
    let Some(session) = greet(settings, &client) else { return lost() };
    settings.current.set_session(&settings.server, &session);
    // Before the inventory is taken: whoever is heard from here on may not be in it.
    let heard = settings.neighbours.count();
    match put_inventory(&client, &session, collect) {
        Ok(inventory) if inventory.bmc.is_some() => bmc_account::offer(&client, &session),
        Ok(_) => {}
        Err(_) => return lost(),
    }
    tpm::prove(&client, &session, Path::new("/"));
    let again = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| neighbours_later(settings, &session, collect, heard, &again));
        let leave = work(settings, &client, &session, collect);
        again.store(true, Ordering::Relaxed);
        leave
    })
}

fn lost() -> Leave {
    eprintln!("billet: the server does not know this session; booting again in {} s", LOST_WAIT.as_secs());
    std::thread::sleep(LOST_WAIT);
    Leave::Lost
}

fn greet(settings: &Settings, client: &Client) -> Option<String> {
    let mut hello = hello(&settings.nonce);
    let (mut backoff, mut refused) = (Backoff::default(), 0);
    loop {
        match client.hello(&hello) {
            Ok(welcome) => {
                eprintln!(
                    "billet: this is {} ({}), served by {}",
                    welcome.name, welcome.node, settings.server
                );
                if settings.owns_machine
                    && let Err(e) = sys::set_clock(Duration::from_millis(welcome.now.0))
                {
                    eprintln!("billet: the clock stays as it is: {e}");
                }
                return Some(welcome.session);
            }
            Err(e) => {
                eprintln!("billet: hello: {e}");
                refused += u32::from(e.is_unknown_session());
                if refused >= REFUSED_MAX {
                    return None;
                }
            }
        }
        std::thread::sleep(backoff.wait(random()));
        hello.uptime_ms = uptime_ms();
    }
}

/// Asks the server for a nonce, where the boot loader could not pass one on; `None` where this machine is to boot its disk.
pub fn introduce(server: &str) -> Option<String> {
    let client = Client::new(server);
    let mut hello = hello("");
    let mut backoff = Backoff::default();
    loop {
        match client.introduction(&hello) {
            Ok(Introduction::Nonce { nonce }) => return Some(nonce),
            Ok(Introduction::Disk) => return None,
            Ok(Introduction::Refused { why }) => eprintln!("billet: the server refuses this machine: {why}"),
            Err(e) => eprintln!("billet: introduction: {e}"),
        }
        std::thread::sleep(backoff.wait(random()));
        hello.uptime_ms = uptime_ms();
    }
}

fn hello(nonce: &str) -> Hello {
    let tree = Tree::new(Path::new("/"));
    let system = inspect::machine::smbios(&tree, &mut Vec::new()).system;
    Hello {
        protocol: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: tree.text("proc/sys/kernel/osrelease").unwrap_or_default(),
        nonce: nonce.to_owned(),
        uuid: system.uuid,
        serial: system.serial,
        macs: inspect::nics::macs(&tree),
        uptime_ms: uptime_ms(),
    }
}

fn uptime_ms() -> u64 {
    let text = Tree::new(Path::new("/")).text("proc/uptime").unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
    (seconds * 1000.0) as u64
}

/// Sends the inventory, waiting out what can be waited out.
fn put_inventory(
    client: &Client,
    session: &str,
    collect: &dyn Fn() -> Inventory,
) -> Result<Inventory, Leave> {
    let inventory = collect();
    let mut backoff = Backoff::default();
    loop {
        match client.inventory(session, &inventory) {
            Ok(()) => {
                let (disks, nics) = (inventory.disks.len(), inventory.nics.len());
                eprintln!("billet: inventory sent: {disks} disks, {nics} network ports");
                return Ok(inventory);
            }
            Err(e) if e.is_unknown_session() => return Err(Leave::Lost),
            Err(e) => eprintln!("billet: inventory: {e}"),
        }
        std::thread::sleep(backoff.wait(random()));
    }
}

/// Sends the inventory once more where a neighbour introduced itself who may not be in it, beside the `heard` of before it was
/// taken: switches speak LLDP every 30 s (IEEE 802.1AB-2016, 9.2.5.5), which is too long to wait for.
fn neighbours_later(
    settings: &Settings,
    session: &str,
    collect: &(dyn Fn() -> Inventory + Sync),
    mut heard: usize,
    ended: &AtomicBool,
) {
    let client = Client::new(&settings.server);
    for _ in 0..lldp::LISTEN.as_secs() {
        std::thread::sleep(Duration::from_secs(1));
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let now = settings.neighbours.count();
        if now > heard {
            heard = now;
            if let Err(e) = client.inventory(session, &collect()) {
                eprintln!("billet: inventory with neighbours: {e}");
            }
        }
    }
}

fn work(
    settings: &Settings,
    client: &Client,
    session: &str,
    collect: &(dyn Fn() -> Inventory + Sync),
) -> Leave {
    let mut backoff = Backoff::default();
    let mut done: Option<JobId> = None;
    eprintln!("billet: waiting for work");
    loop {
        match client.work(session) {
            Ok(Work::Wait) => backoff.reset(),
            Ok(Work::Reboot) => return Leave::Reboot,
            Ok(Work::PowerOff) => return Leave::PowerOff,
            Ok(Work::Job { job }) if done == Some(job.id) => {
                // Its result was acknowledged; the server needs a moment to think.
                std::thread::sleep(backoff.wait(random()));
            }
            Ok(Work::Job { job }) => {
                backoff.reset();
                match run_job(settings, client, session, &job, collect) {
                    Ok(()) => done = Some(job.id),
                    Err(leave) => return leave,
                }
            }
            Err(e) if e.is_unknown_session() => return lost(),
            Err(e) => {
                eprintln!("billet: asking for work: {e}");
                std::thread::sleep(backoff.wait(random()));
            }
        }
    }
}

/// Runs one job and returns when the server has its result.
fn run_job(
    settings: &Settings,
    client: &Client,
    session: &str,
    job: &Job,
    collect: &(dyn Fn() -> Inventory + Sync),
) -> Result<(), Leave> {
    eprintln!("billet: job {}: {}", job.id, job.task.verb());
    let feed = Arc::new(Feed::new(job.id));
    settings.current.set_job(Some(feed.clone()));
    let (done, session_lost) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| deliver(settings, session, &feed, &done, &session_lost));
        let result = cli::watch(&feed, || perform(settings, client, session, job, collect, &feed));
        match result {
            Ok(summary) => feed.finished(summary),
            Err(fault) => feed.failed(fault),
        }
        done.store(true, Ordering::Relaxed);
    });
    settings.current.set_job(None);
    if session_lost.load(Ordering::Relaxed) { Err(lost()) } else { Ok(()) }
}

fn perform(
    settings: &Settings,
    client: &Client,
    session: &str,
    job: &Job,
    collect: &(dyn Fn() -> Inventory + Sync),
    feed: &Feed,
) -> Result<Summary, Fault> {
    match &job.task {
        Task::Inspect => {
            feed.stage(Stage::Inspect, 0, 0);
            // Where the session is lost, the reports find out too.
            let _ = put_inventory(client, session, collect);
            Ok(Summary::default())
        }
        Task::Clean { disks, erase: None } => deploy::clean(disks, &local_disks(), &settings.dev, feed),
        Task::Clean { disks, erase: Some(order) } => {
            erase::erase(disks, order, &local_disks(), &settings.dev, feed)
        }
        Task::Deploy(spec) => {
            let Settings { dev, server, trust, .. } = settings;
            deploy::deploy(spec, &local_disks(), dev, server, trust, feed)
        }
    }
}

fn local_disks() -> Vec<protocol::inventory::Disk> {
    inspect::disks::disks(&Tree::new(Path::new("/")), &mut Vec::new())
}

/// Delivers the job's reports until it is done and the server has them all.
fn deliver(settings: &Settings, session: &str, feed: &Feed, done: &AtomicBool, lost: &AtomicBool) {
    let client = Client::new(&settings.server);
    let mut backoff = Backoff::default();
    while !(done.load(Ordering::Relaxed) && feed.is_drained()) {
        let Some(batch) = feed.wait_batch(DRAIN_LOOK) else { continue };
        failpoint::pass(Point::AgentReport);
        match client.report(session, &batch) {
            Ok(reply) => {
                backoff.reset();
                feed.acked(reply.acked);
                if reply.abort {
                    feed.abort();
                }
                // A server that acknowledges nothing must not be asked in a tight loop.
                if batch.reports.first().is_some_and(|r| r.seq > reply.acked) {
                    std::thread::sleep(backoff.wait(random()));
                }
            }
            Err(e) => {
                if give_up(&e) {
                    lost.store(true, Ordering::Relaxed);
                    feed.abort();
                    return;
                }
                eprintln!("billet: reporting: {e}");
                std::thread::sleep(backoff.wait(random()));
            }
        }
    }
}

fn give_up(error: &HttpError) -> bool {
    error.is_unknown_session()
}
