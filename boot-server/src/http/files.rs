//! The files that machines boot: a fixed map from name to path, looked up in the configured directories at each
//! request, so that a new ramdisk needs no restart. No part of a request ever becomes part of a path.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::ProblemResponse;
use crate::config::Settings;
use crate::loaders::Loaders;

/// Kernel.
pub const KERNEL: &str = "vmlinuz";
/// Ramdisk with the agent.
pub const INITRAMFS: &str = "initramfs";
/// Ramdisk with firmware blobs for more hardware; optional.
pub const FIRMWARE: &str = "firmware";

/// Octets read at once.
const PIECE: usize = 256 << 10;

/// What is served, and where it lies.
#[derive(Debug, Clone)]
pub struct BootFiles {
    boot: Vec<PathBuf>,
    loaders: Loaders,
}

impl BootFiles {
    /// The files of this configuration.
    pub fn new(settings: &Settings) -> Self {
        Self { boot: settings.boot.clone(), loaders: Loaders::new(settings) }
    }

    /// Where the file of this name lies, if it is one that is served and it is there.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let names: &[&str] = match name {
            KERNEL => &["vmlinuz"],
            INITRAMFS => &["initramfs", "initramfs.zst"],
            FIRMWARE => &["firmware", "firmware.zst"],
            _ => return self.loaders.path(name),
        };
        let candidates = self.boot.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
        candidates.into_iter().find(|p| p.is_file())
    }

    /// What is missing for a machine to boot the agent, in words.
    pub fn missing(&self) -> Option<String> {
        let missing: Vec<&str> = [KERNEL, INITRAMFS].into_iter().filter(|n| self.path(n).is_none()).collect();
        let dirs = self.boot.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(" or ");
        (!missing.is_empty()).then(|| format!("{} not found in {dirs}", missing.join(" and ")))
    }

    /// Octets of kernel and ramdisk together; `None` where one is missing.
    pub fn bytes(&self) -> Option<u64> {
        [KERNEL, INITRAMFS].into_iter().map(|n| Some(std::fs::metadata(self.path(n)?).ok()?.len())).sum()
    }
}

/// A file as an answer to GET or HEAD, whole or one range of it (RFC 9110 section 14.2).
pub(super) async fn serve(path: &Path, method: &Method, headers: &HeaderMap) -> Response {
    match open(path, method, headers).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "file cannot be served");
            let message = "the file cannot be read";
            ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "file", message, "look at the server's log")
                .into_response()
        }
    }
}

async fn open(path: &Path, method: &Method, headers: &HeaderMap) -> std::io::Result<Response> {
    let mut file = tokio::fs::File::open(path).await?;
    let size = file.metadata().await?.len();
    let wanted = headers.get(header::RANGE).and_then(|r| r.to_str().ok()).and_then(|r| range(r, size));
    let mut response = Response::new(Body::empty());
    let (start, len) = match wanted {
        None => (0, size),
        Some(Some((start, end))) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            put(&mut response, header::CONTENT_RANGE, format!("bytes {start}-{end}/{size}"));
            (start, end - start + 1)
        }
        Some(None) => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            put(&mut response, header::CONTENT_RANGE, format!("bytes */{size}"));
            return Ok(response);
        }
    };
    put(&mut response, header::CONTENT_LENGTH, len.to_string());
    put(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    put(&mut response, header::CONTENT_TYPE, "application/octet-stream".to_owned());
    if *method != Method::HEAD {
        if start > 0 {
            file.seek(SeekFrom::Start(start)).await?;
        }
        *response.body_mut() = pieces(file, len);
    }
    Ok(response)
}

fn put(response: &mut Response, name: header::HeaderName, value: String) {
    // Digits and fixed words only, which every header may hold.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The body: `len` octets from where the file stands, in pieces.
fn pieces(file: tokio::fs::File, len: u64) -> Body {
    Body::from_stream(stream::try_unfold((file, len), |(mut file, left)| async move {
        if left == 0 {
            return Ok::<_, std::io::Error>(None);
        }
        let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
        let n = file.read(&mut piece).await?;
        if n == 0 {
            // Shorter than it was: the connection is cut, so that nobody takes the rest for the whole.
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(n);
        let left = left.saturating_sub(n as u64);
        Ok(Some((piece, (file, left))))
    }))
}

/// The one range that is asked for. Outer `None`: not a single byte range, so it is ignored and the whole is sent.
/// Inner `None`: it lies outside.
fn range(text: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
    match (first.trim(), last.trim()) {
        ("", suffix) => {
            let n = number(suffix)?;
            Some((n > 0 && size > 0).then(|| (size.saturating_sub(n), size - 1)))
        }
        (first, "") => {
            let first = number(first)?;
            Some((first < size).then(|| (first, size - 1)))
        }
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            Some((first < size).then(|| (first, last.min(size - 1))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=0-9", 100), Some(Some((0, 9))));
        assert_eq!(range("bytes=90-", 100), Some(Some((90, 99))));
        assert_eq!(range("bytes=-10", 100), Some(Some((90, 99))));
        assert_eq!(range("bytes=-1000", 100), Some(Some((0, 99))));
        assert_eq!(range("bytes=50-1000", 100), Some(Some((50, 99))));
        assert_eq!(range("bytes=100-", 100), Some(None));
        assert_eq!(range("bytes=-0", 100), Some(None));
        assert_eq!(range("bytes=-5", 0), Some(None));
        for ignored in
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b"]
        {
            assert_eq!(range(ignored, 100), None, "{ignored}");
        }
    }
}
