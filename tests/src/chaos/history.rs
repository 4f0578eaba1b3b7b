//! What happened, line by line, in a file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;

/// The file.
#[derive(Debug)]
pub struct History {
    begun: Instant,
    file: Mutex<File>,
    path: PathBuf,
}

impl History {
    /// A new one.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { begun: Instant::now(), file: File::create(path)?.into(), path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line.
    pub fn say(&self, line: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk of ours must not look like a fault of the server.
        drop(writeln!(file, "{:9.3} {line}", self.begun.elapsed().as_secs_f64()));
    }
}
