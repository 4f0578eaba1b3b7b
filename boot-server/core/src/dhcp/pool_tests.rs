//! Pools under pressure: floods, declines, probes, crashes.

use super::*;
use crate::dhcp::known::Known;

fn wide(pool: &str) -> Server {
    let mut config = config();
    config.subnets[0].pools = vec![pool.parse().unwrap()];
    config.probe = false;
    Server::new(config, Vec::new()).unwrap()
}

fn mac(group: u8, n: u32) -> [u8; 6] {
    let [_, a, b, c] = n.to_be_bytes();
    [0x52, 0x54, group, a, b, c]
}

fn after(seconds: u64) -> Timestamp {
    T0.after(Duration::from_secs(seconds))
}

fn send(server: &mut Server, now: Timestamp, ask: &Ask) -> Answer {
    server.handle_packet(now, Port::Server67, &ask.bytes()).unwrap()
}

/// DISCOVER and REQUEST; the address.
fn boots(server: &mut Server, now: Timestamp, mac: [u8; 6]) -> Result<Ipv4Addr, Silence> {
    let offer = send(server, now, &Ask { mac, ..ask(DISCOVER, 0) });
    offer.reply.clone()?;
    let ip = given(&offer);
    let ack = send(server, now, &Ask { mac, ..ask(REQUEST, 0).of_server(1).wants(ip) });
    ack.reply.clone()?;
    assert_eq!(ack.leases[0].ip, ip, "{}", show(&ack));
    Ok(ip)
}

fn know(server: &mut Server, macs: impl Iterator<Item = [u8; 6]>) {
    server.set_known(Known { macs: macs.map(MacAddr).collect(), uuids: [].into() });
}

#[test]
fn a_flood_of_strangers_does_not_starve_known_machines() {
    let mut server = wide("10.77.0.2-10.77.0.129");
    know(&mut server, (0..50).map(|n| mac(1, n)));
    let mut silent = 0;
    for n in 0..100_000u32 {
        // 10,000 a second, and a known machine every 0.2 s.
        let now = T0.after(Duration::from_micros(u64::from(n) * 100));
        let stranger = send(&mut server, now, &Ask { mac: mac(2, n), ..ask(DISCOVER, 0) });
        silent += u32::from(stranger.reply == Err(Silence::PoolExhausted));
        if n % 2000 == 1999 {
            boots(&mut server, now, mac(1, n / 2000)).unwrap();
        }
    }
    assert!(silent > 99_000, "{silent}");
    assert_eq!(server.leases().iter().count(), 50);
    assert!(server.leases().offers() <= 128);
    // A minute after the flood everything is there again.
    let now = after(71);
    for n in 0..78 {
        boots(&mut server, now, mac(3, n)).unwrap();
    }
    assert_eq!(boots(&mut server, now, mac(3, 78)), Err(Silence::PoolExhausted));
}

#[test]
fn a_pool_that_is_short_is_back_seconds_after_a_flood() {
    let mut server = wide("10.77.0.2-10.77.0.129");
    for n in 0..1000 {
        send(&mut server, T0, &Ask { mac: mac(2, n), ..ask(DISCOVER, 0) });
    }
    assert_eq!(boots(&mut server, after(9), mac(3, 0)), Err(Silence::PoolExhausted));
    for n in 0..30 {
        boots(&mut server, after(11), mac(3, n)).unwrap();
    }
}

#[test]
fn strangers_leave_the_last_addresses_to_known_machines_that_have_none() {
    let mut server = wide("10.77.0.2-10.77.0.65");
    know(&mut server, (0..4).map(|n| mac(1, n)));
    for n in 0..60 {
        boots(&mut server, T0, mac(2, n)).unwrap();
    }
    assert_eq!(boots(&mut server, T0, mac(2, 60)), Err(Silence::PoolExhausted));
    let reboot = Ask { mac: mac(2, 61), ..ask(REQUEST, 0).wants(Ipv4Addr::new(10, 77, 0, 2)) };
    assert!(
        send(&mut server, T0, &reboot).reply.is_err() || send(&mut server, T0, &reboot).reply.unwrap().nak
    );
    for n in 0..4 {
        boots(&mut server, T0, mac(1, n)).unwrap();
    }
    assert_eq!(boots(&mut server, T0, mac(1, 9)), Err(Silence::PoolExhausted));
    // Those that have one keep none back: as many strangers as there is room.
    let mut server = wide("10.77.0.2-10.77.0.65");
    know(&mut server, (0..4).map(|n| mac(1, n)));
    for n in 0..4 {
        boots(&mut server, T0, mac(1, n)).unwrap();
    }
    for n in 0..60 {
        boots(&mut server, T0, mac(2, n)).unwrap();
    }
    // All forgotten, all leases over: nothing is kept, everything is lent again.
    know(&mut server, std::iter::empty());
    for n in 0..64 {
        boots(&mut server, after(4000), mac(4, n)).unwrap();
    }
}

#[test]
fn a_declined_address_rests_longer_each_time_and_no_more_than_a_quarter_rest() {
    let mut server = wide("10.77.0.2-10.77.0.9");
    let decline = |server: &mut Server, now, n| {
        let ip = boots(server, now, mac(2, n)).unwrap();
        send(server, now, &Ask { mac: mac(2, n), ..ask(DECLINE, 0).of_server(1).wants(ip) }).leases
    };
    let hours = |lease: &Lease, now: Timestamp| lease.expires.since(now).as_secs() / 3600;
    let first = decline(&mut server, T0, 1);
    assert_eq!((first.len(), hours(&first[0], T0)), (1, 1));
    decline(&mut server, T0, 2);
    let third = decline(&mut server, T0, 3);
    assert_eq!(third.len(), 2, "a third of eight: one that rested is free again");
    assert_eq!((third[1].state, third[1].expires), (LeaseState::Declined, T0));
    let resting = |s: &Server| s.leases().iter().filter(|l| l.expires > T0).count();
    assert_eq!(resting(&server), 2);
    // The one that was freed, declined again.
    let again = Ask { mac: mac(2, 9), ..ask(DISCOVER, 0).wants(third[1].ip) };
    assert_eq!(given(&send(&mut server, T0, &again)), third[1].ip);
    send(&mut server, T0, &Ask { mac: mac(2, 9), ..ask(REQUEST, 0).of_server(1).wants(third[1].ip) });
    let ask = Ask { mac: mac(2, 9), ..super::ask(DECLINE, 0).of_server(1).wants(third[1].ip) };
    assert_eq!(hours(&send(&mut server, T0, &ask).leases[0], T0), 2);
}

#[test]
fn what_was_never_used_or_was_declined_is_probed() {
    let mut server = server();
    let offer = ask(DISCOVER, 1).to(&mut server);
    let ip = given(&offer);
    assert_eq!(offer.probe, Some(ip));
    assert_eq!(ask(DISCOVER, 1).to(&mut server).probe, Some(ip), "until it is known");
    assert_eq!(server.handle_probe(T0, ip, None), None);
    assert_eq!(ask(DISCOVER, 1).to(&mut server).probe, None);
    assert_eq!(send(&mut server, after(601), &ask(DISCOVER, 1)).probe, Some(ip), "for ten minutes");
    ask(REQUEST, 1).of_server(1).wants(ip).to(&mut server);
    assert_eq!(send(&mut server, after(9000), &ask(DISCOVER, 1)).probe, None, "it was lent");
    // Somebody answers: the next answer is another address.
    let other = given(&ask(DISCOVER, 2).to(&mut server));
    let user = MacAddr([2, 0, 0, 0, 0, 9]);
    let row = server.handle_probe(T0, other, Some(user)).unwrap();
    assert_eq!((row.ip, row.state, row.client), (other, LeaseState::Declined, ClientKey::Mac(user)));
    let next = ask(DISCOVER, 2).to(&mut server);
    assert!(given(&next) != other && next.probe == Some(given(&next)));
    // The client itself still has it from before it booted.
    let own = MacAddr([0x52, 0x54, 0, 0x77, 0, 2]);
    assert_eq!(server.handle_probe(T0, given(&next), Some(own)), None);
    assert_eq!(given(&ask(DISCOVER, 2).to(&mut server)), given(&next));
    // What was lent meanwhile is not taken away.
    let bound = ask(REQUEST, 2).of_server(1).wants(given(&next)).to(&mut server).leases[0].ip;
    assert_eq!(server.handle_probe(T0, bound, Some(user)), None);
    assert_eq!(given(&send(&mut server, after(3601), &ask(DISCOVER, 3).wants(other))), other, "it rested");
    assert_eq!(send(&mut server, after(3601), &ask(DISCOVER, 3)).probe, Some(other));
}

proptest! {
    /// Rows are stored one by one, and a crash may come between any two of them, before the reply leaves. Whatever was
    /// acknowledged is its client's after the restart.
    #[test]
    fn no_crash_forgets_what_was_acknowledged(steps in steps(), crash in 0usize..400) {
        let (mut server, mut now) = (server(), T0);
        let mut stored: BTreeMap<Ipv4Addr, Lease> = BTreeMap::new();
        let mut acknowledged: BTreeMap<u8, (Ipv4Addr, Timestamp)> = BTreeMap::new();
        let mut rows = 0;
        'run: for step in steps {
            let (client, ask) = match step {
                Step::Wait(s) => { now = now.after(Duration::from_secs(s.into())); continue }
                Step::Restart => continue,
                Step::Discover(c, _) => (c, ask(DISCOVER, c)),
                Step::Select(c) | Step::Reboot(c, _) => {
                    let Some(ip) = ask(DISCOVER, c).to_at(&mut server, now).observed.ip else { continue };
                    (c, ask(REQUEST, c).of_server(1).wants(ip))
                }
                Step::Renew(c, ip) => (c, Ask { ciaddr: Ipv4Addr::new(10, 77, 0, ip), ..ask(REQUEST, c) }),
                Step::Release(c) => { let Some((ip, _)) = acknowledged.get(&c) else { continue }; (c, Ask { ciaddr: *ip, ..ask(RELEASE, c) }) }
                Step::Decline(c) => { let Some((ip, _)) = acknowledged.get(&c) else { continue }; (c, ask(DECLINE, c).wants(*ip)) }
            };
            if matches!(step, Step::Release(_) | Step::Decline(_)) {
                acknowledged.remove(&client);
            }
            let answer = ask.to_at(&mut server, now);
            for lease in &answer.leases {
                if rows == crash { break 'run }
                rows += 1;
                stored.insert(lease.ip, lease.clone());
            }
            if let (Some(ip), Some(lease)) = (answer.observed.ip, answer.leases.first()) {
                acknowledged.insert(client, (ip, lease.expires));
            }
        }
        acknowledged.retain(|_, (_, until)| *until > now);
        let mut after = Server::new(config(), stored.into_values().collect()).unwrap();
        for stranger in 20..40 {
            let got = ask(DISCOVER, stranger).to_at(&mut after, now).observed.ip;
            prop_assert!(!acknowledged.values().any(|(ip, _)| Some(*ip) == got), "{got:?} is another's");
        }
        for (client, (ip, _)) in acknowledged {
            let renew = Ask { ciaddr: ip, ..ask(REQUEST, client) }.to_at(&mut after, now);
            prop_assert_eq!(renew.observed.ip, Some(ip));
        }
    }

    /// Against the simplest table there is: a list.
    #[test]
    fn the_table_is_what_a_list_would_be(steps in proptest::collection::vec((0u8..5, 1u8..12, 0u32..40), 1..200)) {
        let (mut server, mut now) = (wide("10.77.0.100-10.77.0.107"), T0);
        let mut list: Vec<(u8, Ipv4Addr, Timestamp)> = Vec::new();
        for (what, client, seconds) in steps {
            now = now.after(Duration::from_secs(u64::from(seconds) * 20));
            let held = list.iter().find(|(c, _, until)| *c == client && *until > now).map(|(_, ip, _)| *ip);
            match what {
                0..=2 => {
                    let offer = ask(DISCOVER, client).to_at(&mut server, now);
                    let Some(ip) = offer.observed.ip else {
                        prop_assert_eq!(held, None);
                        continue;
                    };
                    prop_assert!(held.is_none_or(|held| held == ip));
                    if what == 0 { continue }
                    let ack = ask(REQUEST, client).of_server(1).wants(ip).to_at(&mut server, now);
                    prop_assert_eq!(ack.observed.ip, Some(ip));
                    list.retain(|(c, i, _)| *c != client && *i != ip);
                    list.push((client, ip, now.after(Duration::from_secs(3600))));
                }
                3 => if let Some(ip) = held {
                    Ask { ciaddr: ip, ..ask(RELEASE, client) }.to_at(&mut server, now);
                    list.retain(|(c, ..)| *c != client);
                },
                _ => {
                    let other = list.iter().find(|(c, _, until)| *c != client && *until > now);
                    if let Some((_, ip, _)) = other {
                        let refused = ask(REQUEST, client).wants(*ip).to_at(&mut server, now);
                        prop_assert!(refused.reply.unwrap().nak);
                    }
                }
            }
            let lasting = |l: &&Lease| l.expires > now;
            let mut have: Vec<_> = server.leases().iter().filter(lasting).map(|l| (l.ip, l.expires)).collect();
            let mut want: Vec<_> = list.iter().filter(|(.., t)| *t > now).map(|(_, ip, t)| (*ip, *t)).collect();
            have.sort();
            want.sort();
            prop_assert_eq!(have, want);
        }
    }
}
