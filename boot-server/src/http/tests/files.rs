//! How files are sent: every octet, in its place, by both ways.

use super::*;

/// Octets that are at no two places the same way.
fn octets(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(len)
    .collect()
}

/// Lengths around every bound that there is on the way: pieces of 1 MiB and 256 KiB, buffers of 32 KiB.
const LENGTHS: [usize; 9] =
    [0, 1, 32 << 10, (256 << 10) + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000, 9 << 20];

async fn put(server: &Server, len: usize) -> Vec<u8> {
    let content = octets(len);
    std::fs::write(server.scratch.0.join("boot/vmlinuz"), &content).unwrap();
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn every_octet_arrives() {
    let server = Server::start().await;
    for len in LENGTHS {
        let content = put(&server, len).await;
        let reply = server.get("/boot/files/vmlinuz").await;
        assert_eq!((reply.status, reply.body.len()), (200, len));
        assert!(reply.body == content, "a file of {len} octets was changed on its way");
        assert_eq!(reply.header("content-length"), Some(len.to_string().as_str()));
    }
    let content = put(&server, 9 << 20).await;
    for (first, last) in [(0, 0), (1, (1 << 20) + 7), (4_000_000, 8_000_000), ((9 << 20) - 1, (9 << 20) - 1)]
    {
        let range = format!("Range: bytes={first}-{last}\r\n");
        let reply = server.ask("GET", "/boot/files/vmlinuz", &range, "").await;
        assert_eq!(reply.status, 206, "{range}");
        assert!(reply.body == content[first..=last], "{range}");
    }
}

/// Several answers on one connection, asked for all at once: each is whole, and in order.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_keep_their_order() {
    let server = Server::start().await;
    let content = put(&server, 3_000_000).await;
    let part = |range: &str, more: &str| {
        format!("GET /boot/files/vmlinuz HTTP/1.1\r\nHost: x\r\nRange: bytes={range}\r\n{more}\r\n")
    };
    let head = "HEAD /boot/files/vmlinuz HTTP/1.1\r\nHost: x\r\n\r\n";
    let script = "GET /boot/start.ipxe HTTP/1.1\r\nHost: x\r\n\r\n";
    let requests = [
        &part("0-1999999", ""),
        head,
        &part("5-9", ""),
        script,
        &part("10-2999999", "Connection: close\r\n"),
    ];
    let reply = server.raw(requests.concat()).await;
    let mut rest = reply.body.as_slice();
    assert!(rest[..2_000_000] == content[..2_000_000]);
    rest = &rest[2_000_000..];
    for wanted in [&b""[..], &content[5..10], b"#!ipxe\n"] {
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        rest = &rest[end + 4..];
        assert!(rest.starts_with(wanted), "{head}");
        if !wanted.is_empty() {
            rest = &rest[length.parse::<usize>().unwrap()..];
        }
    }
    let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    assert!(rest[end + 4..] == content[10..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_a_boot_file() {
    let server = Server::start().await;
    let path = "/boot/files/vmlinuz";
    let first = server.get(path).await;
    let tag = first.header("etag").expect("a tag").to_owned();
    assert!(first.header("last-modified").is_some() && first.header("accept-ranges") == Some("bytes"));
    for method in ["GET", "HEAD"] {
        let known = server.ask(method, path, &format!("If-None-Match: {tag}\r\n"), "").await;
        assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some(tag.as_str())));
    }
    let same = format!("Range: bytes=4-\r\nIf-Range: {tag}\r\n");
    assert_eq!(server.ask("GET", path, &same, "").await.text(), "kernel");
    // Replaced as packages do it: written beside, renamed over. The rest of the old version is not taken for this one's.
    let boot = server.scratch.0.join("boot");
    std::fs::write(boot.join("new"), b"THE KERNEL").unwrap();
    std::fs::rename(boot.join("new"), boot.join("vmlinuz")).unwrap();
    let other = server.ask("GET", path, &same, "").await;
    assert_eq!((other.status, other.text().as_str()), (200, "THE KERNEL"));
    let old = server.ask("GET", path, &format!("If-Match: {tag}\r\n"), "").await;
    assert_eq!((old.status, old.body.len()), (412, 0));
}

/// The connection ends early: nobody may take what came for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_shrinks_is_cut() {
    let server = Server::start().await;
    put(&server, 64 << 20).await;
    let address = server.address;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /boot/files/vmlinuz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut start = vec![0; 100_000];
    stream.read_exact(&mut start).unwrap();
    std::fs::File::options()
        .write(true)
        .open(server.scratch.0.join("boot/vmlinuz"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let mut rest = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    drop(stream.read_to_end(&mut rest));
    assert!(rest.len() < (63 << 20), "{}", rest.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_no_file() {
    let server = Server::start().await;
    let path = server.engine.images().chunk_path(ChunkId(Sha256([7; 32])));
    std::fs::create_dir_all(&path).unwrap();
    assert_eq!(server.get(&format!("/chunks/{}", Sha256([7; 32]))).await.status, 503);
}

/// A client that everybody has: whole, resumed, conditional, and two requests on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_along() {
    use std::process::Command;

    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: curl is not installed");
        return;
    }
    let server = Server::start().await;
    let content = put(&server, 3_000_000).await;
    let url = format!("http://{}/boot/files/vmlinuz", server.address);
    let dir = server.scratch.0.clone();
    tokio::task::spawn_blocking(move || {
        let curl = |args: &[&str]| {
            let common = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"];
            let output = Command::new("curl").args(common).args(args).current_dir(&dir).output().unwrap();
            (String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
        };
        let file = || std::fs::read(dir.join("got")).unwrap();
        curl(&["--output", "got", "--etag-save", "tag", &url]);
        assert!(file() == content);
        std::fs::write(dir.join("got"), &content[..1_234_567]).unwrap();
        curl(&["--output", "got", "--continue-at", "-", &url]);
        assert!(file() == content, "resumed");
        curl(&["--output", "got", "--range", "100-2000099", &url]);
        assert!(file() == content[100..2_000_100], "a range");
        let known = [
            "--output",
            "none",
            "--write-out",
            "%{http_code} %{size_download}",
            "--etag-compare",
            "tag",
            &url,
        ];
        assert_eq!(curl(&known).0, "304 0");
        let (head, _) = curl(&["--head", &url]);
        assert!(
            head.contains("200 OK") && head.to_ascii_lowercase().contains("content-length: 3000000"),
            "{head}"
        );
        let (_, said) = curl(&["--verbose", "--output", "got", &url, "--output", "again", &url]);
        assert!(String::from_utf8_lossy(&said).contains("Re-using existing connection"));
        assert!(std::fs::read(dir.join("again")).unwrap() == content);
    })
    .await
    .unwrap();
}
