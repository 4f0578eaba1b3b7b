//! `cargo xtask fleet`: thousands of simulated machines are switched on before a real server.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::fleet::field::Plan;
use tests::fleet::fleet::Crew;
use tests::fleet::link::Faults;
use tests::fleet::live::Flood;
use tests::fleet::machine::Habits;
use tests::fleet::personality::Mix;

use crate::{build, deps, paths};

/// Arguments of `cargo xtask fleet`.
#[derive(clap::Args)]
pub struct Args {
    /// How many machines
    #[arg(short, long, default_value_t = 2000)]
    n: u32,
    /// Names the run: firmware, times, faults
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The machines are switched on within this time, in seconds
    #[arg(long, default_value = "10")]
    over: f64,
    /// Frames that are lost, in percent, in each direction
    #[arg(long, default_value = "0")]
    loss: f64,
    /// Every frame takes this long, in milliseconds
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Frames that are held back, in percent
    #[arg(long, default_value = "0")]
    reorder: f64,
    /// Frames that arrive twice, in percent
    #[arg(long, default_value = "0")]
    duplicate: f64,
    /// Frames with a wrong bit, in percent
    #[arg(long, default_value = "0")]
    corrupt: f64,
    /// Kernel and RAM disk are fetched up to this length, by an HTTP range; 0: whole (23 MiB for each machine)
    #[arg(long, default_value_t = 64 << 10)]
    body_bytes: u64,
    /// Firmware, such as `ovmf-pxe:3,legacy-rom:1` [default: a hall]
    #[arg(long)]
    mix: Option<Mix>,
    /// DISCOVERs from so many addresses that nobody has seen, while the known machines boot
    #[arg(long, default_value_t = 0)]
    flood: u32,
    /// DISCOVERs of the flood in one second
    #[arg(long, default_value_t = 10_000)]
    flood_rate: u32,
    /// Known machines in the flood (in place of -n)
    #[arg(long, default_value_t = 50)]
    known: u32,
    /// Kill the server (as `kill -9` does) so many seconds after the beginning, and start it again
    #[arg(long)]
    crash: Option<f64>,
    /// Level of the server's log
    #[arg(long, default_value = "info")]
    log: String,
    /// JSON in place of the table
    #[arg(long)]
    json: bool,
}

/// Runs the verb; a lost machine is a failure.
pub fn run(args: &Args) -> Result<()> {
    deps::run()?;
    if std::env::var_os("BILLET_BIN").is_none() {
        build::ui()?;
        build::server()?;
    }
    let dir = paths::target().join("fleet").join(std::process::id().to_string());
    let report = plan(args)?.run(&dir)?;
    if args.json {
        println!("{:#}", report.json());
    } else {
        println!("{report}");
    }
    ensure!(
        report.lost() == 0,
        "{} machines were lost; the server's files are in {}",
        report.lost(),
        dir.display()
    );
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn plan(args: &Args) -> Result<Plan> {
    ensure!((0.0..=3600.0).contains(&args.over), "--over is a time from 0 to 3600 s");
    let crew = Crew {
        first: 0,
        count: if args.flood > 0 { args.known } else { args.n },
        seed: args.seed,
        mix: args.mix.clone().unwrap_or_else(Mix::hall),
        over: Duration::from_secs_f64(args.over),
        habits: Habits { body_bytes: Some(args.body_bytes).filter(|n| *n > 0), skip_http: false },
    };
    let mut plan = Plan::new(crew);
    plan.faults = Faults {
        loss: args.loss / 100.0,
        duplicate: args.duplicate / 100.0,
        corrupt: args.corrupt / 100.0,
        reorder: args.reorder / 100.0,
        delay: Duration::from_millis(args.delay_ms),
    };
    if let Some(crash) = args.crash {
        ensure!((0.0..=3600.0).contains(&crash), "--crash is a time from 0 to 3600 s");
        plan.crash = Some(Duration::from_secs_f64(crash));
    }
    plan.log.clone_from(&args.log);
    if args.flood > 0 {
        plan.flood = Some(Flood { count: args.flood, per_second: args.flood_rate });
        // Far fewer addresses than strangers: the pool runs dry.
        plan.pool = ("10.77.1.0".to_owned(), "10.77.4.255".to_owned());
    }
    Ok(plan)
}
