//! The programs and what they carry: the UI's third-party assets, the server, the ramdisk.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Key;
use crate::ramdisk;
use crate::{paths, tool};

/// Builds everything that a running Billet consists of.
pub fn run() -> Result<()> {
    ui()?;
    server()?;
    ramdisk::static_program("dpu-agent-blk", "billet-blk")?;
    ramdisk::run(&ramdisk::Args::default())
}

/// Builds the server (release) and returns its path.
pub fn server() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let args = ["build", "--release", "--locked", "-p", "boot-server"];
    tool::shown(tool::command(&cargo, &args).current_dir(paths::root()))?;
    Ok(paths::target().join("release/billet"))
}

/// Fetches the UI's assets as locked, and puts those that are used where the server embeds them from. Done again only
/// when the lock file or the list of files changed.
pub fn ui() -> Result<()> {
    let ui = paths::root().join("boot-server/ui");
    let mut key = Key::new("ui", 1);
    for file in ["package.json", "package-lock.json", "copy-vendor.mjs"] {
        key = key.with_file(&ui.join(file))?;
    }
    let stamp = ui.join("vendor/.key");
    if fs::read_to_string(&stamp).is_ok_and(|s| s == key.hex()) {
        return Ok(());
    }
    // No package's own scripts are run; what is installed is what the lock file names, by hash.
    let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    tool::shown(tool::command("npm", &args).current_dir(&ui))?;
    tool::shown(tool::command("node", &["copy-vendor.mjs"]).current_dir(&ui))?;
    fs::write(&stamp, key.hex())?;
    Ok(())
}
