//! How requests are read: JSON bodies, queries, names in paths. Everything that is wrong with them becomes a problem
//! with a sentence, never a bare status.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use protocol::limits::JSON_BODY_MAX;
use serde::de::DeserializeOwned;

use super::super::{ProblemResponse, body};
use super::requests::PageQuery;
use crate::view::{Page, Problem};

/// Items on a page unless told otherwise.
const PAGE: usize = 100;
/// Most items on a page.
const PAGE_MAX: usize = 1000;
/// Longest idempotency key.
const KEY_MAX: usize = 128;

/// A JSON body. None at all is `{}`.
#[derive(Debug)]
pub(super) struct Input<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, _: &S) -> Result<Self, ProblemResponse> {
        let is_json = is_json(request.headers());
        let bytes = body(request.into_body(), JSON_BODY_MAX).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        // A form of another site can be sent without the browser asking us first, JSON cannot (Fetch standard).
        if !is_json {
            return Err(ProblemResponse::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content-type",
                "the body must be JSON",
                "send `Content-Type: application/json`",
            ));
        }
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|h| h.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ProblemResponse> {
    serde_json::from_slice(bytes).map_err(|error| {
        let hint = "see /api/v1/openapi.json for the fields of this request";
        ProblemResponse::new(
            StatusCode::BAD_REQUEST,
            "body",
            format!("the body is not what this takes: {error}"),
            hint,
        )
    })
}

/// A query.
#[derive(Debug)]
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemResponse> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|rejection: QueryRejection| {
            let hint = "see /api/v1/openapi.json for the parameters of this path";
            ProblemResponse::new(StatusCode::BAD_REQUEST, "query", rejection.body_text(), hint)
        })
    }
}

/// The one name in a path.
#[derive(Debug)]
pub(super) struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemResponse> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|rejection: PathRejection| {
            ProblemResponse::new(StatusCode::BAD_REQUEST, "path", rejection.body_text(), "")
        })
    }
}

/// The last name in a path that has several.
#[derive(Debug)]
pub(super) struct LastNamed(pub String);

impl<S: Send + Sync> FromRequestParts<S> for LastNamed {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemResponse> {
        let bad = |text: String| ProblemResponse::new(StatusCode::BAD_REQUEST, "path", text, "");
        let names = RawPathParams::from_request_parts(parts, state).await.map_err(|e| bad(e.body_text()))?;
        let last = names.iter().last().map(|(_, name)| name.to_owned());
        last.map(Self).ok_or_else(|| bad("the path has no name".to_owned()))
    }
}

/// The `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header), if any.
#[derive(Debug)]
pub(super) struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemResponse> {
        idempotency_key(&parts.headers).map(Self)
    }
}

/// The key of a request, if it has one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ProblemResponse> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim();
    if (1..=KEY_MAX).contains(&key.len()) {
        return Ok(Some(key.to_owned()));
    }
    let message = format!("the idempotency key must have 1 to {KEY_MAX} printable characters");
    Err(ProblemResponse::new(StatusCode::BAD_REQUEST, "idempotency-key", message, "use a UUID"))
}

/// The number of items asked for.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(PAGE),
        Some(n) if (1..=PAGE_MAX).contains(&n) => Ok(n),
        Some(n) => Err(bad_query(format!("limit {n} is not from 1 to {PAGE_MAX}"))),
    }
}

/// A query that was understood and makes no sense.
pub(super) fn bad_query(message: String) -> Problem {
    Problem { status: 400, code: "query".to_owned(), message, hint: String::new() }
}

/// The page of `items` (sorted by `key`) that begins after `cursor`.
pub(super) fn page<T>(
    items: impl Iterator<Item = T>,
    key: impl Fn(&T) -> String,
    cursor: Option<&str>,
    limit: usize,
) -> Page<T> {
    let mut rest = items.skip_while(|item| cursor.is_some_and(|cursor| key(item).as_str() <= cursor));
    let items: Vec<T> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| items.last().map(&key));
    Page { items, next }
}

/// The page of `items`, which have no key of their own, that begins at the place `cursor`.
pub(super) fn page_by_place<T: Clone>(items: &[T], query: &PageQuery) -> Result<Page<T>, Problem> {
    let limit = limit(query.limit)?;
    let wrong = || bad_query("the cursor is not one that this server gave".to_owned());
    let begin: usize = query.cursor.as_deref().map_or(Ok(0), |c| c.parse().map_err(|_| wrong()))?;
    let items_here: Vec<T> = items.iter().skip(begin).take(limit).cloned().collect();
    let end = begin.saturating_add(limit);
    Ok(Page { items: items_here, next: (end < items.len()).then(|| end.to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_without_gaps() {
        let all = ["a", "b", "c", "d", "e"].map(str::to_owned);
        let (mut cursor, mut seen) = (None, Vec::new());
        loop {
            let page = page(all.iter().cloned(), Clone::clone, cursor.as_deref(), 2);
            seen.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
        assert!(page(all.iter().cloned(), Clone::clone, Some("c"), 2).next.is_none());
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err() && limit(None).is_ok());
    }
}
