//! Backend `file`: volumes as files of this machine, for exporters that run on it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ::imaging::FileMedium;
use async_trait::async_trait;
use protocol::agent::Password;
use protocol::dpu::Backend as Told;
use protocol::{SnapshotId, VolumeId};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

use crate::files::{Files, Writers};
use crate::grants::Grants;
use crate::imaging::{self, Watched};
use crate::nbd::NbdMedium;
use crate::{
    Backend, BackendError, Capacity, Fencing, Grantee, ImageSource, ImageWritten, Kind, Leftover, Origin,
    Progress, Stats, Stored,
};

/// Volumes as files in a directory.
pub struct FileBackend {
    files: Files,
    grants: Grants,
    locks: Locks,
}

impl FileBackend {
    /// Opens the directory, which is made where it is not there.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(root: &Path) -> Result<Self, BackendError> {
        let files = Files::open(root)?;
        let grants = Grants::in_dir(files.grants());
        Ok(Self { files, grants, locks: Locks::default() })
    }

    /// Does something to one volume while nobody else does.
    async fn with<T: Send + 'static>(
        &self,
        volume: VolumeId,
        what: impl FnOnce(Files, Grants) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let guard = self.locks.of(volume).await;
        let (files, grants) = (self.files.clone(), self.grants.clone());
        blocking(move || {
            let _guard = guard;
            what(files, grants)
        })
        .await
    }
}

#[async_trait]
impl Backend for FileBackend {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn fencing(&self) -> Fencing {
        Fencing::Refuses
    }

    async fn create(&self, volume: VolumeId, size: u64, from: Origin) -> Result<(), BackendError> {
        self.with(volume, move |files, _| files.create(volume, size, from)).await
    }

    async fn encrypt(&self, volume: VolumeId, key: &Password) -> Result<(), BackendError> {
        let key = key.clone();
        self.with(volume, move |files, grants| {
            grants.none(volume)?;
            unused(volume, &files)?;
            encrypt_file(volume, &files, &key)
        })
        .await
    }

    async fn resize(&self, volume: VolumeId, size: u64) -> Result<(), BackendError> {
        self.with(volume, move |files, _| files.resize(volume, size)).await
    }

    async fn delete(&self, volume: VolumeId) -> Result<(), BackendError> {
        self.with(volume, move |files, grants| {
            unused(volume, &files)?;
            files.delete(volume)?;
            grants.take(volume)
        })
        .await
    }

    async fn snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError> {
        self.with(volume, move |files, grants| {
            let writers = if grants.of(volume)?.is_some() { Writers::Perhaps } else { Writers::None };
            files.snapshot(volume, snapshot, writers)
        })
        .await
    }

    async fn delete_snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError> {
        self.with(volume, move |files, _| files.delete_snapshot(volume, snapshot)).await
    }

    async fn grant(&self, volume: VolumeId, to: &Grantee) -> Result<Told, BackendError> {
        let to = to.clone();
        self.with(volume, move |files, grants| {
            files.size(volume)?;
            grants.give(volume, &to)?;
            Ok(Told::File { path: name_of(volume, &files)? })
        })
        .await
    }

    /// A file cannot be taken from who has it open: the exporter is told by its DPU's desired state to let go, and this fails
    /// until it has.
    async fn revoke(&self, volume: VolumeId) -> Result<(), BackendError> {
        self.with(volume, move |files, grants| {
            unused(volume, &files)?;
            grants.take(volume)
        })
        .await
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
        self.with(volume, move |files, grants| {
            grants.none(volume)?;
            unused(volume, &files)?;
            write_file(volume, &files, &image, &Watched { progress, cancel })
        })
        .await
    }

    async fn capacity(&self) -> Result<Capacity, BackendError> {
        let files = self.files.clone();
        blocking(move || files.capacity()).await
    }

    async fn list(&self) -> Result<Vec<Stored>, BackendError> {
        let files = self.files.clone();
        blocking(move || files.list()).await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, BackendError> {
        let files = self.files.clone();
        blocking(move || files.leftovers()).await
    }

    async fn sweep(&self) -> Result<(), BackendError> {
        let files = self.files.clone();
        blocking(move || files.sweep()).await
    }

    async fn stats(&self, volume: VolumeId) -> Result<Stats, BackendError> {
        self.with(volume, move |files, grants| {
            files.size(volume)?;
            let granted = grants.of(volume)?.map(|grant| grant.to.dpu);
            Ok(Stats { granted, connected: Some(holders(&files.path(volume))) })
        })
        .await
    }
}

/// Writes an image into a volume's file.
pub(crate) fn write_file(
    volume: VolumeId,
    files: &Files,
    image: &ImageSource,
    watched: &Watched,
) -> Result<ImageWritten, BackendError> {
    let Some(key) = &image.key else {
        return imaging::write(volume, &open(volume, files)?, image, watched);
    };
    files.size(volume)?;
    let told = Told::File { path: name_of(volume, files)? };
    imaging::write(volume, &NbdMedium::open(&told, Some(key), &files.tmp())?, image, watched)
}

/// Makes a volume's file an encrypted one.
pub(crate) fn encrypt_file(volume: VolumeId, files: &Files, key: &Password) -> Result<(), BackendError> {
    imaging::encrypt(volume, &open(volume, files)?, key)
}

fn open(volume: VolumeId, files: &Files) -> Result<FileMedium, BackendError> {
    files.size(volume)?;
    let path = files.path(volume);
    FileMedium::open(&path).map_err(BackendError::io("open", &path))
}

/// The path of a volume's file as others are told it.
fn name_of(volume: VolumeId, files: &Files) -> Result<String, BackendError> {
    files.path(volume).into_os_string().into_string().map_err(|path| {
        BackendError::Refused(format!("{} is not UTF-8, so nobody can be told of it", path.display()))
    })
}

/// Says no where a process has the volume open.
fn unused(volume: VolumeId, files: &Files) -> Result<(), BackendError> {
    let holders = holders(&files.path(volume));
    if holders.is_empty() { Ok(()) } else { Err(BackendError::InUse { volume, by: holders.join(", ") }) }
}

/// Other processes that have a file open, by pid and name (proc(5), `/proc/<pid>/fd`). Root sees all of them, in other namespaces too.
fn holders(path: &Path) -> Vec<String> {
    let Ok(wanted) = std::fs::metadata(path) else { return Vec::new() };
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = process.file_name().into_string() else { continue };
        if pid == own || !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten().any(|fd| {
            std::fs::metadata(fd.path())
                .is_ok_and(|other| (other.dev(), other.ino()) == (wanted.dev(), wanted.ino()))
        });
        if open {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("process {pid} ({})", name.trim()));
        }
    }
    found
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    tokio::task::spawn_blocking(what)
        .await
        .unwrap_or_else(|_| Err(BackendError::Refused("a thread of a backend broke down".into())))
}

/// One lock per volume. It goes with the thread that works, not with the caller, who may leave.
#[derive(Default)]
pub(crate) struct Locks(Mutex<BTreeMap<VolumeId, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    pub(crate) async fn of(&self, volume: VolumeId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody has or waits for are only memory.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(volume).or_default().clone()
        };
        lock.lock_owned().await
    }
}
