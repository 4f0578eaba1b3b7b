//! Backends `iscsi-external` and `nvme-tcp`: logical units and namespaces that somebody else made and named to Billet. A volume
//! takes a free one that is large enough, and gives it back when it is deleted.
//!
//! Nothing is asked of the storage but its bytes: who may connect is what its owner set, so one DPU cannot be told from another
//! there, and nobody can be cut off ([`Fencing::Trusts`]).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::imaging::FileMedium;
use async_trait::async_trait;
use protocol::agent::Password;
use protocol::dpu::{Backend as Told, Chap};
use protocol::{SnapshotId, VolumeId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::file::{Locks, blocking};
use crate::files::{check_size, ids, remove};
use crate::grants::{Grants, durable};
use crate::imaging::{self, Watched};
use crate::medium::Named;
use crate::nbd::NbdMedium;
use crate::program::Call;
use crate::{
    Backend, BackendError, Capacity, Fencing, Grantee, ImageSource, ImageWritten, Kind, Leftover, Origin,
    Progress, Stats, Stored,
};

/// Time for the kernel to reach a subsystem.
const CONNECT: Duration = Duration::from_secs(30);

/// Settings of the backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalSettings {
    /// Where it is kept which volume has what: absolute path of a directory of its own.
    pub directory: PathBuf,
    /// What there is.
    pub units: Vec<Unit>,
}

/// Something that can be one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Unit {
    /// A logical unit of an iSCSI target.
    Iscsi {
        /// Address and port.
        portal: SocketAddr,
        /// Name of the target.
        target: String,
        /// Logical unit.
        lun: u32,
        /// Bytes.
        size: u64,
        /// Account, if it wants one.
        #[serde(default)]
        chap: Option<Chap>,
    },
    /// A namespace of an NVMe subsystem.
    NvmeTcp {
        /// Address and port.
        address: SocketAddr,
        /// Name of the subsystem.
        subsystem: String,
        /// Namespace.
        namespace: u32,
        /// Bytes.
        size: u64,
    },
}

impl Unit {
    fn size(&self) -> u64 {
        match self {
            Self::Iscsi { size, .. } | Self::NvmeTcp { size, .. } => *size,
        }
    }

    /// What it is known by while settings change around it.
    fn name(&self) -> String {
        match self {
            Self::Iscsi { portal, target, lun, .. } => format!("iscsi {portal} {target} {lun}"),
            Self::NvmeTcp { address, subsystem, namespace, .. } => {
                format!("nvme-tcp {address} {subsystem} {namespace}")
            }
        }
    }

    fn told(&self, initiator: Option<&str>) -> Told {
        match self {
            Self::Iscsi { portal, target, lun, chap, .. } => Told::Iscsi {
                portal: portal.to_string(),
                target: target.clone(),
                lun: *lun,
                initiator: initiator.map(str::to_owned),
                chap: chap.clone(),
            },
            Self::NvmeTcp { address, subsystem, namespace, .. } => Told::NvmeTcp {
                address: address.to_string(),
                subsystem: subsystem.clone(),
                namespace: *namespace,
            },
        }
    }
}

/// Which volume has which unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    unit: String,
    size: u64,
    /// It was zeroed, so that nobody reads what another left.
    blank: bool,
}

/// Units of others.
pub struct ExternalBackend {
    settings: ExternalSettings,
    kind: Kind,
    grants: Grants,
    locks: Locks,
    /// Held while units are chosen.
    choosing: Mutex<()>,
}

impl ExternalBackend {
    /// Opens the directory; `kind` is what its units are.
    ///
    /// # Errors
    /// Where the directory cannot be made, or a unit is of another kind or named twice.
    pub fn open(kind: Kind, settings: ExternalSettings) -> Result<Self, BackendError> {
        let mut names = Vec::new();
        for unit in &settings.units {
            let fits = matches!(
                (unit, kind),
                (Unit::Iscsi { .. }, Kind::IscsiExternal) | (Unit::NvmeTcp { .. }, Kind::NvmeTcp)
            );
            let name = unit.name();
            if !fits || names.contains(&name) {
                return Err(BackendError::Refused(format!(
                    "unit `{name}` is named twice, or is none of a backend `{}`",
                    kind.as_str()
                )));
            }
            names.push(name);
        }
        for dir in ["taken", "grants", "run"].map(|name| settings.directory.join(name)) {
            std::fs::create_dir_all(&dir).map_err(BackendError::io("make", &dir))?;
        }
        let grants = Grants::in_dir(settings.directory.join("grants"));
        Ok(Self { settings, kind, grants, locks: Locks::default(), choosing: Mutex::default() })
    }

    fn path(&self, volume: VolumeId) -> PathBuf {
        self.settings.directory.join("taken").join(format!("{volume}.json"))
    }

    fn taken(&self, volume: VolumeId) -> Result<Option<Taken>, BackendError> {
        let path = self.path(volume);
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(BackendError::io("read", &path)(e)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| BackendError::io("read", &path)(std::io::Error::other(e))),
        }
    }

    fn keep(&self, volume: VolumeId, taken: &Taken) -> Result<(), BackendError> {
        let text = serde_json::to_vec(taken).map_err(|e| BackendError::Refused(e.to_string()))?;
        durable(&self.path(volume), &text)
    }

    fn unit(&self, volume: VolumeId) -> Result<&Unit, BackendError> {
        let taken = self.taken(volume)?.ok_or(BackendError::NoVolume(volume))?;
        self.settings.units.iter().find(|unit| unit.name() == taken.unit).ok_or_else(|| {
            BackendError::Refused(format!("`{}` of volume {volume} is not in the settings", taken.unit))
        })
    }

    fn all_taken(&self) -> Result<Vec<(VolumeId, Taken)>, BackendError> {
        let mut all = Vec::new();
        for volume in ids(&self.settings.directory.join("taken"), ".json")? {
            all.extend(self.taken(volume)?.map(|taken| (volume, taken)));
        }
        Ok(all)
    }

    /// Takes the smallest free unit that is large enough.
    async fn choose(&self, volume: VolumeId, size: u64) -> Result<Taken, BackendError> {
        let _guard = self.choosing.lock().await;
        if let Some(taken) = self.taken(volume)? {
            return if taken.size == size {
                Ok(taken)
            } else {
                Err(BackendError::Exists { volume, found: taken.size, wanted: size })
            };
        }
        let used = self.all_taken()?;
        let free = |unit: &&Unit| used.iter().all(|(_, taken)| taken.unit != unit.name());
        let fits = self.settings.units.iter().filter(free).filter(|unit| unit.size() >= size);
        let unit = fits.min_by_key(|unit| unit.size()).ok_or_else(|| BackendError::NoRoom {
            wanted: size,
            why: "no free unit of the settings is as large".into(),
        })?;
        let taken = Taken { unit: unit.name(), size, blank: false };
        self.keep(volume, &taken)?;
        Ok(taken)
    }

    /// Does something with a unit's bytes, or with those that a key opens, on a thread for that.
    async fn on_medium<T: Send + 'static>(
        &self,
        volume: VolumeId,
        key: Option<Password>,
        what: impl FnOnce(&dyn Named) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let guard = self.locks.of(volume).await;
        let unit = self.unit(volume)?.clone();
        let run = self.settings.directory.join("run");
        match &unit {
            Unit::Iscsi { .. } => {
                blocking(move || {
                    let _guard = guard;
                    what(&NbdMedium::open(&unit.told(None), key.as_ref(), &run)?)
                })
                .await
            }
            Unit::NvmeTcp { .. } if key.is_some() => {
                Err(BackendError::Unsupported { kind: self.kind.as_str(), what: "encrypt volumes" })
            }
            Unit::NvmeTcp { address, subsystem, namespace, .. } => {
                let device = connect(*address, subsystem, *namespace).await?;
                let done = blocking(move || {
                    let _guard = guard;
                    what(&FileMedium::open(&device).map_err(BackendError::io("open", &device))?)
                })
                .await;
                disconnect(subsystem).await.and(done)
            }
        }
    }
}

/// Has the kernel connect to a subsystem (nvme-connect(1)); the device of the namespace.
async fn connect(address: SocketAddr, subsystem: &str, namespace: u32) -> Result<PathBuf, BackendError> {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let to = ["--transport=tcp", "--traddr", &ip, "--trsvcid", &port, "--nqn", subsystem];
    Call::new("nvme", format!("connect to {subsystem}"), CONNECT).args(["connect"]).args(to).output().await?;
    let found = namespace_device(Path::new("/sys/class/nvme"), subsystem, namespace);
    match found {
        Some(name) => Ok(Path::new("/dev").join(name)),
        None => {
            disconnect(subsystem).await?;
            Err(BackendError::Refused(format!("{subsystem} has no namespace {namespace}")))
        }
    }
}

async fn disconnect(subsystem: &str) -> Result<(), BackendError> {
    Call::new("nvme", format!("disconnect from {subsystem}"), CONNECT)
        .args(["disconnect", "--nqn", subsystem])
        .output()
        .await
        .map(drop)
}

/// The block device of a namespace (`/sys/class/nvme/nvme0/subsysnqn`, `nvme0n1/nsid`).
fn namespace_device(class: &Path, subsystem: &str, namespace: u32) -> Option<String> {
    let text = |path: PathBuf| std::fs::read_to_string(path).map(|t| t.trim().to_owned()).ok();
    for controller in std::fs::read_dir(class).ok()?.flatten() {
        if text(controller.path().join("subsysnqn")).as_deref() != Some(subsystem) {
            continue;
        }
        for entry in std::fs::read_dir(controller.path()).ok()?.flatten() {
            if text(entry.path().join("nsid")) == Some(namespace.to_string()) {
                return entry.file_name().into_string().ok();
            }
        }
    }
    None
}

#[async_trait]
impl Backend for ExternalBackend {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn fencing(&self) -> Fencing {
        Fencing::Trusts
    }

    /// The unit is zeroed before it is anybody's, which takes as long as the storage takes.
    async fn create(&self, volume: VolumeId, size: u64, from: Origin) -> Result<(), BackendError> {
        check_size(size)?;
        if let Origin::Snapshot { volume, snapshot } = from {
            return Err(BackendError::NoSnapshot { volume, snapshot });
        }
        let taken = self.choose(volume, size).await?;
        if taken.blank {
            return Ok(());
        }
        self.on_medium(volume, None, imaging::zero_all).await?;
        self.keep(volume, &Taken { blank: true, ..taken })
    }

    async fn encrypt(&self, volume: VolumeId, key: &Password) -> Result<(), BackendError> {
        self.grants.none(volume)?;
        let key = key.clone();
        self.on_medium(volume, None, move |medium| imaging::encrypt(volume, medium, &key)).await
    }

    async fn resize(&self, volume: VolumeId, size: u64) -> Result<(), BackendError> {
        check_size(size)?;
        let taken = self.taken(volume)?.ok_or(BackendError::NoVolume(volume))?;
        if size < taken.size {
            return Err(BackendError::Refused(format!("volume {volume} is not made smaller")));
        }
        let room = self.unit(volume)?.size();
        if size > room {
            return Err(BackendError::NoRoom { wanted: size, why: format!("its unit has {room} bytes") });
        }
        self.keep(volume, &Taken { size, ..taken })
    }

    async fn delete(&self, volume: VolumeId) -> Result<(), BackendError> {
        let _guard = self.locks.of(volume).await;
        self.grants.none(volume)?;
        remove(&self.path(volume))
    }

    async fn snapshot(&self, _volume: VolumeId, _snapshot: SnapshotId) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { kind: self.kind.as_str(), what: "make snapshots" })
    }

    async fn delete_snapshot(&self, _volume: VolumeId, _snapshot: SnapshotId) -> Result<(), BackendError> {
        Ok(())
    }

    async fn grant(&self, volume: VolumeId, to: &Grantee) -> Result<Told, BackendError> {
        let _guard = self.locks.of(volume).await;
        let unit = self.unit(volume)?;
        self.grants.give(volume, to)?;
        Ok(unit.told(Some(&to.initiator)))
    }

    async fn revoke(&self, volume: VolumeId) -> Result<(), BackendError> {
        let _guard = self.locks.of(volume).await;
        self.grants.take(volume)
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
        self.grants.none(volume)?;
        self.on_medium(volume, image.key.clone(), move |medium| {
            imaging::write(volume, medium, &image, &Watched { progress, cancel })
        })
        .await
    }

    async fn capacity(&self) -> Result<Capacity, BackendError> {
        let total = self.settings.units.iter().map(Unit::size).sum();
        let taken = self.all_taken()?;
        let is_taken = |unit: &&Unit| taken.iter().any(|(_, taken)| taken.unit == unit.name());
        let used = self.settings.units.iter().filter(is_taken).map(Unit::size).sum();
        Ok(Capacity { total, free: total - used, used })
    }

    async fn list(&self) -> Result<Vec<Stored>, BackendError> {
        let all = self.all_taken()?;
        Ok(all
            .iter()
            .map(|(volume, taken)| Stored { volume: *volume, snapshot: None, size: taken.size })
            .collect())
    }

    /// What a program that was killed left of its files.
    async fn leftovers(&self) -> Result<Vec<Leftover>, BackendError> {
        let run = self.settings.directory.join("run");
        let entries = std::fs::read_dir(&run).map_err(BackendError::io("list", &run))?;
        Ok(entries.flatten().map(|e| Leftover { what: e.path().display().to_string() }).collect())
    }

    async fn sweep(&self) -> Result<(), BackendError> {
        for left in self.leftovers().await? {
            let path = Path::new(&left.what);
            std::fs::remove_dir_all(path).map_err(BackendError::io("remove", path))?;
        }
        Ok(())
    }

    async fn stats(&self, volume: VolumeId) -> Result<Stats, BackendError> {
        self.unit(volume)?;
        Ok(Stats { granted: self.grants.of(volume)?.map(|grant| grant.to.dpu), connected: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_found_by_its_subsystem() {
        let dir = std::env::temp_dir().join(format!("billet-nvme-{}", uuid::Uuid::new_v4()));
        for (controller, nqn) in [("nvme0", "nqn.other"), ("nvme1", "nqn.x")] {
            for number in [1, 2] {
                let disk = dir.join(controller).join(format!("{controller}n{number}"));
                std::fs::create_dir_all(&disk).unwrap();
                std::fs::write(disk.join("nsid"), format!("{number}\n")).unwrap();
            }
            std::fs::write(dir.join(controller).join("subsysnqn"), format!("{nqn}\n")).unwrap();
        }
        assert_eq!(namespace_device(&dir, "nqn.x", 2).as_deref(), Some("nvme1n2"));
        assert_eq!(namespace_device(&dir, "nqn.x", 3), None);
        assert_eq!(namespace_device(&dir, "nqn.y", 1), None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
