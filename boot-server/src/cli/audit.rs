//! `billet audit …`: who did what, and whether the record of it is as it was written.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use boot_server_core::audit::Anchor;
use clap::Subcommand;
use protocol::Timestamp;

use super::Failure;
use super::client::{Client, Connection, encode};
use super::output::{Format, Show, facts, table};
use super::text::moment;
use crate::audit::export;
use crate::store::Store;
use crate::view::{AuditHead, AuditVerdict, AuditView, Page};

/// What can be done with the audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// The newest entries, newest last
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Check the chain: of the server, of an exported file, or of a database
    ///
    /// Says `intact: N entries, head HASH`, or which entry is wrong and how; then the exit code is 1. The chain alone cannot show
    /// that its end was cut off, or that it was written anew from some entry on: give heads that were kept elsewhere with --head.
    Verify(VerifyArgs),
    /// The whole chain as lines of JSON
    Export {
        /// Only behind this entry
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
        /// File to write; `-` for standard output
        #[arg(long, short, default_value = "-", value_name = "FILE")]
        file: PathBuf,
    },
    /// Number and hash of the newest entry, to be kept elsewhere
    Head,
}

/// `billet audit list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// By this user or token
    #[arg(long)]
    actor: Option<String>,
    /// About this node (name or id)
    #[arg(long, conflicts_with = "project")]
    node: Option<String>,
    /// About this project (name or id); its auditors may read that too
    #[arg(long)]
    project: Option<String>,
    /// asked, answered, read, login, console, bmc, access, approval, change or audit
    #[arg(long)]
    kind: Option<String>,
    /// What this request caused (id)
    #[arg(long)]
    request: Option<String>,
    /// Not before this moment, such as 2026-11-27T05:00Z
    #[arg(long, value_parser = point)]
    since: Option<Timestamp>,
    /// Before this moment
    #[arg(long, value_parser = point)]
    until: Option<Timestamp>,
    /// Oldest first, behind this entry
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// How many
    #[arg(long, short = 'n', default_value_t = 50)]
    limit: usize,
}

/// `billet audit verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// An exported file, instead of the server
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    file: Option<PathBuf>,
    /// A database (billet.db, or a copy), instead of the server; it is only read
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// A head that was kept elsewhere; again for more
    #[arg(long, value_name = "NUMBER:HASH", value_parser = anchor)]
    head: Vec<Anchor>,
    /// The site's public key; a checkpoint by another one is wrong
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

pub(super) fn point(text: &str) -> Result<Timestamp, String> {
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let short = || format!("{}:00Z", text.trim_end_matches('Z')).parse::<jiff::Timestamp>().ok();
    let day = || format!("{text}T00:00:00Z").parse::<jiff::Timestamp>().ok();
    let found = zoned.or_else(short).or_else(day).ok_or("give a moment such as 2026-11-27T05:00Z")?;
    u64::try_from(found.as_millisecond()).map(Timestamp).map_err(|_| "that is before 1970".to_owned())
}

fn anchor(text: &str) -> Result<Anchor, String> {
    let parsed = text
        .split_once(':')
        .and_then(|(number, hash)| Some(Anchor { number: number.parse().ok()?, hash: hash.parse().ok()? }));
    parsed.ok_or_else(|| "give it as `billet audit head -o name` says it: NUMBER:HASH".to_owned())
}

pub(super) fn run(connection: &Connection, format: Format, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List(args) => list(&connection.client()?, format, &args),
        AuditCommand::Verify(args) => verify(connection, format, &args),
        AuditCommand::Export { after, file } => export(&connection.client()?, after, &file),
        AuditCommand::Head => format.print(&connection.client()?.get::<AuditHead>("audit/head")?),
    }
}

fn list(client: &Client, format: Format, args: &ListArgs) -> Result<(), Failure> {
    let of = args.project.as_deref().map(|project| format!("projects/{}/", encode(project)));
    let mut path = format!("{}audit?limit={}", of.unwrap_or_default(), args.limit);
    let moment = |at: Option<Timestamp>| at.map(|at| at.0.to_string());
    for (name, value) in [
        ("actor", args.actor.clone()),
        ("node", args.node.clone()),
        ("kind", args.kind.clone()),
        ("request", args.request.clone()),
        ("since", moment(args.since)),
        ("until", moment(args.until)),
        ("after", args.after.map(|n| n.to_string())),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encode(&value)));
        }
    }
    let mut page: Page<AuditView> = client.get(&path)?;
    page.items.sort_by_key(|entry| entry.number);
    format.print(&page)
}

fn verify(connection: &Connection, format: Format, args: &VerifyArgs) -> Result<(), Failure> {
    let other = |e: &dyn std::error::Error| match e.source() {
        Some(cause) => Failure::Other(format!("{e}: {cause}")),
        None => Failure::Other(e.to_string()),
    };
    let mut verdict = if let Some(file) = &args.file {
        AuditVerdict::of(&export::check_file(file, &args.head).map_err(|e| other(&e))?)
    } else if let Some(path) = &args.database {
        let check = |db: &_| export::check_database(db, &args.head);
        AuditVerdict::of(&Store::read_only(path.as_path(), check).map_err(|e| other(&e))?)
    } else if args.head.is_empty() {
        connection.client()?.get("audit/verify")?
    } else {
        return Err(Failure::Usage("--head is for --file and --database: export the chain first".to_owned()));
    };
    if let Some(key) = &args.key
        && let Some(foreign) = verdict.keys.iter().find(|known| !known.eq_ignore_ascii_case(key))
    {
        verdict.message = format!("a checkpoint is signed by another key: {foreign}");
        verdict.intact = false;
    }
    format.print(&verdict)?;
    match verdict.intact {
        true => Ok(()),
        false => Err(Failure::Other("the audit is not as it was written".to_owned())),
    }
}

fn export(client: &Client, after: Option<u64>, file: &Path) -> Result<(), Failure> {
    let path = after.map_or_else(|| "audit/export".to_owned(), |after| format!("audit/export?after={after}"));
    let mut stream = client.stream(&path, None)?;
    let name = file.display();
    let failed = |e: io::Error| Failure::Other(format!("cannot write {name}: {e}"));
    let mut buffer = vec![0; 1 << 16];
    let mut out: Box<dyn io::Write> = match file.as_os_str() == "-" {
        true => Box::new(io::stdout().lock()),
        false => Box::new(File::create(file).map_err(failed)?),
    };
    loop {
        let read = stream.read(&mut buffer);
        let read = read.map_err(|e| Failure::Other(format!("the server's answer broke off: {e}")))?;
        if read == 0 {
            return out.flush().map_err(failed);
        }
        out.write_all(&buffer[..read]).map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => failed(e),
        })?;
    }
}

impl Show for Page<AuditView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No entries.".to_owned();
        }
        let rows = self.items.iter().map(|it| {
            let fact = &it.fact;
            let status = fact.status.map(|s| s.to_string());
            let outcome = [status, Some(fact.outcome.clone()).filter(|o| !o.is_empty())];
            vec![
                it.number.to_string(),
                moment(fact.at),
                fact.kind.as_str().to_owned(),
                fact.actor.clone(),
                fact.source.clone().unwrap_or_else(|| "-".to_owned()),
                it.node_name.clone().unwrap_or_else(|| "-".to_owned()),
                fact.what.clone(),
                outcome.into_iter().flatten().collect::<Vec<_>>().join(" "),
            ]
        });
        table(&["number", "when", "kind", "by", "from", "node", "what", "outcome"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|it| it.number.to_string()).collect()
    }
}

impl Show for AuditHead {
    fn table(&self) -> String {
        let signed =
            self.checkpoint.as_ref().map(|it| format!("entry {}, {}", it.head.number, moment(it.at)));
        facts(&[
            ("head", Some(format!("entry {}", self.head.number))),
            ("hash", Some(self.head.hash.to_string())),
            ("entries", Some(self.entries.to_string())),
            (
                "begins behind",
                Some(format!("entry {}", self.anchor.number)).filter(|_| self.anchor.number > 0),
            ),
            ("last signed", signed),
            ("key", Some(self.key.clone())),
        ])
    }

    /// What `--head` takes.
    fn names(&self) -> Vec<String> {
        vec![format!("{}:{}", self.head.number, self.head.hash)]
    }
}

impl Show for AuditVerdict {
    fn table(&self) -> String {
        let mut text = self.message.clone();
        if self.intact && self.anchor.number > 0 {
            text.push_str(&format!("\nentries up to {} were forgotten", self.anchor.number));
        }
        if self.checkpoints > 0 {
            text.push_str(&format!(
                "\nit goes through {} signed heads, by {}",
                self.checkpoints,
                self.keys.join(", ")
            ));
        }
        super::text::plain_lines(&text)
    }

    fn names(&self) -> Vec<String> {
        vec![self.message.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_heads_are_read() {
        assert_eq!(point("1970-01-01T00:00:01Z"), Ok(Timestamp(1000)));
        assert_eq!(point("1970-01-01T00:01Z"), Ok(Timestamp(60_000)));
        assert_eq!(point("1970-01-02"), Ok(Timestamp(86_400_000)));
        assert!(point("yesterday").is_err());
        let hash = "ab".repeat(32);
        assert_eq!(anchor(&format!("7:{hash}")).unwrap().number, 7);
        assert!(anchor("7").is_err() && anchor("7:zz").is_err());
    }
}
