//! Files that are read whole, up to a limit, and replaced whole, durably.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What failed with which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    cause: io::Error,
}

/// Makes an [`io::Error`] say what was done to which file.
pub fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |cause| FileError { action, path, cause }
}

/// Reads a file, of `most` octets and one more at most: longer ones are for the reader to refuse.
pub fn read(path: &Path, most: usize) -> Result<Vec<u8>, FileError> {
    let mut text = Vec::new();
    let mut read = || File::open(path)?.take(most as u64 + 1).read_to_end(&mut text);
    read().map_err(failed("read", path))?;
    Ok(text)
}

/// Puts a file in the place of what is there: after a crash or a power cut either is there, whole.
pub fn replace(path: &Path, text: &[u8]) -> Result<(), FileError> {
    replace_with(path, text, 0o644)
}

/// As [`replace`], for nobody's eyes but ours.
pub fn replace_private(path: &Path, text: &[u8]) -> Result<(), FileError> {
    replace_with(path, text, 0o600)
}

fn replace_with(path: &Path, text: &[u8], mode: u32) -> Result<(), FileError> {
    let next = path.with_extension("next");
    // What an earlier one left would keep its mode.
    remove(&next)?;
    let write = || {
        let mut file = File::options().create_new(true).write(true).mode(mode).open(&next)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        path.parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(failed("write", path))
}

/// Removes a file, which may be gone already.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}
