//! A machine without hardware: it speaks the agent's protocol over HTTP, so that a suite can walk a node through its
//! life in seconds. What it reports may be anything, hostile strings too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Method, Request};

/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(60);

/// A machine.
#[derive(Debug)]
pub struct SimulatedMachine {
    agent: Agent,
    base: String,
    /// Its MAC address.
    pub mac: String,
    /// Its SMBIOS UUID.
    pub uuid: String,
    /// Its serial number.
    pub serial: String,
    session: String,
    seq: u64,
}

impl SimulatedMachine {
    /// A machine that is switched off; `base` is the provisioning listener, such as `http://10.77.0.1:8080`.
    pub fn new(base: &str, number: u8, serial: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(ANSWER))
            .build();
        Self {
            agent: config.new_agent(),
            base: base.to_owned(),
            mac: format!("52:54:00:aa:00:{number:02x}"),
            uuid: format!("4c4c4544-0042-3510-8052-b4c04f4{number:05x}"),
            serial: serial.to_owned(),
            session: String::new(),
            seq: 0,
        }
    }

    /// Boots from the network: asks for the script; returns it.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub fn boot(&mut self) -> Result<String> {
        let mut query = String::new();
        for (name, value) in [("mac", &self.mac), ("uuid", &self.uuid), ("serial", &self.serial)] {
            query.push_str(&format!("{name}={}&", percent(value)));
        }
        let url = format!("{}/boot/ipxe?{query}platform=efi&buildarch=x86_64", self.base);
        let mut answer = self.agent.get(&url).call()?;
        ensure!(answer.status().is_success(), "the boot script was answered {}", answer.status());
        Ok(answer.body_mut().read_to_string()?)
    }

    /// Boots the agent: takes the nonce from the script and says hello.
    ///
    /// # Errors
    /// Where the script boots no agent, or the hello is refused.
    pub fn boot_agent(&mut self) -> Result<()> {
        let script = self.boot()?;
        let nonce = script.split("billet.nonce=").nth(1).context("the script boots no agent")?;
        let nonce: String = nonce.chars().take_while(char::is_ascii_hexdigit).collect();
        let hello = json!({
            "protocol": 1, "agent_version": "0.1.0", "kernel": "6.1.0-simulated", "nonce": nonce,
            "uuid": self.uuid, "serial": self.serial, "macs": [self.mac], "uptime_ms": 2400,
        });
        let welcome = self.send(Method::POST, "/agent/v1/hello", &hello)?;
        self.session = welcome["session"].as_str().context("a welcome without a session")?.to_owned();
        self.seq = 0;
        Ok(())
    }

    /// Sends its inventory.
    ///
    /// # Errors
    /// Where the server refuses it.
    pub fn send_inventory(&self, inventory: &Value) -> Result<()> {
        self.send(Method::PUT, "/agent/v1/inventory", inventory).map(drop)
    }

    /// Asks for work, for at most `seconds`.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn work(&self, seconds: u32) -> Result<Value> {
        self.send(Method::GET, &format!("/agent/v1/work?wait={seconds}"), &Value::Null)
    }

    /// Reports on a job. Each body is one `ReportBody`. What was not acknowledged is sent again under the same numbers.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn report(&mut self, job: &str, bodies: &[Value]) -> Result<()> {
        let mut reports = Vec::new();
        for body in bodies {
            self.seq += 1;
            reports.push(json!({ "seq": self.seq, "at": 0, "body": body }));
        }
        let sent = self.send(Method::POST, "/agent/v1/report", &json!({ "job": job, "reports": reports }));
        if sent.is_err() {
            self.seq -= bodies.len() as u64;
        }
        sent.map(drop)
    }

    /// Ends a job well: of an erase, each disk gets a record first.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn finish(&mut self, work: &Value) -> Result<()> {
        let job = &work["job"];
        let mut bodies = erased(job);
        bodies.push(json!({ "kind": "finished", "summary": {} }));
        self.report(job["id"].as_str().context("no job")?, &bodies)
    }

    /// Phones home as the OS does, with the token out of the job's vendor data.
    ///
    /// # Errors
    /// Where the job holds no token, or the server refuses it.
    pub fn phone_home(&self, work: &Value) -> Result<()> {
        let vendor =
            work["job"]["task"]["config"]["vendor_data"].as_str().context("a job without vendor data")?;
        let token = vendor.split("/phone-home/").nth(1).context("vendor data without phone-home")?;
        let token: String =
            token.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/phone-home/{token}", self.base))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("instance_id=x&hostname=y".to_owned())?;
        let answer = self.agent.run(request)?;
        ensure!(answer.status().is_success(), "phone-home was answered {}", answer.status());
        Ok(())
    }

    fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !self.session.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.session));
        }
        let mut answer = if body.is_null() {
            self.agent.run(request.body(())?)?
        } else {
            self.agent.run(request.header("content-type", "application/json").body(body.to_string())?)?
        };
        let text = answer.body_mut().read_to_string()?;
        ensure!(answer.status().is_success(), "{path} was answered {}: {text}", answer.status());
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// A machine's inventory with two disks; the strings stand wherever a machine may put its own words.
pub fn inventory(machine: &SimulatedMachine, product: &str, lldp: &str, blank: bool) -> Value {
    let content = if blank {
        json!({ "kind": "blank" })
    } else {
        json!({ "kind": "partitioned", "table": "gpt", "partitions": [
            { "number": 1, "start_bytes": 1_048_576, "size_bytes": 536_870_912, "name": "EFI System", "content": "vfat" },
            { "number": 2, "start_bytes": 537_919_488, "size_bytes": 959_000_000_000_u64, "name": lldp, "content": "ext4" },
        ]})
    };
    let disk = |name: &str, model: &str, serial: &str, size: u64, transport: &str, content: &Value| {
        json!({
            "id": format!("serial:{serial}"), "name": name, "bus_path": "pci-0000:01:00.0", "model": model, "serial": serial,
            "wwn": "eui.00253858b1000a01", "firmware": "EDA7602Q", "size_bytes": size, "logical_sector": 512, "physical_sector": 4096,
            "rotational": transport == "sata", "transport": transport, "removable": false, "read_only": false, "content": content,
        })
    };
    let dimm = |slot: &str| {
        json!({ "locator": slot, "size_bytes": 34_359_738_368_u64, "speed_mts": 4800, "kind": "DDR5",
            "manufacturer": "Samsung", "serial": format!("03A1{slot}"), "part_number": "M321R4GA3BB6-CQKVG" })
    };
    let nic = |name: &str, mac: &str, up: bool| {
        json!({ "name": name, "mac": mac, "permanent_mac": mac, "driver": "mlx5_core", "firmware": "26.39.1002",
            "speed_mbps": up.then_some(25_000), "carrier": up, "bus_path": "pci-0000:41:00.0", "pci_id": "15b3:101f",
            "address": up.then_some("10.77.0.131"),
            "lldp": up.then(|| json!({ "chassis_id": "b8:59:9f:aa:01:00", "port_id": "swp12", "system_name": lldp,
                "port_description": "rack 4 unit 12", "vlan": 77 })) })
    };
    let pci = |address: &str, vendor: u16, device: u16, class: u32, driver: &str| json!({ "address": address, "vendor": vendor, "device": device, "class": class, "driver": driver });
    let cpu = |socket: u32| {
        json!({ "socket": socket, "model": "AMD EPYC 9354 32-Core Processor", "vendor": "AuthenticAMD", "cores": 32,
            "threads": 64, "max_mhz": 3800, "architecture": "x86_64" })
    };
    let system = format!("{}-1", machine.serial);
    json!({
        "system": { "uuid": machine.uuid, "manufacturer": "Dell Inc.", "product": product, "serial": machine.serial,
            "sku": "0B1A", "board_manufacturer": "Dell Inc.", "board_product": "0H64RD", "board_serial": "CN7792",
            "chassis_serial": machine.serial, "asset_tag": lldp },
        "firmware": { "mode": "uefi", "secure_boot": false, "vendor": "Dell Inc.", "version": "1.8.3", "date": "05/14/2026" },
        "cpus": [cpu(0), cpu(1)],
        "memory_bytes": 137_438_953_472_u64,
        "dimms": [dimm("A1"), dimm("A2"), dimm("B1"), dimm("B2")],
        "disks": [
            disk("nvme0n1", "SAMSUNG MZQL2960HCJR", &machine.serial, 960_197_124_096, "nvme", &content),
            disk("sda", "ST16000NM001G", &system, 16_000_900_661_248, "sata", &json!({ "kind": if blank { "blank" } else { "unknown" } })),
        ],
        "nics": [nic("eno1", &machine.mac, true), nic("eno2", "52:54:00:bb:00:01", false)],
        "pci": [
            pci("0000:01:00.0", 0x144d, 0xa80a, 0x01_0802, "nvme"),
            pci("0000:41:00.0", 0x15b3, 0x101f, 0x02_0000, "mlx5_core"),
            pci("0000:81:00.0", 0x10de, 0x2331, 0x03_0200, "nouveau"),
        ],
        "bmc": { "address": "10.78.0.12", "mac": "b8:cb:29:00:11:22", "firmware": "7.10" },
        "tpm": { "version_major": 2 },
        "warnings": [],
    })
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// What an agent says of each disk of an erase; nothing of other jobs.
pub fn erased(job: &Value) -> Vec<Value> {
    let task = &job["task"];
    let disks = task["disks"].as_array().filter(|_| !task["erase"].is_null());
    let record = |disk: &Value| {
        json!({ "kind": "disk", "record": {
            "disk": disk["id"], "name": "sda", "model": null, "serial": null, "wwn": null, "firmware": null,
            "size_bytes": disk["size_bytes"], "transport": "sata", "result": "erased", "method": "overwrite",
            "grade": "clear", "not_used": [], "began": 0, "ended": 0,
            "sampled": { "expected": "pattern", "random": 1024, "start": 512, "end": 512, "block_bytes": 4096,
                "sentinels": 64, "bound_ppm": 4488 },
        } })
    };
    disks.into_iter().flatten().map(record).collect()
}
