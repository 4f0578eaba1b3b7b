//! One connection to an OVSDB server: the methods of RFC 7047 section 4, and `monitor_cond_since` of `ovsdb-server(7)`.

use std::time::Duration;

use jsonrpc::{Address, CallError, Closed, ConnectError, Dialect, Limits, Message, Options};
use serde_json::{Map, Value, json};

use crate::operation::{Operation, Outcome, OutcomeError, outcomes};
use crate::replica::{Update, UpdateError};
use crate::schema::{Schema, SchemaError, Wanted};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: a transaction of 100,000 rows takes a busy server several seconds.
const ANSWER: Duration = Duration::from_secs(60);
/// The name of our monitor; a connection has one.
const MONITOR: &str = "billet";
/// What a server gives as id of the last transaction where it keeps none.
const NO_TRANSACTION: &str = "00000000-0000-0000-0000-000000000000";

/// What goes wrong between us and a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody there.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No answer, or a refusal.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The connection ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The database is not what was expected.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The transaction was not done.
    #[error(transparent)]
    Outcome(#[from] OutcomeError),
    /// What the server sent of its rows cannot be taken.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// An answer of another shape than RFC 7047 says.
    #[error("the answer to `{0}` cannot be read")]
    Answer(&'static str),
    /// There is no connection now; another one is being tried.
    #[error("the database at {address} is out of reach: {why}")]
    Offline {
        /// Where it should be.
        address: Address,
        /// The last failure.
        why: String,
    },
}

/// How rows are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `monitor_cond_since`: after a cut only what changed meanwhile is sent (Open vSwitch 2.12).
    Since,
    /// `monitor` of RFC 7047, which every server has.
    Plain,
}

/// The first answer to a monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitored {
    /// The updates go on from the transaction that was named; else they are all there is.
    pub goes_on: bool,
    /// The last transaction of the updates, where the server counts them.
    pub last: Option<String>,
    /// To be applied.
    pub updates: Value,
}

/// What a server says by itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    /// Rows changed.
    Update {
        /// How they are sent.
        form: Update,
        /// The last transaction of them, where the server counts them.
        last: Option<String>,
        /// To be applied.
        updates: Value,
    },
    /// A lock came or went.
    Lock {
        /// Its name.
        lock: String,
        /// It is this client's now.
        held: bool,
    },
}

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    rpc: jsonrpc::Client,
}

impl Client {
    /// Connects, to ask and to change; what the server says by itself is not kept.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub async fn connect(address: &Address) -> Result<Self, Error> {
        Self::listening(address, |_| ()).await
    }

    /// As [`Client::connect`]; `heard` gets what the server says, in order, and before the answers that came after it.
    pub(crate) async fn listening(
        address: &Address,
        mut heard: impl FnMut(Heard) + Send + 'static,
    ) -> Result<Self, Error> {
        let stream = address.connect(CONNECT).await?;
        let options = Options { dialect: Dialect::V1, limits: Limits::DATABASE, patience: ANSWER };
        let rpc = jsonrpc::Client::start(stream, options, move |message| match message {
            Message::Request { method, params, .. } => (method == "echo").then_some(params),
            Message::Notification { method, params } => {
                if let Some(said) = notification(&method, params) {
                    heard(said);
                }
                None
            }
            Message::Answer { .. } => None,
        });
        Ok(Self { rpc })
    }

    /// Names of the server's databases.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Answer`].
    pub async fn list_dbs(&self) -> Result<Vec<String>, Error> {
        let answer = self.rpc.call("list_dbs", json!([])).await?;
        let names =
            answer.as_array().map(|names| names.iter().map(|n| n.as_str().map(str::to_owned)).collect());
        names.flatten().ok_or(Error::Answer("list_dbs"))
    }

    /// The schema of a database.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Schema`].
    pub async fn get_schema(&self, database: &str) -> Result<Schema, Error> {
        Ok(Schema::parse(&self.rpc.call("get_schema", json!([database])).await?)?)
    }

    /// Does all operations, or none: what came of each.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Outcome`].
    pub async fn transact(&self, database: &str, operations: &[Operation]) -> Result<Vec<Outcome>, Error> {
        let params = [json!(database)].into_iter().chain(operations.iter().map(Operation::to_json));
        let answer = self.rpc.call("transact", params.collect()).await?;
        Ok(outcomes(operations, &answer)?)
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub async fn echo(&self, within: Duration) -> Result<(), Error> {
        self.rpc.call_within("echo", json!([]), within).await?;
        Ok(())
    }

    /// Asks for a lock: true where it is this client's at once; else it stands in line for it.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Answer`].
    pub async fn lock(&self, lock: &str) -> Result<bool, Error> {
        self.locked("lock", lock).await
    }

    /// Takes a lock from whoever has it.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Answer`].
    pub async fn steal(&self, lock: &str) -> Result<bool, Error> {
        self.locked("steal", lock).await
    }

    /// Gives a lock back, or leaves the line.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub async fn unlock(&self, lock: &str) -> Result<(), Error> {
        self.rpc.call("unlock", json!([lock])).await?;
        Ok(())
    }

    async fn locked(&self, method: &'static str, lock: &str) -> Result<bool, Error> {
        let answer = self.rpc.call(method, json!([lock])).await?;
        answer.get("locked").and_then(Value::as_bool).ok_or(Error::Answer(method))
    }

    /// Begins to follow rows. `after` is the last transaction that is known already.
    pub(crate) async fn monitor(
        &self,
        database: &str,
        wanted: &Wanted,
        version: Version,
        after: Option<&str>,
    ) -> Result<Monitored, Error> {
        let tables: Map<String, Value> =
            wanted.iter().map(|(table, columns)| (table.clone(), json!([{ "columns": columns }]))).collect();
        if version == Version::Plain {
            let updates = self.rpc.call("monitor", json!([database, MONITOR, tables])).await?;
            return Ok(Monitored { goes_on: false, last: None, updates });
        }
        let after = after.unwrap_or(NO_TRANSACTION);
        let answer = self.rpc.call("monitor_cond_since", json!([database, MONITOR, tables, after])).await?;
        let Value::Array(parts) = answer else { return Err(Error::Answer("monitor_cond_since")) };
        match <[Value; 3]>::try_from(parts) {
            Ok([Value::Bool(goes_on), Value::String(last), updates]) => {
                Ok(Monitored { goes_on, last: Some(last), updates })
            }
            _ => Err(Error::Answer("monitor_cond_since")),
        }
    }

    /// Waits until the connection is gone.
    pub async fn closed(&self) -> Closed {
        self.rpc.closed().await
    }
}

/// Reads a notification; `None` for one that is not known, or not meant for our monitor.
fn notification(method: &str, params: Value) -> Option<Heard> {
    let Value::Array(params) = params else { return None };
    let mut params = params.into_iter();
    let first = params.next()?;
    match method {
        "locked" | "stolen" => {
            Some(Heard::Lock { lock: first.as_str()?.to_owned(), held: method == "locked" })
        }
        _ if first != MONITOR => None,
        "update" => Some(Heard::Update { form: Update::Whole, last: None, updates: params.next()? }),
        "update3" => {
            let last = params.next()?.as_str()?.to_owned();
            Some(Heard::Update { form: Update::Difference, last: Some(last), updates: params.next()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications() {
        let lock = |lock: &str, held| Some(Heard::Lock { lock: lock.into(), held });
        assert_eq!(notification("locked", json!(["a"])), lock("a", true));
        assert_eq!(notification("stolen", json!(["a"])), lock("a", false));
        let update = Heard::Update { form: Update::Difference, last: Some("t".into()), updates: json!({}) };
        assert_eq!(notification("update3", json!(["billet", "t", {}])), Some(update));
        for (method, params) in [
            ("update3", json!(["other", "t", {}])),
            ("update3", json!(["billet"])),
            ("update", json!({})),
            ("x", json!([])),
        ] {
            assert_eq!(notification(method, params), None);
        }
    }
}
