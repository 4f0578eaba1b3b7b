//! Pools and flavors, and what machines are in facts: in memory as they are stored, so that ten thousand machines are looked at in
//! a moment.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use boot_server_core::flavor::{Flavor, FlavorError};
use boot_server_core::hardware::Hardware;
use boot_server_core::names::{FlavorName, PoolName, TAGS_MAX, Tag};
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Event, Node, Severity};
use boot_server_core::placement::COUNT_MAX;
use boot_server_core::plural::count;
use boot_server_core::pool::{Pool, PoolError};
use protocol::NodeId;
use protocol::inventory::Inventory;

use super::{Actor, Engine, EngineError, now};
use crate::store::pools::{self as rows, Kept};
use crate::store::{Store, StoreError};
use crate::view::Problem;

/// Pools of a site.
const POOLS_MAX: usize = 500;
/// Flavors of a site.
const FLAVORS_MAX: usize = 1000;

/// Why pools, flavors and groups are not as somebody wants them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacingError {
    /// No pool has this name.
    #[error("no pool `{0}`")]
    NoPool(String),
    /// No flavor has this name.
    #[error("no flavor `{0}`")]
    NoFlavor(String),
    /// The project has no such group.
    #[error("no server group `{0}`")]
    NoGroup(String),
    /// It cannot be.
    #[error(transparent)]
    BadPool(#[from] PoolError),
    /// It cannot be.
    #[error(transparent)]
    BadFlavor(#[from] FlavorError),
    /// The name cannot be changed.
    #[error("it calls itself `{0}`, which is not the name in its address")]
    OtherName(String),
    /// It is used.
    #[error("{what} is used: {by}")]
    Used {
        /// What.
        what: String,
        /// By what.
        by: String,
    },
    /// The pool that is always there.
    #[error("pool default is for machines that are in no other, and stays")]
    Default,
    /// Somebody else was quicker.
    #[error("it was changed meanwhile by somebody else")]
    Changed,
    /// Too many tags.
    #[error("a machine has at most {TAGS_MAX} tags")]
    Tags,
    /// A question that makes no sense.
    #[error("{what}")]
    Bad {
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: &'static str,
    },
}

impl PlacingError {
    /// Status, code and hint.
    pub fn problem(&self) -> Problem {
        let (status, code, hint) = match self {
            Self::NoPool(_) => (404, "pool-not-found", "list them with `billet pool list`"),
            Self::NoFlavor(_) => (404, "flavor-not-found", "list them with `billet flavor list`"),
            Self::NoGroup(_) => (404, "group-not-found", "list them with `billet group list`"),
            Self::BadPool(_) => (422, "bad-pool", "see the guide on pools and flavors"),
            Self::BadFlavor(_) => (422, "bad-flavor", "see the guide on pools and flavors"),
            Self::OtherName(_) => (422, "other-name", "make a new one, and remove this one"),
            Self::Used { .. } => {
                (409, "in-use", "move or delete what uses it first; a flavor can be withdrawn")
            }
            Self::Default => (409, "default-pool", "move its machines into pools of their own"),
            Self::Changed => (412, "precondition-failed", "open it again, and decide by what it is now"),
            Self::Tags => (422, "tags", "take some away"),
            Self::Bad { hint, .. } => (422, "bad-placement", *hint),
        };
        Problem { status, code: code.to_owned(), message: self.to_string(), hint: hint.to_owned() }
    }
}

impl<T> Kept<T> {
    fn is_as_seen(&self, seen: Option<i64>) -> Result<(), PlacingError> {
        if seen.is_none_or(|seen| seen == self.version) { Ok(()) } else { Err(PlacingError::Changed) }
    }
}

/// What is known of pools, flavors and machines.
#[derive(Default)]
pub(super) struct Shelf(RwLock<Known>);

#[derive(Default, Clone)]
struct Known {
    pools: BTreeMap<PoolName, Kept<Arc<Pool>>>,
    flavors: BTreeMap<FlavorName, Kept<Arc<Flavor>>>,
    hardware: BTreeMap<NodeId, Arc<Hardware>>,
}

impl Shelf {
    /// As it is stored. Facts that were not drawn yet, or in an older way, are drawn now.
    pub async fn read(store: &Store) -> Result<Self, StoreError> {
        let undrawn = store.read(rows::undrawn).await?;
        if !undrawn.is_empty() {
            tracing::info!(machines = undrawn.len(), "drawing what machines are from their inventories");
        }
        for node in undrawn {
            store.write(move |db| rows::draw(db, node)).await?;
        }
        let read = |db: &_| Ok((rows::kept::<Pool>(db)?, rows::kept::<Flavor>(db)?, rows::hardware(db)?));
        let (pools, flavors, hardware) = store.read(read).await?;
        let shelf = Self::default();
        shelf.write(|known| {
            known.pools = pools.into_iter().map(|it| (it.value.name.clone(), shared(it))).collect();
            known.flavors = flavors.into_iter().map(|it| (it.value.name.clone(), shared(it))).collect();
            known.hardware = hardware.into_iter().map(|(node, facts)| (node, Arc::new(facts))).collect();
        });
        Ok(shelf)
    }

    fn read_with<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// All pools.
    pub fn pools(&self) -> BTreeMap<PoolName, Kept<Arc<Pool>>> {
        self.read_with(|known| known.pools.clone())
    }

    /// All flavors.
    pub fn flavors(&self) -> BTreeMap<FlavorName, Kept<Arc<Flavor>>> {
        self.read_with(|known| known.flavors.clone())
    }

    /// A machine has a new inventory.
    pub fn inspected(&self, node: NodeId, inventory: &Inventory) {
        let facts = Arc::new(Hardware::of(inventory));
        self.write(|known| {
            known.hardware.insert(node, facts);
        });
    }

    /// A machine is forgotten.
    pub fn forget(&self, node: NodeId) {
        self.write(|known| {
            known.hardware.remove(&node);
        });
    }

    /// What each of these machines is, with its tags.
    pub fn hardware(&self, nodes: &[Arc<Node>]) -> Vec<Option<Arc<Hardware>>> {
        let mut stale = Vec::new();
        let found: Vec<_> = self.read_with(|known| {
            let of = |node: &Arc<Node>| {
                let facts = known.hardware.get(&node.id)?;
                if facts.tags == node.tags {
                    return Some(facts.clone());
                }
                let tagged = Arc::new(Hardware::clone(facts).tagged(node.tags.clone()));
                stale.push((node.id, tagged.clone()));
                Some(tagged)
            };
            nodes.iter().map(of).collect()
        });
        if !stale.is_empty() {
            self.write(|known| known.hardware.extend(stale));
        }
        found
    }
}

fn shared<T>(kept: Kept<T>) -> Kept<Arc<T>> {
    Kept { value: Arc::new(kept.value), version: kept.version, changed: kept.changed }
}

fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

impl Engine {
    /// All pools, by name.
    pub fn pools(&self) -> Vec<Kept<Arc<Pool>>> {
        self.0.shelf.pools().into_values().collect()
    }

    /// The pool of this name.
    ///
    /// # Errors
    /// [`PlacingError::NoPool`].
    pub fn pool(&self, name: &str) -> Result<Kept<Arc<Pool>>, EngineError> {
        let found = name.parse().ok().and_then(|name: PoolName| self.0.shelf.pools().remove(&name));
        Ok(found.ok_or_else(|| PlacingError::NoPool(short(name)))?)
    }

    /// Makes a pool.
    ///
    /// # Errors
    /// Where it cannot be, or its name is taken.
    pub async fn create_pool(&self, actor: Actor, pool: Pool) -> Result<Kept<Arc<Pool>>, EngineError> {
        pool.check().map_err(PlacingError::from)?;
        let _turn = self.0.shelf_turn.lock().await;
        if self.0.shelf.pools().len() >= POOLS_MAX {
            return Err(EngineError::Full("it has 500 pools"));
        }
        let (at, stored) = (now(), pool.clone());
        self.0.store.write(move |db| rows::insert(db, &stored, at)).await?;
        let message = format!("pool {} was made", pool.name);
        let kept = Kept { value: Arc::new(pool), version: 1, changed: at };
        self.put_pool(kept.clone());
        self.note(actor, None, "pool.created", Severity::Info, message).await?;
        Ok(kept)
    }

    /// Changes a pool. Where the version that somebody saw is given, only that one is changed.
    ///
    /// # Errors
    /// Where there is none of this name, it cannot be, or it is another version; [`EngineError::NeedsTwo`] where it would ask for
    /// four eyes no more.
    pub async fn change_pool(
        &self,
        actor: Actor,
        name: &str,
        pool: Pool,
        seen: Option<i64>,
    ) -> Result<Kept<Arc<Pool>>, EngineError> {
        pool.check().map_err(PlacingError::from)?;
        let _turn = self.0.shelf_turn.lock().await;
        let before = self.pool(name)?;
        before.is_as_seen(seen)?;
        if pool.name != before.value.name {
            return Err(PlacingError::OtherName(pool.name.to_string()).into());
        }
        if *before.value == pool {
            return Ok(before);
        }
        if before.value.four_eyes && !pool.four_eyes {
            self.check_closing(&pool.name)?;
        }
        let (at, stored, version) = (now(), pool.clone(), before.version);
        self.0.store.write(move |db| rows::update(db, &stored, version, at)).await?;
        let kept = Kept { value: Arc::new(pool), version: version + 1, changed: at };
        self.put_pool(kept.clone());
        self.note(actor, None, "pool.changed", Severity::Info, format!("pool {name} was changed")).await?;
        Ok(kept)
    }

    /// Removes a pool that no machine is in.
    ///
    /// # Errors
    /// [`PlacingError::Used`], or where there is none of this name.
    pub async fn remove_pool(&self, actor: Actor, name: &str) -> Result<(), EngineError> {
        let _turn = self.0.shelf_turn.lock().await;
        let pool = self.pool(name)?.value.name.clone();
        if pool == PoolName::default_pool() {
            return Err(PlacingError::Default.into());
        }
        let used = |by: String| Err(PlacingError::Used { what: format!("pool {pool}"), by }.into());
        let inside = self.0.nodes.all().iter().filter(|node| node.pool.as_ref() == Some(&pool)).count();
        if inside > 0 {
            return used(format!("{} in it", count(inside, "machine")));
        }
        let flavors = self.0.shelf.flavors();
        if let Some(flavor) = flavors.values().find(|flavor| flavor.value.pools.contains(&pool)) {
            return used(format!("flavor {} names it", flavor.value.name));
        }
        let gone = name.to_owned();
        self.0.store.write(move |db| rows::remove::<Pool>(db, &gone)).await?;
        self.0.shelf.write(|known| {
            known.pools.remove(&pool);
        });
        self.note(actor, None, "pool.removed", Severity::Info, format!("pool {pool} was removed")).await
    }

    fn put_pool(&self, kept: Kept<Arc<Pool>>) {
        self.0.shelf.write(|known| {
            known.pools.insert(kept.value.name.clone(), kept);
        });
    }

    /// All flavors, by name.
    pub fn flavors(&self) -> Vec<Kept<Arc<Flavor>>> {
        self.0.shelf.flavors().into_values().collect()
    }

    /// The flavor of this name.
    ///
    /// # Errors
    /// [`PlacingError::NoFlavor`].
    pub async fn flavor(&self, name: &str) -> Result<Arc<Flavor>, EngineError> {
        Ok(self.kept_flavor(name)?.value)
    }

    /// The flavor of this name, with its version.
    ///
    /// # Errors
    /// [`PlacingError::NoFlavor`].
    pub fn kept_flavor(&self, name: &str) -> Result<Kept<Arc<Flavor>>, EngineError> {
        let found = name.parse().ok().and_then(|name: FlavorName| self.0.shelf.flavors().remove(&name));
        Ok(found.ok_or_else(|| PlacingError::NoFlavor(short(name)))?)
    }

    /// Makes a flavor.
    ///
    /// # Errors
    /// Where it cannot be, or its name is taken.
    pub async fn create_flavor(
        &self,
        actor: Actor,
        flavor: Flavor,
    ) -> Result<Kept<Arc<Flavor>>, EngineError> {
        let _turn = self.0.shelf_turn.lock().await;
        self.check_flavor(&flavor)?;
        if self.0.shelf.flavors().len() >= FLAVORS_MAX {
            return Err(EngineError::Full("it has 1,000 flavors"));
        }
        let (at, stored) = (now(), flavor.clone());
        self.0.store.write(move |db| rows::insert(db, &stored, at)).await?;
        let message = format!("flavor {} was made", flavor.name);
        let kept = Kept { value: Arc::new(flavor), version: 1, changed: at };
        self.put_flavor(kept.clone());
        self.note(actor, None, "flavor.created", Severity::Info, message).await?;
        Ok(kept)
    }

    /// Changes a flavor. Servers that have it keep what they were billed. Where the version that somebody saw is given, only
    /// that one is changed.
    ///
    /// # Errors
    /// Where there is none of this name, it cannot be, or it is another version.
    pub async fn change_flavor(
        &self,
        actor: Actor,
        name: &str,
        flavor: Flavor,
        seen: Option<i64>,
    ) -> Result<Kept<Arc<Flavor>>, EngineError> {
        let _turn = self.0.shelf_turn.lock().await;
        self.check_flavor(&flavor)?;
        let before = self.kept_flavor(name)?;
        before.is_as_seen(seen)?;
        if flavor.name != before.value.name {
            return Err(PlacingError::OtherName(flavor.name.to_string()).into());
        }
        if *before.value == flavor {
            return Ok(before);
        }
        let (at, stored, version) = (now(), flavor.clone(), before.version);
        self.0.store.write(move |db| rows::update(db, &stored, version, at)).await?;
        let kept = Kept { value: Arc::new(flavor), version: version + 1, changed: at };
        self.put_flavor(kept.clone());
        self.note(actor, None, "flavor.changed", Severity::Info, format!("flavor {name} was changed"))
            .await?;
        Ok(kept)
    }

    /// Removes a flavor that no living server has.
    ///
    /// # Errors
    /// [`PlacingError::Used`], or where there is none of this name.
    pub async fn remove_flavor(&self, actor: Actor, name: &str) -> Result<(), EngineError> {
        let _turn = self.0.shelf_turn.lock().await;
        let flavor = self.kept_flavor(name)?.value.name.clone();
        let servers = self.servers_of_flavor(&flavor).await?;
        if servers > 0 {
            let (what, by) = (format!("flavor {flavor}"), format!("{} of it", count(servers, "server")));
            return Err(PlacingError::Used { what, by }.into());
        }
        let gone = name.to_owned();
        self.0.store.write(move |db| rows::remove::<Flavor>(db, &gone)).await?;
        self.0.shelf.write(|known| {
            known.flavors.remove(&flavor);
        });
        self.note(actor, None, "flavor.removed", Severity::Info, format!("flavor {flavor} was removed")).await
    }

    fn check_flavor(&self, flavor: &Flavor) -> Result<(), EngineError> {
        flavor.check().map_err(PlacingError::from)?;
        let pools = self.0.shelf.pools();
        match flavor.pools.iter().find(|pool| !pools.contains_key(pool)) {
            Some(pool) => Err(PlacingError::NoPool(pool.to_string()).into()),
            None => Ok(()),
        }
    }

    fn put_flavor(&self, kept: Kept<Arc<Flavor>>) {
        self.0.shelf.write(|known| {
            known.flavors.insert(kept.value.name.clone(), kept);
        });
    }

    /// Puts a machine into a pool; `None`: into the default one.
    ///
    /// # Errors
    /// [`PlacingError::NoPool`], or what the store says.
    pub async fn set_node_pool(
        &self,
        node: &Node,
        actor: Actor,
        pool: Option<PoolName>,
    ) -> Result<Node, EngineError> {
        // No pool is removed meanwhile.
        let _turn = self.0.shelf_turn.lock().await;
        let pool = pool.unwrap_or_else(PoolName::default_pool);
        if !self.0.shelf.pools().contains_key(&pool) {
            return Err(PlacingError::NoPool(pool.to_string()).into());
        }
        self.apply(node.id, actor, Event::Verb(Verb::Pool { pool })).await
    }

    /// Says of a machine what its inventory does not.
    ///
    /// # Errors
    /// [`PlacingError::Tags`], or what the store says.
    pub async fn set_node_tags(
        &self,
        node: &Node,
        actor: Actor,
        tags: std::collections::BTreeSet<Tag>,
    ) -> Result<Node, EngineError> {
        if tags.len() > TAGS_MAX {
            return Err(PlacingError::Tags.into());
        }
        self.apply(node.id, actor, Event::Verb(Verb::Tags { tags })).await
    }
}

/// The most that one request may ask for.
pub(super) fn check_count(count: usize) -> Result<(), PlacingError> {
    if (1..=COUNT_MAX).contains(&count) {
        return Ok(());
    }
    let what = format!("{count} machines in one request are not from 1 to {COUNT_MAX}");
    Err(PlacingError::Bad { what, hint: "ask several times" })
}
