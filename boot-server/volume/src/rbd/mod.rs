//! Backend `rbd`: volumes as images of Ceph. Snapshots and clones are Ceph's own; one that is cloned and deleted lives on until
//! its clones do not need it.
//!
//! Each grant is a user of its own, who may touch the objects of that image (and read those that it was cloned from) and nothing
//! else. A revocation takes the key away, then shuts out every client that has the image open, or was seen to have it, and waits until the
//! cluster says that nobody has. Clients are noted while a grant is used: one that cannot reach the cluster is listed no more after 30 s
//! (`osd_client_watch_timeout`), and its ticket is good for an hour, so it could go on when it comes back.

mod cli;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use protocol::agent::Password;
use protocol::dpu::Backend as Told;
use protocol::{SnapshotId, VolumeId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::cli::{Cli, Info, image_name, user_of, volume_of};
use crate::file::{Locks, blocking};
use crate::files::check_size;
use crate::grants::Grants;
use crate::imaging::{self, Watched};
use crate::nbd::NbdMedium;
use crate::{
    Backend, BackendError, Capacity, Fencing, Grantee, ImageSource, ImageWritten, Kind, Leftover, Origin,
    Progress, Stats, Stored,
};

/// How long a client stays shut out, in seconds: its tickets are good for an hour (`auth_service_ticket_ttl`), and it has no
/// key for others.
const SHUT_OUT: u32 = 24 * 3600;
/// Time until the cluster has let go of a client that was shut out: a watch that nobody renews ends after 30 s
/// (`osd_client_watch_timeout`).
const LET_GO: Duration = Duration::from_secs(60);
const LET_GO_LOOK: Duration = Duration::from_millis(200);
/// Longest chain of clones that is followed.
const PARENTS_MAX: usize = 16;

/// Settings of the backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RbdSettings {
    /// Where it is kept who was let in: absolute path of a directory of its own.
    pub directory: PathBuf,
    /// `ceph.conf` of the cluster.
    pub configuration: PathBuf,
    /// Billet's own user, without `client.`.
    #[serde(default = "default_user")]
    pub user: String,
    /// File with its key, where it does not lie where Ceph's programs look for it.
    #[serde(default)]
    pub keyring: Option<PathBuf>,
    /// Pool.
    pub pool: String,
    /// Addresses and ports of the monitors, as DPUs reach them.
    pub monitors: Vec<String>,
}

fn default_user() -> String {
    "billet".to_owned()
}

/// Images of a pool.
pub struct RbdBackend {
    settings: RbdSettings,
    cli: Cli,
    grants: Grants,
    locks: Locks,
}

impl RbdBackend {
    /// Opens the directory. The cluster is not asked yet.
    ///
    /// # Errors
    /// Where the directory cannot be made.
    pub fn open(settings: RbdSettings) -> Result<Self, BackendError> {
        for dir in ["grants", "run"].map(|name| settings.directory.join(name)) {
            std::fs::create_dir_all(&dir).map_err(BackendError::io("make", &dir))?;
        }
        let grants = Grants::in_dir(settings.directory.join("grants"));
        Ok(Self { cli: Cli::new(&settings), settings, grants, locks: Locks::default() })
    }

    async fn info(&self, volume: VolumeId) -> Result<Info, BackendError> {
        self.cli.info(&image_name(volume)).await?.ok_or(BackendError::NoVolume(volume))
    }

    /// Size of a snapshot.
    async fn snapshot_size(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<u64, BackendError> {
        let name = snapshot.to_string();
        let all = self.cli.snapshots(&image_name(volume)).await?;
        let found = all.iter().find(|s| s.name == name);
        found.map(|s| s.size).ok_or(BackendError::NoSnapshot { volume, snapshot })
    }

    async fn unused(&self, volume: VolumeId) -> Result<(), BackendError> {
        let watchers = self.cli.watchers(&image_name(volume)).await?;
        if watchers.is_empty() {
            return Ok(());
        }
        Err(BackendError::InUse { volume, by: watchers.join(", ") })
    }

    /// Takes the key away and shuts out who has the image open. The volume's lock is held.
    async fn cut(&self, volume: VolumeId) -> Result<(), BackendError> {
        self.cli.remove_user(&user_of(volume)).await?;
        let name = image_name(volume);
        let end = tokio::time::Instant::now() + LET_GO;
        let mut shut_out = BTreeSet::new();
        // Those as well whom the cluster lists no more because they were cut off from it.
        for address in self.grants.clients(volume)? {
            self.cli.shut_out(&address, SHUT_OUT).await?;
            shut_out.insert(address);
        }
        loop {
            let watchers = self.cli.watchers(&name).await?;
            if watchers.is_empty() {
                return self.grants.take(volume);
            }
            for address in &watchers {
                if shut_out.insert(address.clone()) {
                    self.cli.shut_out(address, SHUT_OUT).await?;
                }
            }
            if tokio::time::Instant::now() > end {
                return Err(BackendError::InUse { volume, by: watchers.join(", ") });
            }
            tokio::time::sleep(LET_GO_LOOK).await;
        }
    }

    /// What a volume's user may touch: its own objects, those of its parents for reading, and what every client reads to find
    /// an image by its name.
    async fn rights(&self, volume: VolumeId) -> Result<String, BackendError> {
        let pool = &self.settings.pool;
        let may = |what: &str, prefix: String| format!("allow {what} pool={pool} object_prefix {prefix}");
        let mut info = self.info(volume).await?;
        let mut all = vec![
            may("rwx", format!("rbd_data.{}.", info.id)),
            may("rwx", format!("rbd_header.{}", info.id)),
            may("rx", format!("rbd_id.{}", image_name(volume))),
            may("rx", "rbd_info".into()),
            may("rx", "rbd_directory".into()),
        ];
        for _ in 0..PARENTS_MAX {
            let Some(parent) = info.parent.take() else { return Ok(all.join(", ")) };
            let Some(found) = self.cli.info(&parent.image).await? else { return Ok(all.join(", ")) };
            info = found;
            all.push(may("rx", format!("rbd_data.{}.", info.id)));
            all.push(may("rx", format!("rbd_header.{}", info.id)));
        }
        Err(BackendError::Refused(format!(
            "volume {volume} is a clone of clones, more than {PARENTS_MAX} deep"
        )))
    }

    /// The volume as Billet itself opens it.
    fn as_ourselves(&self, volume: VolumeId) -> Result<Told, BackendError> {
        let user = &self.settings.user;
        let path = self
            .settings
            .keyring
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("/etc/ceph/ceph.client.{user}.keyring")));
        let text = std::fs::read_to_string(&path).map_err(BackendError::io("read", &path))?;
        let key = key_of(&text, user).ok_or_else(|| {
            BackendError::Refused(format!("{} has no key of client.{user}", path.display()))
        })?;
        Ok(self.told(image_name(volume), user.clone(), key.to_owned()))
    }

    fn told(&self, image: String, user: String, key: String) -> Told {
        Told::Rbd {
            monitors: self.settings.monitors.clone(),
            pool: self.settings.pool.clone(),
            image,
            user,
            key: Password(key),
        }
    }

    async fn clone_of(
        &self,
        volume: VolumeId,
        size: u64,
        origin: (VolumeId, SnapshotId),
    ) -> Result<(), BackendError> {
        let found = self.snapshot_size(origin.0, origin.1).await?;
        if found > size {
            return Err(BackendError::Refused(format!(
                "the snapshot has {found} bytes, the volume would have {size}"
            )));
        }
        let name = image_name(volume);
        self.cli.clone_image(&image_name(origin.0), origin.1, &name).await?;
        if found < size { self.cli.resize(&name, size).await } else { Ok(()) }
    }
}

#[async_trait]
impl Backend for RbdBackend {
    fn kind(&self) -> Kind {
        Kind::Rbd
    }

    fn fencing(&self) -> Fencing {
        Fencing::Cuts
    }

    async fn create(&self, volume: VolumeId, size: u64, from: Origin) -> Result<(), BackendError> {
        check_size(size)?;
        let _guard = self.locks.of(volume).await;
        let name = image_name(volume);
        if let Some(found) = self.cli.info(&name).await? {
            // A clone that was not made larger yet is what a call that was cut short leaves.
            let half = match (from, &found.parent) {
                (Origin::Snapshot { snapshot, .. }, Some(parent)) => {
                    parent.snapshot == snapshot.to_string() && found.size < size
                }
                _ => false,
            };
            return match found.size == size {
                true => Ok(()),
                false if half => self.cli.resize(&name, size).await,
                false => Err(BackendError::Exists { volume, found: found.size, wanted: size }),
            };
        }
        match from {
            Origin::Blank => self.cli.create(&name, size).await,
            Origin::Snapshot { volume: parent, snapshot } => {
                self.clone_of(volume, size, (parent, snapshot)).await
            }
        }
    }

    async fn encrypt(&self, volume: VolumeId, key: &Password) -> Result<(), BackendError> {
        let guard = self.locks.of(volume).await;
        self.grants.none(volume)?;
        self.info(volume).await?;
        let (told, key) = (self.as_ourselves(volume)?, key.clone());
        let run = self.settings.directory.join("run");
        blocking(move || {
            let _guard = guard;
            imaging::encrypt(volume, &NbdMedium::open(&told, None, &run)?, &key)
        })
        .await
    }

    async fn resize(&self, volume: VolumeId, size: u64) -> Result<(), BackendError> {
        check_size(size)?;
        let _guard = self.locks.of(volume).await;
        let found = self.info(volume).await?.size;
        if size < found {
            return Err(BackendError::Refused(format!(
                "volume {volume} has {found} bytes and is not made smaller"
            )));
        }
        self.cli.resize(&image_name(volume), size).await
    }

    /// Clones that still read from it are parted first, which copies their bytes.
    async fn delete(&self, volume: VolumeId) -> Result<(), BackendError> {
        let _guard = self.locks.of(volume).await;
        let name = image_name(volume);
        if self.cli.info(&name).await?.is_none() {
            self.cli.remove_user(&user_of(volume)).await?;
            return self.grants.take(volume);
        }
        let count = self.cli.snapshots(&name).await?.len();
        if count > 0 {
            return Err(BackendError::HasSnapshots { volume, count });
        }
        self.unused(volume).await?;
        self.cut(volume).await?;
        for child in self.cli.children(&name).await? {
            self.cli.flatten(&child.image).await?;
        }
        self.cli.remove(&name).await
    }

    async fn snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError> {
        let _guard = self.locks.of(volume).await;
        self.info(volume).await?;
        match self.snapshot_size(volume, snapshot).await {
            Ok(_) => Ok(()),
            Err(BackendError::NoSnapshot { .. }) => self.cli.snapshot(&image_name(volume), snapshot).await,
            Err(e) => Err(e),
        }
    }

    async fn delete_snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError> {
        let _guard = self.locks.of(volume).await;
        self.cli.remove_snapshot(&image_name(volume), snapshot).await
    }

    async fn grant(&self, volume: VolumeId, to: &Grantee) -> Result<Told, BackendError> {
        let _guard = self.locks.of(volume).await;
        let rights = self.rights(volume).await?;
        self.grants.give(volume, to)?;
        let user = user_of(volume);
        let key = self.cli.user(&user, "allow r", &rights).await?;
        Ok(self.told(image_name(volume), user, key))
    }

    async fn revoke(&self, volume: VolumeId) -> Result<(), BackendError> {
        let _guard = self.locks.of(volume).await;
        self.cut(volume).await
    }

    async fn note_clients(&self, volume: VolumeId) -> Result<(), BackendError> {
        let _guard = self.locks.of(volume).await;
        if self.grants.of(volume)?.is_none() {
            return Ok(());
        }
        self.grants.note_clients(volume, &self.cli.watchers(&image_name(volume)).await?)
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
        let guard = self.locks.of(volume).await;
        self.grants.none(volume)?;
        self.info(volume).await?;
        let told = self.as_ourselves(volume)?;
        let run = self.settings.directory.join("run");
        blocking(move || {
            let _guard = guard;
            let medium = NbdMedium::open(&told, image.key.as_ref(), &run)?;
            imaging::write(volume, &medium, &image, &Watched { progress, cancel })
        })
        .await
    }

    async fn capacity(&self) -> Result<Capacity, BackendError> {
        let space = self.cli.space().await?;
        let pool = space.pools.into_iter().find(|pool| pool.name == self.settings.pool);
        let stats = pool.map(|pool| pool.stats).ok_or_else(|| {
            BackendError::Refused(format!("the cluster has no pool `{}`", self.settings.pool))
        })?;
        let (used, free) = (stats.stored, stats.max_avail);
        Ok(Capacity { total: used + free, free, used })
    }

    async fn list(&self) -> Result<Vec<Stored>, BackendError> {
        let mut all: Vec<_> = self
            .cli
            .list()
            .await?
            .iter()
            .filter_map(|line| {
                let snapshot = line.snapshot.as_ref().map(|s| s.parse()).transpose().ok()?;
                Some(Stored { volume: volume_of(&line.image)?, snapshot, size: line.size })
            })
            .collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Grants of volumes that are gone, and what a program that was killed left of its files.
    async fn leftovers(&self) -> Result<Vec<Leftover>, BackendError> {
        let there: BTreeSet<_> = self.list().await?.iter().map(|stored| stored.volume).collect();
        let mut left = Vec::new();
        for volume in self.grants.all()?.into_iter().filter(|volume| !there.contains(volume)) {
            left.push(Leftover { what: format!("grant of volume {volume}, which is gone") });
        }
        let run = self.settings.directory.join("run");
        let entries = std::fs::read_dir(&run).map_err(BackendError::io("list", &run))?;
        left.extend(entries.flatten().map(|e| Leftover { what: e.path().display().to_string() }));
        Ok(left)
    }

    async fn sweep(&self) -> Result<(), BackendError> {
        let there: BTreeSet<_> = self.list().await?.iter().map(|stored| stored.volume).collect();
        for volume in self.grants.all()?.into_iter().filter(|volume| !there.contains(volume)) {
            self.cli.remove_user(&user_of(volume)).await?;
            self.grants.take(volume)?;
        }
        let run = self.settings.directory.join("run");
        for entry in std::fs::read_dir(&run).map_err(BackendError::io("list", &run))?.flatten() {
            let path = entry.path();
            std::fs::remove_dir_all(&path).map_err(BackendError::io("remove", &path))?;
        }
        Ok(())
    }

    async fn stats(&self, volume: VolumeId) -> Result<Stats, BackendError> {
        self.info(volume).await?;
        let connected = self.cli.watchers(&image_name(volume)).await?;
        Ok(Stats { granted: self.grants.of(volume)?.map(|grant| grant.to.dpu), connected: Some(connected) })
    }
}

/// The key of a user in a keyring file.
fn key_of<'a>(text: &'a str, user: &str) -> Option<&'a str> {
    let section = format!("[client.{user}]");
    let lines = text.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
    let mut own = lines.take_while(|line| !line.starts_with('['));
    own.find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "key").then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_keyrings() {
        let text = "[client.admin]\n\tkey = QQ==\n\tcaps mon = \"allow *\"\n[client.billet]\n\tkey = Wg==\n";
        assert_eq!(key_of(text, "billet"), Some("Wg=="));
        assert_eq!(key_of(text, "admin"), Some("QQ=="));
        assert_eq!(key_of(text, "other"), None);
        assert_eq!(key_of("[client.billet]\n[client.admin]\nkey = QQ==\n", "billet"), None);
    }
}
