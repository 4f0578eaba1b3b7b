//! The names behind which the database stands: SQLite, or PostgreSQL. Statements are written against these, not against
//! a driver: numbered parameters (`?1`), text, 64-bit integers and octets, and nothing that only one database has.
//!
//! Inside a job of [`Store::write`](super::Store::write) a statement that fails fails the job: no further one is run, in
//! either database, and the job is undone. So "try, and if it was there already, do something else" is written with
//! `ON CONFLICT`.

mod client;
mod dialect;
mod holder;
mod server;
mod session;
mod value;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};

pub(super) use self::dialect::schema;
use self::holder::Holder;
pub use self::server::{Server, ServerError};
use self::session::Reader;
pub use self::value::{FromSql, Kind, ToSql, Typed, Value};

/// How long a statement waits for a lock that another process holds (a backup, a person with `sqlite3`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements that SQLite keeps prepared, per connection.
const PREPARED_MAX: usize = 256;

/// As the standard library's, with the error of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a statement failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// SQLite.
    #[error(transparent)]
    Sqlite(Arc<rusqlite::Error>),
    /// PostgreSQL.
    #[error("PostgreSQL: {}", session::words(.0))]
    Postgres(Arc<tokio_postgres::Error>),
    /// A query that must give a row gave none.
    #[error("there is no row")]
    NoRow,
    /// A column holds something else.
    #[error("column {0} holds something else than was asked for")]
    Column(usize),
    /// A statement of the same job failed before.
    #[error("an earlier statement of this job failed")]
    JobFailed,
    /// PostgreSQL is not there; nothing was done.
    #[error("PostgreSQL cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The connection broke at the commit, and what became of it is not known.
    #[error("the connection to PostgreSQL broke at the commit: {0}")]
    Unknown(Arc<str>),
    /// Another server has taken the database.
    #[error("another server has taken the database")]
    Displaced,
}

impl From<rusqlite::Error> for Error {
    fn from(cause: rusqlite::Error) -> Self {
        match cause {
            rusqlite::Error::QueryReturnedNoRows => Self::NoRow,
            cause => Self::Sqlite(Arc::new(cause)),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(cause: tokio_postgres::Error) -> Self {
        Self::Postgres(Arc::new(cause))
    }
}

/// Whether `cause` says that a value is taken which must be unique; `columns` as in `nodes.name`, or, where several
/// are unique together, `servers.project, servers.name`.
pub fn taken(cause: &Error, columns: &str) -> bool {
    match cause {
        Error::Sqlite(cause) => {
            matches!(&**cause, rusqlite::Error::SqliteFailure(code, Some(text))
                if code.code == rusqlite::ErrorCode::ConstraintViolation
                    && text.strip_prefix("UNIQUE constraint failed: ").is_some_and(|found| found == columns))
        }
        Error::Postgres(cause) => session::taken(cause).is_some_and(|found| found == columns),
        _ => false,
    }
}

/// A row that may be missing.
pub trait OptionalExtension<T> {
    /// `None` where there is no row.
    ///
    /// # Errors
    /// Any other.
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExtension<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoRow) => Ok(None),
            Err(cause) => Err(cause),
        }
    }
}

/// Parameters of a statement: `params![…]`, or `[]`.
pub trait Params {
    /// Hands them over.
    fn with<T>(self, take: impl FnOnce(&[&dyn ToSql]) -> T) -> T;
}

impl Params for &[&dyn ToSql] {
    fn with<T>(self, take: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
        take(self)
    }
}

impl<const N: usize> Params for [&dyn ToSql; N] {
    fn with<T>(self, take: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
        take(&self)
    }
}

/// Parameters of a statement, in the order of their numbers.
#[macro_export]
#[doc(hidden)]
macro_rules! store_params {
    () => {
        &[] as &[&dyn $crate::store::db::ToSql]
    };
    ($($value:expr),+ $(,)?) => {
        &[$(&$value as &dyn $crate::store::db::ToSql),+] as &[&dyn $crate::store::db::ToSql]
    };
}

pub use crate::store_params as params;

/// The number of a column, from 0.
pub trait RowIndex {
    /// The number.
    fn index(self) -> usize;
}

impl RowIndex for usize {
    fn index(self) -> usize {
        self
    }
}

/// A row of an answer.
pub struct Row<'a>(RowOf<'a>);

enum RowOf<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// A column by its number, from 0.
    ///
    /// # Errors
    /// [`Error::Column`] where it holds something else than a `T`.
    pub fn get<I: RowIndex, T: FromSql>(&self, index: I) -> Result<T> {
        let index = index.index();
        T::of(self.value(index)?).ok_or(Error::Column(index))
    }

    /// A column as it is.
    pub(super) fn value(&self, index: usize) -> Result<Value<'_>> {
        match self.0 {
            RowOf::Sqlite(row) => Ok(match row.get_ref(index)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(n) => Value::Integer(n),
                ValueRef::Real(n) => Value::Real(n),
                ValueRef::Text(text) => {
                    Value::Text(std::str::from_utf8(text).map_err(|_| Error::Column(index))?)
                }
                ValueRef::Blob(octets) => Value::Blob(octets),
            }),
            RowOf::Postgres(row) => session::column(row, index),
        }
    }
}

/// A connection: the one that writes, or one that reads.
pub struct Connection {
    database: Database,
    job: Cell<Job>,
}

enum Database {
    Sqlite(Box<rusqlite::Connection>),
    Reader(Box<Reader>),
    Holder(Box<Holder>),
}

/// What a connection that writes is in the middle of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    None,
    Open,
    Failed,
}

/// A statement; it is prepared once per connection.
pub struct Statement<'a> {
    connection: &'a Connection,
    sql: &'a str,
}

impl Connection {
    fn of(database: Database) -> Self {
        Self { database, job: Cell::new(Job::None) }
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Errors
    /// What the database says.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.run(|| {
            params.with(|values| match &self.database {
                Database::Sqlite(db) => Ok(db.prepare_cached(sql)?.execute(bound(values))?),
                Database::Reader(reader) => reader.with(|session| session.execute(sql, values)),
                Database::Holder(holder) => holder.with(|session| session.execute(sql, values)),
            })
        })
    }

    /// Runs a statement of a job of which nobody needs to know how many rows it changed, and which fails for nothing that
    /// the job would answer to. Over a network it costs no round trip: where it fails, that is said by the next statement, or
    /// at the end of the job.
    ///
    /// # Errors
    /// What the database says.
    pub fn post(&self, sql: &str, params: impl Params) -> Result<()> {
        match &self.database {
            Database::Holder(holder) if self.job.get() != Job::None => {
                self.run(|| params.with(|values| holder.with(|session| session.post(sql, values))))
            }
            _ => self.execute(sql, params).map(drop),
        }
    }

    /// The first row of a query.
    ///
    /// # Errors
    /// [`Error::NoRow`], or what the database says.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut row = Some(row);
        let mut first = None;
        self.each(sql, params, |found| {
            if let Some(row) = row.take() {
                first = Some(row(found)?);
            }
            Ok(false)
        })?;
        first.ok_or(Error::NoRow)
    }

    /// All rows of a query, each made by `row`.
    ///
    /// # Errors
    /// What the database says.
    pub fn query_all<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut row: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        self.each(sql, params, |found| {
            rows.push(row(found)?);
            Ok(true)
        })?;
        Ok(rows)
    }

    /// Hands rows to `take` until it says false.
    fn each(
        &self,
        sql: &str,
        params: impl Params,
        mut take: impl FnMut(&Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        // A row that cannot be read says nothing against the statement.
        let mut unread = Ok(());
        self.run(|| {
            params.with(|values| {
                if let Database::Sqlite(db) = &self.database {
                    let mut statement = db.prepare_cached(sql)?;
                    let mut rows = statement.query(bound(values))?;
                    while let Some(row) = rows.next()? {
                        match take(&Row(RowOf::Sqlite(row))) {
                            Ok(true) => {}
                            Ok(false) => break,
                            Err(cause) => {
                                unread = Err(cause);
                                break;
                            }
                        }
                    }
                    return Ok(());
                }
                let rows = match &self.database {
                    Database::Reader(reader) => reader.with(|session| session.query(sql, values))?,
                    Database::Holder(holder) => holder.with(|session| session.query(sql, values))?,
                    Database::Sqlite(_) => Vec::new(),
                };
                for row in &rows {
                    match take(&Row(RowOf::Postgres(row))) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(cause) => {
                            unread = Err(cause);
                            break;
                        }
                    }
                }
                Ok(())
            })
        })?;
        unread
    }

    /// A statement that is run several times.
    ///
    /// # Errors
    /// None at present: what is wrong with it is said when it is run.
    pub fn prepare_cached<'a>(&'a self, sql: &'a str) -> Result<Statement<'a>> {
        Ok(Statement { connection: self, sql })
    }

    /// Statements without parameters and answers, one after the other.
    ///
    /// # Errors
    /// What the database says.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        self.run(|| self.batch(sql))
    }

    fn batch(&self, sql: &str) -> Result<()> {
        match &self.database {
            Database::Sqlite(db) => Ok(db.execute_batch(sql)?),
            Database::Reader(reader) => reader.with(|session| session.batch(sql)),
            Database::Holder(holder) => holder.with(|session| session.batch(sql)),
        }
    }

    /// PostgreSQL runs nothing more in a transaction in which a statement failed; so that a job which passes on SQLite
    /// passes there too, SQLite is asked nothing more either.
    fn run<T>(&self, statement: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.job.get() == Job::Failed {
            return Err(Error::JobFailed);
        }
        let result = statement();
        if result.is_err() && self.job.get() == Job::Open {
            self.job.set(Job::Failed);
        }
        result
    }

    /// Whether PostgreSQL stands behind it.
    pub(super) fn is_postgres(&self) -> bool {
        !matches!(self.database, Database::Sqlite(_))
    }
}

/// What the writer does; nobody else begins or ends anything.
impl Connection {
    /// The file, made where it does not exist, to write.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let connection = rusqlite::Connection::open(path)?;
        connection
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")?;
        Self::sqlite(connection)
    }

    /// The file, to read.
    pub(super) fn open_reader(path: &Path) -> Result<Self> {
        use rusqlite::OpenFlags;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::sqlite(rusqlite::Connection::open_with_flags(path, flags)?)
    }

    fn sqlite(connection: rusqlite::Connection) -> Result<Self> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(PREPARED_MAX);
        Ok(Self::of(Database::Sqlite(Box::new(connection))))
    }

    /// A database of PostgreSQL, to write: no other server has it then.
    pub(super) fn hold(server: &Server) -> Result<Self, ServerError> {
        Ok(Self::of(Database::Holder(Box::new(Holder::open(server.clone())?))))
    }

    /// A database of PostgreSQL, to read. It is connected to when it is first asked.
    pub(super) fn reader(server: &Server) -> Self {
        Self::of(Database::Reader(Box::new(Reader::new(server.clone()))))
    }

    /// Begins a transaction and its first job.
    pub(super) fn begin(&self) -> Result<()> {
        match &self.database {
            Database::Sqlite(db) => db.execute_batch("BEGIN IMMEDIATE; SAVEPOINT job")?,
            Database::Holder(holder) => holder.begin()?,
            Database::Reader(_) => return Err(Error::Displaced),
        }
        self.job.set(Job::Open);
        Ok(())
    }

    /// Ends a job, and begins the next. What it did stays where `keep` and none of its statements failed.
    pub(super) fn end_job(&self, keep: bool) -> Result<()> {
        let failed = self.job.replace(Job::Open) == Job::Failed;
        let mut ended = if failed { Err(Error::JobFailed) } else { Ok(()) };
        if keep && !failed {
            ended = self.batch("RELEASE SAVEPOINT job; SAVEPOINT job");
            if ended.is_ok() {
                return ended;
            }
            // What was posted failed.
        }
        self.batch("ROLLBACK TO SAVEPOINT job")?;
        if keep { ended } else { Ok(()) }
    }

    /// Commits. Where it fails, nothing is begun any more.
    pub(super) fn commit(&self) -> Result<()> {
        self.job.set(Job::None);
        match &self.database {
            Database::Sqlite(db) => {
                let committed = db.execute_batch("COMMIT").map_err(Error::from);
                if committed.is_err()
                    && !db.is_autocommit()
                    && let Err(cause) = db.execute_batch("ROLLBACK")
                {
                    tracing::error!(%cause, "rollback failed");
                }
                committed
            }
            Database::Holder(holder) => holder.commit(),
            Database::Reader(_) => Err(Error::Displaced),
        }
    }

    /// Undoes the transaction.
    pub(super) fn abandon(&self) {
        self.job.set(Job::None);
        if let Err(cause) = self.batch("ROLLBACK") {
            tracing::warn!(%cause, "rollback failed");
        }
    }

    /// Hands all rows of a query without parameters to `take`, never many at a time in memory. Within a transaction.
    pub(super) fn stream(&self, sql: &str, mut take: impl FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
        if !self.is_postgres() {
            return self.each(sql, [], |row| take(row).map(|()| true));
        }
        // A name of its own each time: what FETCH gives is known per name.
        static STREAMS: AtomicU32 = AtomicU32::new(0);
        let name = format!("stream{}", STREAMS.fetch_add(1, Ordering::Relaxed));
        self.batch(&format!("DECLARE {name} CURSOR FOR {sql}"))?;
        let fetch = format!("FETCH 1000 FROM {name}");
        loop {
            let mut rows = 0;
            self.each(&fetch, [], |row| {
                rows += 1;
                take(row).map(|()| true)
            })?;
            if rows == 0 {
                return self.batch(&format!("CLOSE {name}"));
            }
        }
    }

    /// A database of SQLite's that is nowhere.
    pub(super) fn memory() -> Result<Self> {
        Self::sqlite(rusqlite::Connection::open_in_memory()?)
    }

    /// Closes it.
    pub(super) fn close(self) {
        if let Database::Sqlite(db) = self.database
            && let Err((_, cause)) = db.close()
        {
            tracing::error!(%cause, "closing the database failed");
        }
    }
}

impl Statement<'_> {
    /// As [`Connection::execute`].
    ///
    /// # Errors
    /// What the database says.
    pub fn execute(&mut self, params: impl Params) -> Result<usize> {
        self.connection.execute(self.sql, params)
    }

    /// As [`Connection::post`].
    ///
    /// # Errors
    /// What the database says.
    pub fn post(&mut self, params: impl Params) -> Result<()> {
        self.connection.post(self.sql, params)
    }
}

/// Parameters as SQLite takes them.
fn bound<'a>(values: &'a [&dyn ToSql]) -> impl rusqlite::Params + use<'a> {
    let value = |value: &'a &dyn ToSql| match value.value() {
        Value::Null => ValueRef::Null,
        Value::Integer(n) => ValueRef::Integer(n),
        Value::Real(n) => ValueRef::Real(n),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Blob(octets) => ValueRef::Blob(octets),
    };
    let values: Vec<ToSqlOutput<'a>> = values.iter().map(|v| ToSqlOutput::Borrowed(value(v))).collect();
    rusqlite::params_from_iter(values)
}
