//! Some rounds of `cargo xtask chaos` on each store.

use anyhow::{Result, ensure};
use tests::chaos::{Plan, Store};
use tests::rack::target;
use tests_postgres::Postgres;

fn rounds(store: Store, name: &str) -> Result<()> {
    let plan = Plan { seed: 7, rounds: 6, store };
    let report = plan.run(&target().join("chaos").join(name))?;
    println!("{report}");
    ensure!(report.is_clean(), "{:#?}", report.wrong);
    ensure!(report.acknowledged > 0 && report.leases > 0, "nothing was asked");
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_on_sqlite() -> Result<()> {
    rounds(Store::Sqlite, "suite-sqlite")
}

#[test]
fn nothing_acknowledged_is_lost_on_postgresql() -> Result<()> {
    if Postgres::start(&[])?.is_none() {
        return Ok(());
    }
    rounds(Store::Postgres, "suite-postgres")
}
