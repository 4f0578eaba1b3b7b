//! The boot image that a management controller reads for its virtual drive. Its address is known to that controller alone, and
//! good for one boot; whoever has it has the nonce that is in the image.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::{Frame, SizeHint};

use super::conditions::Validators;
use super::files::BootFiles;
use super::send::{self, Asked};
use super::{ProblemResponse, problem};
use crate::boot_image::{self, Image, NoImage, Piece};
use crate::engine::{Engine, IMAGE_NAME, IMAGE_PATH};

#[derive(Clone)]
struct Images {
    engine: Engine,
    files: Arc<BootFiles>,
}

pub(super) fn router(engine: Engine, files: Arc<BootFiles>) -> Router {
    Router::new()
        .route(&format!("{IMAGE_PATH}/{{ticket}}/{IMAGE_NAME}"), get(image))
        .with_state(Images { engine, files })
}

async fn image(State(images): State<Images>, Path(ticket): Path<String>, asked: Asked) -> Response {
    let Some((node, nonce)) = images.engine.boot_image(&ticket) else {
        return problem::not_found().await.into_response();
    };
    let made = tokio::task::spawn_blocking(move || -> Result<Image, NoImage> {
        let Images { engine, files } = images;
        let config = boot_image::config(engine.settings(), &files, &node, &nonce)?;
        boot_image::open(&files, &config)
    });
    let image = match made.await {
        Ok(Ok(image)) => image,
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a boot image cannot be made");
            let (message, hint) = ("the boot image cannot be made", "look at the server's log");
            return ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "boot-image", message, hint)
                .into_response();
        }
        Err(error) => {
            tracing::error!(%error, "a boot image cannot be made");
            return send::unreadable();
        }
    };
    respond(&asked, &image)
}

pub(super) fn respond(asked: &Asked, image: &Image) -> Response {
    let validators = Validators { etag: format!("\"{}\"", image.tag), modified: None };
    let body = |start, len| {
        let bodies = image.part(start, len).into_iter().map(|(piece, start, len)| match piece {
            Piece::Octets(octets) => Body::from(octets.slice(start as usize..(start + len) as usize)),
            Piece::File(file, _) => send::of_file(file, start, len, asked.handoff.as_ref()),
        });
        Body::new(Chain { bodies: bodies.collect(), left: len })
    };
    let mut response = send::answer(asked, &validators, image.size, "application/octet-stream", body);
    // It holds a nonce.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Image {
    /// The pieces of `len` octets from `start` on: each with where it begins and how much of it is meant.
    fn part(&self, start: u64, len: u64) -> Vec<(Piece, u64, u64)> {
        let (end, mut at, mut found) = (start + len, 0, Vec::new());
        for piece in &self.pieces {
            let next = at + piece.size();
            let (from, to) = (start.max(at), end.min(next));
            if from < to {
                found.push((piece.clone(), from - at, to - from));
            }
            at = next;
        }
        found
    }
}

/// Bodies one after the other.
struct Chain {
    bodies: VecDeque<Body>,
    left: u64,
}

impl HttpBody for Chain {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while let Some(first) = self.bodies.front_mut() {
            match ready!(Pin::new(first).poll_frame(cx)) {
                Some(frame) => {
                    if let Ok(Some(octets)) = frame.as_ref().map(Frame::data_ref) {
                        self.left = self.left.saturating_sub(octets.len() as u64);
                    }
                    return Poll::Ready(Some(frame));
                }
                None => drop(self.bodies.pop_front()),
            }
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequestParts as _;

    use super::*;

    async fn ask(image: &Image, range: Option<(u64, u64)>) -> (u16, Vec<u8>) {
        let mut request = axum::http::Request::new(());
        if let Some((first, last)) = range {
            let value = HeaderValue::from_str(&format!("bytes={first}-{last}")).unwrap();
            request.headers_mut().insert(header::RANGE, value);
        }
        let asked = Asked::from_request_parts(&mut request.into_parts().0, &()).await.unwrap();
        let response = respond(&asked, image);
        let status = response.status().as_u16();
        (status, axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn every_part_is_that_part_of_the_whole() {
        let scratch = crate::store::tests::Scratch::new();
        let path = scratch.0.join("file");
        let content: Vec<u8> = (0..5000_u32).map(|n| (n % 251) as u8).collect();
        std::fs::create_dir_all(&scratch.0).unwrap();
        std::fs::write(&path, &content).unwrap();
        let file = Arc::new(std::fs::File::open(&path).unwrap());
        let octets = |text: &'static [u8]| Piece::Octets(Bytes::from_static(text));
        let pieces = vec![
            octets(b"head"),
            Piece::File(file.clone(), 5000),
            octets(b"between"),
            Piece::File(file, 300),
        ];
        let size = pieces.iter().map(Piece::size).sum();
        let image = Image { pieces, size, tag: "t".to_owned() };
        let whole = [&b"head"[..], &content, b"between", &content[..300]].concat();
        assert_eq!(ask(&image, None).await, (200, whole.clone()));
        for (first, last) in [(0, 0), (3, 4), (2, 5003), (5003, 5004), (5004, 5010), (5010, 5311), (0, 5310)]
        {
            let end = (last + 1).min(size) as usize;
            let part = whole[first as usize..end].to_vec();
            assert_eq!(ask(&image, Some((first, last))).await, (206, part), "{first}-{last}");
        }
        assert_eq!(ask(&image, Some((size, size))).await.0, 416);
    }
}
