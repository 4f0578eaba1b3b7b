//! What the API shows: one JSON form per noun, used by the REST API, the web UI, the command line and the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bmc::{DriverKind, ErrorKind, PowerState};
use boot_server_core::access::Role;
use boot_server_core::bmc::health::{Part, Verdict};
use boot_server_core::check::Finding;
use boot_server_core::deploy::DiskFate;
use boot_server_core::metadata::hostkey::HostKey;
use boot_server_core::names::{PoolName, Tag};
use boot_server_core::node::{
    Boot, BootKind, BootOrder, Node, Place, Quarantine, Repeat, Retired, Severity, StateName, StaticNetwork,
    required_boot, state::RunStage,
};
use boot_server_core::refresh::Papers;
use images::Datasource;
use protocol::fault::Fault;
use protocol::inventory::Inventory;
use protocol::report::Progress;
use protocol::{ChunkId, DiskId, ImageId, JobId, MacAddr, NodeId, ProjectId, Sha256, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::now;
use crate::power::Options;

mod audit;
mod console;
mod expected;
pub mod place;
mod replace;
mod sensors;

pub use expected::ExpectedView;
pub use replace::{ExpectedImport, ReplaceView};

pub use audit::{ApprovalAsked, AuditHead, AuditVerdict, AuditView};
pub use sensors::{MeasuredView, SensorHistory, SensorSeries};
pub mod servers;
mod service;
mod tenancy;

pub use service::{BaselineDiff, ServiceStepView, ServiceView};
pub use tenancy::{
    EnrolmentView, MeView, MemberView, ProjectRoleView, ProjectView, RecoveryView, SessionCreated,
    SessionView, UserView,
};

pub use console::{
    Configured, ConsoleAsks, ConsoleSays, ConsoleSessionView, ConsoleState, ConsoleView, RecordingView,
};

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

/// The management controller of a node. Its password is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BmcView {
    /// Whose.
    pub node: NodeId,
    /// Name of the node.
    pub node_name: String,
    /// By which driver it is spoken to.
    pub driver: DriverKind,
    /// Name or address.
    pub address: String,
    /// Port, where it is not the protocol's own.
    pub port: Option<u16>,
    /// User name.
    pub user: Option<String>,
    /// A password is stored.
    pub has_password: bool,
    /// A BMC key (K_g of IPMI) is stored.
    #[serde(default)]
    pub has_kg: bool,
    /// Fingerprint of the SSH key that is pinned, where there was a console by SSH.
    #[serde(default)]
    pub host_key: Option<String>,
    /// SHA-256 of the certificate that is pinned.
    pub certificate: Option<String>,
    /// What else the driver is told.
    pub options: Options,
    /// Power of the machine as it was last read.
    pub power: Option<PowerState>,
    /// When it last answered.
    pub last_seen: Option<Timestamp>,
    /// Calls in a row that failed.
    pub failures: u32,
    /// Why the last call failed, if it did.
    pub trouble: Option<TroubleView>,
    /// It does not answer and is left alone until then.
    pub wait_until: Option<Timestamp>,
    /// `subscribed` where it sends its events (`bmc.events_url`), else why it does not; null where it was not asked to.
    #[serde(default)]
    pub events: Option<String>,
    /// When the controller itself was last restarted.
    pub reset_at: Option<Timestamp>,
    /// When a person last changed this.
    pub changed: Timestamp,
}

/// Why a controller did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TroubleView {
    /// The kind; null where it is known from before a restart of the server.
    pub kind: Option<ErrorKind>,
    /// In words.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: String,
}

/// A management controller that the agent found in the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BmcFound {
    /// Its address.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its firmware version.
    pub firmware: Option<String>,
    /// IANA enterprise number of its maker.
    pub manufacturer_id: Option<u32>,
}

impl BmcFound {
    /// What the inventory says of it.
    pub fn of(inventory: &Inventory) -> Option<Self> {
        inventory.bmc.as_ref().map(|bmc| Self {
            address: bmc.address.filter(|address| !address.is_unspecified()),
            mac: bmc.mac,
            firmware: bmc.firmware.clone(),
            manufacturer_id: bmc.manufacturer_id,
        })
    }

    /// Where it is, in words.
    pub fn place(&self) -> String {
        match (self.address, self.mac) {
            (Some(address), _) => address.to_string(),
            (None, Some(mac)) => format!("{mac}, which has no IPv4 address yet"),
            (None, None) => "an address that it does not tell".to_owned(),
        }
    }
}

/// Something that answers as a management controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScanFound {
    /// Where.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// It speaks Redfish, and says this of itself to everybody.
    pub redfish: Option<FoundRedfish>,
    /// It answers a presence ping and supports IPMI.
    pub ipmi: bool,
    /// The node whose controller it is: by what is stored, or by what the agent found in the machine.
    pub node: Option<String>,
}

/// What a Redfish service says of itself to everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundRedfish {
    /// SHA-256 of its certificate.
    pub certificate: Option<String>,
    /// Maker.
    pub vendor: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// Version of Redfish.
    pub version: Option<String>,
}

/// What an import did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportView {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Each line of the list, in its order.
    pub lines: Vec<ImportedLine>,
}

/// One line of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportedLine {
    /// Its number in the list, from 1.
    pub line: usize,
    /// Name of the node.
    pub node: Option<String>,
    /// The node is new.
    pub new_node: bool,
    /// The node's controller was known before.
    pub replaces: bool,
    /// Why it was refused.
    pub refused: Option<Problem>,
}

/// What is not as it should be in a machine: for whoever goes there with a spare part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultReport {
    /// Name of the node.
    pub node: String,
    /// Maker and model of the machine.
    pub product: String,
    /// Serial number of the machine.
    pub serial: Option<String>,
    /// The rack and unit where it stands, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Where it is plugged in, as far as the network tells: switches and ports.
    pub switch_ports: Vec<String>,
    /// How well it is; null where no management controller has said so.
    pub health: Option<Verdict>,
    /// What is wrong, the worst first.
    pub faults: Vec<Part>,
}

/// Power of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PowerView {
    /// As it was read for this answer.
    pub state: PowerState,
    /// What was asked for has happened: read back. False: it was accepted, and does not show yet.
    pub confirmed: bool,
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

/// An image.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// Names it for ever.
    pub id: ImageId,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// `bios`, `uefi`.
    pub firmware: Vec<String>,
    /// Size of the raw disk in bytes.
    pub raw_bytes: u64,
    /// Raw bytes that are not holes.
    pub data_bytes: u64,
    /// Smallest disk in bytes.
    pub minimum_disk: u64,
    /// SHA-256 of the raw disk.
    pub sha256: Sha256,
    /// Default user.
    pub default_user: Option<String>,
    /// How the OS in it is told who it is, where a deploy does not say.
    pub datasource: Datasource,
    /// Chunks that hold data.
    pub chunks: u64,
    /// When it was added.
    pub added: Timestamp,
    /// How it came here: `upload`, a path or a URL.
    pub origin: String,
    /// Nodes that run it.
    pub used_by: Vec<String>,
}

/// An ingest on its way or ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IngestView {
    /// Names it.
    pub id: Uuid,
    /// Name and version of the image to be.
    pub image: String,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes of the source, where it says so.
    pub bytes_total: Option<u64>,
    /// Raw bytes stored so far.
    pub raw_bytes: u64,
    /// The image, once it is there.
    pub finished: Option<ImageId>,
    /// The reason, where it was refused.
    pub failed: Option<Problem>,
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

/// What reading an image back found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VerifyView {
    /// The image.
    pub image: ImageId,
    /// Every byte is there and right.
    pub good: bool,
    /// Chunks looked at; holes are not counted.
    pub checked: u64,
    /// Chunks that are missing or wrong, in disk order.
    pub bad: Vec<BadChunkView>,
    /// SHA-256 of the whole raw disk, where no chunk is bad and it is still not what it should be.
    pub whole: Option<Sha256>,
}

/// A chunk that cannot be used.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BadChunkView {
    /// Its place in the image.
    pub index: u64,
    /// Its offset on the raw disk in bytes.
    pub offset: u64,
    /// Its id.
    pub id: ChunkId,
    /// What is wrong with it.
    pub fault: String,
}

/// How the server is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// Version of the program.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// The provisioning interface.
    pub interface: Option<String>,
    /// Our address on it.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Our IPv6 address on it.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub address6: Option<Ipv6Addr>,
    /// DHCP.
    pub dhcp: DhcpView,
    /// Nodes by state.
    pub nodes: BTreeMap<String, u64>,
    /// What machines boot.
    pub ramdisk: RamdiskView,
    /// DHCP servers on the wire other than this one, as seen lately.
    #[serde(default)]
    pub dhcp_servers: Vec<DhcpServerView>,
}

/// A DHCP server that is not this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhcpServerView {
    /// Its address, as it names itself.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// Its hardware address (behind a relay: the relay's); null where only its clients told of it.
    pub mac: Option<MacAddr>,
    /// The interface that it was seen on.
    pub interface: String,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// It lends addresses.
    pub lends: bool,
    /// It tells machines what to boot.
    pub boots: bool,
    /// It may be there: this server works beside the site's own DHCP.
    pub expected: bool,
}

/// DHCP in numbers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DhcpView {
    /// It is on.
    pub enabled: bool,
    /// Leases that have not ended.
    pub leases: u64,
}

/// Kernel and ramdisk.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RamdiskView {
    /// Both are there.
    pub present: bool,
    /// Version of the kernel, where the file tells.
    pub kernel: Option<String>,
    /// Size of both in bytes.
    pub bytes: u64,
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
    pub const FIELDS: [&'static str; 30] = [
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
        "quarantine",
        "retired",
        "papers",
        "agent",
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
            quarantine: node.quarantine.clone(),
            retired: node.retired.clone(),
            papers: node.papers.clone(),
            agent: node.link.session.is_some(),
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
            memory_bytes: inventory.memory_bytes,
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
