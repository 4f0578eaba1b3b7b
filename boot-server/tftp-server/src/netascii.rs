//! Netascii (RFC 764 as RFC 1350 section 1 uses it): on the wire a line ends in CR LF, and a bare CR is CR NUL.

use std::io;

use crate::files::File;

/// A place in a file from which the next block is made. For octet mode `pending` is always `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    /// Next octet of the file.
    pub offset: u64,
    /// Second octet of a pair that the last block had no room for.
    pub pending: Option<u8>,
}

/// Fills `out` in netascii and returns how many octets there were; fewer than fit mean that the file is at its end.
pub(crate) fn read(file: &File, cursor: &mut Cursor, out: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    if let (Some(byte), Some(place)) = (cursor.pending, out.first_mut()) {
        *place = byte;
        (len, cursor.pending) = (1, None);
    }
    let mut chunk = [0; 512];
    while len < out.len() {
        let want = chunk.len().min(out.len() - len);
        let got = file.read_at(cursor.offset, &mut chunk[..want])?;
        if got == 0 {
            break;
        }
        for byte in &chunk[..got] {
            if len == out.len() {
                break;
            }
            cursor.offset += 1;
            let (first, second) = match byte {
                b'\n' => (b'\r', Some(b'\n')),
                b'\r' => (b'\r', Some(0)),
                other => (*other, None),
            };
            out[len] = first;
            len += 1;
            match (second, out.get_mut(len)) {
                (Some(second), Some(place)) => {
                    *place = second;
                    len += 1;
                }
                (second, _) => cursor.pending = second,
            }
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &[u8], block: usize) -> Vec<u8> {
        let file = File::Memory(text.into());
        let (mut cursor, mut out) = (Cursor::default(), Vec::new());
        let mut one = vec![0; block];
        loop {
            let len = read(&file, &mut cursor, &mut one).unwrap();
            out.extend_from_slice(&one[..len]);
            if len < block {
                return out;
            }
        }
    }

    #[test]
    fn lines() {
        assert_eq!(whole(b"a\nb\rc\r\n", 512), b"a\r\nb\r\0c\r\0\r\n");
        assert_eq!(whole(b"", 512), b"");
    }

    proptest! {
        #[test]
        fn block_size_does_not_matter(text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x')], 0..600),
                                      block in 8usize..700) {
            let expected: Vec<u8> = text.iter().flat_map(|b| match b {
                b'\n' => vec![b'\r', b'\n'],
                b'\r' => vec![b'\r', 0],
                b => vec![*b],
            }).collect();
            prop_assert_eq!(whole(&text, block), expected);
        }
    }
}
