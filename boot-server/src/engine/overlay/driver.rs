//! Makes OVN as the networks are: again after each change, and again until it is so.

use std::time::Duration;

use boot_server_core::network::Site;
use boot_server_core::server::Phase;
use network::{Applied, Ovn, OvnError};
use protocol::{ServerId, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, lock, now};
use crate::store::servers;

/// Changes that come close together are one difference: so long is waited for more.
const GATHER: Duration = Duration::from_millis(50);
/// While changes do not end, the driver rests as long as it worked, within these: the server has other things to do.
const REST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// The first and the longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Without any change the whole is compared so often: what somebody else changed on our rows is put back.
const REPAIR: Duration = Duration::from_secs(300);
/// A database that does not answer is said to be out of reach after so long.
const REACH: Duration = Duration::from_secs(10);

/// How far OVN is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    /// Grows with each change of networks.
    pub wanted: u64,
    /// The change up to which OVN has them; none before the first time.
    pub done: Option<u64>,
    /// When it was last made so.
    pub at: Option<Timestamp>,
    /// Why it is not.
    pub error: Option<String>,
    /// Networks, ports and routers.
    pub counts: [usize; 3],
}

impl Synced {
    /// OVN's database is as the networks are.
    pub fn is_synced(&self) -> bool {
        self.done == Some(self.wanted) && self.error.is_none()
    }
}

impl Engine {
    /// How far OVN is.
    pub fn overlay_synced(&self) -> Synced {
        let counts = self.0.overlay.known(super::shelf::Known::counts);
        Synced { counts, ..lock(&self.0.overlay.synced).clone() }
    }

    /// Makes OVN as the networks are, until the end; nothing where the site has no overlay.
    pub async fn run_overlay(&self, stop: CancellationToken) {
        let Some(settings) = self.0.settings.overlay.clone() else {
            stop.cancelled().await;
            return;
        };
        if let Err(error) = self.release_forgotten().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "ports of servers that are gone stay attached"
            );
        }
        let Some(northbound) = settings.northbound.clone() else {
            stop.cancelled().await;
            return;
        };
        let mut ovn = Some(Ovn::start(northbound.clone()));
        let mut pause = AGAIN.0;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let Some(driver) = ovn.take() else { return };
            let reached = tokio::select! {
                () = stop.cancelled() => return,
                reached = tokio::time::timeout(REACH, driver.ready()) => reached.is_ok(),
            };
            let (driver, outcome) = if reached {
                self.make_so(driver, settings.encap, &stop).await
            } else {
                let plain = || format!("the database at {northbound} is out of reach");
                let failed = Err(driver.out_of_reach().unwrap_or_else(plain));
                (Some(driver), Some(self.note_outcome(0, failed)))
            };
            ovn = driver;
            let worked = begun.elapsed();
            let again = match outcome {
                Some(Ok(())) => {
                    pause = AGAIN.0;
                    None
                }
                Some(Err(())) => {
                    let wait = pause;
                    pause = (pause * 2).min(AGAIN.1);
                    Some(wait)
                }
                None => return,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(again.unwrap_or_else(|| worked.clamp(REST.0, REST.1))) => {}
            }
            if again.is_none() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.0.overlay.wake.notified() => tokio::time::sleep(GATHER).await,
                    () = tokio::time::sleep(REPAIR) => {}
                }
            }
        }
    }

    /// One time. The work is of the processor, for seconds on a large site: it is done beside the threads that answer requests.
    async fn make_so(
        &self,
        ovn: Ovn,
        encap: boot_server_core::network::Encap,
        stop: &CancellationToken,
    ) -> (Option<Ovn>, Option<Result<(), ()>>) {
        // The number first: what comes between the two is done twice, not missed.
        let wanted = lock(&self.0.overlay.synced).wanted;
        let site = self.0.overlay.known(|known| known.site(encap)).of_ovn();
        let runtime = tokio::runtime::Handle::current();
        let work = tokio::task::spawn_blocking(move || {
            let outcome = runtime.block_on(apply(&ovn, &site));
            (ovn, outcome)
        });
        let done = tokio::select! {
            () = stop.cancelled() => return (None, None),
            done = work => done,
        };
        match done {
            Ok((ovn, outcome)) => (Some(ovn), Some(self.note_outcome(wanted, outcome))),
            Err(error) => {
                tracing::error!(%error, "writing networks to OVN broke");
                let northbound = self.0.settings.overlay.as_ref().and_then(|s| s.northbound.clone());
                (northbound.map(Ovn::start), Some(Err(())))
            }
        }
    }

    fn note_outcome(&self, wanted: u64, outcome: Result<Applied, String>) -> Result<(), ()> {
        let mut synced = lock(&self.0.overlay.synced);
        match outcome {
            Ok(applied) => {
                tracing::debug!(?applied, "OVN is as the networks are");
                *synced = Synced { done: Some(wanted), at: Some(now()), error: None, ..synced.clone() };
                Ok(())
            }
            Err(error) => {
                if synced.error.as_ref() != Some(&error) {
                    tracing::warn!(error, "OVN is not as the networks are: it is tried again");
                }
                synced.error = Some(error);
                Err(())
            }
        }
    }

    /// Servers that were given back while nobody unplugged them: the server ended between the two.
    async fn release_forgotten(&self) -> Result<(), EngineError> {
        let plugged: Vec<ServerId> = self.0.overlay.known(super::shelf::Known::servers);
        if plugged.is_empty() {
            return Ok(());
        }
        let living = self.0.store.read(servers::living).await?;
        for server in plugged {
            if !living.iter().any(|it| it.id == server && it.phase != Phase::Deleted) {
                self.release_ports(server).await?;
            }
        }
        Ok(())
    }
}

async fn apply(ovn: &Ovn, site: &Site) -> Result<Applied, String> {
    ovn.apply(site).await.map_err(|error: OvnError| {
        let mut text = error.to_string();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    })
}
