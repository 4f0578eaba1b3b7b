//! The command line: each stage alone, for a sick machine, for tests and for benchmarks.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use images::Manifest;
use images::minisign::TEXT_MAX;
use protocol::fault::Fault;
use protocol::inventory::{Disk, DiskContent, Transport};
use protocol::job::{DeploySpec, DiskTarget, Job, Task};
use protocol::{DiskId, ImageId, JobId};
use ramdisk_agent_core::plan;

use crate::agent::{self, Leave, Settings};
use crate::device::Target;
use crate::feed::Feed;
use crate::inspect::disks::disks;
use crate::inspect::lldp::Neighbours;
use crate::inspect::tree::Tree;
use crate::inspect::{self, nics};
use crate::trust::{self, Trust};
use crate::{deploy, erase, fetch, verify};

/// Deploy agent of Billet: inspects a machine and writes verified OS images to its disks.
#[derive(Parser)]
#[command(name = "billet-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look at the hardware and print the inventory.
    Inspect {
        /// Look at a recorded tree of `/sys`, `/proc` and `/dev` instead of this machine.
        #[arg(long, default_value = "/")]
        root: PathBuf,
        /// Seconds to listen for neighbours (LLDP) on every port first.
        #[arg(long, default_value_t = 0)]
        listen: u64,
        /// Output format.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Say hello to a server and work for it, without being the machine's init.
    Run {
        /// Base URL of the provisioning listener, with an address and no name.
        #[arg(long)]
        server: String,
        /// One-time nonce.
        #[arg(long)]
        nonce: String,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Show what a deploy job would do, and do nothing.
    Plan(JobArgs),
    /// Carry out a deploy or clean job, or write an image to a given device or file.
    Write(WriteArgs),
    /// Compare a disk with the image of a job; exit code 1 where data chunks differ.
    Verify(JobArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// A few lines for people.
    Text,
    /// The inventory as the server gets it.
    Json,
}

/// Whose images are taken.
#[derive(Args)]
struct TrustArgs {
    /// File with the keys that are trusted (`trust/trust.json` in the server's state directory); without it, those of the ramdisk.
    #[arg(long, value_name = "FILE", conflicts_with = "accept_unsigned")]
    trust: Option<PathBuf>,
    /// Take the image although nobody vouches for it: whoever answers on the network decides what is written.
    #[arg(long)]
    accept_unsigned: bool,
}

impl TrustArgs {
    fn trust(&self) -> anyhow::Result<Trust> {
        let trust = match &self.trust {
            _ if self.accept_unsigned => Trust::Anybody,
            Some(path) => Trust::of_file(path).map_err(anyhow::Error::msg)?,
            None => Trust::of_ramdisk(),
        };
        eprintln!("billet: {}", trust.describe());
        Ok(trust)
    }
}

#[derive(Args)]
struct JobArgs {
    /// Job as JSON (`-` reads standard input).
    #[arg(long)]
    job: PathBuf,
    /// Base URL of the provisioning listener, with an address and no name.
    #[arg(long)]
    server: String,
    #[command(flatten)]
    trust: TrustArgs,
}

#[derive(Args)]
struct WriteArgs {
    /// Job as JSON (`-` reads standard input).
    #[arg(long, conflicts_with_all = ["image", "target"], required_unless_present = "image")]
    job: Option<PathBuf>,
    /// Instead of a job: manifest of the image, a file or a URL.
    #[arg(long, requires = "target", requires = "yes_erase")]
    image: Option<String>,
    /// Signature of that manifest, a file or a URL; without it, the file of the same name with `.minisig` behind it, or beside the URL.
    #[arg(long, requires = "image")]
    signature: Option<String>,
    /// Device or plain file to write the image to.
    #[arg(long)]
    target: Option<PathBuf>,
    /// Serial number or path of the target, to confirm that it is erased.
    #[arg(long)]
    yes_erase: Option<String>,
    /// NoCloud files as JSON (`meta_data`, `user_data`, `vendor_data`, `network_config`) for a config partition.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Leave the last partition as large as it is in the image.
    #[arg(long)]
    no_grow: bool,
    /// Base URL of the provisioning listener, with an address and no name.
    #[arg(long)]
    server: String,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs the command that was given.
///
/// # Errors
/// Where arguments or files are wrong, or the stage failed.
pub fn run() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Inspect { root, listen, output } => show_inventory(&root, listen, output),
        Command::Run { server, nonce, trust } => Ok(work(server, nonce, trust.trust()?)),
        Command::Plan(args) => show_plan(&args),
        Command::Write(args) => write(&args),
        Command::Verify(args) => compare(&args),
    }
}

fn show_inventory(root: &Path, listen: u64, output: Output) -> anyhow::Result<ExitCode> {
    let neighbours = Arc::new(Neighbours::default());
    if listen > 0 {
        nics::physical(&Tree::new(root)).iter().for_each(|port| neighbours.listen(port));
        std::thread::sleep(Duration::from_secs(listen));
    }
    let inventory = inspect::collect(root, &neighbours);
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&inventory)?),
        Output::Text => print!("{}", inspect::text(&inventory)),
    }
    Ok(ExitCode::SUCCESS)
}

fn work(server: String, nonce: String, trust: Trust) -> ExitCode {
    let neighbours = Arc::new(Neighbours::default());
    let settings = Settings {
        server,
        nonce,
        owns_machine: false,
        dev: PathBuf::from("/dev"),
        trust,
        neighbours: neighbours.clone(),
        current: Arc::default(),
    };
    let left = agent::run(&settings, &|| inspect::collect(Path::new("/"), &neighbours));
    eprintln!("billet: the server says: {left:?}");
    if left == Leave::Lost { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn show_plan(args: &JobArgs) -> anyhow::Result<ExitCode> {
    let job = read_job(&args.job)?;
    let Task::Deploy(spec) = &job.task else { bail!("only a deploy job has a plan") };
    let feed = Feed::new(job.id);
    let manifest = deploy::manifest(spec, &args.server, &args.trust.trust()?, &feed)?;
    let plan = plan::deploy(spec, &manifest, &local_disks())?;
    println!("{}", serde_json::to_string_pretty(&plan)?);
    Ok(ExitCode::SUCCESS)
}

fn write(args: &WriteArgs) -> anyhow::Result<ExitCode> {
    let dev = Path::new("/dev");
    let (feed, result) = match &args.job {
        Some(path) => {
            let job = read_job(path)?;
            let (feed, trust) = (Feed::new(job.id), args.trust.trust()?);
            let result = watch(&feed, || match &job.task {
                Task::Deploy(spec) => deploy::deploy(spec, &local_disks(), dev, &args.server, &trust, &feed),
                Task::Clean { disks, erase: None } => deploy::clean(disks, &local_disks(), dev, &feed),
                Task::Clean { disks, erase: Some(order) } => {
                    erase::erase(disks, order, &local_disks(), dev, &feed)
                }
                Task::Inspect => Ok(protocol::report::Summary::default()),
            });
            (feed, result)
        }
        None => write_to(args)?,
    };
    match result {
        Ok(summary) => {
            feed.finished(summary);
            println!("{}", serde_json::to_string(&summary)?);
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            feed.failed(fault.clone());
            println!("{}", serde_json::to_string(&fault)?);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// `write --image … --target …`: the whole write path without a job.
fn write_to(args: &WriteArgs) -> anyhow::Result<(Feed, Result<protocol::report::Summary, Fault>)> {
    let (Some(image), Some(path), Some(confirm)) = (&args.image, &args.target, &args.yes_erase) else {
        bail!("--image needs --target and --yes-erase");
    };
    let feed = Feed::new(JobId(uuid::Uuid::nil()));
    let manifest = match read_manifest(image, args)? {
        Ok(manifest) => manifest,
        Err(fault) => return Ok((feed, Err(fault))),
    };
    let disk = disk_at(path)?;
    let named = [Some(path.to_string_lossy().into_owned()), disk.serial.clone()];
    if !named.contains(&Some(confirm.clone())) {
        bail!("--yes-erase `{confirm}` is neither the path nor the serial number of {}", path.display());
    }
    let config = match &args.config {
        Some(file) => Some(serde_json::from_slice(&std::fs::read(file)?).context("read --config")?),
        None => None,
    };
    let id = disk.id.clone().context("the target has no name")?;
    let spec = DeploySpec {
        image: manifest.id(),
        image_name: format!("{} {}", manifest.name, manifest.version),
        target: DiskTarget { id, size_bytes: disk.size_bytes },
        config,
        grow_root: !args.no_grow,
        boot_entry: None,
    };
    let result = plan::deploy(&spec, &manifest, std::slice::from_ref(&disk)).and_then(|plan| {
        watch(&feed, || deploy::write_plan(&spec, &manifest, &plan, path, &args.server, &feed))
    });
    Ok((feed, result))
}

fn compare(args: &JobArgs) -> anyhow::Result<ExitCode> {
    let job = read_job(&args.job)?;
    let Task::Deploy(spec) = &job.task else { bail!("only a deploy job names an image") };
    let feed = Feed::new(job.id);
    let manifest = deploy::manifest(spec, &args.server, &args.trust.trust()?, &feed)?;
    let disks = local_disks();
    let disk = plan::find(&spec.target, &disks)?;
    let target = Target::open_read(&Path::new("/dev").join(&disk.name))?;
    let (equal, other) = watch(&feed, || verify::compare(&target, &manifest, &feed))?;
    println!("{}", serde_json::json!({ "chunks_equal": equal, "chunks_different": other }));
    Ok(if other.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `work` while its progress is sampled and shown on the console, once a second.
pub fn watch<T>(feed: &Feed, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ticker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_secs(1));
                let p = feed.tick();
                if p.bytes_total > 0 && !done.load(Ordering::Relaxed) {
                    let percent = p.bytes_done * 100 / p.bytes_total;
                    eprintln!("billet: {percent:3} %, {} MB/s", p.bytes_per_second / 1_000_000);
                }
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        ticker.thread().unpark();
        result
    })
}

fn local_disks() -> Vec<Disk> {
    let mut warnings = Vec::new();
    let found = disks(&Tree::new(Path::new("/")), &mut warnings);
    warnings.iter().for_each(|w| eprintln!("billet: {w}"));
    found
}

/// A disk made up from a device or file, known by its path.
fn disk_at(path: &Path) -> anyhow::Result<Disk> {
    let target = Target::open_read(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let known = local_disks().into_iter().find(|d| Path::new("/dev").join(&d.name) == *path);
    Ok(known.unwrap_or_else(|| Disk {
        id: DiskId::of(None, None, Some(&path.to_string_lossy())),
        name,
        bus_path: None,
        model: None,
        serial: None,
        wwn: None,
        firmware: None,
        size_bytes: target.size(),
        logical_sector: target.sector(),
        physical_sector: target.sector(),
        rotational: false,
        transport: Transport::Other,
        removable: false,
        read_only: target.is_read_only(),
        content: DiskContent::Unknown,
    }))
}

fn read_job(path: &Path) -> anyhow::Result<Job> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
    };
    serde_json::from_str(&text).with_context(|| format!("{} is not a job", path.display()))
}

/// The manifest that was given, if it is taken.
fn read_manifest(from: &str, args: &WriteArgs) -> anyhow::Result<Result<Manifest, Fault>> {
    let trust = args.trust.trust()?;
    if let Err(fault) = trust.check() {
        return Ok(Err(fault));
    }
    let bytes = read_any(from, images::manifest::MANIFEST_MAX)?;
    let manifest = match &trust {
        Trust::Keys(anchor) => {
            let beside = match from.strip_suffix("/manifest") {
                Some(base) if from.starts_with("http://") => format!("{base}/signature"),
                _ => format!("{from}.minisig"),
            };
            let signature = read_any(args.signature.as_ref().unwrap_or(&beside), TEXT_MAX);
            let signature = signature.ok().map(|octets| String::from_utf8_lossy(&octets).into_owned());
            let id = ImageId(images::chunk::sha256(&bytes));
            match anchor.judge(id, &bytes, signature.as_deref()) {
                Ok(vouched) => vouched.manifest,
                Err(error) => return Ok(Err(trust::refused(id, &error))),
            }
        }
        Trust::Nobody(_) | Trust::Anybody => Manifest::parse(&bytes)?,
    };
    eprintln!("billet: image {} {} ({})", manifest.name, manifest.version, manifest.id());
    Ok(Ok(manifest))
}

/// A file, or what lies at a URL.
fn read_any(from: &str, max: usize) -> anyhow::Result<Vec<u8>> {
    if !from.starts_with("http://") {
        return std::fs::read(from).with_context(|| format!("read {from}"));
    }
    let mut bytes = Vec::new();
    protocol_http::get(&fetch::http_agent(), from, max, &mut bytes)?;
    Ok(bytes)
}
