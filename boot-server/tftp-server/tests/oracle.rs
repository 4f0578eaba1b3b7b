//! The codec against the one of another implementation (crate `tftpd`): what one writes, the other reads as the same.

use proptest::prelude::*;
use tftp_server::packet::{self, ErrorCode, Mode, Packet, RequestOptions};
use tftpd::{OptionType, Packet as Theirs, TransferOption};

fn theirs(options: &RequestOptions) -> Vec<TransferOption> {
    let all = [
        (OptionType::BlockSize, options.blksize),
        (OptionType::Timeout, options.timeout),
        (OptionType::TransferSize, options.tsize),
        (OptionType::WindowSize, options.windowsize),
    ];
    all.into_iter().filter_map(|(option, value)| Some(TransferOption { option, value: value? })).collect()
}

/// Values that an RFC names; what lies outside is for the one who negotiates.
fn options() -> impl Strategy<Value = RequestOptions> {
    let value = |range| proptest::option::of(range);
    (value(8..=65464u64), value(1..=255), value(0..=u64::from(u32::MAX)), value(1..=65535)).prop_map(
        |(blksize, timeout, tsize, windowsize)| RequestOptions { blksize, timeout, tsize, windowsize },
    )
}

proptest! {
    #[test]
    fn read_requests(name in "[a-z0-9/._-]{1,60}", options in options()) {
        let mut ours = Vec::new();
        packet::emit_rrq(&mut ours, &name, Mode::Octet, &options);
        let expected = Theirs::Rrq { filename: name.clone(), mode: "octet".into(), options: theirs(&options) };
        prop_assert_eq!(&Theirs::deserialize(&ours).unwrap(), &expected);
        let written = expected.serialize().unwrap();
        let Ok(Packet::Rrq(request)) = Packet::parse(&written) else { panic!("{written:02x?} is no RRQ") };
        prop_assert_eq!((&*request.name, request.mode, request.options), (&*name, Mode::Octet, options));
    }

    #[test]
    fn option_acknowledgements(options in options()) {
        let mut ours = Vec::new();
        packet::emit_oack(&mut ours, &options);
        let expected = Theirs::Oack(theirs(&options));
        prop_assert_eq!(&Theirs::deserialize(&ours).unwrap(), &expected);
        let written = expected.serialize().unwrap();
        prop_assert_eq!(Packet::parse(&written), Ok(Packet::Oack(options)));
    }

    #[test]
    fn data_and_acknowledgements(block: u16, data in proptest::collection::vec(any::<u8>(), 0..1468)) {
        let mut ours = vec![0; 4];
        packet::put_data_header(&mut ours, block);
        ours.extend_from_slice(&data);
        let expected = Theirs::Data { block_num: block, data: data.clone() };
        prop_assert_eq!(&Theirs::deserialize(&ours).unwrap(), &expected);
        let written = expected.serialize().unwrap();
        prop_assert_eq!(Packet::parse(&written), Ok(Packet::Data { block, data: &data }));
        packet::emit_ack(&mut ours, block);
        prop_assert_eq!(Theirs::deserialize(&ours).unwrap(), Theirs::Ack(block));
        let written = Theirs::Ack(block).serialize().unwrap();
        prop_assert_eq!(Packet::parse(&written), Ok(Packet::Ack { block }));
    }

    #[test]
    fn errors(code in prop_oneof![Just(0u16), Just(1), Just(2), Just(4), Just(8)], text in "[ -~]{0,80}") {
        let mut ours = Vec::new();
        packet::emit_error(&mut ours, ErrorCode(code), &text);
        let read = Theirs::deserialize(&ours).unwrap();
        let Theirs::Error { ref msg, .. } = read else { panic!("{read:?} is no error") };
        prop_assert_eq!(msg, &text);
        let expected = Packet::Error { code: ErrorCode(code), message: text.into() };
        let written = read.serialize().unwrap();
        prop_assert_eq!(Packet::parse(&written), Ok(expected));
    }
}
