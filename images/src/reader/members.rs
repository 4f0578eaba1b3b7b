//! What zstd, gzip and xz files have in common: one compressed member after the other, and nothing after the last.

use std::io::{self, Read};

use super::input::{Input, source_error};
use super::{Format, Piece, RawDisk, ReadError, read_full};

/// A compression format, as far as members go.
pub(super) trait Codec: Send + 'static {
    /// The decoder of one member.
    type Member: Read + Send;
    /// The format.
    const FORMAT: Format;
    /// Bytes that [`Codec::is_member`] wants to see.
    const MAGIC_LEN: usize;

    /// True where a member starts with these bytes.
    fn is_member(head: &[u8]) -> bool;
    /// Starts decoding a member.
    fn start(input: Input) -> io::Result<Self::Member>;
    /// The input, right behind a member that was read to its end.
    fn finish(member: Self::Member) -> Input;
}

/// Members without a byte in them that may follow each other; a file of nothing else would keep us busy for ever.
/// Parallel compressors put one between two others.
const EMPTY_MAX: u32 = 1024;

/// A raw disk in members of one codec.
pub(super) struct Members<C: Codec> {
    state: State<C>,
    raw: u64,
    /// Members without data since the last data.
    empty: u32,
}

enum State<C: Codec> {
    /// Before a member; the flag says that there was one already, so the file may end here.
    Between(Input, bool),
    Inside(C::Member),
    /// At the end, or after an error.
    Done,
}

impl<C: Codec> Members<C> {
    pub(super) fn new(input: Input) -> Self {
        Self { state: State::Between(input, false), raw: 0, empty: 0 }
    }

    /// Reads a part of `buf`; zero only at the end of the file.
    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Ok(0),
                State::Between(mut input, after_one) => {
                    let head = input.peek(C::MAGIC_LEN).map_err(|e| self.error(e))?;
                    if head.is_empty() && after_one {
                        return Ok(0);
                    }
                    if !C::is_member(head) && after_one {
                        return Err(ReadError::TrailingData { format: C::FORMAT, raw: self.raw });
                    }
                    self.state = State::Inside(C::start(input).map_err(|e| self.error(e))?);
                }
                State::Inside(mut member) => {
                    let (n, result) = read_full(&mut member, buf);
                    self.raw += n as u64;
                    result.map_err(|e| self.error(e))?;
                    if n > 0 {
                        self.empty = 0;
                        self.state = State::Inside(member);
                        return Ok(n);
                    }
                    self.empty += 1;
                    if self.empty > EMPTY_MAX {
                        return Err(self.error(io::Error::other("too many members without data")));
                    }
                    self.state = State::Between(C::finish(member), true);
                }
            }
        }
    }

    fn error(&self, error: io::Error) -> ReadError {
        let (format, raw) = (C::FORMAT, self.raw);
        match source_error(error) {
            Ok(source) => ReadError::Source(source),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => ReadError::Truncated { format, raw },
            Err(cause) => ReadError::Damaged { format, raw, cause },
        }
    }
}

impl<C: Codec> RawDisk for Members<C> {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read_chunk(&mut self, buf: &mut [u8]) -> Result<Piece, ReadError> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..)
            && !rest.is_empty()
        {
            match self.read_some(rest)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(Piece::Data(done))
    }
}
