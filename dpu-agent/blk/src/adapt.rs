//! What an image becomes on its volume before a host has it: its partition table fits the volume, its last partition is grown,
//! a config partition tells the OS who it is. All as after a deploy, decided by `ramdisk_agent_core` as there:
//!
//! ```text
//!  first and last MiB of the image, fetched ─▶ config partition ─▶ last MiB ─▶ first MiB
//! ```
//!
//! Each is flushed and read back before the next. That it is done again after a crash, and never once a host had the volume, is
//! up to `open`.

use std::io;
use std::ops::Range;
use std::sync::mpsc;

use images::{Manifest, PartitionTable};
use protocol::fault::Fault;
use protocol::job::CloudConfig;
use ramdisk_agent_core::edges::{EDGE, Edges};
use ramdisk_agent_core::gpt::CONFIG_SIZE;
use ramdisk_agent_core::seal::{Adapted, Ends};
use ramdisk_agent_core::{cidata, plan};

use crate::volume::Volume;

/// What an image is to become.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// Files of the config partition; `None` adds none.
    pub config: Option<CloudConfig>,
    /// Grow the last partition to the end of the volume.
    pub grow_root: bool,
}

/// Why an image cannot be what it is to become.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// It does not fit.
    #[error("{message}; {hint}")]
    Refused {
        /// Why not.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// Its first or last bytes cannot be had.
    #[error("chunk {0} of the image, which is needed before the host, did not come")]
    Missing(u32),
    /// The layer.
    #[error("cannot {action} the volume at {offset}")]
    Layer {
        /// Such as `write`.
        action: &'static str,
        /// Byte of the volume.
        offset: u64,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The disk below does not keep what is written.
    #[error("what was written to the volume at {0} reads differently")]
    Differs(u64),
}

impl From<Fault> for AdaptError {
    fn from(Fault { message, hint, .. }: Fault) -> Self {
        Self::Refused { message, hint }
    }
}

/// Makes of the image on `volume` what it is to become. `guid` is the unique id of the config partition, as stored. Waits for
/// the chunks that it needs.
///
/// # Errors
/// [`AdaptError`]; the volume is then to be begun anew.
pub fn adapt(
    volume: &dyn Volume,
    manifest: &Manifest,
    wish: &Wish,
    guid: [u8; 16],
) -> Result<Adapted, AdaptError> {
    let size = volume.size();
    let disk = imaging::as_disk(size);
    plan::for_disk(manifest, &disk, wish.config.is_some())?;
    let (true, Some(edges)) = (manifest.partition_table == PartitionTable::Gpt, Edges::of(size)) else {
        return Ok(Adapted::default());
    };
    let mut head = read(volume, 0..EDGE)?;
    let mut tail = read(volume, edges.tail_start()..size)?;
    let ends = Ends { head: &mut head, tail: &mut tail, disk_size: size };
    let adapted = ends.adapt(&manifest.name, wish.grow_root, wish.config.as_ref().map(|_| guid))?;
    if let (Some(config), Some(range)) = (&wish.config, &adapted.config) {
        let mut partition = vec![0; CONFIG_SIZE as usize];
        cidata::make(config, &mut partition)?;
        put(volume, range.start, &partition)?;
    }
    put(volume, edges.tail_start(), &tail)?;
    put(volume, 0, &head)?;
    Ok(adapted)
}

/// Bytes of the image, as soon as they are here.
fn read(volume: &dyn Volume, range: Range<u64>) -> Result<Vec<u8>, AdaptError> {
    while let Some(chunk) = volume.missing(&range) {
        let (sender, receiver) = mpsc::channel();
        // Nobody listens any more only where this thread is gone.
        volume.when_here(chunk, Box::new(move |here| sender.send(here).unwrap_or_default()));
        if !receiver.recv().unwrap_or(false) {
            return Err(AdaptError::Missing(chunk));
        }
    }
    let mut bytes = vec![0; (range.end - range.start) as usize];
    volume.read(&mut bytes, range.start).map_err(failed("read", range.start))?;
    Ok(bytes)
}

/// Writes, flushes, reads back, compares.
fn put(volume: &dyn Volume, offset: u64, bytes: &[u8]) -> Result<(), AdaptError> {
    volume.write(bytes, offset).map_err(failed("write", offset))?;
    volume.flush().map_err(failed("flush", offset))?;
    let back = read(volume, offset..offset + bytes.len() as u64)?;
    if back == bytes { Ok(()) } else { Err(AdaptError::Differs(offset)) }
}

fn failed(action: &'static str, offset: u64) -> impl FnOnce(io::Error) -> AdaptError {
    move |cause| AdaptError::Layer { action, offset, cause }
}
