//! A TFTP request and what its client sends afterwards: the codec, the names, a whole transfer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tftp_server::packet::{self, Packet};
use tftp_server::{File, Transfer, limits, normalise};

use crate::input::packets;

/// Octets of the file that is sent; not a multiple of usual block sizes.
const FILE: usize = 20_011;

/// The first packet is the request. A first octet of 0xff in a later one lets time pass instead.
pub fn run(data: &[u8]) {
    let all = packets(data);
    let Some((first, rest)) = all.split_first() else { return };
    let Ok(Packet::Rrq(request)) = Packet::parse(first) else { return };
    if let Ok(name) = normalise(&request.name) {
        assert!(
            !name.starts_with('/')
                && name.split('/').all(|part| part != ".." && part != "." && !part.is_empty())
        );
    }
    let mut now = Instant::now();
    let file: Arc<[u8]> = (0..FILE).map(|i| (i % 251) as u8).collect();
    let mut transfer = Transfer::new(now, &request, File::Memory(file));
    drain(&mut transfer);
    for packet in rest {
        if packet.first() == Some(&0xff) {
            now += Duration::from_millis(u64::from(packet.get(1).copied().unwrap_or(0)) * 50);
            transfer.handle_timeout(now);
        } else {
            transfer.handle_packet(now, packet);
        }
        drain(&mut transfer);
        if let Some(summary) = transfer.summary(now) {
            assert!(summary.bytes <= FILE as u64);
            assert_eq!(transfer.poll_timeout(), None, "an ended transfer wants no timer");
        }
    }
}

/// What is sent at once is bounded, and is TFTP.
fn drain(transfer: &mut Transfer) {
    let mut out = Vec::new();
    for _ in 0..=limits::WINDOW_MAX {
        if !transfer.poll_transmit(&mut out) {
            return;
        }
        assert!(out.len() <= usize::from(limits::BLOCK_MAX) + 4, "{} octets", out.len());
        match Packet::parse(&out) {
            Ok(Packet::Data { .. } | Packet::Error { .. }) => {}
            Ok(Packet::Oack(options)) => {
                let mut again = Vec::new();
                packet::emit_oack(&mut again, &options);
                assert_eq!(again, out, "an OACK means what it says");
            }
            other => panic!("a server sent {other:?}"),
        }
    }
    panic!("more than one window at once");
}
