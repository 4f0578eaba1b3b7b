//! The first sign of life of a deployed OS: cloud-init's `phone_home` module posts to a URL with a one-time token.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use boot_server_core::node::{Event, Refused};

use super::ProblemResponse;
use crate::engine::{Actor, Engine, EngineError};
use crate::secret;

pub(super) fn router(engine: Engine) -> Router {
    Router::new().route("/phone-home/{token}", get(phone_home).post(phone_home)).with_state(engine)
}

/// The body says nothing that is needed and is not read.
async fn phone_home(State(engine): State<Engine>, Path(token): Path<String>) -> Response {
    let token = secret::hash(&token);
    let unknown = || ProblemResponse::from(EngineError::Refused(Refused::StalePhoneHome)).into_response();
    let Some(id) = engine.node_of_phone_home(token) else { return unknown() };
    match engine.apply(id, Actor::Machine, Event::PhoneHome { token }).await {
        Ok(_) => (StatusCode::OK, "welcome\n").into_response(),
        Err(EngineError::Refused(Refused::StalePhoneHome)) => match engine.is_home(id, token) {
            // Its first call was taken in, but the answer was lost.
            true => (StatusCode::OK, "welcome\n").into_response(),
            false => unknown(),
        },
        Err(error) => ProblemResponse::from(error).into_response(),
    }
}
