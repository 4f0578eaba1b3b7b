//! The qcow2 header (QEMU, docs/interop/qcow2.txt, "Header"): everything that can be refused at first sight is.

use super::Qcow2Error;

/// Bytes of the file that hold every header field we know.
pub(super) const HEADER_LEN: usize = 112;
/// Largest L1 table that is read, in bytes; QEMU's own bound (`QCOW_MAX_L1_SIZE`).
const L1_BYTES_MAX: u64 = 32 << 20;
/// Largest refcount table that is read, in bytes; QEMU's own bound (`QCOW_MAX_REFTABLE_SIZE`).
const REFCOUNT_TABLE_MAX: u64 = 8 << 20;

const INCOMPATIBLE_DIRTY: u64 = 1 << 0;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_EXTERNAL_DATA: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;

/// What the reader needs of a header, all of it in range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// 2 or 3.
    pub(super) version: u32,
    /// Cluster size as a power of two, 9 to 21.
    pub(super) cluster_bits: u32,
    /// Size of the raw disk in bytes.
    pub(super) size: u64,
    /// Where the L1 table lies: a multiple of the cluster size.
    pub(super) l1_offset: u64,
    /// L1 entries that the size needs; the table has at least as many.
    pub(super) l1_entries: usize,
    /// Where the refcount table lies: a multiple of the cluster size.
    pub(super) refcount_offset: u64,
    /// Bytes of the refcount table: at least a cluster, 8 MiB at most.
    pub(super) refcount_bytes: usize,
    /// Bits of one refcount: 1, 2, 4 … 64.
    pub(super) refcount_bits: u32,
    /// How compressed clusters are compressed.
    pub(super) compression: Compression,
}

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// RFC 1951, without a zlib header.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Header {
    /// Bytes of a cluster: 512 to 2 MiB.
    pub(super) fn cluster_size(&self) -> usize {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table as a power of two: a cluster of eight-byte entries.
    pub(super) fn l2_bits(&self) -> u32 {
        self.cluster_bits - 3
    }

    /// Parses the first [`HEADER_LEN`] bytes of a file, or all of a shorter one.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Qcow2Error> {
        let u32_at = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b));
        let u64_at = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u64::from_be_bytes(*b));
        let short = Qcow2Error::ShortHeader;
        if !bytes.starts_with(b"QFI\xfb") {
            return Err(Qcow2Error::Magic);
        }
        let version = u32_at(4).ok_or(short)?;
        if !matches!(version, 2 | 3) {
            return Err(Qcow2Error::Version(version));
        }
        let cluster_bits = u32_at(20).ok_or(Qcow2Error::ShortHeader)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Qcow2Error::ClusterBits(cluster_bits));
        }
        let field64 = |at| u64_at(at).ok_or(Qcow2Error::ShortHeader);
        let field32 = |at| u32_at(at).ok_or(Qcow2Error::ShortHeader);
        if field64(8)? != 0 {
            return Err(Qcow2Error::BackingFile);
        }
        if field32(32)? != 0 {
            return Err(Qcow2Error::Encrypted);
        }
        let (mut compression, mut refcount_bits) = (Compression::Deflate, 16);
        if version == 3 {
            let length = field32(100)?;
            if length < 104 || u64::from(length) > 1 << cluster_bits {
                return Err(Qcow2Error::HeaderLength(length));
            }
            let kind = if length > 104 { bytes.get(104).copied() } else { Some(0) };
            compression = features(field64(72)?, kind.ok_or(Qcow2Error::ShortHeader)?)?;
            let order = field32(96)?;
            refcount_bits = 1_u32.checked_shl(order).filter(|n| *n <= 64).ok_or(Qcow2Error::Refcount)?;
        }
        let size = field64(24)?;
        let l1_entries = l1_entries(size, cluster_bits, field32(36)?)?;
        let refcount_bytes = u64::from(field32(56)?) << cluster_bits;
        if !(1..=REFCOUNT_TABLE_MAX).contains(&refcount_bytes) {
            return Err(Qcow2Error::Refcount);
        }
        Ok(Self {
            version,
            cluster_bits,
            size,
            l1_offset: field64(40)?,
            l1_entries,
            refcount_offset: field64(48)?,
            refcount_bytes: usize::try_from(refcount_bytes).map_err(|_| Qcow2Error::Refcount)?,
            refcount_bits,
            compression,
        })
    }
}

/// Refuses every incompatible feature that changes what the bytes mean and is not read here.
fn features(bits: u64, kind: u8) -> Result<Compression, Qcow2Error> {
    if bits & INCOMPATIBLE_CORRUPT != 0 {
        return Err(Qcow2Error::Corrupt);
    }
    if bits & INCOMPATIBLE_DIRTY != 0 {
        return Err(Qcow2Error::Dirty);
    }
    if bits & INCOMPATIBLE_EXTERNAL_DATA != 0 {
        return Err(Qcow2Error::ExternalData);
    }
    if bits & INCOMPATIBLE_EXTENDED_L2 != 0 {
        return Err(Qcow2Error::ExtendedL2);
    }
    let unknown = bits & !INCOMPATIBLE_COMPRESSION;
    if unknown != 0 {
        return Err(Qcow2Error::UnknownFeatures(unknown));
    }
    // The bit says that the type is not 0, and must be there then.
    match (bits & INCOMPATIBLE_COMPRESSION != 0, kind) {
        (false, 0) => Ok(Compression::Deflate),
        (true, 1) => Ok(Compression::Zstd),
        _ => Err(Qcow2Error::Compression(kind)),
    }
}

/// L1 entries that `size` needs.
fn l1_entries(size: u64, cluster_bits: u32, found: u32) -> Result<usize, Qcow2Error> {
    let covered_bits = cluster_bits + (cluster_bits - 3);
    let wanted = size.div_ceil(1 << covered_bits);
    if wanted * 8 > L1_BYTES_MAX {
        return Err(Qcow2Error::L1TooLarge { entries: wanted });
    }
    if wanted > u64::from(found) {
        return Err(Qcow2Error::L1TooShort { wanted, found });
    }
    usize::try_from(wanted).map_err(|_| Qcow2Error::L1TooLarge { entries: wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"QFI\xfb");
        put(4, &version.to_be_bytes());
        put(20, &16_u32.to_be_bytes());
        put(24, &(1_u64 << 30).to_be_bytes());
        put(36, &2_u32.to_be_bytes());
        put(40, &0x30000_u64.to_be_bytes());
        put(48, &0x10000_u64.to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        put(96, &4_u32.to_be_bytes());
        put(100, &112_u32.to_be_bytes());
        bytes
    }

    fn with(at: usize, value: &[u8]) -> Result<Header, Qcow2Error> {
        let mut bytes = header(3);
        bytes[at..at + value.len()].copy_from_slice(value);
        Header::parse(&bytes)
    }

    #[test]
    fn a_good_header() {
        for version in [2, 3] {
            let header = Header::parse(&header(version)).unwrap();
            assert_eq!((header.size, header.l1_entries, header.refcount_bits), (1 << 30, 2, 16));
        }
        let mut zstd = header(3);
        zstd[79] = 8;
        zstd[104] = 1;
        assert_eq!(Header::parse(&zstd).unwrap().compression, Compression::Zstd);
    }

    #[test]
    fn each_refusal_has_its_own_reason() {
        let text = |at, value: &[u8]| with(at, value).unwrap_err().to_string();
        let table = [
            text(0, b"nope"),
            text(4, &4_u32.to_be_bytes()),
            text(8, &112_u64.to_be_bytes()),
            text(20, &8_u32.to_be_bytes()),
            text(20, &22_u32.to_be_bytes()),
            text(24, &u64::MAX.to_be_bytes()),
            text(24, &(1_u64 << 40).to_be_bytes()),
            text(32, &2_u32.to_be_bytes()),
            text(56, &0_u32.to_be_bytes()),
            text(56, &u32::MAX.to_be_bytes()),
            text(72, &1_u64.to_be_bytes()),
            text(72, &2_u64.to_be_bytes()),
            text(72, &4_u64.to_be_bytes()),
            text(72, &8_u64.to_be_bytes()),
            text(72, &16_u64.to_be_bytes()),
            text(72, &(1_u64 << 63).to_be_bytes()),
            text(96, &7_u32.to_be_bytes()),
            text(96, &u32::MAX.to_be_bytes()),
            text(100, &100_u32.to_be_bytes()),
            text(104, &[1]),
        ];
        let expected = [
            "not a qcow2 file",
            "qcow2 version 4 is not read here, only 2 and 3",
            "qcow2 image needs a backing file; `qemu-img convert` makes one that stands alone",
            "qcow2 cluster size of 2^8 bytes is not from 512 bytes to 2 MiB",
            "qcow2 cluster size of 2^22 bytes is not from 512 bytes to 2 MiB",
            "qcow2 image needs an L1 table of 34359738368 entries, which is more than anybody reads",
            "qcow2 L1 table has 2 entries, its size needs 2048",
            "qcow2 image is encrypted",
            "qcow2 refcount table is not valid",
            "qcow2 refcount table is not valid",
            "qcow2 image was not closed properly; `qemu-img check -r all` repairs it",
            "qcow2 image is marked as corrupt",
            "qcow2 image keeps its data in another file; `qemu-img convert` makes one that stands alone",
            "qcow2 compression type 0 is not read here or contradicts the image's features",
            "qcow2 image has extended L2 entries (subclusters), which are not read here; `qemu-img convert` makes one without",
            "qcow2 image has incompatible features that are not known here (0x8000000000000000)",
            "qcow2 refcount table is not valid",
            "qcow2 refcount table is not valid",
            "qcow2 header length 100 is not valid",
            "qcow2 compression type 1 is not read here or contradicts the image's features",
        ];
        assert_eq!(table.each_ref().map(String::as_str), expected);
    }

    #[test]
    fn a_short_header_is_refused() {
        for len in 0..105 {
            assert!(Header::parse(&header(3)[..len]).is_err(), "{len}");
        }
        assert!(Header::parse(&header(2)[..72]).is_ok());
    }
}
