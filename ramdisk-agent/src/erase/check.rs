//! Reads a drive back: before an erase, to know what must be gone, and after it. What is read goes past every cache of ours.

use std::ops::Range;

use protocol::erase::Expected;
use ramdisk_agent_core::erase::sample::{BLOCK, Plan, left, proves_nothing};
use xxhash_rust::xxh3::xxh3_64;

use super::drive::Drive;
use crate::sys::Buffer;

/// Octets of a sector, the least that is compared.
const SECTOR: usize = 512;

/// What was at the places before: a hash per sector, none for one that proves nothing.
pub struct Before(Vec<Vec<Option<u64>>>);

/// Writes the sentinels, sees that they are there, and takes down what is at the other places.
///
/// # Errors
/// Why not, in words.
pub fn before(drive: &dyn Drive, plan: &Plan) -> Result<Before, String> {
    let mut block = Buffer::new(BLOCK as usize);
    let failed = |error: crate::device::DeviceError| error.to_string();
    for at in &plan.sentinels {
        block[..BLOCK as usize].copy_from_slice(&plan.sentinel(*at));
        drive.write_at(*at, &block[..BLOCK as usize]).map_err(failed)?;
    }
    drive.flush().map_err(failed)?;
    for at in &plan.sentinels {
        drive.read_at(*at, &mut block[..BLOCK as usize]).map_err(failed)?;
        if block[..BLOCK as usize] != plan.sentinel(*at) {
            return Err(format!("it does not keep what is written, at byte {at}"));
        }
    }
    let mut hashes = Vec::with_capacity(plan.places.len());
    for at in &plan.places {
        drive.read_at(*at, &mut block[..BLOCK as usize]).map_err(failed)?;
        hashes.push(block[..BLOCK as usize].chunks(SECTOR).map(hash).collect());
    }
    Ok(Before(hashes))
}

fn hash(sector: &[u8]) -> Option<u64> {
    (!proves_nothing(sector)).then(|| xxh3_64(sector))
}

/// Reads the same places again: sentinels are gone, and what is there is what it must be.
///
/// # Errors
/// What is wrong and where, in words.
pub fn after(drive: &dyn Drive, plan: &Plan, before: &Before, expected: Expected) -> Result<(), String> {
    let len = BLOCK as usize;
    let (mut block, mut pattern) = (Buffer::new(len), vec![0; len]);
    let mut matches = |at: u64, block: &[u8]| match expected {
        Expected::Zeros => block.iter().all(|octet| *octet == 0),
        Expected::Pattern => {
            plan.pattern(at, &mut pattern);
            block == pattern
        }
        Expected::Changed => true,
    };
    for at in &plan.sentinels {
        drive.read_at(*at, &mut block[..len]).map_err(|error| error.to_string())?;
        if left(&plan.sentinel(*at), &block[..len]) {
            return Err(format!(
                "it says that it is erased, and what was written before is still at byte {at}"
            ));
        }
        if !matches(*at, &block[..len]) {
            return Err(format!("it reads as something else than it must, at byte {at}"));
        }
    }
    for (at, was) in plan.places.iter().zip(&before.0) {
        drive.read_at(*at, &mut block[..len]).map_err(|error| error.to_string())?;
        let stays = block[..len].chunks(SECTOR).zip(was).any(|(is, was)| was.is_some() && hash(is) == *was);
        if stays {
            return Err(format!(
                "it says that it is erased, and what was there before is still at byte {at}"
            ));
        }
        if !matches(*at, &block[..len]) {
            return Err(format!("it reads as something else than it must, at byte {at}"));
        }
    }
    Ok(())
}

/// Reads ranges that must be zero.
///
/// # Errors
/// Where they are not, in words.
pub fn zeros(drive: &dyn Drive, ranges: &[Range<u64>]) -> Result<(), String> {
    let mut block = Buffer::new(1 << 20);
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from((range.end - at).min(block.len() as u64)).unwrap_or(block.len());
            drive.read_at(at, &mut block[..len]).map_err(|error| error.to_string())?;
            if block[..len].iter().any(|octet| *octet != 0) {
                return Err(format!("it does not read as the zeros that were written, at byte {at}"));
            }
            at += len as u64;
        }
    }
    Ok(())
}
