//! Evacuation: a server on volumes whose machine died goes on, on another machine. Nothing is copied.
//!
//! ```text
//!  another machine is found ─▶ one transaction: server, OS, both machines, and the volumes, which are to be moved
//!      ─▶ fence: each volume revoked in its backend ─▶ the new machine is prepared like one whose image was just written:
//!         granted, presented, switched on
//! ```
//!
//! The fence is the backend's: when it holds, the old machine cannot write, whether anybody reaches it or not, and before it holds nobody
//! else is granted the volume. It is in the volumes' rows, so a server that is killed goes on with it. Ports are bound to the
//! new machine's DPU by name, so that the old one, switched on again, has no network either.

use std::sync::Arc;
use std::time::Duration;

use boot_server_core::deploy::check_firmware;
use boot_server_core::node::event::{DeployOrder, Verb};
use boot_server_core::node::{Cleaning, Event, Installed, Node, Severity};
use boot_server_core::placement::{self, By, Request, Wanted};
use boot_server_core::server::{Phase, Server, wiped};
use boot_server_core::volume::{Attachment, Stage, Volume};
use protocol::NodeId;
use volume::Fencing;

use super::dpus::NewDisk;
use super::servers::ServerError;
use super::{Actor, Engine, EngineError, now};
use crate::asking::carried;
use crate::store::instances::InstanceRow;
use crate::store::queries::{NewEvent, insert_event};
use crate::store::{instances, last_deploys, servers, volumes};

/// How long the old machine is asked to be off before it is left to the fence.
const OFF: Duration = Duration::from_secs(15);

impl Engine {
    /// Moves the server of a machine to another one of its flavor, or to `to`. Its volumes, ports and addresses follow.
    ///
    /// # Errors
    /// [`ServerError`] where the machine has no server that can be moved, no other machine fits, or a volume is kept where nobody can be
    /// cut off from it: then nothing was moved.
    pub async fn evacuate(&self, node: &Node, actor: Actor, to: Option<&str>) -> Result<Server, EngineError> {
        let (engine, node, to) = (self.clone(), node.clone(), to.map(str::to_owned));
        // Ended also where whoever asked goes away meanwhile.
        let moved = async move { engine.evacuate_now(&node, actor, to.as_deref()).await };
        tokio::spawn(carried(moved)).await?
    }

    async fn evacuate_now(&self, node: &Node, actor: Actor, to: Option<&str>) -> Result<Server, EngineError> {
        let server = self.server_of(node.id).await?;
        let server = server.ok_or_else(|| ServerError::NotFound(format!("on {}", node.name)))?;
        if matches!(server.phase, Phase::Claimed | Phase::Deploying | Phase::Deleting | Phase::Deleted) {
            let (verb, hint) = ("evacuate", "wait until it is active or has stopped");
            return Err(ServerError::WrongPhase { verb, phase: server.phase.as_str(), hint }.into());
        }
        let (installed, volume) = self.on_volume(node, &server).await?;
        // Whatever keeps it from moving is said before its machine is touched.
        self.moving(&server).await?;
        self.spare(&server, node, to).await?;
        // Best where it works; where the machine does not answer, the fence holds without it.
        match tokio::time::timeout(OFF, self.switch_off(node.id)).await {
            Ok(Ok(true)) => {}
            other => {
                tracing::warn!(node = %node.name, ?other, "a machine that is evacuated cannot be switched off")
            }
        }
        let _turn = self.0.claims.lock().await;
        let target = self.spare(&server, node, to).await?;
        let moving = self.moving(&server).await?;
        self.carry_over(node, &target, &server, (installed, volume), moving, actor).await?;
        let id = server.id;
        let moved = self.store().read(move |db| servers::get(db, id)).await?;
        moved.ok_or_else(|| ServerError::NotFound(server.name).into())
    }

    /// The OS and the volume that it is on.
    async fn on_volume(&self, node: &Node, server: &Server) -> Result<(Installed, Volume), EngineError> {
        let bad = || {
            let what = format!("the OS of server {} is not on a volume", server.name);
            EngineError::from(ServerError::Bad {
                what,
                hint: "restore it, and replace the machine (`billet machine replace`)",
            })
        };
        let installed = node.installed.clone().ok_or_else(bad)?;
        let id = installed.disk.volume().ok_or_else(bad)?;
        let volume = self.store().read(move |db| volumes::get(db, id)).await?.ok_or_else(bad)?;
        Ok((installed, volume))
    }

    /// Another machine that can be this server.
    async fn spare(&self, server: &Server, old: &Node, to: Option<&str>) -> Result<Node, EngineError> {
        let wanted = match (to, &server.flavor) {
            (Some(reference), _) => Wanted::Node(self.node(reference).await?.id),
            (None, Some(flavor)) => Wanted::Flavor(self.flavor(flavor).await?),
            (None, None) => {
                let what = format!("server {} was asked for by its machine, not by a flavor", server.name);
                return Err(ServerError::Bad { what, hint: "say which machine it is to have" }.into());
            }
        };
        let project = server.project;
        let group = match server.group {
            Some(group) => {
                let mut members =
                    self.store().read(move |db| servers::group_nodes(db, project, group)).await?;
                members.retain(|member| *member != old.id);
                Some(self.placement_group(project, group, &members).await?)
            }
            None => None,
        };
        let request = Request { by: By::Project(project), wanted, count: 1, pool: None, group };
        let (_, manifest) = self.resolve_image(&server.spec.image.to_string()).await?;
        let volumes = self.volumes_of(server.id).await?;
        let disks: Vec<NewDisk<'_>> =
            volumes.iter().map(|volume| NewDisk::of(volume, volume.disk())).collect();
        let mut candidates = self.candidates().await?;
        let mut fit = Vec::new();
        for candidate in candidates.drain(..) {
            let dpu = self.dpu_of(candidate.node).filter(|known| !self.dpu_is_silent(known));
            let Some(known) = dpu.filter(|_| candidate.node != old.id) else { continue };
            match self.check_disks(&known, None, &disks).await {
                Ok(()) => {}
                Err(EngineError::Volume(_)) => continue,
                Err(error) => return Err(error),
            }
            let inventory = self.inventory(candidate.node).await?;
            if inventory.is_some_and(|inventory| check_firmware(&inventory, &manifest).is_ok()) {
                fit.push(candidate);
            }
        }
        let nodes = placement::place(&request, &fit).map_err(|rejected| {
            let asked = server
                .flavor
                .as_ref()
                .map_or_else(|| "that machine".to_owned(), |name| format!("flavor {name}"));
            ServerError::NoCapacity { asked, count: 1, rejected }
        })?;
        let found: Option<NodeId> = nodes.first().copied();
        let node = found.and_then(|node| self.0.nodes.get(node));
        node.map(Arc::unwrap_or_clone).ok_or_else(|| ServerError::NotFound(server.name.clone()).into())
    }

    /// The volumes of a server as they are stored when it moves: each is taken from whoever has it before its next machine gets it. What
    /// is on its way off the server stays so.
    async fn moving(&self, server: &Server) -> Result<Vec<Volume>, EngineError> {
        let mut moving = Vec::new();
        for volume in self.volumes_of(server.id).await? {
            let backend = self.backend(&volume.kind)?;
            if backend.instant().is_some() {
                let what = format!("volume {} lies on the DPU of that machine and nowhere else", volume.name);
                let hint = "mend the machine, or delete the server and create it anew";
                return Err(ServerError::Bad { what, hint }.into());
            }
            if backend.fencing() == Fencing::Trusts {
                return Err(unfenced(&volume));
            }
            let Some(attachment) = volume.attachment.clone().filter(|at| at.stage != Stage::Detaching) else {
                continue;
            };
            let attachment = Some(Attachment { stage: Stage::Moving, ..attachment });
            moving.push(Volume { attachment, version: volume.version + 1, ..volume });
        }
        Ok(moving)
    }

    async fn carry_over(
        &self,
        old: &Node,
        new: &Node,
        server: &Server,
        (installed, volume): (Installed, Volume),
        moving: Vec<Volume>,
        actor: Actor,
    ) -> Result<(), EngineError> {
        let order = DeployOrder::resumed(&installed, volume.size);
        let reason = format!("its server {} was evacuated to {}", server.name, new.name);
        // Its own disks may hold what the project wrote there, and nobody can erase them now: it is not offered to others.
        let owes = self.inventory(old.id).await?.is_none_or(|inventory| !wiped(&inventory).is_empty());
        let how = if owes { Cleaning::Owed } else { Cleaning::Light };
        let mut leaving = vec![Event::Verb(Verb::Delete { wipe: Vec::new(), how })];
        let by = Some(actor.name().to_owned());
        leaving.push(Event::Verb(Verb::Maintenance { reason: Some(reason), until: None, by }));
        let coming = vec![Event::Verb(Verb::Deploy(Box::new(order)))];
        let moved = self.moved_instances(old, new).await?;
        let message = format!("{}: goes on, on another machine", server.name);
        let event = NewEvent::new(now(), actor.name(), "server.evacuated", Severity::Warning, message)
            .on(new.id)
            .of(server.project);
        let (old_id, new_id, row, rows, at) = (old.id, new.id, event.clone(), moving.clone(), now());
        let also = Arc::new(move |db: &_| {
            servers::move_to(db, old_id, new_id)?;
            // The old machine's were ended with its step, in this transaction.
            for row in &moved {
                instances::insert(db, row)?;
            }
            for volume in &rows {
                volumes::update(db, volume, at)?;
                volumes::set_access(db, volume.id, None)?;
            }
            last_deploys::forget(db, old_id)?;
            insert_event(db, &row).map(drop)
        });
        self.apply_together(actor, vec![(old_id, leaving), (new_id, coming)], also).await?;
        self.announce_server(server);
        for volume in &moving {
            self.announce_volume(volume);
        }
        Ok(())
    }

    /// What the OS may ask for, sealed for its new machine.
    async fn moved_instances(&self, old: &Node, new: &Node) -> Result<Vec<InstanceRow>, EngineError> {
        let id = old.id;
        let rows = self.store().read(move |db| instances::of_node(db, id)).await?;
        let mut moved = Vec::new();
        for row in rows {
            let Some(instance) = self.open_instance(&row)? else { continue };
            moved.push(self.seal_instance(new.id, &instance, row.token, row.phone_home)?);
        }
        Ok(moved)
    }
}

fn unfenced(volume: &Volume) -> EngineError {
    let what = format!(
        "volume {} is kept where nobody can be cut off from it: two machines might write to it",
        volume.name
    );
    ServerError::Bad { what, hint: "mend the machine, or detach the volume from its DPU first" }.into()
}
