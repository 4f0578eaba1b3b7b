//! Raw disks in zstd frames (RFC 8878).

use std::io;

use zstd::stream::read::Decoder;

use super::Format;
use super::input::Input;
use super::members::{Codec, Members};

/// Largest window a frame may ask for, as a power of two: 128 MiB, what `zstd --ultra -22` makes and `zstd -d` takes
/// without being told.
const WINDOW_LOG_MAX: u32 = 27;

/// Frames, and skippable frames between them.
pub(super) struct Zst;

/// The disk in `input`.
pub(super) fn open(input: Input) -> Members<Zst> {
    Members::new(input)
}

/// True where a frame or a skippable frame (RFC 8878, 3.1.1 and 3.1.2) starts here.
pub(super) fn is_frame(head: &[u8]) -> bool {
    match head {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => true,
        [kind, 0x2a, 0x4d, 0x18, ..] => (0x50..=0x5f).contains(kind),
        _ => false,
    }
}

impl Codec for Zst {
    type Member = Decoder<'static, Input>;
    const FORMAT: Format = Format::RawZst;
    const MAGIC_LEN: usize = 4;

    fn is_member(head: &[u8]) -> bool {
        is_frame(head)
    }

    fn start(input: Input) -> io::Result<Self::Member> {
        let mut decoder = Decoder::with_buffer(input)?.single_frame();
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        Ok(decoder)
    }

    fn finish(member: Self::Member) -> Input {
        member.finish()
    }
}
