//! The transfer against a client of the RFCs, on virtual time and a network that loses, doubles and delays.

use super::*;
use proptest::prelude::*;
use std::sync::Arc;

fn request(options: RequestOptions, mode: Mode) -> Request<'static> {
    Request { name: "f".into(), mode, options }
}

fn bytes(len: usize) -> Arc<[u8]> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn drain(transfer: &mut Transfer) -> Vec<Vec<u8>> {
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while transfer.poll_transmit(&mut out) {
        all.push(out.clone());
    }
    all
}

fn ack(block: u16) -> Vec<u8> {
    let mut out = Vec::new();
    packet::emit_ack(&mut out, block);
    out
}

fn blocks(packets: &[Vec<u8>]) -> Vec<u16> {
    packets
        .iter()
        .map(|p| match Packet::parse(p) {
            Ok(Packet::Data { block, .. }) => block,
            other => panic!("{other:?} is no data"),
        })
        .collect()
}

/// A client as RFC 7440 section 4 describes it; window 1 is RFC 1350.
struct Client {
    blksize: usize,
    window: u16,
    expected: u64,
    since_ack: u16,
    got: Vec<u8>,
    done: bool,
    last_ack: Option<u16>,
}

impl Client {
    fn new(blksize: usize, window: u16) -> Self {
        Self { blksize, window, expected: 1, since_ack: 0, got: Vec::new(), done: false, last_ack: None }
    }

    fn handle(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        match Packet::parse(packet).unwrap() {
            Packet::Oack(options) if self.expected == 1 => {
                self.blksize = options.blksize.map_or(512, |b| b as usize);
                self.window = options.windowsize.map_or(1, |w| w as u16);
                self.acknowledge(0)
            }
            Packet::Data { block, data } if block == self.expected as u16 => {
                if self.done {
                    return self.acknowledge(block);
                }
                self.got.extend_from_slice(data);
                self.expected += 1;
                self.since_ack += 1;
                self.done = data.len() < self.blksize;
                (self.done || self.since_ack == self.window).then(|| self.acknowledge(block)).flatten()
            }
            Packet::Data { .. } => self.acknowledge((self.expected - 1) as u16),
            _ => None,
        }
    }

    fn acknowledge(&mut self, block: u16) -> Option<Vec<u8>> {
        self.since_ack = 0;
        self.last_ack = Some(block);
        Some(ack(block))
    }
}

/// Runs both sides; `fate(n)` says how often the n-th datagram arrives: 0 is loss. Returns what the client got and
/// the number of datagrams that the server sent.
fn run(
    mut transfer: Transfer,
    mut client: Client,
    mut fate: impl FnMut(usize) -> usize,
) -> (Client, Summary, usize) {
    let mut now = transfer.started;
    let (mut n, mut sent) = (0, 0);
    for _ in 0..200_000 {
        let packets = drain(&mut transfer);
        let quiet = packets.is_empty();
        for packet in packets {
            sent += 1;
            n += 1;
            for _ in 0..fate(n) {
                if let Some(reply) = client.handle(&packet) {
                    n += 1;
                    for _ in 0..fate(n) {
                        transfer.handle_packet(now, &reply);
                    }
                }
            }
        }
        if let Some(summary) = transfer.summary(now) {
            return (client, summary, sent);
        }
        if quiet {
            // Time moves on only when neither side has anything to say.
            now = transfer.poll_timeout().unwrap();
            transfer.handle_timeout(now);
        }
    }
    panic!("does not end");
}

#[test]
fn plain_512() {
    let now = Instant::now();
    let mut t =
        Transfer::new(now, &request(RequestOptions::default(), Mode::Octet), File::Memory(bytes(1024)));
    let first = drain(&mut t);
    assert_eq!((first.len(), first[0].len()), (1, 516), "block 1 alone");
    t.handle_packet(now, &ack(1));
    assert_eq!(blocks(&drain(&mut t)), [2]);
    t.handle_packet(now, &ack(2));
    let last = drain(&mut t);
    assert_eq!(
        (blocks(&last), last[0].len()),
        (vec![3], 4),
        "a multiple of the block size ends in an empty block"
    );
    t.handle_packet(now, &ack(3));
    let summary = t.summary(now).unwrap();
    assert_eq!((summary.outcome, summary.bytes, summary.retransmitted), (Outcome::Complete, 1024, 0));
    assert_eq!(t.poll_timeout(), None);
}

#[test]
fn options_are_clamped_and_the_window_waits_for_ack_0() {
    let now = Instant::now();
    let asked =
        RequestOptions { blksize: Some(65464), timeout: Some(3), tsize: Some(0), windowsize: Some(65535) };
    let mut t = Transfer::new(now, &request(asked, Mode::Octet), File::Memory(bytes(1 << 20)));
    let first = drain(&mut t);
    assert_eq!(first.len(), 1);
    let expected = RequestOptions {
        blksize: Some(1468),
        timeout: Some(3),
        tsize: Some(1 << 20),
        windowsize: Some(limits::WINDOW_MAX.into()),
    };
    assert_eq!(Packet::parse(&first[0]), Ok(Packet::Oack(expected)));
    t.handle_packet(now, &ack(1));
    assert!(drain(&mut t).is_empty(), "only ACK 0 answers an OACK");
    t.handle_packet(now, &ack(0));
    let window = drain(&mut t);
    assert_eq!(window.len(), usize::from(limits::WINDOW_MAX));
    assert_eq!(t.poll_timeout(), Some(now + Duration::from_secs(3)));
}

/// A file on disk with these octets, which is gone when the handle is.
fn on_disk(name: &str, bytes: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("tftp-server-{name}-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let file = File::from_file(std::fs::File::open(&path).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

/// The packets of a burst.
fn cut(burst: &Burst, out: &[u8]) -> Vec<Vec<u8>> {
    out[..burst.len].chunks(burst.segment).map(<[u8]>::to_vec).collect()
}

#[test]
fn a_burst_is_its_packets_and_is_offered_until_it_was_sent() {
    let asked = RequestOptions { blksize: Some(100), windowsize: Some(64), ..RequestOptions::default() };
    for len in [0, 1, 99, 100, 101, 3199, 3200, 3201, 6400, 10_001] {
        let now = Instant::now();
        for file in [File::Memory(bytes(len)), on_disk("burst", &bytes(len))] {
            let new = || Transfer::new(now, &request(asked, Mode::Octet), file.clone());
            let (mut single, mut burst) = (new(), new());
            let mut out = vec![0xee; limits::BURST_OCTETS];
            let mut next = 0;
            while burst.summary(now).is_none() {
                let mut sent = Vec::new();
                while let Some(offered) = burst.poll_burst(&mut out) {
                    assert_eq!(burst.poll_burst(&mut out), Some(offered), "it was not sent yet");
                    sent.extend(cut(&offered, &out));
                    burst.burst_sent(offered);
                }
                assert_eq!(sent, drain(&mut single), "{len} octets, {file:?}");
                if next == 0 {
                    assert!(matches!(Packet::parse(&sent[0]), Ok(Packet::Oack(_))));
                } else {
                    assert_eq!(blocks(&sent).last(), Some(&next));
                }
                single.handle_packet(now, &ack(next));
                burst.handle_packet(now, &ack(next));
                next = (next + 64).min((len / 100 + 1) as u16);
            }
            assert_eq!(burst.summary(now).unwrap().bytes, len as u64);
        }
    }
}

#[test]
fn blocks_fit_the_path() {
    let now = Instant::now();
    for (asked, path, granted) in [
        (1468, 1448, Some(1448)),
        (9000, 9000, Some(1468)),
        (512, 1448, Some(512)),
        (7, 1448, None),
        (65_465, 3, Some(8)),
    ] {
        let options = RequestOptions { blksize: Some(asked), tsize: Some(0), ..RequestOptions::default() };
        let mut t = Transfer::over(now, &request(options, Mode::Octet), File::Memory(bytes(9)), path);
        let oack = RequestOptions { blksize: granted, tsize: Some(9), ..RequestOptions::default() };
        assert_eq!(Packet::parse(&drain(&mut t)[0]), Ok(Packet::Oack(oack)));
    }
}

#[test]
fn a_lost_block_costs_what_the_client_took_before() {
    let (mut now, step) = (Instant::now(), Duration::from_millis(2));
    let mut t =
        Transfer::new(now, &request(RequestOptions::default(), Mode::Octet), File::Memory(bytes(60_000)));
    for block in 1..100 {
        assert_eq!(blocks(&drain(&mut t)), [block]);
        now += step;
        t.handle_packet(now, &ack(block));
    }
    drain(&mut t);
    assert_eq!(t.poll_timeout(), Some(now + limits::RTO_MIN));
    now += limits::RTO_MIN;
    t.handle_timeout(now);
    assert_eq!(blocks(&drain(&mut t)), [100]);
    assert_eq!(t.poll_timeout(), Some(now + 2 * limits::RTO_MIN));
}

#[test]
fn options_that_cannot_be_are_left_out() {
    let now = Instant::now();
    let asked = RequestOptions { blksize: Some(7), timeout: Some(256), tsize: None, windowsize: Some(0) };
    let mut t = Transfer::new(now, &request(asked, Mode::Octet), File::Memory(bytes(10)));
    assert_eq!(blocks(&drain(&mut t)), [1], "nothing granted is no OACK at all");
}

#[test]
fn size_only_then_abort_frees_the_state() {
    let now = Instant::now();
    let asked = RequestOptions { tsize: Some(0), ..RequestOptions::default() };
    let mut t = Transfer::new(now, &request(asked, Mode::Octet), File::Memory(bytes(99)));
    drain(&mut t);
    t.handle_packet(now, b"\0\x05\0\x08User aborted\0");
    let outcome =
        Outcome::Failed(Failure::Client { code: ErrorCode::OPTION, message: "User aborted".into() });
    assert_eq!(t.summary(now).unwrap().outcome, outcome);
    assert!(drain(&mut t).is_empty());
}

#[test]
fn a_doubled_ack_sends_nothing() {
    let now = Instant::now();
    let mut t =
        Transfer::new(now, &request(RequestOptions::default(), Mode::Octet), File::Memory(bytes(5000)));
    drain(&mut t);
    t.handle_packet(now, &ack(1));
    assert_eq!(blocks(&drain(&mut t)), [2]);
    for wrong in [1, 0, 3, 40000] {
        t.handle_packet(now, &ack(wrong));
        assert!(drain(&mut t).is_empty(), "ACK {wrong}");
    }
}

#[test]
fn an_ack_inside_the_window_restarts_after_it() {
    let now = Instant::now();
    let asked = RequestOptions { windowsize: Some(8), ..RequestOptions::default() };
    let mut t = Transfer::new(now, &request(asked, Mode::Octet), File::Memory(bytes(20000)));
    drain(&mut t);
    t.handle_packet(now, &ack(0));
    assert_eq!(blocks(&drain(&mut t)), (1..=8).collect::<Vec<_>>());
    t.handle_packet(now, &ack(3));
    assert_eq!(blocks(&drain(&mut t)), (4..=11).collect::<Vec<_>>());
    assert_eq!(t.retransmitted, 5);
}

#[test]
fn silence_backs_off_and_ends() {
    let start = Instant::now();
    let mut t =
        Transfer::new(start, &request(RequestOptions::default(), Mode::Octet), File::Memory(bytes(10)));
    let mut waits = Vec::new();
    let mut now = start;
    while let Some(at) = t.poll_timeout() {
        drain(&mut t);
        waits.push((at - now).as_millis());
        now = at;
        t.handle_timeout(now);
    }
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 4000, 4000, 4000, 4000]);
    assert_eq!(t.summary(now).unwrap().outcome, Outcome::Failed(Failure::Silent));
}

#[test]
fn block_numbers_wrap() {
    let now = Instant::now();
    let asked = RequestOptions { blksize: Some(8), windowsize: Some(16), ..RequestOptions::default() };
    let data = bytes(8 * 70_000 + 3);
    let t = Transfer::new(now, &request(asked, Mode::Octet), File::Memory(data.clone()));
    let (client, summary, sent) = run(t, Client::new(512, 1), |_| 1);
    assert_eq!(summary.outcome, Outcome::Complete);
    assert!(client.got == *data);
    assert_eq!(sent, 70_002, "every block once, and the OACK");
}

#[test]
fn a_file_that_shrank_is_reported_to_the_client() {
    let path = std::env::temp_dir().join(format!("tftp-server-shrink-{}", std::process::id()));
    std::fs::write(&path, vec![1; 2000]).unwrap();
    let file = File::from_file(std::fs::File::open(&path).unwrap()).unwrap();
    std::fs::write(&path, b"short").unwrap();
    let now = Instant::now();
    let mut t = Transfer::new(now, &request(RequestOptions::default(), Mode::Octet), file);
    let packets = drain(&mut t);
    assert!(matches!(Packet::parse(&packets[0]), Ok(Packet::Error { code: ErrorCode::UNDEFINED, .. })));
    let outcome = Outcome::Failed(Failure::Read(std::io::ErrorKind::UnexpectedEof));
    assert_eq!(t.summary(now).unwrap().outcome, outcome);
    std::fs::remove_file(&path).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arrives_whole_over_a_bad_network(
        len in 0usize..40_000, blksize in prop_oneof![Just(None), (8u64..2000).prop_map(Some)],
        window in prop_oneof![Just(None), (1u64..80).prop_map(Some)], fates in proptest::collection::vec(0usize..6, 1..200),
    ) {
        let asked = RequestOptions { blksize, windowsize: window, ..RequestOptions::default() };
        let data = bytes(len);
        let t = Transfer::new(Instant::now(), &request(asked, Mode::Octet), File::Memory(data.clone()));
        // One in six lost, one in six doubled.
        let (client, summary, _) = run(t, Client::new(512, 1), |n| match fates[n % fates.len()] { 0 if n % 3 != 0 => 0, 1 => 2, _ => 1 });
        // A pattern that loses every answer may end a transfer; what must never be is a wrong file called complete.
        if summary.outcome == Outcome::Complete {
            prop_assert!(client.got == *data);
            prop_assert_eq!(summary.bytes, len as u64);
        } else {
            prop_assert_eq!(summary.outcome, Outcome::Failed(Failure::Silent));
        }
    }

    #[test]
    fn no_doubling_without_loss(len in 0usize..30_000, window in 1u64..20, doubled in 0usize..50) {
        // The network doubles every n-th datagram and loses none: no block may be sent more than once.
        let asked = RequestOptions { windowsize: Some(window), ..RequestOptions::default() };
        let data = bytes(len);
        let t = Transfer::new(Instant::now(), &request(asked, Mode::Octet), File::Memory(data.clone()));
        let (client, summary, sent) = run(t, Client::new(512, 1), |n| if doubled > 0 && n % doubled == 0 && window == 1 { 2 } else { 1 });
        prop_assert!(client.got == *data);
        prop_assert_eq!(summary.retransmitted, 0);
        prop_assert_eq!(sent, len / 512 + 2);
    }

    #[test]
    fn no_octets_panic(packets in proptest::collection::vec((0u8..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..60)) {
        let asked = RequestOptions { windowsize: Some(8), ..RequestOptions::default() };
        let mut now = Instant::now();
        let mut t = Transfer::new(now, &request(asked, Mode::Netascii), File::Memory(bytes(9000)));
        for (opcode, rest) in packets {
            let mut packet = vec![0, opcode];
            packet.extend(rest);
            t.handle_packet(now, &packet);
            drain(&mut t);
            now += Duration::from_millis(100);
            t.handle_timeout(now);
        }
    }
}
