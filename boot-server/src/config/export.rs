//! `[export]`

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[export]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Export {
    pub directory: Option<PathBuf>,
    pub every_minutes: u32,
    pub keep: usize,
}

impl Default for Export {
    fn default() -> Self {
        Self { directory: None, every_minutes: 60, keep: 168 }
    }
}

/// Where and how often is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSettings {
    /// Where archives are put.
    pub directory: PathBuf,
    /// How often.
    pub every: Duration,
    /// How many are kept there.
    pub keep: usize,
}

impl ExportSettings {
    /// Nothing where no directory is named.
    pub fn new(config: &Export) -> Option<Self> {
        Some(Self {
            directory: config.directory.clone()?,
            every: Duration::from_mins(u64::from(config.every_minutes.max(1))),
            keep: config.keep.max(1),
        })
    }
}
