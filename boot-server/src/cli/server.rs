//! `billet server …`: what a project has.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use boot_server_core::server::{BootVolume, Phase};
use boot_server_core::volume::Imaging;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::console::attach_at;
use super::output::{Format, Show, facts, table};
use super::text::{memory, moment, plain, span};
use super::{Failure, watch};
use crate::http::api::requests::EmptyRequest;
use crate::http::api::server_requests::{
    FaultAnswerRequest, FaultRequest, NewServerRequest, ReinstallRequest, ServerActionsRequest,
    ServerChangeRequest, ServerVerb, StopRequest,
};
use crate::view::servers::{
    FaultReportView, ServerDetail, ServerOutcome, ServerOutcomes, ServerView, ServersCreated,
};
use crate::view::{Page, PowerView};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// In which project.
#[derive(Debug, Clone, Args)]
pub struct ProjectArg {
    /// The project, by name or id
    #[arg(long, short, global = true, env = "BILLET_PROJECT", value_name = "PROJECT")]
    pub project: Option<String>,
}

impl ProjectArg {
    /// The path of something in the project.
    ///
    /// # Errors
    /// Where no project was named.
    pub(super) fn path(&self, rest: &str) -> Result<String, Failure> {
        let Some(project) = self.project.as_ref().filter(|project| !project.is_empty()) else {
            return Err(Failure::Hinted {
                message: "in which project?".to_owned(),
                hint: "give --project, or set BILLET_PROJECT".to_owned(),
            });
        };
        Ok(format!("projects/{}/{rest}", encode(project)))
    }

    /// The same, of the whole site where no project was named.
    ///
    /// # Errors
    /// Where the name of the project is empty.
    pub(super) fn path_or_site(&self, rest: &str) -> Result<String, Failure> {
        if self.project.is_some() { self.path(rest) } else { Ok(rest.to_owned()) }
    }
}

/// Servers of a project.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// In which project.
    #[command(flatten)]
    project: ProjectArg,
    /// What to do.
    #[command(subcommand)]
    command: ServerCommand,
}

/// What can be done with servers.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Servers of the project
    #[command(visible_alias = "ls")]
    List {
        /// Only in this phase: claimed, deploying, active, error, deleting, deleted
        #[arg(long)]
        phase: Option<String>,
        /// Only with this in the name
        #[arg(long, short)]
        query: Option<String>,
        /// Only of this group
        #[arg(long)]
        group: Option<String>,
        /// Also those that were deleted
        #[arg(long)]
        deleted: bool,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// Make servers: all or none
    Create(Box<CreateArgs>),
    /// One server, with its installation and its addresses
    Show {
        /// Name or id
        server: String,
    },
    /// Give a server another name
    Rename {
        /// Name or id
        server: String,
        /// New name
        name: String,
    },
    /// Switch servers on
    Start(Several),
    /// Ask the OS of servers to shut down
    Stop {
        /// Which.
        #[command(flatten)]
        servers: Several,
        /// Switch them off at once
        #[arg(long)]
        hard: bool,
    },
    /// Restart servers at once
    Reboot(Several),
    /// Put the OS on a server anew: its disk is erased
    Reinstall {
        /// Name or id
        server: String,
        /// Another image
        #[arg(long)]
        image: Option<String>,
        /// Other keys of the project, by name
        #[arg(long = "key", value_name = "NAME")]
        keys: Option<Vec<String>>,
        /// Other user data
        #[arg(long, value_name = "FILE")]
        user_data: Option<PathBuf>,
        /// Done once under this key, however often it is asked for
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
        /// How long to stay.
        #[command(flatten)]
        watch: watch::WatchArgs,
    },
    /// Boot from the volume that a server had before it was installed anew
    Rollback {
        /// Name or id
        server: String,
    },
    /// Give servers back: their disks are wiped
    #[command(visible_alias = "rm")]
    Delete {
        /// Which.
        #[command(flatten)]
        servers: Several,
        /// How long to stay.
        #[command(flatten)]
        watch: watch::WatchArgs,
    },
    /// A server's console in this terminal
    Console {
        /// Name or id
        server: String,
        /// Take the keyboard from whoever has it
        #[arg(long)]
        take: bool,
    },
    /// Say that something is wrong with a server
    Report {
        /// Name or id
        server: String,
        /// What is wrong
        words: String,
    },
    /// What was reported
    Faults {
        /// Also what was closed
        #[arg(long)]
        closed: bool,
        #[command(flatten)]
        again: AgainArgs,
    },
}

/// What those who run the site do with reports.
#[derive(Debug, Subcommand)]
pub enum FaultCommand {
    /// What users of all projects report
    #[command(visible_alias = "ls")]
    List {
        /// Also what was closed
        #[arg(long)]
        closed: bool,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// Close a report; whoever made it reads the answer
    Close {
        /// Id of the report
        report: Uuid,
        /// What came of it
        answer: String,
    },
}

/// Runs a command about reports.
pub(super) fn faults(client: &Client, format: Format, command: FaultCommand) -> Result<(), Failure> {
    match command {
        FaultCommand::List { closed, again } => {
            let path = format!("fault-reports?closed={closed}");
            again.list(client, SITE, format, || client.all::<FaultReportView>(&path))
        }
        FaultCommand::Close { report, answer } => {
            let path = format!("fault-reports/{report}/close");
            format.print(&client.post::<_, FaultReportView>(&path, &FaultAnswerRequest { answer })?)
        }
    }
}

/// Which servers.
#[derive(Debug, Clone, Args)]
pub struct Several {
    /// Names or ids
    #[arg(required = true)]
    servers: Vec<String>,
}

/// What to make.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Name; with --count, `web` makes web-1, web-2 and so on: n in braces says where else the number goes
    name: String,
    /// Image: its name (newest version), name:version, or id
    #[arg(long)]
    image: String,
    /// What kind of machine
    #[arg(long, required_unless_present = "node", conflicts_with = "node")]
    flavor: Option<String>,
    /// This machine
    #[arg(long)]
    node: Option<String>,
    /// Only of this pool
    #[arg(long)]
    pool: Option<String>,
    /// How many
    #[arg(long, short = 'n', default_value_t = 1)]
    count: usize,
    /// User to make; the image's default user if not given
    #[arg(long)]
    user: Option<String>,
    /// A key of the project, by name
    #[arg(long = "key", value_name = "NAME")]
    keys: Vec<String>,
    /// File with SSH public keys
    #[arg(long, value_name = "FILE")]
    ssh_key_file: Option<PathBuf>,
    /// File with cloud-init user data
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// Server group
    #[arg(long)]
    group: Option<String>,
    /// Put the OS on a volume, which the machine's DPU presents
    #[arg(long)]
    boot_volume: bool,
    /// Type of that volume; the site's first where none is given
    #[arg(long, value_name = "TYPE", requires = "boot_volume")]
    volume_type: Option<String>,
    /// Size of that volume, such as 20G; the image's smallest disk where it is not given
    #[arg(long, value_name = "SIZE", requires = "boot_volume", value_parser = super::volume::size)]
    volume_size: Option<u64>,
    /// Who writes the image on that volume: server, agent (on the machine, which boots the ramdisk for it), or dpu (the
    /// machine's, while it is off)
    #[arg(long, value_name = "WHO", requires = "boot_volume", default_value = "server")]
    imaging: Imaging,
    /// That volume stays when the server is deleted
    #[arg(long, requires = "boot_volume")]
    keep_volume: bool,
    /// That volume is encrypted; always so where its type says so
    #[arg(long, requires = "boot_volume")]
    encrypted_volume: bool,
    /// A network of the project, on which each gets a port; again for more
    #[arg(long, value_name = "NETWORK")]
    network: Vec<String>,
    /// Done once under this key, however often it is asked for
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long to stay.
    #[command(flatten)]
    watch: watch::WatchArgs,
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, args: ServerArgs) -> Result<(), Failure> {
    let ServerArgs { project, command } = args;
    let path = |rest: &str| project.path(rest);
    let of = |server: &str, rest: &str| project.path(&format!("servers/{}{rest}", encode(server)));
    match command {
        ServerCommand::List { phase, query, group, deleted, again } => {
            let mut list = format!("servers?limit=500&deleted={deleted}");
            for (name, value) in [("phase", phase), ("q", query), ("group", group)] {
                if let Some(value) = value {
                    list.push_str(&format!("&{name}={}", encode(&value)));
                }
            }
            let list = path(&list)?;
            again.list(client, &path(SITE)?, format, || client.all::<ServerView>(&list))
        }
        ServerCommand::Create(args) => create(client, format, &project, *args),
        ServerCommand::Show { server } => format.print(&client.get::<ServerDetail>(&of(&server, "")?)?),
        ServerCommand::Rename { server, name } => {
            let request = ServerChangeRequest { name };
            format.print(&client.patch::<_, ServerView>(&of(&server, "")?, &request)?)
        }
        ServerCommand::Start(servers) => act(client, format, &project, ServerVerb::Start, servers),
        ServerCommand::Stop { servers, hard } => {
            let verb = if hard { ServerVerb::StopHard } else { ServerVerb::Stop };
            act(client, format, &project, verb, servers)
        }
        ServerCommand::Reboot(servers) => act(client, format, &project, ServerVerb::Reboot, servers),
        ServerCommand::Reinstall { server, image, keys, user_data, idempotency_key, watch } => {
            let user_data = user_data.map(read).transpose()?;
            let request = ReinstallRequest { image, keys, ssh_keys: None, user_data };
            let server = client.post_once(&of(&server, "/reinstall")?, &request, idempotency_key)?;
            stay(client, format, &project, vec![server], &watch, Phase::Active)
        }
        ServerCommand::Delete { servers, watch } => delete(client, format, &project, servers, &watch),
        ServerCommand::Console { server, take } => {
            attach_at(client, &server, &of(&server, "/console/attach")?, take)
        }
        ServerCommand::Rollback { server } => {
            let path = path(&format!("servers/{}/rollback", encode(&server)))?;
            format.print(&client.post::<_, ServerView>(&path, &EmptyRequest {})?)
        }
        ServerCommand::Report { server, words } => {
            let request = FaultRequest { server, words };
            format.print(&client.post::<_, FaultReportView>(&path("faults")?, &request)?)
        }
        ServerCommand::Faults { closed, again } => {
            let list = path(&format!("faults?closed={closed}"))?;
            again.list(client, &path(SITE)?, format, || client.all::<FaultReportView>(&list))
        }
    }
}

fn read(file: PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(&file)
        .map_err(|error| Failure::Other(format!("cannot read {}: {error}", file.display())))
}

fn create(client: &Client, format: Format, project: &ProjectArg, args: CreateArgs) -> Result<(), Failure> {
    let keys_of = |text: String| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let request = NewServerRequest {
        name: args.name,
        count: Some(args.count),
        flavor: args.flavor,
        node: args.node,
        pool: args.pool,
        image: args.image,
        user: args.user,
        keys: args.keys,
        ssh_keys: args.ssh_key_file.map(read).transpose()?.map(keys_of).unwrap_or_default(),
        user_data: args.user_data.map(read).transpose()?,
        group: args.group,
        boot_volume: args.boot_volume.then_some(BootVolume {
            kind: args.volume_type,
            size: args.volume_size,
            keep: args.keep_volume,
            encrypted: args.encrypted_volume,
            imaging: args.imaging,
        }),
        networks: args.network,
    };
    let made: ServersCreated = client.post_once(&project.path("servers")?, &request, args.idempotency_key)?;
    stay(client, format, project, made.servers, &args.watch, Phase::Active)
}

fn act(
    client: &Client,
    format: Format,
    project: &ProjectArg,
    verb: ServerVerb,
    Several { servers }: Several,
) -> Result<(), Failure> {
    if let [server] = servers.as_slice() {
        let path = |rest: &str| project.path(&format!("servers/{}/{rest}", encode(server)));
        let power: PowerView = match verb {
            ServerVerb::Start => client.post(&path("start")?, &EmptyRequest {})?,
            ServerVerb::StopHard => client.post(&path("stop")?, &StopRequest { hard: true })?,
            ServerVerb::Stop => client.post(&path("stop")?, &StopRequest { hard: false })?,
            _ => client.post(&path("reboot")?, &EmptyRequest {})?,
        };
        return format.print(&power);
    }
    let outcomes: ServerOutcomes =
        client.post(&project.path("servers/actions")?, &ServerActionsRequest { verb, servers })?;
    concluded(format, &outcomes)
}

fn delete(
    client: &Client,
    format: Format,
    project: &ProjectArg,
    Several { servers }: Several,
    watch: &watch::WatchArgs,
) -> Result<(), Failure> {
    if let [server] = servers.as_slice() {
        let server: ServerView =
            client.delete_with(&project.path(&format!("servers/{}", encode(server)))?)?;
        return stay(client, format, project, vec![server], watch, Phase::Deleted);
    }
    let request = ServerActionsRequest { verb: ServerVerb::Delete, servers };
    let outcomes: ServerOutcomes = client.post(&project.path("servers/actions")?, &request)?;
    let failed = outcomes.outcomes.iter().any(|outcome| outcome.problem.is_some());
    if failed || !watch.watch {
        return concluded(format, &outcomes);
    }
    let servers = outcomes.outcomes.into_iter().filter_map(|outcome| outcome.done).collect();
    stay(client, format, project, servers, watch, Phase::Deleted)
}

/// Prints what came of each, and fails where one of them failed.
fn concluded(format: Format, outcomes: &ServerOutcomes) -> Result<(), Failure> {
    format.print(outcomes)?;
    match outcomes.outcomes.iter().filter(|outcome| outcome.problem.is_some()).count() {
        0 => Ok(()),
        failed => Err(Failure::Other(format!("{failed} of {} were refused", outcomes.outcomes.len()))),
    }
}

/// Stays until all servers are in the phase or have stopped, where that was asked for; then prints them.
fn stay(
    client: &Client,
    format: Format,
    project: &ProjectArg,
    mut servers: Vec<ServerView>,
    args: &watch::WatchArgs,
    goal: Phase,
) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let mut said = String::new();
    let over =
        |server: &ServerView| server.phase == goal || (server.phase == Phase::Error && goal == Phase::Active);
    while args.watch && !servers.iter().all(over) {
        if Instant::now() > end {
            return Err(Failure::Timeout(format!("not {goal} after {} s", args.timeout)));
        }
        let line = servers.iter().map(progress).collect::<Vec<_>>().join(" · ");
        if line != said {
            eprintln!("{}", plain(&line));
            said = line;
        }
        std::thread::sleep(INTERVAL);
        for server in &mut servers {
            match client.get::<ServerDetail>(&project.path(&format!("servers/{}", server.id))?) {
                Ok(detail) => *server = detail.server,
                // A server that restarts is back soon; it loses nothing.
                Err(Failure::Unreachable { .. } | Failure::Timeout(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let stopped = servers.iter().filter(|server| server.phase == Phase::Error).count();
    match servers.as_slice() {
        [one] => format.print(one)?,
        _ => format.print(&Page { items: servers, next: None })?,
    }
    match stopped {
        0 => Ok(()),
        _ if args.watch => {
            Err(Failure::Other(format!("{stopped} stopped with a cause; see `billet server show`")))
        }
        _ => Ok(()),
    }
}

fn progress(server: &ServerView) -> String {
    let mut text = format!("{} {}", server.name, server.phase);
    if let Some(progress) = &server.progress {
        text.push_str(&format!(" ({}", progress.stage));
        // In a log, a line per percent would be too many.
        if let Some(percent) = progress.percent {
            let percent = if std::io::stderr().is_terminal() { percent } else { percent / 10 * 10 };
            text.push_str(&format!(" {percent} %"));
        }
        text.push(')');
    }
    text
}

fn took(server: &ServerView) -> Option<String> {
    Some(span(u64::try_from(server.active?.since(server.created).as_millis()).unwrap_or(u64::MAX)))
}

impl Show for Page<ServerView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No servers. Make one with `billet server create`.".to_owned();
        }
        let rows = self.items.iter().map(|s| {
            let node = s.node_name.clone().unwrap_or_else(|| "-".to_owned());
            let flavor = s.flavor.clone().unwrap_or_else(|| "-".to_owned());
            let note =
                s.note.clone().or_else(|| s.progress.as_ref().map(|p| p.stage.clone())).unwrap_or_default();
            vec![
                s.name.clone(),
                s.phase.to_string(),
                flavor,
                s.image_name.clone(),
                node,
                moment(s.created),
                note,
            ]
        });
        table(&["name", "phase", "flavor", "image", "node", "created", ""], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|s| s.name.clone()).collect()
    }
}

impl Show for ServerView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("phase", Some(self.phase.to_string())),
            ("note", self.note.clone()),
            ("progress", self.progress.as_ref().map(|_| progress(self))),
            ("fault", self.fault.then(|| "its machine is in fault".to_owned())),
            ("power", self.power.clone()),
            ("flavor", self.flavor.clone()),
            ("node", self.node_name.clone()),
            ("image", Some(self.image_name.clone())),
            ("host name", Some(self.hostname.clone())),
            ("cores", Some(self.amounts.cores.to_string())),
            ("memory", Some(memory(self.amounts.memory_mib << 20))),
            ("created", Some(format!("{} by {}", moment(self.created), self.created_by))),
            (
                "came up",
                self.active.map(|at| format!("{} after {}", moment(at), took(self).unwrap_or_default())),
            ),
            ("deleted", self.deleted.map(moment)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for ServerDetail {
    fn table(&self) -> String {
        let mut text = self.server.table();
        let addresses: Vec<String> = self.addresses.iter().map(|a| a.address.to_string()).collect();
        text.push_str(&facts(&[("addresses", Some(addresses.join(", ")).filter(|a| !a.is_empty()))]));
        if !self.timeline.phases.is_empty() {
            text.push('\n');
            let rows = self.timeline.phases.iter().map(|phase| {
                vec![phase.phase.clone(), span(phase.offset_ms), phase.took_ms.map(span).unwrap_or_default()]
            });
            text.push_str(&table(&["phase", "after", "took"], rows));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        self.server.names()
    }
}

impl Show for ServerOutcomes {
    fn table(&self) -> String {
        let row = |outcome: &ServerOutcome| {
            let said = match (&outcome.done, &outcome.problem) {
                (_, Some(problem)) => problem.message.clone(),
                (Some(server), None) => server.phase.to_string(),
                (None, None) => String::new(),
            };
            let done = if outcome.problem.is_some() { "refused" } else { "done" };
            vec![outcome.server.clone(), done.to_owned(), said]
        };
        table(&["server", "outcome", ""], self.outcomes.iter().map(row))
    }

    fn names(&self) -> Vec<String> {
        self.outcomes.iter().filter(|o| o.problem.is_none()).map(|o| o.server.clone()).collect()
    }
}

impl Show for FaultReportView {
    fn table(&self) -> String {
        facts(&[
            ("id", Some(self.id.to_string())),
            ("server", Some(self.server.to_string())),
            ("node", self.node.clone()),
            ("reported", Some(format!("{} by {}", moment(self.at), self.reported_by))),
            ("words", Some(self.words.clone())),
            ("closed", self.closed.map(moment)),
            ("answer", self.answer.clone()),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.to_string()]
    }
}

impl Show for Page<FaultReportView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "Nothing was reported.".to_owned();
        }
        let row = |f: &FaultReportView| {
            let state = if f.closed.is_some() { "closed" } else { "open" };
            let node = f.node.clone().unwrap_or_else(|| "-".to_owned());
            vec![moment(f.at), node, f.reported_by.clone(), state.to_owned(), f.words.clone()]
        };
        table(&["reported", "node", "by", "state", "words"], self.items.iter().map(row))
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|f| f.id.to_string()).collect()
    }
}
