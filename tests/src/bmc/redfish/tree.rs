//! The resources of a controller of a profile, as they are when it starts (DSP0268).

use std::collections::BTreeMap;

use bmc::Identity;
use serde_json::{Value, json};

use super::profile::{Profile, SensorForm};

/// Resources by path, without `/` at the end.
pub(super) type Tree = BTreeMap<String, Value>;

pub(super) const ROOT: &str = "/redfish/v1";

/// Paths that the handlers need.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) system: String,
    pub(super) manager: String,
    pub(super) chassis: String,
    pub(super) log: String,
    pub(super) media: Option<String>,
}

impl Paths {
    pub(super) fn of(profile: &Profile) -> Self {
        let system = format!("{ROOT}/Systems/{}", profile.system);
        let manager = format!("{ROOT}/Managers/{}", profile.manager);
        let owner = |name: &str| if name == "system" { &system } else { &manager };
        let log = format!("{}/LogServices/{}", owner(&profile.log.owner), profile.log.id);
        let media = profile.media.as_ref().map(|m| format!("{}/VirtualMedia", owner(&m.owner)));
        let chassis = format!("{ROOT}/Chassis/{}", profile.chassis);
        Self { system, manager, chassis, log, media }
    }
}

/// Builds all resources.
pub(super) fn build(profile: &Profile, identity: &Identity) -> Tree {
    let mut tree = Tree::new();
    let paths = Paths::of(profile);
    root(&mut tree, profile);
    system(&mut tree, profile, identity, &paths);
    manager(&mut tree, profile, &paths);
    chassis(&mut tree, profile, &paths);
    logs(&mut tree, profile, &paths);
    media(&mut tree, profile, &paths);
    services(&mut tree, profile);
    tree
}

fn put(tree: &mut Tree, path: &str, mut value: Value) {
    value["@odata.id"] = path.into();
    if value.get("Id").is_none() {
        value["Id"] = path.rsplit('/').next().unwrap_or_default().into();
    }
    tree.insert(path.to_owned(), value);
}

fn collection(tree: &mut Tree, path: &str, ids: &[String]) {
    let members: Vec<_> = ids.iter().map(|id| link(&format!("{path}/{id}"))).collect();
    put(
        tree,
        path,
        json!({ "Name": "Collection", "Members@odata.count": members.len(), "Members": members }),
    );
}

pub(super) fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

fn root(tree: &mut Tree, profile: &Profile) {
    let mut root = json!({
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "Name": "Root Service",
        "RedfishVersion": profile.version,
        "UUID": "92384634-2938-2342-8820-489239905423",
        "Systems": link(&format!("{ROOT}/Systems")),
        "Managers": link(&format!("{ROOT}/Managers")),
        "Chassis": link(&format!("{ROOT}/Chassis")),
        "AccountService": link(&format!("{ROOT}/AccountService")),
        "EventService": link(&format!("{ROOT}/EventService")),
        "UpdateService": link(&format!("{ROOT}/UpdateService")),
        "SessionService": link(&format!("{ROOT}/SessionService")),
        "Tasks": link(&format!("{ROOT}/TaskService")),
        "Links": { "Sessions": link(&format!("{ROOT}/SessionService/Sessions")) },
    });
    if profile.expand {
        root["ProtocolFeaturesSupported"] =
            json!({ "ExpandQuery": { "NoLinks": true, "Levels": true, "MaxLevels": 1 } });
    }
    for (name, value) in [("Vendor", &profile.vendor), ("Product", &profile.product)] {
        if let Some(value) = value {
            root[name] = value.as_str().into();
        }
    }
    if let Some(oem) = &profile.oem {
        root["Oem"] = json!({ oem.as_str(): {} });
    }
    put(tree, ROOT, root);
}

fn system(tree: &mut Tree, profile: &Profile, identity: &Identity, paths: &Paths) {
    let at = |name: &str| link(&format!("{}/{name}", paths.system));
    let mut system = json!({
        "@odata.type": "#ComputerSystem.v1_17_0.ComputerSystem",
        "Name": "System",
        "SystemType": "Physical",
        "SerialNumber": identity.serial,
        "UUID": identity.uuid,
        "BiosVersion": "2.19.1",
        "Status": { "State": "Enabled", "Health": "OK", "HealthRollup": "Warning" },
        "Boot": boot(profile),
        "Processors": at("Processors"),
        "Memory": at("Memory"),
        "Storage": at("Storage"),
        "EthernetInterfaces": at("EthernetInterfaces"),
        "SecureBoot": at("SecureBoot"),
        "Links": { "Chassis": [link(&paths.chassis)], "ManagedBy": [link(&paths.manager)] },
        "Actions": { "#ComputerSystem.Reset": reset(profile, paths) },
    });
    if let Some(name) = &profile.serial {
        system[name.as_str()] = identity.serial.clone().into();
        system["SerialNumber"] = "CNBOARD0018C00PT".into();
    }
    // What the profile does not have is missing, not null.
    for (name, value) in [("Manufacturer", &profile.manufacturer), ("Model", &profile.model)] {
        if let Some(value) = value {
            system[name] = value.as_str().into();
        }
    }
    light(&mut system, profile);
    if let Some(pending) = &profile.boot.pending {
        let path = format!("{}/{pending}", paths.system);
        system["@Redfish.Settings"] = json!({ "SettingsObject": link(&path) });
        put(tree, &path, json!({ "Name": "Pending", "Boot": { "BootOrder": ["Boot0000", "Boot0001"] } }));
    }
    if let Some(bios) = &profile.bios {
        system["Bios"] = at("Bios");
        put_bios(tree, &format!("{}/Bios", paths.system), bios);
    }
    put(tree, &paths.system, system);
    let mut ids = profile.other_systems.clone();
    ids.push(profile.system.clone());
    collection(tree, &format!("{ROOT}/Systems"), &ids);
    for other in &profile.other_systems {
        put(tree, &format!("{ROOT}/Systems/{other}"), json!({ "Name": other, "SystemType": "OS" }));
    }
    parts(tree, &paths.system, identity);
}

fn boot(profile: &Profile) -> Value {
    let mut boot = json!({
        "BootSourceOverrideEnabled": "Disabled",
        "BootSourceOverrideTarget": "None",
        "BootSourceOverrideMode": "UEFI",
        "BootSourceOverrideTarget@Redfish.AllowableValues": profile.boot.targets,
    });
    if profile.boot.http_uri {
        boot["HttpBootUri"] = Value::Null;
    }
    boot
}

fn reset(profile: &Profile, paths: &Paths) -> Value {
    let target = format!("{}/Actions/ComputerSystem.Reset", paths.system);
    match profile.reset.info {
        true => {
            json!({ "target": target, "@Redfish.ActionInfo": format!("{}/ResetActionInfo", paths.system) })
        }
        false => json!({ "target": target, "ResetType@Redfish.AllowableValues": profile.reset.values }),
    }
}

fn light(resource: &mut Value, profile: &Profile) {
    match profile.led.as_deref() {
        Some("IndicatorLED") => {
            resource["IndicatorLED"] = "Off".into();
            resource["IndicatorLED@Redfish.AllowableValues"] = json!(profile.led_values);
        }
        Some(name) => resource[name] = false.into(),
        None => {}
    }
}

fn put_bios(tree: &mut Tree, path: &str, bios: &super::profile::Bios) {
    let settings = format!("{path}/{}", bios.settings);
    let attributes = json!({ "BootMode": "Uefi", "NumCores": 16, "QuietBoot": true, "AssetTag": "" });
    put(
        tree,
        path,
        json!({
            "Name": "BIOS",
            "AttributeRegistry": "BiosAttributeRegistry.v1_0_0",
            "Attributes": attributes,
            "@Redfish.Settings": { "SettingsObject": link(&settings) },
        }),
    );
    let mut pending = json!({ "Name": "BIOS settings", "Attributes": {} });
    if let Some(name) = &bios.clear_pending {
        let target = format!("{settings}/Actions/Oem/{}", name.trim_start_matches('#'));
        pending["Actions"] = json!({ "Oem": { name.as_str(): { "target": target } } });
    }
    put(tree, &settings, pending);
}

fn parts(tree: &mut Tree, system: &str, identity: &Identity) {
    let numbers = |name: &str, count: usize| (1..=count).map(|n| format!("{name}{n}")).collect::<Vec<_>>();
    let list = numbers("CPU", 2);
    collection(tree, &format!("{system}/Processors"), &list);
    for id in &list {
        let cpu = json!({ "Name": id, "Socket": id, "Manufacturer": "Intel", "Model": "Xeon Gold 6338", "Status": ok() });
        put(tree, &format!("{system}/Processors/{id}"), cpu);
    }
    let list = numbers("DIMM", 4);
    collection(tree, &format!("{system}/Memory"), &list);
    for (n, id) in list.iter().enumerate() {
        let status = match n {
            1 => json!({ "State": "Enabled", "Health": "Warning" }),
            3 => json!({ "State": "Absent", "Health": null }),
            _ => ok(),
        };
        let dimm = json!({
            "Name": format!("DIMM {n}"), "DeviceLocator": format!("PROC 1 {id}"), "Manufacturer": "Samsung",
            "PartNumber": "M393A4K40DB3-CWE", "SerialNumber": format!("S{n}"), "Status": status,
        });
        put(tree, &format!("{system}/Memory/{id}"), dimm);
    }
    drives(tree, system);
    let ports: Vec<String> = (1..=identity.macs.len()).map(|n| format!("NIC.{n}")).collect();
    collection(tree, &format!("{system}/EthernetInterfaces"), &ports);
    for (id, mac) in ports.iter().zip(&identity.macs) {
        let port = json!({ "Name": id, "MACAddress": mac.to_string().to_uppercase(), "Status": ok() });
        put(tree, &format!("{system}/EthernetInterfaces/{id}"), port);
    }
    let secure_boot = json!({
        "Name": "Secure Boot", "SecureBootCurrentBoot": "Disabled", "SecureBootEnable": false,
        "SecureBootMode": "UserMode",
        "Actions": { "#SecureBoot.ResetKeys": {
            "target": format!("{system}/SecureBoot/Actions/SecureBoot.ResetKeys"),
            "ResetKeysType@Redfish.AllowableValues": ["ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"],
        } },
    });
    put(tree, &format!("{system}/SecureBoot"), secure_boot);
}

fn drives(tree: &mut Tree, system: &str) {
    let storage = format!("{system}/Storage/RAID.1");
    collection(tree, &format!("{system}/Storage"), &["RAID.1".to_owned()]);
    let paths: Vec<String> = (0..2).map(|n| format!("{storage}/Drives/{n}")).collect();
    let links: Vec<_> = paths.iter().map(|p| link(p)).collect();
    put(tree, &storage, json!({ "Name": "RAID", "Drives": links, "Status": ok() }));
    for (n, path) in paths.iter().enumerate() {
        let health = if n == 1 { "Critical" } else { "OK" };
        let drive = json!({
            "Name": format!("Drive {n}"), "Manufacturer": "SAMSUNG", "Model": "MZ7L3480", "PartNumber": "P1",
            "SerialNumber": format!("D{n}"), "Status": { "State": "Enabled", "Health": health },
            "PhysicalLocation": { "PartLocation": { "ServiceLabel": format!("Bay {n}") } },
        });
        put(tree, path, drive);
    }
}

fn manager(tree: &mut Tree, profile: &Profile, paths: &Paths) {
    collection(tree, &format!("{ROOT}/Managers"), std::slice::from_ref(&profile.manager));
    let mut manager = json!({
        "Name": "Manager", "ManagerType": "BMC", "FirmwareVersion": "7.00.30.00", "Model": "BMC", "Status": ok(),
        "Actions": { "#Manager.Reset": {
            "target": format!("{}/Actions/Manager.Reset", paths.manager),
            "ResetType@Redfish.AllowableValues": profile.manager_reset,
        } },
    });
    if let Some(oem) = &profile.manager_oem {
        manager["Oem"] = json!({ oem.as_str(): {} });
    }
    put(tree, &paths.manager, manager);
}

fn chassis(tree: &mut Tree, profile: &Profile, paths: &Paths) {
    collection(tree, &format!("{ROOT}/Chassis"), std::slice::from_ref(&profile.chassis));
    let at = |name: &str| format!("{}/{name}", paths.chassis);
    let mut chassis = json!({ "Name": "Chassis", "ChassisType": "RackMount", "Status": ok() });
    match profile.sensors {
        SensorForm::Old => {
            (chassis["Thermal"], chassis["Power"]) = (link(&at("Thermal")), link(&at("Power")));
            put(tree, &at("Thermal"), thermal());
            put(tree, &at("Power"), power());
        }
        SensorForm::Sensors => {
            chassis["Sensors"] = link(&at("Sensors"));
            sensors(tree, &at("Sensors"));
            subsystems(tree, &mut chassis, paths);
        }
        SensorForm::Subsystem => subsystems(tree, &mut chassis, paths),
    }
    put(tree, &paths.chassis, chassis);
}

fn thermal() -> Value {
    json!({
        "Name": "Thermal",
        "Temperatures": [
            { "MemberId": "0", "Name": "System Board Inlet Temp", "ReadingCelsius": 23, "Status": ok(),
              "UpperThresholdNonCritical": 38, "UpperThresholdCritical": 42, "LowerThresholdCritical": -7 },
            { "MemberId": "1", "Name": "CPU 2 Temp", "ReadingCelsius": null, "Status": { "State": "Absent" } },
        ],
        "Fans": [
            { "MemberId": "0", "Name": "Fan 1", "Reading": 8280, "ReadingUnits": "RPM", "Status": ok() },
            { "MemberId": "1", "FanName": "Fan 2", "CurrentReading": 17, "Units": "Percent",
              "Status": { "State": "Enabled", "Health": "Critical" } },
        ],
    })
}

fn power() -> Value {
    json!({
        "Name": "Power",
        "PowerControl": [{ "MemberId": "0", "Name": "System Power Control", "PowerConsumedWatts": 210 }],
        "Voltages": [{ "MemberId": "0", "Name": "CPU1 VCORE", "ReadingVolts": 1.8, "Status": ok() }],
        "PowerSupplies": [
            { "MemberId": "0", "Name": "PSU 1", "Model": "PWR SPLY,800W", "SerialNumber": "PS1", "PartNumber": "0J5WMGA00",
              "PowerInputWatts": 120, "Status": ok() },
            { "MemberId": "1", "Name": "PSU 2", "Status": { "State": "UnavailableOffline", "Health": "Critical" } },
        ],
    })
}

fn sensors(tree: &mut Tree, path: &str) {
    let list = [
        ("temperature_inlet", "Temperature", "Cel", 23.5),
        ("fan_1", "Rotational", "RPM", 8280.0),
        ("voltage_cpu", "Voltage", "V", 1.8),
        ("power_total", "Power", "W", 210.0),
    ];
    collection(tree, path, &list.map(|(id, ..)| id.to_owned()));
    for (id, kind, units, reading) in list {
        let sensor = json!({
            "Name": id.replace('_', " "), "ReadingType": kind, "ReadingUnits": units, "Reading": reading, "Status": ok(),
            "Thresholds": { "UpperCritical": { "Reading": reading * 2.0 }, "UpperCaution": { "Reading": reading * 1.5 } },
        });
        put(tree, &format!("{path}/{id}"), sensor);
    }
}

fn subsystems(tree: &mut Tree, chassis: &mut Value, paths: &Paths) {
    let thermal = format!("{}/ThermalSubsystem", paths.chassis);
    chassis["ThermalSubsystem"] = link(&thermal);
    let (metrics, fans) = (format!("{thermal}/ThermalMetrics"), format!("{thermal}/Fans"));
    put(tree, &thermal, json!({ "Name": "Thermal", "ThermalMetrics": link(&metrics), "Fans": link(&fans) }));
    let readings = json!([{ "DeviceName": "Inlet", "Reading": 23.5, "DataSourceUri": format!("{}/Sensors/inlet", paths.chassis) }]);
    put(tree, &metrics, json!({ "Name": "Metrics", "TemperatureReadingsCelsius": readings }));
    collection(tree, &fans, &["Fan1".to_owned()]);
    let fan = json!({ "Name": "Fan 1", "Status": ok(), "SpeedPercent": { "Reading": 45, "SpeedRPM": 2200 } });
    put(tree, &format!("{fans}/Fan1"), fan);
    let power = format!("{}/PowerSubsystem", paths.chassis);
    chassis["PowerSubsystem"] = link(&power);
    let supplies = format!("{power}/PowerSupplies");
    put(tree, &power, json!({ "Name": "Power", "PowerSupplies": link(&supplies) }));
    collection(tree, &supplies, &["PSU1".to_owned()]);
    let metrics = format!("{supplies}/PSU1/Metrics");
    let supply = json!({ "Name": "PSU 1", "SerialNumber": "PS1", "Status": ok(), "Metrics": link(&metrics) });
    put(tree, &format!("{supplies}/PSU1"), supply);
    put(
        tree,
        &metrics,
        json!({ "Name": "Metrics", "InputPowerWatts": { "Reading": 120.0 }, "InputVoltage": { "Reading": 230.2 } }),
    );
}

fn logs(tree: &mut Tree, profile: &Profile, paths: &Paths) {
    let services = paths.log.rsplit_once('/').map_or("", |(services, _)| services).to_owned();
    let mut ids = profile.log.others.clone();
    ids.push(profile.log.id.clone());
    collection(tree, &services, &ids);
    for id in &ids {
        let path = format!("{services}/{id}");
        let service = json!({
            "Name": id, "Entries": link(&format!("{path}/Entries")), "Status": ok(),
            "Actions": { "#LogService.ClearLog": { "target": format!("{path}/Actions/LogService.ClearLog") } },
        });
        put(tree, &path, service);
        put(tree, &format!("{path}/Entries"), json!({ "Name": "Entries", "Members": [] }));
    }
    let owner = if profile.log.owner == "system" { &paths.system } else { &paths.manager };
    if let Some(owner) = tree.get_mut(owner) {
        owner["LogServices"] = link(&services);
    }
}

fn media(tree: &mut Tree, profile: &Profile, paths: &Paths) {
    let (Some(media), Some(path)) = (&profile.media, &paths.media) else { return };
    let mut ids: Vec<String> = media.others.iter().map(|o| o.id.clone()).collect();
    ids.push(media.id.clone());
    collection(tree, path, &ids);
    for other in &media.others {
        let drive = json!({ "Name": other.id, "MediaTypes": other.types, "Image": null, "Inserted": false });
        put(tree, &format!("{path}/{}", other.id), drive);
    }
    let drive = format!("{path}/{}", media.id);
    let mut value =
        json!({ "Name": "Virtual CD", "MediaTypes": ["CD", "DVD"], "Image": null, "Inserted": false });
    if !media.patch {
        let action = |name: &str| json!({ "target": format!("{drive}/Actions/VirtualMedia.{name}") });
        value["Actions"] = json!({ "#VirtualMedia.InsertMedia": action("InsertMedia"), "#VirtualMedia.EjectMedia": action("EjectMedia") });
    }
    put(tree, &drive, value);
    let owner = if media.owner == "system" { &paths.system } else { &paths.manager };
    if let Some(owner) = tree.get_mut(owner) {
        owner["VirtualMedia"] = link(path);
    }
}

fn services(tree: &mut Tree, profile: &Profile) {
    let at = |name: &str| format!("{ROOT}/{name}");
    let sessions = at("SessionService/Sessions");
    put(
        tree,
        &at("SessionService"),
        json!({ "Name": "Sessions", "Sessions": link(&sessions), "ServiceEnabled": true }),
    );
    collection(tree, &sessions, &[]);
    put(tree, &at("TaskService"), json!({ "Name": "Tasks", "Tasks": link(&at("TaskService/Tasks")) }));
    collection(tree, &at("TaskService/Tasks"), &[]);
    put(
        tree,
        &at("AccountService"),
        json!({ "Name": "Accounts", "Accounts": link(&at("AccountService/Accounts")) }),
    );
    collection(tree, &at("AccountService/Accounts"), &["1".to_owned(), "2".to_owned()]);
    put(
        tree,
        &at("AccountService/Accounts/1"),
        json!({ "Name": "Account", "UserName": "other", "RoleId": "ReadOnly" }),
    );
    put(
        tree,
        &at("AccountService/Accounts/2"),
        json!({ "Name": "Account", "UserName": "root", "RoleId": "Administrator" }),
    );
    let subscriptions = at("EventService/Subscriptions");
    let events = json!({ "Name": "Events", "ServiceEnabled": true, "Subscriptions": link(&subscriptions) });
    put(tree, &at("EventService"), events);
    collection(tree, &subscriptions, &[]);
    let mut update = json!({
        "Name": "Updates", "FirmwareInventory": link(&at("UpdateService/FirmwareInventory")),
        "Actions": { "#UpdateService.SimpleUpdate": { "target": at("UpdateService/Actions/UpdateService.SimpleUpdate") } },
    });
    if profile.update.multipart {
        update["MultipartHttpPushUri"] = at("UpdateService/push").into();
    }
    put(tree, &at("UpdateService"), update);
    collection(tree, &at("UpdateService/FirmwareInventory"), &["BMC".to_owned(), "BIOS".to_owned()]);
    for (id, version) in [("BMC", "7.00.30.00"), ("BIOS", "2.19.1")] {
        let item = json!({ "Name": id, "Version": version, "Updateable": true, "Status": ok() });
        put(tree, &format!("{}/{id}", at("UpdateService/FirmwareInventory")), item);
    }
}

fn ok() -> Value {
    json!({ "State": "Enabled", "Health": "OK" })
}
