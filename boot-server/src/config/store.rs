//! `[store]`: SQLite in the state directory, or a database of PostgreSQL's.

use std::path::{Path, PathBuf};

use bmc::Secret;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::store::Location;
use crate::store::db::Server;

/// The database's file in the state directory.
const FILE: &str = "billet.db";

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Store {
    pub url: Option<String>,
    pub password_file: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

/// Where the store is.
///
/// # Errors
/// [`ConfigError::Store`].
pub(super) fn location(config: &Store, state_dir: &Path) -> Result<Location, ConfigError> {
    let Some(url) = &config.url else {
        if config.password_file.is_some() || config.ca.is_some() {
            return Err(ConfigError::Store("store: password_file and ca need url".to_owned()));
        }
        return Ok(Location::File(state_dir.join(FILE)));
    };
    let server = server(url, config.password_file.as_deref(), config.ca.clone());
    Ok(Location::Server(server.map_err(ConfigError::Store)?))
}

/// A database of PostgreSQL's, with the password from a file.
///
/// # Errors
/// What is wrong with them, in words.
pub fn server(url: &str, password_file: Option<&Path>, ca: Option<PathBuf>) -> Result<Server, String> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("store: cannot read password_file {}: {error}", path.display()))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(format!("store: password_file {} is empty", path.display())),
            password => Ok(Secret(password.to_owned())),
        }
    };
    let password = password_file.map(read).transpose()?;
    Server::new(url, password, ca).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_unless_an_address_is_given() {
        let of = |config: &Store| location(config, Path::new("/state")).map_err(|e| e.to_string());
        assert_eq!(of(&Store::default()).unwrap(), Location::File("/state/billet.db".into()));
        let url = |url: &str| Store { url: Some(url.to_owned()), ..Store::default() };
        let given = of(&url("postgresql://billet@db.example/billet?sslmode=verify-full")).unwrap();
        assert_eq!(given.to_string(), "postgresql://billet@db.example/billet?sslmode=require");
        for (bad, wanted) in [
            (url("mysql://billet@db/billet"), "use postgresql://"),
            (url("postgresql://billet:hunter2@db/billet"), "password_file"),
            (url("postgresql://db/billet"), "must name user and database"),
            (url("postgresql://billet@db"), "must name user and database"),
            (url("postgresql://billet@db/billet?nonsense=1"), "no address"),
            (Store { ca: Some("/ca".into()), ..Store::default() }, "need url"),
        ] {
            let said = of(&bad).unwrap_err();
            assert!(said.contains(wanted) && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_password_comes_from_its_file_and_is_never_shown() {
        let path = std::env::temp_dir().join(format!("billet-password-{}", uuid::Uuid::new_v4()));
        let config = Store {
            url: Some("postgresql://billet@db/billet".to_owned()),
            password_file: Some(path.clone()),
            ca: None,
        };
        let missing = location(&config, Path::new("/state")).unwrap_err().to_string();
        assert!(missing.contains("cannot read password_file"), "{missing}");
        std::fs::write(&path, "hunter2\n").unwrap();
        let given = location(&config, Path::new("/state")).unwrap();
        assert_eq!(given.to_string(), "postgresql://billet@db/billet");
        assert!(!format!("{given:?}").contains("hunter2"), "{given:?}");
        std::fs::write(&path, "\n").unwrap();
        assert!(location(&config, Path::new("/state")).unwrap_err().to_string().contains("is empty"));
        std::fs::remove_file(path).unwrap();
    }
}
