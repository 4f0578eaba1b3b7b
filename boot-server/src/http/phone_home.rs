//! The first sign of life of a deployed OS: cloud-init's `phone_home` module posts to a URL with a one-time token, and
//! tells of its SSH host keys.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use boot_server_core::metadata::hostkey::{self, HostKey, KEYS_MAX};
use boot_server_core::node::{Event, Refused};

use super::{ProblemResponse, body};
use crate::engine::{Actor, Engine, EngineError};
use crate::secret;

/// Largest body that is looked at, in octets: three keys and two names are 4 KiB.
const BODY_MAX: usize = 32 << 10;

pub(super) fn router(engine: Engine) -> Router {
    Router::new().route("/phone-home/{token}", get(phone_home).post(phone_home)).with_state(engine)
}

async fn phone_home(State(engine): State<Engine>, Path(token): Path<String>, request: Request) -> Response {
    let token = secret::hash(&token);
    let unknown = || ProblemResponse::from(EngineError::Refused(Refused::StalePhoneHome)).into_response();
    let Some(id) = engine.node_of_phone_home(token) else { return unknown() };
    let host_keys = told(request.into_body()).await;
    match engine.apply(id, Actor::Machine, Event::PhoneHome { token, host_keys }).await {
        Ok(_) => (StatusCode::OK, "welcome\n").into_response(),
        Err(EngineError::Refused(Refused::StalePhoneHome)) => match engine.is_home(id, token) {
            // Its first call was taken in, but the answer was lost.
            true => (StatusCode::OK, "welcome\n").into_response(),
            false => unknown(),
        },
        Err(error) => ProblemResponse::from(error).into_response(),
    }
}

/// The host keys in the form that it sends. A body that says nothing, or nonsense, makes the OS no less up.
async fn told(sent: Body) -> Vec<HostKey> {
    match body(sent, BODY_MAX).await {
        Ok(form) => host_keys(&form),
        Err(problem) => {
            tracing::info!(why = problem.message, "what an OS posted when it phoned home was not read");
            Vec::new()
        }
    }
}

fn host_keys(form: &[u8]) -> Vec<HostKey> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(form).unwrap_or_default();
    let keys = fields.iter().filter(|(name, _)| name.starts_with("pub_key_"));
    keys.filter_map(|(_, value)| host_key(value)).take(KEYS_MAX).collect()
}

fn host_key(line: &str) -> Option<HostKey> {
    let (kind, text) = hostkey::parts(line)?;
    let blob = STANDARD.decode(text).ok().filter(|blob| hostkey::is_of(kind, blob))?;
    let hash = STANDARD_NO_PAD.encode(secret::digest(&blob));
    Some(HostKey { kind: kind.to_owned(), fingerprint: format!("SHA256:{hash}") })
}
