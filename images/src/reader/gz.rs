//! Raw disks in gzip members (RFC 1952).

use std::io;

use flate2::bufread::GzDecoder;

use super::Format;
use super::input::Input;
use super::members::{Codec, Members};

/// Members; `pigz` and `bgzip` write more than one.
pub(super) struct Gz;

/// The disk in `input`.
pub(super) fn open(input: Input) -> Members<Gz> {
    Members::new(input)
}

impl Codec for Gz {
    type Member = GzDecoder<Input>;
    const FORMAT: Format = Format::RawGz;
    const MAGIC_LEN: usize = 3;

    fn is_member(head: &[u8]) -> bool {
        head == [0x1f, 0x8b, 0x08]
    }

    fn start(input: Input) -> io::Result<Self::Member> {
        Ok(GzDecoder::new(input))
    }

    fn finish(member: Self::Member) -> Input {
        member.into_inner()
    }
}
