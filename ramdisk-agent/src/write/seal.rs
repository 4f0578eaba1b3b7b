//! The end of a write: config partition, backup table, the first MiB without its first sector, and last of all that
//! sector. Each is flushed and read back before the next, so the disk becomes bootable by one write that cannot be torn,
//! when everything else on it is right.

use failpoint::Point;
use protocol::fault::Fault;
use protocol::job::{CloudConfig, DeploySpec};
use protocol::report::Stage;
use ramdisk_agent_core::cidata;
use ramdisk_agent_core::edges::EDGE;
use ramdisk_agent_core::gpt::{CONFIG_SIZE, Entry};
use ramdisk_agent_core::seal::Ends;

use super::Held;
use crate::device::Target;
use crate::feed::Feed;
use crate::sys::Buffer;

/// What the finished disk has.
#[derive(Debug, Default)]
pub struct Sealed {
    /// The EFI system partition.
    pub esp: Option<Entry>,
    /// Bytes written and read back.
    pub bytes: u64,
}

/// Makes the disk bootable.
///
/// # Errors
/// Where table or config do not fit, or the disk fails; it does not boot then.
pub fn seal(
    spec: &DeploySpec,
    gpt: bool,
    mut held: Held,
    target: &Target,
    feed: &Feed,
) -> Result<Sealed, Fault> {
    feed.stage(Stage::Customise, 0, 0);
    feed.check_abort()?;
    target.hit(Point::AgentConfig)?;
    let mut sealed = Sealed::default();
    if gpt {
        let volume = spec.config.as_ref().map(config_volume).transpose()?;
        let guid = volume.is_some().then(partition_guid);
        let ends = Ends { head: &mut held.head, tail: &mut held.tail, disk_size: target.size() };
        let new = ends.adapt(&spec.image_name, spec.grow_root, guid)?;
        if let Some((number, size)) = new.grown {
            feed.note(format!("partition {number} grown to {} MiB", size >> 20));
        }
        if let (Some(range), Some(volume)) = (&new.config, &volume) {
            put(target, range.start, volume)?;
            sealed.bytes += volume.len() as u64;
            let name = spec.config.as_ref().map_or("cidata", cidata::name);
            feed.note(format!("config partition written ({name})"));
        }
        sealed.esp = new.esp;
    }
    feed.check_abort()?;
    target.hit(Point::AgentTail)?;
    put(target, target.size() - EDGE, &held.tail)?;
    target.hit(Point::AgentHead)?;
    let sector = target.sector() as usize;
    // Copied to where a buffer begins, as a write past the page cache must.
    let part = |bytes: &[u8]| {
        let mut part = Buffer::new(bytes.len());
        part[..bytes.len()].copy_from_slice(bytes);
        part
    };
    put(target, sector as u64, &part(&held.head[sector..])[..EDGE as usize - sector])?;
    target.hit(Point::AgentFirst)?;
    put(target, 0, &part(&held.head[..sector])[..sector])?;
    sealed.bytes += 2 * EDGE;
    if let Err(e) = target.reread_partitions() {
        eprintln!("billet: the kernel keeps its old view of the partitions: {e}");
    }
    Ok(sealed)
}

fn config_volume(config: &CloudConfig) -> Result<Buffer, Fault> {
    let mut volume = Buffer::new(CONFIG_SIZE as usize);
    cidata::make(config, &mut volume)?;
    Ok(volume)
}

/// Writes, flushes, reads back, compares.
fn put(target: &Target, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
    target.write_at(offset, bytes)?;
    target.flush()?;
    let mut back = Buffer::new(bytes.len());
    target.read_at(offset, &mut back[..bytes.len()])?;
    if back[..bytes.len()] == *bytes { Ok(()) } else { Err(crate::verify::differs(target, offset)) }
}

/// A random version 4 GUID (RFC 9562), as stored in a table.
fn partition_guid() -> [u8; 16] {
    let mut bytes = [0; 16];
    for part in bytes.chunks_exact_mut(4) {
        part.copy_from_slice(&crate::fetch::random().to_le_bytes());
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_bytes_le()
}
