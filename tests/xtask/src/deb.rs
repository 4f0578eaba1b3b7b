//! Debian packages as a source of files: fetched by apt (which checks their signatures), unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{paths, tool};

/// A package at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Where apt takes its settings from.
#[derive(Debug, Clone)]
pub enum Apt {
    /// The machine's own.
    Host,
    /// A root of our own with other components of the same archive; the machine's sources stay as they are.
    Private(PathBuf),
}

impl Apt {
    /// A private root with `component` of the Debian archive that the machine itself uses.
    pub fn with_component(component: &str) -> Result<Self> {
        let Archive { uri, suite } = Archive::of_host()?;
        Self::private(component, &uri, &suite, component)
    }

    /// A private root with another release of the Debian archive that the machine itself uses.
    pub fn of_suite(suite: &str) -> Result<Self> {
        let Archive { uri, .. } = Archive::of_host()?;
        Self::private(suite, &uri, suite, "main")
    }

    fn private(name: &str, uri: &str, suite: &str, component: &str) -> Result<Self> {
        let dir = paths::artifacts().join("apt").join(name);
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        fs::write(dir.join("status"), "")?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(dir.join("sources.list"), format!("deb [signed-by={keys}] {uri} {suite} {component}\n"))?;
        let at = dir.display();
        let settings = format!(
            "Dir::State::lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\nDir::State::status \"{at}/status\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nAPT::Architecture \"amd64\";\n"
        );
        fs::write(dir.join("apt.conf"), settings)?;
        let apt = Self::Private(dir);
        tool::quiet(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> std::process::Command {
        let mut command = tool::command(program, &[]);
        if let Self::Private(dir) = self {
            command.env("APT_CONFIG", dir.join("apt.conf"));
        }
        command
    }

    /// What the archive offers under `name`: the newest, or exactly `version`.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<(Package, String)> {
        let show = || tool::output(self.command("apt-cache").args(["show", name]));
        let text = show().or_else(|_| {
            tool::quiet(self.command("apt-get").args(["-qq", "update"]))?;
            show()
        })?;
        for stanza in text.split("\n\n") {
            let field = |key: &str| {
                let line = stanza.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": "));
                line.map(str::to_owned)
            };
            let Some(found) = field("Version") else { continue };
            if version.is_none_or(|v| v == found) {
                let package = Package { name: name.to_owned(), version: found };
                return Ok((package, field("Depends").unwrap_or_default()));
            }
        }
        bail!("the Debian archive offers no {name} {}", version.unwrap_or_default())
    }

    /// Unpacks a package below `into`.
    pub fn unpack(&self, package: &Package, into: &Path) -> Result<()> {
        let dir = paths::artifacts().join("deb");
        fs::create_dir_all(&dir)?;
        // apt writes an epoch's colon as %3a in the name of the file.
        let name = format!("{}_{}_", package.name, package.version.replace(':', "%3a"));
        let found = || -> Result<Option<PathBuf>> {
            for entry in fs::read_dir(&dir)? {
                let path = entry?.path();
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if file.starts_with(&name) && path.extension().is_some_and(|e| e == "deb") {
                    return Ok(Some(path));
                }
            }
            Ok(None)
        };
        if found()?.is_none() {
            eprintln!("fetching {} {}", package.name, package.version);
            let what = format!("{}={}", package.name, package.version);
            tool::quiet(self.command("apt-get").args(["-qq", "download", &what]).current_dir(&dir))?;
        }
        let deb = found()?.with_context(|| format!("apt fetched no {name}*.deb"))?;
        fs::create_dir_all(into)?;
        tool::quiet(tool::command("dpkg-deb", &["--extract"]).arg(deb).arg(into))
    }
}

/// A Debian archive that the machine takes packages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its base URI.
    pub uri: String,
    /// Its suite, such as `bookworm`.
    pub suite: String,
}

impl Archive {
    /// The machine's main archive.
    pub fn of_host() -> Result<Self> {
        Self::labelled("Debian")?.context("this machine has no Debian archive among its apt sources")
    }

    /// The machine's archive of security updates, if it has one.
    pub fn security_of_host() -> Result<Option<Self>> {
        Self::labelled("Debian-Security")
    }

    fn labelled(label: &str) -> Result<Option<Self>> {
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)|$(RELEASE)";
        let text = tool::output(&mut tool::command(
            "apt-get",
            &["indextargets", "--format", format, "Identifier: Packages"],
        ))?;
        let prefix = format!("Debian|{label}|");
        let found = text.lines().find_map(|l| l.strip_prefix(&prefix)?.split_once('|'));
        Ok(found.map(|(uri, suite)| Self { uri: uri.to_owned(), suite: suite.to_owned() }))
    }
}
