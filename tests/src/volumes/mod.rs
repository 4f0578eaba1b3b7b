//! Backends of volumes with their real services, and a reader that is not ours (QEMU's block layer: libiscsi, librbd) which has
//! nothing but what a DPU is told.

pub mod ceph;
pub mod failing;
pub mod target;
mod written;

use std::fs::{self, File};
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use images::{Architecture, IngestOptions, Source, Store};
use protocol::agent::Password;
use protocol::dpu::Backend as Told;
use protocol::{DpuId, ImageId, VolumeId};
use uuid::Uuid;
use volume::Grantee;

use crate::rack::{Namespace, Process, target};

pub use written::{take_config_guid, written_by_the_server};

/// Where services of a namespace are.
pub const ADDRESS: &str = "10.77.0.1";
const MIB: u64 = 1 << 20;
/// A program of QEMU that has no answer after this is stuck, which some tests want.
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace with a directory, where a backend and its service are.
pub struct Place {
    // Fields are dropped in this order: the runtime's tasks, then processes, then the namespace with what is left in it.
    runtime: Option<tokio::runtime::Runtime>,
    /// Processes that the test began.
    pub processes: Vec<Process>,
    /// Where they are.
    pub namespace: Namespace,
    dir: PathBuf,
    passed: bool,
}

impl Place {
    /// A new one.
    ///
    /// # Errors
    /// Where the system refuses (root is needed).
    pub fn new(name: &str) -> Result<Self> {
        let dir = target().join("rack").join(format!("vol-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let namespace = Namespace::new()?;
        namespace.ip(&["addr", "add", &format!("{ADDRESS}/24"), "dev", "lo"])?;
        let handle = Arc::new(namespace.clone_handle()?);
        // Everything that the backend does, and every process that it starts, is in the namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || handle.enter().expect("the namespace is there"))
            .build()?;
        Ok(Self { runtime: Some(runtime), processes: Vec::new(), namespace, dir, passed: false })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Does something in the namespace.
    ///
    /// # Errors
    /// What it says.
    ///
    /// # Panics
    /// Where it does.
    pub fn run<T: Send + 'static>(
        &self,
        what: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let runtime = self.runtime.as_ref().context("the place is gone")?;
        runtime.block_on(async { tokio::spawn(what).await })?
    }

    /// Its files are not needed.
    pub fn passed(&mut self) {
        self.passed = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
        if self.passed && !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        } else {
            eprintln!("files of the volumes are in {}", self.dir.display());
        }
    }
}

/// A disk that somebody was let in to.
#[derive(Clone)]
pub struct Disk {
    namespace: String,
    objects: Vec<String>,
    options: String,
}

impl Disk {
    /// What a DPU that was told this opens.
    ///
    /// # Errors
    /// Where this kind cannot be opened here.
    pub fn of(namespace: &Namespace, told: &Told) -> Result<Self> {
        let mut objects = Vec::new();
        let options = match told {
            Told::File { path } => format!("driver=file,filename={path}"),
            Told::Iscsi { portal, target, lun, initiator, chap } => {
                let mut text =
                    format!("driver=iscsi,transport=tcp,portal={portal},target={target},lun={lun}");
                if let Some(name) = initiator {
                    text += &format!(",initiator-name={name}");
                }
                if let Some(chap) = chap {
                    text += &format!(",user={},password-secret=s0", chap.user);
                    objects = vec!["--object".into(), format!("secret,id=s0,data={}", chap.password.0)];
                }
                text
            }
            Told::Rbd { monitors, pool, image, user, key } => {
                objects = vec!["--object".into(), format!("secret,id=k0,data={},format=base64", key.0)];
                let mut text = format!("driver=rbd,pool={pool},image={image},user={user},key-secret=k0");
                for (index, monitor) in monitors.iter().enumerate() {
                    let (host, port) = monitor.rsplit_once(':').context("a monitor without a port")?;
                    text += &format!(",server.{index}.host={host},server.{index}.port={port}");
                }
                text
            }
            other => bail!("{other:?} is not read here"),
        };
        Ok(Self { namespace: namespace.name().to_owned(), objects, options })
    }

    /// What is encrypted in it, by who has this key.
    ///
    /// # Errors
    /// Where the key cannot be given to QEMU.
    pub fn opened(&self, key: &Password, dir: &Path) -> Result<Self> {
        let file = dir.join(format!("{}.key", Uuid::new_v4().simple()));
        fs::write(&file, &key.0)?;
        let mut objects = self.objects.clone();
        objects.extend(["--object".to_owned(), format!("secret,id=l0,file={}", file.display())]);
        let options = format!("driver=luks,key-secret=l0,{}", nested(&self.options));
        Ok(Self { namespace: self.namespace.clone(), objects, options })
    }

    /// Its bytes.
    ///
    /// # Errors
    /// Where it cannot be opened or read.
    pub fn bytes(&self, dir: &Path) -> Result<Vec<u8>> {
        let out = dir.join(format!("{}.read", Uuid::new_v4()));
        let path = out.to_str().context("a path that is not UTF-8")?;
        let words = ["convert", "--image-opts", "-O", "raw", &self.options, path];
        self.run("qemu-img", &words)?;
        let bytes = fs::read(&out)?;
        fs::remove_file(&out)?;
        Ok(bytes)
    }

    /// Does what `qemu-io` is told, such as `write -P 7 0 1M`.
    ///
    /// # Errors
    /// Where it does not work, or a pattern is not there.
    pub fn io(&self, commands: &[&str]) -> Result<String> {
        let mut words = vec!["--image-opts".to_owned()];
        words.extend(commands.iter().flat_map(|c| ["-c".to_owned(), (*c).to_owned()]));
        words.push(format!("driver=raw,discard=unmap,{}", nested(&self.options)));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let said = self.run("qemu-io", &words)?;
        ensure!(!said.contains("failed"), "qemu-io {commands:?}: {said}");
        Ok(said)
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn size(&self) -> Result<u64> {
        let said = self.run("qemu-img", &["info", "--output=json", "--image-opts", &self.options])?;
        let seen: serde_json::Value = serde_json::from_str(&said)?;
        seen["virtual-size"].as_u64().context("no size")
    }

    /// A process that keeps it open and serves it by NBD on a socket, as an exporter does.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn keep_open(&self, dir: &Path) -> Result<Kept> {
        let socket = dir.join(format!("{}.nbd", Uuid::new_v4().simple()));
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "qemu-storage-daemon"]).args(&self.objects);
        command.args(["--blockdev", &format!("{},node-name=p0", self.options)]);
        command.args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())]);
        command.args(["--export", "type=nbd,id=e0,node-name=p0,name=v,writable=on"]);
        let mut process = Process::start("qemu-storage-daemon", command, &socket.with_extension("log"))?;
        let end = Instant::now() + PATIENCE;
        let url = format!("nbd+unix:///v?socket={}", socket.display());
        while run(std::process::Command::new("qemu-img").args(["info", &url]), PATIENCE).is_err() {
            let log = fs::read_to_string(socket.with_extension("log")).unwrap_or_default();
            ensure!(process.running() && Instant::now() < end, "the storage daemon is not up: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Kept { process, url })
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        // `--object` comes before what refers to it, and behind the verb of qemu-img.
        let (verb, rest) = if program == "qemu-img" { words.split_at(1) } else { words.split_at(0) };
        command.args(verb).args(&self.objects).args(rest);
        run(&mut command, PATIENCE)
    }
}

/// Options of a node as those of another's `file`.
fn nested(options: &str) -> String {
    options.split(',').map(|option| format!("file.{option}")).collect::<Vec<_>>().join(",")
}

/// A disk that a process has open.
pub struct Kept {
    /// The process.
    pub process: Process,
    url: String,
}

impl Kept {
    /// Does what `qemu-io` is told; gives up after `patience`.
    ///
    /// # Errors
    /// Where it does not work within it.
    pub fn io(&self, commands: &[&str], patience: Duration) -> Result<String> {
        let mut command = std::process::Command::new("qemu-io");
        command.args(["-f", "raw"]).args(commands.iter().flat_map(|c| ["-c", *c])).arg(&self.url);
        let said = run(&mut command, patience)?;
        ensure!(!said.contains("failed"), "qemu-io {commands:?}: {said}");
        Ok(said)
    }
}

/// Runs a program to its end, or ends it.
fn run(command: &mut std::process::Command, patience: Duration) -> Result<String> {
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let end = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("{:?} had no answer within {patience:?}", command.get_program());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let out = child.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{:?} {}: {said}", command.get_program(), out.status);
    Ok(said)
}

/// A DPU that may be let in.
pub fn grantee(name: &str) -> Grantee {
    Grantee { dpu: DpuId(Uuid::new_v4()), initiator: format!("iqn.2026-11.org.billet.dpu:{name}") }
}

/// A volume that nobody has thought of.
pub fn new_volume() -> VolumeId {
    VolumeId(Uuid::new_v4())
}

/// An image of 24 MiB with a GPT, one file system's worth of noise, and holes.
pub struct SomeImage {
    /// Where its chunks are.
    pub store: Store,
    /// The image.
    pub id: ImageId,
    /// Its raw bytes.
    pub raw: Vec<u8>,
}

/// Makes it in `dir`.
///
/// # Errors
/// Where `sgdisk` (package gdisk) fails.
pub fn some_image(dir: &Path) -> Result<SomeImage> {
    let path = dir.join("image.raw");
    let file = File::options().create(true).write(true).truncate(true).open(&path)?;
    file.set_len(24 * MIB)?;
    let name = path.to_str().context("a path that is not UTF-8")?;
    let new = ["-n", "1:2048:+2M", "-t", "1:ef00", "-n", "2:0:0", "-c", "2:root", name];
    run(std::process::Command::new("sgdisk").args(new), PATIENCE)?;
    let mut state = 1_u64;
    let mut noise = vec![0; 9 * MIB as usize];
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    file.write_all_at(&noise, 3 * MIB)?;
    let store = Store::open(dir.join("store"))?;
    let options = IngestOptions::new("some", "1", Architecture::X86_64);
    let source = Source::File(File::open(&path)?);
    let go_on = &mut |_| std::ops::ControlFlow::Continue(());
    let manifest = images::ingest_signed(&store, source, options, go_on, &crate::trust::signed)?;
    Ok(SomeImage { store, id: manifest.id(), raw: fs::read(&path)? })
}
