//! Hosts without a DPU on networks of their projects: a real Open vSwitch is the site's switch, and Billet puts the hosts' ports into VLANs
//! by its OVSDB. From the API to the OS that runs: nobody touches a machine or the switch.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::bmc::QemuMachine;
use tests::bmc::ipmi::{Endpoint, Plan};
use tests::dpu::Ssh;
use tests::rack::{Api, Firmware, Rack, SERVER_ADDRESS, SwitchPort, artifact, within};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, events, wait_discovered_mac, wait_stage, wait_state};
use tests::switch::{ManagedSwitch, PROVISIONING_VLAN, SWITCH_BRIDGE, TenantRouter};

/// The switch, as it calls itself.
const SWITCH: &str = "sw-a1";
/// Account of the hosts' controllers.
const USER: &str = "admin";
/// Its password.
const PASSWORD: &str = "rackpass";
/// Where the first host's controller listens; the others follow.
const CONTROLLER: u16 = 6230;
/// For a switch, or a machine, to do what it was told.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Both projects have this network, and this address in it.
const SUBNET: &str = "10.0.0.0/24";
const GATEWAY: &str = "10.0.0.1";
const ADDRESS: &str = "10.0.0.2";
/// VLANs of the fabric: two networks, and no more.
const VLANS: [u16; 2] = [100, 101];
/// The projects.
const PROJECTS: [&str; 2] = ["shop", "rival"];
/// Asks for an address on the only NIC, and takes none.
const ASK: &str = "udhcpc -i eth0 -n -q -t 3 -T 1 -s /bin/true >/dev/null 2>&1 && echo lent || echo nobody";

struct Site {
    // Dropped in this order: a machine before the switch, all before the rack.
    _controllers: Vec<Endpoint>,
    _lldp: SwitchPort,
    hosts: Vec<QemuMachine>,
    routers: Vec<TenantRouter>,
    switch: ManagedSwitch,
    api: Api,
    nodes: Vec<String>,
    rack: Rack,
}

#[test]
fn hosts_are_on_the_vlan_of_their_project_and_on_no_other() -> Result<()> {
    let began = Instant::now();
    let mut site = Site::begin()?;
    println!("site_s {:.1}", began.elapsed().as_secs_f64());
    site.networks()?;
    let keys: Vec<Ssh> = site.keys()?;
    site.create(&keys)?;
    site.stay_while_the_switch_is_away()?;
    site.go_over()?;
    println!("created_s {:.1}", began.elapsed().as_secs_f64());
    site.are_apart(&keys)?;
    site.are_put_back()?;
    site.come_home()?;
    println!("whole_s {:.1}", began.elapsed().as_secs_f64());
    site.rack.passed();
    Ok(())
}

impl Site {
    fn begin() -> Result<Self> {
        let mut rack = Rack::new("switch-site")?;
        let switch = ManagedSwitch::new(&rack)?;
        let more = format!(
            "\n[[switches]]\nname = {SWITCH:?}\naddress = {:?}\nbridge = {SWITCH_BRIDGE:?}\n\
             provisioning_vlan = {PROVISIONING_VLAN}\nvlans = \"{}-{}\"\n",
            switch.manager_address(),
            VLANS[0],
            VLANS[1]
        );
        rack.start_server_with(|config| config + &more)?;
        let api = rack.api()?;
        add_image(&api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
        let (mut hosts, mut controllers) = (Vec::new(), Vec::new());
        for number in 0..PROJECTS.len() {
            let spec = switch.host(number, Firmware::Bios)?.disk_first();
            let host = QemuMachine::new(rack.machine_in(switch.namespace(), spec)?);
            let listen = || Ok(UdpSocket::bind((SERVER_ADDRESS, CONTROLLER + u16::try_from(number)?))?);
            let socket = within(&rack.namespace().clone_handle()?, listen)?;
            controllers.push(Endpoint::start(socket, Plan::new(USER, PASSWORD), Arc::new(host.clone()))?);
            hosts.push(host);
        }
        // The first host hears its switch, the second one does not.
        let port = ManagedSwitch::port(0);
        let lldp = Rack::switch_port_in(switch.namespace(), &port, SWITCH, &port)?;
        for host in &hosts {
            host.lock().power_on()?;
        }
        let (_controllers, _lldp, routers, nodes) = (controllers, lldp, Vec::new(), Vec::new());
        let mut site = Self { _controllers, _lldp, hosts, routers, switch, api, nodes, rack };
        site.discover()?;
        Ok(site)
    }

    fn discover(&mut self) -> Result<()> {
        for (number, host) in self.hosts.iter().enumerate() {
            let mac = host.lock().mac(0);
            let name = wait_discovered_mac(&self.api, &mac, "available", DISCOVERY)?;
            let bmc = json!({
                "driver": "ipmi", "address": SERVER_ADDRESS, "port": CONTROLLER + u16::try_from(number)?,
                "user": USER, "password": PASSWORD,
            });
            self.api.put(&format!("/api/v1/nodes/{name}/bmc"), &bmc)?;
            self.nodes.push(name);
        }
        // A switch speaks when it does: the agent tells of it when it hears it, which may be after the machine was found.
        let heard = |cables: &Value| {
            let first = &cables["items"][0];
            (first["source"] == "lldp" && first["managed"] == true).then_some(())
        };
        self.api.wait(&format!("/api/v1/nodes/{}/cables", self.nodes[0]), SOON, heard)?;
        let silent = self.api.get(&format!("/api/v1/nodes/{}/cables", self.nodes[1]))?;
        ensure!(silent["items"][0]["managed"] == false, "{silent:#}");
        let path = format!("/api/v1/nodes/{}/cables/{}", self.nodes[1], self.hosts[1].lock().mac(0));
        self.api.put(&path, &json!({ "switch": SWITCH, "port": ManagedSwitch::port(1) }))?;
        Ok(())
    }

    /// Both projects have the same addresses, each in a VLAN of its own.
    fn networks(&mut self) -> Result<()> {
        let api = &self.api;
        for (number, project) in PROJECTS.iter().enumerate() {
            let of = format!("/api/v1/projects/{project}");
            api.post("/api/v1/projects", &json!({ "name": project }))?;
            let network = api.post(&format!("{of}/networks"), &json!({ "name": "web" }))?;
            ensure!(network["driver"] == "switch" && network["vlan"] == VLANS[number], "{network:#}");
            let subnet = json!({ "name": "web", "network": "web", "cidr": SUBNET, "dns": [GATEWAY] });
            api.post(&format!("{of}/subnets"), &subnet)?;
            self.routers.push(self.switch.router(number, VLANS[number], GATEWAY, &self.rack)?);
        }
        let refused = |path: &str, body: &Value, code: &str| {
            let said = format!("{:#}", api.post(path, body).err().context("it was taken")?);
            ensure!(said.contains(code), "{path}: {said}");
            Ok(())
        };
        let of = "/api/v1/projects/shop";
        refused(&format!("{of}/networks"), &json!({ "name": "more" }), "no-vlan")?;
        refused(&format!("{of}/networks"), &json!({ "name": "more", "driver": "ovn" }), "no-ovn")?;
        let guarded = json!({ "network": "web", "security_groups": ["default"] });
        refused(&format!("{of}/ports"), &guarded, "no security group holds")
    }

    fn keys(&self) -> Result<Vec<Ssh>> {
        let key = |(router, project): (&TenantRouter, &&str)| {
            let dir = self.rack.dir().join(project);
            std::fs::create_dir_all(&dir)?;
            Ssh::new(&router.namespace, &dir)
        };
        self.routers.iter().zip(&PROJECTS).map(key).collect()
    }

    fn create(&self, keys: &[Ssh]) -> Result<()> {
        for (number, project) in PROJECTS.iter().enumerate() {
            let body = json!({
                "name": format!("{project}-0"), "node": self.nodes[number], "image": "tiny-a", "networks": ["web"],
                "ssh_keys": [keys[number].public_key()],
            });
            self.api.post(&format!("/api/v1/projects/{project}/servers"), &body)?;
        }
        Ok(())
    }

    fn tag(&self, number: usize) -> Result<u16> {
        Ok(self.switch.column(&ManagedSwitch::port(number), "tag")?.parse()?)
    }

    fn wait_tag(&self, number: usize, vlan: u16) -> Result<()> {
        let end = Instant::now() + SOON;
        while self.tag(number)? != vlan {
            ensure!(Instant::now() < end, "port {number} has VLAN {}, not {vlan}", self.tag(number)?);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The OS is written, and nobody starts it: the switch cannot be told. Billet ends meanwhile.
    fn stay_while_the_switch_is_away(&mut self) -> Result<()> {
        for number in 0..PROJECTS.len() {
            ensure!(self.tag(number)? == PROVISIONING_VLAN, "on the provisioning network during the deploy");
        }
        self.switch.close_to_managers()?;
        for node in &self.nodes {
            wait_stage(&self.api, node, "cross", DEPLOY)?;
        }
        let end = Instant::now() + SOON;
        while events(&self.api, &self.nodes[0], "switch.trouble")?.is_empty() {
            ensure!(Instant::now() < end, "nobody is told that the switch is away");
            std::thread::sleep(LOOK);
        }
        let switches = self.api.get("/api/v1/switches")?;
        ensure!(switches["items"][0]["reached"] == false, "{switches:#}");
        // The project is told after the site is.
        let told = |server: &Value| {
            let note = server["note"].as_str().unwrap_or_default();
            (server["phase"] == "deploying" && note.contains("waits for the site's network")).then_some(())
        };
        self.api.wait("/api/v1/projects/shop/servers/shop-0", SOON, told)?;
        self.rack.server()?.kill()?;
        self.switch.open_to_managers()?;
        for host in &self.hosts {
            ensure!(
                !host.lock().serial().said("TINY-OS READY"),
                "the OS started on the provisioning network"
            );
        }
        self.rack.server()?.start_again()
    }

    fn go_over(&self) -> Result<()> {
        for (number, project) in PROJECTS.iter().enumerate() {
            let active = |server: &Value| match server["phase"].as_str() {
                Some("active") => Some(Ok(())),
                Some("error") => Some(Err(anyhow::anyhow!("{server:#}"))),
                _ => None,
            };
            self.api.wait(&format!("/api/v1/projects/{project}/servers/{project}-0"), DEPLOY, active)??;
            let serial = self.hosts[number].lock().serial().clone();
            ensure!(serial.said(&format!("address={ADDRESS}")), "its address is the project's");
            let port = ManagedSwitch::port(number);
            ensure!(self.tag(number)? == VLANS[number], "port {port} has VLAN {}", self.tag(number)?);
            ensure!(self.switch.column(&port, "vlan_mode")? == "access");
            ensure!(
                self.switch.column("uplink", "external_ids")?.is_empty(),
                "a port of others is left alone"
            );
        }
        Ok(())
    }

    /// The same address is another machine in each VLAN; frames carry the VLAN on the trunk; nobody lends addresses of the site there.
    fn are_apart(&self, keys: &[Ssh]) -> Result<()> {
        for (number, project) in PROJECTS.iter().enumerate() {
            let name = || {
                // Whoever knows nobody asks all.
                self.routers[number].namespace.ip(&["neigh", "flush", "dev", "eth0"])?;
                let name = keys[number].wait(ADDRESS, "hostname", SOON)?;
                ensure!(name == format!("{project}-0"), "{name} answers in the VLAN of {project}");
                Ok(())
            };
            let seen = self.switch.on_trunk(&format!("vlan {} and arp", VLANS[number]), name)?;
            let vlan = format!("vlan {}", VLANS[number]);
            ensure!(seen.lines().any(|line| line.contains(&vlan) && line.contains(ADDRESS)), "{seen}");
            let lent = keys[number].run(ADDRESS, ASK)?;
            ensure!(lent == "nobody", "the provisioning network's DHCP answers in VLAN {}", VLANS[number]);
        }
        println!("vlans {VLANS:?} seen on the trunk");
        Ok(())
    }

    /// What somebody changes at the switch is put back, and told.
    fn are_put_back(&self) -> Result<()> {
        let began = Instant::now();
        self.switch.vsctl(&["set", "port", &ManagedSwitch::port(0), &format!("tag={}", VLANS[1])])?;
        self.wait_tag(0, VLANS[0])?;
        println!("put_back_s {:.2}", began.elapsed().as_secs_f64());
        let told = || Ok::<_, anyhow::Error>(!events(&self.api, &self.nodes[0], "switch.drift")?.is_empty());
        let end = Instant::now() + SOON;
        while !told()? {
            ensure!(Instant::now() < end, "nobody is told of the change");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Given back: on the provisioning network again, wiped there, and its VLAN is free.
    fn come_home(&self) -> Result<()> {
        let server = "/api/v1/projects/shop/servers/shop-0";
        let serial = self.hosts[0].lock().serial().clone();
        let boots = serial.said("TINY-OS PHONED");
        ensure!(boots, "it ran before");
        self.api.delete(server)?;
        self.wait_tag(0, PROVISIONING_VLAN)?;
        wait_state(&self.api, &self.nodes[0], "available", DEPLOY)?;
        ensure!(self.tag(0)? == PROVISIONING_VLAN && self.tag(1)? == VLANS[1]);
        self.api.delete("/api/v1/projects/shop/networks/web")?;
        let next = self.api.post("/api/v1/projects/rival/networks", &json!({ "name": "next" }))?;
        ensure!(next["vlan"] == VLANS[0], "its VLAN is free: {next:#}");
        Ok(())
    }
}
