//! What happens, as server-sent events (HTML standard, section 9.2): `event` (resumable by its id), `node`, `ingest`,
//! `images`, and `reset` where a reader was too slow and should read everything anew.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use boot_server_core::server::Server;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use protocol::ProjectId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::extract::{Params, bad_query};
use super::projects::InProject;
use super::requests::StreamQuery;
use super::{Answer, Api, ProblemResponse};
use crate::engine::{Change, EVENTS_MAX, EngineError, EventFilter};
use crate::principal::Principal;
use crate::view::dpus::VolumeView;
use crate::view::{EventView, Problem};

/// A comment is sent so often where nothing happens, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens, as server-sent events.
///
/// `event: event` carries an EventView and its id, and is resumed by `Last-Event-ID`; `event: node` a NodeView;
/// `event: ingest` an IngestView; `event: images` says that the list of images changed; `event: reset` that something
/// was missed and lists should be read anew. A comment comes every 15 seconds.
#[utoipa::path(get, path = "/events/stream", tag = "events", operation_id = "stream_events",
    params(StreamQuery, ("Last-Event-ID" = Option<i64>, Header, description = "Go on after this event")),
    responses((status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 503, body = Problem)))]
pub(super) async fn stream(
    State(api): State<Api>,
    Params(query): Params<StreamQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    open(api, None, query, &headers).await
}

/// What happens in a project, as server-sent events.
///
/// `event: event` carries an EventView and its id, and is resumed by `Last-Event-ID`; `event: server` a ServerView whenever the server
/// or its machine goes on; `event: reset` says that something was missed and lists should be read anew. A comment comes every
/// 15 seconds. The stream ends when whoever opened it may not be there any more.
#[utoipa::path(get, path = "/projects/{project}/events/stream", tag = "servers", operation_id = "stream_project_events",
    params(("project" = String, Path, description = "Name or id"), StreamQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "Go on after this event")),
    responses((status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn stream_of_project(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<StreamQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    open(api, Some(within), query, &headers).await
}

async fn open(
    api: Api,
    within: Option<InProject>,
    query: StreamQuery,
    headers: &HeaderMap,
) -> Answer<Response> {
    let permit = api.streams.clone().try_acquire_owned().map_err(|_| {
        let hint = "close some pages or programs that follow events";
        ProblemResponse::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "streams-full",
            "too many streams are open",
            hint,
        )
    })?;
    // Before the events are read, so that none falls in between.
    let changes = api.engine.changes();
    let asked = match headers.get("last-event-id") {
        Some(value) => Some(last_id(value)?),
        None => query.after,
    };
    let last = match asked {
        Some(id) => id,
        None => newest(&api).await?,
    };
    let project = within.as_ref().map(|within| within.project.id);
    let reads = within.as_ref().map(|within| within.who.clone());
    let cut = within.map(|within| {
        async move {
            within.who.ended().await;
        }
        .boxed()
    });
    let stop = api.stop.clone();
    let mut reader =
        Reader { api, changes, last, ready: VecDeque::new(), stop, project, reads, cut, _permit: permit };
    if asked.is_some() {
        reader.catch_up().await?;
    }
    let sse = Sse::new(reader.messages()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = sse.into_response();
    // nginx would hold events back until its buffer is full.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn last_id(value: &HeaderValue) -> Result<i64, Problem> {
    let id = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    id.ok_or_else(|| bad_query("Last-Event-ID is not an event's number".to_owned()))
}

async fn newest(api: &Api) -> Result<i64, EngineError> {
    let filter = EventFilter { limit: 1, ..EventFilter::default() };
    Ok(api.engine.events(filter).await?.first().map_or(0, |e| e.id))
}

struct Reader {
    api: Api,
    changes: Receiver<Change>,
    /// Newest event that was sent.
    last: i64,
    ready: VecDeque<Message>,
    stop: CancellationToken,
    /// What happens in this project, and nothing else.
    project: Option<ProjectId>,
    /// Whoever reads, where it is a project's.
    reads: Option<Principal>,
    /// Resolves when whoever reads may not do so any more.
    cut: Option<BoxFuture<'static, ()>>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    fn messages(self) -> impl Stream<Item = Result<Message, Infallible>> {
        futures_util::stream::unfold(self, |mut reader| async {
            loop {
                if let Some(message) = reader.ready.pop_front() {
                    return Some((Ok(message), reader));
                }
                let cut = async {
                    match &mut reader.cut {
                        Some(cut) => cut.await,
                        None => std::future::pending().await,
                    }
                };
                let change = tokio::select! {
                    () = reader.stop.cancelled() => return None,
                    () = cut => return None,
                    change = reader.changes.recv() => change,
                };
                let taken = match reader.project {
                    Some(project) => reader.take_of(project, change).await,
                    None => reader.take(change).await,
                };
                if let Err(error) = taken {
                    tracing::warn!(%error, "a stream of events ends, its reader comes again");
                    return None;
                }
            }
        })
    }

    async fn take(&mut self, change: Result<Change, RecvError>) -> Result<(), EngineError> {
        match change {
            Ok(Change::Event(event)) if event.id <= self.last => {} // sent already
            Ok(Change::Event(event)) if event.id == self.last + 1 => self.push_event(&event),
            // Two nodes' events were announced out of order: the store has those in between.
            Ok(Change::Event(_)) => self.catch_up().await?,
            Ok(Change::Node(id)) => {
                // It may be gone again.
                if let Ok(node) = self.api.engine.node(&id.to_string()).await {
                    let view = self.api.engine.view(&node).await;
                    self.push("node", &view);
                }
            }
            Ok(Change::Ingest(id)) => {
                if let Some(ingest) = self.api.ingests.get(id) {
                    self.push("ingest", &ingest);
                }
            }
            // Projects have streams of their own.
            Ok(Change::Server { .. } | Change::Volume { .. }) => {}
            Ok(Change::Dpu(id)) => {
                if let Ok(known) = self.api.engine.dpu(&id.to_string()) {
                    let view = self.api.dpu_view(known);
                    self.push("dpu", &view);
                }
            }
            Ok(Change::Images) => self.push("images", &serde_json::json!({})),
            Err(RecvError::Lagged(_)) => {
                self.push("reset", &serde_json::json!({}));
                self.catch_up().await?;
            }
            Err(RecvError::Closed) => self.stop.cancel(),
        }
        Ok(())
    }

    /// The same for a project: its events have holes between their numbers, and its servers go on as their machines do.
    async fn take_of(
        &mut self,
        project: ProjectId,
        change: Result<Change, RecvError>,
    ) -> Result<(), EngineError> {
        match change {
            Ok(Change::Event(event)) if event.project == Some(project) && event.id > self.last => {
                self.catch_up().await?;
            }
            Ok(Change::Server { project: whose, server }) if whose == project => {
                if let Ok(server) = self.api.engine.server(project, &server.to_string()).await {
                    self.push_server(server).await;
                }
            }
            Ok(Change::Volume { project: whose, volume }) if whose == project => {
                if let Ok(volume) = self.api.engine.volume(project, &volume.to_string()).await {
                    let hydration = self.api.engine.hydration(&volume);
                    self.push("volume", &VolumeView::from(volume).with(hydration));
                }
            }
            Ok(Change::Node(node)) => {
                if let Some(server) = self.api.engine.server_of(node).await?.filter(|s| s.project == project)
                {
                    self.push_server(server).await;
                }
            }
            Err(RecvError::Lagged(_)) => {
                self.push("reset", &serde_json::json!({}));
                self.catch_up().await?;
            }
            Err(RecvError::Closed) => self.stop.cancel(),
            Ok(_) => {}
        }
        Ok(())
    }

    /// Sends the events after the last one that was sent; the newest where they are too many.
    async fn catch_up(&mut self) -> Result<(), EngineError> {
        let project = self.project;
        let filter =
            EventFilter { project, after: Some(self.last), limit: EVENTS_MAX, ..EventFilter::default() };
        for event in self.api.engine.events(filter).await? {
            let event = match &self.reads {
                Some(who) => event.in_project(who.site.is_some()),
                None => event,
            };
            self.push_event(&event);
        }
        Ok(())
    }

    async fn push_server(&mut self, server: Server) {
        if let Some(who) = self.reads.clone() {
            let view = self.api.server_view(server, &who).await;
            self.push("server", &view);
        }
    }

    fn push_event(&mut self, event: &EventView) {
        self.last = event.id;
        if let Ok(message) = Message::default().event("event").id(event.id.to_string()).json_data(event) {
            self.ready.push_back(message);
        }
    }

    fn push<T: serde::Serialize>(&mut self, kind: &str, value: &T) {
        // Views are plain data, which JSON can always hold.
        if let Ok(message) = Message::default().event(kind).json_data(value) {
            self.ready.push_back(message);
        }
    }
}
