//! Where a store is: a file, or a database of a PostgreSQL server.

use std::fmt;
use std::path::{Path, PathBuf};

use super::db::Server;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file of SQLite's.
    File(PathBuf),
    /// A database of PostgreSQL's.
    Server(Server),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(server) => server.fmt(f),
        }
    }
}

impl From<&Path> for Location {
    #[cfg(not(test))]
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }

    /// Tests name files. The same tests run on PostgreSQL (see `postgres_tests`), each with a database of its own there.
    #[cfg(test)]
    fn from(path: &Path) -> Self {
        super::postgres_tests::in_place_of(path).unwrap_or_else(|| Self::File(path.to_owned()))
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&Self> for Location {
    fn from(location: &Self) -> Self {
        location.clone()
    }
}
