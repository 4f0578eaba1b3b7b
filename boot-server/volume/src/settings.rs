//! Settings of a backend, as they stand in the server's configuration under `[[volumes]]` or wherever it keeps them.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Backend, BackendError, ExternalBackend, ExternalSettings, FileBackend, InstantBackend, InstantSettings,
    IscsiBackend, IscsiSettings, Kind, RbdBackend, RbdSettings,
};

/// Settings of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Settings {
    /// Files of this machine.
    File(FileSettings),
    /// Files behind a target of our own.
    Iscsi(IscsiSettings),
    /// Logical units of others.
    IscsiExternal(ExternalSettings),
    /// Images of Ceph.
    Rbd(RbdSettings),
    /// Namespaces of others.
    NvmeTcp(ExternalSettings),
    /// Images under layers on DPUs.
    Instant(InstantSettings),
}

/// Settings of backend `file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// Where volumes lie: absolute path of a directory of its own.
    pub directory: PathBuf,
}

impl Settings {
    /// Of which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File(_) => Kind::File,
            Self::Iscsi(_) => Kind::Iscsi,
            Self::IscsiExternal(_) => Kind::IscsiExternal,
            Self::Rbd(_) => Kind::Rbd,
            Self::NvmeTcp(_) => Kind::NvmeTcp,
            Self::Instant(_) => Kind::Instant,
        }
    }

    /// The directory that is this backend's alone; of `instant`, on each DPU.
    pub fn directory(&self) -> &std::path::Path {
        match self {
            Self::File(settings) => &settings.directory,
            Self::Iscsi(settings) => &settings.directory,
            Self::IscsiExternal(settings) | Self::NvmeTcp(settings) => &settings.directory,
            Self::Rbd(settings) => &settings.directory,
            Self::Instant(settings) => &settings.directory,
        }
    }

    /// Opens the backend; to be called in a tokio runtime, which `iscsi` needs from then on.
    ///
    /// # Errors
    /// Where its directory cannot be made, or is not absolute, or settings contradict each other.
    pub fn open(self) -> Result<Arc<dyn Backend>, BackendError> {
        if !self.directory().is_absolute() {
            let what = self.directory().display();
            return Err(BackendError::Refused(format!("{what} is no absolute path of a directory")));
        }
        let kind = self.kind();
        Ok(match self {
            Self::File(settings) => Arc::new(FileBackend::open(&settings.directory)?),
            Self::Iscsi(settings) => Arc::new(IscsiBackend::open(settings)?),
            Self::IscsiExternal(settings) | Self::NvmeTcp(settings) => {
                Arc::new(ExternalBackend::open(kind, settings)?)
            }
            Self::Rbd(settings) => Arc::new(RbdBackend::open(settings)?),
            Self::Instant(settings) => Arc::new(InstantBackend::open(settings)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_every_kind() {
        let good = [
            r#"{"kind":"file","directory":"/v"}"#,
            r#"{"kind":"iscsi","directory":"/v","portal":"10.77.0.1:3260"}"#,
            r#"{"kind":"instant","directory":"/v","rate":1048576,"capacity":1073741824,"store":"http://10.0.0.9:8080"}"#,
            r#"{"kind":"rbd","directory":"/v","configuration":"/etc/ceph/ceph.conf","pool":"p","monitors":["a:6789"]}"#,
            r#"{"kind":"iscsi-external","directory":"/v","units":[{"kind":"iscsi","portal":"10.0.0.1:3260",
                "target":"iqn.x","lun":1,"size":1024,"chap":{"user":"u","password":"p"}}]}"#,
            r#"{"kind":"nvme-tcp","directory":"/v","units":[{"kind":"nvme-tcp","address":"10.0.0.1:4420",
                "subsystem":"nqn.x","namespace":1,"size":1024}]}"#,
        ];
        for text in good {
            let settings: Settings = serde_json::from_str(text).unwrap();
            assert!(text.contains(settings.kind().as_str()));
            assert_eq!(settings.directory(), std::path::Path::new("/v"));
            let novel = text.replacen("\"directory\"", "\"novel\":1,\"directory\"", 1);
            assert!(serde_json::from_str::<Settings>(&novel).is_err(), "{novel}");
        }
        let relative = Settings::File(FileSettings { directory: "v".into() });
        assert!(relative.open().is_err());
    }

    #[test]
    fn a_unit_of_another_kind_is_refused() {
        let text = r#"{"kind":"nvme-tcp","directory":"/nowhere","units":[{"kind":"iscsi","portal":"10.0.0.1:3260",
            "target":"iqn.x","lun":1,"size":1024}]}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        assert!(settings.open().is_err_and(|e| e.to_string().contains("iqn.x")));
    }
}
