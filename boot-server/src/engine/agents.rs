//! What the agent asks for and says.

use std::sync::Arc;
use std::time::Duration;

use boot_server_core::deploy::all_blank;
use boot_server_core::node::{Claim, Event, Match, Node, Refused, Severity};
use protocol::agent::{Hello, ReportReply, Welcome, Work};
use protocol::inventory::{Disk, Inventory, Transport};
use protocol::report::ReportBatch;
use protocol::{NodeId, Sha256};

use super::alarms::Alarm;
use super::models::compared;
use super::{Actor, Along, Engine, EngineError, now};
use crate::secret;

/// Addresses that an event names.
const NAMED_MAX: usize = 4;

/// A job or another order that was handed to the agent.
pub type Handed = Work;

impl Engine {
    /// The agent introduces itself with the nonce of its boot script and gets a session.
    ///
    /// # Errors
    /// [`EngineError::Refused`] with [`Refused::Nonce`] or [`Refused::Protocol`].
    pub async fn hello(&self, mut hello: Hello) -> Result<Welcome, EngineError> {
        let nonce = secret::hash(&hello.nonce);
        let claim = Claim { uuid: hello.uuid, serial: hello.serial.clone(), macs: hello.macs.clone() };
        let Some(node) = self.0.nodes.with_secret(nonce).filter(|node| has_nonce(node, nonce)) else {
            let why = "used already or never given";
            let claimed = match self.identify(&claim) {
                Match::Node(id) => Some(id),
                Match::Unknown | Match::Conflict { .. } => None,
            };
            self.forged(claimed, &claim, why).await;
            return Err(Refused::Nonce { why }.into());
        };
        // Neither kept nor logged from here on.
        hello.nonce.clear();
        hello.macs = self.own_addresses(node.id, hello.macs).await?;
        let session = secret::token()?;
        let event = Event::Hello { hello: Box::new(hello), nonce, session: secret::hash(&session) };
        let node = match self.apply(node.id, Actor::Agent, event).await {
            Ok(node) => node,
            Err(error) => {
                if let EngineError::Refused(Refused::Nonce { why }) = error {
                    self.forged(Some(node.id), &claim, why).await;
                }
                return Err(error);
            }
        };
        let first = self.first_seen(&node);
        let seconds = first.map(|first| now().since(first).as_millis() as f64 / 1000.0);
        tracing::info!(node = %node.name, seconds, "agent hello: seconds since the first DHCPDISCOVER");
        Ok(Welcome { node: node.id, name: node.name, session, now: now() })
    }

    /// A hello that proves nothing is an alarm: somebody replays or guesses, or a machine was cut off while it booted.
    async fn forged(&self, node: Option<NodeId>, says: &Claim, why: &str) {
        let macs = says.macs.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let who = if macs.is_empty() { "a machine without an address".to_owned() } else { macs };
        let message =
            format!("hello with a boot nonce that is {why}, by what says it is {who}: it got nothing");
        self.alarm(Alarm::Nonce, node, &message).await;
    }

    /// The node whose agent has this session token.
    ///
    /// # Errors
    /// [`EngineError::NoSession`].
    pub fn session(&self, token: &str) -> Result<Arc<Node>, EngineError> {
        let hash = secret::hash(token);
        self.0.nodes.with_secret(hash).filter(|node| has_session(node, hash)).ok_or(EngineError::NoSession)
    }

    /// Stores what the agent found out.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] where the machine was restarted meanwhile, or what the store says.
    pub async fn put_inventory(&self, token: &str, inventory: Inventory) -> Result<(), EngineError> {
        let node = self.session(token)?;
        let engine = self.clone();
        let mut inventory = inventory;
        self.leave_out_volumes(node.id, &mut inventory);
        let inventory = tokio::task::spawn_blocking(move || {
            engine.0.pci.fill(&mut inventory);
            Arc::new(inventory)
        })
        .await?;
        for warning in &inventory.warnings {
            tracing::warn!(node = %node.name, warning, "inventory");
        }
        let macs = inventory.nics.iter().flat_map(|n| [Some(n.mac), n.permanent_mac]).flatten().collect();
        let macs = self.own_addresses(node.id, macs).await?;
        let disks_blank = all_blank(&inventory);
        let models = self.models().await?;
        let along = Along { inventory: Some(inventory.clone()), ..Along::default() };
        // Compared when the node's turn has come: its place may change meanwhile.
        let event = move |node: &Node| Event::Inventory {
            disks_blank,
            macs: macs.clone(),
            compared: compared(&models, node, &inventory),
        };
        self.apply_with(node.id, Actor::Agent, event, along).await?;
        // Its serial number may be known only now.
        self.welcome(node.id).await
    }

    /// Disks that a DPU presents are a project's, and no part of the machine.
    fn leave_out_volumes(&self, node: NodeId, inventory: &mut Inventory) {
        let Some(state) = self.dpu_of(node).and_then(|known| known.desired) else { return };
        let is_volume = |disk: &Disk| {
            disk.transport == Transport::Virtio
                && state.volumes.iter().any(|volume| disk.serial.as_deref() == Some(volume.serial.as_str()))
        };
        inventory.disks.retain(|disk| !is_volume(disk));
    }

    /// What the agent is to do, held open until there is something or `wait` has passed.
    ///
    /// # Errors
    /// [`EngineError::NoSession`], or what the store says.
    pub async fn next_work(&self, token: &str, wait: Duration) -> Result<Handed, EngineError> {
        let end = tokio::time::Instant::now() + wait;
        let hash = secret::hash(token);
        let id = self.session(token)?.id;
        loop {
            // Subscribed before the look, so that no change comes between the two unnoticed.
            let mut changed = self.watch(id).ok_or(EngineError::NoSession)?;
            let node = self.0.nodes.get(id).filter(|n| has_session(n, hash)).ok_or(EngineError::NoSession)?;
            match node.work() {
                Work::Wait => {}
                Work::Job { job } => {
                    match self.apply(id, Actor::Agent, Event::WorkTaken { job: job.id }).await {
                        Ok(_) => return Ok(Work::Job { job }),
                        // It was called off at this very moment: look again.
                        Err(EngineError::Refused(Refused::StaleJob { .. })) => continue,
                        // What is wanted rose meanwhile: the node says what it waits for.
                        Err(EngineError::Refused(Refused::Trust { .. })) => {}
                        Err(error) => return Err(error),
                    }
                }
                other => return Ok(other),
            }
            match tokio::time::timeout_at(end, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(EngineError::NoSession),
                Err(_) => return Ok(Work::Wait),
            }
        }
    }

    /// Takes reports in. Whoever sends them again gets the same answer; reports on a job that is over change nothing
    /// and are answered by "stop".
    ///
    /// # Errors
    /// [`EngineError::NoSession`], or what the store says.
    pub async fn report(&self, token: &str, batch: ReportBatch) -> Result<ReportReply, EngineError> {
        let id = self.session(token)?.id;
        let (job, last) = (batch.job, batch.reports.last().map_or(0, |r| r.seq));
        let node = match self.apply(id, Actor::Agent, Event::Report(batch)).await {
            Ok(node) => node,
            Err(EngineError::Refused(Refused::StaleJob { .. })) => {
                tracing::debug!(node = %id, %job, "reports on a job that is over");
                return Ok(ReportReply { acked: last, abort: true });
            }
            Err(error) => return Err(error),
        };
        // A final report ends the run: then everything up to it was taken in.
        let run = node.state.run().filter(|run| run.job.id == job);
        Ok(ReportReply { acked: run.map_or(last, |run| run.acked), abort: run.is_some_and(|run| run.abort) })
    }

    /// Notes that something a machine sent was cut to what the limits allow.
    pub async fn note_cut(&self, id: NodeId, what: &str) {
        let noted =
            self.note(Actor::Server, Some(id), "inventory.cut", Severity::Warning, what.to_owned()).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "event was not stored");
        }
    }
}

fn has_session(node: &Node, hash: Sha256) -> bool {
    node.link.session.as_ref().is_some_and(|s| secret::same(&s.sha256, &hash))
}

/// The nonce was given to this node, and is unused or became its session.
fn has_nonce(node: &Node, hash: Sha256) -> bool {
    let unused = node.link.nonce.as_ref().map(|n| n.sha256);
    let used = node.link.session.as_ref().and_then(|s| s.nonce);
    [unused, used].into_iter().flatten().any(|known| secret::same(&known, &hash))
}
