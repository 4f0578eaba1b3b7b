//! How an image's two ends become a disk's: tables moved to where the disk ends, the last partition grown, a config
//! partition added. The agent does it on a machine's disk, the server on a volume; what is written when is theirs.

use std::ops::Range;

use protocol::fault::{Fault, FaultCode};

use crate::edges::EDGE;
use crate::gpt::{Entry, SECTOR, Table};

/// The ends of a disk as the image has them; zero where the image has none.
#[derive(Debug)]
pub struct Ends<'a> {
    /// First [`EDGE`] bytes.
    pub head: &'a mut [u8],
    /// Last [`EDGE`] bytes.
    pub tail: &'a mut [u8],
    /// Bytes of the disk.
    pub disk_size: u64,
}

/// What became of the ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adapted {
    /// The EFI system partition.
    pub esp: Option<Entry>,
    /// The config partition, in bytes of the disk.
    pub config: Option<Range<u64>>,
    /// Number and size in bytes of the partition that was grown.
    pub grown: Option<(u32, u64)>,
}

impl Ends<'_> {
    /// Adapts the GPT of `image` (its name, for messages) to the disk. `config` is the unique id of the config partition to add.
    ///
    /// # Errors
    /// Where the table is damaged or does not fit.
    pub fn adapt(self, image: &str, grow_root: bool, config: Option<[u8; 16]>) -> Result<Adapted, Fault> {
        let refuse = |e| {
            Fault::new(
                FaultCode::Customise,
                format!("{image} cannot be adapted to the disk: {e}"),
                "use a larger disk, or an image whose partition table is sound (`sgdisk -v`)",
            )
        };
        let table = Table::parse(self.head, SECTOR).map_err(refuse)?;
        let new = table.relocate(self.head, self.disk_size, grow_root, config).map_err(refuse)?;
        self.head[..new.head.len()].copy_from_slice(&new.head);
        let at = EDGE as usize - new.tail.len();
        self.tail[at..].copy_from_slice(&new.tail);
        Ok(Adapted { esp: new.esp, config: new.config, grown: new.grown })
    }
}
