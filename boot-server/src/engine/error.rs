//! Why the engine did not do what it was asked, and how the client gets to know.

use boot_server_core::approval::NotDecided;
use boot_server_core::csv::ListError;
use boot_server_core::deploy::DeployRefused;
use boot_server_core::node::place::BadPlace;
use boot_server_core::node::{NetworkError, Refused};
use images::StoreError as ImageStoreError;

use super::dpus::DpuError;
use super::overlay::OverlayError;
use super::pools::PlacingError;
use super::servers::ServerError;
use super::trust::KeyError;
use super::volumes::VolumeError;
use crate::audit::signing::SigningError;
use crate::bundle::BundleError;
use crate::power::PowerError;
use crate::secret::NoRandomness;
use crate::store::StoreError;
use crate::store::servers::NotClaimed;
use crate::vault::VaultError;
use crate::view::Problem;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No node has this id or name.
    #[error("no node `{0}`")]
    NodeNotFound(String),
    /// No image has this id or name.
    #[error("no image `{0}`")]
    ImageNotFound(String),
    /// Nothing was exported.
    #[error(transparent)]
    Export(#[from] crate::export::ExportError),
    /// A bundle was refused, or the disk failed.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The event does not fit the node as it stands.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The deploy does not fit machine and image.
    #[error(transparent)]
    DeployRefused(#[from] DeployRefused),
    /// The node was never inspected.
    #[error("node {0} has no inventory yet")]
    NoInventory(String),
    /// A name that cannot be a host name.
    #[error("`{0}` is not a name for a node")]
    BadName(String),
    /// Another node has the name.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// Another node answers to the same address or UUID.
    #[error("this machine is known: it is node {0}")]
    NodeKnown(String),
    /// The change was meant for another version of the node.
    #[error("the node was changed meanwhile")]
    Precondition,
    /// A machine that nobody could tell from others.
    #[error("neither a station's MAC address nor a UUID of its own is given")]
    NoIdentity,
    /// The image is needed by a job.
    #[error("image {image} is being written to {node}")]
    ImageInUse {
        /// The image.
        image: String,
        /// Name of the node.
        node: String,
    },
    /// The same idempotency key came with another request.
    #[error("idempotency key `{0}` was used for another request")]
    KeyReused(String),
    /// A machine that cannot be told apart.
    #[error("this machine cannot be told apart: {0}")]
    Identity(String),
    /// The agent's credentials are not those of a running boot.
    #[error("the session is not that of this node's current boot")]
    NoSession,
    /// The database.
    #[error("the database failed")]
    Store(#[source] StoreError),
    /// The image store.
    #[error("the image store failed")]
    Images(#[from] ImageStoreError),
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A management controller was not asked, or did not do it.
    #[error(transparent)]
    Power(#[from] PowerError),
    /// The machine is not fit for it.
    #[error("the health of {node} is critical: {why}")]
    Unhealthy {
        /// Name of the node.
        node: String,
        /// What is wrong with it.
        why: String,
    },
    /// A question that has no answer.
    #[error("{what}")]
    BadQuery {
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// No sensor of the machine has this name.
    #[error("no sensor {0}")]
    SensorNotFound(String),
    /// Nothing stands there.
    #[error(transparent)]
    BadPlace(#[from] BadPlace),
    /// Pools, flavors and groups.
    #[error(transparent)]
    Placing(#[from] PlacingError),
    /// Whatever may destroy something on this machine needs a second person, and nobody was asked.
    #[error("this may destroy something on {0}, where it takes two people")]
    NeedsTwo(String),
    /// No such approval.
    #[error("no approval `{0}`")]
    ApprovalNotFound(String),
    /// As many as there may be.
    #[error("too many requests wait for a second person already")]
    TooManyWait,
    /// A decision that does not count.
    #[error(transparent)]
    NotDecided(#[from] NotDecided),
    /// Keys that sign images, and images that none has signed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The site's signing key.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// Secrets at rest.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What is said of a management controller makes no sense.
    #[error("{what}")]
    BadBmc {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A servicing job or a baseline that makes no sense for this machine.
    #[error("{what}")]
    BadService {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
    /// No baseline has this name.
    #[error("no baseline `{0}`")]
    BaselineNotFound(String),
    /// No expected machine has this name.
    #[error("no machine `{0}` is expected")]
    MachineNotFound(String),
    /// A list of which nothing was taken in.
    #[error("nothing was taken in: {}", lines(.0))]
    BadList(Vec<ListError>),
    /// A machine that cannot take the part of another one.
    #[error("{}", .0.join("; "))]
    Misfit(Vec<String>),
    /// No model has this name.
    #[error("no model `{0}`")]
    ModelNotFound(String),
    /// What a TPM sent proves nothing.
    #[error("the TPM's proof is none: {what}")]
    NoProof {
        /// Why.
        what: String,
    },
    /// Something said of expected hardware makes no sense.
    #[error("{what}")]
    BadModel {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// Network settings that cannot be.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Servers of projects.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Networks of projects.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A project has the machine.
    #[error("the machine is lent to a project, as server {server} (project {project})")]
    Lent {
        /// The server's name.
        server: String,
        /// Whose.
        project: protocol::ProjectId,
    },
    /// DPUs.
    #[error(transparent)]
    Dpu(#[from] DpuError),
    /// Volumes.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A task of the server broke.
    #[error("a task of the server broke")]
    Task(#[from] tokio::task::JoinError),
    /// More unknown machines at once than the site allows.
    #[error("too many new machines at once")]
    Crowd,
    /// The server cannot take this on at the moment.
    #[error("the server is full: {0}")]
    Full(&'static str),
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NameTaken(name) => Self::NameTaken(name),
            StoreError::Lent { server, project } => Self::Lent { server, project },
            StoreError::Claim(NotClaimed::Quota(exceeded)) => ServerError::Quota(exceeded).into(),
            StoreError::Claim(NotClaimed::Closed) => ServerError::Closed.into(),
            other => Self::Store(other),
        }
    }
}

impl EngineError {
    /// Status, code and hint of each error; the only place that knows them.
    pub fn problem(&self) -> Problem {
        let (status, code, hint) = match self {
            Self::Power(error) => return error.problem(),
            Self::Bundle(error) => return bundle(error),
            Self::Export(_) => {
                (503, "export", "look at the server's log and at the disk of its state directory")
            }
            Self::Placing(error) => return error.problem(),
            Self::Overlay(error) => return error.problem(),
            Self::Server(error) => error.parts(),
            Self::Dpu(error) => error.parts(),
            Self::Volume(error) => error.parts(),
            Self::Key(error) => error.parts(),
            Self::Lent { .. } => (
                409,
                "node-lent",
                "delete or reinstall the server instead (`billet server delete NAME --project PROJECT`)",
            ),
            Self::Unhealthy { .. } => {
                (409, "node-critical", "repair it, or allow it by `allow_critical` (`--allow-critical`)")
            }
            Self::BadBmc { hint, .. } => (422, "bad-bmc", *hint),
            Self::BadPlace(_) => (422, "bad-place", "give a rack such as R4, and a unit such as 12"),
            Self::BadQuery { hint, .. } => (400, "query", *hint),
            Self::SensorNotFound(_) => (
                404,
                "sensor-not-found",
                "list them with `billet bmc sensors NODE`; none is known before the first look",
            ),
            Self::BadService { hint, .. } => (422, "bad-service", hint.as_str()),
            Self::BaselineNotFound(_) => (404, "baseline-not-found", "list them with `billet baseline list`"),
            Self::MachineNotFound(_) => (404, "machine-not-found", "list them with `billet machine list`"),
            Self::BadList(_) => (422, "bad-list", "correct the lines, and send the whole list again"),
            Self::Misfit(_) => (409, "misfit", "choose another machine, or mend what is said"),
            Self::ModelNotFound(_) => (404, "model-not-found", "list them with `billet model list`"),
            Self::BadModel { hint, .. } => (422, "bad-model", *hint),
            Self::NoProof { .. } => (422, "no-proof", "boot the machine's agent again"),
            Self::Network(error) => (422, "bad-network", error.hint()),
            Self::Vault(VaultError::Sealed) => {
                (409, "sealed", "give the BMC's account anew (`billet bmc set`)")
            }
            Self::NeedsTwo(_) => (
                409,
                "approval-needed",
                "ask for it on this machine alone: then it waits until somebody approves it",
            ),
            Self::ApprovalNotFound(_) => (404, "approval-not-found", "list them with `billet approval list`"),
            Self::TooManyWait => (503, "approvals-full", "decide on those that wait: `billet approval list`"),
            Self::NotDecided(NotDecided::SamePerson) => {
                (403, "same-person", "ask somebody else; `billet approval refuse` takes it back")
            }
            Self::NotDecided(NotDecided::Reason) => (422, "reason", "say it shorter"),
            Self::NotDecided(_) => (409, "decided", "look at it with `billet approval show`"),
            Self::Signing(_) => {
                (503, "signing", "look at the server's log and at site.key in its state directory")
            }
            Self::Vault(_) => {
                (503, "vault", "look at the server's log and at secrets.key in its state directory")
            }
            Self::NodeNotFound(_) => (404, "node-not-found", "list them with `billet node list`"),
            Self::ImageNotFound(_) => (404, "image-not-found", "list them with `billet image list`"),
            Self::Refused(refused) => of_refused(refused),
            Self::DeployRefused(refused) => (422, refused.code, refused.hint.as_str()),
            Self::NoInventory(_) => {
                (409, "no-inventory", "boot the machine from the network once, so that it is inspected")
            }
            Self::BadName(_) => {
                (422, "bad-name", "use a host name: letters, digits and -, at most 63 characters")
            }
            Self::NodeKnown(_) => (409, "node-known", "change that node, or forget it first"),
            Self::Precondition => (412, "precondition-failed", "read it again, and decide anew"),
            Self::NoIdentity => {
                (422, "no-identity", "give the address of the port that it boots from, or its SMBIOS UUID")
            }
            Self::NameTaken(_) => (409, "name-taken", "choose another name"),
            Self::ImageInUse { .. } => (409, "image-in-use", "wait for the job, or abort it"),
            Self::KeyReused(_) => (422, "idempotency-key-reused", "use a new key for a new request"),
            Self::Identity(_) => (409, "identity-conflict", "look at the event list; correct UUID or serial"),
            Self::NoSession => (401, "session", "restart the machine"),
            // Whoever tries a request out throws its answer away.
            Self::Store(StoreError::Rehearsal) => (409, "rehearsal", "ask again"),
            Self::Store(StoreError::Conflict) => (409, "conflict", "look at the node again, then repeat"),
            Self::Store(StoreError::Unreachable { .. }) => (
                503,
                "store-unreachable",
                "nothing was stored: ask again once PostgreSQL is back; the server connects by itself",
            ),
            Self::Store(StoreError::Unknown(_)) => {
                (503, "store-unknown", "look whether it was done before you ask for it again")
            }
            Self::Store(StoreError::Displaced) => {
                (503, "store-displaced", "two servers were started on one database: stop one of them")
            }
            Self::Store(_) => (503, "store", "look at the server's log and at its disk"),
            Self::Images(ImageStoreError::NoImage(_) | ImageStoreError::NoChunk(_)) => {
                (404, "image-not-found", "it was removed")
            }
            Self::Images(ImageStoreError::Untrusted { .. }) => {
                (409, "image-unsigned", "look at its signature with `billet image show`")
            }
            Self::Images(ImageStoreError::InUse) => (409, "image-store-in-use", "try again later"),
            Self::Images(_) => (503, "image-store", "look at the server's log and at its disk"),
            Self::NoRandomness(_) | Self::Task(_) => (500, "internal", "look at the server's log"),
            Self::Crowd => (503, "crowd", "ask again in some seconds"),
            Self::Full(_) => (503, "full", "look at the server's log"),
        };
        Problem { status, code: code.to_owned(), message: self.to_string(), hint: hint.to_owned() }
    }
}

/// The first mistakes of a list, each with its line.
fn lines(errors: &[ListError]) -> String {
    let shown: Vec<String> = errors.iter().take(10).map(ToString::to_string).collect();
    let more = errors.len().saturating_sub(shown.len());
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join("; "))
}

/// A bundle that was refused, with all that led to it.
fn bundle(error: &BundleError) -> Problem {
    let (status, code) = match error {
        BundleError::Older { .. } | BundleError::Same(_) => (409, "bundle-older"),
        BundleError::NoBase { .. } => (409, "bundle-base"),
        BundleError::NotKept(_) => (404, "bundle-not-found"),
        BundleError::Busy => (503, "bundle-busy"),
        BundleError::Stopped => (503, "stopping"),
        BundleError::NoSpace { .. } => (503, "no-space"),
        _ if error.is_refusal() => (422, "bundle-refused"),
        _ => (503, "bundle-store"),
    };
    Problem {
        status,
        code: code.to_owned(),
        message: crate::ingest::sentence(error),
        hint: error.hint().to_owned(),
    }
}

fn of_refused(refused: &Refused) -> (u16, &'static str, &str) {
    match refused {
        Refused::WrongState { hint, .. } => (409, "wrong-state", hint),
        Refused::Maintenance { .. } => (409, "maintenance", "end the maintenance first"),
        Refused::Quarantined { .. } => (
            409,
            "quarantine",
            "mend it and inspect it again, or accept the difference with a reason (`billet node accept`)",
        ),
        Refused::Dirty { .. } => (
            409,
            "dirty",
            "erase it (`billet node provide NAME --erase`); a disk that cannot be erased must come out of the machine",
        ),
        Refused::Retired { .. } => {
            (409, "retired", "choose another machine, or take this one back (`billet node retire --off`)")
        }
        Refused::Nonce { .. } => (401, "nonce", "restart the machine, so that it gets a new boot script"),
        Refused::Trust { hint, .. } => (409, "identity", hint),
        Refused::NoSession => (401, "session", "restart the machine"),
        Refused::StaleJob { .. } => (409, "stale-job", "ask for work again"),
        Refused::StalePhoneHome => (404, "stale-phone-home", "nothing waits for it"),
        Refused::Order { hint, .. } => (422, "boot-order", hint),
        Refused::Service { hint, .. } => (409, "service", hint),
        Refused::StaleBoot => (404, "stale-boot", "restart the machine, so that it gets a new boot script"),
        Refused::Protocol { .. } => (422, "protocol", "use kernel and ramdisk of the server's version"),
    }
}
