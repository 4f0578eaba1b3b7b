//! TFTP of the boot files: names first of those that are made for each client, then from memory, then from one directory
//! that nothing leads out of.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tftp_server::{File, Files, OpenError, Opening, Server, ServerConfig, Summary};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::NetError;

/// The port of RFC 1350 section 4.
const PORT: u16 = 69;

/// Largest file that is kept in memory, in octets: the largest loader (GRUB with all modules) has 3 MiB.
const IN_MEMORY_MAX: u64 = 8 << 20;

/// Called when a transfer ended; must not wait.
pub type OnFinished = Box<dyn Fn(SocketAddr, &str, &Summary) + Send + Sync>;

/// A file that is being made. It may wait for the engine: no other transfer waits with it.
pub type Making = Pin<Box<dyn Future<Output = Result<File, OpenError>> + Send>>;

/// Makes the files that differ from client to client, such as a loader's configuration. Gets the client's address and
/// the [normalised](tftp_server::normalise) name; `None` where the name is not one of those.
pub type MakeFile = Box<dyn Fn(SocketAddr, &str) -> Option<Making> + Send + Sync>;

/// The boot files.
#[derive(Default)]
pub struct BootFiles {
    made: Option<MakeFile>,
    same: BTreeMap<String, Same>,
    directory: Option<OwnedFd>,
    finished: Option<OnFinished>,
}

impl BootFiles {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file that is the same for all, and in memory once somebody asked for it. Its name is in the form of
    /// [`tftp_server::normalise`].
    pub fn with_file(mut self, name: impl Into<String>, file: File) -> Self {
        self.same.insert(name.into(), Same { given: file, memory: OnceLock::new() });
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

    /// Has some files made for each client.
    pub fn with_made(mut self, make: MakeFile) -> Self {
        self.made = Some(make);
        self
    }

    /// Tells somebody of every transfer that ended.
    pub fn on_finished(mut self, tell: OnFinished) -> Self {
        self.finished = Some(tell);
        self
    }

    /// The file of a [normalised](tftp_server::normalise) name that is the same for all; the HTTP server may use it too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn find(&self, name: &str) -> Result<File, OpenError> {
        if let Some(same) = self.same.get(name) {
            return Ok(same.file());
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

/// A file that is the same for all.
struct Same {
    given: File,
    memory: OnceLock<File>,
}

impl Same {
    /// In memory from the first request on, which saves a read for each block; a site has ten loaders and sends two of them.
    fn file(&self) -> File {
        let load = || {
            in_memory(&self.given).unwrap_or_else(|error| {
                tracing::warn!(%error, "a boot loader is sent from the disk: it cannot be read as a whole");
                self.given.clone()
            })
        };
        self.memory.get_or_init(load).clone()
    }
}

/// The file as it is served: in memory unless it is too large for that.
fn in_memory(file: &File) -> io::Result<File> {
    match file {
        File::Disk(disk, len) if *len <= IN_MEMORY_MAX => {
            let mut bytes = vec![0; usize::try_from(*len).unwrap_or_default()];
            disk.read_exact_at(&mut bytes, 0)?;
            Ok(File::Memory(bytes.into()))
        }
        other => Ok(other.clone()),
    }
}

/// A file on disk.
///
/// # Errors
/// The system's, or that it is no regular file.
pub fn open_file(path: &Path) -> io::Result<File> {
    File::from_file(std::fs::File::open(path)?)
}

/// TFTP over both families of addresses: a socket for each, so that an IPv4 client is never seen as `::ffff:…`.
///
/// It has a thread of its own. A block of TFTP is so little work that waking another thread for it, as a runtime with
/// several does, costs a fifth of it; and no block waits behind a decision.
pub struct TftpServers {
    servers: Vec<Server>,
    event_loop: EventLoop,
}

/// A runtime that may be dropped anywhere: what runs in it is ended, and nobody waits for that.
struct EventLoop(Option<Runtime>);

impl Drop for EventLoop {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Port 69 of all addresses of the interface, those that it gets later too. Files that are made are made in the runtime
/// that this is called in.
///
/// # Errors
/// [`NetError::Tftp`], [`NetError::Thread`]. A kernel without IPv6 is no error.
pub fn bind(interface: &str, files: Arc<BootFiles>) -> Result<TftpServers, NetError> {
    let files: Arc<dyn Files> = Arc::new(Elsewhere { files, made_in: Handle::current() });
    let runtime = Builder::new_current_thread().enable_all().build().map_err(NetError::Thread)?;
    let event_loop = EventLoop(Some(runtime));
    // The sockets belong to the thread's own event loop.
    let _inside = event_loop.0.as_ref().map(Runtime::enter);
    let servers = listen(interface, files)?;
    Ok(TftpServers { servers, event_loop })
}

fn listen(interface: &str, files: Arc<dyn Files>) -> Result<Vec<Server>, NetError> {
    let config = |listen: IpAddr| ServerConfig {
        listen: SocketAddr::new(listen, PORT),
        interface: Some(interface.into()),
    };
    let mut servers = vec![Server::bind(&config(Ipv4Addr::UNSPECIFIED.into()), files.clone())?];
    match Server::bind(&config(Ipv6Addr::UNSPECIFIED.into()), files) {
        Ok(server) => servers.push(server),
        Err(error) if is_without_ipv6(&error.source) => {
            tracing::info!(interface, "no TFTP over IPv6: the kernel has none");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(servers)
}

impl TftpServers {
    /// Serves until `cancel`; then tells every client and waits for the transfers to end.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { servers, event_loop } = self;
        let (ended, end) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("tftp".to_owned()).spawn(move || {
            if let Some(runtime) = &event_loop.0 {
                runtime.block_on(serve(servers, cancel));
            }
            // Dropped also where it breaks, which the one who waits sees in the same way.
            drop(ended);
        });
        match thread {
            Ok(_) => drop(end.await),
            Err(error) => tracing::error!(%error, "TFTP has no thread"),
        }
    }
}

async fn serve(servers: Vec<Server>, cancel: CancellationToken) {
    let mut all = JoinSet::new();
    for server in servers {
        all.spawn(server.run(cancel.clone()));
    }
    while let Some(ended) = all.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "TFTP broke");
        }
    }
}

/// The boot files, seen from TFTP's thread: what has to be made is made in the server's own runtime.
struct Elsewhere {
    files: Arc<BootFiles>,
    made_in: Handle,
}

impl Files for Elsewhere {
    fn open<'a>(&'a self, peer: SocketAddr, name: &'a str) -> Opening<'a> {
        let Some(making) = self.files.made.as_ref().and_then(|make| make(peer, name)) else {
            return Box::pin(std::future::ready(self.files.find(name)));
        };
        let made = self.made_in.spawn(making);
        Box::pin(
            async move { made.await.unwrap_or_else(|error| Err(OpenError::Io(io::Error::other(error)))) },
        )
    }

    fn finished(&self, peer: SocketAddr, name: &str, summary: &Summary) {
        if let Some(tell) = &self.files.finished {
            tell(peer, name, summary);
        }
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(nix::Error::from_raw);
    matches!(number, Some(nix::Error::EAFNOSUPPORT | nix::Error::EADDRNOTAVAIL | nix::Error::ENOPROTOOPT))
}
