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

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocol::Timestamp;
use serde::{Deserialize, Serialize};

pub use file::Head;
use file::{Reader, Writer};
use parts::{Contents, Pack};

use crate::minisign::{SignError, Signer};
use crate::secret::NoRandomness;
use crate::store::copy::{self, CopyError};
use crate::store::{Location, Store, StoreError};

/// Level of zstd: what a disk writes is slower than this.
const LEVEL: i32 = 3;
/// The database in the file.
const DATABASE: &str = "billet.db";
/// In a state directory that was restored and not yet served: of which moment it is.
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
}

/// Says that a site was restored, until its server noted that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Of which moment its state is.
    pub of: Timestamp,
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
    if !site.state_dir.join("secrets.key").exists() {
        return Err(BackupError::NoSite(site.state_dir.clone()));
    }
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |cause| BackupError::File { action, path, cause }
    };
    if to.exists() {
        return Err(io("make", to)(io::ErrorKind::AlreadyExists.into()));
    }
    let signer = Signer::open(&site.state_dir.join("signing.key"))?;
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let options = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let mut file = options.map_err(io("make", &part))?;
    let written = write(site, &mut file, &signer, passphrase, images, now);
    let contents = written.inspect_err(|_| drop(fs::remove_file(&part)))?;
    file.sync_all().map_err(io("write", &part))?;
    let size = file.metadata().map_err(io("read", &part))?.len();
    fs::rename(&part, to).map_err(io("make", to))?;
    sync_parent(to)?;
    let Contents { rows, images, files } = contents;
    Ok(Summary { created: now, version: env!("CARGO_PKG_VERSION").to_owned(), size, rows, images, files })
}

fn write(
    site: &Site,
    file: &mut File,
    signer: &Signer,
    passphrase: &str,
    images: bool,
    now: Timestamp,
) -> Result<Contents, BackupError> {
    let sealed = Writer::new(BufWriter::with_capacity(1 << 20, file), signer, passphrase, now)?;
    let packed = zstd::Encoder::new(sealed, LEVEL)?;
    let mut pack = Pack::new(packed);
    let scratch = Scratch::new(&site.state_dir)?;
    let copied = scratch.0.join(DATABASE);
    let counts = copy::snapshot(&site.store, &copied, &site.state_dir)?;
    pack.database(&copied, counts.iter().map(|(_, rows)| rows).sum())?;
    drop(scratch);
    pack.state(&site.state_dir)?;
    if images {
        pack.images(&site.state_dir.join("images"))?;
    }
    let (packed, contents) = pack.finish()?;
    packed.finish()?.finish()?.flush()?;
    Ok(contents)
}

/// A directory beside what is copied, that goes with the value. A crash leaves it, and the next backup removes it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(state_dir: &Path) -> Result<Self, BackupError> {
        let path = state_dir.join(parts::SCRATCH);
        let io = |cause| BackupError::File { action: "make", path: path.clone(), cause };
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => fs::DirBuilder::new().mode(0o700).create(&path).map_err(io)?,
        }
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next backup.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads a backup from end to end, and says what is in it.
///
/// # Errors
/// [`BackupError`], where anything of it could not be restored.
pub fn verify(from: &Path, passphrase: &str, public: Option<&str>) -> Result<Summary, BackupError> {
    let reader = Reader::open(from, public)?;
    let head = reader.head.clone();
    let size = fs::metadata(from).map_err(|cause| BackupError::File {
        action: "read",
        path: from.to_owned(),
        cause,
    })?;
    let contents = parts::look(zstd::Decoder::new(reader.stream(passphrase)?)?)?;
    let Contents { rows, images, files } = contents;
    Ok(Summary { created: head.created, version: head.version, size: size.len(), rows, images, files })
}

/// Puts a backup back: to an empty database, and to a state directory that is empty or not there. Nothing is at its place
/// before all of it is durable.
///
/// With `hold` the server that is started on it next calls off what was going on, and keeps free machines from being used
/// until somebody says that they still are free: since the backup another may have got them.
///
/// # Errors
/// [`BackupError`]. The site is then not there, but for a database of PostgreSQL's, whose error says so.
pub fn restore(
    from: &Path,
    passphrase: &str,
    public: Option<&str>,
    site: &Site,
    hold: bool,
) -> Result<Summary, BackupError> {
    let place = &site.state_dir;
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |cause| BackupError::File { action, path, cause }
    };
    match fs::read_dir(place).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(BackupError::NotEmpty(place.clone())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("read", place)(error)),
        _ => {}
    }
    let reader = Reader::open(from, public)?;
    let head = reader.head.clone();
    let size = fs::metadata(from).map_err(io("read", from))?.len();
    let staging = staging(place);
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", &staging)(error)),
        _ => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&staging).map_err(io("make", &staging))?;
    let contents = parts::unpack(zstd::Decoder::new(reader.stream(passphrase)?)?, &staging)?;
    settle(&staging.join(DATABASE), contents.rows, &site.store)?;
    if hold {
        let note = serde_json::to_vec(&Restored { of: head.created }).map_err(io::Error::from)?;
        fs::write(staging.join(RESTORED), note).map_err(io("write", &staging))?;
    }
    parts::sync_tree(&staging)?;
    // An empty directory is replaced.
    fs::rename(&staging, place).map_err(io("make", place))?;
    sync_parent(place)?;
    let Contents { rows, images, files } = contents;
    Ok(Summary { created: head.created, version: head.version, size, rows, images, files })
}

/// Where a site is put together: beside its place, so that it can be renamed.
fn staging(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    place.with_file_name(name)
}

/// Counts the database's rows, brings its schema up to date, and moves it to PostgreSQL where the site is to be there.
fn settle(database: &Path, rows: i64, to: &Location) -> Result<(), BackupError> {
    let file = Location::File(database.to_owned());
    let found = copy::rows(&file)?;
    if found != rows {
        return Err(BackupError::Rows { rows, found });
    }
    Store::open(&file)?.close();
    if let Location::Server(_) = to {
        copy::copy(&file, to)?;
        fs::remove_file(database)?;
    }
    Ok(())
}

/// What is to be noted of a site that was restored; nothing where its server noted it already.
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

/// All that [`restored`] asks for is done.
///
/// # Errors
/// Where the file cannot be removed.
pub fn noted(state_dir: &Path) -> io::Result<()> {
    fs::remove_file(state_dir.join(RESTORED))?;
    File::open(state_dir)?.sync_all()
}

fn sync_parent(path: &Path) -> Result<(), BackupError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(|cause| BackupError::File { action: "write", path: parent.to_owned(), cause })
}

#[cfg(test)]
mod tests;
