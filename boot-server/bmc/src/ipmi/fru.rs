//! The inventory of the machine: Platform Management FRU Information Storage Definition 1.0, revision 1.3, read by the
//! commands of chapter 34.

use super::limits::{FRU_FIELDS_MAX, FRU_MAX};
use super::link::{Ask, Link, malformed};
use super::message::completion;
use super::sdr::text;
use crate::BmcError;

const GET_INFO: u8 = 0x10;
const READ: u8 = 0x11;
const WHAT: &str = "the FRU inventory";
/// Sizes that are asked for at once; each next where the one before is refused.
const PIECES: [u8; 3] = [64, 32, 16];
/// Type/length octet behind the last field (section 13).
const END: u8 = 0xc1;

/// What an inventory says; empty texts are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fru {
    /// Chassis: part number, serial number.
    pub chassis: [Option<String>; 2],
    /// Board: manufacturer, product, serial number, part number.
    pub board: [Option<String>; 4],
    /// Product: manufacturer, name, part or model number, version, serial number, asset tag.
    pub product: [Option<String>; 6],
}

impl Fru {
    /// Maker of the machine.
    pub fn manufacturer(&self) -> Option<&String> {
        self.product[0].as_ref().or(self.board[0].as_ref())
    }

    /// Model of the machine.
    pub fn model(&self) -> Option<&String> {
        self.product[1].as_ref().or(self.product[2].as_ref()).or(self.board[1].as_ref())
    }

    /// Serial number of the machine.
    pub fn serial(&self) -> Option<&String> {
        self.product[4].as_ref().or(self.chassis[1].as_ref()).or(self.board[2].as_ref())
    }
}

/// Device 0, which is the machine's own (section 34.1); `None` where it has none.
pub(super) async fn read(link: &mut Link) -> Result<Option<Fru>, BmcError> {
    let info = link.answer(&Ask::storage(WHAT, GET_INFO, &[0])).await?;
    let (size, words) = match info.data[..] {
        [low, high, access, ..] if info.completion == completion::OK => {
            (usize::from(u16::from_le_bytes([low, high])), access & 1 != 0)
        }
        _ => return Ok(None),
    };
    let mut octets = Vec::new();
    let mut pieces = PIECES.into_iter();
    let mut piece = pieces.next();
    while octets.len() < size.min(FRU_MAX) {
        let Some(count) = piece else { return Ok(None) };
        let count = usize::from(count).min(size - octets.len()).max(1);
        // Offset and count are in words of two octets where the device says so.
        let unit = if words { 2 } else { 1 };
        let [low, high] = ((octets.len() / unit) as u16).to_le_bytes();
        let response =
            link.answer(&Ask::storage(WHAT, READ, &[0, low, high, (count / unit).max(1) as u8])).await?;
        match (response.completion, &response.data[..]) {
            (completion::OK, [_, data @ ..]) if !data.is_empty() => octets.extend(data),
            (completion::OK, _) => return Err(malformed(WHAT, "an empty piece")),
            _ => piece = pieces.next(),
        }
    }
    Ok(Some(parse(&octets)))
}

/// Reads an inventory; an area that is wrong in itself is left out.
pub fn parse(octets: &[u8]) -> Fru {
    let Some(header) = octets.first_chunk::<8>().filter(|h| sum(&h[..]) == 0 && h[0] & 0x0f == 1) else {
        return Fru::default();
    };
    // Chassis: its type is before the fields. Board: language and a time of three octets. Product: language.
    Fru {
        chassis: area(octets, header[2], 3),
        board: area(octets, header[3], 6),
        product: area(octets, header[4], 3),
    }
}

/// The first fields of the area at `offset`, in units of eight octets; 0 is none.
fn area<const N: usize>(octets: &[u8], offset: u8, first: usize) -> [Option<String>; N] {
    let mut out = [const { None }; N];
    let start = usize::from(offset) * 8;
    let area = octets.get(start..).filter(|_| offset != 0).unwrap_or_default();
    let len = area.get(1).map_or(0, |len| usize::from(*len) * 8);
    let Some(area) = area.get(..len).filter(|a| sum(a) == 0) else { return out };
    let mut rest = area.get(first..).unwrap_or_default();
    for index in 0..FRU_FIELDS_MAX {
        let Some((type_length, after)) = rest.split_first().filter(|(t, _)| **t != END) else { break };
        let len = usize::from(type_length & 0x3f);
        if let Some(slot) = out.get_mut(index) {
            *slot = Some(text(*type_length, after)).filter(|t| !t.is_empty());
        }
        rest = after.get(len..).unwrap_or_default();
    }
    out
}

/// The sum of a sound header or area is 0 (section 8.1).
fn sum(octets: &[u8]) -> u8 {
    octets.iter().fold(0, |sum, octet| sum.wrapping_add(*octet))
}

/// Writes an inventory with these product fields, for stand-ins: manufacturer, name, part number, version, serial number.
pub fn emit(product: &[&str; 5]) -> Vec<u8> {
    let mut area = vec![1, 0, 25];
    for field in product {
        let field = &field.as_bytes()[..field.len().min(63)];
        // A length of 1 would be the end mark.
        area.push(0xc0 | field.len() as u8);
        area.extend(field);
    }
    // No asset tag, no file id.
    area.extend([0xc0, 0xc0, END]);
    area.resize((area.len() + 1).next_multiple_of(8) - 1, 0);
    area[1] = ((area.len() + 1) / 8) as u8;
    area.push(0_u8.wrapping_sub(sum(&area)));
    let mut out = vec![1, 0, 0, 0, 1, 0, 0];
    out.push(0_u8.wrapping_sub(sum(&out)));
    out.extend(area);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_inventory_is_read_as_it_was_written() {
        let octets = emit(&["Billet", "Rack Machine", "RM-1", "", "SER-9"]);
        let fru = parse(&octets);
        assert_eq!(fru.manufacturer().unwrap(), "Billet");
        assert_eq!(fru.model().unwrap(), "Rack Machine");
        assert_eq!(fru.serial().unwrap(), "SER-9");
        assert_eq!(fru.product[3], None);
        for at in 0..octets.len() {
            let mut changed = octets.clone();
            changed[at] ^= 4;
            assert_eq!(parse(&changed).serial(), None, "octet {at} was changed");
        }
    }

    #[test]
    fn the_board_stands_in_for_the_product() {
        let mut area = vec![1, 4, 25, 0, 0, 0];
        for field in ["Maker", "Board", "B-SER"] {
            area.push(0xc0 | field.len() as u8);
            area.extend(field.as_bytes());
        }
        area.push(END);
        area.resize(31, 0);
        area.push(0_u8.wrapping_sub(sum(&area)));
        let mut octets = vec![1, 0, 0, 1, 0, 0, 0, 0xfe];
        octets.extend(area);
        let fru = parse(&octets);
        assert_eq!(fru.manufacturer().unwrap(), "Maker");
        assert_eq!(fru.model().unwrap(), "Board");
        assert_eq!(fru.serial().unwrap(), "B-SER");
    }

    proptest! {
        #[test]
        fn no_inventory_panics(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut octets = octets;
            let _ = parse(&octets);
            if octets.len() > 8 {
                octets[0] = 1;
                octets[7] = 0_u8.wrapping_sub(sum(&octets[..7]));
                let _ = parse(&octets);
            }
        }
    }
}
