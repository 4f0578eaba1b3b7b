//! A volume: a disk of a project that lives in a store of the site and is presented to a machine by its DPU.
//!
//! ```text
//!              made (and written)          granted to a DPU         presented
//!   creating ─────────────────▶ available ─────────────────▶ attaching ──────▶ in use
//!                                  │  ▲                                          │
//!                         deleting ◀  └──── revoked ◀── withdrawn ◀── detaching ◀┘
//!                            │
//!                         deleted
//! ```
//! Where the DPU is not the one of its server's machine any more, it is withdrawn, revoked and granted to the one that is.
//!
//! [`next`] is the one place that says what is to be done. That nobody writes to a volume who is not granted it is the backend's
//! business (fencing): a grant ends by revoking it there, never by trusting a DPU that it has let go.

use std::fmt;
use std::str::FromStr;

use protocol::dpu::{IoLimits, LUKS_HEADER};
use protocol::{DpuId, ImageId, ProjectId, ServerId, SnapshotId, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::amounts::Amounts;
use crate::dpu::functions::{Disk, DiskFunction};

/// Smallest volume, in bytes.
pub const SIZE_MIN: u64 = 1 << 20;
/// Largest volume, in bytes: 1 PiB.
pub const SIZE_MAX: u64 = 1 << 50;
/// A size is a multiple of this: what every backend can do.
pub const SIZE_UNIT: u64 = 1 << 20;
/// Characters of a name.
pub const NAME_MAX: usize = 64;
/// Octets of the serial number that a host reads of a virtio disk (virtio 1.2, section 5.2.6.1).
const SERIAL: usize = 20;

/// A disk of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Names it for ever.
    pub id: VolumeId,
    /// Whose.
    pub project: ProjectId,
    /// Names it for people; one living volume of a project has it.
    pub name: String,
    /// The type, which says where it is kept.
    pub kind: String,
    /// In bytes.
    pub size: u64,
    /// What was on it at first.
    pub source: Source,
    /// Where it stands.
    pub phase: Phase,
    /// Whose disk it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// How fast it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<IoLimits>,
    /// What its bytes are encrypted with, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// It stays when the server that it was made with is deleted.
    #[serde(default)]
    pub keep: bool,
    /// Of an instant volume that a DPU was given: where its bytes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
    /// This server booted from it before it was installed anew; it goes when the new one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_of: Option<ServerId>,
    /// Why it does not go on, in words for its project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub created: Timestamp,
    /// When it was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Timestamp>,
    /// Grows by one with every change.
    pub version: i64,
}

/// The key of an encrypted volume. It is that of all volumes and snapshots that were made of one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Names it.
    pub id: Uuid,
    /// Sealed; `None` once it was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

/// Whether volumes of a type are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Encrypted {
    /// They cannot be.
    Never,
    /// Those that are asked for so.
    OnRequest,
    /// All.
    Always,
}

impl Encrypted {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnRequest => "on_request",
            Self::Always => "always",
        }
    }
}

/// The bytes of an instant volume: nowhere but on one DPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The DPU.
    pub dpu: DpuId,
    /// Directory there.
    pub path: String,
    /// All of the image is there: the image store is needed no more.
    #[serde(default)]
    pub hydrated: bool,
}

/// What was on a volume at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Source {
    /// Zeros.
    Blank,
    /// An image as it is.
    Image {
        /// The image.
        image: ImageId,
        /// Its name and version, for people.
        image_name: String,
    },
    /// An image that was given a server's name, keys and networks.
    Os {
        /// The image.
        image: ImageId,
        /// Its name and version, for people.
        image_name: String,
        /// Who writes it.
        #[serde(default, skip_serializing_if = "Imaging::is_default")]
        imaging: Imaging,
    },
    /// A snapshot.
    Snapshot {
        /// Which.
        snapshot: SnapshotId,
        /// Of this volume.
        volume: VolumeId,
    },
}

/// Who writes the image on the volume that a server boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Imaging {
    /// The server, straight into the backend, while the machine does what it did.
    #[default]
    Server,
    /// The agent, on the machine, to the disk that its DPU presents.
    Agent,
    /// The DPU, before it presents the disk, while the machine is off.
    Dpu,
}

impl Imaging {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Server, Self::Agent, Self::Dpu];

    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::Dpu => "dpu",
        }
    }

    /// True for what is done where nobody says anything.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for Imaging {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.as_str() == text);
        known.ok_or_else(|| format!("one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// Where a volume stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is being made.
    Creating,
    /// It is there.
    Available,
    /// It could not be made.
    Error,
    /// It is being removed.
    Deleting,
    /// It is no more.
    Deleted,
}

/// Whose disk a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The server.
    pub server: ServerId,
    /// The server boots from it.
    #[serde(default)]
    pub boot: bool,
    /// How far it is.
    pub stage: Stage,
    /// Who may write to it; none before it was granted to anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpu: Option<DpuId>,
    /// The function of the DPU's plan that it is, as long as that DPU has it; none where the DPU had no plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<DiskFunction>,
}

impl Attachment {
    /// Of a volume that is to be a server's, and that nobody has.
    pub fn wanted(server: ServerId, boot: bool) -> Self {
        Self { server, boot, stage: Stage::Wanted, dpu: None, function: None }
    }
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Asked for; a boot volume waits in it for its server.
    Wanted,
    /// A DPU may have it, and is to present it.
    Granted,
    /// The machine has it.
    Attached,
    /// The DPU is to take it away.
    Detaching,
    /// Its server goes on, on another machine: whoever had it is cut off from it, whether that one answers or not, and then it is wanted
    /// anew.
    Moving,
}

/// How a volume is shown (Cinder's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = VolumeStatus))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "phases and stages, documented there")]
pub enum Status {
    Creating,
    Available,
    Attaching,
    InUse,
    Detaching,
    Deleting,
    Deleted,
    Error,
}

impl Status {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::Attaching => "attaching",
            Self::InUse => "in_use",
            Self::Detaching => "detaching",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Volume {
    /// How it is shown.
    pub fn status(&self) -> Status {
        match (self.phase, &self.attachment) {
            (Phase::Creating, _) => Status::Creating,
            (Phase::Error, _) => Status::Error,
            (Phase::Deleting, _) => Status::Deleting,
            (Phase::Deleted, _) => Status::Deleted,
            (Phase::Available, None) => Status::Available,
            (Phase::Available, Some(attachment)) => match attachment.stage {
                Stage::Wanted | Stage::Granted | Stage::Moving => Status::Attaching,
                Stage::Attached => Status::InUse,
                Stage::Detaching => Status::Detaching,
            },
        }
    }

    /// The server whose disk it is, or is about to be.
    pub fn server(&self) -> Option<ServerId> {
        self.attachment.as_ref().map(|attachment| attachment.server)
    }

    /// The DPU that may write to it, also one that is to let go of it.
    pub fn holder(&self) -> Option<DpuId> {
        self.attachment.as_ref()?.dpu
    }

    /// The DPU that is to present it.
    pub fn presenter(&self) -> Option<DpuId> {
        let attachment = self.attachment.as_ref()?;
        attachment.dpu.filter(|_| matches!(attachment.stage, Stage::Granted | Stage::Attached))
    }

    /// The function of the host that it is, where a DPU has it.
    pub fn function(&self) -> DiskFunction {
        self.attachment.as_ref().and_then(|attachment| attachment.function).unwrap_or_default()
    }

    /// What its host does with it.
    pub fn disk(&self) -> Disk {
        match &self.attachment {
            Some(attachment) if attachment.boot => Disk::Boot,
            _ => Disk::Data,
        }
    }

    /// Bytes that its backend keeps for a size: an encrypted one has a header.
    pub fn kept(&self, size: u64) -> u64 {
        if self.key.is_some() { size.saturating_add(LUKS_HEADER) } else { size }
    }

    /// What it takes of a project's quota. Of a GiB that is begun, all.
    pub fn amounts(&self) -> Amounts {
        Amounts { volumes: 1, volume_gib: gib(self.size), ..Amounts::default() }
    }

    /// The DPU that writes its image, or wrote it: the one that may write to it at all.
    pub fn filler(&self) -> Option<DpuId> {
        let fills = matches!(self.source, Source::Os { imaging: Imaging::Dpu, .. });
        self.presenter().filter(|_| fills)
    }

    /// The DPU that is to remove its layer: nobody has the volume any more, and nobody will.
    pub fn discarder(&self) -> Option<DpuId> {
        let goes = self.phase == Phase::Deleting && self.attachment.is_none();
        self.layer.as_ref().filter(|_| goes).map(|layer| layer.dpu)
    }

    /// The serial number that its host reads.
    pub fn serial(&self) -> String {
        serial(self.id)
    }
}

/// The serial number that a host reads of this volume: the last digits of its id, which are chance (RFC 9562 section 5.7).
pub fn serial(volume: VolumeId) -> String {
    let id = volume.0.simple().to_string();
    id[id.len() - SERIAL..].to_owned()
}

/// What is known of what a volume waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// What is to be written on it is known: always so, unless it is a server's OS, which waits for its server.
    pub writable: bool,
    /// The DPU of its server's machine, where that machine is ready to be given the disk.
    pub dpu: Option<DpuId>,
    /// The DPU that has it is not the one of its server's machine.
    pub astray: bool,
    /// The DPU that has it says that it presents it.
    pub presented: bool,
    /// The DPU that had it says that it does not, or it can no longer say anything: its grant is ended by force.
    pub withdrawn: bool,
    /// The DPU with its layer says that the layer is gone, or the site has that DPU no more.
    pub discarded: bool,
}

/// What is to be done for a volume. Each does no harm when it is done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Make it, and write on it what is to be on it.
    Create,
    /// Let this DPU have it.
    Grant(DpuId),
    /// Note that its machine has it.
    Attached,
    /// Let this DPU have it no more, and its server's when there is one.
    Recall,
    /// Let nobody have it any more.
    Revoke,
    /// Remove it.
    Delete,
}

/// What is to be done for a volume now; `None` where it waits, or nothing is.
pub fn next(volume: &Volume, facts: &Facts) -> Option<Act> {
    match (volume.phase, &volume.attachment) {
        // Its server gave up, before it was made.
        (Phase::Creating | Phase::Error, Some(Attachment { stage: Stage::Detaching, dpu: None, .. })) => {
            Some(Act::Revoke)
        }
        (Phase::Deleted | Phase::Error, _) => None,
        (Phase::Creating, _) => facts.writable.then_some(Act::Create),
        // Nobody may have what is removed.
        (Phase::Deleting, None) => (volume.layer.is_none() || facts.discarded).then_some(Act::Delete),
        (Phase::Deleting, Some(Attachment { dpu: None, .. })) => Some(Act::Revoke),
        (Phase::Deleting, Some(_)) => facts.withdrawn.then_some(Act::Revoke),
        (Phase::Available, None) => None,
        (Phase::Available, Some(attachment)) => match (attachment.stage, attachment.dpu) {
            (Stage::Wanted, _) => facts.dpu.map(Act::Grant),
            (Stage::Granted | Stage::Attached, Some(_)) if facts.astray => {
                facts.withdrawn.then_some(Act::Recall)
            }
            (Stage::Granted, Some(_)) => facts.presented.then_some(Act::Attached),
            (Stage::Attached, Some(_)) => None,
            (Stage::Granted | Stage::Attached, None) => facts.dpu.map(Act::Grant),
            (Stage::Moving, _) => Some(Act::Recall),
            (Stage::Detaching, None) => Some(Act::Revoke),
            (Stage::Detaching, Some(_)) => facts.withdrawn.then_some(Act::Revoke),
        },
    }
}

/// Whether this is a name for a volume or a snapshot.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether this is a size for a volume, in bytes.
pub fn is_size(size: u64) -> bool {
    (SIZE_MIN..=SIZE_MAX).contains(&size) && size.is_multiple_of(SIZE_UNIT)
}

/// A size as people write it, in bytes: `4096`, `512M`, `20GiB`, `1T`, with binary units. `None` for what is no size.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim_end_matches("iB").trim_end_matches('B').trim() {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Bytes as GiB, of which one that is begun counts whole.
pub fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
}

/// A volume as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Names it for ever.
    pub id: SnapshotId,
    /// Whose.
    pub project: ProjectId,
    /// Of this volume.
    pub volume: VolumeId,
    /// Names it for people; one snapshot of a project has it.
    pub name: String,
    /// Type of the volume.
    pub kind: String,
    /// Size of the volume then, in bytes.
    pub size: u64,
    /// What its bytes are encrypted with, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub created: Timestamp,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::Write as _;

    use super::*;

    pub(crate) fn volume(phase: Phase, attachment: Option<(Stage, bool)>) -> Volume {
        let dpu = DpuId(Uuid::from_u128(3));
        Volume {
            id: VolumeId(Uuid::from_u128(1)),
            project: ProjectId(Uuid::nil()),
            name: "v".into(),
            kind: "standard".into(),
            size: SIZE_MIN,
            source: Source::Blank,
            phase,
            attachment: attachment.map(|(stage, granted)| Attachment {
                server: ServerId(Uuid::nil()),
                boot: false,
                stage,
                dpu: granted.then_some(dpu),
                function: None,
            }),
            limits: None,
            key: None,
            keep: false,
            layer: None,
            previous_of: None,
            note: None,
            by: "x".into(),
            created: Timestamp(0),
            deleted: None,
            version: 1,
        }
    }

    const PHASES: [Phase; 5] =
        [Phase::Creating, Phase::Available, Phase::Error, Phase::Deleting, Phase::Deleted];
    const STAGES: [Stage; 5] =
        [Stage::Wanted, Stage::Granted, Stage::Attached, Stage::Detaching, Stage::Moving];

    fn all() -> impl Iterator<Item = Volume> {
        let attachments = STAGES.into_iter().flat_map(|stage| [Some((stage, false)), Some((stage, true))]);
        let attachments: Vec<_> = [None].into_iter().chain(attachments).collect();
        PHASES.into_iter().flat_map(move |phase| {
            attachments.clone().into_iter().map(move |attachment| volume(phase, attachment))
        })
    }

    fn facts() -> impl Iterator<Item = Facts> {
        let dpu = Some(DpuId(Uuid::from_u128(4)));
        (0..32).map(move |bits| Facts {
            writable: bits & 1 != 0,
            dpu: dpu.filter(|_| bits & 2 != 0),
            presented: bits & 4 != 0,
            withdrawn: bits & 8 != 0,
            astray: bits & 16 != 0,
            discarded: false,
        })
    }

    #[test]
    fn the_whole_table() {
        let mut table = String::new();
        let dpu = Some(DpuId(Uuid::from_u128(4)));
        let known =
            Facts { writable: true, dpu, presented: true, withdrawn: true, astray: false, discarded: true };
        for volume in all() {
            let at = volume.attachment.as_ref().map(|at| (at.stage, at.dpu.is_some()));
            writeln!(
                table,
                "{:?} {at:?}: {}, waits {:?}, then {:?}, astray {:?}",
                volume.phase,
                volume.status(),
                next(&volume, &Facts::default()),
                next(&volume, &known),
                next(&volume, &Facts { astray: true, ..known })
            )
            .unwrap();
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn nobody_has_what_is_removed_and_no_grant_is_given_over_another() {
        for volume in all() {
            for facts in facts() {
                match next(&volume, &facts) {
                    Some(Act::Delete) => assert_eq!(volume.attachment, None),
                    Some(Act::Grant(_)) => {
                        assert_eq!(volume.phase, Phase::Available);
                        assert_eq!(volume.presenter(), None, "one at a time");
                    }
                    Some(Act::Recall) => {
                        let at = volume.attachment.as_ref();
                        let moves = at.is_some_and(|at| at.stage == Stage::Moving);
                        assert!(moves || (facts.withdrawn && facts.astray), "its host still has it");
                    }
                    Some(Act::Attached) => assert!(!facts.astray, "another host has it"),
                    Some(Act::Revoke) if volume.phase != Phase::Creating && volume.phase != Phase::Error => {
                        let granted = volume.attachment.as_ref().is_some_and(|at| at.dpu.is_some());
                        assert!(facts.withdrawn || !granted, "its host still has it");
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_layer_goes_before_its_row() {
        let layer = Layer { dpu: DpuId(Uuid::from_u128(3)), path: "/l".into(), hydrated: true };
        let with = |phase, at| Volume { layer: Some(layer.clone()), ..volume(phase, at) };
        let gone = Facts { discarded: true, ..Facts::default() };
        let deleting = with(Phase::Deleting, None);
        assert_eq!(deleting.discarder(), Some(layer.dpu));
        assert_eq!((next(&deleting, &Facts::default()), next(&deleting, &gone)), (None, Some(Act::Delete)));
        for other in [with(Phase::Available, None), with(Phase::Deleting, Some((Stage::Detaching, true)))] {
            assert_eq!(other.discarder(), None, "somebody has it, or may want it");
        }
    }

    #[test]
    fn sizes_of_people() {
        assert_eq!(
            ["4096", "512M", "20GiB", "20 G", "1T"].map(parse_size),
            [Some(4096), Some(512 << 20), Some(20 << 30), Some(20 << 30), Some(1 << 40)]
        );
        for bad in ["", "G", "1X", "-1G", "1.5G", "99999999T"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_and_sizes() {
        assert!(
            is_name("data-1_a.b")
                && !is_name("")
                && !is_name("-a")
                && !is_name("a b")
                && !is_name(&"a".repeat(65))
        );
        assert!(
            is_size(SIZE_MIN)
                && is_size(SIZE_MAX)
                && !is_size(0)
                && !is_size(SIZE_MIN + 512)
                && !is_size(SIZE_MAX + SIZE_UNIT)
        );
        assert_eq!(volume(Phase::Available, None).serial(), "00000000000000000001");
    }
}
