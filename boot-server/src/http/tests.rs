//! The provisioning listener over loopback, as machines see it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use axum::http::StatusCode;
use protocol::agent::{Welcome, Work};
use protocol::{ChunkId, Sha256};
use serde_json::Value;
use tokio::net::TcpListener;

use super::*;
use crate::engine::tests::{engine, hello, image, inventory};
use crate::store::tests::Scratch;

mod files;
mod loaders;
mod metadata;
mod slow;

/// A server on a free port of loopback.
struct Server {
    engine: Engine,
    address: SocketAddr,
    stop: CancellationToken,
    scratch: Scratch,
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|l| l.to_ascii_lowercase().starts_with(&format!("{name}: ")))?;
        line.split_once(": ").map(|(_, value)| value)
    }
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|listener| listener).await
    }

    async fn start_with(rules: impl FnOnce(Listener) -> Listener) -> Self {
        let scratch = Scratch::new();
        let boot = scratch.0.join("boot");
        std::fs::create_dir_all(&boot).unwrap();
        std::fs::write(boot.join("vmlinuz"), b"the kernel").unwrap();
        std::fs::write(boot.join("initramfs.zst"), b"the ramdisk").unwrap();
        std::fs::write(scratch.0.join("secret"), b"secret").unwrap();
        let engine = engine(&scratch).await;
        let files = Arc::new(BootFiles::new(engine.settings()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let listener = rules(listener.into());
        tokio::spawn(run(listener, provisioning(engine.clone(), files), stop.clone()));
        Self { engine, address, stop, scratch }
    }

    /// Sends raw octets and reads until the server closes.
    async fn raw(&self, request: impl Into<Vec<u8>>) -> Reply {
        let (address, request) = (self.address, request.into());
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(&request).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
            let head = String::from_utf8_lossy(&answer[..end]).into_owned();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            Reply { status, head, body: answer[end + 4..].to_vec() }
        })
        .await
        .unwrap()
    }

    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n{body}"
        );
        self.raw(request).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", "").await
    }

    /// Boots a machine and returns its nonce.
    async fn boots(&self) -> String {
        let reply =
            self.get("/boot/ipxe?mac=52-54-00-00-00-01&uuid=00000000-0000-0000-0000-00000000abcd").await;
        assert_eq!(reply.status, 200);
        let script = reply.text();
        script.split("billet.nonce=").nth(1).expect(&script).split(' ').next().unwrap().to_owned()
    }

    async fn session(&self) -> String {
        let hello = hello(self.boots().await, vec!["52:54:00:00:00:01".parse().unwrap()]);
        let reply = self.ask("POST", "/agent/v1/hello", "", &serde_json::to_string(&hello).unwrap()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let welcome: Welcome = serde_json::from_slice(&reply.body).unwrap();
        format!("Authorization: Bearer {}\r\n", welcome.session)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.engine.store().close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_scripts_and_files() {
    let server = Server::start().await;
    let base = format!("http://{}", server.address);
    let start = server.get("/boot/start.ipxe").await.text();
    assert!(start.starts_with("#!ipxe\n") && start.contains(&format!("{base}/boot/ipxe?mac=")), "{start}");
    let script = server.get("/boot/ipxe?mac=52-54-00-00-00-01&uuid=&serial=&platform=pcbios").await.text();
    for part in [
        &format!("kernel --name kernel {base}/boot/files/vmlinuz"),
        &format!("{base}/boot/files/initramfs"),
        "console=ttyS0,115200",
        &format!("billet.server={base}"),
        "billet.mac=52:54:00:00:00:01",
    ] {
        assert!(script.contains(part), "{part} in {script}");
    }
    let kernel = server.get("/boot/files/vmlinuz").await;
    assert_eq!((kernel.status, kernel.text().as_str()), (200, "the kernel"));
    assert_eq!(kernel.header("content-length"), Some("10"));
    let ramdisk = server.get("/boot/initramfs").await.body;
    assert!(ramdisk.starts_with(b"the ramdisk\0"), "padded to four");
    assert_eq!(
        site_files(&ramdisk[12..]),
        server.engine.anchor().to_json(),
        "what the site trusts is behind it"
    );
    let head = server.ask("HEAD", "/boot/files/vmlinuz", "", "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10"), 0));
    let part = server.ask("GET", "/boot/files/vmlinuz", "Range: bytes=4-\r\n", "").await;
    assert_eq!((part.status, part.text().as_str()), (206, "kernel"));
    assert_eq!(part.header("content-range"), Some("bytes 4-9/10"));
    let beyond = server.ask("GET", "/boot/files/vmlinuz", "Range: bytes=10-\r\n", "").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    // Nobody can be told apart: the script says so instead of booting something.
    let refused = server.get("/boot/ipxe?mac=&uuid=").await;
    assert!(refused.status == 200 && !refused.text().contains("kernel "), "{}", refused.text());
}

/// What an agent finds behind its ramdisk.
fn site_files(archive: &[u8]) -> Vec<u8> {
    let entries = images::initramfs::read(archive, 0).unwrap();
    let found = entries.into_iter().find(|entry| format!("/{}", entry.path) == images::trust::ANCHOR_PATH);
    match found.unwrap().kind {
        images::initramfs::Kind::File(content) => content,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vouches_for_an_image_is_served_and_is_not_immutable() {
    let server = Server::start().await;
    let id = image(&server.engine).await;
    let signature = server.get(&format!("/images/{id}/signature")).await;
    assert_eq!((signature.status, signature.header("cache-control")), (200, Some("no-cache")));
    let manifest = server.get(&format!("/images/{id}/manifest")).await.body;
    let anchor = server.get("/trust/anchor").await;
    assert_eq!((anchor.status, anchor.header("cache-control")), (200, Some("no-cache")));
    let anchor = images::trust::Anchor::parse(&anchor.body).unwrap();
    assert_eq!(anchor.judge(id, &manifest, Some(&signature.text())).unwrap().statement.name, "tiny");
    assert_eq!(server.get("/trust/succession").await.text(), "[]");
    server.engine.rotate_key(crate::engine::Actor::Server).await.unwrap();
    let steps: Vec<String> = serde_json::from_slice(&server.get("/trust/succession").await.body).unwrap();
    let mut followed = anchor.clone();
    assert!(followed.follow(&steps));
    let signature = server.get(&format!("/images/{id}/signature")).await.text();
    assert!(anchor.judge(id, &manifest, Some(&signature)).is_err(), "the old key alone");
    assert!(followed.judge(id, &manifest, Some(&signature)).is_ok());
    let none = "00".repeat(32);
    assert_eq!(server.get(&format!("/images/{none}/signature")).await.status, 404);
    assert_eq!(server.get("/images/..%2f..%2ftrust%2fsite.key/signature").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_is_served() {
    let server = Server::start().await;
    assert!(server.scratch.0.join("secret").exists());
    for path in [
        "/boot/files/../secret",
        "/boot/files/..%2fsecret",
        "/boot/files/%2e%2e/secret",
        "/boot/files/%2e%2e%2fsecret",
        "/boot/files//etc/passwd",
        "/boot/files/%2fetc%2fpasswd",
        "/boot/files/initramfs.zst",
        "/boot/files/vmlinuz%00",
        "/boot/../billet.db",
        "/chunks/../../billet.db",
        "/chunks/%2e%2e%2f%2e%2e%2fbillet.db",
        "/images/..%2f..%2fbillet.db/manifest",
        "/api/v1/nodes",
        "/healthz",
        "/login",
        "/",
    ] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_do_not_stop_it() {
    let server = Server::start().await;
    let bytes: [&[u8]; 5] = [
        b"\r\n\r\n\x00\x01\x02",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /agent/v1/hello HTTP/1.1\r\nHost: x\r\nContent-Length: banana\r\n\r\n",
        b"GET /boot/ipxe?mac=%ff%fe&uuid=%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /agent/v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ];
    for request in bytes {
        let address = server.address;
        let request = request.to_vec();
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&request).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer));
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(!text.starts_with("HTTP/1.1 5"), "{text}");
        })
        .await
        .unwrap();
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "a".repeat(64 << 10));
    let long = server.raw(long).await.status;
    assert!(long == 414 || long == 431, "{long}");
    let body = "x".repeat(protocol::limits::JSON_BODY_MAX + 1);
    let large = server.ask("POST", "/agent/v1/hello", "", &body).await;
    assert_eq!((large.status, large.json()["code"].as_str()), (413, Some("too-large")));
    let wrong = server.ask("POST", "/agent/v1/hello", "", "{}").await;
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (422, Some("json")));
    assert_eq!(server.get("/boot/start.ipxe").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_conversation() {
    let server = Server::start().await;
    let nonce = server.boots().await;
    assert_eq!(nonce.len(), 64);
    let greet = |nonce: String| serde_json::to_string(&hello(nonce, vec![])).unwrap();
    let stranger = server.ask("POST", "/agent/v1/hello", "", &greet("0".repeat(64))).await;
    assert_eq!((stranger.status, stranger.json()["code"].as_str()), (401, Some("nonce")));
    let session = server.session().await;
    let old = server.ask("POST", "/agent/v1/hello", "", &greet(nonce)).await;
    assert_eq!(old.status, 401, "a nonce of an earlier boot");

    for headers in ["", "Authorization: Bearer nope\r\n", "Authorization: Basic eDp5\r\n"] {
        for (method, path) in
            [("GET", "/agent/v1/work"), ("PUT", "/agent/v1/inventory"), ("POST", "/agent/v1/report")]
        {
            assert_eq!(server.ask(method, path, headers, "{}").await.status, 401, "{path} {headers}");
        }
    }
    let body = serde_json::to_string(&inventory()).unwrap();
    assert_eq!(server.ask("PUT", "/agent/v1/inventory", &session, &body).await.status, 204);
    let work = server.ask("GET", "/agent/v1/work?wait=0", &session, "").await;
    assert_eq!(serde_json::from_slice::<Work>(&work.body).unwrap(), Work::Wait);
    let unordered = r#"{"job":"00000000-0000-0000-0000-000000000001","reports":[
        {"seq":2,"at":0,"body":{"kind":"note","message":"b"}},{"seq":1,"at":0,"body":{"kind":"note","message":"a"}}]}"#;
    let reply = server.ask("POST", "/agent/v1/report", &session, unordered).await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (422, Some("report-order")));
    let stale = r#"{"job":"00000000-0000-0000-0000-000000000001","reports":[
        {"seq":7,"at":0,"body":{"kind":"note","message":"a"}}]}"#;
    let reply = server.ask("POST", "/agent/v1/report", &session, stale).await;
    assert_eq!(
        (reply.status, reply.json()["acked"].as_u64(), reply.json()["abort"].as_bool()),
        (200, Some(7), Some(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_immutable() {
    let server = Server::start().await;
    let id = image(&server.engine).await;
    let manifest = server.get(&format!("/images/{id}/manifest")).await;
    assert_eq!(manifest.status, 200);
    assert_eq!(manifest.header("etag"), Some(format!("\"{id}\"").as_str()));
    assert!(manifest.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(images::Manifest::parse_as(&manifest.body, id).unwrap().name, "tiny");
    let chunk = ChunkId(Sha256([5; 32]));
    let writer = server.engine.images().writer();
    writer.put_chunk(chunk, b"not really a frame").unwrap();
    let path = format!("/chunks/{chunk}");
    let reply = server.get(&path).await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"not really a frame".as_slice()));
    assert!(reply.header("cache-control").unwrap().contains("immutable"));
    let known = server.ask("GET", &path, &format!("If-None-Match: \"{chunk}\"\r\n"), "").await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(server.get(&format!("/chunks/{}", Sha256([6; 32]))).await.status, 404);
    assert_eq!(server.get("/chunks/xyz").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_phone_home() {
    let server = Server::start().await;
    for path in ["/phone-home/x", "/phone-home/", "/phone-home/..%2f"] {
        assert_eq!(
            server.ask("POST", path, "", "instance_id=1").await.status,
            StatusCode::NOT_FOUND.as_u16()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_it() {
    let server = Server::start().await;
    let idle = TcpStream::connect(server.address).unwrap();
    server.stop.cancel();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(TcpStream::connect(server.address).is_err(), "it listens no more");
    drop(idle);
}
