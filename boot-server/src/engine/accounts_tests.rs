//! An account on a controller in memory: ordered, kept before it is told, made, tried, registered; and what a crash loses.

use std::collections::BTreeMap;

use bmc::DriverKind;
use boot_server_core::node::Claim;
use protocol::agent::{AccountOrder, AccountReport};
use protocol::inventory::{Bmc, Inventory};
use tokio_util::sync::CancellationToken;

use super::tests::{hello, inventory, settings};
use super::*;
use crate::config::OwnAccount;
use crate::power::tests::{Fake, fake_drivers};
use crate::store::bmc_accounts;
use crate::store::tests::Scratch;
use crate::view::BmcView;

/// Nobody speaks Redfish there.
const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 9);
const MAC: protocol::MacAddr = protocol::MacAddr([0x52, 0x54, 0, 0, 9, 7]);

type Fakes = Arc<Mutex<BTreeMap<String, Arc<Fake>>>>;

async fn open(scratch: &Scratch, fakes: &Fakes, account: Option<OwnAccount>) -> Engine {
    let mut settings = settings(scratch);
    settings.bmc.account = account;
    let images = ::images::Store::open(settings.images_dir()).unwrap();
    let store = Store::open(&scratch.database()).unwrap();
    Engine::open_with(settings, store, images, fake_drivers(fakes.clone())).await.unwrap()
}

fn wanted() -> Option<OwnAccount> {
    Some(OwnAccount { user: "billet".into(), networks: Vec::new(), opens_lan: false })
}

/// An agent that found a controller in-band; its session.
async fn agent(engine: &Engine) -> String {
    engine.dhcp_seen(MAC).await;
    let claim = Claim { uuid: None, serial: None, macs: vec![MAC] };
    let BootAnswer::Agent { nonce, .. } = engine.boot(claim, [10, 77, 0, 9].into()).await.unwrap() else {
        panic!("no agent")
    };
    let session = engine.hello(hello(nonce, vec![MAC])).await.unwrap().session;
    let bmc = Some(Bmc { address: Some(ADDRESS), ..Bmc::default() });
    engine.put_inventory(&session, Inventory { bmc, ..inventory() }).await.unwrap();
    session
}

async fn kinds(engine: &Engine) -> Vec<String> {
    let filter = EventFilter { after: Some(0), limit: 1000, ..EventFilter::default() };
    engine.events(filter).await.unwrap().into_iter().map(|e| e.kind).collect()
}

async fn until_registered(engine: &Engine) -> BmcView {
    for _ in 0..600 {
        let done = engine.store().read(bmc_accounts::accounts).await.unwrap().is_empty();
        if let Some(bmc) = engine.bmcs().pop().filter(|_| done) {
            return bmc;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it is never registered: {:?}", kinds(engine).await)
}

fn made() -> AccountReport {
    AccountReport::Made { slot: 3, channel: 1, address: Some(ADDRESS) }
}

#[tokio::test]
async fn an_account_is_kept_told_made_and_registered() {
    let (scratch, fakes) = (Scratch::new(), Fakes::default());
    let engine = open(&scratch, &fakes, wanted()).await;
    let session = agent(&engine).await;
    let order = engine.account_order(&session).await.unwrap();
    let AccountOrder::Make { user, password, open_channel: false } = &order else { panic!("{order:?}") };
    assert_eq!((user.as_str(), password.0.len()), ("billet", 16));
    let row = engine.store().read(bmc_accounts::accounts).await.unwrap().remove(0);
    assert!(!row.password.contains(&password.0) && row.address.is_none(), "sealed: {row:?}");
    // Whoever asks again, as after a crash, hears the same.
    assert_eq!(engine.account_order(&session).await.unwrap(), order);
    assert!(engine.account_order("another").await.is_err(), "only a session of an agent");
    engine.account_report(&session, made()).await.unwrap();
    let bmc = until_registered(&engine).await;
    assert_eq!((bmc.driver, bmc.user.as_deref()), (DriverKind::Ipmi, Some("billet")));
    assert!(bmc.has_password && bmc.address == ADDRESS.to_string());
    let told = kinds(&engine).await;
    assert!(told.contains(&"bmc.account_made".to_owned()), "{told:?}");
    // It has an account now.
    assert_eq!(engine.account_order(&session).await.unwrap(), AccountOrder::None);
    let late = engine.account_report(&session, made()).await.unwrap_err();
    assert_eq!(late.problem().code, "bad-bmc");
}

#[tokio::test]
async fn what_was_made_before_a_crash_is_registered_after_it() {
    let (scratch, fakes) = (Scratch::new(), Fakes::default());
    let engine = open(&scratch, &fakes, wanted()).await;
    let session = agent(&engine).await;
    engine.account_order(&session).await.unwrap();
    let mut row = engine.store().read(bmc_accounts::accounts).await.unwrap().remove(0);
    row.address = Some(ADDRESS.to_string());
    engine.store().write(move |db| bmc_accounts::put(db, &row)).await.unwrap();
    // Nothing of the engine's runs on; the database has one server at a time.
    engine.store().close();
    drop(engine);
    let again = open(&scratch, &fakes, wanted()).await;
    let stop = CancellationToken::new();
    let (running, token) = (again.clone(), stop.clone());
    let task = tokio::spawn(async move { running.run_power(token).await });
    assert_eq!(until_registered(&again).await.user.as_deref(), Some("billet"));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn nothing_is_made_that_nobody_wants() {
    let (scratch, fakes) = (Scratch::new(), Fakes::default());
    let engine = open(&scratch, &fakes, None).await;
    let session = agent(&engine).await;
    assert_eq!(engine.account_order(&session).await.unwrap(), AccountOrder::None);
    let failed = AccountReport::Failed { why: "all 10 user slots are taken".into() };
    engine.account_report(&session, failed).await.unwrap();
    assert!(kinds(&engine).await.contains(&"bmc.account_failed".to_owned()));
    let elsewhere = OwnAccount { networks: vec!["10.0.0.0/8".parse().unwrap()], ..wanted().unwrap() };
    let (scratch, fakes) = (Scratch::new(), Fakes::default());
    let engine = open(&scratch, &fakes, Some(elsewhere)).await;
    let session = agent(&engine).await;
    assert_eq!(engine.account_order(&session).await.unwrap(), AccountOrder::None);
    assert!(engine.store().read(bmc_accounts::accounts).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_account_that_does_not_work_is_told_as_that() {
    let (scratch, fakes) = (Scratch::new(), Fakes::default());
    let fake = Arc::new(Fake::default());
    lock(&fake.state).wrong_login = true;
    lock(&fakes).insert(ADDRESS.to_string(), fake.clone());
    let engine = open(&scratch, &fakes, wanted()).await;
    let session = agent(&engine).await;
    engine.account_order(&session).await.unwrap();
    engine.account_report(&session, made()).await.unwrap();
    until_registered(&engine).await;
    let filter = EventFilter { after: Some(0), limit: 1000, ..EventFilter::default() };
    let events = engine.events(filter).await.unwrap();
    let told = events.iter().find(|e| e.kind == "bmc.account_made").unwrap();
    assert!(told.message.contains("a login by ipmi fails"), "{}", told.message);
    let logins = lock(&fake.state).log.iter().filter(|l| *l == "power?").count();
    assert!(logins <= 2, "one by hand, and one of the worker at most: {logins}");
}
