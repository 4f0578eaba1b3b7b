//! Compressed clusters: read, decompressed, and exactly a cluster long.

use std::io::{self, Read, Seek};

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Operation};

use super::header::Compression;
use super::{File, Qcow2Error, ReadError};

/// Largest window that a zstd cluster may ask for, as a power of two: eight of the largest clusters.
const WINDOW_LOG_MAX: u32 = 24;

/// Decompresses clusters; keeps its memory, and the cluster it made last.
pub(super) struct Decoder {
    codec: Codec,
    packed: Vec<u8>,
    raw: Vec<u8>,
    /// Which cluster is in `raw`.
    holds: Option<u64>,
}

enum Codec {
    Deflate(Decompress),
    Zstd(zstd::stream::raw::Decoder<'static>),
}

impl Decoder {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        let codec = match compression {
            Compression::Deflate => Codec::Deflate(Decompress::new(false)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::raw::Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
                Codec::Zstd(decoder)
            }
        };
        Ok(Self { codec, packed: Vec::new(), raw: Vec::new(), holds: None })
    }

    /// The raw bytes of the cluster that lies compressed in `len` bytes at `offset`; what follows its stream in them
    /// belongs to others.
    pub(super) fn cluster<R: Read + Seek>(
        &mut self,
        file: &mut File<R>,
        offset: u64,
        len: usize,
        cluster_size: usize,
    ) -> Result<&[u8], ReadError> {
        if self.holds != Some(offset) {
            self.holds = None;
            self.packed.resize(len, 0);
            file.read_at(offset, &mut self.packed)?;
            self.raw.resize(cluster_size, 0);
            if !self.codec.decompress(&self.packed, &mut self.raw) {
                return Err(Qcow2Error::Cluster { offset }.into());
            }
            self.holds = Some(offset);
        }
        Ok(&self.raw)
    }
}

impl Codec {
    /// True where `packed` begins with a stream that fills `raw`.
    fn decompress(&mut self, packed: &[u8], raw: &mut [u8]) -> bool {
        match self {
            Self::Deflate(inflate) => {
                inflate.reset(false);
                let status = inflate.decompress(packed, raw, FlushDecompress::Finish);
                // As QEMU: a stream that has more than a cluster is cut there.
                let fine = matches!(status, Ok(Status::StreamEnd | Status::BufError | Status::Ok));
                fine && inflate.total_out() == raw.len() as u64
            }
            Self::Zstd(decoder) => {
                if decoder.reinit().is_err() {
                    return false;
                }
                let (mut read, mut written) = (0, 0);
                while written < raw.len() {
                    let input = packed.get(read..).unwrap_or_default();
                    let output = raw.get_mut(written..).unwrap_or_default();
                    let Ok(status) = decoder.run_on_buffers(input, output) else { return false };
                    if status.bytes_read == 0 && status.bytes_written == 0 {
                        return false;
                    }
                    read += status.bytes_read;
                    written += status.bytes_written;
                }
                true
            }
        }
    }
}
