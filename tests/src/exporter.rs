//! A running `billet-blk`, to be killed and started again, and guests that have its volume as their disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use images::initramfs::{self, Entry};
use serde_json::Value;

use crate::rack::{Firmware, MachineSpec, Namespace, Process, artifact};

/// Time for the exporter to open its volume and its socket.
const START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// Modules of a guest that only has virtio disks and NICs, in the order in which they are loaded.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
];

/// An exporter of one volume.
#[derive(Debug)]
pub struct Exporter {
    process: Option<Process>,
    arguments: Vec<String>,
    namespace: String,
    socket: PathBuf,
    log: PathBuf,
}

impl Exporter {
    /// Starts it in `namespace` with these arguments beside the socket; its files are in `dir`.
    ///
    /// # Errors
    /// Where it was not built or does not come up.
    pub fn start(namespace: &Namespace, dir: &Path, arguments: &[&str]) -> Result<Self> {
        let mut exporter = Self {
            process: None,
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            namespace: namespace.name().to_owned(),
            socket: dir.join("blk.sock"),
            log: dir.join("blk.log"),
        };
        exporter.start_again()?;
        Ok(exporter)
    }

    /// Starts it after a kill, with the same arguments.
    ///
    /// # Errors
    /// As [`Exporter::start`].
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the exporter runs already");
        let before = self.count("serving")?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(built("billet-blk")?);
        command.arg("--socket").arg(&self.socket).args(&self.arguments);
        self.process = Some(Process::start("billet-blk", command, &self.log)?);
        self.wait_count("serving", before + 1, START)
    }

    /// Its arguments from the next start on.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    }

    /// Ends it at once, as `kill -9` does.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the exporter does not run")?.kill()
    }

    /// All events so far, over all its lives.
    ///
    /// # Errors
    /// Where it said something that is not one.
    pub fn events(&self) -> Result<Vec<Value>> {
        let Ok(text) = std::fs::read_to_string(&self.log) else { return Ok(Vec::new()) };
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|l| serde_json::from_str(l).with_context(|| format!("{l:?}"))).collect()
    }

    /// The last event of this name.
    ///
    /// # Errors
    /// Where there was none.
    pub fn last(&self, name: &str) -> Result<Value> {
        let of_name = self.events()?.into_iter().rfind(|e| e["event"] == name);
        of_name.with_context(|| format!("no event {name} in {}", self.log.display()))
    }

    /// How often there was an event of this name.
    ///
    /// # Errors
    /// As [`Exporter::events`].
    pub fn count(&self, name: &str) -> Result<usize> {
        Ok(self.events()?.iter().filter(|e| e["event"] == name).count())
    }

    /// Waits until there were `count` events of this name.
    ///
    /// # Errors
    /// Where there are fewer after `timeout`, or the exporter ends.
    pub fn wait_count(&mut self, name: &str, count: usize, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        while self.count(name)? < count {
            let alive = self.process.as_mut().is_some_and(Process::running);
            if !alive || Instant::now() > end {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("no event {name} within {timeout:?} (exporter alive: {alive}); it said:\n{text}");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// A machine of 512 MiB without NICs whose disk is the volume, which it boots from.
    ///
    /// # Errors
    /// Where the socket's path is not UTF-8.
    pub fn machine(&self, name: &str) -> Result<MachineSpec> {
        let socket = self.socket.to_str().context("a path that is not UTF-8")?;
        let chardev = format!("socket,id=vc0,path={socket},reconnect=1");
        Ok(MachineSpec::new(name, Firmware::Bios).nics(Vec::new()).memory(512).cpus(2).extra(&[
            "-object",
            "memory-backend-memfd,id=m0,size=512M,share=on",
            "-machine",
            "memory-backend=m0",
            "-chardev",
            &chardev,
            "-device",
            "vhost-user-blk-pci,chardev=vc0,bootindex=1",
        ]))
    }

    /// A machine as [`Exporter::machine`] that does not boot from the volume but runs `script` (busybox) with the volume
    /// as `/dev/vda`, then switches itself off.
    ///
    /// # Errors
    /// Where the ramdisk was not built, or busybox is missing.
    pub fn scripted(&self, name: &str, dir: &Path, script: &str) -> Result<MachineSpec> {
        with_script(self.machine(name)?, &dir.join(format!("{name}.initrd")), script)
    }
}

/// A machine that runs `script` as soon as it has a `/dev/vda`, then switches itself off. Its ramdisk is written to `initrd`.
///
/// # Errors
/// As [`Exporter::scripted`].
pub fn with_script(machine: MachineSpec, initrd: &Path, script: &str) -> Result<MachineSpec> {
    with_files(machine, initrd, script, &[])
}

/// As [`with_script`], with these files of this machine in their places, programs with what they are linked to.
///
/// # Errors
/// As [`with_script`], and where one is missing.
pub fn with_files(machine: MachineSpec, initrd: &Path, script: &str, files: &[&str]) -> Result<MachineSpec> {
    let kernel = artifact("ramdisk/vmlinuz")?;
    std::fs::write(initrd, script_ramdisk(script, files)?)?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    Ok(machine.extra(&[
        "-kernel",
        &text(&kernel)?,
        "-initrd",
        &text(initrd)?,
        "-append",
        "console=ttyS0 quiet panic=1",
    ]))
}

/// The deploy ramdisk's modules with a busybox and a script in the place of the agent.
fn script_ramdisk(script: &str, files: &[&str]) -> Result<Vec<u8>> {
    let base = std::fs::read(artifact("ramdisk/initramfs.zst")?)?;
    let busybox = std::fs::read("/bin/busybox").context("reading busybox (package busybox-static)")?;
    let load = MODULES.join(" ");
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
         mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev\n\
         for m in {load}; do insmod $(find /lib/modules -name $m.ko); done\n\
         while ! [ -b /dev/vda ]; do sleep 0.1; done\n{script}\npoweroff -f\n"
    );
    let directory = |path: &str| Entry::directory(path, 0o755);
    let mut entries = vec![
        directory("bin"),
        directory("proc"),
        directory("sys"),
        Entry::file("bin/busybox", 0o755, busybox),
        Entry::file("init", 0o755, init),
    ];
    let mut made = BTreeSet::from(["bin".to_owned()]);
    for file in files {
        let bytes = std::fs::read(file).with_context(|| format!("reading {file}"))?;
        let path = file.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            if made.insert(path[..at].to_owned()) {
                entries.push(directory(&path[..at]));
            }
        }
        entries.push(Entry::file(path, 0o755, bytes));
    }
    Ok(initramfs::concatenate(&[&base, &initramfs::write(&entries)?]))
}

/// A program of the build that this test, or program, belongs to.
///
/// # Errors
/// Where it was not built.
pub fn built(program: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // A test is in a directory of its own beside the programs.
    let mut places = own.ancestors().skip(1).take(2).map(|place| place.join(program));
    let (beside, above) = (places.next().context("a program in no directory")?, places.next());
    let path = above.filter(|above| above.exists()).unwrap_or(beside);
    ensure!(path.exists(), "{} is missing: run `cargo build --workspace --bins`", path.display());
    Ok(path)
}

/// Bytes that do not compress, the same at each run: xorshift64 (Marsaglia 2003).
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}
