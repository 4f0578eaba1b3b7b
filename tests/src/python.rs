//! Virtual environments with programs of others, from the Python package index; each made once, below the target directory.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::rack::target;

/// The environment `name` with these packages, all pinned; `None` where it cannot be made (no python3-venv, no package
/// index).
///
/// # Errors
/// Where the target directory cannot be written.
pub fn environment(name: &str, packages: &[&str]) -> Result<Option<PathBuf>> {
    let directory = target().join(format!("{name}-venv"));
    let marker = directory.join(format!("ready-{}", packages.join("-").replace(['=', '/'], "")));
    fs::create_dir_all(target())?;
    let lock = File::create(target().join(format!(".{name}-venv.lock")))?;
    lock.lock().context("waiting for another test that makes the same environment")?;
    if marker.exists() {
        return Ok(Some(directory));
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory).status();
    if !made.is_ok_and(|s| s.success()) {
        return Ok(None);
    }
    let pip = Command::new(directory.join("bin/pip")).args(["install", "--quiet"]).args(packages).status();
    if !pip.is_ok_and(|s| s.success()) {
        return Ok(None);
    }
    fs::write(marker, "")?;
    Ok(Some(directory))
}
