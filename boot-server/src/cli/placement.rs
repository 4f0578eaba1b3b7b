//! `billet placement try` and `billet rack …`: what a request for machines would get, and racks as they stand.

use boot_server_core::names::{FlavorName, PoolName};
use boot_server_core::node::StateName;
use boot_server_core::placement::{Domain, Policy};
use clap::{Args, Subcommand};

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use crate::http::api::place_requests::PlacementRequest;
use crate::view::Page;
use crate::view::place::{PlacementView, RackView, RackedView, RoomView};

/// What can be asked about placement.
#[derive(Debug, Subcommand)]
pub enum PlacementCommand {
    /// Would this request be placed, and why is each machine rejected? Nothing is claimed. Exit code 1 where it would not
    Try(TryArgs),
}

/// `billet placement try`.
#[derive(Debug, Args)]
pub struct TryArgs {
    /// Machines of this flavor
    #[arg(long, required_unless_present = "node", conflicts_with = "node")]
    flavor: Option<FlavorName>,
    /// This machine, by name or id
    #[arg(long)]
    node: Option<String>,
    /// For this project, by name or id
    #[arg(long)]
    project: Option<String>,
    /// How many
    #[arg(long, short = 'n', default_value_t = 1)]
    count: usize,
    /// Only from this pool
    #[arg(long)]
    pool: Option<PoolName>,
    /// anti-affinity, affinity, soft-anti-affinity or soft-affinity
    #[arg(long, value_parser = word::<Policy>)]
    policy: Option<Policy>,
    /// In what: rack, power_feed, room or node
    #[arg(long, value_parser = word::<Domain>, requires = "policy")]
    domain: Option<Domain>,
    /// A machine that the group has already; again for more
    #[arg(long = "member", value_name = "NODE", requires = "policy")]
    members: Vec<String>,
}

/// A word of the API.
pub(super) fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|e| e.to_string())
}

/// What can be asked about racks.
#[derive(Debug, Subcommand)]
pub enum RackCommand {
    /// Rooms with racks
    Rooms(AgainArgs),
    /// The racks of a room with their machines, each from above to below
    #[command(visible_alias = "ls")]
    List {
        /// The room; racks without a room if not given
        #[arg(long)]
        room: Option<String>,
        #[command(flatten)]
        again: AgainArgs,
    },
}

/// Runs `billet placement …`.
pub(super) fn run(client: &Client, format: Format, command: PlacementCommand) -> Result<(), Failure> {
    let PlacementCommand::Try(args) = command;
    let TryArgs { flavor, node, project, count, pool, policy, domain, members } = args;
    let request = PlacementRequest { project, flavor, node, count, pool, policy, domain, members };
    let view: PlacementView = client.post("placements", &request)?;
    format.print(&view)?;
    if view.placed { Ok(()) } else { Err(Failure::Other("this would not be placed".to_owned())) }
}

/// Runs `billet rack …`.
pub(super) fn racks(client: &Client, format: Format, command: RackCommand) -> Result<(), Failure> {
    match command {
        RackCommand::Rooms(again) => again.list(client, SITE, format, || client.all::<RoomView>("rooms")),
        RackCommand::List { room, again } => {
            let room = room.map(|room| format!("?room={}", encode(&room))).unwrap_or_default();
            let path = format!("racks{room}");
            again.list(client, SITE, format, || client.all::<RackView>(&path))
        }
    }
}

impl Show for PlacementView {
    fn table(&self) -> String {
        let head = if self.placed {
            format!("would be placed; {} more would have done as well", self.spare)
        } else {
            format!("would not be placed, out of {} machines", self.candidates)
        };
        let mut text = facts(&[("answer", Some(head))]);
        if !self.nodes.is_empty() {
            let rows = self.nodes.iter().map(|node| {
                let place = node.place.as_ref().map(ToString::to_string).unwrap_or_default();
                vec![node.name.clone(), node.pool.to_string(), place]
            });
            text.push_str(&format!("\n{}\n", table(&["gets", "pool", "place"], rows)));
        }
        if !self.rejected.is_empty() {
            let rows = self.rejected.iter().map(|rejected| {
                let words: Vec<_> = rejected.reasons.iter().map(|reason| reason.words.as_str()).collect();
                vec![rejected.name.clone(), words.join("; ")]
            });
            text.push_str(&format!("\n{}\n", table(&["rejected", "why"], rows)));
        }
        if self.omitted > 0 {
            text.push_str(&format!("and {} more\n", self.omitted));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }
}

impl Show for Page<RoomView> {
    fn table(&self) -> String {
        let rows = self.items.iter().map(|room| {
            let name = room.room.clone().unwrap_or_else(|| "-".to_owned());
            [vec![name], [room.racks, room.nodes, room.trouble].map(|n| n.to_string()).to_vec()].concat()
        });
        table(&["room", "racks", "nodes", "in trouble"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().filter_map(|room| room.room.clone()).collect()
    }
}

impl Show for Page<RackView> {
    fn table(&self) -> String {
        let rows = self.items.iter().flat_map(|rack| {
            rack.nodes.iter().map(|node| {
                vec![rack.rack.clone(), units(node), node.name.clone(), standing(node), shape(node)]
            })
        });
        table(&["rack", "units", "node", "state", "power and health"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|rack| rack.rack.clone()).collect()
    }
}

/// The units that it takes: `12`, `12-13`.
fn units(node: &RackedView) -> String {
    match node.unit {
        None => "-".to_owned(),
        Some(unit) if node.height <= 1 => unit.to_string(),
        Some(unit) => format!("{unit}-{}", unit.saturating_add(node.height - 1)),
    }
}

fn standing(node: &RackedView) -> String {
    let lent = if node.lent { ", lent" } else { "" };
    let maintenance = if node.maintenance { ", maintenance" } else { "" };
    let odd = if node.overlaps { ", in the way of another" } else { "" };
    let failed = if node.state == StateName::Failed { " (!)" } else { "" };
    format!("{}{failed}{lent}{maintenance}{odd}", node.state)
}

fn shape(node: &RackedView) -> String {
    let power = node.power.map_or("power ?", |power| match power {
        bmc::PowerState::On => "on",
        bmc::PowerState::Off => "off",
        _ => "power ?",
    });
    match node.health {
        Some(level) => format!("{power}, {}", level.as_str()),
        None => power.to_owned(),
    }
}
