//! Where a qcow2 image ends: behind the last cluster whose reference count is not zero ("Host cluster management").
//! That is all refcounts are looked at for; a reader needs them for nothing else.

use std::io::{Read, Seek};

use super::header::Header;
use super::{File, OFFSET, Qcow2Error, ReadError};

/// Refuses a file that goes on after its image.
pub(super) fn check_end<R: Read + Seek>(file: &mut File<R>, header: &Header) -> Result<(), ReadError> {
    let bits = header.cluster_bits;
    let clusters = file.len.div_ceil(1 << bits);
    // Entries of a block: a cluster of refcounts.
    let per_block = (header.cluster_size() as u64 * 8) / u64::from(header.refcount_bits);
    // Blocks for what lies outside the file are of no interest, so this reads less than the file has bytes.
    let blocks = clusters.div_ceil(per_block).min(header.refcount_bytes as u64 / 8);
    let blocks = usize::try_from(blocks).map_err(|_| Qcow2Error::Refcount)?;
    let table = file.table("refcount table", header.refcount_offset, blocks, header)?;
    let mut block = vec![0; header.cluster_size()];
    for (index, entry) in table.into_iter().enumerate().rev() {
        let offset = entry & OFFSET;
        if offset == 0 {
            continue;
        }
        file.check("refcount block", offset, block.len() as u64, bits)?;
        file.read_at(offset, &mut block)?;
        if let Some(last) = last_used(&block, header.refcount_bits) {
            let end = (index as u64 * per_block + last + 1) << bits;
            return if file.len > end {
                Err(Qcow2Error::TrailingData { end, file: file.len }.into())
            } else {
                Ok(())
            };
        }
    }
    Err(Qcow2Error::Refcount.into())
}

/// The last refcount in a block that is not zero. Widths below a byte lie from the low bits up.
fn last_used(block: &[u8], width: u32) -> Option<u64> {
    let (at, byte) = block.iter().enumerate().rev().find(|(_, b)| **b != 0)?;
    let bit = at as u64 * 8 + u64::from(7 - byte.leading_zeros());
    Some(if width >= 8 { at as u64 * 8 } else { bit } / u64::from(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_refcount_of_every_width() {
        assert_eq!(last_used(&[0; 8], 16), None);
        assert_eq!(last_used(&[0, 1, 0, 1, 0, 0], 16), Some(1));
        assert_eq!(last_used(&[0, 1, 1, 0, 0, 0], 16), Some(1));
        assert_eq!(last_used(&[0b0000_0101, 0], 1), Some(2));
        assert_eq!(last_used(&[0, 0b0001_0000], 4), Some(3));
        assert_eq!(last_used(&[0, 0b0000_1000], 4), Some(2));
        assert_eq!(last_used(&[0, 0, 9, 0], 8), Some(2));
        let mut block = [0; 32];
        block[17] = 1;
        assert_eq!(last_used(&block, 64), Some(2));
    }
}
