//! The newest octets of a console, each with its place since the server began to listen. Readers keep a place of their
//! own, so a slow one costs nothing and stops nobody.

use std::collections::VecDeque;

/// The newest octets.
#[derive(Debug, Clone)]
pub struct Ring {
    octets: VecDeque<u8>,
    max: usize,
    end: u64,
}

/// What there is for a reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// Octets that went before the reader came for them.
    pub skipped: u64,
    /// The next ones.
    pub octets: Vec<u8>,
}

impl Ring {
    /// An empty one that keeps `max` octets.
    pub fn new(max: usize) -> Self {
        Self { octets: VecDeque::new(), max, end: 0 }
    }

    /// Takes in what was printed.
    pub fn push(&mut self, octets: &[u8]) {
        self.end = self.end.saturating_add(octets.len() as u64);
        let newest = &octets[octets.len().saturating_sub(self.max)..];
        let excess = (self.octets.len() + newest.len()).saturating_sub(self.max);
        self.octets.drain(..excess);
        self.octets.extend(newest);
    }

    /// Place of the first octet that is kept.
    pub fn start(&self) -> u64 {
        self.end - self.octets.len() as u64
    }

    /// Place of the next octet to come.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// At most `max` octets from the place `at` on. A place in the future gives nothing.
    pub fn since(&self, at: u64, max: usize) -> Piece {
        let from = at.max(self.start());
        let offset = usize::try_from(from - self.start()).unwrap_or(usize::MAX);
        let octets = self.octets.iter().skip(offset).take(max).copied().collect();
        Piece { skipped: from - at, octets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes in whatever pieces: the newest octets are there, and a reader that comes often enough gets
        /// every one of them once and in order.
        #[test]
        fn a_reader_misses_nothing_that_is_kept(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
            max in 1_usize..64,
            pace in 1_usize..64,
        ) {
            let (mut ring, mut all) = (Ring::new(max), Vec::<u8>::new());
            let (mut at, mut read, mut skipped) = (0_u64, Vec::<u8>::new(), 0_u64);
            for piece in &pieces {
                ring.push(piece);
                all.extend(piece);
                prop_assert_eq!(ring.end(), all.len() as u64);
                prop_assert_eq!(&ring.since(0, max).octets, &all[all.len().saturating_sub(max)..]);
                let got = ring.since(at, pace);
                at += got.skipped + got.octets.len() as u64;
                let from = usize::try_from(at).unwrap() - got.octets.len();
                prop_assert_eq!(&got.octets, &all[from..from + got.octets.len()]);
                skipped += got.skipped;
                read.extend(got.octets);
            }
            prop_assert_eq!(read.len() as u64 + skipped, at);
            if pace >= 40 && max >= 40 {
                prop_assert_eq!(skipped, 0);
                prop_assert_eq!(read, all);
            }
        }
    }

    #[test]
    fn a_place_in_the_future_has_nothing_yet() {
        let mut ring = Ring::new(4);
        ring.push(b"abcdef");
        assert_eq!(ring.since(6, 10), Piece::default());
        assert_eq!(ring.since(9, 10), Piece::default());
        assert_eq!(ring.since(0, 2), Piece { skipped: 2, octets: b"cd".to_vec() });
    }
}
