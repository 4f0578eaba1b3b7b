//! The ramdisk: Debian's kernel, the modules of `images/recipes/ramdisk.toml`, and the static agent as `/init`. Nothing
//! else: no shell, no distribution. The same inputs give the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::archive::Archive;
use crate::cache::{self, Key};
use crate::deb::Apt;
use crate::kernel::{self, Kernel, Selection};
use crate::{paths, tool};

/// Arguments of `cargo xtask ramdisk`.
#[derive(Default, clap::Args)]
pub struct Args {
    /// Also make the archive of optional firmware files.
    #[arg(long)]
    pub firmware: bool,
    /// Put the archive together twice and compare the bytes.
    #[arg(long)]
    pub check_reproducible: bool,
}

/// Directory of the results below `artifacts/`.
pub const DIR: &str = "ramdisk";

/// Platform the agent is built for. Naming it keeps the static flags away from build scripts and macros.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    kernel: kernel::Recipe,
    compression: Compression,
    budget: Budget,
    modules: BTreeMap<String, Vec<String>>,
    firmware: Firmware,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compression {
    level: i32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    mib: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Firmware {
    packages: Vec<String>,
}

/// What `ramdisk.json` says.
#[derive(Debug, Serialize)]
struct Facts {
    kernel_release: String,
    kernel_package: String,
    kernel_version: String,
    agent_sha256: String,
    modules: usize,
    files: BTreeMap<&'static str, FileFacts>,
}

#[derive(Debug, Serialize)]
struct FileFacts {
    bytes: u64,
    sha256: String,
}

/// Builds the ramdisk and prints its size.
pub fn run(args: &Args) -> Result<()> {
    let recipe = recipe()?;
    let agent = agent()?;
    let kernel = Kernel::of(&recipe.kernel)?;
    let selection = kernel.select(recipe.modules.values().flatten().map(String::as_str))?;
    let key = Key::new("ramdisk", 3)
        .with_file(&paths::recipe("ramdisk"))?
        .with_file(&agent)?
        .with("kernel", format!("{} {}", kernel.package.name, kernel.package.version));
    cache::build(DIR, &["vmlinuz", "initramfs.zst", "ramdisk.json"], &key, |work| {
        make(work, &recipe, &kernel, &selection, &agent)
    })?;
    if args.check_reproducible {
        let again = contents(&kernel, &selection, &agent)?.compressed(recipe.compression.level)?;
        ensure!(again == fs::read(cache::at(DIR, "initramfs.zst"))?, "a second build gave other bytes");
        eprintln!("reproducible: a second build gave the same bytes");
    }
    if args.firmware {
        firmware(&recipe, &kernel, &selection)?;
    }
    report(&recipe)
}

/// Builds the static agent and returns its path.
pub fn agent() -> Result<PathBuf> {
    static_program("ramdisk-agent", "billet-agent")
}

/// Builds `program` of `package` so that it needs nothing of the system that it runs on, and returns its path.
pub fn static_program(package: &str, program: &str) -> Result<PathBuf> {
    static_program_for(PLATFORM, package, program)
}

/// As [`static_program`], for another platform, whose `rust-std` and C compiler (such as Debian's `gcc-aarch64-linux-gnu`) must
/// be there.
pub fn static_program_for(platform: &str, package: &str, program: &str) -> Result<PathBuf> {
    let home = |var: &str, below: &str| {
        let home = std::env::var(var).or_else(|_| std::env::var("HOME").map(|h| format!("{h}/{below}")));
        home.unwrap_or_default()
    };
    // Paths of this machine would end up in panic messages, and the bytes would depend on them.
    let flags = format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/cargo --remap-path-prefix={}=/billet",
        home("CARGO_HOME", ".cargo"),
        tool::text(&paths::root())?,
    );
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let variable = format!("CARGO_TARGET_{}", platform.to_uppercase().replace('-', "_"));
    let mut command = tool::command(
        &cargo,
        &["build", "--quiet", "--release", "--locked", "--target", platform, "-p", package],
    );
    command
        .current_dir(paths::root())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env(format!("{variable}_RUSTFLAGS"), flags);
    if platform != PLATFORM {
        // Debian's name of the C compiler for a platform.
        command.env(format!("{variable}_LINKER"), format!("{}-gcc", platform.replace("-unknown-", "-")));
    }
    tool::shown(&mut command)?;
    Ok(paths::target().join(platform).join("release").join(program))
}

fn recipe() -> Result<Recipe> {
    let path = paths::recipe("ramdisk");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("recipe {}", path.display()))
}

fn make(work: &Path, recipe: &Recipe, kernel: &Kernel, selection: &Selection, agent: &Path) -> Result<()> {
    fs::copy(kernel.image(), work.join("vmlinuz"))?;
    fs::write(
        work.join("initramfs.zst"),
        contents(kernel, selection, agent)?.compressed(recipe.compression.level)?,
    )?;
    let mut files = BTreeMap::new();
    for name in ["vmlinuz", "initramfs.zst"] {
        let path = work.join(name);
        files.insert(
            name,
            FileFacts { bytes: fs::metadata(&path)?.len(), sha256: cache::file_sha256(&path)? },
        );
    }
    let facts = Facts {
        kernel_release: kernel.release.clone(),
        kernel_package: kernel.package.name.clone(),
        kernel_version: kernel.package.version.clone(),
        agent_sha256: cache::file_sha256(agent)?,
        modules: selection.modules.len(),
        files,
    };
    fs::write(work.join("ramdisk.json"), serde_json::to_vec_pretty(&facts)?)?;
    Ok(())
}

/// What is in the initramfs.
fn contents(kernel: &Kernel, selection: &Selection, agent: &Path) -> Result<Archive> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "run", "sys", "tmp"] {
        archive.directory(dir);
    }
    archive.console();
    archive.file("init", 0o755, fs::read(agent).with_context(|| format!("reading {}", agent.display()))?);
    let from = kernel.modules_dir();
    let into = format!("lib/modules/{}", kernel.release);
    for module in selection.modules.keys() {
        let bytes = fs::read(from.join(module)).with_context(|| format!("reading module {module}"))?;
        archive.file(&format!("{into}/{module}"), 0o644, bytes);
    }
    let aliases = fs::read_to_string(from.join("modules.alias"))?;
    archive.file(&format!("{into}/modules.alias"), 0o644, selection.alias_table(&aliases).into());
    archive.file(&format!("{into}/modules.dep"), 0o644, selection.dep_table().into());
    for table in ["modules.builtin", "modules.builtin.modinfo"] {
        archive.file(&format!("{into}/{table}"), 0o644, fs::read(from.join(table))?);
    }
    Ok(archive)
}

/// The files that the chosen modules ask for, as far as Debian ships them: a second archive for the loader to add.
fn firmware(recipe: &Recipe, kernel: &Kernel, selection: &Selection) -> Result<()> {
    let apt = Apt::with_component("non-free-firmware")?;
    let mut packages = Vec::new();
    for name in &recipe.firmware.packages {
        packages.push(apt.find(name, None)?.0);
    }
    let mut wanted = Vec::new();
    for module in selection.modules.keys() {
        let path = kernel.modules_dir().join(module);
        let text = tool::output(tool::command("modinfo", &["-F", "firmware"]).arg(path))?;
        wanted.extend(text.lines().map(str::to_owned));
    }
    wanted.sort();
    wanted.dedup();
    let list: Vec<_> = packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
    let key = Key::new("firmware", 2).with("wanted", wanted.join("\n")).with("packages", list.join("\n"));
    cache::build(DIR, &["firmware.zst"], &key, |work| {
        let tree = work.join("tree");
        for package in &packages {
            apt.unpack(package, &tree)?;
        }
        let mut archive = Archive::default();
        let mut found = 0;
        for name in &wanted {
            let path = tree.join("lib/firmware").join(name);
            if path.is_file() {
                archive.file(&format!("lib/firmware/{name}"), 0o644, fs::read(path)?);
                found += 1;
            }
        }
        ensure!(found > 0, "none of the {} firmware files that the modules ask for was found", wanted.len());
        eprintln!("firmware: {found} of {} files that the modules name", wanted.len());
        fs::write(work.join("firmware.zst"), archive.compressed(recipe.compression.level)?)?;
        Ok(())
    })?;
    let bytes = fs::metadata(cache::at(DIR, "firmware.zst"))?.len();
    println!("firmware_mib {:.1}", mib(bytes));
    Ok(())
}

fn report(recipe: &Recipe) -> Result<()> {
    let size = |name| fs::metadata(cache::at(DIR, name)).map(|m| m.len());
    let (kernel, initramfs) = (size("vmlinuz")?, size("initramfs.zst")?);
    eprintln!("kernel {:.1} MiB, initramfs {:.1} MiB", mib(kernel), mib(initramfs));
    println!("ramdisk_mib {:.1}", mib(kernel + initramfs));
    if mib(kernel + initramfs) > recipe.budget.mib {
        bail!("the ramdisk is larger than its budget of {} MiB", recipe.budget.mib);
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
