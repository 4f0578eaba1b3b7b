//! The power goes during a deploy, at every moment that there is: the short form of `cargo xtask powercut`.

use anyhow::{Result, ensure};
use tests::powercut::{Depth, Trial};

#[test]
fn no_cut_leaves_a_disk_that_boots_and_is_incomplete() -> Result<()> {
    let trial = Trial { depth: Depth::short(1), rebuild: false, firmwares: false };
    let outcome = trial.run("powercut")?;
    outcome.parts.iter().for_each(|part| println!("{part}"));
    let report = &outcome.report;
    println!("powercut states {} bootable_incomplete {}", report.states, report.incomplete);
    ensure!(report.incomplete == 0, "{:#?}", report.shown);
    ensure!(outcome.booted >= 2, "no firmware looked at a state");
    Ok(())
}
