//! For tests: a directory that goes away, and bytes that look random and are always the same.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of one test's own.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("billet-images-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes of xorshift64 (Marsaglia 2003), which nothing compresses.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// A disk with data, holes, half-empty chunks and a short last chunk, for chunks of 64 KiB.
pub(crate) fn disk(seed: u64) -> Vec<u8> {
    let mut disk = vec![0; 20 * 65536 + 512 * 3];
    let mut put = |at: usize, bytes: &[u8]| disk[at..at + bytes.len()].copy_from_slice(bytes);
    put(446 + 4, &[0x83]);
    put(510, &[0x55, 0xaa]);
    put(0, &[0xeb, 0x63]);
    put(65536, &noise(seed, 65536 * 3));
    put(65536 * 7 + 5000, &noise(seed + 1, 70_000));
    put(65536 * 12, &noise(seed, 65536)); // the same as chunk 1
    put(65536 * 20 + 1000, b"the end");
    disk
}
