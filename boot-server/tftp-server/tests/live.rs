//! The server on loopback, asked by curl and by hand-made packets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tftp_server::packet::{ErrorCode, Packet};
use tftp_server::{File, Files, OpenError, Opening, Outcome, Server, ServerConfig, Summary};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Served {
    files: BTreeMap<String, File>,
    finished: Mutex<Vec<(String, Summary)>>,
}

impl Files for Served {
    fn open<'a>(&'a self, _peer: SocketAddr, name: &'a str) -> Opening<'a> {
        Box::pin(async move { self.files.get(name).cloned().ok_or(OpenError::NotFound) })
    }

    fn finished(&self, _peer: SocketAddr, name: &str, summary: &Summary) {
        self.finished.lock().unwrap().push((name.into(), summary.clone()));
    }
}

struct Live {
    addr: SocketAddr,
    served: Arc<Served>,
    cancel: CancellationToken,
    runtime: tokio::runtime::Runtime,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Live {
    fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(n, b)| ((*n).to_owned(), File::Memory(b.as_slice().into()))).collect();
        let served = Arc::new(Served { files, ..Served::default() });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let cancel = CancellationToken::new();
        let guard = runtime.enter();
        let config = ServerConfig { listen: ([127, 0, 0, 1], 0).into(), interface: None };
        let server = Server::bind(&config, served.clone()).unwrap();
        let addr = server.local_addr().unwrap();
        let task = Some(runtime.spawn(server.run(cancel.clone())));
        drop(guard);
        Self { addr, served, cancel, runtime, task }
    }

    /// What curl got, or its exit code.
    fn curl(&self, name: &str, options: &[&str]) -> Result<Vec<u8>, i32> {
        let url = format!("tftp://{}/{name}", self.addr);
        let out = Command::new("curl").args(["-sS", "-m", "20"]).args(options).arg(url).output().unwrap();
        if out.status.success() { Ok(out.stdout) } else { Err(out.status.code().unwrap_or(-1)) }
    }

    /// `finished` is told by the session's own task, a little after the last packet.
    fn summaries(&self, n: usize) -> Vec<(String, Summary)> {
        for _ in 0..200 {
            let got = self.served.finished.lock().unwrap().clone();
            if got.len() >= n {
                return got;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{n} transfers did not finish");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.cancel.cancel();
        let task = self.task.take().unwrap();
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(5), task).await })
            .unwrap()
            .unwrap();
    }
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 509) as u8).collect()
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}

#[test]
fn curl_gets_files_of_every_awkward_size() {
    let sizes = [0, 1, 511, 512, 513, 1467, 1468, 1469, 100_000, 40 << 20];
    let files: Vec<_> = sizes.iter().map(|s| (format!("boot/f{s}"), data(*s))).collect();
    let live = Live::start(&files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect::<Vec<_>>());
    let mut asked = 0;
    for (name, bytes) in &files {
        for options in [&["--tftp-blksize", "1468"][..], &["--tftp-blksize", "60000"], &["--tftp-no-options"]]
        {
            // Without options 40 MiB are 80,000 round trips; and curl refuses an OACK that says an empty file is empty.
            let plain = options[0] == "--tftp-no-options";
            if (bytes.len() > 1 << 20 && plain) || (bytes.is_empty() && !plain) {
                continue;
            }
            asked += 1;
            let got = live.curl(&format!("/{name}"), options).unwrap();
            assert!(got == *bytes, "{name} {options:?}: {} of {} octets", got.len(), bytes.len());
        }
    }
    let summaries = live.summaries(asked);
    assert!(summaries.iter().all(|(_, s)| s.outcome == Outcome::Complete), "{summaries:?}");
}

#[test]
fn what_is_not_served_is_refused() {
    let live = Live::start(&[("a", data(10))]);
    assert_eq!(live.curl("b", &[]), Err(68), "curl's code for file not found");
    assert_eq!(live.curl("/..%2f..%2fetc/passwd", &[]), Err(69), "curl's code for permission");
    let mut upload = Command::new("curl");
    upload.args(["-sS", "-m", "20", "-T", "/proc/self/cmdline"]).arg(format!("tftp://{}/a", live.addr));
    assert_eq!(upload.output().unwrap().status.code(), Some(69));
    assert_eq!(live.curl("a", &[]), Ok(data(10)));
}

#[test]
fn firmware_asks_the_size_then_reads_from_the_same_port() {
    let live = Live::start(&[("f", data(700))]);
    let socket = client();
    let mut buf = [0; 2000];
    socket.send_to(b"\0\x01f\0octet\0tsize\x000\0", live.addr).unwrap();
    let (len, session) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"\0\x06tsize\x00700\0");
    socket.send_to(b"\0\x05\0\x08User aborted the transfer\0", session).unwrap();
    live.summaries(1);
    socket.send_to(b"\0\x01f\0octet\0blksize\x001428\0", live.addr).unwrap();
    let (len, session) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"\0\x06blksize\x001428\0");
    socket.send_to(b"\0\x04\0\0", session).unwrap();
    let (len, _) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(buf[4..len], data(700));
    socket.send_to(b"\0\x04\0\x01", session).unwrap();
    assert_eq!(live.summaries(2)[1].1.outcome, Outcome::Complete);
}

#[test]
fn a_doubled_request_is_answered_again_from_the_same_port() {
    let live = Live::start(&[("f", data(700))]);
    let socket = client();
    let mut buf = [0; 2000];
    let mut from = Vec::new();
    for _ in 0..2 {
        socket.send_to(b"\0\x01f\0octet\0", live.addr).unwrap();
        let (len, session) = socket.recv_from(&mut buf).unwrap();
        assert_eq!(len, 516);
        from.push(session);
    }
    assert_eq!(from[0], from[1]);
    assert_ne!(from[0], live.addr);
}

#[test]
fn garbage_does_not_stop_it() {
    let live = Live::start(&[("a", data(3000))]);
    let socket = client();
    let mut long = b"\0\x01".to_vec();
    long.extend(std::iter::repeat_n(b'a', 1021));
    long.push(0);
    for junk in
        [&b""[..], b"\0", b"\0\x01", b"\0\x03\0", b"\0\x05", b"\xff\xff", &long, &[0; 1472], &[b'x'; 9000]]
    {
        socket.send_to(junk, live.addr).unwrap();
    }
    let mut buf = [0; 2000];
    let (len, _) = socket.recv_from(&mut buf).unwrap();
    assert!(matches!(Packet::parse(&buf[..len]), Ok(Packet::Error { code: ErrorCode::ILLEGAL, .. })));
    assert_eq!(live.curl("a", &[]), Ok(data(3000)));
}

#[test]
fn clients_of_one_address_are_bounded_and_others_go_on() {
    let live = Live::start(&[("f", data(70_000))]);
    let sockets: Vec<_> = (0..20).map(|_| client()).collect();
    let mut buf = [0; 2000];
    for socket in &sockets {
        socket.send_to(b"\0\x01f\0octet\0", live.addr).unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    let answered = sockets.iter().filter(|s| {
        s.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        s.recv_from(&mut buf).is_ok()
    });
    assert_eq!(answered.count(), tftp_server::limits::SESSIONS_PER_ADDRESS_MAX);
}
