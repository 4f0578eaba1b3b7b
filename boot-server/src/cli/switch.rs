//! `billet switch …` and `billet node cable`: switches that put hosts without a DPU on their networks.

use boot_server_core::node::Cable;
use clap::Subcommand;
use protocol::MacAddr;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::Client;
use super::node::path;
use super::output::{Format, Show, table};
use super::text::plain;
use crate::view::switches::{CableView, SwitchView};
use crate::view::{NodeView, Page};

/// What can be done with switches.
#[derive(Debug, Subcommand)]
pub enum SwitchCommand {
    /// All switches of [[switches]], with the ports that Billet keeps
    #[command(visible_alias = "ls")]
    List(AgainArgs),
}

/// `billet node cable`.
#[derive(Debug, clap::Args)]
pub struct CableArgs {
    /// Name or id
    node: String,
    /// The NIC; without it: say where each is
    mac: Option<MacAddr>,
    /// The switch, as the server's configuration names it
    #[arg(requires = "port")]
    switch: Option<String>,
    /// The port, as the switch names it
    port: Option<String>,
    /// Leave it to LLDP again
    #[arg(long, requires = "mac", conflicts_with = "switch")]
    clear: bool,
}

/// Runs `billet switch …`.
pub(super) fn run(client: &Client, format: Format, command: SwitchCommand) -> Result<(), Failure> {
    match command {
        SwitchCommand::List(again) => {
            again.list(client, SITE, format, || client.all::<SwitchView>("switches"))
        }
    }
}

pub(super) fn cable(client: &Client, format: Format, args: &CableArgs) -> Result<(), Failure> {
    let cables = path(&args.node, "/cables");
    if let Some(mac) = args.mac {
        let one = format!("{cables}/{mac}");
        if let (Some(switch), Some(port)) = (&args.switch, &args.port) {
            let cable = Cable { switch: switch.clone(), port: port.clone() };
            client.put::<_, NodeView>(&one, &cable)?;
        } else if args.clear {
            client.delete(&one)?;
        }
    }
    format.print(&client.all::<CableView>(&cables)?)
}

impl Show for Page<SwitchView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No switches. They are [[switches]] in the server's configuration.".to_owned();
        }
        let row = |switch: &SwitchView| {
            let state = switch.error.as_deref().map_or_else(|| "reached".to_owned(), plain);
            let ports = switch.ports.iter().map(|port| {
                let node = port.node_name.clone().unwrap_or_else(|| port.node.to_string());
                let wait = if port.settled { "" } else { ", not yet" };
                format!("{} {node}: {}{wait}", plain(&port.port), port.carries)
            });
            vec![
                plain(&switch.name),
                switch.fabric.clone(),
                format!("{} of {}", switch.vlans_used, switch.vlans),
                state,
                ports.collect::<Vec<_>>().join("; "),
            ]
        };
        table(&["switch", "fabric", "vlans", "state", "ports"], self.items.iter().map(row))
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|switch| switch.name.clone()).collect()
    }
}

impl Show for Page<CableView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No NICs are known. Inspect the node.".to_owned();
        }
        let row = |cable: &CableView| {
            let or = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
            let managed = if cable.managed { "yes" } else { "no" };
            vec![
                cable.mac.to_string(),
                or(&cable.switch),
                or(&cable.port),
                or(&cable.source),
                managed.to_owned(),
            ]
        };
        table(&["nic", "switch", "port", "said by", "managed"], self.items.iter().map(row))
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|cable| cable.mac.to_string()).collect()
    }
}
