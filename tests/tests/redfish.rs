//! The Redfish driver against the stand-in: everything of the trait, with the ways of each family of controllers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails in a helper fails the test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bmc::redfish::{Pin, Redfish, Transport, probe};
use bmc::{
    BiosAttributes, Bmc, BmcError, BootDevice, BootMode, BootOverride, ComponentKind, ErrorKind, Health,
    Identity, LogCursor, PowerAction, PowerState, Repeat, ResetKeys, Secret, Severity, Task, TaskState, Unit,
    Update,
};
use serde_json::json;
use tests::bmc::redfish::{PASSWORD, Profile, RedfishBmc, USER};
use tests::bmc::{Machine, MemoryMachine, ipmi, media};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest that a console may take to say something.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A controller of a profile, its machine and a driver that pinned its certificate.
struct Bench {
    profile: Profile,
    machine: MemoryMachine,
    bmc: RedfishBmc,
    driver: Redfish,
}

fn identity() -> Identity {
    Identity {
        serial: Some("CZJ0".into()),
        uuid: Some("4c4c4544-0042-3010-8051-b8c04f443333".into()),
        macs: vec!["52:54:00:12:34:56".parse().unwrap(), "52:54:00:12:34:57".parse().unwrap()],
        ..Identity::default()
    }
}

fn driver(bmc: &RedfishBmc, password: &str) -> Redfish {
    Redfish::new(bmc.options(password, Transport::Tls)).unwrap()
}

async fn bench(profile: Profile) -> Bench {
    let machine = MemoryMachine::new(identity());
    let bmc = RedfishBmc::start(profile.clone(), Arc::new(machine.clone()), ANY, true).await.unwrap();
    let driver = driver(&bmc, PASSWORD);
    if profile.password_change {
        assert_eq!(driver.power_state().await.unwrap_err().kind(), ErrorKind::Forbidden);
        driver.change_password(&Secret("another-password".into())).await.unwrap();
    }
    Bench { profile, machine, bmc, driver }
}

/// Runs a check against each profile; a failure names the profile.
async fn with_each<F: AsyncFn(&Bench)>(check: F) {
    let profiles = Profile::all().unwrap();
    assert_eq!(profiles.len(), 7);
    for profile in profiles {
        println!("profile {}", profile.name);
        let bench = bench(profile).await;
        check(&bench).await;
        bench.driver.close().await;
        assert_eq!(bench.bmc.sessions(), 0, "a session is left at {}", bench.profile.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_sends_no_credential_and_tells_the_certificate() {
    for profile in Profile::all().unwrap() {
        let machine = MemoryMachine::new(identity());
        let bmc = RedfishBmc::start(profile.clone(), Arc::new(machine), ANY, true).await.unwrap();
        let found = probe(&bmc.url(), Transport::Tls).await.unwrap();
        assert_eq!(found.certificate, bmc.certificate().map(|der| Pin::of(&der)));
        assert_eq!(found.vendor, profile.vendor);
        assert_eq!(found.redfish_version.as_ref(), Some(&profile.version));
        assert!(!bmc.seen().is_empty() && bmc.seen().iter().all(|seen| !seen.credential));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_profile() {
    with_each(async |b| {
        let found = b.driver.identity().await.unwrap();
        assert_eq!(found.manufacturer, b.profile.manufacturer);
        assert_eq!(found.model, b.profile.model);
        assert_eq!(
            (found.serial, found.uuid, found.macs),
            (identity().serial, identity().uuid, identity().macs)
        );
        assert_eq!(found.bmc_version.as_deref(), Some("7.00.30.00"));
        assert_eq!(found.profile.as_ref(), Some(&b.profile.driver_profile));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power() {
    with_each(async |b| {
        let has = |value: &str| b.profile.reset.values.iter().any(|v| v == value);
        assert_eq!(b.driver.power_state().await.unwrap(), PowerState::Off);
        b.driver.power(PowerAction::ForceOff).await.unwrap();
        assert!(b.machine.actions().is_empty(), "nothing is asked of a machine that is off already");
        b.driver.power(PowerAction::On).await.unwrap();
        assert_eq!(b.driver.power_state().await.unwrap(), PowerState::On);
        for (action, values) in [
            (PowerAction::Reset, &["ForceRestart"][..]),
            (PowerAction::Cycle, &["PowerCycle"]),
            (PowerAction::Nmi, &["Nmi"]),
            (PowerAction::SoftOff, &["GracefulShutdown", "PushPowerButton"]),
        ] {
            let before = b.machine.actions().len();
            let result = b.driver.power(action).await;
            if values.iter().any(|v| has(v)) {
                result.unwrap();
                assert_eq!(b.machine.actions().last(), Some(&action));
            } else {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported, "{action:?}");
                assert_eq!(b.machine.actions().len(), before, "what is not allowable is not tried");
            }
        }
        b.driver.power(PowerAction::ForceOff).await.unwrap();
        assert_eq!(b.driver.power_state().await.unwrap(), PowerState::Off);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_override() {
    with_each(async |b| {
        let boot = &b.profile.boot;
        let listed =
            |names: &[&str]| boot.targets.iter().chain(&boot.unlisted).any(|t| names.contains(&t.as_str()));
        for (device, names) in [
            (BootDevice::Pxe, &["Pxe"][..]),
            (BootDevice::Http, &["UefiHttp"]),
            (BootDevice::Disk, &["Hdd"]),
            (BootDevice::Cdrom, &["Cd", "UsbCd"]),
            (BootDevice::Bios, &["BiosSetup"]),
        ] {
            for repeat in [Repeat::Once, Repeat::Always] {
                let wanted = BootOverride { device, repeat, mode: Some(BootMode::Uefi), http_uri: None };
                let result = b.driver.set_boot_override(&wanted).await;
                if !listed(names) {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported, "{device:?}");
                    continue;
                }
                result.unwrap();
                assert_eq!(b.driver.boot_override().await.unwrap(), wanted);
                assert_eq!(b.machine.boot_override().mode, Some(BootMode::Uefi), "the mode stays UEFI");
            }
        }
        let uri = Some("http://192.0.2.1/ipxe.efi".to_owned());
        let http = BootOverride { device: BootDevice::Http, repeat: Repeat::Once, mode: None, http_uri: uri };
        let result = b.driver.set_boot_override(&http).await;
        if boot.http_uri {
            result.unwrap();
            assert_eq!(b.driver.boot_override().await.unwrap().http_uri, http.http_uri);
        } else {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
        }
        // An old URI does not stay for the next time.
        let none =
            BootOverride { device: BootDevice::None, repeat: Repeat::Once, mode: None, http_uri: None };
        b.driver.set_boot_override(&none).await.unwrap();
        assert_eq!(b.driver.boot_override().await.unwrap().device, BootDevice::None);
        let legacy = BootOverride { mode: Some(BootMode::Legacy), device: BootDevice::Pxe, ..none };
        let result = b.driver.set_boot_override(&legacy).await;
        if boot.uefi_only {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Refused);
        } else {
            result.unwrap();
            assert_eq!(b.driver.boot_override().await.unwrap().mode, Some(BootMode::Legacy));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sensors_and_parts() {
    with_each(async |b| {
        let late = b.profile.late.iter().any(|l| l == "Memory");
        let memory = async || {
            let parts = b.driver.components().await.unwrap();
            parts.into_iter().filter(|p| p.kind == ComponentKind::Memory).collect::<Vec<_>>()
        };
        assert_eq!(
            memory().await.is_empty(),
            late,
            "what the host has not reported yet is missing, not wrong"
        );
        b.driver.power(PowerAction::On).await.unwrap();
        let memory = memory().await;
        assert_eq!(memory.len(), 3, "the empty slot is none: {memory:?}");
        let warning = memory.iter().find(|m| m.health == Health::Warning).unwrap();
        assert_eq!(warning.location.as_deref(), Some("PROC 1 DIMM2"));
        assert_eq!(warning.part_number.as_deref(), Some("M393A4K40DB3-CWE"));
        let parts = b.driver.components().await.unwrap();
        let drive =
            parts.iter().find(|p| p.kind == ComponentKind::Drive && p.health == Health::Critical).unwrap();
        assert_eq!((drive.location.as_deref(), drive.serial.as_deref()), (Some("Bay 1"), Some("D1")));
        for kind in [
            ComponentKind::System,
            ComponentKind::Processor,
            ComponentKind::Fan,
            ComponentKind::PowerSupply,
            ComponentKind::Bmc,
        ] {
            assert!(parts.iter().any(|p| p.kind == kind), "{kind:?} in {parts:?}");
        }
        let readings = b.driver.readings().await.unwrap();
        let of = |unit: Unit| readings.iter().find(|r| r.unit == unit).and_then(|r| r.value);
        assert!(of(Unit::Celsius).is_some_and(|v| (23.0..24.0).contains(&v)), "{readings:?}");
        assert!(of(Unit::Rpm).is_some_and(|v| v > 2000.0), "{readings:?}");
        assert!(of(Unit::Watt).is_some_and(|v| v > 100.0), "{readings:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_log() {
    with_each(async |b| {
        assert!(b.driver.log(None).await.unwrap().is_empty());
        for n in 0..70 {
            let severity = if n == 69 { "Critical" } else { "OK" };
            let at = format!("2026-01-02T03:{:02}:{:02}+00:00", n / 60, n % 60);
            b.bmc.write_log(&at, severity, &format!("event {n}"));
        }
        let lines = b.driver.log(None).await.unwrap();
        let words: Vec<_> = lines.iter().map(|l| l.message.clone()).collect();
        assert_eq!(
            words,
            (0..70).map(|n| format!("event {n}")).collect::<Vec<_>>(),
            "oldest first, all pages"
        );
        let last = lines.last().unwrap();
        assert_eq!(last.severity, Severity::Critical);
        let cursor = LogCursor { id: last.id.clone(), at: last.at };
        assert!(b.driver.log(Some(&cursor)).await.unwrap().is_empty());
        b.bmc.write_log("2026-01-02T04:00:00+00:00", "Warning", "one more");
        let new = b.driver.log(Some(&cursor)).await.unwrap();
        assert_eq!(new.iter().map(|l| l.message.as_str()).collect::<Vec<_>>(), ["one more"]);
        b.driver.clear_log().await.unwrap();
        assert!(b.driver.log(None).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identify_light_and_controller_restart() {
    with_each(async |b| {
        let light = |b: &Bench| {
            b.profile.led.as_ref().and_then(|l| b.bmc.property(&b.bmc.system(), &format!("/{l}")))
        };
        let result = b.driver.identify(true).await;
        match b.profile.led.as_deref() {
            None => assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported),
            Some(_) => {
                result.unwrap();
                let on = light(b).unwrap();
                assert!(on == json!(true) || on == json!("Lit") || on == json!("Blinking"), "{on}");
                b.driver.identify(false).await.unwrap();
                let off = light(b).unwrap();
                assert!(off == json!(false) || off == json!("Off"), "{off}");
            }
        }
        b.driver.reset_bmc().await.unwrap();
        assert_eq!(b.bmc.restarts(), 1);
        // The session went with it; the driver logs in once more, by itself.
        assert_eq!(b.driver.power_state().await.unwrap(), PowerState::Off);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_media() {
    let image = b"an image of a CD".repeat(1000);
    let url = media::serve("node.iso", image.clone()).unwrap();
    with_each(async |b| {
        let url = &url;
        if b.profile.media.is_none() {
            assert_eq!(b.driver.insert_media(url).await.unwrap_err().kind(), ErrorKind::Unsupported);
            return;
        }
        assert_eq!(b.driver.media().await.unwrap().image, None);
        b.driver.eject_media().await.unwrap();
        b.driver.insert_media(url).await.unwrap();
        assert_eq!(b.driver.media().await.unwrap().image.as_ref(), Some(url));
        let file = b.machine.media().expect("the machine has it in its drive");
        assert_eq!(std::fs::read(file).unwrap(), image);
        // In place of what is there.
        b.driver.insert_media(&format!("{url}?second")).await.unwrap();
        assert_eq!(b.driver.media().await.unwrap().image, Some(format!("{url}?second")));
        b.driver.eject_media().await.unwrap();
        assert_eq!(b.driver.media().await.unwrap().image, None);
        assert_eq!(b.machine.media(), None);
        let error = b.driver.insert_media("http://127.0.0.1:1/none.iso").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_and_updates() {
    let directory = std::env::temp_dir().join(format!("billet-push-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("bios.bin");
    std::fs::write(&path, vec![7; 3 << 20]).unwrap();
    with_each(async |b| {
        let items = b.driver.firmware().await.unwrap();
        let bios = items.iter().find(|i| i.name == "BIOS").unwrap();
        assert_eq!((bios.version.as_deref(), bios.updateable), (Some("2.19.1"), true));
        let targets = vec![bios.id.clone()];
        let pull = Update::Pull { url: "http://192.0.2.1/bios.bin".into(), targets: targets.clone() };
        let task = b.driver.update(&pull).await.unwrap();
        assert_eq!(task.state, TaskState::Running);
        assert_eq!(follow(b, task).await.state, TaskState::Completed);
        let push = Update::Push { name: "bios.bin".into(), path: path.clone(), targets };
        let result = b.driver.update(&push).await;
        if !b.profile.update.multipart {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
            return;
        }
        assert_eq!(follow(b, result.unwrap()).await.state, TaskState::Completed);
        let pushed = b.bmc.pushed();
        assert!(matches!(&pushed[..], [one] if one.octets > 3 << 20), "{pushed:?}");
        assert!(b.driver.task("https://192.0.2.9/redfish/v1/TaskService/Tasks/1").await.is_err());
    })
    .await;
    std::fs::remove_dir_all(directory).unwrap();
}

async fn follow(b: &Bench, mut task: Task) -> Task {
    for _ in 0..100 {
        if task.state != TaskState::Running {
            return task;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        task = b.driver.task(&task.id).await.unwrap();
    }
    panic!("the task does not end: {task:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn bios_and_secure_boot() {
    with_each(async |b| {
        let secure = b.driver.secure_boot().await.unwrap();
        assert!(!secure.current && !secure.enabled);
        b.driver.set_secure_boot(true).await.unwrap();
        let secure = b.driver.secure_boot().await.unwrap();
        assert!(!secure.current && secure.enabled, "in force after the next restart");
        for to in [ResetKeys::Default, ResetKeys::DeleteAll, ResetKeys::DeletePk] {
            b.driver.reset_secure_boot_keys(to).await.unwrap();
        }
        if b.profile.late.iter().any(|l| l == "Bios") {
            assert_eq!(b.driver.bios().await.unwrap_err().kind(), ErrorKind::Unsupported);
            b.driver.power(PowerAction::On).await.unwrap();
        }
        let Some(bios) = &b.profile.bios else {
            assert_eq!(b.driver.bios().await.unwrap_err().kind(), ErrorKind::Unsupported);
            return;
        };
        assert_eq!(b.driver.bios().await.unwrap().0.get("NumCores"), Some(&json!(16)));
        let settings = format!("{}/Bios/{}", b.bmc.system(), bios.settings);
        for cores in [8, 4] {
            let changes = BiosAttributes([("NumCores".to_owned(), json!(cores))].into());
            b.driver.set_bios(&changes).await.unwrap();
            assert_eq!(b.bmc.property(&settings, "/Attributes/NumCores"), Some(json!(cores)));
        }
        let unknown = BiosAttributes([("NumCoresX".to_owned(), json!(1))].into());
        assert!(b.driver.set_bios(&unknown).await.unwrap_err().to_string().contains("NumCoresX"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_passwords_and_subscriptions() {
    with_each(async |b| {
        let path = b.driver.subscribe("https://192.0.2.1/events", "node-1").await.unwrap();
        let again = b.driver.subscribe("https://192.0.2.1/events", "node-1").await.unwrap();
        assert_eq!(again.trim_end_matches('/'), path, "one is enough");
        b.driver.unsubscribe(&path).await.unwrap();
        b.driver.unsubscribe(&path).await.unwrap();
        assert_eq!(b.bmc.sessions(), 1, "one session, however many requests");
        let before = b.bmc.connections();
        for _ in 0..20 {
            b.driver.power_state().await.unwrap();
        }
        assert_eq!(b.bmc.connections(), before, "a TLS handshake costs a controller seconds");
        b.driver.change_password(&Secret("a-third-password".into())).await.unwrap();
        b.bmc.restart();
        b.driver.power_state().await.unwrap();
        let refused = b.driver.change_password(&Secret("short".into())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        b.driver.power_state().await.unwrap();
        // A wrong password is tried once per call, because each try counts for the lock-out.
        let wrong = driver(&b.bmc, "wrong");
        let before = b.bmc.logins_refused();
        assert!(matches!(wrong.power_state().await.unwrap_err(), BmcError::Login));
        assert_eq!(b.bmc.logins_refused(), before + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_without_room_for_a_session_is_busy() {
    let b = bench(Profile::named("standard").unwrap()).await;
    b.driver.power_state().await.unwrap();
    let others: Vec<_> = (0..7).map(|_| driver(&b.bmc, PASSWORD)).collect();
    for other in &others {
        other.power_state().await.unwrap();
    }
    let late = driver(&b.bmc, PASSWORD);
    assert_eq!(late.power_state().await.unwrap_err().kind(), ErrorKind::Busy);
    others[0].close().await;
    late.power_state().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fans_of_early_services() {
    let b = bench(Profile::named("dell-idrac9").unwrap()).await;
    let readings = b.driver.readings().await.unwrap();
    let fan = readings.iter().find(|r| r.name == "Fan 2").unwrap();
    assert_eq!((fan.unit, fan.value, fan.health), (Unit::Percent, Some(17.0), Some(Health::Critical)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_in_post_is_busy() {
    let b = bench(Profile::named("hpe-ilo5").unwrap()).await;
    b.bmc.in_post(true);
    let pxe = BootOverride { device: BootDevice::Pxe, repeat: Repeat::Once, mode: None, http_uri: None };
    let error = b.driver.set_boot_override(&pxe).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.is_transient());
}

/// Reads until `wanted` came.
async fn read_until(console: &mut Box<dyn bmc::Console>, wanted: &str) {
    let mut said = Vec::new();
    let mut octets = [0; 512];
    while !String::from_utf8_lossy(&said).contains(wanted) {
        let count = tokio::time::timeout(PATIENCE, console.read(&mut octets)).await.unwrap().unwrap();
        assert!(count > 0, "it ended after {:?}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&octets[..count]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_console_comes_by_ssh_with_a_pinned_key() {
    let Bench { machine, bmc, driver, .. } = bench(Profile::named("standard").unwrap()).await;
    let none = driver.console().await.map(drop).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Unsupported, "nothing is said of one");
    machine.power(PowerAction::On).unwrap();
    for command in [None, Some("start /SP/console")] {
        let (_, serving) = bmc.serve_console(command, 7, ANY).await.unwrap();
        let mut console = driver.console().await.unwrap();
        // It is echoed only once the line is the machine's.
        console.write_all(b"hello\r").await.unwrap();
        read_until(&mut console, "hello").await;
        drop(console);
        serving.abort();
    }
    let known = driver.host_key().unwrap();
    assert!(known.starts_with("SHA256:"), "{known}");
    let (_, serving) = bmc.serve_console(None, 8, ANY).await.unwrap();
    let other = driver.console().await.map(drop).unwrap_err();
    assert!(matches!(&other, BmcError::HostKey { pinned, .. } if *pinned == known), "{other}");
    assert_eq!(other.kind(), ErrorKind::Certificate);
    serving.abort();
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_console_comes_by_ipmi_where_the_service_says_so() {
    let Bench { machine, bmc, driver, .. } = bench(Profile::named("standard").unwrap()).await;
    let plan = ipmi::Plan::new(USER, PASSWORD);
    let endpoint = ipmi::Endpoint::here(plan, Arc::new(machine.clone())).unwrap();
    let port = endpoint.address().port();
    bmc.set_console(
        json!({ "SSH": { "ServiceEnabled": false }, "IPMI": { "ServiceEnabled": true, "Port": port } }),
    );
    machine.power(PowerAction::On).unwrap();
    let mut console = driver.console().await.unwrap();
    console.write_all(b"by ipmi").await.unwrap();
    read_until(&mut console, "by ipmi").await;
    driver.close().await;
}
