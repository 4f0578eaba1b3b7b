//! Clients that hold on to what they have: each is let go in time, and the others are served meanwhile.

use std::time::Instant;

use super::limits::Times;
use super::*;

const SHORT: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(15);

fn short_times(listener: Listener) -> Listener {
    listener.times(Times { header: SHORT, handshake: SHORT, write: SHORT })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// Waits until the server closed the connection: an end or a reset, and not our own time-out.
fn closed(mut stream: &TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    if let Err(error) = stream.read_to_end(&mut got) {
        assert!(error.kind() != std::io::ErrorKind::WouldBlock, "the server still holds the connection");
    }
    got
}

fn big_kernel(server: &Server) {
    let file = std::fs::File::create(server.scratch.0.join("boot/vmlinuz")).unwrap();
    file.set_len(256 << 20).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read() {
    let server = Server::start_with(short_times).await;
    big_kernel(&server);
    let mut slow = connect(server.address);
    slow.write_all(b"GET /boot/files/vmlinuz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    tokio::time::sleep(SHORT * 4).await;
    let got = tokio::task::spawn_blocking(move || closed(&slow).len()).await.unwrap();
    assert!(got < (64 << 20), "{got} octets: more than the kernel keeps for a connection");
}

/// A few octets now and then are not enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_trickles() {
    let server = Server::start_with(short_times).await;
    big_kernel(&server);
    let slow = connect(server.address);
    let cut = tokio::task::spawn_blocking(move || {
        let mut slow = slow;
        slow.write_all(b"GET /boot/files/vmlinuz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let begin = Instant::now();
        let mut some = [0; 512];
        while begin.elapsed() < SHORT * 4 {
            if slow.read(&mut some).is_err() {
                return true;
            }
            std::thread::sleep(SHORT / 10);
        }
        closed(&slow).len() < (64 << 20)
    });
    assert!(cut.await.unwrap());
}

/// One that takes its time, but takes it, gets everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_served_to_the_end() {
    let server = Server::start_with(short_times).await;
    let file = std::fs::File::create(server.scratch.0.join("boot/vmlinuz")).unwrap();
    file.set_len(24 << 20).unwrap();
    let slow = connect(server.address);
    let got = tokio::task::spawn_blocking(move || {
        let mut slow = slow;
        slow.write_all(b"GET /boot/files/vmlinuz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let (mut some, mut got) = (vec![0; 1 << 20], 0);
        loop {
            match slow.read(&mut some).unwrap() {
                0 => return got,
                n => got += n,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(got.await.unwrap() > 24 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_do_not_end() {
    let server = Server::start_with(short_times).await;
    let address = server.address;
    let begin = Instant::now();
    let waited = tokio::task::spawn_blocking(move || {
        let silent = connect(address);
        let mut dripping = connect(address);
        let mut kept = connect(address);
        kept.write_all(b"GET /boot/start.ipxe HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        for piece in ["GET /boot/start.ipxe HT", "TP/1.1\r\nHo", "st: x\r\nX-A: ", "b\r\nX-C: d\r\n", "X"] {
            if dripping.write_all(piece.as_bytes()).is_err() {
                break;
            }
            std::thread::sleep(SHORT / 2);
        }
        [silent, dripping, kept].map(|s| closed(&s).len())
    });
    let [silent, _, kept] = waited.await.unwrap();
    assert!(silent == 0 && kept > 0, "{silent} {kept}");
    assert!(begin.elapsed() < SOON);
    assert_eq!(server.get("/boot/start.ipxe").await.status, 200);
}

/// One address cannot take what belongs to all.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_share() {
    let server = Server::start_with(|l| short_times(l).per_peer(4)).await;
    let address = server.address;
    let held: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
    let more = connect(address);
    let refused = tokio::task::spawn_blocking(move || closed(&more).len()).await.unwrap();
    assert_eq!(refused, 0);
    // Another address of this machine.
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    other.connect(&address.into()).unwrap();
    let mut other = TcpStream::from(other);
    other.write_all(b"GET /boot/start.ipxe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let text = tokio::task::spawn_blocking(move || {
        other.set_read_timeout(Some(SOON)).unwrap();
        closed(&other)
    });
    assert!(text.await.unwrap().starts_with(b"HTTP/1.1 200"));
    drop(held);
    let end = Instant::now() + SOON;
    loop {
        let mut stream = connect(address);
        stream.write_all(b"GET /boot/start.ipxe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        if tokio::task::spawn_blocking(move || closed(&stream)).await.unwrap().starts_with(b"HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < end, "places did not come back");
    }
}

/// A body that does not come is not waited for.
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come() {
    let never = axum::body::Body::from_stream(futures_util::stream::pending::<std::io::Result<Vec<u8>>>());
    let problem = limits::body(never, 1 << 20).await.unwrap_err();
    assert_eq!((problem.status, problem.code.as_str()), (408, "timeout"));
}
