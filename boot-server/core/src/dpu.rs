//! A DPU: the small computer between a host and its networks and disks. Who it is, and what it is to be ([`desired`]).
//!
//! ```text
//!   registered with a token ──── hello with the token ────▶ accepted ◀──── somebody accepts it ──── introduced itself
//! ```
//!
//! What a DPU is to be follows from what is stored of its host's server alone: the same rows give the same state, whoever asks.

pub mod functions;

use std::collections::BTreeSet;
use std::net::IpAddr;

use protocol::dial::Facts;
use protocol::dpu::{
    Access, Backend, Chassis, Datapath, Desired, Discard, Encap, EncapKind, Encryption, Exporter, Fill,
    InterfaceName, Name, Observed, PORTS_MAX, PROVISIONING_BRIDGE, Port, STATE_MAX, VERSION, VOLUMES_MAX,
    Volume as Disk, VolumeSeen,
};
use protocol::functions::{DisksBy, FunctionPlan};
use protocol::{DpuId, MacAddr, NodeId, PortId, Sha256, Timestamp};
use serde::{Deserialize, Serialize};

use crate::network::{ETHERNET_MTU, PortLimits};
use crate::node::state::Fallback;
use crate::node::{Node, RunStage, State};
use crate::volume::Volume;

/// Where sockets of volumes are on a DPU.
const SOCKETS: &str = "/run/billet-dpu";
/// A DPU that said nothing for so long is not there: three of its heartbeats.
pub const SILENT_MS: u64 = 90_000;

/// A DPU as the server remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dpu {
    /// Names it for ever.
    pub id: DpuId,
    /// Names it for people, and in OVN; unique; a host name (RFC 1123).
    pub name: String,
    /// Its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Somebody took its host from it: it has none until somebody gives it one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpaired: bool,
    /// SHA-256 of the secret that it made for itself; none before it said hello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Sha256>,
    /// SHA-256 of the token that it may come in with, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Sha256>,
    /// It is the site's: it gets networks and disks.
    pub accepted: bool,
    /// Own end of tunnels; the address that it dials out from where nobody gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_address: Option<IpAddr>,
    /// Who forwards packets.
    #[serde(default)]
    pub datapath: Datapath,
    /// The bridge with the provisioning network's wire.
    pub provisioning_bridge: InterfaceName,
    /// Which functions its host gets; without, its firmware is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<FunctionPlan>,
    /// Grows with every change of the plan; 0 where nobody ever made one.
    #[serde(default)]
    pub plan_version: i64,
    /// The last plan that it said is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<FunctionPlan>,
    /// What it said of itself.
    #[serde(default)]
    pub facts: Facts,
    /// Where it dials out from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Who registered it, or accepted it.
    pub by: String,
    /// When it was first known.
    pub created: Timestamp,
    /// Grows by one with every change.
    pub version: i64,
}

impl Dpu {
    /// One that nobody announced, or one that somebody registers.
    pub fn new(id: DpuId, name: String, by: String, now: Timestamp) -> Self {
        let bridge = PROVISIONING_BRIDGE.parse().unwrap_or_else(|_| unreachable!("it is a name"));
        Self {
            id,
            name,
            node: None,
            unpaired: false,
            secret: None,
            token: None,
            accepted: false,
            tunnel_address: None,
            datapath: Datapath::default(),
            provisioning_bridge: bridge,
            plan: None,
            plan_version: 0,
            in_force: None,
            facts: Facts::default(),
            address: None,
            by,
            created: now,
            version: 1,
        }
    }

    /// The plan is not in force yet.
    pub fn is_pending(&self) -> bool {
        self.plan.is_some() && self.plan != self.in_force
    }

    /// The functions of the plan that are there now: of one that is not in force yet, those that the one before had as well.
    pub fn usable(&self) -> Option<FunctionPlan> {
        let plan = self.plan?;
        Some(plan.within(&self.in_force.unwrap_or_else(|| FunctionPlan::new(plan.model))))
    }

    /// The name that it gives to iSCSI targets (RFC 7143 section 4.2.7.3.1; the date is that of the naming authority).
    pub fn initiator(&self) -> String {
        format!("iqn.2026-11.billet:dpu.{}", self.id)
    }
}

/// On which side of the DPU its host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// On the provisioning network: it is inspected, deployed or wiped, or waits.
    Provisioning,
    /// On the networks of the project that has it.
    Tenant,
}

/// On which side a host is. It goes over when it starts what was put on it for a tenant, and comes back before anything else is done
/// with it.
pub fn side(node: &Node) -> Side {
    let runs_os = match &node.state {
        State::Active => true,
        State::Deploying(run) => match run.stage {
            RunStage::FirstBoot => true,
            // What runs on it stays where it is until the machine is off: an OS of a tenant, or an agent.
            RunStage::Volume if !run.on_volume.off => run.fallback != Fallback::Available,
            RunStage::Volume => !run.wants_agent(),
            _ => false,
        },
        State::Servicing(service) => service.back == Fallback::Active,
        State::Failed(failure) => failure.boot == crate::node::Usual::LocalDisk,
        State::Enroll
        | State::Inspecting(_)
        | State::Manageable
        | State::Cleaning(_)
        | State::Available
        | State::Deleting(_) => false,
    };
    if runs_os { Side::Tenant } else { Side::Provisioning }
}

/// The site's overlay, as DPUs are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// OVN's southbound database, as DPUs reach it.
    pub southbound: String,
    /// How packets are wrapped.
    pub encap: EncapKind,
}

/// A logical port for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// In OVN.
    pub port: PortId,
    /// On Ethernet.
    pub mac: MacAddr,
    /// Largest IP packet of its network, in octets.
    pub mtu: u16,
    /// How much it may carry.
    pub limits: PortLimits,
}

/// A disk for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDisk {
    /// The volume.
    pub volume: Volume,
    /// How the DPU gets at it.
    pub reach: Reach,
    /// How its bytes are encrypted there.
    pub encryption: Option<Encryption>,
    /// What the DPU is to write on it first.
    pub fill: Option<Fill>,
}

/// How a DPU gets at a volume, as it is stored with the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reach {
    /// It connects to this.
    Backend(Backend),
    /// It serves this by itself.
    Exporter(Exporter),
}

/// What a DPU's host is to have.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Its logical ports: each has the address of the function that it is.
    pub ports: Vec<HostPort>,
    /// Why some of its ports are not among them.
    pub kept: Option<NotDesired>,
    /// Its disks.
    pub disks: Vec<HostDisk>,
    /// Layers on it that nobody needs any more.
    pub discard: Vec<Discard>,
}

/// Why a DPU cannot be told what to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDesired {
    /// The site has no overlay.
    #[error("the site has no overlay: set [overlay] in the server's configuration")]
    NoOverlay,
    /// It has no end for tunnels.
    #[error("no tunnel address is known: set it (`billet dpu set NAME --tunnel-address ADDRESS`)")]
    NoTunnelAddress,
    /// More ports than functions.
    #[error("{wanted} ports are more than the {have} functions of the host that the DPU told of")]
    Functions {
        /// Ports.
        wanted: usize,
        /// Functions.
        have: usize,
    },
    /// Ports that cannot be the host's.
    #[error("ports of the host stay out: {0}")]
    Ports(String),
    /// More than one DPU takes.
    #[error("{0} disks are more than the {VOLUMES_MAX} of a DPU")]
    Disks(usize),
    /// More octets than a DPU takes.
    #[error(
        "the state has {0} octets, more than the {STATE_MAX} that a DPU takes: a server's user data is too large"
    )]
    Long(usize),
}

/// Functions of a host that can be ports, with their addresses, each of them once: those that it told of, as far as its plan has them.
pub fn nics(dpu: &Dpu) -> Vec<(InterfaceName, MacAddr)> {
    let told = dpu.facts.functions.iter();
    let mut once = BTreeSet::new();
    let named = told.filter_map(|f| Some((f.interface.parse::<InterfaceName>().ok()?, f.mac)));
    let named = named.filter(|(_, mac)| once.insert(*mac)).collect();
    let mut planned = functions::planned(named, dpu.plan.as_ref());
    planned.truncate(PORTS_MAX);
    planned
}

/// What a DPU is to be, with `generation` 0: whoever keeps it numbers it. A host without ports of its own stays on the provisioning
/// network, whatever it runs; one whose ports cannot be has no network.
///
/// # Errors
/// [`NotDesired`]; then it stays as it is.
pub fn desired(
    dpu: &Dpu,
    overlay: Option<&Overlay>,
    host: Option<&Node>,
    wanted: &Wanted,
) -> Result<Desired, NotDesired> {
    let overlay = overlay.ok_or(NotDesired::NoOverlay)?;
    let address = dpu.tunnel_address.or(dpu.address).ok_or(NotDesired::NoTunnelAddress)?;
    let networked = !wanted.ports.is_empty() || wanted.kept.is_some();
    let tenant = networked && host.is_some_and(|node| side(node) == Side::Tenant);
    if wanted.disks.len() > VOLUMES_MAX {
        return Err(NotDesired::Disks(wanted.disks.len()));
    }
    let interfaces = nics(dpu);
    let ports = if tenant { wanted.ports.as_slice() } else { &[] };
    let seated = interfaces.iter().filter_map(|(interface, mac)| {
        let port = ports.iter().find(|port| port.mac == *mac)?;
        Some((interface, port))
    });
    let plugged = seated.map(|(interface, port)| Port {
        interface: interface.clone(),
        port: port.port,
        mac: port.mac,
        // What a machine sends that does not know its network's MTU is to come as far as the router, which tells it.
        mtu: Some(port.mtu.max(ETHERNET_MTU)),
        // The switch gets what the machine sends.
        ingress: port.limits.egress,
        egress_kbps: port.limits.ingress_kbps,
    });
    let access = interfaces.iter().map(|(interface, mac)| Access {
        interface: interface.clone(),
        mac: *mac,
        bridge: dpu.provisioning_bridge.clone(),
    });
    Ok(Desired {
        version: VERSION,
        generation: 0,
        chassis: Chassis {
            system_id: dpu.name.clone(),
            ovn_remote: overlay.southbound.clone(),
            encap: Encap { kind: overlay.encap, address },
            datapath: dpu.datapath,
            mtu: None,
        },
        ports: plugged.collect(),
        // Nothing of a tenant's host is on the provisioning network, not even a function that it does not use.
        provisioning: if tenant { Vec::new() } else { access.collect() },
        mirrors: Vec::new(),
        volumes: wanted.disks.iter().filter_map(disk).collect(),
        functions: dpu.plan,
        // The others have their turn when these are gone.
        discard: wanted.discard.iter().take(VOLUMES_MAX).cloned().collect(),
    })
}

fn disk(disk: &HostDisk) -> Option<Disk> {
    let HostDisk { volume, reach, encryption, fill } = disk;
    let at = volume.function();
    let exporter = match (reach, at.by) {
        (Reach::Backend(backend), DisksBy::Qsd) => Exporter::Qsd { backend: backend.clone() },
        (Reach::Backend(backend), DisksBy::Snap) => {
            Exporter::Snap { backend: backend.clone(), function: at.function }
        }
        (Reach::Exporter(exporter), _) => exporter.clone(),
    };
    Some(Disk {
        name: volume.id.to_string().parse::<Name>().ok()?,
        serial: volume.serial(),
        socket: format!("{SOCKETS}/{}.sock", volume.id),
        exporter,
        limits: volume.limits,
        deadline: None,
        boot: volume.attachment.as_ref().is_some_and(|at| at.boot),
        encryption: encryption.clone(),
        fill: fill.clone(),
    })
}

/// Whether a DPU presents a volume, as it says; of a host that can be asked, whether the host has it. What it said of an older state than the one that it is to have does not count.
pub fn presents(observed: Option<&Observed>, generation: u64, volume: &Volume) -> bool {
    let Some(seen) = observed.filter(|seen| seen.generation == Some(generation)) else { return false };
    let name = volume.id.to_string();
    let is_whole = |one: &VolumeSeen| one.instant.as_ref().is_none_or(|instant| instant.adapted);
    let has = |one: &VolumeSeen| {
        one.name.as_str() == name && one.pid.is_some() && one.plugged != Some(false) && is_whole(one)
    };
    seen.volumes.iter().any(has)
}

/// Whether a DPU has written the image on a volume that its newest state tells it to, as it says.
pub fn filled(observed: Option<&Observed>, desired: &Desired, volume: &Volume) -> bool {
    let name = volume.id.to_string();
    let is_told = desired.volumes.iter().any(|disk| disk.name.as_str() == name && disk.fill.is_some());
    let seen = observed.filter(|seen| is_told && seen.generation == Some(desired.generation));
    let one = seen.and_then(|seen| seen.volumes.iter().find(|one| one.name.as_str() == name));
    // One that gets at its bytes in another way than the state says has no process.
    one.is_some_and(|one| one.pid.is_some() && one.instant.as_ref().is_some_and(|seen| seen.adapted))
}

/// Why a DPU cannot make a volume what its newest state says, as it says of that one: what an older state failed of may be mended by now.
pub fn failure<'a>(observed: Option<&'a Observed>, desired: &Desired, volume: &Volume) -> Option<&'a str> {
    let seen = observed.filter(|seen| seen.generation == Some(desired.generation))?;
    let name = volume.id.to_string();
    let one = seen.volumes.iter().find(|one| one.name.as_str() == name)?;
    one.instant.as_ref().filter(|seen| !seen.adapted)?.failure.as_deref()
}

/// Whether a DPU does not have a volume any more, as it says of the newest state.
pub fn withdrew(observed: Option<&Observed>, generation: u64, volume: &Volume) -> bool {
    let Some(seen) = observed.filter(|seen| seen.generation == Some(generation)) else { return false };
    let name = volume.id.to_string();
    !seen.volumes.iter().any(|one| one.name.as_str() == name)
}

/// Whether a DPU says that the layer of a volume is gone, which its newest state tells it to remove.
pub fn discarded(observed: Option<&Observed>, generation: u64, volume: &Volume) -> bool {
    let Some(seen) = observed.filter(|seen| seen.generation == Some(generation)) else { return false };
    let name = volume.id.to_string();
    seen.discarded.iter().any(|one| one.as_str() == name)
}

/// Whether a DPU is as it is to be, as far as its host's networks go.
pub fn plugged(observed: Option<&Observed>, desired: &Desired) -> bool {
    let Some(seen) = observed.filter(|seen| seen.generation == Some(desired.generation)) else {
        return false;
    };
    let have: BTreeSet<(&str, String)> =
        seen.ports.iter().filter_map(|port| Some((port.interface.as_str(), port.port.clone()?))).collect();
    desired.ports.iter().all(|port| have.contains(&(port.interface.as_str(), port.port.to_string())))
}

/// Whether a DPU has its host on the provisioning network, as it says of the newest state.
pub fn provisions(observed: Option<&Observed>, desired: &Desired) -> bool {
    let Some(seen) = observed.filter(|seen| seen.generation == Some(desired.generation)) else {
        return false;
    };
    let is_there = |access: &Access| {
        let mut ports = seen.ports.iter();
        ports.any(|port| {
            port.interface == access.interface.as_str()
                && port.bridge.as_deref() == Some(access.bridge.as_str())
        })
    };
    !desired.provisioning.is_empty() && desired.provisioning.iter().all(is_there)
}

#[cfg(test)]
mod tests {
    use protocol::dial::HostFunction;
    use uuid::Uuid;

    use super::*;
    use crate::node::Identity;

    fn dpu() -> Dpu {
        let mut dpu = Dpu::new(DpuId(Uuid::from_u128(1)), "dpu-1".into(), "x".into(), Timestamp(0));
        dpu.address = Some("10.77.0.9".parse().unwrap());
        dpu.facts.functions = vec![
            HostFunction { interface: "pf0hpf".into(), mac: MacAddr([2, 0, 0, 0, 0, 1]) },
            HostFunction { interface: "pf1hpf".into(), mac: MacAddr([2, 0, 0, 0, 0, 2]) },
        ];
        dpu
    }

    fn node(state: State) -> Node {
        let identity = Identity { uuid: None, serial: None, macs: [MacAddr([2, 0, 0, 0, 0, 1])].into() };
        let mut node = Node::discovered(NodeId(Uuid::from_u128(5)), "n1".into(), identity, Timestamp(0));
        node.state = state;
        node
    }

    fn overlay() -> Overlay {
        Overlay { southbound: "tcp:10.77.0.1:6642".into(), encap: EncapKind::Geneve }
    }

    fn ports(count: u128) -> Wanted {
        let port = |n| HostPort {
            port: PortId(Uuid::from_u128(n)),
            mac: MacAddr([2, 0, 0, 0, 0, n as u8 + 1]),
            mtu: 1442,
            limits: PortLimits::default(),
        };
        Wanted { ports: (0..count).map(port).collect(), ..Wanted::default() }
    }

    /// A deploy is tried again: until its DPU speaks of the new state, what it says is of the old one.
    #[test]
    fn what_an_older_state_failed_of_is_no_failure_of_the_new_one() {
        let volume = crate::volume::tests::volume(crate::volume::Phase::Available, None);
        let golden = include_str!("../../../protocol/src/dpu.v1.json");
        let desired = Desired { generation: 7, ..serde_json::from_str(golden).unwrap() };
        let said = |generation: u64, adapted: bool| -> Observed {
            let instant = serde_json::json!({"percent": 3, "bytes": 0, "hydrated": false, "adapted": adapted, "failure": "no"});
            let one =
                serde_json::json!({"name": volume.id, "in_use": false, "restarts": 0, "instant": instant});
            let seen = serde_json::json!({"version": 1, "generation": generation, "settled": false, "problems": [], "ports": [], "mirrors": [], "volumes": [one]});
            serde_json::from_value(seen).unwrap()
        };
        let of = |seen: &Observed| failure(Some(seen), &desired, &volume).map(str::to_owned);
        assert_eq!(of(&said(7, false)).as_deref(), Some("no"));
        assert_eq!((of(&said(6, false)), of(&said(7, true))), (None, None));
        assert_eq!(failure(None, &desired, &volume), None);
    }

    #[test]
    fn a_host_is_on_one_side_alone() {
        for (state, tenant) in [(State::Available, false), (State::Active, true), (State::Enroll, false)] {
            let state = desired(&dpu(), Some(&overlay()), Some(&node(state)), &ports(1)).unwrap();
            assert_eq!((state.ports.len(), state.provisioning.len()), if tenant { (1, 0) } else { (0, 2) });
        }
        let plain = desired(&dpu(), Some(&overlay()), Some(&node(State::Active)), &ports(0)).unwrap();
        assert_eq!((plain.ports.len(), plain.provisioning.len()), (0, 2), "it has no networks of a project");
        let alone = desired(&dpu(), Some(&overlay()), None, &Wanted::default()).unwrap();
        assert_eq!(alone.provisioning.len(), 2);
        assert_eq!(alone.chassis.encap.address.to_string(), "10.77.0.9");
    }

    #[test]
    fn what_a_machine_sends_the_switch_gets() {
        let mut wanted = ports(1);
        let rate = protocol::dpu::Rate { kbps: 1000, burst_kb: 800 };
        wanted.ports[0].limits = PortLimits { egress: Some(rate), ingress_kbps: Some(2000) };
        let state = desired(&dpu(), Some(&overlay()), Some(&node(State::Active)), &wanted).unwrap();
        assert_eq!((state.ports[0].ingress, state.ports[0].egress_kbps), (Some(rate), Some(2000)));
    }

    #[test]
    fn what_is_too_large_for_its_network_comes_as_far_as_the_router() {
        for (network, port) in [(1442, 1500), (1500, 1500), (8942, 8942)] {
            let mut wanted = ports(1);
            wanted.ports[0].mtu = network;
            let state = desired(&dpu(), Some(&overlay()), Some(&node(State::Active)), &wanted).unwrap();
            assert_eq!(state.ports[0].mtu, Some(port));
        }
    }

    #[test]
    fn a_port_is_the_function_with_its_address() {
        let active = node(State::Active);
        let mut wanted = ports(2);
        let second = wanted.ports.remove(1);
        wanted.ports = vec![second];
        let state = desired(&dpu(), Some(&overlay()), Some(&active), &wanted).unwrap();
        let [port] = state.ports.as_slice() else { panic!("{:?}", state.ports) };
        assert_eq!((port.interface.as_str(), port.port), ("pf1hpf", PortId(Uuid::from_u128(1))));
        let kept = Some(NotDesired::Functions { wanted: 1, have: 0 });
        let none = desired(&dpu(), Some(&overlay()), Some(&active), &Wanted { kept, ..Wanted::default() });
        let none = none.unwrap();
        assert_eq!((none.ports.len(), none.provisioning.len()), (0, 0), "it is no host of the site's");
    }

    #[test]
    fn what_cannot_be_is_said() {
        let active = node(State::Active);
        let error = |dpu: &Dpu, overlay: Option<&Overlay>, wanted: &Wanted| {
            desired(dpu, overlay, Some(&active), wanted).unwrap_err()
        };
        assert_eq!(error(&dpu(), None, &ports(1)), NotDesired::NoOverlay);
        let lost = Dpu { address: None, ..dpu() };
        assert_eq!(error(&lost, Some(&overlay()), &ports(1)), NotDesired::NoTunnelAddress);
    }

    #[test]
    fn only_what_is_said_of_the_newest_state_counts() {
        let active = node(State::Active);
        let mut state = desired(&dpu(), Some(&overlay()), Some(&active), &ports(1)).unwrap();
        state.generation = 8;
        let mut seen: Observed =
            serde_json::from_str(include_str!("../../../protocol/src/dpu-observed.v1.json")).unwrap();
        seen.generation = Some(8);
        assert!(!plugged(Some(&seen), &state), "another port");
        seen.ports[0].interface = "pf0hpf".into();
        seen.ports[0].port = Some(PortId(Uuid::from_u128(0)).to_string());
        assert!(plugged(Some(&seen), &state));
        seen.generation = Some(7);
        assert!(!plugged(Some(&seen), &state) && !plugged(None, &state));
    }
}
