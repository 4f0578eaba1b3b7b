//! What a backup consists of: a tar of the database, the files of the state directory, and images with their chunks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::path::{Component, Path, PathBuf};

use images::Manifest;
use tar::{Archive, Builder, EntryType, Header};

use super::{BackupError, DATABASE, RESTORED};

/// Where the database is copied to before it is packed.
pub const SCRATCH: &str = "backup.tmp";
/// How many rows the database has, as decimal digits.
const ROWS: &str = "rows";
/// Prefix of what is beside the database.
const STATE: &str = "state";
/// Prefix of images.
const IMAGES: &str = "images";
/// Prefix of the books of types of volumes: who has which disk of others, and who may write.
pub const VOLUMES: &str = "volumes";
/// What those books are.
const BOOKS: [&str; 2] = ["taken", "grants"];
/// Not packed from the state directory: what has a part of its own, what is volatile, what volumes hold, and what is made
/// or fetched again by itself.
const LEFT_OUT: [&str; 16] = [
    DATABASE,
    "billet.db-wal",
    "billet.db-shm",
    "leases.journal.0",
    "leases.journal.1",
    IMAGES,
    VOLUMES,
    "media",
    "loaders",
    "boot",
    "ramdisk",
    "import",
    "bundles",
    "export.tmp",
    SCRATCH,
    RESTORED,
];

/// What was packed or unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Rows of the database.
    pub rows: i64,
    /// Images.
    pub images: u64,
    /// Files of the state directory.
    pub files: u64,
}

/// A backup's parts on their way into it.
pub struct Pack<W: Write> {
    tar: Builder<W>,
    contents: Contents,
}

impl<W: Write> Pack<W> {
    pub fn new(to: W) -> Self {
        Self { tar: Builder::new(to), contents: Contents::default() }
    }

    fn append(&mut self, name: &Path, size: u64, from: impl Read) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(size);
        self.tar.append_data(&mut header, name, from)
    }

    /// A file that may grow meanwhile: what it had when it was opened is packed.
    fn file(&mut self, name: &Path, path: &Path) -> Result<(), BackupError> {
        let read = |cause| BackupError::File { action: "read", path: path.to_owned(), cause };
        let file = File::open(path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        Ok(self.append(name, size, file.take(size))?)
    }

    /// The database and how many rows it has.
    pub fn database(&mut self, path: &Path, rows: i64) -> Result<(), BackupError> {
        self.contents.rows = rows;
        let text = rows.to_string();
        self.append(Path::new(ROWS), text.len() as u64, text.as_bytes())?;
        self.file(Path::new(DATABASE), path)
    }

    /// Everything of the state directory that has no part of its own.
    pub fn state(&mut self, dir: &Path) -> Result<(), BackupError> {
        let mut waiting = vec![PathBuf::new()];
        while let Some(inner) = waiting.pop() {
            for name in sorted(&dir.join(&inner))? {
                let name = inner.join(name);
                if LEFT_OUT.iter().any(|out| name == Path::new(out)) {
                    continue;
                }
                let path = dir.join(&name);
                match fs::symlink_metadata(&path) {
                    Ok(meta) if meta.is_dir() => waiting.push(name),
                    Ok(meta) if meta.is_file() => match self.file(&Path::new(STATE).join(&name), &path) {
                        Err(BackupError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {}
                        packed => {
                            packed?;
                            self.contents.files += 1;
                        }
                    },
                    // Sockets, and what went away meanwhile.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The books of a type of volumes.
    pub fn volumes(&mut self, kind: &str, directory: &Path) -> Result<(), BackupError> {
        for book in BOOKS {
            let dir = directory.join(book);
            for name in sorted(&dir)? {
                let path = dir.join(&name);
                if path.is_file() {
                    self.file(&Path::new(VOLUMES).join(kind).join(book).join(name), &path)?;
                    self.contents.files += 1;
                }
            }
        }
        Ok(())
    }

    /// The image store: chunks first, so that an image is never without one where a reader stops in between.
    pub fn images(&mut self, dir: &Path) -> Result<(), BackupError> {
        if !dir.exists() {
            return Ok(());
        }
        let store = images::Store::open(dir)?;
        let mut packed = BTreeSet::new();
        for id in store.image_ids()? {
            let bytes = match store.manifest_bytes(id) {
                Ok(bytes) => bytes,
                // Removed meanwhile.
                Err(_) if !store.image_ids()?.contains(&id) => continue,
                Err(error) => return Err(error.into()),
            };
            let manifest = Manifest::parse_as(&bytes, id).map_err(io::Error::other)?;
            for chunk in manifest.chunks.iter().flatten().map(|chunk| chunk.id) {
                if packed.insert(chunk) {
                    let path = store.chunk_path(chunk);
                    let name = path.strip_prefix(dir).map_err(io::Error::other)?;
                    self.file(&Path::new(IMAGES).join(name), &path)?;
                }
            }
            let name = Path::new(IMAGES).join("manifests").join(format!("{id}.json"));
            if let Some(signature) = store.signature(id)? {
                self.append(&name.with_extension("minisig"), signature.len() as u64, signature.as_bytes())?;
            }
            self.append(&name, bytes.len() as u64, &bytes[..])?;
            self.contents.images += 1;
        }
        Ok(())
    }

    pub fn finish(self) -> Result<(W, Contents), BackupError> {
        let contents = self.contents;
        Ok((self.tar.into_inner()?, contents))
    }
}

/// Names in a directory, in order; none where it went away meanwhile.
fn sorted(dir: &Path) -> Result<Vec<std::ffi::OsString>, BackupError> {
    let read = |cause| BackupError::File { action: "read", path: dir.to_owned(), cause };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(read)?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>();
    let mut names = names.map_err(read)?;
    names.sort();
    Ok(names)
}

/// What is in a backup; all of it is read. Its database is put into a directory.
pub fn look(from: impl Read, dir: &Path) -> Result<Contents, BackupError> {
    each(from, |name, entry| {
        if name == Path::new(DATABASE) {
            return put(&dir.join(name), entry);
        }
        io::copy(entry, &mut io::sink())?;
        Ok(())
    })
}

/// Puts everything below a directory.
pub fn unpack(from: impl Read, dir: &Path) -> Result<Contents, BackupError> {
    each(from, |name, entry| put(&dir.join(name), entry))
}

/// A new file; two of one name are no backup of ours.
fn put(path: &Path, mut from: impl Read) -> Result<(), BackupError> {
    let write = |cause| BackupError::File { action: "write", path: path.to_owned(), cause };
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(write)?;
    }
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(write)?;
    io::copy(&mut from, &mut file).and_then(|_| file.sync_all()).map_err(write)
}

/// Puts the books of a type of volumes where that type has them. A book that is there is newer.
pub fn hand_out(from: &Path, directory: &Path) -> Result<(), BackupError> {
    for book in BOOKS {
        for name in sorted(&from.join(book))? {
            let (source, path) = (from.join(book).join(&name), directory.join(book).join(&name));
            if !path.exists() {
                let read = |cause| BackupError::File { action: "read", path: source.clone(), cause };
                put(&path, File::open(&source).map_err(read)?)?;
            }
        }
    }
    Ok(())
}

/// Hands each part to `take`, with the place below the state directory to which it belongs. It was signed and sealed, and
/// is looked at all the same.
fn each(
    from: impl Read,
    mut take: impl FnMut(&Path, &mut dyn Read) -> Result<(), BackupError>,
) -> Result<Contents, BackupError> {
    let (mut contents, mut rows, mut database) = (Contents::default(), None, false);
    let mut archive = Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let refused = || BackupError::Part(name.display().to_string());
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        if entry.header().entry_type() != EntryType::Regular || !plain {
            return Err(refused());
        }
        if name == Path::new(ROWS) {
            let mut text = String::new();
            (&mut entry).take(20).read_to_string(&mut text)?;
            rows = Some(text.parse::<i64>().map_err(|_| refused())?);
            continue;
        }
        let place = name.strip_prefix(STATE).map_or_else(|_| name.clone(), Path::to_owned);
        if name == Path::new(DATABASE) {
            database = true;
        } else if name.starts_with(IMAGES) {
            let manifest = name.starts_with(Path::new(IMAGES).join("manifests"));
            contents.images += u64::from(manifest && name.extension().is_some_and(|kind| kind == "json"));
        } else if name.starts_with(VOLUMES) {
            let book = name.iter().nth(2).and_then(|book| book.to_str());
            if name.iter().count() != 4 || !book.is_some_and(|book| BOOKS.contains(&book)) {
                return Err(refused());
            }
            contents.files += 1;
        } else if name.starts_with(STATE) && place.components().next().is_some() {
            contents.files += 1;
        } else {
            return Err(refused());
        }
        take(&place, &mut entry)?;
    }
    // The tar ends before its stream does, whose last piece says that nothing was cut off.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    if !database {
        return Err(BackupError::Missing("database"));
    }
    contents.rows = rows.ok_or(BackupError::Missing("number of rows"))?;
    Ok(contents)
}

/// Whose files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
}

/// Gives everything below a directory to its owner, and makes it durable.
pub fn settle_tree(dir: &Path, owner: Option<Owner>) -> Result<(), BackupError> {
    let settle = |path: &Path| {
        let given = owner.map_or(Ok(()), |owner| chown(path, Some(owner.user), Some(owner.group)));
        let synced = given.and_then(|()| File::open(path)?.sync_all());
        synced.map_err(|cause| BackupError::File { action: "write", path: path.to_owned(), cause })
    };
    for name in sorted(dir)? {
        let path = dir.join(name);
        if path.is_dir() {
            settle_tree(&path, owner)?;
        } else {
            settle(&path)?;
        }
    }
    settle(dir)
}
