//! The sockets of a controller: TLS or plain, HTTP/1.1, and the faults that show on the wire.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::faults::Fault;
use super::state::{Question, Reply, State};
use super::tree::ROOT;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the sockets share.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) tls: Mutex<Option<Arc<ServerConfig>>>,
    /// Method and path of each request, and whether it brought a credential.
    pub(super) seen: Mutex<Vec<Seen>>,
    pub(super) address: SocketAddr,
    /// How long it thinks about each request, in milliseconds.
    pub(super) delay: AtomicU64,
    /// Connections that were taken.
    pub(super) connections: AtomicU64,
}

/// A request that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Method and path with query.
    pub line: String,
    /// Whether it brought a token, or user name and password.
    pub credential: bool,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A self-signed certificate, as controllers make for themselves, and its DER.
pub(super) fn certificate() -> Result<(Arc<ServerConfig>, Vec<u8>)> {
    let made = rcgen::generate_simple_self_signed(["bmc.invalid".to_owned()])?;
    let der = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)?;
    Ok((Arc::new(config), der.to_vec()))
}

/// Accepts until it is dropped.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        tokio::spawn(async move {
            // A client that goes away in between is of no interest.
            let _ = connection(shared, stream).await;
        });
    }
}

async fn connection(shared: Arc<Shared>, mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let fault = shared.state().fault.clone();
    match fault {
        Fault::JunkTls => {
            stream.write_all(b"SSH-2.0-dropbear_2019.78\r\n").await?;
            let mut ignored = [0; 512];
            while stream.read(&mut ignored).await? > 0 {}
            return Ok(());
        }
        Fault::NoHttp if shared.tls().is_none() => return no_http(stream).await,
        _ => {}
    }
    match shared.tls() {
        None => http(shared, stream).await,
        Some(config) => {
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            if fault == Fault::NoHttp {
                return no_http(stream).await;
            }
            http(shared, stream).await
        }
    }
}

impl Shared {
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn no_http(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    stream.write_all(b"\x00\x01login: ").await?;
    stream.shutdown().await?;
    Ok(())
}

async fn http(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<()> {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(shared, request).await) }
    });
    let builder = hyper::server::conn::http1::Builder::new();
    builder.serve_connection(TokioIo::new(stream), service).await.context("serving HTTP")
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let credential = ["x-auth-token", "authorization"].iter().any(|h| request.headers().contains_key(*h));
    let line = format!("{} {}", request.method(), request.uri());
    let seen = Seen { line, credential };
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    tokio::time::sleep(Duration::from_millis(shared.delay.load(Ordering::Relaxed))).await;
    let fault = shared.state().fault.clone();
    let is_root = request.uri().path().trim_end_matches('/') == ROOT;
    let is_read = request.method() == hyper::Method::GET;
    match fault {
        Fault::Hang => std::future::pending().await,
        Fault::SlowBody => return streamed(a_byte_a_second(), None),
        Fault::HugeBody => return streamed(huge(), Some(1 << 30)),
        Fault::HugeChunkedBody => return streamed(huge(), None),
        Fault::ManyObjects => {
            return whole(200, &[], format!("[{}0]", "{\"a\":0},".repeat(1_000_000)).into());
        }
        Fault::DeepJson => return whole(200, &[], "[".repeat(1_000_000).into()),
        Fault::RedirectTo(to) if is_read && !is_root => return whole(302, &[("location", to)], Bytes::new()),
        Fault::RedirectChangesTo(to) if !is_read => return whole(307, &[("location", to)], Bytes::new()),
        _ => {}
    }
    match tokio::task::spawn_blocking({
        let shared = shared.clone();
        let (head, body) = request.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        move || answer(&shared, &head, &bytes)
    })
    .await
    {
        Ok(reply) => reply_of(&shared, reply),
        Err(_) => whole(500, &[], Bytes::new()),
    }
}

fn answer(shared: &Shared, head: &hyper::http::request::Parts, bytes: &Bytes) -> Reply {
    let text = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    let json = serde_json::from_slice(bytes).unwrap_or_default();
    let mut state = shared.state();
    let mut reply = state.answer(&Question {
        method: head.method.as_str(),
        path: head.uri.path().trim_end_matches('/'),
        query: head.uri.query().unwrap_or_default(),
        if_match: text("if-match"),
        token: text("x-auth-token"),
        basic: text("authorization").and_then(basic),
        json,
        octets: bytes.len(),
    });
    if let (Some(body), 200..300) = (&mut reply.body, reply.status) {
        twist(body, &state.fault);
        if state.profile.trailing_slash {
            slashed(body);
        }
    }
    reply
}

fn reply_of(shared: &Shared, reply: Reply) -> Response<Body> {
    let absolute = shared.state().profile.location.as_deref() == Some("absolute");
    let scheme = if shared.tls().is_some() { "https" } else { "http" };
    let headers: Vec<_> = reply
        .headers
        .into_iter()
        .map(|(name, value)| match name == "location" && absolute && value.starts_with('/') {
            true => (name, format!("{scheme}://{}{value}", shared.address)),
            false => (name, value),
        })
        .collect();
    let body = reply.body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
    whole(reply.status, &headers, body)
}

fn whole(status: u16, headers: &[(&'static str, String)], body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

fn streamed(
    chunks: impl futures_util::Stream<Item = Bytes> + Send + 'static,
    length: Option<u64>,
) -> Response<Body> {
    let body = StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync();
    let mut response = Response::new(body);
    if let Some(length) = length {
        response.headers_mut().insert("content-length", length.into());
    }
    response
}

fn a_byte_a_second() -> impl futures_util::Stream<Item = Bytes> {
    stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Bytes::from_static(b" "), ()))
    })
}

/// 1 GiB that begins as JSON.
fn huge() -> impl futures_util::Stream<Item = Bytes> {
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let head = stream::iter([Bytes::from_static(b"{\"Name\":\"")]);
    head.chain(stream::iter(std::iter::repeat_n(chunk, 16 << 10))).take(16 << 10)
}

fn basic(header: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned()))
}

/// Changes what would have been said.
fn twist(body: &mut Value, fault: &Fault) {
    match fault {
        Fault::NextLinkTo(to) if body.get("Members").is_some() => {
            body["Members@odata.nextLink"] = to.as_str().into()
        }
        Fault::MembersAt(to) if body.get("Members").is_some() => {
            body["Members"] = json!([{ "@odata.id": to }])
        }
        Fault::ActionsAt(to) => retarget(body, to),
        Fault::WrongTypes => each(body, &mut |name, value| match name {
            "PowerState" | "Health" | "Manufacturer" => *value = json!(["On"]),
            "Boot" | "Attributes" => *value = json!("no object"),
            "ReadingCelsius" | "Reading" => *value = json!("23 degrees"),
            _ => {}
        }),
        Fault::UnknownEnums => each(body, &mut |name, value| {
            let names = [
                "PowerState",
                "Health",
                "HealthRollup",
                "Severity",
                "BootSourceOverrideTarget",
                "BootSourceOverrideMode",
                "State",
                "ReadingUnits",
                "ReadingType",
                "TaskState",
                "IndicatorLED",
            ];
            if names.contains(&name) && value.is_string() {
                *value = json!("Quantum");
            }
        }),
        _ => {}
    }
}

fn retarget(value: &mut Value, to: &str) {
    each(value, &mut |name, value| {
        if name == "target" {
            *value = to.into();
        }
    });
}

/// Calls for each property, the inner ones first.
fn each(value: &mut Value, change: &mut dyn FnMut(&str, &mut Value)) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                each(value, change);
                change(name, value);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| each(value, change)),
        _ => {}
    }
}

fn slashed(body: &mut Value) {
    each(body, &mut |name, value| {
        if let (true, Some(link)) = (matches!(name, "@odata.id" | "target"), value.as_str())
            && link.starts_with('/')
            && !link.ends_with('/')
        {
            *value = format!("{link}/").into();
        }
    });
}
