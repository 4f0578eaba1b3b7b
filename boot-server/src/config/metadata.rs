//! `[metadata]`: what installed OSes may ask for.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `[metadata]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Metadata {
    pub enabled: bool,
    pub listen: Option<SocketAddr>,
    pub secrets_by_network: bool,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { enabled: true, listen: None, secrets_by_network: false }
    }
}
