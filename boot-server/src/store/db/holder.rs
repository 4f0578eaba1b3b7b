//! The one connection that writes to PostgreSQL.
//!
//! ```text
//! connect ─▶ lock (advisory, as long as the session lives) ─▶ the row of `billet_writer` is ours ─▶ writing
//!    ▲                                                                                                │ broken
//!    └──────────────── end the old session, lock, is the row still ours? ◀────────────────────────────┘
//!                          │ no: another server was here, and nothing is written any more
//! ```
//!
//! Each transaction writes its own number into that row. Where the connection breaks at a commit, the number says
//! afterwards what became of it: the lock is only had once the old session is dead, so nothing is on its way any more.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::server::{Access, Server, ServerError};
use super::session::{Backoff, Session};
use super::{Error, Result};

/// The lock has two numbers: this ("Bill" in ASCII), and one of the schema, so that a database can hold two sites.
const LOCK: i64 = 0x4269_6c6c;
/// How long the lock of a server that was killed may linger.
const LOCK_MAX: Duration = Duration::from_secs(5);
/// How long callers wait for what became of their commit.
const RESOLVE_MAX: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 20 });
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// The connection.
pub(super) struct Holder {
    server: Server,
    /// Of this process and opening.
    me: String,
    state: RefCell<State>,
}

struct State {
    session: Option<Session>,
    /// Process and beginning of the session, as PostgreSQL names them.
    backend: (i64, String),
    batch: i64,
    backoff: Backoff,
    displaced: bool,
}

impl Holder {
    /// Connects and takes the lock.
    pub(super) fn open(server: Server) -> Result<Self, ServerError> {
        let said = |action| move |cause| ServerError::Statement { action, cause };
        let mut session = server.connect(Access::Write)?;
        if !locked(&mut session).map_err(said("take the lock"))? {
            let by = held_by(&mut session).map_err(said("see who has the lock"))?;
            return Err(ServerError::Held { to: server.to_string(), by });
        }
        let me = Uuid::new_v4().to_string();
        session.batch(TABLE).map_err(said("make a table"))?;
        let taken = session.execute(
            "INSERT INTO billet_writer (id, holder, batch) VALUES (1, ?1, 0) \
             ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, batch = 0",
            &[&me],
        );
        taken.map_err(said("take the database"))?;
        let backend = backend(&mut session).map_err(said("see who we are"))?;
        let state = State {
            session: Some(session),
            backend,
            batch: 0,
            backoff: Backoff::default(),
            displaced: false,
        };
        Ok(Self { server, me, state: RefCell::new(state) })
    }

    /// Runs a statement. A connection that breaks is dropped, and the transaction with it.
    pub(super) fn with<T>(&self, ask: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let state = &mut *self.state.borrow_mut();
        let Some(session) = &mut state.session else { return Err(broken()) };
        match ask(session) {
            Err(cause) if session.lost(&cause) => {
                tracing::warn!(%cause, "the connection to PostgreSQL broke");
                state.session = None;
                Err(Error::Unreachable(cause.to_string().into()))
            }
            other => other,
        }
    }

    /// Begins a transaction. Nothing was asked for yet, so a connection that broke while nobody wrote is no error.
    pub(super) fn begin(&self) -> Result<()> {
        let had = self.state.borrow().session.is_some();
        match self.try_begin() {
            Err(cause) if had && !matches!(cause, Error::Displaced) => {
                tracing::warn!(%cause, "the connection to PostgreSQL had broken");
                self.try_begin()
            }
            other => other,
        }
    }

    fn try_begin(&self) -> Result<()> {
        self.connect()?;
        let state = &mut *self.state.borrow_mut();
        let Some(session) = &mut state.session else { return Err(broken()) };
        state.batch += 1;
        let number = state.batch;
        let begun = session
            .batch(&format!("BEGIN; UPDATE billet_writer SET batch = {number} WHERE id = 1; SAVEPOINT job"));
        let Err(cause) = begun else { return Ok(()) };
        // Whatever it was: the session may be in the middle of something.
        session.lost(&cause);
        state.session = None;
        Err(Error::Unreachable(cause.to_string().into()))
    }

    /// Commits; where the connection breaks, finds out what became of it.
    pub(super) fn commit(&self) -> Result<()> {
        let (result, number) = {
            let state = &mut *self.state.borrow_mut();
            let Some(mut session) = state.session.take() else { return Err(broken()) };
            let result = session.batch("COMMIT");
            match result {
                Ok(()) => {
                    state.session = Some(session);
                    return Ok(());
                }
                // PostgreSQL itself says that it did not commit.
                Err(cause) if !session.lost(&cause) => return Err(cause),
                Err(cause) => (cause, state.batch),
            }
        };
        tracing::warn!(cause = %result, "the connection to PostgreSQL broke at a commit");
        self.outcome(number, result.to_string())
    }

    fn outcome(&self, number: i64, why: String) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < RESOLVE_MAX {
            let found = self.connect().and_then(|()| {
                self.with(|session| {
                    let rows = session.query("SELECT batch FROM billet_writer WHERE id = 1", &[])?;
                    let row = rows.first().ok_or(Error::Displaced)?;
                    Ok(row.try_get::<_, i64>(0)?)
                })
            });
            match found {
                Ok(stored) if stored == number => {
                    tracing::info!("the commit at which the connection broke was done");
                    return Ok(());
                }
                Ok(_) => {
                    tracing::info!("the commit at which the connection broke was not done");
                    return Err(Error::Unreachable(format!("{why}; nothing was stored").into()));
                }
                Err(Error::Displaced) => break,
                Err(_) => std::thread::sleep(POLL),
            }
        }
        Err(Error::Unknown(why.into()))
    }

    /// A session that holds the lock, and the database still ours.
    fn connect(&self) -> Result<()> {
        let state = &mut *self.state.borrow_mut();
        if state.displaced {
            return Err(Error::Displaced);
        }
        if state.session.is_some() {
            return Ok(());
        }
        if let Some(early) = state.backoff.wait() {
            return Err(early);
        }
        match self.again(&state.backend) {
            Ok((session, backend)) => {
                tracing::info!(server = %self.server, "connected to PostgreSQL again");
                state.session = Some(session);
                state.backend = backend;
                state.backoff.reset();
                Ok(())
            }
            Err(Again::Displaced) => {
                tracing::error!(
                    server = %self.server,
                    "another billet has taken the database: nothing is stored any more; stop one of the two"
                );
                state.displaced = true;
                Err(Error::Displaced)
            }
            Err(Again::Later(why)) => Err(state.backoff.note(why)),
        }
    }

    fn again(&self, (process, began): &(i64, String)) -> Result<(Session, (i64, String)), Again> {
        let mut session = self.server.connect(Access::Write).map_err(|e| Again::Later(e.to_string()))?;
        // Where only the wire between was cut, the old session does not know yet that it is dead.
        session.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ?1 AND extract(epoch from backend_start)::text = ?2",
            &[process, began],
        )?;
        let locked = locked(&mut session)?;
        let rows = session.query("SELECT holder FROM billet_writer WHERE id = 1", &[])?;
        let holder = rows.first().map(|row| row.try_get::<_, String>(0)).transpose().map_err(Error::from)?;
        if holder.as_ref() != Some(&self.me) {
            return Err(Again::Displaced);
        }
        if !locked {
            let by = held_by(&mut session)?;
            return Err(Again::Later(format!("the lock is held by {by}")));
        }
        let backend = backend(&mut session)?;
        Ok((session, backend))
    }
}

/// Why there is no new session.
enum Again {
    Displaced,
    Later(String),
}

impl From<Error> for Again {
    fn from(cause: Error) -> Self {
        Self::Later(cause.to_string())
    }
}

fn broken() -> Error {
    Error::Unreachable("the connection broke; nothing was stored".into())
}

/// Takes the lock; waits a little for one that a dead session still has.
fn locked(session: &mut Session) -> Result<bool> {
    let begun = Instant::now();
    loop {
        let rows =
            session.query("SELECT pg_try_advisory_lock(?1::int, hashtext(current_schema()))", &[&LOCK])?;
        let row = rows.first().ok_or(Error::NoRow)?;
        if row.try_get::<_, bool>(0)? {
            return Ok(true);
        }
        if begun.elapsed() > LOCK_MAX {
            return Ok(false);
        }
        std::thread::sleep(POLL);
    }
}

fn held_by(session: &mut Session) -> Result<String> {
    let sql = "SELECT application_name || COALESCE(', from ' || host(client_addr), '') \
        FROM pg_locks JOIN pg_stat_activity USING (pid) \
        WHERE locktype = 'advisory' AND granted AND classid::bigint = ?1 \
        AND objid::bigint = hashtext(current_schema())::bigint & 4294967295 AND objsubid = 2 \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let rows = session.query(sql, &[&LOCK])?;
    let name = rows.first().map(|row| row.try_get::<_, Option<String>>(0)).transpose()?.flatten();
    Ok(name.unwrap_or_else(|| "it has just ended: try again".to_owned()))
}

fn backend(session: &mut Session) -> Result<(i64, String)> {
    let sql = "SELECT pid::bigint, extract(epoch from backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let rows = session.query(sql, &[])?;
    let row = rows.first().ok_or(Error::NoRow)?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Not part of the schema: it is about the server that writes, and is the same in every version.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS billet_writer \
    (id BIGINT PRIMARY KEY, holder TEXT NOT NULL, batch BIGINT NOT NULL) WITH (fillfactor = 10)";
