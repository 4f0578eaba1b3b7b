//! A Debian kernel unpacked from its package, and the modules that a recipe names with all they depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cache::{self, Key};
use crate::deb::{Apt, Package};
use crate::tool;

/// The `[kernel]` table of a recipe.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// `linux-image-amd64`, or an exact `linux-image-<release>`.
    pub package: String,
    /// An exact version; the newest otherwise.
    pub version: Option<String>,
}

/// A kernel on disk.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// The package it came from.
    pub package: Package,
    dir: PathBuf,
}

impl Kernel {
    /// Fetches and unpacks the kernel of a recipe, with depmod's tables.
    pub fn of(recipe: &Recipe) -> Result<Self> {
        let (package, depends) = Apt::Host.find(&recipe.package, recipe.version.as_deref())?;
        let package = match image_of(&depends) {
            Some(package) => package,
            None => package,
        };
        let release = package.name.strip_prefix("linux-image-").context("not a kernel package")?.to_owned();
        let name = format!("{release}_{}", package.version);
        let key = Key::new("kernel", 1).with("package", &name);
        cache::build("kernel", &[&name], &key, |work| {
            let tree = work.join(&name);
            Apt::Host.unpack(&package, &tree)?;
            tool::quiet(&mut tool::command("depmod", &["-b", tool::text(&tree)?, &release]))
        })?;
        Ok(Self { release, package, dir: cache::at("kernel", &name) })
    }

    /// The kernel image.
    pub fn image(&self) -> PathBuf {
        self.dir.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Directory with modules and their tables.
    pub fn modules_dir(&self) -> PathBuf {
        self.dir.join("lib/modules").join(&self.release)
    }

    /// The modules of these names with everything they need, from depmod's tables.
    pub fn select<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Selection> {
        let read = |file: &str| {
            let path = self.modules_dir().join(file);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let tables = Tables::parse(
            &read("modules.dep")?,
            &read("modules.softdep")?,
            &read("modules.alias")?,
            &read("modules.builtin")?,
        );
        tables.select(names)
    }
}

/// A metapackage depends on the image package with its exact version.
fn image_of(depends: &str) -> Option<Package> {
    depends.split(',').find_map(|d| {
        let (name, rest) = d.trim().split_once(" (= ")?;
        let version = rest.strip_suffix(')')?;
        name.starts_with("linux-image-")
            .then(|| Package { name: name.to_owned(), version: version.to_owned() })
    })
}

/// Chosen modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Path below the modules directory, and the paths it needs, the last of which is to be loaded first. Soft
    /// dependencies ("pre") are made ordinary ones: a loader that follows this table needs no other.
    pub modules: BTreeMap<String, Vec<String>>,
}

impl Selection {
    /// All of them, each after what it needs.
    pub fn load_order(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let mut order = Vec::new();
        for (module, needs) in &self.modules {
            for path in needs.iter().rev().chain([module]) {
                if seen.insert(path.as_str()) {
                    order.push(path.as_str());
                }
            }
        }
        order
    }

    /// `modules.dep` of these modules alone.
    pub fn dep_table(&self) -> String {
        let line = |(module, needs): (&String, &Vec<String>)| {
            let needs = needs.iter().map(|n| format!(" {n}")).collect::<String>();
            format!("{module}:{needs}\n")
        };
        self.modules.iter().map(line).collect()
    }

    /// The lines of `modules.alias` that lead to these modules.
    pub fn alias_table(&self, table: &str) -> String {
        let names: BTreeSet<_> = self.modules.keys().map(|p| module_name(p)).collect();
        let ours = |line: &&str| line.rsplit(' ').next().is_some_and(|m| names.contains(&module_name(m)));
        table.lines().filter(|l| l.starts_with("alias ")).filter(ours).map(|l| format!("{l}\n")).collect()
    }
}

/// depmod's tables, parsed.
struct Tables {
    /// Module name to its path and the paths it needs.
    modules: BTreeMap<String, (String, Vec<String>)>,
    /// Module name to what is wanted before it: names or aliases.
    before: BTreeMap<String, Vec<String>>,
    /// Plain aliases (without wildcards) to module names.
    aliases: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Tables {
    fn parse(dep: &str, softdep: &str, alias: &str, builtin: &str) -> Self {
        let mut tables = Self {
            modules: BTreeMap::new(),
            before: BTreeMap::new(),
            aliases: BTreeMap::new(),
            builtin: builtin.lines().map(module_name).collect(),
        };
        for line in dep.lines() {
            if let Some((path, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                tables.modules.insert(module_name(path), (path.to_owned(), needs));
            }
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(module) = words.next() else { continue };
            let words = words.skip_while(|w| *w != "pre:").skip(1).take_while(|w| *w != "post:");
            tables.before.entry(module_name(module)).or_default().extend(words.map(str::to_owned));
        }
        for line in alias.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["alias", alias, module] = words[..]
                && !alias.contains(['*', '?', '['])
            {
                tables.aliases.entry(module_name(alias)).or_default().push(module_name(module));
            }
        }
        tables
    }

    fn select<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Selection> {
        let mut selection = Selection::default();
        for name in names {
            let name = module_name(name);
            if !self.modules.contains_key(&name) && !self.builtin.contains(&name) {
                bail!("the kernel has no module `{name}`");
            }
            self.add(&name, &mut selection, 0);
        }
        Ok(selection)
    }

    /// Adds a module, what it needs, and what is wanted before any of those.
    fn add(&self, name: &str, selection: &mut Selection, depth: usize) {
        /// Soft dependencies of soft dependencies; in practice the chain is two long.
        const DEPTH_MAX: usize = 8;
        let Some((path, needs)) = self.modules.get(name) else { return };
        if depth > DEPTH_MAX || selection.modules.contains_key(path) {
            return;
        }
        selection.modules.insert(path.clone(), Vec::new());
        let mut all = needs.clone();
        for module in needs.iter().map(|n| module_name(n)).chain([name.to_owned()]) {
            self.add(&module, selection, depth + 1);
            for wanted in self.before.get(&module).into_iter().flatten() {
                for first in self.named(wanted) {
                    self.add(&first, selection, depth + 1);
                    if let Some((path, needs)) = self.modules.get(&first) {
                        all.extend([path.clone()].into_iter().chain(needs.iter().cloned()));
                    }
                }
            }
        }
        // The last mention is the one that is loaded first; earlier mentions of the same are superfluous.
        let mut seen = BTreeSet::new();
        let mut needs: Vec<_> = all.into_iter().rev().filter(|n| seen.insert(n.clone())).collect();
        needs.reverse();
        needs.retain(|n| n != path);
        selection.modules.insert(path.clone(), needs);
    }

    /// Modules that a name or alias stands for.
    fn named(&self, wanted: &str) -> Vec<String> {
        let wanted = module_name(wanted);
        if self.modules.contains_key(&wanted) {
            return vec![wanted];
        }
        self.aliases.get(&wanted).cloned().unwrap_or_default()
    }
}

/// `kernel/drivers/net/foo-bar.ko` is module `foo_bar`: the kernel writes `_` for `-`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once(".ko").map_or(file, |(stem, _)| stem);
    stem.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "k/sd_mod.ko: k/t10_pi.ko k/crc-t10dif.ko k/scsi_mod.ko\nk/t10_pi.ko: k/crc-t10dif.ko\n\
        k/crc-t10dif.ko:\nk/scsi_mod.ko:\nk/crct10dif_generic.ko: k/crct10dif_common.ko\nk/crct10dif_common.ko:\n\
        k/other.ko:\n";
    const SOFT: &str = "# comment\nsoftdep crc_t10dif pre: crct10dif\nsoftdep scsi_mod post: other\n";
    const ALIAS: &str = "alias crct10dif crct10dif_generic\nalias pci:v*d1 sd_mod\nalias x:y other\n";

    fn tables() -> Tables {
        Tables::parse(DEP, SOFT, ALIAS, "kernel/built-in.ko\n")
    }

    #[test]
    fn soft_dependencies_are_loaded_first() {
        let selection = tables().select(["sd-mod"]).unwrap();
        let order = selection.load_order();
        let at = |m: &str| order.iter().position(|p| *p == m).unwrap_or_else(|| panic!("{m} in {order:?}"));
        assert!(at("k/crct10dif_common.ko") < at("k/crct10dif_generic.ko"));
        assert!(at("k/crct10dif_generic.ko") < at("k/crc-t10dif.ko"));
        assert!(at("k/crc-t10dif.ko") < at("k/t10_pi.ko"));
        assert!(at("k/t10_pi.ko") < at("k/sd_mod.ko"));
        assert_eq!(order.len(), 6, "{order:?}");
    }

    #[test]
    fn every_need_is_there() {
        let selection = tables().select(["sd_mod"]).unwrap();
        for (module, needs) in &selection.modules {
            for need in needs {
                assert!(selection.modules.contains_key(need), "{module} needs {need}");
            }
        }
    }

    #[test]
    fn built_in_is_fine_and_unknown_is_not() {
        assert_eq!(tables().select(["built-in"]).unwrap(), Selection::default());
        assert!(tables().select(["nonesuch"]).is_err());
    }

    #[test]
    fn alias_table_is_cut_to_what_is_there() {
        assert_eq!(
            tables().select(["sd_mod"]).unwrap().alias_table(ALIAS),
            "alias crct10dif crct10dif_generic\nalias pci:v*d1 sd_mod\n"
        );
    }

    #[test]
    fn metapackage_names_its_image() {
        let found = image_of("linux-image-6.1.0-56-amd64 (= 6.1.192-2)").unwrap();
        assert_eq!(
            (found.name.as_str(), found.version.as_str()),
            ("linux-image-6.1.0-56-amd64", "6.1.192-2")
        );
        assert_eq!(image_of("kmod, linux-base (>= 4.3~)"), None);
    }
}
