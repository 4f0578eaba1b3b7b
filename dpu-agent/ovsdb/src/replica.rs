//! The rows of chosen tables, as the last update left them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::datum::DatumError;
use crate::operation::{Row, row_of_json};
use crate::schema::Schema;

/// Rows by id, by table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replica {
    tables: BTreeMap<String, BTreeMap<Uuid, Row>>,
}

/// In which form an update comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// `<table-updates>` of RFC 7047 section 4.1.6: rows as they were and are.
    Whole,
    /// `<table-updates2>` of `ovsdb-server(7)`: rows that came, differences, rows that went.
    Difference,
}

/// An update that cannot be taken; the replica is to be read anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Not as the protocol has it.
    #[error("an update of table `{0}` cannot be read")]
    Shape(String),
    /// A value that is none.
    #[error("an update cannot be read")]
    Datum(#[from] DatumError),
    /// A difference to a row that is not there.
    #[error("an update changes row {uuid} of table `{table}`, which is not there")]
    NoRow {
        /// Of the row.
        table: String,
        /// The row.
        uuid: Uuid,
    },
}

impl Replica {
    /// Rows of a table, in order of their ids.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (Uuid, &Row)> {
        self.tables.get(table).into_iter().flatten().map(|(uuid, row)| (*uuid, row))
    }

    /// One row.
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<&Row> {
        self.tables.get(table)?.get(&uuid)
    }

    /// How many rows a table has.
    pub fn len(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, BTreeMap::len)
    }

    /// True where it holds no row at all.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(BTreeMap::is_empty)
    }

    /// Puts a row in, or in place of the one with its id.
    pub fn put(&mut self, table: &str, uuid: Uuid, row: Row) {
        self.tables.entry(table.to_owned()).or_default().insert(uuid, row);
    }

    /// Takes a row away.
    pub fn take(&mut self, table: &str, uuid: Uuid) -> Option<Row> {
        self.tables.get_mut(table)?.remove(&uuid)
    }

    /// Takes an update.
    ///
    /// # Errors
    /// [`UpdateError`]; a part of the update may have been taken.
    pub fn apply(&mut self, schema: &Schema, form: Update, updates: &Value) -> Result<(), UpdateError> {
        for (table, rows) in object(updates, "")? {
            for (uuid, update) in object(rows, table)? {
                let uuid = uuid.parse().map_err(|_| UpdateError::Shape(table.clone()))?;
                let update = object(update, table)?;
                match form {
                    Update::Whole => self.whole(table, uuid, update)?,
                    Update::Difference => self.difference(schema, table, uuid, update)?,
                }
            }
        }
        Ok(())
    }

    fn whole(&mut self, table: &str, uuid: Uuid, update: &Map<String, Value>) -> Result<(), UpdateError> {
        match update.get("new") {
            Some(new) => self.put(table, uuid, row_of_json(object(new, table)?)?),
            None => drop(self.take(table, uuid)),
        }
        Ok(())
    }

    fn difference(
        &mut self,
        schema: &Schema,
        table: &str,
        uuid: Uuid,
        update: &Map<String, Value>,
    ) -> Result<(), UpdateError> {
        let shape = || UpdateError::Shape(table.to_owned());
        match update.iter().next().ok_or_else(shape)? {
            (kind, row) if kind == "initial" || kind == "insert" => {
                // Columns that have their default are left out.
                self.put(table, uuid, row_of_json(object(row, table)?)?);
            }
            (kind, _) if kind == "delete" => drop(self.take(table, uuid)),
            (kind, row) if kind == "modify" => {
                let have = self.tables.get_mut(table).and_then(|rows| rows.get_mut(&uuid));
                let have = have.ok_or_else(|| UpdateError::NoRow { table: table.to_owned(), uuid })?;
                for (column, change) in row_of_json(object(row, table)?)? {
                    let single = schema.column(table, &column).is_some_and(|column| column.single);
                    match have.get_mut(&column) {
                        Some(datum) if !single => datum.changed_by(change),
                        _ => drop(have.insert(column, change)),
                    }
                }
            }
            _ => return Err(shape()),
        }
        Ok(())
    }
}

fn object<'a>(value: &'a Value, table: &str) -> Result<&'a Map<String, Value>, UpdateError> {
    value.as_object().ok_or_else(|| UpdateError::Shape(table.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::datum::Datum;

    fn schema() -> Schema {
        let many = json!({ "type": { "key": "string", "max": "unlimited" } });
        let columns = json!({ "name": { "type": "string" }, "tags": many });
        Schema::parse(&json!({ "version": "1.0.0", "tables": { "T": { "columns": columns } } })).unwrap()
    }

    #[test]
    fn differences_and_whole_rows_lead_to_the_same() {
        let id = Uuid::from_u128(1);
        let at = |update: Value| json!({ "T": { id.to_string(): update } });
        let steps = [
            (
                json!({ "initial": { "name": "a", "tags": ["set", ["x", "y"]] } }),
                json!({ "new": { "name": "a", "tags": ["set", ["x", "y"]] } }),
            ),
            (
                json!({ "modify": { "name": "b", "tags": ["set", ["y", "z"]] } }),
                json!({ "old": { "name": "a" }, "new": { "name": "b", "tags": ["set", ["x", "z"]] } }),
            ),
            (json!({ "delete": null }), json!({ "old": { "name": "b" } })),
        ];
        let (mut a, mut b) = (Replica::default(), Replica::default());
        for (difference, whole) in steps {
            a.apply(&schema(), Update::Difference, &at(difference)).unwrap();
            b.apply(&schema(), Update::Whole, &at(whole)).unwrap();
            assert_eq!(a, b);
        }
        assert!(a.is_empty() && a.row("T", id).is_none());
        let late = a.apply(&schema(), Update::Difference, &at(json!({ "modify": { "name": "c" } })));
        assert_eq!(late, Err(UpdateError::NoRow { table: "T".into(), uuid: id }));
        for bad in [
            json!([]),
            json!({ "T": 1 }),
            json!({ "T": { "x": {} } }),
            at(json!({ "gone": {} })),
            at(json!({})),
        ] {
            assert!(a.apply(&schema(), Update::Difference, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_column_without_a_value_takes_the_difference_as_its_value() {
        let id = Uuid::from_u128(1);
        let mut replica = Replica::default();
        replica.put("T", id, Row::new());
        let update = json!({ "T": { id.to_string(): { "modify": { "tags": ["set", ["x", "y"]] } } } });
        replica.apply(&schema(), Update::Difference, &update).unwrap();
        assert_eq!(replica.row("T", id).unwrap()["tags"], Datum::set(["x", "y"]));
    }
}
