//! `billet check-network`.

use boot_server_core::check::{Finding, Severity};
use clap::Args;

use super::output::{Show, table};
use super::text::moment;
use super::{Connection, Failure, Format};
use crate::check;
use crate::serve::{ServeArgs, configuration};
use crate::view::NetworkView;

/// Options of `billet check-network`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Look from here, without asking a running server
    #[arg(long)]
    standalone: bool,
    /// What would be served
    #[command(flatten)]
    serve: ServeArgs,
}

pub(super) fn run(connection: &Connection, format: Format, args: &CheckArgs) -> Result<(), Failure> {
    let asked = if args.standalone { None } else { ask(connection)? };
    let view = match asked {
        Some(view) => view,
        None => {
            let config = configuration(&args.serve).map_err(|error| Failure::Other(format!("{error:#}")))?;
            let findings = check::before_serving(&config);
            NetworkView { serving: false, findings, machines: Vec::new() }
        }
    };
    format.print(&view)?;
    match view.findings.iter().filter(|f| f.severity == Severity::Error).count() {
        0 => Ok(()),
        1 => Err(Failure::Other("1 finding keeps machines from booting".to_owned())),
        n => Err(Failure::Other(format!("{n} findings keep machines from booting"))),
    }
}

/// What the running server found; `None` where none runs.
fn ask(connection: &Connection) -> Result<Option<NetworkView>, Failure> {
    // Before the first start there is no token either.
    let Ok(client) = connection.client() else { return Ok(None) };
    match client.get("network/findings") {
        Ok(view) => Ok(Some(view)),
        Err(Failure::Unreachable { .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

impl Show for NetworkView {
    fn table(&self) -> String {
        let row = |finding: &Finding| {
            vec![
                finding.severity.to_string(),
                finding.code.clone(),
                finding.what.clone(),
                finding.todo.clone(),
            ]
        };
        let mut text = if self.findings.is_empty() {
            "Nothing was found that would keep machines from booting.\n".to_owned()
        } else {
            table(&["severity", "code", "what", "what to do"], self.findings.iter().map(row))
        };
        if !self.machines.is_empty() {
            text.push_str("\nMachines that began to boot and went no further:\n");
            let rows = self.machines.iter().map(|m| {
                vec![m.mac.to_string(), moment(m.last), m.finding.what.clone(), m.finding.todo.clone()]
            });
            text.push_str(&table(&["machine", "last seen", "what", "what to do"], rows));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        self.findings.iter().map(|finding| finding.code.clone()).collect()
    }
}
