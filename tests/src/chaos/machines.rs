//! Simulated machines, each a thread: its agent asks for work and does it, is switched off in the middle of it, and its OS phones
//! home. Some have a controller, which starts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{History, Ledger};
use crate::bmc::MemoryMachine;
use crate::fleet::rng::Rng;
use crate::simulated::{SimulatedMachine, erased, inventory};

/// Between two tries of anything.
const AGAIN: Duration = Duration::from_millis(250);
/// Between two boots of a machine that has no agent.
const BOOT_AGAIN: Duration = Duration::from_millis(900);
/// A report that is refused for so long belongs to a job that is over.
const REPORT: Duration = Duration::from_secs(30);
/// In how many of a hundred jobs the machine loses its power before the end.
const POWER_LOST: u64 = 8;

/// What a machine's thread works with.
pub struct Player {
    /// Its number.
    pub number: u8,
    /// The machine.
    pub machine: SimulatedMachine,
    /// Its power button, where a controller has one.
    pub button: Option<MemoryMachine>,
    /// Effects.
    pub ledger: Arc<Ledger>,
    /// What happened.
    pub history: Arc<History>,
    /// Its own chance.
    pub rng: Rng,
    /// Told to end.
    pub stop: Arc<AtomicBool>,
}

/// What a machine is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// It is off, or runs from its disk.
    Rests,
    /// Its firmware asks what to boot.
    Boots,
    /// Its agent runs.
    Agent,
}

impl Player {
    /// Lives until it is told to end.
    pub fn run(mut self) {
        let (mut life, mut starts, mut done) = (Life::Rests, 0, String::new());
        while !self.stopped() {
            if self.was_started(&mut starts) {
                life = Life::Boots;
            }
            life = match life {
                // Somebody presses its button now and then.
                Life::Rests if self.button.is_none() => {
                    std::thread::sleep(BOOT_AGAIN);
                    Life::Boots
                }
                Life::Rests => {
                    std::thread::sleep(AGAIN);
                    Life::Rests
                }
                Life::Boots => self.boot(),
                Life::Agent => self.work(&mut done),
            };
        }
    }

    /// The agent asks for work, and does it.
    fn work(&mut self, done: &mut String) -> Life {
        let work = match self.machine.work(1) {
            Ok(work) => work,
            // The server does not know it: it boots again.
            Err(error) if is_unknown(&error) => return Life::Boots,
            Err(_) => {
                std::thread::sleep(AGAIN);
                return Life::Agent;
            }
        };
        match (work["kind"].as_str(), work["job"]["id"].as_str()) {
            // As the real agent: its end is acknowledged, the server needs a moment.
            (_, Some(job)) if job == *done => {
                std::thread::sleep(AGAIN);
                Life::Agent
            }
            (_, Some(job)) => self.job(job, &work, done),
            (Some("reboot"), _) => Life::Boots,
            (Some("power_off"), _) => Life::Rests,
            _ => Life::Agent,
        }
    }

    /// Whether its controller started it since this was asked last.
    fn was_started(&self, seen: &mut usize) -> bool {
        let now = self.button.as_ref().map_or(0, |button| button.started_from().len());
        let new = now - *seen;
        *seen = now;
        (0..new).for_each(|_| self.ledger.started());
        new > 0
    }

    /// From power-on to the agent, or to the disk; a server that is away is asked again.
    fn boot(&mut self) -> Life {
        if let Err(error) = self.machine.boot_agent() {
            if error.to_string().contains("boots no agent") {
                return Life::Rests;
            }
            std::thread::sleep(AGAIN);
            return Life::Boots;
        }
        let body = inventory(&self.machine, "PowerEdge R7615", "leaf-4a", true);
        let end = Instant::now() + REPORT;
        while let Err(error) = self.machine.send_inventory(&body) {
            if self.stopped() || is_unknown(&error) || Instant::now() > end {
                return Life::Boots;
            }
            std::thread::sleep(AGAIN);
        }
        Life::Agent
    }

    /// Does a job.
    fn job(&mut self, job: &str, work: &Value, done: &mut String) -> Life {
        let is_deploy = work["job"]["task"]["kind"] == "deploy";
        self.history.say(&format!("machine {} does {} {job}", self.number, work["job"]["task"]["kind"]));
        if !self.ledger.begin(job, self.number, is_deploy) {
            return Life::Boots;
        }
        if is_deploy {
            // Before the next report, under its own number, however often: so does the real agent.
            if !self.tell(job, &json!({ "kind": "stage", "stage": "write" })) {
                return Life::Boots;
            }
        }
        std::thread::sleep(self.rng.time(Duration::from_millis(300)));
        if self.rng.below(100) < POWER_LOST {
            self.history.say(&format!("machine {} loses its power in job {job}", self.number));
            // Somebody, or its own firmware, starts it again; a controller's machine too.
            return Life::Boots;
        }
        let mut ended = erased(&work["job"]);
        ended.push(json!({ "kind": "finished", "summary": {} }));
        if !ended.iter().all(|body| self.tell(job, body)) {
            return Life::Boots;
        }
        done.clear();
        done.push_str(job);
        self.ledger.finished(job);
        if !is_deploy {
            return Life::Agent;
        }
        self.phone_home(work);
        Life::Rests
    }

    /// Reports until that is acknowledged; false where the server knows this agent no more.
    fn tell(&mut self, job: &str, what: &Value) -> bool {
        let end = Instant::now() + REPORT;
        loop {
            match self.machine.report(job, std::slice::from_ref(what)) {
                Ok(()) => return true,
                Err(error) if is_unknown(&error) => return false,
                Err(_) if self.stopped() || Instant::now() > end => return false,
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    /// The OS starts, and says so until it is heard or refused.
    fn phone_home(&mut self, work: &Value) {
        let end = Instant::now() + REPORT;
        while !self.stopped() && Instant::now() < end {
            // The firmware asks first, as at every start.
            if self.machine.boot().is_ok() {
                match self.machine.phone_home(work) {
                    Ok(()) => return,
                    Err(error) if error.to_string().contains("answered 4") => return,
                    Err(_) => {}
                }
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The server does not know this agent.
fn is_unknown(error: &anyhow::Error) -> bool {
    error.to_string().contains("answered 401")
}
