//! The programs and what they carry: the UI's third-party assets, the server, the ramdisk.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::ramdisk;
use crate::{paths, tool};

/// The part of the UI's package.json that this reads: `"vendor": {"<path in node_modules>": "<name in vendor/>"}`.
#[derive(Debug, Deserialize)]
struct Package {
    vendor: std::collections::BTreeMap<String, String>,
}

/// Builds everything that a running Billet consists of.
pub fn run() -> Result<()> {
    ui()?;
    server()?;
    ramdisk::run(&ramdisk::Args::default())
}

/// Builds the server (release) and returns its path.
pub fn server() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let args = ["build", "--release", "--locked", "-p", "boot-server"];
    tool::shown(tool::command(&cargo, &args).current_dir(paths::root()))?;
    Ok(paths::target().join("release/billet"))
}

/// Fetches the UI's assets as locked, and puts those that its package.json names where the server embeds them from.
pub fn ui() -> Result<()> {
    let ui = paths::root().join("boot-server/ui");
    let manifest = ui.join("package.json");
    let text = fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let package: Package = serde_json::from_str(&text).context("boot-server/ui/package.json")?;
    let vendor = ui.join("vendor");
    let stamp = vendor.join(".lock-sha256");
    let lock =
        crate::cache::file_sha256(&ui.join("package-lock.json"))? + &crate::cache::file_sha256(&manifest)?;
    if fs::read_to_string(&stamp).is_ok_and(|s| s == lock) {
        return Ok(());
    }
    // No package's own scripts are run.
    tool::shown(
        tool::command("npm", &["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&ui),
    )?;
    fs::create_dir_all(&vendor)?;
    for (from, to) in &package.vendor {
        let from = ui.join("node_modules").join(from);
        let to = vendor.join(to);
        fs::create_dir_all(to.parent().unwrap_or(&vendor))?;
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    fs::write(&stamp, lock)?;
    Ok(())
}
