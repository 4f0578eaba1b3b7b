//! `billet model …`: what machines of a model are made of and how they are cabled.

use std::path::PathBuf;

use boot_server_core::expected::{Difference, Model};
use clap::Subcommand;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::bmc::read;
use super::client::{Client, encode};
use super::node::path;
use super::output::{Format, Show, facts, print, table};
use super::text::{memory, moment, plain};
use super::trust::{self, LearnPcrsArgs};
use crate::http::api::requests::{AcceptRequest, LearnRequest, ModelRequest};
use crate::view::{ExpectedView, NodeView, Page};

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// All models
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One model; with --toml as a file that `model put` takes
    Show {
        /// Name
        name: String,
        /// As TOML
        #[arg(long)]
        toml: bool,
    },
    /// Make a model from a machine that is as it should be
    ///
    /// Its DIMMs, disks, ports, processors and GPUs are taken over, with their slots. Where it is plugged in is taken over
    /// where the names of switch or port have its rack or unit in them: say first where it stands (`billet node place`).
    Learn {
        /// Name or id of the machine
        node: String,
        /// Name of the model: 1 to 63 of a-z, 0-9, `.`, `_`, `-`
        #[arg(long)]
        name: String,
        /// Replace one of this name
        #[arg(long)]
        replace: bool,
    },
    /// Take into a model what a machine measured that booted as it should
    LearnPcrs(LearnPcrsArgs),
    /// Make a model from a TOML or JSON file, in place of the one of its name
    Put {
        /// The file; `-` for standard input
        file: PathBuf,
        /// Not in place of another: refuse where there is one of this name
        #[arg(long)]
        new: bool,
    },
    /// Remove a model; machines that were in quarantine because of it are free
    #[command(visible_alias = "rm")]
    Delete {
        /// Name
        name: String,
    },
    /// Say of which model a machine is; without --model its maker and product tell
    Assign {
        /// Name or id of the machine
        node: String,
        /// Name of the model
        #[arg(long)]
        model: Option<String>,
    },
}

fn address(name: &str) -> String {
    format!("models/{}", encode(name))
}

pub(super) fn run(client: &Client, format: Format, command: ModelCommand) -> Result<(), Failure> {
    match command {
        ModelCommand::List(again) => again.list(client, SITE, format, || client.all::<Model>("models")),
        ModelCommand::Show { name, toml: false } => format.print(&client.get::<Model>(&address(&name))?),
        ModelCommand::Show { name, toml: true } => {
            let model: Model = client.get(&address(&name))?;
            let text = toml::to_string_pretty(&model)
                .map_err(|e| Failure::Other(format!("cannot write the model as TOML: {e}")))?;
            print(&super::text::plain_lines(&text))
        }
        ModelCommand::Learn { node, name, replace } => {
            let request = LearnRequest { name, replace };
            format.print(&client.post::<_, Model>(&path(&node, "/learn"), &request)?)
        }
        ModelCommand::LearnPcrs(args) => trust::learn_pcrs(client, format, args),
        ModelCommand::Put { file, new } => {
            let model = parse(&read(&file)?)
                .map_err(|why| Failure::Usage(format!("{} is no model: {why}", file.display())))?;
            let made: Model = match new {
                true => client.post("models", &model)?,
                false => client.put(&address(&model.name), &model)?,
            };
            format.print(&made)
        }
        ModelCommand::Delete { name } => client.delete(&address(&name)),
        ModelCommand::Assign { node, model } => {
            format.print(&client.put::<_, NodeView>(&path(&node, "/model"), &ModelRequest { model })?)
        }
    }
}

/// A model as TOML, or as JSON where the text begins like that.
///
/// # Errors
/// What is wrong, with its line.
pub fn parse(text: &str) -> Result<Model, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|e| e.to_string());
    }
    toml::from_str(text).map_err(|e| e.to_string())
}

/// `billet node expected`.
pub(super) fn expected(client: &Client, format: Format, node: &str) -> Result<(), Failure> {
    format.print(&client.get::<ExpectedView>(&path(node, "/expected"))?)
}

/// `billet node accept`.
pub(super) fn accept(client: &Client, format: Format, node: &str, reason: String) -> Result<(), Failure> {
    format.print(&client.post::<_, NodeView>(&path(node, "/expected/accept"), &AcceptRequest { reason })?)
}

impl Show for Page<Model> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No models. Make one from a good machine: `billet model learn NODE --name NAME`."
                .to_owned();
        }
        let rows = self.items.iter().map(|m| {
            let e = &m.expected;
            let cables = e.nics.iter().filter(|nic| nic.neighbour.is_some()).count();
            vec![
                m.name.clone(),
                machines(m),
                e.dimms.iter().map(|d| d.count).sum::<u32>().to_string(),
                e.disks.iter().map(|d| d.count).sum::<u32>().to_string(),
                e.nics.len().to_string(),
                cables.to_string(),
                moment(m.changed),
            ]
        });
        table(&["model", "machines", "dimms", "disks", "ports", "cables", "changed"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|m| m.name.clone()).collect()
    }
}

/// Which machines are of a model by themselves.
fn machines(model: &Model) -> String {
    let words = [&model.manufacturer, &model.product].into_iter().flatten().cloned();
    let words = words.collect::<Vec<_>>().join(" ");
    if words.is_empty() { "assigned ones".to_owned() } else { words }
}

impl Show for Model {
    fn table(&self) -> String {
        let e = &self.expected;
        let cpus = e.cpus.as_ref().map(|c| {
            let cores = c.cores.map(|cores| format!(", {cores} cores each")).unwrap_or_default();
            format!("{} × {}{cores}", c.sockets, c.model.as_deref().unwrap_or("any"))
        });
        let mut text = facts(&[
            ("name", Some(self.name.clone())),
            ("machines", Some(machines(self))),
            ("processors", cpus),
            ("bios", e.firmware.as_ref().and_then(|f| f.bios.clone()).map(|v| format!("{v} or newer"))),
            ("bmc", e.firmware.as_ref().and_then(|f| f.bmc.clone()).map(|v| format!("{v} or newer"))),
            ("changed", Some(moment(self.changed))),
        ]);
        let any = |slot: &Option<String>, count: u32| match (slot, count) {
            (Some(slot), _) => slot.clone(),
            (None, 1) => "any".to_owned(),
            (None, count) => format!("any {count}"),
        };
        let dimms = e.dimms.iter().map(|d| {
            let speed = d.speed_mts.map(|s| format!(" at {s} MT/s")).unwrap_or_default();
            let part = d.part_number.as_ref().map(|p| format!(", part {p}")).unwrap_or_default();
            vec!["DIMM".to_owned(), any(&d.slot, d.count), format!("{}{speed}{part}", memory(d.size_bytes))]
        });
        let disks = e.disks.iter().map(|d| {
            let kind = d.kind.map(|kind| format!("{kind:?}").to_lowercase());
            let size = d.size_bytes.map(boot_server_core::deploy::bytes);
            let words = [kind, size, d.model.clone()].into_iter().flatten().collect::<Vec<_>>().join(", ");
            vec!["disk".to_owned(), any(&d.slot, d.count), words]
        });
        let nics = e.nics.iter().map(|n| {
            let speed = n.speed_mbps.map(|s| format!("{s} Mbit/s"));
            let to = n.neighbour.as_ref().map(|to| {
                let part = |t: &Option<boot_server_core::expected::Template>| {
                    t.as_ref().map_or("any".to_owned(), ToString::to_string)
                };
                format!("to {} {}", part(&to.switch), part(&to.port))
            });
            let words = [n.driver.clone(), speed, to].into_iter().flatten().collect::<Vec<_>>().join(", ");
            vec!["port".to_owned(), any(n.name.as_ref().map_or(&n.slot, |_| &n.name), 1), words]
        });
        let gpus = e.gpus.iter().map(|g| {
            let name = g.name.clone().unwrap_or_default();
            vec!["GPU".to_owned(), g.pci_id.clone(), format!("{} × {name}", g.count)]
        });
        let rows = dimms.chain(disks).chain(nics).chain(gpus);
        text.push_str(&format!("\n{}\n", table(&["part", "slot", "expected"], rows)));
        text
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for ExpectedView {
    fn table(&self) -> String {
        let head = match (&self.model, self.differences.as_slice(), &self.quarantine) {
            (None, ..) if !self.inspected => format!("{} was not inspected yet.", self.node),
            (None, ..) => format!("No model is for {}.", self.node),
            (Some(model), [], _) => format!("{} is as model {model} says.", self.node),
            (Some(model), _, Some(_)) => {
                format!("{} is in quarantine: it is not as model {model} says.", self.node)
            }
            (Some(model), _, None) => {
                format!("{} is not as model {model} says, which was accepted.", self.node)
            }
        };
        let mut text = format!("{}\n", plain(&head));
        if !self.differences.is_empty() {
            let rows = self.differences.iter().map(|d| {
                let accepted = self.accepted.iter().find(|a| a.difference == *d);
                let note = match accepted {
                    Some(accepted) => format!("accepted by {}: {}", accepted.by, accepted.reason),
                    None if d.unheard => "waits for LLDP".to_owned(),
                    None => d.part_number.as_ref().map(|p| format!("order {p}")).unwrap_or_default(),
                };
                row(d, note)
            });
            text.push_str(&table(&["part", "slot", "expected", "found", ""], rows));
            text.push('\n');
        }
        text
    }

    fn names(&self) -> Vec<String> {
        self.differences.iter().map(|d| d.what.clone()).collect()
    }
}

fn row(d: &Difference, note: String) -> Vec<String> {
    let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
    vec![
        d.part.as_str().to_owned(),
        d.slot.clone().unwrap_or_default(),
        or_nothing(&d.expected),
        or_nothing(&d.found),
        note,
    ]
}
