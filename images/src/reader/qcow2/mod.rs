//! QEMU's qcow2, versions 2 and 3 (QEMU, docs/interop/qcow2.txt): the active state of an image that stands alone.
//! Internal snapshots, bitmaps and other extensions say nothing about its bytes and are passed over.
//!
//! A table entry is believed only after its reserved bits, its alignment and its place in the file were looked at.
//! Depth is fixed (L1, L2, cluster) and one L2 table is kept at a time, so no file makes us loop or grow.

mod cluster;
mod header;
mod refcount;

use std::io::{self, Read, Seek, SeekFrom};

use super::{Format, Piece, RawDisk, ReadError, read_full};
use cluster::Decoder;
use header::{HEADER_LEN, Header};

/// Bits of a table entry that hold an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// "This process may write in place": says nothing about the content.
const COPIED: u64 = 1 << 63;
/// L2: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// L2, version 3: the cluster reads as zeros, whatever its offset.
const ZERO: u64 = 1;

/// Why a qcow2 file is refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Qcow2Error {
    /// Another kind of file.
    #[error("not a qcow2 file")]
    Magic,
    /// The file ends inside its header.
    #[error("qcow2 header is cut short")]
    ShortHeader,
    /// A version that is not read.
    #[error("qcow2 version {0} is not read here, only 2 and 3")]
    Version(u32),
    /// Out of range.
    #[error("qcow2 cluster size of 2^{0} bytes is not from 512 bytes to 2 MiB")]
    ClusterBits(u32),
    /// Out of range.
    #[error("qcow2 header length {0} is not valid")]
    HeaderLength(u32),
    /// Only changes against another file.
    #[error("qcow2 image needs a backing file; `qemu-img convert` makes one that stands alone")]
    BackingFile,
    /// AES or LUKS.
    #[error("qcow2 image is encrypted")]
    Encrypted,
    /// Its data lie elsewhere.
    #[error("qcow2 image keeps its data in another file; `qemu-img convert` makes one that stands alone")]
    ExternalData,
    /// Its refcounts may be wrong.
    #[error("qcow2 image was not closed properly; `qemu-img check -r all` repairs it")]
    Dirty,
    /// QEMU itself found it damaged.
    #[error("qcow2 image is marked as corrupt")]
    Corrupt,
    /// Subclusters.
    #[error(
        "qcow2 image has extended L2 entries (subclusters), which are not read here; `qemu-img convert` makes one without"
    )]
    ExtendedL2,
    /// Anything else that changes the meaning of the file.
    #[error("qcow2 image has incompatible features that are not known here ({0:#x})")]
    UnknownFeatures(u64),
    /// Neither deflate nor zstd.
    #[error("qcow2 compression type {0} is not read here or contradicts the image's features")]
    Compression(u8),
    /// A table that is larger than QEMU itself allows.
    #[error("qcow2 image needs an L1 table of {entries} entries, which is more than anybody reads")]
    L1TooLarge {
        /// Entries needed.
        entries: u64,
    },
    /// The table cannot map the whole disk.
    #[error("qcow2 L1 table has {found} entries, its size needs {wanted}")]
    L1TooShort {
        /// Entries needed.
        wanted: u64,
        /// Entries there.
        found: u32,
    },
    /// The refcount table or its width.
    #[error("qcow2 refcount table is not valid")]
    Refcount,
    /// Not where such a thing can be.
    #[error("qcow2 {what} at {offset:#x} is not aligned to a cluster")]
    Unaligned {
        /// Such as `L2 table`.
        what: &'static str,
        /// Its offset in the file.
        offset: u64,
    },
    /// Past the end of the file.
    #[error("qcow2 {what} at {offset:#x} lies outside the file of {file} bytes, which may be cut short")]
    Outside {
        /// Such as `L2 table`.
        what: &'static str,
        /// Its offset in the file.
        offset: u64,
        /// Bytes of the file.
        file: u64,
    },
    /// Bits that must be zero.
    #[error("qcow2 {what} entry {entry:#x} has reserved bits set")]
    Reserved {
        /// Such as `L2 table`.
        what: &'static str,
        /// The entry.
        entry: u64,
    },
    /// A compressed cluster that does not decompress to a cluster.
    #[error("qcow2 compressed cluster at {offset:#x} is damaged")]
    Cluster {
        /// Its offset in the file.
        offset: u64,
    },
    /// The file goes on after the last cluster that is in use.
    #[error(
        "qcow2 image ends at {end:#x} and its file at {file:#x}; `qemu-img convert` makes one without the rest"
    )]
    TrailingData {
        /// End of the last cluster in use.
        end: u64,
        /// Bytes of the file.
        file: u64,
    },
}

/// A disk in a qcow2 file.
pub struct Qcow2<R> {
    file: File<R>,
    header: Header,
    l1: Vec<u64>,
    /// The L2 table that was used last, with its place in the L1 table.
    l2: Option<(usize, Vec<u64>)>,
    decoder: Decoder,
    at: u64,
}

/// Where a range of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapping {
    /// Nowhere: zeros.
    Zero,
    /// In the file, as it is.
    Data(u64),
    /// In the file, compressed, in so many bytes.
    Compressed(u64, usize),
}

impl<R: Read + Seek + Send> Qcow2<R> {
    /// Opens an image; reads its header and its L1 table, and looks at where it ends.
    ///
    /// # Errors
    /// Where it is not an image that can be read, with the reason.
    pub fn open(mut inner: R) -> Result<Self, ReadError> {
        let len = inner.seek(SeekFrom::End(0)).map_err(ReadError::Source)?;
        let mut file = File { inner, len };
        let mut head = vec![0; usize::try_from(len).unwrap_or(HEADER_LEN).min(HEADER_LEN)];
        file.read_at(0, &mut head)?;
        let header = Header::parse(&head)?;
        refcount::check_end(&mut file, &header)?;
        let l1 = file.table("L1 table", header.l1_offset, header.l1_entries, &header)?;
        let decoder = Decoder::new(header.compression).map_err(ReadError::Source)?;
        Ok(Self { file, header, l1, l2: None, decoder, at: 0 })
    }

    /// Where the disk's byte `at` is, and how many bytes from there on are together; within a cluster, except zeros.
    fn map(&mut self, at: u64) -> Result<(Mapping, u64), ReadError> {
        let (cluster_bits, l2_bits) = (self.header.cluster_bits, self.header.l2_bits());
        let index = usize::try_from(at >> (cluster_bits + l2_bits)).unwrap_or(usize::MAX);
        let entry = self.l1.get(index).copied().unwrap_or_default();
        if entry & !(OFFSET | COPIED) != 0 {
            return Err(Qcow2Error::Reserved { what: "L1 table", entry }.into());
        }
        let offset = entry & OFFSET;
        if offset == 0 {
            let covered = 1_u64 << (cluster_bits + l2_bits);
            return Ok((Mapping::Zero, covered - (at & (covered - 1))));
        }
        let l2 = match &mut self.l2 {
            Some((of, table)) if *of == index => table,
            _ => {
                let table = self.file.table("L2 table", offset, 1 << l2_bits, &self.header)?;
                &mut self.l2.insert((index, table)).1
            }
        };
        let slot = usize::try_from((at >> cluster_bits) & ((1 << l2_bits) - 1)).unwrap_or(usize::MAX);
        let entry = l2.get(slot).copied().unwrap_or_default();
        let cluster = 1_u64 << cluster_bits;
        Ok((self.mapping(entry, at)?, cluster - (at & (cluster - 1))))
    }

    /// What an L2 entry for the cluster around the disk's byte `at` says.
    fn mapping(&self, entry: u64, at: u64) -> Result<Mapping, Qcow2Error> {
        let (bits, file) = (self.header.cluster_bits, self.file.len);
        if entry & COMPRESSED != 0 {
            // "Compressed Clusters Descriptor": x low bits of offset, above them the sectors after the first.
            let offset_bits = 62 - (bits - 8);
            let offset = entry & ((1 << offset_bits) - 1);
            let sectors = (entry & !(COPIED | COMPRESSED)) >> offset_bits;
            let what = "compressed cluster";
            if offset >= file {
                return Err(Qcow2Error::Outside { what, offset, file });
            }
            // The last sector may end with the file.
            let len = ((sectors + 1) * 512 - (offset & 511)).min(file - offset);
            let len = usize::try_from(len).map_err(|_| Qcow2Error::Cluster { offset })?;
            return Ok(Mapping::Compressed(offset, len));
        }
        let zero = if self.header.version >= 3 { ZERO } else { 0 };
        if entry & !(OFFSET | COPIED | zero) != 0 {
            return Err(Qcow2Error::Reserved { what: "L2 table", entry });
        }
        let offset = entry & OFFSET;
        if offset == 0 || entry & zero != 0 {
            return Ok(Mapping::Zero);
        }
        // Of the last cluster only what belongs to the disk need be in the file.
        let start = at >> bits << bits;
        let used = (self.header.size - start).min(1 << bits);
        self.file.check("cluster", offset, used, bits)?;
        Ok(Mapping::Data(offset))
    }

    /// Fills `buf` with the disk's bytes from `at` on, which `mapping` says where to find.
    fn fill(&mut self, mapping: Mapping, at: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let within = at & ((1 << self.header.cluster_bits) - 1);
        match mapping {
            Mapping::Zero => buf.fill(0),
            Mapping::Data(offset) => self.file.read_at(offset + within, buf)?,
            Mapping::Compressed(offset, len) => {
                let cluster = self.header.cluster_size();
                let raw = self.decoder.cluster(&mut self.file, offset, len, cluster)?;
                let within = usize::try_from(within).unwrap_or(usize::MAX);
                let part = raw.get(within..).and_then(|rest| rest.get(..buf.len()));
                buf.copy_from_slice(part.ok_or(Qcow2Error::Cluster { offset })?);
            }
        }
        Ok(())
    }
}

impl<R: Read + Seek + Send> RawDisk for Qcow2<R> {
    fn size(&self) -> Option<u64> {
        Some(self.header.size)
    }

    fn read_chunk(&mut self, buf: &mut [u8]) -> Result<Piece, ReadError> {
        let left = usize::try_from(self.header.size - self.at).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let (mut done, mut hole) = (0, true);
        while done < len {
            let (mapping, together) = self.map(self.at)?;
            let now = usize::try_from(together).unwrap_or(usize::MAX).min(len - done);
            if mapping != Mapping::Zero && hole {
                // What was skipped so far is needed after all.
                buf.get_mut(..done).unwrap_or_default().fill(0);
                hole = false;
            }
            if !hole {
                let part = buf.get_mut(done..done + now).unwrap_or_default();
                self.fill(mapping, self.at, part)?;
            }
            done += now;
            self.at += now as u64;
        }
        Ok(if hole { Piece::Hole(len) } else { Piece::Data(len) })
    }
}

/// The image file and its size.
struct File<R> {
    inner: R,
    len: u64,
}

impl<R: Read + Seek> File<R> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.seek(SeekFrom::Start(offset)).map_err(ReadError::Source)?;
        let (n, result) = read_full(&mut self.inner, buf);
        result.map_err(ReadError::Source)?;
        if n == buf.len() {
            return Ok(());
        }
        // It was there when the file was opened.
        Err(ReadError::Source(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{} file shrank", Format::Qcow2),
        )))
    }

    /// True only for what begins on a cluster and has `len` bytes inside the file.
    fn check(&self, what: &'static str, offset: u64, len: u64, cluster_bits: u32) -> Result<(), Qcow2Error> {
        if offset & ((1 << cluster_bits) - 1) != 0 {
            return Err(Qcow2Error::Unaligned { what, offset });
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Qcow2Error::Outside { what, offset, file: self.len }),
        }
    }

    fn table(
        &mut self,
        what: &'static str,
        offset: u64,
        entries: usize,
        header: &Header,
    ) -> Result<Vec<u64>, ReadError> {
        self.check(what, offset, entries as u64 * 8, header.cluster_bits)?;
        let mut bytes = vec![0; entries * 8];
        self.read_at(offset, &mut bytes)?;
        let (entries, _) = bytes.as_chunks::<8>();
        Ok(entries.iter().map(|e| u64::from_be_bytes(*e)).collect())
    }
}

#[cfg(test)]
mod tests;
