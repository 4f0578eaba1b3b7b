//! Racks as they stand, room by room: power and health of each machine by shape and words.

use std::fmt::Write as _;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use bmc::PowerState;
use boot_server_core::bmc::health::Level;
use boot_server_core::node::StateName;
use serde::Deserialize;

use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, render};
use crate::http::encode::encode;
use crate::view::place::{RackView, RackedView, RoomView};

/// Racks on one page: some thousand machines at most.
const RACKS: usize = 24;
/// Height of a unit in the picture.
const UNIT: u32 = 20;
/// Longest name in the picture, in characters.
const NAME: usize = 20;

#[derive(Template)]
#[template(path = "racks.html")]
struct RacksPage {
    nav: &'static str,
    rooms: Vec<Chip>,
    query: String,
    trouble: bool,
    room: String,
    racks: Vec<Drawn>,
    unplaced: u64,
    shown: usize,
    total: usize,
    earlier: Option<String>,
    later: Option<String>,
    recipe: Recipe,
}

struct Chip {
    words: String,
    href: String,
    current: bool,
    nodes: u64,
    trouble: u64,
}

/// A rack as a picture.
struct Drawn {
    rack: RackView,
    height: u32,
    units: Vec<(u8, u32)>,
    boxes: Vec<Box_>,
    loose: Vec<RackedView>,
}

/// A machine in the picture.
struct Box_ {
    node: RackedView,
    y: u32,
    height: u32,
    middle: u32,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Asked {
    room: Option<String>,
    q: String,
    trouble: String,
    page: usize,
}

pub(super) async fn show(State(ui): State<Ui>, Query(asked): Query<Asked>) -> Result<Response, Refusal> {
    let rooms = ui.engine.rooms();
    let first = rooms.first().and_then(|room| room.room.clone()).unwrap_or_default();
    let room = asked.room.clone().unwrap_or(first);
    let all = ui.engine.racks(Some(room.as_str()).filter(|room| !room.is_empty())).await?;
    let trouble = asked.trouble == "1";
    let wanted = asked.q.trim().to_lowercase();
    let racks: Vec<RackView> = all.into_iter().filter(|rack| holds(rack, &wanted, trouble)).collect();
    let (total, page) = (racks.len(), asked.page.min(racks.len() / RACKS));
    let link = |page: usize| address(&room, &asked.q, trouble, page);
    let drawn: Vec<Drawn> = racks.into_iter().skip(page * RACKS).take(RACKS).map(draw).collect();
    let cli = if room.is_empty() {
        "billet rack list".to_owned()
    } else {
        format!("billet rack list --room {}", f::shell(&room))
    };
    let recipe = Recipe::default().and(&cli, "GET", &format!("racks?room={}", encode(&room)), None);
    let page = RacksPage {
        nav: "racks",
        rooms: rooms.iter().map(|it| chip(it, &room)).collect(),
        trouble,
        shown: drawn.len(),
        total,
        racks: drawn,
        unplaced: ui.engine.unplaced(),
        earlier: page.checked_sub(1).map(link),
        later: ((page + 1) * RACKS < total).then(|| link(page + 1)),
        query: asked.q.clone(),
        room: room.clone(),
        recipe,
    };
    Ok(render(200, &page))
}

fn address(room: &str, query: &str, trouble: bool, page: usize) -> String {
    let mut to = format!("/racks?room={}", encode(room));
    if !query.is_empty() {
        let _ = write!(to, "&q={}", encode(query));
    }
    if trouble {
        to.push_str("&trouble=1");
    }
    if page > 0 {
        let _ = write!(to, "&page={page}");
    }
    to
}

fn chip(it: &RoomView, room: &str) -> Chip {
    let name = it.room.clone().unwrap_or_default();
    Chip {
        href: address(&name, "", false, 0),
        current: name == room,
        words: it.room.clone().unwrap_or_else(|| "no room".to_owned()),
        nodes: it.nodes,
        trouble: it.trouble,
    }
}

/// True where the rack or one of its machines has what is looked for.
fn holds(rack: &RackView, wanted: &str, trouble: bool) -> bool {
    let named = wanted.is_empty()
        || rack.rack.to_lowercase().contains(wanted)
        || rack.nodes.iter().any(|node| node.name.to_lowercase().contains(wanted));
    named && (!trouble || rack.nodes.iter().any(in_trouble))
}

fn in_trouble(node: &RackedView) -> bool {
    node.state == StateName::Failed || node.health.is_some_and(|level| level != Level::Ok)
}

fn draw(mut rack: RackView) -> Drawn {
    let top = u32::from(rack.units);
    // The highest unit is the first line.
    let y = |highest: u32| top.saturating_sub(highest) * UNIT;
    let (placed, loose): (Vec<_>, Vec<_>) =
        std::mem::take(&mut rack.nodes).into_iter().partition(|node| node.unit.is_some());
    let boxes = placed.into_iter().map(|node| {
        let (low, units) = (u32::from(node.unit.unwrap_or(1)), u32::from(node.height.max(1)));
        let highest = (low + units - 1).min(top);
        let height = (highest + 1).saturating_sub(low).max(1) * UNIT;
        let name = match node.name.chars().count() {
            ..=NAME => node.name.clone(),
            _ => node.name.chars().take(NAME - 1).chain(['…']).collect(),
        };
        Box_ { y: y(highest), height: height - 2, middle: y(highest) + height / 2 + 4, name, node }
    });
    let boxes = boxes.collect();
    let units = (1..=rack.units).rev().map(|unit| (unit, y(u32::from(unit)) + 14)).collect();
    Drawn { height: top * UNIT, units, boxes, loose, rack }
}

/// Power as a shape that is told apart without colour.
fn power_shape(node: &RackedView) -> &'static str {
    match node.power {
        Some(PowerState::On) => "●",
        Some(PowerState::Off) => "○",
        _ => "·",
    }
}

/// Health as a shape; nothing where it is not known.
fn health_shape(node: &RackedView) -> &'static str {
    match node.health {
        Some(Level::Critical) => "✕",
        Some(Level::Warning) => "▲",
        Some(Level::Ok) => "✓",
        None => "",
    }
}

/// The same in words, for whoever does not see the picture.
fn words(node: &RackedView) -> String {
    let power = match node.power {
        Some(PowerState::On) => "on",
        Some(PowerState::Off) => "off",
        _ => "power not known",
    };
    let mut words = format!("{}, {power}", f::look(node.state).label.to_lowercase());
    if let Some(level) = node.health {
        let _ = write!(words, ", health {}", level.as_str());
    }
    for (said, what) in [
        (node.lent, "has a server"),
        (node.maintenance, "under maintenance"),
        (node.overlaps, "in the way of another"),
    ] {
        if said {
            let _ = write!(words, ", {what}");
        }
    }
    words
}

/// The class of its box.
fn tone(node: &RackedView) -> &'static str {
    match (node.health, node.state) {
        (Some(Level::Critical), _) | (_, StateName::Failed) => "bad",
        (Some(Level::Warning), _) => "ask",
        _ if node.maintenance => "ask",
        (_, StateName::Active) => "good",
        (_, StateName::Available) => "ready",
        (_, StateName::Enroll | StateName::Manageable) => "plain",
        _ => "work",
    }
}

#[cfg(test)]
mod tests {
    use boot_server_core::names::PoolName;
    use protocol::NodeId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_machine_of_two_units_is_drawn_in_both() {
        let node = RackedView {
            node: NodeId(Uuid::from_u128(1)),
            name: "a-very-long-name-of-a-machine".to_owned(),
            unit: Some(41),
            height: 2,
            power_feed: None,
            pool: PoolName::default_pool(),
            state: StateName::Active,
            power: Some(PowerState::Off),
            health: Some(Level::Warning),
            maintenance: false,
            lent: true,
            overlaps: false,
        };
        let rack = RackView { room: None, rack: "R1".to_owned(), units: 42, nodes: vec![node] };
        assert!(holds(&rack, "very", true) && holds(&rack, "r1", false) && !holds(&rack, "x1", false));
        let drawn = draw(rack);
        let it = &drawn.boxes[0];
        assert_eq!((it.y, it.height, it.name.as_str()), (0, 38, "a-very-long-name-of…"));
        assert_eq!((drawn.height, drawn.units[0], drawn.units[41]), (840, (42, 14), (1, 834)));
        assert_eq!(words(&it.node), "active, off, health warning, has a server");
        assert_eq!((power_shape(&it.node), health_shape(&it.node), tone(&it.node)), ("○", "▲", "ask"));
        assert_eq!(address("a b", "<", true, 2), "/racks?room=a%20b&q=%3C&trouble=1&page=2");
    }
}
