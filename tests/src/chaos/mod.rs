//! Everything breaks at random, by a seed, under load, and a model that knows every acknowledged request looks whether it is still
//! there: a real server on a real database, simulated machines and real agents, people who ask by the API, DHCP clients.
//!
//! ```text
//!  people ─┐             ┌─ link (cut, answers lost) ─▶ billet serve ─▶ SQLite or PostgreSQL
//!  machines┼─▶ model ◀───┤        ▲ kill -9, failpoints, full disk, wrong clock, stopped
//!  agents ─┘  ledger     └─ each round: heal, wait for every answer, check
//! ```

mod clients;
mod faults;
mod history;
mod ledger;
mod link;
mod machines;
mod model;
mod people;
mod real_agent;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use failpoint::Point;

pub use faults::Fault;
pub use history::History;
pub use ledger::{Counts, Ledger};
pub use link::{Link, Weather};
pub use model::Model;
pub use world::World;

/// Rounds in which a server may come to one failpoint.
const WALKS: u32 = 5;

/// On what the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// A file.
    Sqlite,
    /// A real PostgreSQL.
    Postgres,
}

impl std::str::FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" => Ok(Self::Postgres),
            other => Err(format!("`{other}` is neither sqlite nor postgres")),
        }
    }
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Names the faults, their order and what people ask.
    pub seed: u64,
    /// How many rounds.
    pub rounds: u32,
    /// On what.
    pub store: Store,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Rounds that were run.
    pub rounds: u32,
    /// Acknowledged requests that were not there afterwards, and what was there unasked.
    pub lost: u32,
    /// Steps that were done twice with effect, addresses lent twice, machines lent twice.
    pub twice: u32,
    /// Nodes and requests that did not move for 60 s.
    pub stuck: u32,
    /// Requests of people that were acknowledged.
    pub acknowledged: u64,
    /// How often each fault was done.
    pub faults: BTreeMap<&'static str, u32>,
    /// Effects.
    pub counts: Counts,
    /// Addresses that were lent.
    pub leases: usize,
    /// In words, what was wrong.
    pub wrong: Vec<String>,
    /// What happened, line by line.
    pub history: PathBuf,
}

impl Report {
    /// True where nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.stuck == 0 && self.twice == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(|(name, n)| format!("{name} {n}")).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        let Counts { handed, finished, deploys, starts, written, killed } = self.counts;
        writeln!(
            f,
            "{} requests acknowledged, {} addresses lent, {handed} jobs handed out, {finished} finished ({deploys} deploys), \
             {starts} starts by controllers, {written} disks written by real agents that died {killed} times",
            self.acknowledged, self.leases
        )?;
        write!(f, "chaos rounds {} lost {} stuck {} twice {}", self.rounds, self.lost, self.stuck, self.twice)
    }
}

impl Plan {
    /// Runs it; all files are in `dir`, which is emptied.
    ///
    /// # Errors
    /// Where the world cannot be made, or the server does not come up again.
    pub fn run(&self, dir: &Path) -> Result<Report> {
        let mut world = World::new(self, dir)?;
        let mut report = Report { history: world.history.path().to_owned(), ..Report::default() };
        for round in 1..=self.rounds {
            world.round(round, &mut report)?;
            report.rounds = round;
            if !report.is_clean() {
                break;
            }
        }
        world.settle(&mut report)?;
        Ok(report)
    }

    /// A server dies at each of its failpoints once, under load; those that nothing led to.
    ///
    /// # Errors
    /// As [`Plan::run`].
    pub fn walk(&self, dir: &Path) -> Result<(Report, Vec<&'static str>)> {
        let mut world = World::new(self, dir)?;
        let mut report = Report { history: world.history.path().to_owned(), ..Report::default() };
        let mut missed = Vec::new();
        for point in Point::ALL.iter().filter(|point| faults::is_servers(**point)) {
            // Not every round has what leads there: where no machine waits for work, none is woken.
            let mut died = false;
            for _ in 0..WALKS {
                report.rounds += 1;
                died = world.walk(*point, report.rounds, &mut report)?;
                if died || !report.is_clean() {
                    break;
                }
            }
            if !died {
                missed.push(point.name());
            }
        }
        world.settle(&mut report)?;
        Ok((report, missed))
    }
}
