//! The whole state of a site in one file, made while it serves, and put back on an empty machine.
//!
//! ```text
//! lease journal ┐
//! database      ┼─ as they were at one moment ─▶ tar ─▶ zstd ─▶ sealed by a passphrase ─▶ signed
//! keys, images  ┘                                                     │
//! an empty state directory ◀─ renamed into place when all of it is there and durable ◀─ restore
//! ```
//!
//! What is not in it: the content of volumes that this machine keeps, and what is made or fetched again by itself (boot
//! images for virtual media, loaders).

mod file;
mod parts;
mod seal;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use protocol::Timestamp;
use serde::{Deserialize, Serialize};

pub use file::Head;
use file::{Reader, Writer};
use parts::{Contents, Owner, Pack};

use crate::minisign::{SignError, Signer};
use crate::secret::NoRandomness;
use crate::store::copy::{self, CopyError};
use crate::store::{Location, Store, StoreError};

/// Level of zstd: what a disk writes is slower than this.
const LEVEL: i32 = 3;
/// The database in the file.
const DATABASE: &str = "billet.db";
/// In a state directory that was restored and not released: of which moment it is.
const RESTORED: &str = "restored.json";

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The stream: a full disk, or a changed file.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// Not there.
    #[error("{} is no state directory of a site: `secrets.key` is missing", .0.display())]
    NoSite(PathBuf),
    /// Not made by this program.
    #[error("{} is no backup, or it was cut off", .0.display())]
    NoBackup(PathBuf),
    /// Somebody else signed it, or it was changed.
    #[error("the backup's signature")]
    Signature(#[from] SignError),
    /// Something is there.
    #[error("{} is not empty: a site is restored to an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// Two at once.
    #[error("another backup of this site is being made")]
    Busy,
    /// A part that no backup has.
    #[error("the backup has a part `{0}`, which does not belong there")]
    Part(String),
    /// A part that each backup has.
    #[error("the backup has no {0}")]
    Missing(&'static str),
    /// Some are missing.
    #[error("the database has {found} rows, not {rows}")]
    Rows {
        /// In the backup.
        rows: i64,
        /// Found.
        found: i64,
    },
    /// The images.
    #[error("the images")]
    Images(#[from] images::StoreError),
    /// The database.
    #[error("the database")]
    Store(#[from] StoreError),
    /// The database.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Where a site is.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its database.
    pub store: Location,
    /// Its keys, images and recordings.
    pub state_dir: PathBuf,
    /// Where each type of volumes keeps its books.
    pub volumes: BTreeMap<String, PathBuf>,
}

/// Says that a site was restored, until somebody releases it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Of which moment its state is.
    pub of: Timestamp,
    /// Its database was not filled yet: no server may be started on it.
    pub unfinished: bool,
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Of which moment.
    pub created: Timestamp,
    /// By which version.
    pub version: String,
    /// Octets of the file.
    pub size: u64,
    /// Rows of the database.
    pub rows: i64,
    /// Images.
    pub images: u64,
    /// Other files.
    pub files: u64,
}

impl Summary {
    fn new(head: &Head, size: u64, contents: Contents) -> Self {
        let Contents { rows, images, files } = contents;
        Self { created: head.created, version: head.version.clone(), size, rows, images, files }
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |cause| BackupError::File { action, path, cause }
}

/// Writes a backup of a site, served or not, to a new file. It gets its name when it is whole and durable.
///
/// # Errors
/// [`BackupError`]; the file is not there then.
pub fn create(
    site: &Site,
    to: &Path,
    passphrase: &str,
    images: bool,
    now: Timestamp,
) -> Result<Summary, BackupError> {
    let dir = &site.state_dir;
    if !dir.join("secrets.key").exists() {
        return Err(BackupError::NoSite(dir.clone()));
    }
    if to.exists() {
        return Err(io("make", to)(ErrorKind::AlreadyExists.into()));
    }
    let lock = File::open(dir).map_err(io("read", dir))?;
    let _alone = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| BackupError::Busy)?;
    let signer = signer(dir)?;
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let options = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let mut file = options.map_err(io("make", &part))?;
    let written = write(site, &mut file, &signer, passphrase, images, now);
    let (head, contents) = written.inspect_err(|_| drop(fs::remove_file(&part)))?;
    file.sync_all().map_err(io("write", &part))?;
    let size = file.metadata().map_err(io("read", &part))?.len();
    fs::rename(&part, to).map_err(io("make", to))?;
    sync_parent(to)?;
    Ok(Summary::new(&head, size, contents))
}

/// The key that signs; one that is made is the server's, whoever makes the backup.
fn signer(dir: &Path) -> Result<Signer, BackupError> {
    let path = dir.join("signing.key");
    let (known, signer) = (path.exists(), Signer::open(&path)?);
    if !known {
        let meta = fs::metadata(dir).map_err(io("read", dir))?;
        chown(&path, Some(meta.uid()), Some(meta.gid())).map_err(io("give away", &path))?;
    }
    Ok(signer)
}

fn write(
    site: &Site,
    file: &mut File,
    signer: &Signer,
    passphrase: &str,
    images: bool,
    now: Timestamp,
) -> Result<(Head, Contents), BackupError> {
    let sealed = Writer::new(BufWriter::with_capacity(1 << 20, file), signer, passphrase, now)?;
    let head = sealed.head.clone();
    let mut pack = Pack::new(zstd::Encoder::new(sealed, LEVEL)?);
    let scratch = Scratch::new(site.state_dir.join(parts::SCRATCH))?;
    let copied = scratch.0.join(DATABASE);
    let counts = copy::snapshot(&site.store, &copied, &site.state_dir)?;
    let rows = counts.iter().map(|(_, rows)| rows).sum();
    whole(&copied, rows)?;
    pack.database(&copied, rows)?;
    drop(scratch);
    pack.state(&site.state_dir)?;
    for (name, directory) in &site.volumes {
        pack.volumes(name, directory)?;
    }
    if images {
        pack.images(&site.state_dir.join("images"))?;
    }
    let (packed, contents) = pack.finish()?;
    packed.finish()?.finish()?.flush()?;
    Ok((head, contents))
}

/// A directory beside what is copied, that goes with the value. A crash leaves it, and the next backup removes it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, BackupError> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("make", &path)(error)),
            _ => {
                fs::DirBuilder::new().mode(0o700).create(&path).map_err(io("make", &path))?;
                Ok(Self(path))
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next backup.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads a backup from end to end, its database too, and says what is in it.
///
/// # Errors
/// [`BackupError`], where anything of it could not be restored.
pub fn verify(from: &Path, passphrase: &str, public: Option<&str>) -> Result<Summary, BackupError> {
    let reader = Reader::open(from, public)?;
    let head = reader.head.clone();
    let size = fs::metadata(from).map_err(io("read", from))?.len();
    let mut scratch = from.as_os_str().to_owned();
    scratch.push(".verify");
    let scratch = Scratch::new(scratch.into())?;
    let contents = parts::look(zstd::Decoder::new(reader.stream(passphrase)?)?, &scratch.0)?;
    whole(&scratch.0.join(DATABASE), contents.rows)?;
    Ok(Summary::new(&head, size, contents))
}

/// Puts a backup back: to an empty database, and to a state directory that is empty or not there. Nothing is at its place
/// before all of it is durable.
///
/// With `hold` the server that is started on it next calls off what was going on, and drives nothing until [`release`]:
/// since the backup machines and volumes may have got other owners.
///
/// # Errors
/// [`BackupError`]. The site is then not there. A kill while PostgreSQL is filled leaves a note, with which no server starts.
pub fn restore(
    from: &Path,
    passphrase: &str,
    public: Option<&str>,
    site: &Site,
    hold: bool,
) -> Result<Summary, BackupError> {
    let reader = Reader::open(from, public)?;
    let head = reader.head.clone();
    let size = fs::metadata(from).map_err(io("read", from))?.len();
    // A service's state directory may be a link.
    let place = fs::canonicalize(&site.state_dir).unwrap_or_else(|_| site.state_dir.clone());
    let owner = empty(&place)?;
    let staging = staging(&place);
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &staging)(error)),
        _ => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&staging).map_err(io("make", &staging))?;
    let contents = parts::unpack(zstd::Decoder::new(reader.stream(passphrase)?)?, &staging)?;
    let database = staging.join(DATABASE);
    whole(&database, contents.rows)?;
    Store::open(Location::File(database))?.close();
    // What is below the state directory comes with it.
    for (name, directory) in site.volumes.iter().filter(|(_, dir)| !dir.starts_with(&site.state_dir)) {
        parts::hand_out(&staging.join(parts::VOLUMES).join(name), directory)?;
    }
    let server = matches!(site.store, Location::Server(_));
    let note = Restored { of: head.created, unfinished: server };
    if hold || server {
        write_note(&staging, note)?;
    }
    parts::settle_tree(&staging, owner)?;
    if owner.is_some() {
        // A mount point stays, and nothing was done.
        fs::remove_dir(&place).map_err(io("replace", &place))?;
    }
    fs::rename(&staging, &place).map_err(io("make", &place))?;
    sync_parent(&place)?;
    if server {
        fill(&place, &staging, site)?;
        if hold { write_note(&place, Restored { unfinished: false, ..note })? } else { release(&place)? }
    }
    Ok(Summary::new(&head, size, contents))
}

/// Whose a directory is that is to be filled; nothing where there is none yet.
fn empty(place: &Path) -> Result<Option<Owner>, BackupError> {
    match fs::read_dir(place).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(BackupError::NotEmpty(place.to_owned())),
        Ok(false) => {
            let meta = fs::metadata(place).map_err(io("read", place))?;
            Ok(Some(Owner { user: meta.uid(), group: meta.gid() }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read", place)(error)),
    }
}

/// Moves the database of a site to PostgreSQL; where that fails, the site is not there any more.
fn fill(place: &Path, staging: &Path, site: &Site) -> Result<(), BackupError> {
    let database = place.join(DATABASE);
    if let Err(error) = copy::copy(&Location::File(database.clone()), &site.store) {
        fs::rename(place, staging).map_err(io("move", place))?;
        return Err(error.into());
    }
    fs::remove_file(&database).map_err(io("remove", &database))
}

/// Where a site is put together: beside its place, so that it can be renamed.
fn staging(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    place.with_file_name(name)
}

/// Reads a database from end to end.
fn whole(database: &Path, rows: i64) -> Result<(), BackupError> {
    let found = copy::rows(database)?;
    if found == rows { Ok(()) } else { Err(BackupError::Rows { rows, found }) }
}

fn write_note(dir: &Path, note: Restored) -> Result<(), BackupError> {
    let (path, text) = (dir.join(RESTORED), serde_json::to_vec(&note).map_err(io::Error::from)?);
    let written = fs::write(&path, text).and_then(|()| File::open(&path)?.sync_all());
    written.and_then(|()| File::open(dir)?.sync_all()).map_err(io("write", &path))
}

/// Whether a site was restored and is held; nothing where it was released, or never restored.
///
/// # Errors
/// Where the file cannot be read.
pub fn restored(state_dir: &Path) -> io::Result<Option<Restored>> {
    match fs::read(state_dir.join(RESTORED)) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A site is no longer held. Its server is told so by its next start.
///
/// # Errors
/// Where the note cannot be removed.
pub fn release(state_dir: &Path) -> Result<(), BackupError> {
    let path = state_dir.join(RESTORED);
    let removed = fs::remove_file(&path).and_then(|()| File::open(state_dir)?.sync_all());
    removed.map_err(io("remove", &path))
}

fn sync_parent(path: &Path) -> Result<(), BackupError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(io("write", parent))
}

#[cfg(test)]
mod tests;
