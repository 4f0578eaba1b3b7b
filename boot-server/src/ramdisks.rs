//! Ramdisks as they are served: the one that was installed, and behind it a small archive with what this site tells its machines, such as the
//! keys that it trusts. Whoever boots gets both as one file, on whatever way, and inside whatever is signed.
//!
//! A file is made where the ramdisk or what is added changed; its name says of what it was made, so that nothing that changed is served as it
//! was, and one that is being sent stays.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use images::initramfs::{self, InitramfsError};
use images::trust::{ANCHOR_MAX, Anchor, AnchorError};

use crate::config::Settings;
use crate::secret;

/// Name of what is trusted, below [`images::trust::ANCHOR_PATH`]'s directory.
pub const ANCHOR: &str = "trust.json";
/// What was replaced stays as long as somebody may be about to open it.
const LEAVE: Duration = Duration::from_secs(600);

/// Makes names of files that are being written differ.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Why no ramdisk was made.
#[derive(Debug, thiserror::Error)]
pub enum RamdiskError {
    /// A file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What is trusted.
    #[error("{} is not what machines can be told to trust", path.display())]
    Anchor {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: AnchorError,
    },
    /// The archive.
    #[error("cannot make the archive of the site")]
    Archive(#[from] InitramfsError),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RamdiskError {
    move |cause| RamdiskError::File { action, path: path.to_owned(), cause }
}

/// Where they are made, and of what.
#[derive(Debug, Clone)]
pub struct Ramdisks {
    dir: PathBuf,
    anchor: PathBuf,
}

impl Ramdisks {
    /// Those of this configuration.
    pub fn new(settings: &Settings) -> Self {
        Self { dir: settings.ramdisks_dir(), anchor: settings.anchor() }
    }

    /// The file to serve for the ramdisk at `base`. Where it cannot be made, that one itself: its agent writes no image then.
    pub fn with_site(&self, name: &str, base: &Path) -> Option<PathBuf> {
        match self.made(name, base) {
            Ok(made) => Some(made),
            Err(RamdiskError::File { cause, path, .. })
                if path == self.anchor && cause.kind() == io::ErrorKind::NotFound =>
            {
                Some(base.to_owned())
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a ramdisk is served without what this site trusts"
                );
                Some(base.to_owned())
            }
        }
    }

    fn made(&self, name: &str, base: &Path) -> Result<PathBuf, RamdiskError> {
        let anchor = fs::read(&self.anchor).map_err(failed("read", &self.anchor))?;
        let mut from = File::open(base).map_err(failed("open", base))?;
        let about = from.metadata().map_err(failed("look at", base))?;
        let stamp = format!(
            "{} {} {} {} {}",
            base.display(),
            about.ino(),
            about.len(),
            about.mtime(),
            about.mtime_nsec()
        );
        let of = secret::digest(&[stamp.as_bytes(), b"\n", &anchor].concat());
        let of: String = of.iter().take(12).map(|octet| format!("{octet:02x}")).collect();
        let path = self.dir.join(format!("{name}-{of}"));
        if !path.exists() {
            let archive = archive(&anchor, &self.anchor)?;
            fs::create_dir_all(&self.dir).map_err(failed("make", &self.dir))?;
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let new = self.dir.join(format!("{name}.new-{}-{serial}", std::process::id()));
            write(&mut from, &archive, &new)
                .and_then(|()| fs::rename(&new, &path))
                .inspect_err(|_| drop(fs::remove_file(&new)))
                .map_err(failed("write", &path))?;
            self.clear(name, &path);
        }
        Ok(path)
    }

    /// Removes what was made before, but for what somebody may be about to open.
    fn clear(&self, name: &str, keep: &Path) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let of = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            let same = of.rsplit_once(['-', '.']).is_some_and(|(part, _)| part == name)
                || of.starts_with(&format!("{name}.new-"));
            let old = entry.metadata().and_then(|about| about.modified());
            let old = old.is_ok_and(|made| made.elapsed().is_ok_and(|since| since > LEAVE));
            if same && old && path != keep {
                let _ = fs::remove_file(&path); // the next one tries again
            }
        }
    }
}

/// What goes behind a ramdisk, of the file of what is trusted.
///
/// # Errors
/// Where that is none.
pub fn archive(anchor: &[u8], path: &Path) -> Result<Vec<u8>, RamdiskError> {
    let wrong = |cause| RamdiskError::Anchor { path: path.to_owned(), cause };
    Anchor::parse(anchor.get(..ANCHOR_MAX + 1).unwrap_or(anchor)).map_err(wrong)?;
    Ok(initramfs::site(&[(ANCHOR, anchor)])?)
}

/// Both, the second on the next multiple of four, as the kernel wants it.
fn write(base: &mut File, archive: &[u8], to: &Path) -> io::Result<()> {
    base.rewind()?;
    let mut file = File::create(to)?;
    let len = io::copy(&mut base.take(u64::from(u32::MAX)), &mut file)?;
    let gap = len.next_multiple_of(4) - len;
    file.write_all(&[0; 4][..gap as usize])?;
    file.write_all(archive)?;
    // A cut of power must leave the whole of it under its name, or nothing.
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use images::minisign::SecretKey;
    use images::trust::TrustedKey;

    use super::*;
    use crate::store::tests::Scratch;

    fn anchor(seed: u8) -> Vec<u8> {
        let key = SecretKey::of_seed(&[seed; 32]).public();
        let title = "this site".to_owned();
        Anchor::new(vec![TrustedKey { key, title, floors: [].into() }]).to_json()
    }

    #[test]
    fn a_ramdisk_is_served_with_what_the_site_trusts() {
        let scratch = Scratch::new();
        fs::create_dir_all(&scratch.0).unwrap();
        let ramdisks = Ramdisks { dir: scratch.0.join("ramdisk"), anchor: scratch.0.join("trust.json") };
        let base = scratch.0.join("initramfs.zst");
        let own = initramfs::write(&[initramfs::Entry::file("init", 0o755, b"agent".to_vec())]).unwrap();
        let mut packed = initramfs::compress(&own, 1).unwrap();
        fs::write(&base, &packed).unwrap();
        assert_eq!(ramdisks.with_site("initramfs", &base).unwrap(), base, "nothing to add");

        fs::write(&ramdisks.anchor, anchor(1)).unwrap();
        let first = ramdisks.with_site("initramfs", &base).unwrap();
        assert_eq!(ramdisks.with_site("initramfs", &base).unwrap(), first, "made once");
        let entries = initramfs::read(&fs::read(&first).unwrap(), 1 << 20).unwrap();
        let paths: Vec<_> = entries.iter().map(|entry| format!("/{}", entry.path)).collect();
        assert_eq!(paths, ["/init", "/etc", "/etc/billet", images::trust::ANCHOR_PATH]);
        assert_eq!(entries[3].kind, initramfs::Kind::File(anchor(1)));

        fs::write(&ramdisks.anchor, anchor(2)).unwrap();
        let second = ramdisks.with_site("initramfs", &base).unwrap();
        assert_ne!(second, first, "the keys changed");
        packed.extend_from_slice(b"\0\0\0");
        fs::write(&base, &packed).unwrap();
        let third = ramdisks.with_site("initramfs", &base).unwrap();
        assert_ne!(third, second, "the ramdisk changed");
        assert_eq!(initramfs::read(&fs::read(&third).unwrap(), 1 << 20).unwrap().len(), 4);
        assert!(first.exists(), "somebody may be about to open it");

        fs::write(&ramdisks.anchor, "nonsense").unwrap();
        assert_eq!(ramdisks.with_site("initramfs", &base).unwrap(), base);
        assert!(matches!(ramdisks.made("initramfs", &base), Err(RamdiskError::Anchor { .. })));
    }
}
