//! Modes, reservations, relays and quirks: what each kind of client is told, and who is told nothing.

use super::*;
use crate::boot_files::{CATALOGUE, SecureBoot};
use crate::dhcp::config::{Machine, Mode, Reservation};
use crate::dhcp::known::Known;

const FIRST_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);
const UUID: [u8; 17] = [0, 0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 8, 9, 10, 11, 12, 13, 14, 15];

fn with(change: impl FnOnce(&mut Config)) -> Server {
    let mut config = config();
    change(&mut config);
    Server::new(config, Vec::new()).unwrap()
}

fn in_mode(mode: Mode) -> Server {
    with(|c| c.subnets[0].mode = mode)
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn at_4011(server: &mut Server, ask: &Ask) -> Answer {
    server.handle_packet(T0, Port::Boot4011, &ask.bytes()).unwrap()
}

fn http() -> Ask {
    http_of(16)
}

fn http_of(arch: u8) -> Ask {
    let class = format!("HTTPClient:Arch:{arch:05}:UNDI:003000");
    ask(DISCOVER, 1).option(60, class.as_bytes()).option(93, &[0, arch])
}

/// All loaders of the catalogue.
fn with_arm64() -> BootFiles {
    BootFiles::new(SecureBoot::Off, CATALOGUE.iter().map(|file| file.name))
}

fn ipxe(arch: u8) -> Ask {
    pxe(arch).option(77, b"iPXE").option(175, &[235, 3, 1, 20, 1])
}

/// The same client, later: it has an address and asks for its boot file.
fn later(kind: u8, ask: Ask) -> Ask {
    Ask { kind, ciaddr: ip(150), ..ask }
}

#[test]
fn a_proxy_tells_network_boots_a_file_and_others_nothing() {
    let mut server = with(|c| {
        c.subnets[0].mode = Mode::Proxy;
        c.boot = with_arm64();
    });
    let mut text = String::new();
    for (name, ask) in [
        ("bios", pxe(0)),
        ("uefi x64", pxe(7)),
        ("uefi arm64", pxe(11)),
        ("uefi http", http()),
        ("uefi arm64 http", http_of(19)),
        ("ipxe", ipxe(7)),
        ("no loader", pxe(6)),
        ("operating system", ask(DISCOVER, 1).option(60, b"dhcpcd-9")),
        (
            "operating system, init-reboot in the wrong network",
            ask(REQUEST, 1).wants(Ipv4Addr::new(192, 168, 1, 5)),
        ),
        (
            "a request that chose the site's server",
            Ask { kind: REQUEST, ..pxe(7).of_server(2).wants(ip(150)) },
        ),
        ("release", Ask { ciaddr: ip(150), ..ask(RELEASE, 1) }),
        ("bios behind a relay of the site", Ask { giaddr: ip(254), ..pxe(0).option(82, b"\x01\x03br0") }),
    ] {
        let answer = ask.to(&mut server);
        assert_eq!((answer.leases.len(), answer.probe, answer.observed.ip), (0, None, None), "{name}");
        writeln!(text, "== 67: {name}\n{}", show(&answer)).unwrap();
    }
    for (name, ask) in [
        ("bios", later(REQUEST, pxe(0))),
        ("bios that names a boot item", later(REQUEST, pxe(0).option(43, &[71, 4, 0, 0, 0, 0, 255]))),
        ("uefi x64", later(REQUEST, pxe(7).of_server(2))),
        ("uefi x64, inform", later(INFORM, pxe(7))),
        ("uefi arm64", later(REQUEST, pxe(11))),
        ("ipxe", later(REQUEST, ipxe(0))),
        ("operating system", later(INFORM, ask(INFORM, 1))),
    ] {
        let answer = at_4011(&mut server, &ask);
        if let Ok(reply) = &answer.reply {
            assert_eq!((reply.port, reply.destination), (Port::Boot4011, Destination::Sender), "{name}");
        }
        writeln!(text, "== 4011: {name}\n{}", show(&answer)).unwrap();
    }
    assert_eq!((server.leases().iter().count(), server.leases().offers()), (0, 0), "nothing is lent");
    insta::assert_snapshot!(text);
}

#[test]
fn arm64_gets_its_own_loader_by_tftp_and_by_http() {
    let mut text = String::new();
    for (name, ask) in [("uefi arm64", pxe(11)), ("uefi arm64 http", http_of(19)), ("ipxe arm64", ipxe(11))] {
        let answer = ask.to(&mut with(|c| c.boot = with_arm64()));
        writeln!(text, "== {name}\n{}", show(&answer)).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_boot_server_answers_in_every_mode_but_off() {
    for mode in [Mode::Authoritative, Mode::Reserved, Mode::Proxy] {
        let answer = at_4011(&mut in_mode(mode), &later(REQUEST, pxe(7)));
        assert_eq!(option(&answer, 67).as_deref(), Some(&b"snponly.efi"[..]), "{mode:?}");
    }
    let net = config().subnets[0].net;
    assert_eq!(at_4011(&mut in_mode(Mode::Off), &later(REQUEST, pxe(7))).reply, Err(Silence::Off(net)));
    assert_eq!(pxe(7).to(&mut in_mode(Mode::Off)).reply, Err(Silence::Off(net)));
}

#[test]
fn reserved_mode_is_silent_to_strangers() {
    let mut server = in_mode(Mode::Reserved);
    let stranger = Err(Silence::Stranger(config().subnets[0].net));
    for ask in [
        pxe(7),
        ask(REQUEST, 1).wants(ip(101)),
        ask(REQUEST, 1).wants(Ipv4Addr::new(192, 168, 1, 5)),
        Ask { ciaddr: ip(101), ..ask(REQUEST, 1) },
        Ask { ciaddr: ip(101), ..ask(INFORM, 1) },
    ] {
        let answer = ask.to(&mut server);
        assert_eq!((answer.reply, answer.observed.known), (stranger.clone(), false));
    }
    server.set_known(Known { macs: [FIRST_MAC].into(), uuids: [].into() });
    let answer = pxe(7).to(&mut server);
    assert!(answer.observed.known);
    assert!(ask(REQUEST, 1).of_server(1).wants(given(&answer)).to(&mut server).reply.is_ok());
    assert_eq!(pxe(7).from(2).to(&mut server).reply, stranger, "another one, by MAC");
    server.set_known(Known {
        macs: [].into(),
        uuids: ["00112233-4455-6677-0809-0a0b0c0d0e0f".parse().unwrap()].into(),
    });
    given(&pxe(7).from(2).to(&mut server));
}

#[test]
fn a_reserved_address_is_one_machines_alone() {
    let mut server = with(|c| {
        c.subnets[0].reservations = vec![
            Reservation { machine: Machine::Mac(FIRST_MAC), ip: ip(50), hostname: Some("db-1".into()) },
            Reservation { machine: Machine::ClientId(b"\0web".into()), ip: ip(100), hostname: None },
        ];
        c.subnets[1].reservations = vec![Reservation {
            machine: Machine::Mac(FIRST_MAC),
            ip: Ipv4Addr::new(10, 88, 0, 200),
            hostname: None,
        }];
    });
    let offer = ask(DISCOVER, 1).wants(ip(101)).to(&mut server);
    assert_eq!((given(&offer), option(&offer, 12)), (ip(50), Some(b"db-1".to_vec())), "whatever it wishes");
    assert!(offer.observed.known);
    assert_eq!(ask(REQUEST, 1).of_server(1).wants(ip(50)).to(&mut server).leases[0].ip, ip(50));
    let giaddr = Ipv4Addr::new(10, 88, 0, 1);
    assert_eq!(given(&Ask { giaddr, ..ask(DISCOVER, 1) }.to(&mut server)), Ipv4Addr::new(10, 88, 0, 200));
    let by_id = ask(DISCOVER, 2).option(61, b"\0web").to(&mut server);
    assert_eq!(given(&by_id), ip(100));
    for n in 3..6 {
        let other = given(&ask(DISCOVER, n).wants(ip(100)).to(&mut server));
        assert!((101..=103).contains(&other.octets()[3]), "{other}");
    }
    assert_eq!(ask(DISCOVER, 6).wants(ip(100)).to(&mut server).reply, Err(Silence::PoolExhausted));
    assert!(ask(REQUEST, 6).wants(ip(50)).to(&mut server).reply.unwrap().nak);
    assert!(ask(REQUEST, 6).wants(ip(100)).to(&mut server).reply.unwrap().nak);
}

#[test]
fn a_machine_reserved_by_uuid_keeps_its_address_when_its_os_sends_none() {
    let uuid = "00112233-4455-6677-0809-0a0b0c0d0e0f".parse().unwrap();
    let mut server = with(|c| {
        c.subnets[0].reservations =
            vec![Reservation { machine: Machine::Uuid(uuid), ip: ip(60), hostname: None }]
    });
    assert_eq!(given(&pxe(7).to(&mut server)), ip(60));
    let lease = ask(REQUEST, 1).option(97, &UUID).of_server(1).wants(ip(60)).to(&mut server).leases;
    assert_eq!(given(&ask(DISCOVER, 1).to(&mut server)), ip(60));
    assert!(!Ask { ciaddr: ip(60), ..ask(REQUEST, 1) }.to(&mut server).reply.unwrap().nak);
    let mut again = Server::new(server.config().clone(), lease).unwrap();
    assert!(!ask(REQUEST, 1).wants(ip(60)).to(&mut again).reply.unwrap().nak, "also after a restart");
    assert!(ask(REQUEST, 2).wants(ip(60)).to(&mut again).reply.unwrap().nak);
}

#[test]
fn relays_select_the_subnet_and_tell_where_a_machine_is() {
    let far = Ipv4Addr::new(10, 99, 0, 9);
    let mut server = with(|c| c.subnets[1].relays = vec![far]);
    // By the address of a relay elsewhere; by link selection (RFC 3527) where that is no network of ours.
    let by_list = Ask { giaddr: far, ..ask(DISCOVER, 1) }.to(&mut server);
    let link = b"\x01\x04ge-3\x02\x02s7\x05\x04\x0a\x58\x00\x00\x0b\x04\x0a\x58\x00\x01";
    let relayed = |ask: Ask| Ask { giaddr: Ipv4Addr::new(192, 0, 2, 1), ..ask.option(82, link) };
    let by_link = relayed(ask(DISCOVER, 2)).to(&mut server);
    assert!(
        given(&by_list).octets().starts_with(&[10, 88]) && given(&by_link).octets().starts_with(&[10, 88])
    );
    let placement = by_link.observed.placement.clone().unwrap();
    assert_eq!((placement.circuit.as_deref(), placement.remote.as_deref()), (Some("ge-3"), Some("s7")));
    assert_eq!((by_list.probe, by_link.probe), (None, None), "ARP passes no relay");
    // RFC 5107: the relay is told as the server, and requests to it are ours.
    assert_eq!(option(&by_link, 54), Some(vec![10, 88, 0, 1]));
    let request = relayed(ask(REQUEST, 2).option(54, &[10, 88, 0, 1]).wants(given(&by_link)));
    let lease = request.to(&mut server).leases.remove(0);
    assert_eq!(lease.placement, by_link.observed.placement, "stored with the lease");
    let text = serde_json::to_string(&lease).unwrap();
    assert_eq!(serde_json::from_str::<Lease>(&text).unwrap(), lease);
    let old = r#"{"ip":"10.77.0.9","client":"mac:52:54:00:77:00:01","state":"bound","expires":7}"#;
    assert_eq!(serde_json::from_str::<Lease>(old).unwrap().placement, None);
    // A switch that snoops adds option 82 and is no relay.
    let snooped = ask(DISCOVER, 3).option(82, b"\x01\x01x").to(&mut server);
    assert!(given(&snooped).octets().starts_with(&[10, 77]) && option(&snooped, 82).is_some());
}

#[test]
fn who_takes_the_sites_address_is_not_accused() {
    let chose = |server: &mut Server, ask: &Ask| {
        let observed = ask.to(server).observed;
        (observed.elsewhere, observed.takes)
    };
    let request = Ask { kind: REQUEST, ..pxe(7).of_server(2).wants(ip(150)) };
    assert_eq!(chose(&mut in_mode(Mode::Authoritative), &request), (Some(ip(2)), None));
    assert_eq!(chose(&mut in_mode(Mode::Proxy), &request), (None, Some(ip(150))), "it has its address there");
    assert_eq!(chose(&mut in_mode(Mode::Off), &request), (None, None));
    let mut reserved = in_mode(Mode::Reserved);
    assert_eq!(chose(&mut reserved, &request), (None, None), "a stranger gets nothing here");
    reserved.set_known(Known { macs: [FIRST_MAC].into(), ..Known::default() });
    assert_eq!(chose(&mut reserved, &request), (Some(ip(2)), None));
    assert_eq!(chose(&mut in_mode(Mode::Authoritative), &pxe(7).of_server(2)), (None, None), "no request");
    let off = |c: &mut Config| {
        c.subnets[1].mode = Mode::Off;
        c.subnets[1].on_link = true;
    };
    let there = Ask { kind: REQUEST, ..pxe(7).of_server(2).wants(Ipv4Addr::new(10, 88, 0, 9)) };
    assert_eq!(chose(&mut with(off), &there), (None, None), "another server lends from that subnet");
    // RFC 5107: the server that the request names is the relay, in our stead.
    let relay = [10, 88, 0, 1];
    let relayed = |ask: Ask| Ask { giaddr: relay.into(), ..ask.option(82, &[11, 4, 10, 88, 0, 1]) };
    let mut server = server();
    let lent = given(&relayed(pxe(7)).to(&mut server));
    let ack = relayed(Ask { kind: REQUEST, ..pxe(7).option(54, &relay).wants(lent) }).to(&mut server);
    assert_eq!((given(&ack), ack.observed.elsewhere), (lent, None));
}

#[test]
fn subnets_that_share_the_wire_are_taken_in_turn() {
    let mut server = with(|c| c.subnets[1].on_link = true);
    let mut bind = |n: u8| {
        let ip = given(&ask(DISCOVER, n).to(&mut server));
        let ack = ask(REQUEST, n).of_server(1).wants(ip).to(&mut server);
        assert_eq!(ack.leases.len(), 1, "{n}: {}", show(&ack));
        ip.octets()[1]
    };
    let second: Vec<u8> = (1..=6).map(&mut bind).collect();
    assert_eq!(second, [77, 77, 77, 77, 88, 88], "the server's own first");
    assert_eq!(bind(5), 88, "and a machine keeps its own");
    let renew = Ask { ciaddr: given(&ask(DISCOVER, 5).to(&mut server)), ..ask(REQUEST, 5) }.to(&mut server);
    assert_eq!(option(&renew, 3), Some(vec![10, 88, 0, 1]));
}

#[test]
fn a_subnet_that_is_off_does_not_hide_one_that_shares_its_wire() {
    let mut server = with(|c| {
        c.subnets[0].mode = Mode::Off;
        c.subnets[1].on_link = true;
    });
    assert!(given(&ask(DISCOVER, 1).to(&mut server)).octets().starts_with(&[10, 88]));
    let others = ask(REQUEST, 2).wants(ip(101)).to(&mut server);
    assert_eq!(others.reply, Err(Silence::Off(config().subnets[0].net)), "somebody else's to refuse");
    assert!(ask(REQUEST, 2).wants(Ipv4Addr::new(192, 168, 1, 5)).to(&mut server).reply.unwrap().nak);
}

#[test]
fn roms_that_say_who_they_are_in_odd_ways() {
    let file = |ask: Ask| {
        let answer = ask.to(&mut server());
        option(&answer, 67).map(|name| String::from_utf8(name).unwrap())
    };
    let url = "http://10.77.0.1:8080/boot/start.ipxe";
    assert_eq!(
        file(pxe(7).option(77, b"\x03foo\x04iPXE")).as_deref(),
        Some(url),
        "several classes of RFC 3004"
    );
    assert_eq!(file(pxe(7).option(77, b"\x04iPX")).as_deref(), Some("snponly.efi"), "a broken one");
    let class = |class: &str| ask(DISCOVER, 1).option(60, class.as_bytes());
    assert_eq!(
        file(class("PXEClient:Arch:00007:UNDI:003016")).as_deref(),
        Some("snponly.efi"),
        "no option 93"
    );
    assert_eq!(file(class("PXEClient")).as_deref(), Some("undionly.kpxe\0"), "nor anything else");
    assert_eq!(
        file(class("PXEClient").option(93, &[0, 6, 0, 7])).as_deref(),
        Some("snponly.efi"),
        "the first there is"
    );
    let http7 = class("HTTPClient:Arch:00007:UNDI:003016").option(93, &[0, 7]);
    assert_eq!(file(http7).as_deref(), Some("http://10.77.0.1:8080/boot/files/snponly.efi"));
    // Options in `file`, and shorter than BOOTP's 300 octets.
    let mut bytes = ask(DISCOVER, 1).option(52, &[1]).bytes();
    bytes[108..122].copy_from_slice(b"\x3c\x09PXEClient\xff\0\0");
    let answer = server().handle_packet(T0, Port::Server67, &bytes).unwrap();
    assert_eq!(answer.observed.stage, Stage::Firmware);
}

#[test]
fn replies_fit_the_client_and_its_list() {
    let few = ask(DISCOVER, 1).option(55, &[1, 3]).to(&mut server());
    assert_eq!((option(&few, 28), option(&few, 150)), (None, None));
    assert!(
        option(&few, 51).is_some() && option(&few, 6).is_some(),
        "what each client needs is sent unasked"
    );
    let more = pxe(7).option(55, &[1, 28, 150]).to(&mut server());
    assert_eq!(option(&more, 150), Some(vec![10, 77, 0, 1]));
    // The longest identifiers there are: what is told twice goes first, and the relay's part does not count.
    let long = ask(DISCOVER, 1).option(60, b"PXEClient").option(93, &[0, 7]).option(61, &[7; 250]);
    let long = Ask { giaddr: Ipv4Addr::new(10, 88, 0, 1), ..long.option(82, &[9; 255]) };
    let small = long.to(&mut server());
    let len = small.reply.as_ref().unwrap().bytes.len();
    assert!((548..548 + 257 + 1).contains(&len), "{len}");
    assert_eq!(
        (option(&small, 28), option(&small, 67), option(&small, 82)),
        (None, None, Some(vec![9; 255]))
    );
    let large = long.option(57, &1500u16.to_be_bytes()).to(&mut server());
    assert!(option(&large, 28).is_some() && option(&large, 67).is_some());
}
