//! `billet key|quota|usage|sla …`: what projects keep, may have and used.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boot_server_core::amounts::{Amounts, Resource};
use boot_server_core::quota::Limits;
use boot_server_core::{sla, usage};
use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, print, table};
use super::server::ProjectArg;
use super::text::{moment, span};
use crate::http::api::SIGNATURE;
use crate::http::api::server_requests::KeyRequest;
use crate::minisign;
use crate::view::Page;
use crate::view::servers::{KeyView, QuotaView};

/// Largest report that is read, in octets.
const REPORT_MAX: u64 = 256 << 20;

/// Keys of a project.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(flatten)]
    project: ProjectArg,
    #[command(subcommand)]
    command: KeyCommand,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// SSH keys of the project
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// Keep an SSH public key under a name
    Add {
        /// Its name
        name: String,
        /// File with the public key, one line
        file: PathBuf,
    },
    /// Forget a key; servers that have it keep it
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        name: String,
    },
}

/// What a project may have.
#[derive(Debug, Args)]
pub struct QuotaArgs {
    #[command(flatten)]
    project: ProjectArg,
    #[command(subcommand)]
    command: QuotaCommand,
}

/// What can be done with quotas.
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// What the project may have, and what it has
    Show(AgainArgs),
    /// Set what the project may have: what is not given has no limit
    Set {
        /// Servers
        #[arg(long)]
        servers: Option<u64>,
        /// Cores
        #[arg(long)]
        cores: Option<u64>,
        /// MiB of memory
        #[arg(long)]
        memory_mib: Option<u64>,
        /// Disks
        #[arg(long)]
        disks: Option<u64>,
        /// Volumes
        #[arg(long)]
        volumes: Option<u64>,
        /// GiB of volumes
        #[arg(long)]
        volume_gib: Option<u64>,
        /// Networks
        #[arg(long)]
        networks: Option<u64>,
        /// Addresses
        #[arg(long)]
        addresses: Option<u64>,
        /// Snapshots
        #[arg(long)]
        snapshots: Option<u64>,
    },
}

/// What was used.
#[derive(Debug, Args)]
pub struct UsageArgs {
    #[command(flatten)]
    project: ProjectArg,
    #[command(subcommand)]
    command: UsageCommand,
}

/// A time.
#[derive(Debug, Clone, Copy, Args)]
pub struct PeriodArgs {
    /// From this day or moment (UTC), such as 2026-11-01; 30 days before --to if not given
    #[arg(long, value_parser = moment_of)]
    from: Option<u64>,
    /// To before this day or moment (UTC); now if not given
    #[arg(long, value_parser = moment_of)]
    to: Option<u64>,
}

/// Form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileForm {
    /// For spreadsheets
    Csv,
    /// For programs
    Json,
}

/// What can be done with usage.
#[derive(Debug, Subcommand)]
pub enum UsageCommand {
    /// What the project used, or all projects if none is given
    Show {
        #[command(flatten)]
        period: PeriodArgs,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// What all projects used, as a file with its signature beside it
    Export {
        #[command(flatten)]
        period: PeriodArgs,
        /// Form of the file
        #[arg(long, value_enum, default_value_t = FileForm::Csv)]
        form: FileForm,
        /// The file; its signature gets the same name with .minisig
        file: PathBuf,
    },
    /// The public key that signs exports
    Key,
    /// Check a file against its signature, without any server
    Verify {
        /// The file
        file: PathBuf,
        /// Its signature; the same name with .minisig if not given
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
        /// The public key, or the file that it is in
        #[arg(long, value_name = "KEY|FILE")]
        key: String,
    },
}

/// How well servers were there.
#[derive(Debug, Args)]
pub struct SlaArgs {
    #[command(flatten)]
    project: ProjectArg,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    again: AgainArgs,
}

fn moment_of(text: &str) -> Result<u64, String> {
    let at = match text.parse::<jiff::Timestamp>() {
        Ok(at) => at,
        Err(_) => {
            let day = text
                .parse::<jiff::civil::Date>()
                .map_err(|_| "give a day as 2026-11-01, or a moment as 2026-11-01T00:00:00Z")?;
            let zoned = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| error.to_string())?;
            zoned.timestamp()
        }
    };
    u64::try_from(at.as_millisecond()).map_err(|_| "before 1970 nothing was used".to_owned())
}

impl PeriodArgs {
    fn query(self) -> String {
        let mut query = String::from("?");
        for (name, value) in [("from", self.from), ("to", self.to)] {
            if let Some(value) = value {
                query.push_str(&format!("{name}={value}&"));
            }
        }
        query
    }
}

/// Runs a command about keys.
pub(super) fn keys(client: &Client, format: Format, args: KeyArgs) -> Result<(), Failure> {
    let KeyArgs { project, command } = args;
    match command {
        KeyCommand::List(again) => {
            let (list, stream) = (project.path("keys")?, project.path(SITE)?);
            again.list(client, &stream, format, || client.all::<KeyView>(&list))
        }
        KeyCommand::Add { name, file } => {
            let public_key = std::fs::read_to_string(&file)
                .map_err(|error| Failure::Other(format!("cannot read {}: {error}", file.display())))?;
            let request = KeyRequest { name, public_key };
            format.print(&client.post::<_, KeyView>(&project.path("keys")?, &request)?)
        }
        KeyCommand::Remove { name } => client.delete(&project.path(&format!("keys/{}", encode(&name)))?),
    }
}

/// Runs a command about quotas.
pub(super) fn quota(client: &Client, format: Format, args: QuotaArgs) -> Result<(), Failure> {
    let QuotaArgs { project, command } = args;
    match command {
        QuotaCommand::Show(again) => {
            let (quota, stream) = (project.path("quota")?, project.path(SITE)?);
            again.list(client, &stream, format, || client.get::<QuotaView>(&quota))
        }
        QuotaCommand::Set {
            servers,
            cores,
            memory_mib,
            disks,
            volumes,
            volume_gib,
            networks,
            addresses,
            snapshots,
        } => {
            let limits = Limits {
                servers,
                cores,
                memory_mib,
                disks,
                volumes,
                volume_gib,
                networks,
                addresses,
                snapshots,
            };
            format.print(&client.put::<_, QuotaView>(&project.path("quota")?, &limits)?)
        }
    }
}

/// Runs a command about usage. `client` is asked for only where there is something to ask a server.
pub(super) fn usage(
    client: impl FnOnce() -> Result<Client, Failure>,
    format: Format,
    args: UsageArgs,
) -> Result<(), Failure> {
    let UsageArgs { project, command } = args;
    match command {
        UsageCommand::Show { period, again } => {
            let client = client()?;
            let path = project.path_or_site(&format!("usage{}", period.query()))?;
            let stream = project.path_or_site(SITE)?;
            again.list(&client, &stream, format, || client.get::<usage::Report>(&path))
        }
        UsageCommand::Export { period, form, file } => export(&client()?, period, form, file),
        UsageCommand::Key => {
            let key = client()?.octets("usage/key", REPORT_MAX)?;
            print(&String::from_utf8_lossy(&key))
        }
        UsageCommand::Verify { file, signature, key } => verify(&file, signature, key),
    }
}

fn signature_of(file: &std::path::Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".minisig");
    PathBuf::from(name)
}

fn export(client: &Client, period: PeriodArgs, form: FileForm, file: PathBuf) -> Result<(), Failure> {
    let form = match form {
        FileForm::Csv => "csv",
        FileForm::Json => "json",
    };
    let path = format!("usage/export{}format={form}", period.query());
    let (octets, header) = client.octets_with(&path, REPORT_MAX, SIGNATURE)?;
    let signature = header.and_then(|header| STANDARD.decode(header).ok());
    let signature =
        signature.ok_or_else(|| Failure::Other("the server's answer has no signature".to_owned()))?;
    for (path, octets) in [(&file, octets), (&signature_of(&file), signature)] {
        std::fs::write(path, octets)
            .map_err(|error| Failure::Other(format!("cannot write {}: {error}", path.display())))?;
    }
    print(&format!("{}\n{}\n", file.display(), signature_of(&file).display()))
}

pub(super) fn verify(file: &std::path::Path, signature: Option<PathBuf>, key: String) -> Result<(), Failure> {
    let read = |path: &std::path::Path| {
        std::fs::read(path)
            .map_err(|error| Failure::Other(format!("cannot read {}: {error}", path.display())))
    };
    let signature = read(&signature.unwrap_or_else(|| signature_of(file)))?;
    // A key is one line of base64, which is no name of a file.
    let key = match std::fs::read_to_string(&key) {
        Ok(text) => text,
        Err(_) => key,
    };
    let comment =
        minisign::verify(&read(file)?, &String::from_utf8_lossy(&signature), &key).map_err(|error| {
            let hint =
                "get the public key from the server itself (`billet usage key`), by a way that you trust";
            Failure::Hinted { message: error.to_string(), hint: hint.to_owned() }
        })?;
    print(&format!("{}: the signature holds ({})\n", file.display(), super::text::plain(&comment)))
}

/// Prints how well servers were there.
pub(super) fn sla(client: &Client, format: Format, args: SlaArgs) -> Result<(), Failure> {
    let path = args.project.path_or_site(&format!("sla{}", args.period.query()))?;
    let stream = args.project.path_or_site(SITE)?;
    args.again.list(client, &stream, format, || client.get::<sla::Report>(&path))
}

impl Show for KeyView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.clone())),
            ("fingerprint", Some(self.fingerprint.clone())),
            ("key", Some(self.public_key.clone())),
            ("added", Some(format!("{} by {}", moment(self.created), self.created_by))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for Page<KeyView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No keys. Add one with `billet key add NAME FILE`.".to_owned();
        }
        let row = |k: &KeyView| {
            vec![k.name.clone(), k.fingerprint.clone(), k.created_by.clone(), moment(k.created)]
        };
        table(&["name", "fingerprint", "by", "added"], self.items.iter().map(row))
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|k| k.name.clone()).collect()
    }
}

impl Show for QuotaView {
    fn table(&self) -> String {
        let row = |of: Resource| {
            let limit = self.limits.of(of).map_or_else(|| "-".to_owned(), |limit| limit.to_string());
            vec![of.as_str().replace('_', " "), self.used.of(of).to_string(), limit]
        };
        table(&["", "used", "limit"], Resource::ALL.map(row))
    }

    fn names(&self) -> Vec<String> {
        Resource::ALL.map(|of| of.as_str().to_owned()).to_vec()
    }
}

fn hours(amounts: &Amounts, of: Resource) -> String {
    let tenths = amounts.of(of) / 360;
    format!("{}.{}", tenths / 10, tenths % 10)
}

impl Show for usage::Report {
    fn table(&self) -> String {
        let mut text = format!("{} to {}\n\n", moment(self.period.from), moment(self.period.to));
        let lines = self.lines.iter().map(|line| {
            vec![
                line.project_name.clone(),
                line.kind.as_str().to_owned(),
                line.name.clone(),
                line.flavor.clone().unwrap_or_else(|| "-".to_owned()),
                moment(line.start),
                if line.open { "in use".to_owned() } else { moment(line.end) },
                span(line.seconds * 1000),
            ]
        });
        text.push_str(&table(&["project", "kind", "name", "flavor", "from", "to", "time"], lines));
        text.push_str("\n\n");
        let totals = self.totals.iter().map(|total| {
            let of = |of| hours(&total.seconds, of);
            vec![
                total.project_name.clone(),
                of(Resource::Servers),
                of(Resource::Cores),
                hours(
                    &Amounts { memory_mib: total.seconds.memory_mib >> 10, ..Amounts::default() },
                    Resource::MemoryMib,
                ),
                of(Resource::VolumeGib),
            ]
        });
        text.push_str(&table(
            &["project", "server hours", "core hours", "GiB hours", "volume GiB hours"],
            totals,
        ));
        text
    }

    fn names(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.name.clone()).collect()
    }
}

fn percent(availability: &sla::Availability) -> String {
    match availability.per_100_000 {
        Some(share) => format!("{}.{:03} %", share / 1000, share % 1000),
        None => "-".to_owned(),
    }
}

fn percentiles(of: &sla::Percentiles) -> Vec<String> {
    [of.p50, of.p90, of.p99].map(|s| s.map_or_else(|| "-".to_owned(), |s| span(s * 1000))).to_vec()
}

impl Show for sla::Report {
    fn table(&self) -> String {
        let mut text = format!("{} to {}\n\n", moment(self.period.from), moment(self.period.to));
        let projects = self.projects.iter().map(|project| {
            let mut row =
                vec![project.project.clone(), project.servers.to_string(), percent(&project.availability)];
            row.extend(percentiles(&project.provisioning));
            row
        });
        text.push_str(&table(&["project", "servers", "available", "p50", "p90", "p99"], projects));
        text.push_str("\n\n");
        let servers = self.servers.iter().map(|server| {
            vec![
                server.project.clone(),
                server.name.clone(),
                percent(&server.availability),
                span(server.availability.fault_seconds * 1000),
                server.provisioned_in.map(|s| span(s * 1000)).unwrap_or_default(),
            ]
        });
        text.push_str(&table(&["project", "server", "available", "in fault", "came in"], servers));
        text
    }

    fn names(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.name.clone()).collect()
    }
}
