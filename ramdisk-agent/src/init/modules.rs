//! Loading drivers: every device that the kernel found says which module it wants (`modalias`); loading one makes
//! new devices appear, so the tree is walked until nothing new is wanted.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use ramdisk_agent_core::modules::Modules;

/// Wanted by no device, but by us: packet sockets for DHCP, the firmware's variables.
const FIRST: &[&str] = &["af_packet", "efivarfs"];
/// The device node of the management controller, wanted where its driver was loaded.
const ON_TOP: (&str, &str) = ("/ipmi_si.ko", "ipmi_devintf");
/// Rounds without anything new, [`ROUND`] apart, after which the machine counts as settled.
const QUIET_ROUNDS: u32 = 3;
const ROUND: Duration = Duration::from_millis(50);
/// Deepest folder of `/sys/devices` that is looked into, and most entries in all.
const DEPTH_MAX: usize = 24;
const ENTRIES_MAX: usize = 200_000;
/// A module whose parameter matters: without it disks appear some time after their driver was loaded.
const SCSI_SYNC: (&str, &str) = ("scsi_mod", "scan=sync");

/// The thread that loads drivers.
pub struct Loader {
    settled: Mutex<Receiver<()>>,
}

impl Loader {
    /// Starts loading.
    pub fn start() -> Self {
        let (tell, settled) = channel();
        let mut state = State::read();
        for module in FIRST {
            state.load(module);
        }
        super::mount_efivars();
        std::thread::spawn(move || {
            state.settle();
            if state.loaded.iter().any(|f| f.contains(ON_TOP.0)) {
                state.load(ON_TOP.1);
            }
            eprintln!("billet: {} modules loaded", state.loaded.len());
            drop(tell);
        });
        Self { settled: Mutex::new(settled) }
    }

    /// Waits until the drivers are there, at most `longest`.
    pub fn wait(&self, longest: Duration) {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.recv_timeout(longest) == Err(RecvTimeoutError::Timeout) {
            eprintln!("billet: some drivers are still probing; the inventory may lack their devices");
        }
    }
}

struct State {
    folder: PathBuf,
    modules: Modules,
    asked: BTreeSet<String>,
    loaded: BTreeSet<String>,
}

impl State {
    fn read() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let folder = Path::new("/lib/modules").join(release.trim());
        let read = |name: &str| {
            std::fs::read_to_string(folder.join(name))
                .inspect_err(|e| eprintln!("billet: {}: {e}", folder.join(name).display()))
                .unwrap_or_default()
        };
        let modules = Modules::parse(&read("modules.dep"), &read("modules.alias"));
        Self { folder, modules, asked: BTreeSet::new(), loaded: BTreeSet::new() }
    }

    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < QUIET_ROUNDS {
            quiet = if self.round() { 0 } else { quiet + 1 };
            std::thread::sleep(ROUND);
        }
    }

    /// One walk; true where something new was wanted.
    fn round(&mut self) -> bool {
        let mut found = BTreeSet::new();
        let mut budget = ENTRIES_MAX;
        walk(Path::new("/sys/devices"), 0, &mut budget, &mut found);
        let fresh: Vec<_> = found.into_iter().filter(|m| self.asked.insert(m.clone())).collect();
        let mut wanted: Vec<String> =
            fresh.iter().flat_map(|m| self.modules.matching(m)).map(str::to_owned).collect();
        // The network is what everything waits for: its drivers and the virtio transport go first.
        wanted.sort_by_key(|m| {
            let last = self.modules.load_order(m).last().map_or("", |f| f).to_owned();
            (!last.contains("/virtio"), !last.contains("/drivers/net/"), last)
        });
        wanted.dedup();
        for module in &wanted {
            self.load(module);
        }
        !fresh.is_empty()
    }

    /// Loads a module and what it needs; one that is built in or not packed is left out in silence.
    fn load(&mut self, module: &str) {
        let files: Vec<String> = self.modules.load_order(module).into_iter().map(str::to_owned).collect();
        for file in files {
            if self.loaded.insert(file.clone())
                && let Err(e) = insert(&self.folder.join(&file))
            {
                eprintln!("billet: module {file}: {e}");
            }
        }
    }
}

fn insert(path: &Path) -> Result<(), nix::Error> {
    let file = File::open(path).map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let compressed = !name.ends_with(".ko");
    // Compressed modules need a kernel that unpacks them itself (5.17, CONFIG_MODULE_DECOMPRESS).
    let flags = if compressed { ModuleInitFlags::from_bits_retain(4) } else { ModuleInitFlags::empty() };
    let parameters = if name.starts_with(SCSI_SYNC.0) { SCSI_SYNC.1 } else { "" };
    match finit_module(&file, &CString::new(parameters).unwrap_or_default(), flags) {
        // ENODEV: the driver looked and its device is not there.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        Err(e) => Err(e),
    }
}

fn walk(folder: &Path, depth: usize, budget: &mut usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Some(left) = budget.checked_sub(1) else { return };
        *budget = left;
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(&entry.path(), depth + 1, budget, found);
        } else if entry.file_name() == "modalias"
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            found.insert(text.trim().to_owned());
        }
    }
}
