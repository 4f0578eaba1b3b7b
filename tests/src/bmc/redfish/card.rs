//! The controller of a BlueField-3, on top of the profile `bluefield`: the resources that NVIDIA publishes, and what they do. It is a stand-in,
//! made from these texts, and was compared with no card:
//!
//! - NVIDIA, BlueField BMC Software 26.01, *BlueField Modes of Operation Configuration* and *NIC Subsystem Management* (`Oem/Nvidia`, `Mode.Set`)
//! - NVIDIA, BlueField BMC Software 25.10, *Deploying Software Using BFB*; NVIDIA, *Bluefield BFB Firmware Update via Redfish using HTTP/HTTPS
//!   protocols* (`SimpleUpdateActionInfo`, `TransferProtocol`, an `ImageURI` without a scheme, one target, `BmcRShimEnabled`)
//! - NVIDIA, BlueField BMC Software 25.07, *System Inventory* and *BlueField Arm State* (`FirmwareInventory`, `OemLastState`)
//! - NVIDIA infra-controller, `bmc-mock`, `oem/nvidia/bluefield.rs` (a mode is staged, and in force after the host's power cycle; `BaseMAC` without
//!   colons), and `NetworkDeviceFunctions` below `Chassis/Card1`

use std::path::PathBuf;

use serde_json::{Value, json};

use super::state::{Reply, State};
use super::tree::{self, ROOT};

/// The only target that is taken.
const TARGET: &str = "redfish/v1/UpdateService/FirmwareInventory/DPU_OS";

/// What a card is.
#[derive(Debug, Clone)]
pub struct CardFacts {
    /// Serial number.
    pub serial: String,
    /// First address, such as `38:25:f3:3a:ab:c4`.
    pub base_mac: String,
    /// Addresses of the host's functions.
    pub functions: Vec<String>,
    /// Version of the system that is installed.
    pub os: String,
}

/// What it remembers beside its resources.
#[derive(Debug, Default)]
pub(super) struct Card {
    /// In force after the next power cycle of the host.
    staged_mode: Option<String>,
    /// Images that were fetched.
    pub(super) received: Vec<PathBuf>,
    /// Changes that are answered with 503 before one is taken.
    pub(super) busy: u32,
}

impl State {
    /// Makes it the controller of a card.
    pub(super) fn put_card(&mut self, facts: &CardFacts) {
        let (system, manager) = (self.paths.system.clone(), self.paths.manager.clone());
        let oem = format!("{system}/Oem/Nvidia");
        let link = |path: &str| json!({ "Nvidia": tree::link(path) });
        let target = format!("{oem}/Actions/Mode.Set");
        self.add(&oem, json!({
            "@odata.type": "#NvidiaComputerSystem.v1_0_0.NvidiaComputerSystem", "Mode": "DpuMode", "HostRshim": "Enabled",
            "BaseMAC": facts.base_mac.replace(':', ""),
            "Actions": { "#Mode.Set": { "target": target, "Parameters": [{ "Name": "Mode", "AllowableValues": ["NicMode", "DpuMode"] }] } },
        }));
        let progress = json!({ "LastState": "OSRunning", "OemLastState": "OsIsRunning" });
        self.set(&system, &json!({ "Oem": link(&oem), "BootProgress": progress, "SerialNumber": null }));
        let oem = format!("{manager}/Oem/Nvidia");
        self.add(&oem, json!({ "BmcRShim": { "BmcRShimEnabled": false } }));
        self.set(&manager, &json!({ "Oem": { "OpenBmc": {}, "Nvidia": tree::link(&oem) } }));
        self.add(
            &format!("{system}/EthernetInterfaces/oob_net0"),
            json!({ "MACAddress": "38:25:F3:3A:AB:D0" }),
        );
        self.set(
            &format!("{system}/EthernetInterfaces"),
            &json!({ "Members": [tree::link(&format!("{system}/EthernetInterfaces/oob_net0"))] }),
        );
        self.set(
            &format!("{system}/Bios"),
            &json!({ "Attributes": { "HostPrivilegeLevel": "Privileged", "InternalCPUModel": "Embedded" } }),
        );
        self.put_chassis(facts);
        self.put_firmware(facts);
    }

    fn add(&mut self, path: &str, mut value: Value) {
        value["@odata.id"] = path.into();
        value["Id"] = path.rsplit('/').next().unwrap_or_default().into();
        self.tree.insert(path.to_owned(), value);
    }

    fn add_collection(&mut self, path: &str, ids: &[String]) {
        let members: Vec<Value> = ids.iter().map(|id| tree::link(&format!("{path}/{id}"))).collect();
        self.add(path, json!({ "Name": "Collection", "Members": members }));
    }

    fn put_chassis(&mut self, facts: &CardFacts) {
        let all = format!("{ROOT}/Chassis");
        let card = format!("{all}/Card1");
        self.add_collection(&all, &["Bluefield_BMC".to_owned(), "Card1".to_owned()]);
        let adapters = format!("{card}/NetworkAdapters");
        self.add(&card, json!({
            "Name": "Card1", "Model": "BlueField-3 DPU", "PartNumber": "900-9D3B6-00CV-AA0", "SerialNumber": facts.serial,
            "NetworkAdapters": tree::link(&adapters),
        }));
        self.add_collection(&adapters, &["NvidiaNetworkAdapter".to_owned()]);
        let adapter = format!("{adapters}/NvidiaNetworkAdapter");
        let functions = format!("{adapter}/NetworkDeviceFunctions");
        self.add(&adapter, json!({ "NetworkDeviceFunctions": tree::link(&functions) }));
        let ids: Vec<String> = (0..facts.functions.len()).map(|n| format!("eth{n}f0")).collect();
        self.add_collection(&functions, &ids);
        for (id, mac) in ids.iter().zip(&facts.functions) {
            self.add(
                &format!("{functions}/{id}"),
                json!({ "Ethernet": { "MACAddress": mac.to_uppercase() } }),
            );
        }
    }

    fn put_firmware(&mut self, facts: &CardFacts) {
        let inventory = format!("{ROOT}/UpdateService/FirmwareInventory");
        let items = [
            ("BMC_Firmware", "BF-25.04-7"),
            ("Bluefield_FW_ERoT", "00.02.0195.0000_n02"),
            ("DPU_NIC", "32.45.1020"),
            ("DPU_UEFI", "4.11.0-5-ga1"),
            ("DPU_OS", facts.os.as_str()),
        ];
        self.add_collection(&inventory, &items.map(|(id, _)| id.to_owned()));
        for (id, version) in items {
            self.add(
                &format!("{inventory}/{id}"),
                json!({ "Name": "Software Inventory", "Version": version, "Updateable": true }),
            );
        }
        let info = format!("{ROOT}/UpdateService/SimpleUpdateActionInfo");
        let protocol = json!({ "Name": "TransferProtocol", "AllowableValues": ["SCP", "HTTP", "HTTPS"] });
        self.add(&info, json!({ "Parameters": [protocol] }));
        let action = format!("{ROOT}/UpdateService/Actions/UpdateService.SimpleUpdate");
        let actions =
            json!({ "#UpdateService.SimpleUpdate": { "target": action, "@Redfish.ActionInfo": info } });
        self.set(&format!("{ROOT}/UpdateService"), &json!({ "Actions": actions }));
    }

    /// What a card refuses or does by itself; `None` for what every controller does.
    pub(super) fn card_post(&mut self, path: &str, body: &Value) -> Option<Reply> {
        let card = self.card.as_mut()?;
        if card.busy > 0 {
            card.busy -= 1;
            return Some(Reply::error(503, "ServiceTemporarilyUnavailable", "Retry in 1 seconds."));
        }
        match path.rsplit('/').next().unwrap_or_default() {
            "Mode.Set" => Some(match body["Mode"].as_str() {
                Some(mode @ ("DpuMode" | "NicMode")) => {
                    card.staged_mode = Some(mode.to_owned());
                    Reply::done()
                }
                _ => Reply::error(400, "ActionParameterMissing", "Mode is NicMode or DpuMode."),
            }),
            "UpdateService.SimpleUpdate" => Some(self.fetch_bfb(body)),
            _ => None,
        }
    }

    fn fetch_bfb(&mut self, body: &Value) -> Reply {
        let refuse = |why: &str| Reply::error(400, "ActionParameterValueFormatError", why);
        let image = body["ImageURI"].as_str().unwrap_or_default();
        let oem = format!("{}/Oem/Nvidia", self.paths.manager);
        let rshim = self.tree.get(&oem).is_some_and(|oem| oem["BmcRShim"]["BmcRShimEnabled"] == true);
        match () {
            () if body["TransferProtocol"] != "HTTP" => {
                return refuse("TransferProtocol is SCP, HTTP or HTTPS.");
            }
            () if image.contains("://") => return refuse("ImageURI is <HTTPServer>/<BFBPath>."),
            () if body["Targets"] != json!([TARGET]) => return refuse("Targets has one updateable item."),
            () if !rshim => return Reply::error(400, "ResourceErrorsDetected", "The RShim is not enabled."),
            () => {}
        }
        let url = format!("http://{image}");
        let number = self.number();
        let file = self.images.join(format!("image-{number}.bfb"));
        if let Err(error) = super::fetch(&url, &file) {
            return Reply::error(400, "ResourceAtUriUnauthorized", &format!("{error:#}"));
        }
        self.pulled.push(url);
        if let Some(card) = &mut self.card {
            card.received.push(file);
        }
        let offer = self.next_offer();
        self.new_task(offer)
    }

    /// The host was power-cycled: a mode that waited for that is in force.
    pub(super) fn host_cycled(&mut self) {
        let staged = self.card.as_mut().and_then(|card| card.staged_mode.take());
        if let Some(mode) = staged {
            let oem = format!("{}/Oem/Nvidia", self.paths.system);
            self.set(&oem, &json!({ "Mode": mode }));
        }
    }
}
