//! Metadata for installed OSes, on the provisioning listeners: NoCloud, EC2 and OpenStack (core, `metadata`).
//!
//! ```text
//! /metadata/{token}/…        the OS proves itself by the token on its disk: everything of its own
//! /latest/… /openstack/…     by the network: what is no secret, and more only where the site says so
//! ```
//!
//! Nothing that a client writes into a header says who it is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use axum::{Extension, Router};
use boot_server_core::bucket::Bucket;
use boot_server_core::metadata::{EC2_VERSIONS, Found, Proof, look};

use super::{Peer, ProblemResponse, problem};
use crate::engine::{Asker, Engine, lock, now};

/// Requests of one address at once: cloud-init walks some fifty paths in a boot.
const BURST: u32 = 200;
/// And from then on, each second.
const PER_SECOND: u32 = 20;
/// Addresses whose requests are counted; beyond that all begin anew, which gives nobody much.
const COUNTED_MAX: usize = 8192;
/// Longest life of a session, in seconds, as EC2 has it.
const SESSION_MAX: u64 = 21_600;

#[derive(Clone)]
struct Metadata {
    engine: Engine,
    counted: Arc<Mutex<BTreeMap<IpAddr, Bucket>>>,
}

pub(super) fn router(engine: Engine) -> Router {
    let mut router = Router::new()
        .route("/metadata/{token}", get(by_token))
        .route("/metadata/{token}/", get(by_token))
        .route("/metadata/{token}/{*path}", get(by_token).put(session_by_token))
        .route("/latest/api/token", put(session_by_network));
    for root in EC2_VERSIONS.iter().chain(&["openstack"]) {
        for path in [format!("/{root}"), format!("/{root}/"), format!("/{root}/{{*path}}")] {
            router = router.route(&path, get(by_network));
        }
    }
    router.with_state(Metadata { engine, counted: Arc::default() })
}

impl Metadata {
    /// False for an address that asks too often.
    fn admits(&self, address: IpAddr) -> bool {
        let mut counted = lock(&self.counted);
        if counted.len() >= COUNTED_MAX && !counted.contains_key(&address) {
            counted.clear();
        }
        counted.entry(address).or_insert_with(|| Bucket::new(BURST, PER_SECOND)).take(now())
    }

    async fn of_token(&self, token: &str, address: IpAddr) -> Result<Asker, Response> {
        if let Some(refused) = self.too_many(address) {
            return Err(refused);
        }
        match self.engine.instance_of(token).await {
            Ok(Some(asker)) => Ok(asker),
            Ok(None) => Err(problem::not_found().await.into_response()),
            Err(error) => Err(ProblemResponse::from(error).into_response()),
        }
    }

    async fn of_network(&self, address: IpAddr) -> Result<Asker, Response> {
        if let Some(refused) = self.too_many(address) {
            return Err(refused);
        }
        match self.engine.instance_at(address).await {
            Ok(Ok(asker)) => Ok(asker),
            Ok(Err(why)) => {
                tracing::debug!(%address, why, "no metadata for this address");
                Err(problem::not_found().await.into_response())
            }
            Err(error) => Err(ProblemResponse::from(error).into_response()),
        }
    }

    /// The answer to an address that asks too often.
    fn too_many(&self, address: IpAddr) -> Option<Response> {
        if self.admits(address) {
            return None;
        }
        let many = StatusCode::TOO_MANY_REQUESTS;
        let problem =
            ProblemResponse::new(many, "too-many", "too many requests from this address", "wait a second");
        Some(([(header::RETRY_AFTER, "1")], problem).into_response())
    }
}

/// Everything of its own, for who has the token.
async fn by_token(
    State(metadata): State<Metadata>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(parts): Path<Vec<(String, String)>>,
) -> Response {
    let part = |name| parts.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str());
    let address = peer.ip().to_canonical();
    match metadata.of_token(part("token"), address).await {
        Ok(asker) => answer(&asker, part("path"), address, Proof::Token).await,
        Err(refused) => refused,
    }
}

/// The well-known paths, for the machine whose address it is. EC2's ask for a session first (IMDSv2), so that a program
/// on the machine that can be made to fetch a URL cannot be made to fetch these.
async fn by_network(
    State(metadata): State<Metadata>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let address = peer.ip().to_canonical();
    let asker = match metadata.of_network(address).await {
        Ok(asker) => asker,
        Err(refused) => return refused,
    };
    let path = request.uri().path();
    let session = header_of(request.headers(), "x-aws-ec2-metadata-token");
    if !path.starts_with("/openstack")
        && !session.is_some_and(|given| metadata.engine.metadata_session_holds(&asker, address, given))
    {
        return ProblemResponse::new(
            StatusCode::UNAUTHORIZED,
            "metadata-session",
            "this needs a session",
            "PUT /latest/api/token first, with X-aws-ec2-metadata-token-ttl-seconds (IMDSv2)",
        )
        .into_response();
    }
    let secrets = metadata.engine.settings().metadata.secrets_by_network;
    answer(&asker, path, address, Proof::Network { secrets }).await
}

async fn session_by_network(
    State(metadata): State<Metadata>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let address = peer.ip().to_canonical();
    match metadata.of_network(address).await {
        Ok(asker) => session(&metadata.engine, &asker, address, &headers),
        Err(refused) => refused,
    }
}

/// The URL with the token needs no session, but a client of the protocol wants one.
async fn session_by_token(
    State(metadata): State<Metadata>,
    Extension(Peer(peer)): Extension<Peer>,
    Path((token, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let address = peer.ip().to_canonical();
    if path != "latest/api/token" {
        return problem::not_found().await.into_response();
    }
    match metadata.of_token(&token, address).await {
        Ok(asker) => session(&metadata.engine, &asker, address, &headers),
        Err(refused) => refused,
    }
}

fn session(engine: &Engine, asker: &Asker, address: IpAddr, headers: &HeaderMap) -> Response {
    // As EC2: a proxy that passes this on would make its own address that of everybody behind it.
    if headers.contains_key("x-forwarded-for") {
        let why = "a session is not given through a proxy";
        return ProblemResponse::new(StatusCode::FORBIDDEN, "forwarded", why, "ask directly").into_response();
    }
    let wanted =
        header_of(headers, "x-aws-ec2-metadata-token-ttl-seconds").and_then(|text| text.parse().ok());
    let Some(seconds) = wanted.filter(|seconds| (1..=SESSION_MAX).contains(seconds)) else {
        let hint = "send X-aws-ec2-metadata-token-ttl-seconds, 1 to 21600";
        return ProblemResponse::new(
            StatusCode::BAD_REQUEST,
            "metadata-ttl",
            "no life of a session was given",
            hint,
        )
        .into_response();
    };
    let token = engine.metadata_session(asker, address, now().0.saturating_add(seconds * 1000));
    let mut response = plain("text/plain; charset=utf-8", token);
    let ttl = HeaderValue::from(seconds);
    response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", ttl);
    response
}

fn header_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn answer(asker: &Asker, path: &str, address: IpAddr, proof: Proof) -> Response {
    let own = match address {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    match look(&asker.instance, path, own, proof) {
        Found::File { kind, text } => plain(kind, text),
        Found::Listing(names) => plain("text/plain; charset=utf-8", names),
        Found::Secret => ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "token-needed",
            "this is given only to who has the server's token",
            "ask below the URL in /etc/billet/metadata-url, or have metadata.secrets_by_network allowed",
        )
        .into_response(),
        Found::Nothing => problem::not_found().await.into_response(),
    }
}

/// No browser shows it as a page, nothing on the way keeps it.
fn plain(kind: &'static str, text: String) -> Response {
    let kind = HeaderValue::from_static(kind);
    let fresh = HeaderValue::from_static("no-store");
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, fresh)], text).into_response()
}
