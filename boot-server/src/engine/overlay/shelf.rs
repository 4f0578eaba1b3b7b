//! Parts of networks in memory, by id, by project and by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use boot_server_core::network::{Change, Encap, Floating, Mirror, Router, SecurityGroup, Site, Subnet};
use protocol::{PortId, ProjectId, ServerId};

use crate::store::overlay::{Net, Plug, Row, Thing};

/// Rows of one kind.
#[derive(Debug)]
pub struct Shelf<T: Thing> {
    rows: BTreeMap<T::Id, Arc<Row<T>>>,
    of: BTreeMap<ProjectId, BTreeSet<T::Id>>,
    names: BTreeMap<(ProjectId, String), T::Id>,
}

impl<T: Thing> Default for Shelf<T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), of: BTreeMap::new(), names: BTreeMap::new() }
    }
}

/// Some rows, and whether more follow.
#[derive(Debug)]
pub struct Slice<T: Thing> {
    /// The rows.
    pub rows: Vec<Arc<Row<T>>>,
    /// There are more.
    pub more: bool,
}

impl<T: Thing> Shelf<T> {
    /// By its id.
    pub fn get(&self, id: T::Id) -> Option<Arc<Row<T>>> {
        self.rows.get(&id).cloned()
    }

    /// A project's, by id or name.
    pub fn find(&self, project: ProjectId, reference: &str) -> Option<Arc<Row<T>>> {
        let id = match reference.parse::<T::Id>() {
            Ok(id) => Some(id),
            Err(_) => self.names.get(&(project, reference.to_owned())).copied(),
        };
        self.get(id?).filter(|row| row.project == project)
    }

    /// How many a project has.
    pub fn count(&self, project: ProjectId) -> usize {
        self.of.get(&project).map_or(0, BTreeSet::len)
    }

    /// A project's, oldest first.
    pub fn of(&self, project: ProjectId, after: Option<T::Id>) -> impl Iterator<Item = &Arc<Row<T>>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.of.get(&project).into_iter().flat_map(move |ids| ids.range((from, Bound::Unbounded)));
        ids.filter_map(|id| self.rows.get(id))
    }

    /// Some of a project's.
    pub fn slice(
        &self,
        project: ProjectId,
        after: Option<T::Id>,
        limit: usize,
        wanted: impl Fn(&T) -> bool,
    ) -> Slice<T> {
        let found = self.of(project, after).filter(|row| wanted(&row.value));
        let mut rows: Vec<_> = found.take(limit.saturating_add(1)).cloned().collect();
        let more = rows.len() > limit;
        rows.truncate(limit);
        Slice { rows, more }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Row<T>>> {
        self.rows.values()
    }

    fn put(&mut self, row: Row<T>) -> Option<Arc<Row<T>>> {
        let before = self.remove(row.id);
        self.of.entry(row.project).or_default().insert(row.id);
        if !row.name.is_empty() {
            self.names.insert((row.project, row.name.clone()), row.id);
        }
        self.rows.insert(row.id, Arc::new(row));
        before
    }

    fn remove(&mut self, id: T::Id) -> Option<Arc<Row<T>>> {
        let row = self.rows.remove(&id)?;
        self.names.remove(&(row.project, row.name.clone()));
        if let Some(ids) = self.of.get_mut(&row.project) {
            ids.remove(&id);
            if ids.is_empty() {
                self.of.remove(&row.project);
            }
        }
        Some(row)
    }
}

/// Everything, as it is stored.
#[derive(Debug, Default)]
pub struct Known {
    networks: Shelf<Net>,
    subnets: Shelf<Subnet>,
    ports: Shelf<Plug>,
    groups: Shelf<SecurityGroup>,
    routers: Shelf<Router>,
    floating: Shelf<Floating>,
    mirrors: Shelf<Mirror>,
    plugged: BTreeMap<ServerId, BTreeSet<PortId>>,
}

/// A kind of thing that is kept on a shelf and tried on a draft.
pub trait Held: Thing {
    /// Its shelf.
    fn shelf(known: &Known) -> &Shelf<Self>;
    /// The same, to change it.
    fn shelf_mut(known: &mut Known) -> &mut Shelf<Self>;
    /// What is tried.
    fn change(id: Self::Id, value: Option<&Self>) -> Change;
}

macro_rules! held {
    ($($thing:ty, $shelf:ident, $change:ident, $value:expr;)*) => {$(
        impl Held for $thing {
            fn shelf(known: &Known) -> &Shelf<Self> {
                &known.$shelf
            }
            fn shelf_mut(known: &mut Known) -> &mut Shelf<Self> {
                &mut known.$shelf
            }
            fn change(id: Self::Id, value: Option<&Self>) -> Change {
                Change::$change(id, value.map($value))
            }
        }
    )*};
}

held! {
    Net, networks, Network, |it: &Net| it.network.clone();
    Subnet, subnets, Subnet, Subnet::clone;
    Plug, ports, Port, |it: &Plug| it.port.clone();
    SecurityGroup, groups, Group, SecurityGroup::clone;
    Router, routers, Router, Router::clone;
    Floating, floating, Floating, Floating::clone;
    Mirror, mirrors, Mirror, Mirror::clone;
}

impl Known {
    /// Puts all rows of a kind there.
    pub fn fill<T: Held>(&mut self, rows: Vec<Row<T>>) {
        rows.into_iter().for_each(|row| self.put(row));
    }

    /// Puts a row there, in place of the one with its id.
    pub fn put<T: Held>(&mut self, row: Row<T>) {
        let (id, now) = (row.id, row.value.server());
        let before = T::shelf_mut(self).put(row).and_then(|row| row.value.server());
        self.moved::<T>(id, before, now);
    }

    /// Takes a row away.
    pub fn remove<T: Held>(&mut self, id: T::Id) {
        let before = T::shelf_mut(self).remove(id).and_then(|row| row.value.server());
        self.moved::<T>(id, before, None);
    }

    /// Ports of a server.
    pub fn plugged(&self, server: ServerId) -> Vec<Arc<Row<Plug>>> {
        let ids = self.plugged.get(&server).into_iter().flatten();
        ids.filter_map(|id| self.ports.get(*id)).collect()
    }

    /// Servers that have ports.
    pub fn servers(&self) -> Vec<ServerId> {
        self.plugged.keys().copied().collect()
    }

    /// The whole, for the driver.
    pub fn site(&self, encap: Encap) -> Site {
        Site {
            encap,
            networks: self.networks.all().map(|row| (row.id, row.value.network.clone())).collect(),
            subnets: self.subnets.all().map(|row| (row.id, row.value.clone())).collect(),
            ports: self.ports.all().map(|row| (row.id, row.value.port.clone())).collect(),
            groups: self.groups.all().map(|row| (row.id, row.value.clone())).collect(),
            routers: self.routers.all().map(|row| (row.id, row.value.clone())).collect(),
            floating: self.floating.all().map(|row| (row.id, row.value.clone())).collect(),
            mirrors: self.mirrors.all().map(|row| (row.id, row.value.clone())).collect(),
        }
    }

    /// How many networks, ports and routers there are.
    pub fn counts(&self) -> [usize; 3] {
        [self.networks.rows.len(), self.ports.rows.len(), self.routers.rows.len()]
    }

    /// Only ports are ever plugged in, and their ids are those of ports.
    fn moved<T: Held>(&mut self, id: T::Id, from: Option<ServerId>, to: Option<ServerId>) {
        let Ok(id) = id.to_string().parse::<PortId>() else { return };
        if from == to {
            return;
        }
        if let Some(from) = from
            && let Some(ids) = self.plugged.get_mut(&from)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.plugged.remove(&from);
            }
        }
        if let Some(to) = to {
            self.plugged.entry(to).or_default().insert(id);
        }
    }
}
