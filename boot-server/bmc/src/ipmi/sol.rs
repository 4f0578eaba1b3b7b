//! Serial over LAN (chapter 15): packets with sequence numbers, acknowledgement and repetition, without a socket. Both ends
//! use it; they differ only in what the bits of the fourth octet mean.

use std::collections::VecDeque;
use std::time::Instant;

use super::limits::{SOL_PIECE_MAX, SOL_QUEUE_MAX, SOL_RETRY, SOL_TRIES};

/// In the fourth octet, both ways: the data was not taken (table 15-2).
const NACK: u8 = 0x40;
/// From the controller: SOL ends.
const DEACTIVATING: u8 = 0x10;
/// Highest sequence number; 0 marks a packet that only acknowledges.
const SEQUENCE_MAX: u8 = 15;

/// One end of a console.
#[derive(Debug, Default)]
pub struct Sol {
    piece: usize,
    queue: VecDeque<u8>,
    in_flight: Option<InFlight>,
    sequence: u8,
    /// Last packet that was taken: its number, and how many octets.
    taken: u8,
    out: VecDeque<Vec<u8>>,
    ended: bool,
    /// Bit of the fourth octet by which the other end says that it stops.
    stops: u8,
}

#[derive(Debug)]
struct InFlight {
    sequence: u8,
    data: Vec<u8>,
    tries: u32,
    next: Instant,
}

impl Sol {
    /// A console's end, which sends packets of at most so many octets, header included, as Activate Payload says.
    pub fn new(packet_max: u16) -> Self {
        let piece = usize::from(packet_max).saturating_sub(4).clamp(1, SOL_PIECE_MAX);
        Self { piece, stops: DEACTIVATING, ..Self::default() }
    }

    /// A controller's end. The bit by which a controller says that it stops is a console's wish for a break.
    pub fn of_controller(packet_max: u16) -> Self {
        Self { stops: 0, ..Self::new(packet_max) }
    }

    /// Octets that [`Sol::write`] takes now.
    pub fn room(&self) -> usize {
        SOL_QUEUE_MAX.saturating_sub(self.queue.len())
    }

    /// Begins with a packet without data. There are controllers that remember the last number of the console before and
    /// would take a first packet of that number for a repetition.
    pub fn greet(&mut self, now: Instant) {
        self.sequence = 1;
        self.in_flight = Some(InFlight { sequence: 1, data: Vec::new(), tries: 1, next: now + SOL_RETRY });
        self.transmit();
    }

    /// Puts octets into the queue; returns how many there was room for.
    pub fn write(&mut self, now: Instant, octets: &[u8]) -> usize {
        let taken = octets.len().min(self.room());
        self.queue.extend(&octets[..taken]);
        self.send_next(now);
        taken
    }

    /// True where nothing waits to be sent or acknowledged.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    /// True where the other end stopped, or never acknowledges.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Next packet to be sent.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// When [`Sol::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|f| f.next)
    }

    /// Sends again what was not acknowledged.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(flight) = &mut self.in_flight else { return };
        if now < flight.next {
            return;
        }
        if flight.tries >= SOL_TRIES {
            self.ended = true;
            self.in_flight = None;
            return;
        }
        flight.tries += 1;
        flight.next = now + SOL_RETRY;
        self.transmit();
    }

    /// Takes a packet; returns the octets that the other end wrote.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Vec<u8> {
        let [sequence, acknowledged, accepted, status, data @ ..] = packet else { return Vec::new() };
        if status & self.stops != 0 {
            self.ended = true;
        }
        self.acknowledge(now, acknowledged & 0x0f, usize::from(*accepted), status & NACK != 0);
        let sequence = sequence & 0x0f;
        if sequence == 0 {
            return Vec::new();
        }
        self.out.push_back(vec![0, sequence, data.len().min(255) as u8, 0]);
        if sequence == self.taken {
            // Our acknowledgement was lost.
            return Vec::new();
        }
        self.taken = sequence;
        data.to_vec()
    }

    fn acknowledge(&mut self, now: Instant, sequence: u8, accepted: usize, nack: bool) {
        let Some(flight) = self.in_flight.take_if(|f| f.sequence == sequence) else { return };
        let accepted = if nack { accepted.min(flight.data.len()) } else { flight.data.len() };
        if nack && accepted == 0 {
            // It cannot take any now (section 15.11): the same again, later.
            self.in_flight = Some(InFlight { next: now + SOL_RETRY, ..flight });
            return;
        }
        for octet in flight.data[accepted..].iter().rev() {
            self.queue.push_front(*octet);
        }
        self.send_next(now);
    }

    fn send_next(&mut self, now: Instant) {
        if self.in_flight.is_some() || self.queue.is_empty() || self.ended {
            return;
        }
        self.sequence = self.sequence % SEQUENCE_MAX + 1;
        let data = self.queue.drain(..self.piece.min(self.queue.len())).collect();
        self.in_flight = Some(InFlight { sequence: self.sequence, data, tries: 1, next: now + SOL_RETRY });
        self.transmit();
    }

    fn transmit(&mut self) {
        if let Some(flight) = &self.in_flight {
            let mut packet = vec![flight.sequence, 0, 0, 0];
            packet.extend_from_slice(&flight.data);
            self.out.push_back(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Carries packets both ways through a network that loses what `loses` says, until all is said or time is up.
    fn talk(text: &[u8], mut loses: impl FnMut() -> bool) -> (Vec<u8>, bool) {
        let mut now = Instant::now();
        let (mut one, mut other, mut heard) = (Sol::new(64), Sol::new(64), Vec::new());
        let mut rest = text;
        for _ in 0..10_000 {
            let n = one.write(now, rest);
            rest = &rest[n..];
            while let Some(packet) = one.poll_transmit() {
                if !loses() {
                    heard.extend(other.handle_packet(now, &packet));
                }
            }
            while let Some(packet) = other.poll_transmit() {
                if !loses() {
                    one.handle_packet(now, &packet);
                }
            }
            if (rest.is_empty() && one.is_idle()) || one.is_ended() {
                break;
            }
            now += Duration::from_millis(100);
            one.handle_timeout(now);
        }
        (heard, one.is_ended())
    }

    #[test]
    fn what_is_typed_arrives_once_though_packets_are_lost() {
        let text: Vec<u8> = (0..3000).map(|n| n as u8).collect();
        assert_eq!(talk(&text, || false), (text.clone(), false));
        let mut count = 0;
        let every_third = || {
            count += 1;
            count % 3 == 0
        };
        assert_eq!(talk(&text, every_third), (text, false));
        assert_eq!(talk(b"x", || true), (Vec::new(), true));
    }

    #[test]
    fn a_piece_that_was_taken_in_part_is_continued() {
        let now = Instant::now();
        let mut sol = Sol::new(64);
        sol.write(now, b"abcdef");
        assert_eq!(sol.poll_transmit().unwrap(), b"\x01\0\0\0abcdef");
        sol.handle_packet(now, &[0, 1, 2, NACK]);
        assert_eq!(sol.poll_transmit().unwrap(), b"\x02\0\0\0cdef");
        sol.handle_packet(now, &[0, 2, 0, NACK]);
        assert_eq!(sol.poll_transmit(), None);
        sol.handle_timeout(now + SOL_RETRY);
        assert_eq!(sol.poll_transmit().unwrap(), b"\x02\0\0\0cdef");
        sol.handle_packet(now, &[0, 2, 4, 0]);
        assert!(sol.is_idle());
        sol.handle_packet(now, &[0, 0, 0, DEACTIVATING]);
        assert!(sol.is_ended());
    }

    #[test]
    fn a_repeated_packet_is_acknowledged_and_not_taken_twice() {
        let mut sol = Sol::new(64);
        let packet = [5, 0, 0, 0, b'x'];
        assert_eq!(sol.handle_packet(Instant::now(), &packet), b"x");
        assert_eq!(sol.handle_packet(Instant::now(), &packet), b"");
        assert_eq!(sol.poll_transmit().unwrap(), [0, 5, 1, 0]);
        assert_eq!(sol.poll_transmit().unwrap(), [0, 5, 1, 0]);
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_memory_is_bounded(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..40)) {
            let now = Instant::now();
            let mut sol = Sol::new(32);
            for packet in packets {
                sol.write(now, &packet);
                sol.handle_packet(now, &packet);
                while sol.poll_transmit().is_some() {}
                prop_assert!(sol.queue.len() <= SOL_QUEUE_MAX + SOL_PIECE_MAX);
            }
        }
    }
}
