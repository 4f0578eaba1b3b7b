//! Writes OVN's northbound database: the difference between a site and what the database holds, in one transaction.

use std::time::Duration;

use boot_server_core::network::ovn::{DATABASE, desired, diff, wanted};
use boot_server_core::network::{Fault, Site};
use jsonrpc::Address;
use ovsdb::{Follower, Operation, Settings, Version};

/// Whoever has it writes: of several servers of one site, one.
const LOCK: &str = "billet_networks";
/// Longer than Open vSwitch's own five seconds: a server that takes in thousands of networks is silent for as long.
const PROBE: Duration = Duration::from_secs(30);
/// Once is enough, unless somebody else changed our rows meanwhile.
const PASSES: u32 = 3;
/// Of many faults, so many are said.
const FAULTS_SAID: usize = 5;

/// The driver; it keeps a replica of the database.
#[derive(Debug)]
pub struct Ovn {
    follower: Follower,
}

/// What an [`Ovn::apply`] changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Rows that were inserted.
    pub inserted: usize,
    /// Rows that were changed, a row with values and references to others twice.
    pub changed: usize,
    /// Rows that were removed, beside those that hung on them.
    pub removed: usize,
}

/// Why the networks are not as they are to be.
#[derive(Debug, thiserror::Error)]
pub enum OvnError {
    /// They cannot be; nothing was changed.
    #[error("{}", said(.0))]
    Site(Vec<Fault>),
    /// The database is out of reach, or refused.
    #[error("writing OVN's northbound database")]
    Database(#[from] ovsdb::Error),
    /// Somebody changes our rows back.
    #[error(
        "OVN's northbound database is not as it was written: another program changes rows with `external_ids:billet`"
    )]
    Unsettled,
}

fn said(faults: &[Fault]) -> String {
    let mut words: Vec<String> = faults.iter().take(FAULTS_SAID).map(ToString::to_string).collect();
    if faults.len() > FAULTS_SAID {
        words.push(format!("and {} more", faults.len() - FAULTS_SAID));
    }
    words.join("; ")
}

impl Ovn {
    /// Begins to follow the database, in a task of its own (so within a tokio runtime).
    pub fn start(address: Address) -> Self {
        let settings = Settings {
            address,
            database: DATABASE.to_owned(),
            wanted: wanted(),
            version: Version::Since,
            lock: Some(LOCK.to_owned()),
            probe: PROBE,
        };
        Self { follower: Follower::start(settings) }
    }

    /// Waits until the database was read.
    pub async fn ready(&self) {
        self.follower.wait_for(|_| true).await;
    }

    /// Why the database cannot be read now; `None` where it can.
    pub fn out_of_reach(&self) -> Option<String> {
        self.follower.read(|_| ()).err().map(|error| error.to_string())
    }

    /// Makes the database hold the site, and nothing else of ours. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`OvnError`].
    pub async fn apply(&self, site: &Site) -> Result<Applied, OvnError> {
        let faults = site.check();
        if !faults.is_empty() {
            return Err(OvnError::Site(faults));
        }
        let rows = desired(site);
        let mut applied = Applied::default();
        for _ in 0..PASSES {
            let operations = self.follower.read(|replica| diff(&rows, replica))?;
            if operations.is_empty() {
                return Ok(applied);
            }
            applied.count(&operations);
            self.follower.transact(operations).await?;
            tracing::info!(?applied, "networks written to OVN");
        }
        let settled = self.follower.read(|replica| diff(&rows, replica).is_empty())?;
        if settled { Ok(applied) } else { Err(OvnError::Unsettled) }
    }
}

impl Applied {
    fn count(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::Insert { .. } => self.inserted += 1,
                Operation::Delete { .. } => self.removed += 1,
                _ => self.changed += 1,
            }
        }
    }
}
