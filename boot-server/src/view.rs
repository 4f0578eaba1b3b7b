//! What the API shows: one JSON form per noun, used by the REST API, the web UI, the command line and the tests.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bmc::PowerState;
use boot_server_core::access::Role;
use boot_server_core::bmc::health::Verdict;
use boot_server_core::check::Finding;
use boot_server_core::deploy::DiskFate;
use boot_server_core::hardware::installed_memory;
use boot_server_core::metadata::hostkey::HostKey;
use boot_server_core::names::{PoolName, Tag};
use boot_server_core::node::{
    Boot, BootKind, BootOrder, Dirty, Node, Place, Quarantine, Repeat, Retired, Severity, StateName,
    StaticNetwork, required_boot, state::RunStage,
};
use boot_server_core::refresh::Papers;
use protocol::fault::Fault;
use protocol::inventory::Inventory;
use protocol::report::Progress;
use protocol::{DiskId, ImageId, JobId, MacAddr, NodeId, ProjectId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::now;

mod audit;
mod bundles;
mod certificate;
mod console;
mod controller;
pub mod counters;
pub mod dpu_functions;
pub mod dpu_setup;
pub mod dpus;
mod expected;
mod image;
pub mod networks;
pub mod place;
mod replace;
mod sensors;
pub mod servers;
mod service;
mod status;
pub mod switches;
mod tenancy;
mod trust;

pub use audit::{ApprovalAsked, AuditHead, AuditVerdict, AuditView};
pub use bundles::{BundleCheckView, BundleView};
pub use certificate::CertificateView;
pub use console::{
    Configured, ConsoleAsks, ConsoleSays, ConsoleSessionView, ConsoleState, ConsoleView, RecordingView,
};
pub use controller::{
    BmcFound, BmcView, FaultReport, FoundRedfish, ImportView, ImportedLine, PowerView, ScanFound, TroubleView,
};
pub use expected::ExpectedView;
pub use image::{BadChunkView, ImageView, IngestView, KeyOfSiteView, SignatureView, VerifyView};
pub use replace::{ExpectedImport, ReplaceView};
pub use sensors::{MeasuredView, SensorHistory, SensorSeries};
pub use service::{BaselineDiff, ServiceStepView, ServiceView};
pub use status::{DhcpServerView, DhcpView, RamdiskView, StatusView};
pub use tenancy::{
    EnrolmentView, MeView, MemberView, ProjectRoleView, ProjectView, RecoveryView, SessionCreated,
    SessionView, UserView,
};
pub use trust::{ShownTpm, TrustView};

/// A node in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Names it for ever.
    pub id: NodeId,
    /// Names it for people.
    pub name: String,
    /// Where it stands.
    pub state: StateName,
    /// What it waits for, in words; empty where it waits for nothing.
    pub waits_for: Option<String>,
    /// When something will be done about the wait.
    pub deadline: Option<Timestamp>,
    /// The cause, in `failed`.
    pub fault: Option<Fault>,
    /// Why it is under maintenance.
    pub maintenance: Option<String>,
    /// Maintenance ends by itself then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<Timestamp>,
    /// Who set maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_by: Option<String>,
    /// The model that it was assigned, where maker and product do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// It is to be erased before somebody else gets it, and is not offered until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<Dirty>,
    /// It is not as its model says, and is kept out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
    /// It is on its way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Retired>,
    /// Day of purchase and end of warranty.
    #[serde(default)]
    pub papers: Papers,
    /// An agent of the current boot is known.
    pub agent: bool,
    /// How far it is proven which machine that agent runs on.
    #[serde(default)]
    pub trust: TrustView,
    /// What a network boot would get now.
    pub boots: BootKind,
    /// What somebody ordered it to boot; stays as a record once it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootOrderView>,
    /// The job on its way.
    pub job: Option<JobView>,
    /// Power as it was last read; absent where no management controller is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerState>,
    /// How well the machine is; absent where no management controller has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Verdict>,
    /// The OS on it.
    pub installed: Option<InstalledView>,
    /// SMBIOS UUID.
    pub uuid: Option<Uuid>,
    /// Serial number.
    pub serial: Option<String>,
    /// Addresses.
    pub macs: Vec<MacAddr>,
    /// Rack and unit, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The pool that it is in.
    #[serde(default = "PoolName::default_pool")]
    pub pool: PoolName,
    /// What people say of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
    /// Its network settings, where it gets none by DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<StaticNetwork>,
    /// First seen.
    pub created: Timestamp,
    /// One line about the hardware, once it is known.
    pub hardware: Option<Hardware>,
    /// The waterfall of the newest work.
    pub timeline: TimelineView,
}

/// What became of one verb for many nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkView {
    /// Nodes that did it.
    pub done: u64,
    /// Nodes that refused.
    pub refused: u64,
    /// Each node, in the order in which they were named, else by name.
    pub results: Vec<BulkResult>,
}

/// What became of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkResult {
    /// Its name; what was asked for, where there is no such node.
    pub node: String,
    /// Its id.
    pub id: Option<NodeId>,
    /// Its state after it; null where it refused.
    pub state: Option<StateName>,
    /// Why it refused.
    pub refused: Option<Problem>,
}

/// A boot that was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BootOrderView {
    /// What, without secrets.
    pub boot: Boot,
    /// In words.
    pub words: String,
    /// How often.
    pub repeat: Repeat,
    /// The next network boot follows it.
    pub pending: bool,
    /// When it was ordered.
    pub asked: Timestamp,
    /// When it last began: everything was loaded.
    pub begun: Option<Timestamp>,
}

/// A node with all that is known of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    /// As in the list.
    #[serde(flatten)]
    pub node: NodeView,
    /// The whole inventory.
    pub inventory: Option<Inventory>,
    /// Addresses that Billet's DHCP and DHCPv6 lend to its ports now: of the OS once that runs, of the agent before.
    #[serde(default)]
    pub addresses: Vec<AddressView>,
    /// What keeps its newest boot from going on, as far as it can be told from the network.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Its management controller, where Billet knows one.
    #[serde(default)]
    pub bmc: Option<BmcView>,
    /// The management controller that the agent found in it.
    #[serde(default)]
    pub bmc_found: Option<BmcFound>,
    /// The servicing job on its way, or the one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceView>,
    /// The server that has it, where it is lent to a project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<servers::LentView>,
}

/// What would keep machines from booting.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// A running server was asked; else its network was looked at before serving.
    pub serving: bool,
    /// What was found; errors first.
    pub findings: Vec<Finding>,
    /// Machines that began to boot and are no nodes yet.
    #[serde(default)]
    pub machines: Vec<StuckMachine>,
}

/// A machine that began to boot and went no further.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StuckMachine {
    /// Its address.
    pub mac: MacAddr,
    /// Its newest packet.
    pub last: Timestamp,
    /// Why, as far as it can be told.
    pub finding: Finding,
}

/// An address that a node's port has now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddressView {
    /// The port.
    pub mac: MacAddr,
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The lease lasts until then, unless it is renewed.
    pub expires: Timestamp,
    /// The switch or relay that the port is connected to, as it calls itself (DHCP option 82, remote id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
    /// The port of that switch (DHCP option 82, circuit id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_port: Option<String>,
}

impl AddressView {
    /// The address, and where its port is plugged in: `10.88.0.10 (switch leaf-3, port ge-0/0/7)`.
    pub fn plugged(&self) -> String {
        let switch = self.switch.as_ref().map(|s| format!("switch {s}"));
        let port = self.switch_port.as_ref().map(|p| format!("port {p}"));
        let place: Vec<_> = switch.into_iter().chain(port).collect();
        if place.is_empty() {
            self.address.to_string()
        } else {
            format!("{} ({})", self.address, place.join(", "))
        }
    }
}

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Names it.
    pub id: JobId,
    /// `inspect`, `clean`, `deploy` or `service`.
    pub verb: String,
    /// How far it is: `boot`, `kernel`, `assign`, a stage of the agent, `restart`, `first_boot`; or
    /// that of a servicing job.
    pub stage: String,
    /// Since when.
    pub since: Timestamp,
    /// Progress of the stage.
    pub progress: Option<Progress>,
    /// Seconds left at the current rate.
    pub seconds_left: Option<u64>,
    /// Image being written.
    pub image: Option<String>,
    /// Disk being written.
    pub disk: Option<DiskId>,
    /// A stop was asked for.
    pub abort: bool,
}

/// The OS on a node.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstalledView {
    /// Image.
    pub image: ImageId,
    /// Its name and version.
    pub image_name: String,
    /// Host name.
    pub hostname: String,
    /// Disk.
    pub disk: DiskId,
    /// Since when.
    pub since: Timestamp,
    /// Its SSH host keys, as it told them when it came up: compare them at the first login.
    #[serde(default)]
    pub host_keys: Vec<HostKey>,
}

/// The hardware in one line's worth of facts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Hardware {
    /// Manufacturer and product.
    pub product: String,
    /// CPU model of the first socket.
    pub cpu: String,
    /// Cores in all sockets.
    pub cores: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disks.
    pub disks: u32,
    /// Bytes on all disks.
    pub disk_bytes: u64,
    /// Network ports.
    pub nics: u32,
    /// `bios` or `uefi`.
    pub firmware: String,
}

/// The waterfall.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TimelineView {
    /// What the work is.
    pub title: String,
    /// Phases in order.
    pub phases: Vec<PhaseView>,
}

/// One phase of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PhaseView {
    /// Stable name, such as `write`.
    pub phase: String,
    /// When it began.
    pub at: Timestamp,
    /// Milliseconds since the first phase.
    pub offset_ms: u64,
    /// Milliseconds until the next phase, if that has come.
    pub took_ms: Option<u64>,
}

/// One line of what happened.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Grows by one; the cursor of lists and streams.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// The node it happened to.
    pub node: Option<NodeId>,
    /// Its name.
    pub node_name: Option<String>,
    /// The project that it concerns.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// Who: `operator`, `agent`, `machine`, `server`.
    pub actor: String,
    /// The address that asked for it.
    #[serde(default)]
    pub source: Option<String>,
    /// Stable kind.
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// In words.
    pub message: String,
}

impl EventView {
    /// As a project's people see it: from where an operator works is nothing for them, nor, unless they are of the site too, which
    /// machine it was.
    #[must_use]
    pub fn in_project(self, of_site: bool) -> Self {
        let (node, node_name) = if of_site { (self.node, self.node_name) } else { (None, None) };
        Self { node, node_name, source: None, ..self }
    }
}

/// What a deploy would do, for the form and `--dry-run`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployPreview {
    /// The disk that would be written.
    pub target: Option<DiskId>,
    /// Every disk: what will be erased and what stays.
    pub disks: Vec<DiskFate>,
    /// Why it would be refused, if it would.
    pub refused: Option<Problem>,
}

/// A named token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Names it for ever.
    pub id: Uuid,
    /// Whose it is.
    pub name: String,
    /// The project that it is good in; the site where there is none.
    pub project: Option<ProjectId>,
    /// What it allows there.
    pub role: Role,
    /// The user who made it; it is good for no more than they are.
    pub maker: Option<UserId>,
    /// When it was made.
    pub created: Timestamp,
    /// It ends by itself then.
    pub expires: Option<Timestamp>,
    /// It was ended then.
    pub revoked: Option<Timestamp>,
    /// It can be used now.
    pub holds: bool,
}

/// A token that was just made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// The token.
    #[serde(flatten)]
    pub token: TokenView,
    /// Its text, which is shown this once.
    pub secret: String,
}

/// An error as the client gets it (RFC 9457 members plus code and hint).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: String,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give this as `cursor` for the next page.
    pub next: Option<String>,
}

impl NodeView {
    /// Every field, for whoever wants some of them.
    pub const FIELDS: [&'static str; 32] = [
        "id",
        "name",
        "state",
        "waits_for",
        "deadline",
        "fault",
        "maintenance",
        "maintenance_until",
        "maintenance_by",
        "model",
        "dirty",
        "quarantine",
        "retired",
        "papers",
        "agent",
        "trust",
        "boots",
        "boot",
        "job",
        "power",
        "health",
        "installed",
        "uuid",
        "serial",
        "macs",
        "place",
        "pool",
        "tags",
        "network",
        "created",
        "hardware",
        "timeline",
    ];

    /// The node as the API shows it.
    pub fn of(node: &Node, inventory: Option<&Inventory>) -> Self {
        let run = node.state.run();
        let macs: Vec<MacAddr> = node.identity.macs.iter().copied().collect();
        let mac_text = macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let fault = match &node.state {
            boot_server_core::node::State::Failed(failure) => Some(failure.fault.clone()),
            _ => None,
        };
        Self {
            id: node.id,
            name: node.name.clone(),
            state: node.state.name(),
            waits_for: node
                .waits_for(&mac_text)
                .or(node.state.service().map(boot_server_core::node::Service::waits_for)),
            deadline: node.state.deadline(),
            fault,
            maintenance: node.maintenance.as_ref().map(|m| m.reason.clone()),
            maintenance_until: node.maintenance.as_ref().and_then(|m| m.until),
            maintenance_by: node.maintenance.as_ref().and_then(|m| m.by.clone()),
            model: node.model.clone(),
            dirty: node.dirty.clone(),
            quarantine: node.quarantine.clone(),
            retired: node.retired.clone(),
            papers: node.papers.clone(),
            agent: node.link.session.is_some(),
            trust: TrustView::of(node),
            boots: required_boot(node, now()).kind(),
            boot: node.boot.as_ref().map(BootOrderView::of),
            job: run.map(JobView::of).or(node.state.service().map(JobView::of_service)),
            power: None,
            health: None,
            installed: node.installed.as_ref().map(|i| InstalledView {
                image: i.image,
                image_name: i.image_name.clone(),
                hostname: i.hostname.clone(),
                disk: i.disk.clone(),
                since: i.since,
                host_keys: i.host_keys.clone(),
            }),
            uuid: node.identity.uuid,
            serial: node.identity.serial.clone(),
            macs,
            place: node.place.clone(),
            pool: node.pool(),
            tags: node.tags.clone(),
            network: node.network.clone(),
            created: node.created,
            hardware: inventory.map(Hardware::of),
            timeline: TimelineView::of(&node.timeline),
        }
    }
}

impl BootOrderView {
    fn of(order: &BootOrder) -> Self {
        Self {
            boot: order.boot.without_secrets(),
            words: order.boot.words(),
            repeat: order.repeat,
            pending: order.pending(),
            asked: order.asked,
            begun: order.begun,
        }
    }
}

impl JobView {
    fn of(run: &boot_server_core::node::Run) -> Self {
        let stage = match run.stage {
            RunStage::Volume => "volume".to_owned(),
            RunStage::Cross => "cross".to_owned(),
            RunStage::Boot => "boot".to_owned(),
            RunStage::Kernel => "kernel".to_owned(),
            RunStage::Assign => "assign".to_owned(),
            RunStage::Agent(stage) => snake(&stage),
            RunStage::Restart => "restart".to_owned(),
            RunStage::FirstBoot => "first_boot".to_owned(),
        };
        let deploy = match &run.job.task {
            protocol::job::Task::Deploy(spec) => Some(spec),
            protocol::job::Task::Inspect | protocol::job::Task::Clean { .. } => None,
        };
        let left = |p: &Progress| p.bytes_total.saturating_sub(p.bytes_done).checked_div(p.bytes_per_second);
        Self {
            id: run.job.id,
            verb: run.job.task.verb().to_owned(),
            stage,
            since: run.since,
            progress: run.progress,
            seconds_left: run.progress.as_ref().and_then(left),
            image: deploy.map(|d| d.image_name.clone()),
            disk: deploy.map(|d| d.target.id.clone()),
            abort: run.abort,
        }
    }
}

impl JobView {
    fn of_service(service: &boot_server_core::node::Service) -> Self {
        Self {
            id: service.id,
            verb: "service".to_owned(),
            stage: service.stage.as_str().to_owned(),
            since: service.since,
            progress: None,
            seconds_left: None,
            image: None,
            disk: None,
            abort: service.abort,
        }
    }
}

impl Hardware {
    /// What an inventory says in a line.
    pub fn of(inventory: &Inventory) -> Self {
        let system = &inventory.system;
        let product = [&system.manufacturer, &system.product]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(" ");
        Self {
            product,
            cpu: inventory.cpus.first().map(|c| c.model.clone()).unwrap_or_default(),
            cores: inventory.cpus.iter().map(|c| c.cores).sum(),
            memory_bytes: installed_memory(inventory),
            disks: u32::try_from(inventory.disks.len()).unwrap_or(u32::MAX),
            disk_bytes: inventory.disks.iter().map(|d| d.size_bytes).sum(),
            nics: u32::try_from(inventory.nics.len()).unwrap_or(u32::MAX),
            firmware: snake(&inventory.firmware.mode),
        }
    }
}

impl TimelineView {
    pub(crate) fn of(timeline: &boot_server_core::node::Timeline) -> Self {
        let start = timeline.marks.first().map(|(_, at)| *at).unwrap_or_default();
        let phase = |(i, (phase, at)): (usize, &(boot_server_core::node::Phase, Timestamp))| PhaseView {
            phase: snake(phase),
            at: *at,
            offset_ms: millis(at.since(start)),
            took_ms: timeline.marks.get(i + 1).map(|(_, next)| millis(next.since(*at))),
        };
        Self { title: timeline.title.clone(), phases: timeline.marks.iter().enumerate().map(phase).collect() }
    }
}

fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// The name that serde gives a unit variant.
fn snake<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema as _;

    use super::*;

    #[test]
    fn fields_of_a_node_are_all_named() {
        let schema = serde_json::to_value(NodeView::schema()).unwrap();
        let mut fields: Vec<_> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut named = NodeView::FIELDS;
        fields.sort_unstable();
        named.sort_unstable();
        assert_eq!(fields, named);
    }
}
