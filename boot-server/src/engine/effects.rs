//! Carries effects out: at least once, and so that twice does no harm. What asks a BMC takes minutes, so it has a
//! task.

use std::collections::BTreeMap;
use std::time::Duration;

use boot_server_core::node::{Effect, Severity};
use failpoint::Point;
use protocol::NodeId;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, now};
use crate::store::queries::{self, EffectRow, NewEvent};

/// After a failure the effects are tried again this much later.
const RETRY: Duration = Duration::from_secs(5);
/// Effects that were carried out are kept this long, for whoever looks for a cause.
const KEPT: Duration = Duration::from_hours(24 * 7);

/// What takes its time, each in a task. One of a node at a time, in their order: a boot image is not taken out while another one
/// is put in.
#[derive(Default)]
struct Slow {
    tasks: JoinSet<()>,
    begun: BTreeMap<NodeId, Id>,
}

impl Slow {
    /// A task came to its end, or broke.
    fn ended(&mut self, id: Id) {
        self.begun.retain(|_, task| *task != id);
    }
}

impl Engine {
    /// Carries out what was stored and what comes, until `stop`.
    pub async fn run_effects(&self, stop: CancellationToken) {
        let mut slow = Slow::default();
        loop {
            let wait = match self.carry_out(&mut slow, &stop).await {
                Ok(()) => Duration::from_hours(1),
                Err(error) => {
                    tracing::error!(%error, "effects were not carried out, they are tried again");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.0.effects.notified() => {}
                Some(ended) = slow.tasks.join_next_with_id() => match ended {
                    Ok((task, ())) => slow.ended(task),
                    Err(error) => {
                        tracing::error!(%error, "an effect broke");
                        slow.ended(error.id());
                    }
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
        // They hear the stop too, and leave their effects open.
        while slow.tasks.join_next().await.is_some() {}
    }

    async fn carry_out(&self, slow: &mut Slow, stop: &CancellationToken) -> Result<(), EngineError> {
        for row in self.0.store.read(queries::open_effects).await? {
            failpoint::pass(Point::EffectBefore);
            match row.effect {
                Effect::WakeAgent => {
                    if let Some(slot) = self.0.nodes.slot(row.node) {
                        slot.wake();
                    }
                    self.close(row, None).await?;
                }
                Effect::PowerCycle if !self.restarts(row.node) => self.ask_for_power(row).await?,
                Effect::PowerCycle | Effect::EjectMedia | Effect::Service => {
                    if !slow.begun.contains_key(&row.node) {
                        let (engine, stop, node) = (self.clone(), stop.clone(), row.node);
                        let task = slow.tasks.spawn(async move { engine.carry_slow(row, stop).await });
                        slow.begun.insert(node, task.id());
                    }
                }
            }
        }
        Ok(())
    }

    async fn carry_slow(&self, row: EffectRow, stop: CancellationToken) {
        let carried = match row.effect {
            Effect::EjectMedia => self.eject(row.node, &stop).await,
            Effect::Service => self.serve(row.node, &stop).await,
            Effect::PowerCycle | Effect::WakeAgent => match self.come_home(row.node, &stop).await {
                Ok(true) => self.restart(row.node, &stop).await,
                other => other,
            },
        };
        let done = match carried {
            Ok(true) => self.close(row, None).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::error!(node = %row.node, %error, "an effect was not carried out, it is tried again");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// The driver `manual`: a person is the power switch. The line and the end of the effect are one transaction, so
    /// nobody is asked twice.
    async fn ask_for_power(&self, row: EffectRow) -> Result<(), EngineError> {
        let name = self.0.nodes.get(row.node).map_or_else(|| row.node.to_string(), |n| n.name.clone());
        let message = format!("restart {name} (or switch it on) so that it boots from the network");
        let event = NewEvent::new(now(), "server", "power.wanted", Severity::Warning, message).on(row.node);
        self.close(row, Some(event)).await
    }

    async fn close(&self, row: EffectRow, event: Option<NewEvent>) -> Result<(), EngineError> {
        failpoint::pass(Point::EffectAfter);
        let at = now();
        let stored = event.clone();
        let id = self
            .0
            .store
            .write(move |db| {
                let first = queries::effect_done(db, row.id, at)?;
                queries::forget_effects(
                    db,
                    protocol::Timestamp(at.0.saturating_sub(KEPT.as_millis() as u64)),
                )?;
                stored.filter(|_| first).map(|event| queries::insert_event(db, &event)).transpose()
            })
            .await?;
        if let (Some(id), Some(event)) = (id, event) {
            self.announce_event(id, event);
        }
        Ok(())
    }
}
