//! `GET /ui/stream`: says what changed; the page then asks for it. Changes that come close together are told once, so
//! a busy rack costs a page no more than a few requests a second.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::{Refusal, Ui};
use crate::engine::Change;
use crate::view::Problem;

/// Changes within this time are told together.
pub(super) const TOGETHER: Duration = Duration::from_millis(300);
/// A comment is sent when nothing else was, so that proxies keep the connection.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this long a browser that lost the stream comes back.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// More names than this in one batch are told as one `resync`.
const NAMES_MAX: usize = 64;

pub(super) async fn serve(State(ui): State<Ui>) -> Result<impl IntoResponse, Refusal> {
    let place = Arc::clone(&ui.streams).try_acquire_owned().map_err(|_| full())?;
    let hello = stream::once(async { Ok(Event::default().event("hello").data("1").retry(RETRY)) });
    let changes = stream::unfold((ui.engine.changes(), place), |(mut changes, place)| async {
        let names = batch(&mut changes).await?;
        let events =
            names.into_iter().map(|name| Ok::<_, Infallible>(Event::default().event(name).data("1")));
        Some((stream::iter(events), (changes, place)))
    });
    let until_stop = hello.chain(changes.flatten()).take_until(ui.stop.cancelled_owned());
    Ok(Sse::new(until_stop).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// There is no place for another stream.
pub(super) fn full() -> Refusal {
    Refusal(Problem {
        status: 503,
        code: "streams-full".to_owned(),
        message: "too many pages are open".to_owned(),
        hint: "close some; this one still works when it is loaded again".to_owned(),
    })
}

/// Waits for a change and takes in what follows closely; `None` when the server stops.
async fn batch(changes: &mut Receiver<Change>) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    take(changes.recv().await, &mut names)?;
    let end = Instant::now() + TOGETHER;
    while let Ok(next) = timeout_at(end, changes.recv()).await {
        if take(next, &mut names).is_none() {
            break;
        }
    }
    if names.len() > NAMES_MAX {
        names = BTreeSet::from(["resync".to_owned()]);
    }
    Some(names)
}

fn take(change: Result<Change, RecvError>, names: &mut BTreeSet<String>) -> Option<()> {
    match change {
        Ok(Change::Node(id)) => names.extend(["nodes".to_owned(), format!("node-{id}")]),
        Ok(Change::Event(event)) => {
            names.insert("events".to_owned());
            names.extend(event.node.map(|id| format!("node-{id}")));
        }
        Ok(Change::Server { server, .. }) => {
            names.extend(["servers".to_owned(), format!("server-{server}")]);
        }
        Ok(Change::Volume { volume, .. }) => {
            names.extend(["volumes".to_owned(), format!("volume-{volume}")]);
        }
        Ok(Change::Dpu(dpu)) => names.extend(["dpus".to_owned(), format!("dpu-{dpu}")]),
        Ok(Change::Images | Change::Ingest(_)) => {
            names.insert("images".to_owned());
        }
        Err(RecvError::Lagged(_)) => {
            names.insert("resync".to_owned());
        }
        Err(RecvError::Closed) => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use protocol::NodeId;
    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_told_once() {
        let (sender, mut receiver) = tokio::sync::broadcast::channel(8);
        let id = NodeId(Uuid::from_u128(7));
        for _ in 0..5 {
            sender.send(Change::Node(id)).unwrap();
        }
        sender.send(Change::Images).unwrap();
        let names: Vec<_> = batch(&mut receiver).await.unwrap().into_iter().collect();
        assert_eq!(names, ["images".to_owned(), format!("node-{id}"), "nodes".to_owned()]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_lags_reads_everything_anew() {
        let (sender, mut receiver) = tokio::sync::broadcast::channel(2);
        for n in 0..9 {
            sender.send(Change::Node(NodeId(Uuid::from_u128(n)))).unwrap();
        }
        assert!(batch(&mut receiver).await.unwrap().contains("resync"));
        drop(sender);
        assert!(batch(&mut receiver).await.is_none());
    }
}
