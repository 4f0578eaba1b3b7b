//! Boot loaders of Debian 13, for what those of Debian 12 cannot do: GRUB by HTTP with Secure Boot on, and arm64.

use std::fs;

use anyhow::{Context, Result};

use crate::cache::{self, Key};
use crate::deb::Apt;

/// Directory of the results below `artifacts/`.
pub const DIR: &str = "loaders";
/// The release that they are taken from.
const SUITE: &str = "trixie";
/// Package, and the file of it.
const FILES: &[(&str, &str)] = &[
    ("grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
    ("ipxe", "usr/lib/ipxe/ipxe-arm64.efi"),
];

/// Fetches what is not there yet; a newer version is looked for only where something is missing.
pub fn run() -> Result<()> {
    let names: Vec<&str> = FILES.iter().map(|(_, path)| path.rsplit('/').next().unwrap_or(path)).collect();
    let key = Key::new("loaders", 1).with("suite", SUITE).with("files", names.join("\n"));
    cache::build(DIR, &names, &key, |work| {
        let apt = Apt::of_suite(SUITE)?;
        for ((package, path), name) in FILES.iter().zip(&names) {
            let (package, _) = apt.find(package, None)?;
            let tree = work.join("tree");
            apt.unpack(&package, &tree)?;
            fs::copy(tree.join(path), work.join(name))
                .with_context(|| format!("{} {} has no {path}", package.name, package.version))?;
        }
        Ok(())
    })?;
    Ok(())
}
