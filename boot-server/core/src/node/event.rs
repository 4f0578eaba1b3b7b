//! What can happen to a node, and what follows from it.

use std::collections::BTreeSet;

use protocol::agent::Hello;
use protocol::erase::EraseRecord;
use protocol::fault::Fault;
use protocol::job::{DeploySpec, DiskTarget};
use protocol::report::ReportBatch;
use protocol::{JobId, MacAddr, Sha256, Timestamp};
use serde::{Deserialize, Serialize};

use super::boot::{Boot, Repeat};
use super::service::{ServiceNews, ServiceOrder};
use super::state::StateName;
use super::trust::{Needs, Quoted};
use super::{Cable, Claim, Installed, Netboot, Node, Place, StaticNetwork};
use crate::expected::Compared;
use crate::metadata::hostkey::HostKey;
use crate::names::{PoolName, Tag};
use crate::refresh::Papers;
use crate::volume::Imaging;

/// What happened. API calls, packets, agent reports and deadlines are all events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its firmware or boot loader asked for an address; `first_seen` is the start of this boot.
    DhcpSeen {
        /// First packet of this boot.
        first_seen: Timestamp,
    },
    /// It asked for a boot loader.
    LoaderServed {
        /// In this way.
        by: Netboot,
    },
    /// iPXE asked what to boot, and got `boot`; an agent boot carries a fresh nonce.
    BootRequested {
        /// The answer, as [`required_boot`](super::required_boot) gave it.
        boot: Boot,
        /// SHA-256 of the nonce in the script.
        nonce: Sha256,
        /// What the machine told of itself.
        claim: Claim,
    },
    /// It asked for the kernel.
    KernelServed,
    /// It loaded all of what was ordered, and starts it.
    BootBegun {
        /// SHA-256 of the ticket in its script.
        ticket: Sha256,
    },
    /// A boot image was made for its virtual drive.
    MediumMade {
        /// The job that it is to boot for.
        job: JobId,
        /// SHA-256 of the nonce in it.
        nonce: Sha256,
    },
    /// The agent said hello with a nonce that hashes to `nonce`; `session` is the hash of the token it will get.
    Hello {
        /// What it said.
        hello: Box<Hello>,
        /// SHA-256 of the nonce it gave.
        nonce: Sha256,
        /// SHA-256 of its new session token.
        session: Sha256,
    },
    /// The agent sent an inventory, which is stored beside the node.
    Inventory {
        /// No disk holds anything that could be lost.
        disks_blank: bool,
        /// Every address of its network ports.
        macs: Vec<MacAddr>,
        /// How it stands against its model; `None` where none is for it.
        compared: Option<Compared>,
    },
    /// Its model or its place changed: how it stands against it now.
    Compared(Option<Compared>),
    /// Its TPM signed what the machine booted, over a nonce of this session; the signature holds.
    Quoted(Box<Quoted>),
    /// The agent was handed the job.
    WorkTaken {
        /// The job.
        job: JobId,
    },
    /// The agent reported.
    Report(ReportBatch),
    /// The OS phoned home with a token that hashes to this.
    PhoneHome {
        /// SHA-256 of the token.
        token: Sha256,
        /// Its SSH host keys, as far as it told of them.
        host_keys: Vec<HostKey>,
    },
    /// A restart that its management controller was asked for went on.
    Power {
        /// The job that the machine is restarted for.
        job: JobId,
        /// Address of the controller.
        bmc: String,
        /// What happened.
        news: PowerNews,
    },
    /// The disk of a machine that boots from a volume.
    Prepared {
        /// The job that it is for.
        job: JobId,
        /// How far it is.
        news: PrepareNews,
    },
    /// A servicing job went on.
    Service {
        /// The job.
        job: JobId,
        /// What happened.
        news: ServiceNews,
    },
    /// The machine is off, as its management controller reads it.
    PoweredOff,
    /// Time has passed.
    Tick,
    /// The server started again: waiting starts anew, because nobody could have been heard meanwhile.
    ServerStarted,
    /// The site was restored from a backup: what was going on then may have ended since, and who has the machine may have
    /// changed.
    Restored {
        /// Of which moment the backup is.
        of: Timestamp,
    },
    /// A person or program wants something.
    Verb(Verb),
}

/// What came of preparing the disk of a machine that boots from a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareNews {
    /// The machine is off, and what it booted from before is taken from it.
    Off,
    /// The image is on it.
    Written,
    /// The disk is presented, or the machine is on its networks: it may be switched on.
    Ready,
    /// The switch is ready. Nobody can switch the machine off: it goes over when it asks for its boot script.
    Clear,
    /// It cannot be made.
    Failed {
        /// Why, and what to do.
        fault: Fault,
    },
}

/// What came of restarting a machine through its management controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerNews {
    /// The controller is being asked; `what` says for what.
    Begun {
        /// Such as `boots once by pxe`.
        what: String,
    },
    /// The boot image is in its drive: read back.
    Inserted,
    /// It is not asked, because what the job needs cannot be done.
    NoWay {
        /// Why.
        what: String,
        /// What to do.
        hint: String,
    },
    /// It was off, and now it is on: read back.
    On,
    /// The command was taken; what came of it cannot be read.
    Taken,
    /// The controller accepted a command, and the machine is not so.
    NoEffect {
        /// `on` or `off`.
        wanted: &'static str,
    },
    /// The controller does not answer, or is busy.
    Trouble {
        /// Why.
        what: String,
    },
    /// It is given up.
    Failed {
        /// Why.
        what: String,
        /// What to do.
        hint: String,
    },
}

/// What people and programs can ask for (Ironic's verbs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Take a machine out of `enroll` or `failed` and keep it.
    Manage,
    /// Look at the hardware again.
    Inspect,
    /// Offer it; these disks are wiped first, all others stay as they are.
    Provide {
        /// Disks to wipe.
        wipe: Vec<DiskTarget>,
        /// How.
        how: Cleaning,
    },
    /// Put an OS on it.
    Deploy(Box<DeployOrder>),
    /// Put an OS on it again.
    Rebuild(Box<DeployOrder>),
    /// Give it back: wipe these disks, then offer it.
    Delete {
        /// Disks to wipe.
        wipe: Vec<DiskTarget>,
        /// How.
        how: Cleaning,
    },
    /// Change firmware or settings.
    Service(Box<ServiceOrder>),
    /// Stop the job at the next safe point.
    Abort,
    /// Do the failed job again.
    Retry,
    /// Set or clear maintenance.
    Maintenance {
        /// Why; `None` clears it.
        reason: Option<String>,
        /// It ends by itself then.
        until: Option<Timestamp>,
        /// Who says so.
        by: Option<String>,
    },
    /// Take the machine as it is, although it is not as its model says.
    Accept {
        /// Why.
        reason: String,
        /// Who says so.
        by: String,
    },
    /// Say of which model it is; `None`: maker and product tell.
    Model {
        /// Name of the model.
        model: Option<String>,
    },
    /// Take it out of use for good; `None` takes it back.
    Retire {
        /// Why.
        reason: Option<String>,
        /// Who says so.
        by: String,
    },
    /// Take over a machine that runs an OS already, without touching it.
    Adopt,
    /// Keep what its papers say.
    Papers {
        /// Day of purchase, end of warranty.
        papers: Papers,
    },
    /// Give it another name (checked and unique; the store refuses a second one).
    Rename {
        /// The name.
        name: String,
    },
    /// Say in which rack it stands; `None` where that is not known any more.
    Place {
        /// Where.
        place: Option<Place>,
    },
    /// Put it into a pool (that there is such a pool is the shell's business).
    Pool {
        /// Which.
        pool: PoolName,
    },
    /// Say something of it that its inventory does not; in place of what was said before.
    Tags {
        /// At most [`TAGS_MAX`](crate::names::TAGS_MAX) of them.
        tags: BTreeSet<Tag>,
    },
    /// Say at which port of which switch a NIC is, or leave that to LLDP again.
    Cable {
        /// The NIC.
        nic: MacAddr,
        /// Where.
        cable: Option<Cable>,
    },
    /// Give it network settings, or leave them to DHCP again (checked; unique).
    Network {
        /// The settings.
        network: Option<Box<StaticNetwork>>,
    },
    /// Boot this instead of the usual.
    Boot {
        /// What.
        boot: Box<Boot>,
        /// How often.
        repeat: Repeat,
    },
    /// Boot the usual after all.
    ClearBoot,
    /// Vouch for the agent that runs now.
    ApproveBoot {
        /// Number of the boot that was looked at.
        boot: u64,
        /// Who says so.
        by: String,
    },
    /// Say that the TPM that it shows is its own.
    PinTpm {
        /// SHA-256 of the public area of its endorsement key; `None`: it has none.
        ek: Option<Sha256>,
        /// Who says so.
        by: String,
    },
}

/// How disks are cleaned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleaning {
    /// Tables and signatures go.
    #[default]
    Light,
    /// All that is on the disks that are named goes.
    Erase,
    /// Between tenants: all of the machine. Until that is done it owes it, and is not offered.
    Between,
    /// Nothing is done now, but it owes the same.
    Owed,
}

impl Verb {
    /// As it is written in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Manage => "manage",
            Self::Inspect => "inspect",
            Self::Provide { .. } => "provide",
            Self::Deploy(_) => "deploy",
            Self::Rebuild(_) => "rebuild",
            Self::Delete { .. } => "delete",
            Self::Service(_) => "service",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Maintenance { .. } => "maintenance",
            Self::Accept { .. } => "accept",
            Self::Model { .. } => "model",
            Self::Retire { .. } => "retire",
            Self::Adopt => "adopt",
            Self::Papers { .. } => "papers",
            Self::Rename { .. } => "rename",
            Self::Place { .. } => "place",
            Self::Pool { .. } => "pool",
            Self::Tags { .. } => "tags",
            Self::Cable { .. } => "cable",
            Self::Network { .. } => "network",
            Self::Boot { .. } => "boot",
            Self::ClearBoot => "clear boot",
            Self::ApproveBoot { .. } => "approve boot",
            Self::PinTpm { .. } => "pin TPM",
        }
    }
}

/// An OS to put on a node, checked against its inventory and the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployOrder {
    /// What the agent will do.
    pub spec: DeploySpec,
    /// Host name given to the OS.
    pub hostname: String,
    /// SHA-256 of the token with which the OS phones home; `None` for one that does not, which is taken to run once the
    /// machine leaves the agent.
    pub phone_home: Option<Sha256>,
    /// The OS is on the volume already, and phoned home from another machine: it is only started.
    pub resumed: bool,
    /// Who writes the image, where the disk is a volume.
    pub imaging: Imaging,
    /// It runs on networks that a switch of the site puts its machine on.
    pub crosses: bool,
}

impl DeployOrder {
    /// An OS that is on its volume already, of so many bytes, and is only started.
    pub fn resumed(installed: &Installed, size_bytes: u64) -> Self {
        let spec = DeploySpec {
            image: installed.image,
            image_name: installed.image_name.clone(),
            target: DiskTarget { id: installed.disk.clone(), size_bytes },
            config: None,
            grow_root: false,
            boot_entry: None,
        };
        Self {
            spec,
            hostname: installed.hostname.clone(),
            phone_home: installed.phone_home,
            resumed: true,
            imaging: Imaging::default(),
            crosses: false,
        }
    }
}

/// What a step may not find out by itself.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The moment.
    pub now: Timestamp,
    /// A job id that was never used.
    pub fresh_job: JobId,
    /// What the site wants.
    pub policy: Policy,
}

/// What the site wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Offer a discovered machine by itself when no disk of it holds anything.
    pub provide_blank: bool,
    /// What must be proven before something is handed out.
    pub identity: Needs,
}

impl Default for Policy {
    fn default() -> Self {
        Self { provide_blank: true, identity: Needs::default() }
    }
}

/// What follows from an event: stored in one transaction, then carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The node as it is now.
    pub node: Node,
    /// To carry out, at least once.
    pub effects: Vec<Effect>,
    /// Lines for the event list.
    pub notes: Vec<Note>,
    /// What became of disks that were to be erased: each gets a certificate.
    pub records: Vec<Erased>,
}

/// What became of a disk, and in which job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// The job.
    pub job: JobId,
    /// The record.
    pub record: EraseRecord,
}

/// Something to carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Answer the agent's waiting request for work now.
    WakeAgent,
    /// Restart the machine (or switch it on) so that it boots from the network or from its virtual drive.
    PowerCycle,
    /// Carry out the servicing job.
    Service,
    /// Take the boot image out of its virtual drive.
    EjectMedia,
}

/// One line of what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Stable kind, such as `deploy.finished`.
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// In words.
    pub message: String,
}

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As expected.
    Info,
    /// Worth a look.
    Warning,
    /// Somebody must act.
    Error,
}

/// Why an event changes nothing. The client gets the sentence; nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The verb does not fit the state.
    #[error("cannot {verb} a node that is {state}")]
    WrongState {
        /// What was asked.
        verb: &'static str,
        /// Where the node stands.
        state: StateName,
        /// What to do instead.
        hint: &'static str,
    },
    /// The node is under maintenance.
    #[error("the node is under maintenance: {reason}")]
    Maintenance {
        /// Why.
        reason: String,
    },
    /// The node is not as its model says.
    #[error("the node is in quarantine: {what}")]
    Quarantined {
        /// What is not as it should be.
        what: String,
    },
    /// Its disks are not erased since a tenant had it.
    #[error("the node is not clean: {why}")]
    Dirty {
        /// Why.
        why: String,
    },
    /// The node is on its way out.
    #[error("the node is retired: {reason}")]
    Retired {
        /// Why.
        reason: String,
    },
    /// A nonce that is unknown, used, old, or of another boot.
    #[error("the boot nonce is {why}")]
    Nonce {
        /// What is wrong with it.
        why: &'static str,
    },
    /// What an agent has not proven, or what cannot be vouched for.
    #[error("{why}")]
    Trust {
        /// Why not.
        why: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The agent that says it was booted before the newest boot of the machine.
    #[error("the agent's session ended with its boot")]
    NoSession,
    /// It speaks of a job that is not the node's current one.
    #[error("job {job} is not the current one")]
    StaleJob {
        /// The job.
        job: JobId,
    },
    /// A boot that cannot be ordered.
    #[error("{why}")]
    Order {
        /// Why not.
        why: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A servicing job that cannot be begun.
    #[error("{why}")]
    Service {
        /// Why not.
        why: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A ticket that is not of the newest boot script.
    #[error("this is not the ticket of the node's newest boot")]
    StaleBoot,
    /// A phone-home token that fits nothing that is awaited.
    #[error("nothing waits for this phone-home")]
    StalePhoneHome,
    /// The agent speaks another major version.
    #[error("agent speaks protocol {theirs}, this server {ours}")]
    Protocol {
        /// The agent's.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
}
