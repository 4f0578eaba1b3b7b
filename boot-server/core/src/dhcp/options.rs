//! The options of a request as octets: RFC 2132 section 3 and 9.3, RFC 3396.

use std::collections::BTreeMap;

/// Length of the fixed part with the magic cookie (RFC 2131 figure 1, section 3).
pub(crate) const FIXED_LEN: usize = 240;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
const PAD: u8 = 0;
const END: u8 = 255;
const OVERLOAD: u8 = 52;

/// Options by code. One that came several times is one (RFC 3396 section 7), wherever its pieces were.
#[derive(Debug, Default)]
pub(crate) struct RawOptions(BTreeMap<u8, Vec<u8>>);

impl RawOptions {
    /// Reads a packet of at least [`FIXED_LEN`] octets: the options field, then `file`, then `sname` where option 52 says
    /// that they hold options too. What follows a broken option in its field is lost, and nothing else.
    pub fn read(packet: &[u8]) -> Self {
        let mut options = Self::default();
        options.read_field(packet.get(FIXED_LEN..).unwrap_or_default());
        let overload = options.first(OVERLOAD).unwrap_or(0);
        if overload & 1 != 0 {
            options.read_field(packet.get(FILE).unwrap_or_default());
        }
        if overload & 2 != 0 {
            options.read_field(packet.get(SNAME).unwrap_or_default());
        }
        options
    }

    /// An option's value.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    /// The first octet of an option.
    pub fn first(&self, code: u8) -> Option<u8> {
        self.get(code)?.first().copied()
    }

    /// The first octets of an option of fixed length: a client that sends it twice does not mean it twice as long.
    pub fn array<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.get(code)?.first_chunk().copied()
    }

    fn read_field(&mut self, field: &[u8]) {
        let mut rest = field;
        while let Some((code, after)) = rest.split_first() {
            rest = after;
            match *code {
                PAD => continue,
                END => return,
                code => {
                    let Some((len, after)) = rest.split_first() else { return };
                    let Some((value, after)) = after.split_at_checked(usize::from(*len)) else { return };
                    self.0.entry(code).or_default().extend_from_slice(value);
                    rest = after;
                }
            }
        }
    }
}

/// Options inside an option (43, 82, 175): code, length, value; in 43 codes 0 and 255 mean as outside.
pub(crate) fn encapsulated(value: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let [code, len, after @ ..] = rest else { return None };
        let (value, after) = after.split_at_checked(usize::from(*len))?;
        rest = after;
        Some((*code, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; FIXED_LEN];
        packet.extend(options);
        packet
    }

    #[test]
    fn pieces_are_joined_across_fields() {
        let mut bytes =
            packet(&[52, 1, 3, 67, 2, b'a', b'b', 0, 0, 12, 1, b'x', 67, 1, b'c', 255, 60, 1, b'n']);
        bytes[FILE.start..FILE.start + 4].copy_from_slice(&[67, 1, b'd', 255]);
        bytes[SNAME.start..SNAME.start + 6].copy_from_slice(&[67, 1, b'e', 97, 200, 1]);
        let options = RawOptions::read(&bytes);
        assert_eq!(options.get(67), Some(&b"abcde"[..]));
        assert_eq!(options.get(60), None, "after the end");
        assert_eq!(options.get(97), None, "longer than its field");
        assert_eq!(options.array::<4>(67), Some(*b"abcd"));
        assert_eq!(options.array::<4>(12), None);
    }

    #[test]
    fn nothing_is_read_from_file_without_overload() {
        let mut bytes = packet(&[53, 1, 1]);
        bytes[FILE.start..FILE.start + 3].copy_from_slice(&[67, 1, b'd']);
        assert_eq!(RawOptions::read(&bytes).get(67), None);
        assert_eq!(RawOptions::read(&[]).get(53), None);
        assert_eq!(encapsulated(&[1, 1, 7, 2, 9, 1]).collect::<Vec<_>>(), [(1, &[7][..])]);
    }
}
