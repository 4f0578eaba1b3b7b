//! A request carried out: between the guest's memory and the volume, in pieces of bounded size.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use crate::chain::{Chain, ChainError, Pieces, Table};
use crate::event::{Event, say};
use crate::request::{Disk, HEAD, SERIAL, Status, Work, ZERO_RANGE, Zeroing};
use crate::ring::Memory;
use crate::volume::{Then, Volume};

/// Bytes that are copied at once; each queue has a buffer of this size.
const PIECE: u32 = 256 << 10;

/// A disk: a volume and its serial number.
#[derive(Clone)]
pub struct Device {
    volume: Arc<dyn Volume>,
    serial: [u8; SERIAL],
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its status; this many bytes were written to the guest.
    Done(u32),
    /// It needs a part of the volume that is not here; nothing was done.
    Wait(u32),
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
        let mut bytes = [0; SERIAL];
        for (to, from) in bytes.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        Self { volume, serial: bytes }
    }

    /// What requests are judged by.
    pub fn disk(&self) -> Disk {
        Disk { size: self.volume.size(), read_only: self.volume.read_only() }
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
        if let Ok(Work::Read(range)) = &parts.work
            && let Some(missing) = self.volume.missing(range)
        {
            return Ok(Outcome::Wait(missing));
        }
        let status = match &parts.work {
            Ok(work) => self.work(memory, work, &parts, buffer),
            Err(status) => Err(*status),
        };
        let read = matches!(parts.work, Ok(Work::Read(_) | Work::Serial)) && status.is_ok();
        let written = if read { u32::try_from(parts.to_guest.len()).unwrap_or(u32::MAX - 1) + 1 } else { 1 };
        answer(memory, parts.status, status.err().unwrap_or(Status::Ok)).map(|()| Outcome::Done(written))
    }

    /// Answers that the request failed.
    ///
    /// # Errors
    /// As [`Device::carry_out`].
    pub fn fail(&self, memory: &Memory, table: Table, head: u16) -> Result<Outcome, ChainError> {
        let parts = self.parts(memory, table, head)?;
        answer(memory, parts.status, Status::Failed).map(|()| Outcome::Done(1))
    }

    /// See [`Volume::when_here`].
    pub fn when_here(&self, missing: u32, then: Then) {
        self.volume.when_here(missing, then);
    }

    fn parts(&self, memory: &Memory, table: Table, head: u16) -> Result<Parts, ChainError> {
        let Chain { mut from_guest, mut to_guest } = Chain::walk(memory, table, head)?;
        let mut bytes = [0; HEAD];
        from_guest.take(HEAD as u32)?.read(memory, &mut bytes)?;
        let status = to_guest.take_last()?;
        let work = self.disk().judge(&bytes, from_guest.len(), to_guest.len());
        Ok(Parts { work, from_guest, to_guest, status })
    }

    fn work(&self, memory: &Memory, work: &Work, parts: &Parts, buffer: &mut Vec<u8>) -> Result<(), Status> {
        let (mut from_guest, mut to_guest) = (parts.from_guest.clone(), parts.to_guest.clone());
        match work {
            Work::Read(range) => each_piece(range.start, range.end, buffer, |piece, offset| {
                self.volume.read(piece, offset).map_err(|e| failed("read", &e))?;
                put(memory, &mut to_guest, piece)
            }),
            Work::Write(range) => each_piece(range.start, range.end, buffer, |piece, offset| {
                get(memory, &mut from_guest, piece)?;
                self.volume.write(piece, offset).map_err(|e| failed("write", &e))
            }),
            Work::Flush => self.volume.flush().map_err(|e| failed("flush", &e)),
            Work::Serial => put(memory, &mut to_guest, &self.serial),
            Work::Zero(kind) => self.zero(memory, *kind, &mut from_guest),
        }
    }

    fn zero(&self, memory: &Memory, kind: Zeroing, from_guest: &mut Pieces) -> Result<(), Status> {
        let most = ZERO_RANGE * (crate::config::ZERO_RANGES_MAX as usize + 1);
        let mut ranges = vec![0; usize::try_from(from_guest.len()).unwrap_or(most).min(most)];
        get(memory, from_guest, &mut ranges)?;
        for range in self.disk().zero_ranges(kind, &ranges)? {
            self.volume.zero(range).map_err(|e| failed("zero", &e))?;
        }
        Ok(())
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

fn answer(memory: &Memory, at: GuestAddress, status: Status) -> Result<(), ChainError> {
    memory.write_obj(status as u8, at).map_err(|_| ChainError::Outside)
}

fn failed(action: &'static str, cause: &std::io::Error) -> Status {
    say(&Event::Failed { action, reason: cause.to_string() });
    Status::Failed
}
