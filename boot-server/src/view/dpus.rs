//! DPUs and volumes as the API shows them.

use std::net::IpAddr;

use boot_server_core::volume::{Encrypted, Snapshot, Source, Status, Volume};
use protocol::{DpuId, ImageId, MacAddr, NodeId, ProjectId, ServerId, SnapshotId, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::counters::VolumeCountersView;
use super::dpu_setup::{DpuBmcView, DpuJobView};
use crate::engine::volumes::Hydration;
use crate::engine::{Engine, KnownDpu};

/// How a DPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DpuStatus {
    /// Registered, and has not come in yet.
    Registered,
    /// It introduced itself: somebody has to accept it.
    Waiting,
    /// It is as it is to be.
    Settled,
    /// It is on its way there, or something keeps it.
    Unsettled,
    /// Nothing was heard of it for some time.
    Silent,
}

impl DpuStatus {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Waiting => "waiting",
            Self::Settled => "settled",
            Self::Unsettled => "unsettled",
            Self::Silent => "silent",
        }
    }
}

/// A DPU.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DpuView {
    /// Names it for ever.
    pub id: DpuId,
    /// Names it for people, and in OVN.
    pub name: String,
    /// How it is.
    pub status: DpuStatus,
    /// Its host.
    pub node: Option<NodeId>,
    /// The host's name.
    pub node_name: Option<String>,
    /// It is the site's: it gets networks and disks.
    pub accepted: bool,
    /// Where it dials out from.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Own end of tunnels, where somebody said so.
    #[schema(value_type = Option<String>)]
    pub tunnel_address: Option<IpAddr>,
    /// `system` or `netdev`.
    pub datapath: String,
    /// The bridge with the provisioning network's wire.
    pub provisioning_bridge: String,
    /// What it says of itself.
    pub facts: DpuFacts,
    /// Number of the state that it is to have.
    pub generation: u64,
    /// Number of the state that it has.
    pub observed_generation: Option<u64>,
    /// What keeps it from being as it is to be.
    pub problems: Vec<String>,
    /// When it was last heard of, since the server runs.
    pub seen: Option<Timestamp>,
    /// Who registered or accepted it.
    pub created_by: String,
    /// When it was first known.
    pub created: Timestamp,
    /// Ports of the host, as the switch has them.
    pub ports: Vec<DpuPort>,
    /// Disks of the host, as they are served.
    pub volumes: Vec<DpuVolume>,
    /// Its own controller.
    #[serde(default)]
    pub bmc: Option<DpuBmcView>,
    /// The last job that set it up.
    #[serde(default)]
    pub job: Option<DpuJobView>,
}

/// What a DPU says of itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DpuFacts {
    /// Host name.
    pub hostname: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Version of its kernel.
    pub kernel: String,
    /// Programs with their versions.
    pub programs: Vec<String>,
    /// Functions that the host sees as NICs.
    pub functions: Vec<DpuFunction>,
}

/// A NIC of the host as the DPU has it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DpuFunction {
    /// The representor.
    pub interface: String,
    /// Address of the host's function.
    pub mac: MacAddr,
}

/// A port of the host, as the DPU's switch has it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DpuPort {
    /// The interface.
    pub interface: String,
    /// The logical port.
    pub port: Option<String>,
    /// The bridge, where it is not OVN's.
    pub bridge: Option<String>,
    /// The link is up.
    pub up: bool,
    /// What the switch says against it.
    pub error: Option<String>,
}

/// A disk of the host, as the DPU serves it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DpuVolume {
    /// The volume.
    pub volume: String,
    /// Its exporter runs.
    pub running: bool,
    /// A host is connected.
    pub in_use: bool,
    /// How often the exporter was started again since the DPU's program runs.
    pub restarts: u32,
}

impl DpuView {
    /// As it is known now.
    pub fn of(known: KnownDpu, node_name: Option<String>, silent: bool) -> Self {
        let generation = known.generation();
        let KnownDpu { dpu, observed, seen, problem, .. } = known;
        let current = observed.as_ref().filter(|observed| observed.generation == Some(generation));
        let settled = problem.is_none() && current.is_some_and(|observed| observed.settled);
        let status = match () {
            () if dpu.secret.is_none() => DpuStatus::Registered,
            () if !dpu.accepted => DpuStatus::Waiting,
            () if silent => DpuStatus::Silent,
            () if settled => DpuStatus::Settled,
            () => DpuStatus::Unsettled,
        };
        let mut problems: Vec<String> = problem.map(|problem| problem.to_string()).into_iter().collect();
        problems.extend(observed.iter().flat_map(|observed| observed.problems.clone()));
        let facts = DpuFacts {
            hostname: dpu.facts.hostname,
            serial: dpu.facts.serial,
            model: dpu.facts.model,
            kernel: dpu.facts.kernel,
            programs: dpu.facts.programs.iter().map(|p| format!("{} {}", p.name, p.version)).collect(),
            functions: dpu
                .facts
                .functions
                .into_iter()
                .map(|function| DpuFunction { interface: function.interface, mac: function.mac })
                .collect(),
        };
        let (ports, volumes) = seen_of(observed.as_ref());
        Self {
            id: dpu.id,
            name: dpu.name,
            status,
            node: dpu.node,
            node_name,
            accepted: dpu.accepted,
            address: dpu.address,
            tunnel_address: dpu.tunnel_address,
            datapath: match dpu.datapath {
                protocol::dpu::Datapath::System => "system".to_owned(),
                protocol::dpu::Datapath::Netdev => "netdev".to_owned(),
            },
            provisioning_bridge: dpu.provisioning_bridge.to_string(),
            facts,
            generation,
            observed_generation: observed.and_then(|observed| observed.generation),
            problems,
            seen,
            created_by: dpu.by,
            created: dpu.created,
            ports,
            volumes,
            bmc: None,
            job: None,
        }
    }
}

fn seen_of(observed: Option<&protocol::dpu::Observed>) -> (Vec<DpuPort>, Vec<DpuVolume>) {
    let Some(observed) = observed else { return (Vec::new(), Vec::new()) };
    let ports = observed.ports.iter().map(|port| DpuPort {
        interface: port.interface.clone(),
        port: port.port.clone(),
        bridge: port.bridge.clone(),
        up: port.up,
        error: port.error.clone(),
    });
    let volumes = observed.volumes.iter().map(|volume| DpuVolume {
        volume: volume.name.to_string(),
        running: volume.pid.is_some(),
        in_use: volume.in_use,
        restarts: volume.restarts,
    });
    (ports.collect(), volumes.collect())
}

/// A DPU that was registered.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DpuCreated {
    /// The DPU.
    pub dpu: DpuView,
    /// What it comes in with, once (`billet-dpu run --token-file`). It is shown this one time.
    pub token: String,
}

/// A type of volumes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VolumeTypeView {
    /// Its name.
    pub name: String,
    /// Where they are kept: `file`, `iscsi`, `iscsi-external`, `rbd` or `nvme-tcp`.
    pub kind: String,
    /// Whether they are encrypted: `never`, `on_request` or `always`.
    pub encrypted: Encrypted,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Names it for ever.
    pub id: VolumeId,
    /// Names it for people; one living volume of its project has it.
    pub name: String,
    /// Whose.
    pub project: ProjectId,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// `creating`, `available`, `attaching`, `in_use`, `detaching`, `deleting`, `deleted` or `error`.
    pub status: Status,
    /// The server that has it.
    pub server: Option<ServerId>,
    /// That server boots from it.
    pub boot: bool,
    /// It stays when the server that it was made with is deleted.
    pub keep: bool,
    /// The image that it was made of.
    pub image: Option<ImageId>,
    /// Its name and version.
    pub image_name: Option<String>,
    /// The snapshot that it was made of.
    pub snapshot: Option<SnapshotId>,
    /// Requests per second that it takes at most.
    pub iops: Option<u64>,
    /// Bytes per second that it takes at most.
    pub bytes_per_second: Option<u64>,
    /// Its backend holds its bytes encrypted.
    pub encrypted: bool,
    /// Serial number that the host reads, where its exporter can tell it.
    pub serial: String,
    /// What it did, as its DPU says; left out while none presents it, or where nothing was heard of it for some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<VolumeCountersView>,
    /// Why it does not go on.
    pub note: Option<String>,
    /// Of an instant volume: how much of its image is on its DPU. Of one whose image its DPU writes now: how far that is.
    pub hydration: Option<HydrationView>,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
    /// Grows with every change.
    pub version: i64,
}

/// How much of its image an instant volume has, or one whose image its DPU writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HydrationView {
    /// Percent of the image's chunks; where it is written, of writing and reading back.
    pub percent: u8,
    /// Bytes of the image's data, as long as its DPU serves the volume.
    pub bytes: Option<u64>,
    /// All of it is there: the image store is needed no more.
    pub hydrated: bool,
    /// Why the image store cannot be reached; none while it can.
    pub store_away: Option<String>,
    /// Chunks that came with wrong bytes, which no host gets.
    pub wrong_chunks: usize,
}

impl VolumeView {
    /// With how much of its image it has.
    pub fn with(self, hydration: Option<Hydration>) -> Self {
        let hydration = hydration.map(|Hydration { percent, bytes, hydrated, store_away, wrong_chunks }| {
            HydrationView { percent, bytes, hydrated, store_away, wrong_chunks }
        });
        Self { hydration, ..self }
    }
}

impl From<Volume> for VolumeView {
    fn from(volume: Volume) -> Self {
        let (status, serial) = (volume.status(), volume.serial());
        let (image, image_name, snapshot) = match volume.source {
            Source::Blank => (None, None, None),
            Source::Image { image, image_name } | Source::Os { image, image_name, .. } => {
                (Some(image), Some(image_name), None)
            }
            Source::Snapshot { snapshot, .. } => (None, None, Some(snapshot)),
        };
        Self {
            id: volume.id,
            name: volume.name,
            project: volume.project,
            kind: volume.kind,
            size: volume.size,
            status,
            server: volume.attachment.as_ref().map(|at| at.server),
            boot: volume.attachment.is_some_and(|at| at.boot),
            keep: volume.keep,
            image,
            image_name,
            snapshot,
            iops: volume.limits.and_then(|limits| limits.iops),
            bytes_per_second: volume.limits.and_then(|limits| limits.bytes_per_second),
            encrypted: volume.key.is_some(),
            serial,
            counters: None,
            note: volume.note,
            hydration: None,
            created_by: volume.by,
            created: volume.created,
            version: volume.version,
        }
    }
}

impl VolumeView {
    /// With what it did.
    pub fn counted(engine: &Engine, volume: Volume) -> Self {
        let counters = engine.volume_counters(&volume).map(Into::into);
        Self { counters, ..volume.into() }
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// Names it for ever.
    pub id: SnapshotId,
    /// Names it for people.
    pub name: String,
    /// Whose.
    pub project: ProjectId,
    /// Of this volume.
    pub volume: VolumeId,
    /// The volume's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Size of the volume then, in bytes.
    pub size: u64,
    /// It is encrypted, and so is what is made of it.
    pub encrypted: bool,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
}

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { id, project, volume, name, kind, size, key, by, created } = snapshot;
        let encrypted = key.is_some();
        Self { id, name, project, volume, kind, size, encrypted, created_by: by, created }
    }
}
