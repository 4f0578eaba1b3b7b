//! Errors as clients get them: `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::engine::EngineError;
use crate::view::Problem;

/// The code of a problem, in the extensions of its answer: for the audit. Pages that refuse somebody have one too.
#[derive(Debug, Clone)]
pub(super) struct Code(pub String);

/// A problem as an answer.
#[derive(Debug)]
pub struct ProblemResponse(pub Problem);

impl ProblemResponse {
    /// A problem made on the spot.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>, hint: &str) -> Self {
        Self(Problem {
            status: status.as_u16(),
            code: code.to_owned(),
            message: message.into(),
            hint: hint.to_owned(),
        })
    }
}

impl From<EngineError> for ProblemResponse {
    fn from(error: EngineError) -> Self {
        let problem = error.problem();
        if problem.status >= 500 {
            // The client gets the sentence, the log the chain.
            tracing::error!(error = &error as &dyn std::error::Error, "request failed");
        }
        Self(problem)
    }
}

impl From<Problem> for ProblemResponse {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = HeaderValue::from_static("application/problem+json");
        let code = Code(self.0.code.clone());
        let mut response = (status, axum::Json(self.0)).into_response();
        response.extensions_mut().insert(code);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// What is said of paths that are nothing.
pub(super) fn not_found_problem() -> Problem {
    Problem {
        status: 404,
        code: "not-found".to_owned(),
        message: "nothing is served at this path".to_owned(),
        hint: String::new(),
    }
}

/// For paths that are nothing.
pub(super) async fn not_found() -> ProblemResponse {
    ProblemResponse(not_found_problem())
}
