//! `rbd` and `ceph` of a cluster (rbd(8), ceph(8)), asked for JSON.

use std::time::Duration;

use protocol::{SnapshotId, VolumeId};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::RbdSettings;
use crate::BackendError;
use crate::program::Call;

/// Time for a command. A cluster that has no quorum does not answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a command that copies or removes a volume's bytes.
const LONG: Duration = Duration::from_secs(2 * 3600);
/// Names of our images begin with this.
const PREFIX: &str = "billet-";

/// An image as `rbd info` says it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Info {
    pub(super) id: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) parent: Option<Parent>,
}

/// What an image was cloned from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Parent {
    pub(super) image: String,
    pub(super) snapshot: String,
}

/// A line of `rbd ls -l`.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) image: String,
    #[serde(default)]
    pub(super) snapshot: Option<String>,
    pub(super) size: u64,
}

/// A line of `rbd snap ls`.
#[derive(Debug, Deserialize)]
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) size: u64,
}

/// A line of `rbd children`.
#[derive(Debug, Deserialize)]
pub(super) struct Child {
    pub(super) image: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default)]
    watchers: Vec<Watcher>,
}

#[derive(Debug, Deserialize)]
struct Watcher {
    address: String,
}

/// `ceph auth get-or-create`.
#[derive(Debug, Deserialize)]
struct Entity {
    key: String,
}

/// `ceph df`.
#[derive(Debug, Deserialize)]
pub(super) struct Space {
    pub(super) pools: Vec<Pool>,
}

/// A pool of it.
#[derive(Debug, Deserialize)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) stats: PoolStats,
}

/// What of it is used.
#[derive(Debug, Deserialize)]
pub(super) struct PoolStats {
    pub(super) stored: u64,
    pub(super) max_avail: u64,
}

/// Name of a volume's image.
pub(super) fn image_name(volume: VolumeId) -> String {
    format!("{PREFIX}{volume}")
}

/// The volume of an image, if it is ours.
pub(super) fn volume_of(image: &str) -> Option<VolumeId> {
    image.strip_prefix(PREFIX)?.parse().ok()
}

/// Name of the user that a volume's DPU is.
pub(super) fn user_of(volume: VolumeId) -> String {
    format!("{PREFIX}{volume}")
}

/// The commands.
#[derive(Debug, Clone)]
pub(super) struct Cli {
    settings: RbdSettings,
}

impl Cli {
    pub(super) fn new(settings: &RbdSettings) -> Self {
        Self { settings: settings.clone() }
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.settings.pool)
    }

    fn call(&self, program: &'static str, what: &str, timeout: Duration, words: &[&str]) -> Call {
        let mut call = Call::new(program, what, timeout)
            .args(["--conf".as_ref(), self.settings.configuration.as_os_str()])
            .args(["--name", &format!("client.{}", self.settings.user)]);
        if let Some(keyring) = &self.settings.keyring {
            call = call.args(["--keyring".as_ref(), keyring.as_os_str()]);
        }
        call.args(words)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        program: &'static str,
        what: &str,
        words: &[&str],
    ) -> Result<T, BackendError> {
        let words = [words, &["--format", "json"]].concat();
        let said = self.call(program, what, TIMEOUT, &words).output().await?;
        serde_json::from_str(&said).map_err(|e| BackendError::Program {
            program,
            what: what.to_owned(),
            said: format!("its answer is not what was expected: {e}"),
        })
    }

    /// `None` where there is no such image.
    pub(super) async fn info(&self, name: &str) -> Result<Option<Info>, BackendError> {
        absent(self.json("rbd", "look at an image", &["info", &self.image(name)]).await)
    }

    pub(super) async fn create(&self, name: &str, size: u64) -> Result<(), BackendError> {
        // Without the exclusive lock: who writes is decided by who was let in, and a DPU that starts again after a crash need
        // not break a lock, which takes a right to shut out others.
        let size = format!("{size}B");
        let words = ["create", &self.image(name), "--size", &size, "--image-feature", "layering"];
        self.call("rbd", "make an image", TIMEOUT, &words).output().await.map(drop)
    }

    /// Version 2 of clones: a snapshot may go while there are some.
    pub(super) async fn clone_image(
        &self,
        parent: &str,
        snapshot: SnapshotId,
        name: &str,
    ) -> Result<(), BackendError> {
        let from = format!("{}@{snapshot}", self.image(parent));
        let words = [
            "clone",
            "--rbd-default-clone-format",
            "2",
            "--image-feature",
            "layering",
            &from,
            &self.image(name),
        ];
        self.call("rbd", "clone a snapshot", TIMEOUT, &words).output().await.map(drop)
    }

    pub(super) async fn resize(&self, name: &str, size: u64) -> Result<(), BackendError> {
        let words = ["resize", &self.image(name), "--size", &format!("{size}B"), "--no-progress"];
        self.call("rbd", "make an image larger", TIMEOUT, &words).output().await.map(drop)
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), BackendError> {
        let words = ["rm", &self.image(name), "--no-progress"];
        let said = self.call("rbd", "remove an image", LONG, &words).output().await;
        absent(said).map(drop)
    }

    /// Snapshots that can be named; none where there is no image.
    pub(super) async fn snapshots(&self, name: &str) -> Result<Vec<Snapshot>, BackendError> {
        let found = self.json("rbd", "list snapshots", &["snap", "ls", &self.image(name)]).await;
        Ok(absent(found)?.unwrap_or_default())
    }

    pub(super) async fn snapshot(&self, name: &str, snapshot: SnapshotId) -> Result<(), BackendError> {
        let words = ["snap", "create", &format!("{}@{snapshot}", self.image(name)), "--no-progress"];
        self.call("rbd", "make a snapshot", TIMEOUT, &words).output().await.map(drop)
    }

    pub(super) async fn remove_snapshot(&self, name: &str, snapshot: SnapshotId) -> Result<(), BackendError> {
        let words = ["snap", "rm", &format!("{}@{snapshot}", self.image(name)), "--no-progress"];
        absent(self.call("rbd", "remove a snapshot", LONG, &words).output().await).map(drop)
    }

    /// Images that still read from this one, by whatever snapshot.
    pub(super) async fn children(&self, name: &str) -> Result<Vec<Child>, BackendError> {
        let found = self.json("rbd", "list clones", &["children", "--all", &self.image(name)]).await;
        Ok(absent(found)?.unwrap_or_default())
    }

    pub(super) async fn flatten(&self, name: &str) -> Result<(), BackendError> {
        let words = ["flatten", &self.image(name), "--no-progress"];
        self.call("rbd", "part a clone from its snapshot", LONG, &words).output().await.map(drop)
    }

    pub(super) async fn list(&self) -> Result<Vec<Line>, BackendError> {
        self.json("rbd", "list images", &["ls", "--long", &self.settings.pool]).await
    }

    /// Addresses of clients that have the image open for writing.
    pub(super) async fn watchers(&self, name: &str) -> Result<Vec<String>, BackendError> {
        let found: Result<Status, _> =
            self.json("rbd", "list who has an image open", &["status", &self.image(name)]).await;
        let status = absent(found)?;
        Ok(status.map(|s| s.watchers.into_iter().map(|w| w.address).collect()).unwrap_or_default())
    }

    /// The key of a user with these rights; it is made where it is not there.
    pub(super) async fn user(&self, name: &str, mon: &str, osd: &str) -> Result<String, BackendError> {
        let entity = format!("client.{name}");
        let words = ["auth", "get-or-create", &entity, "mon", mon, "osd", osd];
        let found: Vec<Entity> = self.json("ceph", "make a user", &words).await?;
        found.into_iter().next().map(|e| e.key).ok_or_else(|| BackendError::Program {
            program: "ceph",
            what: "make a user".into(),
            said: "its answer has no key".into(),
        })
    }

    pub(super) async fn remove_user(&self, name: &str) -> Result<(), BackendError> {
        let words = ["auth", "rm", &format!("client.{name}")];
        absent(self.call("ceph", "remove a user", TIMEOUT, &words).output().await).map(drop)
    }

    /// Shuts a client out, for a number of seconds.
    pub(super) async fn shut_out(&self, address: &str, seconds: u32) -> Result<(), BackendError> {
        let words = ["osd", "blocklist", "add", address, &seconds.to_string()];
        self.call("ceph", "shut a client out", TIMEOUT, &words).output().await.map(drop)
    }

    pub(super) async fn space(&self) -> Result<Space, BackendError> {
        self.json("ceph", "measure the pool", &["df"]).await
    }
}

/// `None` where the thing is not there: both programs then end with `ENOENT`.
fn absent<T>(result: Result<T, BackendError>) -> Result<Option<T>, BackendError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(BackendError::Program { said, .. }) if said.ends_with("(exit status: 2)") => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let volume: VolumeId = "7c7d8f1e-0a4f-4a4c-9a43-6a1f7e5f9b11".parse().unwrap();
        assert_eq!(volume_of(&image_name(volume)), Some(volume));
        assert_eq!(volume_of("somebody-elses"), None);
        assert_eq!(volume_of("billet-x"), None);
    }

    #[test]
    fn what_is_not_there_is_no_error() {
        let program = |said: &str| -> Result<(), BackendError> {
            Err(BackendError::Program { program: "rbd", what: "look".into(), said: said.into() })
        };
        assert!(absent(program("rbd: error opening image (exit status: 2)")).unwrap().is_none());
        assert!(absent(program("rbd: no (exit status: 22)")).is_err());
    }
}
