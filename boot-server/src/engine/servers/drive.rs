//! Drives servers: what their machines do changes their phase, and what their phase needs is done with their machines.

use std::time::Duration;

use boot_server_core::bmc::health::Level;
use boot_server_core::deploy::{DeployRequest, DiskChoice};
use boot_server_core::node::event::{DeployOrder, Verb};
use boot_server_core::node::{Event, Node, Refused, RunStage, Severity, State};
use boot_server_core::server::{Act, Phase, Seen, Server, Spec, follow, os_disk, wiped};
use futures_util::{StreamExt as _, stream};
use protocol::fault::FaultCode;
use protocol::job::DiskTarget;
use protocol::{DiskId, NodeId, ServerId, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Actor, Change, Engine, EngineError, line, now};
use crate::asking::carried;
use crate::engine::{Along, lock, replace};
use crate::store::queries::NewEvent;
use crate::store::servers as rows;

/// After a failure of the store, all servers are looked at again this much later.
const RETRY: Duration = Duration::from_secs(5);
/// Servers that are looked at together: the store commits so many at once.
const AT_ONCE: usize = 64;
/// Steps of one server in a row: from `claimed` to `deploying` are two.
const STEPS_MAX: usize = 8;
/// Longest note, in characters.
const NOTE_MAX: usize = 500;

impl Engine {
    /// Drives all servers until `stop`: first what was left when the server last ran, then what changes.
    pub async fn run_servers(&self, stop: CancellationToken) {
        let mut changes = self.changes();
        let mut due = Some(tokio::time::Instant::now());
        loop {
            let wait = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let driven = tokio::select! {
                () = stop.cancelled() => return,
                () = wait => {
                    due = None;
                    self.drive_all().await
                }
                change = changes.recv() => match change {
                    Ok(Change::Server { server, .. }) => self.drive(server).await,
                    Ok(Change::Node(node)) => self.drive_node(node).await,
                    Ok(Change::Event(event)) if event.kind.starts_with("health.") => match event.node {
                        Some(node) => self.drive_node(node).await,
                        None => Ok(()),
                    },
                    Ok(_) => Ok(()),
                    Err(RecvError::Lagged(_)) => self.drive_all().await,
                    Err(RecvError::Closed) => return,
                },
            };
            if let Err(error) = driven {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "servers are looked at again in {RETRY:?}"
                );
                due.get_or_insert(tokio::time::Instant::now() + RETRY);
            }
        }
    }

    /// Looks at every living server once.
    pub(in crate::engine) async fn drive_all(&self) -> Result<(), EngineError> {
        let servers = self.store().read(rows::living).await?;
        let driven = stream::iter(servers).map(|server| async move { self.drive(server.id).await });
        driven.buffer_unordered(AT_ONCE).fold(Ok(()), |all, one| std::future::ready(all.and(one))).await
    }

    async fn drive_node(&self, node: NodeId) -> Result<(), EngineError> {
        match self.server_of(node).await? {
            Some(server) => self.drive(server.id).await,
            None => Ok(()),
        }
    }

    /// Does for a server what is to be done, until it waits for its machine.
    pub(super) async fn drive(&self, id: ServerId) -> Result<(), EngineError> {
        for _ in 0..STEPS_MAX {
            let Some(server) = self.store().read(move |db| rows::get(db, id)).await? else { return Ok(()) };
            let node = self.0.nodes.get(server.node);
            let next = follow(server.phase, Seen::of(node.as_deref()));
            // Its disks and networks go first: whatever ran on its machine writes to nothing from then on.
            let leaves =
                matches!(next.act, Some(Act::GiveBack | Act::Release)) || undone(&server, node.as_deref());
            if leaves && !self.take_all(&server).await? {
                return Ok(());
            }
            let went_on = match (next.act, node.as_deref()) {
                (None | Some(Act::Release), node) => self.note_phase(server, node, next.phase).await,
                (Some(act), Some(node)) => self.act(server, node, act).await,
                (Some(_), None) => Ok(false),
            };
            match went_on {
                Ok(true) | Err(EngineError::Store(crate::store::StoreError::Conflict)) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what its DPU presents from a server that is given back; false where that is still on its way. Its machine is
    /// switched off first, which may take a minute: that is waited for in a task of its own, and others' servers are driven meanwhile.
    async fn take_all(&self, server: &Server) -> Result<bool, EngineError> {
        if self.volumes_of(server.id).await?.is_empty() {
            self.take_disks(server).await?;
            // A VLAN is free only when no switch has the machine in it any more.
            if self.is_switched(server.id) && !self.is_back_home(server.node).await? {
                return Ok(false);
            }
            return self.release_networks(server).await.map(|()| true);
        }
        if lock(&self.0.giving_back).insert(server.id) {
            let (engine, server) = (self.clone(), server.clone());
            tokio::spawn(carried(async move {
                if let Err(error) = engine.take_disks_or_say(&server).await {
                    tracing::error!(server = %server.id, error = &error as &dyn std::error::Error, "its disks are taken with the next look");
                }
                lock(&engine.0.giving_back).remove(&server.id);
            }));
        }
        Ok(false)
    }

    /// What keeps it is told to its project; it is tried again with the next change and the next look.
    async fn take_disks_or_say(&self, server: &Server) -> Result<(), EngineError> {
        match self.take_disks(server).await {
            Err(EngineError::Power(error)) => {
                let note = Some("its machine could not be switched off yet".to_owned());
                tracing::warn!(server = %server.id, error = &error as &dyn std::error::Error, "a server is not given back yet");
                if server.note != note {
                    let next = Server { note, version: server.version + 1, ..server.clone() };
                    self.put_server(next, None).await?;
                }
                Ok(())
            }
            taken => taken.map(drop),
        }
    }

    /// Stores the phase that follows from how the machine stands; false where nothing changes.
    async fn note_phase(
        &self,
        before: Server,
        node: Option<&Node>,
        phase: Phase,
    ) -> Result<bool, EngineError> {
        let at = now();
        let fault = phase != Phase::Deleted
            && self.health(before.node).is_some_and(|verdict| verdict.level == Level::Critical);
        let came = phase == Phase::Active && before.active.is_none();
        // What it waits for is told by whoever could not go on; it holds until the phase changes.
        let note = match phase {
            _ if phase == before.phase => before.note.clone(),
            Phase::Error => Some(cut(&why(node))),
            _ => None,
        };
        let server = Server {
            phase,
            fault,
            note,
            active: if came { Some(at) } else { before.active },
            deleted: (phase == Phase::Deleted).then_some(at),
            version: before.version + 1,
            ..before.clone()
        };
        if (Server { version: before.version, ..server.clone() }) == before {
            return Ok(false);
        }
        let event = (phase != before.phase).then(|| news(&server, at));
        let server = self.put_server(server, event).await?;
        if phase == Phase::Deleted {
            self.release_ports(server.id).await?;
        }
        Ok(phase != before.phase && phase != Phase::Deleted)
    }

    /// Does something with the machine; false where that must wait.
    async fn act(&self, server: Server, node: &Node, act: Act) -> Result<bool, EngineError> {
        let done = match act {
            Act::Deploy => {
                self.deploy_server(&server, node, server.spec.clone(), Actor::Server).await.map(drop)
            }
            Act::GiveBack => self.give_back(&server, node).await,
            Act::Abort => self.apply(node.id, Actor::Server, Event::Verb(Verb::Abort)).await.map(drop),
            Act::Release => Ok(()),
        };
        let Err(error) = done else { return Ok(true) };
        let (phase, note) = match &error {
            EngineError::Store(_) | EngineError::Task(_) | EngineError::NoRandomness(_) => return Err(error),
            EngineError::Refused(Refused::Maintenance { .. }) => {
                (server.phase, "its machine is under maintenance".to_owned())
            }
            // The machine moved on meanwhile: how it stands now says what is to be done.
            EngineError::Refused(_)
                if self.0.nodes.get(node.id).is_none_or(|now| now.state != node.state) =>
            {
                return Ok(true);
            }
            EngineError::Refused(_) => (server.phase, "its machine is not ready".to_owned()),
            // The same again would be refused the same again: its owner decides.
            other if act == Act::Deploy => (Phase::Error, other.to_string()),
            other => (server.phase, other.to_string()),
        };
        let note = Some(cut(&note));
        if (server.phase, &server.note) != (phase, &note) {
            tracing::warn!(server = %server.id, error = &error as &dyn std::error::Error, "a server does not go on");
            let changed = phase != server.phase;
            let next = Server { phase, note, version: server.version + 1, ..server };
            let event = changed.then(|| news(&next, now()));
            self.put_server(next, event).await?;
        }
        Ok(false)
    }

    /// Puts the OS on its machine. Order and phase are one transaction.
    pub(super) async fn deploy_server(
        &self,
        server: &Server,
        node: &Node,
        spec: Spec,
        actor: Actor,
    ) -> Result<Server, EngineError> {
        self.plug_networks(server, &spec).await?;
        let request = self.deploy_request(node, &spec).await?;
        let volume = self.volume_to_boot(server, &spec, &actor).await?;
        let wired = self.wire_server(server, node).await?;
        let mut planned = self.plan_onto(node, &request, volume.as_ref(), &wired).await?;
        planned.order.imaging = spec.boot_volume.as_ref().map(|boot| boot.imaging).unwrap_or_default();
        let deploy = Some(replace::seal(&self.0.vault, node.id, &request)?);
        let at = now();
        let next = Server {
            spec,
            phase: Phase::Deploying,
            note: None,
            version: server.version + 1,
            ..server.clone()
        };
        let event = line(
            &next,
            &actor,
            "server.deploying",
            Severity::Info,
            &format!("{} is being installed", next.spec.image_name),
            at,
        );
        let sealed = self.seal_instance(node.id, &planned.instance, planned.metadata, planned.phone_home)?;
        let instance = planned.order.phone_home.map(|_| sealed);
        let order: Box<DeployOrder> = Box::new(planned.order);
        let rebuild = matches!(node.state, State::Active);
        let verb = if rebuild { Verb::Rebuild(order) } else { Verb::Deploy(order) };
        let along =
            Along { instance, deploy, server: Some(next.clone()), lines: vec![event], ..Along::default() };
        self.apply_along(node.id, actor, Event::Verb(verb), along).await?;
        self.announce_server(&next);
        Ok(next)
    }

    async fn deploy_request(&self, node: &Node, spec: &Spec) -> Result<DeployRequest, EngineError> {
        let (_, manifest) = self.resolve_image(&spec.image.to_string()).await?;
        let inventory = self.inventory(node.id).await?;
        let disk = inventory.and_then(|inventory| os_disk(&inventory, manifest.minimum_disk));
        Ok(DeployRequest {
            image: spec.image.to_string(),
            disk: disk.map_or_else(DiskChoice::default, DiskChoice::Id),
            hostname: Some(spec.hostname.clone()),
            user: spec.user.clone(),
            ssh_keys: spec.ssh_keys.clone(),
            user_data: spec.user_data.clone(),
            confirm: Some(node.name.clone()),
            ..DeployRequest::default()
        })
    }

    /// The volume that the OS goes to, made where there is none that waits for it.
    async fn volume_to_boot(
        &self,
        server: &Server,
        spec: &Spec,
        actor: &Actor,
    ) -> Result<Option<DiskTarget>, EngineError> {
        let Some(wish) = &spec.boot_volume else { return Ok(None) };
        let server = Server { spec: spec.clone(), ..server.clone() };
        let (_, manifest) = self.resolve_image(&spec.image.to_string()).await?;
        let volume = self.ensure_boot_volume(&server, actor, wish, manifest.minimum_disk).await?;
        Ok(Some(DiskTarget { id: DiskId::of_volume(volume.id), size_bytes: volume.size }))
    }

    async fn give_back(&self, server: &Server, node: &Node) -> Result<(), EngineError> {
        let inventory = self.inventory(node.id).await?;
        let wipe = inventory.map(|inventory| wiped(&inventory)).unwrap_or_default();
        let next = Server { note: None, version: server.version + 1, ..server.clone() };
        let along = Along { server: Some(next), ..Along::default() };
        let verb = Event::Verb(Verb::Delete { wipe, how: self.between_tenants(node) });
        self.apply_along(node.id, Actor::Server, verb, along).await.map(drop)
    }
}

/// True where the OS of a server was never started, because its disk or its networks were never all ready: what there is of them is
/// taken back, and made anew by a reinstall. One whose OS was started keeps them: it may only be slow.
fn undone(server: &Server, node: Option<&Node>) -> bool {
    let never = server.phase == Phase::Error && server.active.is_none() && server.spec.boot_volume.is_some();
    never
        && match node.map(|node| &node.state) {
            Some(State::Failed(failure)) => {
                failure.run.as_ref().is_none_or(|run| run.stage != RunStage::FirstBoot)
            }
            Some(State::Available) => true,
            _ => false,
        }
}

/// Why a server stopped, for its project: nothing that only those who run the site need to know.
fn why(node: Option<&Node>) -> String {
    match node.map(|node| &node.state) {
        None => "its machine is not known any more".to_owned(),
        Some(State::Failed(failure)) if failure.fault.code == FaultCode::Power => {
            "its machine could not be restarted".to_owned()
        }
        Some(State::Failed(failure)) => failure.fault.message.clone(),
        Some(State::Available) => "the installation was called off".to_owned(),
        Some(_) => "its machine was taken out of service".to_owned(),
    }
}

fn news(server: &Server, at: Timestamp) -> NewEvent {
    let note = server.note.as_deref().unwrap_or_default();
    let (kind, severity, what) = match server.phase {
        Phase::Claimed => ("server.claimed", Severity::Info, "a machine is its own".to_owned()),
        Phase::Deploying => ("server.deploying", Severity::Info, "is being installed".to_owned()),
        Phase::Active => ("server.active", Severity::Info, format!("runs {}", server.spec.image_name)),
        Phase::Error => ("server.failed", Severity::Error, format!("stopped: {note}")),
        Phase::Deleting => ("server.deleting", Severity::Info, "is being given back".to_owned()),
        Phase::Deleted => ("server.deleted", Severity::Info, "given back".to_owned()),
    };
    line(server, &Actor::Server, kind, severity, &what, at)
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NOTE_MAX).collect()
}
