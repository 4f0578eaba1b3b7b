//! A key of the tests that signs images, and those who trust it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use images::Manifest;
use images::minisign::SecretKey;
use images::trust::{self, Anchor, TrustedKey};

/// The key of this number.
pub fn key(number: u8) -> SecretKey {
    SecretKey::of_seed(&[number; 32])
}

/// Signs an image by key 1.
pub fn signed(manifest: &Manifest) -> Option<String> {
    Some(trust::sign(&key(1), manifest, 1))
}

/// Who trusts key 1.
pub fn anchor() -> Anchor {
    let key = key(1).public();
    Anchor::new(vec![TrustedKey { key, title: "tests".to_owned(), floors: BTreeMap::new() }])
}

/// The same as a file in `dir`.
///
/// # Errors
/// Where it cannot be written.
pub fn anchor_file(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("trust.json");
    fs::write(&path, anchor().to_json())?;
    Ok(path)
}
