//! `cargo xtask powercut`: every state that a power cut can leave of a disk that is being deployed.

use anyhow::{Result, bail};
use tests::powercut::{Depth, Trial};

use crate::{build, deps, image, paths, ramdisk};

/// Arguments of `cargo xtask powercut`.
#[derive(clap::Args)]
pub struct Args {
    /// Names the sample of torn states
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One deploy and a small sample, as `cargo xtask test` does
    #[arg(long)]
    short: bool,
}

/// Runs the verb; a disk that boots and is incomplete is a failure.
pub fn run(args: &Args) -> Result<()> {
    deps::run()?;
    if std::env::var_os("BILLET_BIN").is_none() {
        build::ui()?;
        build::server()?;
        ramdisk::run(&ramdisk::Args::default())?;
    }
    image::tiny::build(image::Variant::A)?;
    image::tiny::build(image::Variant::B)?;
    let depth = if args.short { Depth::short(args.seed) } else { Depth::whole(args.seed) };
    let trial = Trial { depth, rebuild: !args.short, firmwares: !args.short };
    let outcome = trial.run("powercut")?;
    outcome.parts.iter().for_each(|part| println!("{part}"));
    let report = &outcome.report;
    println!("{report}; {} looked at by a firmware", outcome.booted);
    println!("powercut states {} bootable_incomplete {}", report.states, report.incomplete);
    if report.incomplete > 0 {
        report.shown.iter().for_each(|state| eprintln!("{state}"));
        bail!(
            "seed {}: {} states boot and are incomplete; files of the rack are in {}",
            args.seed,
            report.incomplete,
            paths::target().join("rack/powercut").display()
        );
    }
    Ok(())
}
