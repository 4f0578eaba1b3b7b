//! Which requests are under way, in memory that the frontend keeps for us: when we die, our successor carries out what we
//! took and did not answer (vhost-user protocol, "Inflight I/O tracking", split virtqueues).
//!
//! Per queue, aligned to 64 bytes:
//! ```text
//! 0  u64 features    8 u16 version    10 u16 descriptors    12 u16 last batch head    14 u16 used index
//! 16 + 16 * head:    u8 under way     +6 u16 next           +8 u64 counter
//! ```
//! A request is answered in this order: last batch head, used ring and its index, not under way, used index here. So
//! where the two used indices differ, the last batch head was answered although it is still marked.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use crate::config::{QUEUE_SIZE_MAX, QUEUES_MAX};

const HEADER: usize = 16;
const ENTRY: usize = 16;
const VERSION: u16 = 1;

/// The memory of all queues.
#[derive(Debug, Clone)]
pub struct Region {
    memory: Arc<MmapRegion<()>>,
    queues: u16,
    queue_size: u16,
}

/// The part of one queue.
#[derive(Debug)]
pub struct Inflight {
    region: Region,
    start: usize,
    counter: u64,
}

/// What a predecessor left.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    /// Heads of requests that it took and did not answer, in the order it took them.
    pub heads: Vec<u16>,
    /// Where the next request is taken from the available ring.
    pub next_available: u16,
}

impl Region {
    /// Bytes for `queues` queues of `queue_size` descriptors.
    pub fn size(queues: u16, queue_size: u16) -> usize {
        usize::from(queues) * queue_stride(queue_size)
    }

    /// New memory, and the file to give to the frontend.
    ///
    /// # Errors
    /// Where there are more queues or descriptors than we offer, or no memory.
    pub fn create(queues: u16, queue_size: u16) -> io::Result<(Self, File)> {
        let file = File::from(memfd_create("inflight", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(Self::size(queues, queue_size) as u64)?;
        let region = Self::open(file.try_clone()?, 0, queues, queue_size)?;
        Ok((region, file))
    }

    /// Memory that a frontend kept.
    ///
    /// # Errors
    /// Where the file is too small for that many queues, or cannot be mapped.
    pub fn open(file: File, offset: u64, queues: u16, queue_size: u16) -> io::Result<Self> {
        if queues > QUEUES_MAX || queue_size > QUEUE_SIZE_MAX {
            return Err(io::Error::other("more queues or descriptors than were offered"));
        }
        let size = Self::size(queues, queue_size);
        if file.metadata()?.len() < offset.saturating_add(size as u64) {
            return Err(io::Error::other("the inflight memory is smaller than its queues"));
        }
        let memory = MmapRegion::from_file(FileOffset::new(file, offset), size).map_err(io::Error::other)?;
        Ok(Self { memory: Arc::new(memory), queues, queue_size })
    }

    /// The part of queue `index`.
    pub fn queue(&self, index: u16) -> Option<Inflight> {
        let start = usize::from(index) * queue_stride(self.queue_size);
        (index < self.queues).then(|| Inflight { region: self.clone(), start, counter: 0 })
    }
}

impl Inflight {
    /// Begins, where the used ring stands at `used`. In memory that was never used, `start` is where the available ring is
    /// read from.
    ///
    /// # Errors
    /// Where the memory is not ours to read.
    pub fn begin(&mut self, used: u16, start: u16) -> io::Result<Left> {
        if self.load::<u16>(8)? != VERSION {
            self.store(10, self.region.queue_size)?;
            self.store(14, used)?;
            self.store(8, VERSION)?;
            return Ok(Left { heads: Vec::new(), next_available: start });
        }
        if self.load::<u16>(14)? != used {
            let answered = self.load::<u16>(12)?;
            if answered < self.region.queue_size {
                self.store::<u8>(entry(answered), 0)?;
            }
            self.store(14, used)?;
        }
        let mut marked = Vec::new();
        for head in 0..self.region.queue_size {
            if self.load::<u8>(entry(head))? != 0 {
                marked.push((self.load::<u64>(entry(head) + 8)?, head));
            }
        }
        marked.sort_unstable();
        self.counter = marked.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        let heads: Vec<u16> = marked.into_iter().map(|(_, head)| head).collect();
        Ok(Left { next_available: used.wrapping_add(heads.len() as u16), heads })
    }

    /// Request `head` was taken from the available ring.
    ///
    /// # Errors
    /// Where there is no such descriptor.
    pub fn taken(&mut self, head: u16) -> io::Result<()> {
        self.check(head)?;
        self.store(entry(head) + 8, self.counter)?;
        self.counter = self.counter.wrapping_add(1);
        self.store::<u8>(entry(head), 1)
    }

    /// Request `head` is about to be put into the used ring.
    ///
    /// # Errors
    /// As [`Inflight::taken`].
    pub fn answering(&self, head: u16) -> io::Result<()> {
        self.check(head)?;
        self.store(12, head)
    }

    /// Request `head` is in the used ring, whose index is `used` now.
    ///
    /// # Errors
    /// As [`Inflight::taken`].
    pub fn answered(&self, head: u16, used: u16) -> io::Result<()> {
        self.check(head)?;
        self.store::<u8>(entry(head), 0)?;
        self.store(14, used)
    }

    fn check(&self, head: u16) -> io::Result<()> {
        let inside = head < self.region.queue_size;
        inside.then_some(()).ok_or_else(|| io::Error::other("a descriptor outside the queue"))
    }

    fn load<T: vm_memory::AtomicAccess>(&self, at: usize) -> io::Result<T> {
        self.slice()?.load(self.start + at, Ordering::SeqCst).map_err(io::Error::other)
    }

    fn store<T: vm_memory::AtomicAccess>(&self, at: usize, value: T) -> io::Result<()> {
        self.slice()?.store(value, self.start + at, Ordering::SeqCst).map_err(io::Error::other)
    }

    fn slice(&self) -> io::Result<vm_memory::VolatileSlice<'_>> {
        let memory = &self.region.memory;
        memory.get_slice(0, memory.size()).map_err(io::Error::other)
    }
}

fn queue_stride(queue_size: u16) -> usize {
    (HEADER + ENTRY * usize::from(queue_size)).next_multiple_of(64)
}

fn entry(head: u16) -> usize {
    HEADER + ENTRY * usize::from(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(file: &File, used: u16) -> (Inflight, Left) {
        let mut queue = Region::open(file.try_clone().unwrap(), 0, 2, 8).unwrap().queue(1).unwrap();
        let left = queue.begin(used, used).unwrap();
        (queue, left)
    }

    #[test]
    fn a_successor_learns_what_was_taken_and_not_answered() {
        let (_, file) = Region::create(2, 8).unwrap();
        let (mut queue, left) = begun(&file, 100);
        assert_eq!(left, Left { heads: vec![], next_available: 100 });
        for head in [3, 1, 7] {
            queue.taken(head).unwrap();
        }
        queue.answering(1).unwrap();
        queue.answered(1, 101).unwrap();
        let (mut queue, left) = begun(&file, 101);
        assert_eq!(left, Left { heads: vec![3, 7], next_available: 103 });
        queue.taken(0).unwrap();
        assert_eq!(begun(&file, 101).1, Left { heads: vec![3, 7, 0], next_available: 104 });
    }

    #[test]
    fn dying_at_any_step_of_an_answer_loses_and_repeats_nothing_that_was_answered() {
        for (step, published) in [(0, false), (1, false), (2, true), (3, true)] {
            let (_, file) = Region::create(2, 8).unwrap();
            let (mut queue, _) = begun(&file, u16::MAX);
            queue.taken(5).unwrap();
            queue.taken(2).unwrap();
            if step >= 1 {
                queue.answering(5).unwrap();
            }
            if step >= 3 {
                queue.answered(5, 0).unwrap();
            }
            let (_, left) = begun(&file, if published { 0 } else { u16::MAX });
            let heads = if published { vec![2] } else { vec![5, 2] };
            assert_eq!(left, Left { heads, next_available: 1 }, "step {step}");
        }
    }

    #[test]
    fn memory_that_is_too_small_and_heads_outside_are_refused() {
        let (region, file) = Region::create(2, 8).unwrap();
        assert!(Region::open(file.try_clone().unwrap(), 0, 3, 8).is_err());
        assert!(Region::open(file, u64::MAX, 1, 8).is_err());
        assert!(Region::create(QUEUES_MAX + 1, 8).is_err());
        assert!(region.queue(2).is_none());
        let mut queue = region.queue(0).unwrap();
        assert!(queue.taken(8).is_err() && queue.answering(8).is_err() && queue.answered(8, 1).is_err());
    }
}
