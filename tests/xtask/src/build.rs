//! The programs and what they carry: the UI's third-party assets, the server, the ramdisk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cache::Key;
use crate::ramdisk;
use crate::{paths, tool};

/// The programs of a DPU, each with its package.
const DPU: [(&str, &str); 2] = [("dpu-agent-blk", "billet-blk"), ("dpu-agent", "billet-dpu")];

/// Arguments of `cargo xtask dpu`.
#[derive(clap::Args)]
pub struct DpuArgs {
    /// What the DPU's processor is to Rust; a BlueField's is an aarch64. Needs `rustup target add` of it, and a C compiler
    /// for it (`gcc-aarch64-linux-gnu`).
    #[arg(long, default_value = "aarch64-unknown-linux-gnu")]
    platform: String,
}

/// Builds the programs of a DPU, which need nothing of the system there, and prints where they are.
pub fn dpu(args: &DpuArgs) -> Result<()> {
    for (package, program) in DPU {
        println!("{}", ramdisk::static_program_for(&args.platform, package, program)?.display());
    }
    Ok(())
}

/// Builds everything that a running Billet consists of.
pub fn run() -> Result<()> {
    ui()?;
    server()?;
    for (package, program) in DPU {
        ramdisk::static_program(package, program)?;
    }
    ramdisk::run(&ramdisk::Args::default())
}

/// Builds the server (release) and returns its path.
pub fn server() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let args = ["build", "--release", "--locked", "-p", "boot-server"];
    tool::shown(tool::command(&cargo, &args).current_dir(paths::root()))?;
    Ok(paths::target().join("release/billet"))
}

/// Fetches the UI's assets as locked, and puts those that are used where the server embeds them from.
pub fn ui() -> Result<()> {
    let ui = paths::root().join("boot-server/ui");
    once(&ui, &["package.json", "package-lock.json", "copy-vendor.mjs"], "vendor/.key", || {
        locked(&ui)?;
        tool::shown(tool::command("node", &["copy-vendor.mjs"]).current_dir(&ui))
    })
}

/// Fetches the OpenID provider that the suite `oidc` signs in at, as locked.
pub fn openid_provider() -> Result<()> {
    let provider = paths::root().join("tests/openid");
    once(&provider, &["package.json", "package-lock.json"], "node_modules/.key", || locked(&provider))
}

/// Makes something out of files of a directory, again only when they changed.
fn once(directory: &Path, files: &[&str], stamp: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut key = Key::new("npm", 1);
    for file in files {
        key = key.with_file(&directory.join(file))?;
    }
    let stamp = directory.join(stamp);
    if fs::read_to_string(&stamp).is_ok_and(|s| s == key.hex()) {
        return Ok(());
    }
    make()?;
    fs::write(&stamp, key.hex())?;
    Ok(())
}

/// Installs what the lock file of a directory names, by hash. No package's own scripts are run.
fn locked(directory: &Path) -> Result<()> {
    let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    tool::shown(tool::command("npm", &args).current_dir(directory))
}
