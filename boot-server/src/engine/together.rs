//! Several events of one or more nodes in one transaction: all of them happen, or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use boot_server_core::node::{Context, Event, Node, Note, Outcome, step};
use protocol::{JobId, NodeId};
use uuid::Uuid;

use super::registry::Slot;
use super::{Actor, CONFLICTS_MAX, Change, Engine, EngineError, now};
use crate::asking;
use crate::store::StoreError;
use crate::store::db::Connection;
use crate::store::instances;
use crate::store::queries::{self, NewEvent, NodeRow};

/// What else is stored with it.
pub(super) type Also = Arc<dyn Fn(&Connection) -> Result<(), StoreError> + Send + Sync>;

/// What happens to one node: its events, in order.
pub(super) type Share = (NodeId, Vec<Event>);

/// A node after its events, before it is stored.
struct Done {
    before: Node,
    version: i64,
    outcome: Outcome,
}

impl Engine {
    /// Takes events to nodes, those of one node in their order, and stores them in the order of `shares`, with `also`. When
    /// this returns, everything is durable; where one event is refused, nothing has changed.
    ///
    /// # Errors
    /// As [`Engine::apply`].
    pub(super) async fn apply_together(
        &self,
        actor: Actor,
        shares: Vec<Share>,
        also: Also,
    ) -> Result<Vec<Node>, EngineError> {
        let engine = self.clone();
        // Ended also where whoever asked goes away meanwhile: else memory would be behind the database.
        tokio::spawn(asking::carried(async move { engine.together(&actor, &shares, also).await })).await?
    }

    async fn together(&self, actor: &Actor, shares: &[Share], also: Also) -> Result<Vec<Node>, EngineError> {
        // Turns are taken in the order of ids, so that two of these never wait for each other.
        let mut slots: BTreeMap<NodeId, Arc<Slot>> = BTreeMap::new();
        for (id, _) in shares {
            let slot = self.0.nodes.slot(*id).ok_or_else(|| EngineError::NodeNotFound(id.to_string()))?;
            slots.insert(*id, slot);
        }
        let mut turns = Vec::with_capacity(slots.len());
        for slot in slots.values() {
            turns.push(slot.turn.lock().await);
        }
        for _ in 0..CONFLICTS_MAX {
            match self.try_together(actor, shares, &slots, &also).await {
                Err(EngineError::Store(StoreError::Conflict)) => {
                    for (id, slot) in &slots {
                        self.reload(*id, slot).await?;
                    }
                }
                other => return other,
            }
        }
        Err(EngineError::Store(StoreError::Conflict))
    }

    async fn try_together(
        &self,
        actor: &Actor,
        shares: &[Share],
        slots: &BTreeMap<NodeId, Arc<Slot>>,
        also: &Also,
    ) -> Result<Vec<Node>, EngineError> {
        let at = now();
        let mut done = Vec::with_capacity(shares.len());
        for (id, events) in shares {
            let row = slots.get(id).ok_or_else(|| EngineError::NodeNotFound(id.to_string()))?.row();
            let (before, version) = (Node::clone(&row.node), row.version);
            let mut outcome =
                Outcome { node: before.clone(), effects: Vec::new(), notes: Vec::new(), records: Vec::new() };
            for event in events {
                let policy = self.0.settings.policy_of(&outcome.node);
                let context = Context { now: at, fresh_job: JobId(Uuid::now_v7()), policy };
                let next = step(&outcome.node, event.clone(), &context)?;
                outcome.node = next.node;
                outcome.effects.extend(next.effects);
                outcome.notes.extend(next.notes);
            }
            done.push(Done { before, version, outcome });
        }
        let line = |id: NodeId, Note { kind, severity, message }: Note| {
            NewEvent::new(at, actor.name(), kind, severity, message).on(id)
        };
        let lines: Vec<NewEvent> = done
            .iter()
            .flat_map(|d| d.outcome.notes.iter().map(|note| line(d.outcome.node.id, note.clone())))
            .collect();
        let stored: Vec<_> = done
            .iter()
            .map(|d| {
                let living = Some(d.outcome.node.living()).filter(|living| *living != d.before.living());
                (d.outcome.node.clone(), d.version, d.outcome.effects.clone(), living)
            })
            .collect();
        let (rows, also) = (lines.clone(), also.clone());
        let ids = self
            .0
            .store
            .write(move |db| {
                for (node, version, effects, living) in &stored {
                    queries::update_node(db, node, *version)?;
                    if let Some(living) = living {
                        instances::keep(db, node.id, living)?;
                    }
                    for effect in effects {
                        queries::insert_effect(db, node.id, *effect, at)?;
                    }
                }
                also(db)?;
                rows.iter().map(|event| queries::insert_event(db, event)).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        for Done { before, version, outcome } in &done {
            if let Some(slot) = slots.get(&before.id) {
                let row = NodeRow { node: outcome.node.clone(), version: version + 1 };
                self.0.nodes.put(slot, row);
            }
            self.log_step(before, &outcome.node);
            self.announce(Change::Node(before.id));
        }
        self.0.deadlines.notify_one();
        self.0.effects.notify_one();
        for (id, event) in ids.into_iter().zip(lines) {
            self.announce_event(id, event);
        }
        Ok(done.into_iter().map(|d| d.outcome.node).collect())
    }
}
