//! A request as it lies in the guest's memory: a chain of descriptors (VIRTIO 1.2, 2.7.5). The guest may write anything
//! there at any time, so each address is looked up when it is used, lengths are added up with care, and a chain is no
//! longer than its table.

use vm_memory::{Address, Bytes, GuestAddress};

use crate::ring::Memory;

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Another descriptor follows.
const NEXT: u16 = 1;
/// The device writes.
const WRITE: u16 = 2;
/// The descriptor is a table of descriptors.
const INDIRECT: u16 = 4;

/// Where the descriptors of a queue lie.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Address in the guest.
    pub at: GuestAddress,
    /// Descriptors.
    pub len: u16,
}

/// A chain that cannot be walked: nobody can say where its status byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A descriptor outside its table or the memory, a table in a table, or a loop.
    #[error("a chain of descriptors that leads nowhere")]
    Broken,
    /// No room for a head or a status.
    #[error("a chain of descriptors without room for head or status")]
    Short,
    /// Data outside the guest's memory.
    #[error("a descriptor outside the guest's memory")]
    Outside,
}

/// Pieces of the guest's memory that together are one sequence of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces(Vec<(GuestAddress, u32)>);

/// A request's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Written by the guest: head, then data.
    pub from_guest: Pieces,
    /// For the guest: data, then one byte of status.
    pub to_guest: Pieces,
}

impl Chain {
    /// Walks the chain that begins at descriptor `head`.
    ///
    /// # Errors
    /// [`ChainError::Broken`].
    pub fn walk(memory: &Memory, queue: Table, head: u16) -> Result<Self, ChainError> {
        let (mut table, mut index, mut chain) = (queue, head, Self::default());
        let (mut left, mut indirect) = (queue.len, false);
        loop {
            left = left.checked_sub(1).ok_or(ChainError::Broken)?;
            let (address, length, flags, next) = read_descriptor(memory, table, index)?;
            if flags & INDIRECT != 0 {
                let len = u16::try_from(u64::from(length) / DESCRIPTOR).map_err(|_| ChainError::Broken)?;
                if indirect || flags & NEXT != 0 {
                    return Err(ChainError::Broken);
                }
                (table, index, left, indirect) = (Table { at: address, len }, 0, len, true);
                continue;
            }
            let pieces = if flags & WRITE != 0 { &mut chain.to_guest } else { &mut chain.from_guest };
            pieces.0.push((address, length));
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = next;
        }
    }
}

impl Pieces {
    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(_, length)| u64::from(*length)).sum()
    }

    /// True where there is not one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the first `count` bytes off.
    ///
    /// # Errors
    /// [`ChainError::Short`] where there are fewer.
    pub fn take(&mut self, count: u32) -> Result<Self, ChainError> {
        let (mut left, mut taken) = (count, Self::default());
        while left > 0 {
            let (address, length) = self.0.first_mut().ok_or(ChainError::Short)?;
            let part = left.min(*length);
            taken.0.push((*address, part));
            (*address, *length) = (address.unchecked_add(u64::from(part)), *length - part);
            if *length == 0 {
                self.0.remove(0);
            }
            left -= part;
        }
        Ok(taken)
    }

    /// Takes the last byte off.
    ///
    /// # Errors
    /// [`ChainError::Short`] where there is none.
    pub fn take_last(&mut self) -> Result<GuestAddress, ChainError> {
        while self.0.pop_if(|(_, length)| *length == 0).is_some() {}
        let (address, length) = self.0.last_mut().ok_or(ChainError::Short)?;
        *length -= 1;
        Ok(address.unchecked_add(u64::from(*length)))
    }

    /// Copies the bytes out of the guest's memory; `into` is as long as the pieces.
    ///
    /// # Errors
    /// [`ChainError::Outside`].
    pub fn read(&self, memory: &Memory, into: &mut [u8]) -> Result<(), ChainError> {
        let mut rest = into;
        for (address, length) in &self.0 {
            let (piece, after) = rest.split_at_mut_checked(*length as usize).ok_or(ChainError::Short)?;
            memory.read_slice(piece, *address).map_err(|_| ChainError::Outside)?;
            rest = after;
        }
        Ok(())
    }

    /// Copies `from`, as long as the pieces, into the guest's memory.
    ///
    /// # Errors
    /// [`ChainError::Outside`].
    pub fn write(&self, memory: &Memory, from: &[u8]) -> Result<(), ChainError> {
        let mut rest = from;
        for (address, length) in &self.0 {
            let (piece, after) = rest.split_at_checked(*length as usize).ok_or(ChainError::Short)?;
            memory.write_slice(piece, *address).map_err(|_| ChainError::Outside)?;
            rest = after;
        }
        Ok(())
    }
}

fn read_descriptor(
    memory: &Memory,
    table: Table,
    index: u16,
) -> Result<(GuestAddress, u32, u16, u16), ChainError> {
    if index >= table.len {
        return Err(ChainError::Broken);
    }
    let mut bytes = [0; DESCRIPTOR as usize];
    let at = table.at.checked_add(u64::from(index) * DESCRIPTOR).ok_or(ChainError::Broken)?;
    memory.read_slice(&mut bytes, at).map_err(|_| ChainError::Broken)?;
    let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
    let address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    // No piece wraps around, so that what is added to its address afterwards does not.
    address.checked_add(u64::from(length)).ok_or(ChainError::Broken)?;
    Ok((GuestAddress(address), length, u16::from_le_bytes([f0, f1]), u16::from_le_bytes([n0, n1])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: Table = Table { at: GuestAddress(0), len: 8 };

    fn memory(descriptors: &[(u64, u32, u16, u16)]) -> Memory {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        for (index, (address, length, flags, next)) in descriptors.iter().enumerate() {
            write_descriptor(&memory, index as u64 * DESCRIPTOR, (*address, *length, *flags, *next));
        }
        memory
    }

    fn write_descriptor(memory: &Memory, at: u64, (address, length, flags, next): (u64, u32, u16, u16)) {
        let bytes =
            [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        memory.write_slice(&bytes.concat(), GuestAddress(at)).unwrap();
    }

    fn pieces(of: &[(u64, u32)]) -> Pieces {
        Pieces(of.iter().map(|(a, l)| (GuestAddress(*a), *l)).collect())
    }

    #[test]
    fn a_chain_is_walked_in_order_and_by_direction() {
        let memory = memory(&[(0x1000, 16, NEXT, 2), (0x3000, 1, WRITE, 0), (0x2000, 512, NEXT | WRITE, 1)]);
        let chain = Chain::walk(&memory, TABLE, 0).unwrap();
        assert_eq!(chain.from_guest, pieces(&[(0x1000, 16)]));
        assert_eq!(chain.to_guest, pieces(&[(0x2000, 512), (0x3000, 1)]));
    }

    #[test]
    fn an_indirect_table_may_be_longer_than_the_queue() {
        let memory = memory(&[(0x4000, 20 * 16, INDIRECT, 0)]);
        for index in 0..20_u16 {
            let flags = WRITE | if index < 19 { NEXT } else { 0 };
            write_descriptor(&memory, 0x4000 + u64::from(index) * 16, (0x8000, 7, flags, index + 1));
        }
        assert_eq!(Chain::walk(&memory, TABLE, 0).unwrap().to_guest.len(), 140);
    }

    #[test]
    fn chains_that_lead_nowhere_are_refused() {
        for broken in [
            (0x1000, 16, NEXT, 0),            // a loop
            (0x1000, 16, NEXT, 8),            // outside the table
            (0xffff_0000, 16, INDIRECT, 0),   // a table outside the memory
            (0, 16, INDIRECT, 0),             // a table in a table
            (0x1000, 0, INDIRECT, 0),         // an empty table
            (0x1000, u32::MAX, INDIRECT, 0),  // a table longer than any
            (0x1000, 16, INDIRECT | NEXT, 1), // a table with a successor
            (u64::MAX - 3, 16, 0, 0),         // around the end of the address space
        ] {
            let memory = memory(&[broken]);
            assert_eq!(Chain::walk(&memory, TABLE, 0), Err(ChainError::Broken), "{broken:?}");
        }
        assert_eq!(Chain::walk(&memory(&[]), TABLE, 8), Err(ChainError::Broken));
    }

    #[test]
    fn head_and_status_are_taken_off_wherever_the_guest_cut_them() {
        let mut from = pieces(&[(0x1000, 10), (0x2000, 6), (0x3000, 512)]);
        assert_eq!(from.take(16).unwrap(), pieces(&[(0x1000, 10), (0x2000, 6)]));
        assert_eq!(from.take(100).unwrap(), pieces(&[(0x3000, 100)]));
        assert_eq!(from, pieces(&[(0x3064, 412)]));
        assert_eq!(from.take(413), Err(ChainError::Short));
        let mut to = pieces(&[(0x1000, 513), (0x5000, 0)]);
        assert_eq!(to.take_last().unwrap(), GuestAddress(0x1200));
        assert_eq!(to.len(), 512);
        assert_eq!(Pieces::default().take_last(), Err(ChainError::Short));
    }

    #[test]
    fn bytes_are_copied_across_pieces_and_never_outside() {
        let memory = memory(&[]);
        let two = pieces(&[(0x1000, 3), (0x2000, 2)]);
        two.write(&memory, b"abcde").unwrap();
        let mut found = [0; 5];
        two.read(&memory, &mut found).unwrap();
        assert_eq!(&found, b"abcde");
        let outside = pieces(&[(0xffff, 2)]);
        assert_eq!(outside.write(&memory, b"ab"), Err(ChainError::Outside));
        assert_eq!(outside.read(&memory, &mut found[..2]), Err(ChainError::Outside));
    }

    proptest! {
        #[test]
        fn no_memory_makes_us_panic_or_walk_for_ever(words in proptest::collection::vec((0_u64..0x200, 0_u32..64,
                                                     0_u16..8, 0_u16..9), 8), head in 0_u16..10) {
            if let Ok(mut chain) = Chain::walk(&memory(&words), TABLE, head) {
                let whole = chain.to_guest.len();
                if chain.to_guest.take_last().is_ok() {
                    prop_assert_eq!(chain.to_guest.len(), whole - 1);
                }
                let _ = chain.from_guest.take(16);
            }
        }
    }
}
