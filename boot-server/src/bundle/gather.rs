//! Which files of a machine go into a bundle: the program, what nodes boot, and the documents that came with it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{BundleError, io};
use crate::config::Config;
use crate::http::files::{BootFiles, Processor};
use crate::loaders::Loaders;

/// Directories of documents: `docs/`, `licences/`, `quirks/`, `sbom/`.
const SHARED: [&str; 4] = ["docs", "licences", "quirks", "sbom"];

/// Where they are.
#[derive(Debug, Clone, Default)]
pub struct Gather {
    /// Programs, by processor such as `x86_64`.
    pub programs: Vec<(String, PathBuf)>,
    /// Directory with documents, if there is one.
    pub shared: Option<PathBuf>,
}

/// The files, by the path that they get.
///
/// # Errors
/// Where a directory cannot be read, or a kernel has no ramdisk.
pub fn gather(config: &Config, gather: &Gather) -> Result<Vec<(String, PathBuf)>, BundleError> {
    let mut files: Vec<(String, PathBuf)> = gather
        .programs
        .iter()
        .map(|(processor, path)| (format!("bin/{processor}/billet"), path.clone()))
        .collect();
    let loaders = Loaders::in_directories(config.loader_directories());
    let boot = BootFiles::in_directories(config.boot_directories(), loaders.clone());
    for processor in [Processor::X64, Processor::Arm64] {
        let found = boot.of(processor);
        if let (false, Some(missing)) = (found.is_empty(), boot.missing(processor)) {
            return Err(BundleError::Half(missing));
        }
        files.extend(found.into_iter().map(|(name, path)| (format!("boot/{name}"), path)));
    }
    files.extend(loaders.sources().map(|(name, path)| (format!("loaders/{name}"), path)));
    for name in SHARED {
        if let Some(dir) = gather.shared.as_ref().map(|shared| shared.join(name)).filter(|dir| dir.is_dir()) {
            below(&dir, name, &mut files)?;
        }
    }
    Ok(files)
}

/// All plain files of a directory. Links and what is hidden are left out.
fn below(dir: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), BundleError> {
    for entry in fs::read_dir(dir).map_err(io("list", dir))? {
        let entry = entry.map_err(io("list", dir))?;
        let kind = entry.file_type().map_err(io("read", dir))?;
        let Ok(part) = entry.file_name().into_string() else { continue };
        let name = format!("{name}/{part}");
        match () {
            () if part.starts_with('.') => {}
            () if kind.is_dir() => below(&entry.path(), &name, files)?,
            () if kind.is_file() => files.push((name, entry.path())),
            () => {}
        }
    }
    Ok(())
}
