//! `billet machine …`: machines that are expected; and `billet node replace`.

use std::path::PathBuf;

use boot_server_core::arrivals::Arrival;
use boot_server_core::plural::count;
use clap::Subcommand;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::bmc::read;
use super::client::{Client, encode};
use super::node::path;
use super::output::{Format, Show, facts, table};
use super::text::moment;
use crate::http::api::requests::{ExpectedMachinesRequest, ReplaceRequest};
use crate::view::{ExpectedImport, Page, ReplaceView};

/// What can be done with machines that are expected.
#[derive(Debug, Subcommand)]
pub enum MachineCommand {
    /// Machines that are expected and never came
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// Take in a list, all of it or nothing: CSV, or JSON
    ///
    /// CSV has the headings name, mac, uuid, serial, model, pool, rack, unit, height, room, power_feed, bmc_address, tags, purchased,
    /// warranty_end, in any order; name and one of mac, uuid, serial are needed. When such a machine boots, it takes its
    /// name, place, model and papers.
    Import {
        /// The list; `-` for standard input
        file: PathBuf,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Expect a machine no longer
    #[command(visible_alias = "rm")]
    Remove {
        /// Name
        name: String,
    },
}

pub(super) fn run(client: &Client, format: Format, command: MachineCommand) -> Result<(), Failure> {
    match command {
        MachineCommand::List(again) => {
            again.list(client, SITE, format, || client.all::<Arrival>("expected-machines"))
        }
        MachineCommand::Import { file, dry_run } => {
            let text = read(&file)?;
            let request = match text.trim_start().starts_with('[') {
                true => {
                    let machines = serde_json::from_str(&text)
                        .map_err(|e| Failure::Usage(format!("{} is no list: {e}", file.display())))?;
                    ExpectedMachinesRequest { machines: Some(machines), dry_run, ..Default::default() }
                }
                false => ExpectedMachinesRequest { csv: Some(text), dry_run, ..Default::default() },
            };
            format.print(&client.post::<_, ExpectedImport>("expected-machines", &request)?)
        }
        MachineCommand::Remove { name } => client.delete(&format!("expected-machines/{}", encode(&name))),
    }
}

fn rows(machines: &[Arrival]) -> String {
    let rows = machines.iter().map(|m| {
        vec![
            m.name.clone(),
            m.keys().join(", "),
            m.model.clone().unwrap_or_default(),
            m.pool.as_ref().map(ToString::to_string).unwrap_or_default(),
            m.place.as_ref().map(ToString::to_string).unwrap_or_default(),
            m.warranty_end.map(|day| day.to_string()).unwrap_or_default(),
            moment(m.announced),
        ]
    });
    table(&["name", "known by", "model", "pool", "place", "warranty", "announced"], rows)
}

impl Show for Page<Arrival> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No machine is expected. Announce some: `billet machine import FILE`.".to_owned();
        }
        rows(&self.items)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|m| m.name.clone()).collect()
    }
}

impl Show for ExpectedImport {
    fn table(&self) -> String {
        let verb = if self.dry_run { "would be" } else { "now" };
        format!("{} {verb} expected.\n{}\n", count(self.machines.len(), "machine"), rows(&self.machines))
    }

    fn names(&self) -> Vec<String> {
        self.machines.iter().map(|m| m.name.clone()).collect()
    }
}

/// `billet node replace`.
#[derive(Debug, clap::Args)]
pub struct ReplaceArgs {
    /// Name or id of the old machine
    node: String,
    /// Name or id of the new machine, which is available
    #[arg(long = "with", value_name = "NODE")]
    with: String,
    /// The new machine stands where the old one stood
    #[arg(long)]
    take_place: bool,
    /// Also where the new machine is smaller
    #[arg(long)]
    allow_smaller: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// The old machine's name: needed, as disks are wiped; asked for otherwise
    #[arg(long, visible_alias = "yes", value_name = "NAME")]
    confirm: Option<String>,
}

pub(super) fn replace(client: &Client, format: Format, args: &ReplaceArgs) -> Result<(), Failure> {
    let mut request = ReplaceRequest {
        with: args.with.clone(),
        take_place: args.take_place,
        allow_smaller: args.allow_smaller,
        confirm: args.confirm.clone(),
        dry_run: true,
    };
    let to = path(&args.node, "/replace");
    if args.dry_run {
        return format.print(&client.post::<_, ReplaceView>(&to, &request)?);
    }
    if request.confirm.is_none() {
        let plan: ReplaceView = client.post(&to, &request)?;
        request.confirm = Some(super::deploy::ask(&plan.table(), &plan.node)?);
    }
    request.dry_run = false;
    format.print(&client.post::<_, ReplaceView>(&to, &request)?)
}

impl Show for ReplaceView {
    fn table(&self) -> String {
        let disks = self.wiped.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let image = self.image.as_ref().zip(self.disk.as_ref());
        facts(&[
            ("part of", Some(self.node.clone())),
            (if self.dry_run { "would be taken by" } else { "is taken by" }, Some(self.with.clone())),
            ("old machine", Some(format!("{}, retired", self.old_name))),
            ("wiped there", Some(disks).filter(|d| !d.is_empty())),
            ("deployed", image.map(|(image, disk)| format!("{image} to {disk}"))),
            ("host name", self.hostname.clone()),
            ("place", self.place.as_ref().map(ToString::to_string)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.node.clone()]
    }
}
