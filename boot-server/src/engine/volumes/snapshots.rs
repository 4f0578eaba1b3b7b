//! Snapshots: volumes as they were at one moment.

use boot_server_core::node::Severity;
use boot_server_core::volume::{Phase, Snapshot, Volume};
use protocol::{ProjectId, SnapshotId};
use uuid::Uuid;

use super::{VolumeError, check_name, line, wrong};
use crate::asking::carried;
use crate::engine::{Actor, Engine, EngineError, now};
use crate::store::StoreError;
use crate::store::queries::{NewEvent, insert_event};
use crate::store::volumes as rows;

/// Snapshots of one project.
const SNAPSHOTS_MAX: usize = 10_000;

impl Engine {
    /// Snapshots of a project, oldest first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn snapshots(&self, project: ProjectId) -> Result<Vec<Snapshot>, EngineError> {
        Ok(self.store().read(move |db| rows::snapshots(db, project)).await?)
    }

    /// A snapshot of a project, by name or id.
    ///
    /// # Errors
    /// [`VolumeError::NoSnapshot`], or where the store fails.
    pub async fn snapshot(&self, project: ProjectId, reference: &str) -> Result<Snapshot, EngineError> {
        let id = reference.parse::<SnapshotId>().ok();
        let wanted = |snapshot: &Snapshot| Some(snapshot.id) == id || snapshot.name == reference;
        let found = self.snapshots(project).await?.into_iter().find(wanted);
        let short = || VolumeError::NoSnapshot(reference.chars().take(80).collect());
        found.ok_or_else(|| short().into())
    }

    /// Keeps a volume as it is now, as after a power cut.
    ///
    /// # Errors
    /// [`VolumeError`], [`EngineError::NameTaken`], or where the store fails.
    pub async fn create_snapshot(
        &self,
        project: ProjectId,
        actor: Actor,
        volume: &str,
        name: String,
    ) -> Result<Snapshot, EngineError> {
        check_name(&name, "snapshot")?;
        let volume = self.volume(project, volume).await?;
        if volume.phase != Phase::Available {
            return Err(wrong("snapshot", &volume, "wait until it is available"));
        }
        if self.is_unwritten(&volume).await? {
            return Err(wrong("snapshot", &volume, "wait until its DPU has written its image"));
        }
        let all = self.snapshots(project).await?;
        if all.len() >= SNAPSHOTS_MAX {
            return Err(VolumeError::Full("snapshots").into());
        }
        if all.iter().any(|other| other.name == name) {
            return Err(EngineError::NameTaken(name));
        }
        let snapshot = Snapshot {
            id: SnapshotId(Uuid::now_v7()),
            project,
            volume: volume.id,
            name,
            kind: volume.kind.clone(),
            size: volume.size,
            key: volume.key.clone(),
            by: actor.name().to_owned(),
            created: now(),
        };
        let engine = self.clone();
        // Noted also where whoever asked goes away meanwhile.
        tokio::spawn(carried(async move { engine.make_snapshot(&volume, &actor, snapshot).await })).await?
    }

    async fn make_snapshot(
        &self,
        volume: &Volume,
        actor: &Actor,
        snapshot: Snapshot,
    ) -> Result<Snapshot, EngineError> {
        let backend = self.backend(&volume.kind)?;
        backend.snapshot(volume.id, snapshot.id).await.map_err(VolumeError::from)?;
        let what = format!("snapshot {} was made", snapshot.name);
        let event = line(volume, actor, "volume.snapshot", Severity::Info, &what);
        let (row, row_event) = (snapshot.clone(), event.clone());
        let write = move |db: &_| {
            if rows::get(db, row.volume)?.is_none_or(|volume| volume.phase != Phase::Available) {
                return Err(StoreError::Conflict);
            }
            rows::insert_snapshot(db, &row)?;
            insert_event(db, &row_event)
        };
        match self.store().write(write).await {
            Ok(number) => self.announce_event(number, event),
            Err(error) => {
                // Nobody can name it: it is not to take room either.
                if let Err(left) = backend.delete_snapshot(volume.id, snapshot.id).await {
                    tracing::warn!(snapshot = %snapshot.id, error = &left as &dyn std::error::Error, "a snapshot is left over");
                }
                return Err(error.into());
            }
        }
        Ok(snapshot)
    }

    /// Removes a snapshot. Volumes that were made of it stay.
    ///
    /// # Errors
    /// [`VolumeError`], or where the store fails.
    pub async fn delete_snapshot(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let snapshot = self.snapshot(project, reference).await?;
        let backend = self.backend(&snapshot.kind)?;
        backend.delete_snapshot(snapshot.volume, snapshot.id).await.map_err(VolumeError::from)?;
        let message = format!("snapshot {} was removed", snapshot.name);
        let event = NewEvent::new(now(), actor.name(), "volume.snapshot_removed", Severity::Info, message)
            .of(project);
        let (id, row, at) = (snapshot.id, event.clone(), now());
        let write = move |db: &_| {
            rows::remove_snapshot(db, id, at)?;
            insert_event(db, &row)
        };
        let number = self.store().write(write).await?;
        self.announce_event(number, event);
        Ok(())
    }
}
