//! Uploads: the body of a request, handed piece by piece to the thread that reads the image.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::StreamExt as _;
use images::Source;
use protocol::ImageId;
use tokio::sync::mpsc;

use super::{Begun, Ingests, Order, internal};
use crate::view::Problem;

/// Pieces on their way; hyper makes them of at most a few hundred KiB.
const PIECES_MAX: usize = 8;
/// A client that sends nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a refused upload that are still taken, so that the client gets to read the answer: one that is still
/// writing when the connection closes sees a reset instead (RFC 9112 section 9.6).
const DRAIN_MAX: u64 = 256 << 20;

enum Piece {
    Bytes(Bytes),
    Failed(io::Error),
    End,
}

impl Ingests {
    /// Takes in an upload. Goes on to its end even where the client leaves after the last byte.
    ///
    /// # Errors
    /// Where the file is not what it should be.
    pub async fn upload(&self, begun: Begun, order: Order, body: Body) -> Result<ImageId, Problem> {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let this = self.clone();
        let reading = tokio::spawn(async move {
            let reader = Pieces { receiver, current: Bytes::new(), ended: false };
            this.finish(begun, order, move |_, _| Ok(Source::stream(reader))).await
        });
        feed(body, sender).await;
        reading.await.map_err(|_| internal())?
    }
}

/// A body as a stream that blocks, and what feeds it: to be waited for beside whoever reads.
pub(crate) fn reader(body: Body) -> (impl Read + Send + 'static, impl Future<Output = ()>) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    (Pieces { receiver, current: Bytes::new(), ended: false }, feed(body, sender))
}

/// Takes and forgets a body, within bounds, before it is refused.
pub(crate) async fn drain(body: Body) {
    // Without a reader from the start.
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    feed(body, sender).await;
}

async fn feed(body: Body, sender: mpsc::Sender<Piece>) {
    let mut stream = body.into_data_stream();
    let mut wanted = Some(sender);
    let mut drained = 0_u64;
    loop {
        let piece = match tokio::time::timeout(SILENCE_MAX, stream.next()).await {
            Ok(Some(Ok(bytes))) => Piece::Bytes(bytes),
            Ok(Some(Err(error))) => {
                Piece::Failed(io::Error::new(io::ErrorKind::UnexpectedEof, broken(&error)))
            }
            Ok(None) => Piece::End,
            Err(_) => {
                Piece::Failed(io::Error::new(io::ErrorKind::TimedOut, "the client sent nothing for a minute"))
            }
        };
        let last = !matches!(piece, Piece::Bytes(_));
        if let Piece::Bytes(bytes) = &piece
            && wanted.is_none()
        {
            drained = drained.saturating_add(bytes.len() as u64);
        }
        if let Some(sender) = &wanted
            && sender.send(piece).await.is_err()
        {
            wanted = None; // refused; its reason is on the way
        }
        if last || drained > DRAIN_MAX {
            return;
        }
    }
}

fn broken(error: &axum::Error) -> String {
    format!("the upload broke off: {}", super::sentence(error))
}

/// The pieces as a stream that blocks. Where no end was announced, the stream was cut.
struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(error)) => return Err(error),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the upload broke off")),
            }
        }
        let n = self.current.len().min(buf.len());
        let head = self.current.split_to(n);
        if let Some(room) = buf.get_mut(..n) {
            room.copy_from_slice(&head);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_its_end_is_an_error() {
        let (sender, receiver) = mpsc::channel(4);
        let mut pieces = Pieces { receiver, current: Bytes::new(), ended: false };
        sender.blocking_send(Piece::Bytes(Bytes::from_static(b"abc"))).unwrap();
        let mut two = [0; 2];
        assert_eq!((pieces.read(&mut two).unwrap(), &two), (2, b"ab"));
        drop(sender);
        assert_eq!(pieces.read(&mut two).unwrap(), 1);
        assert_eq!(pieces.read(&mut two).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_announced_end_is_an_end() {
        let (sender, receiver) = mpsc::channel(4);
        let mut pieces = Pieces { receiver, current: Bytes::new(), ended: false };
        sender.blocking_send(Piece::Bytes(Bytes::from_static(b"abc"))).unwrap();
        sender.blocking_send(Piece::End).unwrap();
        let mut all = Vec::new();
        assert_eq!(pieces.read_to_end(&mut all).unwrap(), 3);
        assert_eq!(pieces.read(&mut [0; 1]).unwrap(), 0);
    }
}
