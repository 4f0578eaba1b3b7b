//! Raw disks in xz streams (the .xz file format 1.2.1). Padding between streams (section 2.2 there) is not accepted:
//! nothing that compresses disks writes it.

use std::io;

use lzma_rust2::XzReader;

use super::Format;
use super::input::Input;
use super::members::{Codec, Members};

/// Memory that a block's dictionary may ask for, in KiB: `xz -9` wants 65 MiB.
const MEMORY_KIB: u32 = 128 << 10;

/// Streams; `pixz` and concatenation write more than one.
pub(super) struct Xz;

/// The disk in `input`.
pub(super) fn open(input: Input) -> Members<Xz> {
    Members::new(input)
}

impl Codec for Xz {
    type Member = XzReader<Input>;
    const FORMAT: Format = Format::RawXz;
    const MAGIC_LEN: usize = 6;

    fn is_member(head: &[u8]) -> bool {
        head == b"\xfd7zXZ\0"
    }

    fn start(input: Input) -> io::Result<Self::Member> {
        Ok(XzReader::new_mem_limit(input, false, MEMORY_KIB))
    }

    fn finish(member: Self::Member) -> Input {
        member.into_inner()
    }
}
