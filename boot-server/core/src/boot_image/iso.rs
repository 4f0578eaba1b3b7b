//! The ISO 9660 volume (ECMA-119) with an El Torito boot entry for UEFI (El Torito 1.0; UEFI 2.10 section 13.3.2.1).
//!
//! ```text
//! block 16 primary descriptor, 17 boot record, 18 end, 19 boot catalogue, 20 and 21 path tables, 22 … directories, then files
//! ```
//!
//! Names are upper case with a version, as the standard has them; GRUB reads them without regard to case. Only `.DISK` begins with
//! a character that the standard does not know, because GRUB looks for it.

use super::{ImageError, Part, Segment, u32_of};

const BLOCK: u64 = 2048;
const CATALOGUE: u32 = 19;
const PATHS_LITTLE: u32 = 20;
const PATHS_BIG: u32 = 21;
/// Directories, a block each, in the order of the path table (section 6.9.1).
const ROOT: u32 = 22;
const DISK: u32 = 23;
const BOOT: u32 = 24;
const GRUB: u32 = 25;
/// Block of the first file.
const FILES: u32 = 26;
/// Directory records: a directory (section 9.1.6).
const DIRECTORY: u8 = 2;
/// A block with nothing but zeroes before the first descriptor: the system area (section 6.2.1).
const SYSTEM: u64 = 16;
/// What GRUB looks for, and what it says.
const INFO: &[u8] = b"Billet\n";

/// A file as it stands in its directory.
#[derive(Debug, Clone, Copy)]
struct Extent {
    block: u32,
    size: u32,
}

/// Files from block [`FILES`] on, one after the other.
struct Files {
    segments: Vec<Segment>,
    next: u64,
}

impl Files {
    fn add(&mut self, segments: Vec<Segment>) -> Result<Extent, ImageError> {
        let mut size = 0_u64;
        for segment in &segments {
            size = size.checked_add(segment.size()).ok_or(ImageError::Size)?;
        }
        let extent = Extent { block: u32_of(self.next)?, size: u32_of(size)? };
        self.segments.extend(segments);
        self.segments.push(Segment::Zeroes(size.next_multiple_of(BLOCK) - size));
        self.next += size.div_ceil(BLOCK);
        Ok(extent)
    }
}

/// The volume: GRUB's configuration, the FAT volume that firmware starts from, and files of the root directory, which must be
/// in the order of their names.
pub(super) fn volume(
    config: &str,
    efi: &[Segment],
    files: &[(&str, (Part, u64))],
) -> Result<Vec<Segment>, ImageError> {
    let mut placed = Files { segments: Vec::new(), next: FILES.into() };
    let info = placed.add(vec![Segment::Octets(INFO.to_vec())])?;
    let config = placed.add(vec![Segment::Octets(config.as_bytes().to_vec())])?;
    let efi = placed.add(efi.to_vec())?;
    let mut root_files = Vec::new();
    for (name, (part, size)) in files {
        root_files.push((*name, placed.add(vec![Segment::Part(*part, *size)])?));
    }
    let blocks = u32_of(placed.next)?;

    let mut root = Directory::new(ROOT, ROOT);
    root.directory(".DISK", DISK);
    root.directory("BOOT", BOOT);
    root_files.iter().for_each(|(name, extent)| root.file(name, *extent));
    let mut disk = Directory::new(DISK, ROOT);
    disk.file("INFO.;1", info);
    let mut boot = Directory::new(BOOT, ROOT);
    boot.file("EFI.IMG;1", efi);
    boot.directory("GRUB", GRUB);
    let mut grub = Directory::new(GRUB, BOOT);
    grub.file("GRUB.CFG;1", config);

    let paths = [("\0", ROOT, 1), (".DISK", DISK, 1), ("BOOT", BOOT, 1), ("GRUB", GRUB, 3)];
    let (little, big) = (path_table(&paths, false), path_table(&paths, true));
    let mut octets = Vec::new();
    for block in [
        primary(blocks, u32_of(little.len() as u64)?),
        boot_record(),
        descriptor(0xff),
        catalogue(efi),
        little,
        big,
        root.0,
        disk.0,
        boot.0,
        grub.0,
    ] {
        octets.extend(padded(block));
    }
    let mut segments = vec![Segment::Zeroes(SYSTEM * BLOCK), Segment::Octets(octets)];
    segments.extend(placed.segments.into_iter().filter(|segment| segment.size() > 0));
    Ok(segments)
}

fn padded(mut block: Vec<u8>) -> Vec<u8> {
    debug_assert!(block.len() as u64 <= BLOCK);
    block.resize(BLOCK as usize, 0);
    block
}

/// In both orders of octets (section 7.3.3).
fn both(value: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&value.to_le_bytes());
    out[4..].copy_from_slice(&value.to_be_bytes());
    out
}

/// The same of 16 bits (section 7.2.3).
fn both16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

struct Directory(Vec<u8>);

impl Directory {
    fn new(own: u32, parent: u32) -> Self {
        let mut directory = Self(Vec::new());
        directory.directory("\0", own);
        directory.directory("\u{1}", parent);
        directory
    }

    fn directory(&mut self, name: &str, block: u32) {
        self.0.extend(record(name, Extent { block, size: BLOCK as u32 }, DIRECTORY));
    }

    fn file(&mut self, name: &str, extent: Extent) {
        self.0.extend(record(name, extent, 0));
    }
}

/// A directory record (section 9.1).
fn record(name: &str, extent: Extent, flags: u8) -> Vec<u8> {
    let length = (33 + name.len()).next_multiple_of(2);
    let mut out = vec![length as u8, 0];
    out.extend(both(extent.block));
    out.extend(both(extent.size));
    // 1 January 2020, so that the same files make the same image.
    out.extend([120, 1, 1, 0, 0, 0, 0]);
    out.extend([flags, 0, 0]);
    out.extend(both16(1));
    out.push(name.len() as u8);
    out.extend(name.as_bytes());
    out.resize(length, 0);
    out
}

/// Directories with the number of their parent (section 9.4).
fn path_table(paths: &[(&str, u32, u16)], big: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, block, parent) in paths {
        out.extend([name.len() as u8, 0]);
        out.extend(if big { block.to_be_bytes() } else { block.to_le_bytes() });
        out.extend(if big { parent.to_be_bytes() } else { parent.to_le_bytes() });
        out.extend(name.as_bytes());
        out.resize(out.len().next_multiple_of(2), 0);
    }
    out
}

/// The start of every descriptor (section 8.1).
fn descriptor(kind: u8) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(b"CD001\x01");
    out
}

/// Section 8.4.
fn primary(blocks: u32, path_table: u32) -> Vec<u8> {
    let mut out = padded(descriptor(1));
    let mut put = |at: usize, octets: &[u8]| out[at..at + octets.len()].copy_from_slice(octets);
    put(8, &[b' '; 64]);
    put(40, b"BILLET");
    put(80, &both(blocks));
    put(120, &both16(1));
    put(124, &both16(1));
    put(128, &both16(BLOCK as u16));
    put(132, &both(path_table));
    put(140, &PATHS_LITTLE.to_le_bytes());
    put(148, &PATHS_BIG.to_be_bytes());
    put(156, &record("\0", Extent { block: ROOT, size: BLOCK as u32 }, DIRECTORY));
    // Who published it, and what with: not said.
    put(190, &[b' '; 623]);
    // Four dates that are not said (section 8.4.26.1).
    for date in 0..4 {
        put(813 + 17 * date, &[b'0'; 16]);
    }
    put(881, &[1]);
    out
}

/// El Torito, figure 7.
fn boot_record() -> Vec<u8> {
    let mut out = descriptor(0);
    out.extend(b"EL TORITO SPECIFICATION");
    out.resize(0x47, 0);
    out.extend(CATALOGUE.to_le_bytes());
    out
}

/// El Torito, figures 2 and 3: one entry without emulation, for UEFI (platform 0xEF).
fn catalogue(efi: Extent) -> Vec<u8> {
    let mut out = vec![1, 0xef, 0, 0];
    out.extend(b"Billet");
    out.resize(30, 0);
    out.extend([0x55, 0xaa]);
    // All words together make zero.
    let sum = out.chunks(2).fold(0_u16, |sum, w| sum.wrapping_add(u16::from_le_bytes([w[0], w[1]])));
    out[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    out.extend([0x88, 0, 0, 0, 0, 0]);
    // The volume has no more sectors than that, or it would not have been made.
    out.extend(u16::try_from(efi.size / 512).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(efi.block.to_le_bytes());
    out
}
