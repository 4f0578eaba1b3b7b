//! One download, as a state machine without socket and clock (RFC 1350, 2347, 2348, 2349, 7440).

use std::sync::Arc;

const RRQ: u16 = 1;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// What the client asks for beside the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Octets in a block.
    pub blksize: Option<u16>,
    /// Blocks between two acknowledgements.
    pub windowsize: Option<u16>,
    /// The size of the file.
    pub tsize: bool,
}

/// What a packet leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing is to be sent.
    Silent,
    /// This is to be sent.
    Send([u8; 4]),
    /// All of the file was there and is what was expected; this is to be sent.
    Done([u8; 4]),
    /// It will not come to anything.
    Failed(String),
}

/// One download. The file's contents are compared with what is expected and not kept.
#[derive(Debug, Clone)]
pub struct Download {
    request: Vec<u8>,
    expected: Arc<[u8]>,
    wishes: Wishes,
    blksize: usize,
    window: u16,
    /// Block that comes next, counting from 1 without wrapping.
    next: u64,
    /// Blocks that came since the last acknowledgement.
    pending: u16,
    /// A gap was answered and not yet filled.
    gap: bool,
    agreed: bool,
    done: bool,
    windows_granted: bool,
}

impl Download {
    /// A download of `name`.
    pub fn new(name: &str, wishes: Wishes, expected: Arc<[u8]>) -> Self {
        let mut request = RRQ.to_be_bytes().to_vec();
        let mut word = |text: &str| {
            request.extend_from_slice(text.as_bytes());
            request.push(0);
        };
        word(name);
        word("octet");
        if wishes.tsize {
            word("tsize");
            word("0");
        }
        for (option, value) in [("blksize", wishes.blksize), ("windowsize", wishes.windowsize)] {
            if let Some(value) = value {
                word(option);
                word(&value.to_string());
            }
        }
        Self {
            request,
            expected,
            wishes,
            blksize: 512,
            window: 1,
            next: 1,
            pending: 0,
            gap: false,
            agreed: false,
            done: false,
            windows_granted: false,
        }
    }

    /// The read request.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// What to send again after silence, to the session's port once there was an answer.
    pub fn repeat(&self) -> Vec<u8> {
        if self.is_answered() { self.acknowledgement().to_vec() } else { self.request.clone() }
    }

    /// True once the server has answered.
    pub fn is_answered(&self) -> bool {
        self.agreed || self.next > 1
    }

    /// True where the server granted windows (RFC 7440).
    pub fn has_windows(&self) -> bool {
        self.windows_granted
    }

    /// Octets that came so far, in order.
    pub fn received(&self) -> u64 {
        ((self.next - 1) * self.blksize as u64).min(self.expected.len() as u64)
    }

    /// Takes a packet.
    pub fn handle(&mut self, packet: &[u8]) -> Reply {
        let word = |at: usize| packet.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        match (word(0), word(2)) {
            (Some(DATA), Some(block)) => self.handle_data(block, &packet[4..]),
            (Some(OACK), _) => self.handle_oack(&packet[2..]),
            (Some(ERROR), Some(code)) => {
                let text = packet[4..].split(|b| *b == 0).next().unwrap_or_default();
                Reply::Failed(format!("error {code}: {}", String::from_utf8_lossy(text)))
            }
            _ => Reply::Failed(format!("no TFTP packet: {:02x?}", &packet[..packet.len().min(16)])),
        }
    }

    fn handle_oack(&mut self, mut options: &[u8]) -> Reply {
        if self.next > 1 {
            return Reply::Silent;
        }
        let mut word = || -> Option<String> {
            let end = options.iter().position(|b| *b == 0)?;
            let text = String::from_utf8_lossy(&options[..end]).into_owned();
            options = &options[end + 1..];
            Some(text)
        };
        while let Some(name) = word() {
            let Some(value) = word().and_then(|v| v.parse::<u64>().ok()) else {
                return Reply::Failed(format!("OACK with {name} and no number"));
            };
            let no_more_than = |wish: Option<u16>| wish.is_some_and(|w| (1..=u64::from(w)).contains(&value));
            match name.to_ascii_lowercase().as_str() {
                "blksize" if no_more_than(self.wishes.blksize) => self.blksize = value as usize,
                "windowsize" if no_more_than(self.wishes.windowsize) => {
                    self.window = value as u16;
                    self.windows_granted = true;
                }
                "tsize" if self.wishes.tsize && value == self.expected.len() as u64 => {}
                _ => return Reply::Failed(format!("OACK with {name} {value}, which was not asked for")),
            }
        }
        self.agreed = true;
        Reply::Send(self.acknowledgement())
    }

    fn handle_data(&mut self, block: u16, data: &[u8]) -> Reply {
        // The wire carries the low 16 bits.
        if block != self.next as u16 || self.done {
            // RFC 7440 section 4: a gap is answered with the last block in order, once. What comes twice is not
            // answered but by the last acknowledgement, which may be what was lost.
            let ahead = block.wrapping_sub(self.next as u16);
            if self.done || (ahead < self.window && !self.gap) {
                self.gap = !self.done;
                self.pending = 0;
                return Reply::Send(self.acknowledgement());
            }
            let behind = (self.next as u16).wrapping_sub(1).wrapping_sub(block);
            return if behind == 0 { Reply::Send(self.acknowledgement()) } else { Reply::Silent };
        }
        let start = (self.next - 1) as usize * self.blksize;
        let end = (start + self.blksize).min(self.expected.len());
        if self.expected.get(start..end) != Some(data) {
            return Reply::Failed(format!("block {} is not what the file has there", self.next));
        }
        self.next += 1;
        self.pending += 1;
        self.gap = false;
        if data.len() < self.blksize {
            self.done = true;
            return Reply::Done(self.acknowledgement());
        }
        if self.pending < self.window {
            return Reply::Silent;
        }
        self.pending = 0;
        Reply::Send(self.acknowledgement())
    }

    fn acknowledgement(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (ACK.to_be_bytes(), ((self.next - 1) as u16).to_be_bytes());
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(block: u16, bytes: &[u8]) -> Vec<u8> {
        [&DATA.to_be_bytes()[..], &block.to_be_bytes(), bytes].concat()
    }

    #[test]
    fn a_window_with_a_gap() {
        let file: Arc<[u8]> = (0..40u8).collect();
        let wishes = Wishes { blksize: Some(8), windowsize: Some(4), tsize: true };
        let mut client = Download::new("f", wishes, file.clone());
        assert_eq!(client.request(), b"\0\x01f\0octet\0tsize\x000\0blksize\x008\0windowsize\x004\0");
        assert_eq!(
            client.handle(b"\0\x06tsize\x0040\0blksize\x008\0windowsize\x004\0"),
            Reply::Send([0, 4, 0, 0])
        );
        assert_eq!(client.handle(&data(1, &file[..8])), Reply::Silent);
        assert_eq!(client.handle(&data(3, &file[16..24])), Reply::Send([0, 4, 0, 1]), "block 2 is missing");
        assert_eq!(client.handle(&data(4, &file[24..32])), Reply::Silent, "said once");
        for (block, start) in [(2, 8), (3, 16), (4, 24)] {
            assert_eq!(client.handle(&data(block, &file[start..start + 8])), Reply::Silent);
        }
        assert_eq!(client.handle(&data(5, &file[32..])), Reply::Send([0, 4, 0, 5]));
        assert_eq!(client.handle(&data(6, &[])), Reply::Done([0, 4, 0, 6]));
        assert_eq!(client.handle(&data(6, &[])), Reply::Send([0, 4, 0, 6]), "the last one was lost");
    }

    #[test]
    fn what_a_server_may_not_do() {
        let file: Arc<[u8]> = [7; 100].into();
        let wishes = Wishes { blksize: Some(64), ..Wishes::default() };
        let fails = |packet: &[u8]| {
            let mut client = Download::new("f", wishes, file.clone());
            matches!(client.handle(packet), Reply::Failed(_))
        };
        assert!(fails(b"\0\x06blksize\x0065\0"), "more than asked for");
        assert!(fails(b"\0\x06windowsize\x001\0"), "not asked for");
        assert!(fails(b"\0\x05\0\x01not found\0"));
        assert!(fails(&data(1, &[8; 64])), "another file");
    }
}
