//! Machines that are expected: taken in from a list, and given their name, place and papers when they come.

use std::sync::Arc;

use boot_server_core::arrivals::{self, Arrival};
use boot_server_core::csv::ListError;
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Event, Node, Severity};
use boot_server_core::plural::count;
use boot_server_core::refresh::Papers;
use protocol::{MacAddr, NodeId};

use super::{Actor, Engine, EngineError, now};
use crate::store::{StoreError, arrivals as rows};

/// Machines that can be expected at once.
const EXPECTED_MAX: usize = 20_000;

impl Engine {
    /// All machines that are expected and never came, by name.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn expected_machines(&self) -> Result<Vec<Arrival>, EngineError> {
        Ok(self.0.store.read(rows::arrivals).await?)
    }

    /// Takes a list in, all of it or nothing. A machine that is known already gets at once what is said of it.
    ///
    /// # Errors
    /// [`EngineError::BadList`] with every conflict and its line.
    pub async fn import_machines(
        &self,
        actor: &Actor,
        list: Vec<(usize, Arrival)>,
        dry_run: bool,
    ) -> Result<Vec<Arrival>, EngineError> {
        let list: Vec<(usize, Arrival)> =
            list.into_iter().map(|(line, a)| (line, Arrival { announced: now(), ..a })).collect();
        let known = self.expected_machines().await?;
        if known.len() + list.len() > EXPECTED_MAX {
            return Err(EngineError::Full("it expects 20,000 machines"));
        }
        let models = self.models().await?;
        let mut bad = Vec::new();
        for (line, arrival) in &list {
            let mut wrong = |what: String| bad.push(ListError { line: *line, what });
            let keys = arrival.keys();
            for other in &known {
                if other.name.eq_ignore_ascii_case(&arrival.name) {
                    wrong(format!("{} is expected already: remove it first to change it", other.name));
                } else if let Some(key) = other.keys().into_iter().find(|key| keys.contains(key)) {
                    wrong(format!("{key} is that of {}, which is expected already", other.name));
                }
            }
            if let Some(model) = &arrival.model
                && models.iter().all(|m| m.name != *model)
            {
                wrong(format!("no model `{model}` is known"));
            }
            if let Some(pool) = &arrival.pool
                && !self.0.shelf.pools().contains_key(pool)
            {
                wrong(format!("no pool `{pool}` is known"));
            }
            let here = self.machines_like(&keys);
            if here.len() > 1 {
                let names: Vec<&str> = here.iter().map(|node| node.name.as_str()).collect();
                wrong(format!("several machines answer to it: {}", names.join(", ")));
            }
            if let Some(holder) = self.0.nodes.with_name(&arrival.name)
                && here.iter().all(|node| node.id != holder.id)
            {
                wrong(format!(
                    "the name {} is that of a machine that is here, and is another one",
                    arrival.name
                ));
            }
        }
        if !bad.is_empty() {
            return Err(EngineError::BadList(bad));
        }
        let list: Vec<Arrival> = list.into_iter().map(|(_, arrival)| arrival).collect();
        if dry_run {
            return Ok(list);
        }
        let stored = list.clone();
        let done = self.0.store.write(move |db| rows::insert(db, &stored)).await;
        if let Err(StoreError::NameTaken(what)) = done {
            let what = format!("{what} is expected already");
            return Err(EngineError::BadList(vec![ListError { line: 0, what }]));
        }
        done?;
        let message = format!("{} more expected", count(list.len(), "machine"));
        self.note(actor.clone(), None, "machines.expected", Severity::Info, message).await?;
        for arrival in &list {
            for node in self.machines_like(&arrival.keys()) {
                self.welcome(node.id).await?;
            }
        }
        Ok(list)
    }

    /// Forgets a machine that is expected.
    ///
    /// # Errors
    /// [`EngineError::MachineNotFound`], or what the store says.
    pub async fn forget_expected(&self, actor: Actor, name: &str) -> Result<(), EngineError> {
        let gone = name.to_owned();
        if !self.0.store.write(move |db| rows::remove(db, &gone)).await? {
            return Err(EngineError::MachineNotFound(name.chars().take(80).collect()));
        }
        let message = format!("{name} is not expected any more");
        self.note(actor, None, "machines.unexpected", Severity::Info, message).await
    }

    /// Nodes that are known by one of these.
    fn machines_like(&self, keys: &[String]) -> Vec<Arc<Node>> {
        let of = |node: &Node| {
            let macs: Vec<MacAddr> = node.identity.macs.iter().copied().collect();
            arrivals::keys(&macs, node.identity.uuid, node.identity.serial.as_deref())
        };
        self.0.nodes.all().into_iter().filter(|node| of(node).iter().any(|key| keys.contains(key))).collect()
    }

    /// A machine has come, or more is known of it: if it is expected, it gets what was said of it. Where it cannot (its name
    /// was given to another one meanwhile), that is an event, and the machine stays as it is.
    ///
    /// # Errors
    /// Where the store fails.
    pub(super) async fn welcome(&self, id: NodeId) -> Result<(), EngineError> {
        let Some(node) = self.0.nodes.get(id) else { return Ok(()) };
        let macs: Vec<MacAddr> = node.identity.macs.iter().copied().collect();
        let keys = arrivals::keys(&macs, node.identity.uuid, node.identity.serial.as_deref());
        let found = self.0.store.read(move |db| rows::known_by(db, &keys)).await?;
        let arrival = match found.as_slice() {
            [] => return Ok(()),
            [arrival] => arrival.clone(),
            several => {
                let names: Vec<&str> = several.iter().map(|a| a.name.as_str()).collect();
                let message = format!("it answers to several expected machines: {}", names.join(", "));
                return self
                    .note(Actor::Server, Some(id), "machines.conflict", Severity::Error, message)
                    .await;
            }
        };
        let mut events = Vec::new();
        if node.name != arrival.name {
            events.push(Event::Verb(Verb::Rename { name: arrival.name.clone() }));
        }
        if arrival.place.is_some() {
            events.push(Event::Verb(Verb::Place { place: arrival.place.clone() }));
        }
        if arrival.model.is_some() {
            events.push(Event::Verb(Verb::Model { model: arrival.model.clone() }));
        }
        if let Some(pool) = arrival.pool.clone() {
            events.push(Event::Verb(Verb::Pool { pool }));
        }
        if !arrival.tags.is_empty() {
            events.push(Event::Verb(Verb::Tags { tags: arrival.tags.clone() }));
        }
        if arrival.purchased.is_some() || arrival.warranty_end.is_some() {
            let papers = Papers { purchased: arrival.purchased, warranty_end: arrival.warranty_end };
            events.push(Event::Verb(Verb::Papers { papers }));
        }
        let name = arrival.name.clone();
        let also = Arc::new(move |db: &_| match rows::remove(db, &name)? {
            true => Ok(()),
            // Another server was quicker.
            false => Err(StoreError::Conflict),
        });
        match self.apply_together(Actor::Server, vec![(id, events)], also).await {
            Ok(_) => {
                let message = format!("{} has come, which was expected", arrival.name);
                self.note(Actor::Server, Some(id), "machines.came", Severity::Info, message).await?;
                self.compare_again(id).await.map(drop)
            }
            Err(EngineError::Store(StoreError::Conflict)) => Ok(()),
            Err(EngineError::NameTaken(name)) => {
                let message = format!("it is expected as {name}, but another machine has that name");
                self.note(Actor::Server, Some(id), "machines.conflict", Severity::Error, message).await
            }
            Err(error) => Err(error),
        }
    }
}
