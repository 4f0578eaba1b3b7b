//! `billet node enroll`, `billet node act`: machines that are announced, and one verb for many of them.

use bmc::PowerAction;
use boot_server_core::node::place::{Rack, Unit};
use clap::ValueEnum;
use protocol::MacAddr;
use uuid::Uuid;

use super::Failure;
use super::client::Client;
use super::output::{Format, Show, table};
use crate::http::api::requests::{BulkFilter, BulkRequest, BulkVerb, EnrollRequest, PlaceRequest};
use crate::view::{BulkView, NodeView};

/// A machine to announce.
#[derive(Debug, clap::Args)]
pub struct EnrollArgs {
    /// Its name; made of its first address if not given
    name: Option<String>,
    /// Address of a port that it may boot from; again for more
    #[arg(long, value_name = "ADDRESS", required_unless_present = "uuid")]
    mac: Vec<MacAddr>,
    /// Its SMBIOS UUID
    #[arg(long)]
    uuid: Option<Uuid>,
    /// Its serial number
    #[arg(long)]
    serial: Option<String>,
    /// The rack, as the site calls it
    #[arg(long)]
    rack: Option<Rack>,
    /// The lowest unit that it takes there, from 1
    #[arg(long, requires = "rack")]
    unit: Option<Unit>,
}

/// Announces a machine.
pub(super) fn enroll(client: &Client, format: Format, args: EnrollArgs) -> Result<(), Failure> {
    let EnrollArgs { name, mac, uuid, serial, rack, unit } = args;
    let place = rack.map(|rack| PlaceRequest { rack: Some(rack), unit, ..PlaceRequest::default() });
    let request = EnrollRequest { name, macs: mac, uuid, serial, place, bmc: None };
    // Made once, also where the answer is lost on the way and somebody types it again at once.
    let key = Uuid::now_v7().to_string();
    format.print(&client.post_with::<_, NodeView>("nodes", &request, None, Some(&key))?)
}

/// What is done to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ManyVerb {
    /// Take them out of enroll, available or failed
    Manage,
    /// Look at their hardware again
    Inspect,
    /// Stop their jobs at the next safe point
    Abort,
    /// Do their failed jobs again
    Retry,
    /// Offer them; no disk is wiped
    Provide,
    /// Put them under maintenance (with --reason), or end that
    Maintenance,
    /// Switch them on
    PowerOn,
    /// Ask their OS to shut down
    PowerSoftOff,
    /// Switch them off at once
    PowerForceOff,
    /// Restart them at once
    PowerReset,
}

/// Nodes, and what to do with them.
#[derive(Debug, clap::Args)]
pub struct ActArgs {
    /// What to do
    #[arg(value_enum)]
    verb: ManyVerb,
    /// Names or ids; those that the options find if none is given
    #[arg(conflicts_with_all = ["state", "rack", "pool", "tag", "query", "all"])]
    nodes: Vec<String>,
    /// Nodes in this state
    #[arg(long)]
    state: Option<String>,
    /// Nodes in this rack
    #[arg(long)]
    rack: Option<String>,
    /// Nodes in this pool
    #[arg(long)]
    pool: Option<String>,
    /// Nodes with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Nodes whose name, serial number, address or product contains this
    #[arg(long, short)]
    query: Option<String>,
    /// All nodes
    #[arg(long, conflicts_with_all = ["state", "rack", "pool", "tag", "query"])]
    all: bool,
    /// For `maintenance`: why; none ends it
    #[arg(long)]
    reason: Option<String>,
    /// Only say which nodes these are
    #[arg(long)]
    dry_run: bool,
}

/// One verb for many nodes. Fails where one of them refused.
pub(super) fn act(client: &Client, format: Format, args: ActArgs) -> Result<(), Failure> {
    let ActArgs { verb, nodes, state, rack, pool, tag, query, all, reason, dry_run } = args;
    let filter = BulkFilter { state, rack, pool, tag, maintenance: None, q: query };
    let (nodes, filter) = match (nodes.is_empty(), all || filter != BulkFilter::default()) {
        (false, _) => (Some(nodes), None),
        (true, true) => (None, Some(filter)),
        (true, false) => {
            return Err(Failure::Usage(
                "name nodes, or say which by --state, --rack, --pool, --tag, --query or --all".to_owned(),
            ));
        }
    };
    let (verb, power) = of(verb);
    let request = BulkRequest { verb, nodes, filter, reason, power, dry_run };
    let done: BulkView = client.post_with("nodes/actions", &request, None, None)?;
    format.print(&done)?;
    match done.refused {
        0 => Ok(()),
        refused => Err(Failure::Other(format!("{refused} of {} nodes refused", done.results.len()))),
    }
}

fn of(verb: ManyVerb) -> (BulkVerb, Option<PowerAction>) {
    let power = |action| (BulkVerb::Power, Some(action));
    match verb {
        ManyVerb::Manage => (BulkVerb::Manage, None),
        ManyVerb::Inspect => (BulkVerb::Inspect, None),
        ManyVerb::Abort => (BulkVerb::Abort, None),
        ManyVerb::Retry => (BulkVerb::Retry, None),
        ManyVerb::Provide => (BulkVerb::Provide, None),
        ManyVerb::Maintenance => (BulkVerb::Maintenance, None),
        ManyVerb::PowerOn => power(PowerAction::On),
        ManyVerb::PowerSoftOff => power(PowerAction::SoftOff),
        ManyVerb::PowerForceOff => power(PowerAction::ForceOff),
        ManyVerb::PowerReset => power(PowerAction::Reset),
    }
}

impl Show for BulkView {
    fn table(&self) -> String {
        let rows = self.results.iter().map(|r| {
            let state = r.state.map(|state| state.to_string()).unwrap_or_default();
            let why = r.refused.as_ref().map(|problem| problem.message.clone()).unwrap_or_default();
            vec![r.node.clone(), state, why]
        });
        table(&["node", "state", "refused"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.results.iter().filter(|r| r.refused.is_none()).map(|r| r.node.clone()).collect()
    }
}
