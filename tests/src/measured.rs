//! A month of measurements as a machine with two processors gives them, put into a server's database while it is stopped.

use std::path::Path;

use anyhow::{Context, Result};
use boot_server_core::bmc::history::{Measured, Row, WINDOW, downsample, encode};
use protocol::Timestamp;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Name, unit, base, swing with the load, and the limits: warning, critical, critical below.
type Sensor = (&'static str, &'static str, f64, f64, [Option<f64>; 3]);

const SENSORS: &[Sensor] = &[
    ("Inlet Temp", "celsius", 22.0, 2.0, [Some(38.0), Some(42.0), Some(-7.0)]),
    ("Exhaust Temp", "celsius", 34.0, 6.0, [Some(70.0), Some(75.0), None]),
    ("CPU1 Temp", "celsius", 52.0, 22.0, [Some(85.0), Some(95.0), None]),
    ("CPU2 Temp", "celsius", 50.0, 20.0, [Some(85.0), Some(95.0), None]),
    ("DIMM A1 Temp", "celsius", 38.0, 8.0, [Some(80.0), Some(85.0), None]),
    ("NVMe Bay 3 Temp", "celsius", 43.0, 6.0, [Some(65.0), Some(70.0), None]),
    ("Fan 1A", "rpm", 7200.0, 2600.0, [None, None, Some(600.0)]),
    ("Fan 1B", "rpm", 6800.0, 2500.0, [None, None, Some(600.0)]),
    ("Fan 2A", "rpm", 7300.0, 2600.0, [None, None, Some(600.0)]),
    ("Fan 2B", "rpm", 6900.0, 2500.0, [None, None, Some(600.0)]),
    ("PSU1 Input Power", "watt", 180.0, 140.0, [None, None, None]),
    ("PSU2 Input Power", "watt", 170.0, 130.0, [None, None, None]),
    ("12V Rail", "volt", 12.08, -0.06, [None, Some(13.2), Some(10.8)]),
    ("P1 Vcore", "volt", 1.78, 0.05, [None, Some(2.1), Some(1.2)]),
];

/// Writes 30 days that end at `now` for this node (by its name), and its health. Nothing was read for three hours of the
/// last day, and for a day and a half two weeks ago.
///
/// # Errors
/// Where the database does not take it.
pub fn write(database: &Path, node: &str, now: Timestamp, health: &Value) -> Result<()> {
    let mut db = Connection::open(database).with_context(|| format!("opening {}", database.display()))?;
    let sensors: Vec<Value> = SENSORS
        .iter()
        .map(|(name, unit, _, _, [warning, critical, below])| {
            json!({ "name": name, "unit": unit, "upper_warning": warning, "upper_critical": critical, "lower_critical": below })
        })
        .collect();
    let tx = db.transaction()?;
    tx.execute(
        "INSERT INTO sensors (id, node, body, health) SELECT 1, id, ?2, ?3 FROM nodes WHERE name = ?1",
        params![node, serde_json::to_string(&sensors)?, health.to_string()],
    )?;
    let begin = now.0 - 30 * DAY;
    let rows: Vec<Row> =
        (begin..now.0).step_by(5 * MINUTE as usize).filter(|at| read_at(now.0 - at)).map(row).collect();
    let (old, new): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.at.0 < now.0 - DAY);
    for (table, windows, rows) in
        [("sensor_windows", true, downsample(&old, WINDOW)), ("sensor_samples", false, new)]
    {
        for row in rows {
            let body = encode(&row.values, windows);
            let at = i64::try_from(row.at.0)?;
            tx.execute(
                &format!("INSERT INTO {table} (sensors, at, body) VALUES (1, ?1, ?2)"),
                params![at, body],
            )?;
        }
    }
    Ok(tx.commit()?)
}

/// Whether the machine was read this long ago.
fn read_at(ago: u64) -> bool {
    !(8 * HOUR..11 * HOUR).contains(&ago) && !(14 * DAY..15 * DAY + DAY / 2).contains(&ago)
}

fn row(at: u64) -> Row {
    let values = (0..).zip(SENSORS).map(|(n, (_, unit, base, swing, _))| {
        let noise =
            f64::from((at / MINUTE * 2_654_435_761 + u64::from(n) * 40_503) as u32 >> 8) / f64::from(1 << 24);
        let value = base + swing * load(at) + swing.abs() * 0.08 * (noise - 0.5);
        let step = match *unit {
            "rpm" => 60.0,
            "volt" => 0.01,
            _ => 1.0,
        };
        (n, Measured::from((value / step).round() * step))
    });
    Row { at: Timestamp(at), values: values.collect() }
}

/// Between 0 and 1: work by day, a job at night, little at the week's end.
fn load(at: u64) -> f64 {
    let hour = (at % DAY) as f64 / HOUR as f64;
    let weekend = matches!(at / DAY % 7, 2 | 3);
    let day = (-((hour - 14.0) / 4.0).powi(2)).exp() * if weekend { 0.25 } else { 0.8 };
    let night = if (1.0..2.5).contains(&hour) { 0.7 } else { 0.0 };
    f64::max(day, night)
}
