//! What a machine that boots from the network gets, from its node alone. One pure function, so that no node can
//! reinstall itself in a loop: the agent is booted only where a state needs it, and what somebody ordered is booted once
//! unless they said always.

use std::time::Duration;

use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};

use super::Node;
use super::state::{Fallback, RunStage, State};
use crate::ipxe::CommandLine;
use crate::profile::Profile;
use crate::words::{ChapText, FileName, Host, Iqn, Location};

/// How long after its script a machine that was sent to its disk may ask again in the same boot: firmware tries its network
/// entries one after the other, each with time-outs of a minute or two.
pub const DISK_AGAIN: Duration = Duration::from_mins(10);
/// The same of one that gets the agent: GRUB asks for the length (HEAD) before it reads.
pub const AGENT_AGAIN: Duration = Duration::from_secs(10);
/// TCP port of iSCSI portals (RFC 7143).
pub const ISCSI_PORT: u16 = 3260;

/// The answer to a network boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Boot {
    /// Kernel and ramdisk with the agent.
    Agent,
    /// Go on to the disk.
    #[serde(rename = "disk")]
    LocalDisk,
    /// A kernel with initial RAM disks and arguments: an installer, a rescue system, WinPE by wimboot.
    Kernel(Box<KernelBoot>),
    /// An ISO or disk image, read by HTTP as the machine asks for it.
    Iso(Box<IsoBoot>),
    /// A disk of an iSCSI target.
    Iscsi(Box<IscsiBoot>),
}

/// A kernel with initial RAM disks and arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelBoot {
    /// Kernel: a URL, or a path in the media directory.
    pub kernel: Location,
    /// Files that are loaded beside it, in order.
    #[serde(default)]
    pub initrds: Vec<InitrdFile>,
    /// Kernel arguments. `{profile}` becomes the URL of the profile, `{server}` the base URL of this server.
    #[serde(default)]
    pub arguments: CommandLine,
    /// What an installer is to do, served to this boot alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// A file that is loaded beside a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InitrdFile {
    /// A URL, or a path in the media directory.
    pub file: Location,
    /// The name under which the kernel looks for it (wimboot: `BCD`, `boot.sdi`, `boot.wim`). Without one it is an
    /// initial RAM disk of Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<FileName>,
}

/// An ISO or disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct IsoBoot {
    /// A URL, or a path in the media directory.
    pub file: Location,
}

/// A logical unit of an iSCSI target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct IscsiBoot {
    /// Name or address of the target's portal.
    pub server: Host,
    /// Its TCP port.
    #[serde(default = "iscsi_port")]
    pub port: u16,
    /// Logical unit.
    #[serde(default)]
    pub lun: u16,
    /// Name of the target.
    pub target: Iqn,
    /// What the machine calls itself; `iqn.2010-04.org.ipxe:` and the node's name where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<Iqn>,
    /// How it logs in, where the target wants that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<Chap>,
}

fn iscsi_port() -> u16 {
    ISCSI_PORT
}

/// CHAP (RFC 1994): the machine proves who it is. The target is not made to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Chap {
    /// Name.
    pub user: ChapText,
    /// Secret. Never in an answer of the API, and forgotten once it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<ChapText>,
}

/// A [`Boot`] in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants of `Boot`, documented there")]
pub enum BootKind {
    Agent,
    LocalDisk,
    Kernel,
    Iso,
    Iscsi,
}

/// What a state asks for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usual {
    /// Kernel and ramdisk with the agent.
    Agent,
    /// Go on to the disk.
    LocalDisk,
}

/// How often an order is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    /// One boot; then the usual one.
    #[default]
    Once,
    /// Every boot until it is cleared or the node gets work.
    Always,
}

/// What somebody wants this machine to boot instead of the usual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOrder {
    /// What.
    pub boot: Boot,
    /// How often.
    pub repeat: Repeat,
    /// When it was ordered.
    pub asked: Timestamp,
    /// SHA-256 of the ticket in the newest script: names this boot when it begins, fetches its profile, phones home.
    #[serde(default)]
    pub ticket: Option<Sha256>,
    /// When it last began: everything was loaded and the machine was about to start it.
    #[serde(default)]
    pub begun: Option<Timestamp>,
}

impl BootOrder {
    /// True while another boot follows it.
    pub fn pending(&self) -> bool {
        self.repeat == Repeat::Always || self.begun.is_none()
    }

    /// True where a machine that asks now gets it: it is pending, or this is still the boot that it was for.
    pub fn answers(&self, now: Timestamp) -> bool {
        self.pending() || self.begun.is_some_and(|begun| now.since(begun) < self.boot.same_boot())
    }

    /// True where an installer began and did not phone home.
    pub fn installs(&self) -> bool {
        self.begun.is_some() && self.boot.profile().is_some()
    }
}

impl Boot {
    /// In one word.
    pub fn kind(&self) -> BootKind {
        match self {
            Self::Agent => BootKind::Agent,
            Self::LocalDisk => BootKind::LocalDisk,
            Self::Kernel(_) => BootKind::Kernel,
            Self::Iso(_) => BootKind::Iso,
            Self::Iscsi(_) => BootKind::Iscsi,
        }
    }

    /// For how long after its first script a machine that asks again is in the same boot. Nothing tells us when an agent or
    /// a disk has begun; the others say so themselves.
    fn same_boot(&self) -> Duration {
        match self {
            Self::Agent => AGENT_AGAIN,
            Self::LocalDisk => DISK_AGAIN,
            Self::Kernel(_) | Self::Iso(_) | Self::Iscsi(_) => Duration::ZERO,
        }
    }

    /// What an installer is to do, if this is one.
    pub fn profile(&self) -> Option<&Profile> {
        match self {
            Self::Kernel(kernel) => kernel.profile.as_ref(),
            Self::Agent | Self::LocalDisk | Self::Iso(_) | Self::Iscsi(_) => None,
        }
    }

    /// Without what nobody may read again: CHAP secrets, password hashes, texts of profiles.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut shown = self.clone();
        match &mut shown {
            Self::Kernel(kernel) => kernel.profile.iter_mut().for_each(Profile::hide_secrets),
            Self::Iscsi(iscsi) => iscsi.chap.iter_mut().for_each(|chap| chap.password = None),
            Self::Agent | Self::LocalDisk | Self::Iso(_) => {}
        }
        shown
    }

    /// In words, for events and consoles.
    pub fn words(&self) -> String {
        match self {
            Self::Agent => "the agent".to_owned(),
            Self::LocalDisk => "its disk".to_owned(),
            Self::Kernel(kernel) => match &kernel.profile {
                Some(profile) => format!("the installer {} with {}", kernel.kernel, profile.words()),
                None => format!("the kernel {}", kernel.kernel),
            },
            Self::Iso(iso) => format!("the image {}", iso.file),
            Self::Iscsi(iscsi) => {
                format!("iSCSI disk {} LUN {} on {}", iscsi.target, iscsi.lun, iscsi.server)
            }
        }
    }
}

impl BootKind {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Agent => "the agent",
            Self::LocalDisk => "its disk",
            Self::Kernel => "a kernel that was ordered",
            Self::Iso => "an image that was ordered",
            Self::Iscsi => "an iSCSI disk that was ordered",
        }
    }
}

impl From<Usual> for Boot {
    fn from(usual: Usual) -> Self {
        match usual {
            Usual::Agent => Self::Agent,
            Usual::LocalDisk => Self::LocalDisk,
        }
    }
}

/// What this node must boot where it asks now.
pub fn required_boot(node: &Node, now: Timestamp) -> Boot {
    let order = node.boot.as_ref().filter(|order| order.answers(now) && follows_orders(&node.state));
    match order {
        Some(order) => order.boot.clone(),
        None => usual_boot(&node.state).into(),
    }
}

/// The order that another boot follows, if there is one.
pub fn pending_order(node: &Node) -> Option<&BootOrder> {
    node.boot.as_ref().filter(|order| order.pending() && follows_orders(&node.state))
}

/// True in states where the machine is nobody's but the one's who orders: no job runs on it, and none has failed half-way.
pub(super) fn takes_orders(state: &State) -> bool {
    matches!(state, State::Manageable | State::Available | State::Active)
}

/// True where the machine boots what was ordered: one without a disk of its own boots that also while it is serviced. An
/// order of once is refused a servicing job, so none is used up by its restarts.
fn follows_orders(state: &State) -> bool {
    takes_orders(state) || matches!(state, State::Servicing(_))
}

fn usual_boot(state: &State) -> Usual {
    match state {
        State::Enroll
        | State::Inspecting(_)
        | State::Manageable
        | State::Cleaning(_)
        | State::Available
        | State::Deleting(_) => Usual::Agent,
        State::Deploying(run) => match run.stage {
            RunStage::Volume
            | RunStage::Boot
            | RunStage::Kernel
            | RunStage::Assign
            | RunStage::Agent(_)
            | RunStage::Cross => Usual::Agent,
            RunStage::Restart | RunStage::FirstBoot => Usual::LocalDisk,
        },
        State::Active => Usual::LocalDisk,
        State::Servicing(service) if service.back == Fallback::Active => Usual::LocalDisk,
        State::Servicing(_) => Usual::Agent,
        State::Failed(failure) => failure.boot,
    }
}
