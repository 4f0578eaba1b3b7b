//! Expected hardware: models are kept in the store, and every machine that is inspected is compared with the one that is for
//! it. What the comparison says is the core's business (`expected`), what follows from it too (`node::care`).

use std::sync::Arc;

use boot_server_core::expected::{self, BadModel, Compared, Model};
use boot_server_core::node::event::Verb;
use boot_server_core::node::trust::is_untouched;
use boot_server_core::node::{Event, EventLog, Node, Severity};
use futures_util::{StreamExt as _, stream};
use protocol::NodeId;
use protocol::inventory::Inventory;

use super::{Actor, Along, Engine, EngineError, now};
use crate::store::models;
use crate::view::ExpectedView;

/// Models that are kept.
const MODELS_MAX: usize = 1000;
/// Machines that are compared at the same time after a model was changed.
const COMPARED_AT_ONCE: usize = 16;
/// Registers that are learned unless others are named: firmware, what it loads from cards, loaders and kernel, Secure Boot, and the
/// ramdisk (Linux measures it into 9).
const LEARNED: [u8; 5] = [0, 2, 4, 7, 9];
/// Longest reason, in bytes.
const REASON_MAX: usize = 1024;

impl From<BadModel> for EngineError {
    fn from(error: BadModel) -> Self {
        Self::BadModel { what: error.what, hint: error.hint }
    }
}

/// How a node stands against the model that is for it, by this inventory.
pub(super) fn compared(models: &[Model], node: &Node, inventory: &Inventory) -> Option<Compared> {
    expected::judge(models, node.model.as_deref(), inventory, node.place.as_ref())
}

impl Engine {
    /// All models, by name.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn models(&self) -> Result<Vec<Model>, EngineError> {
        Ok(self.0.store.read(models::models).await?)
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`EngineError::ModelNotFound`], or what the store says.
    pub async fn model(&self, name: &str) -> Result<Model, EngineError> {
        let found = self.models().await?.into_iter().find(|model| model.name == name);
        found.ok_or_else(|| EngineError::ModelNotFound(name.chars().take(80).collect()))
    }

    /// Keeps a model; `replace`: in place of the one of its name. Every machine that it is for is compared with it.
    ///
    /// # Errors
    /// Where it cannot be one, its name is taken, or another one is for the same machines.
    pub async fn put_model(&self, actor: Actor, model: Model, replace: bool) -> Result<Model, EngineError> {
        let model = Model { changed: now(), ..model };
        model.check()?;
        let others: Vec<Model> =
            self.models().await?.into_iter().filter(|other| other.name != model.name).collect();
        if others.len() >= MODELS_MAX {
            return Err(EngineError::Full("it has 1,000 models"));
        }
        if let Some(other) = others.iter().find(|other| other.overlaps(&model)) {
            return Err(EngineError::BadModel {
                what: format!("model {} is for the same machines, by maker and product", other.name),
                hint: "leave maker and product out, and assign the model to its machines",
            });
        }
        let stored = model.clone();
        self.0.store.write(move |db| models::put(db, &stored, replace)).await?;
        let message = format!("model {} was {}", model.name, if replace { "changed" } else { "made" });
        self.note(actor, None, "model.changed", Severity::Info, message).await?;
        self.compare_all().await?;
        Ok(model)
    }

    /// Removes a model. Machines that were in quarantine because of it are free.
    ///
    /// # Errors
    /// [`EngineError::ModelNotFound`], or what the store says.
    pub async fn remove_model(&self, actor: Actor, name: &str) -> Result<(), EngineError> {
        let gone = name.to_owned();
        if !self.0.store.write(move |db| models::remove(db, &gone)).await? {
            return Err(EngineError::ModelNotFound(name.chars().take(80).collect()));
        }
        self.note(actor, None, "model.removed", Severity::Info, format!("model {name} was removed")).await?;
        self.compare_all().await
    }

    /// Makes a model from a machine that is as it should be.
    ///
    /// # Errors
    /// [`EngineError::NoInventory`], or as [`Engine::put_model`].
    pub async fn learn_model(
        &self,
        actor: Actor,
        node: &Node,
        name: &str,
        replace: bool,
    ) -> Result<Model, EngineError> {
        let inventory = self.inventory(node.id).await?;
        let inventory = inventory.ok_or_else(|| EngineError::NoInventory(node.name.clone()))?;
        let mut model = expected::learn(name, &inventory, node.place.as_ref());
        // What its TPMs say is learned by itself (`learn_measured`).
        model.measured =
            self.models().await?.into_iter().find(|m| m.name == name).and_then(|known| known.measured);
        self.put_model(actor, model, replace).await
    }

    /// Takes into a model what this node's TPM says that it measured; `add`: beside what is allowed already.
    ///
    /// # Errors
    /// [`EngineError::ModelNotFound`], [`EngineError::BadModel`] where it says nothing that a model could be made of, or as
    /// [`Engine::put_model`].
    pub async fn learn_measured(
        &self,
        actor: Actor,
        name: &str,
        node: &Node,
        pcrs: &[u8],
        add: bool,
        trust_first_tpm: bool,
    ) -> Result<Model, EngineError> {
        let mut model = self.model(name).await?;
        let bad = |what: String, hint| EngineError::BadModel { what, hint };
        let Some(quoted) = node.link.session.as_ref().and_then(|session| session.tpm.as_ref()) else {
            let hint = "boot its agent on a machine with a TPM 2.0, then try again";
            return Err(bad(format!("no quote of a TPM came from {} in this boot", node.name), hint));
        };
        if !matches!(quoted.log, EventLog::None | EventLog::Matches { .. }) {
            let hint = "take another machine: this one's TPM and firmware do not agree on what was measured";
            return Err(bad(format!("the event log of {} does not lead to its registers", node.name), hint));
        }
        let mut measured = model.measured.take().filter(|_| add).unwrap_or_default();
        measured.trust_first_tpm |= trust_first_tpm;
        for pcr in if pcrs.is_empty() { &LEARNED } else { pcrs } {
            let Some(value) = quoted.pcrs.get(pcr).filter(|value| !is_untouched(value)) else {
                let hint = "say which registers machines of this model measure into (`--pcrs`)";
                return Err(bad(format!("nothing was measured into PCR {pcr} of {}", node.name), hint));
            };
            let allowed = measured.pcrs.entry(*pcr).or_default();
            if !allowed.contains(value) {
                allowed.push(*value);
            }
        }
        model.measured = Some(measured);
        self.put_model(actor, model, true).await
    }

    /// Says of which model a node is, and compares it; `None`: its maker and product tell.
    ///
    /// # Errors
    /// [`EngineError::ModelNotFound`], or what the store says.
    pub async fn assign_model(
        &self,
        node: &Node,
        actor: Actor,
        model: Option<String>,
    ) -> Result<Node, EngineError> {
        if let Some(name) = &model {
            self.model(name).await?;
        }
        self.apply(node.id, actor, Event::Verb(Verb::Model { model })).await?;
        self.compare_again(node.id).await
    }

    /// How a node stands against the model that is for it, by its last inventory.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn expected(&self, node: &Node) -> Result<ExpectedView, EngineError> {
        let inventory = self.inventory(node.id).await?;
        let models = self.models().await?;
        let found = inventory.as_deref().and_then(|inventory| compared(&models, node, inventory));
        let (model, differences) = found.map_or((None, Vec::new()), |c| (Some(c.model), c.differences));
        Ok(ExpectedView {
            node: node.name.clone(),
            model,
            assigned: node.model.is_some(),
            inspected: inventory.is_some(),
            differences,
            accepted: node.accepted.clone(),
            quarantine: node.quarantine.clone(),
        })
    }

    /// Takes a node as it is, although it is not as its model says.
    ///
    /// # Errors
    /// Where nothing is wrong with it, or no reason is given.
    pub async fn accept(&self, node: &Node, actor: Actor, reason: &str) -> Result<Node, EngineError> {
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > REASON_MAX {
            return Err(EngineError::BadModel {
                what: format!("the reason must have 1 to {REASON_MAX} bytes"),
                hint: "say why the machine may be used as it is",
            });
        }
        let by = actor.name().to_owned();
        let verb = Verb::Accept { reason: reason.to_owned(), by };
        self.apply(node.id, actor, Event::Verb(verb)).await
    }

    /// Compares a node anew, because its model or its place changed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn compare_again(&self, id: NodeId) -> Result<Node, EngineError> {
        let models: Arc<[Model]> = self.models().await?.into();
        self.compare_with(id, models).await
    }

    async fn compare_with(&self, id: NodeId, models: Arc<[Model]>) -> Result<Node, EngineError> {
        let Some(inventory) = self.inventory(id).await? else { return self.node(&id.to_string()).await };
        let event = move |node: &Node| Event::Compared(compared(&models, node, &inventory));
        self.apply_with(id, Actor::Server, event, Along::default()).await
    }

    /// Compares every node anew. One that is forgotten meanwhile is no trouble.
    async fn compare_all(&self) -> Result<(), EngineError> {
        let models: Arc<[Model]> = self.models().await?.into();
        let nodes = self.0.nodes.all();
        let mut told = stream::iter(nodes)
            .map(|node| {
                let models = models.clone();
                async move { self.compare_with(node.id, models).await }
            })
            .buffer_unordered(COMPARED_AT_ONCE);
        while let Some(done) = told.next().await {
            match done {
                Ok(_) | Err(EngineError::NodeNotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
