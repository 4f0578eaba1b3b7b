//! Small files below a root: `/` on a machine, a recorded tree in tests.

use std::path::{Path, PathBuf};

use ramdisk_agent_core::content::cut;

/// Largest attribute that is read, in bytes; sysfs gives at most a page, `/proc/cpuinfo` more.
const FILE_MAX: u64 = 4 << 20;

/// The tree that is looked at.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where `path` (without a slash at its beginning) really is.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// True for the machine itself, where devices can be asked too.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Bytes of a file; `None` where there is none or it cannot be read.
    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(self.path(path)).ok()?.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Trimmed text of a file, cut to what may be reported; `None` where it is empty.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text =
            String::from_utf8_lossy(&self.bytes(path)?).trim_matches(['\0', ' ', '\n', '\t']).to_owned();
        (!text.is_empty()).then(|| cut(&text))
    }

    /// A decimal number in a file.
    pub fn number<T: std::str::FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// A hexadecimal number (`0x8086`) in a file.
    pub fn hex(&self, path: impl AsRef<Path>) -> Option<u32> {
        u32::from_str_radix(self.text(path)?.trim_start_matches("0x"), 16).ok()
    }

    /// Names in a folder, sorted as people count (`eth2` before `eth10`); none where there is no such folder.
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<_> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.sort_by_key(|n| {
            (n.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(), n.len(), n.clone())
        });
        names
    }

    /// Where a link leads, as text.
    pub fn link(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(std::fs::canonicalize(self.path(path)).ok()?.to_string_lossy().into_owned())
    }

    /// Last part of where a link leads, such as the name of a driver.
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(std::fs::read_link(self.path(path)).ok()?.file_name()?.to_string_lossy().into_owned())
    }
}

/// The innermost PCI address in a device's path, such as `0000:00:04.0`.
pub fn pci_address(path: &str) -> Option<&str> {
    path.rsplit('/').find(|part| {
        let bytes = part.as_bytes();
        bytes.len() == 12 && bytes[4] == b':' && bytes[7] == b':' && bytes[10] == b'.'
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_innermost_function() {
        let path = "/sys/devices/pci0000:00/0000:00:01.1/0000:02:00.0/nvme/nvme0/nvme0n1";
        assert_eq!(pci_address(path), Some("0000:02:00.0"));
        assert_eq!(pci_address("/sys/devices/virtual/block/loop0"), None);
    }
}
