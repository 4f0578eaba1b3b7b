//! IPMI against others: our driver against OpenIPMI's `ipmi_sim`, which has cipher suite 3 only, and `ipmitool` against our
//! stand-in with suites 3 and 17. What both say of one controller must agree.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails a test")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmc::ipmi::suite::{Algorithms, Suite};
use bmc::ipmi::{Driver, Settings, fru};
use bmc::{
    Bmc, BmcError, BootDevice, BootMode, BootOverride, ComponentKind, Credentials, ErrorKind, Health,
    Identity, LogCursor, PowerAction, PowerState, Repeat, Secret, Severity, Unit,
};
use tests::bmc::ipmi::{self, Endpoint, Fault};
use tests::bmc::ipmi_sim::{IpmiSim, PASSWORD, Plan, USER, button_of_files};
use tests::bmc::{Machine as _, MemoryMachine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A full record of a temperature sensor, number 1: degrees, upper thresholds 100 and 90, lower 5, named "CPU Temp".
const TEMPERATURE: &str = "main_sdr_add 0x20 \
    0x00 0x00 0x51 0x01 0x33 0x20 0x00 0x01 0x03 0x01 0x7f 0x68 0x01 0x01 0x00 0x02 0x00 0x02 0x1a 0x1a \
    0x00 0x01 0x00 0x00 0x01 0x00 0x00 0x00 0x00 0x00 0x07 0x28 0x50 0x0a 0xff 0x00 0x00 0x64 0x5a 0x00 \
    0x05 0x00 0x02 0x02 0x00 0x00 0x00 0xc8 0x43 0x50 0x55 0x20 0x54 0x65 0x6d 0x70\n";
/// A full record of a voltage, number 2: 63 mV each, named "P12V".
const VOLTAGE: &str = "main_sdr_add 0x20 \
    0x00 0x00 0x51 0x01 0x2f 0x20 0x00 0x02 0x14 0x01 0x7f 0x68 0x02 0x01 0x00 0x00 0x00 0x00 0x00 0x00 \
    0x00 0x04 0x00 0x00 0x3f 0x00 0x00 0x00 0x00 0xd0 0x00 0x00 0x00 0x00 0xff 0x00 0x00 0x00 0x00 0x00 \
    0x00 0x00 0x00 0x00 0x00 0x00 0x00 0xc4 0x50 0x31 0x32 0x56\n";
/// A compact record of a power supply, number 3, with states, named "PSU1".
const SUPPLY: &str = "main_sdr_add 0x20 \
    0x00 0x00 0x51 0x02 0x1f 0x20 0x00 0x03 0x0a 0x01 0x7f 0x48 0x08 0x6f 0x0f 0x00 0x0f 0x00 0x0f 0x00 \
    0xc0 0x00 0x00 0x01 0x00 0x00 0x00 0x00 0x00 0x00 0x00 0xc4 0x50 0x53 0x55 0x31\n";

/// A simulator with its files.
struct Sim {
    _sim: IpmiSim,
    dir: PathBuf,
    address: SocketAddr,
}

impl Drop for Sim {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ipmi-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn simulator(name: &str, emulator: &str, serial: Option<SocketAddr>) -> Sim {
    let dir = scratch(name);
    let button = button_of_files(&dir).unwrap();
    let address = free_port();
    let chassis = format!("{} 0x20", button.display());
    let plan = Plan { dir: &dir, address, chassis: &chassis, serial, in_band: None, emulator };
    let sim = IpmiSim::here(&plan).unwrap();
    Sim { _sim: sim, dir, address }
}

fn driver(address: SocketAddr, user: &str, password: &str) -> Driver {
    let credentials = Credentials { user: user.into(), password: Secret(password.into()) };
    Driver::new(&Settings { address, credentials, kg: None }).unwrap()
}

/// Runs ipmitool; its output.
fn ipmitool(address: SocketAddr, suite: u8, words: &str) -> String {
    let output = Command::new("ipmitool")
        .args(["-I", "lanplus", "-H", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-U", USER, "-P", PASSWORD, "-C", &suite.to_string(), "-N", "2", "-R", "3"])
        .args(words.split(' '))
        .output()
        .expect("ipmitool (package ipmitool)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ipmitool {words}: {text}{errors}");
    text
}

fn once(device: BootDevice, mode: Option<BootMode>) -> BootOverride {
    BootOverride { device, repeat: Repeat::Once, mode, http_uri: None }
}

fn file(sim: &Sim, name: &str) -> String {
    fs::read_to_string(sim.dir.join(name)).unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_driver_switches_a_simulator_and_ipmitool_sees_it() {
    let sim = simulator("power", "", None);
    let driver = driver(sim.address, USER, PASSWORD);
    let seen = || ipmitool(sim.address, 3, "power status");
    assert_eq!(driver.power_state().await.unwrap(), PowerState::Off);
    driver.power(PowerAction::On).await.unwrap();
    assert_eq!(driver.power_state().await.unwrap(), PowerState::On);
    assert_eq!((file(&sim, "power").as_str(), seen().trim()), ("1", "Chassis Power is on"));
    driver.power(PowerAction::On).await.unwrap();
    driver.power(PowerAction::Reset).await.unwrap();
    driver.power(PowerAction::Cycle).await.unwrap();
    driver.power(PowerAction::SoftOff).await.unwrap();
    ipmitool(sim.address, 3, "power on");
    assert_eq!(driver.power_state().await.unwrap(), PowerState::On);
    driver.power(PowerAction::ForceOff).await.unwrap();
    assert_eq!(driver.power_state().await.unwrap(), PowerState::Off);
    assert_eq!(seen().trim(), "Chassis Power is off");
    driver.close().await;
}

#[tokio::test]
async fn the_boot_device_of_a_simulator_is_set_and_read_back() {
    let sim = simulator("boot", "", None);
    let driver = driver(sim.address, USER, PASSWORD);
    for (device, words, button) in [
        (BootDevice::Pxe, "Force PXE", "pxe"),
        (BootDevice::Cdrom, "Force Boot from CD/DVD", "cdrom"),
        (BootDevice::Disk, "Force Boot from default Hard-Drive", "default"),
    ] {
        driver.set_boot_override(&once(device, None)).await.unwrap();
        assert_eq!(driver.boot_override().await.unwrap().device, device);
        let said = ipmitool(sim.address, 3, "chassis bootparam get 5");
        assert!(said.contains(words), "{device:?}: {said}");
        assert_eq!(file(&sim, "boot"), button);
    }
    driver.set_boot_override(&once(BootDevice::None, None)).await.unwrap();
    assert_eq!(driver.boot_override().await.unwrap().device, BootDevice::None);
    ipmitool(sim.address, 3, "chassis bootdev pxe");
    assert_eq!(driver.boot_override().await.unwrap().device, BootDevice::Pxe);
    driver.close().await;
}

#[tokio::test]
async fn sensors_of_a_simulator_are_read_as_ipmitool_reads_them() {
    let emulator = format!(
        "{TEMPERATURE}{VOLTAGE}{SUPPLY}\
         sensor_add 0x20 0 1 0x01 0x01\nsensor_set_threshold 0x20 0 1 readable 011010 0x00 0x64 0x5a 0x00 0x05 0x00\n\
         sensor_set_value 0x20 0 1 0x2a 0\n\
         sensor_add 0x20 0 2 0x02 0x01\nsensor_set_value 0x20 0 2 0xbe 0\n\
         sensor_add 0x20 0 3 0x08 0x6f\nsensor_set_bit 0x20 0 3 0 1 0\nsensor_set_bit 0x20 0 3 1 1 0\n"
    );
    let sim = simulator("sensors", &emulator, None);
    let driver = driver(sim.address, USER, PASSWORD);
    let readings = driver.readings().await.unwrap();
    let temperature = readings.iter().find(|r| r.name == "CPU Temp").unwrap();
    assert_eq!((temperature.unit, temperature.value), (Unit::Celsius, Some(42.0)));
    let limits = [temperature.upper_warning, temperature.upper_critical, temperature.lower_critical];
    assert_eq!(limits, [Some(90.0), Some(100.0), Some(5.0)]);
    assert_eq!(temperature.health, Some(Health::Ok));
    let volts = readings.iter().find(|r| r.name == "P12V").unwrap();
    assert_eq!((volts.unit, volts.value), (Unit::Volt, Some(11.97)));
    let components = driver.components().await.unwrap();
    let supply = components.iter().find(|c| c.name == "PSU1").unwrap();
    assert_eq!((supply.kind, supply.health), (ComponentKind::PowerSupply, Health::Critical));
    // Columns of `sensor`: name, value, unit, status, lower non-recoverable, critical, warning, upper warning, ...
    let said = ipmitool(sim.address, 3, "sensor");
    let columns = |name: &str| {
        let line = said.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{said}"));
        line.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>()
    };
    let row = columns("CPU Temp");
    assert_eq!([&row[1], &row[5], &row[7], &row[8]], ["42.000", "5.000", "90.000", "100.000"], "{said}");
    assert_eq!(columns("P12V")[1], "11.970");
    driver.close().await;
}

#[tokio::test]
async fn the_event_log_of_a_simulator_is_read_in_part_and_cleared() {
    // A power supply failed; a temperature is above its upper critical threshold; seconds since 1970 are set by it.
    let emulator = "sel_add 0x20 0x02 0x00 0xf1 0x53 0x65 0x20 0x00 0x04 0x08 0x03 0x6f 0x01 0xff 0xff\n\
                    sel_add 0x20 0x02 0x00 0xf1 0x53 0x65 0x20 0x00 0x04 0x01 0x01 0x01 0x59 0x65 0x64\n\
                    sel_add 0x20 0xe0 0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x09 0x0a 0x0b 0x0c 0x0d\n";
    let sim = simulator("sel", &format!("{TEMPERATURE}{emulator}"), None);
    let driver = driver(sim.address, USER, PASSWORD);
    driver.readings().await.unwrap();
    let all = driver.log(None).await.unwrap();
    let messages: Vec<_> = all.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "power supply: failed",
            "temperature: above the upper critical threshold (reading 101, threshold 100)",
            "maker's entry of type e0: 0102030405060708090a0b0c0d",
        ]
    );
    assert_eq!(
        all.iter().map(|e| e.severity).collect::<Vec<_>>(),
        [Severity::Critical, Severity::Critical, Severity::Ok]
    );
    assert_eq!(all[1].sensor.as_deref(), Some("CPU Temp"));
    let said = ipmitool(sim.address, 3, "sel list");
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.contains("Failure detected") && said.contains("Upper Critical going high"), "{said}");
    let cursor = LogCursor { id: all[0].id.clone(), at: all[0].at };
    assert_eq!(driver.log(Some(&cursor)).await.unwrap(), all[1..]);
    let cursor = LogCursor { id: all[2].id.clone(), at: all[2].at };
    assert_eq!(driver.log(Some(&cursor)).await.unwrap(), []);
    driver.clear_log().await.unwrap();
    assert_eq!(driver.log(Some(&cursor)).await.unwrap(), []);
    let said = ipmitool(sim.address, 3, "sel info");
    assert!(said.lines().any(|l| l.starts_with("Entries") && l.ends_with(" 0")), "{said}");
    driver.close().await;
}

#[tokio::test]
async fn the_inventory_of_a_simulator_is_what_ipmitool_prints() {
    let octets = fru::emit(&["Billet", "Rack Machine", "PN-1", "1.0", "SER-0007"]);
    let hex: String = octets.iter().map(|o| format!(" {o:#04x}")).collect();
    let sim = simulator("fru", &format!("mc_add_fru_data 0x20 0 {} data{hex}\n", octets.len()), None);
    let driver = driver(sim.address, USER, PASSWORD);
    let identity = driver.identity().await.unwrap();
    let said = ipmitool(sim.address, 3, "fru print 0");
    for (field, value) in [
        ("Product Manufacturer", identity.manufacturer),
        ("Product Name", identity.model),
        ("Product Serial", identity.serial),
    ] {
        let value = value.unwrap();
        assert!(said.lines().any(|l| l.contains(field) && l.ends_with(&value)), "{field} {value}: {said}");
    }
    assert_eq!(identity.bmc_version.as_deref(), Some("9.08"));
    assert!(ipmitool(sim.address, 3, "mc info").contains("9.08"));
    driver.close().await;
}

#[tokio::test]
async fn the_serial_line_of_a_simulator_is_read_and_typed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let serial = listener.local_addr().unwrap();
    // The machine: says who it is when asked, and echoes.
    let machine = std::thread::spawn(move || {
        let (mut line, _) = listener.accept().unwrap();
        line.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut octets = [0; 256];
        while let Ok(n @ 1..) = line.read(&mut octets) {
            line.write_all(&octets[..n]).unwrap();
            if octets[..n].contains(&b'\r') {
                let lines: String = (0..200).map(|n| format!("line {n} of the boot\r\n")).collect();
                line.write_all(lines.as_bytes()).unwrap();
            }
        }
    });
    let sim = simulator("sol", "", Some(serial));
    let driver = driver(sim.address, USER, PASSWORD);
    let mut console = driver.console().await.unwrap();
    let busy = driver.console().await.err().map(|e| e.kind());
    assert_eq!(busy, Some(ErrorKind::Busy));
    assert!(driver.power_state().await.is_ok(), "the console does not stand in the way of commands");
    console.write_all(b"boot now\r").await.unwrap();
    let said = read_until(&mut console, "line 199 of the boot").await;
    assert!(said.starts_with("boot now\r"), "{said}");
    for n in 0..200 {
        assert_eq!(said.matches(&format!("line {n} of the boot\r")).count(), 1, "line {n}: {said}");
    }
    drop(console);
    let mut again = open_again(&driver).await;
    again.write_all(b"still").await.unwrap();
    read_until(&mut again, "still").await;
    drop(again);
    driver.close().await;
    drop(sim);
    machine.join().unwrap();
}

async fn read_until(console: &mut Box<dyn bmc::Console>, text: &str) -> String {
    let mut said = Vec::new();
    let mut octets = [0; 4096];
    let read = async {
        while !String::from_utf8_lossy(&said).contains(text) {
            let n = console.read(&mut octets).await.unwrap();
            assert!(n > 0, "the console ended after {:?}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&octets[..n]);
        }
    };
    let timely = tokio::time::timeout(Duration::from_secs(20), read).await.is_ok();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(timely, "no {text:?} but {said:?}");
    said
}

/// Another console, once the one before is let go of.
async fn open_again(driver: &Driver) -> Box<dyn bmc::Console> {
    for _ in 0..50 {
        match driver.console().await {
            Ok(console) => return console,
            Err(BmcError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(e) => panic!("{e}"),
        }
    }
    panic!("it is held for ever")
}

#[tokio::test]
async fn a_wrong_login_is_named_at_once_and_a_new_password_holds() {
    let sim = simulator("login", "", None);
    for (user, password) in [(USER, "wrong"), ("nobody", PASSWORD)] {
        let start = Instant::now();
        let error = driver(sim.address, user, password).power_state().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Login, "{user}: {error}");
        assert!(start.elapsed() < Duration::from_secs(5), "{user}: {:?}", start.elapsed());
    }
    let before = driver(sim.address, USER, PASSWORD);
    // The simulator takes twenty octets and keeps sixteen.
    let cut = before.change_password(&Secret("a-longer-one-of-20!!".into())).await.unwrap_err();
    assert!(cut.to_string().contains("has the old one again"), "{cut}");
    assert_eq!(before.power_state().await.unwrap(), PowerState::Off);
    before.change_password(&Secret("sixteen-octets!!".into())).await.unwrap();
    assert_eq!(before.power_state().await.unwrap(), PowerState::Off, "the driver knows the new one");
    let after = driver(sim.address, USER, "sixteen-octets!!");
    assert_eq!(after.power_state().await.unwrap(), PowerState::Off);
    let old = driver(sim.address, USER, PASSWORD).power_state().await.unwrap_err();
    assert_eq!(old.kind(), ErrorKind::Login);
    let credentials = Credentials { user: USER.into(), password: Secret("x".repeat(21)) };
    let long =
        Driver::new(&Settings { address: sim.address, credentials, kg: None }).err().unwrap().to_string();
    assert!(long.contains("at most 20"), "{long}");
}

fn stand_in(plan: ipmi::Plan) -> (Endpoint, MemoryMachine) {
    let machine = MemoryMachine::new(Identity {
        manufacturer: Some("Billet".into()),
        model: Some("Rack Machine".into()),
        serial: Some("RACK-0001".into()),
        uuid: Some("b111e700-0000-4000-8000-000000000001".into()),
        ..Identity::default()
    });
    (Endpoint::here(plan, Arc::new(machine.clone())).unwrap(), machine)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < end, "not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ipmitool_finds_its_way_about_our_stand_in_by_both_suites() {
    for suite in [3, 17] {
        let (bmc, machine) = stand_in(ipmi::Plan::new(USER, PASSWORD));
        let tool = |words: &str| ipmitool(bmc.address(), suite, words);
        assert_eq!(tool("power status").trim(), "Chassis Power is off");
        tool("chassis bootdev pxe options=efiboot");
        assert_eq!(machine.boot_override(), once(BootDevice::Pxe, Some(BootMode::Uefi)));
        let said = tool("chassis bootparam get 5");
        assert!(said.contains("Force PXE") && said.contains("BIOS EFI boot"), "{said}");
        tool("power on");
        eventually("it is on", || machine.started_from() == [BootDevice::Pxe]);
        tool("power reset");
        eventually("it was reset", || machine.started_from() == [BootDevice::Pxe, BootDevice::None]);
        tool("chassis identify force");
        assert!(bmc.is_identified());
        let said = tool("sdr");
        assert!(said.contains("CPU Temp         | 42 degrees C      | ok"), "{said}");
        assert!(
            said.contains("Fan 1            | 6000 RPM          | ok") && said.contains("11.97 Volts"),
            "{said}"
        );
        let said = tool("sensor");
        assert!(
            said.lines().any(|l| l.starts_with("CPU Temp") && l.contains("90.000") && l.contains("100.000")),
            "{said}"
        );
        bmc.add_event(1_700_000_000, [0x08, ipmi::SUPPLY, 0x6f, 1, 0xff, 0xff]);
        let said = tool("sel list");
        assert!(said.contains("Power Supply #0x04 | Failure detected | Asserted"), "{said}");
        tool("sel clear");
        let said = tool("fru print 0");
        assert!(said.contains("Rack Machine") && said.contains("RACK-0001"), "{said}");
        assert!(
            tool("mc guid").to_lowercase().contains("b111e700-0000-4000-8000-000000000001"),
            "{}",
            tool("mc guid")
        );
        tool("power off");
        eventually("it is off", || machine.power_state() == PowerState::Off);
        assert_eq!(bmc.sessions(), 0, "every session was closed");
    }
}

#[test]
fn ipmitool_types_on_the_serial_line_of_our_stand_in() {
    for suite in ["3", "17"] {
        let (bmc, machine) = stand_in(ipmi::Plan::new(USER, PASSWORD));
        machine.power(PowerAction::On).unwrap();
        let port = bmc.address().port().to_string();
        // It wants a terminal; script(1) makes one.
        let line = format!(
            "ipmitool -I lanplus -H 127.0.0.1 -p {port} -U {USER} -P {PASSWORD} -C {suite} sol activate"
        );
        let mut tool = Command::new("script")
            .args(["-qfc", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script (package bsdutils)");
        let mut output = tool.stdout.take().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut octets) {
                let _ = sender.send(octets[..n].to_vec());
            }
        });
        let mut said = String::new();
        let mut wait = |text: &str| {
            let end = Instant::now() + Duration::from_secs(10);
            while !said.contains(text) {
                let left = end.saturating_duration_since(Instant::now());
                let Ok(octets) = receiver.recv_timeout(left) else { panic!("no {text:?} but {said:?}") };
                said.push_str(&String::from_utf8_lossy(&octets));
            }
        };
        wait("SOL Session operational");
        machine.print(b"welcome to the machine\r\n");
        wait("welcome to the machine");
        let input = tool.stdin.as_mut().unwrap();
        input.write_all(b"echo me").unwrap();
        wait("echo me");
        input.write_all(b"\r~.").unwrap();
        eventually("the console is let go of", || bmc.sessions() == 0);
        tool.wait().unwrap();
    }
}

#[tokio::test]
async fn our_driver_and_our_stand_in_agree_by_either_suite_and_in_every_plan() {
    let plan = || ipmi::Plan::new(USER, PASSWORD);
    let plans = [
        plan(),
        ipmi::Plan { suites: vec![Suite::Three], ..plan() },
        ipmi::Plan { hides_suites: true, no_set_in_progress: true, sdr_in_pieces: true, ..plan() },
    ];
    for plan in plans {
        let best = plan.suites[0];
        let (bmc, machine) = stand_in(plan);
        let driver = driver(bmc.address(), USER, PASSWORD);
        let wanted = BootOverride { repeat: Repeat::Always, ..once(BootDevice::Disk, Some(BootMode::Uefi)) };
        driver.set_boot_override(&wanted).await.unwrap();
        assert_eq!(driver.boot_override().await.unwrap(), wanted);
        driver.set_boot_override(&once(BootDevice::Cdrom, None)).await.unwrap();
        assert_eq!(
            machine.boot_override(),
            once(BootDevice::Cdrom, Some(BootMode::Uefi)),
            "the mode is kept"
        );
        let refused = driver.power(PowerAction::Reset).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        driver.power(PowerAction::On).await.unwrap();
        eventually("it is on", || machine.started_from() == [BootDevice::Cdrom]);
        bmc.set_reading(ipmi::TEMPERATURE, 101, 0b01_1000);
        bmc.set_reading(ipmi::SUPPLY, 0, 0b0011);
        let readings = driver.readings().await.unwrap();
        let names: Vec<_> = readings.iter().map(|r| (r.name.as_str(), r.value, r.health)).collect();
        assert_eq!(
            names,
            [
                ("CPU Temp", Some(101.0), Some(Health::Critical)),
                ("Fan 1", Some(6000.0), Some(Health::Ok)),
                ("P12V", Some(11.97), Some(Health::Ok)),
            ]
        );
        assert_eq!(driver.components().await.unwrap()[0].health, Health::Critical);
        bmc.add_event(1_700_000_000, [0x01, ipmi::TEMPERATURE, 0x01, 0x59, 101, 100]);
        let log = driver.log(None).await.unwrap();
        assert_eq!(
            log[0].message,
            "temperature: above the upper critical threshold (reading 101, threshold 100)"
        );
        driver.clear_log().await.unwrap();
        let identity = driver.identity().await.unwrap();
        assert_eq!(identity.uuid.as_deref(), Some("b111e700-0000-4000-8000-000000000001"));
        assert_eq!(identity.serial.as_deref(), Some("RACK-0001"));
        driver.identify(true).await.unwrap();
        assert!(bmc.is_identified());
        driver.change_password(&Secret("another-of-20-octets".into())).await.unwrap();
        assert_eq!(driver.power_state().await.unwrap(), PowerState::On);
        bmc.forget_sessions();
        assert_eq!(
            driver.power_state().await.unwrap(),
            PowerState::On,
            "a session that was lost is made anew"
        );
        driver.reset_bmc().await.unwrap();
        driver.close().await;
        eventually("every session was closed", || bmc.sessions() == 0);
        let last = *bmc.asked_for().last().unwrap();
        assert_eq!(Suite::from_algorithms(last), Some(best));
        let open = Algorithms { authentication: 0, integrity: 0, confidentiality: 0 };
        assert!(!bmc.asked_for().contains(&open), "suite 0 was asked for");
    }
}

#[tokio::test]
async fn a_controller_with_its_own_key_wants_it() {
    let kg = Some(b"twenty octets of key".to_vec());
    let (bmc, _machine) = stand_in(ipmi::Plan { kg: kg.clone(), ..ipmi::Plan::new(USER, PASSWORD) });
    let credentials = Credentials { user: USER.into(), password: Secret(PASSWORD.into()) };
    let settings = Settings { address: bmc.address(), credentials, kg };
    assert_eq!(Driver::new(&settings).unwrap().power_state().await.unwrap(), PowerState::Off);
    let without = Driver::new(&Settings { kg: None, ..settings }).unwrap();
    assert_eq!(without.power_state().await.unwrap_err().kind(), ErrorKind::Login);
}

/// Each fault once from the start and once in a session; every call ends with a named error in time, or with the truth.
#[tokio::test]
async fn a_hostile_controller_ends_in_a_named_error_in_time() {
    let slow = Fault::Slow(Duration::from_millis(700));
    let faults = [
        (Fault::Silent, Some(ErrorKind::Unreachable)),
        (Fault::Truncated, Some(ErrorKind::Unreachable)),
        (Fault::Giant, Some(ErrorKind::Unreachable)),
        (Fault::Flood, Some(ErrorKind::Unreachable)),
        (Fault::WrongSignature, Some(ErrorKind::Unreachable)),
        (Fault::Replayed, None),
        (slow, None),
    ];
    let mut tasks = tokio::task::JoinSet::new();
    for (fault, from_start) in faults {
        for in_session in [false, true] {
            tasks.spawn(async move {
                let (bmc, _machine) = stand_in(ipmi::Plan::new(USER, PASSWORD));
                let driver = driver(bmc.address(), USER, PASSWORD);
                if in_session {
                    driver.power_state().await.unwrap();
                }
                bmc.set_fault(Some(fault));
                let start = Instant::now();
                let outcome = driver.power_state().await;
                let took = start.elapsed();
                assert!(took < Duration::from_secs(30), "{fault:?}: {took:?}");
                let second = driver.power_state().await.map_err(|e| e.kind());
                match (fault, outcome.map_err(|e| e.kind())) {
                    // The answer to the first command in the session comes instead of every other.
                    (Fault::Replayed, outcome) => assert!(outcome.is_err() || second.is_err(), "{fault:?}"),
                    (fault, Ok(state)) => assert_eq!((fault, state), (slow, PowerState::Off)),
                    (_, Err(kind)) => assert!(
                        [from_start, Some(ErrorKind::TimedOut)].contains(&Some(kind)),
                        "{fault:?}, {in_session}: {kind:?}"
                    ),
                }
                // It is well again, and so is the driver.
                bmc.set_fault(None);
                assert_eq!(driver.power_state().await.unwrap(), PowerState::Off, "{fault:?}");
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_no_session_behind() {
    let (bmc, _machine) = stand_in(ipmi::Plan::new(USER, PASSWORD));
    let driver = driver(bmc.address(), USER, PASSWORD);
    driver.power_state().await.unwrap();
    assert_eq!(bmc.sessions(), 1);
    bmc.set_fault(Some(Fault::Silent));
    let given_up = tokio::time::timeout(Duration::from_millis(200), driver.power_state()).await;
    assert!(given_up.is_err());
    eventually("the session was closed", || bmc.sessions() == 0);
    drop(driver);
}
