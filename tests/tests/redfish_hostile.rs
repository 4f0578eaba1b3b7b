//! Controllers that were taken over, or are broken: each call ends with a named error within 30 s, no credential
//! leaves for another host, and memory stays flat.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails in a helper fails the test")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bmc::redfish::{Options, Pin, Redfish, Transport, probe};
use bmc::{
    Bmc, BmcError, BootDevice, BootOverride, ErrorKind, Identity, PowerAction, PowerState, Repeat, Update,
};
use tests::bmc::redfish::{Fault, PASSWORD, Profile, RedfishBmc};
use tests::bmc::{Machine, MemoryMachine};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// What the driver may need for one answer of 8 MiB, with the stand-in that makes it in the same process.
const MEMORY: usize = 96 << 20;

/// Another host: a real listener that counts who comes.
struct OtherHost {
    url: String,
    came: Arc<AtomicUsize>,
}

impl OtherHost {
    fn start() -> Self {
        let listener = TcpListener::bind(ANY).unwrap();
        let url = format!("http://{}/redfish/v1/Systems", listener.local_addr().unwrap());
        let came = Arc::new(AtomicUsize::new(0));
        let counter = came.clone();
        std::thread::spawn(move || {
            for _ in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { url, came }
    }
}

async fn start(fault: Fault, tls: bool) -> (RedfishBmc, Redfish, MemoryMachine) {
    let profile = Profile::named("standard").unwrap();
    let machine = MemoryMachine::new(Identity::default());
    let bmc = RedfishBmc::start(profile, Arc::new(machine.clone()), ANY, tls).await.unwrap();
    bmc.fault(fault);
    let driver = driver(&bmc);
    (bmc, driver, machine)
}

fn driver(bmc: &RedfishBmc) -> Redfish {
    Redfish::new(bmc.options(PASSWORD, Transport::PlainAllowed)).unwrap()
}

/// Calls of the trait, by name, so that the table is data.
async fn call(driver: &Redfish, name: &str) -> Result<String, BmcError> {
    let pxe = BootOverride { device: BootDevice::Pxe, repeat: Repeat::Once, mode: None, http_uri: None };
    let pull = Update::Pull { url: "http://192.0.2.1/x".into(), targets: Vec::new() };
    match name {
        "power_state" => driver.power_state().await.map(|v| format!("{v:?}")),
        "power" => driver.power(PowerAction::On).await.map(|()| String::new()),
        "set_boot_override" => driver.set_boot_override(&pxe).await.map(|()| String::new()),
        "boot_override" => driver.boot_override().await.map(|v| format!("{:?}", v.device)),
        "identity" => driver.identity().await.map(|v| format!("{v:?}")),
        "components" => driver.components().await.map(|v| v.len().to_string()),
        "readings" => driver.readings().await.map(|v| v.len().to_string()),
        "log" => driver.log(None).await.map(|v| v.len().to_string()),
        "firmware" => driver.firmware().await.map(|v| v.len().to_string()),
        "bios" => driver.bios().await.map(|v| v.0.len().to_string()),
        "update" => driver.update(&pull).await.map(|v| v.id),
        other => panic!("no call {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ends_with_a_named_error_and_nothing_leaves() {
    let other = OtherHost::start();
    let to = || other.url.clone();
    let metadata = || "http://169.254.169.254/latest/meta-data/iam/".to_owned();
    let table = [
        (Fault::Hang, "power_state", ErrorKind::TimedOut),
        (Fault::SlowBody, "power_state", ErrorKind::TimedOut),
        (Fault::JunkTls, "power_state", ErrorKind::Tls),
        (Fault::NoHttp, "power_state", ErrorKind::Malformed),
        (Fault::HugeBody, "power_state", ErrorKind::TooLarge),
        (Fault::HugeChunkedBody, "power_state", ErrorKind::TooLarge),
        (Fault::ManyObjects, "power_state", ErrorKind::Malformed),
        (Fault::DeepJson, "power_state", ErrorKind::Malformed),
        (Fault::RedirectTo(metadata()), "power_state", ErrorKind::OtherOrigin),
        (Fault::RedirectTo(to()), "power_state", ErrorKind::OtherOrigin),
        (Fault::RedirectTo("//169.254.169.254/".into()), "power_state", ErrorKind::OtherOrigin),
        (Fault::RedirectTo("/redfish/v1/Systems".into()), "power_state", ErrorKind::Malformed),
        (Fault::RedirectChangesTo(to()), "power_state", ErrorKind::OtherOrigin),
        (Fault::RedirectChangesTo(metadata()), "power", ErrorKind::OtherOrigin),
        (Fault::NextLinkTo(to()), "firmware", ErrorKind::OtherOrigin),
        (Fault::NextLinkTo(to()), "power_state", ErrorKind::OtherOrigin),
        (Fault::MembersAt(to()), "power_state", ErrorKind::OtherOrigin),
        (Fault::SessionAt(to()), "power_state", ErrorKind::OtherOrigin),
        (Fault::ActionsAt(to()), "power", ErrorKind::OtherOrigin),
        (Fault::TasksAt(to()), "update", ErrorKind::OtherOrigin),
        (Fault::WrongTypes, "power_state", ErrorKind::Malformed),
        (Fault::WrongTypes, "boot_override", ErrorKind::Malformed),
        (Fault::WrongTypes, "set_boot_override", ErrorKind::Malformed),
        (Fault::WrongTypes, "identity", ErrorKind::Malformed),
        (Fault::WrongTypes, "readings", ErrorKind::Malformed),
        (Fault::WrongTypes, "components", ErrorKind::Malformed),
        (Fault::WrongTypes, "bios", ErrorKind::Malformed),
    ];
    reset_peak();
    let before = peak();
    let cases = table.map(|(fault, name, kind)| async move {
        let (bmc, driver, _) = start(Fault::None, true).await;
        // What is wrong in resources is met by the call itself, not on the way to them.
        if fault == Fault::WrongTypes {
            driver.power_state().await.unwrap();
        }
        bmc.fault(fault.clone());
        let begin = Instant::now();
        let result = call(&driver, name).await;
        let took = begin.elapsed();
        drop(bmc);
        let error = result.map(|v| panic!("{fault:?}, {name}: {v}")).unwrap_err();
        println!("{:>6} ms  {name}  {fault:?}: {error}", took.as_millis());
        assert_eq!(error.kind(), kind, "{fault:?}, {name}: {error}");
        assert!(took < Duration::from_secs(30), "{fault:?}, {name}: {took:?}");
        assert!(!error.to_string().contains(PASSWORD));
    });
    futures_util::future::join_all(cases).await;
    let grown = peak().saturating_sub(before);
    println!("memory grew by {} KiB", grown >> 10);
    assert!(grown < MEMORY, "memory grew by {} MiB", grown >> 20);
    assert_eq!(other.came.load(Ordering::SeqCst), 0, "somebody came to the other host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_ends_it_before_any_http() {
    let (bmc, driver, _) = start(Fault::None, true).await;
    driver.power_state().await.unwrap();
    driver.close().await;
    let before = bmc.seen().len();
    bmc.change_certificate().unwrap();
    let error = driver.power_state().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Certificate, "{error}");
    let shown = Pin::of(&bmc.certificate().unwrap()).to_string();
    assert!(error.to_string().contains(&shown));
    assert_eq!(bmc.seen().len(), before, "nothing was sent");
    // Without a pin the first certificate is taken and reported, and held to from then on.
    let first = Redfish::new(Options { pin: None, ..bmc.options(PASSWORD, Transport::Tls) }).unwrap();
    assert_eq!(first.certificate(), None);
    first.power_state().await.unwrap();
    assert_eq!(first.certificate().unwrap().to_string(), shown);
    first.close().await;
    bmc.change_certificate().unwrap();
    assert_eq!(first.power_state().await.unwrap_err().kind(), ErrorKind::Certificate);
    probe(&bmc.url(), Transport::Tls).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_tomorrow_are_no_error() {
    let (bmc, driver, _) = start(Fault::None, true).await;
    bmc.write_log("2026-01-02T03:04:05Z", "OK", "an event");
    bmc.fault(Fault::UnknownEnums);
    assert_eq!(driver.power_state().await.unwrap(), PowerState::Unknown);
    assert_eq!(driver.boot_override().await.unwrap().device, BootDevice::None);
    assert!(driver.components().await.unwrap().is_empty());
    assert!(!driver.readings().await.unwrap().is_empty());
    assert_eq!(driver.log(None).await.unwrap().len(), 1);
    driver.identity().await.unwrap();
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_seen_by_looking_again() {
    let (bmc, driver, machine) = start(Fault::Lies, true).await;
    driver.power(PowerAction::On).await.unwrap();
    assert_eq!(driver.power_state().await.unwrap(), PowerState::Off, "204, and nothing happened");
    let pxe = BootOverride { device: BootDevice::Pxe, repeat: Repeat::Once, mode: None, http_uri: None };
    driver.set_boot_override(&pxe).await.unwrap();
    assert_eq!(driver.boot_override().await.unwrap().device, BootDevice::None);
    assert_eq!(machine.power_state(), PowerState::Off);
    drop(bmc);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_between_is_met_by_reading_once_more() {
    let (bmc, driver, machine) = start(Fault::None, true).await;
    driver.power_state().await.unwrap();
    bmc.fault(Fault::ChangedBetween);
    let pxe = BootOverride { device: BootDevice::Pxe, repeat: Repeat::Once, mode: None, http_uri: None };
    driver.set_boot_override(&pxe).await.unwrap();
    assert_eq!(machine.boot_override().device, BootDevice::Pxe);
    let patches = bmc.seen().iter().filter(|s| s.line.starts_with("PATCH")).count();
    assert_eq!(patches, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_only_where_it_is_allowed() {
    let (bmc, driver, _) = start(Fault::None, false).await;
    assert_eq!(driver.power_state().await.unwrap(), PowerState::Off);
    assert_eq!(driver.certificate(), None);
    assert!(probe(&bmc.url(), Transport::Tls).await.unwrap_err().to_string().contains("https"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_survived_by_one_new_login() {
    let (bmc, driver, _) = start(Fault::None, true).await;
    for _ in 0..3 {
        driver.power_state().await.unwrap();
        bmc.restart();
        driver.power(PowerAction::On).await.unwrap();
    }
    let logins =
        bmc.seen().iter().filter(|s| s.line.starts_with("POST") && s.line.contains("Sessions")).count();
    assert_eq!(logins, 4, "one at first, and one after each restart");
    assert_eq!(bmc.sessions(), 1);
}

/// Peak of resident memory, in octets (proc(5), `VmHWM`).
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() << 10
}

/// Sets the peak to what is used now.
fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}
