//! `billet event …`: what happened, and what happens.

use std::io::{BufRead, BufReader};
use std::thread;
use std::time::{Duration, Instant};

use boot_server_core::node::Severity;
use clap::Subcommand;
use protocol::NodeId;

use super::Failure;
use super::again::SITE;
use super::client::{Client, encode};
use super::output::{Format, Show, print, table};
use super::text::{escape_json, moment, plain};
use crate::view::{EventView, Page};

/// Pause before a broken stream is opened again.
const AGAIN: Duration = Duration::from_secs(2);
/// A server that restarts is back within this time.
const SERVER_GONE_MAX: Duration = Duration::from_mins(5);
/// Longest line of a stream that is read, in bytes; an event is a few hundred.
const LINE_MAX: u64 = 16 << 20;

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// The newest events, newest last
    #[command(visible_alias = "ls")]
    List {
        /// Only of this node (name or id)
        #[arg(long, conflicts_with = "project")]
        node: Option<String>,
        /// Of this project (name or id), as its members see it
        #[arg(long)]
        project: Option<String>,
        /// How many
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: usize,
    },
    /// Events as they happen
    Follow {
        /// Only of this node (name or id)
        #[arg(long, conflicts_with = "project")]
        node: Option<String>,
        /// Of this project (name or id), as its members see it
        #[arg(long)]
        project: Option<String>,
    },
}

/// Which events of the stream are shown.
#[derive(Debug, Clone, Default)]
pub(super) struct FollowFilter {
    pub(super) node: Option<NodeId>,
    /// The stream of this project, not that of the site.
    pub(super) project: Option<String>,
}

pub(super) fn run(client: &Client, format: Format, command: &EventCommand) -> Result<(), Failure> {
    match command {
        EventCommand::List { node, project, limit } => {
            list(client, format, &of(project.as_deref()), node.as_deref(), *limit)
        }
        EventCommand::Follow { node, project } => {
            let id = match node {
                Some(node) => Some(client.get::<crate::view::NodeView>(&super::node::path(node, ""))?.id),
                None => None,
            };
            follow(client, format, &FollowFilter { node: id, project: project.clone() })
        }
    }
}

/// The beginning of the address of what is a project's, or the site's.
fn of(project: Option<&str>) -> String {
    project.map(|project| format!("projects/{}/", encode(project))).unwrap_or_default()
}

/// The newest events, in the order in which they happened; `of` is the beginning of their address.
pub(super) fn list(
    client: &Client,
    format: Format,
    of: &str,
    node: Option<&str>,
    limit: usize,
) -> Result<(), Failure> {
    let mut path = format!("{of}events?limit={limit}");
    if let Some(node) = node {
        path.push_str(&format!("&node={}", encode(node)));
    }
    let mut page: Page<EventView> = client.get(&path)?;
    page.items.sort_by_key(|e| e.id);
    format.print(&page)
}

/// Prints events as they happen, until the server is gone for long or the output is closed.
pub(super) fn follow(client: &Client, format: Format, filter: &FollowFilter) -> Result<(), Failure> {
    let stream = format!("{}{SITE}", of(filter.project.as_deref()));
    let mut last = None;
    let mut heard = Instant::now();
    loop {
        match client.stream(&stream, last) {
            Ok(stream) => {
                heard = Instant::now();
                let mut reader = BufReader::new(stream);
                while let Some(event) = next_event(&mut reader) {
                    heard = Instant::now();
                    last = Some(event.id);
                    if filter.node.is_none_or(|n| event.node == Some(n)) {
                        print(&one(format, &event)?)?;
                    }
                }
            }
            Err(Failure::Unreachable { .. } | Failure::Timeout(_)) if heard.elapsed() < SERVER_GONE_MAX => {}
            Err(other) => return Err(other),
        }
        thread::sleep(AGAIN);
    }
}

/// The next event of a stream of server-sent events (HTML standard, section 9.2.6); other messages are passed over.
fn next_event(reader: &mut impl BufRead) -> Option<EventView> {
    let (mut kind, mut data) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        let read = std::io::Read::take(&mut *reader, LINE_MAX).read_line(&mut line).ok()?;
        if read == 0 {
            return None;
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            let event = (kind == "event").then(|| serde_json::from_str(&data).ok()).flatten();
            if event.is_some() {
                return event;
            }
            (kind, data) = (String::new(), String::new());
        } else if let Some(value) = line.strip_prefix("event:") {
            kind = value.trim_start().to_owned();
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push_str(value.strip_prefix(' ').unwrap_or(value));
        }
    }
}

fn one(format: Format, event: &EventView) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(format!(
            "{}  {:<7}  {}  {}  {}\n",
            moment(event.at),
            severity(event.severity),
            plain(event.node_name.as_deref().unwrap_or("-")),
            plain(&event.kind),
            plain(&event.message)
        )),
        // One document per line.
        Format::Json => {
            let text = serde_json::to_string(event).map_err(|e| Failure::Other(e.to_string()))?;
            Ok(format!("{}\n", escape_json(&text)))
        }
        Format::Yaml => Ok(format!("---\n{}", format.render(event)?)),
        Format::Name => Ok(format!("{}\n", event.id)),
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

impl Show for EventView {
    fn table(&self) -> String {
        plain(&self.message)
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.to_string()]
    }
}

impl Show for Page<EventView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "Nothing happened yet.".to_owned();
        }
        let rows = self.items.iter().map(|e| {
            vec![
                moment(e.at),
                severity(e.severity).to_owned(),
                e.node_name.clone().unwrap_or_else(|| "-".to_owned()),
                e.actor.clone(),
                e.kind.clone(),
                e.message.clone(),
            ]
        });
        table(&["when", "severity", "node", "by", "kind", "message"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|e| e.id.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_message_by_message() {
        let stream = concat!(
            ": hello\n\n",
            "event: node\ndata: {\"x\":1}\n\n",
            "event: event\nid: 7\ndata: {\"id\":7,\"at\":0,\"node\":null,\"node_name\":null,\"actor\":\"server\",\n",
            "data: \"kind\":\"k\",\"severity\":\"info\",\"message\":\"m\"}\n\n",
            "event: event\ndata: broken\n\n",
            "event: event\ndata: {\"id\":8"
        );
        let mut reader = stream.as_bytes();
        assert_eq!(next_event(&mut reader).map(|e| e.id), Some(7));
        assert_eq!(
            next_event(&mut reader).map(|e| e.id),
            None,
            "a broken message and a cut one are not events"
        );
    }
}
