//! Networks of projects: kept in memory as they are stored, changed one at a time, and made so by the driver.
//!
//! ```text
//! request ─▶ turn: tried on the draft ─▶ one transaction: rows, usage, event ─▶ memory ─▶ driver: OVN's northbound database
//!                                                                               └──────▶ DPUs
//! ```
//!
//! What cannot be is refused before it is stored (`core::network`). The driver writes the whole as a difference, so a change that it
//! did not hear of is in the next one. Nobody waits for OVN: `synced` says whether it is as the networks are.

mod driver;
mod error;
mod floating;
mod groups;
mod mirrors;
mod networks;
mod ports;
mod routers;
mod shelf;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use boot_server_core::amounts::Amounts;
use boot_server_core::network::{Change, Draft};
use boot_server_core::node::Severity;
use boot_server_core::usage::Kind;
use protocol::{ProjectId, Timestamp};
use tokio::sync::{Notify, OwnedMutexGuard};
use uuid::Uuid;

use super::{Actor, Engine, EngineError, lock, now};
use crate::asking::carried;
use crate::config::OverlaySettings;
use crate::store::db::Connection;
use crate::store::overlay::{self as rows, Net, Plug, Row, SITE};
use crate::store::queries::{NewEvent, insert_event};
use crate::store::{Store, StoreError, usage};

pub use driver::Synced;
pub use error::OverlayError;
pub use floating::NewFloating;
pub use mirrors::NewMirror;
pub use networks::{NetworkChange, NewNetwork, NewSubnet, SubnetChange};
pub use ports::{LimitsChange, NewPort, PortChange};
pub use routers::NewGateway;
pub use shelf::{Held, Slice};

use shelf::Known;

/// Networks and what belongs to them.
pub(super) struct Overlay {
    known: RwLock<Known>,
    /// Held while something is changed.
    turn: Arc<tokio::sync::Mutex<Draft>>,
    /// Something was changed.
    wake: Notify,
    synced: Mutex<Synced>,
}

/// Puts a part of a change into the database.
type Stores = Box<dyn FnOnce(&Connection) -> Result<(), StoreError> + Send>;
/// Puts it into memory.
type Shows = Box<dyn FnOnce(&mut Known) + Send>;

/// One part of a change: what is tried, stored and shown.
struct Step {
    change: Option<Change>,
    store: Stores,
    show: Option<Shows>,
}

/// Whoever has it changes networks, and nobody else does.
type Turn = OwnedMutexGuard<Draft>;

impl Overlay {
    /// As it is stored.
    pub async fn read(store: &Store, settings: Option<&OverlaySettings>) -> Result<Self, StoreError> {
        let known = store
            .read(|db| {
                let mut known = Known::default();
                known.fill::<Net>(rows::rows(db)?);
                known.fill::<boot_server_core::network::Subnet>(rows::rows(db)?);
                known.fill::<Plug>(rows::rows(db)?);
                known.fill::<boot_server_core::network::SecurityGroup>(rows::rows(db)?);
                known.fill::<boot_server_core::network::Router>(rows::rows(db)?);
                known.fill::<boot_server_core::network::Floating>(rows::rows(db)?);
                known.fill::<boot_server_core::network::Mirror>(rows::rows(db)?);
                Ok(known)
            })
            .await?;
        let encap = settings.map(|settings| settings.encap).unwrap_or_default();
        let draft = Draft::new(known.site(encap));
        Ok(Self {
            known: RwLock::new(known),
            turn: Arc::new(tokio::sync::Mutex::new(draft)),
            wake: Notify::new(),
            synced: Mutex::default(),
        })
    }

    fn known<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine {
    /// The site's settings for networks of projects.
    ///
    /// # Errors
    /// [`OverlayError::Off`].
    pub fn overlay_settings(&self) -> Result<&OverlaySettings, EngineError> {
        Ok(self.0.settings.overlay.as_ref().ok_or(OverlayError::Off)?)
    }

    /// A part of the networks of a project, by name or id.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`].
    pub fn overlay_thing<T: Held>(
        &self,
        project: ProjectId,
        reference: &str,
    ) -> Result<Arc<Row<T>>, EngineError> {
        let found = self.0.overlay.known(|known| T::shelf(known).find(project, reference));
        Ok(found.ok_or_else(|| OverlayError::no_such::<T>(reference))?)
    }

    /// Those of a project, oldest first, from the one after `after` on, that `wanted` is true of; at most `limit`.
    pub fn overlay_things<T: Held>(
        &self,
        project: ProjectId,
        after: Option<T::Id>,
        limit: usize,
        wanted: impl Fn(&T) -> bool,
    ) -> Slice<T> {
        self.0.overlay.known(|known| T::shelf(known).slice(project, after, limit, wanted))
    }

    /// A part of networks by its id, whoever has it.
    pub fn overlay_by_id<T: Held>(&self, id: T::Id) -> Option<Arc<Row<T>>> {
        self.0.overlay.known(|known| T::shelf(known).get(id))
    }

    /// What DPUs are to be changed: called after each change of networks.
    pub fn dpus_changed(&self) {
        self.0.networks_changed.notify_one();
    }

    async fn overlay_turn(&self) -> Result<Turn, EngineError> {
        self.overlay_settings()?;
        Ok(self.0.overlay.turn.clone().lock_owned().await)
    }

    /// Carries out a change, whole or not at all. What was begun is ended also where whoever asked goes away meanwhile.
    async fn overlay_commit(
        &self,
        turn: Turn,
        steps: Vec<Step>,
        event: Option<NewEvent>,
    ) -> Result<(), EngineError> {
        let engine = self.clone();
        tokio::spawn(carried(async move { engine.overlay_carry(turn, steps, event).await })).await?
    }

    async fn overlay_carry(
        &self,
        mut turn: Turn,
        steps: Vec<Step>,
        event: Option<NewEvent>,
    ) -> Result<(), EngineError> {
        let (mut changes, mut stores, mut shows) = (Vec::new(), Vec::new(), Vec::new());
        for Step { change, store, show } in steps {
            changes.extend(change);
            stores.push(store);
            shows.extend(show);
        }
        let undo = turn.try_apply(changes).map_err(OverlayError::Cannot)?;
        let line = event.clone();
        let write = move |db: &Connection| {
            stores.into_iter().try_for_each(|store| store(db))?;
            line.map(|line| insert_event(db, &line)).transpose()
        };
        let number = match self.0.store.write(write).await {
            Ok(number) => number,
            Err(error) => {
                turn.undo(undo);
                return Err(error.into());
            }
        };
        {
            let mut known = self.0.overlay.known.write().unwrap_or_else(PoisonError::into_inner);
            shows.into_iter().for_each(|show| show(&mut known));
        }
        lock(&self.0.overlay.synced).wanted += 1;
        drop(turn);
        if let (Some(number), Some(event)) = (number, event) {
            self.announce_event(number, event);
        }
        self.0.overlay.wake.notify_one();
        self.dpus_changed();
        Ok(())
    }
}

/// A line about networks, for their project where they are a project's.
fn line(project: ProjectId, actor: &Actor, kind: &'static str, message: String) -> NewEvent {
    let event = NewEvent::new(now(), actor.name(), kind, Severity::Info, message);
    if project == SITE { event } else { event.of(project) }
}

/// A new row.
fn row<T: Held>(id: T::Id, project: ProjectId, name: String, value: T) -> Row<T> {
    let at = now();
    Row { id, project, name, version: 1, created: at, changed: at, value }
}

fn added<T: Held>(row: Row<T>) -> Step {
    let (stored, change) = (row.clone(), T::change(row.id, Some(&row.value)));
    Step {
        change: Some(change),
        store: Box::new(move |db| rows::insert(db, &stored)),
        show: Some(Box::new(move |known| known.put(row))),
    }
}

/// The row as it was, with another value or name.
fn changed<T: Held>(before: &Row<T>, name: String, value: T) -> (Row<T>, Step) {
    let row = Row { name, value, version: before.version + 1, changed: now(), ..before.clone() };
    let (stored, shown) = (row.clone(), row.clone());
    let step = Step {
        change: Some(T::change(row.id, Some(&row.value))),
        store: Box::new(move |db| rows::update(db, &stored)),
        show: Some(Box::new(move |known| known.put(shown))),
    };
    (row, step)
}

fn removed<T: Held>(id: T::Id) -> Step {
    Step {
        change: Some(T::change(id, None)),
        store: Box::new(move |db| rows::remove::<T>(db, id)),
        show: Some(Box::new(move |known| known.remove::<T>(id))),
    }
}

/// Takes from the project's quota, and begins the record of usage.
fn metered(project: ProjectId, resource: Uuid, name: String, amounts: Amounts, at: Timestamp) -> Step {
    let store = move |db: &Connection| {
        usage::take(db, project, &amounts)?;
        usage::begin(db, Kind::Network, resource, project, &name, None, at, &amounts)
    };
    Step { change: None, store: Box::new(store), show: None }
}

/// Ends a record of usage.
fn unmetered(resource: Uuid) -> Step {
    let at = now();
    Step { change: None, store: Box::new(move |db| usage::end(db, Kind::Network, resource, at)), show: None }
}

/// Longest name.
const NAME_MAX: usize = 63;

/// A name as it is kept: letters, digits and `.`, `_`, `-`; none that could be an id.
fn checked_name(name: &str) -> Result<String, OverlayError> {
    let good = (1..=NAME_MAX).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && Uuid::try_parse(name).is_err();
    if good { Ok(name.to_owned()) } else { Err(OverlayError::BadName(name.chars().take(80).collect())) }
}

/// The same where there need not be one.
fn optional_name(name: Option<&str>) -> Result<String, OverlayError> {
    name.filter(|name| !name.is_empty()).map_or(Ok(String::new()), checked_name)
}

/// What a row is called: its name, or its id.
fn called<T: Held>(row: &Row<T>) -> String {
    if row.name.is_empty() { row.id.to_string() } else { row.name.clone() }
}
