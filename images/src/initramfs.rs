//! Initramfs archives: "newc" cpio as the Linux kernel reads it (Documentation/driver-api/early-userspace/
//! buffer-format.rst), whose bytes depend on nothing but the entries given. What goes into a ramdisk is the recipe's
//! business.

use std::collections::BTreeSet;
use std::fmt;

/// Longest path or link target, in bytes with its end: the kernel's `PATH_MAX` (init/initramfs.c).
const PATH_MAX: usize = 4096;
/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Magic and 13 fields of eight hexadecimal digits.
const HEADER: usize = 110;
/// Largest window the kernel's zstd takes, as a power of two (lib/decompress_unzstd.c); no level asks for more.
const WINDOW_LOG_MAX: u32 = 27;

const TYPE_MASK: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHAR_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;

/// One entry; owner and group are 0, the time is 1970-01-01.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path without a leading slash, such as `dev/console`.
    pub path: String,
    /// The lower twelve bits of the mode.
    pub permissions: u32,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file with its content, at most 4 GiB.
    File(Vec<u8>),
    /// A symbolic link to this.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Such as 5.
        major: u32,
        /// Such as 1.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Such as 8.
        major: u32,
        /// Such as 0.
        minor: u32,
    },
}

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A path or link target that the kernel would not take.
    #[error("`{0}` cannot be a path in an initramfs")]
    Path(String),
    /// Two entries of one path.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// The kernel makes no directories by itself, and takes entries in order.
    #[error("`{0}` comes before the directory it is in")]
    NoDirectory(String),
    /// A file of more than 4 GiB.
    #[error("`{0}` is too large for an initramfs")]
    TooLarge(String),
    /// zstd failed.
    #[error("cannot compress or decompress an initramfs")]
    Zstd(#[source] std::io::Error),
    /// Bytes that are not an archive.
    #[error("initramfs is damaged at byte {at}: {what}")]
    Damaged {
        /// Offset in the (decompressed) archive.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

impl Entry {
    /// A directory.
    pub fn directory(path: impl Into<String>, permissions: u32) -> Self {
        Self { path: path.into(), permissions, kind: Kind::Directory }
    }

    /// A regular file.
    pub fn file(path: impl Into<String>, permissions: u32, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), permissions, kind: Kind::File(content.into()) }
    }

    /// A symbolic link at `path` to `target`.
    pub fn symlink(path: impl Into<String>, target: impl Into<String>) -> Self {
        Self { path: path.into(), permissions: 0o777, kind: Kind::Symlink(target.into()) }
    }

    /// `dev/console`, without which `/init` starts with no open file.
    pub fn console() -> Self {
        let kind = Kind::CharDevice { major: 5, minor: 1 };
        Self { path: "dev/console".to_owned(), permissions: 0o600, kind }
    }

    fn mode(&self) -> u32 {
        let kind = match self.kind {
            Kind::Directory => DIRECTORY,
            Kind::File(_) => FILE,
            Kind::Symlink(_) => SYMLINK,
            Kind::CharDevice { .. } => CHAR_DEVICE,
            Kind::BlockDevice { .. } => BLOCK_DEVICE,
        };
        kind | (self.permissions & 0o7777)
    }

    fn device(&self) -> (u32, u32) {
        match self.kind {
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => (major, minor),
            _ => (0, 0),
        }
    }

    fn data(&self) -> &[u8] {
        match &self.kind {
            Kind::File(content) => content,
            Kind::Symlink(target) => target.as_bytes(),
            _ => &[],
        }
    }
}

/// As one line of a listing: mode, size or device, path.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06o} ", self.mode())?;
        match &self.kind {
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                write!(f, "{:>10} {}", format!("{major},{minor}"), self.path)
            }
            Kind::Symlink(target) => write!(f, "{:>10} {} -> {target}", target.len(), self.path),
            _ => write!(f, "{:>10} {}", self.data().len(), self.path),
        }
    }
}

/// The archive of these entries, in this order, not compressed; its length is a multiple of 512.
///
/// # Errors
/// Where an entry is one that the kernel would not take, or would take wrongly.
pub fn write(entries: &[Entry]) -> Result<Vec<u8>, InitramfsError> {
    let mut out = Vec::new();
    let mut paths = BTreeSet::new();
    let mut directories = BTreeSet::new();
    for (inode, entry) in (1_u32..).zip(entries) {
        let path = entry.path.as_str();
        if !is_path(path) {
            return Err(InitramfsError::Path(path.to_owned()));
        }
        if let Kind::Symlink(target) = &entry.kind
            && (target.is_empty() || target.len() >= PATH_MAX || target.contains('\0'))
        {
            return Err(InitramfsError::Path(target.clone()));
        }
        if !paths.insert(path) {
            return Err(InitramfsError::Twice(path.to_owned()));
        }
        if path.rsplit_once('/').is_some_and(|(above, _)| !directories.contains(above)) {
            return Err(InitramfsError::NoDirectory(path.to_owned()));
        }
        if entry.kind == Kind::Directory {
            directories.insert(path);
        }
        record(&mut out, inode, path, entry)?;
    }
    record(
        &mut out,
        0,
        TRAILER,
        &Entry { path: String::new(), permissions: 0, kind: Kind::File(Vec::new()) },
    )?;
    out.resize(out.len().next_multiple_of(512), 0);
    Ok(out)
}

/// Compresses an archive for the kernel: one zstd frame with a checksum, padded with zeros to a multiple of 4. `level`
/// is 1 to 22; 19 needs 8 MiB of memory to decompress.
///
/// # Errors
/// Where memory is short.
pub fn compress(archive: &[u8], level: i32) -> Result<Vec<u8>, InitramfsError> {
    let mut compressor = zstd::bulk::Compressor::new(level.clamp(1, 22)).map_err(InitramfsError::Zstd)?;
    compressor.include_checksum(true).map_err(InitramfsError::Zstd)?;
    let mut frame = compressor.compress(archive).map_err(InitramfsError::Zstd)?;
    frame.resize(frame.len().next_multiple_of(4), 0);
    Ok(frame)
}

/// Archives, compressed or not, one after the other: the kernel unpacks them in order, later entries over earlier ones.
pub fn concatenate(archives: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for archive in archives {
        out.extend_from_slice(archive);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// A small archive that goes behind a ramdisk's own ([`concatenate`]): what a site gives its agents, such as the keys that it trusts, below
/// `etc/billet`. Each file is a name and its content; all are readable by everybody.
///
/// # Errors
/// Where a name is none.
pub fn site(files: &[(&str, &[u8])]) -> Result<Vec<u8>, InitramfsError> {
    let mut entries = vec![Entry::directory("etc", 0o755), Entry::directory("etc/billet", 0o755)];
    entries.extend(
        files
            .iter()
            .map(|(name, content)| Entry::file(format!("etc/billet/{name}"), 0o644, content.to_vec())),
    );
    write(&entries)
}

/// All entries of archives that are concatenated and zstd-compressed or not; at most `limit` bytes are decompressed.
///
/// # Errors
/// Where the bytes are not such archives.
pub fn read(bytes: &[u8], limit: usize) -> Result<Vec<Entry>, InitramfsError> {
    let mut entries = Vec::new();
    let (mut at, mut left) = (0, limit);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(b"0707") {
            at += read_archive(rest, at, &mut entries)?;
        } else if rest.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let damaged = |what| InitramfsError::Damaged { at, what };
            let len = zstd::zstd_safe::find_frame_compressed_size(rest)
                .map_err(|_| damaged("not a whole zstd frame"))?;
            let archive = decompress(rest.get(..len).unwrap_or_default(), left)?;
            left -= archive.len();
            let mut inside = 0;
            while let Some(part) = archive.get(inside..).filter(|part| part.iter().any(|b| *b != 0)) {
                let zeros = part.iter().take_while(|b| **b == 0).count();
                inside += zeros;
                inside += read_archive(part.get(zeros..).unwrap_or_default(), inside, &mut entries)?;
            }
            at += len;
        } else if rest.first() == Some(&0) {
            at += 1;
        } else {
            return Err(InitramfsError::Damaged { at, what: "neither an archive nor a zstd frame" });
        }
    }
    Ok(entries)
}

fn decompress(frame: &[u8], limit: usize) -> Result<Vec<u8>, InitramfsError> {
    use std::io::Read;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(InitramfsError::Zstd)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(InitramfsError::Zstd)?;
    let mut out = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut out).map_err(InitramfsError::Zstd)?;
    if out.len() > limit {
        return Err(InitramfsError::Damaged { at: 0, what: "decompresses to more than is allowed" });
    }
    Ok(out)
}

/// Reads one archive up to its trailer; returns its length. `base` is where it lies, for errors.
fn read_archive(bytes: &[u8], base: usize, entries: &mut Vec<Entry>) -> Result<usize, InitramfsError> {
    let mut at = 0;
    loop {
        let damaged = |what| InitramfsError::Damaged { at: base + at, what };
        let header = bytes.get(at..).and_then(|rest| rest.get(..HEADER)).ok_or(damaged("cut short"))?;
        let header = header.strip_prefix(b"070701").ok_or(damaged("not a newc header"))?;
        let (fields, _) = header.as_chunks::<8>();
        let mut numbers = [0; 13];
        for (number, field) in numbers.iter_mut().zip(fields) {
            let text = std::str::from_utf8(field).ok().filter(|t| !t.starts_with('+'));
            let parsed = text.and_then(|t| u32::from_str_radix(t, 16).ok());
            *number = parsed.ok_or(damaged("not a number"))?;
        }
        let [_, mode, _, _, _, _, data_len, _, _, major, minor, path_len, _] = numbers;
        let part = |from: usize, len: u32| {
            let end = from.checked_add(usize::try_from(len).ok()?)?;
            Some((bytes.get(from..end)?, end.next_multiple_of(4)))
        };
        let (path, data_at) = part(at + HEADER, path_len).ok_or(damaged("path is cut short"))?;
        let (data, next) = part(data_at, data_len).ok_or(damaged("content is cut short"))?;
        let path = path.strip_suffix(&[0]).and_then(|p| std::str::from_utf8(p).ok());
        let path = path.ok_or(damaged("path is not text"))?;
        if path == TRAILER {
            return Ok(next.min(bytes.len()));
        }
        let kind = match mode & TYPE_MASK {
            DIRECTORY => Kind::Directory,
            FILE => Kind::File(data.to_vec()),
            SYMLINK => Kind::Symlink(String::from_utf8_lossy(data).into_owned()),
            CHAR_DEVICE => Kind::CharDevice { major, minor },
            BLOCK_DEVICE => Kind::BlockDevice { major, minor },
            _ => return Err(damaged("a kind of file that is not known")),
        };
        entries.push(Entry { path: path.to_owned(), permissions: mode & 0o7777, kind });
        at = next;
    }
}

fn is_path(path: &str) -> bool {
    path.len() < PATH_MAX
        && path != TRAILER
        && !path.contains('\0')
        && path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

fn record(out: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) -> Result<(), InitramfsError> {
    let (data, (major, minor)) = (entry.data(), entry.device());
    let size = u32::try_from(data.len()).map_err(|_| InitramfsError::TooLarge(path.to_owned()))?;
    let links = if entry.kind == Kind::Directory { 2 } else { 1 };
    let mode = if path == TRAILER { 0 } else { entry.mode() };
    // Inode, mode, uid, gid, links, time, size, device it is on, device it is, length of the path, checksum.
    let path_len = u32::try_from(path.len() + 1).map_err(|_| InitramfsError::Path(path.to_owned()))?;
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, path_len, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::chunk::sha256;

    fn entries() -> Vec<Entry> {
        vec![
            Entry::directory("dev", 0o755),
            Entry::console(),
            Entry::file("init", 0o755, b"#!static\n".to_vec()),
            Entry::directory("lib", 0o755),
            Entry::directory("lib/modules", 0o700),
            Entry::file("lib/modules/empty.ko", 0o644, Vec::new()),
            Entry::symlink("lib64", "lib"),
        ]
    }

    #[test]
    fn two_runs_give_the_same_bytes_for_ever() {
        let archive = write(&entries()).unwrap();
        assert_eq!(archive, write(&entries()).unwrap());
        assert_eq!(archive.len() % 512, 0);
        assert_eq!(compress(&archive, 19).unwrap(), compress(&archive, 19).unwrap());
        // If this fails, the ramdisk of every site changes: do not change the test.
        assert_eq!(
            sha256(&archive).to_string(),
            "809d78aacaab1c83f1ec29e8b594f05b04912ca133dc4a4770c14adb5754e774"
        );
    }

    #[test]
    fn cpio_lists_it() {
        let run = Command::new("cpio")
            .args(["-t", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match run {
            Ok(child) => child,
            Err(e) => return println!("skipped: cpio does not run here: {e}"),
        };
        child.stdin.take().unwrap().write_all(&write(&entries()).unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let expected: Vec<_> = entries().into_iter().map(|e| e.path).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn it_reads_back_plain_compressed_and_concatenated() {
        let archive = write(&entries()).unwrap();
        let more = write(&[Entry::file("etc", 0o600, b"x".to_vec())]).unwrap();
        assert_eq!(read(&archive, 0).unwrap(), entries());
        let frame = compress(&archive, 3).unwrap();
        assert_eq!(frame.len() % 4, 0);
        assert_eq!(read(&frame, 1 << 20).unwrap(), entries());
        let both = concatenate(&[&more, &frame, &compress(&more, 1).unwrap()]);
        let names: Vec<_> = read(&both, 1 << 20).unwrap().iter().map(|e| e.path.clone()).collect();
        assert_eq!(names.len(), entries().len() + 2);
        assert_eq!((names[0].as_str(), names[1].as_str()), ("etc", "dev"));
        assert!(matches!(read(&frame, 100), Err(InitramfsError::Damaged { .. })));
    }

    #[test]
    fn a_line_of_a_listing() {
        let lines: Vec<_> = entries().iter().map(Entry::to_string).collect();
        assert_eq!(lines[1], "020600        5,1 dev/console");
        assert_eq!(lines[2], "100755          9 init");
        assert_eq!(lines[6], "120777          3 lib64 -> lib");
    }

    #[test]
    fn what_the_kernel_would_not_take_is_refused() {
        for path in ["", "/init", "a//b", "../etc", "a/./b", "a\0b", TRAILER, &"x".repeat(4096)] {
            let error = write(&[Entry::directory("a", 0o755), Entry::directory(path, 0o755)]).unwrap_err();
            assert!(matches!(error, InitramfsError::Path(_)), "{path}: {error}");
        }
        let twice = [Entry::directory("a", 0o755), Entry::file("a", 0o644, Vec::new())];
        assert!(matches!(write(&twice), Err(InitramfsError::Twice(_))));
        let orphan = [Entry::file("a/b", 0o644, Vec::new()), Entry::directory("a", 0o755)];
        assert!(matches!(write(&orphan), Err(InitramfsError::NoDirectory(_))));
        assert!(matches!(write(&[Entry::symlink("a", "")]), Err(InitramfsError::Path(_))));
    }

    proptest! {
        #[test]
        fn any_content_comes_back(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8)) {
            let entries: Vec<_> = contents
                .into_iter()
                .enumerate()
                .map(|(i, c)| Entry::file("n".repeat(i + 1), 0o644, c))
                .collect();
            prop_assert_eq!(read(&write(&entries).unwrap(), 0).unwrap(), entries);
        }

        #[test]
        fn no_bytes_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), packed: bool) {
            let archive = write(&entries()).unwrap();
            let mut bytes = if packed { compress(&archive, 1).unwrap() } else { archive };
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = read(&bytes, 1 << 20);
        }
    }
}
