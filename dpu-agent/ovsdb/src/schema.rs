//! What a database has: tables, columns and how much a column holds (RFC 7047 section 3.2).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Tables and the columns of each that are of interest.
pub type Wanted = BTreeMap<String, BTreeSet<String>>;

/// A database's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// Such as `7.0.0`.
    pub version: String,
    /// Columns by name, by table.
    pub tables: BTreeMap<String, BTreeMap<String, Column>>,
}

/// How much a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// At most one value: an optional or a scalar.
    pub single: bool,
}

/// A schema that does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// No schema of RFC 7047.
    #[error("the schema of the database cannot be read: {0}")]
    Shape(&'static str),
    /// It is older, or of something else.
    #[error(
        "the database (schema {version}) has no {what}: a newer one is needed, or another database was named"
    )]
    Missing {
        /// Of the schema.
        version: String,
        /// A table, or a column of one.
        what: String,
    },
}

impl Schema {
    /// Reads the answer to `get_schema`.
    ///
    /// # Errors
    /// [`SchemaError::Shape`].
    pub fn parse(json: &Value) -> Result<Self, SchemaError> {
        let version = json.get("version").and_then(Value::as_str).ok_or(SchemaError::Shape("no version"))?;
        let tables = json.get("tables").and_then(Value::as_object).ok_or(SchemaError::Shape("no tables"))?;
        let tables = tables.iter().map(|(name, table)| {
            let columns = table.get("columns").and_then(Value::as_object);
            let columns = columns.ok_or(SchemaError::Shape("a table without columns"))?;
            Ok((
                name.clone(),
                columns.iter().map(|(name, column)| (name.clone(), Column::of(column))).collect(),
            ))
        });
        Ok(Self { version: version.to_owned(), tables: tables.collect::<Result<_, SchemaError>>()? })
    }

    /// Whether all that is wanted is there.
    ///
    /// # Errors
    /// [`SchemaError::Missing`], with the first that is not.
    pub fn check(&self, wanted: &Wanted) -> Result<(), SchemaError> {
        let missing = |what| SchemaError::Missing { version: self.version.clone(), what };
        for (table, columns) in wanted {
            let have = self.tables.get(table).ok_or_else(|| missing(format!("table `{table}`")))?;
            if let Some(column) = columns.iter().find(|column| !have.contains_key(*column)) {
                return Err(missing(format!("column `{column}` in table `{table}`")));
            }
        }
        Ok(())
    }

    /// What is known of a column.
    pub fn column(&self, table: &str, column: &str) -> Option<Column> {
        self.tables.get(table)?.get(column).copied()
    }
}

impl Column {
    fn of(json: &Value) -> Self {
        // `max` is 1 where it is not given; a type that is a mere name is a scalar.
        let max = json.get("type").and_then(|kind| kind.get("max"));
        Self { single: max.is_none_or(|max| max.as_u64() == Some(1)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let schema = Schema::parse(&json!({ "name": "N", "version": "1.2.3", "tables": { "T": { "columns": {
            "one": { "type": "string" },
            "maybe": { "type": { "key": "string", "min": 0, "max": 1 } },
            "also": { "type": { "key": "string", "min": 0 } },
            "many": { "type": { "key": "string", "min": 0, "max": "unlimited" } },
            "two": { "type": { "key": "integer", "max": 2 } },
        } } } }))
        .unwrap();
        let single = ["one", "maybe", "also", "many", "two"].map(|c| schema.column("T", c).unwrap().single);
        assert_eq!(single, [true, true, true, false, false]);
        let want = |table: &str, column: &str| {
            Wanted::from([(table.to_owned(), BTreeSet::from([column.to_owned()]))])
        };
        assert_eq!(schema.check(&want("T", "one")), Ok(()));
        let error = schema.check(&want("T", "new")).unwrap_err().to_string();
        assert!(error.contains("1.2.3") && error.contains("column `new` in table `T`"), "{error}");
        assert!(schema.check(&want("U", "one")).is_err());
        assert!(Schema::parse(&json!({ "version": "1" })).is_err());
    }
}
