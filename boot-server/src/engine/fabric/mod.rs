//! Hosts without a DPU: their NICs are put into VLANs at the switches of the site, and taken back.
//!
//! ```text
//!  OS written ─▶ stage `cross` ─▶ machine off ─▶ switch ports on its networks, read back ─▶ switched on
//!  given back, reinstalled ─────▶ machine off ─▶ switch ports on provisioning, read back ─▶ job goes on, ports and VLANs are free
//! ```
//!
//! What switch ports are to be in follows from rows of node, server and networks (`core::network::fabric`), so whoever starts after a crash
//! goes on where it stood. A machine that nobody can switch off goes over when it asks for its boot script, and comes back while its OS runs.

mod drive;
#[cfg(test)]
mod tests;
mod wiring;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use boot_server_core::network::fabric::{SwitchPort, VlanRange};
use boot_server_core::network::switch::Want;
use boot_server_core::node::Cable;
use network::Switch;
use protocol::{JobId, MacAddr, NodeId};

use super::{Engine, lock};
use crate::config::SwitchSettings;

pub(crate) use drive::in_words;
pub(super) use wiring::Wired;

/// What is known of switches and of the hosts at them.
#[derive(Default)]
pub(super) struct Fabric {
    switches: BTreeMap<String, Known>,
    /// Hosts whose switch ports were ever to be something, since this server runs.
    standing: Mutex<BTreeMap<NodeId, Standing>>,
    /// Hosts that are being looked at; true: once more.
    turns: Mutex<BTreeMap<NodeId, bool>>,
    /// Machines that are off and go over for this job.
    crossing: Mutex<BTreeMap<NodeId, JobId>>,
}

/// A switch of the site.
struct Known {
    settings: SwitchSettings,
    driver: Switch,
    link: Mutex<Link>,
}

/// Whether a switch answers.
#[derive(Debug, Clone, Default)]
struct Link {
    /// Why not, and since when.
    lost: Option<(String, Instant)>,
    /// Somebody was told that it does not.
    told: bool,
}

/// How a host stands at its switches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    /// Its switch ports as they are to be.
    wants: BTreeMap<String, BTreeMap<String, Want>>,
    /// It is to be on networks of a project.
    away: bool,
    /// They are so.
    settled: bool,
    /// Why not.
    problem: Option<String>,
    /// When that was last tried.
    tried: Instant,
}

/// A NIC of a node, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicCable {
    /// The NIC.
    pub mac: MacAddr,
    /// Switch and port, where they are known.
    pub cable: Option<Cable>,
    /// Somebody said so; else LLDP did.
    pub said: bool,
    /// The switch is one that Billet manages.
    pub managed: bool,
}

/// A switch as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchState {
    /// As it is configured.
    pub settings: SwitchSettings,
    /// VLANs of its fabric that networks have.
    pub used: usize,
    /// Why it does not answer.
    pub lost: Option<String>,
    /// Its ports with machines of ours, as they are to be.
    pub ports: Vec<PortState>,
}

/// A port of a switch as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortState {
    /// Its name.
    pub port: String,
    /// The machine at its other end, and what it is to be in.
    pub want: Want,
    /// It is so.
    pub settled: bool,
    /// Why not.
    pub problem: Option<String>,
}

impl Fabric {
    /// Begins to follow the switches (so within a tokio runtime).
    pub fn start(switches: &[SwitchSettings]) -> Self {
        let known = |settings: &SwitchSettings| {
            let driver = Switch::start(settings.address.clone(), settings.bridge.clone());
            (settings.name.clone(), Known { settings: settings.clone(), driver, link: Mutex::default() })
        };
        Self { switches: switches.iter().map(known).collect(), ..Self::default() }
    }

    /// The port of a switch of the site that this is, if it is one.
    fn port(&self, switch: &str, port: &str) -> Option<SwitchPort> {
        let fabric = self.switches.get(switch)?.settings.fabric.clone();
        Some(SwitchPort { switch: switch.to_owned(), port: port.to_owned(), fabric })
    }

    /// The provisioning network's VLAN on a switch.
    fn provisioning(&self, switch: &str) -> u16 {
        self.switches.get(switch).map_or(0, |known| known.settings.provisioning)
    }
}

impl Engine {
    /// Whether the site has switches that put hosts on networks.
    pub fn has_switches(&self) -> bool {
        !self.0.fabric.switches.is_empty()
    }

    /// VLANs of a fabric: of the one of this name, or of the only one. `None` where there is none, or which is meant cannot be told.
    pub(super) fn fabric_vlans(&self, named: Option<&str>) -> Option<(String, VlanRange)> {
        let mut fabrics: BTreeMap<&str, VlanRange> = BTreeMap::new();
        for known in self.0.fabric.switches.values() {
            fabrics.insert(&known.settings.fabric, known.settings.vlans);
        }
        let found = match named {
            Some(name) => fabrics.get_key_value(name),
            None if fabrics.len() == 1 => fabrics.first_key_value(),
            None => None,
        };
        found.map(|(name, vlans)| ((*name).to_owned(), *vlans))
    }

    /// All switches with their ports, by name.
    pub fn switches(&self) -> Vec<SwitchState> {
        let standing = lock(&self.0.fabric.standing).clone();
        let state = |known: &Known| {
            let name = &known.settings.name;
            let of = |standing: &Standing| {
                let wants = standing.wants.get(name).into_iter().flatten();
                let port = |(port, want): (&String, &Want)| PortState {
                    port: port.clone(),
                    want: want.clone(),
                    settled: standing.settled,
                    problem: standing.problem.clone(),
                };
                wants.map(port).collect::<Vec<_>>()
            };
            SwitchState {
                used: self.vlans_used(&known.settings.fabric).len(),
                lost: lock(&known.link).lost.as_ref().map(|(why, _)| why.clone()),
                ports: standing.values().flat_map(of).collect(),
                settings: known.settings.clone(),
            }
        };
        self.0.fabric.switches.values().map(state).collect()
    }

    /// Whether a host's switch ports are known to be on the provisioning network, or are nobody's business.
    pub(super) async fn is_back_home(&self, node: NodeId) -> Result<bool, super::EngineError> {
        if self.0.fabric.switches.is_empty() {
            return Ok(true);
        }
        if let Some(standing) = lock(&self.0.fabric.standing).get(&node) {
            return Ok(!standing.away && standing.settled);
        }
        match self.0.nodes.get(node) {
            Some(node) => Ok(self.wiring(&node).await?.is_none()),
            None => Ok(true),
        }
    }
}

/// A machine that nobody can switch off has its answer for so long before its port goes over.
const GRACE: Duration = Duration::from_secs(1);
