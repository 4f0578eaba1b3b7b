//! What goes into an initramfs, by path: every directory above a file is there, and order of adding does not matter. The
//! format itself is crate `images`' business.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use images::initramfs::{self, Entry};

/// An archive being put together; paths are relative, without a leading slash.
#[derive(Default)]
pub struct Archive {
    /// By path, so that a directory comes before what is in it.
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// A directory, with every directory above it.
    pub fn directory(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.entries.insert(path[..end].to_owned(), Entry::directory(&path[..end], 0o755));
        }
    }

    /// A regular file, with the directories above it.
    pub fn file(&mut self, path: &str, permissions: u32, content: Vec<u8>) {
        self.above(path);
        self.entries.insert(path.to_owned(), Entry::file(path, permissions, content));
    }

    /// A symbolic link, with the directories above it.
    pub fn link(&mut self, path: &str, target: &str) {
        self.above(path);
        self.entries.insert(path.to_owned(), Entry::symlink(path, target));
    }

    /// `dev/console`, which the kernel opens for `/init` before anything is mounted.
    pub fn console(&mut self) {
        self.above("dev/console");
        self.entries.insert("dev/console".to_owned(), Entry::console());
    }

    /// The archive, compressed with zstd at `level`.
    pub fn compressed(self, level: i32) -> Result<Vec<u8>> {
        let entries: Vec<_> = self.entries.into_values().collect();
        let archive = initramfs::write(&entries).context("writing the initramfs")?;
        initramfs::compress(&archive, level).context("compressing the initramfs")
    }

    fn above(&mut self, path: &str) {
        if let Some((dir, _)) = path.rsplit_once('/') {
            self.directory(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_by_themselves_and_first() {
        let mut archive = Archive::default();
        archive.file("etc/a/b", 0o644, b"hello".to_vec());
        archive.link("bin/sh", "busybox");
        archive.console();
        let bytes = archive.compressed(1).unwrap();
        let paths: Vec<_> = initramfs::read(&bytes, 1 << 20).unwrap().into_iter().map(|e| e.path).collect();
        assert_eq!(paths, ["bin", "bin/sh", "dev", "dev/console", "etc", "etc/a", "etc/a/b"]);
    }
}
