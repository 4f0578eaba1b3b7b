//! `billet-dpu`: makes a DPU what a desired state says, and reports what it is. What is to be done is decided in
//! `dpu-agent-core`; here are the files, the connection to Open vSwitch's database and the processes.

mod agent;
mod exporters;
mod files;
mod sys;
mod unix;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use dpu_agent_core::check::State;
use dpu_agent_core::plan::plan;
use jsonrpc::Address;
use protocol::dpu::STATE_MAX;

use crate::agent::{Agent, Files};
use crate::exporters::{Processes, Programs};

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
    /// Follows a state for ever. Prints what the DPU is as a line of JSON whenever it changes.
    Run {
        /// The state, as JSON. It is read again when it changes; a change needs a higher generation.
        #[arg(long, value_name = "FILE")]
        state: PathBuf,
        /// File for what the DPU is, as JSON.
        #[arg(long, value_name = "FILE")]
        status: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
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
    programs: Programs,
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
        Verb::Run { state, status, place } => {
            let files = Files { state, status, dir: place.dir };
            match Agent::start(files, place.database, &place.programs)?.run().await {}
        }
    }
}

fn read(file: &std::path::Path) -> anyhow::Result<State> {
    let text = files::read(file, STATE_MAX)?;
    State::parse(&text).with_context(|| file.display().to_string())
}

async fn print_plan(state: &State, place: &Place) -> anyhow::Result<()> {
    let now = agent::Clock::start().now();
    let mut processes = Processes::load(&place.dir, &place.programs, Duration::ZERO, now)?;
    let follower = agent::follow(place.database.clone());
    // What keeps the rows away is said by the look at them.
    let _ = tokio::time::timeout(ROWS, follower.wait_for(|_| true)).await;
    let exporters = processes.look(now);
    let plan = follower.read(|rows| plan(state, Some(rows), &exporters))?;
    for action in &plan.actions {
        println!("{action}");
    }
    for problem in &plan.problems {
        println!("problem: {problem}");
    }
    Ok(())
}
