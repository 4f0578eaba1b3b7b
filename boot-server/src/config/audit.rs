//! `[audit]` and `[approvals]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Kept};

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Audit {
    pub reads: bool,
    pub keep_days: u32,
    pub keep_rows: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { reads: true, keep_days: 730, keep_rows: 20_000_000 }
    }
}

/// `[approvals]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Approvals {
    pub all_nodes: bool,
    pub expire_hours: u32,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { all_nodes: false, expire_hours: 24 }
    }
}

/// What is written down, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// Also who looked at what.
    pub reads: bool,
    /// Which entries are kept.
    pub kept: Kept,
}

impl From<&Audit> for AuditSettings {
    fn from(config: &Audit) -> Self {
        let age = (config.keep_days > 0).then(|| Duration::from_hours(24 * u64::from(config.keep_days)));
        Self { reads: config.reads, kept: Kept { age, rows: config.keep_rows } }
    }
}

/// Whose destructive requests wait for a second person, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalSettings {
    /// Those on every node; else those on nodes of pools that say so.
    pub all_nodes: bool,
    /// From the request on.
    pub lasts: Duration,
}

impl ApprovalSettings {
    /// What the file says.
    ///
    /// # Errors
    /// Where nobody would have time to approve anything.
    pub fn new(config: &Approvals) -> Result<Self, ConfigError> {
        if !(1..=24 * 90).contains(&config.expire_hours) {
            return Err(ConfigError::Approvals("expire_hours must be from 1 to 2160".to_owned()));
        }
        Ok(Self { all_nodes: config.all_nodes, lasts: Duration::from_hours(u64::from(config.expire_hours)) })
    }
}
