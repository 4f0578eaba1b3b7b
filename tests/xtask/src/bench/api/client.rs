//! A client that costs next to nothing: HTTP/1.1 over one kept connection, blocking, without reading what it gets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Longest silence.
const SILENCE: Duration = Duration::from_secs(60);

/// A request as it goes over the wire.
#[derive(Debug, Clone)]
pub(super) struct Ask(Vec<u8>);

impl Ask {
    pub fn get(path: &str, headers: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n").into_bytes())
    }

    pub fn post(path: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        Self(text.into_bytes())
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn open(at: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(at).with_context(|| format!("connecting to {at}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Self { stream, buffer: vec![0; 256 << 10] })
    }

    /// Sends a request and takes its answer, which must have this status.
    pub fn ask(&mut self, ask: &Ask, status: u16) -> Result<()> {
        let (got, head) = self.head(ask)?;
        let length = header(&head.text, "content-length");
        let length: usize = length.context("an answer without its length")?.parse()?;
        let mut left = length.saturating_sub(head.rest);
        while left > 0 {
            let room = self.buffer.len().min(left);
            let read = self.stream.read(&mut self.buffer[..room])?;
            ensure!(read > 0, "the answer broke off");
            left -= read;
        }
        ensure!(got == status, "the answer was {got}, not {status}: {}", head.text);
        Ok(())
    }

    /// Sends a request whose answer does not end.
    pub fn begin(&mut self, ask: &Ask) -> Result<()> {
        let (status, head) = self.head(ask)?;
        ensure!(status == 200, "the stream was answered {status}: {}", head.text);
        Ok(())
    }

    fn head(&mut self, ask: &Ask) -> Result<(u16, Head)> {
        self.stream.write_all(&ask.0)?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(read > 0, "the connection was closed");
            filled += read;
            if let Some(end) = find(&self.buffer[..filled], b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
                return Ok((status.context("no status line")?, Head { text, rest: filled - end - 4 }));
            }
            if filled == self.buffer.len() {
                bail!("headers without an end");
            }
        }
    }

    /// How often `what` comes until then.
    pub fn count_events(&mut self, what: &[u8], until: Instant) -> Result<usize> {
        let (mut count, mut filled) = (0, 0);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut self.buffer[filled..]) {
                Ok(0) => bail!("the stream ended"),
                Ok(read) => filled += read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => return Err(error.into()),
            }
            let mut begin = 0;
            while let Some(at) = find(&self.buffer[begin..filled], what) {
                count += 1;
                begin += at + what.len();
            }
            // The end may be the beginning of the next one.
            let keep = begin.max(filled.saturating_sub(what.len() - 1));
            self.buffer.copy_within(keep..filled, 0);
            filled -= keep;
        }
        Ok(count)
    }
}

struct Head {
    text: String,
    /// Octets of the body that came along.
    rest: usize,
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|part| part == what)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// Requests per second, where `count` of them are made over so many connections.
pub(super) fn rate(
    at: SocketAddr,
    connections: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask + Sync,
    status: u16,
) -> Result<f64> {
    let (next, begin) = (AtomicUsize::new(0), Instant::now());
    let work = || {
        let mut connection = Connection::open(at)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            connection.ask(&ask(number), status)?;
        }
    };
    let done: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect()
    });
    done.into_iter().collect::<Result<()>>()?;
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y";
        assert_eq!(header(head, "content-length"), Some("12"));
        assert_eq!(header(head, "etag"), None);
        assert_eq!(find(b"abcabc", b"ca"), Some(2));
    }
}
