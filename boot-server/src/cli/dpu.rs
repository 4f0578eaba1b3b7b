//! `billet dpu …`: the small computers between machines and their networks and disks.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::dpu_functions::{self, FunctionsCommand};
use super::dpu_setup::{self, SetupCommand, setup_facts};
use super::output::{Format, Show, facts, table};
use super::text::{moment, plain};
use crate::http::api::requests::EmptyRequest;
use crate::http::api::volume_requests::{DatapathName, DpuChangeRequest, NewDpuRequest};
use crate::view::Page;
use crate::view::dpus::{DpuCreated, DpuView};

/// What can be done with DPUs.
#[derive(Debug, Subcommand)]
pub enum DpuCommand {
    /// All DPUs
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One DPU: what it is, what it is to be, what it says that it is
    Show {
        /// Name or id
        dpu: String,
    },
    /// Register a DPU and print the token that it comes in with, this once
    Create {
        /// Name, a host name: OVN knows the DPU by it
        name: String,
        /// What is said of it.
        #[command(flatten)]
        what: DpuArgs,
    },
    /// Change what is said of a DPU; what is not named stays
    Set {
        /// Name or id
        dpu: String,
        /// What is said of it.
        #[command(flatten)]
        what: DpuArgs,
    },
    /// Accept a DPU that introduced itself
    Accept {
        /// Name or id
        dpu: String,
    },
    /// Forget a DPU that has no disk of a server
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        dpu: String,
    },
    /// Which functions its host gets
    #[command(subcommand)]
    Functions(FunctionsCommand),
    /// Set it up by its own BMC
    #[command(flatten)]
    Setup(SetupCommand),
}

/// What is said of a DPU.
#[derive(Debug, Args)]
pub struct DpuArgs {
    /// Its host, by name or id; empty: none
    #[arg(long)]
    node: Option<String>,
    /// Own end of tunnels
    #[arg(long, value_name = "ADDRESS")]
    tunnel_address: Option<IpAddr>,
    /// Who forwards packets
    #[arg(long, value_enum)]
    datapath: Option<DatapathArg>,
    /// The bridge with the provisioning network's wire
    #[arg(long, value_name = "BRIDGE")]
    provisioning_bridge: Option<String>,
}

/// Who forwards packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatapathArg {
    /// The kernel, or the DPU's hardware by way of it
    System,
    /// Open vSwitch itself
    Netdev,
}

impl From<DatapathArg> for DatapathName {
    fn from(arg: DatapathArg) -> Self {
        match arg {
            DatapathArg::System => Self::System,
            DatapathArg::Netdev => Self::Netdev,
        }
    }
}

/// Runs `billet dpu …`.
pub(super) fn run(client: &Client, format: Format, command: DpuCommand) -> Result<(), Failure> {
    let of = |dpu: &str| format!("dpus/{}", encode(dpu));
    match command {
        DpuCommand::List(again) => again.list(client, SITE, format, || client.all::<DpuView>("dpus")),
        DpuCommand::Show { dpu } => format.print(&client.get::<DpuView>(&of(&dpu))?),
        DpuCommand::Create { name, what } => {
            let DpuArgs { node, tunnel_address, datapath, provisioning_bridge } = what;
            let datapath = datapath.map(Into::into);
            let request = NewDpuRequest { name, node, tunnel_address, datapath, provisioning_bridge };
            format.print(&client.post::<_, DpuCreated>("dpus", &request)?)
        }
        DpuCommand::Set { dpu, what } => {
            let DpuArgs { node, tunnel_address, datapath, provisioning_bridge } = what;
            let datapath = datapath.map(Into::into);
            let request = DpuChangeRequest { node, tunnel_address, datapath, provisioning_bridge };
            format.print(&client.patch::<_, DpuView>(&of(&dpu), &request)?)
        }
        DpuCommand::Accept { dpu } => {
            format.print(&client.post::<_, DpuView>(&format!("{}/accept", of(&dpu)), &EmptyRequest {})?)
        }
        DpuCommand::Delete { dpu } => client.delete(&of(&dpu)),
        DpuCommand::Functions(command) => dpu_functions::run(client, format, command),
        DpuCommand::Setup(command) => dpu_setup::run(client, format, command),
    }
}

impl Show for Page<DpuView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No DPUs. Register one with `billet dpu create NAME`, or start `billet-dpu run --server` on it."
                .to_owned();
        }
        let rows = self.items.iter().map(|dpu| {
            vec![
                dpu.name.clone(),
                dpu.status.as_str().to_owned(),
                dpu.node_name.clone().unwrap_or_else(|| "-".to_owned()),
                dpu.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
                plain(dpu.facts.model.as_deref().unwrap_or("-")),
                dpu.seen.map_or_else(|| "-".to_owned(), moment),
            ]
        });
        table(&["dpu", "status", "host", "address", "model", "heard of"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|dpu| dpu.name.clone()).collect()
    }
}

impl Show for DpuView {
    fn table(&self) -> String {
        let functions = self.facts.functions.iter().map(|f| format!("{} ({})", plain(&f.interface), f.mac));
        let ports = self.ports.iter().map(|port| {
            let place = port.port.as_deref().or(port.bridge.as_deref()).unwrap_or("-");
            format!("{} on {}{}", plain(&port.interface), plain(place), if port.up { "" } else { ", down" })
        });
        let volumes = self.volumes.iter().map(|volume| {
            let how = if volume.running { "served" } else { "not served" };
            format!("{} ({how})", plain(&volume.volume))
        });
        let list = |all: Vec<String>| (!all.is_empty()).then(|| all.join("\n"));
        let mut all = vec![
            ("name", Some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("status", Some(self.status.as_str().to_owned())),
            ("host", self.node_name.clone()),
            ("address", self.address.map(|address| address.to_string())),
            ("tunnel address", self.tunnel_address.map(|address| address.to_string())),
            ("datapath", Some(self.datapath.clone())),
            ("provisioning bridge", Some(self.provisioning_bridge.clone())),
            ("model", self.facts.model.as_deref().map(plain)),
            ("serial", self.facts.serial.as_deref().map(plain)),
            ("programs", list(self.facts.programs.iter().map(|program| plain(program)).collect())),
            ("functions", list(functions.collect())),
            (
                "state",
                Some(match self.observed_generation {
                    Some(has) => format!("{has} of {}", self.generation),
                    None => format!("none of {}", self.generation),
                }),
            ),
            ("problems", list(self.problems.iter().map(|problem| plain(problem)).collect())),
            ("ports", list(ports.collect())),
            ("volumes", list(volumes.collect())),
            ("heard of", self.seen.map(moment)),
        ];
        all.extend(setup_facts(self));
        facts(&all)
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for DpuCreated {
    fn table(&self) -> String {
        format!(
            "{}\n\ntoken: {}\nIt is shown this once. Put it into a file on the DPU and run\n  \
             billet-dpu run --server URL --token-file FILE\n",
            self.dpu.table(),
            self.token
        )
    }

    fn names(&self) -> Vec<String> {
        vec![self.token.clone()]
    }
}
