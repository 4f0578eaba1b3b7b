//! Where one JSON object ends and the next begins (RFC 8259), without parsing it.

use crate::limits::Limits;

/// What makes a stream unreadable; the connection is of no use afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Something else than an object between messages.
    #[error("a message begins with the octet {0:#04x}, not with `{{`")]
    Start(u8),
    /// An object that does not end in time.
    #[error("a message is longer than {0} octets")]
    TooLong(usize),
    /// Arrays in arrays in arrays.
    #[error("a message is nested deeper than {0}")]
    TooDeep(usize),
}

/// Cuts a stream into objects. Octets go in as they come, whole objects come out.
#[derive(Debug)]
pub struct Splitter {
    limits: Limits,
    buffer: Vec<u8>,
    /// Octets of `buffer` that were looked at.
    seen: usize,
    depth: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Plain,
    Text,
    Escape,
}

impl Splitter {
    /// For a stream that begins between two messages.
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: Vec::new(), seen: 0, depth: 0, place: Place::Plain }
    }

    /// Takes what was received.
    pub fn handle_input(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole object, brackets included; `None` where more octets are needed. It is balanced, not necessarily JSON.
    ///
    /// # Errors
    /// [`SplitError`]; what follows cannot be told apart any more.
    pub fn poll_message(&mut self) -> Result<Option<Vec<u8>>, SplitError> {
        if self.depth == 0 {
            let blank = self.buffer.iter().take_while(|b| b.is_ascii_whitespace()).count();
            self.buffer.drain(..blank);
        }
        while let Some(&octet) = self.buffer.get(self.seen) {
            if self.depth == 0 && octet != b'{' {
                return Err(SplitError::Start(octet));
            }
            self.seen += 1;
            if self.seen > self.limits.message {
                return Err(SplitError::TooLong(self.limits.message));
            }
            if self.step(octet)? {
                let rest = self.buffer.split_off(self.seen);
                self.seen = 0;
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
        }
        Ok(None)
    }

    /// True where the octet ends the object.
    fn step(&mut self, octet: u8) -> Result<bool, SplitError> {
        match (self.place, octet) {
            (Place::Escape, _) => self.place = Place::Text,
            (Place::Text, b'\\') => self.place = Place::Escape,
            (Place::Text, b'"') => self.place = Place::Plain,
            (Place::Plain, b'"') => self.place = Place::Text,
            (Place::Plain, b'{' | b'[') => {
                self.depth += 1;
                if self.depth > self.limits.depth {
                    return Err(SplitError::TooDeep(self.limits.depth));
                }
            }
            (Place::Plain, b'}' | b']') => {
                // At least 1 here: an object begins with a bracket.
                self.depth -= 1;
                return Ok(self.depth == 0);
            }
            _ => {}
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { message: 64, depth: 3, calls: 1 };

    fn all(pieces: &[&[u8]], limits: Limits) -> Result<Vec<String>, SplitError> {
        let mut splitter = Splitter::new(limits);
        let mut out = Vec::new();
        for piece in pieces {
            splitter.handle_input(piece);
            while let Some(message) = splitter.poll_message()? {
                out.push(String::from_utf8(message).unwrap());
            }
        }
        Ok(out)
    }

    #[test]
    fn objects_without_anything_between() {
        let text = br#"{"a":[1]} {"b":"}\"{"}{}"#;
        assert_eq!(all(&[text], LIMITS).unwrap(), [r#"{"a":[1]}"#, r#"{"b":"}\"{"}"#, "{}"]);
    }

    #[test]
    fn what_is_no_stream_of_objects_is_refused() {
        assert_eq!(all(&[b" [1]"], LIMITS), Err(SplitError::Start(b'[')));
        assert_eq!(all(&[b"{}}"], LIMITS), Err(SplitError::Start(b'}')));
        assert_eq!(all(&[b"HTTP/1.1"], LIMITS), Err(SplitError::Start(b'H')));
        assert_eq!(all(&[b"{[[[1]]]}"], LIMITS), Err(SplitError::TooDeep(3)));
        let long = format!("{{\"{}", "x".repeat(100));
        assert_eq!(all(&[long.as_bytes()], LIMITS), Err(SplitError::TooLong(64)));
    }

    proptest! {
        /// However the stream is cut, the same objects come out.
        #[test]
        fn cuts_change_nothing(texts in prop::collection::vec("[ -~]{0,20}", 0..6), at in prop::collection::vec(0_usize..200, 0..8)) {
            let limits = Limits { message: 4096, ..LIMITS };
            let objects: Vec<String> = texts.iter().map(|t| serde_json::json!({ "t": [t] }).to_string()).collect();
            let stream = objects.join(" ").into_bytes();
            let mut cuts: Vec<usize> = at.into_iter().map(|n| n.min(stream.len())).chain([0, stream.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(all(&pieces, limits).unwrap(), objects);
        }

        /// No octets make it panic, and what comes out is within the limits.
        #[test]
        fn any_octets(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut splitter = Splitter::new(LIMITS);
            splitter.handle_input(&octets);
            while let Ok(Some(message)) = splitter.poll_message() {
                prop_assert!(message.len() <= LIMITS.message);
                prop_assert_eq!(message[0], b'{');
            }
        }
    }
}
