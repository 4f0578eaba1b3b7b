//! Backend `instant`: nothing is kept here. A volume is an image that the DPU fetches chunk by chunk, under a layer on the DPU's own
//! disk. So most of what a backend does is done by nobody: the row says what there is to be, and the DPU does it.

use std::path::PathBuf;

use async_trait::async_trait;
use protocol::agent::Password;
use protocol::{SnapshotId, VolumeId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Backend, BackendError, Capacity, Fencing, Grantee, ImageSource, ImageWritten, Kind, Leftover, Origin,
    Progress, Stats, Stored,
};

/// Settings of backend `instant`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstantSettings {
    /// Where layers lie on each DPU: absolute path.
    pub directory: PathBuf,
    /// Bytes per second of what no host waits for; 0 is without limit, left out is `billet-blk`'s own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Bytes that volumes of this type may have on one DPU together; without, nobody counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// Base URL (`http://ADDRESS:PORT`) of the image store as DPUs reach it; without, the server's provisioning listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// Images under layers on DPUs.
#[derive(Debug)]
pub struct InstantBackend(InstantSettings);

impl InstantBackend {
    /// With these settings.
    ///
    /// # Errors
    /// Where the store is no URL that a DPU takes.
    pub fn open(settings: InstantSettings) -> Result<Self, BackendError> {
        if let Some(store) = settings.store.as_ref().filter(|store| !store.starts_with("http://")) {
            return Err(BackendError::Refused(format!("store `{store}` is not http://ADDRESS:PORT")));
        }
        Ok(Self(settings))
    }
}

/// What it cannot, as an error.
fn cannot<T>(what: &'static str) -> Result<T, BackendError> {
    Err(BackendError::Unsupported { kind: Kind::Instant.as_str(), what })
}

#[async_trait]
impl Backend for InstantBackend {
    fn kind(&self) -> Kind {
        Kind::Instant
    }

    fn fencing(&self) -> Fencing {
        Fencing::Trusts
    }

    fn instant(&self) -> Option<&InstantSettings> {
        Some(&self.0)
    }

    async fn create(&self, _volume: VolumeId, _size: u64, from: Origin) -> Result<(), BackendError> {
        match from {
            Origin::Blank => Ok(()),
            Origin::Snapshot { .. } => cannot("copy a snapshot"),
        }
    }

    async fn encrypt(&self, _volume: VolumeId, _key: &Password) -> Result<(), BackendError> {
        cannot("encrypt a volume")
    }

    async fn resize(&self, _volume: VolumeId, _size: u64) -> Result<(), BackendError> {
        cannot("make a volume larger")
    }

    async fn delete(&self, _volume: VolumeId) -> Result<(), BackendError> {
        Ok(())
    }

    async fn snapshot(&self, _volume: VolumeId, _snapshot: SnapshotId) -> Result<(), BackendError> {
        cannot("make a snapshot")
    }

    async fn delete_snapshot(&self, _volume: VolumeId, _snapshot: SnapshotId) -> Result<(), BackendError> {
        Ok(())
    }

    async fn grant(&self, _volume: VolumeId, _to: &Grantee) -> Result<protocol::dpu::Backend, BackendError> {
        cannot("let anybody in")
    }

    async fn revoke(&self, _volume: VolumeId) -> Result<(), BackendError> {
        Ok(())
    }

    async fn write_image(
        &self,
        _volume: VolumeId,
        _image: ImageSource,
        _progress: watch::Sender<Progress>,
        _cancel: CancellationToken,
    ) -> Result<ImageWritten, BackendError> {
        cannot("be written by the server")
    }

    async fn capacity(&self) -> Result<Capacity, BackendError> {
        cannot("say how much fits")
    }

    async fn list(&self) -> Result<Vec<Stored>, BackendError> {
        Ok(Vec::new())
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, BackendError> {
        Ok(Vec::new())
    }

    async fn sweep(&self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn stats(&self, _volume: VolumeId) -> Result<Stats, BackendError> {
        cannot("say who is connected")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_cannot_it_says() {
        let settings =
            InstantSettings { directory: "/layers".into(), rate: None, capacity: None, store: None };
        let backend = InstantBackend::open(settings.clone()).unwrap();
        let volume = VolumeId(uuid::Uuid::nil());
        assert!(backend.create(volume, 1 << 20, Origin::Blank).await.is_ok());
        let words = backend.resize(volume, 2 << 20).await.unwrap_err().to_string();
        assert_eq!(words, "a backend of kind `instant` cannot make a volume larger");
        assert!(backend.snapshot(volume, SnapshotId(uuid::Uuid::nil())).await.is_err());
        let ftp = InstantSettings { store: Some("ftp://x".into()), ..settings };
        assert!(InstantBackend::open(ftp).unwrap_err().to_string().contains("ftp://x"));
    }
}
