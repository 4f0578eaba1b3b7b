//! `[console]`: recordings, and the way in by SSH.

use std::net::SocketAddr;
use std::time::Duration;

use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::console::record::Keep;

/// `[console]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Console {
    pub recordings_keep_days: u32,
    pub recordings_max_mib: u32,
    pub ssh_listen: Option<SocketAddr>,
    pub ssh_keys: Vec<SshKey>,
}

impl Default for Console {
    fn default() -> Self {
        Self { recordings_keep_days: 90, recordings_max_mib: 1024, ssh_listen: None, ssh_keys: Vec::new() }
    }
}

/// `[[console.ssh_keys]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct SshKey {
    pub token: String,
    pub key: String,
}

/// What consoles run with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleSettings {
    /// Which recordings stay.
    pub keep: Keep,
    /// Where the SSH gateway listens, if it does.
    pub ssh_listen: Option<SocketAddr>,
    /// Names of tokens with public keys that stand for them.
    pub ssh_keys: Vec<(String, PublicKey)>,
}

impl ConsoleSettings {
    /// Parses the keys.
    ///
    /// # Errors
    /// [`ConfigError::SshKey`].
    pub fn new(config: &Console) -> Result<Self, ConfigError> {
        let keys = config.ssh_keys.iter().map(|SshKey { token, key }| {
            let parsed = PublicKey::from_openssh(key.trim()).map_err(|_| {
                ConfigError::SshKey(format!(
                    "the key of `{token}` is no line such as `ssh-ed25519 AAAA… name`"
                ))
            })?;
            Ok((token.clone(), parsed))
        });
        let days = u64::from(config.recordings_keep_days);
        Ok(Self {
            keep: Keep {
                age: (days > 0).then(|| Duration::from_hours(24 * days)),
                bytes: u64::from(config.recordings_max_mib) << 20,
            },
            ssh_listen: config.ssh_listen,
            ssh_keys: keys.collect::<Result<_, ConfigError>>()?,
        })
    }
}
