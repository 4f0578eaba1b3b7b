//! Where everything that must survive is kept: SQLite in WAL mode with `synchronous=FULL`, or a database of PostgreSQL's
//! with `synchronous_commit=on`. What stands behind `db` is known there alone.
//!
//! ```text
//! callers ──jobs──▶ writer thread: BEGIN, one savepoint per job, COMMIT (one flush), then answers all
//! callers ──▶ reader connections, each in a blocking task
//! ```
//!
//! A job is answered only after the commit that holds it, so what was acknowledged survives a power cut. The
//! statements are in `queries` and beside it, one text for both databases.

pub mod approvals;
pub mod arrivals;
pub mod audit;
pub mod baselines;
pub mod bmc_accounts;
pub mod bmcs;
pub mod certificates;
pub mod consoles;
pub mod copy;
pub mod credentials;
pub mod db;
pub mod desk;
pub mod dpu_setup;
pub mod dpus;
pub mod groups;
pub mod instances;
pub mod journal;
pub mod last_deploys;
pub mod leases6;
mod location;
mod migrate;
pub mod models;
pub mod overlay;
pub mod pools;
#[cfg(test)]
mod postgres_tests;
pub mod queries;
pub mod sensors;
pub mod servers;
pub mod tenancy;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokens;
pub mod trust;
pub mod usage;
pub mod volumes;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use self::db::{Connection, ServerError};
pub use self::location::Location;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Reader connections; queries take well under a millisecond, so a few serve many clients.
const READERS: usize = 4;
/// Jobs that may wait for the writer; more callers wait for room.
const QUEUE_MAX: usize = 1024;
/// 3.51.3 mends a race between a checkpoint and a writer that could lose a commit ("WAL-reset bug").
const SQLITE_MIN: i32 = 3_051_003;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or failed.
    #[error("database: cannot {action}")]
    Database {
        /// What was being done.
        action: &'static str,
        /// Why not.
        #[source]
        cause: db::Error,
    },
    /// The database directory.
    #[error("cannot make {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// This build's SQLite has known faults.
    #[error("SQLite {found} is older than 3.51.3, which is needed for durable commits")]
    TooOld {
        /// The version found.
        found: &'static str,
    },
    /// A newer Billet wrote this database.
    #[error("the database has schema {found}, this billet knows {known}: use a newer billet")]
    NewerSchema {
        /// Schema of the file.
        found: i64,
        /// Newest schema known here.
        known: i64,
    },
    /// Somebody else changed the row meanwhile.
    #[error("the node was changed by somebody else meanwhile")]
    Conflict,
    /// A request is only tried out.
    #[error("nothing is stored: this is a rehearsal")]
    Rehearsal,
    /// Another node has the name.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// PostgreSQL is not there.
    #[error("the database is not there: cannot {action}")]
    Unreachable {
        /// What was being done; nothing was stored.
        action: &'static str,
        /// Why not.
        #[source]
        cause: db::Error,
    },
    /// The connection broke at the commit.
    #[error("the connection to the database broke, and whether the change was stored is not known")]
    Unknown(#[source] db::Error),
    /// The connection broke while the whole was read.
    #[error("the connection to the database broke while it was read: try again")]
    Interrupted,
    /// Another server has taken the database.
    #[error("another billet has taken the database; this one stores nothing any more")]
    Displaced,
    /// PostgreSQL is not used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Machines were not claimed for servers.
    #[error(transparent)]
    Claim(#[from] servers::NotClaimed),
    /// A project has the machine.
    #[error("the machine is lent to a project, as server {server}")]
    Lent {
        /// The server's name.
        server: String,
        /// Whose.
        project: protocol::ProjectId,
    },
    /// A row cannot be read back.
    #[error("row of {table} is damaged")]
    Row {
        /// The table.
        table: &'static str,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// The store is being closed, or its writer ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn sql(action: &'static str) -> impl FnOnce(db::Error) -> Self {
        move |cause| match cause {
            db::Error::Unreachable(_) => Self::Unreachable { action, cause },
            db::Error::Unknown(_) => Self::Unknown(cause),
            db::Error::Displaced => Self::Displaced,
            cause => Self::Database { action, cause },
        }
    }
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

struct Inner {
    jobs: Mutex<Option<mpsc::Sender<writer::Job>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

/// A reader connection that is out; dropped, it is back before its permit is.
struct Reader {
    connection: Option<Connection>,
    store: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.store.readers).extend(self.connection.take());
    }
}

impl Store {
    /// Opens the store there, which is made where it does not exist, brings its schema up to date and starts the writer.
    ///
    /// # Errors
    /// [`StoreError::TooOld`], [`StoreError::NewerSchema`], [`StoreError::Server`], or what the database says.
    pub fn open(location: impl Into<Location>) -> Result<Self, StoreError> {
        let location = location.into();
        let (opened, outcome) = std::sync::mpsc::channel();
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let there = location.clone();
        // In its own thread from the beginning: PostgreSQL's driver must not wait in an asynchronous task.
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let connected = Self::connect(&there).and_then(|connection| {
                    migrate::migrate(&connection)?;
                    let readers =
                        (0..READERS).map(|_| Self::reader(&there)).collect::<Result<Vec<_>, _>>()?;
                    Ok((connection, readers))
                });
                match connected {
                    Ok((connection, readers)) => {
                        drop(opened.send(Ok(readers)));
                        writer::run(connection, receiver);
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
            })
            .map_err(|cause| StoreError::Directory { path: location.to_string().into(), cause })?;
        let readers = outcome.recv().map_err(|_| StoreError::Closed)??;
        Ok(Self(Arc::new(Inner {
            jobs: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(thread)),
            readers: Mutex::new(readers),
            permits: Arc::new(Semaphore::new(READERS)),
        })))
    }

    /// A connection that writes; its schema is what was found.
    fn connect(location: &Location) -> Result<Connection, StoreError> {
        match location {
            Location::File(path) => {
                if rusqlite::version_number() < SQLITE_MIN {
                    return Err(StoreError::TooOld { found: rusqlite::version() });
                }
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir)
                        .map_err(|cause| StoreError::Directory { path: dir.to_owned(), cause })?;
                }
                Connection::open(path).map_err(StoreError::sql("open"))
            }
            Location::Server(server) => Ok(Connection::hold(server)?),
        }
    }

    fn reader(location: &Location) -> Result<Connection, StoreError> {
        match location {
            Location::File(path) => Connection::open_reader(path).map_err(StoreError::sql("open a reader")),
            Location::Server(server) => Ok(Connection::reader(server)),
        }
    }

    /// Runs `query` on the database at `place`, which is only read and seen as it is at one moment, served or not.
    ///
    /// # Errors
    /// Where it cannot be opened, or what the query says.
    pub fn read_only<T>(
        place: impl Into<Location>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = Self::reader(&place.into())?;
        let postgres = connection.is_postgres();
        let begin = if postgres { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "BEGIN" };
        connection.execute_batch(begin).map_err(StoreError::sql("begin to read"))?;
        let found = query(&connection)?;
        if postgres {
            // A connection that broke was made anew, and then what was read is of two moments.
            let level = connection.query_row("SHOW transaction_isolation", [], |row| row.get::<_, String>(0));
            if level.map_err(StoreError::sql("end to read"))? != "repeatable read" {
                return Err(StoreError::Interrupted);
            }
        }
        Ok(found)
    }

    /// Runs `job` in the writer and answers once it is durable. A job that fails changes nothing; the others of its
    /// transaction are not touched by that.
    ///
    /// # Errors
    /// What the job says, or [`StoreError::Database`] where the commit failed.
    pub async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        if crate::asking::stops_before_storing() {
            return Err(StoreError::Rehearsal);
        }
        let jobs = lock(&self.0.jobs).clone().ok_or(StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        jobs.send(writer::job(job, answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// As [`Store::write`], for a thread that may wait.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_blocking<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let jobs = lock(&self.0.jobs).clone().ok_or(StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        jobs.blocking_send(writer::job(job, answer)).map_err(|_| StoreError::Closed)?;
        drop(jobs);
        answered.blocking_recv().map_err(|_| StoreError::Closed)?
    }

    /// Runs `query` on a reader connection. It sees every write that was acknowledged before.
    ///
    /// # Errors
    /// What the query says.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let connection = lock(&self.0.readers).pop().ok_or(StoreError::Closed)?;
        // The connection comes back by itself, also where the caller went away meanwhile (a browser that was closed).
        let reader = Reader { connection: Some(connection), store: self.0.clone(), _permit: permit };
        let reading = move || reader.connection.as_ref().map_or(Err(StoreError::Closed), query);
        tokio::task::spawn_blocking(reading).await.map_err(|_| StoreError::Closed)?
    }

    /// Takes no more jobs, waits for those that were taken, and closes the database.
    pub fn close(&self) {
        lock(&self.0.jobs).take();
        if let Some(thread) = lock(&self.0.writer).take() {
            // The writer's panic was printed by itself; there is nothing left to close then.
            drop(thread.join());
        }
    }
}

/// A poisoned lock is taken all the same: what it guards is replaced as a whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
