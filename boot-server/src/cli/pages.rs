//! What a shell or a reader of manuals wants: completion, with names that the server knows, and manual pages.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use serde::Deserialize;

use super::client::Connection;
use super::{Cli, Failure};
use crate::http::encode;
use crate::view::Page;

/// Names that are offered at once.
const OFFERED: usize = 50;
/// Arguments that are names, and where the API lists those.
const NAMES: [(&str, &str); 8] = [
    ("node", "nodes"),
    ("nodes", "nodes"),
    ("image", "images"),
    ("baseline", "baselines"),
    ("token", "tokens"),
    ("project", "projects"),
    ("pool", "pools"),
    ("flavor", "flavors"),
];

/// The command line with names of the server behind its arguments, for completion by `COMPLETE=bash billet`.
pub(super) fn with_names() -> Command {
    named(Cli::command())
}

fn named(command: Command) -> Command {
    let places: Vec<(String, &'static str)> = command
        .get_arguments()
        .filter_map(|arg| {
            let list = NAMES.iter().find(|(name, _)| *name == arg.get_id().as_str())?;
            Some((arg.get_id().to_string(), list.1))
        })
        .collect();
    let command = places.into_iter().fold(command, |command, (id, list)| {
        let completer = ArgValueCompleter::new(move |begun: &OsStr| names(list, begun));
        command.mut_arg(id, |arg| arg.add(completer))
    });
    command.mut_subcommands(named)
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// Names that begin so; none where the server cannot be asked: a completion must not complain.
fn names(list: &str, begun: &OsStr) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    let search = if list == "nodes" { format!("&fields=name&q={}", encode(&begun)) } else { String::new() };
    let page = Connection::default()
        .client()
        .and_then(|client| client.get::<Page<Named>>(&format!("{list}?limit=1000{search}")));
    let names = page.map(|page| page.items).unwrap_or_default().into_iter().map(|item| item.name);
    names.filter(|name| name.starts_with(&*begun)).take(OFFERED).map(CompletionCandidate::new).collect()
}

/// Writes a manual page for each command.
pub(super) fn manual(dir: &Path) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| Failure::Other(format!("cannot write to {}: {e}", dir.display()));
    fs::create_dir_all(dir).map_err(cannot)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_manual_page() {
        let dir = std::env::temp_dir().join(format!("billet-man-{}", uuid::Uuid::new_v4()));
        manual(&dir).unwrap();
        let page = fs::read_to_string(dir.join("billet-node-enroll.1")).unwrap();
        assert!(page.contains("Announce a machine"), "{page}");
        let main = fs::read_to_string(dir.join("billet.1")).unwrap();
        assert!(main.contains("Exit codes"), "{main}");
        assert!(fs::read_dir(&dir).unwrap().count() > 60);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn names_stand_behind_arguments_that_are_names() {
        let command = with_names();
        let node = command.find_subcommand("node").and_then(|node| node.find_subcommand("show")).unwrap();
        let arg = node.get_arguments().find(|arg| arg.get_id() == "node").unwrap();
        assert!(arg.get::<ArgValueCompleter>().is_some());
    }
}
