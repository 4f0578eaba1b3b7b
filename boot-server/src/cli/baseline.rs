//! `billet baseline …`: how machines of a kind are to be set.

use std::path::PathBuf;

use boot_server_core::servicing::{Baseline, FirmwareWanted};
use clap::Subcommand;
use serde_json::json;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::bmc::read;
use super::client::{Client, encode};
use super::node::path;
use super::output::{Format, Show, facts, table};
use super::service::{GoArgs, Switch, ask, attributes, plain_value, policy};
use super::text::moment;
use crate::http::api::requests::ApplyRequest;
use crate::view::{BaselineDiff, Page};

/// What can be done with baselines.
#[derive(Debug, Subcommand)]
pub enum BaselineCommand {
    /// All baselines
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One baseline
    Show {
        /// Name
        name: String,
    },
    /// Make a baseline, or replace one with --replace
    Create(CreateArgs),
    /// Remove a baseline; machines stay as they are
    #[command(visible_alias = "rm")]
    Delete {
        /// Name
        name: String,
    },
    /// How a node stands against a baseline: each attribute as it is and as it is to be
    Diff {
        /// Name
        name: String,
        /// Name or id of the node
        node: String,
    },
    /// Make a node as a baseline says
    Apply {
        /// Name
        name: String,
        /// Name or id of the node
        node: String,
        /// Leave its firmware as it is
        #[arg(long)]
        no_firmware: bool,
        #[command(flatten)]
        go: GoArgs,
    },
}

/// `billet baseline create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Name: 1 to 64 of a-z, 0-9, `.`, `-`, `_`
    name: String,
    /// BIOS attribute; again for more. true, false and numbers are taken as such; quote them twice for a text
    #[arg(long, value_name = "NAME=VALUE")]
    bios: Vec<String>,
    /// Secure Boot
    #[arg(long, value_enum)]
    secure_boot: Option<Switch>,
    /// Firmware that is expected; again for more
    #[arg(long, value_name = "COMPONENT=VERSION")]
    firmware: Vec<String>,
    /// Only for machines of this maker
    #[arg(long)]
    manufacturer: Option<String>,
    /// Only for machines of this model
    #[arg(long)]
    model: Option<String>,
    /// The BIOS of this node as it is now, and its Secure Boot, are taken over
    #[arg(long, value_name = "NODE", conflicts_with_all = ["bios", "secure_boot"])]
    from: Option<String>,
    /// JSON file with the baseline as the API takes it, firmware images included; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bios", "secure_boot", "firmware", "manufacturer", "model", "from"])]
    file: Option<PathBuf>,
    /// Replace one of this name
    #[arg(long)]
    replace: bool,
}

fn address(name: &str) -> String {
    format!("baselines/{}", encode(name))
}

pub(super) fn run(client: &Client, format: Format, command: BaselineCommand) -> Result<(), Failure> {
    match command {
        BaselineCommand::List(again) => {
            again.list(client, SITE, format, || client.all::<Baseline>("baselines"))
        }
        BaselineCommand::Show { name } => format.print(&client.get::<Baseline>(&address(&name))?),
        BaselineCommand::Create(args) => {
            let baseline = baseline(client, &args)?;
            let made: Baseline = match args.replace {
                true => client.put(&address(&args.name), &baseline)?,
                false => client.post("baselines", &baseline)?,
            };
            format.print(&made)
        }
        BaselineCommand::Delete { name } => client.delete(&address(&name)),
        BaselineCommand::Diff { name, node } => diff(client, format, &node, &name),
        BaselineCommand::Apply { name, node, no_firmware, go } => {
            let request = ApplyRequest { firmware: !no_firmware, restart: policy(&go) };
            ask(client, format, &node, (&format!("/baselines/{}/apply", encode(&name)), &request), &go)
        }
    }
}

pub(super) fn diff(client: &Client, format: Format, node: &str, name: &str) -> Result<(), Failure> {
    format.print(&client.get::<BaselineDiff>(&path(node, &format!("/baselines/{}", encode(name))))?)
}

fn baseline(client: &Client, args: &CreateArgs) -> Result<Baseline, Failure> {
    if let Some(file) = &args.file {
        let mut value: serde_json::Value = serde_json::from_str(&read(file)?)
            .map_err(|e| Failure::Usage(format!("{} is no JSON: {e}", file.display())))?;
        if let Some(map) = value.as_object_mut() {
            map.insert("name".to_owned(), args.name.clone().into());
        }
        return serde_json::from_value(value)
            .map_err(|e| Failure::Usage(format!("{} is no baseline: {e}", file.display())));
    }
    let firmware = args.firmware.iter().map(|wanted| {
        let (component, version) = wanted
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("`{wanted}` is not COMPONENT=VERSION")))?;
        serde_json::from_value::<FirmwareWanted>(json!({ "component": component, "version": version }))
            .map_err(|e| Failure::Usage(e.to_string()))
    });
    let mut made = Baseline {
        name: args.name.clone(),
        manufacturer: args.manufacturer.clone(),
        model: args.model.clone(),
        bios: typed(&args.bios)?,
        secure_boot: args.secure_boot.map(|switch| switch == Switch::On),
        firmware: firmware.collect::<Result<_, _>>()?,
        changed: protocol::Timestamp::default(),
    };
    if let Some(node) = &args.from {
        made.bios = client.get::<bmc::BiosAttributes>(&path(node, "/bios"))?.0;
        made.bios.retain(|_, value| !value.is_null());
        let secure_boot = client.get::<bmc::SecureBoot>(&path(node, "/secure-boot")).ok();
        made.secure_boot = secure_boot.map(|found| found.current);
    }
    Ok(made)
}

/// No machine is at hand to tell the types, so they are as JSON has them.
fn typed(pairs: &[String]) -> Result<boot_server_core::servicing::Attributes, Failure> {
    let mut out = attributes(pairs, &Default::default())?;
    for value in out.values_mut() {
        let text = value.as_str().unwrap_or_default();
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(parsed) if parsed.is_number() || parsed.is_boolean() || parsed.is_string() => *value = parsed,
            _ => {}
        }
    }
    Ok(out)
}

impl Show for Page<Baseline> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No baselines. Make one with `billet baseline create NAME --from NODE`.".to_owned();
        }
        let rows = self.items.iter().map(|b| {
            let kind =
                [&b.manufacturer, &b.model].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
            let secure = b.secure_boot.map(|on| if on { "on" } else { "off" }).unwrap_or_default();
            vec![
                b.name.clone(),
                kind,
                b.bios.len().to_string(),
                secure.to_owned(),
                b.firmware.len().to_string(),
            ]
        });
        table(&["baseline", "machines", "bios", "secure boot", "firmware"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|b| b.name.clone()).collect()
    }
}

impl Show for Baseline {
    fn table(&self) -> String {
        let mut text = facts(&[
            ("name", Some(self.name.clone())),
            ("maker", self.manufacturer.clone()),
            ("model", self.model.clone()),
            ("secure boot", self.secure_boot.map(|on| if on { "on" } else { "off" }.to_owned())),
            ("changed", Some(moment(self.changed))),
        ]);
        let firmware = self.firmware.iter().map(|f| {
            let image = f.image.as_ref().map(ToString::to_string).unwrap_or_default();
            vec![format!("firmware {}", f.component), f.version.clone(), image]
        });
        let bios =
            self.bios.iter().map(|(name, value)| vec![name.clone(), plain_value(value), String::new()]);
        text.push_str(&format!("\n{}\n", table(&["what", "wanted", "image"], firmware.chain(bios))));
        text
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for BaselineDiff {
    fn table(&self) -> String {
        let head = match &self.misfit {
            Some(why) => why.clone(),
            None if self.same => format!("{} is as baseline {} says.", self.node, self.baseline),
            None => format!("{} differs from baseline {}.", self.node, self.baseline),
        };
        let rows = self.differences.iter().map(|line| {
            let now = line.now.as_ref().map(plain_value).unwrap_or_default();
            let state = match (&line.problem, line.same) {
                (Some(problem), false) => problem.clone(),
                (_, true) => "same".to_owned(),
                (None, false) => "differs".to_owned(),
            };
            vec![line.name.clone(), now, plain_value(&line.wanted), state]
        });
        format!("{}\n{}\n", super::text::plain(&head), table(&["what", "now", "wanted", "state"], rows))
    }

    fn names(&self) -> Vec<String> {
        self.differences.iter().filter(|line| !line.same).map(|line| line.name.clone()).collect()
    }
}
