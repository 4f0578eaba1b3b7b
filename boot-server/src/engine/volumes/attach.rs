//! Volumes for servers, and back.

use boot_server_core::dpu::functions::Disk;
use boot_server_core::node::Severity;
use boot_server_core::server::Phase as ServerPhase;
use boot_server_core::volume::{Attachment, Phase, Stage, Volume};
use protocol::ProjectId;

use super::{VolumeError, bad, line, wrong};
use crate::engine::dpus::NewDisk;
use crate::engine::{Actor, Engine, EngineError};

impl Engine {
    /// Gives a volume to a server, running or not. Its machine has it once its status is `in_use`.
    ///
    /// # Errors
    /// [`VolumeError`], or where the store fails.
    pub async fn attach_volume(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
        server: &str,
    ) -> Result<Volume, EngineError> {
        let volume = self.volume(project, reference).await?;
        let server = self.server(project, server).await?;
        if matches!(server.phase, ServerPhase::Deleting | ServerPhase::Deleted) {
            return Err(
                bad(format!("server {} is being given back", server.name), "choose another server").into()
            );
        }
        let Some(known) = self.dpu_of(server.node) else {
            return Err(VolumeError::NoDpu(server.name).into());
        };
        if volume.layer.as_ref().is_some_and(|layer| layer.dpu != known.dpu.id) {
            let what = format!(
                "volume {} lies on the DPU of another machine than server {}'s",
                volume.name, server.name
            );
            return Err(bad(what, "attach it to a server on the machine that it was made on").into());
        }
        // One at a time: what was left for one is not left for the next.
        let _turn = self.0.dpus.attaching.lock().await;
        if volume.server().is_none() {
            self.check_disks(&known, Some(server.id), &[NewDisk::of(&volume, Disk::Data)]).await?;
        }
        self.edit_volume(volume.id, move |volume| {
            if volume.server() == Some(server.id) {
                return Ok(None);
            }
            if volume.phase != Phase::Available || volume.attachment.is_some() {
                return Err(wrong(
                    "attach",
                    volume,
                    "wait until it is available, or detach it from its server first",
                ));
            }
            let next = Volume { attachment: Some(Attachment::wanted(server.id, false)), ..volume.clone() };
            let what = format!("given to server {}", server.name);
            Ok(Some((next, Some(line(volume, &actor, "volume.attaching", Severity::Info, &what)))))
        })
        .await
    }

    /// Takes a volume from its server. It is available again once nobody can write to it.
    ///
    /// # Errors
    /// [`VolumeError`], or where the store fails.
    pub async fn detach_volume(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
    ) -> Result<Volume, EngineError> {
        let volume = self.volume(project, reference).await?;
        self.edit_volume(volume.id, move |volume| {
            let Some(attachment) = &volume.attachment else { return Ok(None) };
            if attachment.boot {
                return Err(wrong(
                    "detach",
                    volume,
                    "its server boots from it: delete the server, or reinstall it",
                ));
            }
            Ok(detaching(volume).map(|next| {
                let event = line(volume, &actor, "volume.detaching", Severity::Info, "taken from its server");
                (next, Some(event))
            }))
        })
        .await
    }
}

/// The next version of a volume that is taken from its server; `None` where that goes on already.
pub(super) fn detaching(volume: &Volume) -> Option<Volume> {
    let attachment = volume.attachment.as_ref().filter(|at| at.stage != Stage::Detaching)?;
    let attachment = Attachment { stage: Stage::Detaching, ..attachment.clone() };
    Some(Volume { attachment: Some(attachment), ..volume.clone() })
}
