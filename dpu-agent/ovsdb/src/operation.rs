//! What a transaction is made of, and what comes of each part (RFC 7047 section 5.2).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::datum::{Datum, DatumError};

/// Columns by name.
pub type Row = BTreeMap<String, Datum>;

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A new row; columns that are not given have their defaults.
    Insert {
        /// Where.
        table: String,
        /// What.
        row: Row,
        /// By what name [`Atom::Named`](crate::Atom::Named) values of the transaction refer to it: a letter, then letters,
        /// digits and `_`.
        name: Option<String>,
    },
    /// Reads rows.
    Select {
        /// Where.
        table: String,
        /// Which.
        which: Vec<Condition>,
        /// Which columns; all of them for `None`.
        columns: Option<Vec<String>>,
    },
    /// Sets columns of rows.
    Update {
        /// Where.
        table: String,
        /// Which.
        which: Vec<Condition>,
        /// To what.
        row: Row,
    },
    /// Changes columns of rows.
    Mutate {
        /// Where.
        table: String,
        /// Which.
        which: Vec<Condition>,
        /// How.
        mutations: Vec<Mutation>,
    },
    /// Removes rows.
    Delete {
        /// Where.
        table: String,
        /// Which.
        which: Vec<Condition>,
    },
    /// Waits, and aborts the transaction where the time is over.
    Wait {
        /// Milliseconds; 0 looks once, `None` waits for ever.
        timeout: Option<u64>,
        /// Where.
        table: String,
        /// Which.
        which: Vec<Condition>,
        /// Which columns are looked at.
        columns: Vec<String>,
        /// For what.
        until: Until,
        /// The rows compared with.
        rows: Vec<Row>,
    },
    /// Where `durable`, the answer comes after the disk has it.
    Commit {
        /// See above.
        durable: bool,
    },
    /// Undoes the transaction.
    Abort,
    /// Goes into the log of the database.
    Comment(String),
    /// Aborts the transaction unless this client has the lock.
    Assert(String),
}

/// Which rows: all conditions must hold; without any, all rows are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Of the row, or `_uuid`.
    pub column: String,
    /// How it is compared.
    pub function: Comparison,
    /// With what.
    pub value: Datum,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`, of numbers.
    Less,
    /// `<=`, of numbers.
    LessOrEqual,
    /// `>`, of numbers.
    Greater,
    /// `>=`, of numbers.
    GreaterOrEqual,
    /// The column has all of the value's members.
    Includes,
    /// The column has none of the value's members.
    Excludes,
}

/// One change of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Of the row.
    pub column: String,
    /// How it is changed.
    pub mutator: Mutator,
    /// By what.
    pub value: Datum,
}

/// How a column is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutator {
    /// `+=`, of numbers.
    Add,
    /// `-=`, of numbers.
    Subtract,
    /// Members or pairs come in; a key that is there keeps its value.
    Insert,
    /// Members, pairs, or whatever is under given keys, go.
    Delete,
}

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The rows are these.
    Equal,
    /// The rows are not these.
    NotEqual,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The row that was inserted.
    Inserted(Uuid),
    /// So many rows were meant by an update, mutation or deletion.
    Count(u64),
    /// The rows that were read, with `_uuid` where it was asked for.
    Rows(Vec<Row>),
    /// Nothing more to say.
    Done,
}

/// A transaction that was not done; nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutcomeError {
    /// An operation failed, or, where `operation` is beyond the last, the whole did, such as for a constraint.
    #[error("operation {operation} of the transaction failed: {error}: {details}")]
    Failed {
        /// Counted from 0.
        operation: usize,
        /// Such as `constraint violation` (RFC 7047 section 3.1).
        error: String,
        /// In the server's words.
        details: String,
    },
    /// The answer is none of RFC 7047.
    #[error("the answer to a transaction cannot be read: {0}")]
    Shape(String),
    /// A value of the answer is none.
    #[error("the answer to a transaction cannot be read")]
    Datum(#[from] DatumError),
}

impl Condition {
    /// `column == value`.
    pub fn equals(column: &str, value: impl Into<Datum>) -> Self {
        Self { column: column.to_owned(), function: Comparison::Equal, value: value.into() }
    }

    /// The row with this id.
    pub fn is_row(uuid: Uuid) -> Vec<Self> {
        vec![Self::equals("_uuid", uuid)]
    }

    /// Its JSON.
    pub fn to_json(&self) -> Value {
        let function = match self.function {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Includes => "includes",
            Comparison::Excludes => "excludes",
        };
        json!([self.column, function, self.value.to_json()])
    }
}

impl Mutation {
    fn to_json(&self) -> Value {
        let mutator = match self.mutator {
            Mutator::Add => "+=",
            Mutator::Subtract => "-=",
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
        };
        json!([self.column, mutator, self.value.to_json()])
    }
}

impl Operation {
    /// Its JSON.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Insert { table, row, name } => {
                let mut json = json!({ "op": "insert", "table": table, "row": row_to_json(row) });
                if let Some(name) = name {
                    json["uuid-name"] = json!(name);
                }
                json
            }
            Self::Select { table, which, columns } => {
                let mut json = json!({ "op": "select", "table": table, "where": conditions(which) });
                if let Some(columns) = columns {
                    json["columns"] = json!(columns);
                }
                json
            }
            Self::Update { table, which, row } => {
                json!({ "op": "update", "table": table, "where": conditions(which), "row": row_to_json(row) })
            }
            Self::Mutate { table, which, mutations } => {
                let mutations: Vec<Value> = mutations.iter().map(Mutation::to_json).collect();
                json!({ "op": "mutate", "table": table, "where": conditions(which), "mutations": mutations })
            }
            Self::Delete { table, which } => {
                json!({ "op": "delete", "table": table, "where": conditions(which) })
            }
            Self::Wait { timeout, table, which, columns, until, rows } => {
                let until = if *until == Until::Equal { "==" } else { "!=" };
                let rows: Vec<Value> = rows.iter().map(row_to_json).collect();
                let mut json = json!({
                    "op": "wait", "table": table, "where": conditions(which), "columns": columns, "until": until, "rows": rows
                });
                if let Some(timeout) = timeout {
                    json["timeout"] = json!(timeout);
                }
                json
            }
            Self::Commit { durable } => json!({ "op": "commit", "durable": durable }),
            Self::Abort => json!({ "op": "abort" }),
            Self::Comment(comment) => json!({ "op": "comment", "comment": comment }),
            Self::Assert(lock) => json!({ "op": "assert", "lock": lock }),
        }
    }

    fn outcome(&self, json: &Value) -> Result<Outcome, OutcomeError> {
        let wrong = || OutcomeError::Shape(json.to_string().chars().take(120).collect());
        match self {
            Self::Insert { .. } => {
                let datum = Datum::parse(json.get("uuid").ok_or_else(wrong)?)?;
                let uuid = datum.uuids().next().ok_or_else(wrong)?;
                Ok(Outcome::Inserted(uuid))
            }
            Self::Select { .. } => {
                let rows = json.get("rows").and_then(Value::as_array).ok_or_else(wrong)?;
                let rows = rows
                    .iter()
                    .map(|row| row_of_json(row.as_object().ok_or_else(wrong)?).map_err(Into::into));
                Ok(Outcome::Rows(rows.collect::<Result<_, OutcomeError>>()?))
            }
            Self::Update { .. } | Self::Mutate { .. } | Self::Delete { .. } => {
                Ok(Outcome::Count(json.get("count").and_then(Value::as_u64).ok_or_else(wrong)?))
            }
            _ => Ok(Outcome::Done),
        }
    }
}

fn conditions(which: &[Condition]) -> Vec<Value> {
    which.iter().map(Condition::to_json).collect()
}

fn row_to_json(row: &Row) -> Value {
    Value::Object(row.iter().map(|(column, datum)| (column.clone(), datum.to_json())).collect())
}

pub(crate) fn row_of_json(json: &Map<String, Value>) -> Result<Row, DatumError> {
    json.iter().map(|(column, value)| Ok((column.clone(), Datum::parse(value)?))).collect()
}

/// Reads the answer to `transact`: one outcome for each operation.
///
/// # Errors
/// [`OutcomeError`].
pub fn outcomes(operations: &[Operation], answer: &Value) -> Result<Vec<Outcome>, OutcomeError> {
    let shape = || OutcomeError::Shape(answer.to_string().chars().take(120).collect());
    let results = answer.as_array().ok_or_else(shape)?;
    for (operation, result) in results.iter().enumerate() {
        // After an operation that failed, the others are null.
        let Some(error) = result.get("error").filter(|e| !e.is_null()) else { continue };
        let details = result.get("details").and_then(Value::as_str).unwrap_or("no details");
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return Err(OutcomeError::Failed { operation, error: text(error), details: details.to_owned() });
    }
    if results.len() != operations.len() {
        return Err(shape());
    }
    operations.iter().zip(results).map(|(operation, result)| operation.outcome(result)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datum::Atom;

    #[test]
    fn operations_as_the_rfc_writes_them() {
        let row = || Row::from([("name".to_owned(), Datum::from("a"))]);
        let which = || vec![Condition::equals("name", "a")];
        let table = || "T".to_owned();
        let named = Datum::set([Atom::Named("r".into())]);
        let mutations = vec![Mutation { column: "ports".into(), mutator: Mutator::Insert, value: named }];
        let wait = Operation::Wait {
            timeout: Some(0),
            table: table(),
            which: which(),
            columns: vec!["name".into()],
            until: Until::Equal,
            rows: vec![row()],
        };
        for (operation, text) in [
            (
                Operation::Insert { table: table(), row: row(), name: Some("r".into()) },
                r#"{"op":"insert","row":{"name":"a"},"table":"T","uuid-name":"r"}"#,
            ),
            (
                Operation::Mutate { table: table(), which: which(), mutations },
                r#"{"mutations":[["ports","insert",["named-uuid","r"]]],"op":"mutate","table":"T","where":[["name","==","a"]]}"#,
            ),
            (
                Operation::Delete { table: table(), which: vec![] },
                r#"{"op":"delete","table":"T","where":[]}"#,
            ),
            (
                wait,
                r#"{"columns":["name"],"op":"wait","rows":[{"name":"a"}],"table":"T","timeout":0,"until":"==","where":[["name","==","a"]]}"#,
            ),
            (Operation::Assert("l".into()), r#"{"lock":"l","op":"assert"}"#),
        ] {
            assert_eq!(operation.to_json().to_string(), text);
        }
    }

    #[test]
    fn an_answer_is_all_or_an_error() {
        let insert = Operation::Insert { table: "T".into(), row: Row::new(), name: None };
        let uuid = Uuid::from_u128(7);
        let both = [insert, Operation::Comment("x".into())];
        let good = json!([{ "uuid": ["uuid", uuid] }, {}]);
        assert_eq!(outcomes(&both, &good).unwrap(), [Outcome::Inserted(uuid), Outcome::Done]);
        let bad =
            json!([{ "uuid": ["uuid", uuid] }, {}, { "error": "constraint violation", "details": "two a" }]);
        let words = "operation 2 of the transaction failed: constraint violation: two a";
        assert_eq!(outcomes(&both, &bad).unwrap_err().to_string(), words);
        for shape in [json!([]), json!({}), json!([{}, {}]), json!([{ "uuid": 3 }, {}])] {
            assert!(outcomes(&both, &shape).is_err(), "{shape}");
        }
        let select = Operation::Select { table: "T".into(), which: vec![], columns: None };
        let rows = outcomes(&[select], &json!([{ "rows": [{ "n": 1 }] }])).unwrap();
        assert_eq!(rows, [Outcome::Rows(vec![Row::from([("n".to_owned(), Datum::from(1))])])]);
    }
}
