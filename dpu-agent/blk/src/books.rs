//! Files by which whoever started us learns what the disk did, and says how fast it may be: counters are written, limits are read, while
//! the disk is at work.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::counters::DiskCounters;
use protocol::dpu::IoLimits;

use crate::device::Device;
use crate::event::{Event, say};

/// Between two looks at the file of limits.
const LOOK: Duration = Duration::from_millis(500);
/// Between two times that counters are written.
const WRITE: Duration = Duration::from_secs(5);
/// Octets of a file of limits.
const LIMITS_MAX: u64 = 4 << 10;

/// The files, as far as they are wanted.
#[derive(Debug)]
pub struct Books {
    /// Counters are written here (`protocol::counters::DiskCounters` as JSON).
    pub counters: Option<PathBuf>,
    /// Limits are read here (`protocol::dpu::IoLimits` as JSON); where the file is not there, there are none.
    pub limits: Option<PathBuf>,
}

impl Books {
    /// Reads the limits, and keeps both files up in a thread of its own from then on.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn keep(self, device: Device) -> io::Result<()> {
        if self.counters.is_none() && self.limits.is_none() {
            return Ok(());
        }
        let mut trouble = String::new();
        self.take_limits(&device, &mut trouble);
        std::thread::Builder::new().name("books".to_owned()).spawn(move || self.run(&device, trouble))?;
        Ok(())
    }

    fn run(&self, device: &Device, mut trouble: String) {
        let (mut written, mut due) = (None, Instant::now());
        loop {
            self.take_limits(device, &mut trouble);
            let now = device.counters();
            if due <= Instant::now() && written != Some(now) {
                // Where it cannot be written the reader keeps what it has; the next time it may be.
                if self.counters.as_ref().is_none_or(|path| write(path, &now).is_ok()) {
                    written = Some(now);
                }
                due = Instant::now() + WRITE;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Limits that cannot be read stay as they are, and that is said once.
    fn take_limits(&self, device: &Device, trouble: &mut String) {
        let Some(path) = &self.limits else { return };
        match read(path) {
            Ok(limits) => {
                trouble.clear();
                if device.set_limits(limits) {
                    let IoLimits { iops, bytes_per_second } =
                        limits.unwrap_or(IoLimits { iops: None, bytes_per_second: None });
                    say(&Event::Limited { iops, bytes_per_second });
                }
            }
            Err(error) => {
                let reason = error.to_string();
                if *trouble != reason {
                    say(&Event::Failed { action: "read the limits", reason: reason.clone() });
                    *trouble = reason;
                }
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Option<IoLimits>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = Vec::new();
    file.take(LIMITS_MAX).read_to_end(&mut text)?;
    let limits: IoLimits = serde_json::from_slice(&text)?;
    if [limits.iops, limits.bytes_per_second].contains(&Some(0)) {
        return Err(io::Error::other("a limit of 0 would let nothing through"));
    }
    Ok(Some(limits))
}

/// Whole or not at all; not durable, as the counters begin anew with us.
fn write(path: &Path, counters: &DiskCounters) -> io::Result<()> {
    let next = PathBuf::from(format!("{}.next", path.display()));
    File::create(&next)?.write_all(&serde_json::to_vec(counters)?)?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::volume::FileVolume;

    #[test]
    fn limits_are_taken_and_counters_written_while_it_runs() {
        let dir = std::env::temp_dir().join(format!("billet-books-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (disk, limits, counters) = (dir.join("disk"), dir.join("limits"), dir.join("counters"));
        File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let device = Device::new(Arc::new(FileVolume::open(&disk, false).unwrap()), "");
        fs::write(&limits, r#"{"iops":7}"#).unwrap();
        let books = Books { counters: Some(counters.clone()), limits: Some(limits.clone()) };
        books.keep(device.clone()).unwrap();
        let until = |what: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !what() {
                assert!(begun.elapsed() < Duration::from_secs(20), "it did not come");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        assert!(device.is_limited(), "before the first request");
        fs::write(&limits, "nonsense").unwrap();
        std::thread::sleep(2 * LOOK);
        assert!(device.is_limited(), "what cannot be read changes nothing");
        fs::remove_file(&limits).unwrap();
        until(&|| !device.is_limited());
        let read = || serde_json::from_slice::<DiskCounters>(&fs::read(&counters).unwrap_or_default()).ok();
        until(&|| read() == Some(device.counters()));
        fs::remove_dir_all(&dir).unwrap();
    }
}
