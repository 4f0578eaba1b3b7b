//! The one thread that writes. Jobs that arrive while a commit is on its way share the next one (group commit).

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Jobs in one transaction: enough that fsync is shared, few enough that nobody waits long for it.
const BATCH_MAX: usize = 256;

/// What to say once the outcome of the commit is known: `Some` is why it failed.
type Answer = Box<dyn FnOnce(Option<&rusqlite::Error>) + Send>;

/// A job; it runs inside its own savepoint, or not at all where no transaction could be begun, and returns its answer.
pub(super) type Job = Box<dyn FnOnce(Result<&Connection, &rusqlite::Error>) -> Answer + Send>;

/// Packs `work` so that it can wait in the queue.
pub(super) fn job<T, F>(work: F, to: oneshot::Sender<Result<T, StoreError>>) -> Job
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    Box::new(move |connection| {
        let result = match connection {
            Ok(connection) => in_savepoint(connection, work),
            Err(cause) => Err(failed("begin", cause)),
        };
        Box::new(move |uncommitted| {
            let result = match (result, uncommitted) {
                (Ok(_), Some(cause)) => Err(failed("commit", cause)),
                (result, _) => result,
            };
            // The caller may have gone away; its work is done all the same.
            drop(to.send(result));
        })
    })
}

fn failed(action: &'static str, cause: &rusqlite::Error) -> StoreError {
    let copy = match cause {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        _ => rusqlite::Error::InvalidQuery,
    };
    StoreError::Database { action, cause: copy }
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.execute_batch("SAVEPOINT job").map_err(StoreError::sql("begin a job"))?;
    let result = work(connection);
    let end = if result.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    connection.execute_batch(end).map_err(StoreError::sql("end a job"))?;
    result
}

/// Runs until every sender is gone and the queue is empty.
pub(super) fn run(connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let begun = connection.execute_batch("BEGIN IMMEDIATE");
        let within = || begun.as_ref().map(|()| &connection);
        let mut answers = vec![first(within())];
        while answers.len() < BATCH_MAX {
            match jobs.try_recv() {
                Ok(job) => answers.push(job(within())),
                Err(_) => break,
            }
        }
        let outcome = begun.and_then(|()| connection.execute_batch("COMMIT"));
        if let Err(cause) = &outcome {
            tracing::error!(%cause, jobs = answers.len(), "commit failed");
            if !connection.is_autocommit()
                && let Err(cause) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%cause, "rollback failed");
            }
        }
        for answer in answers {
            answer(outcome.as_ref().err());
        }
    }
    if let Err((_, cause)) = connection.close() {
        tracing::error!(%cause, "closing the database failed");
    }
}
