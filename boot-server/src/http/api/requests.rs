//! What clients send, beside [`DeployRequest`](boot_server_core::deploy::DeployRequest). Unknown fields are refused:
//! a misspelt option that is silently dropped erases the wrong disk.

use std::path::PathBuf;

use bmc::PowerAction;
use boot_server_core::access::Role;
use boot_server_core::node::place::{Label, Rack, Unit};
use boot_server_core::node::{Boot, Repeat};
use boot_server_core::servicing::{RestartPolicy, ServiceStep};
use images::{Architecture, Datasource};
use protocol::{DiskId, MacAddr, ProjectId, Sha256};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::bmc_requests::BmcRequest;

/// Nothing to say.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmptyRequest {}

/// Disks to wipe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WipeRequest {
    /// The disks. Empty: none for `provide`, the disk with the OS for `delete`.
    pub wipe: Vec<DiskId>,
    /// Erase all that is on all fixed disks of the machine, as between tenants; `wipe` is then not given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub erase: bool,
    /// The node's name, typed by whoever asks; needed where something is wiped.
    pub confirm: Option<String>,
}

/// Maintenance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// Why; `null` ends it.
    pub reason: Option<String>,
    /// It ends by itself then; milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<protocol::Timestamp>,
}

/// Where the server of a machine goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvacuateRequest {
    /// To this machine, by name or id; if not given, a free one of the server's flavor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Out of use for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetireRequest {
    /// Why; `null` takes the machine back.
    pub reason: Option<String>,
}

/// A boot that somebody vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveBootRequest {
    /// Its number, as `trust.boot` of the node says: another boot is not meant.
    pub boot: u64,
}

/// The TPM of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinTpmRequest {
    /// SHA-256 of the public area of its endorsement key, 64 hexadecimal digits; its agent must show it now.
    #[schema(value_type = String)]
    pub ek: protocol::Sha256,
}

/// What machines of a model measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LearnMeasuredRequest {
    /// Name or id of a machine that booted as it should, and whose agent is there.
    pub node: String,
    /// Which registers; 0, 2, 4, 7 and 9 where none are given.
    #[serde(default)]
    pub pcrs: Vec<u8>,
    /// Beside the values that are allowed already.
    #[serde(default)]
    pub add: bool,
    /// Pin the first TPM that a machine shows to which somebody assigned the model.
    #[serde(default)]
    pub trust_first_tpm: bool,
}

/// Machines that are expected: `csv` or `machines`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedMachinesRequest {
    /// Comma-separated values with a line of headings: name, mac, uuid, serial, model, pool, rack, unit, height, room, power_feed,
    /// bmc_address, tags, purchased, warranty_end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csv: Option<String>,
    /// The same as a list of objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<Vec<boot_server_core::arrivals::Arrival>>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// A machine that takes the part of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceRequest {
    /// Name or id of the new machine.
    pub with: String,
    /// The new one stands where the old one stood.
    #[serde(default)]
    pub take_place: bool,
    /// Also where the new one has fewer cores, less memory, smaller disks or fewer ports.
    #[serde(default)]
    pub allow_smaller: bool,
    /// The old machine's name, typed by whoever asks: this wipes disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// A model from a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LearnRequest {
    /// Name of the model.
    pub name: String,
    /// In place of the one of this name.
    #[serde(default)]
    pub replace: bool,
}

/// Of which model a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelRequest {
    /// Name of the model; `null`: its maker and product tell.
    pub model: Option<String>,
}

/// A machine that may be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// Why.
    pub reason: String,
}

/// How far ahead.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RefreshQuery {
    /// Quarters, this one included: 1 to 20; 8 if not given.
    pub quarters: Option<u32>,
}

/// A new name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    /// A host name without dots.
    pub name: String,
}

/// Where a node stands. Without a rack: that is not known any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PlaceRequest {
    /// The rack, as the site calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack: Option<Rack>,
    /// The lowest unit that it takes there, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// How many units it takes, from there up; one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<Unit>,
    /// The room that the rack stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<Label>,
    /// The power feed that it fails with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_feed: Option<Label>,
}

/// Firmware and settings to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceRequest {
    /// What, in order.
    pub steps: Vec<ServiceStep>,
    /// Whether a machine that runs an OS may be restarted for it; never if not given.
    #[serde(default)]
    pub restart: RestartPolicy,
}

/// How a baseline is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApplyRequest {
    /// Its firmware too; true if not given.
    pub firmware: bool,
    /// Whether a machine that runs an OS may be restarted for it; never if not given.
    pub restart: RestartPolicy,
}

impl Default for ApplyRequest {
    fn default() -> Self {
        Self { firmware: true, restart: RestartPolicy::Never }
    }
}

/// Which recordings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecordingQuery {
    /// Of this node only: name or id.
    pub node: Option<String>,
    /// How many, 1 to 1,000; 100 if not given.
    pub limit: Option<usize>,
    /// Go on after this one: `next` of the page before.
    pub cursor: Option<String>,
}

/// Somebody else's key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustKeyRequest {
    /// The public key, as minisign has it: its file, or the second line.
    pub public: String,
    /// Whose it is, for people.
    pub title: String,
}

/// A key for the site.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImportKeyRequest {
    /// Its private part, as minisign has it, without a password; left out where it stays elsewhere. It is never given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<String>,
    /// The public key; left out where the private part is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// By which the key of now names it, as `billet site key rotate --key` makes it; not needed where the private part of that key is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// The key of now is lost: who trusts it must be told of the new one by hand.
    pub forget: bool,
}

impl std::fmt::Debug for ImportKeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportKeyRequest")
            .field("private", &self.private.is_some())
            .field("public", &self.public)
            .field("forget", &self.forget)
            .finish_non_exhaustive()
    }
}

/// A signature for an image.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignatureRequest {
    /// Its file, in minisign's form, as `billet image sign` makes it. Left out: the server signs by the site's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is: 1 to 32 of `a-z`, `0-9`, `.`, `_`, `-`, `@`.
    pub name: String,
    /// At the site `operator`, `auditor` or `reader`; in a project any that the own covers.
    pub role: Role,
    /// It ends by itself after so long; never if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// A user to add.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    /// 1 to 32 of `a-z`, `0-9`, `.`, `_`, `-`, `@`; for ever.
    pub name: String,
    /// The name that people call them by.
    #[serde(default)]
    pub full_name: String,
    /// What they may do at the site: `admin`, `operator`, `auditor` or `reader`; nothing if not given.
    #[serde(default)]
    pub site_role: Option<Role>,
    /// A password to begin with, of at least ten characters; without one they sign in at the site's OpenID provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// What a user is to be from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// The name that people call them by.
    #[serde(default)]
    pub full_name: String,
    /// What they may do at the site; `null` for nothing.
    pub site_role: Option<Role>,
    /// They may not sign in.
    pub disabled: bool,
}

/// A new password for a user.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// At least ten characters.
    pub password: String,
}

/// A new password for whoever asks.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnPasswordRequest {
    /// The one of now.
    pub current: String,
    /// The new one: at least ten characters.
    pub password: String,
}

/// The password, once more, before something that matters.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofRequest {
    /// The one of now.
    pub current: String,
}

/// A code of an authenticator.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeRequest {
    /// Six digits.
    pub code: String,
}

/// Signing in.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
    /// Of the authenticator, or a recovery code, where there is a second factor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
}

/// A project to make, or what it is to be called from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectRequest {
    /// `[a-z0-9][a-z0-9._-]{0,62}`, and no UUID.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// What somebody is to be in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// `admin`, `operator`, `member`, `auditor` or `reader`; no more than the own.
    pub role: Role,
}

/// What a node is to boot instead of the usual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BootRequest {
    /// What.
    pub boot: Boot,
    /// How often; once if not given.
    #[serde(default)]
    pub repeat: Repeat,
    /// The node's name, typed by whoever asks; needed for an installer with a profile, which erases a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// An image that the server gets by itself, from `path` or from `url`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IngestRequest {
    /// Name: 1 to 64 of `a-z`, `0-9`, `.`, `-`, `_`.
    pub name: String,
    /// Version, of the same alphabet.
    pub version: String,
    /// File on the server, below one of its import directories.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// `http` or `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Size of the file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Machine architecture; `x86_64` if not given.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// User that the image's cloud-init makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// How the OS in it is told who it is; `nocloud` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datasource: Option<Datasource>,
    /// Smallest disk in bytes; the raw size if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_disk: Option<u64>,
}

/// What is said about an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// Name: 1 to 64 of `a-z`, `0-9`, `.`, `-`, `_`.
    pub name: String,
    /// Version, of the same alphabet.
    pub version: String,
    /// Size of the file in bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// SHA-256 of the file.
    #[serde(default)]
    pub sha256: Option<Sha256>,
    /// Machine architecture; `x86_64` if not given.
    #[param(value_type = Option<String>)]
    #[serde(default)]
    pub architecture: Option<Architecture>,
    /// User that the image's cloud-init makes.
    #[serde(default)]
    pub default_user: Option<String>,
    /// How the OS in it is told who it is; `nocloud` if not given.
    #[param(inline)]
    #[serde(default)]
    pub datasource: Option<Datasource>,
    /// Smallest disk in bytes; the raw size if not given.
    #[serde(default)]
    pub minimum_disk: Option<u64>,
}

/// A machine to announce before it boots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EnrollRequest {
    /// A host name without dots; made of the first address if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Addresses of its ports, of which it boots from one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub macs: Vec<MacAddr>,
    /// SMBIOS UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<PlaceRequest>,
    /// Its management controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcRequest>,
}

/// What is done to many nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkVerb {
    /// Take it out of enroll, available or failed.
    Manage,
    /// Look at the hardware again.
    Inspect,
    /// Stop the job at the next safe point.
    Abort,
    /// Do the failed job again.
    Retry,
    /// Offer it; no disk is wiped.
    Provide,
    /// Put it under maintenance for `reason`, or end that.
    Maintenance,
    /// Switch it, as `power` says.
    Power,
}

/// One thing to do to many nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    /// What.
    pub verb: BulkVerb,
    /// To these: names or ids.
    #[schema(max_items = 1000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<String>>,
    /// To those that this finds, at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<BulkFilter>,
    /// For `maintenance`: why; none ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For `power`: what to switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerAction>,
    /// Only say which nodes these are.
    #[serde(default)]
    pub dry_run: bool,
}

/// Which nodes; those of which all of it is true.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BulkFilter {
    /// In this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// In this rack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// In this pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// With this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Under maintenance, or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<bool>,
    /// With this in name, serial number, UUID, address, product, host name or image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
}

impl From<BulkFilter> for NodeQuery {
    fn from(filter: BulkFilter) -> Self {
        let BulkFilter { state, rack, pool, tag, maintenance, q } = filter;
        Self { state, rack, pool, tag, maintenance, q, ..Self::default() }
    }
}

/// Which nodes.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NodeQuery {
    /// In this state only.
    pub state: Option<String>,
    /// In this rack only.
    pub rack: Option<String>,
    /// In this pool only.
    pub pool: Option<String>,
    /// With this tag only.
    pub tag: Option<String>,
    /// Under maintenance, or not.
    pub maintenance: Option<bool>,
    /// With this in name, serial number, UUID, address, product, host name or image.
    pub q: Option<String>,
    /// Only these fields of each node, separated by commas.
    pub fields: Option<String>,
    /// How many, 1 to 1,000; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// Which part of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many, 1 to 1,000; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// Which certificates.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CertificateQuery {
    /// Of disks of this node: its id, or its name, also then.
    pub node: Option<String>,
    /// Of the disk with this serial number.
    pub serial: Option<String>,
    /// How many, 1 to 1,000; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Of this node only (name or id).
    pub node: Option<String>,
    /// Newer than this one, oldest first.
    pub after: Option<i64>,
    /// Older than this one.
    pub before: Option<i64>,
    /// How many, 1 to 1,000; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// Which entries of the audit.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// By this actor (name of a user or token).
    pub actor: Option<String>,
    /// About this node only (name or id).
    pub node: Option<String>,
    /// About this project only (id).
    pub project: Option<ProjectId>,
    /// Of this kind: `asked`, `answered`, `read`, `login`, `console`, `bmc`, `access`, `approval`, `change`, `audit`.
    pub kind: Option<String>,
    /// What this request caused.
    pub request: Option<Uuid>,
    /// Not before this moment, in milliseconds since 1970.
    pub since: Option<u64>,
    /// Before this moment, in milliseconds since 1970.
    pub until: Option<u64>,
    /// Newer than this one, oldest first.
    pub after: Option<u64>,
    /// Older than this one.
    pub before: Option<u64>,
    /// How many, 1 to 500; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// Which approvals.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApprovalQuery {
    /// `waiting`, `approved`, `carrying`, `done`, `failed`, `refused`, `expired` or `stale`.
    pub status: Option<String>,
    /// On this node only (name or id).
    pub node: Option<String>,
    /// How many, 1 to 500; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// A decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionRequest {
    /// Why, at most 1024 bytes.
    pub reason: Option<String>,
}

/// Where an export begins.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditExportQuery {
    /// Behind this entry; all entries if not given.
    pub after: Option<u64>,
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// After this event; the header `Last-Event-ID`, which browsers send by themselves, goes before it.
    pub after: Option<i64>,
}
