//! `billet-dpu`: makes a DPU what a desired state says, and reports what it is. What is to be done is decided in
//! `dpu-agent-core`; here are the files, the connections to Open vSwitch's database and to the server, and the processes.

mod agent;
mod bus;
mod dial;
mod disks;
mod exporters;
mod facts;
mod files;
mod firmware;
mod identity;
mod layers;
mod service;
mod sys;
mod trust;
mod unix;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use dpu_agent_core::check::State;
use dpu_agent_core::plan::plan;
use jsonrpc::Address;
use protocol::dial::HostFunction;
use protocol::dpu::{InterfaceName, NameError, STATE_MAX};
use protocol::ids::ParseIdError;

use crate::agent::{Agent, Files, Source};
use crate::disks::{Disks, Servers};
use crate::facts::Given;

/// How long `billet-dpu plan` waits for the rows of the switch.
const ROWS: Duration = Duration::from_secs(10);

/// Makes a DPU's switch and disks what a desired state says. May be killed and started again at any moment: nothing that
/// runs is touched by that.
#[derive(Debug, Parser)]
#[command(name = "billet-dpu", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says whether a state can be carried out, and what is wrong with it.
    Check {
        /// The state, as JSON.
        file: PathBuf,
    },
    /// Prints what would be done for a state, and does nothing.
    Plan {
        /// The state, as JSON.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Follows a state for ever: of the server, or of a file. Prints what the DPU is as a line of JSON whenever it changes.
    Run {
        #[command(flatten)]
        source: SourceArguments,
        /// File for what the DPU is, as JSON.
        #[arg(long, value_name = "FILE")]
        status: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct SourceArguments {
    /// The state, as JSON. It is read again when it changes; a change needs a higher generation.
    #[arg(long, value_name = "FILE", required_unless_present = "server")]
    state: Option<PathBuf>,
    /// The server that says what the DPU is to be: `http://`, the address of its provisioning listener, and the port.
    #[arg(long, value_name = "URL", conflicts_with = "state", value_parser = server)]
    server: Option<String>,
    /// One-time token from whoever registered the DPU. Without one, somebody has to accept it.
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
    /// Serial number of the DPU, where neither SMBIOS nor the device tree has it.
    #[arg(long, value_name = "TEXT", requires = "server")]
    serial: Option<String>,
    /// A representor, and the address that the host's function has; again for each. Those of a BlueField are found.
    #[arg(long, value_name = "INTERFACE=MAC", requires = "server", value_parser = function)]
    function: Vec<HostFunction>,
}

#[derive(Debug, Args)]
struct Place {
    /// Directory for the last good state and for what is known of exporters. It must outlive a reboot.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/billet-dpu")]
    dir: PathBuf,
    /// Open vSwitch's database.
    #[arg(long, value_name = "ADDRESS", default_value = "unix:/run/openvswitch/db.sock")]
    database: Address,
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    tool: firmware::Tool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let log = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(log).with_writer(std::io::stderr).init();
    match Arguments::parse().verb {
        Verb::Check { file } => {
            let state = read(&file)?;
            let desired = state.desired();
            println!(
                "good: generation {}, {} ports, {} mirrors, {} volumes",
                desired.generation,
                desired.ports.len(),
                desired.mirrors.len(),
                desired.volumes.len()
            );
            Ok(())
        }
        Verb::Plan { file, place } => print_plan(&read(&file)?, &place).await,
        Verb::Run { source, status, place } => {
            // First: of two that start at once one is to make the identity.
            let lock = agent::lock(&place.dir)?;
            let source = source.open(&place)?;
            let files = Files { status, dir: place.dir };
            match Agent::start(files, lock, source, place.database, &place.servers, place.tool)?.run().await {}
        }
    }
}

impl SourceArguments {
    fn open(self, place: &Place) -> anyhow::Result<Source> {
        match (self.state, self.server) {
            (Some(state), _) => Ok(Source::File(state)),
            (None, Some(server)) => Ok(Source::Server(Box::new(dial::Settings {
                server,
                secret: identity::load(&place.dir)?,
                trust: place.dir.join(trust::FILE),
                token: self.token_file,
                given: Given { serial: self.serial, functions: self.function },
                programs: place.servers.programs.clone(),
            }))),
            (None, None) => anyhow::bail!("neither a state nor a server is given"),
        }
    }
}

/// The base URL of a server.
fn server(text: &str) -> Result<String, String> {
    let base = text.trim_end_matches('/');
    if protocol_http::is_literal(base) {
        return Ok(base.to_owned());
    }
    Err("it is `http://`, an address (no name) and a port, such as http://10.77.0.1:8080".to_owned())
}

/// A representor and its function's address.
fn function(text: &str) -> Result<HostFunction, String> {
    let (interface, mac) = text.split_once('=').ok_or("it is INTERFACE=MAC")?;
    let interface: InterfaceName = interface.parse().map_err(|e: NameError| e.to_string())?;
    let mac = mac.parse().map_err(|e: ParseIdError| e.to_string())?;
    Ok(HostFunction { interface: interface.into(), mac })
}

fn read(file: &std::path::Path) -> anyhow::Result<State> {
    let text = files::read(file, STATE_MAX)?;
    State::parse(&text).with_context(|| file.display().to_string())
}

async fn print_plan(state: &State, place: &Place) -> anyhow::Result<()> {
    let now = agent::Clock::start().now();
    let mut disks = Disks::load(&place.dir, &place.servers, Duration::ZERO, now)?;
    let follower = agent::follow(place.database.clone());
    // What keeps the rows away is said by the look at them.
    let _ = tokio::time::timeout(ROWS, follower.wait_for(|_| true)).await;
    let exporters = disks.look(now).await;
    let plan = follower.read(|rows| plan(state, Some(rows), &exporters, disks.buses()))?;
    for action in &plan.actions {
        println!("{action}");
    }
    for problem in &plan.problems {
        println!("problem: {problem}");
    }
    Ok(())
}
