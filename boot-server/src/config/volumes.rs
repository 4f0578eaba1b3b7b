//! `[[volumes]]`: where volumes are kept.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use boot_server_core::volume::is_name;
use serde::{Deserialize, Serialize};
use volume::Kind;

use super::ConfigError;

/// Types of one site.
const TYPES_MAX: usize = 64;
/// Where iSCSI targets listen (RFC 7143 section 4.2.7.1).
const ISCSI_PORT: u16 = 3260;

/// What names of targets begin with, where nobody says otherwise.
const TARGET_PREFIX: &str = "iqn.2026-11.org.billet";

/// `[[volumes]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct VolumeType {
    pub name: String,
    pub kind: Kind,
    #[serde(default)]
    pub directory: Option<PathBuf>,
    #[serde(default)]
    pub portal: Option<SocketAddr>,
    #[serde(default)]
    pub target_prefix: Option<String>,
}

/// A type of volumes, with what was left open filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSettings {
    /// Its name.
    pub name: String,
    /// Where they are kept.
    pub place: VolumePlace,
}

/// Where volumes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumePlace {
    /// Files in a directory, for a DPU that is this machine.
    File {
        /// The directory.
        directory: PathBuf,
    },
    /// Files in a directory, behind a target of our own.
    Iscsi(volume::IscsiSettings),
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
    let refuse = |why: &str| Err(ConfigError::Volumes(format!("{}: {why}", this.name)));
    let directory = this.directory.clone().unwrap_or_else(|| state_dir.join("volumes").join(&this.name));
    if !directory.is_absolute() {
        return refuse("directory is no absolute path");
    }
    let place = match this.kind {
        Kind::File if this.portal.is_some() || this.target_prefix.is_some() => {
            return refuse("portal and target_prefix are for kind iscsi");
        }
        Kind::File => VolumePlace::File { directory },
        Kind::Iscsi => VolumePlace::Iscsi(volume::IscsiSettings {
            directory,
            portal: this.portal.unwrap_or_else(|| SocketAddr::new(own, ISCSI_PORT)),
            target_prefix: this.target_prefix.clone().unwrap_or_else(|| TARGET_PREFIX.to_owned()),
        }),
        kind => return refuse(&format!("this server cannot keep volumes of kind {} yet", kind.as_str())),
    };
    Ok(VolumeSettings { name: this.name.clone(), place })
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
        let VolumePlace::Iscsi(iscsi) = &types[0].place else { panic!() };
        assert_eq!(iscsi.portal.to_string(), "10.77.0.1:3260");
        assert_eq!(iscsi.directory, Path::new("/state/volumes/standard"));
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
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
