//! Going back: a server whose new OS does not come up boots from the volume that it had before.

use boot_server_core::node::event::{DeployOrder, Verb};
use boot_server_core::node::{Event, Installed, Severity};
use boot_server_core::server::{Phase, Server, Spec};
use boot_server_core::volume::{Attachment, Phase as VolumePhase, Source, Volume};
use protocol::ProjectId;

use super::{Actor, Engine, EngineError, ServerError, line, now};
use crate::engine::Along;
use crate::store::volumes;

impl Engine {
    /// Boots a server from the volume that it booted from before it was installed anew. The new one is removed once the old OS runs.
    ///
    /// # Errors
    /// [`ServerError::WrongPhase`] unless it has stopped, [`ServerError::Bad`] where nothing is left to go back to, or what the store says.
    pub async fn rollback_server(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
    ) -> Result<Server, EngineError> {
        let server = self.server(project, reference).await?;
        if server.phase != Phase::Error {
            let hint = "only one whose new OS did not come up goes back to the one before";
            return Err(
                ServerError::WrongPhase { verb: "roll back", phase: server.phase.as_str(), hint }.into()
            );
        }
        self.check_server(&server)?;
        let node = self.node(&server.node.to_string()).await?;
        let (installed, volume) = self.before(&server, node.installed.clone()).await?;
        let order = DeployOrder::resumed(&installed, volume.size);
        self.edit_volume(volume.id, |volume| {
            if volume.attachment.is_some() {
                return Ok(None);
            }
            let back = Attachment::wanted(server.id, true);
            Ok(Some((Volume { attachment: Some(back), previous_of: None, ..volume.clone() }, None)))
        })
        .await?;
        let (image, image_name) = match &volume.source {
            Source::Os { image, image_name, .. } => (*image, image_name.clone()),
            _ => (installed.image, installed.image_name),
        };
        let spec = Spec { image, image_name, ..server.spec.clone() };
        let next = Server {
            spec,
            phase: Phase::Deploying,
            note: None,
            version: server.version + 1,
            ..server.clone()
        };
        let what = format!("goes back to {}", next.spec.image_name);
        let event = line(&next, &actor, "server.rolled_back", Severity::Warning, &what, now());
        let along = Along { server: Some(next.clone()), lines: vec![event], ..Along::default() };
        let verb = Event::Verb(Verb::Deploy(Box::new(order)));
        self.apply_along(node.id, actor, verb, along).await?;
        self.announce_server(&next);
        Ok(next)
    }

    /// The OS that [`Engine::rollback_server`] would go back to, in words; none where it would be refused.
    pub async fn rolls_back_to(&self, server: &Server) -> Option<String> {
        if server.phase != Phase::Error {
            return None;
        }
        let node = self.node(&server.node.to_string()).await.ok()?;
        let (installed, volume) = self.before(server, node.installed).await.ok()?;
        Some(match volume.source {
            Source::Os { image_name, .. } => image_name,
            _ => installed.image_name,
        })
    }

    /// The OS before, and its volume.
    async fn before(
        &self,
        server: &Server,
        installed: Option<Installed>,
    ) -> Result<(Installed, Volume), EngineError> {
        let nothing = || {
            let what = format!("server {} has no volume to go back to", server.name);
            ServerError::Bad { what, hint: "reinstall it" }
        };
        let installed = installed.ok_or_else(nothing)?;
        let id = installed.disk.volume().ok_or_else(nothing)?;
        let volume = self.store().read(move |db| volumes::get(db, id)).await?;
        let own = |volume: &Volume| {
            volume.phase == VolumePhase::Available
                && (volume.previous_of == Some(server.id) || volume.server() == Some(server.id))
        };
        let volume = volume.filter(own).ok_or_else(nothing)?;
        Ok((installed, volume))
    }
}
