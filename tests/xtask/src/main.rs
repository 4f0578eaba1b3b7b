//! `cargo xtask`: the project's own verbs. Each one can be run on a fresh clone; what it needs from the others it
//! makes first and keeps under `artifacts/`.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod archive;
mod bench;
mod build;
mod cache;
mod chaos;
mod deb;
mod demo;
mod deps;
mod disk;
mod fleet;
mod fuzz;
mod image;
mod kernel;
mod loaders;
mod paths;
mod powercut;
mod rack;
mod ramdisk;
mod share;
mod suite;
mod sys;
mod tool;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The verbs of the Billet project")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show the whole way: two blank machines become running Debians.
    Demo(demo::Args),
    /// Install the Debian packages that the other verbs need (only those that are missing).
    Deps,
    /// Build the ramdisk: kernel, modules, static agent.
    Ramdisk(ramdisk::Args),
    /// Fetch boot loaders that the installed release lacks: GRUB with HTTP, iPXE for arm64.
    Loaders,
    /// Build an OS image.
    Image(image::Args),
    /// Fetch the web UI's third-party assets, at the versions pinned in its package.json.
    Ui,
    /// Fetch the OpenID provider that a suite signs in at, at the version pinned in its package.json.
    OpenidProvider,
    /// Run every check and every test.
    Test(suite::Args),
    /// Start a virtual rack to play with.
    Rack(rack::Args),
    /// Measure against what others do.
    Bench(bench::Args),
    /// Switch on thousands of simulated machines before a real server.
    Fleet(fleet::Args),
    /// Replay every state that a power cut can leave of a deploy.
    Powercut(powercut::Args),
    /// Break everything at random, and look whether anything that was acknowledged is lost.
    Chaos(chaos::Args),
    /// Fuzz the parsers with libFuzzer, as long as one likes.
    Fuzz(fuzz::Args),
    /// Build the programs of a DPU, static, for its processor.
    Dpu(build::DpuArgs),
    /// Make the documents that go with the programs and into bundles: guides, quirks, SBOM, licences.
    Share(share::Args),
    /// Build the programs, the UI's assets and the ramdisk.
    Build,
}

fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Demo(args) => demo::run(&args),
        Verb::Deps => deps::run(),
        Verb::Ramdisk(args) => ramdisk::run(&args),
        Verb::Loaders => loaders::run(),
        Verb::Image(args) => image::run(&args),
        Verb::Ui => build::ui(),
        Verb::OpenidProvider => build::openid_provider(),
        Verb::Rack(args) => rack::run(&args),
        Verb::Test(args) => suite::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Fleet(args) => fleet::run(&args),
        Verb::Powercut(args) => powercut::run(&args),
        Verb::Chaos(args) => chaos::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Dpu(args) => build::dpu(&args),
        Verb::Share(args) => share::run(&args),
        Verb::Build => build::run(),
    }
}
