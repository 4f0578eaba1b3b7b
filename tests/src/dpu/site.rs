//! A site with DPUs: a rack with a server that knows an overlay and a type of volumes, DPUs that came in by their tokens, and their
//! hosts, machines with a controller each, which the server found by their DPU's function.

use std::net::UdpSocket;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Dpus, Level, SITE};
use crate::bmc::QemuMachine;
use crate::bmc::ipmi::{Endpoint, Plan};
use crate::overlay::{CENTRAL, WIRE};
use crate::rack::{Api, Disk, Firmware, Machine, MachineSpec, Rack, SERVER_ADDRESS, within};
use crate::scenario::{DISCOVERY, wait_discovered_mac};

/// Account of the hosts' controllers.
const USER: &str = "admin";
/// Its password.
const PASSWORD: &str = "rackpass";
/// Where the first host's controller listens; the others follow.
const CONTROLLER: u16 = 6230;
/// The provisioning listener.
const PROVISIONING: u16 = 8080;
/// The type of volumes that the site has.
pub const VOLUMES: &str = "standard";
/// Its type of instant volumes, which nobody gets who does not ask for it.
pub const INSTANT: &str = "instant";
/// Where their layers are, as a DPU sees it.
const LAYERS: &str = "/run/billet-dpu/layers";
/// Bytes per second of what no host waits for: little, so that what a host needs for its start is seen beside it.
const RATE: u64 = 256 << 10;

/// A site with DPUs.
pub struct DpuSite {
    // Dropped in this order: a machine before its DPU, all before the rack.
    controllers: Vec<Endpoint>,
    /// The hosts, in the order of their DPUs.
    pub hosts: Vec<QemuMachine>,
    /// Machines without a DPU.
    locals: Vec<QemuMachine>,
    /// The DPUs.
    pub dpus: Dpus,
    /// The server's API, as operator.
    pub api: Api,
    /// The rack with the server.
    pub rack: Rack,
}

impl DpuSite {
    /// A site whose `count` hosts are switched off and unknown.
    ///
    /// # Errors
    /// Where a program is missing or does not come up.
    pub fn new(name: &str, count: usize, firmware: Firmware) -> Result<Self> {
        Self::on(Rack::new(name)?, name, count, firmware, "")
    }

    /// The same on a rack that is there, whose server knows more: `types` is TOML with further types of volumes.
    ///
    /// # Errors
    /// As [`DpuSite::new`].
    pub fn on(mut rack: Rack, name: &str, count: usize, firmware: Firmware, types: &str) -> Result<Self> {
        let dpus = Dpus::new(name, rack.namespace(), count)?;
        let northbound = dpus.overlay.northbound_address();
        let gateways: Vec<String> = (0..count).map(Self::dpu_name).collect();
        let more = format!(
            "\n[overlay]\nnorthbound = {northbound:?}\nsouthbound = \"tcp:{CENTRAL}:6642\"\nmtu = 1442\n\
             gateways = {gateways:?}\n\n\
             [[volumes]]\nname = \"{VOLUMES}\"\nkind = \"iscsi\"\n\n\
             [[volumes]]\nname = \"{INSTANT}\"\nkind = \"instant\"\ndirectory = \"{LAYERS}\"\nrate = {RATE}\n{types}"
        );
        rack.start_server_with(|config| config + &more)?;
        let api = rack.api()?;
        let mut site =
            Self { controllers: Vec::new(), hosts: Vec::new(), locals: Vec::new(), dpus, api, rack };
        for number in 0..count {
            site.register(number)?;
            site.add_host(number, firmware)?;
        }
        Ok(site)
    }

    /// The DPU's name at the server.
    pub fn dpu_name(number: usize) -> String {
        format!("dpu-{number}")
    }

    fn register(&mut self, number: usize) -> Result<()> {
        let dpu = self.dpus.get(number);
        let body = json!({
            "name": Self::dpu_name(number), "tunnel_address": dpu.tunnel_address(), "datapath": "netdev",
        });
        let created = self.api.post("/api/v1/dpus", &body)?;
        let token = created["token"].as_str().context("a token")?.to_owned();
        dpu.start(&format!("http://{SERVER_ADDRESS}:{PROVISIONING}"), Level::Token(&token))
    }

    fn add_host(&mut self, number: usize, firmware: Firmware) -> Result<()> {
        // Its firmware tries disks first, as that of a server does: what boots is said by its controller.
        let spec = self.dpus.host_machine(number, firmware)?.disk_first();
        let machine = self.rack.machine_in(self.dpus.overlay.chassis(number), spec)?;
        let machine = self.control(machine, number)?;
        self.hosts.push(machine);
        Ok(())
    }

    /// Gives a machine a controller.
    fn control(&mut self, machine: Machine, number: usize) -> Result<QemuMachine> {
        let machine = QemuMachine::new(machine);
        let port = CONTROLLER + u16::try_from(number)?;
        let listen = || Ok(UdpSocket::bind((SERVER_ADDRESS, port))?);
        let socket = within(&self.rack.namespace().clone_handle()?, listen)?;
        self.controllers.push(Endpoint::start(socket, Plan::new(USER, PASSWORD), Arc::new(machine.clone()))?);
        Ok(machine)
    }

    /// Tells the server of a node's controller.
    fn tell_controller(&self, node: &str, number: usize) -> Result<()> {
        let bmc = json!({
            "driver": "ipmi", "address": SERVER_ADDRESS, "port": CONTROLLER + u16::try_from(number)?,
            "user": USER, "password": PASSWORD,
        });
        self.api.put(&format!("/api/v1/nodes/{node}/bmc"), &bmc).map(drop)
    }

    /// A machine like the hosts, but without a DPU and with a disk of its own of this many bytes, which is found. Name of the node.
    ///
    /// # Errors
    /// Where it is not found in time.
    pub fn discover_local(&mut self, firmware: Firmware, size: u64) -> Result<String> {
        let spec = MachineSpec::new("local", firmware).disk(Disk::virtio("LOCAL", size)).disk_first();
        let number = self.hosts.len() + self.locals.len();
        let machine = self.rack.machine(spec)?;
        let machine = self.control(machine, number)?;
        self.locals.push(machine.clone());
        machine.lock().power_on()?;
        let mac = machine.lock().mac(0);
        let name = wait_discovered_mac(&self.api, &mac, "available", DISCOVERY)?;
        self.tell_controller(&name, number)?;
        Ok(name)
    }

    /// Switches the hosts on for the first time; they are found, and the server gets their controllers. Names of the nodes.
    ///
    /// # Errors
    /// Where one is not found in time.
    pub fn discover(&mut self) -> Result<Vec<String>> {
        for (number, host) in self.hosts.iter().enumerate() {
            let wanted = |dpu: &Value| (dpu["status"] == "settled").then_some(());
            let path = format!("/api/v1/dpus/{}", Self::dpu_name(number));
            self.api.wait(&path, DISCOVERY, wanted).context("waiting for a DPU")?;
            host.lock().power_on()?;
        }
        let mut names = Vec::new();
        for number in 0..self.hosts.len() {
            let mac = self.dpus.get(number).host_mac().to_string();
            let name = wait_discovered_mac(&self.api, &mac, "available", DISCOVERY)?;
            self.tell_controller(&name, number)?;
            let path = format!("/api/v1/dpus/{}", Self::dpu_name(number));
            let is_paired = |dpu: &Value| (dpu["node_name"] == name.as_str()).then_some(());
            self.api.wait(&path, DISCOVERY, is_paired).context("waiting for a DPU to find its host")?;
            names.push(name);
        }
        Ok(names)
    }

    /// A project with a network `web`, 10.0.0.0/24, whose router leads to the server: what runs there phones home. The path of its API.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn project(&self, name: &str) -> Result<String> {
        let api = &self.api;
        let is_there = |network: &Value| network["name"] == "internet";
        let networks = api.get("/api/v1/networks")?;
        if !networks["items"].as_array().is_some_and(|all| all.iter().any(is_there)) {
            let wan = json!({ "name": "internet", "physical": WIRE, "shared": true });
            api.post("/api/v1/networks", &wan)?;
            let public = json!({ "cidr": "192.168.99.0/24", "gateway": SITE, "pools": ["192.168.99.40-192.168.99.59"] });
            api.post("/api/v1/networks/internet/subnets", &public)?;
        }
        api.post("/api/v1/projects", &json!({ "name": name }))?;
        let of = format!("/api/v1/projects/{name}");
        api.post(&format!("{of}/networks"), &json!({ "name": "web" }))?;
        let subnet = json!({ "name": "web", "network": "web", "cidr": "10.0.0.0/24" });
        api.post(&format!("{of}/subnets"), &subnet)?;
        api.post(&format!("{of}/routers"), &json!({ "name": "edge" }))?;
        api.put(&format!("{of}/routers/edge/interfaces/web"), &json!({}))?;
        api.put(&format!("{of}/routers/edge/gateway"), &json!({ "network": "internet" }))?;
        Ok(of)
    }

    /// The test passed: the files are not needed.
    pub fn passed(&mut self) {
        self.dpus.overlay.passed();
        self.rack.passed();
    }
}
