//! The SDR repository (chapter 33), read once and kept while it does not change; a read that took too long goes on where it
//! was.

use super::limits::{RESERVATIONS_MAX, SDR_MAX};
use super::link::{Ask, Link, data, malformed};
use super::message::completion;
use super::sdr::{self, Sensor};
use crate::BmcError;

const GET_INFO: u8 = 0x20;
const RESERVE: u8 = 0x22;
const GET: u8 = 0x23;
const WHAT: &str = "the sensor data records";
/// Id of the end of the chain.
const LAST: u16 = 0xffff;
/// Octets of a record's header; the last is the length of what follows.
const HEADER: usize = 5;
/// Octets asked for at once, where a controller does not give a whole record.
const PIECE: usize = 16;

/// What was read of a repository.
#[derive(Debug, Default)]
pub(super) struct Repository {
    /// Counts and times of last change (section 33.9, octets 2 to 14).
    stamp: Vec<u8>,
    sensors: Vec<Sensor>,
    records: usize,
    /// Next record to be read; [`LAST`] where all were.
    next: u16,
    whole: bool,
}

impl Repository {
    /// Reads what is not known yet.
    pub async fn refresh(&mut self, link: &mut Link) -> Result<&[Sensor], BmcError> {
        let info = link.read(&Ask::storage(WHAT, GET_INFO, &[])).await?;
        // Without the free space (octets 4 and 5), which says nothing of the records.
        let stamp: Vec<u8> =
            info.iter().copied().enumerate().filter(|(i, _)| ![3, 4].contains(i)).map(|(_, o)| o).collect();
        if stamp != self.stamp {
            *self = Self { stamp, whole: true, ..Self::default() };
        }
        let mut reservation = None;
        let mut cancelled = 0;
        while self.next != LAST && self.records < SDR_MAX {
            let held = match reservation {
                Some(held) => held,
                None => *reservation.insert(reserve(link).await?),
            };
            match self.record(link, held).await? {
                Some((record, next)) => {
                    // A chain that leads back would never end.
                    if next == self.next {
                        return Err(malformed(WHAT, "a record that follows itself"));
                    }
                    self.sensors.extend(sdr::parse(&record));
                    self.records += 1;
                    self.next = next;
                }
                None if cancelled < RESERVATIONS_MAX => {
                    cancelled += 1;
                    reservation = None;
                }
                None => {
                    return Err(BmcError::Busy {
                        what: "its sensor data records, which change all the time".into(),
                    });
                }
            }
        }
        Ok(&self.sensors)
    }

    /// The sensors that are known, without asking.
    pub fn known(&self) -> &[Sensor] {
        &self.sensors
    }

    /// The record `self.next` and the id of the one behind; `None` where the reservation was cancelled.
    async fn record(
        &mut self,
        link: &mut Link,
        reservation: u16,
    ) -> Result<Option<(Vec<u8>, u16)>, BmcError> {
        if self.whole {
            let response = link.answer(&get(reservation, self.next, 0, 0xff)).await?;
            match response.completion {
                completion::RESERVATION => return Ok(None),
                completion::OK => return split(&response.data).map(Some),
                // It gives pieces only (section 33.12).
                _ => self.whole = false,
            }
        }
        let Some((mut record, next)) = piece(link, reservation, self.next, 0, HEADER).await? else {
            return Ok(None);
        };
        let len = HEADER + record.get(HEADER - 1).map_or(0, |len| usize::from(*len));
        while record.len() < len {
            let count = PIECE.min(len - record.len());
            let Some((more, _)) = piece(link, reservation, self.next, record.len(), count).await? else {
                return Ok(None);
            };
            if more.is_empty() || more.len() > count {
                return Err(malformed(WHAT, "a piece of a record has the wrong length"));
            }
            record.extend(more);
        }
        Ok(Some((record, next)))
    }
}

async fn reserve(link: &mut Link) -> Result<u16, BmcError> {
    match link.read(&Ask::storage(WHAT, RESERVE, &[])).await?[..] {
        [low, high, ..] => Ok(u16::from_le_bytes([low, high])),
        _ => Err(malformed(WHAT, "a reservation without a number")),
    }
}

fn get(reservation: u16, record: u16, offset: usize, count: usize) -> Ask {
    let ([r0, r1], [i0, i1]) = (reservation.to_le_bytes(), record.to_le_bytes());
    Ask::storage(WHAT, GET, &[r0, r1, i0, i1, offset.min(255) as u8, count as u8])
}

async fn piece(
    link: &mut Link,
    reservation: u16,
    record: u16,
    offset: usize,
    count: usize,
) -> Result<Option<(Vec<u8>, u16)>, BmcError> {
    let ask = get(reservation, record, offset, count);
    let response = link.answer(&ask).await?;
    if response.completion == completion::RESERVATION {
        return Ok(None);
    }
    split(&data(&ask, response)?).map(Some)
}

/// The id of the next record and the octets.
fn split(data: &[u8]) -> Result<(Vec<u8>, u16), BmcError> {
    match data {
        [low, high, record @ ..] => Ok((record.to_vec(), u16::from_le_bytes([*low, *high]))),
        _ => Err(malformed(WHAT, "an answer of less than two octets")),
    }
}
