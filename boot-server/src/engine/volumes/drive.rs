//! Drives volumes: what they need is done in their backends, and what their DPUs say changes their stage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boot_server_core::dpu::functions::{DiskFunction, allot};
use boot_server_core::dpu::{self, Reach};
use boot_server_core::node::{Node, Severity};
use boot_server_core::server::{Phase as ServerPhase, Server};
use boot_server_core::volume::{Act, Attachment, Facts, Imaging, Phase, Source, Stage, Volume, next};
use protocol::job::Task;
use protocol::{DpuId, NodeId, ProjectId, VolumeId};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use volume::{Backend, BackendError, Fencing, Grantee, ImageSource, Origin};

use super::{VolumeError, instant, line, wrong};
use crate::engine::dpus::no_function;
use crate::engine::{Actor, Change, Engine, EngineError, lock, now};
use crate::store::StoreError;
use crate::store::db::Connection;
use crate::store::dpus as dpus_rows;
use crate::store::queries::NewEvent;
use crate::store::servers as servers_rows;
use crate::store::volumes as rows;

/// Between two looks at everything: at DPUs that fell silent, and at what failed in passing.
const LOOK: Duration = Duration::from_secs(10);
/// Between two notes of who has volumes open: each asks the backend once for every volume that is granted.
const CLIENTS_LOOK: Duration = Duration::from_secs(60);
/// Changes of networks are taken together that come within this.
const SETTLE: Duration = Duration::from_millis(50);
/// Steps of one volume in a row: from `creating` to `attaching` are two.
const STEPS_MAX: usize = 8;
/// Volumes that are made or written at once: each reads and writes as fast as it can.
const WRITES_MAX: usize = 2;
/// Longest note, in characters.
const NOTE_MAX: usize = 500;

/// What is being driven: true where it changed meanwhile.
#[derive(Debug)]
pub(in crate::engine) struct Turns {
    volumes: Mutex<BTreeMap<VolumeId, bool>>,
    pub(super) nodes: Mutex<BTreeMap<NodeId, bool>>,
    writes: tokio::sync::Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            volumes: Mutex::default(),
            nodes: Mutex::default(),
            writes: tokio::sync::Semaphore::new(WRITES_MAX),
        }
    }
}

/// Whether whoever asks is to drive it; else whoever does drives it once more.
pub(in crate::engine) fn take<K: Ord>(turns: &Mutex<BTreeMap<K, bool>>, key: K) -> bool {
    let mut turns = lock(turns);
    match turns.get_mut(&key) {
        Some(again) => {
            *again = true;
            false
        }
        None => {
            turns.insert(key, false);
            true
        }
    }
}

/// Whether it is to be driven once more; else its turn is over.
pub(in crate::engine) fn again<K: Ord>(turns: &Mutex<BTreeMap<K, bool>>, key: &K) -> bool {
    let mut turns = lock(turns);
    match turns.get_mut(key) {
        Some(again) if *again => {
            *again = false;
            true
        }
        _ => {
            turns.remove(key);
            false
        }
    }
}

impl Engine {
    /// Drives all volumes and DPUs until `stop`: first what was left when the server last ran, then what changes.
    pub async fn run_volumes(&self, stop: CancellationToken) {
        // Nothing else asks the backends yet: what calls of before left half done can go.
        for (name, backend) in &self.0.backends {
            if let Err(error) = backend.sweep().await {
                tracing::warn!(kind = %name, error = &error as &dyn std::error::Error, "remains of volumes stay");
            }
        }
        let (engine, ended) = (self.clone(), stop.clone());
        tokio::spawn(async move { engine.run_client_notes(ended).await });
        let mut changes = self.changes();
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => self.look_at_all(&stop).await,
                () = self.0.networks_changed.notified() => {
                    // Networks are often made one after another.
                    tokio::time::sleep(SETTLE).await;
                    self.compose_all().await
                }
                change = changes.recv() => match change {
                    Ok(change) => self.look_at_change(change, &stop).await,
                    Err(RecvError::Lagged(_)) => self.look_at_all(&stop).await,
                    Err(RecvError::Closed) => return,
                },
            };
            if let Err(error) = looked {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "volumes are looked at again in {LOOK:?}"
                );
            }
        }
    }

    /// Has backends note who has their volumes open, again and again: an exporter that was started anew is another client.
    async fn run_client_notes(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CLIENTS_LOOK) => {}
            }
            if let Err(error) = self.note_clients().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "who has volumes open is not known; it is looked at again"
                );
            }
        }
    }

    async fn note_clients(&self) -> Result<(), EngineError> {
        let mut kept = Ok(());
        for volume in self.store().read(rows::living).await?.iter().filter(|volume| volume.holder().is_some())
        {
            // What keeps one is nothing to the others.
            let noted = match self.backend(&volume.kind) {
                Ok(backend) => backend.note_clients(volume.id).await.map_err(|e| VolumeError::from(e).into()),
                Err(error) => Err(error),
            };
            kept = kept.and(noted);
        }
        kept
    }

    async fn look_at_all(&self, stop: &CancellationToken) -> Result<(), EngineError> {
        self.pair_dpus().await?;
        self.compose_all().await?;
        let volumes = self.store().read(rows::living).await?;
        if volumes.is_empty() {
            return Ok(());
        }
        let servers = self.all_servers().await?;
        let hosts: BTreeMap<_, _> = servers.iter().map(|server| (server.id, server.node)).collect();
        for volume in &volumes {
            let host = volume.server().and_then(|server| hosts.get(&server)).copied();
            if is_under_way(volume) || self.is_astray(volume, host) {
                self.drive_volume(volume.id, stop);
            }
        }
        for node in self.nodes().await? {
            if node.state.run().is_some_and(|run| run.boots_volume()) {
                self.drive_prepare(node.id, stop);
            }
        }
        // One whose machine could not be switched off is tried again.
        for server in servers {
            if server.phase == ServerPhase::Deleting {
                self.announce(Change::Server { project: server.project, server: server.id });
            }
        }
        Ok(())
    }

    /// Whether a change of a node can matter to any disk or DPU: most nodes have neither, and they change all the time.
    fn concerns(&self, node: NodeId) -> bool {
        let on_volume = |node: &Node| {
            let installed = node.installed.as_ref().is_some_and(|os| os.disk.volume().is_some());
            installed || node.state.run().is_some_and(|run| run.boots_volume())
        };
        self.dpu_of(node).is_some() || self.0.nodes.get(node).is_some_and(|node| on_volume(&node))
    }

    async fn look_at_change(&self, change: Change, stop: &CancellationToken) -> Result<(), EngineError> {
        let node = match change {
            Change::Node(node) => Some(node),
            Change::Server { .. } if !self.has_dpus() => None,
            Change::Server { server, .. } => {
                self.store().read(move |db| servers_rows::get(db, server)).await?.map(|server| server.node)
            }
            Change::Volume { volume, .. } => {
                self.drive_volume(volume, stop);
                let found = self.store().read(move |db| rows::get(db, volume)).await?;
                match found.as_ref().and_then(Volume::server) {
                    // Nobody has it: it may be its DPU that is to remove its layer.
                    None => {
                        let dpu = found.as_ref().and_then(Volume::discarder);
                        dpu.and_then(|dpu| self.known_dpu(dpu)).and_then(|known| known.dpu.node)
                    }
                    Some(server) => {
                        let server = self.store().read(move |db| servers_rows::get(db, server)).await?;
                        server.map(|server| server.node)
                    }
                }
            }
            Change::Dpu(dpu) => self.known_dpu(dpu).and_then(|known| known.dpu.node),
            _ => return Ok(()),
        };
        let Some(node) = node.filter(|node| self.concerns(*node)) else { return Ok(()) };
        if let Some(known) = self.dpu_of(node) {
            let dpu = known.dpu.id;
            self.compose(dpu).await?;
            for volume in self.store().read(move |db| rows::leaving(db, dpu)).await? {
                self.drive_volume(volume.id, stop);
            }
        }
        if let Some(server) = self.server_of(node).await? {
            for volume in self.volumes_of(server.id).await? {
                self.drive_volume(volume.id, stop);
            }
        }
        self.drive_prepare(node, stop);
        Ok(())
    }

    /// Does for a volume what is to be done, in a task of its own: making one takes as long as its image is large.
    fn drive_volume(&self, id: VolumeId, stop: &CancellationToken) {
        if !take(&self.0.volume_turns.volumes, id) {
            return;
        }
        let (engine, stop) = (self.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                if let Err(error) = engine.volume_steps(id, &stop).await {
                    tracing::warn!(volume = %id, error = &error as &dyn std::error::Error, "a volume does not go on; it is looked at again");
                }
                if !again(&engine.0.volume_turns.volumes, &id) || stop.is_cancelled() {
                    return;
                }
            }
        });
    }

    async fn volume_steps(&self, id: VolumeId, stop: &CancellationToken) -> Result<(), EngineError> {
        for _ in 0..STEPS_MAX {
            let Some(volume) = self.store().read(move |db| rows::get(db, id)).await? else { return Ok(()) };
            let Some(act) = next(&volume, &self.volume_facts(&volume).await?) else { return Ok(()) };
            match self.act_on_volume(volume, act, stop).await {
                Ok(()) | Err(EngineError::Store(StoreError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the DPU that has a volume is not the one of this machine, which is its server's.
    fn is_astray(&self, volume: &Volume, host: Option<NodeId>) -> bool {
        let (Some(host), Some(dpu)) = (host, volume.presenter()) else { return false };
        self.known_dpu(dpu).is_none_or(|known| known.dpu.node != Some(host))
    }

    /// Takes a volume from a DPU that is to let go of it, though nobody says that it did. Where the backend cannot cut anybody off, whoever
    /// still has it goes on writing: that nobody does is the word of whoever asks. It waits for the DPU of its server, or is nobody's where
    /// it is being detached.
    ///
    /// # Errors
    /// [`VolumeError`] where no DPU is to let go of it, or where the store fails.
    pub async fn force_detach_volume(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
    ) -> Result<Volume, EngineError> {
        let volume = self.volume(project, reference).await?;
        let server = match volume.server() {
            Some(server) => self.store().read(move |db| servers_rows::get(db, server)).await?,
            None => None,
        };
        let leaves = volume.attachment.as_ref().is_some_and(|at| at.stage == Stage::Detaching);
        let what = "taken by force: nobody said that its host let go of it";
        let event = line(&volume, &actor, "volume.detach_forced", Severity::Warning, what);
        match server.map(|server| server.node) {
            _ if leaves => self.revoke_volume(volume, event).await,
            host if self.is_astray(&volume, host) => self.recall_volume(volume, event).await,
            _ => Err(wrong("detach by force", &volume, "detach it, or delete its server, before")),
        }
    }

    /// What is known of what a volume waits for.
    async fn volume_facts(&self, volume: &Volume) -> Result<Facts, EngineError> {
        let server = match volume.server() {
            Some(server) => self.store().read(move |db| servers_rows::get(db, server)).await?,
            None => None,
        };
        let living =
            server.filter(|server| !matches!(server.phase, ServerPhase::Deleting | ServerPhase::Deleted));
        let astray = self.is_astray(volume, living.as_ref().map(|server| server.node));
        let node = living.as_ref().and_then(|server| self.0.nodes.get(server.node));
        let spec = node.as_ref().and_then(|node| target_spec(node, volume.id));
        let boots = volume.attachment.as_ref().is_some_and(|at| at.boot);
        let ready = match &node {
            Some(node) if boots => self.takes_disk(node, volume.id),
            Some(_) => living.is_some_and(|server| server.phase != ServerPhase::Claimed),
            None => false,
        };
        let own =
            node.as_ref().and_then(|node| self.dpu_of(node.id)).filter(|known| !self.dpu_is_silent(known));
        let had = volume.attachment.as_ref().and_then(|at| at.dpu).and_then(|dpu| self.known_dpu(dpu));
        let observed = had.as_ref().and_then(|known| known.observed.as_ref());
        let generation = had.as_ref().map_or(0, |known| known.generation());
        let name = volume.id.to_string();
        let wanted = had.as_ref().and_then(|known| known.desired.as_ref());
        let is_wanted =
            wanted.is_some_and(|state| state.volumes.iter().any(|disk| disk.name.as_str() == name));
        let layer = volume.layer.as_ref();
        let holder = layer.map(|layer| self.known_dpu(layer.dpu));
        let discarded = holder.is_some_and(|known| {
            known.is_none_or(|known| {
                dpu::discarded(known.observed.as_ref(), known.generation(), volume)
                    && known
                        .desired
                        .is_some_and(|state| state.discard.iter().any(|one| one.name.as_str() == name))
            })
        });
        // Who cannot be asked is cut off, where the backend can do that.
        let cuts = self.backend(&volume.kind).is_ok_and(|backend| backend.fencing() != Fencing::Trusts);
        // A DPU that the site has no more is not asked for what lies on it.
        let gone = match &had {
            Some(known) => cuts && self.dpu_is_silent(known),
            None => cuts || layer.is_some(),
        };
        Ok(Facts {
            writable: !matches!(volume.source, Source::Os { .. }) || spec.is_some(),
            dpu: own
                .map(|known| known.dpu.id)
                .filter(|dpu| ready && layer.is_none_or(|layer| layer.dpu == *dpu)),
            astray,
            presented: is_wanted && dpu::presents(observed, generation, volume),
            withdrawn: gone || (!is_wanted && dpu::withdrew(observed, generation, volume)),
            discarded,
        })
    }

    async fn act_on_volume(
        &self,
        volume: Volume,
        act: Act,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        match act {
            Act::Create => self.make_volume(volume, stop).await,
            Act::Grant(dpu) => self.grant_volume(volume, dpu).await,
            Act::Attached => {
                // From now on it may be cut off from the backend without having been seen there.
                self.backend(&volume.kind)?.note_clients(volume.id).await.map_err(VolumeError::from)?;
                let event =
                    line(&volume, &Actor::Server, "volume.attached", Severity::Info, "its machine has it");
                let attachment =
                    volume.attachment.clone().map(|at| Attachment { stage: Stage::Attached, ..at });
                let next = Volume { attachment, note: None, version: volume.version + 1, ..volume };
                self.put_volume(next, Some(event)).await.map(drop)
            }
            Act::Recall => {
                let what = "taken from a DPU that is not its server's any more";
                let event = line(&volume, &Actor::Server, "volume.recalled", Severity::Warning, what);
                self.recall_volume(volume, event).await.map(drop)
            }
            Act::Revoke => {
                let what = "nobody has it any more";
                let event = line(&volume, &Actor::Server, "volume.detached", Severity::Info, what);
                self.revoke_volume(volume, event).await.map(drop)
            }
            Act::Delete => self.erase_volume(volume).await,
        }
    }

    async fn make_volume(&self, volume: Volume, stop: &CancellationToken) -> Result<(), EngineError> {
        let _turn = self.0.volume_turns.writes.acquire().await;
        match self.make_in_backend(&volume, stop).await {
            Ok(()) => {
                let event = line(&volume, &Actor::Server, "volume.available", Severity::Info, "is there");
                let next =
                    Volume { phase: Phase::Available, note: None, version: volume.version + 1, ..volume };
                self.put_volume(next, Some(event)).await.map(drop)
            }
            Err(EngineError::Volume(VolumeError::Backend(error)))
                if !error.is_passing() && !matches!(error, BackendError::Cancelled) =>
            {
                let note = cut(&error.to_string());
                let event = line(&volume, &Actor::Server, "volume.failed", Severity::Error, &note);
                let next =
                    Volume { phase: Phase::Error, note: Some(note), version: volume.version + 1, ..volume };
                self.put_volume(next, Some(event)).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    async fn make_in_backend(&self, volume: &Volume, stop: &CancellationToken) -> Result<(), EngineError> {
        let backend = self.backend(&volume.kind)?;
        let origin = match volume.source {
            Source::Snapshot { snapshot, volume } => Origin::Snapshot { volume, snapshot },
            Source::Blank | Source::Image { .. } | Source::Os { .. } => Origin::Blank,
        };
        let kept = volume.kept(volume.size);
        backend.create(volume.id, kept, origin).await.map_err(VolumeError::from)?;
        let key = match origin {
            Origin::Blank => self.encrypt_volume(volume, &*backend).await?,
            // It came with what it was made of.
            Origin::Snapshot { .. } => None,
        };
        let plain = |image| ImageSource {
            store: self.0.image_store.clone(),
            image,
            anchor: self.anchor(),
            config: None,
            grow_root: false,
            key: key.clone(),
        };
        let image = match &volume.source {
            Source::Blank | Source::Snapshot { .. } | Source::Os { imaging: Imaging::Agent, .. } => {
                return Ok(());
            }
            Source::Os { imaging: Imaging::Dpu, .. } => {
                let node = self.node_of(volume).await?;
                let spec = node.as_ref().and_then(|node| target_spec(node, volume.id));
                return instant::check_config(spec.and_then(|(config, _)| config).as_ref());
            }
            Source::Image { image, .. } => plain(*image),
            Source::Os { image, imaging: Imaging::Server, .. } => {
                let node = self.node_of(volume).await?;
                // Its server went on without it: it is removed with it.
                let Some((config, grow_root)) = node.as_ref().and_then(|node| target_spec(node, volume.id))
                else {
                    return Err(StoreError::Conflict.into());
                };
                if backend.instant().is_some() {
                    return instant::check_config(config.as_ref());
                }
                ImageSource { config, grow_root, ..plain(*image) }
            }
        };
        let (progress, _) = tokio::sync::watch::channel(volume::Progress::default());
        let written = backend.write_image(volume.id, image, progress, stop.child_token()).await;
        let written = written.map_err(VolumeError::from)?;
        tracing::info!(volume = %volume.id, ?written, "an image was written to a volume and read back");
        Ok(())
    }

    /// The machine of the server that has a volume.
    pub(super) async fn node_of(&self, volume: &Volume) -> Result<Option<Arc<Node>>, EngineError> {
        let Some(server) = volume.server() else { return Ok(None) };
        let server = self.store().read(move |db| servers_rows::get(db, server)).await?;
        Ok(server.and_then(|server| self.0.nodes.get(server.node)))
    }

    async fn grant_volume(&self, volume: Volume, id: DpuId) -> Result<(), EngineError> {
        let known = self.known_dpu(id).ok_or(StoreError::Conflict)?;
        if let Some(why) = self.cannot_present(&known.dpu, &volume).await? {
            return self.note_unserved(volume.id, &why).await;
        }
        let backend = self.backend(&volume.kind)?;
        let to = Grantee { dpu: id, initiator: known.dpu.initiator() };
        let (reach, layer) = match backend.instant() {
            Some(settings) => self.instant_reach(&volume, settings, &known)?,
            None => (Reach::Backend(grant_anew(&*backend, volume.id, &to).await?), None),
        };
        let sealed = self.seal_access(volume.id, &reach)?;
        let (row, at) = (Volume { layer, version: volume.version + 1, ..volume.clone() }, now());
        let write = move |db: &_| {
            let Some(function) = function_of(db, &row, id)? else { return Ok(None) };
            let granted = |at| Attachment { stage: Stage::Granted, dpu: Some(id), function, ..at };
            let next = Volume { attachment: row.attachment.clone().map(granted), ..row };
            rows::update(db, &next, at)?;
            rows::set_access(db, next.id, Some(&sealed))?;
            Ok(Some(next))
        };
        // Where the row went on meanwhile, whoever is given it next takes away what was granted here.
        let Some(next) = self.store().write(write).await? else {
            return self.note_unserved(volume.id, &no_function(&known.dpu).to_string()).await;
        };
        self.announce_volume(&next);
        Ok(())
    }

    /// Says of a volume why its DPU does not get it yet. It is looked at again.
    async fn note_unserved(&self, id: VolumeId, why: &str) -> Result<(), EngineError> {
        let note = cut(why);
        self.edit_volume(id, |volume| {
            let next = Volume { note: Some(note.clone()), ..volume.clone() };
            Ok((next != *volume).then_some((next, None)))
        })
        .await
        .map(drop)
    }

    /// Takes it from whoever had it; it waits for the DPU of its server's machine.
    async fn recall_volume(&self, volume: Volume, event: NewEvent) -> Result<Volume, EngineError> {
        let backend = self.backend(&volume.kind)?;
        backend.revoke(volume.id).await.map_err(VolumeError::from)?;
        let attachment = volume.attachment.clone().map(|at| Attachment::wanted(at.server, at.boot));
        let next = Volume { attachment, version: volume.version + 1, ..volume };
        self.put_released(next, event).await
    }

    /// Lets nobody have it any more. Of a volume that goes with its server nothing is left to anybody.
    async fn revoke_volume(&self, volume: Volume, event: NewEvent) -> Result<Volume, EngineError> {
        let backend = self.backend(&volume.kind)?;
        backend.revoke(volume.id).await.map_err(VolumeError::from)?;
        let server = volume.attachment.as_ref().map(|at| at.server);
        let of_row = match server {
            Some(server) => self.store().read(move |db| servers_rows::get(db, server)).await?,
            None => None,
        };
        let boots = volume.attachment.as_ref().is_some_and(|at| at.boot);
        let leaves = of_row.as_ref().is_none_or(Server::gave_up);
        let previous_of = server.filter(|_| boots && !leaves);
        let phase = if boots && leaves && !volume.keep { Phase::Deleting } else { volume.phase };
        let next = Volume { attachment: None, previous_of, phase, version: volume.version + 1, ..volume };
        let next = self.put_released(next, event).await?;
        if let Some(server) = of_row {
            // It may have waited for this.
            self.announce(Change::Server { project: server.project, server: server.id });
        }
        Ok(next)
    }

    /// Stores a volume that nobody may write to any more.
    async fn put_released(&self, next: Volume, event: NewEvent) -> Result<Volume, EngineError> {
        let (row, row_event, id, at) = (next.clone(), event.clone(), next.id, now());
        let write = move |db: &_| {
            rows::update(db, &row, at)?;
            rows::set_access(db, id, None)?;
            crate::store::queries::insert_event(db, &row_event)
        };
        let number = self.store().write(write).await?;
        self.announce_event(number, event);
        self.announce_volume(&next);
        Ok(next)
    }

    async fn erase_volume(&self, volume: Volume) -> Result<(), EngineError> {
        let backend = self.backend(&volume.kind)?;
        let volume = self.destroy_key(volume).await?;
        let deleted = match backend.delete(volume.id).await {
            Err(BackendError::HasSnapshots { .. }) => {
                self.remove_unnamed_snapshots(volume.id, &*backend).await?;
                backend.delete(volume.id).await
            }
            deleted => deleted,
        };
        deleted.map_err(VolumeError::from)?;
        let event = line(&volume, &Actor::Server, "volume.deleted", Severity::Info, "removed");
        let next =
            Volume { phase: Phase::Deleted, deleted: Some(now()), version: volume.version + 1, ..volume };
        self.put_volume(next, Some(event)).await.map(drop)
    }
}

impl Engine {
    /// Removes snapshots whose making was cut short before they were noted: nobody can name them.
    async fn remove_unnamed_snapshots(&self, id: VolumeId, backend: &dyn Backend) -> Result<(), EngineError> {
        let named = self.store().read(move |db| rows::snapshots_of(db, id)).await?;
        let stored = backend.list().await.map_err(VolumeError::from)?;
        let snapshots =
            stored.iter().filter(|stored| stored.volume == id).filter_map(|stored| stored.snapshot);
        for snapshot in snapshots.filter(|snapshot| named.iter().all(|named| named.id != *snapshot)) {
            tracing::warn!(volume = %id, %snapshot, "a snapshot that was never noted is removed");
            backend.delete_snapshot(id, snapshot).await.map_err(VolumeError::from)?;
        }
        Ok(())
    }
}

/// Whether there may be something to do for a volume though nothing of it changed.
fn is_under_way(volume: &Volume) -> bool {
    match (volume.phase, &volume.attachment) {
        (Phase::Creating | Phase::Deleting, _) => true,
        (_, Some(attachment)) => attachment.stage != Stage::Attached,
        (_, None) => false,
    }
}

/// Lets a DPU have a volume that nobody has by the store's word.
async fn grant_anew(
    backend: &dyn Backend,
    volume: VolumeId,
    to: &Grantee,
) -> Result<protocol::dpu::Backend, VolumeError> {
    match backend.grant(volume, to).await {
        // By whoever drove it before and could not note it: nobody was told of that grant.
        Err(BackendError::Granted { .. }) => {
            backend.revoke(volume).await?;
            Ok(backend.grant(volume, to).await?)
        }
        granted => Ok(granted?),
    }
}

/// The function that a volume gets of the plan of a DPU: `Some(None)` where that has no plan, `None` where no function is left.
fn function_of(
    db: &Connection,
    volume: &Volume,
    dpu: DpuId,
) -> Result<Option<Option<DiskFunction>>, StoreError> {
    let plan = dpus_rows::get(db, dpu)?.and_then(|row| row.dpu.usable());
    let Some(plan) = plan else { return Ok(Some(None)) };
    let found = allot(&plan, dpu, &rows::beside(db, dpu, volume.server())?, &[]);
    let own = found.waiting.into_iter().find(|(id, _)| *id == volume.id).and_then(|(_, function)| function);
    Ok(own.map(|function| Some(DiskFunction { by: plan.disks, function })))
}

/// What is to be put on this volume, where the node's deploy waits for it.
pub(super) fn target_spec(
    node: &Node,
    volume: VolumeId,
) -> Option<(Option<protocol::job::CloudConfig>, bool)> {
    let run = node.state.run().filter(|run| run.boots_volume())?;
    match &run.job.task {
        Task::Deploy(spec) if spec.target.id.volume() == Some(volume) => {
            Some((spec.config.clone(), spec.grow_root))
        }
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NOTE_MAX).collect()
}
