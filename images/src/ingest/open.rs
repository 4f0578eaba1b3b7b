//! From a source to a disk that can be read: tells the format, meters streams, puts aside what cannot be streamed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use protocol::Sha256;
use sha2::Digest;

use super::{IngestError, IngestOptions, IngestProgress, Stage};
use crate::reader::{
    Format, Input, Metered, RawDisk, RawFile, ReadError, SNIFF_LEN, Source, Tally, open_stream, sniff,
    sniff_file,
};
use crate::store::{Store, StoreError};

/// Bytes read at once where a file is copied or hashed.
const COPY: usize = 1 << 20;

/// A disk, ready to be read.
pub(super) struct Opened {
    pub(super) disk: Box<dyn RawDisk>,
    pub(super) format: Format,
    /// What passed of the file, where it is read in order.
    pub(super) tally: Option<Arc<Tally>>,
    /// Size of the file, where it is known and read in order.
    pub(super) file_size: Option<u64>,
    /// Bytes of the file that are read at most.
    pub(super) file_limit: u64,
}

type Progress<'a> = &'a mut dyn FnMut(IngestProgress) -> ControlFlow<()>;

pub(super) fn open(
    store: &Store,
    source: Source,
    options: &IngestOptions,
    progress: Progress<'_>,
) -> Result<Opened, IngestError> {
    match source {
        Source::Stream(stream) => open_reader(store, stream, options, progress),
        Source::File(file) => open_file(store, file, options, progress),
    }
}

/// Bytes a file may have: as announced, or what an allowed disk can need that does not compress at all.
fn file_limit(options: &IngestOptions) -> u64 {
    let raw = options.raw_max();
    options.expected_size.unwrap_or(raw.saturating_add(raw / 64).saturating_add(64 << 20))
}

fn open_reader(
    store: &Store,
    stream: Box<dyn Read + Send>,
    options: &IngestOptions,
    progress: Progress<'_>,
) -> Result<Opened, IngestError> {
    let file_limit = file_limit(options);
    // Of a raw file the disk's own hash is the file's.
    let hash = options.expected_sha256.is_some() && options.format != Some(Format::Raw);
    let (metered, tally) = Metered::new(stream, file_limit, hash);
    let mut input = Input::new(metered);
    let over = |cause| match (tally.is_over(), options.expected_size) {
        (true, Some(expected)) => IngestError::Longer { expected },
        (true, None) => IngestError::FileTooBig { limit: file_limit },
        _ => IngestError::Read(ReadError::Source(cause)),
    };
    let format = match options.format {
        Some(format) => format,
        None => sniff(input.peek(SNIFF_LEN).map_err(over)?)?,
    };
    if format == Format::Qcow2 {
        let file = spool(store, &mut input, options, progress, over)?;
        let qcow2 = IngestOptions {
            format: Some(format),
            expected_size: Some(options.expected_size.unwrap_or(tally.bytes())),
            expected_sha256: None,
            ..options.clone()
        };
        let opened = open_file(store, file, &qcow2, progress)?;
        return Ok(Opened { tally: Some(tally), ..opened });
    }
    let disk = open_stream(input, format)?;
    Ok(Opened { disk, format, tally: Some(tally), file_size: options.expected_size, file_limit })
}

fn open_file(
    store: &Store,
    mut file: File,
    options: &IngestOptions,
    progress: Progress<'_>,
) -> Result<Opened, IngestError> {
    let found = file.seek(SeekFrom::End(0)).map_err(ReadError::Source)?;
    if let Some(expected) = options.expected_size.filter(|e| *e != found) {
        return Err(IngestError::WrongSize { expected, found });
    }
    let sniffed = sniff_file(&mut file);
    let format = match options.format {
        Some(format) => format,
        None => sniffed?,
    };
    let (tally, file_size, file_limit) = (None, None, file_limit(options));
    match format {
        Format::Raw => {
            let disk = Box::new(RawFile::new(file)?);
            Ok(Opened { disk, format, tally, file_size, file_limit })
        }
        Format::Qcow2 => {
            check_hash(&mut file, found, options, progress)?;
            let disk = crate::reader::open_file(file, format)?;
            Ok(Opened { disk, format, tally, file_size, file_limit })
        }
        _ => {
            let with_size =
                IngestOptions { expected_size: Some(found), format: Some(format), ..options.clone() };
            open_reader(store, Box::new(file), &with_size, progress)
        }
    }
}

/// Puts a stream aside into a file without a name, which is gone when it is closed.
fn spool(
    store: &Store,
    input: &mut Input,
    options: &IngestOptions,
    progress: Progress<'_>,
    over: impl Fn(std::io::Error) -> IngestError,
) -> Result<File, IngestError> {
    let (path, mut file) = store.tmp_file()?;
    fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
    copy(input, Stage::Spool, options.expected_size, progress, over, |bytes| {
        file.write_all(bytes).map_err(|e| StoreError::io("write", &path)(e).into())
    })?;
    file.seek(SeekFrom::Start(0)).map_err(StoreError::io("rewind", &path))?;
    Ok(file)
}

/// Compares a file's hash with the one announced, where one was.
fn check_hash(
    file: &mut File,
    size: u64,
    options: &IngestOptions,
    progress: Progress<'_>,
) -> Result<(), IngestError> {
    let Some(expected) = options.expected_sha256 else { return Ok(()) };
    let mut hasher = sha2::Sha256::new();
    let failed = |cause| IngestError::Read(ReadError::Source(cause));
    copy(file, Stage::Check, Some(size), progress, failed, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    file.seek(SeekFrom::Start(0)).map_err(ReadError::Source)?;
    let found = Sha256(hasher.finalize().into());
    if found == expected { Ok(()) } else { Err(IngestError::WrongHash { expected, found }) }
}

fn copy(
    from: &mut impl Read,
    stage: Stage,
    total: Option<u64>,
    progress: Progress<'_>,
    failed: impl Fn(std::io::Error) -> IngestError,
    mut to: impl FnMut(&[u8]) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    let mut buffer = vec![0; COPY];
    let mut done = 0;
    loop {
        let n = from.read(&mut buffer).map_err(&failed)?;
        if n == 0 {
            return Ok(());
        }
        to(buffer.get(..n).unwrap_or_default())?;
        done += n as u64;
        let now = IngestProgress {
            stage,
            done,
            total,
            raw_bytes: 0,
            chunks: 0,
            holes: 0,
            reused: 0,
            stored_bytes: 0,
        };
        if progress(now).is_break() {
            return Err(IngestError::Cancelled);
        }
    }
}
