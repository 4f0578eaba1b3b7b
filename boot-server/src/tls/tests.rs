//! The whole of TLS: files that are wrong, and real handshakes by `curl` and `openssl s_client`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::*;
use crate::store::tests::Scratch;

fn own(scratch: &Scratch, addresses: &[&str]) -> Source {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Source::Own { directory: scratch.0.join("tls"), addresses }
}

fn reason(source: &Source) -> String {
    let error = anyhow::Error::from(Tls::open(source).unwrap_err());
    format!("{error:#}")
}

/// Keys are what takes time: one scratch directory serves all that needs them.
#[test]
fn the_sites_ca_is_made_once() {
    let scratch = Scratch::new();
    let source = own(&scratch, &["127.0.0.1", "::1"]);
    Tls::open(&source).unwrap();
    let dir = scratch.0.join("tls");
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let (ca, key, server) = (read("site-ca.crt"), read("site-ca.key"), read("server.key"));
    for name in ["site-ca.key", "server.key"] {
        assert_eq!(dir.join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    // An EFI signature list: type, size of all, no header, size of one, owner, the certificate.
    let (esl, der) = (read("site-ca.esl"), read("site-ca.der"));
    assert_eq!(esl.len(), 44 + der.len());
    assert_eq!(u32::from_le_bytes(esl[16..20].try_into().unwrap()) as usize, esl.len());
    assert_eq!(u32::from_le_bytes(esl[24..28].try_into().unwrap()) as usize, 16 + der.len());
    assert_eq!(esl[44..], der);
    Tls::open(&own(&scratch, &["127.0.0.1", "10.77.0.1"])).unwrap();
    assert_eq!((read("site-ca.crt"), read("site-ca.key"), read("server.key")), (ca, key, server));

    let openssl = |args: &[&str]| Command::new("openssl").args(args).current_dir(&dir).output().unwrap();
    let check = openssl(&["rsa", "-in", "site-ca.key", "-check", "-noout"]);
    assert!(check.status.success(), "{check:?}");
    let text = openssl(&["x509", "-in", "site-ca.crt", "-noout", "-text"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for part in ["CA:TRUE", "Billet site CA", "2048 bit", "sha256WithRSAEncryption", "2000 GMT"] {
        assert!(text.contains(part), "{part} in {text}");
    }

    let key = read("site-ca.key");
    std::fs::remove_file(dir.join("site-ca.key")).unwrap();
    let why = reason(&source);
    assert!(why.contains("site-ca.key is not; put the key back from a backup"), "{why}");
    assert!(!dir.join("site-ca.key").exists(), "no other key is made");
    std::fs::write(dir.join("site-ca.key"), key).unwrap();
    Tls::open(&source).unwrap();

    files_that_are_wrong(&dir);
}

/// What an operator may get wrong is named, with the file.
fn files_that_are_wrong(dir: &Path) {
    let files = |certificate: &str, key: &str| Source::Files {
        certificate: dir.join(certificate),
        key: dir.join(key),
    };
    Tls::open(&files("site-ca.crt", "site-ca.key")).unwrap();
    std::fs::write(dir.join("empty"), b"").unwrap();
    for (certificate, key, words) in [
        ("none.crt", "site-ca.key", "none.crt holds no certificate that can be read"),
        ("empty", "site-ca.key", "empty holds 0 certificates"),
        ("site-ca.key", "site-ca.key", "site-ca.key holds 0 certificates"),
        ("site-ca.crt", "empty", "empty holds no private key that can be read"),
        ("site-ca.crt", "server.key", "cannot be used for TLS"),
    ] {
        let said = reason(&files(certificate, key));
        assert!(said.contains(words), "{certificate}, {key}: {said}");
    }
    std::fs::write(dir.join("site-ca.key"), b"not a key").unwrap();
    let said = reason(&Source::Own { directory: dir.to_owned(), addresses: Vec::new() });
    assert!(said.contains("site-ca.key is damaged"), "{said}");
}

/// Handshakes of today and of old firmware, each followed by a request.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: openssl is not installed");
        return;
    }
    let scratch = Scratch::new();
    let source = own(&scratch, &["127.0.0.1"]);
    let tls = tokio::task::spawn_blocking(move || Tls::open(&source)).await.unwrap().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "served" }));
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(crate::http::run(crate::http::Listener::from(listener).tls(tls), router, stop.clone()));
    let ca = scratch.0.join("tls/site-ca.crt");
    let cases: [(&[&str], &str, bool); 6] = [
        (&["-tls1_3"], "TLS_AES", true),
        (&["-tls1_2"], "ECDHE-RSA-AES", true),
        // What OVMF of Debian 12 offers.
        (
            &["-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256:AES128-GCM-SHA256"],
            "DHE-RSA-AES256-GCM-SHA384",
            true,
        ),
        (&["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"], "DHE-RSA-AES128-GCM-SHA256", true),
        // No forward secrecy; no modern protocol.
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256"], "", false),
        (&["-tls1_1"], "", false),
    ];
    for (args, name, good) in cases {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &address.to_string(), "-verify_return_error", "-CAfile"]);
        command.arg(&ca).args(["-verify_ip", "127.0.0.1", "-ign_eof"]).args(args);
        let output = tokio::task::spawn_blocking(move || {
            use std::io::Write as _;
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            drop(child.stdin.take().map(|mut i| i.write_all(request)));
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text.contains("served"), good, "{args:?}: {text}");
        assert!(!good || text.contains(&format!("Cipher is {name}")), "{args:?}: {text}");
    }
    stop.cancel();
}
