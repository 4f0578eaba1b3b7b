//! Copies a whole store to another place: a site moves from SQLite to PostgreSQL, or back. Nothing of the source is changed,
//! and the target is filled in one transaction, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use boot_server_core::dhcp::Lease;

use super::db::{Connection, Kind, ToSql, Value};
use super::{Location, Store, StoreError, db, journal, migrate, queries};

/// How often the lease journal is read, where it is written over meanwhile.
const JOURNAL_TRIES: u32 = 50;

/// The tables of a file of SQLite's.
const TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'";

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the two.
    #[error("{place}: {error}")]
    Store {
        /// Which.
        place: String,
        /// Why.
        #[source]
        error: StoreError,
    },
    /// The source is not there.
    #[error("there is no database {0}")]
    Nothing(String),
    /// The source is of another version.
    #[error(
        "{place} has schema {found}, this billet knows {known}: run `billet serve` of this version on it once, then copy"
    )]
    Version {
        /// The source.
        place: String,
        /// Its schema.
        found: i64,
        /// The newest.
        known: i64,
    },
    /// The target is somebody's already.
    #[error("{place} is not empty: see {table}; nothing was changed")]
    NotEmpty {
        /// The target.
        place: String,
        /// The first table with rows of somebody's.
        table: String,
    },
    /// What arrived is not what was sent.
    #[error("{table}: {sent} rows were read and {arrived} are there; nothing was changed")]
    Counts {
        /// The table.
        table: String,
        /// In the source.
        sent: i64,
        /// In the target.
        arrived: i64,
    },
    /// The lease journal.
    #[error("cannot read the lease journal")]
    Journal(#[source] std::io::Error),
    /// The lease journal was written over each time.
    #[error("the lease journal was written over each time it was read: try again")]
    Restless,
    /// The file.
    #[error("{place} is damaged: {found}")]
    Damaged {
        /// Which.
        place: String,
        /// What SQLite finds.
        found: String,
    },
    /// Tables that need each other.
    #[error("the tables {0} need each other")]
    Circle(String),
}

/// A table and its columns.
struct Table {
    name: String,
    columns: Vec<(String, Kind)>,
    /// Rows that a new schema has.
    seeded: i64,
}

/// A value on its way.
struct Cell<'a>(Kind, Value<'a>);

impl ToSql for Cell<'_> {
    fn kind(&self) -> Kind {
        self.0
    }

    fn value(&self) -> Value<'_> {
        self.1
    }
}

/// Copies everything and returns how many rows each table has.
///
/// # Errors
/// [`CopyError`]; the target is then as it was, but for an empty schema.
pub fn copy(from: &Location, to: &Location) -> Result<Vec<(String, i64)>, CopyError> {
    let at = |place: &Location| {
        let place = place.to_string();
        move |error| CopyError::Store { place, error }
    };
    if let Location::File(path) = from
        && !path.exists()
    {
        return Err(CopyError::Nothing(path.display().to_string()));
    }
    let source = Store::connect(from).map_err(at(from))?;
    let (found, known) = (migrate::version(&source).map_err(at(from))?, migrate::known());
    if found != known {
        return Err(CopyError::Version { place: from.to_string(), found, known });
    }
    let target = Store::connect(to).map_err(at(to))?;
    migrate::migrate(&target).map_err(at(to))?;
    let tables = tables()?;
    for table in &tables {
        if count(&target, &table.name).map_err(at(to))? != table.seeded {
            return Err(CopyError::NotEmpty { place: to.to_string(), table: table.name.clone() });
        }
    }
    // Nobody writes to the source meanwhile: its transaction is one that writes, and the server's lock is ours.
    source.begin().map_err(StoreError::sql("begin")).map_err(at(from))?;
    target.begin().map_err(StoreError::sql("begin")).map_err(at(to))?;
    let copied = fill(&source, &target, &tables, from, to);
    source.abandon();
    match copied {
        Ok(counts) => {
            target.commit().map_err(StoreError::sql("commit")).map_err(at(to))?;
            Ok(counts)
        }
        Err(error) => {
            target.abandon();
            Err(error)
        }
    }
}

/// Copies a store, served or not, as it is at one moment, to a new file of SQLite's. Leases that are only in the journal of
/// the directory so far come with it.
///
/// # Errors
/// [`CopyError`]; what is in the file then is of no use.
pub fn snapshot(from: &Location, to: &Path, journal: &Path) -> Result<Vec<(String, i64)>, CopyError> {
    let place = from.to_string();
    for _ in 0..JOURNAL_TRIES {
        let before = journal::peek(journal).map_err(CopyError::Journal)?;
        let copied = Store::read_only(from, |source| {
            // The first statement says of which moment all that follows is.
            let found = migrate::noted(source)?;
            let after = journal::peek(journal).map_err(CopyError::Journal);
            // What was in the journal is there still, and so nothing of it can be missing here and there.
            let steady = after.as_ref().is_ok_and(|after| before.keys().all(|turn| after.contains_key(turn)));
            if steady || after.is_err() {
                Ok(after.and_then(|leases| take(source, found, from, to, leases)).map(Some))
            } else {
                Ok(Ok(None))
            }
        });
        if let Some(counts) = copied.map_err(|error| CopyError::Store { place: place.clone(), error })?? {
            return Ok(counts);
        }
    }
    Err(CopyError::Restless)
}

fn take(
    source: &Connection,
    found: i64,
    from: &Location,
    to: &Path,
    leases: BTreeMap<u64, Vec<Lease>>,
) -> Result<Vec<(String, i64)>, CopyError> {
    let known = migrate::known();
    if found != known {
        return Err(CopyError::Version { place: from.to_string(), found, known });
    }
    let to = Location::File(to.to_owned());
    let at = |error| CopyError::Store { place: to.to_string(), error };
    let target = Store::connect(&to).map_err(at)?;
    migrate::migrate(&target).map_err(at)?;
    target.begin().map_err(StoreError::sql("begin")).map_err(at)?;
    let mut counts = fill(source, &target, &tables()?, from, &to)?;
    for rows in leases.into_values() {
        queries::put_leases(&target, &rows).map_err(at)?;
    }
    let all = target.query_row("SELECT COUNT(*) FROM leases", [], |row| row.get(0));
    let all = all.map_err(StoreError::sql("count rows")).map_err(at)?;
    counts.iter_mut().filter(|(name, _)| name == "leases").for_each(|(_, rows)| *rows = all);
    target.commit().map_err(StoreError::sql("commit")).map_err(at)?;
    Ok(counts)
}

/// How many rows the tables of a file of SQLite's have together, of whatever version it is. The file is read whole.
///
/// # Errors
/// [`CopyError`], also where it is damaged.
pub fn rows(of: &Path) -> Result<i64, CopyError> {
    let place = of.display().to_string();
    let all = Store::read_only(Location::File(of.to_owned()), |store| {
        let state: String = store
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(StoreError::sql("check"))?;
        if state != "ok" {
            return Ok(Err(state));
        }
        let names = store.query_all(TABLES, [], |row| row.get::<_, String>(0));
        let names = names.map_err(StoreError::sql("list the tables"))?;
        names.iter().map(|name| count(store, name)).sum::<Result<i64, _>>().map(Ok)
    });
    let all = all.map_err(|error| CopyError::Store { place: place.clone(), error })?;
    all.map_err(|found| CopyError::Damaged { place, found })
}

fn fill(
    source: &Connection,
    target: &Connection,
    tables: &[Table],
    from: &Location,
    to: &Location,
) -> Result<Vec<(String, i64)>, CopyError> {
    let failed = |place: &Location, error| CopyError::Store { place: place.to_string(), error };
    for table in tables.iter().rev().filter(|table| table.seeded > 0) {
        let emptied = target.execute(&format!("DELETE FROM \"{}\"", table.name), []);
        emptied.map_err(|cause| failed(to, StoreError::sql("empty a table")(cause)))?;
    }
    let mut counts = Vec::new();
    for table in tables {
        let names: Vec<_> = table.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let (names, numbers) = (names.join(", "), parameters(table.columns.len()));
        let insert = format!("INSERT INTO \"{}\" ({names}) VALUES ({numbers})", table.name);
        let mut refused = None;
        let read = source.stream(&format!("SELECT {names} FROM \"{}\"", table.name), |row| {
            let cells = (0..).zip(&table.columns).map(|(n, (_, kind))| Ok(Cell(*kind, row.value(n)?)));
            let cells = cells.collect::<db::Result<Vec<_>>>()?;
            let values: Vec<&dyn ToSql> = cells.iter().map(|cell| cell as &dyn ToSql).collect();
            target.execute(&insert, values.as_slice()).inspect_err(|cause| refused = Some(cause.clone()))?;
            Ok(())
        });
        if let Some(cause) = refused {
            return Err(failed(to, StoreError::sql("copy a row")(cause)));
        }
        read.map_err(|cause| failed(from, StoreError::sql("read a table")(cause)))?;
        let sent = count(source, &table.name).map_err(|e| failed(from, e))?;
        let arrived = count(target, &table.name).map_err(|e| failed(to, e))?;
        if sent != arrived {
            return Err(CopyError::Counts { table: table.name.clone(), sent, arrived });
        }
        counts.push((table.name.clone(), sent));
    }
    Ok(counts)
}

fn parameters(columns: usize) -> String {
    (1..=columns).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ")
}

fn count(connection: &Connection, table: &str) -> Result<i64, StoreError> {
    let sql = format!("SELECT COUNT(*) FROM \"{table}\"");
    connection.query_row(&sql, [], |row| row.get(0)).map_err(StoreError::sql("count rows"))
}

/// All tables of the newest schema, each behind those that its rows name. A database in memory is asked, so that it is the
/// same whatever is copied to whatever.
fn tables() -> Result<Vec<Table>, CopyError> {
    let failed = |error| CopyError::Store { place: "the schema".to_owned(), error };
    schema().map_err(StoreError::sql("read the schema")).map_err(failed)?.in_order()
}

/// Tables, and the tables that each of them names.
struct Schema(BTreeMap<String, (Table, BTreeSet<String>)>);

fn schema() -> db::Result<Schema> {
    let memory = Connection::memory()?;
    for sql in migrate::MIGRATIONS {
        memory.execute_batch(sql)?;
    }
    let names = memory.query_all(TABLES, [], |row| row.get::<_, String>(0))?;
    let mut tables = BTreeMap::new();
    for name in names {
        let columns = format!("PRAGMA table_info(\"{name}\")");
        let columns = memory.query_all(&columns, [], |row| {
            let kind = match row.get::<_, String>(2)?.as_str() {
                "TEXT" => Kind::Text,
                "BLOB" => Kind::Blob,
                "REAL" => Kind::Real,
                _ => Kind::Integer,
            };
            Ok((row.get(1)?, kind))
        })?;
        let needs = format!("PRAGMA foreign_key_list(\"{name}\")");
        let needs = memory.query_all(&needs, [], |row| row.get::<_, String>(2))?;
        let needs = needs.into_iter().filter(|needed| *needed != name).collect();
        let rows = format!("SELECT COUNT(*) FROM \"{name}\"");
        let seeded = memory.query_row(&rows, [], |row| row.get(0))?;
        tables.insert(name.clone(), (Table { name, columns, seeded }, needs));
    }
    Ok(Schema(tables))
}

impl Schema {
    fn in_order(self) -> Result<Vec<Table>, CopyError> {
        let (mut left, mut ordered) = (self.0, Vec::new());
        while !left.is_empty() {
            let ready = left.iter().find(|(_, (_, needs))| needs.iter().all(|n| !left.contains_key(n)));
            let Some(name) = ready.map(|(name, _)| name.clone()) else {
                let names: Vec<_> = left.into_keys().collect();
                return Err(CopyError::Circle(names.join(", ")));
            };
            ordered.extend(left.remove(&name).map(|(table, _)| table));
        }
        Ok(ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn tables_come_behind_those_that_they_name() {
        let tables = tables().unwrap();
        let place = |name: &str| tables.iter().position(|t| t.name == name).unwrap();
        assert!(place("nodes") < place("inventories") && place("sensors") < place("sensor_samples"));
        assert!(place("nodes") < place("bmcs"));
    }

    #[test]
    fn a_store_is_copied_whole_or_not_at_all() {
        let (old, new) = (Scratch::new(), Scratch::new());
        let (from, to) = (Location::from(&old.database()), Location::from(&new.database()));
        assert!(copy(&from, &to).is_err(), "there is nothing to copy");
        Store::open(&from).unwrap().close();
        let source = Store::connect(&from).unwrap();
        let node =
            "INSERT INTO nodes (id, name, version, state, deadline, body) VALUES (?1, ?2, 1, 'x', ?3, '{}')";
        source.execute(node, db::params!["a", "Ångström", None::<i64>]).unwrap();
        source.execute(node, db::params!["b", "b", i64::MAX]).unwrap();
        source.execute("INSERT INTO sensors (id, node, body) VALUES (7, 'b', '[]')", []).unwrap();
        let sample = "INSERT INTO sensor_samples (sensors, at, body) VALUES (7, ?1, ?2)";
        for at in 0..2500_i64 {
            source.execute(sample, db::params![at, vec![0_u8, 255, at as u8]]).unwrap();
        }
        source.close();
        let counts: BTreeMap<_, _> = copy(&from, &to).unwrap().into_iter().collect();
        assert_eq!((counts["nodes"], counts["sensor_samples"], counts["events"]), (2, 2500, 0));
        let target = Store::connect(&to).unwrap();
        let all = "SELECT id, name, deadline FROM nodes ORDER BY id";
        let nodes = target
            .query_all(all, [], |r| {
                Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, Option<i64>>(2)?))
            })
            .unwrap();
        let wanted = [("a".into(), "Ångström".into(), None), ("b".into(), "b".into(), Some(i64::MAX))];
        assert_eq!(nodes, wanted);
        let last = "SELECT body FROM sensor_samples WHERE at = 2499";
        assert_eq!(target.query_row(last, [], |r| r.get::<_, Vec<u8>>(0)).unwrap(), [0, 255, 195]);
        target.close();
        let again = copy(&from, &to).unwrap_err().to_string();
        assert!(again.contains("is not empty: see nodes"), "{again}");
    }
}
