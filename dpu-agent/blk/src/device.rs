//! A request carried out: between the guest's memory and the volume, in pieces of bounded size.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use protocol::counters::DiskCounters;
use protocol::dpu::IoLimits;
use vm_memory::{Bytes, GuestAddress};

use crate::chain::{Chain, ChainError, Pieces, Table};
use crate::counters::{Counters, Sort, Tally};
use crate::event::{Event, say};
use crate::limit::Limits;
use crate::nbd::{Command, Export};
use crate::remote::{Remote, Request, STEP, Step};
use crate::request::{Disk, HEAD, SECTOR, SERIAL, Status, Work, ZERO_RANGE, Zeroing};
use crate::ring::Memory;
use crate::volume::{Then, Volume};

/// Bytes that are copied at once; each queue has a buffer of this size.
const PIECE: u32 = 256 << 10;

/// A disk: its bytes and its serial number.
#[derive(Clone)]
pub struct Device {
    back: Back,
    serial: [u8; SERIAL],
    counters: Arc<Counters>,
    limits: Arc<Limits>,
}

/// Where the bytes are.
#[derive(Clone)]
enum Back {
    /// Here, or fetched piece by piece.
    Volume(Arc<dyn Volume>),
    /// Beyond a program that may die, and a network.
    Remote(Arc<Remote>),
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its status.
    Done(Done),
    /// It needs a part of the volume that is not here; nothing was done.
    Wait(u32),
    /// It is to be carried out by [`Device::submit`]; nothing was done.
    Submit(VecDeque<Step>),
}

/// A request that has its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// So many bytes were written to the guest.
    pub written: u32,
    /// As it is counted, if it is.
    pub tally: Option<Tally>,
}

/// A request's data and where its status goes.
struct Parts {
    work: Result<Work, Status>,
    from_guest: Pieces,
    to_guest: Pieces,
    status: GuestAddress,
}

impl Device {
    /// A disk whose driver sees `serial` (the first 20 bytes count; VIRTIO 1.2, 5.2.6).
    pub fn new(volume: Arc<dyn Volume>, serial: &str) -> Self {
        Self::with(Back::Volume(volume), serial)
    }

    /// A disk whose bytes are behind a daemon.
    pub fn remote(remote: Arc<Remote>, serial: &str) -> Self {
        Self::with(Back::Remote(remote), serial)
    }

    fn with(back: Back, serial: &str) -> Self {
        let mut bytes = [0; SERIAL];
        for (to, from) in bytes.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        Self { back, serial: bytes, counters: Arc::default(), limits: Arc::default() }
    }

    /// What was answered so far.
    pub fn counters(&self) -> DiskCounters {
        self.counters.now()
    }

    /// Counts an answer that took so long.
    pub fn count(&self, tally: Tally, took: Duration) {
        self.counters.count(tally, took);
    }

    /// From now on it is no faster than this. False where that is so already.
    pub fn set_limits(&self, limits: Option<IoLimits>) -> bool {
        self.limits.set(limits)
    }

    /// Whether it has limits.
    pub fn is_limited(&self) -> bool {
        self.limits.are_set()
    }

    /// How long the request whose chain begins at `head` has to wait for the limits; `None` where it may begin, which counts as
    /// begun. What reads or writes nothing waits for nothing.
    ///
    /// # Errors
    /// As [`Device::carry_out`].
    pub fn wait(&self, memory: &Memory, table: Table, head: u16) -> Result<Option<Duration>, ChainError> {
        if !self.is_limited() {
            return Ok(None);
        }
        let bytes = match self.parts(memory, table, head)?.work {
            Ok(Work::Read(range) | Work::Write(range)) => range.end - range.start,
            Ok(Work::Zero(_)) => 0,
            Ok(Work::Flush | Work::Serial) | Err(_) => return Ok(None),
        };
        Ok(self.limits.begin(bytes).err())
    }

    /// What requests are judged by.
    pub fn disk(&self) -> Disk {
        match &self.back {
            Back::Volume(volume) => Disk { size: volume.size(), read_only: volume.read_only() },
            Back::Remote(remote) => {
                let Export { size, read_only } = remote.export();
                Disk { size: size / SECTOR * SECTOR, read_only }
            }
        }
    }

    /// Carries out the request whose chain begins at descriptor `head`.
    ///
    /// # Errors
    /// Where there is no request, because the chain is broken.
    pub fn carry_out(
        &self,
        memory: &Memory,
        table: Table,
        head: u16,
        buffer: &mut Vec<u8>,
    ) -> Result<Outcome, ChainError> {
        let parts = self.parts(memory, table, head)?;
        let status = match (&parts.work, &self.back) {
            (Ok(Work::Read(range)), Back::Volume(volume)) if volume.missing(range).is_some() => {
                return Ok(Outcome::Wait(volume.missing(range).unwrap_or_default()));
            }
            (Ok(Work::Serial), _) => put(memory, &mut parts.to_guest.clone(), &self.serial),
            (Ok(work), Back::Volume(volume)) => self.work(&**volume, memory, work, &parts, buffer),
            (Ok(work), Back::Remote(_)) => match self.steps(memory, work, &parts) {
                Ok(steps) => return Ok(Outcome::Submit(steps)),
                Err(status) => Err(status),
            },
            (Err(status), _) => Err(*status),
        };
        answer(memory, &parts, status.err().unwrap_or(Status::Ok))
    }

    /// Answers that the request failed.
    ///
    /// # Errors
    /// As [`Device::carry_out`].
    pub fn fail(&self, memory: &Memory, table: Table, head: u16) -> Result<Outcome, ChainError> {
        answer(memory, &self.parts(memory, table, head)?, Status::Failed)
    }

    /// Answers that a request which was submitted is done.
    ///
    /// # Errors
    /// As [`Device::carry_out`].
    pub fn succeed(&self, memory: &Memory, table: Table, head: u16) -> Result<Outcome, ChainError> {
        answer(memory, &self.parts(memory, table, head)?, Status::Ok)
    }

    /// Carries out the steps of [`Outcome::Submit`].
    pub fn submit(&self, steps: VecDeque<Step>, request: Arc<dyn Request>) {
        match &self.back {
            Back::Remote(remote) => remote.submit(steps, request),
            Back::Volume(_) => request.done(false),
        }
    }

    /// What was submitted so far; see [`Device::is_settled`].
    pub fn newest(&self) -> u64 {
        if let Back::Remote(remote) = &self.back { remote.newest() } else { 0 }
    }

    /// Whether all that was submitted up to then is done.
    pub fn is_settled(&self, up_to: u64) -> bool {
        if let Back::Remote(remote) = &self.back { remote.is_settled(up_to) } else { true }
    }

    /// Copies bytes of a write, from `skip` on, out of the guest's memory.
    ///
    /// # Errors
    /// As [`Device::carry_out`].
    pub fn gather(
        &self,
        memory: &Memory,
        (table, head): (Table, u16),
        skip: u64,
        into: &mut [u8],
    ) -> Result<(), ChainError> {
        let mut pieces = self.parts(memory, table, head)?.from_guest;
        pieces.take(u32::try_from(skip).map_err(|_| ChainError::Short)?)?;
        pieces.take(into.len() as u32)?.read(memory, into)
    }

    /// Copies bytes that were read, to `skip` of the request's data, into the guest's memory.
    ///
    /// # Errors
    /// As [`Device::carry_out`].
    pub fn scatter(
        &self,
        memory: &Memory,
        (table, head): (Table, u16),
        skip: u64,
        from: &[u8],
    ) -> Result<(), ChainError> {
        let mut pieces = self.parts(memory, table, head)?.to_guest;
        pieces.take(u32::try_from(skip).map_err(|_| ChainError::Short)?)?;
        pieces.take(from.len() as u32)?.write(memory, from)
    }

    /// See [`Volume::when_here`].
    pub fn when_here(&self, missing: u32, then: Then) {
        match &self.back {
            Back::Volume(volume) => volume.when_here(missing, then),
            Back::Remote(_) => then(false),
        }
    }

    fn parts(&self, memory: &Memory, table: Table, head: u16) -> Result<Parts, ChainError> {
        let Chain { mut from_guest, mut to_guest } = Chain::walk(memory, table, head)?;
        let mut bytes = [0; HEAD];
        from_guest.take(HEAD as u32)?.read(memory, &mut bytes)?;
        let status = to_guest.take_last()?;
        let work = self.disk().judge(&bytes, from_guest.len(), to_guest.len());
        Ok(Parts { work, from_guest, to_guest, status })
    }

    fn work(
        &self,
        volume: &dyn Volume,
        memory: &Memory,
        work: &Work,
        parts: &Parts,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let (mut from_guest, mut to_guest) = (parts.from_guest.clone(), parts.to_guest.clone());
        match work {
            Work::Read(range) => each_piece(range.start, range.end, buffer, |piece, offset| {
                volume.read(piece, offset).map_err(|e| failed("read", &e))?;
                put(memory, &mut to_guest, piece)
            }),
            Work::Write(range) => each_piece(range.start, range.end, buffer, |piece, offset| {
                get(memory, &mut from_guest, piece)?;
                volume.write(piece, offset).map_err(|e| failed("write", &e))
            }),
            Work::Flush => volume.flush().map_err(|e| failed("flush", &e)),
            Work::Serial => put(memory, &mut to_guest, &self.serial),
            Work::Zero(kind) => {
                let ranges = self.zero_ranges(memory, *kind, &mut from_guest)?;
                ranges.into_iter().try_for_each(|range| volume.zero(range).map_err(|e| failed("zero", &e)))
            }
        }
    }

    /// The steps of a request to a remote backend.
    fn steps(&self, memory: &Memory, work: &Work, parts: &Parts) -> Result<VecDeque<Step>, Status> {
        let pieces = |command, range: &Range<u64>| {
            let (start, end) = (range.start, range.end);
            let step = move |at: u64| {
                let length = (end - at).min(u64::from(STEP)) as u32;
                Step { command, at, length, skip: at - start }
            };
            (start..end).step_by(STEP as usize).map(step).collect()
        };
        Ok(match work {
            Work::Read(range) => pieces(Command::Read, range),
            Work::Write(range) => pieces(Command::Write, range),
            Work::Flush => VecDeque::from([Step { command: Command::Flush, at: 0, length: 0, skip: 0 }]),
            // Answered here.
            Work::Serial => VecDeque::new(),
            Work::Zero(kind) => {
                let ranges = self.zero_ranges(memory, *kind, &mut parts.from_guest.clone())?;
                let step = |range: Range<u64>| {
                    // `ZERO_SECTORS_MAX` keeps a range below 4 GiB.
                    let length = u32::try_from(range.end - range.start).map_err(|_| Status::Failed)?;
                    Ok(Step { command: Command::Zero, at: range.start, length, skip: 0 })
                };
                ranges.into_iter().filter(|range| !range.is_empty()).map(step).collect::<Result<_, _>>()?
            }
        })
    }

    fn zero_ranges(
        &self,
        memory: &Memory,
        kind: Zeroing,
        from_guest: &mut Pieces,
    ) -> Result<Vec<Range<u64>>, Status> {
        let most = ZERO_RANGE * (crate::config::ZERO_RANGES_MAX as usize + 1);
        let mut ranges = vec![0; usize::try_from(from_guest.len()).unwrap_or(most).min(most)];
        get(memory, from_guest, &mut ranges)?;
        self.disk().zero_ranges(kind, &ranges)
    }
}

/// Calls `with` for each piece of the disk from `start` to `end`.
fn each_piece(
    start: u64,
    end: u64,
    buffer: &mut Vec<u8>,
    mut with: impl FnMut(&mut [u8], u64) -> Result<(), Status>,
) -> Result<(), Status> {
    buffer.resize(PIECE as usize, 0);
    for offset in (start..end).step_by(PIECE as usize) {
        let length = (end - offset).min(u64::from(PIECE)) as usize;
        with(buffer.get_mut(..length).ok_or(Status::Failed)?, offset)?;
    }
    Ok(())
}

fn get(memory: &Memory, pieces: &mut Pieces, into: &mut [u8]) -> Result<(), Status> {
    let take = pieces.take(into.len() as u32).map_err(|_| Status::Failed)?;
    take.read(memory, into).map_err(|_| Status::Failed)
}

fn put(memory: &Memory, pieces: &mut Pieces, from: &[u8]) -> Result<(), Status> {
    let take = pieces.take(from.len() as u32).map_err(|_| Status::Failed)?;
    take.write(memory, from).map_err(|_| Status::Failed)
}

fn answer(memory: &Memory, parts: &Parts, status: Status) -> Result<Outcome, ChainError> {
    let read = matches!(parts.work, Ok(Work::Read(_) | Work::Serial)) && status == Status::Ok;
    let written = if read { u32::try_from(parts.to_guest.len()).unwrap_or(u32::MAX - 1) + 1 } else { 1 };
    memory.write_obj(status as u8, parts.status).map_err(|_| ChainError::Outside)?;
    Ok(Outcome::Done(Done { written, tally: tally(&parts.work, status) }))
}

fn tally(work: &Result<Work, Status>, status: Status) -> Option<Tally> {
    let failed = status != Status::Ok;
    let (sort, bytes) = match work {
        Ok(Work::Read(range)) => (Some(Sort::Read), range.end - range.start),
        Ok(Work::Write(range)) => (Some(Sort::Write), range.end - range.start),
        Ok(Work::Flush) => (Some(Sort::Flush), 0),
        Ok(Work::Zero(_)) => (Some(Sort::Zero), 0),
        Ok(Work::Serial) => return None,
        Err(_) => (None, 0),
    };
    Some(Tally { sort, bytes: if failed { 0 } else { bytes }, failed })
}

fn failed(action: &'static str, cause: &std::io::Error) -> Status {
    say(&Event::Failed { action, reason: cause.to_string() });
    Status::Failed
}
