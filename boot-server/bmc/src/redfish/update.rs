//! Firmware updates: the controller fetches (`SimpleUpdate`), or the image is sent to it (`MultipartHttpPushUri`;
//! DSP0266, section 12.6). Sending takes longer than a call may, so it goes on by itself and is a task of ours.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::{Bytes, Frame};
use hyper::header::{self, HeaderName, HeaderValue};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;

use super::Redfish;
use super::address::Link;
use super::call::Call;
use super::json::cut;
use super::limits;
use super::refusal;
use super::wire::{Answer, Ask, Body, Deadline, Wire};
use crate::{BmcError, Task, TaskState};

/// An image on its way to the controller. Dropping it ends the sending.
pub(super) struct Upload {
    id: String,
    shared: Arc<Shared>,
    sending: JoinHandle<()>,
}

struct Shared {
    sent: AtomicU64,
    length: u64,
    /// The controller's answer, once.
    end: Mutex<Option<Result<Answer, BmcError>>>,
}

/// How far an upload is.
pub(super) enum Progress {
    /// It is still sent, or there was nothing to follow after it.
    Task(Task),
    /// It failed.
    Failed(BmcError),
    /// The controller took it and works on this task.
    Follow(String),
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

impl Call<'_> {
    /// The controller fetches the image.
    pub(super) async fn pull(&self, url: &str, targets: &[String]) -> Result<Task, BmcError> {
        let service = self.update_service().await?;
        let view = service.view(self.origin());
        let action = self.action(&view, "#UpdateService.SimpleUpdate", "TransferProtocol").await?;
        let action = action.ok_or_else(|| self.unsupported("firmware updates by URL"))?;
        let profile = self.tree().await?.profile;
        let mut body = json!({ "ImageURI": url });
        if let (true, Some((scheme, place))) = (profile.update.protocol_apart, url.split_once("://")) {
            let protocol = scheme.to_uppercase();
            action
                .first_of(&[protocol.as_str()])
                .ok_or_else(|| self.unsupported("fetching by this protocol"))?;
            body = json!({ "ImageURI": place, "TransferProtocol": protocol });
        }
        if !targets.is_empty() {
            let bare = |target: &String| target.trim_start_matches('/').to_owned();
            body["Targets"] = match profile.update.bare_targets {
                true => targets.iter().map(bare).collect(),
                false => json!(targets),
            };
        }
        let answer = self.post(&action.target, &body).await?;
        self.task_or_done("a firmware update", &answer)
    }

    async fn push_target(&self) -> Result<(Link, bool), BmcError> {
        let service = self.update_service().await?;
        let view = service.view(self.origin());
        if let Some(link) = view.link_text("MultipartHttpPushUri")? {
            return Ok((link, true));
        }
        let plain = view.link_text("HttpPushUri")?;
        plain.map(|link| (link, false)).ok_or_else(|| self.unsupported("firmware updates by upload"))
    }
}

impl Redfish {
    /// Begins to send an image.
    pub(super) async fn push(&self, name: &str, path: &Path, targets: &[String]) -> Result<Task, BmcError> {
        let call = self.call();
        let (link, multipart) = call.push_target().await?;
        let mut headers = call.login_headers().await?;
        let (body, length, media_type) = image(name, path, targets, multipart).await?;
        headers.push((header::CONTENT_TYPE, media_type));
        let shared = Arc::new(Shared { sent: AtomicU64::new(0), length, end: Mutex::default() });
        let wire = self.client.wire.again()?;
        let sending =
            tokio::spawn(send(wire, link.clone(), headers, counted(body, shared.clone()), shared.clone()));
        let id = format!("push:{link}");
        let upload = Upload { id: id.clone(), shared, sending };
        *self.upload.lock().unwrap_or_else(PoisonError::into_inner) = Some(upload);
        Ok(Task {
            id,
            state: TaskState::Running,
            percent: Some(0),
            message: Some("sending the image".to_owned()),
        })
    }

    /// How far the upload of this id is; `None` where the id is none of an upload.
    pub(super) fn upload_task(&self, id: &str) -> Option<Progress> {
        if !id.starts_with("push:") {
            return None;
        }
        let mut slot = self.upload.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || BmcError::Gone { what: "the upload, which ended with its connection".to_owned() };
        let Some(upload) = slot.as_mut().filter(|u| u.id == id) else {
            return Some(Progress::Failed(gone()));
        };
        let end = upload.shared.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(end) = end else {
            if upload.sending.is_finished() {
                return Some(Progress::Failed(gone()));
            }
            return Some(Progress::Task(upload.running()));
        };
        let progress = self.ended(id, end);
        if let Progress::Follow(task) = &progress {
            // Asked for again, it is followed again.
            let answer = followed(task);
            *upload.shared.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ok(answer));
        }
        Some(progress)
    }

    fn ended(&self, id: &str, end: Result<Answer, BmcError>) -> Progress {
        let answer = match end {
            Ok(answer) => answer,
            Err(error) => return Progress::Failed(error),
        };
        let profile = self.tree().map_or_else(super::quirks::standard, |t| t.profile);
        if !answer.status.is_success() {
            return Progress::Failed(refusal::of("the firmware image", &answer, profile));
        }
        match self.call().task_of("the firmware image", &answer) {
            Ok(Some(task)) => Progress::Follow(task.id),
            Ok(None) => {
                let message = Some("the image was taken".to_owned());
                Progress::Task(Task {
                    id: id.to_owned(),
                    state: TaskState::Completed,
                    percent: Some(100),
                    message,
                })
            }
            Err(error) => Progress::Failed(error),
        }
    }
}

impl Upload {
    fn running(&self) -> Task {
        let sent = self.shared.sent.load(Ordering::Relaxed).saturating_mul(100) / self.shared.length.max(1);
        let percent = Some(u8::try_from(sent).unwrap_or(100).min(100));
        let message = Some("sending the image".to_owned());
        Task { id: self.id.clone(), state: TaskState::Running, percent, message }
    }
}

/// An answer that says what the controller's said: follow this task.
fn followed(task: &str) -> Answer {
    let mut headers = header::HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(task) {
        headers.insert(header::LOCATION, value);
    }
    Answer { status: hyper::StatusCode::ACCEPTED, headers, body: Bytes::new() }
}

async fn send(
    wire: Wire,
    link: Link,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
    shared: Arc<Shared>,
) {
    let ask = Ask { method: Method::POST, link: &link, headers, body: Bytes::new() };
    let result = wire.upload(Deadline::after(limits::UPLOAD), &ask, body, shared.length).await;
    *shared.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
}

/// The image as a body: `multipart/form-data` (RFC 7578) with the parameters first, or the bare file.
async fn image(
    name: &str,
    path: &Path,
    targets: &[String],
    multipart: bool,
) -> Result<(Body, u64, HeaderValue), BmcError> {
    let unread = |e: std::io::Error| BmcError::Refused {
        what: "the firmware image".to_owned(),
        why: format!("{} cannot be read here: {e}", path.display()),
    };
    let file = tokio::fs::File::open(path).await.map_err(unread)?;
    let length = file.metadata().await.map_err(unread)?.len();
    if length > limits::IMAGE {
        return Err(BmcError::TooLarge { what: "the firmware image".to_owned(), limit: limits::IMAGE });
    }
    let boundary = "----BilletFirmwareImage7d1a4e0c9b52";
    let (before, after, media_type) = match multipart {
        true => (
            parameters(boundary, name, targets),
            format!("\r\n--{boundary}--\r\n"),
            format!("multipart/form-data; boundary={boundary}"),
        ),
        false => (String::new(), String::new(), "application/octet-stream".to_owned()),
    };
    let whole = length + before.len() as u64 + after.len() as u64;
    let edge = |text: String| stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(text)) });
    let frames = edge(before)
        .chain(ReaderStream::with_capacity(file, 64 << 10))
        .chain(edge(after))
        .map_ok(Frame::data);
    let media_type = HeaderValue::from_str(&media_type).expect("ASCII letters");
    Ok((StreamBody::new(frames).boxed_unsync(), whole, media_type))
}

fn parameters(boundary: &str, name: &str, targets: &[String]) -> String {
    let parameters = match targets.is_empty() {
        true => json!({}),
        false => json!({ "Targets": targets }),
    };
    let name: String = cut(name).chars().filter(|c| !matches!(c, '"' | '\\' | '/')).collect();
    format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"UpdateParameters\"\r\n\
         Content-Type: application/json\r\n\r\n{parameters}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"UpdateFile\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
}

fn counted(body: Body, shared: Arc<Shared>) -> Body {
    body.map_frame(move |frame| {
        let length = frame.data_ref().map_or(0, Bytes::len);
        shared.sent.fetch_add(length as u64, Ordering::Relaxed);
        frame
    })
    .boxed_unsync()
}
