//! Machines of the rack behind controllers: the button is QMP, the console is the machine's serial line.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bmc::ipmi::{Driver, Settings};
use bmc::{Bmc, BootDevice, BootOverride, Credentials, PowerAction, PowerState, Repeat, Secret};
use serde_json::{Value, json};
use tests::bmc::ipmi::{Endpoint, Plan};
use tests::bmc::ipmi_sim::{self, IpmiSim, PASSWORD, USER};
use tests::bmc::libvirt::{Domain, Libvirt};
use tests::bmc::redfish::{self, Profile, RedfishBmc};
use tests::bmc::{QemuMachine, button, sushy};
use tests::rack::{Api, Disk, Firmware, MachineSpec, Rack, SERVER_ADDRESS, Serial, artifact, within};
use tests::scenario::{
    DEPLOY, DISCOVERY, add_image, events, wait_discovered, wait_discovered_mac, wait_state,
};
use tokio::io::AsyncReadExt;

/// Of firmware under software emulation.
const START: Duration = Duration::from_secs(60);

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
    let _sim = simulator(&lab.rack, &lab.machine, None)?;
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
fn simulator(rack: &Rack, machine: &QemuMachine, in_band: Option<SocketAddr>) -> Result<IpmiSim> {
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
        in_band,
        emulator: "",
    };
    let sim = IpmiSim::start(&plan, rack.namespace().command("ipmi_sim"))?;
    within(&handle, || ipmi_sim::wait_ready(plan.address))?;
    Ok(sim)
}

/// From discovery on nobody touches the machine: the server switches it off and on, deploys it, reinstalls it.
struct HandsOff {
    rack: Rack,
    serial: Serial,
    api: Api,
    node: String,
    /// Whether the machine runs, asked of whoever runs it.
    is_on: Box<dyn Fn() -> Result<bool>>,
}

/// A rack with a server that has two images.
fn site(name: &str) -> Result<(Rack, Api)> {
    let mut rack = Rack::new(name)?;
    rack.start_server()?;
    let api = rack.api()?;
    for variant in ["a", "b"] {
        let file = artifact(&format!("images/tiny-{variant}.raw"))?;
        add_image(&api, &file, &format!("tiny-{variant}"), "1")?;
    }
    Ok((rack, api))
}

impl HandsOff {
    /// A discovered machine whose firmware tries its disk first, so that only an order to its controller boots an agent.
    fn new(name: &str, firmware: Firmware, before: impl FnOnce(&mut Lab) -> Result<()>) -> Result<Self> {
        let (mut rack, api) = site(name)?;
        let spec = MachineSpec::new("m1", firmware).disk(Disk::virtio("BMC1", 1 << 30)).disk_first();
        let machine = rack.machine(spec)?;
        let serial = machine.serial().clone();
        let mut lab = Lab { rack, machine: QemuMachine::new(machine), serial };
        before(&mut lab)?;
        lab.machine.lock().power_on()?;
        let node = {
            let machine = lab.machine.lock();
            wait_discovered(&api, &machine, "available", DISCOVERY)?
        };
        let Lab { rack, machine, serial } = lab;
        let is_on = Box::new(move || Ok(machine.lock().is_on()));
        Ok(Self { rack, serial, api, node, is_on })
    }

    /// The stand-in has broken parts, for the sake of other tests: a machine like that is handed out only on demand.
    fn order(&self, verb: &str, image: &str) -> Result<Value> {
        let body = json!({
            "image": image, "disk": { "id": "serial:BMC1" }, "confirm": self.node, "allow_critical": true,
        });
        self.api.post(&format!("/api/v1/nodes/{}/{verb}", self.node), &body)
    }

    fn run(mut self, bmc: &Value) -> Result<()> {
        self.deploy_twice(bmc)?;
        self.rack.passed();
        Ok(())
    }

    fn deploy_twice(&self, bmc: &Value) -> Result<()> {
        let Self { api, node, .. } = self;
        api.put(&format!("/api/v1/nodes/{node}/bmc"), bmc)?;
        let off = api.post(&format!("/api/v1/nodes/{node}/power"), &json!({ "action": "force_off" }))?;
        ensure!(off["state"] == "off" && off["confirmed"] == true, "{off:#}");
        ensure!(!(self.is_on)()?, "the machine runs all the same");

        self.order("deploy", "tiny-a")?;
        wait_state(api, node, "active", DEPLOY)?;
        self.serial.wait_for("image=tiny-a", START)?;

        self.order("rebuild", "tiny-b")?;
        let active = wait_state(api, node, "active", DEPLOY)?;
        ensure!(active["installed"]["image_name"] == "tiny-b 1", "{active:#}");
        let restarts = events(api, node, "power.restart")?;
        ensure!(restarts.len() == 2, "one restart by the controller for each job: {restarts:?}");
        ensure!(events(api, node, "power.on")?.len() == 2, "it was read back that it runs");
        ensure!(events(api, node, "power.wanted")?.is_empty(), "a hand was asked for");
        Ok(())
    }
}

#[test]
fn no_hand_on_it_by_ipmi_sim() -> Result<()> {
    let mut sim = None;
    let hands_off = HandsOff::new("hands-off-ipmi", Firmware::Bios, |lab| {
        sim = Some(simulator(&lab.rack, &lab.machine, None)?);
        Ok(())
    })?;
    let bmc = json!({ "driver": "ipmi", "address": SERVER_ADDRESS, "user": USER, "password": PASSWORD });
    hands_off.run(&bmc)?;
    drop(sim);
    Ok(())
}

#[test]
fn no_hand_on_it_by_redfish() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut service = None;
    let mut hands_off = HandsOff::new("hands-off-redfish", Firmware::Uefi, |lab| {
        let handle = lab.rack.namespace().clone_handle()?;
        let (machine, at) = (Arc::new(lab.machine.clone()), format!("{SERVER_ADDRESS}:8443").parse()?);
        let start = || {
            // The service and its shell listen where this thread is.
            let _inside = runtime.enter();
            runtime.block_on(async {
                let service = RedfishBmc::start(Profile::named("dell-idrac9")?, machine, at, true).await?;
                let shell = format!("{SERVER_ADDRESS}:2222").parse()?;
                service.serve_console(Some("console com2"), 7, shell).await?;
                Ok(service)
            })
        };
        service = Some(within(&handle, start)?);
        Ok(())
    })?;
    let bmc = json!({
        "driver": "redfish", "address": SERVER_ADDRESS, "port": 8443, "user": redfish::USER, "password": redfish::PASSWORD,
    });
    let console = format!("/api/v1/nodes/{}/console", hands_off.node);
    hands_off.api.put(&console, &json!({ "source": "bmc", "follow": true }))?;
    hands_off.deploy_twice(&bmc)?;
    // All that the machine printed went through the controller's shell.
    let printed = |text: &Value| text.as_str()?.contains("image=tiny-b").then_some(());
    hands_off.api.wait(&format!("{console}/log"), START, printed)?;
    let pinned = events(&hands_off.api, &hands_off.node, "bmc.pinned")?;
    ensure!(pinned.iter().any(|p| p.contains("SSH key")), "{pinned:?}");
    hands_off.rack.passed();
    drop(service);
    Ok(())
}

/// The emulator of sushy-tools in front of libvirt: it holds a boot device that was for one start.
#[test]
fn no_hand_on_it_by_sushy() -> Result<()> {
    if let Some(why) = Libvirt::missing() {
        println!("skipped: {why}");
        return Ok(());
    }
    let Some(environment) = sushy::environment()? else {
        println!("skipped: no sushy-tools (python3-venv and the Python package index are needed)");
        return Ok(());
    };
    let (rack, api) = site("hands-off-sushy")?;
    let libvirt = Libvirt::start(&rack)?;
    let domain = Domain {
        name: "sushy1",
        uuid: "7f0c0000-0000-4000-8000-000000000001",
        mac: "52:54:00:77:5a:01",
        disk: Disk::virtio("BMC1", 1 << 30),
    };
    libvirt.define(&domain)?;
    let serial = libvirt.serial(&domain)?;
    let settings = format!(
        "SUSHY_EMULATOR_LIBVIRT_URI = '{}'\nSUSHY_EMULATOR_IGNORE_BOOT_DEVICE = False\n\
         SUSHY_EMULATOR_BOOT_LOADER_MAP = {{'UEFI': {{'x86_64': '/usr/share/OVMF/OVMF_CODE_4M.fd'}}, \
         'Legacy': {{'x86_64': None}}}}\n",
        libvirt.uri()
    );
    let plan = sushy::Plan {
        environment: &environment,
        directory: &rack.dir().join("sushy"),
        address: format!("{SERVER_ADDRESS}:8443").parse()?,
        settings: &settings,
    };
    let mut emulator = sushy::Emulator::start(&plan, rack.namespace().command("env"))?;
    within(&rack.namespace().clone_handle()?, || emulator.wait_ready())?;
    libvirt.power_on(&domain)?;
    let node = wait_discovered_mac(&api, domain.mac, "available", DISCOVERY)?;
    let is_on = Box::new(move || libvirt.is_on(&domain));
    let mut hands_off = HandsOff { rack, serial, api, node, is_on };
    let bmc = json!({
        "driver": "redfish", "address": SERVER_ADDRESS, "port": 8443, "user": sushy::USER, "password": sushy::PASSWORD,
    });
    hands_off.deploy_twice(&bmc)?;
    let HandsOff { api, node, .. } = &hands_off;
    let put_back = events(api, node, "boot_device.put_back")?;
    ensure!(put_back.len() == 2, "the disk is what it boots, once for each job: {put_back:?}");
    ensure!(events(api, node, "boot_device.not_taken")?.is_empty());
    let boot = api.get(&format!("/api/v1/nodes/{node}/boot-device"))?;
    ensure!(boot["device"] == "disk", "{boot:#}");
    hands_off.rack.passed();
    drop(emulator);
    Ok(())
}

/// A machine with a controller that nobody has an account for: its agent makes one in-band, and the server uses it by LAN.
#[test]
fn an_account_is_made_in_band() -> Result<()> {
    let mut rack = Rack::new("in-band-account")?;
    rack.start_server_with(|config| config + "\n[bmc]\ncreate_account = true\n")?;
    let api = rack.api()?;
    let in_band: SocketAddr = "127.0.0.1:9102".parse()?;
    let chardev = format!("socket,id=ipmi0,host={},port={},reconnect=1", in_band.ip(), in_band.port());
    let spec = MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("BMC1", 64 << 20)).extra(&[
        "-chardev",
        &chardev,
        "-device",
        "ipmi-bmc-extern,id=bmc0,chardev=ipmi0",
        "-device",
        "isa-ipmi-kcs,bmc=bmc0",
    ]);
    let machine = QemuMachine::new(rack.machine(spec)?);
    let sim = simulator(&rack, &machine, Some(in_band))?;
    machine.lock().power_on()?;
    let node = {
        let machine = machine.lock();
        wait_discovered(&api, &machine, "available", DISCOVERY)?
    };
    let told = api.wait(&format!("/api/v1/events?node={node}&limit=500"), START, |page| {
        let kinds = ["bmc.account_made", "bmc.account_failed"];
        page["items"].as_array()?.iter().find(|e| kinds.iter().any(|k| e["kind"] == *k)).cloned()
    })?;
    let message = format!(
        "account billet was made on the BMC {SERVER_ADDRESS} in-band, and a login by ipmi works (power on)"
    );
    ensure!(told["message"] == message, "{told:#}");
    let bmc = api.get(&format!("/api/v1/nodes/{node}/bmc"))?;
    ensure!(bmc["driver"] == "ipmi" && bmc["user"] == "billet" && bmc["has_password"] == true, "{bmc:#}");

    // Another's eyes on the controller: our account beside the one that was there, which still works.
    let words =
        ["-I", "lanplus", "-C", "3", "-H", SERVER_ADDRESS, "-U", USER, "-P", PASSWORD, "user", "list", "1"];
    let users = rack.namespace().run("ipmitool", &words)?;
    let line = |id: &str| users.lines().find(|l| l.starts_with(id)).unwrap_or_default().to_owned();
    ensure!(line("2 ").contains(USER) && line("3 ").contains("billet"), "{users}");
    ensure!(line("3 ").contains("ADMINISTRATOR"), "{users}");

    // Its password is random from here on too.
    api.post(&format!("/api/v1/nodes/{node}/bmc/rotate"), &json!({}))?;
    let off = api.post(&format!("/api/v1/nodes/{node}/power"), &json!({ "action": "force_off" }))?;
    ensure!(off["state"] == "off" && off["confirmed"] == true, "{off:#}");
    ensure!(!machine.lock().is_on(), "the machine runs all the same");
    drop(sim);
    rack.passed();
    Ok(())
}
