//! From what is desired and what is there to actions, in order.
//!
//! ```text
//!   exporters:  unplug, then stop what is not wanted ─▶ start what is missing ─▶ plug what is served
//!                                                                       (a host may wait for its disk, so first)
//!   switch:     bridge, chassis ─▶ mirrors that go or change ─▶ ports that go or change bridge ─▶ logical ports that move let go
//!                 ─▶ ports that come or change ─▶ mirrors that come
//! ```
//!
//! A mirror that changes is taken away before any port changes and made anew after all did, so that at no moment it copies
//! the traffic of one to where another's was to go. No two interfaces ever carry one logical port.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ovsdb::Replica;
use protocol::dpu::{Desired, Name, Volume};

use crate::bus::{Bus, Buses, Found};
use crate::check::{BRIDGE, State};
use crate::exporter::{
    Exporters, Held, Life, Then, claims, has_process, is_as_started, leads_alike, serves_alike,
};
use crate::switch::{Change, Plug, View};

/// One thing to do. Each can be done again without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ends an exporter that nobody uses, and forgets it; where it is dead already, forgets it.
    Stop {
        /// Of the volume.
        name: Name,
        /// Its process.
        pid: Option<u32>,
        /// What becomes of its volume.
        then: Then,
    },
    /// Starts an exporter.
    Start(Volume),
    /// Sets the limits of a disk that is served, whoever uses it.
    Limit(Volume),
    /// Gives the host the disk.
    Plug(Volume),
    /// Asks the host to let go of the disk; where it has, removes what is left of the connection.
    Unplug(Name),
    /// Changes the switch, by one transaction.
    Switch(Change),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// What is desired and cannot be, each with what to do about it.
    pub problems: Vec<String>,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop { name, pid: Some(pid), .. } => {
                write!(f, "stop the exporter of volume {name} (process {pid})")
            }
            Self::Stop { name, pid: None, .. } => write!(f, "forget the exporter of volume {name}"),
            Self::Start(volume) => {
                write!(f, "start the exporter of volume {} at {}", volume.name, volume.socket)
            }
            Self::Limit(volume) => write!(f, "set the limits of volume {}", volume.name),
            Self::Plug(volume) => write!(f, "plug volume {} into the host", volume.name),
            Self::Unplug(name) => write!(f, "unplug volume {name} from the host"),
            Self::Switch(change) => change.fmt(f),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddBridge(_) => write!(f, "add bridge br-int"),
            Self::SetChassis(chassis) => write!(f, "set chassis {}", chassis.system_id),
            Self::RemoveMirror(uuid) => write!(f, "remove mirror {uuid}"),
            Self::RemovePort(name) => write!(f, "remove port {name}"),
            Self::Unbind(name) => write!(f, "take the logical port from port {name}"),
            Self::RemoveLimits(uuid) => write!(f, "remove limits {uuid}"),
            Self::AddPort(plug) => write!(f, "add port {}{}", plug.interface, of(plug)),
            Self::SetPort(plug) => write!(f, "change port {}{}", plug.interface, of(plug)),
            Self::AddMirror(mirror) => {
                write!(f, "add mirror {} of {} to {}", mirror.name, mirror.source, mirror.output)
            }
        }
    }
}

fn of(plug: &Plug) -> String {
    match plug.iface_id() {
        Some(id) => format!(" (logical port {id})"),
        None if plug.bridge != BRIDGE => format!(" (on {})", plug.bridge),
        None => " (output of a mirror)".to_owned(),
    }
}

/// What is to be done. `switch` is `None` while its database is out of reach.
pub fn plan(state: &State, switch: Option<&Replica>, exporters: &Exporters, buses: &Buses) -> Plan {
    let mut plan = Plan::default();
    plan_exporters(state.desired(), exporters, buses, &mut plan);
    if let Some(replica) = switch {
        plan_switch(state.desired(), &View::of(replica), &mut plan);
    }
    plan
}

fn plan_exporters(desired: &Desired, exporters: &Exporters, buses: &Buses, plan: &mut Plan) {
    let wanted: BTreeMap<&Name, &Volume> =
        desired.volumes.iter().map(|volume| (&volume.name, volume)).collect();
    // Those that go on running with what they have; nobody else may take it.
    let mut kept: Vec<&Volume> = Vec::new();
    let mut starts = Vec::new();
    let mut plugs = Vec::new();
    for (name, started) in exporters {
        let want = wanted.get(name).copied();
        let is_wanted = want.is_some_and(|want| is_as_started(want, &started.volume));
        let bus = buses.of(&started.volume);
        let found = bus.and_then(|bus| bus.of(name));
        match started.life {
            Life::Runs { held, .. } if want.is_some_and(|want| serves_alike(want, &started.volume)) => {
                kept.push(&started.volume);
                let limited = want.filter(|want| want.limits != started.volume.limits);
                plan.actions.extend(
                    limited
                        .map(|want| Action::Limit(Volume { limits: want.limits, ..started.volume.clone() })),
                );
                let serves = !matches!(held, Held::Opening | Held::Filling);
                if bus.is_some() && serves && found != Some(Found::Plugged) {
                    plugs.push((&started.volume, found));
                }
            }
            Life::Runs { pid, held }
                if is_free(held, bus, found) && (pid.is_some() || !has_process(&started.volume)) =>
            {
                let then = if want.is_some() { Then::Served } else { Then::Forgotten };
                plan.actions.push(Action::Stop { name: name.clone(), pid, then });
                starts.extend(want);
            }
            Life::Runs { .. } => {
                kept.push(&started.volume);
                let wish = match want {
                    None => Wish::Gone,
                    Some(want) if leads_alike(want, &started.volume) => Wish::Otherwise,
                    Some(_) => Wish::Anew,
                };
                plan_release(name, wish, found, plan);
            }
            Life::Dead { .. } if want.is_none() && matches!(found, None | Some(Found::Remnant)) => {
                plan.actions.extend(found.map(|_| Action::Unplug(name.clone())));
                plan.actions.push(Action::Stop { name: name.clone(), pid: None, then: Then::Forgotten });
            }
            Life::Dead { lived: false, .. } if want.is_some() && !is_wanted => {
                plan.actions.push(Action::Stop { name: name.clone(), pid: None, then: Then::Served });
                starts.extend(want);
            }
            // As it was, even where it is to be otherwise: whether a host waits for it shows when it runs. A host that still
            // has the disk lets go of it only when it is served.
            Life::Dead { due, .. } => {
                kept.push(&started.volume);
                if due {
                    starts.push(&started.volume);
                } else {
                    plan.problems
                        .push(format!("the exporter of volume {name} died; it is started again soon"));
                }
            }
        }
    }
    starts
        .extend(wanted.iter().filter(|(name, _)| !exporters.contains_key(**name)).map(|(_, volume)| *volume));
    for volume in starts {
        let other = kept.iter().find(|other| other.name != volume.name && shares(other, volume));
        match other {
            None => plan.actions.push(Action::Start(volume.clone())),
            Some(other) => plan.problems.push(format!(
                "volume {} waits: volume {} still has its socket, file, layer or backend",
                volume.name, other.name
            )),
        }
    }
    plan_plugs(plugs, plan);
}

/// Whether an exporter may be ended. A bus that does not have the disk has no host that comes back for it.
fn is_free(held: Held, bus: Option<&Bus>, found: Option<Found>) -> bool {
    match held {
        Held::Free | Held::Filling => found.is_none(),
        Held::Lately => bus.is_some() && found.is_none(),
        Held::Opening | Held::Connected => false,
    }
}

/// What is wished of an exporter in use that is not to go on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Nobody wants it.
    Gone,
    /// It is to have other settings.
    Otherwise,
    /// Its DPU was let in anew: what its host has leads nowhere.
    Anew,
}

/// What becomes of it.
fn plan_release(name: &Name, wish: Wish, found: Option<Found>, plan: &mut Plan) {
    match found {
        Some(Found::Remnant) => plan.actions.push(Action::Unplug(name.clone())),
        Some(Found::Plugged) if wish != Wish::Otherwise => plan.actions.push(Action::Unplug(name.clone())),
        Some(Found::Leaves) => {
            plan.problems.push(format!("the host has not let go of volume {name} yet"));
        }
        // A disk that is mounted is not taken away for the sake of a setting.
        _ => {
            let how = match wish {
                Wish::Gone => "and is not wanted any more",
                Wish::Otherwise => "with other settings",
                Wish::Anew => "with an access that ended",
            };
            plan.problems.push(format!("volume {name} is in use {how}: unplug it from the host first"));
        }
    }
}

fn plan_plugs(plugs: Vec<(&Volume, Option<Found>)>, plan: &mut Plan) {
    for (volume, found) in plugs {
        if found == Some(Found::Leaves) {
            plan.problems.push(format!("the host has not let go of volume {} yet", volume.name));
        } else {
            plan.actions.push(Action::Plug(volume.clone()));
        }
    }
}

fn shares(a: &Volume, b: &Volume) -> bool {
    !claims(a).is_disjoint(&claims(b))
}

fn plan_switch(desired: &Desired, view: &View<'_>, plan: &mut Plan) {
    if view.root.is_none() {
        plan.problems.push("Open vSwitch's database is empty: start ovs-vswitchd".to_owned());
        return;
    }
    let mut changes = Vec::new();
    if view.bridge.is_none() {
        changes.push(Change::AddBridge(desired.chassis.datapath));
    }
    if !view.is_chassis_set(&desired.chassis) || (view.bridge.is_none() && desired.chassis.mtu.is_some()) {
        changes.push(Change::SetChassis(desired.chassis.clone()));
    }

    let mut kept = BTreeSet::new();
    for (uuid, name) in view.our_mirrors() {
        let want = desired.mirrors.iter().find(|mirror| mirror.name.as_str() == name);
        // The first of several of one name stays.
        if !(want.is_some_and(|want| view.is_mirror_set(uuid, want)) && kept.insert(name)) {
            changes.push(Change::RemoveMirror(uuid));
        }
    }

    let hosts = desired.ports.iter().map(Plug::host).chain(desired.provisioning.iter().map(Plug::access));
    let plugs: Vec<Plug> = hosts.chain(desired.mirrors.iter().map(Plug::output)).collect();
    let wanted: BTreeMap<&str, &str> =
        plugs.iter().map(|plug| (plug.interface.as_str(), plug.bridge.as_str())).collect();
    let stays = |name: &str| view.bridge_of(name).is_some_and(|on| wanted.get(name) == Some(&on));
    let gone = view.our_ports().filter(|name| !stays(name));
    changes.extend(gone.map(|name| Change::RemovePort(name.to_owned())));
    changes.extend(view.loose_limits().map(Change::RemoveLimits));
    let moves = |plug: &&Plug| {
        let has = view.iface_id(&plug.interface).filter(|has| plug.iface_id() != Some(*has));
        stays(&plug.interface)
            && has.is_some_and(|has| plugs.iter().any(|other| other.iface_id() == Some(has)))
    };
    changes.extend(plugs.iter().filter(moves).map(|plug| Change::Unbind(plug.interface.clone())));

    let blocked: BTreeMap<&str, String> =
        plugs.iter().filter_map(|plug| Some((plug.interface.as_str(), in_the_way(plug, view)?))).collect();
    for plug in plugs.iter().filter(|plug| !blocked.contains_key(plug.interface.as_str())) {
        if !stays(&plug.interface) {
            changes.push(Change::AddPort(plug.clone()));
        } else if !view.is_set(plug) {
            changes.push(Change::SetPort(plug.clone()));
        }
    }
    for mirror in desired.mirrors.iter().filter(|mirror| !kept.contains(mirror.name.as_str())) {
        if ![&mirror.source, &mirror.output].iter().any(|port| blocked.contains_key(port.as_str())) {
            changes.push(Change::AddMirror(mirror.clone()));
        }
    }
    plan.problems.extend(blocked.into_values());
    plan.actions.extend(changes.into_iter().map(Action::Switch));
}

/// Why a port is left as it is.
fn in_the_way(plug: &Plug, view: &View<'_>) -> Option<String> {
    let (name, bridge) = (&plug.interface, &plug.bridge);
    if bridge != BRIDGE && !view.has_bridge(bridge) {
        return Some(format!(
            "{name} belongs on bridge {bridge}, which is not there: make it, with the wire of the provisioning network (`ovs-vsctl add-br {bridge} -- add-port {bridge} UPLINK`)"
        ));
    }
    if view.is_taken(name) {
        return Some(format!(
            "{name} is plugged into the switch by somebody else: take it out (`ovs-vsctl del-port {name}`), or name another interface"
        ));
    }
    let id = plug.iface_id()?;
    let other = view.others_with(id)?;
    Some(format!(
        "logical port {id} of {name} is on {other}, which somebody else plugged in: take that out (`ovs-vsctl del-port {other}`)"
    ))
}

#[cfg(test)]
mod tests;
