//! The one thread that writes. Jobs that arrive while a commit is on its way share the next one (group commit).

use failpoint::Point;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::db::{Connection, Error};

/// Jobs in one transaction: enough that fsync is shared, few enough that nobody waits long for it.
const BATCH_MAX: usize = 256;

/// What to say once the outcome of the commit is known: `Some` is why it failed.
type Answer = Box<dyn FnOnce(Option<&Error>) + Send>;

/// A job; it runs inside its own savepoint, or not at all where no transaction could be begun, and returns its answer.
pub(super) type Job = Box<dyn FnOnce(Result<&Connection, &Error>) -> Answer + Send>;

/// Packs `work` so that it can wait in the queue.
pub(super) fn job<T, F>(work: F, to: oneshot::Sender<Result<T, StoreError>>) -> Job
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    Box::new(move |connection| {
        let result = match connection {
            Ok(connection) => in_savepoint(connection, work),
            Err(cause) => Err(StoreError::sql("begin")(cause.clone())),
        };
        Box::new(move |uncommitted| {
            let result = match (result, uncommitted) {
                (Ok(_), Some(cause)) => Err(StoreError::sql("commit")(cause.clone())),
                (result, _) => result,
            };
            // The caller may have gone away; its work is done all the same.
            drop(to.send(result));
        })
    })
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let result = work(connection);
    let ended = connection.end_job(result.is_ok());
    match (result, ended) {
        // What the job says is why; that it could not be undone says the commit, which fails then too.
        (Err(error), _) => Err(error),
        (Ok(_), Err(cause)) => Err(StoreError::sql("end a job")(cause)),
        (Ok(value), Ok(())) => Ok(value),
    }
}

/// Runs until every sender is gone and the queue is empty.
pub(super) fn run(connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        failpoint::pass(Point::StoreBegin);
        let begun = connection.begin();
        let within = || begun.as_ref().map(|()| &connection);
        let mut answers = vec![first(within())];
        while answers.len() < BATCH_MAX {
            match jobs.try_recv() {
                Ok(job) => answers.push(job(within())),
                Err(_) => break,
            }
        }
        failpoint::pass(Point::StoreCommitBefore);
        let outcome = begun.and_then(|()| connection.commit());
        failpoint::pass(Point::StoreCommitAfter);
        if let Err(cause) = &outcome {
            tracing::error!(%cause, jobs = answers.len(), "commit failed");
        }
        for answer in answers {
            answer(outcome.as_ref().err());
        }
    }
    connection.close();
}
