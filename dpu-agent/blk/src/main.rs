//! `billet-blk`: serves one volume as a virtio-blk disk on a vhost-user socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser};
use dpu_agent_blk::books::Books;
use dpu_agent_blk::daemon::Daemon;
use dpu_agent_blk::device::Device;
use dpu_agent_blk::event::{Event, say};
use dpu_agent_blk::fill::{Filling, RemoteMedium};
use dpu_agent_blk::layer::plan::Pace;
use dpu_agent_blk::open::Instant;
use dpu_agent_blk::remote::Remote;
use dpu_agent_blk::serve;
use dpu_agent_blk::source::{Source, Whose};
use dpu_agent_blk::volume::{FileVolume, Volume};
use imaging::{FileMedium, Medium};
use protocol::ImageId;

/// Serves a volume as a virtio-blk disk by vhost-user, to QEMU or whoever speaks it. Says what happens as JSON lines on
/// standard output. May be killed and started again at any moment, with the host running.
#[derive(Debug, Parser)]
#[command(name = "billet-blk", version)]
struct Arguments {
    /// Socket to listen on.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Serial number that the guest sees: up to 20 characters.
    #[arg(long, default_value = "", value_parser = serial)]
    serial: String,
    #[command(flatten)]
    what: What,
    /// Refuse writes. Of files and block devices only.
    #[arg(long, conflicts_with = "image")]
    read_only: bool,
    /// Image store of the image: base URL of Billet's provisioning listener (`http://10.77.0.1:8080`), or the directory of
    /// a store. Needed until all of the image was fetched.
    #[arg(long, value_name = "URL|DIR", requires = "image", default_value = "")]
    store: String,
    /// File with the keys of those whose images are taken (`trust/trust.json` in the server's state directory, `trust.json` in
    /// `billet-dpu`'s). Read when an image is begun; without it none is.
    #[arg(long, value_name = "FILE", conflicts_with = "accept_unsigned")]
    trust: Option<PathBuf>,
    /// Take images although nobody vouches for them: whoever answers on the network decides what the host runs.
    #[arg(long)]
    accept_unsigned: bool,
    /// Directory for what is fetched and written.
    #[arg(long, value_name = "DIR", requires = "image")]
    layer: Option<PathBuf>,
    /// Bytes of the volume, the same at each start; the image's smallest disk unless given.
    #[arg(long, value_name = "BYTES", requires = "image")]
    size: Option<u64>,
    /// File (JSON) with what the OS is told by a config partition, which is added before a host has the volume for the first time.
    /// Read then and never again.
    #[arg(long, value_name = "FILE", requires = "image")]
    config: Option<PathBuf>,
    /// Grow the image's last partition to the end of the volume, then too.
    #[arg(long, requires = "image")]
    grow_root: bool,
    /// Bytes per second (of the raw disk) at which the rest of the image is fetched behind the running OS; 0 is without
    /// limit. What the OS waits for is not limited.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20, requires = "image")]
    rate: u64,
    /// File (JSON) with the image that is written into the volume before it is served, and what its OS is told. Read until it was done.
    #[arg(long, value_name = "FILE", requires = "filled", conflicts_with_all = ["image", "read_only"])]
    fill: Option<PathBuf>,
    /// File that is made once that was done: where it is there, the volume is served as it is.
    #[arg(long, value_name = "FILE", requires = "fill")]
    filled: Option<PathBuf>,
    /// All that is written is encrypted behind the daemon, with a key that no earlier owner had: behind the image nothing is zeroed.
    #[arg(long, requires = "fill")]
    encrypted: bool,
    /// Seconds that a request may wait for the image store or the backend before it becomes an I/O error.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
    /// File for counters of requests, bytes and errors, as JSON; written again every five seconds where they changed.
    #[arg(long, value_name = "FILE")]
    counters: Option<PathBuf>,
    /// File (JSON) with most requests (`iops`) and bytes (`bytes_per_second`) per second; what is above waits. It is read again
    /// when it changes; where it is not there, there are no limits.
    #[arg(long, value_name = "FILE")]
    limits: Option<PathBuf>,
    /// Socket at which the daemon of `--daemon` serves its export `disk`. Beside it, with `.size` appended, its size is kept.
    #[arg(long, value_name = "PATH", requires = "daemon")]
    link: Option<PathBuf>,
    /// Arguments of the daemon.
    #[arg(last = true, requires = "daemon")]
    daemon_arguments: Vec<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// File or block device to serve as it is.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Id of the image of an instant volume.
    #[arg(long, value_name = "ID", requires = "layer")]
    image: Option<ImageId>,
    /// Program (qemu-storage-daemon) that reaches the volume and serves it to us by NBD. It is started again when it ends;
    /// requests wait and are sent again.
    #[arg(long, value_name = "PATH", requires = "link")]
    daemon: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Locks last as long as their files.
    let (device, _lock) = device(&arguments)?;
    let books = Books { counters: arguments.counters, limits: arguments.limits };
    books.keep(device.clone()).context("keeping counters and limits")?;
    let size = device.disk().size;
    let listener = serve::listen(&arguments.socket)?;
    say(&Event::Serving { socket: arguments.socket.display().to_string(), size });
    serve::serve(&listener, &device).context("waiting for a frontend")
}

fn device(arguments: &Arguments) -> anyhow::Result<(Device, Option<std::fs::File>)> {
    let deadline = Duration::from_secs(arguments.deadline);
    if let (Some(program), Some(socket)) = (&arguments.what.daemon, &arguments.link) {
        let daemon = Daemon {
            program: program.clone(),
            arguments: arguments.daemon_arguments.clone(),
            socket: socket.clone(),
        };
        let known = PathBuf::from(format!("{}.size", socket.display()));
        let remote = Arc::new(Remote::start(daemon, deadline, &known).context("starting the daemon")?);
        fill(arguments, || Ok(RemoteMedium::new(remote.clone())))?;
        return Ok((Device::remote(remote, &arguments.serial), None));
    }
    let (volume, lock) = volume(arguments, deadline)?;
    if let Some(file) = &arguments.what.file {
        fill(arguments, || FileMedium::open(file))?;
    }
    Ok((Device::new(volume, &arguments.serial), lock))
}

/// Writes the image that the volume is to have, where it does not have it yet.
fn fill<M: Medium>(arguments: &Arguments, open: impl FnOnce() -> std::io::Result<M>) -> anyhow::Result<()> {
    let (Some(order), Some(mark)) = (&arguments.fill, &arguments.filled) else { return Ok(()) };
    let filling = Filling { order, mark, encrypted: arguments.encrypted, whose: whose(arguments) };
    if filling.is_done()? {
        return Ok(());
    }
    let medium = open().context("opening the volume to write its image")?;
    filling.write(&medium).context("cannot write the image")
}

fn volume(
    arguments: &Arguments,
    deadline: Duration,
) -> anyhow::Result<(Arc<dyn Volume>, Option<std::fs::File>)> {
    if let Some(file) = &arguments.what.file {
        return Ok((Arc::new(FileVolume::open(file, arguments.read_only)?), None));
    }
    let image = arguments.what.image.context("neither --file nor --image")?;
    let dir = arguments.layer.as_deref().context("--image needs --layer")?;
    let rate = (arguments.rate > 0).then_some(arguments.rate);
    let pace = Pace { rate, deadline };
    let source = Source::new(&arguments.store, whose(arguments));
    let (config, grow_root) = (arguments.config.as_deref(), arguments.grow_root);
    let instant = Instant { dir, image, size: arguments.size, source, pace, config, grow_root };
    let (volume, lock) = instant.open()?;
    Ok((Arc::new(volume), Some(lock)))
}

fn whose(arguments: &Arguments) -> Whose {
    match &arguments.trust {
        _ if arguments.accept_unsigned => Whose::Anybody,
        Some(path) => Whose::Keys(path.clone()),
        None => Whose::Nobody,
    }
}

fn serial(text: &str) -> Result<String, String> {
    let fits = text.len() <= 20 && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| text.to_owned())
        .ok_or_else(|| "up to 20 printable ASCII characters without spaces".to_owned())
}
