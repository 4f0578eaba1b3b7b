//! What is known of a request while it is answered, beside who asks: where it came from and its number. It goes with the
//! task, so that no handler can forget to pass it on; [`carried`] takes it along into a task of its own.

use std::future::Future;
use std::net::IpAddr;

use uuid::Uuid;

tokio::task_local! {
    static ASKED: Asked;
}

/// A request that is being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The address that it came from.
    pub source: IpAddr,
    /// Its number, by which log, events and audit are put together.
    pub request: Uuid,
    /// Two people wanted it.
    pub approved: bool,
}

impl Asked {
    /// A request from this address, with a fresh number.
    pub fn from(source: IpAddr) -> Self {
        Self { source: source.to_canonical(), request: Uuid::now_v7(), approved: false }
    }

    /// Answers it.
    pub async fn scope<F: Future>(self, answering: F) -> F::Output {
        ASKED.scope(self, answering).await
    }
}

/// The request that this task answers; `None` where the server works on its own.
pub fn asking() -> Option<Asked> {
    ASKED.try_with(|asking| *asking).ok()
}

/// Where the request came from that this task answers.
pub fn source() -> Option<String> {
    asking().map(|asking| asking.source.to_string())
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
