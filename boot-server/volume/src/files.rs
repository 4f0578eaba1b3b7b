//! Volumes as sparse files in a directory. Blocks; who may have one is not known here.
//!
//! ```text
//! <root>/volumes/<volume>.raw
//!        snapshots/<volume>/<snapshot>.raw   read-only copies
//!        grants/<volume>.json                who was let in (`grants`)
//!        tmp/                                files being made, and those of a program that writes an encrypted one
//! ```
//!
//! A file gets its name after its bytes are durable; a crash leaves at most something in `tmp/`. Copies share blocks where
//! the file system can (`FICLONE`, ioctl_ficlone(2)).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol::{SnapshotId, VolumeId};
use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek, statvfs};
use rustix::io::Errno;

use crate::{BackendError, Capacity, Leftover, Origin, SECTOR, Stored};

/// Bytes that are copied at once.
const COPY_PIECE: usize = 8 << 20;

/// How a snapshot may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Nobody writes.
    None,
    /// Somebody may; then only a copy that is made at once is one moment's.
    Perhaps,
}

/// A directory of volumes.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    /// Makes the directory where it is not there, for nobody else's eyes.
    pub(crate) fn open(root: &Path) -> Result<Self, BackendError> {
        for dir in ["volumes", "snapshots", "grants", "tmp"].map(|name| root.join(name)) {
            fs::create_dir_all(&dir).map_err(BackendError::io("make", &dir))?;
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .map_err(BackendError::io("close to others", root))?;
        Ok(Self { root: root.to_owned() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a volume lies, or would.
    pub(crate) fn path(&self, volume: VolumeId) -> PathBuf {
        self.root.join("volumes").join(format!("{volume}.raw"))
    }

    /// Where files are that are not needed for long.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn grants(&self) -> PathBuf {
        self.root.join("grants")
    }

    fn snapshot_dir(&self, volume: VolumeId) -> PathBuf {
        self.root.join("snapshots").join(volume.to_string())
    }

    fn snapshot_path(&self, volume: VolumeId, snapshot: SnapshotId) -> PathBuf {
        self.snapshot_dir(volume).join(format!("{snapshot}.raw"))
    }

    /// Bytes of a volume.
    pub(crate) fn size(&self, volume: VolumeId) -> Result<u64, BackendError> {
        size_of(&self.path(volume))?.ok_or(BackendError::NoVolume(volume))
    }

    pub(crate) fn create(&self, volume: VolumeId, size: u64, from: Origin) -> Result<(), BackendError> {
        check_size(size)?;
        let path = self.path(volume);
        if let Some(found) = size_of(&path)? {
            return if found == size {
                Ok(())
            } else {
                Err(BackendError::Exists { volume, found, wanted: size })
            };
        }
        let free = self.capacity()?.free;
        if size > free {
            return Err(BackendError::NoRoom { wanted: size, why: format!("{free} bytes are free") });
        }
        let source = match from {
            Origin::Blank => None,
            Origin::Snapshot { volume, snapshot } => {
                let path = self.snapshot_path(volume, snapshot);
                let found = size_of(&path)?.ok_or(BackendError::NoSnapshot { volume, snapshot })?;
                if found > size {
                    return Err(BackendError::Refused(format!(
                        "the snapshot has {found} bytes, the volume would have {size}"
                    )));
                }
                Some(path)
            }
        };
        self.make(&path, source.as_deref(), size, Writers::None)
    }

    pub(crate) fn resize(&self, volume: VolumeId, size: u64) -> Result<(), BackendError> {
        check_size(size)?;
        let found = self.size(volume)?;
        if size < found {
            return Err(BackendError::Refused(format!(
                "volume {volume} has {found} bytes and is not made smaller"
            )));
        }
        let free = self.capacity()?.free;
        if size - found > free {
            return Err(BackendError::NoRoom { wanted: size - found, why: format!("{free} bytes are free") });
        }
        let path = self.path(volume);
        let file = File::options().write(true).open(&path).map_err(BackendError::io("open", &path))?;
        file.set_len(size).and_then(|()| file.sync_all()).map_err(BackendError::io("resize", &path))
    }

    /// Says no where snapshots have to go first.
    pub(crate) fn may_be_deleted(&self, volume: VolumeId) -> Result<(), BackendError> {
        match self.snapshots(volume)?.len() {
            0 => Ok(()),
            count => Err(BackendError::HasSnapshots { volume, count }),
        }
    }

    pub(crate) fn delete(&self, volume: VolumeId) -> Result<(), BackendError> {
        self.may_be_deleted(volume)?;
        remove(&self.path(volume))?;
        let dir = self.snapshot_dir(volume);
        match fs::remove_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(BackendError::io("remove", &dir)(e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn snapshot(
        &self,
        volume: VolumeId,
        snapshot: SnapshotId,
        writers: Writers,
    ) -> Result<(), BackendError> {
        let size = self.size(volume)?;
        let dir = self.snapshot_dir(volume);
        let path = self.snapshot_path(volume, snapshot);
        if size_of(&path)?.is_some() {
            return Ok(());
        }
        fs::create_dir_all(&dir).map_err(BackendError::io("make", &dir))?;
        self.make(&path, Some(&self.path(volume)), size, writers).map_err(|e| match e {
            BackendError::InUse { by, .. } => BackendError::InUse { volume, by },
            other => other,
        })
    }

    pub(crate) fn delete_snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError> {
        remove(&self.snapshot_path(volume, snapshot))
    }

    /// How much fits: what the file system has left, and what these files take of it.
    pub(crate) fn capacity(&self) -> Result<Capacity, BackendError> {
        let space = statvfs(&self.root).map_err(|e| BackendError::io("measure", &self.root)(e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let mut used = 0;
        for stored in self.list()? {
            let path = match stored.snapshot {
                None => self.path(stored.volume),
                Some(snapshot) => self.snapshot_path(stored.volume, snapshot),
            };
            // One that was removed meanwhile takes nothing.
            used += fs::metadata(path).map_or(0, |found| found.blocks() * 512);
        }
        Ok(Capacity { total: used + free, free, used })
    }

    pub(crate) fn list(&self) -> Result<Vec<Stored>, BackendError> {
        let mut all = Vec::new();
        for volume in ids::<VolumeId>(&self.root.join("volumes"), ".raw")? {
            if let Some(size) = size_of(&self.path(volume))? {
                all.push(Stored { volume, snapshot: None, size });
            }
        }
        for volume in ids::<VolumeId>(&self.root.join("snapshots"), "")? {
            for snapshot in self.snapshots(volume)? {
                if let Some(size) = size_of(&self.snapshot_path(volume, snapshot))? {
                    all.push(Stored { volume, snapshot: Some(snapshot), size });
                }
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    fn snapshots(&self, volume: VolumeId) -> Result<Vec<SnapshotId>, BackendError> {
        ids(&self.snapshot_dir(volume), ".raw")
    }

    /// Files that were being made.
    pub(crate) fn leftovers(&self) -> Result<Vec<Leftover>, BackendError> {
        let dir = self.tmp();
        Ok(names(&dir)?.iter().map(|name| Leftover { what: dir.join(name).display().to_string() }).collect())
    }

    pub(crate) fn sweep(&self) -> Result<(), BackendError> {
        self.leftovers()?.iter().try_for_each(|left| {
            let path = Path::new(&left.what);
            if path.is_dir() {
                fs::remove_dir_all(path).map_err(BackendError::io("remove", path))
            } else {
                remove(path)
            }
        })
    }

    /// Makes a file of `size` bytes with what `source` holds, and gives it its name when it is durable.
    fn make(
        &self,
        path: &Path,
        source: Option<&Path>,
        size: u64,
        writers: Writers,
    ) -> Result<(), BackendError> {
        let tmp = self.tmp().join(format!("{}.raw", uuid::Uuid::new_v4()));
        let made = fill(&tmp, source, size, writers).and_then(|()| {
            fs::rename(&tmp, path).map_err(BackendError::io("name", path))?;
            sync_dir(path.parent().unwrap_or(&self.root))
        });
        if made.is_err() {
            // It has no name yet, or the name and no second one; where it cannot be removed now, it is counted as a leftover.
            let _ = fs::remove_file(&tmp);
        }
        made
    }
}

fn fill(tmp: &Path, source: Option<&Path>, size: u64, writers: Writers) -> Result<(), BackendError> {
    let file =
        File::options().write(true).create_new(true).open(tmp).map_err(BackendError::io("make", tmp))?;
    if let Some(source) = source {
        let from = File::open(source).map_err(BackendError::io("open", source))?;
        if ioctl_ficlone(&file, &from).is_err() {
            if writers == Writers::Perhaps {
                let by =
                    "a host; this file system cannot copy a file that is written (xfs and btrfs can)".into();
                return Err(BackendError::InUse { volume: VolumeId(uuid::Uuid::nil()), by });
            }
            copy_sparse(&from, &file).map_err(|e| no_room(e, size, "copy to", tmp))?;
        }
    }
    file.set_len(size).and_then(|()| file.sync_all()).map_err(|e| no_room(e, size, "write", tmp))
}

fn no_room(cause: io::Error, wanted: u64, action: &'static str, path: &Path) -> BackendError {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            BackendError::NoRoom { wanted, why: "the file system is full".into() }
        }
        _ => BackendError::io(action, path)(cause),
    }
}

/// Copies what is data; holes stay holes (lseek(2), `SEEK_DATA`).
fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let mut at = 0;
    loop {
        let start = match seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            other => other?,
        };
        let end = seek(from, SeekFrom::Hole(start))?;
        let (mut read, mut write) = (start, start);
        while read < end {
            let want = usize::try_from(end - read).unwrap_or(COPY_PIECE).min(COPY_PIECE);
            if copy_file_range(from, Some(&mut read), to, Some(&mut write), want)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        at = end;
    }
}

/// A size that a volume can have.
pub(crate) fn check_size(size: u64) -> Result<(), BackendError> {
    if size == 0 || !size.is_multiple_of(SECTOR) {
        return Err(BackendError::Refused(format!("{size} bytes are no multiple of {SECTOR}")));
    }
    Ok(())
}

fn size_of(path: &Path) -> Result<Option<u64>, BackendError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(BackendError::io("look at", path)(e)),
    }
}

/// Removes a file for good. Nothing is said where there is none.
pub(crate) fn remove(path: &Path) -> Result<(), BackendError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(BackendError::io("remove", path)(e)),
        Ok(()) => sync_dir(path.parent().unwrap_or(path)),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), BackendError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(BackendError::io("sync", path))
}

/// Ids that files in a directory are named after, in order; other files are not ours. Nothing where it is not there.
pub(crate) fn ids<T: std::str::FromStr + Ord>(dir: &Path, suffix: &str) -> Result<Vec<T>, BackendError> {
    let mut ids: Vec<T> =
        names(dir)?.iter().filter_map(|name| name.strip_suffix(suffix)?.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

fn names(dir: &Path) -> Result<Vec<String>, BackendError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(BackendError::io("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(BackendError::io("list", dir))?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn scratch() -> (Scratch, Files) {
        let dir = std::env::temp_dir().join(format!("billet-volumes-{}", uuid::Uuid::new_v4()));
        let files = Files::open(&dir).unwrap();
        (Scratch(dir), files)
    }

    fn new() -> (VolumeId, SnapshotId) {
        (VolumeId(uuid::Uuid::new_v4()), SnapshotId(uuid::Uuid::new_v4()))
    }

    #[test]
    fn a_copy_is_as_sparse_as_what_it_was_made_of() {
        let (_scratch, files) = scratch();
        let (volume, snapshot) = new();
        files.create(volume, 64 << 20, Origin::Blank).unwrap();
        let file = File::options().write(true).open(files.path(volume)).unwrap();
        for at in [0, 20 << 20, (64 << 20) - 4096] {
            file.write_all_at(&[7; 4096], at).unwrap();
        }
        files.snapshot(volume, snapshot, Writers::None).unwrap();
        let (copy, _) = new();
        files.create(copy, 96 << 20, Origin::Snapshot { volume, snapshot }).unwrap();
        let (one, two) = (fs::read(files.path(volume)).unwrap(), fs::read(files.path(copy)).unwrap());
        assert!(one[..] == two[..one.len()] && two[one.len()..].iter().all(|b| *b == 0));
        assert!(fs::metadata(files.path(copy)).unwrap().blocks() * 512 < 1 << 20);
        let space = files.capacity().unwrap();
        assert!(space.used >= 3 * 4096 && space.used < 3 << 20, "{space:?}");
    }

    #[test]
    fn what_was_being_made_is_a_leftover() {
        let (scratch, files) = scratch();
        assert_eq!(files.leftovers().unwrap(), []);
        fs::write(scratch.0.join("tmp/half.raw"), b"x").unwrap();
        fs::create_dir(scratch.0.join("tmp/program")).unwrap();
        fs::write(scratch.0.join("tmp/program/luks"), b"secret").unwrap();
        assert_eq!(files.leftovers().unwrap().len(), 2);
        assert_eq!(files.list().unwrap(), []);
        files.sweep().unwrap();
        assert_eq!(files.leftovers().unwrap(), []);
    }

    #[test]
    fn a_volume_that_cannot_fit_is_refused() {
        let (_scratch, files) = scratch();
        let (volume, _) = new();
        let refused = files.create(volume, 1 << 60, Origin::Blank);
        assert!(matches!(refused, Err(BackendError::NoRoom { .. })), "{refused:?}");
        assert_eq!(files.list().unwrap(), []);
    }

    #[test]
    fn a_copy_of_what_is_written_is_made_at_once_or_not_at_all() {
        let (_scratch, files) = scratch();
        let (volume, snapshot) = new();
        files.create(volume, 1 << 20, Origin::Blank).unwrap();
        let probe = File::create(files.root().join("probe")).unwrap();
        let whole = ioctl_ficlone(&probe, File::open(files.path(volume)).unwrap()).is_ok();
        let made = files.snapshot(volume, snapshot, Writers::Perhaps);
        match made {
            Ok(()) => assert!(whole),
            Err(BackendError::InUse { volume: named, .. }) => assert!(!whole && named == volume),
            Err(e) => panic!("{e}"),
        }
        assert_eq!(files.leftovers().unwrap(), []);
    }
}
