//! File content that never enters this process: sendfile(2) below hyper.
//!
//! ```text
//! handler ─▶ HandedBody ──(stand-in octets)──▶ hyper ──(the same octets)──▶ Wire ──sendfile──▶ socket
//!                 └────────── Piece {file, offset, length} ────────────────▶┘
//! ```
//!
//! hyper writes bodies from memory only. So the body gives it octets that stand for those of the file, all slices of one
//! static region that is never read, and tells the connection's [`Wire`](super::wire::Wire) which piece of which file
//! they stand for. The wire, which hyper hands its buffers to as they are (vectored writes, no copy), knows the region
//! by its address and sends the piece instead. Framing, ranges, keep-alive and time-outs stay hyper's and ours; only the
//! copying is gone. Decision record 0013 has the figures.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{IoSliceMut, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

/// Octets that stand for those of files. Never read, so they never become resident memory.
static STAND_IN: [u8; PIECE_MAX] = [0; PIECE_MAX];
/// Most that is sent of one file before others get their turn.
const PIECE_MAX: usize = 1 << 20;
/// Read at once to bring a piece of a file into the page cache.
const WARM: usize = 256 << 10;

/// True where these octets stand for those of a file.
pub(super) fn is_stand_in(octets: &[u8]) -> bool {
    STAND_IN.as_ptr_range().contains(&octets.as_ptr())
}

/// A piece of a file that is to be sent.
#[derive(Debug)]
pub(super) struct Piece {
    pub file: Arc<File>,
    pub offset: u64,
    pub left: usize,
}

/// The pieces that the stand-in octets on their way to one connection's wire stand for, in order. In the extensions of
/// each request that came in by a wire that can do this.
#[derive(Debug, Clone, Default)]
pub(super) struct Handoff(Arc<Mutex<VecDeque<Piece>>>);

impl Handoff {
    fn push(&self, piece: Piece) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(piece);
    }

    /// The first piece, to take from; it goes once nothing of it is left. `None` is a bug of ours: octets stand for
    /// nothing.
    pub(super) fn with_first<T>(&self, take: impl FnOnce(&mut Piece) -> T) -> Option<T> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = pieces.front_mut()?;
        let taken = take(first);
        if first.left == 0 {
            pieces.pop_front();
        }
        Some(taken)
    }
}

/// A body of `left` octets of a file from `offset` on.
#[derive(Debug)]
pub(super) struct HandedBody {
    pub file: Arc<File>,
    pub offset: u64,
    pub left: u64,
    pub handoff: Handoff,
    warming: Option<JoinHandle<()>>,
}

impl HandedBody {
    pub(super) fn new(file: Arc<File>, offset: u64, left: u64, handoff: Handoff) -> Self {
        Self { file, offset, left, handoff, warming: None }
    }
}

impl Body for HandedBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let len = usize::try_from(self.left).unwrap_or(PIECE_MAX).min(PIECE_MAX);
        if len == 0 {
            return Poll::Ready(None);
        }
        if self.warming.is_none() && !is_cached(&self.file, self.offset, len) {
            let (file, offset) = (self.file.clone(), self.offset);
            self.warming = Some(tokio::task::spawn_blocking(move || warm(&file, offset, len)));
        }
        if let Some(warming) = &mut self.warming {
            if let Err(error) = ready!(Pin::new(warming).poll(cx)) {
                return Poll::Ready(Some(Err(std::io::Error::other(error))));
            }
            self.warming = None;
        }
        let piece = Piece { file: self.file.clone(), offset: self.offset, left: len };
        self.offset += len as u64;
        self.left -= len as u64;
        self.handoff.push(piece);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&STAND_IN[..len])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Guesses whether sendfile(2) would wait for the disk: it does on this thread, where others wait too. Both ends of a
/// piece in the page cache speak for all of it, because the kernel reads ahead.
fn is_cached(file: &File, offset: u64, len: usize) -> bool {
    let last = offset + len as u64 - 1;
    [offset, last].into_iter().all(|at| {
        let mut octet = [0];
        let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut octet)], at, ReadWriteFlags::NOWAIT);
        // A file system that cannot tell is taken as one that has it.
        !matches!(read, Err(Errno::AGAIN))
    })
}

/// Reads a piece once, so that it is in the page cache. What cannot be read shows when it is sent.
fn warm(file: &File, offset: u64, len: usize) {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; WARM.min(len)];
    let end = offset + len as u64;
    let mut at = offset;
    while at < end {
        match file.read_at(&mut buffer, at) {
            Ok(0) | Err(_) => return,
            Ok(n) => at += n as u64,
        }
    }
}
