//! What a site tells the other side of a one-way gateway: events, audit, metrics and usage since a moment, as files in one archive
//! with a signature beside it. Plain tar and zstd, minisign's form: the other side needs no Billet to read and check it.
//!
//! ```text
//! billet-export-<from>-<to>.tar.zst          export.json, events.ndjson, audit.ndjson, metrics.prom, usage.json
//! billet-export-<from>-<to>.tar.zst.minisig  over the archive; trusted comment: its name
//! ```
//!
//! Nothing is left out between two archives of the schedule: where the last one ended is kept in the state directory, and moved on
//! only when the next is durable. A crash in between says something twice.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use blake2::{Blake2b512, Digest as _};
use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};

use crate::minisign::{SignError, Signer};

/// Level of zstd.
const LEVEL: i32 = 6;
/// How archives begin and end.
const BEGIN: &str = "billet-export-";
const END: &str = ".tar.zst";

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Such as `write`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The archive.
    #[error("the archive cannot be written")]
    Archive(#[from] io::Error),
    /// The key.
    #[error("the signing key")]
    Signing(#[from] SignError),
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |cause| ExportError::File { action, path, cause }
}

/// Where an export ended: the next one begins there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The moment.
    pub at: Timestamp,
    /// The last event.
    pub event: i64,
    /// The last entry of the audit.
    pub audit: u64,
}

/// What an archive says of itself, as `export.json` in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// `billet-export/1`.
    pub format: String,
    /// Version of Billet.
    pub version: String,
    /// Behind what it begins.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
    /// The public key that signs heads of the audit, hexadecimal.
    pub site_key: String,
    /// What else is in it.
    pub files: Vec<Described>,
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Octets.
    pub size: u64,
    /// SHA-256.
    pub sha256: Sha256,
}

/// Files that are put together; what is large lies on the disk, and goes with the value.
pub struct Parts {
    dir: PathBuf,
    files: Vec<Described>,
}

impl Parts {
    /// None yet, in a directory of its own below `state_dir`. What a crash left of an earlier one with this name is removed.
    ///
    /// # Errors
    /// [`ExportError::File`].
    pub fn new(state_dir: &Path, name: &str) -> Result<Self, ExportError> {
        let dir = state_dir.join("export.tmp").join(name);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file("remove", &dir)(error)),
            _ => fs::create_dir_all(&dir).map_err(file("make", &dir))?,
        }
        Ok(Self { dir, files: Vec::new() })
    }

    /// A file that is written piece by piece.
    ///
    /// # Errors
    /// [`ExportError::File`].
    pub fn begin(&self, name: &str) -> Result<Part, ExportError> {
        let path = self.dir.join(name);
        let to = File::create(&path).map_err(file("make", &path))?;
        Ok(Part { name: name.to_owned(), path, to: BufWriter::new(to), hash: sha2::Sha256::new(), size: 0 })
    }

    /// It is whole.
    ///
    /// # Errors
    /// [`ExportError::File`].
    pub fn end(&mut self, mut part: Part) -> Result<(), ExportError> {
        part.to.flush().map_err(file("write", &part.path))?;
        let sha256 = Sha256(part.hash.finalize().into());
        self.files.push(Described { name: part.name, size: part.size, sha256 });
        Ok(())
    }

    /// A small file.
    ///
    /// # Errors
    /// [`ExportError::File`].
    pub fn add(&mut self, name: &str, octets: &[u8]) -> Result<(), ExportError> {
        let mut part = self.begin(name)?;
        part.write(octets)?;
        self.end(part)
    }

    /// Puts the archive together and signs it.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn finish(
        self,
        from: Position,
        to: Position,
        site_key: &str,
        signer: &Signer,
    ) -> Result<Archive, ExportError> {
        let description = Description {
            format: "billet-export/1".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            from,
            to,
            site_key: site_key.to_owned(),
            files: self.files.clone(),
        };
        let json = serde_json::to_vec_pretty(&description).map_err(io::Error::from)?;
        let path = self.dir.join("archive");
        let options = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let archive = options.map_err(file("make", &path))?;
        let mut tar = tar::Builder::new(zstd::Encoder::new(BufWriter::new(&archive), LEVEL)?);
        append(&mut tar, "export.json", json.len() as u64, &json[..])?;
        for described in &self.files {
            let path = self.dir.join(&described.name);
            let part = File::open(&path).map_err(file("read", &path))?;
            append(&mut tar, &described.name, described.size, part)?;
        }
        tar.into_inner()?.finish()?.flush()?;
        let name = format!("{BEGIN}{:013}-{:013}{END}", from.at.0, to.at.0);
        let signature = signer.sign_hash(&hash(&archive)?, &name);
        (&archive).rewind()?;
        let size = archive.metadata()?.len();
        Ok(Archive { name, signature, archive, size, to })
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // What stays is removed by the next one.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A file that is being written.
pub struct Part {
    name: String,
    path: PathBuf,
    to: BufWriter<File>,
    hash: sha2::Sha256,
    size: u64,
}

impl Part {
    /// More of it.
    ///
    /// # Errors
    /// [`ExportError::File`].
    pub fn write(&mut self, octets: &[u8]) -> Result<(), ExportError> {
        self.hash.update(octets);
        self.size += octets.len() as u64;
        self.to.write_all(octets).map_err(file("write", &self.path))
    }

    /// A line of JSON.
    ///
    /// # Errors
    /// [`ExportError::File`].
    pub fn line<T: Serialize>(&mut self, value: &T) -> Result<(), ExportError> {
        let mut text = serde_json::to_vec(value).map_err(io::Error::from)?;
        text.push(b'\n');
        self.write(&text)
    }
}

/// An archive that is whole; its file has no name any more.
pub struct Archive {
    /// The name that it is to have.
    pub name: String,
    /// Its signature's file.
    pub signature: String,
    /// The archive, from its beginning.
    pub archive: File,
    /// Octets.
    pub size: u64,
    /// Where it ends.
    pub to: Position,
}

impl Archive {
    /// Puts it into a directory, the signature first: whoever sees the archive finds it.
    ///
    /// # Errors
    /// [`ExportError::File`].
    pub fn put(mut self, directory: &Path) -> Result<PathBuf, ExportError> {
        fs::create_dir_all(directory).map_err(file("make", directory))?;
        let path = directory.join(&self.name);
        let signature = directory.join(format!("{}.minisig", self.name));
        write(&signature, &mut self.signature.as_bytes())?;
        write(&path, &mut self.archive)?;
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(file("sync", directory))?;
        Ok(path)
    }
}

/// A file that has its name when it is whole and durable.
fn write(path: &Path, from: &mut impl Read) -> Result<(), ExportError> {
    let part = path.with_added_extension("part");
    let written = File::create(&part).and_then(|mut to| {
        io::copy(from, &mut to)?;
        to.sync_all()
    });
    written.and_then(|()| fs::rename(&part, path)).map_err(file("write", path))
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, from: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    tar.append_data(&mut header, name, from)
}

fn hash(archive: &File) -> io::Result<[u8; 64]> {
    let (mut from, mut hash, mut buffer) = (archive, Blake2b512::new(), vec![0; 1 << 16]);
    from.rewind()?;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// Removes all but the newest `keep` archives of a directory, with their signatures.
///
/// # Errors
/// [`ExportError::File`].
pub fn rotate(directory: &Path, keep: usize) -> Result<usize, ExportError> {
    let mut archives = Vec::new();
    for entry in fs::read_dir(directory).map_err(file("list", directory))? {
        let name = entry.map_err(file("list", directory))?.file_name();
        let name = name.into_string().unwrap_or_default();
        archives.extend(Some(name).filter(|name| name.starts_with(BEGIN) && name.ends_with(END)));
    }
    // Their names have moments of the same length: by name is by age.
    archives.sort_unstable_by(|a, b| b.cmp(a));
    let old = archives.split_off(keep.min(archives.len()));
    for name in &old {
        for path in [directory.join(name), directory.join(format!("{name}.minisig"))] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file("remove", &path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(old.len())
}

/// Where the schedule is; nothing where it never ran.
///
/// # Errors
/// [`ExportError::File`].
pub fn position(state_dir: &Path) -> Result<Option<Position>, ExportError> {
    let path = state_dir.join("export.position");
    match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|e| file("understand", &path)(e.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", &path)(error)),
    }
}

/// The schedule goes on behind this.
///
/// # Errors
/// [`ExportError::File`].
pub fn move_on(state_dir: &Path, to: Position) -> Result<(), ExportError> {
    let json = serde_json::to_vec(&to).map_err(io::Error::from)?;
    write(&state_dir.join("export.position"), &mut &json[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minisign;
    use crate::store::tests::Scratch;

    fn archive(scratch: &Scratch, from: u64, to: u64) -> (Archive, Signer) {
        let signer = Signer::open(&scratch.0.join("signing.key")).unwrap();
        let mut parts = Parts::new(&scratch.0, "test").unwrap();
        let mut events = parts.begin("events.ndjson").unwrap();
        events.line(&serde_json::json!({ "id": 1 })).unwrap();
        parts.end(events).unwrap();
        parts.add("usage.json", b"{}").unwrap();
        let at = |at| Position { at: Timestamp(at), ..Position::default() };
        (parts.finish(at(from), at(to), "key", &signer).unwrap(), signer)
    }

    #[test]
    fn an_archive_is_a_tar_with_a_signature_beside_it() {
        let scratch = Scratch::new();
        fs::create_dir_all(&scratch.0).unwrap();
        let (made, signer) = archive(&scratch, 5, 6);
        let path = made.put(&scratch.0.join("out")).unwrap();
        assert_eq!(path.file_name().unwrap(), "billet-export-0000000000005-0000000000006.tar.zst");
        let octets = fs::read(&path).unwrap();
        let signature = fs::read_to_string(path.with_added_extension("minisig")).unwrap();
        let comment = minisign::verify(&octets, &signature, &signer.public()).unwrap();
        assert_eq!(comment, "billet-export-0000000000005-0000000000006.tar.zst");
        let mut tar = tar::Archive::new(zstd::Decoder::new(&octets[..]).unwrap());
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(
            found[1..],
            [("events.ndjson".into(), "{\"id\":1}\n".into()), ("usage.json".into(), "{}".into())]
        );
        let description: Description = serde_json::from_str(&found[0].1).unwrap();
        let hash = Sha256(sha2::Sha256::digest(b"{}").into());
        assert_eq!(description.files[1], Described { name: "usage.json".into(), size: 2, sha256: hash });
        assert!(!scratch.0.join("export.tmp/test").exists(), "nothing is left beside it");
    }

    #[test]
    fn the_oldest_go_and_nothing_else_does() {
        let scratch = Scratch::new();
        let out = scratch.0.join("out");
        fs::create_dir_all(&out).unwrap();
        fs::write(out.join("billet-export-readme"), "of somebody else").unwrap();
        for from in 1..=4 {
            archive(&scratch, from, from + 1).0.put(&out).unwrap();
        }
        assert_eq!(rotate(&out, 2).unwrap(), 2);
        let mut left: Vec<_> =
            fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let of = |n: u64, end: &str| format!("billet-export-{n:013}-{:013}.tar.zst{end}", n + 1);
        let all =
            [of(3, ""), of(3, ".minisig"), of(4, ""), of(4, ".minisig"), "billet-export-readme".to_owned()];
        assert_eq!(left, all);
        assert_eq!(rotate(&out, 2).unwrap(), 0);
    }

    #[test]
    fn where_it_ended_is_kept() {
        let scratch = Scratch::new();
        fs::create_dir_all(&scratch.0).unwrap();
        assert_eq!(position(&scratch.0).unwrap(), None);
        let here = Position { at: Timestamp(7), event: 3, audit: 9 };
        move_on(&scratch.0, here).unwrap();
        assert_eq!(position(&scratch.0).unwrap(), Some(here));
        fs::write(scratch.0.join("export.position"), "x").unwrap();
        assert!(position(&scratch.0).is_err(), "rather nothing than a gap");
    }
}
