//! What sensors measured, and the health that was last read. What the rows hold is `core::bmc::history`'s business.

use std::time::Duration;

use bmc::{Reading, Unit};
use boot_server_core::bmc::health::{Part, Verdict};
use boot_server_core::bmc::history::{self, Row};
use protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, params};
use super::queries::{all, from_word, json, moment, ms, parsed};

/// A sensor of one machine; its place in the list is its number, for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensorRow {
    /// Its name; of several with one name the second is `… (2)`.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// At or above this is a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_warning: Option<f64>,
    /// At or above this is critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_critical: Option<f64>,
    /// At or below this is critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_critical: Option<f64>,
}

impl SensorRow {
    /// A sensor as it was read, under this name.
    pub fn of(name: String, reading: &Reading) -> Self {
        Self {
            name,
            unit: reading.unit,
            upper_warning: reading.upper_warning,
            upper_critical: reading.upper_critical,
            lower_critical: reading.lower_critical,
        }
    }
}

/// The health of a machine as it was last read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRow {
    /// In one word, with reasons.
    pub verdict: Verdict,
    /// What is wrong.
    pub faults: Vec<Part>,
}

/// The sensors of a node, in the order of their numbers; none where it has none.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn sensors(db: &Connection, node: NodeId) -> Result<Vec<SensorRow>, StoreError> {
    let body: Option<String> = db
        .query_row("SELECT body FROM sensors WHERE node = ?1", params![node.to_string()], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("read sensors"))?;
    body.map_or(Ok(Vec::new()), |body| parsed("sensors", &body))
}

/// The health that was last read of each node.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn healths(db: &Connection) -> Result<Vec<(NodeId, HealthRow)>, StoreError> {
    let sql = "SELECT node, health FROM sensors WHERE health IS NOT NULL";
    let rows =
        all(db, "list health", sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.iter().map(|(node, body)| Ok((from_word("sensors", node)?, parsed("sensors", body)?))).collect()
}

/// Stores one look at a machine. `sensors` where there are new ones or new limits. A node that is gone is no error.
///
/// # Errors
/// What the database says.
pub fn put_look(
    db: &Connection,
    node: NodeId,
    sensors: Option<&[SensorRow]>,
    sample: &Row,
    health: &HealthRow,
) -> Result<(), StoreError> {
    let node = node.to_string();
    let health = json("sensors", health)?;
    if let Some(sensors) = sensors {
        db.post(
            "INSERT INTO sensors (id, node, body, health) \
             SELECT (SELECT COALESCE(MAX(id), 0) + 1 FROM sensors), id, ?2, ?3 FROM nodes WHERE id = ?1 \
             ON CONFLICT (node) DO UPDATE SET body = excluded.body, health = excluded.health",
            params![node, json("sensors", &sensors)?, health],
        )
        .map_err(StoreError::sql("store sensors"))?;
    } else {
        db.post("UPDATE sensors SET health = ?2 WHERE node = ?1", params![node, health])
            .map_err(StoreError::sql("store a health"))?;
    }
    if !sample.values.is_empty() {
        db.post(
            "INSERT INTO sensor_samples (sensors, at, body) SELECT id, ?2, ?3 FROM sensors WHERE node = ?1 \
             ON CONFLICT (sensors, at) DO NOTHING",
            params![node, ms(sample.at), history::encode(&sample.values, false)],
        )
        .map_err(StoreError::sql("store a sample"))?;
    }
    Ok(())
}

/// Forgets the health of a node, such as where its controller is another one now. What was measured stays.
///
/// # Errors
/// What the database says.
pub fn forget_health(db: &Connection, node: NodeId) -> Result<(), StoreError> {
    db.execute("UPDATE sensors SET health = NULL WHERE node = ?1", params![node.to_string()])
        .map_err(StoreError::sql("forget a health"))?;
    Ok(())
}

/// What was measured from `from` until before `to`, oldest first: windows, then samples.
///
/// # Errors
/// What the database says. A damaged row is left out.
pub fn measured(
    db: &Connection,
    node: NodeId,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    for (table, windows) in [("sensor_windows", true), ("sensor_samples", false)] {
        let sql = format!(
            "SELECT r.at, r.body FROM {table} r JOIN sensors s ON s.id = r.sensors \
             WHERE s.node = ?1 AND r.at >= ?2 AND r.at < ?3 ORDER BY r.at"
        );
        let values = params![node.to_string(), ms(from), ms(to)];
        let found = all(db, "read what sensors measured", &sql, values, |row| {
            Ok((moment(row.get(0)?), row.get::<_, Vec<u8>>(1)?))
        })?;
        rows.extend(found.into_iter().filter_map(|(at, body)| whole(at, &body, windows)));
    }
    Ok(rows)
}

fn whole(at: Timestamp, body: &[u8], windows: bool) -> Option<Row> {
    Some(Row { at, values: history::decode(body, windows)? })
}

/// Numbers of the lists of sensors, behind `after`, at most `batch`.
///
/// # Errors
/// What the database says.
pub fn lists(db: &Connection, after: i64, batch: usize) -> Result<Vec<i64>, StoreError> {
    let values = params![after, i64::try_from(batch).unwrap_or(i64::MAX)];
    all(db, "list sensors", "SELECT id FROM sensors WHERE id > ?1 ORDER BY id LIMIT ?2", values, |row| {
        row.get(0)
    })
}

/// Makes windows of the samples of one list from before `samples_before`, which begins a window, and forgets them, and
/// windows from before `windows_before`.
///
/// # Errors
/// What the database says.
pub fn age(
    db: &Connection,
    list: i64,
    samples_before: Timestamp,
    windows_before: Timestamp,
    window: Duration,
) -> Result<(), StoreError> {
    let sql = "SELECT at, body FROM sensor_samples WHERE sensors = ?1 AND at < ?2 ORDER BY at";
    let samples = all(db, "read old samples", sql, params![list, ms(samples_before)], |row| {
        Ok((moment(row.get(0)?), row.get::<_, Vec<u8>>(1)?))
    })?;
    let rows: Vec<Row> = samples.iter().filter_map(|(at, body)| whole(*at, body, false)).collect();
    let mut put = db
        .prepare_cached(
            "INSERT INTO sensor_windows (sensors, at, body) VALUES (?1, ?2, ?3) \
             ON CONFLICT (sensors, at) DO UPDATE SET body = excluded.body",
        )
        .map_err(StoreError::sql("store a window"))?;
    for made in history::downsample(&rows, window) {
        put.post(params![list, ms(made.at), history::encode(&made.values, true)])
            .map_err(StoreError::sql("store a window"))?;
    }
    db.post("DELETE FROM sensor_samples WHERE sensors = ?1 AND at < ?2", params![list, ms(samples_before)])
        .map_err(StoreError::sql("forget samples"))?;
    db.post("DELETE FROM sensor_windows WHERE sensors = ?1 AND at < ?2", params![list, ms(windows_before)])
        .map_err(StoreError::sql("forget windows"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use boot_server_core::bmc::health::Level;
    use boot_server_core::bmc::history::{SAMPLES_KEPT, WINDOW, WINDOWS_KEPT};
    use boot_server_core::node::{Identity, Node};
    use uuid::Uuid;

    use super::*;
    use crate::store::tests::{Scratch, on_postgres};
    use crate::store::{Store, queries};

    const HOUR: u64 = 3_600_000;

    fn health() -> HealthRow {
        let verdict = Verdict { level: Level::Ok, reasons: Vec::new(), at: Timestamp(1) };
        HealthRow { verdict, faults: Vec::new() }
    }

    fn sensor(n: usize) -> SensorRow {
        SensorRow {
            name: format!("sensor {n}"),
            unit: Unit::Celsius,
            upper_warning: Some(80.0),
            upper_critical: None,
            lower_critical: None,
        }
    }

    fn sample(at: u64, sensors: u16) -> Row {
        let value = |n: u16| 30.0 + f64::from(n) + (at / 1000 % 7) as f64 / 2.0;
        Row { at: Timestamp(at), values: (0..sensors).map(|n| (n, value(n).into())).collect() }
    }

    fn node(n: u128) -> Node {
        Node::discovered(NodeId(Uuid::from_u128(n)), format!("n{n}"), Identity::default(), Timestamp(1))
    }

    #[tokio::test]
    async fn samples_age_into_windows_and_go_with_their_node() {
        let scratch = Scratch::new();
        let store = Store::open(&scratch.database()).unwrap();
        let id = node(1).id;
        let rows = store
            .write(move |db| {
                // Of a node that is gone nothing is kept.
                put_look(db, id, Some(&[sensor(0)]), &sample(0, 1), &health())?;
                assert_eq!(measured(db, id, Timestamp(0), Timestamp(u64::MAX))?, []);
                queries::insert_node(db, &node(1))?;
                for n in 0..48 {
                    let sensors = [sensor(0), sensor(1)];
                    let new = (n == 0).then_some(&sensors[..]);
                    put_look(db, id, new, &sample(n * HOUR / 4, 2), &health())?;
                }
                let list = lists(db, 0, 10)?[0];
                age(db, list, Timestamp(6 * HOUR), Timestamp(HOUR), WINDOW)?;
                age(db, list, Timestamp(6 * HOUR), Timestamp(HOUR), WINDOW)?;
                measured(db, id, Timestamp(0), Timestamp(u64::MAX))
            })
            .await
            .unwrap();
        // Five hours of two windows each, then six hours of four samples each.
        assert_eq!(rows.len(), 10 + 24);
        assert!(rows.is_sorted_by_key(|row| row.at) && rows[0].at == Timestamp(HOUR));
        let known = store.read(move |db| Ok((sensors(db, id)?, healths(db)?))).await.unwrap();
        assert_eq!((known.0.len(), &known.1[0]), (2, &(id, health())));
        store.write(move |db| queries::delete_node(db, id)).await.unwrap();
        let left = store
            .read(|db| {
                db.query_row(
                    "SELECT (SELECT COUNT(*) FROM sensors) + (SELECT COUNT(*) FROM sensor_windows)",
                    [],
                    |r| r.get::<_, i64>(0),
                )
                .map_err(StoreError::sql("count"))
            })
            .await
            .unwrap();
        assert_eq!(left, 0);
    }

    /// What the guide says of the cost, measured: 60 sensors of one node over 31 days take about half a mebibyte.
    #[tokio::test]
    async fn a_month_of_sixty_sensors_is_small() {
        let scratch = Scratch::new();
        let path = scratch.database();
        // It is about the size of SQLite's file.
        if on_postgres() {
            return;
        }
        let store = Store::open(&path).unwrap();
        let id = node(1).id;
        store
            .write(move |db| {
                queries::insert_node(db, &node(1))?;
                let sensors: Vec<_> = (0..60).map(sensor).collect();
                put_look(db, id, Some(&sensors), &sample(0, 60), &health())
            })
            .await
            .unwrap();
        let (day, every) = (24 * HOUR, HOUR / 12);
        for d in 0..31 {
            store
                .write(move |db| {
                    for at in (d * day..(d + 1) * day).step_by(every as usize) {
                        put_look(db, id, None, &sample(at, 60), &health())?;
                    }
                    let now = Timestamp((d + 1) * day);
                    let before = |kept: Duration| Timestamp(now.0.saturating_sub(kept.as_millis() as u64));
                    age(db, lists(db, 0, 1)?[0], before(SAMPLES_KEPT), before(WINDOWS_KEPT), WINDOW)
                })
                .await
                .unwrap();
        }
        let rows = store.read(move |db| measured(db, id, Timestamp(0), Timestamp(u64::MAX))).await.unwrap();
        assert_eq!(rows.len(), 29 * 48 + 288);
        store.close();
        // Each table and index of the schema has a page, also an empty one.
        let empty = Scratch::new();
        Store::open(&empty.database()).unwrap().close();
        let schema = std::fs::metadata(empty.database()).unwrap().len();
        let octets = std::fs::metadata(&path).unwrap().len() - schema;
        assert!(octets < 700_000, "{octets} octets beside {schema} of the schema");
    }
}
