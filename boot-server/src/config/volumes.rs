//! `[[volumes]]`: where volumes are kept.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use boot_server_core::volume::is_name;
use serde::{Deserialize, Serialize};
use volume::{Kind, Unit};

use super::ConfigError;

/// Types of one site.
const TYPES_MAX: usize = 64;
/// Where iSCSI targets listen (RFC 7143 section 4.2.7.1).
const ISCSI_PORT: u16 = 3260;
/// Where layers lie on a DPU.
const LAYERS: &str = "/var/lib/billet-dpu/layers";

/// `[[volumes]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct VolumeType {
    pub name: String,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portal: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitors: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
    #[serde(default)]
    pub encrypted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// A type of volumes, with what was left open filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSettings {
    /// Its name.
    pub name: String,
    /// All of them are encrypted.
    pub encrypted: bool,
    /// Where they are kept.
    pub place: volume::Settings,
}

impl VolumeType {
    /// Its directory: the one that is given, or one below the state directory; layers are on DPUs.
    pub(super) fn place_of(&self, state_dir: &Path) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| match self.kind {
            Kind::Instant => PathBuf::from(LAYERS),
            _ => state_dir.join("volumes").join(&self.name),
        })
    }
}

/// Checks them.
///
/// # Errors
/// [`ConfigError::Volumes`].
pub(super) fn settings(
    types: &[VolumeType],
    own: IpAddr,
    state_dir: &Path,
) -> Result<Vec<VolumeSettings>, ConfigError> {
    if types.len() > TYPES_MAX {
        return Err(ConfigError::Volumes(format!("there are more than {TYPES_MAX} types")));
    }
    for (n, this) in types.iter().enumerate() {
        if !is_name(&this.name) {
            return Err(ConfigError::Volumes(format!("`{}` is not a name for a type", this.name)));
        }
        if types[..n].iter().any(|other| other.name == this.name) {
            return Err(ConfigError::Volumes(format!("there are two types {}", this.name)));
        }
    }
    types.iter().map(|this| one(this, own, state_dir)).collect()
}

fn one(this: &VolumeType, own: IpAddr, state_dir: &Path) -> Result<VolumeSettings, ConfigError> {
    let refuse = |why: String| ConfigError::Volumes(format!("{}: {why}", this.name));
    let mut filled = this.clone();
    let directory = filled.directory.insert(this.place_of(state_dir));
    if !directory.is_absolute() {
        return Err(refuse("directory is no absolute path".to_owned()));
    }
    if this.kind == Kind::Iscsi {
        filled.portal.get_or_insert_with(|| SocketAddr::new(own, ISCSI_PORT));
    }
    // Each kind takes its own keys and refuses those of others.
    let mut keys = match serde_json::to_value(&filled) {
        Ok(serde_json::Value::Object(keys)) => keys,
        _ => return Err(refuse("it cannot be read".to_owned())),
    };
    keys.remove("name");
    keys.remove("encrypted");
    let place = serde_json::from_value(keys.into()).map_err(|error| refuse(error.to_string()))?;
    if this.encrypted && matches!(this.kind, Kind::NvmeTcp | Kind::Instant) {
        return Err(refuse(
            "encrypted: no exporter of a DPU encrypts what is reached over NVMe/TCP, or an instant volume"
                .to_owned(),
        ));
    }
    Ok(VolumeSettings { name: this.name.clone(), encrypted: this.encrypted, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<VolumeSettings>, String> {
        #[derive(Deserialize)]
        struct Part {
            volumes: Vec<VolumeType>,
        }
        let part: Part = toml::from_str(text).map_err(|error| error.to_string())?;
        let own = "10.77.0.1".parse().unwrap();
        settings(&part.volumes, own, Path::new("/state")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_open_is_filled_in() {
        let types = check("[[volumes]]\nname = \"standard\"\nkind = \"iscsi\"").unwrap();
        let volume::Settings::Iscsi(iscsi) = &types[0].place else { panic!() };
        assert_eq!(iscsi.portal.to_string(), "10.77.0.1:3260");
        assert_eq!(iscsi.directory, Path::new("/state/volumes/standard"));
        assert!(!types[0].encrypted);
        let vault = "[[volumes]]\nname = \"vault\"\nkind = \"iscsi\"\nencrypted = true";
        assert!(check(vault).unwrap()[0].encrypted);
        let instant = check("[[volumes]]\nname = \"instant\"\nkind = \"instant\"\nrate = 0").unwrap();
        let volume::Settings::Instant(instant) = &instant[0].place else { panic!() };
        assert_eq!((instant.directory.as_path(), instant.rate), (Path::new(LAYERS), Some(0)));
        let ceph = "[[volumes]]\nname = \"c\"\nkind = \"rbd\"\nconfiguration = \"/etc/ceph/ceph.conf\"\npool = \"p\"\n\
                    monitors = [\"10.0.0.1:6789\"]";
        assert_eq!(check(ceph).unwrap()[0].place.kind(), Kind::Rbd);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, why) in [
            ("[[volumes]]\nname = \"a b\"\nkind = \"file\"", "not a name"),
            (
                "[[volumes]]\nname = \"a\"\nkind = \"file\"\n[[volumes]]\nname = \"a\"\nkind = \"file\"",
                "two types",
            ),
            ("[[volumes]]\nname = \"a\"\nkind = \"tape\"", "tape"),
            ("[[volumes]]\nname = \"a\"\nkind = \"file\"\ndirectory = \"x\"", "absolute"),
            ("[[volumes]]\nname = \"a\"\nkind = \"file\"\nportal = \"10.0.0.1:3260\"", "portal"),
            ("[[volumes]]\nname = \"a\"\nkind = \"iscsi\"\nrate = 1", "rate"),
            ("[[volumes]]\nname = \"a\"\nkind = \"rbd\"\npool = \"p\"", "configuration"),
            (
                "[[volumes]]\nname = \"a\"\nkind = \"nvme-tcp\"\nencrypted = true\nunits = [{ kind = \"nvme-tcp\", \
                 address = \"10.0.0.1:4420\", subsystem = \"nqn.x\", namespace = 1, size = 1024 }]",
                "NVMe/TCP",
            ),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
