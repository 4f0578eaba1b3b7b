//! The volume that a server boots from, as long as nothing is on it.

use boot_server_core::amounts::Amounts;
use boot_server_core::dpu::functions::Disk;
use boot_server_core::node::Severity;
use boot_server_core::server::{BootVolume, Server};
use boot_server_core::volume::{
    Attachment, Encrypted, Imaging, Phase, SIZE_UNIT, Source, Stage, Volume, gib,
};
use protocol::{NodeId, VolumeId};
use uuid::Uuid;

use super::{VolumeError, check_size, fresh, line};
use crate::engine::dpus::NewDisk;
use crate::engine::{Actor, Engine, EngineError};
use crate::store::queries::insert_event;
use crate::store::volumes as rows;

/// Bytes that an OS needs on its volume beside its image: the config partition, room around it, and partition tables at both ends.
const AROUND_IMAGE: u64 = 16 << 20;

/// What the boot volume of a server takes of a project's quota, of an image that needs `least` bytes.
pub(in crate::engine) fn boot_amounts(wish: &BootVolume, least: u64) -> Amounts {
    let size = wish.size.unwrap_or(least.saturating_add(AROUND_IMAGE));
    Amounts { volumes: 1, volume_gib: gib(size), ..Amounts::default() }
}

impl Engine {
    /// The boot volume that waits for a server's deploy, made where there is none. One of another image, from a deploy that was called
    /// off, is removed.
    ///
    /// # Errors
    /// [`VolumeError`], or where the store fails.
    pub(in crate::engine) async fn ensure_boot_volume(
        &self,
        server: &Server,
        actor: &Actor,
        wish: &BootVolume,
        least: u64,
    ) -> Result<Volume, EngineError> {
        let wanted = self.boot_volume(server, actor, wish, least)?;
        let runs_from = self.0.nodes.get(server.node).and_then(|node| node.runs_from());
        for volume in self.volumes_of(server.id).await? {
            // Nobody was ever given it.
            let unused = volume.attachment.as_ref().is_some_and(|at| at.boot && at.stage == Stage::Wanted)
                && Some(volume.id) != runs_from;
            let alike = |volume: &Volume| {
                (&volume.source, volume.size, &volume.kind, volume.key.is_some())
                    == (&wanted.source, wanted.size, &wanted.kind, wanted.key.is_some())
            };
            if unused && volume.phase == Phase::Creating && alike(&volume) {
                return Ok(volume);
            }
            if unused {
                self.edit_volume(volume.id, |volume| {
                    Ok(Some((Volume { phase: Phase::Deleting, ..volume.clone() }, None)))
                })
                .await?;
            }
        }
        self.check_room(server, &wanted).await?;
        let event =
            line(&wanted, actor, "volume.created", Severity::Info, "is made for its server to boot from");
        let (row, row_event) = (wanted.clone(), event.clone());
        let write = move |db: &_| {
            rows::insert(db, &row)?;
            insert_event(db, &row_event)
        };
        let number = self.store().write(write).await?;
        self.announce_event(number, event);
        self.announce_volume(&wanted);
        Ok(wanted)
    }

    /// Whether the DPU of this machine can present a boot volume; if not, why.
    ///
    /// # Errors
    /// Where the store fails.
    pub(in crate::engine) async fn takes_boot_volume(
        &self,
        node: NodeId,
        wish: &BootVolume,
    ) -> Result<Result<(), String>, EngineError> {
        let Some(known) = self.dpu_of(node) else { return Ok(Err("it has no DPU".to_owned())) };
        let kind = match &wish.kind {
            Some(kind) => kind.clone(),
            None => self.first_type()?,
        };
        let encrypted = wish.encrypted || self.encrypts(&kind) == Encrypted::Always;
        let server = self.server_of(node).await?.map(|server| server.id);
        let disk = NewDisk { disk: Disk::Boot, kind: &kind, encrypted, fills: wish.imaging == Imaging::Dpu };
        match self.check_disks(&known, server, &[disk]).await {
            Err(EngineError::Volume(why @ (VolumeError::NoFunction { .. } | VolumeError::Bad { .. }))) => {
                Ok(Err(why.to_string()))
            }
            checked => checked.map(Ok),
        }
    }

    fn boot_volume(
        &self,
        server: &Server,
        actor: &Actor,
        wish: &BootVolume,
        least: u64,
    ) -> Result<Volume, EngineError> {
        let kind = match &wish.kind {
            Some(kind) => kind.clone(),
            None => self.first_type()?,
        };
        self.check_imaging(&kind, wish.imaging)?;
        let least = least.saturating_add(AROUND_IMAGE);
        let size = wish.size.unwrap_or_else(|| least.next_multiple_of(SIZE_UNIT));
        check_size(size, least)?;
        let key = self.key_for(&kind, wish.encrypted, None)?;
        let source = Source::Os {
            image: server.spec.image,
            image_name: server.spec.image_name.clone(),
            imaging: wish.imaging,
        };
        let id = Uuid::now_v7();
        let tail = id.simple().to_string();
        let name = format!("{}-boot-{}", server.name, &tail[tail.len() - 6..]);
        let mut volume = fresh(server.project, actor, name, (kind, size, source), None);
        volume.id = VolumeId(id);
        volume.key = key;
        volume.keep = wish.keep;
        volume.attachment = Some(Attachment::wanted(server.id, true));
        Ok(volume)
    }
}
