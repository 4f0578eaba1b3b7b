//! Guards of the architecture, each with the case that must make it bite.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::rack::{source_root, target};

/// Crates whose logic must be free of I/O, clocks and chance.
const CORES: [&str; 3] = ["boot-server/core", "dpu-agent/core", "ramdisk-agent/core"];
/// All that a core may be built from. None of these opens a socket or a file by itself.
const PURE: [&str; 12] = [
    "protocol",
    "images",
    // Without its `client`: values, operations and a replica.
    "ovsdb",
    "dhcproto",
    // Without its `chrono`: a file system over octets in memory, which asks no clock and opens nothing.
    "fatfs",
    "serde",
    "serde_json",
    "thiserror",
    "uuid",
    "crc32fast",
    "utoipa",
    "strsim",
];

#[test]
fn cores_depend_on_nothing_that_does_io() -> Result<()> {
    for core in CORES {
        let manifest = fs::read_to_string(source_root().join(core).join("Cargo.toml"))?;
        let table: toml::Table = manifest.parse()?;
        let dependencies = table["dependencies"].as_table().context("a core has dependencies")?;
        ensure!(!dependencies.is_empty(), "{core}: nothing was checked");
        let foreign: BTreeSet<&String> =
            dependencies.keys().filter(|name| !PURE.contains(&name.as_str())).collect();
        ensure!(foreign.is_empty(), "{core} depends on {foreign:?}; a core is built from {PURE:?} alone");
    }
    Ok(())
}

/// A merge that was never finished is text like any other, which only a reader finds.
#[test]
fn no_file_has_the_marks_of_a_conflict() -> Result<()> {
    let half = conflicted("a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> 1234567 (why)\n");
    ensure!(half && !conflicted("Title\n=======\n<<<<<<<<<<<<\n"), "the search is broken");
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(source_root()).output()?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let files: Vec<&str> =
        str::from_utf8(&listed.stdout)?.split('\0').filter(|name| !name.is_empty()).collect();
    ensure!(!files.is_empty(), "nothing was checked");
    let left: Vec<&&str> = files
        .iter()
        .filter(|name| fs::read_to_string(source_root().join(name)).is_ok_and(|text| conflicted(&text)))
        .collect();
    ensure!(left.is_empty(), "conflicts are left in {left:?}");
    Ok(())
}

fn conflicted(text: &str) -> bool {
    text.lines().any(|line| ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| line.starts_with(mark)))
}

/// The lint configuration of each core refuses a clock, and lets harmless code pass: it is neither absent nor broken.
#[test]
fn the_ban_on_clocks_and_sockets_bites() -> Result<()> {
    let bad = [
        ("std::time::Instant", "pub fn now() -> std::time::Instant { std::time::Instant::now() }"),
        ("std::net::UdpSocket", "pub fn take(_: &std::net::UdpSocket) {}"),
        ("std::fs::read", "pub fn load() -> Option<Vec<u8>> { std::fs::read(\"/etc/hostname\").ok() }"),
    ];
    for core in CORES {
        let config = source_root().join(core).join("clippy.toml");
        let clean = lint(&config, core, "pub fn sum(a: u32, b: u32) -> u32 { a.wrapping_add(b) }")?;
        ensure!(clean.is_none(), "{core}: harmless code is refused: {}", clean.unwrap_or_default());
        for (what, code) in bad {
            let refused = lint(&config, core, code)?;
            ensure!(
                refused.as_ref().is_some_and(|e| e.contains(what)),
                "{core}: {what} is not refused: {refused:?}"
            );
        }
    }
    Ok(())
}

/// Lints a crate of one line under `config`; returns what clippy says where it refuses.
fn lint(config: &Path, core: &str, code: &str) -> Result<Option<String>> {
    let dir: PathBuf = target().join("guards").join(core.replace('/', "-"));
    fs::create_dir_all(dir.join("src"))?;
    fs::copy(config, dir.join("clippy.toml"))?;
    fs::write(dir.join("Cargo.toml"), "[package]\nname = \"guard\"\nedition = \"2024\"\n[workspace]\n")?;
    let source = format!("//! Made by a test.\n{code}\n");
    fs::write(dir.join("src/lib.rs"), source)?;
    let output = Command::new(env!("CARGO"))
        .args(["clippy", "--offline", "--quiet", "--", "-D", "clippy::disallowed_types"])
        .args(["-D", "clippy::disallowed_methods"])
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .output()
        .context("running cargo clippy")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success()).then_some(said))
}
