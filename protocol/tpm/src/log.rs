//! The firmware's log of what it measured, in TCG's crypto-agile form (PC Client Platform Firmware Profile 1.06, 10.2), and
//! what registers it leads to. It is a story that the machine tells: worth something only where its end is what was signed.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::wire::{Reader, WireError};
use crate::{LOG_MAX, PCRS, SHA256};

const EV_NO_ACTION: u32 = 0x3;
const ALG_SHA256: u16 = 0x000b;
/// Octets of SHA-1, whose digest the first entry has whatever comes after it.
const SHA1: usize = 20;
/// Hash algorithms of one log: those of all banks that a TPM has.
const ALGORITHMS_MAX: u32 = 8;
/// Entries of one log; firmware writes a hundred.
const EVENTS_MAX: u32 = 4096;
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
const LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// Where a log leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Entries.
    pub events: u32,
    /// Registers that it says something of (SHA-256 bank).
    pub pcrs: BTreeMap<u8, [u8; SHA256]>,
}

/// Reads a log and replays it.
///
/// # Errors
/// [`WireError`], also where it has no SHA-256 digests.
pub fn replay(log: &[u8]) -> Result<Replayed, WireError> {
    if log.len() > LOG_MAX {
        return Err(WireError::Value("the size of the log"));
    }
    let mut r = Reader::new(log);
    let sizes = first(&mut r)?;
    let mut replayed = Replayed { events: 0, pcrs: BTreeMap::new() };
    let mut locality = 0;
    while !r.rest().is_empty() {
        // Some firmware leaves room behind the last entry.
        if r.rest().iter().all(|octet| matches!(octet, 0 | 0xff)) {
            break;
        }
        replayed.events += 1;
        if replayed.events > EVENTS_MAX {
            return Err(WireError::Value("the number of entries"));
        }
        let (pcr, kind) = (r.u32_le()?, r.u32_le()?);
        let digest = sha256(&mut r, &sizes)?;
        let size = usize::try_from(r.u32_le()?).map_err(|_| WireError::Short)?;
        let data = r.take(size)?;
        if kind == EV_NO_ACTION {
            if let Some([own, ..]) = data.strip_prefix(LOCALITY).filter(|_| pcr == 0) {
                locality = *own;
            }
            continue;
        }
        let pcr = u8::try_from(pcr).ok().filter(|pcr| *pcr < 24).ok_or(WireError::Value("a register"))?;
        let mut start = [0; SHA256];
        if pcr == 0 {
            start[SHA256 - 1] = locality;
        }
        let value = replayed.pcrs.entry(pcr).or_insert(start);
        *value = Sha256::new().chain_update(*value).chain_update(digest).finalize().into();
    }
    Ok(replayed)
}

/// The registers that do not hold what the log leads to.
pub fn differences(replayed: &Replayed, pcrs: &[[u8; SHA256]]) -> Vec<u8> {
    let told = replayed.pcrs.iter().filter(|(pcr, _)| **pcr < PCRS);
    told.filter(|(pcr, value)| pcrs.get(usize::from(**pcr)) != Some(*value)).map(|(pcr, _)| *pcr).collect()
}

/// The first entry: which hash algorithms the others have digests of, and how long each is.
fn first(r: &mut Reader<'_>) -> Result<BTreeMap<u16, usize>, WireError> {
    let (pcr, kind, _digest) = (r.u32_le()?, r.u32_le()?, r.take(SHA1)?);
    let size = usize::try_from(r.u32_le()?).map_err(|_| WireError::Short)?;
    let mut spec = Reader::new(r.take(size)?);
    if pcr != 0 || kind != EV_NO_ACTION || spec.take(SIGNATURE.len())? != SIGNATURE {
        return Err(WireError::Value("the first entry of the log"));
    }
    // Class of platform, version and errata, size of a UINTN.
    let _ = (spec.u32_le()?, spec.u32_le()?);
    let count = spec.u32_le()?;
    if count > ALGORITHMS_MAX {
        return Err(WireError::Value("the number of hash algorithms"));
    }
    let mut sizes = BTreeMap::new();
    for _ in 0..count {
        sizes.insert(spec.u16_le()?, spec.u16_le()?.into());
    }
    if sizes.get(&ALG_SHA256) != Some(&SHA256) {
        return Err(WireError::Value("the log has no SHA-256 digests: it"));
    }
    Ok(sizes)
}

fn sha256<'a>(r: &mut Reader<'a>, sizes: &BTreeMap<u16, usize>) -> Result<&'a [u8], WireError> {
    let count = r.u32_le()?;
    if count > ALGORITHMS_MAX {
        return Err(WireError::Value("the number of digests"));
    }
    let mut found = None;
    for _ in 0..count {
        let algorithm = r.u16_le()?;
        let size = *sizes.get(&algorithm).ok_or(WireError::Value("a hash algorithm"))?;
        let digest = r.take(size)?;
        if algorithm == ALG_SHA256 && found.replace(digest).is_some() {
            return Err(WireError::Value("two digests of one algorithm: one"));
        }
    }
    found.ok_or(WireError::Value("an entry has no SHA-256 digest: it"))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(log: &mut Vec<u8>, pcr: u32, kind: u32, digest: [u8; 32], data: &[u8]) {
        for n in [pcr, kind, 2] {
            log.extend(n.to_le_bytes());
        }
        log.extend([4, 0]);
        log.extend([9; SHA1]);
        log.extend([0x0b, 0]);
        log.extend(digest);
        log.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        log.extend(data);
    }

    pub(crate) fn header() -> Vec<u8> {
        let mut log = [[0; 4], 3_u32.to_le_bytes()].concat();
        log.extend([0; SHA1]);
        let mut spec = SIGNATURE.to_vec();
        spec.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        spec.extend(2_u32.to_le_bytes());
        spec.extend([4, 0, 20, 0, 0x0b, 0, 32, 0, 0]);
        log.extend(u32::try_from(spec.len()).unwrap().to_le_bytes());
        log.extend(spec);
        log
    }

    fn log() -> Vec<u8> {
        let mut log = header();
        entry(&mut log, 0, EV_NO_ACTION, [0; 32], b"StartupLocality\0\x03");
        entry(&mut log, 0, 8, [1; 32], b"firmware");
        entry(&mut log, 4, 0x8000_0003, [2; 32], b"loader");
        entry(&mut log, 4, 0x8000_0003, [3; 32], b"kernel");
        log
    }

    #[test]
    fn a_log_leads_to_registers() {
        let replayed = replay(&log()).unwrap();
        let extend = |a: [u8; 32], b: [u8; 32]| -> [u8; 32] { Sha256::digest([a, b].concat()).into() };
        let mut start = [0; 32];
        start[31] = 3;
        assert_eq!(replayed.events, 4);
        assert_eq!(replayed.pcrs[&0], extend(start, [1; 32]));
        assert_eq!(replayed.pcrs[&4], extend(extend([0; 32], [2; 32]), [3; 32]));
        let mut pcrs = [[0; 32]; 16];
        pcrs[0] = replayed.pcrs[&0];
        assert_eq!(differences(&replayed, &pcrs), [4]);
        pcrs[4] = replayed.pcrs[&4];
        assert!(differences(&replayed, &pcrs).is_empty());
        let mut with_room = log();
        with_room.extend([0xff; 100]);
        assert_eq!(replay(&with_room), Ok(replayed));
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let log = log();
        // What is cut within an entry is none; a few zeros of the next one look like room behind the last.
        let whole = replay(&log).unwrap();
        for cut in (0..log.len()).filter_map(|n| replay(&log[..n]).ok()) {
            assert!(cut.events < whole.events && cut.pcrs.get(&4) != Some(&whole.pcrs[&4]), "{cut:?}");
        }
        assert!(replay(&vec![0; LOG_MAX + 1]).is_err());
        let mut many = log;
        let at = header().len() + 8;
        many[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(replay(&many).is_err());
        let mut huge = header();
        entry(&mut huge, 4, 1, [1; 32], b"x");
        let at = huge.len() - 5;
        huge[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(replay(&huge).is_err());
    }

    proptest! {
        #[test]
        fn no_octets_break_it(tail in prop::collection::vec(any::<u8>(), 0..400), at in 0_usize..300, n in any::<u8>()) {
            let mut bent = log();
            let at = at % bent.len();
            bent[at] = n;
            let _ = replay(&bent);
            let _ = replay(&tail);
            let mut log = header();
            log.extend(tail);
            let _ = replay(&log);
        }
    }
}
