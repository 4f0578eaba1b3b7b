//! `cargo xtask bench bmc`: many controllers of which some hang, through the server's workers. The load itself is
//! `tests/bmc-load`, a program of its own because it links the server.

use anyhow::Result;

use crate::{paths, tool};

/// Arguments of `cargo xtask bench bmc`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many controllers.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5000))]
    controllers: u32,
    /// How many of a hundred hang.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=99))]
    hung: u32,
    /// How long latency is measured, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,
    /// How long each controller thinks about each request, in milliseconds; real ones 50 to 300.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=5000))]
    delay_ms: u32,
    /// By HTTPS in place of plain HTTP, which costs the stand-ins in this process more than the server.
    #[arg(long)]
    tls: bool,
}

/// Runs the benchmark.
pub fn run(args: &Args) -> Result<()> {
    let (controllers, hung) = (args.controllers.to_string(), args.hung.to_string());
    let (seconds, delay) = (args.seconds.to_string(), args.delay_ms.to_string());
    let mut words = vec!["run", "--quiet", "--package", "tests-bmc-load", "--"];
    words.extend([
        "--controllers",
        &controllers,
        "--hung",
        &hung,
        "--seconds",
        &seconds,
        "--delay-ms",
        &delay,
    ]);
    if args.tls {
        words.push("--tls");
    }
    let mut command = tool::command("cargo", &words);
    command.current_dir(paths::root());
    tool::shown(&mut command)
}
