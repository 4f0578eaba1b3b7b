//! Carries effects out: at least once, and so that twice does no harm. Restarts take minutes, so each has a task.

use std::collections::BTreeSet;
use std::time::Duration;

use boot_server_core::node::{Effect, Severity};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, now};
use crate::store::queries::{self, EffectRow, NewEvent};

/// After a failure the effects are tried again this much later.
const RETRY: Duration = Duration::from_secs(5);
/// Effects that were carried out are kept this long, for whoever looks for a cause.
const KEPT: Duration = Duration::from_hours(24 * 7);

/// Restarts on their way, each by its effect.
#[derive(Default)]
struct Restarts {
    tasks: JoinSet<i64>,
    begun: BTreeSet<i64>,
}

impl Engine {
    /// Carries out what was stored and what comes, until `stop`.
    pub async fn run_effects(&self, stop: CancellationToken) {
        let mut restarts = Restarts::default();
        loop {
            let wait = match self.carry_out(&mut restarts, &stop).await {
                Ok(()) => Duration::from_hours(1),
                Err(error) => {
                    tracing::error!(%error, "effects were not carried out, they are tried again");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.0.effects.notified() => {}
                Some(ended) = restarts.tasks.join_next() => match ended {
                    Ok(effect) => drop(restarts.begun.remove(&effect)),
                    Err(error) => tracing::error!(%error, "a restart broke"),
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
        // They hear the stop too, and leave their effects open.
        while restarts.tasks.join_next().await.is_some() {}
    }

    async fn carry_out(&self, restarts: &mut Restarts, stop: &CancellationToken) -> Result<(), EngineError> {
        for row in self.0.store.read(queries::open_effects).await? {
            match row.effect {
                Effect::WakeAgent => {
                    if let Some(slot) = self.0.nodes.slot(row.node) {
                        slot.wake();
                    }
                    self.close(row, None).await?;
                }
                Effect::PowerCycle if self.restarts(row.node) => {
                    if restarts.begun.insert(row.id) {
                        let (engine, stop) = (self.clone(), stop.clone());
                        restarts.tasks.spawn(async move { engine.carry_restart(row, stop).await });
                    }
                }
                Effect::PowerCycle => self.ask_for_power(row).await?,
                Effect::Service => {
                    if restarts.begun.insert(row.id) {
                        let (engine, stop) = (self.clone(), stop.clone());
                        restarts.tasks.spawn(async move { engine.carry_service(row, stop).await });
                    }
                }
            }
        }
        Ok(())
    }

    async fn carry_restart(&self, row: EffectRow, stop: CancellationToken) -> i64 {
        let done = self.restart(row.node, &stop).await;
        self.conclude(row, done, &stop).await
    }

    async fn carry_service(&self, row: EffectRow, stop: CancellationToken) -> i64 {
        let done = self.serve(row.node, &stop).await;
        self.conclude(row, done, &stop).await
    }

    /// Closes an effect that was carried out; `false` where the server stops before. After an error there is a pause.
    async fn conclude(
        &self,
        row: EffectRow,
        done: Result<bool, EngineError>,
        stop: &CancellationToken,
    ) -> i64 {
        let (id, node) = (row.id, row.node);
        let done = match done {
            Ok(true) => self.close(row, None).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::error!(%node, %error, "an effect was not carried out, it is tried again");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        id
    }

    /// The driver `manual`: a person is the power switch. The line and the end of the effect are one transaction, so
    /// nobody is asked twice.
    async fn ask_for_power(&self, row: EffectRow) -> Result<(), EngineError> {
        let name = self.0.nodes.get(row.node).map_or_else(|| row.node.to_string(), |n| n.name.clone());
        let event = NewEvent {
            at: now(),
            node: Some(row.node),
            actor: "server".to_owned(),
            kind: "power.wanted".to_owned(),
            severity: Severity::Warning,
            message: format!("restart {name} (or switch it on) so that it boots from the network"),
        };
        self.close(row, Some(event)).await
    }

    async fn close(&self, row: EffectRow, event: Option<NewEvent>) -> Result<(), EngineError> {
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
