//! What is broken, and how it is mended.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use failpoint::Point;
use nix::sys::signal::Signal;

use super::{Store, Weather, World};
use crate::bmc::redfish::RedfishBmc;
use crate::fleet::rng::Rng;

/// How long links are broken and the disk is full.
const BROKEN: Duration = Duration::from_millis(900);
/// The longest a server lives with a failpoint before it is killed, where it does not come to the point.
const TO_POINT: Duration = Duration::from_millis(1800);
/// Tries to start the server: one that died at its start may do so once more.
const STARTS: usize = 3;
/// Of a clean stop.
const PAUSED: Duration = Duration::from_millis(700);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the server.
    Kill,
    /// It dies at a place in its own code.
    Point,
    /// A place in it fails: the lease journal or the image store cannot write.
    Eio,
    /// It is stopped cleanly.
    Stop,
    /// It does not run for a while.
    Pause,
    /// Its clock jumps, in the middle of a run.
    Clock,
    /// Links are cut.
    Cut,
    /// Answers are lost.
    Mute,
    /// The state directory is full.
    Full,
    /// PostgreSQL is killed.
    Database,
}

impl Fault {
    /// Those that a site on this store can have.
    pub fn all(store: Store) -> Vec<Self> {
        let mut all = vec![
            Self::Kill,
            Self::Point,
            Self::Point,
            Self::Eio,
            Self::Stop,
            Self::Pause,
            Self::Clock,
            Self::Cut,
            Self::Mute,
            Self::Full,
        ];
        if store == Store::Postgres {
            all.extend([Self::Database, Self::Database]);
        }
        all
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Point => "failpoint",
            Self::Eio => "eio",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Clock => "clock",
            Self::Cut => "cut",
            Self::Mute => "mute",
            Self::Full => "full",
            Self::Database => "database",
        }
    }
}

impl World {
    /// Breaks something, and leaves it broken for a while.
    ///
    /// # Errors
    /// Where the server does not come up again.
    pub(super) fn inject(&mut self, fault: Fault, rng: &mut Rng) -> Result<()> {
        self.history.say(&format!("fault {}", fault.name()));
        match fault {
            Fault::Kill => {
                self.server.kill()?;
                self.start()?;
            }
            Fault::Point => {
                let points: Vec<_> = Point::ALL.iter().filter(|point| is_servers(**point)).collect();
                let point = points[rng.below(points.len() as u64) as usize];
                self.restart_with(&format!("{}=kill@{}", point.name(), 1 + rng.below(12)))?;
                self.wait_death(TO_POINT)?;
            }
            Fault::Eio => {
                let point = ["journal.append", "journal.written", "image.chunk", "image.manifest"]
                    [rng.below(4) as usize];
                let what = ["eio", "enospc"][rng.below(2) as usize];
                self.restart_with(&format!("{point}={what}@{}", 1 + rng.below(3)))?;
            }
            Fault::Stop => {
                self.server.stop()?;
                self.start()?;
            }
            Fault::Pause => {
                self.server.process()?.signal(Signal::SIGSTOP)?;
                std::thread::sleep(PAUSED);
                self.server.process()?.signal(Signal::SIGCONT)?;
            }
            Fault::Clock => {
                let minutes = rng.below(21) as i64 - 10;
                self.restart_with(&format!("clock={}/{}", minutes * 60_000, rng.below(900)))?;
                std::thread::sleep(BROKEN);
            }
            Fault::Cut | Fault::Mute => {
                let weather = if fault == Fault::Cut { Weather::Cut } else { Weather::Mute };
                self.links.iter().for_each(|link| link.set(weather));
                std::thread::sleep(BROKEN);
                self.links.iter().for_each(|link| link.set(Weather::Fair));
            }
            Fault::Full => {
                self.fill()?;
                std::thread::sleep(BROKEN);
                fs::remove_file(self.ballast())?;
            }
            Fault::Database => {
                let database = self.server.database().context("a site without PostgreSQL")?;
                database.kill()?;
                std::thread::sleep(rng.time(BROKEN));
                self.server.database().context("a site without PostgreSQL")?.run()?;
            }
        }
        Ok(())
    }

    /// Everything works again.
    ///
    /// # Errors
    /// Where the server does not come up.
    pub(super) fn heal(&mut self) -> Result<()> {
        self.links.iter().for_each(|link| link.set(Weather::Fair));
        drop(fs::remove_file(self.ballast()));
        if self.broken || !self.server.running() {
            self.restart_with("")?;
            self.broken = false;
        }
        Ok(())
    }

    /// Kills the server and starts it with these failpoints. True where it died of them at its start, and runs without.
    pub(super) fn restart_with(&mut self, failpoints: &str) -> Result<bool> {
        self.history.say(&format!("server starts with `{failpoints}`"));
        if self.server.running() {
            self.server.kill()?;
        }
        // Those of a server that died end by their time-out. Here it dies more often in a minute than elsewhere in a year.
        self.controllers.iter().for_each(RedfishBmc::end_sessions);
        self.broken = !failpoints.is_empty();
        self.server.set_failpoints(failpoints);
        self.start()
    }

    /// Waits until the server died at its failpoint, or kills it where nothing led there; then starts it as it should be. True
    /// where it died.
    pub(super) fn wait_death(&mut self, patience: Duration) -> Result<bool> {
        let end = Instant::now() + patience;
        while self.broken && self.server.running() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let died = self.broken && !self.server.running();
        self.history.say(if died {
            "server died at its failpoint"
        } else {
            "server did not come to its failpoint"
        });
        self.restart_with("")?;
        Ok(died)
    }

    /// Starts the server; one with a failpoint may die on the way, and then is started without: true.
    fn start(&mut self) -> Result<bool> {
        let mut last = None;
        for attempt in 0..STARTS {
            self.server.forget();
            match self.server.start_again() {
                Ok(()) => return Ok(attempt > 0),
                Err(error) => last = Some(error),
            }
            self.history.say("server died at its start");
            self.server.set_failpoints("");
            self.broken = false;
        }
        match last {
            Some(error) => Err(error.context("the server does not come up")),
            None => bail!("the server was not started"),
        }
    }

    /// Writes until there is no room.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast())?;
        for piece in [1 << 20, 4096, 512] {
            let zeros = vec![0; piece];
            while file.write_all(&zeros).is_ok() {}
        }
        Ok(())
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.server.state_dir().join("ballast")
    }
}

/// Points of the server.
pub fn is_servers(point: Point) -> bool {
    let name = point.name();
    name == "agent.report.stored" || !(name.starts_with("agent.") || name.starts_with("imaging."))
}
