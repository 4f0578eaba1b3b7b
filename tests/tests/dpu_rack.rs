//! A DPU and its host: the real `billet-dpu` that dials out, real Open vSwitch and OVN, and a QEMU machine whose only NIC and only
//! disk are the DPU's. The server is a stand-in where it has to be away.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bmc::ipmi::{Driver, Settings};
use bmc::{Bmc, Credentials, PowerAction, Secret};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::bmc::QemuMachine;
use tests::bmc::ipmi::{Endpoint, Plan};
use tests::dpu::{Dpu, Dpus, Level, Pings, REPRESENTOR, StandIn};
use tests::exporter::with_script;
use tests::overlay::{CENTRAL, pings};
use tests::rack::{Firmware, Rack, SERVER_ADDRESS, artifact, within};

/// Time for a machine to do what it is for, under emulation on a busy machine.
const WORK: Duration = Duration::from_secs(120);
/// Logical ports of the hosts, and their addresses on the tenant's network.
const PORTS: [(&str, &str); 2] = [
    ("5f6a4e3e-0000-4000-8000-000000000011", "10.0.0.11"),
    ("5f6a4e3e-0000-4000-8000-000000000012", "10.0.0.12"),
];
/// Names of volumes, as the server makes them: ids.
const VOLUMES: [&str; 2] = ["6c0b9f1e-0000-4000-8000-000000000001", "ac0b9f1e-0000-4000-8000-000000000002"];
/// The first host's address on the provisioning network.
const PROVISIONED: &str = "10.77.0.50";
/// Octets of a write, and blocks of the volume that are written again and again.
const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 16;
/// No packet may be lost beyond this.
const GAP: Duration = Duration::from_secs(1);

/// Where a host's port is.
#[derive(Clone, Copy)]
enum Side {
    Provisioning,
    Tenant,
}

fn state(dpu: &Dpu, number: usize, generation: u64, side: Side, volumes: &[&Path]) -> Value {
    let mac = dpu.host_mac().to_string();
    let (ports, access) = match side {
        Side::Tenant => {
            (json!([{ "interface": REPRESENTOR, "port": PORTS[number].0, "mac": mac }]), json!([]))
        }
        Side::Provisioning => {
            (json!([]), json!([{ "interface": REPRESENTOR, "mac": mac, "bridge": "br-provision" }]))
        }
    };
    let volumes: Vec<Value> = volumes.iter().zip(VOLUMES).map(|(file, name)| disk(name, file)).collect();
    json!({
        "version": 1, "generation": generation,
        "chassis": {
            "system_id": format!("dpu-{number}"),
            "ovn_remote": format!("tcp:{CENTRAL}:6642"),
            "encap": { "kind": "geneve", "address": dpu.tunnel_address() },
            "datapath": "netdev",
        },
        "ports": ports, "provisioning": access, "volumes": volumes,
    })
}

/// A volume that is a file, which the host boots from where it is the first.
fn disk(name: &str, file: &Path) -> Value {
    json!({
        "name": name, "boot": name == VOLUMES[0], "socket": format!("/run/billet-dpu/{name}.sock"),
        "exporter": { "kind": "blk", "serves": { "kind": "file", "path": file } },
    })
}

/// A server for each DPU at an address of the rack's.
fn server(rack: &Rack, port: u16) -> Result<StandIn> {
    let listen = || Ok(TcpListener::bind((SERVER_ADDRESS, port))?);
    Ok(StandIn::start(within(&rack.namespace().clone_handle()?, listen)?)?)
}

/// What a host does: it waits for the server on the provisioning network, then writes for a while.
fn work(seconds: u32) -> String {
    format!(
        "ip link set eth0 up; ip addr add {PROVISIONED}/24 dev eth0; ip addr add {}/24 dev eth0
until ping -c 1 -W 1 {SERVER_ADDRESS} >/dev/null; do :; done; echo provisioned=yes
end=$(( $(date +%s) + {seconds} )); i=0
while [ $(date +%s) -lt $end ]; do
  yes $i | head -c {BLOCK} > /block
  dd if=/block of=/dev/vda bs={BLOCK} seek=$((i % {BLOCKS})) oflag=direct conv=fsync,notrunc 2>/dev/null || echo FAILED $i
  i=$((i+1)); [ $((i % 10)) = 0 ] && echo wrote=$i; done
echo 3 > /proc/sys/vm/drop_caches
echo count=$i sum=$(sha256sum < /dev/vda)",
        PORTS[0].1
    )
}

/// The volume after `count` writes.
fn written(count: usize) -> Vec<u8> {
    let mut volume = vec![0; BLOCKS * BLOCK];
    for index in count.saturating_sub(BLOCKS)..count {
        let line = format!("{index}\n").into_bytes();
        let block = &mut volume[(index % BLOCKS) * BLOCK..][..BLOCK];
        block.iter_mut().zip(line.iter().cycle()).for_each(|(to, from)| *to = *from);
    }
    volume
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + WORK;
    while !is_so()? {
        ensure!(Instant::now() < end, "not so: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn the_agent_may_die_be_upgraded_and_lose_its_server_under_traffic_and_io() -> Result<()> {
    let mut rack = Rack::new("dpu-agent")?;
    let dir = rack.dir().to_owned();
    let mut dpus = Dpus::new("dpu-agent", rack.namespace(), 2)?;
    let servers = [server(&rack, 8080)?, server(&rack, 8081)?];
    let volume = dir.join("volume.raw");
    File::create(&volume)?.set_len((BLOCKS * BLOCK) as u64)?;

    // The first comes in by a token, the second is a stranger.
    servers[0].accept_token("one-time");
    servers[1].accept_anybody();
    servers[0].want(state(dpus.get(0), 0, 1, Side::Provisioning, &[&volume]));
    servers[1].want(state(dpus.get(1), 1, 1, Side::Tenant, &[]));
    let other = dpus.host_namespace(1)?;
    other.ip(&["addr", "add", &format!("{}/24", PORTS[1].1), "dev", "eth0"])?;
    let spec = dpus.host_machine(0, Firmware::Bios)?.memory(256);
    dpus.get(0).start(&servers[0].url(), Level::Token("one-time"))?;
    dpus.get(1).start(&servers[1].url(), Level::Stranger)?;
    dpus.overlay.wait_registered()?;
    let network = ["ls-add", "tenant"];
    dpus.overlay.northbound(&network)?;
    for (number, (port, address)) in PORTS.into_iter().enumerate() {
        dpus.overlay.northbound(&["lsp-add", "tenant", port])?;
        let addresses = format!("{} {address}", dpus.get(number).host_mac());
        dpus.overlay.northbound(&["lsp-set-addresses", port, &addresses])?;
    }
    dpus.get(0).settles(1)?;
    dpus.get(1).settles(1)?;
    let facts = servers[0].hellos().remove(0).facts;
    ensure!(facts.serial == Some(dpus.get(0).serial()), "{facts:?}");
    ensure!(facts.programs.iter().any(|program| program.name == "ovs-vswitchd"), "{facts:?}");

    let spec = with_script(spec, &dir.join("host.initrd"), &work(30))?;
    let mut machine = rack.machine_in(dpus.overlay.chassis(0), spec)?;
    machine.power_on()?;
    machine.serial().wait_for("provisioned=yes", WORK)?;
    ensure!(pings(rack.namespace(), &[PROVISIONED])?, "the host is on the provisioning network");
    ensure!(!pings(&other, &[PORTS[0].1])?, "the host is not on its tenant's network yet");

    let began = Instant::now();
    servers[0].want(state(dpus.get(0), 0, 2, Side::Tenant, &[&volume]));
    dpus.get(0).settles(2)?;
    dpus.overlay.settle()?;
    until("the hosts see each other", || pings(&other, &[PORTS[0].1]))?;
    println!("network_change {:.1} s", began.elapsed().as_secs_f64());
    ensure!(!pings(rack.namespace(), &[PROVISIONED])?, "the host left the provisioning network");

    let asked = Pings::start(&other, PORTS[0].1, &dir)?;
    machine.serial().wait_for("wrote=", WORK)?;
    for _ in 0..3 {
        dpus.get(0).kill()?;
        std::thread::sleep(Duration::from_secs(2));
        dpus.get(0).start_again()?;
        dpus.get(0).settles(2)?;
    }
    dpus.get(0).upgrade()?;
    dpus.get(0).settles(2)?;
    for server in &servers {
        server.set_away(true);
    }
    dpus.get(0).kill()?;
    dpus.get(0).start_again()?;
    dpus.get(0).settles(2)?;
    std::thread::sleep(Duration::from_secs(3));
    let told = asked.finish()?;
    println!(
        "agent_killed answered {} lost {} longest {:.1} s",
        told.answered,
        told.lost,
        told.longest.as_secs_f64()
    );
    ensure!(told.longest <= GAP, "{told:?}");
    ensure!(told.answered > 80, "{told:?}");

    let said = machine.serial().wait_for("count=", WORK)?.text;
    machine.wait_off(WORK)?;
    ensure!(!machine.serial().said("FAILED") && !machine.serial().said("I/O error"), "a request failed");
    let count = said.split_once("count=").and_then(|(_, rest)| rest.split(' ').next());
    let count: usize = count.context("a count")?.parse()?;
    let expected = written(count);
    ensure!(fs::read(&volume)? == expected, "the volume does not hold what the host wrote");
    let sum: String = Sha256::digest(&expected).iter().map(|b| format!("{b:02x}")).collect();
    ensure!(said.contains(&sum), "the host read something else: {said}");
    println!("writes {count}");
    let seen = dpus.get(0).settles(2)?;
    ensure!(seen.volumes[0].restarts == 0, "the exporter was never started again: {seen:?}");
    drop(machine);

    // The servers come back; one that forgot the DPU gets a hello, and another state afterwards.
    for server in &servers {
        server.set_away(false);
    }
    servers[0].forget();
    let hellos = servers[0].hellos().len();
    until("it says hello again", || Ok(servers[0].hellos().len() > hellos))?;
    servers[0].accept_anybody();
    servers[0].want(state(dpus.get(0), 0, 3, Side::Provisioning, &[]));
    dpus.get(0).settles(3)?;
    ensure!(dpus.get(1).runs());
    dpus.overlay.passed();
    rack.passed();
    Ok(())
}

/// The power button is the controller's; which disks there are is the DPU's.
#[test]
fn a_host_boots_from_what_its_dpu_has_when_it_is_switched_on() -> Result<()> {
    let mut rack = Rack::new("dpu-boot")?;
    let dir = rack.dir().to_owned();
    let mut dpus = Dpus::new("dpu-boot", rack.namespace(), 1)?;
    let server = server(&rack, 8080)?;
    server.accept_anybody();
    let (boot, data) = (dir.join("boot.raw"), dir.join("data.raw"));
    fs::copy(artifact("images/tiny-a.raw")?, &boot)?;
    File::create(&data)?.set_len(16 << 20)?;
    server.want(state(dpus.get(0), 0, 1, Side::Provisioning, &[&boot]));
    let spec = dpus.host_machine(0, Firmware::Bios)?.disk_first().memory(512);
    dpus.get(0).start(&server.url(), Level::Stranger)?;
    dpus.get(0).settles(1)?;

    let machine = rack.machine_in(dpus.overlay.chassis(0), spec)?;
    let serial = machine.serial().clone();
    let machine = QemuMachine::new(machine);
    let handle = rack.namespace().clone_handle()?;
    let socket = within(&handle, || Ok(UdpSocket::bind((SERVER_ADDRESS, 623))?))?;
    let controller = Endpoint::start(socket, Plan::new("admin", "rackpass"), Arc::new(machine.clone()))?;
    let press = |action: PowerAction| press(&rack, controller.address(), action);

    let began = Instant::now();
    press(PowerAction::On)?;
    serial.wait_for("image=tiny-a", WORK)?;
    println!("boot_from_volume {:.1} s", began.elapsed().as_secs_f64());
    ensure!(dpus.get(0).settles(1)?.volumes[0].in_use, "the host has its disk");
    ensure!(disks(&machine)? == ["vol-6c0b9f1e-0000-4000-8000-000000000001"], "{:?}", disks(&machine)?);

    // One more while it runs, and both when it is switched on again.
    server.want(state(dpus.get(0), 0, 2, Side::Provisioning, &[&boot, &data]));
    until("the second disk is plugged in", || Ok(disks(&machine)?.len() == 2))?;
    press(PowerAction::ForceOff)?;
    until("it is off", || Ok(!machine.lock().is_on()))?;
    serial.skip_to_end();
    press(PowerAction::On)?;
    serial.wait_for("image=tiny-a", WORK)?;
    ensure!(disks(&machine)?.len() == 2, "{:?}", disks(&machine)?);
    let seen = dpus.get(0).settles(2)?;
    ensure!(seen.volumes.iter().all(|volume| volume.in_use && volume.restarts == 0), "{seen:?}");
    press(PowerAction::ForceOff)?;
    until("it is off", || Ok(!machine.lock().is_on()))?;
    drop(controller);
    drop(machine);
    dpus.overlay.passed();
    rack.passed();
    Ok(())
}

/// The real server: a DPU that was registered comes in by its token at once, a stranger when somebody accepts it; both by their secrets
/// when the server is started again. One that is forgotten is a stranger.
#[test]
fn dpus_come_in() -> Result<()> {
    let mut rack = Rack::new("dpu-enrol")?;
    let mut dpus = Dpus::new("dpu-enrol", rack.namespace(), 2)?;
    rack.start_server()?;
    let api = rack.api()?;
    let url = format!("http://{SERVER_ADDRESS}:8080");
    let body =
        json!({ "name": "dpu-a", "tunnel_address": dpus.get(0).tunnel_address(), "datapath": "netdev" });
    let created = api.post("/api/v1/dpus", &body)?;
    ensure!(created["dpu"]["status"] == "registered", "{created:#}");
    dpus.get(0).start(&url, Level::Token(created["token"].as_str().context("a token")?))?;
    let came = api.wait("/api/v1/dpus/dpu-a", WORK, |dpu| {
        (dpu["status"] != "registered" && dpu["problems"].is_array()).then(|| dpu.clone())
    })?;
    ensure!(came["accepted"] == true && came["facts"]["serial"] == dpus.get(0).serial(), "{came:#}");
    ensure!(came["address"] == "10.77.0.10", "{came:#}");

    dpus.get(1).start(&url, Level::Stranger)?;
    let serial = dpus.get(1).serial();
    let stranger = api.wait("/api/v1/dpus", WORK, |page| {
        page["items"].as_array()?.iter().find(|dpu| dpu["facts"]["serial"] == serial).cloned()
    })?;
    ensure!(stranger["status"] == "waiting" && stranger["accepted"] == false, "{stranger:#}");
    let path = format!("/api/v1/dpus/{}", stranger["id"].as_str().context("an id")?);
    api.post(&format!("{path}/accept"), &json!({}))?;
    let is_known = |dpu: &Value| (dpu["seen"].is_u64() && dpu["accepted"] == true).then_some(());
    api.wait(&path, WORK, is_known)?;
    let hellos = |dpu: &Dpu| -> Result<usize> {
        let log = fs::read_to_string(dpu.dir().join("agent.log"))?;
        Ok(log.matches("the server knows this DPU").count())
    };
    until("it is welcome", || Ok(hellos(dpus.get(1))? == 1))?;

    rack.server()?.kill()?;
    std::thread::sleep(Duration::from_secs(2));
    rack.server()?.start_again()?;
    for path in ["/api/v1/dpus/dpu-a", &path] {
        api.wait(path, WORK, is_known)?;
    }
    ensure!(dpus.iter_mut().all(Dpu::runs), "nobody ended");

    api.delete(&path)?;
    let again = api.wait("/api/v1/dpus", WORK, |page| {
        page["items"].as_array()?.iter().find(|dpu| dpu["facts"]["serial"] == serial).cloned()
    })?;
    ensure!(again["status"] == "waiting" && again["id"] != stranger["id"], "{again:#}");
    dpus.overlay.passed();
    rack.passed();
    Ok(())
}

/// By the server's own driver.
fn press(rack: &Rack, address: SocketAddr, action: PowerAction) -> Result<()> {
    let press = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let credentials = Credentials { user: "admin".into(), password: Secret("rackpass".into()) };
            let driver = Driver::new(&Settings { address, credentials, kg: None })?;
            driver.power(action).await?;
            driver.close().await;
            Ok(())
        })
    };
    within(&rack.namespace().clone_handle()?, press)
}

/// Names of the DPU's disks on the host's bus.
fn disks(machine: &QemuMachine) -> Result<Vec<String>> {
    let mut machine = machine.lock();
    let devices = machine.qmp()?.command("qom-list", json!({ "path": "/machine/peripheral" }))?;
    let is_disk = |device: &&Value| device["type"] == "child<vhost-user-blk-pci>";
    let names = devices.as_array().into_iter().flatten().filter(is_disk);
    let mut names: Vec<String> =
        names.filter_map(|device| device["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}
