//! TFTP of the boot files: names first from memory, then from one directory that nothing leads out of.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tftp_server::{File, Files, OpenError, Server, ServerConfig, Summary};

use super::NetError;

/// Called when a transfer ended; must not wait.
pub type OnFinished = Box<dyn Fn(SocketAddr, &str, &Summary) + Send + Sync>;

/// The boot files.
#[derive(Default)]
pub struct BootFiles {
    memory: BTreeMap<String, File>,
    directory: Option<OwnedFd>,
    finished: Option<OnFinished>,
}

impl BootFiles {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file that is in memory. Its name is in the form of [`tftp_server::normalise`].
    pub fn with_file(mut self, name: impl Into<String>, file: File) -> Self {
        self.memory.insert(name.into(), file);
        self
    }

    /// Adds the regular files of a directory and what is below it; symbolic links are not followed.
    ///
    /// # Errors
    /// [`NetError::BootDirectory`] where it is none, or cannot be read.
    pub fn with_directory(mut self, path: &Path) -> Result<Self, NetError> {
        let opened = open(path, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        let error = |e: nix::Error| NetError::BootDirectory { path: path.into(), source: e.into() };
        self.directory = Some(opened.map_err(error)?);
        Ok(self)
    }

    /// Tells somebody of every transfer that ended.
    pub fn on_finished(mut self, tell: OnFinished) -> Self {
        self.finished = Some(tell);
        self
    }

    /// The file of a [normalised](tftp_server::normalise) name; the HTTP server may use it too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn find(&self, name: &str) -> Result<File, OpenError> {
        if let Some(file) = self.memory.get(name) {
            return Ok(file.clone());
        }
        let directory = self.directory.as_ref().ok_or(OpenError::NotFound)?;
        // Not blocking: a FIFO must not hold the server up before it is found to be no file.
        let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        match openat2(directory, name, how) {
            Ok(fd) => File::from_file(fd.into()).map_err(|e| match e.kind() {
                io::ErrorKind::InvalidInput => OpenError::NotFound,
                _ => OpenError::Io(e),
            }),
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ENAMETOOLONG) => {
                Err(OpenError::NotFound)
            }
            Err(nix::Error::ELOOP | nix::Error::EXDEV | nix::Error::EACCES) => Err(OpenError::Denied),
            Err(error) => Err(OpenError::Io(error.into())),
        }
    }
}

impl Files for BootFiles {
    fn open(&self, _peer: SocketAddr, name: &str) -> Result<File, OpenError> {
        self.find(name)
    }

    fn finished(&self, peer: SocketAddr, name: &str, summary: &Summary) {
        if let Some(tell) = &self.finished {
            tell(peer, name, summary);
        }
    }
}

/// Port 69 of all addresses of the interface; must be called inside a tokio runtime.
///
/// # Errors
/// [`NetError::Tftp`].
pub fn bind(interface: &str, files: Arc<BootFiles>) -> Result<Server, NetError> {
    let config = ServerConfig { listen: ([0, 0, 0, 0], 69).into(), interface: Some(interface.into()) };
    Ok(Server::bind(&config, files)?)
}
