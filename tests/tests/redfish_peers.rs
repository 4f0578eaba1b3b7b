//! The Redfish driver against what others wrote: the emulator of OpenStack's sushy-tools, and the resource samples of
//! sushy. Both come from the Python package index into `target/`; without it these tests are skipped.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmc::redfish::{Options, Redfish, Transport, probe};
use bmc::{
    Bmc, BootDevice, BootMode, BootOverride, ComponentKind, Credentials, ErrorKind, Health, PowerAction,
    PowerState, Repeat, Secret, Unit,
};
use serde_json::Value;
use tests::bmc::sushy::{Emulator, PASSWORD, Plan, USER, environment};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Longest that the emulator's FAKE driver takes to change power: it waits for 1 s to 11 s by chance.
const FAKE_POWER: Duration = Duration::from_secs(14);

/// The emulator with its FAKE driver, and its address.
fn emulator(environment: &Path, directory: &Path) -> (Emulator, String) {
    let plan = Plan {
        environment,
        directory,
        address: TcpListener::bind(ANY).unwrap().local_addr().unwrap(),
        settings: "SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{'uuid': \
                   '27946b59-9e44-4fa7-8e91-f3527a1ef094', 'name': 'fake', 'power_state': 'Off', \
                   'external_notifier': False, 'nics': [{'mac': '00:5c:52:31:3a:9c', 'ip': '172.22.0.100'}]}]\n",
    };
    let mut emulator = Emulator::start(&plan, Command::new("env")).unwrap();
    emulator.wait_ready().unwrap();
    (emulator, format!("https://{}", plan.address))
}

fn driver(url: &str, user: &str, password: &str, transport: Transport) -> Redfish {
    let credentials = Credentials { user: user.into(), password: Secret(password.into()) };
    Redfish::new(Options::new(url, credentials, transport)).unwrap()
}

async fn until(driver: &Redfish, wanted: PowerState) {
    let begin = Instant::now();
    while driver.power_state().await.unwrap() != wanted {
        assert!(begin.elapsed() < FAKE_POWER, "power is never {wanted:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sushy_tools_emulator() {
    let Some(environment) = environment().unwrap() else {
        println!("skipped: no sushy-tools (python3-venv and the Python package index are needed)");
        return;
    };
    let directory = std::env::temp_dir().join(format!("billet-sushy-{}", std::process::id()));
    let (_emulator, url) = emulator(&environment, &directory);
    let found = probe(&url, Transport::Tls).await.unwrap();
    assert_eq!(found.redfish_version.as_deref(), Some("1.5.0"));
    let wrong = driver(&url, USER, "wrong", Transport::Tls);
    assert_eq!(wrong.power_state().await.unwrap_err().kind(), ErrorKind::Login);
    let driver = driver(&url, USER, PASSWORD, Transport::Tls);
    assert_eq!(driver.power_state().await.unwrap(), PowerState::Off);
    assert_eq!(driver.certificate(), found.certificate);
    let identity = driver.identity().await.unwrap();
    assert_eq!(identity.uuid.as_deref(), Some("27946b59-9e44-4fa7-8e91-f3527a1ef094"));
    assert_eq!(identity.macs, vec!["00:5c:52:31:3a:9c".parse().unwrap()]);
    for (device, mode) in [(BootDevice::Pxe, BootMode::Legacy), (BootDevice::Cdrom, BootMode::Uefi)] {
        let wanted = BootOverride { device, repeat: Repeat::Always, mode: Some(mode), http_uri: None };
        driver.set_boot_override(&wanted).await.unwrap();
        let found = driver.boot_override().await.unwrap();
        assert_eq!((found.device, found.repeat, found.mode), (device, Repeat::Always, Some(mode)));
    }
    driver.power(PowerAction::On).await.unwrap();
    until(&driver, PowerState::On).await;
    driver.power(PowerAction::Reset).await.unwrap();
    until(&driver, PowerState::On).await;
    driver.power(PowerAction::ForceOff).await.unwrap();
    until(&driver, PowerState::Off).await;
    driver.close().await;
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sushy_samples_are_understood() {
    let Some(environment) = environment().unwrap() else {
        println!("skipped: no sushy (python3-venv and the Python package index are needed)");
        return;
    };
    let samples = samples(&environment);
    assert!(samples.len() > 60, "{}", samples.len());
    let driver = driver(&serve(samples), "admin", "password", Transport::PlainAllowed);
    let identity = driver.identity().await.unwrap();
    assert_eq!(identity.manufacturer.as_deref(), Some("Contoso"));
    assert_eq!(identity.serial.as_deref(), Some("437XR1138R2"));
    assert!(!identity.macs.is_empty());
    assert_eq!(driver.power_state().await.unwrap(), PowerState::On);
    let boot = driver.boot_override().await.unwrap();
    assert_eq!((boot.device, boot.repeat), (BootDevice::Pxe, Repeat::Once));
    let parts = driver.components().await.unwrap();
    assert!(parts.iter().any(|p| p.kind == ComponentKind::Processor && p.health == Health::Ok), "{parts:?}");
    assert!(parts.iter().any(|p| p.kind == ComponentKind::Drive), "{parts:?}");
    let readings = driver.readings().await.unwrap();
    for unit in [Unit::Celsius, Unit::Rpm, Unit::Watt] {
        assert!(readings.iter().any(|r| r.unit == unit && r.value.is_some()), "{unit:?} in {readings:?}");
    }
    let image = driver.media().await.unwrap().image;
    assert_eq!(image.as_deref(), Some("redfish.dmtf.org/freeImages/freeOS.1.1.iso"));
    assert!(!driver.bios().await.unwrap().0.is_empty());
    let secure_boot = driver.secure_boot().await.unwrap();
    assert!(!secure_boot.enabled);
    assert!(!driver.firmware().await.unwrap().is_empty());
    driver.close().await;
}

/// Samples of one path that are variants for other tests of sushy.
const LEFT_OUT: [&str; 2] = ["bare_minimum_root.json", "updateservice_no_inv.json"];
/// The samples are of several machines; these links of the system lead to another's.
const MOVED: [(&str, &str); 5] = [
    ("/redfish/v1/Chassis/1U", "chassis.json"),
    ("/redfish/v1/Chassis/1U/Power", "power.json"),
    ("/redfish/v1/Systems/437XR1138R2/Bios", "bios.json"),
    ("/redfish/v1/Managers/BMC/VirtualMedia/Floppy1", "virtual_mediav1_6.json"),
    ("/redfish/v1/UpdateService/FirmwareInventory/Current-101560-25.5.6.0009", "softwareinventory.json"),
];

/// The samples by the path that each names; of several with one path the first by file name.
fn samples(environment: &Path) -> BTreeMap<String, Value> {
    let library = std::fs::read_dir(environment.join("lib")).unwrap().next().unwrap().unwrap().path();
    let directory = library.join("site-packages/sushy/tests/unit/json_samples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut samples = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
        let name = file.file_name().unwrap().to_string_lossy();
        for (path, _) in MOVED.iter().filter(|(_, moved)| *moved == name) {
            let mut value = value.clone();
            if *path == "/redfish/v1/Chassis/1U" {
                value["Power"] = serde_json::json!({ "@odata.id": "/redfish/v1/Chassis/1U/Power" });
            }
            samples.insert((*path).to_owned(), value);
        }
        if LEFT_OUT.contains(&&*name) {
            continue;
        }
        if let Some(path) = value.get("@odata.id").and_then(Value::as_str) {
            samples.entry(path.trim_end_matches('/').to_owned()).or_insert(value);
        }
    }
    samples
}

/// A service that only reads: samples by path, a session for everybody.
fn serve(samples: BTreeMap<String, Value>) -> String {
    let listener = TcpListener::bind(ANY).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let samples = Arc::new(samples);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let samples = samples.clone();
            std::thread::spawn(move || answer(stream.unwrap(), &samples));
        }
    });
    url
}

fn answer(stream: TcpStream, samples: &BTreeMap<String, Value>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() < 3 {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default().trim_end_matches('/');
    let (status, more, body) = match (method, samples.get(path)) {
        ("POST", _) => (
            "201 Created",
            "X-Auth-Token: t\r\nLocation: /redfish/v1/SessionService/Sessions/1\r\n",
            "{}".to_owned(),
        ),
        ("DELETE", _) => ("204 No Content", "", String::new()),
        ("GET", Some(value)) => ("200 OK", "", value.to_string()),
        _ => ("404 Not Found", "", "{}".to_owned()),
    };
    let head =
        format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut stream = stream;
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}
