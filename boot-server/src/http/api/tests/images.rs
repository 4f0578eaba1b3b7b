//! Images on their way in, honest and otherwise.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab, TOKEN, raw_disk};

fn sha256(bytes: &[u8]) -> String {
    images::chunk::sha256(bytes).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_becomes_an_image() {
    let lab = Lab::new().await;
    let disk = raw_disk(7);
    let query = format!("name=debian-12&version=1&size={}&sha256={}", disk.len(), sha256(&disk));
    let added = lab.upload(&query, disk.clone()).await;
    assert_eq!(added.status, 201, "{added:?}");
    assert_eq!(added.body["sha256"], sha256(&disk));
    assert_eq!(added.body["firmware"], json!(["bios"]));
    assert_eq!(added.headers["location"], format!("/api/v1/images/{}", added.body["id"].as_str().unwrap()));
    for reference in ["debian-12", "debian-12:1", added.body["id"].as_str().unwrap()] {
        assert_eq!(lab.get(&format!("/api/v1/images/{reference}")).await.body["id"], added.body["id"]);
    }
    let report = lab.post("/api/v1/images/debian-12/verify", json!({})).await;
    assert_eq!((report.status, &report.body["good"]), (200, &json!(true)), "{report:?}");
    let listed = lab.get("/api/v1/images").await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    let ingests = lab.get("/api/v1/ingests").await;
    assert_eq!(ingests.body["items"][0]["finished"], added.body["id"]);
    let removed = lab.send(Method::DELETE, "/api/v1/images/debian-12", &[], Vec::new()).await;
    assert_eq!(removed.status, 204);
    assert_eq!(lab.get("/api/v1/images/debian-12").await.code(), (404, "image-not-found"));
    assert_eq!(lab.stored_files(), 0, "its chunks went with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_lie_are_refused_and_leave_nothing() {
    let lab = Lab::new().await;
    let disk = raw_disk(1);
    let size = disk.len();
    let refuse = async |query: &str, body: &[u8]| -> Got {
        let got = lab.upload(&format!("name=x&version=1&{query}"), body.to_vec()).await;
        assert_eq!(lab.stored_files(), 0, "{query}");
        got
    };
    let wrong_hash = refuse(&format!("sha256={}", sha256(b"other")), &disk).await;
    assert_eq!(wrong_hash.code(), (422, "image-refused"));
    assert!(wrong_hash.body["message"].as_str().unwrap().contains("was announced"), "{wrong_hash:?}");
    let wrong_size = refuse(&format!("size={}", size + 512), &disk).await;
    assert_eq!(wrong_size.code(), (422, "image-refused"));
    assert_eq!(refuse("", &disk[..1000]).await.code(), (422, "image-refused"), "not whole sectors");
    assert_eq!(refuse("", &[]).await.code(), (422, "image-refused"), "empty");
    assert_eq!(refuse("", b"KDMV............").await.code(), (422, "image-refused"), "a VMDK");
    assert_eq!(refuse("minimum_disk=512", &disk).await.code(), (422, "image-refused"));
    let frame = {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd];
        frame.extend([0xff; 600]);
        frame
    };
    assert_eq!(refuse("", &frame).await.code(), (422, "image-refused"), "no zstd in it");
    for bad in ["name=../x&version=1", "name=X&version=1", "name=x&version=", "name=.x&version=1"] {
        assert_eq!(lab.upload(bad, disk.clone()).await.code(), (422, "image-options"), "{bad}");
    }
    assert_eq!(lab.upload("name=x&version=1&shasum=0", disk.clone()).await.code(), (400, "query"));
    let events = lab.get("/api/v1/events").await;
    let kinds =
        events.body["items"].as_array().unwrap().iter().filter(|e| e["kind"] == "image.refused").count();
    assert_eq!(kinds, 6, "a size that the headers contradict is refused before anything starts");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let lab = Lab::new().await;
    let head = format!(
        "POST /api/v1/images/upload?name=x&version=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: 1048576\r\n\r\n"
    );
    let mut stream = TcpStream::connect(lab.address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&raw_disk(3)[..600_000]).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(stream);
    let mut failed = Value::Null;
    for _ in 0..50 {
        failed = lab.get("/api/v1/ingests").await.body["items"][0]["failed"].clone();
        if !failed.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(failed["code"], "image-refused", "{failed}");
    assert_eq!(lab.stored_files(), 0);
    assert!(lab.get("/api/v1/images").await.body["items"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_upload_is_taken_once() {
    let lab = Lab::new().await;
    let send = async |query: &str, key: &str| {
        let path = format!("/api/v1/images/upload?{query}");
        lab.send(Method::POST, &path, &[("idempotency-key", key)], raw_disk(1)).await
    };
    let first = send("name=a&version=1", "k").await;
    let again = send("name=a&version=1", "k").await;
    assert_eq!((again.status, &again.body["id"]), (201, &first.body["id"]));
    assert_eq!(lab.get("/api/v1/ingests").await.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(send("name=b&version=1", "k").await.code(), (422, "idempotency-key-reused"));
    assert_eq!(send("name=b&version=1", &"k".repeat(200)).await.code(), (400, "idempotency-key"));
}

async fn ended(lab: &Lab, started: &Got) -> Value {
    let path = format!("/api/v1/ingests/{}", started.body["id"].as_str().unwrap());
    for _ in 0..100 {
        let now = lab.get(&path).await.body;
        if !now["finished"].is_null() || !now["failed"].is_null() {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the ingest did not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_server_are_taken_from_import_directories_only() {
    let lab = Lab::new().await;
    std::fs::write(lab.dir.join("import/a.raw"), raw_disk(9)).unwrap();
    std::fs::write(lab.dir.join("secret.raw"), raw_disk(9)).unwrap();
    let add = |path: String| lab.post("/api/v1/images", json!({"name": "a", "version": "1", "path": path}));
    for bad in ["../secret.raw", "/etc/passwd", "../billet.db", "nothing.raw"] {
        assert_eq!(add(bad.to_owned()).await.code(), (422, "image-path"), "{bad}");
    }
    assert_eq!(add(lab.dir.join("secret.raw").display().to_string()).await.code(), (422, "image-path"));
    let started = add("a.raw".to_owned()).await;
    assert_eq!(started.status, 202, "{started:?}");
    let end = ended(&lab, &started).await;
    assert!(end["finished"].is_string(), "{end}");
    assert_eq!(lab.get("/api/v1/images/a").await.body["origin"], "a.raw");
    let both = json!({"name": "a", "version": "1", "path": "a.raw", "url": "http://h/x"});
    assert_eq!(lab.post("/api/v1/images", both).await.code(), (422, "image-source"));
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_lead_to_vetted_addresses_only() {
    let lab = Lab::new().await;
    let add = |url: String| lab.post("/api/v1/images", json!({"name": "u", "version": "1", "url": url}));
    for bad in ["ftp://host/x", "file:///etc/passwd", "http://u:p@host/x"] {
        assert_eq!(add(bad.to_owned()).await.code(), (422, "image-url"), "{bad}");
    }
    let port = lab.address.port();
    let own = [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("http://127.0.0.1:{port}/healthz"),
        format!("http://[::1]:{port}/healthz"),
        format!("http://[::ffff:127.0.0.1]:{port}/healthz"),
        "http://0.0.0.0/".to_owned(),
        "http://10.77.0.1:8080/boot/vmlinuz".to_owned(),
        format!("http://2130706433:{port}/"),
    ];
    for bad in own {
        let end = ended(&lab, &add(bad.clone()).await).await;
        assert_eq!(end["failed"]["code"], "image-url-refused", "{bad}: {end}");
    }
}

/// Serves one answer per connection.
fn serve(answers: Vec<Vec<u8>>) -> u16 {
    use std::io::Read as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(&answer);
        }
    });
    port
}

fn answer(body: &[u8], announced: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {announced}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_fetched_redirected_and_checked() {
    let lab = Lab::new().await;
    let disk = raw_disk(5);
    let add = |name: &str, port: u16| {
        lab.post(
            "/api/v1/images",
            json!({"name": name, "version": "1", "url": format!("http://localhost:{port}/d.raw")}),
        )
    };
    // `localhost` is trusted by name in this lab, 127.0.0.1 is not.
    let good = serve(vec![answer(&disk, disk.len())]);
    let end = ended(&lab, &add("good", good).await).await;
    assert!(end["finished"].is_string(), "{end}");
    let cut = serve(vec![answer(&disk[..400_000], disk.len())]);
    let end = ended(&lab, &add("cut", cut).await).await;
    assert_eq!(end["failed"]["code"], "image-refused", "{end}");
    let moved = |to: &str| {
        format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    };
    let inside = serve(vec![moved(&format!("http://127.0.0.1:{}/healthz", lab.address.port())).into_bytes()]);
    let end = ended(&lab, &add("inside", inside).await).await;
    assert_eq!(end["failed"]["code"], "image-url-refused", "a redirect is vetted too: {end}");
    let file = serve(vec![moved("file:///etc/passwd").into_bytes()]);
    let end = ended(&lab, &add("file", file).await).await;
    assert_eq!(end["failed"]["code"], "image-fetch", "{end}");
    let missing = serve(vec![b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()]);
    let end = ended(&lab, &add("missing", missing).await).await;
    assert_eq!(end["failed"]["code"], "image-fetch");
    assert_eq!(lab.get("/api/v1/images").await.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_upload_at_once_is_sent_away() {
    let lab = Lab::new().await;
    let mut open = Vec::new();
    for n in 0..2 {
        let head = format!(
            "POST /api/v1/images/upload?name=x{n}&version=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
             content-length: 1048576\r\n\r\n"
        );
        let mut stream = TcpStream::connect(lab.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        open.push(stream);
    }
    for _ in 0..50 {
        if lab.get("/api/v1/ingests").await.body["items"].as_array().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let third = lab.upload("name=y&version=1", raw_disk(1)).await;
    assert_eq!(third.code(), (503, "ingests-full"));
    assert!(!third.body["hint"].as_str().unwrap().is_empty());
}
