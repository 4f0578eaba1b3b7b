//! Where things are in the source tree.

use std::path::{Path, PathBuf};

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

/// What the verbs make and keep; not part of the sources.
pub fn artifacts() -> PathBuf {
    root().join("artifacts")
}

/// A recipe of `images/recipes`.
pub fn recipe(name: &str) -> PathBuf {
    root().join("images/recipes").join(format!("{name}.toml"))
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
