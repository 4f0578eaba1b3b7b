//! What was made is kept under `artifacts/` with the hash of what it was made of; the same inputs make it once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::paths;

/// Hash over all inputs of a build, each with its label.
#[derive(Clone)]
pub struct Key(Sha256);

impl Key {
    /// A key of a build step; `version` changes when the step's own code does something else.
    pub fn new(step: &str, version: u32) -> Self {
        Self(Sha256::new()).with(step, version.to_le_bytes())
    }

    /// Adds an input.
    pub fn with(mut self, label: &str, bytes: impl AsRef<[u8]>) -> Self {
        for part in [label.as_bytes(), bytes.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds the content of a file.
    pub fn with_file(self, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(self.with(&path.file_name().unwrap_or_default().to_string_lossy(), bytes))
    }

    /// The key as text.
    pub fn hex(&self) -> String {
        hex(&self.0.clone().finalize())
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of a file, read in pieces.
pub fn file_sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = std::io::Read::read(&mut file, &mut piece)?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&piece[..n]);
    }
}

/// Makes `names` in `artifacts/<dir>` by `make`, which gets an empty directory to make them in, unless they are there
/// and were made with the same key. Returns true where they were made now. Safe against other processes doing the same.
pub fn build(dir: &str, names: &[&str], key: &Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
    let home = paths::artifacts().join(dir);
    fs::create_dir_all(&home)?;
    let first = names.first().context("a build step without results")?;
    let stamp = home.join(format!(".{first}.key"));
    let lock = File::create(home.join(format!(".{first}.lock")))?;
    lock.lock().context("waiting for another build of the same")?;
    let fresh = |name: &&str| home.join(name).exists();
    if fs::read_to_string(&stamp).is_ok_and(|k| k == key.hex()) && names.iter().all(fresh) {
        return Ok(false);
    }
    let work = home.join(format!(".{first}.work"));
    remove(&work)?;
    fs::create_dir_all(&work)?;
    make(&work)?;
    // The stamp goes first and comes back last: what lies between is never taken for complete.
    remove(&stamp)?;
    for name in names {
        remove(&home.join(name))?;
        fs::rename(work.join(name), home.join(name)).with_context(|| format!("build made no {name}"))?;
    }
    fs::write(&stamp, key.hex())?;
    remove(&work)?;
    Ok(true)
}

/// Path of a result.
pub fn at(dir: &str, name: &str) -> PathBuf {
    paths::artifacts().join(dir).join(name)
}

fn remove(path: &Path) -> Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    gone.with_context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_depends_on_every_label_and_byte() {
        let base = Key::new("step", 1).with("a", "bc");
        for other in [
            Key::new("step", 2).with("a", "bc"),
            Key::new("step", 1).with("ab", "c"),
            Key::new("step", 1).with("a", "bd"),
            Key::new("step", 1).with("a", "bc").with("", ""),
        ] {
            assert_ne!(base.hex(), other.hex());
        }
        assert_eq!(base.hex(), Key::new("step", 1).with("a", "bc").hex());
    }
}
