//! A directory of what goes into an initramfs, written as a "newc" archive (Documentation/driver-api/early-userspace/
//! buffer-format.rst of the Linux kernel) whose bytes depend on nothing but names, modes and contents.

use std::collections::BTreeMap;

/// An archive being put together; names are relative, without a leading slash.
#[derive(Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

impl Archive {
    /// A directory, with every directory above it.
    pub fn directory(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.put(&path[..end], 0o040_755, (0, 0), Vec::new());
        }
    }

    /// A regular file, with the directories above it.
    pub fn file(&mut self, path: &str, permissions: u32, data: Vec<u8>) {
        self.above(path);
        self.put(path, 0o100_000 | permissions, (0, 0), data);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.above(path);
        self.put(path, 0o120_777, (0, 0), to.into());
    }

    /// A character device.
    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.above(path);
        self.put(path, 0o020_000 | permissions, (major, minor), Vec::new());
    }

    /// The archive's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (name, entry)) in self.entries.iter().enumerate() {
            record(&mut out, u32::try_from(inode).unwrap_or(u32::MAX).saturating_add(1), name, entry);
        }
        record(&mut out, 0, "TRAILER!!!", &Entry { mode: 0, device: (0, 0), data: Vec::new() });
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn above(&mut self, path: &str) {
        if let Some((dir, _)) = path.rsplit_once('/') {
            self.directory(dir);
        }
    }

    fn put(&mut self, path: &str, mode: u32, device: (u32, u32), data: Vec<u8>) {
        self.entries.insert(path.to_owned(), Entry { mode, device, data });
    }
}

fn record(out: &mut Vec<u8>, inode: u32, name: &str, entry: &Entry) {
    let links = if entry.mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (major, minor) = entry.device;
    let fields = [
        inode,
        entry.mode,
        0,
        0,
        links,
        0,
        size(entry.data.len()),
        0,
        0,
        major,
        minor,
        size(name.len() + 1),
        0,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&entry.data);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_it_back() {
        let mut archive = Archive::default();
        archive.file("etc/a/b", 0o644, b"hello".to_vec());
        archive.link("bin/sh", "busybox");
        let path = std::env::temp_dir().join(format!("cpio-{}.img", std::process::id()));
        std::fs::write(&path, archive.bytes()).unwrap();
        let list = std::process::Command::new("cpio").args(["-tF"]).arg(&path).output().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(String::from_utf8_lossy(&list.stdout), "bin\nbin/sh\netc\netc/a\netc/a/b\n");
    }
}
