//! The boot image of one machine, for the virtual CD drive of its management controller: an ISO 9660 volume whose El Torito
//! entry is a FAT volume with shim and GRUB. Kernel, ramdisk and GRUB's configuration lie in the ISO itself.
//!
//! ```text
//! ISO ├─ boot/efi.img  FAT ─ EFI/BOOT/{BOOTX64,grubx64,mmx64}.efi     shim ─▶ GRUB (the variant for CDs)
//!     ├─ .disk/info                                                   GRUB takes the volume that has it as its root
//!     ├─ boot/grub/grub.cfg                                           this machine's command line
//!     └─ vmlinuz, initramfs, firmware
//! ```
//!
//! An image is a list of segments: a few KiB of octets that are made here, and whole files that lie where they always lie. So
//! it costs neither memory nor disk, and the same inputs make the same octets. Decision record 0024.

mod fat;
mod iso;

use std::collections::BTreeMap;

/// Name of GRUB's configuration on the volume, without a leading slash, as GRUB asks for it.
pub const CONFIG_PATH: &str = "boot/grub/grub.cfg";
/// Largest configuration, in octets: a command line of the kernel and some words.
const CONFIG_MAX: usize = 8 << 10;

/// A file of this server that is in the image as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Shim.
    Shim,
    /// GRUB as it is signed for CDs: it looks for its configuration beside `.disk/info`.
    Grub,
    /// Shim's key manager; optional.
    MokManager,
    /// Kernel.
    Kernel,
    /// Ramdisk with the agent.
    Initramfs,
    /// Ramdisk with firmware blobs; optional.
    Firmware,
}

/// A piece of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// These octets.
    Octets(Vec<u8>),
    /// So many zero octets.
    Zeroes(u64),
    /// The whole file, of so many octets.
    Part(Part, u64),
}

impl Segment {
    /// Length in octets.
    pub fn size(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::Zeroes(size) | Self::Part(_, size) => *size,
        }
    }
}

/// Why there is no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A file that must be in it is not there.
    #[error("{0:?} is missing")]
    Missing(Part),
    /// A file is empty.
    #[error("{0:?} is empty")]
    Empty(Part),
    /// The loaders are too large for one El Torito entry (65,535 sectors).
    #[error("the boot loaders are too large for a boot image")]
    Loaders,
    /// A file or the whole is too large for ISO 9660.
    #[error("kernel or ramdisk is too large for a boot image")]
    Size,
    /// The configuration is too large.
    #[error("a boot configuration of {0} octets is too large")]
    Config(usize),
}

/// The segments of the image with GRUB's configuration `config` and files of these sizes.
///
/// # Errors
/// Where a file is missing or does not fit.
pub fn layout(config: &str, parts: &BTreeMap<Part, u64>) -> Result<Vec<Segment>, ImageError> {
    if config.len() > CONFIG_MAX {
        return Err(ImageError::Config(config.len()));
    }
    if let Some((empty, _)) = parts.iter().find(|(_, size)| **size == 0) {
        return Err(ImageError::Empty(*empty));
    }
    let needed = |part| parts.get(&part).map(|size| (part, *size)).ok_or(ImageError::Missing(part));
    let optional = |part| parts.get(&part).map(|size| (part, *size));
    let mut loaders = vec![(*b"BOOTX64 EFI", needed(Part::Shim)?), (*b"GRUBX64 EFI", needed(Part::Grub)?)];
    loaders.extend(optional(Part::MokManager).map(|part| (*b"MMX64   EFI", part)));
    let mut files = Vec::new();
    files.extend(optional(Part::Firmware).map(|part| ("FIRMWARE.;1", part)));
    files.push(("INITRAMFS.;1", needed(Part::Initramfs)?));
    files.push(("VMLINUZ.;1", needed(Part::Kernel)?));
    iso::volume(config, &fat::volume(&loaders)?, &files)
}

/// A size or place that must fit into 32 bits.
fn u32_of(value: u64) -> Result<u32, ImageError> {
    u32::try_from(value).map_err(|_| ImageError::Size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(sizes: [u64; 6]) -> BTreeMap<Part, u64> {
        use Part::{Firmware, Grub, Initramfs, Kernel, MokManager, Shim};
        [Shim, Grub, MokManager, Kernel, Initramfs, Firmware].into_iter().zip(sizes).collect()
    }

    /// The image with files that are all one letter.
    fn image(config: &str, parts: &BTreeMap<Part, u64>) -> Vec<u8> {
        let mut out = Vec::new();
        for segment in layout(config, parts).unwrap() {
            match segment {
                Segment::Octets(octets) => out.extend(octets),
                Segment::Zeroes(size) => out.resize(out.len() + size as usize, 0),
                Segment::Part(part, size) => out.resize(out.len() + size as usize, b'a' + part as u8),
            }
        }
        out
    }

    fn le(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Reads a file of the ISO as a boot loader does: directory by directory.
    fn find<'a>(image: &'a [u8], path: &[&str]) -> &'a [u8] {
        let root = 16 * 2048 + 156;
        let (mut at, mut size) = (le(image, root + 2) * 2048, le(image, root + 10));
        for name in path {
            let mut entry = at;
            loop {
                let len = usize::from(image[entry]);
                assert!(len > 0 && entry < at + size, "no {name} in {path:?}");
                let found = &image[entry + 33..entry + 33 + usize::from(image[entry + 32])];
                if found == name.as_bytes() {
                    break;
                }
                entry += len;
            }
            (at, size) = (le(image, entry + 2) * 2048, le(image, entry + 10));
        }
        &image[at..at + size]
    }

    #[test]
    fn files_are_where_the_directories_say() {
        let image = image("the config", &parts([3000, 5000, 700, 9000, 12_345, 100]));
        assert_eq!(find(&image, &["BOOT", "GRUB", "GRUB.CFG;1"]), b"the config");
        assert_eq!(find(&image, &[".DISK", "INFO.;1"]), b"Billet\n");
        assert_eq!(find(&image, &["VMLINUZ.;1"]), [b'd'; 9000]);
        assert_eq!(find(&image, &["INITRAMFS.;1"]), [b'e'; 12_345]);
        assert_eq!(find(&image, &["FIRMWARE.;1"]), [b'f'; 100]);
        // Boot record, catalogue, UEFI entry: the FAT volume.
        let catalogue = le(&image, 17 * 2048 + 0x47) * 2048;
        assert_eq!((image[catalogue + 1], image[catalogue + 32]), (0xef, 0x88));
        let entry = le(&image, catalogue + 32 + 8) * 2048;
        let sectors = usize::from(u16::from_le_bytes([image[catalogue + 38], image[catalogue + 39]]));
        assert_eq!(find(&image, &["BOOT", "EFI.IMG;1"]), &image[entry..entry + sectors * 512]);
        assert_eq!(&image[entry + 54..entry + 62], b"FAT12   ");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let all = [3000, 5000, 700, 9000, 12_345, 100];
        let mut missing = parts(all);
        missing.remove(&Part::Kernel);
        assert_eq!(layout("", &missing), Err(ImageError::Missing(Part::Kernel)));
        let mut fewer = parts(all);
        fewer.remove(&Part::MokManager);
        fewer.remove(&Part::Firmware);
        assert!(layout("", &fewer).is_ok(), "these are optional");
        let with = |at: usize, size| {
            let mut sizes = all;
            sizes[at] = size;
            layout("", &parts(sizes))
        };
        assert_eq!(with(0, 0), Err(ImageError::Empty(Part::Shim)));
        assert_eq!(with(1, 33 << 20), Err(ImageError::Loaders));
        assert_eq!(with(4, 1 << 32), Err(ImageError::Size));
        assert_eq!(with(4, u64::MAX), Err(ImageError::Size));
        assert_eq!(layout(&"x".repeat(CONFIG_MAX + 1), &parts(all)), Err(ImageError::Config(CONFIG_MAX + 1)));
    }

    proptest! {
        #[test]
        fn segments_are_whole_blocks_and_small(
            sizes in proptest::array::uniform6(1_u64..20_000_000), config in "[ -~]{0,2000}",
        ) {
            let Ok(segments) = layout(&config, &parts(sizes)) else { return Ok(()) };
            let size: u64 = segments.iter().map(Segment::size).sum();
            prop_assert_eq!(size % 2048, 0);
            let made: usize = segments.iter().map(|s| if let Segment::Octets(o) = s { o.len() } else { 0 }).sum();
            prop_assert!(made < 96 << 10, "{} octets are made", made);
            prop_assert_eq!(&segments, &layout(&config, &parts(sizes)).unwrap());
        }
    }
}
