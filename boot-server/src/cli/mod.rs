//! The command line: `billet serve`, and everything else as a client of the API. Commands parse and print; what they
//! ask for is done by the server.

mod again;
mod approval;
mod audit;
mod backup;
mod baseline;
mod bmc;
mod boot;
mod bundle;
mod care;
mod certificate;
mod check;
mod client;
mod console;
mod context;
mod deploy;
mod dpu;
mod dpu_functions;
mod dpu_setup;
mod event;
mod export;
mod flavor;
mod group;
mod image;
mod login;
mod machine;
mod many;
mod me;
mod model;
mod network;
mod node;
mod output;
mod overlay;
mod pages;
mod placement;
mod pool;
mod power;
mod project;
mod server;
mod service;
mod site;
mod status;
mod store;
mod switch;
pub mod text;
mod token;
mod trust;
mod uki;
mod usage;
mod user;
mod volume;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use client::{Client, Connection, DEFAULT_SERVER};
pub use model::parse as parse_model;
pub use output::{Format, Show};

use crate::view::Problem;
use text::{plain, plain_lines};

/// How commands end, for scripts.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 the server refused, or cannot be reached, or the work failed; 2 the command \
                          line makes no sense; 3 it took longer than allowed. With `-o json` an answer is printed also where \
                          some of many nodes refused (1).";

/// Billet puts operating systems on bare machines.
#[derive(Debug, Parser)]
#[command(name = "billet", version, about, disable_help_subcommand = true, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// Which server, and as whom.
    #[command(flatten)]
    pub connection: Connection,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(crate::serve::ServeArgs),
    /// Machines: list, look, deploy, rebuild, give back
    #[command(subcommand, visible_alias = "nodes")]
    Node(node::NodeCommand),
    /// Operating system images: add, list, check, remove
    #[command(subcommand, visible_alias = "images")]
    Image(image::ImageCommand),
    /// The site: the keys that sign its images
    #[command(subcommand)]
    Site(site::SiteCommand),
    /// What machines boot: make and sign the site's own boot image
    #[command(subcommand)]
    Boot(uki::BootCommand),
    /// Management controllers: list, set, import, scan, look
    #[command(subcommand, visible_alias = "bmcs")]
    Bmc(bmc::BmcCommand),
    /// Machines that are expected: import, list, remove
    #[command(subcommand, visible_alias = "machines")]
    Machine(machine::MachineCommand),
    /// What machines of a model are made of and how they are cabled
    #[command(subcommand, visible_alias = "models")]
    Model(model::ModelCommand),
    /// How machines of a kind are to be set: BIOS attributes, Secure Boot, firmware
    #[command(subcommand, visible_alias = "baselines")]
    Baseline(baseline::BaselineCommand),
    /// Sets of machines, and to whom they are offered
    #[command(subcommand, visible_alias = "pools")]
    Pool(pool::PoolCommand),
    /// Kinds of machines, by rules over what machines are
    #[command(subcommand, visible_alias = "flavors")]
    Flavor(flavor::FlavorCommand),
    /// The small computers between machines and their networks and disks: register, accept, look
    #[command(subcommand, visible_alias = "dpus")]
    Dpu(dpu::DpuCommand),
    /// Switches that put machines without a DPU on their networks
    #[command(subcommand, visible_alias = "switches")]
    Switch(switch::SwitchCommand),
    /// Disks of a project that DPUs present to machines: make, attach, detach, remove
    #[command(visible_alias = "volumes")]
    Volume(volume::VolumeArgs),
    /// Volumes as they were at one moment
    #[command(visible_alias = "snapshots")]
    Snapshot(volume::SnapshotArgs),
    /// Server groups of a project: kept together or apart
    #[command(visible_alias = "groups")]
    Group(group::GroupArgs),
    /// What a project can ask for, and how much of it is free
    Catalogue(group::CatalogueArgs),
    /// What a request for machines would get, and why not
    #[command(subcommand)]
    Placement(placement::PlacementCommand),
    /// Racks as they stand
    #[command(subcommand, visible_alias = "racks")]
    Rack(placement::RackCommand),
    /// What happened
    #[command(subcommand, visible_alias = "events")]
    Event(event::EventCommand),
    /// What two people must want: list, approve, refuse
    #[command(subcommand, visible_alias = "approvals")]
    Approval(approval::ApprovalCommand),
    /// Who did what, in a chain that shows what was done to it: list, verify, export
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// What is certified of erased disks: list, show, save, verify
    #[command(subcommand, visible_alias = "certificates")]
    Certificate(certificate::CertificateCommand),
    /// Serial consoles: where they are, who looks, recordings
    #[command(subcommand, visible_alias = "consoles")]
    Console(console::ConsoleCommand),
    /// Servers of a project: make, look, switch, reinstall, give back
    #[command(visible_alias = "servers")]
    Server(server::ServerArgs),
    /// Networks of a project: make, change, remove
    #[command(visible_alias = "networks")]
    Network(overlay::OverlayArgs<overlay::NetworkCommand>),
    /// Networks of the site, by which projects reach the world
    #[command(subcommand, visible_alias = "providers")]
    Provider(overlay::ProviderCommand),
    /// Subnets of a project's networks
    #[command(visible_alias = "subnets")]
    Subnet(overlay::OverlayArgs<overlay::SubnetCommand>),
    /// Ports of a project: make, attach, detach
    #[command(visible_alias = "ports")]
    Port(overlay::OverlayArgs<overlay::PortCommand>),
    /// Security groups of a project: what may reach its ports
    #[command(visible_alias = "security-groups")]
    SecurityGroup(overlay::OverlayArgs<overlay::GroupCommand>),
    /// Routers of a project: join subnets, lead out
    #[command(visible_alias = "routers")]
    Router(overlay::OverlayArgs<overlay::RouterCommand>),
    /// Floating addresses of a project
    Floating(overlay::OverlayArgs<overlay::FloatingCommand>),
    /// Copies of what a project's ports send or receive
    #[command(visible_alias = "mirrors")]
    Mirror(overlay::OverlayArgs<overlay::MirrorCommand>),
    /// What users report of their servers: list, close
    #[command(subcommand, visible_alias = "faults")]
    Fault(server::FaultCommand),
    /// SSH keys that a project keeps
    #[command(visible_alias = "keys")]
    Key(usage::KeyArgs),
    /// What a project may have, and what it has
    Quota(usage::QuotaArgs),
    /// What projects used: show, export, check an export
    Usage(usage::UsageArgs),
    /// How well servers were there, and how long they took to come
    Sla(usage::SlaArgs),
    /// Who may come in beside the site's own token
    #[command(subcommand, visible_alias = "tokens")]
    Token(token::TokenCommand),
    /// The database: move it to PostgreSQL, or back
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// The whole state of the site in one file, made while it serves: database, leases, keys, images
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Events, audit, metrics and usage since a moment, as files in one signed archive: for the other side of a one-way gateway
    ///
    /// The server does so by itself where [export] directory is set. See docs/guide/export.md.
    Export(export::ExportArgs),
    /// One file with all that a site without a network needs: program, boot files, images, documents
    ///
    /// Made and signed on one machine, carried, checked as a whole and taken in on another. See docs/guide/bundles.md.
    #[command(subcommand, visible_alias = "bundles")]
    Bundle(bundle::BundleCommand),
    /// Put a backup back, on an empty machine
    ///
    /// All of it is checked before anything is at its place. Unless --as-it-was is given, the site drives nothing
    /// before `billet backup release`: since the backup machines and disks may have got other owners. See docs/guide/backup.md.
    Restore(backup::RestoreArgs),
    /// Those who own servers together: projects, their members and tokens
    #[command(subcommand, visible_alias = "projects")]
    Project(project::ProjectCommand),
    /// People who may sign in
    #[command(subcommand, visible_alias = "users")]
    User(user::UserCommand),
    /// You: who you are, your sessions, your password and second factor
    #[command(subcommand)]
    Me(me::MeCommand),
    /// How the server is
    Status,
    /// Say what would keep machines from booting, before serving and while serving
    ///
    /// Asks the running server, or looks by itself where none answers: other DHCP servers, addresses in use, relays,
    /// link, ports, packet filter, boot files. Each finding says what to do. Exit code 1 where one keeps machines from booting.
    CheckNetwork(check::CheckArgs),
    /// Sign in to a server and remember it for this user: with a token, or with --user by name and password
    Login(login::LoginArgs),
    /// Servers that this user works with, by name
    #[command(subcommand, visible_alias = "contexts")]
    Context(context::ContextCommand),
    /// Write the manual pages
    Man {
        /// Where
        #[arg(long, value_name = "DIRECTORY")]
        dir: std::path::PathBuf,
    },
    /// Print the completion script of a shell; `source <(COMPLETE=bash billet)` completes names of the server too
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Shells with completion.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Shell {
    /// bash 4 and newer
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server said no.
    #[error("{}", .0.message)]
    Problem(Problem),
    /// The server cannot be reached.
    #[error("cannot reach the server at {server}: {cause}")]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        cause: String,
    },
    /// The command line cannot be carried out as it stands.
    #[error("{0}")]
    Usage(String),
    /// It took longer than allowed.
    #[error("{0}")]
    Timeout(String),
    /// Anything else that has advice.
    #[error("{message}")]
    Hinted {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
    /// Whoever read our output went away.
    #[error("output closed")]
    Closed,
}

impl Failure {
    /// What to do, where there is advice.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => Some(problem.hint.as_str()).filter(|h| !h.is_empty()),
            Self::Unreachable { .. } => {
                Some("is `billet serve` running there? Give another address with --server")
            }
            Self::Hinted { hint, .. } => Some(hint),
            Self::Usage(_) => Some("see `billet --help`"),
            Self::Timeout(_) | Self::Other(_) | Self::Closed => None,
        }
    }

    /// Exit code: 1 failed, 2 usage, 3 timeout.
    pub fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Usage(_) => 2,
            Self::Timeout(_) => 3,
            Self::Problem(_) | Self::Unreachable { .. } | Self::Hinted { .. } | Self::Other(_) => 1,
        }
    }

    /// As it is printed.
    pub fn text(&self) -> String {
        let mut text = format!("error: {}\n", plain_lines(&self.to_string()));
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {}\n", plain(hint)));
        }
        text
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // A shell that completes asks by a variable, and nothing else happens then.
    clap_complete::CompleteEnv::with_factory(pages::with_names).complete();
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => return crate::serve::main(&args),
        command => run(&cli.connection, cli.output, command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Closed) {
                // Nothing is left to do where even standard error is closed.
                let _ = io::stderr().write_all(failure.text().as_bytes());
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Runs a command that is no server.
pub(crate) fn run(connection: &Connection, format: Format, command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(_) => Ok(()), // handled by the caller
        Command::Pool(command) => pool::run(&connection.client()?, format, command),
        Command::Flavor(command) => flavor::run(&connection.client()?, format, command),
        Command::Dpu(command) => dpu::run(&connection.client()?, format, command),
        Command::Switch(command) => switch::run(&connection.client()?, format, command),
        Command::Volume(args) => volume::run(&connection.client()?, format, args),
        Command::Snapshot(args) => volume::snapshots(&connection.client()?, format, args),
        Command::Group(args) => group::run(&connection.client()?, format, args),
        Command::Catalogue(args) => group::catalogue(&connection.client()?, format, args),
        Command::Placement(command) => placement::run(&connection.client()?, format, command),
        Command::Rack(command) => placement::racks(&connection.client()?, format, command),
        Command::Node(command) => node::run(&connection.client()?, format, command),
        Command::Image(image::ImageCommand::Sign(args)) => image::sign(&args),
        Command::Image(command) => image::run(&connection.client()?, format, command),
        Command::Site(command) => site::run(|| connection.client(), format, command),
        Command::Event(command) => event::run(&connection.client()?, format, &command),
        Command::Boot(command) => uki::run(command),
        Command::Bmc(command) => bmc::run(&connection.client()?, format, command),
        Command::Machine(command) => machine::run(&connection.client()?, format, command),
        Command::Model(command) => model::run(&connection.client()?, format, command),
        Command::Baseline(command) => baseline::run(&connection.client()?, format, command),
        Command::Approval(command) => approval::run(&connection.client()?, format, command),
        Command::Audit(command) => audit::run(connection, format, command),
        Command::Certificate(command) => certificate::run(connection, format, command),
        Command::Console(command) => console::run(&connection.client()?, format, command),
        Command::Server(args) => server::run(&connection.client()?, format, args),
        Command::Network(args) => overlay::run(&connection.client()?, format, args),
        Command::Provider(command) => overlay::provider(&connection.client()?, format, command),
        Command::Subnet(args) => overlay::run(&connection.client()?, format, args),
        Command::Port(args) => overlay::run(&connection.client()?, format, args),
        Command::SecurityGroup(args) => overlay::run(&connection.client()?, format, args),
        Command::Router(args) => overlay::run(&connection.client()?, format, args),
        Command::Floating(args) => overlay::run(&connection.client()?, format, args),
        Command::Mirror(args) => overlay::run(&connection.client()?, format, args),
        Command::Fault(command) => server::faults(&connection.client()?, format, command),
        Command::Key(args) => usage::keys(&connection.client()?, format, args),
        Command::Quota(args) => usage::quota(&connection.client()?, format, args),
        Command::Usage(args) => usage::usage(|| connection.client(), format, args),
        Command::Sla(args) => usage::sla(&connection.client()?, format, args),
        Command::Token(command) => token::run(&connection.client()?, format, command),
        Command::Store(command) => store::run(format, command),
        Command::Backup(command) => backup::run(format, command),
        Command::Export(args) => export::run(&connection.client()?, &args),
        Command::Bundle(command) => bundle::run(connection, format, command),
        Command::Restore(args) => backup::restore(format, &args),
        Command::Status => format.print(&connection.client()?.get::<crate::view::StatusView>("status")?),
        Command::CheckNetwork(args) => check::run(connection, format, &args),
        Command::Project(command) => project::run(&connection.client()?, format, command),
        Command::User(command) => user::run(&connection.client()?, format, command),
        Command::Me(command) => me::run(&connection.client()?, format, command),
        Command::Login(args) => login::run(connection, &args),
        Command::Context(command) => context::run(connection, format, command),
        Command::Man { dir } => pages::manual(&dir),
        Command::Completion { shell } => output::print(&completion(shell)),
    }
}

fn completion(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "billet", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests;
