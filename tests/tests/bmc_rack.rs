//! Machines of the rack behind controllers: the button is QMP, the console is the machine's serial line.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bmc::ipmi::{Driver, Settings};
use bmc::{Bmc, BootDevice, BootOverride, Credentials, PowerAction, PowerState, Repeat, Secret};
use serde_json::json;
use tests::bmc::ipmi::{Endpoint, Plan};
use tests::bmc::ipmi_sim::{self, IpmiSim, PASSWORD, USER};
use tests::bmc::{QemuMachine, button};
use tests::rack::{Disk, Firmware, Handle, MachineSpec, Rack, SERVER_ADDRESS, Serial, artifact};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, deploy, events, rebuild, wait_discovered, wait_state};
use tokio::io::AsyncReadExt;

/// Of firmware under software emulation.
const START: Duration = Duration::from_secs(60);

/// Runs `inside` in a thread of its own that is in the rack's namespace.
fn within<T: Send>(handle: &Handle, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || {
        handle.enter()?;
        inside()
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("a thread that does not panic"))
}

/// A machine that tries its disk first, and its controller at an address of the rack.
struct Lab {
    rack: Rack,
    machine: QemuMachine,
    serial: Serial,
}

impl Lab {
    fn new(name: &str) -> Result<Self> {
        let mut rack = Rack::new(name)?;
        let spec = MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("BMC1", 64 << 20)).disk_first();
        let machine = rack.machine(spec.memory(256))?;
        let serial = machine.serial().clone();
        Ok(Self { rack, machine: QemuMachine::new(machine), serial })
    }

    /// Our driver, run through what a deploy asks of it.
    fn drive(&mut self, address: SocketAddr) -> Result<()> {
        let (serial, machine) = (self.serial.clone(), self.machine.clone());
        within(&self.rack.namespace().clone_handle()?, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(drive(address, &serial, &machine))
        })
    }
}

async fn drive(address: SocketAddr, serial: &Serial, machine: &QemuMachine) -> Result<()> {
    let credentials = Credentials { user: USER.into(), password: Secret(PASSWORD.into()) };
    let driver = Driver::new(&Settings { address, credentials, kg: None })?;
    ensure!(driver.power_state().await? == PowerState::Off);
    let mut console = driver.console().await?;
    let pxe = BootOverride { device: BootDevice::Pxe, repeat: Repeat::Once, mode: None, http_uri: None };
    driver.set_boot_override(&pxe).await?;
    ensure!(driver.boot_override().await?.device == BootDevice::Pxe);
    driver.power(PowerAction::On).await?;
    let mut said = Vec::new();
    let mut octets = [0; 4096];
    while !String::from_utf8_lossy(&said).contains("Booting from ROM") {
        let count = tokio::time::timeout(START, console.read(&mut octets)).await??;
        ensure!(count > 0, "the console ended after {:?}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&octets[..count]);
    }
    ensure!(driver.power_state().await? == PowerState::On);
    ensure!(driver.boot_override().await?.device == BootDevice::None, "used up by the start");
    drop(console);
    serial.skip_to_end();
    driver.power(PowerAction::Reset).await?;
    let waiting = serial.clone();
    let (which, _) = tokio::task::spawn_blocking(move || {
        waiting.wait_for_any(&["Booting from Hard Disk", "Booting from ROM"], START)
    })
    .await??;
    ensure!(which == 0, "the override was for one start");
    driver.power(PowerAction::ForceOff).await?;
    for _ in 0..50 {
        if driver.power_state().await? == PowerState::Off {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(!machine.lock().is_on(), "it still runs");
    driver.close().await;
    Ok(())
}

#[test]
fn our_driver_switches_a_machine_by_ipmi_sim() -> Result<()> {
    let mut lab = Lab::new("bmc-ipmi-sim")?;
    let _sim = simulator(&lab.rack, &lab.machine)?;
    lab.drive(format!("{SERVER_ADDRESS}:623").parse()?)?;
    lab.rack.passed();
    Ok(())
}

#[test]
fn our_driver_switches_a_machine_by_our_stand_in() -> Result<()> {
    let mut lab = Lab::new("bmc-stand-in")?;
    let handle = lab.rack.namespace().clone_handle()?;
    let socket = within(&handle, || Ok(UdpSocket::bind((SERVER_ADDRESS, 623))?))?;
    let bmc = Endpoint::start(socket, Plan::new(USER, PASSWORD), Arc::new(lab.machine.clone()))?;
    lab.drive(bmc.address())?;
    lab.rack.passed();
    Ok(())
}

/// `ipmi_sim` in the rack, at the server's address.
fn simulator(rack: &Rack, machine: &QemuMachine) -> Result<IpmiSim> {
    let handle = rack.namespace().clone_handle()?;
    let listen = || Ok((TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?));
    let (buttons, lines) = within(&handle, listen)?;
    let serial = button::serve_line(lines, Arc::new(machine.clone()))?;
    let script = button::write_script(rack.dir(), button::serve_button(buttons, Arc::new(machine.clone()))?)?;
    let plan = ipmi_sim::Plan {
        dir: rack.dir(),
        address: format!("{SERVER_ADDRESS}:623").parse()?,
        chassis: &format!("{} 0x20", script.display()),
        serial: Some(serial),
        emulator: "",
    };
    let sim = IpmiSim::start(&plan, rack.namespace().command("ipmi_sim"))?;
    within(&handle, || ipmi_sim::wait_ready(plan.address))?;
    Ok(sim)
}

/// A machine in use is installed anew with no hand on it: Billet sets the boot device, restarts the machine by `ipmi_sim`,
/// the agent writes, and the disk boots afterwards, because the order was for one start.
#[test]
fn ipmi() -> Result<()> {
    let mut rack = Rack::new("bmc-ipmi")?;
    rack.start_server()?;
    let api = rack.api()?;
    for variant in ["a", "b"] {
        add_image(&api, &artifact(&format!("images/tiny-{variant}.raw"))?, &format!("tiny-{variant}"), "1")?;
    }
    let spec = MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("OSIPMI1", 1 << 30)).disk_first();
    let mut machine = rack.machine(spec)?;
    machine.power_on()?;
    let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
    let serial = machine.serial().clone();
    let machine = QemuMachine::new(machine);
    let _sim = simulator(&rack, &machine)?;
    let bmc = json!({ "driver": "ipmi", "address": SERVER_ADDRESS, "user": USER, "password": PASSWORD });
    api.put(&format!("/api/v1/nodes/{node}/bmc"), &bmc)?;
    ensure!(api.get(&format!("/api/v1/nodes/{node}/power"))?["state"] == "on");
    deploy(&api, &node, "tiny-a", "OSIPMI1")?;
    wait_state(&api, &node, "active", DEPLOY)?;
    serial.wait_for("TINY-OS READY", DEPLOY)?;
    ensure!(events(&api, &node, "power.on")?.is_empty(), "its agent ran: no restart was needed");

    rebuild(&api, &node, "tiny-b", "OSIPMI1")?;
    let line = serial.wait_for("TINY-OS READY", DEPLOY)?.text;
    ensure!(line.contains("image=tiny-b"), "{line}");
    let active = wait_state(&api, &node, "active", DEPLOY)?;
    ensure!(active["installed"]["image_name"] == "tiny-b 1", "{active:#}");
    let said = events(&api, &node, "power.restart")?;
    ensure!(said.len() == 1, "one restart by the controller: {said:?}");
    ensure!(events(&api, &node, "power.on")?.len() == 1, "it was read back that it runs");
    rack.passed();
    Ok(())
}
