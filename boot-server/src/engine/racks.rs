//! Racks as they stand in their rooms, drawn from where machines are said to stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use boot_server_core::bmc::health::Level;
use boot_server_core::node::place::Label;
use boot_server_core::node::{Node, Place, StateName};

use super::{Engine, EngineError, lock};
use crate::view::place::{RackView, RackedView, RoomView};

/// Units of a rack of which no machine stands higher.
const UNITS: u8 = 42;

/// Racks of a room, how many machines stand there, and how many of them are in trouble.
type Room = (BTreeSet<String>, u64, u64);

impl Engine {
    /// Rooms with racks, by name; racks without a room last.
    pub fn rooms(&self) -> Vec<RoomView> {
        let mut rooms: BTreeMap<(bool, Option<String>), Room> = BTreeMap::new();
        let nodes = self.0.nodes.all();
        let health = lock(&self.0.health);
        for node in &nodes {
            let Some(place) = &node.place else { continue };
            let room = room_of(place).map(str::to_owned);
            let (racks, count, trouble) = rooms.entry((room.is_none(), room)).or_default();
            if !racks.contains(place.rack.as_str()) {
                racks.insert(place.rack.as_str().to_owned());
            }
            *count += 1;
            let level = health.get(&node.id).map(|known| known.verdict.level);
            *trouble += u64::from(in_trouble(node, level));
        }
        rooms
            .into_iter()
            .map(|((_, room), (racks, nodes, trouble))| RoomView {
                room,
                racks: racks.len() as u64,
                nodes,
                trouble,
            })
            .collect()
    }

    /// The racks of a room, by name; `None`: those without a room.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn racks(&self, room: Option<&str>) -> Result<Vec<RackView>, EngineError> {
        let lent = self.lent().await?;
        let mut racks: BTreeMap<String, Vec<RackedView>> = BTreeMap::new();
        for node in self.0.nodes.all() {
            let Some(place) = node.place.as_ref().filter(|place| room_of(place) == room) else { continue };
            let racked = self.racked(&node, place, lent.contains(&node.id));
            racks.entry(place.rack.as_str().to_owned()).or_default().push(racked);
        }
        let room = room.map(str::to_owned);
        Ok(racks.into_iter().map(|(rack, nodes)| rack_view(room.clone(), rack, nodes)).collect())
    }

    /// Machines of which nobody said where they stand.
    pub fn unplaced(&self) -> u64 {
        self.0.nodes.all().iter().filter(|node| node.place.is_none()).count() as u64
    }

    fn racked(&self, node: &Arc<Node>, place: &Place, lent: bool) -> RackedView {
        RackedView {
            node: node.id,
            name: node.name.clone(),
            unit: place.unit.map(|unit| unit.number()),
            height: place.height.map_or(1, |height| height.number()),
            power_feed: place.power_feed.as_ref().map(|feed| feed.as_str().to_owned()),
            pool: node.pool(),
            state: node.state.name(),
            power: self.power_of(node.id),
            health: self.health(node.id).map(|verdict| verdict.level),
            maintenance: node.maintenance.is_some(),
            lent,
            overlaps: false,
        }
    }
}

fn room_of(place: &Place) -> Option<&str> {
    place.room.as_ref().map(Label::as_str)
}

/// True where somebody should look at the machine.
pub(super) fn in_trouble(node: &Node, health: Option<Level>) -> bool {
    node.state.name() == StateName::Failed || health.is_some_and(|level| level != Level::Ok)
}

fn rack_view(room: Option<String>, rack: String, mut nodes: Vec<RackedView>) -> RackView {
    let mut taken: BTreeMap<u8, u32> = BTreeMap::new();
    let units = |node: &RackedView| {
        let (low, height) = (node.unit?, node.height.max(1));
        Some(low..=low.saturating_add(height - 1))
    };
    for unit in nodes.iter().filter_map(units).flatten() {
        *taken.entry(unit).or_default() += 1;
    }
    for node in &mut nodes {
        node.overlaps = units(node).is_some_and(|mut units| units.any(|unit| taken[&unit] > 1));
    }
    nodes.sort_by(|a, b| (b.unit, &a.name).cmp(&(a.unit, &b.name)));
    let units = taken.keys().next_back().copied().unwrap_or(0).max(UNITS);
    RackView { room, rack, units, nodes }
}

#[cfg(test)]
mod tests {
    use boot_server_core::names::PoolName;
    use protocol::NodeId;
    use uuid::Uuid;

    use super::*;

    fn racked(n: u128, unit: Option<u8>, height: u8) -> RackedView {
        RackedView {
            node: NodeId(Uuid::from_u128(n)),
            name: format!("node-{n}"),
            unit,
            height,
            power_feed: None,
            pool: PoolName::default_pool(),
            state: StateName::Available,
            power: None,
            health: None,
            maintenance: false,
            lent: false,
            overlaps: false,
        }
    }

    #[test]
    fn a_rack_is_seen_from_above() {
        let nodes =
            vec![racked(1, Some(1), 2), racked(2, None, 1), racked(3, Some(44), 1), racked(4, Some(2), 1)];
        let rack = rack_view(None, "R1".to_owned(), nodes);
        let seen: Vec<_> = rack.nodes.iter().map(|n| (n.name.as_str(), n.overlaps)).collect();
        assert_eq!(seen, [("node-3", false), ("node-4", true), ("node-1", true), ("node-2", false)]);
        assert_eq!(rack.units, 44);
        assert_eq!(rack_view(None, "R2".to_owned(), vec![]).units, 42);
    }
}
