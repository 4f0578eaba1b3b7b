//! `cargo xtask chaos`: everything breaks at random, and nothing that was acknowledged is lost.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};
use tests::chaos::{Plan, Store};

use crate::{build, deps, paths, suite, tool};

/// Arguments of `cargo xtask chaos`.
#[derive(clap::Args)]
pub struct Args {
    /// Names the faults and what people ask
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds
    #[arg(long, default_value_t = 300)]
    rounds: u32,
    /// Where the server keeps its data: sqlite or postgres
    #[arg(long, default_value = "sqlite")]
    store: Store,
}

/// Runs the verb; anything lost, stuck or done twice is a failure.
pub fn run(args: &Args) -> Result<()> {
    deps::run()?;
    if std::env::var_os("BILLET_BIN").is_none() {
        build::ui()?;
        let words = ["build", "--quiet", "--locked", "--workspace", "--bins"];
        tool::shown(tool::command(&suite::cargo_program(), &words).current_dir(paths::root()))?;
        return again();
    }
    let name = match args.store {
        Store::Sqlite => "sqlite",
        Store::Postgres => "postgres",
    };
    let dir = paths::target().join("chaos").join(format!("{name}-{}", args.seed));
    let report = Plan { seed: args.seed, rounds: args.rounds, store: args.store }.run(&dir)?;
    println!("{report}");
    if !report.is_clean() {
        report.wrong.iter().for_each(|what| eprintln!("{what}"));
        bail!(
            "seed {} on {name}, round {}: the history is {}",
            args.seed,
            report.rounds,
            report.history.display()
        );
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Runs this once more with the programs that were just built: those for release have no failpoints.
fn again() -> Result<()> {
    let billet = paths::target().join("debug/billet");
    let me = std::env::current_exe()?;
    let failed = Command::new(me).args(std::env::args_os().skip(1)).env("BILLET_BIN", billet).exec();
    Err(failed).context("starting this verb again")
}
