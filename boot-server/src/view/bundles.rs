//! Bundles as the API shows them.

use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bundle::{Checked, Release};

/// A bundle that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleView {
    /// Goes up from bundle to bundle.
    pub number: u64,
    /// SHA-256 of its index: which one of that number it is.
    pub digest: Sha256,
    /// Version of Billet that made it.
    pub version: String,
    /// Its boot files are those that are served.
    pub current: bool,
    /// The public key that signed it.
    pub key: String,
    /// When it was taken in.
    pub imported: Timestamp,
    /// By whom, or how.
    pub by: String,
    /// The newer one that was there, where it was taken in nevertheless.
    pub over: Option<u64>,
    /// Images that came with it, as `name:version`.
    pub images: Vec<String>,
    /// Files that came with it.
    pub files: u64,
}

impl BundleView {
    /// A bundle that is kept.
    pub fn of(release: &Release) -> Self {
        let index = &release.index;
        Self {
            number: index.number,
            digest: release.digest,
            version: index.version.clone(),
            current: release.current,
            key: release.note.key.clone(),
            imported: release.note.at,
            by: release.note.by.clone(),
            over: release.note.over,
            images: index.images.iter().map(|image| format!("{}:{}", image.name, image.version)).collect(),
            files: index.files.len() as u64,
        }
    }
}

/// A bundle that was read from end to end: everything in it is as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleCheckView {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its index.
    pub digest: Sha256,
    /// Version of Billet that made it.
    pub version: String,
    /// The public key that signed it.
    pub key: String,
    /// The bundle that must have been taken in before, where it has only what that one lacks.
    pub base: Option<u64>,
    /// Images in it, as `name:version`.
    pub images: Vec<String>,
    /// Files in it.
    pub files: u64,
    /// Pieces in it.
    pub pieces: u64,
    /// Octets of the pieces.
    pub size: u64,
    /// Why this site would not take it in nevertheless.
    pub refused: Option<String>,
}

impl BundleCheckView {
    /// What was found.
    pub fn of(checked: &Checked) -> Self {
        let index = &checked.opened.index;
        Self {
            number: index.number,
            digest: checked.opened.digest,
            version: index.version.clone(),
            key: checked.opened.key.clone(),
            base: index.base.map(|base| base.number),
            images: index.images.iter().map(|image| format!("{}:{}", image.name, image.version)).collect(),
            files: index.files.len() as u64,
            pieces: index.pieces().count() as u64,
            size: index.stored(),
            refused: checked.refused.as_ref().map(|error| crate::ingest::sentence(error)),
        }
    }
}
