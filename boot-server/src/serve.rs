//! `billet serve`: brings everything up in order, and down again cleanly.
//!
//! ```text
//! configuration ─▶ database, image store ─▶ engine ─▶ sockets (all of them, or none) ─▶ nodes are told ─▶ serving
//! SIGTERM, SIGINT ─▶ no new work, open requests end, last commits, database closed
//! ```
//!
//! Nothing is lost by a stop that is not clean: whatever was acknowledged is durable.

use std::io::{ErrorKind, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use boot_server_core::dhcp::Mode;
use boot_server_core::node::Netboot;
use clap::Args;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::backup;
use crate::bundle::Releases;
use crate::config::{self, Config, LogFormat, Settings};
use crate::console::{Consoles, OpenBmc, ssh};
use crate::engine::Engine;
use crate::grub::{self, Grub};
use crate::http::auth::Operators;
use crate::http::files::Processor;
use crate::http::{self, BootFiles};
use crate::ingest::{Ingests, Rules, Vetting};
use crate::loaders::Loaders;
use crate::net;
use crate::power::PowerError;
use crate::scripts::Scripts;
use crate::store::journal::Journal;
use crate::store::{Store, queries};
use crate::tls::Tls;
use crate::tokens::Tokens;
use crate::webhooks;

mod ipv6;
mod sink;
mod wire;

/// The file that is read where none is named.
const CONFIG_FILE: &str = "/etc/billet/billet.toml";
/// File descriptors: two for each connection of a listener, one for that of the others, and as many for TFTP and all else.
const OPEN_FILES_MAX: u64 = 131_072;
/// Connections that the kernel keeps for a listener which is busy: those of a few racks in one second. The kernel cuts it
/// to `net.core.somaxconn`.
const BACKLOG: u32 = 4096;
/// How long tasks may take to end.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Options of `billet serve`; they win over the file.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Configuration file [default: /etc/billet/billet.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Interface to which the machines are connected
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Where database, images and the operators' token are kept
    #[arg(long, value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// Directory with kernel and ramdisk
    #[arg(long, value_name = "DIRECTORY")]
    pub boot_dir: Option<PathBuf>,
    /// Address and port of the web UI and the API
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

/// Runs the server until it is told to stop.
pub fn main(args: &ServeArgs) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("billet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &ServeArgs) -> anyhow::Result<()> {
    // A setting that means nothing ends it here.
    let failpoints = failpoint::active();
    let config = configuration(args)?;
    log_to_stderr(&config)?;
    if let Some(set) = failpoints {
        tracing::warn!(set, "failpoints are set: this server breaks on purpose");
    }
    let settings = Settings::new(&config, &config::interfaces()?)?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        serve(settings, stop).await
    });
    // Blocking tasks (a hash of a large file) are not waited for: they hold nothing that must be written.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Takes as many file descriptors as the system allows: 1,024, what a shell gives, are fewer than the connections of a
/// few racks.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES_MAX), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// The file with the options over it.
pub(crate) fn configuration(args: &ServeArgs) -> anyhow::Result<Config> {
    let default = Path::new(CONFIG_FILE);
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None if default.exists() => Config::read(default)?,
        None => Config::default(),
    };
    let ServeArgs { config: _, interface, state_dir, boot_dir, listen } = args.clone();
    config.provisioning.interface = interface.or(config.provisioning.interface);
    config.boot.directory = boot_dir.or(config.boot.directory);
    config.state_dir = state_dir.unwrap_or(config.state_dir);
    config.operators.listen = listen.unwrap_or(config.operators.listen);
    Ok(config)
}

fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.level)
        .with_context(|| format!("log.level `{}` is not a level or filter", config.log.level))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))
}

fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}

/// Serves until `stop`.
///
/// # Errors
/// Where something cannot be opened or bound; then nothing was served.
pub async fn serve(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let engine = open(&settings).await?;
    let files = Arc::new(BootFiles::new(&settings));
    if let Some(missing) = files.missing(Processor::X64) {
        tracing::warn!("machines cannot boot the agent: {missing} (build them, or set boot.directory)");
    }
    Loaders::new(&settings).warn_of_missing(settings.secure_boot);
    let named = Tokens::open(engine.store().clone()).await?;
    let known = Arc::new(Operators::open(&settings.operator_token(), named)?);
    let mut tasks = JoinSet::new();
    let mut machines = Vec::new();
    for address in settings.addresses() {
        machines.push(bind((address, settings.port).into(), "provisioning.listen_port").await?);
    }
    let secure = bind_tls(&settings).await?;
    let metadata = match settings.metadata.listen.filter(|_| settings.metadata.enabled) {
        Some(address) => Some(bind(address, "metadata.listen").await?),
        None => None,
    };
    let consoles = Consoles::open(engine.clone(), Some(bmc_consoles(&engine)), stop.clone()).await?;
    let gateway = bind_ssh(&settings, &engine, &consoles, &known).await?;
    let operators = bind(settings.operators, "operators.listen").await?;
    let (seen, sightings) = mpsc::channel(sink::SIGHTINGS_QUEUED_MAX);
    let (strangers, strange) = mpsc::channel(sink::SIGHTINGS_QUEUED_MAX);
    ipv6::bind(&engine, strangers.clone(), &mut tasks, &stop).await?;
    bind_dhcp(&engine, (seen.clone(), strangers), &mut tasks, &stop).await?;
    bind_tftp(&engine, files.clone(), seen, &mut tasks, &stop)?;
    // Everything is bound: from here on only a stop ends it.
    engine.started().await;
    tasks.spawn(sink::run(engine.clone(), sightings, strange, stop.clone()));
    let rules = Rules {
        import_dirs: settings.import_dirs.clone(),
        vetting: Vetting {
            trusted_hosts: settings.trusted_hosts.clone(),
            own: settings.addresses().collect(),
        },
    };
    let ingests = Ingests::new(engine.clone(), rules, stop.clone());
    if let Some(gateway) = gateway {
        tasks.spawn(gateway.run(stop.clone()));
    }
    tasks.spawn(consoles.clone().run());
    let people = http::operators(engine.clone(), files.clone(), ingests, consoles, known, stop.clone());
    if let Some(metadata) = metadata {
        let listener = http::Listener::from(metadata).per_peer(settings.per_address);
        tasks.spawn(http::run(listener, http::metadata(engine.clone()), stop.clone()));
    }
    let routes = http::provisioning(engine.clone(), files);
    if let Some(secure) = secure {
        tasks.spawn(http::run(secure, routes.clone(), stop.clone()));
    }
    for listener in machines {
        let listener = http::Listener::from(listener).per_peer(settings.per_address);
        tasks.spawn(http::run(listener, routes.clone(), stop.clone()));
    }
    tasks.spawn(http::run(operators, people, stop.clone()));
    let (deadlines, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { deadlines.run_deadlines(token).await });
    let (power, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { power.run_power(token).await });
    tasks.spawn(webhooks::run(engine.clone(), settings.webhooks.clone(), stop.clone()));
    if !engine.is_held() {
        drive(&engine, &mut tasks, &stop);
    }
    let (retention, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { retention.run_retention(token).await });
    if let Some(export) = settings.export.clone() {
        let (exports, token) = (engine.clone(), stop.clone());
        tasks.spawn(async move { exports.run_exports(export, token).await });
    }
    let (audit, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { audit.run_audit(token).await });
    // Routes and their document cost several times what stays of them.
    crate::sys::give_memory_back();
    tracing::info!(
        interface = settings.interface,
        urls = settings.provisioning_urls().collect::<Vec<_>>().join(" "),
        operators = %settings.operators,
        state = %settings.state_dir.display(),
        store = %settings.store,
        "billet serves"
    );
    stopped(tasks, &stop).await;
    engine.audit().flush().await;
    engine.store().close();
    tracing::info!("stopped");
    Ok(())
}

/// What acts on machines, volumes, DPUs and networks.
fn drive(engine: &Engine, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
    let (effects, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { effects.run_effects(token).await });
    let (idle, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { idle.run_idle(token).await });
    let (servers, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { servers.run_servers(token).await });
    let (volumes, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { volumes.run_volumes(token).await });
    let (setups, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { setups.run_setups(token).await });
    let (overlay, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { overlay.run_overlay(token).await });
    let (fabric, token) = (engine.clone(), stop.clone());
    tasks.spawn(async move { fabric.run_fabric(token).await });
}

/// Waits for the stop, or for a task that ends by itself, which none should; then for the others.
async fn stopped(mut tasks: JoinSet<()>, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        ended = tasks.join_next() => {
            tracing::error!(?ended, "a part of the server ended by itself: stopping the rest");
            stop.cancel();
        }
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the server broke");
            }
        }
    };
    if tokio::time::timeout(STOP_MAX, all).await.is_err() {
        tracing::warn!("some parts of the server did not end in time");
    }
}

/// Database, image store and engine.
async fn open(settings: &Settings) -> anyhow::Result<Engine> {
    let dir = &settings.state_dir;
    make_private(dir).with_context(|| {
        format!(
            "cannot make {}: run as root, or give --state-dir a place that you may write to",
            dir.display()
        )
    })?;
    if backup::restored(dir)?.is_some_and(|note| note.unfinished) {
        anyhow::bail!(
            "a restore to {} was not finished: remove that directory, empty the database {}, and restore again",
            dir.display(),
            settings.store
        );
    }
    // What an operator puts on the kernel's command line is checked here, not when the first machine boots.
    crate::scripts::check_kernel_arguments(&settings.kernel_arguments).context("boot.arguments")?;
    let (database, images) = (settings.store.clone(), settings.images_dir());
    let (store, images) = tokio::task::spawn_blocking(move || {
        let store = Store::open(&database)?;
        anyhow::Ok((store, images::Store::open(images)?))
    })
    .await?
    .with_context(|| format!("cannot open {}", settings.store))?;
    let engine = Engine::open(settings.clone(), store, images).await?;
    engine.hold_restored().await.context("what was restored from a backup cannot be held")?;
    Ok(engine)
}

/// Makes a directory that nobody else can look into; one that exists stays as it is.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    listen(address).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => format!("another program listens there: stop it, or set {option}"),
            ErrorKind::AddrNotAvailable => format!("that address is not one of this machine's: set {option}"),
            ErrorKind::PermissionDenied => {
                format!("ports below 1024 need root: run as root, or set {option}")
            }
            _ => format!("see {option}"),
        };
        anyhow::Error::from(error).context(format!("cannot listen on {address} ({hint})"))
    })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As tokio's own `bind`: a server that is started again need not wait for its old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The listener with TLS, where there is one.
async fn bind_tls(settings: &Settings) -> anyhow::Result<Option<http::Listener>> {
    let Some(tls) = settings.tls.clone() else { return Ok(None) };
    let socket = bind(tls.listen, "provisioning.tls_port").await?;
    let opened = tokio::task::spawn_blocking(move || Tls::open(&tls.source)).await?;
    let opened = opened.context("provisioning.tls_certificate, tls_key")?;
    Ok(Some(http::Listener::from(socket).per_peer(settings.per_address).tls(opened)))
}

/// Consoles of BMCs, opened by their workers.
fn bmc_consoles(engine: &Engine) -> OpenBmc {
    let power = engine.power().clone();
    Arc::new(move |node| {
        let power = power.clone();
        Box::pin(async move {
            power.open_console(node).await.map_err(|error| match error {
                PowerError::NoBmc => {
                    "this node has no BMC: say where its console is with `billet console set`".to_owned()
                }
                other => format!("{other}; {}", other.problem().hint),
            })
        })
    })
}

/// The SSH gateway to consoles, where there is one.
async fn bind_ssh(
    settings: &Settings,
    engine: &Engine,
    consoles: &Consoles,
    known: &Arc<Operators>,
) -> anyhow::Result<Option<ssh::Gateway>> {
    let Some(address) = settings.console.ssh_listen else { return Ok(None) };
    let socket = bind(address, "console.ssh_listen").await?;
    let path = settings.state_dir.join("ssh_host_ed25519_key");
    let key = tokio::task::spawn_blocking(move || ssh::host_key(&path)).await??;
    tracing::info!(%address, key = %ssh::fingerprint(&key), "SSH serves consoles");
    let parts = ssh::Parts { engine: engine.clone(), consoles: consoles.clone(), operators: known.clone() };
    Ok(Some(ssh::Gateway::new(socket, key, settings.console.ssh_keys.clone(), parts)))
}

async fn bind_dhcp(
    engine: &Engine,
    (seen, strangers): (mpsc::Sender<sink::Seen>, mpsc::Sender<sink::Seen>),
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let settings = engine.settings();
    let (Some(lending), Some(own)) = (&settings.dhcp, settings.ipv4) else { return Ok(()) };
    let loaders = Loaders::new(settings).boot_files(settings.secure_boot);
    let mut config = lending.core(own.address, settings.provisioning_url(), loaders)?;
    config.firmware_base = settings.tls.as_ref().filter(|tls| tls.for_firmware).map(config::tls::Tls::url);
    let beside = lending.own().is_some_and(|s| s.mode == Mode::Proxy);
    // What a crash left in the journal is in the database before it is read.
    let journal = Journal::open(&settings.state_dir, engine.store().clone()).await?;
    let leases = engine.store().read(queries::leases).await?;
    tracing::info!(subnets = ?lending.lines(), known = leases.len(), "DHCP serves");
    let (tell, known) = watch::channel(Arc::new(engine.known_machines()));
    let server = net::dhcp::DhcpServer::bind(&settings.interface, config, leases, known)
        .context("cannot serve DHCP (run as root; stop another DHCP server, or set dhcp.enabled = false)")?;
    let watcher = net::foreign::Watcher::open(&settings.interface)?;
    let (news, heard) = mpsc::channel(wire::NEWS_QUEUED_MAX);
    let sink = sink::Sink::new(engine.clone(), journal, seen, strangers, news);
    engine.expect_dhcp_servers(beside);
    let search = if beside { net::foreign::SEARCH_EXPECTED } else { net::foreign::SEARCH };
    let (leases, token) = (sink.clone(), stop.clone());
    tasks.spawn(async move {
        server.run(leases.clone(), token).await;
        leases.close().await;
    });
    tasks.spawn(watcher.run(search, sink, stop.clone()));
    tasks.spawn(wire::follow_nodes(engine.clone(), tell, stop.clone()));
    tasks.spawn(wire::run(engine.clone(), heard, stop.clone()));
    Ok(())
}

/// Loaders of the bundle that is served are opened anew each time: another bundle needs no restart.
fn bundled(settings: &Settings, made: net::tftp::MakeFile) -> net::tftp::MakeFile {
    let (loaders, bundle) = (Loaders::new(settings), Releases::current_dir(&settings.state_dir));
    Box::new(move |peer, name| {
        let path = loaders.path(name).filter(|path| path.starts_with(&bundle));
        let Some(path) = path else { return made(peer, name) };
        let opened = net::tftp::open_file(&path).map_err(tftp_server::OpenError::Io);
        Some(Box::pin(std::future::ready(opened)))
    })
}

fn bind_tftp(
    engine: &Engine,
    boot: Arc<BootFiles>,
    seen: mpsc::Sender<sink::Seen>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let settings = engine.settings();
    if !settings.tftp {
        return Ok(());
    }
    let scripts = Scripts::new(engine.clone(), boot.clone());
    let made = Grub::new(scripts, boot).by_tftp(settings.provisioning_url());
    let mut files = net::tftp::BootFiles::new().with_made(bundled(settings, made));
    let bundle = Releases::current_dir(&settings.state_dir);
    let own = settings.loaders.iter().filter(|dir| !dir.starts_with(&bundle)).cloned().collect();
    for (name, path) in Loaders::in_directories(own).present() {
        match net::tftp::open_file(&path) {
            Ok(file) => files = files.with_file(name, file),
            Err(error) => tracing::warn!(path = %path.display(), %error, "boot loader cannot be read"),
        }
    }
    let files = files.on_finished(Box::new(move |peer, name, summary| {
        tracing::debug!(%peer, name, ?summary, "TFTP transfer ended");
        let Some(event) = http::files::served(grub::boot_file(name), Netboot::Pxe) else { return };
        if seen.try_send(sink::Seen::File { address: peer.ip(), event }).is_err() {
            tracing::debug!("sighting dropped");
        }
    }));
    let server = net::tftp::bind(&settings.interface, Arc::new(files))
        .context("cannot serve TFTP (run as root; stop another TFTP server, or set tftp.enabled = false)")?;
    tasks.spawn(server.run(stop.clone()));
    Ok(())
}
