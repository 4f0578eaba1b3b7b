//! Who says hello and cannot prove it: gets nothing, changes nothing, and is an alarm that operators see.

use boot_server_core::deploy::DeployRequest;
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Level, Refused};
use protocol::agent::Work;
use std::time::Duration;

use super::tests::{address, agent, claim, discovered, engine, hello, image, kinds, mac, settings};
use super::*;
use crate::store::tests::Scratch;

async fn nonce(engine: &Engine, n: u8) -> String {
    let BootAnswer::Agent { nonce, .. } = engine.boot(claim(n), address(n)).await.unwrap() else {
        panic!("no agent")
    };
    nonce
}

async fn node(engine: &Engine, n: u8) -> Node {
    engine.node(&format!("node-0000{n:02x}")).await.unwrap()
}

/// The alarms of a node, and of none.
async fn alarms(engine: &Engine) -> Vec<(Option<String>, Severity, String)> {
    let filter = EventFilter { after: Some(0), limit: 1000, ..EventFilter::default() };
    let events = engine.events(filter).await.unwrap().into_iter();
    events.filter(|e| e.kind == "identity.nonce").map(|e| (e.node_name, e.severity, e.message)).collect()
}

fn is_refused(said: &Result<protocol::agent::Welcome, EngineError>) -> bool {
    matches!(said, Err(EngineError::Refused(Refused::Nonce { .. })))
}

#[tokio::test]
async fn a_forged_nonce_gets_nothing_and_is_an_alarm() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let session = discovered(&engine, 1).await;
    let before = node(&engine, 1).await;
    for guess in ["", "00", &"0".repeat(64), &session] {
        assert!(is_refused(&engine.hello(hello(guess.to_owned(), vec![mac(1)])).await), "{guess}");
    }
    assert!(is_refused(&engine.hello(hello("1".repeat(64), vec![mac(9)])).await), "a stranger");
    assert_eq!(node(&engine, 1).await, before);
    assert!(engine.session(&session).is_ok(), "the agent that runs is left alone");
    let told = alarms(&engine).await;
    assert_eq!(told.len(), 2, "one a minute of each: {told:?}");
    assert_eq!((told[0].0.as_deref(), told[0].1), (Some("node-000001"), Severity::Error));
    assert!(told[0].2.contains("52:54:00:00:00:01") && told[1].0.is_none(), "{told:?}");
    assert_eq!(engine.alarms(Alarm::Nonce), 5, "all are counted");
}

#[tokio::test]
async fn a_nonce_that_was_used_is_worth_nothing() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let nonce = nonce(&engine, 1).await;
    let session = engine.hello(hello(nonce.clone(), vec![mac(1)])).await.unwrap().session;
    engine.put_inventory(&session, super::tests::inventory()).await.unwrap();
    assert!(is_refused(&engine.hello(hello(nonce.clone(), vec![mac(1)])).await));
    assert!(engine.session(&session).is_ok());
    // Not after the next boot either.
    self::nonce(&engine, 1).await;
    assert!(is_refused(&engine.hello(hello(nonce, vec![mac(1)])).await));
    assert!(engine.session(&session).is_err(), "the session ended with its boot");
    assert_eq!((alarms(&engine).await.len(), engine.alarms(Alarm::Nonce)), (1, 2));
}

#[tokio::test]
async fn a_nonce_is_no_other_machines() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    discovered(&engine, 2).await;
    let nonce = nonce(&engine, 1).await;
    // The neighbour has heard it on the wire, and says hello as itself, or with an address that nobody knows.
    for macs in [vec![mac(2)], vec![mac(7)], vec![]] {
        assert!(is_refused(&engine.hello(hello(nonce.clone(), macs)).await));
    }
    let mut other_board = hello(nonce.clone(), vec![mac(1)]);
    other_board.uuid = Some(uuid::Uuid::from_u128(0x5555));
    assert!(is_refused(&engine.hello(other_board).await));
    assert_eq!(engine.alarms(Alarm::Nonce), 4);
    assert_eq!(alarms(&engine).await[0].0.as_deref(), Some("node-000001"), "whose nonce it is");
    assert!(node(&engine, 1).await.link.session.is_none());
    // The machine itself is not kept out by that.
    engine.hello(hello(nonce, vec![mac(1)])).await.unwrap();
}

#[tokio::test]
async fn user_data_of_a_pool_waits_for_an_operator() {
    let scratch = Scratch::new();
    let mut settings = settings(&scratch);
    let config: crate::config::Config =
        toml::from_str("[[identity.pools]]\npool = \"default\"\nuser_data = \"t2\"\n").unwrap();
    settings.identity = crate::config::IdentitySettings::new(&config.identity).unwrap();
    let images = ::images::Store::open(settings.images_dir()).unwrap();
    let store = Store::open(&scratch.database()).unwrap();
    let engine = Engine::open(settings, store, images).await.unwrap();
    image(&engine).await;
    let session = discovered(&engine, 1).await;
    let it = node(&engine, 1).await;
    let request =
        DeployRequest { image: "tiny".into(), confirm: Some(it.name.clone()), ..DeployRequest::default() };
    let who = || Actor::Operator("ann".into());
    let it = engine.deploy(&it, who(), request, false, None).await.unwrap();
    assert_eq!(engine.next_work(&session, Duration::from_millis(50)).await.unwrap(), Work::Wait);
    let view = engine.view(&it).await;
    assert_eq!((view.trust.level, view.trust.needs), (Level::T1, Some(Level::T2)));
    assert!(view.waits_for.is_some_and(|words| words.contains("user data needs T2")));

    let waiting = tokio::spawn({
        let (engine, session) = (engine.clone(), session.clone());
        async move { engine.next_work(&session, Duration::from_secs(20)).await.unwrap() }
    });
    let approve = |boot| Event::Verb(Verb::ApproveBoot { boot, by: "ann".into() });
    assert!(engine.apply(it.id, who(), approve(it.epoch + 1)).await.is_err(), "another boot");
    engine.apply(it.id, who(), approve(it.epoch)).await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Work::Job { .. }));
    assert!(kinds(&engine).await.contains(&"identity.approved".to_owned()));
    // A new boot is a new question.
    let session = agent(&engine, 1).await;
    assert_eq!(engine.next_work(&session, Duration::from_millis(50)).await.unwrap(), Work::Wait);
}

#[tokio::test]
async fn a_tpm_that_proves_nothing_is_an_alarm() {
    use protocol::tpm::{Octets, TpmKeys, TpmProof};
    use protocol_tpm::public::Template;
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let session = discovered(&engine, 1).await;
    let octets = |n: usize| Octets(vec![7; n]);
    let proof = || TpmProof {
        opened: octets(32),
        quote: octets(100),
        signature: octets(64),
        pcrs: vec![protocol::Sha256([0; 32]); 16],
        log: None,
    };
    let no_proof = |error: Option<EngineError>| match error {
        Some(EngineError::NoProof { what }) => what,
        other => panic!("{other:?}"),
    };
    // Keys that are none, a key that is not on its curve, and a proof that nobody asked for.
    let keys = TpmKeys { ek: octets(90), ak: octets(90), certificate: None };
    assert!(no_proof(engine.challenge(&session, keys).await.err()).contains("keys"));
    let area = |template: Template| Octets(template.area());
    let keys = TpmKeys { ek: area(Template::EkEcc), ak: area(Template::Ak), certificate: None };
    assert!(no_proof(engine.challenge(&session, keys).await.err()).contains("keys"));
    assert!(no_proof(engine.prove(&session, proof()).await.err()).contains("late"));
    // One that could not open what was made for the endorsement key that it showed; and its challenge is used up.
    let modulus = [&area(Template::EkRsa).0[..58], &[0x81; 256]].concat();
    let ak = [&area(Template::Ak).0[..20], &[0, 32], &[1; 32], &[0, 32], &[2; 32]].concat();
    let keys = TpmKeys { ek: Octets(modulus), ak: Octets(ak), certificate: None };
    let challenge = engine.challenge(&session, keys).await.unwrap();
    assert_eq!((challenge.secret.0.len(), challenge.nonce.0.len()), (256, 32));
    assert!(no_proof(engine.prove(&session, proof()).await.err()).contains("open"));
    assert!(no_proof(engine.prove(&session, proof()).await.err()).contains("late"), "one try");
    assert_eq!(engine.alarms(Alarm::Quote), 5);
    assert!(kinds(&engine).await.contains(&"identity.quote".to_owned()));
    assert_eq!(node(&engine, 1).await.trust().level, Level::T1);
    assert!(
        engine
            .challenge("nobody", TpmKeys { ek: octets(1), ak: octets(1), certificate: None })
            .await
            .is_err()
    );
}
