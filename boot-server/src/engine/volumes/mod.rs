//! Volumes: disks of projects, kept in backends and presented by DPUs.
//!
//! ```text
//! people ─▶ row (phase, attachment) ─▶ run_volumes: core::volume::next ─▶ backend: create, grant, revoke, delete
//!                                                        ▲                    └▶ row ─▶ DPU's state
//!                                     DPU's report ──────┘
//! ```
//!
//! What is to be done follows from the rows and from what DPUs say. Every step may be done again, so whoever starts after a crash goes on
//! where it stood.

mod attach;
mod boot;
mod drive;
mod fill;
mod instant;
mod keys;
mod open;
mod prepare;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bmc::Secret;
use boot_server_core::dpu::Reach;
use boot_server_core::node::Severity;
use boot_server_core::volume::{Phase, SIZE_MAX, SIZE_UNIT, Source, Volume, is_name, is_size};
use protocol::dpu::IoLimits;
use protocol::{ProjectId, VolumeId};
use uuid::Uuid;
use volume::{Backend, BackendError};

use super::{Actor, Change, Engine, EngineError, now};
use crate::store::queries::{NewEvent, insert_event};
use crate::store::volumes::{self as rows, VolumeFilter};
use crate::store::{StoreError, usage};
use crate::vault::Place;

use attach::detaching;
pub(super) use boot::boot_amounts;
pub(super) use drive::Turns;
pub(super) use drive::{again, take};
pub use instant::Hydration;
pub use open::open;

/// Living volumes of one project, whatever its quota says.
const VOLUMES_MAX: u64 = 10_000;
/// Most requests or bytes per second of a limit.
const LIMIT_MAX: u64 = 1 << 50;
/// How often a change is done again because the volume went on meanwhile.
const CONFLICTS_MAX: usize = 8;

/// Why nothing is done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// No volume of the project has this id or name.
    #[error("no volume `{0}`")]
    NotFound(String),
    /// No snapshot of the project has this id or name.
    #[error("no snapshot `{0}`")]
    NoSnapshot(String),
    /// The site has no such type.
    #[error("no volume type `{0}`")]
    NoType(String),
    /// A request that makes no sense.
    #[error("{what}")]
    Bad {
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// It is not as it must be for that.
    #[error("cannot {verb} a volume that is {status}")]
    WrongStatus {
        /// What was asked.
        verb: &'static str,
        /// How it is.
        status: boot_server_core::volume::Status,
        /// What to do instead.
        hint: &'static str,
    },
    /// Its server's machine has none.
    #[error("the machine of server {0} has no DPU")]
    NoDpu(String),
    /// All functions of the machine's DPU for disks are taken.
    #[error(
        "DPU {dpu} has no function left for one more disk: its plan has {planned}{}",
        if *pending { ", and is not in force yet" } else { "" }
    )]
    NoFunction {
        /// The DPU.
        dpu: String,
        /// Functions for disks that its plan has.
        planned: u32,
        /// The plan waits for a power cycle of the host.
        pending: bool,
    },
    /// A volume has not all of its image yet.
    #[error("image {image} is not all on the DPU of volume {volume} yet")]
    Hydrates {
        /// The image.
        image: String,
        /// The volume.
        volume: String,
    },
    /// As many as a project may have.
    #[error("the project has too many {0}")]
    Full(&'static str),
    /// The backend said no.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl VolumeError {
    /// Status, code and hint.
    pub(super) fn parts(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NotFound(_) => (404, "volume-not-found", "list them with `billet volume list`"),
            Self::NoSnapshot(_) => (404, "snapshot-not-found", "list them with `billet snapshot list`"),
            Self::NoType(_) => (404, "volume-type-not-found", "list them with `billet volume types`"),
            Self::Bad { hint, .. } => (422, "bad-volume", hint),
            Self::WrongStatus { hint, .. } => (409, "wrong-status", hint),
            Self::NoDpu(_) => (409, "no-dpu", "ask the site for a machine with a DPU"),
            Self::NoFunction { pending: false, .. } => {
                (409, "no-function", "detach another volume, or ask the site for a plan with more functions")
            }
            Self::NoFunction { pending: true, .. } => {
                (409, "no-function", "power-cycle the machine: then its plan of functions is in force")
            }
            Self::Hydrates { .. } => (
                409,
                "image-in-use",
                "wait until the volume is hydrated (`billet volume show`), or delete it",
            ),
            Self::Full(_) => (409, "project-full", "delete those that are not needed"),
            Self::Backend(BackendError::NoRoom { .. }) => {
                (409, "backend-full", "make it smaller, or ask the site")
            }
            Self::Backend(BackendError::HasSnapshots { .. }) => {
                (409, "has-snapshots", "delete its snapshots first")
            }
            Self::Backend(BackendError::Unsupported { .. }) => {
                (422, "unsupported", "use a volume of another type")
            }
            Self::Backend(_) => (503, "backend", "ask again; the server's log says more"),
        }
    }
}

/// Places where volumes are kept, by the name of their type.
pub type Backends = BTreeMap<String, Arc<dyn Backend>>;

/// A volume that somebody asks for.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its type; the site's first where none is given.
    pub kind: Option<String>,
    /// Bytes; as large as what it is made of where none are given.
    pub size: Option<u64>,
    /// What is on it at first.
    pub from: From,
    /// How fast it may be.
    pub limits: Option<IoLimits>,
    /// Its backend is to hold its bytes encrypted.
    pub encrypted: bool,
}

/// What is on a new volume, as people say it.
#[derive(Debug, Clone, Default)]
pub enum From {
    /// Zeros.
    #[default]
    Blank,
    /// An image, by id, name or `name:version`.
    Image(String),
    /// A snapshot, by name or id.
    Snapshot(String),
}

/// What to change of a volume; what is not given stays.
#[derive(Debug, Clone, Default)]
pub struct VolumeChange {
    /// Another name.
    pub name: Option<String>,
    /// More bytes.
    pub size: Option<u64>,
    /// Most requests per second, while a host uses it too; 0 takes the limit away.
    pub iops: Option<u64>,
    /// Most bytes per second, as well.
    pub bytes_per_second: Option<u64>,
}

impl VolumeChange {
    fn limits(&self, before: Option<IoLimits>) -> Option<IoLimits> {
        let after = |change: Option<u64>, before: Option<u64>| change.or(before).filter(|limit| *limit > 0);
        let iops = after(self.iops, before.and_then(|limits| limits.iops));
        let bytes_per_second =
            after(self.bytes_per_second, before.and_then(|limits| limits.bytes_per_second));
        (iops.is_some() || bytes_per_second.is_some()).then_some(IoLimits { iops, bytes_per_second })
    }
}

fn place(id: VolumeId) -> Place {
    Place { row: id.0, column: "volumes.access" }
}

pub(super) fn bad(what: impl Into<String>, hint: &'static str) -> VolumeError {
    VolumeError::Bad { what: what.into(), hint }
}

impl Engine {
    /// The types of volumes that the site has: name and kind, by name; those last whose volumes lie on one DPU, which nobody is to get
    /// who did not ask for it.
    pub fn volume_types(&self) -> Vec<(String, volume::Kind)> {
        let all = self.0.backends.iter().map(|(name, backend)| (name.clone(), backend.kind()));
        let (last, mut types): (Vec<_>, Vec<_>) = all.partition(|(_, kind)| *kind == volume::Kind::Instant);
        types.extend(last);
        types
    }

    pub(in crate::engine) fn backend(&self, kind: &str) -> Result<Arc<dyn Backend>, EngineError> {
        let found = self.0.backends.get(kind).cloned();
        Ok(found.ok_or_else(|| VolumeError::NoType(kind.chars().take(80).collect()))?)
    }

    /// A volume of this project: a living one by name, any by id.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], or where the store fails.
    pub async fn volume(&self, project: ProjectId, reference: &str) -> Result<Volume, EngineError> {
        let text = reference.to_owned();
        let found = self.store().read(move |db| rows::find(db, project, &text)).await?;
        let short = || VolumeError::NotFound(reference.chars().take(80).collect());
        found.ok_or_else(|| short().into())
    }

    /// Living volumes of a project, oldest first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn volumes(
        &self,
        project: ProjectId,
        filter: VolumeFilter,
    ) -> Result<Vec<Volume>, EngineError> {
        Ok(self.store().read(move |db| rows::list(db, project, &filter)).await?)
    }

    /// Living volumes of all projects.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn all_volumes(&self) -> Result<Vec<Volume>, EngineError> {
        Ok(self.store().read(rows::living).await?)
    }

    /// Volumes that a server has, or is to have.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn volumes_of(&self, server: protocol::ServerId) -> Result<Vec<Volume>, EngineError> {
        Ok(self.store().read(move |db| rows::of_server(db, server)).await?)
    }

    /// Volumes that a DPU may write to, whosesoever.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn volumes_of_dpu(&self, dpu: protocol::DpuId) -> Result<Vec<Volume>, EngineError> {
        let granted = self.store().read(move |db| rows::granted(db, dpu)).await?;
        Ok(granted.into_iter().map(|(volume, _)| volume).collect())
    }

    /// Snapshots of one volume, oldest first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn snapshots_of_volume(
        &self,
        volume: VolumeId,
    ) -> Result<Vec<boot_server_core::volume::Snapshot>, EngineError> {
        Ok(self.store().read(move |db| rows::snapshots_of(db, volume)).await?)
    }

    /// Makes a volume. It is there once its status is `available`.
    ///
    /// # Errors
    /// [`VolumeError`], [`EngineError::NameTaken`], or where the store fails.
    pub async fn create_volume(
        &self,
        project: ProjectId,
        actor: Actor,
        request: NewVolume,
    ) -> Result<Volume, EngineError> {
        let volume = self.new_volume(project, &actor, request).await?;
        let event = line(&volume, &actor, "volume.created", Severity::Info, "is being made");
        let (row, event_row) = (volume.clone(), event.clone());
        let write = move |db: &_| {
            // Before it is counted: nobody else's comes in between.
            usage::take_turn(db, project)?;
            if rows::count(db, project)?.0 >= VOLUMES_MAX {
                return Ok(None);
            }
            rows::insert(db, &row)?;
            insert_event(db, &event_row).map(Some)
        };
        let Some(number) = self.store().write(write).await? else {
            return Err(VolumeError::Full("volumes").into());
        };
        self.announce_event(number, event);
        self.announce_volume(&volume);
        Ok(volume)
    }

    async fn new_volume(
        &self,
        project: ProjectId,
        actor: &Actor,
        request: NewVolume,
    ) -> Result<Volume, EngineError> {
        check_name(&request.name, "volume")?;
        let (source, kind, least, of) = match &request.from {
            From::Blank => (Source::Blank, None, 0, None),
            From::Image(reference) => {
                let (image, manifest) = self.resolve_image(reference).await?;
                let image_name = format!("{} {}", manifest.name, manifest.version);
                (Source::Image { image, image_name }, None, manifest.minimum_disk, None)
            }
            From::Snapshot(reference) => {
                let snapshot = self.snapshot(project, reference).await?;
                let source = Source::Snapshot { snapshot: snapshot.id, volume: snapshot.volume };
                (source, Some(snapshot.kind), snapshot.size, Some(snapshot.key))
            }
        };
        if let (Some(own), Some(wanted)) = (&kind, &request.kind)
            && own != wanted
        {
            return Err(bad(format!("the snapshot is of type {own}"), "leave the type out").into());
        }
        let kind = match kind.or(request.kind) {
            Some(kind) => kind,
            None => self.first_type()?,
        };
        if self.backend(&kind)?.instant().is_some() {
            let what = format!("volumes of type {kind} are made with the server that boots from them");
            return Err(bad(
                what,
                "`billet server create --boot-volume --volume-type TYPE`, or another type",
            )
            .into());
        }
        let size = request.size.unwrap_or_else(|| least.next_multiple_of(SIZE_UNIT));
        check_size(size, least)?;
        let key = self.key_for(&kind, request.encrypted, of)?;
        Ok(Volume { key, ..fresh(project, actor, request.name, (kind, size, source), request.limits) })
    }

    pub(super) fn first_type(&self) -> Result<String, EngineError> {
        let first = self.volume_types().into_iter().next();
        Ok(first.map(|(name, _)| name).ok_or_else(|| {
            bad("this site keeps no volumes", "set [[volumes]] in the server's configuration")
        })?)
    }

    /// Gives a volume another name, or more room while nobody has it.
    ///
    /// # Errors
    /// [`VolumeError`], [`EngineError::NameTaken`], or where the store fails.
    pub async fn change_volume(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
        change: VolumeChange,
    ) -> Result<Volume, EngineError> {
        let volume = self.volume(project, reference).await?;
        if let Some(name) = &change.name {
            check_name(name, "volume")?;
        }
        if [change.iops, change.bytes_per_second].into_iter().flatten().any(|limit| limit > LIMIT_MAX) {
            let what = format!("a limit is at most {LIMIT_MAX} per second");
            return Err(bad(what, "take the limit away (0) where it is not to hold").into());
        }
        if let Some(size) = change.size.filter(|size| *size != volume.size) {
            check_size(size, volume.size)?;
            self.check_larger(&volume)?;
            if volume.phase != Phase::Available || volume.attachment.is_some() {
                return Err(wrong("resize", &volume, "detach it first"));
            }
            let backend = self.backend(&volume.kind)?;
            let (before, at) = (volume.clone(), now());
            self.store().write(move |db| rows::grow(db, &before, size, at)).await?;
            if let Err(error) = backend.resize(volume.id, volume.kept(size)).await {
                self.store().write(move |db| rows::shrink(db, &volume, now())).await?;
                return Err(VolumeError::from(error).into());
            }
        }
        let made = self
            .edit_volume(volume.id, move |volume| {
                let mut next = volume.clone();
                next.name = change.name.clone().unwrap_or(next.name);
                next.size = change.size.unwrap_or(next.size).max(volume.size);
                next.limits = change.limits(volume.limits);
                let event = line(&next, &actor, "volume.changed", Severity::Info, "changed");
                Ok((next != *volume).then_some((next, Some(event))))
            })
            .await?;
        if made.limits != volume.limits {
            // Whoever presents it is to know.
            self.dpus_changed();
        }
        Ok(made)
    }

    /// Removes a volume that nobody has.
    ///
    /// # Errors
    /// [`VolumeError`], or where the store fails.
    pub async fn delete_volume(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
    ) -> Result<Volume, EngineError> {
        let volume = self.volume(project, reference).await?;
        let id = volume.id;
        let snapshots = self.store().read(move |db| rows::snapshots_of(db, id)).await?.len();
        if snapshots > 0 {
            let what = format!("volume {} has {snapshots} snapshots", volume.name);
            return Err(bad(what, "delete its snapshots first").into());
        }
        self.edit_volume(id, move |volume| {
            if matches!(volume.phase, Phase::Deleting | Phase::Deleted) {
                return Ok(None);
            }
            if volume.attachment.is_some() {
                return Err(wrong("delete", volume, "detach it first"));
            }
            let next = Volume { phase: Phase::Deleting, note: None, ..volume.clone() };
            let event = line(&next, &actor, "volume.deleting", Severity::Info, "is being removed");
            Ok(Some((next, Some(event))))
        })
        .await
    }

    /// Changes a volume as it stands when its turn comes; `None` leaves it as it is.
    pub(in crate::engine) async fn edit_volume(
        &self,
        id: VolumeId,
        change: impl Fn(&Volume) -> Result<Option<(Volume, Option<NewEvent>)>, EngineError>,
    ) -> Result<Volume, EngineError> {
        for _ in 0..CONFLICTS_MAX {
            let found = self.store().read(move |db| rows::get(db, id)).await?;
            let before = found.ok_or_else(|| VolumeError::NotFound(id.to_string()))?;
            let Some((mut next, event)) = change(&before)? else { return Ok(before) };
            next.version = before.version + 1;
            match self.put_volume(next, event).await {
                Err(EngineError::Store(StoreError::Conflict)) => {}
                other => return other,
            }
        }
        Err(EngineError::Store(StoreError::Conflict))
    }

    /// Stores a volume's next version with its event.
    async fn put_volume(&self, volume: Volume, event: Option<NewEvent>) -> Result<Volume, EngineError> {
        let (row, line, at) = (volume.clone(), event.clone(), now());
        let write = move |db: &_| {
            rows::update(db, &row, at)?;
            line.map(|line| insert_event(db, &line)).transpose()
        };
        let number = self.store().write(write).await?;
        if let (Some(number), Some(event)) = (number, event) {
            self.announce_event(number, event);
        }
        self.announce_volume(&volume);
        Ok(volume)
    }

    pub(in crate::engine) fn announce_volume(&self, volume: &Volume) {
        self.announce(Change::Volume { project: volume.project, volume: volume.id });
    }

    /// What a DPU connects to, from what is stored.
    pub(super) fn open_access(&self, id: VolumeId, sealed: &str) -> Result<Reach, EngineError> {
        let text = self.0.vault.unseal(place(id), sealed)?;
        let parsed = serde_json::from_str(&text.0);
        Ok(parsed.map_err(|cause| StoreError::Row { table: "volumes", cause })?)
    }

    fn seal_access(&self, id: VolumeId, reach: &Reach) -> Result<String, EngineError> {
        let text =
            serde_json::to_string(reach).map_err(|cause| StoreError::Row { table: "volumes", cause })?;
        Ok(self.0.vault.seal(place(id), &Secret(text))?)
    }
}

fn check_name(name: &str, what: &str) -> Result<(), VolumeError> {
    if is_name(name) {
        return Ok(());
    }
    let short: String = name.chars().take(80).collect();
    let hint = "use letters, digits and . _ -, at most 64, beginning with a letter or digit";
    Err(bad(format!("`{short}` is not a name for a {what}"), hint))
}

fn check_size(size: u64, least: u64) -> Result<(), VolumeError> {
    if size < least {
        return Err(bad(
            format!("{size} bytes are fewer than the {least} of what it is to hold"),
            "ask for more",
        ));
    }
    if is_size(size) {
        return Ok(());
    }
    let what = format!("{size} bytes are no multiple of {SIZE_UNIT} from {SIZE_UNIT} to {SIZE_MAX}");
    Err(bad(what, "give a size in whole MiB"))
}

fn fresh(
    project: ProjectId,
    actor: &Actor,
    name: String,
    (kind, size, source): (String, u64, Source),
    limits: Option<IoLimits>,
) -> Volume {
    Volume {
        id: VolumeId(Uuid::now_v7()),
        project,
        name,
        kind,
        size,
        source,
        phase: Phase::Creating,
        attachment: None,
        limits,
        key: None,
        keep: false,
        layer: None,
        previous_of: None,
        note: None,
        by: actor.name().to_owned(),
        created: now(),
        deleted: None,
        version: 1,
    }
}

fn wrong(verb: &'static str, volume: &Volume, hint: &'static str) -> EngineError {
    VolumeError::WrongStatus { verb, status: volume.status(), hint }.into()
}

/// A line about a volume, for its project.
fn line(volume: &Volume, actor: &Actor, kind: &str, severity: Severity, what: &str) -> NewEvent {
    let message = format!("volume {}: {what}", volume.name);
    NewEvent::new(now(), actor.name(), kind, severity, message).of(volume.project)
}
