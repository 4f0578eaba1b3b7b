//! A stream that can be peeked at, and a stream that is counted and hashed on its way.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use protocol::Sha256;
use sha2::Digest;

/// Bytes read from the source at once: large enough that system calls do not count, small beside a chunk.
const BUFFER: usize = 256 << 10;

/// A buffered stream whose next bytes can be looked at.
pub struct Input {
    inner: Box<dyn Read + Send>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// An error of the source, so that a decoder's own errors can be told from it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SourceError(io::Error);

impl Input {
    /// Reads from `inner`.
    pub fn new(inner: impl Read + Send + 'static) -> Self {
        Self { inner: Box::new(inner), buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    /// The next `wanted` bytes (at most 256 KiB), fewer at the end, without taking them.
    ///
    /// # Errors
    /// Where the source fails.
    pub fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(self.buffer.len());
        if self.start + wanted > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < wanted {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match read_source(&mut *self.inner, room)? {
                0 => break,
                n => self.end += n,
            }
        }
        let upto = self.end.min(self.start + wanted);
        Ok(self.buffer.get(self.start..upto).unwrap_or_default())
    }
}

/// Takes an error of the source out of what a decoder made of it; gives others back.
pub(super) fn source_error(error: io::Error) -> Result<io::Error, io::Error> {
    error.downcast::<SourceError>().map(|e| e.0)
}

fn read_source(inner: &mut (dyn Read + Send), buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match inner.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(|e| io::Error::new(e.kind(), SourceError(e))),
        }
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // A large read into an empty buffer goes past it.
        if self.start == self.end && buf.len() >= self.buffer.len() {
            return read_source(&mut *self.inner, buf);
        }
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = read_source(&mut *self.inner, &mut self.buffer)?;
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.end.min(self.start + amount);
    }
}

/// A stream that is counted, limited, and hashed where asked, on its way through.
#[derive(Debug)]
pub struct Metered<R> {
    inner: R,
    tally: Arc<Tally>,
    hasher: Option<sha2::Sha256>,
    limit: u64,
}

/// What passed through a [`Metered`] stream; can be read from elsewhere, at any time.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: AtomicU64,
    over: AtomicBool,
    sha256: OnceLock<Option<Sha256>>,
}

impl<R: Read> Metered<R> {
    /// Passes at most `limit` bytes on; a stream that has more fails there. Hashes where `hash`.
    pub fn new(inner: R, limit: u64, hash: bool) -> (Self, Arc<Tally>) {
        let tally = Arc::new(Tally::default());
        let hasher = hash.then(sha2::Sha256::new);
        (Self { inner, tally: Arc::clone(&tally), hasher, limit }, tally)
    }
}

impl Tally {
    /// Bytes that passed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// True where the stream was stopped at its limit with more to come.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// True where the stream came to its own end.
    pub fn is_ended(&self) -> bool {
        self.sha256.get().is_some()
    }

    /// SHA-256 of the whole stream, once it has ended and where it was asked for.
    pub fn sha256(&self) -> Option<Sha256> {
        self.sha256.get().copied().flatten()
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buf)?;
        if n == 0 {
            let hash = self.hasher.take().map(|h| Sha256(h.finalize().into()));
            self.tally.sha256.get_or_init(|| hash);
            return Ok(0);
        }
        let before = self.tally.bytes();
        if n as u64 > self.limit.saturating_sub(before) {
            self.tally.over.store(true, Ordering::Release);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "stream is longer than it may be"));
        }
        self.tally.bytes.store(before + n as u64, Ordering::Release);
        if let (Some(hasher), Some(read)) = (&mut self.hasher, buf.get(..n)) {
            hasher.update(read);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Slow(&'static [u8]);

    impl Read for Slow {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(buf.len()).min(1);
            let (now, later) = self.0.split_at(n);
            buf[..n].copy_from_slice(now);
            self.0 = later;
            Ok(n)
        }
    }

    #[test]
    fn peeking_takes_nothing() {
        let mut input = Input::new(Slow(b"hello, world"));
        assert_eq!(input.peek(5).unwrap(), b"hello");
        let mut two = [0; 2];
        input.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"he");
        assert_eq!(input.peek(100).unwrap(), b"llo, world");
        let mut rest = String::new();
        input.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "llo, world");
        assert!(input.peek(1).unwrap().is_empty());
    }

    #[test]
    fn tally_counts_and_hashes() {
        let (mut metered, tally) = Metered::new(&b"abc"[..], 3, true);
        assert!(!tally.is_ended());
        io::copy(&mut metered, &mut io::sink()).unwrap();
        assert_eq!(tally.bytes(), 3);
        assert_eq!(
            tally.sha256().unwrap().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_longer_stream_stops_at_the_limit() {
        let (mut metered, tally) = Metered::new(&b"abcd"[..], 3, true);
        let error = io::copy(&mut metered, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(tally.is_over() && !tally.is_ended());
    }

    #[test]
    fn an_error_of_the_source_is_known_as_such() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("cable"))
            }
        }
        let error = Input::new(Broken).peek(1).unwrap_err();
        assert_eq!(source_error(error).unwrap().to_string(), "cable");
        assert!(source_error(io::Error::other("bits")).is_err());
    }
}
