//! Who gets a boot script, and how many strangers are taken in; which events are kept.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use boot_server_core::dhcp::{ClientKey, Lease, LeaseState};
use boot_server_core::node::Claim;
use protocol::{MacAddr, Timestamp};

use super::tests::settings;
use super::*;
use crate::config::{Config, Kept, Lending, Network, NewMachines};
use crate::store::db;
use crate::store::tests::Scratch;

fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, n])
}

fn ip(n: u8) -> Ipv4Addr {
    [10, 77, 0, n].into()
}

async fn engine(scratch: &Scratch, change: impl FnOnce(&mut Settings)) -> Engine {
    let mut settings = settings(scratch);
    settings.dhcp = Some(lending("range_start = \"10.77.0.100\"\nrange_end = \"10.77.0.200\""));
    change(&mut settings);
    let images = ::images::Store::open(settings.images_dir()).unwrap();
    Engine::open(settings, Store::open(&scratch.database()).unwrap(), images).await.unwrap()
}

/// What a `[dhcp]` section means on 10.77.0.1/24.
fn lending(section: &str) -> Lending {
    let config = Config::parse(&format!("[dhcp]\n{section}"), "test").unwrap();
    Lending::new(&config.dhcp, "lo", Network { address: ip(1), prefix: 24 }).unwrap()
}

/// Machine `n` asks from address `from`.
async fn asks(engine: &Engine, n: u8, from: u8) -> BootAnswer {
    let claim = Claim { uuid: None, serial: None, macs: vec![mac(n)] };
    engine.boot(claim, IpAddr::V4(ip(from))).await.unwrap()
}

async fn lend(engine: &Engine, n: u8, address: u8, expires: Timestamp) {
    let (client, state) = (ClientKey::Mac(mac(n)), LeaseState::Bound);
    let leases = [Lease { ip: ip(address), client, state, expires, placement: None }];
    engine.store().write(move |db| queries::put_leases(db, &leases)).await.unwrap();
    engine.address_given(mac(n), IpAddr::V4(ip(address)));
}

fn is_agent(answer: &BootAnswer) -> bool {
    matches!(answer, BootAnswer::Agent { .. })
}

#[tokio::test]
async fn a_script_goes_to_the_address_that_was_lent() {
    let scratch = Scratch::new();
    let lab = engine(&scratch, |_| {}).await;
    let later = now().after(Duration::from_hours(1));
    lend(&lab, 1, 101, later).await;
    lend(&lab, 2, 102, later).await;
    assert!(is_agent(&asks(&lab, 1, 101).await));
    assert!(!is_agent(&asks(&lab, 1, 102).await), "another machine's address");
    assert!(!is_agent(&asks(&lab, 1, 9).await), "an address of its own");
    assert!(is_agent(&asks(&lab, 3, 9).await), "nothing was lent: another DHCP server does that");
    lend(&lab, 1, 101, Timestamp(1)).await;
    assert!(is_agent(&asks(&lab, 1, 9).await), "the lease has ended");
    lab.store().close();
    let open = engine(&scratch, |settings| settings.match_leases = false).await;
    assert!(is_agent(&asks(&open, 2, 9).await), "it is turned off");
}

/// A machine that tells these asks from address `from`.
async fn tells(engine: &Engine, uuid: Option<u128>, ports: &[u8], from: u8) -> BootAnswer {
    let uuid = uuid.map(Uuid::from_u128);
    let claim = Claim { uuid, serial: None, macs: ports.iter().map(|n| mac(*n)).collect() };
    engine.boot(claim, IpAddr::V4(ip(from))).await.unwrap()
}

#[tokio::test]
async fn what_else_a_machine_tells_gets_it_no_other_machines_script() {
    const VICTIM: u128 = 0xabcd_0001;
    let scratch = Scratch::new();
    let lab = engine(&scratch, |_| {}).await;
    let later = now().after(Duration::from_hours(1));
    lend(&lab, 1, 101, later).await;
    lend(&lab, 2, 102, later).await;
    assert!(is_agent(&tells(&lab, Some(VICTIM), &[1, 4], 101).await));
    let nonce = |engine: &Engine| engine.0.nodes.with_mac(mac(1)).unwrap().link.nonce.clone();
    let given = nonce(&lab);
    for (uuid, ports, from) in [
        (Some(VICTIM), &[][..], 102),
        (Some(VICTIM), &[2], 102),
        (None, &[2, 1], 102),
        (None, &[1, 2], 102),
        (None, &[4], 102),
        (Some(VICTIM), &[], 9),
        (None, &[4], 9),
        (Some(0xabcd_0002), &[], 102),
    ] {
        match tells(&lab, uuid, ports, from).await {
            BootAnswer::Refuse { why } => assert!(why.contains("lent to"), "{why}"),
            other => panic!("{uuid:?} {ports:?} from {from}: {other:?}"),
        }
    }
    assert_eq!(nonce(&lab), given, "its boot goes on undisturbed");
    assert_eq!(lab.nodes().await.unwrap().len(), 1, "nobody became a node");
    assert!(is_agent(&tells(&lab, Some(VICTIM), &[], 101).await), "its own address, told by the UUID alone");
    assert!(is_agent(&tells(&lab, None, &[4, 1], 101).await), "the port that asks is not the first");
    lend(&lab, 6, 106, later).await;
    assert!(is_agent(&tells(&lab, None, &[5, 6], 106).await), "nor of a stranger");
    assert_eq!(lab.machine_at(IpAddr::V4(ip(106))), Some(mac(6)), "what it fetches is its");
}

#[tokio::test]
async fn what_is_not_lent_any_more_refuses_nobody() {
    let scratch = Scratch::new();
    let lab = engine(&scratch, |_| {}).await;
    lend(&lab, 1, 101, now().after(Duration::from_hours(700))).await;
    assert!(!is_agent(&asks(&lab, 2, 101).await));
    lab.store().close();
    for section in ["mode = \"proxy\"", "mode = \"off\"", "range_start = \"10.77.0.150\""] {
        let changed = engine(&scratch, |settings| settings.dhcp = Some(lending(section))).await;
        changed.address_given(mac(1), IpAddr::V4(ip(101)));
        assert!(is_agent(&asks(&changed, 2, 101).await), "{section}");
        assert!(is_agent(&asks(&changed, 1, 9).await), "{section}");
        changed.store().close();
    }
}

#[tokio::test]
async fn an_address_of_the_sites_server_is_an_address() {
    let scratch = Scratch::new();
    let lab = engine(&scratch, |settings| settings.dhcp = Some(lending("mode = \"proxy\""))).await;
    lock(&lab.0.sightings).note(mac(1), Timestamp(1000));
    let stuck = || lab.stuck_strangers().into_iter().map(|(_, _, finding)| finding.code).collect::<Vec<_>>();
    assert_eq!(stuck(), ["boot.no_request"]);
    lab.address_taken(mac(1), IpAddr::V4(ip(150)));
    assert!(stuck().is_empty(), "it has an address since just now: it may go on");
    assert_eq!(lab.machine_at(IpAddr::V4(ip(150))), Some(mac(1)), "what it fetches is its");
    lab.file_served(IpAddr::V4(ip(150)), Event::LoaderServed { by: boot_server_core::node::Netboot::Pxe })
        .await;
    assert!(is_agent(&asks(&lab, 1, 150).await));
}

#[tokio::test]
async fn a_crowd_is_taken_in_as_it_asks_again() {
    let scratch = Scratch::new();
    let limit = NewMachines { burst: 3, per_second: 1 };
    let engine = engine(&scratch, |settings| settings.new_machines = limit).await;
    let mut refused = 0;
    for n in 1..=8 {
        match asks(&engine, n, n).await {
            BootAnswer::Agent { .. } => {}
            BootAnswer::Refuse { why } => {
                assert!(why.contains("too many new machines"), "{why}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=5).contains(&refused), "{refused}");
    assert!(is_agent(&asks(&engine, 1, 1).await), "a machine that is known does not wait");
    let limited = |events: Vec<EventView>| events.iter().filter(|e| e.kind == "discovery.limited").count();
    let filter = EventFilter { limit: 100, ..EventFilter::default() };
    assert_eq!(limited(engine.events(filter).await.unwrap()), 1, "it is said once");
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for n in 1..=8 {
            asks(&engine, n, n).await;
        }
        if engine.nodes().await.unwrap().len() == 8 {
            return;
        }
    }
    panic!("some are still outside");
}

#[tokio::test]
async fn old_events_go_in_batches() {
    let scratch = Scratch::new();
    let kept = Kept { age: Some(Duration::from_hours(24)), rows: 700 };
    let engine = engine(&scratch, |settings| settings.events = kept).await;
    let count = || async {
        let count = |db: &db::Connection| {
            let sql = "SELECT COUNT(*), MIN(id), MAX(id) FROM events";
            let numbers =
                |row: &db::Row<'_>| Ok::<(i64, i64, i64), db::Error>((row.get(0)?, row.get(1)?, row.get(2)?));
            db.query_row(sql, [], numbers).map_err(StoreError::sql("count"))
        };
        engine.store().read(count).await.unwrap()
    };
    let fill = |db: &db::Connection| {
        for i in 0..1800 {
            // The first hundred are two days old.
            let age = if i < 100 { 48 } else { 1 };
            let at = Timestamp(now().0 - age * 3_600_000);
            queries::insert_event(db, &NewEvent::new(at, "server", "x", Severity::Info, ""))?;
        }
        Ok(())
    };
    engine.store().write(fill).await.unwrap();
    assert_eq!(engine.forget_events().await.unwrap(), 500);
    assert_eq!(engine.forget_events().await.unwrap(), 500);
    assert_eq!(engine.forget_events().await.unwrap(), 100);
    assert_eq!(engine.forget_events().await.unwrap(), 0);
    let (rows, first, last): (i64, i64, i64) = count().await;
    assert_eq!((rows, first, last), (700, 1101, 1800));
    // By age alone, and never the newest.
    engine.store().write(|db| queries::forget_events(db, Timestamp(u64::MAX), 0, 10_000)).await.unwrap();
    assert_eq!(count().await, (1, 1800, 1800));
}
