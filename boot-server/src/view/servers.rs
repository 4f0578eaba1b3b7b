//! Servers of projects as their owners see them.

use boot_server_core::amounts::Amounts;
use boot_server_core::node::Node;
use boot_server_core::quota::Limits;
use boot_server_core::server::{Phase, Server};
use protocol::{GroupId, ImageId, NodeId, ProjectId, ServerId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AddressView, NodeView, Problem, TimelineView};
use crate::engine::servers::Quota;
use crate::store::desk::{FaultRow, KeyRow};

/// A server.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    /// Names it for ever.
    pub id: ServerId,
    /// Names it for people; one living server of its project has it.
    pub name: String,
    /// Whose.
    pub project: ProjectId,
    /// `claimed`, `deploying`, `active`, `error`, `deleting` or `deleted`.
    pub phase: Phase,
    /// Why it does not go on, or what it waits for.
    pub note: Option<String>,
    /// Its machine is in fault, as far as its controller says.
    pub fault: bool,
    /// The flavor it was asked as.
    pub flavor: Option<String>,
    /// Its machine, for people of the site.
    pub node: Option<NodeId>,
    /// Name of the machine, for people of the site.
    pub node_name: Option<String>,
    /// Its group.
    pub group: Option<GroupId>,
    /// The image.
    pub image: ImageId,
    /// Its name and version.
    pub image_name: String,
    /// Host name of its OS.
    pub hostname: String,
    /// What it counts for in quota and usage.
    pub amounts: Amounts,
    /// How far the installation is.
    pub progress: Option<ServerProgress>,
    /// `on`, `off` or `unknown`, where a controller says so.
    pub power: Option<String>,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
    /// When its OS first came up.
    pub active: Option<Timestamp>,
    /// When its machine was given back.
    pub deleted: Option<Timestamp>,
    /// Grows with every change.
    pub version: i64,
}

/// How far an installation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerProgress {
    /// `boot`, `kernel`, `assign`, a stage of the agent, `restart` or `first_boot`.
    pub stage: String,
    /// Since when.
    pub since: Timestamp,
    /// Percent of the stage, where it is known.
    pub percent: Option<u8>,
    /// Seconds left at the current rate.
    pub seconds_left: Option<u64>,
}

/// A server with its installation and its addresses.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerDetail {
    /// The server.
    #[serde(flatten)]
    pub server: ServerView,
    /// Its keys.
    pub ssh_keys: Vec<String>,
    /// Where it is reached: on its networks, floating addresses behind each port's own; without any, what DHCP has lent its machine.
    pub addresses: Vec<ServerAddress>,
    /// The phases of the newest piece of work on it.
    pub timeline: TimelineView,
}

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerAddress {
    /// Of this port.
    #[schema(value_type = String)]
    pub mac: protocol::MacAddr,
    /// The address.
    #[schema(value_type = String)]
    pub address: std::net::IpAddr,
}

/// The server that has a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LentView {
    /// Names it for ever.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// Whose.
    pub project: ProjectId,
    /// Where it stands.
    pub phase: Phase,
}

/// Servers that were made together.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServersCreated {
    /// All of them.
    pub servers: Vec<ServerView>,
}

/// What came of an action on one of several servers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerOutcome {
    /// As it was asked for.
    pub server: String,
    /// The server, where it was done.
    pub done: Option<ServerView>,
    /// Why not, where it was not.
    pub problem: Option<Problem>,
}

/// What came of an action on several servers, in their order.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerOutcomes {
    /// One per server.
    pub outcomes: Vec<ServerOutcome>,
}

/// What a project may have, and what it has.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct QuotaView {
    /// At most; what is not named has no limit.
    pub limits: Limits,
    /// Now.
    pub used: Amounts,
}

/// A key of a project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its name.
    pub name: String,
    /// As in `authorized_keys`.
    pub public_key: String,
    /// As `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// Who put it there.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
}

/// What somebody says is wrong with a server.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FaultReportView {
    /// Names it.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// Whose server.
    pub project: ProjectId,
    /// The server.
    pub server: ServerId,
    /// Name of its machine then, for people of the site.
    pub node: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub reported_by: String,
    /// In their words.
    pub words: String,
    /// When it was closed.
    pub closed: Option<Timestamp>,
    /// What came of it.
    pub answer: Option<String>,
}

impl ServerView {
    /// A server with its machine, where that is known.
    pub fn of(server: Server, node: Option<&Node>, power: Option<String>) -> Self {
        let progress = node.filter(|_| server.phase == Phase::Deploying).and_then(ServerProgress::of);
        let Server { id, project, name, flavor, node: machine, group, spec, amounts, phase, .. } = server;
        Self {
            id,
            name,
            project,
            phase,
            note: server.note,
            fault: server.fault,
            flavor,
            node: Some(machine),
            node_name: node.map(|node| node.name.clone()),
            group,
            image: spec.image,
            image_name: spec.image_name,
            hostname: spec.hostname,
            amounts,
            progress,
            power: power.filter(|_| phase != Phase::Deleted),
            created_by: server.by,
            created: server.created,
            active: server.active,
            deleted: server.deleted,
            version: server.version,
        }
    }
}

impl ServerView {
    /// As people of its project see it, who are not told of machines.
    #[must_use]
    pub fn without_machine(self) -> Self {
        Self { node: None, node_name: None, ..self }
    }
}

impl From<Server> for LentView {
    fn from(server: Server) -> Self {
        let Server { id, name, project, phase, .. } = server;
        Self { id, name, project, phase }
    }
}

impl ServerProgress {
    fn of(node: &Node) -> Option<Self> {
        let job = NodeView::of(node, None).job?;
        let percent = job
            .progress
            .as_ref()
            .filter(|p| p.bytes_total > 0)
            .and_then(|p| u8::try_from(u128::from(p.bytes_done) * 100 / u128::from(p.bytes_total)).ok());
        Some(Self { stage: job.stage, since: job.since, percent, seconds_left: job.seconds_left })
    }
}

impl From<AddressView> for ServerAddress {
    fn from(address: AddressView) -> Self {
        Self { mac: address.mac, address: address.address }
    }
}

impl From<Quota> for QuotaView {
    fn from(Quota { limits, used }: Quota) -> Self {
        Self { limits, used }
    }
}

impl From<KeyRow> for KeyView {
    fn from(key: KeyRow) -> Self {
        let KeyRow { project: _, name, public_key, fingerprint, by, created } = key;
        Self { name, public_key, fingerprint, created_by: by, created }
    }
}

impl FaultReportView {
    /// A report with the name of its machine.
    pub fn of(fault: FaultRow, node: Option<String>) -> Self {
        let FaultRow { id, project, server, node: _, at, by, words, closed, answer } = fault;
        Self { id, project, server, node, at, reported_by: by, words, closed, answer }
    }
}
