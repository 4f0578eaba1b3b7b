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

/// Appends up to `len` octets in netascii to `out`; fewer mean that the file is at its end.
pub(crate) fn read(file: &File, cursor: &mut Cursor, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let end = out.len() + len;
    if let Some(byte) = cursor.pending.take() {
        out.push(byte);
    }
    let mut chunk = [0; 512];
    while out.len() < end {
        let want = chunk.len().min(end - out.len());
        let got = file.read_at(cursor.offset, &mut chunk[..want])?;
        if got == 0 {
            return Ok(());
        }
        for byte in &chunk[..got] {
            cursor.offset += 1;
            let pair = match byte {
                b'\n' => [b'\r', b'\n'],
                b'\r' => [b'\r', 0],
                other => {
                    out.push(*other);
                    if out.len() == end {
                        return Ok(());
                    }
                    continue;
                }
            };
            out.push(pair[0]);
            if out.len() == end {
                cursor.pending = Some(pair[1]);
                return Ok(());
            }
            out.push(pair[1]);
            if out.len() == end {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &[u8], block: usize) -> Vec<u8> {
        let file = File::Memory(text.into());
        let (mut cursor, mut out) = (Cursor::default(), Vec::new());
        loop {
            let before = out.len();
            read(&file, &mut cursor, block, &mut out).unwrap();
            if out.len() - before < block {
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
