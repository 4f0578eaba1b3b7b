//! Unified kernel images: systemd's stub, a UEFI program, with kernel, ramdisk and command line as further sections, so
//! that one signature covers them all (the UAPI group's "Unified Kernel Image" specification; section layout from
//! Microsoft's "PE Format").
//!
//! What `objcopy --add-section` does, without binutils on the server.

/// The kernel needs its command line at least this much.
const ALIGN: u32 = 4096;
/// Length of one line of the section table.
const SECTION: usize = 40;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const DATA_READ: u32 = 0x4000_0040;
/// `PE32+`.
const MAGIC: u16 = 0x020b;
/// Largest image: firmware holds it in memory twice.
pub const SIZE_MAX: usize = 512 << 20;

/// Why an image cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    /// The stub is no 64-bit UEFI program.
    #[error("the stub is not a 64-bit UEFI program")]
    Stub,
    /// The stub is signed: its signature lies where the sections go.
    #[error("the stub is signed already; an unsigned one is needed")]
    Signed,
    /// There is no room for the section table.
    #[error("the stub's header has no room for {0} more sections")]
    Room(usize),
    /// A name of more than 8 octets.
    #[error("`{0}` is too long for the name of a section")]
    Name(&'static str),
    /// Larger than [`SIZE_MAX`].
    #[error("the image would be larger than {max} MiB", max = SIZE_MAX >> 20)]
    Size,
}

/// The stub with these sections after its own.
///
/// # Errors
/// [`UkiError`] where the stub is none, or has no room.
pub fn build(stub: &[u8], sections: &[(&'static str, &[u8])]) -> Result<Vec<u8>, UkiError> {
    let pe = Header::of(stub)?;
    let end = pe.table + SECTION * (pe.sections + sections.len());
    if end > pe.headers_size {
        return Err(UkiError::Room(sections.len()));
    }
    let mut out = stub.to_vec();
    let mut address = pe.image_size.max(pe.last_address);
    let (mut entry, mut data_size) = (pe.table + SECTION * pe.sections, pe.data_size);
    for (name, bytes) in sections {
        let (offset, size) = (align(out.len(), pe.file_align)?, u32_of(bytes.len())?);
        address = align(address as usize, ALIGN.max(pe.section_align))?;
        out.resize(offset as usize, 0);
        out.extend_from_slice(bytes);
        let padded = align(out.len(), pe.file_align)?;
        out.resize(padded as usize, 0);
        let mut line = [0; SECTION];
        line.get_mut(..name.len().min(9))
            .filter(|field| field.len() <= 8)
            .ok_or(UkiError::Name(name))?
            .copy_from_slice(name.as_bytes());
        put(&mut line, 8, size)?;
        put(&mut line, 12, address)?;
        put(&mut line, 16, padded - offset)?;
        put(&mut line, 20, offset)?;
        put(&mut line, 36, DATA_READ)?;
        out.get_mut(entry..entry + SECTION).ok_or(UkiError::Stub)?.copy_from_slice(&line);
        entry += SECTION;
        address = address.checked_add(size).ok_or(UkiError::Size)?;
        data_size = data_size.saturating_add(padded - offset);
    }
    let count = u16::try_from(pe.sections + sections.len()).map_err(|_| UkiError::Room(sections.len()))?;
    out.get_mut(pe.start + 6..pe.start + 8).ok_or(UkiError::Stub)?.copy_from_slice(&count.to_le_bytes());
    put(&mut out, pe.optional + 8, data_size)?;
    put(&mut out, pe.optional + 56, align(address as usize, pe.section_align)?)?;
    // The checksum covered what was changed; UEFI does not look at it, and zero means none.
    put(&mut out, pe.optional + 64, 0)?;
    if out.len() > SIZE_MAX { Err(UkiError::Size) } else { Ok(out) }
}

/// What is read from the stub's headers.
struct Header {
    start: usize,
    optional: usize,
    table: usize,
    sections: usize,
    section_align: u32,
    file_align: u32,
    image_size: u32,
    headers_size: usize,
    data_size: u32,
    /// Where the last section ends in memory.
    last_address: u32,
}

impl Header {
    fn of(stub: &[u8]) -> Result<Self, UkiError> {
        if stub.get(..2) != Some(b"MZ") || stub.len() > SIZE_MAX {
            return Err(UkiError::Stub);
        }
        let start = read(stub, 0x3c)? as usize;
        if stub.get(start..).and_then(|s| s.get(..4)) != Some(b"PE\0\0") {
            return Err(UkiError::Stub);
        }
        let optional = start + 24;
        let (sections, size) = (half(stub, start + 6)?, half(stub, start + 20)?);
        if half(stub, optional)? != MAGIC || size < 152 {
            return Err(UkiError::Stub);
        }
        // Data directory 4, the certificate table.
        if read(stub, optional + 112 + 4 * 8)? != 0 {
            return Err(UkiError::Signed);
        }
        let table = optional + usize::from(size);
        let mut last_address = 0;
        for line in (0..usize::from(sections)).map(|i| table + SECTION * i) {
            last_address = last_address.max(read(stub, line + 12)?.saturating_add(read(stub, line + 8)?));
        }
        let header = Self {
            start,
            optional,
            table,
            sections: usize::from(sections),
            section_align: read(stub, optional + 32)?,
            file_align: read(stub, optional + 36)?,
            image_size: read(stub, optional + 56)?,
            headers_size: read(stub, optional + 60)? as usize,
            data_size: read(stub, optional + 8)?,
            last_address,
        };
        let aligned = |n: u32| n.is_power_of_two() && n <= 1 << 20;
        if aligned(header.section_align) && aligned(header.file_align) && header.headers_size <= stub.len() {
            Ok(header)
        } else {
            Err(UkiError::Stub)
        }
    }
}

fn read(bytes: &[u8], at: usize) -> Result<u32, UkiError> {
    let found = bytes.get(at..).and_then(|b| b.first_chunk()).ok_or(UkiError::Stub)?;
    Ok(u32::from_le_bytes(*found))
}

fn half(bytes: &[u8], at: usize) -> Result<u16, UkiError> {
    let found = bytes.get(at..).and_then(|b| b.first_chunk()).ok_or(UkiError::Stub)?;
    Ok(u16::from_le_bytes(*found))
}

fn put(bytes: &mut [u8], at: usize, value: u32) -> Result<(), UkiError> {
    bytes.get_mut(at..at + 4).ok_or(UkiError::Stub)?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

fn align(value: usize, to: u32) -> Result<u32, UkiError> {
    u32_of(value)?.checked_next_multiple_of(to).ok_or(UkiError::Size)
}

fn u32_of(value: usize) -> Result<u32, UkiError> {
    u32::try_from(value).map_err(|_| UkiError::Size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A stub of one section, with room for `room` more.
    fn stub(room: usize) -> Vec<u8> {
        let (start, size) = (0x40, 240);
        let optional = start + 24;
        let table = optional + size;
        let headers = (table + SECTION * (1 + room)).next_multiple_of(512);
        // No more room than was asked for.
        let mut out = vec![0; headers + 512];
        out[..2].copy_from_slice(b"MZ");
        put(&mut out, 0x3c, start as u32).unwrap();
        out[start..start + 4].copy_from_slice(b"PE\0\0");
        out[start + 6] = 1;
        out[start + 20] = size as u8;
        out[optional..optional + 2].copy_from_slice(&MAGIC.to_le_bytes());
        for (at, value) in [(8, 512), (32, 4096), (36, 512), (56, 0x2000), (60, table + SECTION * (1 + room))]
        {
            put(&mut out, optional + at, value as u32).unwrap();
        }
        for (at, value) in [(8, 0x100), (12, 0x1000), (16, 512), (20, headers)] {
            put(&mut out, table + at, value as u32).unwrap();
        }
        out
    }

    #[test]
    fn sections_follow_in_file_and_memory() {
        let made = build(&stub(2), &[(".cmdline", b"quiet"), (".linux", &[7; 5000])]).unwrap();
        let header = Header::of(&made).unwrap();
        assert_eq!(header.sections, 3);
        let line = |i: usize, at: usize| read(&made, header.table + SECTION * i + at).unwrap();
        assert_eq!((line(1, 8), line(1, 12), line(1, 16)), (5, 0x2000, 512));
        assert_eq!((line(2, 8), line(2, 12), line(2, 16)), (5000, 0x3000, 5120));
        let at = line(1, 20) as usize;
        assert_eq!(&made[at..at + 6], b"quiet\0");
        assert_eq!(header.image_size, 0x5000);
        assert_eq!(header.data_size, 512 + 512 + 5120);
        assert_eq!(made.len() as u32, line(2, 20) + 5120);
    }

    #[test]
    fn what_is_no_stub_is_refused() {
        assert_eq!(build(b"", &[]), Err(UkiError::Stub));
        assert_eq!(build(&vec![0; 4096], &[]), Err(UkiError::Stub));
        assert_eq!(build(&stub(0), &[(".linux", b"x")]), Err(UkiError::Room(1)));
        assert_eq!(build(&stub(1), &[(".verylong", b"x")]), Err(UkiError::Name(".verylong")));
        let mut signed = stub(1);
        put(&mut signed, 0x40 + 24 + 112 + 32, 0x1000).unwrap();
        assert_eq!(build(&signed, &[(".linux", b"x")]), Err(UkiError::Signed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0_usize..700, value: u32, cut in 0_usize..1200) {
            let mut bytes = stub(2);
            let _ = put(&mut bytes, at, value);
            bytes.truncate(cut);
            let _ = build(&bytes, &[(".linux", &[1; 700])]);
        }
    }
}
