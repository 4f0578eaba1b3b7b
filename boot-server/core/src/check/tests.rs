//! Findings as a table, so that a reviewer reads all of them on one screen.

use super::*;

fn sound() -> Facts {
    let port = |protocol, number, what| Port { protocol, number, what };
    Facts {
        interface: "eth1".into(),
        link: Some(Link { up: true, carrier: true, mtu: 1500, ipv4: true, ipv6: true }),
        address: Some(Ipv4Addr::new(10, 77, 0, 1)),
        lends: true,
        pools: vec!["10.77.0.100-10.77.0.200".parse().unwrap()],
        ports: vec![port("udp", 67, "DHCP"), port("udp", 69, "TFTP"), port("tcp", 8080, "boot")],
        ..Facts::default()
    }
}

fn codes(facts: &Facts) -> Vec<(Severity, String)> {
    findings(facts).into_iter().map(|f| (f.severity, f.code)).collect()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(findings(&sound()), []);
}

#[test]
fn every_fact_has_its_finding_and_errors_come_first() {
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let offer = |last, address| Offer { server: Ipv4Addr::new(10, 77, 0, last), mac, address };
    let net = "10.78.0.0/24".parse().unwrap();
    let facts = Facts {
        link: Some(Link { up: true, carrier: false, mtu: 1400, ipv4: false, ipv6: false }),
        relayed: vec![(net, None), ("10.79.0.0/24".parse().unwrap(), Some(Timestamp(1)))],
        unknown_relays: vec![Ipv4Addr::new(10, 80, 0, 1)],
        taken: vec![Taken { port: sound().ports[1], by: "dnsmasq (pid 7)".into() }],
        offers: vec![
            offer(2, Some(Ipv4Addr::new(10, 77, 0, 150))),
            offer(3, Some(Ipv4Addr::new(10, 77, 0, 50))),
            offer(4, None),
        ],
        occupied: vec![(Ipv4Addr::new(10, 77, 0, 1), mac), (Ipv4Addr::new(10, 77, 0, 120), mac)],
        missing: vec!["the boot loader for x64 UEFI is missing".into()],
        filter: Some("table inet f {\n chain i {\n  type filter hook input priority 0; policy drop;\n  udp dport 67 accept\n }\n}".into()),
        unseen: vec!["nft is not installed".into()],
        ..sound()
    };
    let text: Vec<_> = findings(&facts)
        .iter()
        .map(|f| format!("{} {}\n  {}\n  {}", f.severity, f.code, f.what, f.todo))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn beside_a_sites_own_server_only_a_second_boot_server_is_wrong() {
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let site = Offer { server: Ipv4Addr::new(10, 77, 0, 2), mac, address: Some(Ipv4Addr::new(10, 77, 0, 9)) };
    let facts = Facts { lends: false, proxy: true, pools: vec![], offers: vec![site], ..sound() };
    assert_eq!(findings(&facts), []);
    let facts = Facts { offers: vec![site, Offer { address: None, ..site }], ..facts };
    assert_eq!(codes(&facts), [(Severity::Error, "dhcp.other_boot_server".into())]);
}

#[test]
fn without_the_interface_nothing_else_about_it_is_said() {
    let facts = Facts { link: None, ..sound() };
    assert_eq!(codes(&facts), [(Severity::Error, "link.missing".into())]);
}

#[test]
fn what_a_packet_filter_drops() {
    let ports = sound().ports;
    let numbers = |chain: &str| -> Vec<u16> {
        let rules = format!("table inet filter {{\n chain input {{\n{chain}\n }}\n}}\n");
        blocked(&rules, "eth1", &ports).iter().map(|p| p.number).collect()
    };
    let head = "type filter hook input priority filter; policy drop;";
    for (rules, expected) in [
        ("type filter hook input priority filter; policy accept;", &[][..]),
        ("type filter hook forward priority filter; policy drop;", &[]),
        (head, &[67, 69, 8080]),
        (
            &format!("{head}\nct state established,related accept\niif \"lo\" accept\nudp dport 67 accept"),
            &[69, 8080],
        ),
        (&format!("{head}\nudp dport {{ 67, 69, 4011 }} accept\ntcp dport 8000-8100 accept"), &[]),
        (&format!("{head}\niifname \"eth1\" accept"), &[]),
        (&format!("{head}\niifname \"eth0\" accept"), &[67, 69, 8080]),
        (&format!("{head}\niifname {{ \"eth0\", \"eth1\" }} udp dport {{ bootps, tftp }} accept"), &[8080]),
        ("type filter hook input priority filter; policy accept;\nudp dport 69 drop", &[69]),
        (
            "type filter hook input priority filter; policy accept;\nudp dport 69 counter packets 3 bytes 99 drop",
            &[69],
        ),
        // What is not understood is not accused.
        (&format!("{head}\nip saddr 10.0.0.0/8 accept"), &[]),
        (&format!("{head}\njump services"), &[]),
        (
            "type filter hook input priority filter; policy accept;\nip saddr 10.0.0.0/8 udp dport 69 drop",
            &[],
        ),
    ] {
        assert_eq!(numbers(rules), expected, "{rules}");
    }
}

#[test]
fn the_question_is_answered_by_an_offer_and_nothing_else() {
    use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
    use dhcproto::{Decodable, Decoder, Encodable};
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let question = discover(7, mac);
    let mut answer = Message::decode(&mut Decoder::new(&question)).unwrap();
    assert_eq!((answer.xid(), answer.chaddr()), (7, &mac.0[..]));
    let from = (Ipv4Addr::new(10, 0, 0, 1), mac);
    assert_eq!(offer(&question, 7, from), None, "a DISCOVER is no offer");
    answer.opts_mut().insert(DhcpOption::MessageType(MessageType::Offer));
    answer.set_yiaddr(Ipv4Addr::new(10, 0, 0, 9));
    let expected = Offer { server: from.0, mac, address: Some(Ipv4Addr::new(10, 0, 0, 9)) };
    assert_eq!(offer(&answer.to_vec().unwrap(), 7, from), Some(expected));
    assert_eq!(offer(&answer.to_vec().unwrap(), 8, from), None, "to another question");
    answer.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 0, 2)));
    answer.set_yiaddr(Ipv4Addr::UNSPECIFIED);
    let expected = Offer { server: Ipv4Addr::new(10, 0, 0, 2), mac, address: None };
    assert_eq!(offer(&answer.to_vec().unwrap(), 7, from), Some(expected));
    assert!(answer.opts().get(OptionCode::ServerIdentifier).is_some());
}

#[test]
fn how_far_a_machine_came() {
    let (at, late) = (|s: u64| Timestamp(s * 1000), Timestamp(100_000));
    let seen = Story { first: Some(at(1)), last: Some(at(1)), ..Story::default() };
    let code = |s: Story, now| story(&s, "eth1", now).map(|f| f.code);
    assert_eq!(code(Story::default(), late), None, "never seen");
    assert_eq!(code(seen, at(20)), None, "it may go on");
    assert_eq!(code(seen, late).as_deref(), Some("boot.no_request"));
    let elsewhere = Story { elsewhere: Some(Ipv4Addr::new(10, 77, 0, 9)), ..seen };
    assert_eq!(code(elsewhere, at(2)).as_deref(), Some("boot.other_server"), "at once");
    let address = Story { address: Some(at(2)), ..seen };
    assert_eq!(code(address, late).as_deref(), Some("boot.no_loader"));
    let loader = Story { loader: Some(at(3)), ..address };
    assert_eq!(code(loader, late).as_deref(), Some("boot.loader_silent"));
    assert_eq!(code(Story { loader: Some(at(90)), ..address }, late), None, "it may go on");
    assert_eq!(code(Story { script: true, ..loader }, late), None, "the loader runs");
}
