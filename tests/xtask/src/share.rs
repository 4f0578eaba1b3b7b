//! `cargo xtask share`: the documents that go with the programs, as `/usr/share/billet` and bundles have them: guides, quirks of
//! hardware, what the programs are made of (CycloneDX 1.6), and the licences of that. The same sources give the same octets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{paths, tool};

/// Crates whose programs are given away.
const PROGRAMS: [&str; 4] = ["boot-server", "ramdisk-agent", "dpu-agent", "dpu-agent-blk"];
/// Debian packages that boot files come from, where they are installed.
const PACKAGES: [&str; 4] = ["ipxe", "shim-signed", "grub-efi-amd64-signed", "grub-efi-arm64-signed"];

/// Arguments of `cargo xtask share`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to; made anew
    #[arg(long, value_name = "DIRECTORY")]
    to: Option<PathBuf>,
}

/// Makes the directory.
pub fn run(args: &Args) -> Result<()> {
    let to = args.to.clone().unwrap_or_else(|| paths::artifacts().join("share"));
    let _ = fs::remove_dir_all(&to);
    documents(&to)?;
    let crates = crates()?;
    let packages = packages()?;
    put(&to, "sbom/billet.cdx.json", &sbom(&crates, &packages)?)?;
    put(&to, "licences/crates.txt", licences(&crates)?.as_bytes())?;
    println!("{}: {} crates, {} Debian packages", to.display(), crates.len(), packages.len());
    Ok(())
}

fn put(to: &Path, name: &str, octets: &[u8]) -> Result<()> {
    let path = to.join(name);
    fs::create_dir_all(path.parent().context("a directory")?)?;
    fs::write(&path, octets).with_context(|| format!("writing {}", path.display()))
}

fn documents(to: &Path) -> Result<()> {
    let root = paths::root();
    for name in
        ["README.md", "CHANGELOG.md", "docs/openapi.json", "config/billet.toml", "config/billet.service"]
    {
        let last = name.rsplit('/').next().unwrap_or(name);
        put(to, &format!("docs/{last}"), &fs::read(root.join(name))?)?;
    }
    put(to, "licences/LICENSE", &fs::read(root.join("LICENSE"))?)?;
    for (from, below) in
        [("docs/guide", "docs/guide"), ("docs/adr", "docs/adr"), ("boot-server/bmc/quirks", "quirks")]
    {
        let mut count = 0;
        for entry in fs::read_dir(root.join(from))? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a name that is text")?;
            put(to, &format!("{below}/{name}"), &fs::read(entry.path())?)?;
            count += 1;
        }
        ensure!(count > 0, "{from} is empty");
    }
    Ok(())
}

/// A crate that is in one of the programs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    licence: String,
    /// From a registry, with its checksum in `Cargo.lock`.
    checksum: Option<String>,
    dir: PathBuf,
}

fn crates() -> Result<Vec<Crate>> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let args =
        ["metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let text = tool::output(tool::command(&program, &args).current_dir(paths::root()))?;
    let metadata: Value = serde_json::from_str(&text).context("reading what cargo metadata says")?;
    let lock: toml::Table = fs::read_to_string(paths::root().join("Cargo.lock"))?.parse()?;
    let used = used(&metadata)?;
    ensure!(used.len() > 100, "only {} crates were found", used.len());
    let mut crates = Vec::new();
    for package in metadata["packages"].as_array().context("packages")? {
        if !package["id"].as_str().is_some_and(|id| used.contains(id)) {
            continue;
        }
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let dir = Path::new(&text("manifest_path")).parent().context("a directory")?.to_owned();
        let (name, version) = (text("name"), text("version"));
        let checksum = checksum(&lock, &name, &version);
        crates.push(Crate { licence: text("license"), checksum, dir, name, version });
    }
    crates.sort();
    Ok(crates)
}

/// Ids of all that the programs are built from, without what only tests need.
fn used(metadata: &Value) -> Result<BTreeSet<String>> {
    let packages = metadata["packages"].as_array().context("packages")?;
    let nodes = metadata["resolve"]["nodes"].as_array().context("a graph")?;
    let by_id: BTreeMap<&str, &Value> =
        nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let mut waiting: Vec<&str> = packages
        .iter()
        .filter(|package| package["source"].is_null())
        .filter(|package| package["name"].as_str().is_some_and(|name| PROGRAMS.contains(&name)))
        .filter_map(|package| package["id"].as_str())
        .collect();
    ensure!(!waiting.is_empty(), "no program was found");
    let mut used = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !used.insert(id.to_owned()) {
            continue;
        }
        let deps = by_id.get(id).and_then(|node| node["deps"].as_array());
        for dep in deps.into_iter().flatten() {
            let mut kinds = dep["dep_kinds"].as_array().into_iter().flatten();
            if kinds.any(|kind| kind["kind"] != "dev") {
                waiting.extend(dep["pkg"].as_str());
            }
        }
    }
    Ok(used)
}

fn checksum(lock: &toml::Table, name: &str, version: &str) -> Option<String> {
    let packages = lock.get("package")?.as_array()?;
    let found = packages.iter().find(|package| {
        package.get("name").and_then(toml::Value::as_str) == Some(name)
            && package.get("version").and_then(toml::Value::as_str) == Some(version)
    })?;
    found.get("checksum")?.as_str().map(str::to_owned)
}

/// Debian packages and their versions.
fn packages() -> Result<BTreeMap<String, String>> {
    let mut packages = BTreeMap::new();
    for name in PACKAGES {
        let args = ["-W", "-f", "${Version}", name];
        if let Ok(version) = tool::output(&mut tool::command("dpkg-query", &args))
            && !version.trim().is_empty()
        {
            packages.insert(name.to_owned(), version.trim().to_owned());
        }
    }
    let ramdisk = paths::artifacts().join("ramdisk/ramdisk.json");
    if ramdisk.exists() {
        let made: Value = serde_json::from_slice(&fs::read(&ramdisk)?)?;
        let text = |key: &str| {
            made[key].as_str().map(str::to_owned).with_context(|| format!("{key} of the ramdisk"))
        };
        packages.insert(text("kernel_package")?, text("kernel_version")?);
    }
    Ok(packages)
}

/// CycloneDX (ECMA-424), without serial number and moment, so that it is the same for the same sources.
fn sbom(crates: &[Crate], packages: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut components = Vec::new();
    for it in crates {
        let purl = format!("pkg:cargo/{}@{}", it.name, it.version);
        let mut component = json!({
            "type": "library", "bom-ref": purl, "name": it.name, "version": it.version, "purl": purl,
            "licenses": [{ "expression": it.licence.replace('/', " OR ") }],
        });
        if let Some(sha256) = &it.checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
        }
        components.push(component);
    }
    for (name, version) in packages {
        let purl = format!("pkg:deb/debian/{name}@{}", version.replace('+', "%2B").replace(':', "%3A"));
        components.push(json!({ "type": "operating-system", "bom-ref": purl, "name": name, "version": version, "purl": purl }));
    }
    let bom = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": { "component": { "type": "application", "name": "billet", "version": env!("CARGO_PKG_VERSION") } },
        "components": components,
    });
    Ok(serde_json::to_vec_pretty(&bom)?)
}

/// The texts of all licences, each once, with the crates that have it.
fn licences(crates: &[Crate]) -> Result<String> {
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::from("Billet's programs have code of these crates.\n\n");
    for it in crates.iter().filter(|it| it.checksum.is_some()) {
        let name = format!("{} {}", it.name, it.version);
        list.push_str(&format!("{name}: {}\n", it.licence));
        let mut files: Vec<PathBuf> =
            fs::read_dir(&it.dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files.into_iter().filter(|file| is_licence(file)) {
            texts
                .entry(String::from_utf8_lossy(&fs::read(file)?).into_owned())
                .or_default()
                .insert(name.clone());
        }
    }
    ensure!(texts.len() > 10, "only {} licences were found", texts.len());
    for (text, of) in texts {
        let of: Vec<String> = of.into_iter().collect();
        list.push_str(&format!("\n{}\n{}\n\n{}\n", "=".repeat(72), of.join(", "), text.trim_end()));
    }
    Ok(list)
}

fn is_licence(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_uppercase();
    path.is_file()
        && ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_are_made_of_is_listed() {
        let crates = crates().unwrap();
        let names: BTreeSet<&str> = crates.iter().map(|it| it.name.as_str()).collect();
        assert!(names.contains("ring") && names.contains("boot-server"), "{names:?}");
        assert!(
            !names.contains("proptest") && !names.contains("xtask"),
            "what only tests need is in no program"
        );
        let bom: Value = serde_json::from_slice(&sbom(&crates, &packages().unwrap()).unwrap()).unwrap();
        let ring = bom["components"].as_array().unwrap().iter().find(|it| it["name"] == "ring").unwrap();
        assert_eq!(ring["hashes"][0]["content"].as_str().unwrap().len(), 64);
        let licences = licences(&crates).unwrap();
        assert!(licences.contains("ring 0.17") && licences.contains("Permission is hereby granted"));
    }
}
