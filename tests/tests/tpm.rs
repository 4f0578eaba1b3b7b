//! Machines with a TPM 2.0 (`swtpm`) under UEFI: what they prove by it, and what they do not get without.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::rack::{Api, Disk, Firmware, Machine, MachineSpec, Rack, artifact};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, deploy, events, rebuild, wait_discovered, wait_state};

/// Time for an agent that waits to be given what it must not have.
const LONG_ENOUGH: Duration = Duration::from_secs(15);
/// Registers that are the same in each boot by iPXE: PCR 9 has the command line in it, and that has the boot's nonce.
const REGISTERS: [u8; 4] = [0, 2, 4, 7];

struct Site {
    rack: Rack,
    api: Api,
    machine: Machine,
    kernel: PathBuf,
    node: String,
}

fn trust(api: &Api, node: &str) -> Result<Value> {
    Ok(api.get(&format!("/api/v1/nodes/{node}"))?["trust"].clone())
}

impl Site {
    /// A site that gives user data to no less than T3, and a machine that it knows by nothing but its addresses.
    fn new(name: &str) -> Result<Self> {
        let mut rack = Rack::new(name)?;
        let boot = rack.dir().join("boot");
        fs::create_dir_all(&boot)?;
        for file in ["vmlinuz", "initramfs.zst"] {
            fs::copy(artifact(&format!("ramdisk/{file}"))?, boot.join(file))?;
        }
        let shared = artifact("ramdisk/vmlinuz")?;
        let shared = format!("{:?}", shared.parent().context("a ramdisk in no directory")?);
        rack.start_server_with(|config| {
            config.replace(&shared, &format!("{boot:?}")) + "\n[identity]\nuser_data = \"t3\"\n"
        })?;
        let api = rack.api()?;
        add_image(&api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
        let spec = MachineSpec::new("m1", Firmware::Uefi).disk(Disk::virtio("OS1", 1 << 30)).tpm();
        let mut machine = rack.machine(spec)?;
        machine.power_on()?;
        let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
        Ok(Self { kernel: boot.join("vmlinuz"), rack, api, machine, node })
    }

    fn trust(&self) -> Result<Value> {
        trust(&self.api, &self.node)
    }

    /// Waits for what the agent's TPM says in this boot.
    fn shown(&self) -> Result<Value> {
        let path = format!("/api/v1/nodes/{}", self.node);
        self.api.wait(&path, DISCOVERY, |page| {
            let trust = &page["trust"];
            trust["shown"].is_object().then(|| trust.clone())
        })
    }

    /// The same, in a later boot than the one that `before` is of.
    fn shown_after(&self, before: &Value) -> Result<Value> {
        let path = format!("/api/v1/nodes/{}", self.node);
        self.api.wait(&path, DISCOVERY, |page| {
            let trust = &page["trust"];
            let later = trust["boot"].as_u64() > before["boot"].as_u64();
            (later && trust["shown"].is_object()).then(|| trust.clone())
        })
    }

    fn waits_for(&self) -> Result<String> {
        let detail = self.api.get(&format!("/api/v1/nodes/{}", self.node))?;
        Ok(detail["waits_for"].as_str().unwrap_or_default().to_owned())
    }

    /// Pins the TPM, and makes the model of the machine from what it measured.
    fn trusts(&self) -> Result<Value> {
        let shown = self.shown()?;
        let log = shown["shown"]["log"].as_str().unwrap_or_default().to_owned();
        ensure!(log.contains("which lead to the registers"), "no event log that holds: {shown:#}");
        self.api.post(&format!("/api/v1/nodes/{}/learn", self.node), &json!({ "name": "m" }))?;
        let learned =
            self.api.post("/api/v1/models/m/measured", &json!({ "node": self.node, "pcrs": REGISTERS }))?;
        let pcrs = learned["measured"]["pcrs"].as_object().context("no registers in the model")?;
        ensure!(pcrs.keys().map(String::as_str).eq(["0", "2", "4", "7"]), "{learned:#}");
        self.api.put(&format!("/api/v1/nodes/{}/tpm", self.node), &json!({ "ek": shown["shown"]["ek"] }))?;
        self.trust()
    }

    /// Starts anew, with power off between.
    fn cold(&mut self) -> Result<()> {
        self.machine.power_off()?;
        self.machine.power_on()
    }

    /// The agent has the job and is at it.
    fn gets_its_job(&self) -> Result<()> {
        let path = format!("/api/v1/nodes/{}", self.node);
        let at_it = |stage: &Value| ["plan", "write", "verify", "customise"].iter().any(|it| stage == it);
        self.api.wait(&path, DISCOVERY, |page| at_it(&page["job"]["stage"]).then_some(()))
    }

    /// What is to be given to T3 alone is not given for as long as one may wait for it.
    fn gets_nothing(&self, why: &str) -> Result<()> {
        let waits = self.waits_for()?;
        ensure!(waits.contains(why), "it waits for: {waits}");
        std::thread::sleep(LONG_ENOUGH);
        let detail = self.api.get(&format!("/api/v1/nodes/{}", self.node))?;
        ensure!(detail["job"]["stage"] == "assign", "{:#}", detail["job"]);
        Ok(())
    }
}

/// Pinned and learned, it is T3, and a deploy with user data goes through. With another kernel the same machine stays below and
/// gets nothing; with the right one it is T3 again.
#[test]
fn a_machine_reaches_t3_and_a_changed_register_keeps_it_below() -> Result<()> {
    let mut site = Site::new("tpm-t3")?;
    let before = site.shown()?;
    ensure!(before["level"] == "t1" && before["pinned"].is_null(), "{before:#}");
    let after = site.trusts()?;
    ensure!(after["level"] == "t3", "{after:#}");
    deploy(&site.api, &site.node, "tiny-a", "OS1")?;
    wait_state(&site.api, &site.node, "active", DEPLOY)?;
    site.machine.serial().wait_for("TINY-OS READY", DEPLOY)?;

    // Somebody served another kernel: what is appended changes nothing but its measure.
    let good = fs::read(&site.kernel)?;
    fs::write(&site.kernel, [&good[..], &[0; 512]].concat())?;
    rebuild(&site.api, &site.node, "tiny-a", "OS1")?;
    site.cold()?;
    let shown = site.shown()?;
    ensure!(shown["level"] == "t1" && shown["needs"] == "t3", "{shown:#}");
    site.gets_nothing("PCR 4 not as its model says")?;
    ensure!(events(&site.api, &site.node, "identity.measured")?.len() == 1, "no alarm");

    // The right one again: nothing has to be asked for anew.
    fs::write(&site.kernel, good)?;
    site.cold()?;
    site.gets_its_job()?;
    ensure!(events(&site.api, &site.node, "identity.quote")?.is_empty(), "a proof that failed");
    site.rack.passed();
    Ok(())
}

/// Another TPM on the board of a node whose TPM is pinned: an alarm, and nothing is given, not even by an operator's word for the
/// boot. A new pin is what helps.
#[test]
fn another_tpm_is_an_alarm_and_gets_nothing() -> Result<()> {
    let mut site = Site::new("tpm-swap")?;
    let pinned = site.trusts()?;
    ensure!(pinned["level"] == "t3", "{pinned:#}");
    site.machine.power_off()?;
    site.machine.swap_tpm()?;
    site.machine.power_on()?;
    let shown = site.shown_after(&pinned)?;
    ensure!(shown["level"] == "t0" && shown["shown"]["ek"] != pinned["pinned"]["ek"], "{shown:#}");
    ensure!(events(&site.api, &site.node, "identity.other_tpm")?.len() == 1, "no alarm");
    deploy(&site.api, &site.node, "tiny-a", "OS1")?;
    site.gets_nothing("another TPM than the pinned one")?;
    let approve = format!("/api/v1/nodes/{}/approve-boot", site.node);
    ensure!(site.api.post(&approve, &json!({ "boot": shown["boot"] })).is_err(), "an operator's word helps");

    let pin = json!({ "ek": shown["shown"]["ek"] });
    site.api.put(&format!("/api/v1/nodes/{}/tpm", site.node), &pin)?;
    site.gets_its_job()?;
    site.rack.passed();
    Ok(())
}
