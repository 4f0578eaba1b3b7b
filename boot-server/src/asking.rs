//! What is known of a request while it is answered, beside who asks: where it came from and its number. It goes with the
//! task, so that no handler can forget to pass it on; [`carried`] takes it along into a task of its own.

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use boot_server_core::names::PoolName;

use uuid::Uuid;

tokio::task_local! {
    static ASKED: Asked;
}

/// A request that is being answered.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The address that it came from.
    pub source: IpAddr,
    /// Its number, by which log, events and audit are put together.
    pub request: Uuid,
    /// How many people want it.
    pub people: People,
}

/// How many people want what is asked for.
#[derive(Debug, Clone)]
pub enum People {
    /// Whoever asks.
    One,
    /// Whoever asks, and nobody else yet: it is done as far as nothing is changed, to see whether it would be refused.
    Rehearsal(Arc<Stops>),
    /// A second person as well.
    Two,
}

/// What a rehearsal came to before it was stopped.
#[derive(Debug, Default)]
pub struct Stops {
    write: AtomicBool,
    needs_second: AtomicBool,
    pool: Mutex<Option<PoolName>>,
}

impl Stops {
    /// True where something would have been stored.
    pub fn would_write(&self) -> bool {
        self.write.load(Ordering::Relaxed)
    }

    /// True where it needs a second person.
    pub fn needs_second(&self) -> bool {
        self.needs_second.load(Ordering::Relaxed)
    }

    /// The pool on whose account it does, where that is no machine's.
    pub fn pool(&self) -> Option<PoolName> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Asked {
    /// A request from this address, with a fresh number.
    pub fn from(source: IpAddr) -> Self {
        Self { source: source.to_canonical(), request: Uuid::now_v7(), people: People::One }
    }

    /// True where a second person approved it.
    pub fn is_approved(&self) -> bool {
        matches!(self.people, People::Two)
    }

    /// It cannot go on without a second person: because of a machine, or of this pool.
    pub fn stop_for_second(&self, pool: Option<PoolName>) {
        if let People::Rehearsal(stops) = &self.people {
            stops.needs_second.store(true, Ordering::Relaxed);
            *stops.pool.lock().unwrap_or_else(PoisonError::into_inner) = pool;
        }
    }

    /// Answers it.
    pub async fn scope<F: Future>(self, answering: F) -> F::Output {
        ASKED.scope(self, answering).await
    }
}

/// The request that this task answers; `None` where the server works on its own.
pub fn asking() -> Option<Asked> {
    ASKED.try_with(Clone::clone).ok()
}

/// Where the request came from that this task answers.
pub fn source() -> Option<String> {
    asking().map(|asking| asking.source.to_string())
}

/// True where this task only rehearses: then nothing must be stored, and that it would be is remembered.
pub fn stops_before_storing() -> bool {
    let stop = |asked: &Asked| match &asked.people {
        People::Rehearsal(stops) => {
            stops.write.store(true, Ordering::Relaxed);
            true
        }
        People::One | People::Two => false,
    };
    ASKED.try_with(stop).unwrap_or(false)
}

/// Takes the request that this task answers along, into a task that outlives it.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    within(asking(), work)
}

/// Does `work` as a part of answering this request, if it is one.
pub async fn within<F: Future>(asked: Option<Asked>, work: F) -> F::Output {
    match asked {
        Some(asked) => asked.scope(work).await,
        None => work.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_of_its_own_knows_where_the_request_came_from() {
        assert_eq!(source(), None);
        let answering = async {
            let lost = tokio::spawn(async { source() }).await.unwrap();
            let kept = tokio::spawn(carried(async { source() })).await.unwrap();
            (lost, kept)
        };
        let asked = Asked::from("::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(asked.scope(answering).await, (None, Some("192.0.2.7".to_owned())));
    }
}
