//! One direction of a cable, with the faults that cables and switches have. Pure: frames and the time in, frames out;
//! the same seed gives the same faults. (The kernel here has no netem, and netem has no seed.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::rng::Rng;

/// What goes wrong; each chance is from 0 to 1, for each frame by itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The frame does not arrive.
    pub loss: f64,
    /// The frame arrives twice.
    pub duplicate: f64,
    /// One bit of the frame is another one, as a switch with bad memory makes it: the frame check sequence is right
    /// again, and only the checksums inside can tell. ARP has none: a wrong address in it takes a machine off any
    /// network until the neighbour's cache forgets it, whatever is served there. Such a frame is lost instead.
    pub corrupt: f64,
    /// The frame is held back by up to [`HELD_BACK`], so that later ones overtake it.
    pub reorder: f64,
    /// Every frame takes this long.
    pub delay: Duration,
}

/// Longest that a frame is held back: what a switch with full queues does.
pub const HELD_BACK: Duration = Duration::from_millis(5);

/// What happened to the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames that were handed over.
    pub frames: u64,
    /// Of these: lost.
    pub lost: u64,
    /// Of these: arrived twice.
    pub duplicated: u64,
    /// Of these: with a wrong bit, or lost because of it.
    pub corrupted: u64,
    /// Of these: held back.
    pub reordered: u64,
}

/// One direction of a cable.
#[derive(Debug)]
pub struct Link {
    faults: Faults,
    rng: Rng,
    waiting: BinaryHeap<Reverse<(Duration, u64, Vec<u8>)>>,
    counters: Counters,
    order: u64,
}

impl Link {
    /// A link with these faults.
    pub fn new(faults: Faults, rng: Rng) -> Self {
        Self { faults, rng, waiting: BinaryHeap::new(), counters: Counters::default(), order: 0 }
    }

    /// Takes a frame in.
    pub fn handle_frame(&mut self, now: Duration, mut frame: Vec<u8>) {
        self.counters.frames += 1;
        if self.rng.chance(self.faults.loss) {
            self.counters.lost += 1;
            return;
        }
        if self.rng.chance(self.faults.corrupt) {
            self.counters.corrupted += 1;
            if is_arp(&frame) {
                return;
            }
            let bit = self.rng.below(frame.len() as u64 * 8);
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| frame.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }
        if self.rng.chance(self.faults.duplicate) {
            self.counters.duplicated += 1;
            self.put(now + self.faults.delay, frame.clone());
        }
        let mut due = now + self.faults.delay;
        if self.rng.chance(self.faults.reorder) {
            self.counters.reordered += 1;
            due += self.rng.time(HELD_BACK);
        }
        self.put(due, frame);
    }

    /// A frame that has arrived by now.
    pub fn poll_frame(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.poll_timeout()? > now {
            return None;
        }
        self.waiting.pop().map(|Reverse((_, _, frame))| frame)
    }

    /// When the next frame arrives.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse((due, _, _))| *due)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn put(&mut self, due: Duration, frame: Vec<u8>) {
        self.order += 1;
        self.waiting.push(Reverse((due, self.order, frame)));
    }
}

/// EtherType of ARP (RFC 826), behind the two addresses.
fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x06])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_secs(1);

    fn through(faults: Faults, seed: u64, frames: u16) -> (Vec<Vec<u8>>, Counters) {
        let mut link = Link::new(faults, Rng::new(seed));
        for n in 0..frames {
            link.handle_frame(Duration::from_micros(n.into()), n.to_be_bytes().to_vec());
        }
        let out = std::iter::from_fn(|| link.poll_frame(LATE)).collect();
        (out, link.counters())
    }

    #[test]
    fn a_good_cable_changes_nothing() {
        let (out, counters) = through(Faults::default(), 1, 100);
        assert_eq!(out, (0..100u16).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!(counters, Counters { frames: 100, ..Counters::default() });
    }

    #[test]
    fn faults_are_counted_and_come_from_the_seed() {
        let faults =
            Faults { loss: 0.1, duplicate: 0.1, corrupt: 0.1, reorder: 0.1, delay: Duration::from_millis(1) };
        let (out, counters) = through(faults, 7, 1000);
        assert_eq!(out.len() as u64, 1000 - counters.lost + counters.duplicated);
        for count in [counters.lost, counters.duplicated, counters.corrupted, counters.reordered] {
            assert!((50..200).contains(&count), "{counters:?}");
        }
        let sorted = out.windows(2).all(|pair| pair[0] <= pair[1]);
        assert!(!sorted, "later frames overtake");
        assert_eq!(through(faults, 7, 1000).0, out);
        assert_ne!(through(faults, 8, 1000).0, out);
    }

    #[test]
    fn a_wrong_bit_never_poisons_the_neighbours() {
        let mut link = Link::new(Faults { corrupt: 1.0, ..Faults::default() }, Rng::new(1));
        let arp = [&[0xff; 6][..], &[2; 6], &[0x08, 0x06], &[0; 28]].concat();
        let ip = [&[0xff; 6][..], &[2; 6], &[0x08, 0x00], &[0; 28]].concat();
        link.handle_frame(Duration::ZERO, arp);
        assert_eq!(link.poll_frame(LATE), None);
        link.handle_frame(Duration::ZERO, ip.clone());
        assert_ne!(link.poll_frame(LATE), Some(ip));
        assert_eq!(link.counters(), Counters { frames: 2, corrupted: 2, ..Counters::default() });
    }

    #[test]
    fn nothing_arrives_early() {
        let mut link =
            Link::new(Faults { delay: Duration::from_millis(3), ..Faults::default() }, Rng::new(1));
        link.handle_frame(Duration::ZERO, vec![1]);
        assert_eq!(link.poll_timeout(), Some(Duration::from_millis(3)));
        assert_eq!(link.poll_frame(Duration::from_millis(2)), None);
        assert_eq!(link.poll_frame(Duration::from_millis(3)), Some(vec![1]));
        assert_eq!(link.poll_timeout(), None);
    }
}
