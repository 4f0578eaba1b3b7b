//! SMBIOS structures (DMTF DSP0134 3.7): the few fields that an inventory needs. Own parser, because firmware tables
//! are often slightly wrong and one bad string must not cost the rest of a structure.

use protocol::inventory::{Dimm, Firmware, System};
use protocol::limits::DIMMS_MAX;
use uuid::Uuid;

use crate::content::cut;

/// Structures looked at; large servers have about a thousand.
const STRUCTURES_MAX: usize = 8192;

/// What the tables say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Smbios {
    /// Types 1, 2 and 3.
    pub system: System,
    /// Type 0; mode and Secure Boot are not told here.
    pub firmware: Firmware,
    /// Type 17.
    pub dimms: Vec<Dimm>,
}

/// Reads the structure table; `entry` is the entry point, which tells the version (7.2.1: before 2.6 the UUID was in
/// network byte order throughout).
pub fn parse(entry: &[u8], table: &[u8]) -> Smbios {
    let little_endian_uuid = version(entry) >= (2, 6);
    let mut found = Smbios::default();
    let mut rest = table;
    for _ in 0..STRUCTURES_MAX {
        let Some((structure, next)) = Structure::split(rest) else { break };
        rest = next;
        match structure.kind() {
            0 => found.firmware = firmware(&structure),
            1 => system(&structure, little_endian_uuid, &mut found.system),
            2 if found.system.board_product.is_none() => {
                found.system.board_manufacturer = structure.text(4);
                found.system.board_product = structure.text(5);
                found.system.board_serial = structure.text(7);
            }
            3 if found.system.chassis_serial.is_none() => {
                found.system.chassis_serial = structure.text(7);
                found.system.asset_tag = structure.text(8);
            }
            17 if found.dimms.len() < DIMMS_MAX => found.dimms.extend(dimm(&structure)),
            127 => break,
            _ => {}
        }
    }
    found
}

fn version(entry: &[u8]) -> (u8, u8) {
    let at = if entry.starts_with(b"_SM3_") { 7 } else { 6 };
    match entry.get(at..at + 2) {
        Some([major, minor]) => (*major, *minor),
        _ => (3, 0),
    }
}

fn firmware(s: &Structure<'_>) -> Firmware {
    Firmware { vendor: s.text(4), version: s.text(5), date: s.text(8), ..Firmware::default() }
}

fn system(s: &Structure<'_>, little_endian: bool, into: &mut System) {
    into.manufacturer = s.text(4);
    into.product = s.text(5);
    into.serial = s.text(7);
    into.sku = s.text(0x19);
    let bytes: Option<[u8; 16]> = s.formatted.get(8..24).and_then(|b| b.try_into().ok());
    // All zero and all one mean "not set" (7.2.1).
    into.uuid = bytes
        .filter(|b| *b != [0; 16] && *b != [0xff; 16])
        .map(|b| if little_endian { Uuid::from_bytes_le(b) } else { Uuid::from_bytes(b) });
}

fn dimm(s: &Structure<'_>) -> Option<Dimm> {
    let size_bytes = match s.word(0x0c)? {
        0 | 0xffff => return None,
        0x7fff => u64::from(s.word(0x1c)? as u32 | (u32::from(s.word(0x1e)?) << 16)) << 20,
        kib if kib & 0x8000 != 0 => u64::from(kib & 0x7fff) << 10,
        mib => u64::from(mib) << 20,
    };
    let speed = s.word(0x20).filter(|v| *v != 0).or_else(|| s.word(0x15)).filter(|v| *v != 0 && *v != 0xffff);
    Some(Dimm {
        locator: s.text(0x10).unwrap_or_default(),
        size_bytes,
        speed_mts: speed.map(u32::from),
        kind: s.formatted.get(0x12).and_then(|k| memory_kind(*k)).map(str::to_owned),
        manufacturer: s.text(0x17),
        serial: s.text(0x18),
        part_number: s.text(0x1a),
    })
}

/// Memory types, table 77.
fn memory_kind(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0x07 => "RAM",
        0x0f => "SDRAM",
        0x12 => "DDR",
        0x13 => "DDR2",
        0x18 => "DDR3",
        0x1a => "DDR4",
        0x1b => "LPDDR",
        0x1c => "LPDDR2",
        0x1d => "LPDDR3",
        0x1e => "LPDDR4",
        0x20 => "HBM",
        0x21 => "HBM2",
        0x22 => "DDR5",
        0x23 => "LPDDR5",
        0x24 => "HBM3",
        _ => return None,
    })
}

/// One structure: its formatted area and its strings.
struct Structure<'a> {
    formatted: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Structure<'a> {
    /// The first structure and what follows it (6.1.2, 6.1.3: strings end in NUL, the set in one more).
    fn split(table: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let len = usize::from(*table.get(1)?);
        if len < 4 || len > table.len() {
            return None;
        }
        let (formatted, rest) = table.split_at(len);
        let end = rest.windows(2).position(|w| w == [0, 0])?;
        Some((Self { formatted, strings: &rest[..end] }, &rest[end + 2..]))
    }

    fn kind(&self) -> u8 {
        self.formatted[0]
    }

    fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes([*self.formatted.get(at)?, *self.formatted.get(at + 1)?]))
    }

    /// The string whose number is at `at`; `None` where there is none or it is blank.
    fn text(&self, at: usize) -> Option<String> {
        let number = usize::from(*self.formatted.get(at)?);
        let bytes = self.strings.split(|b| *b == 0).nth(number.checked_sub(1)?)?;
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim();
        (!text.is_empty()).then(|| cut(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn structure(kind: u8, formatted: &[u8], strings: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![kind, 4 + formatted.len() as u8, 0, 0];
        out.extend_from_slice(formatted);
        for s in strings {
            out.extend_from_slice(s);
            out.push(0);
        }
        if strings.is_empty() {
            out.push(0);
        }
        out.push(0);
        out
    }

    #[test]
    fn reads_a_machine() {
        let mut one = vec![1, 2, 0, 3];
        one.extend(1..=16u8);
        one.extend([0, 0, 0]);
        let mut table = structure(1, &one, &[b"Maker", b"Bad \xff name", b" S123 "]);
        let mut dimm = vec![0; 0x24];
        dimm[0x0c - 4..0x0e - 4].copy_from_slice(&0x7fffu16.to_le_bytes());
        dimm[0x1c - 4..0x20 - 4].copy_from_slice(&65536u32.to_le_bytes());
        dimm[0x10 - 4] = 1;
        dimm[0x12 - 4] = 0x22;
        dimm[0x20 - 4..0x22 - 4].copy_from_slice(&4800u16.to_le_bytes());
        table.extend(structure(17, &dimm, &[b"DIMM_A1"]));
        table.extend(structure(17, &[0; 0x24], &[]));
        table.extend(structure(127, &[], &[]));
        let found = parse(b"_SM3_\0\0\x03\x02", &table);
        assert_eq!(found.system.serial.as_deref(), Some("S123"));
        assert_eq!(found.system.product.as_deref(), Some("Bad \u{fffd} name"));
        let uuid = found.system.uuid.map(|u| u.to_string());
        assert_eq!(uuid.as_deref(), Some("04030201-0605-0807-090a-0b0c0d0e0f10"));
        assert_eq!(found.dimms.len(), 1);
        assert_eq!((found.dimms[0].size_bytes, found.dimms[0].speed_mts), (64 << 30, Some(4800)));
        let old = parse(b"_SM_\0\0\x02\x04", &table).system.uuid.map(|u| u.to_string());
        assert_eq!(old.as_deref(), Some("01020304-0506-0708-090a-0b0c0d0e0f10"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(entry in proptest::collection::vec(any::<u8>(), 0..16), table in proptest::collection::vec(0u8..40, 0..400)) {
            let _ = parse(&entry, &table);
        }
    }
}
