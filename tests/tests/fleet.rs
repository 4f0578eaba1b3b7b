//! The fleet before the real server, small enough for every run; `cargo xtask fleet` is the large one.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::fleet::field::Plan;
use tests::fleet::fleet::Crew;
use tests::fleet::live::Flood;
use tests::fleet::machine::Habits;
use tests::fleet::personality::Mix;
use tests::fleet::report::{Report, at};
use tests::rack::target;

/// What the server may take, whatever the hall does: the small machine beside the racks has other work too.
const MEMORY_MAX: u64 = 512 << 20;

fn plan(machines: u32, over: Duration) -> Plan {
    let habits = Habits { body_bytes: Some(64 << 10), skip_http: false };
    Plan::new(Crew { first: 0, count: machines, seed: 7, mix: Mix::hall(), over, habits })
}

/// Runs the plan; files are kept only where something is wrong.
fn run(name: &str, plan: &Plan) -> Result<Report> {
    let dir = target().join("fleet").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    let report = plan.run(&dir)?;
    println!("{report}");
    ensure!(report.lost() == 0, "{} machines were lost; files are in {}", report.lost(), dir.display());
    ensure!(report.memory < MEMORY_MAX, "the server took {} MiB", report.memory >> 20);
    std::fs::remove_dir_all(&dir)?;
    Ok(report)
}

#[test]
fn a_row_of_racks_boots_over_a_cable_that_loses_frames() -> Result<()> {
    let mut plan = plan(200, Duration::from_secs(3));
    plan.faults.loss = 0.01;
    plan.faults.reorder = 0.01;
    plan.faults.duplicate = 0.005;
    plan.faults.corrupt = 0.002;
    let report = run("row", &plan)?;
    ensure!(report.phases[0].hello.len() == 200, "every agent is welcome");
    Ok(())
}

#[test]
fn strangers_keep_no_known_machine_from_booting() -> Result<()> {
    let mut plan = plan(20, Duration::from_secs(2));
    plan.flood = Some(Flood { count: 5000, per_second: 2500 });
    // 256 addresses for 5,000 strangers.
    plan.pool = ("10.77.1.0".to_owned(), "10.77.1.255".to_owned());
    let report = run("flood", &plan)?;
    let slowest = at(&report.phases[1].ack, 100);
    ensure!(slowest < 1.0, "an ACK took {slowest} s");
    Ok(())
}

#[test]
fn a_server_that_is_killed_and_started_again_loses_no_machine() -> Result<()> {
    let mut plan = plan(100, Duration::from_secs(4));
    plan.crash = Some(Duration::from_secs(2));
    run("crash", &plan).map(drop)
}
