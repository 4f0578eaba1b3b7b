//! A server in a namespace of its own, with boot files that nobody boots: for suites that drive its pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tests_postgres::Postgres;

use crate::rack::{Api, Forward, Namespace, SERVER_ADDRESS, Server};

/// A server and the ways to it. Whoever takes it apart drops the namespace last.
pub struct Site {
    /// The server.
    pub server: Server,
    /// Its API, as operator.
    pub api: Api,
    /// Its provisioning listener, from outside of the namespace.
    pub provisioning: Forward,
    /// Its files.
    pub dir: PathBuf,
    /// Where it runs.
    pub namespace: Namespace,
}

impl Site {
    /// A site whose files are in `target/<name>/`, which is emptied.
    ///
    /// # Errors
    /// Where the namespace cannot be made, or the server does not come up.
    pub fn new(name: &str) -> Result<Self> {
        Self::start(name, |namespace, dir, config| Server::start_with(namespace, dir, config))
    }

    /// As [`Site::new`], with its data in this PostgreSQL.
    ///
    /// # Errors
    /// As [`Site::new`].
    pub fn on(name: &str, database: Postgres) -> Result<Self> {
        Self::start(name, |namespace, dir, config| Server::start_on(namespace, dir, config, Some(database)))
    }

    fn start(name: &str, server: impl FnOnce(&Namespace, &Path, &str) -> Result<Server>) -> Result<Self> {
        let dir = target().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("boot"))?;
        // Nobody boots them here; that they are there is all that the server looks for.
        fs::write(dir.join("boot/vmlinuz"), b"kernel")?;
        fs::write(dir.join("boot/initramfs"), b"ramdisk")?;
        let namespace = Namespace::new()?;
        namespace.bridge("br0", &format!("{SERVER_ADDRESS}/24"))?;
        let config = Server::default_config(&dir, &dir.join("boot"));
        let server = server(&namespace, &dir, &config)?;
        let provisioning =
            Forward::start(namespace.clone_handle()?, format!("{SERVER_ADDRESS}:8080").parse()?)?;
        Ok(Self { api: server.api()?, server, provisioning, dir, namespace })
    }
}

/// Cargo's target directory, as Chromium takes it: no `..` in the path of a profile.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target")
}
