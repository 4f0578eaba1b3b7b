//! Backend `iscsi`: volumes as sparse files behind an iSCSI target that Billet runs itself.
//!
//! A target is there for as long as its volume is granted: one per volume, with one account and one initiator. What is to be
//! there is what the grants say, which are files beside the volumes; so a tgtd that died is built anew from them, and one that
//! outlived the server is taken over as it is.

mod show;
mod tgtd;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use protocol::agent::Password;
use protocol::{SnapshotId, VolumeId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

use self::tgtd::{LUN, Tgtd, Wanted};
use crate::file::{Locks, blocking, encrypt_file, write_file};
use crate::files::{Files, Writers};
use crate::grants::{Grant, Grants};
use crate::imaging::Watched;
use crate::{
    Backend, BackendError, Capacity, Fencing, Grantee, ImageSource, ImageWritten, Kind, Leftover, Origin,
    Progress, Stats, Stored,
};

/// How often it is looked whether tgtd lives: a host's requests stall for about as long when it dies.
const LOOK: Duration = Duration::from_millis(250);
/// Pause after a failure to have it as it should be.
const AGAIN: Duration = Duration::from_secs(2);

/// Settings of the backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IscsiSettings {
    /// Where volumes lie: absolute path of a directory of its own.
    pub directory: PathBuf,
    /// Address and port where DPUs connect, such as `10.77.0.1:3260`.
    pub portal: SocketAddr,
    /// What the names of targets begin with; the volume's id follows.
    #[serde(default = "default_prefix")]
    pub target_prefix: String,
}

fn default_prefix() -> String {
    "iqn.2026-11.org.billet".to_owned()
}

/// Volumes behind a target of our own.
pub struct IscsiBackend {
    inner: Arc<Inner>,
    stop: CancellationToken,
}

struct Inner {
    settings: IscsiSettings,
    files: Files,
    grants: Grants,
    locks: Locks,
    /// Held while targets are changed; whoever has both takes the volume's lock first.
    tgtd: Mutex<Tgtd>,
}

impl IscsiBackend {
    /// Opens the directory and looks after tgtd from now on, in a task that ends with the backend; tgtd itself goes on.
    ///
    /// # Errors
    /// Where the directory cannot be made, or its path is too long for a socket in it.
    pub fn open(settings: IscsiSettings) -> Result<Self, BackendError> {
        let files = Files::open(&settings.directory)?;
        let grants = Grants::in_dir(files.grants());
        let tgtd = Mutex::new(Tgtd::in_dir(files.root(), settings.portal)?);
        let inner = Arc::new(Inner { settings, files, grants, locks: Locks::default(), tgtd });
        let stop = CancellationToken::new();
        tokio::spawn(look_after(inner.clone(), stop.clone()));
        Ok(Self { inner, stop })
    }

    /// Process of tgtd, where it lives.
    pub async fn tgtd_pid(&self) -> Option<i32> {
        self.inner.tgtd.lock().await.pid()
    }

    async fn with<T: Send + 'static>(
        &self,
        guard: OwnedMutexGuard<()>,
        what: impl FnOnce(&Inner) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let inner = self.inner.clone();
        blocking(move || {
            let _guard = guard;
            what(&inner)
        })
        .await
    }
}

impl Drop for IscsiBackend {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts tgtd where none lives and builds its targets anew, until it is told to stop.
async fn look_after(inner: Arc<Inner>, stop: CancellationToken) {
    let mut built = None;
    loop {
        let pause = match inner.once(&mut built).await {
            Ok(()) => LOOK,
            Err(e) => {
                tracing::warn!(error = %e, cause = ?std::error::Error::source(&e), "tgtd is not as it should be");
                AGAIN
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Inner {
    /// One look. `built` is the process whose targets are as they should be.
    async fn once(&self, built: &mut Option<i32>) -> Result<(), BackendError> {
        let mut tgtd = self.tgtd.lock().await;
        let pid = tgtd.pid();
        if pid.is_some() && pid == *built {
            return Ok(());
        }
        if pid.is_none() {
            tgtd.start().await?;
        }
        self.build(&tgtd).await?;
        tgtd.listen().await?;
        *built = tgtd.pid();
        Ok(())
    }

    /// Makes the targets that grants ask for and removes the others; only names that begin with ours are touched.
    async fn build(&self, tgtd: &Tgtd) -> Result<(), BackendError> {
        let mut names = Vec::new();
        for volume in self.grants.all()? {
            let Some(grant) = self.grants.of(volume)? else { continue };
            if self.files.size(volume).is_err() {
                continue;
            }
            tgtd.offer(&self.wanted(volume, &grant)).await?;
            names.push(self.name(volume));
        }
        for target in tgtd.targets().await? {
            if target.name.starts_with(&self.settings.target_prefix) && !names.contains(&target.name) {
                tgtd.cut(&target.name).await?;
            }
        }
        Ok(())
    }

    fn name(&self, volume: VolumeId) -> String {
        format!("{}:{volume}", self.settings.target_prefix)
    }

    fn wanted(&self, volume: VolumeId, grant: &Grant) -> Wanted {
        Wanted {
            name: self.name(volume),
            path: self.files.path(volume),
            initiator: grant.to.initiator.clone(),
            user: grant.chap.user.clone(),
            password: grant.chap.password.0.clone(),
        }
    }

    async fn connected(&self, volume: VolumeId) -> Result<Vec<String>, BackendError> {
        let mut tgtd = self.tgtd.lock().await;
        if tgtd.pid().is_none() {
            return Ok(Vec::new());
        }
        let name = self.name(volume);
        let target = tgtd.targets().await?.into_iter().find(|t| t.name == name);
        Ok(target.map(|t| t.connected).unwrap_or_default())
    }

    async fn unused(&self, volume: VolumeId) -> Result<(), BackendError> {
        let connected = self.connected(volume).await?;
        if connected.is_empty() {
            return Ok(());
        }
        Err(BackendError::InUse { volume, by: connected.join(", ") })
    }

    /// Cuts a volume off and forgets who was let in. The volume's lock is held.
    async fn revoke(&self, volume: VolumeId) -> Result<(), BackendError> {
        let mut tgtd = self.tgtd.lock().await;
        // A tgtd that is dead has no connections, and no new one is started while we hold it.
        if tgtd.pid().is_some() {
            tgtd.cut(&self.name(volume)).await?;
        }
        self.grants.take(volume)
    }
}

#[async_trait]
impl Backend for IscsiBackend {
    fn kind(&self) -> Kind {
        Kind::Iscsi
    }

    fn fencing(&self) -> Fencing {
        Fencing::Cuts
    }

    async fn create(&self, volume: VolumeId, size: u64, from: Origin) -> Result<(), BackendError> {
        let guard = self.inner.locks.of(volume).await;
        self.with(guard, move |inner| inner.files.create(volume, size, from)).await
    }

    async fn encrypt(&self, volume: VolumeId, key: &Password) -> Result<(), BackendError> {
        let guard = self.inner.locks.of(volume).await;
        self.inner.grants.none(volume)?;
        let key = key.clone();
        self.with(guard, move |inner| encrypt_file(volume, &inner.files, &key)).await
    }

    /// tgtd reads the size of a file when it opens it, so nobody may be connected.
    async fn resize(&self, volume: VolumeId, size: u64) -> Result<(), BackendError> {
        let guard = self.inner.locks.of(volume).await;
        if self.inner.files.size(volume)? == size {
            return Ok(());
        }
        self.inner.unused(volume).await?;
        let mut tgtd = self.inner.tgtd.lock().await;
        let alive = tgtd.pid().is_some();
        if alive {
            tgtd.cut(&self.inner.name(volume)).await?;
        }
        let done = self.with(guard, move |inner| inner.files.resize(volume, size)).await;
        if let (true, Some(grant)) = (alive, self.inner.grants.of(volume)?) {
            tgtd.offer(&self.inner.wanted(volume, &grant)).await?;
        }
        done
    }

    async fn delete(&self, volume: VolumeId) -> Result<(), BackendError> {
        let guard = self.inner.locks.of(volume).await;
        self.inner.files.may_be_deleted(volume)?;
        self.inner.unused(volume).await?;
        self.inner.revoke(volume).await?;
        self.with(guard, move |inner| inner.files.delete(volume)).await
    }

    async fn snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError> {
        let guard = self.inner.locks.of(volume).await;
        let granted = self.inner.grants.of(volume)?.is_some();
        let writers = if granted { Writers::Perhaps } else { Writers::None };
        self.with(guard, move |inner| inner.files.snapshot(volume, snapshot, writers)).await
    }

    async fn delete_snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError> {
        let guard = self.inner.locks.of(volume).await;
        self.with(guard, move |inner| inner.files.delete_snapshot(volume, snapshot)).await
    }

    async fn grant(&self, volume: VolumeId, to: &Grantee) -> Result<protocol::dpu::Backend, BackendError> {
        let _guard = self.inner.locks.of(volume).await;
        self.inner.files.size(volume)?;
        let grant = self.inner.grants.give(volume, to)?;
        let mut tgtd = self.inner.tgtd.lock().await;
        // Where it does not live now, it has this target from its start on.
        if tgtd.pid().is_some() {
            tgtd.offer(&self.inner.wanted(volume, &grant)).await?;
        }
        Ok(protocol::dpu::Backend::Iscsi {
            portal: self.inner.settings.portal.to_string(),
            target: self.inner.name(volume),
            lun: LUN,
            initiator: Some(grant.to.initiator),
            chap: Some(grant.chap),
        })
    }

    async fn revoke(&self, volume: VolumeId) -> Result<(), BackendError> {
        let _guard = self.inner.locks.of(volume).await;
        self.inner.revoke(volume).await
    }

    async fn write_image(
        &self,
        volume: VolumeId,
        image: ImageSource,
        progress: watch::Sender<Progress>,
        cancel: CancellationToken,
    ) -> Result<ImageWritten, BackendError> {
        let cancel = cancel.child_token();
        let _stop = cancel.clone().drop_guard();
        let guard = self.inner.locks.of(volume).await;
        self.inner.grants.none(volume)?;
        self.with(guard, move |inner| write_file(volume, &inner.files, &image, &Watched { progress, cancel }))
            .await
    }

    async fn capacity(&self) -> Result<Capacity, BackendError> {
        let files = self.inner.files.clone();
        blocking(move || files.capacity()).await
    }

    async fn list(&self) -> Result<Vec<Stored>, BackendError> {
        let files = self.inner.files.clone();
        blocking(move || files.list()).await
    }

    /// Files that were being made, grants of volumes that are gone, targets that nobody was granted.
    async fn leftovers(&self) -> Result<Vec<Leftover>, BackendError> {
        let mut left = self.inner.files.leftovers()?;
        let grants = self.inner.grants.all()?;
        for volume in grants.iter().filter(|volume| self.inner.files.size(**volume).is_err()) {
            left.push(Leftover { what: format!("grant of volume {volume}, which is gone") });
        }
        let mut tgtd = self.inner.tgtd.lock().await;
        if tgtd.pid().is_some() {
            let known: Vec<_> = grants.iter().map(|volume| self.inner.name(*volume)).collect();
            let prefix = &self.inner.settings.target_prefix;
            for target in tgtd.targets().await? {
                if target.name.starts_with(prefix) && !known.contains(&target.name) {
                    left.push(Leftover { what: format!("target {}", target.name) });
                }
            }
        }
        Ok(left)
    }

    async fn sweep(&self) -> Result<(), BackendError> {
        self.inner.files.sweep()?;
        for volume in self.inner.grants.all()? {
            if self.inner.files.size(volume).is_err() {
                self.inner.revoke(volume).await?;
            }
        }
        let mut tgtd = self.inner.tgtd.lock().await;
        if tgtd.pid().is_some() { self.inner.build(&tgtd).await } else { Ok(()) }
    }

    async fn stats(&self, volume: VolumeId) -> Result<Stats, BackendError> {
        self.inner.files.size(volume)?;
        let granted = self.inner.grants.of(volume)?.map(|grant| grant.to.dpu);
        Ok(Stats { granted, connected: Some(self.inner.connected(volume).await?) })
    }
}
