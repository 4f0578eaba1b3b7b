//! Serial consoles: how they stand, looking at them, ending sessions, recordings.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::Json;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use boot_server_core::access::Role;
use boot_server_core::console::{ConsoleSource, cast};
use boot_server_core::node::Node;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::extract::{Input, Named, Params, bad_query, limit, page_by_place};
use super::requests::{PageQuery, RecordingQuery};
use super::{Answer, Api, ProblemResponse};
use crate::console::{ConsoleError, Said, Session, Via};
use crate::http::Peer;
use crate::http::auth::{may_open_socket, need, need_places};
use crate::tokens::Principal;
use crate::view::{ConsoleAsks, ConsoleSays, ConsoleSessionView, ConsoleView, Page, Problem, RecordingView};

/// Largest message of a client: a large paste.
const MESSAGE_MAX: usize = 64 << 10;
/// A client that is silent is asked so often whether it is there.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Questions without an answer until it is gone.
const PINGS_MAX: u32 = 3;
/// How long a client may take to hear that its session is over.
const GOODBYE: Duration = Duration::from_millis(500);

impl From<ConsoleError> for ProblemResponse {
    fn from(error: ConsoleError) -> Self {
        match error {
            ConsoleError::Engine(error) => error.into(),
            other => Self(other.problem()),
        }
    }
}

/// How a node's console stands, and who looks at it.
#[utoipa::path(get, path = "/nodes/{node}/console", tag = "consoles", operation_id = "show_console",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = ConsoleView), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(node): Named) -> Answer<Json<ConsoleView>> {
    Ok(Json(api.consoles.view(&api.engine.node(&node).await?)))
}

/// Says where a node's console is. Only the site's own token may: the server connects to what is named here.
#[utoipa::path(put, path = "/nodes/{node}/console", tag = "consoles", operation_id = "configure_console",
    params(("node" = String, Path, description = "Name or id")), request_body = ConsoleSource,
    responses((status = 200, body = ConsoleView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn configure(
    State(api): State<Api>,
    Named(node): Named,
    Input(source): Input<ConsoleSource>,
) -> Answer<Json<ConsoleView>> {
    let by = need_places()?.actor();
    let node = api.engine.node(&node).await?;
    Ok(Json(api.consoles.configure(by, &node, Some(source)).await?))
}

/// Makes a node's console that of its BMC again.
#[utoipa::path(delete, path = "/nodes/{node}/console", tag = "consoles", operation_id = "reset_console",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = ConsoleView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn reset(State(api): State<Api>, Named(node): Named) -> Answer<Json<ConsoleView>> {
    let by = need_places()?.actor();
    let node = api.engine.node(&node).await?;
    Ok(Json(api.consoles.configure(by, &node, None).await?))
}

/// What is kept of what a node printed, as it came: at most 256 KiB.
#[utoipa::path(get, path = "/nodes/{node}/console/log", tag = "consoles", operation_id = "console_log",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, description = "Octets", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = Problem)))]
pub(super) async fn log(State(api): State<Api>, Named(node): Named) -> Answer<Response> {
    let octets = api.consoles.kept(&api.engine.node(&node).await?);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], octets).into_response())
}

/// Looks at a node's console: a WebSocket (RFC 6455).
///
/// Binary messages are octets: of the machine, first those that are kept, and of whoever types. Text messages are
/// ConsoleSays of the server and ConsoleAsks of the client. Typing asks for the place where nobody has it. The session is
/// recorded, and ends when its token does.
#[utoipa::path(get, path = "/nodes/{node}/console/attach", tag = "consoles", operation_id = "attach_console",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 101, description = "The WebSocket", body = ConsoleSays), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 426, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn attach(
    State(api): State<Api>,
    Named(node): Named,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let who = need(Role::Reader)?;
    let node = api.engine.node(&node).await?;
    look(&api, &node, who, peer, &headers, socket).await
}

/// Opens the WebSocket of a console for somebody who may look at it.
pub(super) async fn look(
    api: &Api,
    node: &Node,
    who: Principal,
    peer: Option<Extension<Peer>>,
    headers: &HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let socket = socket.map_err(|error| {
        let hint = "use the web UI, `billet node console`, or a WebSocket client";
        ProblemResponse::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", error.body_text(), hint)
    })?;
    if !may_open_socket(headers) {
        let (message, hint) = ("the request comes from another web site", "use this server's own pages");
        return Err(ProblemResponse::new(StatusCode::FORBIDDEN, "other-site", message, hint));
    }
    let from = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.0.ip());
    let via = if headers.contains_key(header::AUTHORIZATION) { Via::Api } else { Via::Web };
    let session = api.consoles.attach(node, who, from, via).await?;
    let socket = socket.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
    Ok(socket.on_upgrade(move |socket| speak(socket, session)))
}

/// A session over a WebSocket, to its end.
async fn speak(mut socket: WebSocket, mut session: Session) {
    let cut = session.cut();
    let mut ping = tokio::time::interval(PING_EVERY);
    let mut unanswered = 0;
    loop {
        let message = tokio::select! {
            said = session.next() => {
                let over = matches!(said, Said::Ended(_));
                let message = message(session.id, said);
                if over {
                    // A client that takes nothing does not hold the end up.
                    let end = async { socket.send(message).await?; socket.send(Message::Close(None)).await };
                    let _ = tokio::time::timeout(GOODBYE, end).await;
                    return;
                }
                if !sent(&mut socket, message, &cut).await {
                    return;
                }
                continue;
            }
            message = socket.recv() => message,
            _ = ping.tick() => {
                unanswered += 1;
                if unanswered > PINGS_MAX || !sent(&mut socket, Message::Ping(Vec::new().into()), &cut).await {
                    return;
                }
                continue;
            }
        };
        unanswered = 0;
        match message {
            Some(Ok(Message::Binary(octets))) => session.typed(&octets).await,
            Some(Ok(Message::Text(text))) => asked(&mut session, &text).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return,
        }
    }
}

/// False where the client is gone. A session that is cut waits for nobody; what it then says comes next.
async fn sent(socket: &mut WebSocket, message: Message, cut: &CancellationToken) -> bool {
    tokio::select! {
        sent = socket.send(message) => sent.is_ok(),
        () = cut.cancelled() => true,
    }
}

async fn asked(session: &mut Session, text: &str) {
    match serde_json::from_str(text) {
        Ok(ConsoleAsks::Ask) => drop(session.ask(false).await),
        Ok(ConsoleAsks::Take) => drop(session.ask(true).await),
        Ok(ConsoleAsks::Release) => session.release(),
        // A newer client may ask for more than this server knows.
        Err(error) => tracing::debug!(%error, "a console's client said something unknown"),
    }
}

fn message(you: Uuid, said: Said) -> Message {
    let says = match said {
        Said::Output(octets) => return Message::Binary(octets.into()),
        Said::Skipped(octets) => ConsoleSays::Skipped { octets },
        Said::Notice(text) => ConsoleSays::Notice { text },
        Said::Presence(console) => ConsoleSays::Presence { you, console },
        Said::Ended(reason) => ConsoleSays::Ended { reason },
    };
    // Plain data, which JSON can always hold.
    Message::Text(serde_json::to_string(&says).unwrap_or_default().into())
}

/// Who looks at which console now.
#[utoipa::path(get, path = "/console/sessions", tag = "consoles", operation_id = "list_console_sessions",
    params(PageQuery), responses((status = 200, body = Page<ConsoleSessionView>)))]
pub(super) async fn sessions(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<ConsoleSessionView>>> {
    Ok(Json(page_by_place(&api.consoles.sessions(), &query)?))
}

/// Ends a session.
#[utoipa::path(delete, path = "/console/sessions/{session}", tag = "consoles", operation_id = "end_console_session",
    params(("session" = String, Path, description = "Id of the session")),
    responses((status = 200, body = ConsoleSessionView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn end(State(api): State<Api>, Named(session): Named) -> Answer<Json<ConsoleSessionView>> {
    let by = need(Role::Operator)?;
    let id = session.parse().map_err(|_| ConsoleError::NoSession(session.chars().take(80).collect()))?;
    Ok(Json(api.consoles.end(&by, id).await?))
}

/// Recordings, newest first.
#[utoipa::path(get, path = "/console/recordings", tag = "consoles", operation_id = "list_recordings",
    params(RecordingQuery),
    responses((status = 200, body = Page<RecordingView>), (status = 404, body = Problem)))]
pub(super) async fn recordings(
    State(api): State<Api>,
    Params(query): Params<RecordingQuery>,
) -> Answer<Json<Page<RecordingView>>> {
    let limit = limit(query.limit)?;
    let node = match &query.node {
        Some(reference) => Some(api.engine.node(reference).await?.id),
        None => None,
    };
    let after: Option<Uuid> = match &query.cursor {
        Some(cursor) => Some(cursor.parse().map_err(|_| bad_query("cursor is no recording".to_owned()))?),
        None => None,
    };
    let all = api.consoles.recordings().list(node);
    let mut rest = all.into_iter().skip_while(|r| after.is_some_and(|after| r.about.session >= after));
    let items: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| items.last().map(|r| r.about.session.to_string()));
    Ok(Json(Page { items, next }))
}

/// A recording as asciicast v2. Readers get it without what was typed, because passwords are.
#[utoipa::path(get, path = "/console/recordings/{recording}", tag = "consoles", operation_id = "show_recording",
    params(("recording" = String, Path, description = "Id of the session")),
    responses((status = 200, description = "asciicast v2", body = String, content_type = "application/x-asciicast"),
        (status = 404, body = Problem)))]
pub(super) async fn recording(State(api): State<Api>, Named(recording): Named) -> Answer<Response> {
    let who = need(Role::Reader)?;
    let missing = || ConsoleError::NoRecording(recording.chars().take(80).collect());
    let id: Uuid = recording.parse().map_err(|_| missing())?;
    let found = api.consoles.recordings().read(id).await.map_err(ConsoleError::Unreadable)?;
    let (view, text) = found.ok_or_else(missing)?;
    let text = if who.may_change() { text } else { cast::without_input(&text) };
    let name = format!("attachment; filename=\"{}-{id}.cast\"", view.about.node_name);
    let headers = [
        (header::CONTENT_TYPE, "application/x-asciicast".to_owned()),
        (header::CONTENT_DISPOSITION, name),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, text).into_response())
}
