//! What a machine fetches that boots what somebody ordered: files of the media directory, the sign that it begins, and an
//! installer's profile. Ticket and profile are known to that one boot only.

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use boot_server_core::cloud_config::meta_data;
use boot_server_core::ordered::{BEGUN_PATH, MEDIA_PATH, PROFILE_PATH};
use protocol::JobId;

use super::send::{Asked, Opened};
use super::{Base, ProblemResponse};
use crate::engine::Engine;
use crate::media;

pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route(&format!("{MEDIA_PATH}/{{*path}}"), get(file))
        .route(&format!("{BEGUN_PATH}/{{ticket}}"), get(begun))
        .route(&format!("{PROFILE_PATH}/{{ticket}}"), get(profile))
        .route(&format!("{PROFILE_PATH}/{{ticket}}/{{file}}"), get(profile_file))
        .with_state(engine)
}

async fn file(State(engine): State<Engine>, Path(path): Path<String>, asked: Asked) -> Response {
    let unknown = || {
        let message = "no such file in the media directory";
        ProblemResponse::new(StatusCode::NOT_FOUND, "media-not-found", message, "").into_response()
    };
    let Ok(path) = path.parse() else { return unknown() };
    let dir = engine.media_dir();
    let opened = tokio::task::spawn_blocking(move || media::open(&dir, &path).and_then(Opened::of)).await;
    match opened {
        Ok(Ok(opened)) => opened.respond(&asked, "application/octet-stream"),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a file of the media directory was asked for in vain");
            unknown()
        }
        Err(error) => {
            tracing::error!(%error, "a file of the media directory cannot be opened");
            unknown()
        }
    }
}

/// The body is an image to iPXE, which must have one.
async fn begun(State(engine): State<Engine>, Path(ticket): Path<String>) -> Response {
    match engine.boot_begun(&ticket).await {
        Ok(node) => {
            tracing::info!(node = %node.name, "boots what was ordered");
            fresh("begun\n".to_owned())
        }
        Err(error) => ProblemResponse::from(error).into_response(),
    }
}

async fn profile(
    State(engine): State<Engine>,
    Extension(Base(base)): Extension<Base>,
    Path(ticket): Path<String>,
) -> Response {
    match engine.boot_profile(&ticket, &base) {
        Ok((text, _)) => fresh(text),
        Err(error) => ProblemResponse::from(error).into_response(),
    }
}

/// As a directory for NoCloud's readers (Ubuntu's autoinstall), which ask for `user-data` and `meta-data` in it; under
/// every other name the profile itself, for installers that want an extension.
async fn profile_file(
    State(engine): State<Engine>,
    Extension(Base(base)): Extension<Base>,
    Path((ticket, file)): Path<(String, String)>,
) -> Response {
    match (engine.boot_profile(&ticket, &base), file.as_str()) {
        (Ok((_, node)), "meta-data") => fresh(meta_data(JobId(node.id.0), &node.name)),
        (Ok(_), "vendor-data" | "network-config") => fresh(String::new()),
        (Ok((text, _)), _) => fresh(text),
        (Err(error), _) => ProblemResponse::from(error).into_response(),
    }
}

/// For one boot: nothing on the way may keep it.
fn fresh(text: String) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], text)
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequestParts as _;
    use boot_server_core::node::{Boot, Repeat};
    use protocol::MacAddr;
    use serde_json::json;

    use super::*;
    use crate::engine::tests::{engine, inventory};
    use crate::engine::{Actor, BootAnswer, EngineError};
    use crate::store::tests::Scratch;

    async fn text(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    fn claim() -> boot_server_core::node::Claim {
        let macs = vec![MacAddr([0x52, 0x54, 0, 0, 0, 1])];
        boot_server_core::node::Claim { uuid: None, serial: None, macs }
    }

    async fn boots(engine: &Engine) -> BootAnswer {
        engine.boot(claim(), [10, 77, 0, 9].into()).await.unwrap()
    }

    fn installer() -> Boot {
        let profile = json!({ "kind": "text", "text": "host=@BILLET_HOSTNAME@ done=@BILLET_PHONE_HOME@" });
        let boot = json!({ "kind": "kernel", "kernel": "debian/linux", "profile": profile });
        serde_json::from_value(boot).unwrap()
    }

    /// From the order to an OS that somebody else's installer put there.
    #[tokio::test]
    async fn an_installer_is_served_once() {
        let scratch = Scratch::new();
        let engine = engine(&scratch).await;
        let BootAnswer::Agent { nonce, .. } = boots(&engine).await else { panic!("no agent") };
        let hello = crate::engine::tests::hello(nonce, claim().macs);
        let session = engine.hello(hello).await.unwrap().session;
        engine.put_inventory(&session, inventory()).await.unwrap();
        let node = engine.node("node-000001").await.unwrap();
        let order = |confirm| {
            let (engine, node) = (engine.clone(), node.clone());
            async move { engine.order_boot(&node, Actor::Machine, installer(), Repeat::Once, confirm).await }
        };
        let code = |refused: Result<_, EngineError>| refused.unwrap_err().problem().code;
        assert_eq!(code(order(None).await), "confirm-missing");
        assert_eq!(code(order(Some("node-000001")).await), "media-not-found");
        let dir = engine.media_dir().join("debian");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("linux"), "the kernel").unwrap();
        order(Some("node-000001")).await.unwrap();

        let BootAnswer::Ordered { ticket: old, .. } = boots(&engine).await else { panic!("no order") };
        let BootAnswer::Ordered { ticket, boot, .. } = boots(&engine).await else { panic!("no order") };
        assert_eq!(boot, installer());
        let state = || State(engine.clone());
        let base = || Extension(Base("http://10.77.0.1:8080".to_owned()));
        let profile_of = |ticket: &str| profile(state(), base(), Path(ticket.to_owned()));
        assert_eq!(text(profile_of(&ticket).await).await.0, 404, "it has not begun");
        assert_eq!(text(begun(state(), Path(old)).await).await.0, 404, "another script came after it");
        assert_eq!(text(begun(state(), Path(ticket.clone())).await).await, (200, "begun\n".into()));
        let (status, got) = text(profile_of(&ticket).await).await;
        let done = format!("host=node-000001 done=http://10.77.0.1:8080/phone-home/{ticket}");
        assert_eq!((status, got), (200, done));
        let named = profile_file(state(), base(), Path((ticket.clone(), "meta-data".into()))).await;
        assert!(text(named).await.1.contains("local-hostname"));

        let id = engine.node_of_phone_home(crate::secret::hash(&ticket)).unwrap();
        let token = crate::secret::hash(&ticket);
        let event = boot_server_core::node::Event::PhoneHome { token, host_keys: Vec::new() };
        engine.apply(id, Actor::Machine, event).await.unwrap();
        assert!(matches!(boots(&engine).await, BootAnswer::LocalDisk { .. }));
        assert_eq!(text(profile_of(&ticket).await).await.0, 404, "the job is over");
        assert!(matches!(engine.forget(&node, Actor::Machine).await, Err(EngineError::Refused(_))));
    }

    #[tokio::test]
    async fn a_forgotten_machine_comes_back_as_a_new_node() {
        let scratch = Scratch::new();
        let engine = engine(&scratch).await;
        let BootAnswer::Agent { nonce, .. } = boots(&engine).await else { panic!("no agent") };
        let node = engine.node("node-000001").await.unwrap();
        assert!(engine.forget(&node, Actor::Machine).await.is_err(), "it is being inspected");
        let hello = crate::engine::tests::hello(nonce, claim().macs);
        let session = engine.hello(hello).await.unwrap().session;
        engine.put_inventory(&session, inventory()).await.unwrap();
        engine.forget(&node, Actor::Machine).await.unwrap();
        assert!(engine.node("node-000001").await.is_err());
        assert!(matches!(engine.session(&session), Err(EngineError::NoSession)));
        let gone = engine.forget(&node, Actor::Machine).await;
        assert!(matches!(gone, Err(EngineError::NodeNotFound(_))));
        let filter = crate::engine::EventFilter { node: Some(node.id), limit: 1, ..Default::default() };
        let last = engine.events(filter).await.unwrap();
        assert_eq!((last[0].kind.as_str(), last[0].node), ("node.forgotten", Some(node.id)));
        assert!(matches!(boots(&engine).await, BootAnswer::Agent { .. }));
        assert_ne!(engine.node("node-000001").await.unwrap().id, node.id);
    }

    #[tokio::test]
    async fn media_are_served_and_nothing_else() {
        let scratch = Scratch::new();
        let engine = engine(&scratch).await;
        std::fs::create_dir_all(engine.media_dir()).unwrap();
        std::fs::write(engine.media_dir().join("live.iso"), "0123456789").unwrap();
        std::fs::write(scratch.0.join("secret"), "secret").unwrap();
        let ask = |path: &str, range: Option<&'static str>| {
            let (engine, path) = (engine.clone(), path.to_owned());
            async move {
                let mut request = axum::http::Request::new(());
                range.map(|r| request.headers_mut().insert(header::RANGE, HeaderValue::from_static(r)));
                let asked = Asked::from_request_parts(&mut request.into_parts().0, &()).await.unwrap();
                file(State(engine), Path(path), asked).await
            }
        };
        assert_eq!(text(ask("live.iso", None).await).await, (200, "0123456789".into()));
        assert_eq!(text(ask("live.iso", Some("bytes=2-3")).await).await, (206, "23".into()));
        for bad in ["", "..", "../secret", "/etc/passwd", "live.iso/x", "nothing", "a\0b"] {
            assert_eq!(text(ask(bad, None).await).await.0, 404, "{bad:?}");
        }
    }
}
