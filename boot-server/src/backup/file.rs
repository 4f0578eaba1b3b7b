//! The file of a backup: what it is, in words; the sealed stream; a signature over both, as minisign has it.
//!
//! ```text
//! billet-backup 1 ⏎
//! {"created":…,"seal":…,"signer":…} ⏎      bound to every piece of the stream
//! the stream, see `seal`
//! the signature's file, its length, "billet-signed"
//! ```
//!
//! The signature says whose backup it is to whoever knows the site's public key; the seal alone already shows every change
//! to whoever knows the passphrase.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Take, Write};
use std::path::{Path, PathBuf};

use blake2::{Blake2b512, Digest as _};
use protocol::Timestamp;
use serde::{Deserialize, Serialize};

use super::BackupError;
use super::seal::{Opener, Seal, Sealer};
use crate::minisign::{self, Signer};

/// The first line; the number goes up when the rest changes.
const MAGIC: &str = "billet-backup 1\n";
/// The last octets.
const END: &[u8] = b"billet-signed";
/// Octets of the line that says what it is, and of the signature, at most.
const WORDS_MAX: u64 = 4096;

/// What stands in the open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Of which moment it is.
    pub created: Timestamp,
    /// The version of Billet that made it.
    pub version: String,
    /// The public key of the site that made it, as minisign has it; second line.
    pub signer: String,
    seal: Seal,
}

/// Hashes what passes.
struct Hashing<W> {
    inner: W,
    hash: Blake2b512,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.hash.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A backup that is being written.
pub struct Writer<'a, W: Write> {
    /// What it says of itself.
    pub head: Head,
    sealer: Sealer<Hashing<W>>,
    signer: &'a Signer,
}

impl<'a, W: Write> Writer<'a, W> {
    pub fn new(
        inner: W,
        signer: &'a Signer,
        passphrase: &str,
        created: Timestamp,
    ) -> Result<Self, BackupError> {
        let head = Head {
            created,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            signer: signer.public().lines().nth(1).unwrap_or_default().to_owned(),
            seal: Seal::new()?,
        };
        let words = format!("{MAGIC}{}\n", serde_json::to_string(&head).map_err(io::Error::from)?);
        let mut hashing = Hashing { inner, hash: Blake2b512::new() };
        hashing.write_all(words.as_bytes())?;
        let sealer = Sealer::new(hashing, head.seal.clone(), passphrase, words.into_bytes())?;
        Ok(Self { head, sealer, signer })
    }

    /// Ends the stream and signs it.
    pub fn finish(self) -> Result<W, BackupError> {
        let Hashing { mut inner, hash } = self.sealer.finish()?;
        let comment = format!("backup of {}", crate::cli::text::moment(self.head.created));
        let signature = self.signer.sign_hash(&hash.finalize().into(), &comment);
        inner.write_all(signature.as_bytes())?;
        let length = u32::try_from(signature.len()).map_err(io::Error::other)?;
        inner.write_all(&length.to_le_bytes())?;
        inner.write_all(END)?;
        Ok(inner)
    }
}

impl<W: Write> Write for Writer<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sealer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sealer.flush()
    }
}

/// A backup whose signature holds.
pub struct Reader {
    /// What it says of itself.
    pub head: Head,
    words: Vec<u8>,
    file: BufReader<File>,
    /// Octets of the sealed stream.
    length: u64,
}

impl Reader {
    /// Opens a file and checks its signature: by the key given, or else by the one in the file, which says only that nothing
    /// was changed since.
    pub fn open(path: &Path, public: Option<&str>) -> Result<Self, BackupError> {
        let io = |cause| BackupError::File { action: "read", path: path.to_owned(), cause };
        let form = || BackupError::NoBackup(PathBuf::from(path));
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let whole = file.get_ref().metadata().map_err(io)?.len();
        let mut words = line(&mut file).map_err(io)?;
        if words != MAGIC.as_bytes() {
            return Err(form());
        }
        let json = line(&mut file).map_err(io)?;
        let head: Head = serde_json::from_slice(&json).map_err(|_| form())?;
        words.extend(json);
        let begin = words.len() as u64;
        let (signature, signed) = signature(&mut file, whole).map_err(io)?.ok_or_else(form)?;
        let length = signed.checked_sub(begin).ok_or_else(form)?;
        file.rewind().map_err(io)?;
        let mut hash = Hashing { inner: io::sink(), hash: Blake2b512::new() };
        io::copy(&mut (&mut file).take(signed), &mut hash).map_err(io)?;
        let public = public.unwrap_or(&head.signer);
        minisign::verify_hash(&hash.hash.finalize().into(), &signature, public)?;
        file.seek(SeekFrom::Start(begin)).map_err(io)?;
        Ok(Self { head, words, file, length })
    }

    /// The stream.
    pub fn stream(self, passphrase: &str) -> Result<Opener<Take<BufReader<File>>>, BackupError> {
        let Self { head, words, file, length } = self;
        Ok(Opener::new(file.take(length), length, head.seal, passphrase, words)?)
    }
}

/// A line, with its end.
fn line(file: &mut BufReader<File>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    file.take(WORDS_MAX).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The signature, and how many octets it is over; `None` where there is none.
fn signature(file: &mut BufReader<File>, whole: u64) -> io::Result<Option<(String, u64)>> {
    let tail = (END.len() + 4) as u64;
    let Some(before) = whole.checked_sub(tail) else { return Ok(None) };
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(before))?;
    file.read_to_end(&mut end)?;
    let Some((length, END)) = end.split_first_chunk::<4>() else { return Ok(None) };
    let length = u64::from(u32::from_le_bytes(*length));
    let Some(signed) = before.checked_sub(length).filter(|_| length <= WORDS_MAX) else { return Ok(None) };
    let mut text = String::new();
    file.seek(SeekFrom::Start(signed))?;
    Ok(file.take(length).read_to_string(&mut text).ok().map(|_| (text, signed)))
}
