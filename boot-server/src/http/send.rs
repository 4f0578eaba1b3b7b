//! A file as an answer to GET or HEAD: conditions, ranges, and the way that its octets take. Over plain TCP they are
//! handed to the socket by the kernel; over TLS, where they must be encrypted first, they are read in pieces.

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::task::JoinHandle;

use super::ProblemResponse;
use super::conditions::{Validators, Verdict, verdict};
use super::handoff::{HandedBody, Handoff};

/// Octets read at once where they are encrypted; two such pieces are held for each connection that takes a file.
const PIECE: usize = 256 << 10;

/// The parts of a request that say what is sent, and how.
#[derive(Debug)]
pub(super) struct Asked {
    pub method: Method,
    headers: HeaderMap,
    pub handoff: Option<Handoff>,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            handoff: parts.extensions.get().cloned(),
        })
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    size: u64,
    validators: Validators,
}

impl Opened {
    /// Opens a regular file.
    pub(super) async fn at(path: PathBuf) -> std::io::Result<Self> {
        tokio::task::spawn_blocking(move || Self::of(File::open(path)?))
            .await
            .map_err(std::io::Error::other)?
    }

    /// A regular file that is open already. May wait for the disk.
    pub(super) fn of(file: File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        // A file that is replaced has another inode or another time; one that is written to has another time.
        let (inode, size) = (metadata.ino(), metadata.len());
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        let etag = format!("\"{inode:x}-{size:x}-{:x}-{:x}\"", changed.0, changed.1);
        let validators = Validators { etag, modified: metadata.modified().ok() };
        Ok(Self { file, size, validators })
    }

    /// The file's name says what is in it: the name is its tag, and no date is needed.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.validators = Validators { etag: format!("\"{name}\""), modified: None };
        self
    }

    /// The answer.
    pub(super) fn respond(self, asked: &Asked, kind: &'static str) -> Response {
        let Self { file, size, validators } = self;
        let body = |start, len| of_file(Arc::new(file), start, len, asked.handoff.as_ref());
        answer(asked, &validators, size, kind, body)
    }
}

/// `len` octets of a file from `start` on.
pub(super) fn of_file(file: Arc<File>, start: u64, len: u64, handoff: Option<&Handoff>) -> Body {
    match handoff {
        Some(handoff) => Body::new(HandedBody::new(file, start, len, handoff.clone())),
        None => pieces(file, start, len),
    }
}

/// The answer for a content of `size` octets, of which `body` gives so many from a place on.
pub(super) fn answer(
    asked: &Asked,
    validators: &Validators,
    size: u64,
    kind: &'static str,
    body: impl FnOnce(u64, u64) -> Body,
) -> Response {
    let mut response = Response::new(Body::empty());
    put(&mut response, header::ETAG, validators.etag.clone());
    if let Some(modified) = validators.modified {
        put(&mut response, header::LAST_MODIFIED, httpdate::fmt_http_date(modified));
    }
    put(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    let wanted = verdict(&asked.method, &asked.headers, validators, size, SystemTime::now());
    let (status, start, len) = match wanted {
        Verdict::Whole => (StatusCode::OK, 0, size),
        Verdict::Part { first, last } => {
            put(&mut response, header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Verdict::Outside => {
            put(&mut response, header::CONTENT_RANGE, format!("bytes */{size}"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return response;
        }
        Verdict::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        Verdict::Failed => {
            *response.status_mut() = StatusCode::PRECONDITION_FAILED;
            return response;
        }
    };
    *response.status_mut() = status;
    put(&mut response, header::CONTENT_LENGTH, len.to_string());
    put(&mut response, header::CONTENT_TYPE, kind.to_owned());
    if asked.method != Method::HEAD && len > 0 {
        *response.body_mut() = body(start, len);
    }
    response
}

/// What a client is told about a file that was found and cannot be read; the log has the reason.
pub(super) fn unreadable() -> Response {
    let message = "the file cannot be read";
    ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "file", message, "look at the server's log")
        .into_response()
}

fn put(response: &mut Response, name: HeaderName, value: String) {
    // Digits, quotes and fixed words only, which every header may hold.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What is left to read, and the piece that is being read.
struct Reading {
    file: Arc<File>,
    offset: u64,
    left: u64,
    next: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
}

impl Reading {
    fn begin(&mut self) {
        let len = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        self.next = (len > 0).then(|| {
            let (file, offset) = (self.file.clone(), self.offset);
            tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; len];
                // Shorter than it was: an error cuts the connection, so that nobody takes the rest for the whole.
                file.read_exact_at(&mut piece, offset).map(|()| piece)
            })
        });
        self.offset += len as u64;
        self.left -= len as u64;
    }
}

/// The body: `left` octets from `offset` on. The next piece is read while one is sent.
fn pieces(file: Arc<File>, offset: u64, left: u64) -> Body {
    let mut reading = Reading { file, offset, left, next: None };
    reading.begin();
    Body::from_stream(stream::try_unfold(reading, |mut reading| async move {
        let Some(next) = reading.next.take() else { return Ok::<_, std::io::Error>(None) };
        let piece = next.await.map_err(std::io::Error::other)??;
        reading.begin();
        Ok(Some((Bytes::from(piece), reading)))
    }))
}
