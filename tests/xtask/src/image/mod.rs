//! OS images: bootable raw disks built from packages by the recipes of `images/recipes`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache;
use crate::paths;

pub mod debian;
pub mod tiny;

/// Directory of the results below `artifacts/`.
pub const DIR: &str = "images";

/// Arguments of `cargo xtask image`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    which: Which,
}

#[derive(Subcommand)]
enum Which {
    /// The small test OS.
    Tiny {
        /// Which of the two.
        #[arg(long, value_enum, default_value = "a")]
        variant: Variant,
    },
    /// Debian 12 with cloud-init.
    #[command(name = "debian-12")]
    Debian12,
}

/// The small test OS exists twice, so that a reinstall can be told from the install before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// tiny-a
    A,
    /// tiny-b
    B,
}

/// What `<image>.json` says.
#[derive(Debug, Serialize)]
struct Facts<'a> {
    name: &'a str,
    version: String,
    raw_size: u64,
    sha256: String,
    default_user: Option<&'a str>,
    kernel: String,
}

/// Builds the image and prints its path.
pub fn run(args: &Args) -> Result<()> {
    let path = match args.which {
        Which::Tiny { variant } => tiny::build(variant)?,
        Which::Debian12 => debian::build()?,
    };
    println!("{}", path.display());
    Ok(())
}

fn recipe<T: DeserializeOwned>(name: &str) -> Result<T> {
    let path = paths::recipe(name);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("recipe {}", path.display()))
}

/// A file that belongs to a recipe.
fn recipe_file(recipe: &str, name: &str) -> PathBuf {
    paths::root().join("images/recipes").join(recipe).join(name)
}

/// A UUID (version 8, RFC 9562 section 5.8) made of the hash of the inputs, so that no two images share it.
fn uuid_of(key: &cache::Key) -> String {
    let h = key.hex();
    format!("{}-{}-8{}-8{}-{}", &h[..8], &h[8..12], &h[13..16], &h[17..20], &h[20..32])
}

fn write_facts(
    work: &Path,
    raw: &str,
    name: &str,
    version: String,
    user: Option<&str>,
    kernel: String,
) -> Result<()> {
    let path = work.join(raw);
    let facts = Facts {
        name,
        version,
        raw_size: fs::metadata(&path)?.len(),
        sha256: cache::file_sha256(&path)?,
        default_user: user,
        kernel,
    };
    fs::write(work.join(format!("{name}.json")), serde_json::to_vec_pretty(&facts)?)?;
    Ok(())
}
