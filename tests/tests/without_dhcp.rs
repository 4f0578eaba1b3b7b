//! Machines on a segment where nobody answers DHCP: known by their controllers alone, booted from an image in the virtual drive,
//! deployed, and booted from their disks.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::bmc::QemuMachine;
use tests::bmc::redfish::{self, Profile, RedfishBmc};
use tests::rack::{
    Api, Disk, Firmware, MachineSpec, Rack, SERVER_ADDRESS, Serial, artifact, dhcp_replies, within,
};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, events, wait_state};

/// Of the machine, as its list of controllers says.
const ADDRESS: &str = "10.77.0.50";
const NODE: &str = "rack-1";
/// The drive of its controller.
const DRIVE: &str = "/redfish/v1/Managers/iDRAC.Embedded.1/VirtualMedia/CD";
/// Of firmware under software emulation, and a small OS.
const START: Duration = Duration::from_secs(180);
/// From the last word of the agent to an empty drive.
const EJECT: Duration = Duration::from_secs(60);

/// A server that lends no address, a machine with an empty drive, and its controller.
struct Site {
    // Dropped first: it serves until then.
    service: RedfishBmc,
    runtime: tokio::runtime::Runtime,
    rack: Rack,
    api: Api,
    machine: QemuMachine,
    serial: Serial,
}

impl Site {
    fn new(name: &str, change: impl FnOnce(MachineSpec) -> MachineSpec) -> Result<Self> {
        let mut rack = Rack::new(name)?;
        rack.start_server_with(|config| {
            config + "\n[dhcp]\nenabled = false\n\n[dhcp6]\nenabled = false\n\n[ipv6]\nenabled = false\n\n[tftp]\nenabled = false\n"
        })?;
        let api = rack.api()?;
        add_image(&api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
        let spec = MachineSpec::new("m1", Firmware::Uefi).disk(Disk::virtio("OS1", 1 << 30));
        let machine = rack.machine(change(spec.disk_first().cdrom()))?;
        let serial = machine.serial().clone();
        let machine = QemuMachine::new(machine);
        let start = || {
            // Its threads are where this one is: it listens in the rack, and fetches images there.
            let runtime = tokio::runtime::Runtime::new()?;
            let at = format!("{SERVER_ADDRESS}:8443").parse()?;
            let machine = Arc::new(machine.clone());
            let service = RedfishBmc::start(Profile::named("dell-idrac9")?, machine, at, true);
            let service = runtime.block_on(service)?;
            Ok((runtime, service))
        };
        let (runtime, service) = within(&rack.namespace().clone_handle()?, start)?;
        Ok(Self { service, runtime, rack, api, machine, serial })
    }

    /// What somebody has who never saw the machine: a line of a list.
    fn import(&self) -> Result<()> {
        let mac = self.machine.lock().mac(0);
        let line = json!({
            "node": NODE, "mac": mac, "driver": "redfish", "address": SERVER_ADDRESS, "port": 8443,
            "user": redfish::USER, "password": redfish::PASSWORD, "network": format!("{ADDRESS}/24"),
        });
        let done = self.api.post("/api/v1/bmcs/import", &json!({ "bmcs": [line] }))?;
        ensure!(done["lines"][0]["refused"].is_null(), "{done:#}");
        Ok(())
    }

    fn wait_empty(&self) -> Result<()> {
        let path = format!("/api/v1/nodes/{NODE}/bmc/media");
        self.api.wait(&path, EJECT, |media| media["image"].is_null().then_some(()))
    }

    /// Status of a request from the segment.
    fn status(&self, url: &str, more: &[&str]) -> Result<String> {
        let args = [&["-s", "-o", "/dev/null", "-w", "%{http_code}"], more, &[url]].concat();
        self.rack.namespace().run("curl", &args)
    }

    /// The machine looks at itself, and what it booted from is gone after that.
    fn inspect(&self) -> Result<()> {
        self.api.post(&format!("/api/v1/nodes/{NODE}/inspect"), &json!({}))?;
        let path = format!("/api/v1/nodes/{NODE}/bmc/media");
        let shown = self.api.wait(&path, DISCOVERY, |media| media["image"].as_str().map(str::to_owned))?;
        let url = self.service.property(DRIVE, "/Image").context("no image in the drive")?;
        let url = url.as_str().context("an image without a URL")?.to_owned();
        ensure!(shown != url && shown.ends_with("/billet.iso"), "the API shows the secret: {shown}");
        ensure!(self.status(&url, &["-r", "0-99"])? == "206", "the image is not served in ranges: {url}");
        self.check_image(&url)?;
        wait_state(&self.api, NODE, "available", DISCOVERY)?;
        ensure!(self.serial.said("billet: agent"), "no agent on the console");
        ensure!(self.serial.said(&format!("{ADDRESS}/24 from the boot image")), "no settings of its own");
        ensure!(self.status(&url, &[])? == "404", "an image that was used is served");
        self.wait_empty()?;
        ensure!(events(&self.api, NODE, "media.inserted")?.len() == 1, "it was not read back");
        ensure!(events(&self.api, NODE, "media.ejected")?.len() == 1, "it was not read back");
        Ok(())
    }

    /// Programs of others read the image as they read any other.
    fn check_image(&self, url: &str) -> Result<()> {
        let iso = self.rack.dir().join("image.iso");
        let path = iso.to_str().context("a path that is not UTF-8")?;
        self.rack.namespace().run("curl", &["-sf", "-o", path, url])?;
        let again = self.rack.dir().join("again.iso");
        let other = again.to_str().context("a path that is not UTF-8")?;
        self.rack.namespace().run("curl", &["-sf", "-o", other, url])?;
        ensure!(std::fs::read(&iso)? == std::fs::read(&again)?, "twice the same is not the same");
        let out = self.rack.dir().join("iso");
        let root = out.to_str().context("a path that is not UTF-8")?;
        run("xorriso", &["-osirrox", "on", "-indev", path, "-extract", "/", root])?;
        let said = run("xorriso", &["-indev", path, "-report_el_torito", "plain"])?;
        ensure!(said.contains("UEFI"), "no El Torito entry for UEFI:\n{said}");
        let find = |name: &str| -> Result<std::path::PathBuf> {
            let names = [name.to_owned(), name.to_uppercase()];
            names
                .iter()
                .map(|name| out.join(name))
                .find(|p| p.exists())
                .context(format!("no {name} in the ISO"))
        };
        let kernel = artifact("ramdisk/vmlinuz")?;
        ensure!(std::fs::read(find("vmlinuz")?)? == std::fs::read(kernel)?, "another kernel");
        let fat = find("boot/efi.img")?;
        let fat = fat.to_str().context("a path that is not UTF-8")?;
        run("fsck.fat", &["-n", fat])?;
        let shim = self.rack.dir().join("shim.efi");
        let to = shim.to_str().context("a path that is not UTF-8")?;
        run("mcopy", &["-n", "-i", fat, "::/EFI/BOOT/BOOTX64.EFI", to])?;
        ensure!(std::fs::read(shim)? == std::fs::read("/usr/lib/shim/shimx64.efi.signed")?, "another shim");
        Ok(())
    }

    fn deploy(&self, verb: &str) -> Result<()> {
        // The stand-in has broken parts, for the sake of other tests.
        let body = json!({
            "image": "tiny-a", "disk": { "id": "serial:OS1" }, "confirm": NODE, "allow_critical": true,
        });
        self.api.post(&format!("/api/v1/nodes/{NODE}/{verb}"), &body)?;
        wait_state(&self.api, NODE, "active", DEPLOY)?;
        self.serial.wait_for(&format!("address={ADDRESS}"), START)?;
        self.wait_empty()
    }

    /// The machine starts from its disk by itself, and nobody was asked for an address all the while.
    fn end(mut self) -> Result<()> {
        self.serial.skip_to_end();
        self.api.post(&format!("/api/v1/nodes/{NODE}/power"), &json!({ "action": "reset" }))?;
        let ready = self.serial.wait_for("TINY-OS READY", START)?;
        ensure!(ready.text.contains("boots=2"), "another OS than the one that was there: {}", ready.text);
        let replies = dhcp_replies(&self.rack.dir().join("segment.pcap"))?;
        ensure!(replies.is_empty(), "somebody answered DHCP: {replies:?}");
        ensure!(self.api.get("/api/v1/status")?["dhcp"]["leases"] == 0, "an address was lent");
        drop(self.runtime);
        self.rack.passed();
        Ok(())
    }
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("running {program}"))?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "{program} {args:?} failed: {said}");
    Ok(said)
}

#[test]
fn from_a_list_of_controllers_to_a_running_os() -> Result<()> {
    let site = Site::new("no-dhcp", |spec| spec)?;
    site.import()?;
    site.inspect()?;
    site.deploy("deploy")?;
    site.end()
}

/// The same with Secure Boot on, up to the OS: all that starts is signed, and nothing of it is this server's own.
#[test]
fn with_secure_boot() -> Result<()> {
    let site = Site::new("no-dhcp-sb", MachineSpec::secure_boot)?;
    site.import()?;
    site.inspect()?;
    site.deploy("deploy")?;
    site.end()
}
