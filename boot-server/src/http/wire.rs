//! A client's TCP connection below hyper (and below TLS): it sends file pieces that were handed over, and it gives up on a
//! client that takes nothing.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::sendfile::sendfile64;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::handoff::{Handoff, is_stand_in};
use super::limits::WRITE_MIN;

/// The connection.
pub(super) struct Wire {
    stream: TcpStream,
    handoff: Handoff,
    pace: Pace,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, handoff: Handoff, window: Duration) -> Self {
        Self { stream, handoff, pace: Pace { length: window, window: None, taken: 0 } }
    }

    /// Sends of the piece that `stand_in` stands for, at most as much.
    fn poll_send(&self, cx: &mut Context<'_>, stand_in: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.handoff.with_first(|piece| {
                let len = piece.left.min(stand_in.len());
                let mut offset = i64::try_from(piece.offset).map_err(io::Error::other)?;
                let sent = self.stream.try_io(Interest::WRITABLE, || {
                    Ok(sendfile64(&self.stream, &*piece.file, Some(&mut offset), len)?)
                })?;
                if sent == 0 {
                    // Shorter than it was: the connection is cut, so that nobody takes the rest for the whole.
                    return Err(io::Error::from(ErrorKind::UnexpectedEof));
                }
                piece.offset += sent as u64;
                piece.left -= sent;
                Ok(sent)
            });
            match sent {
                None => return Poll::Ready(Err(io::Error::other("a body without its file"))),
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Some(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Some(result) => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(octets)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = buffers.iter().find(|b| !b.is_empty());
        let written = match first {
            Some(first) if is_stand_in(first) => this.poll_send(cx, first),
            // What comes before the first piece of a file: mostly the head of an answer.
            _ => {
                let plain = buffers.iter().take_while(|b| !is_stand_in(b)).count();
                Pin::new(&mut this.stream).poll_write_vectored(cx, &buffers[..plain])
            }
        };
        this.pace.judge(cx, written)
    }

    /// hyper cannot hand over octets as they are without this.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All that there was to write is written: nothing waits for the client.
        self.get_mut().pace.rest();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// How fast the client takes what is there for it. A window begins when a write has to wait; at its end the client must
/// have taken [`WRITE_MIN`] octets, or all there was.
struct Pace {
    length: Duration,
    window: Option<Pin<Box<Sleep>>>,
    taken: u64,
}

impl Pace {
    fn rest(&mut self) {
        self.window = None;
    }

    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &written {
            self.taken = self.taken.saturating_add(*n as u64);
        }
        if written.is_ready() {
            return written;
        }
        let window = self.window.get_or_insert_with(|| {
            self.taken = 0;
            Box::pin(tokio::time::sleep(self.length))
        });
        while window.as_mut().poll(cx).is_ready() {
            if self.taken < WRITE_MIN {
                return Poll::Ready(Err(too_slow(self.taken, self.length)));
            }
            self.taken = 0;
            window.as_mut().reset(Instant::now() + self.length);
        }
        Poll::Pending
    }
}

fn too_slow(taken: u64, window: Duration) -> io::Error {
    let seconds = window.as_secs_f32();
    let message = format!("the client took {taken} octets in {seconds} s, fewer than {WRITE_MIN}");
    io::Error::new(ErrorKind::TimedOut, message)
}
