//! OpenStack's files (Nova, "Metadata" in the user guide): over HTTP below `/openstack/<version>/`, and on a config drive.

use serde_json::{Value, json};

use super::{File, Instance, JSON, pretty};

/// Versions that Nova serves; cloud-init takes the newest that it knows.
pub const VERSIONS: &[&str] = &[
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "latest",
];

/// The files of `version`, without its path.
pub fn files(instance: &Instance, version: &str) -> Vec<File> {
    // Dates compare as they are written, and `latest` is after all of them.
    let since = |first: &str| version >= first;
    let mut files = vec![File::new("meta_data.json", JSON, meta_data(instance))];
    if let Some(data) = &instance.user_data {
        files.push(File::new("user_data", "application/octet-stream", data.clone()).secret());
    }
    if since("2013-10-17") {
        // cloud-init takes the part that is named after it.
        let vendor = pretty(&json!({ "cloud-init": instance.vendor_data }));
        files.push(File::new("vendor_data.json", JSON, vendor).secret());
    }
    if since("2016-10-06") {
        files.push(File::new("vendor_data2.json", JSON, "{}\n"));
    }
    if since("2015-10-15")
        && let Some(network) = network_data(instance)
    {
        files.push(File::new("network_data.json", JSON, network));
    }
    files
}

fn meta_data(instance: &Instance) -> String {
    let keys: Vec<(String, &String)> =
        instance.ssh_keys.iter().enumerate().map(|(n, key)| (format!("key-{n}"), key)).collect();
    let by_name: serde_json::Map<String, Value> =
        keys.iter().map(|(name, key)| (name.clone(), Value::from(key.as_str()))).collect();
    let list: Vec<Value> =
        keys.iter().map(|(name, key)| json!({ "name": name, "type": "ssh", "data": key })).collect();
    pretty(&json!({
        "uuid": instance.id.to_string(),
        "name": instance.hostname,
        "hostname": instance.hostname,
        "local-hostname": instance.hostname,
        "availability_zone": "site",
        "launch_index": 0,
        "public_keys": by_name,
        "keys": list,
        "meta": { "image": instance.image },
        "devices": [],
    }))
}

/// The one port that is known to have an address; nothing where none is, for then the OS knows better.
fn network_data(instance: &Instance) -> Option<String> {
    if instance.network_config.is_some() && instance.network.is_none() {
        // A config of the user's own, in a form that is not this one.
        return None;
    }
    let mac = instance.port?;
    let link = json!({ "id": "port0", "type": "phy", "ethernet_mac_address": mac.to_string(), "mtu": null });
    let mut network = json!({ "id": "network0", "link": "port0", "network_id": "provisioning" });
    let mut services = Vec::new();
    match &instance.network {
        None => network["type"] = Value::from("ipv4_dhcp"),
        Some(own) => {
            network["type"] = Value::from("ipv4");
            network["ip_address"] = Value::from(own.address.address.to_string());
            network["netmask"] = Value::from(netmask(own.address.prefix));
            network["routes"] = match own.gateway {
                Some(gateway) => {
                    json!([{ "network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": gateway.to_string() }])
                }
                None => json!([]),
            };
            services = own
                .dns
                .iter()
                .map(|server| json!({ "type": "dns", "address": server.to_string() }))
                .collect();
        }
    }
    Some(pretty(&json!({ "links": [link], "networks": [network], "services": services })))
}

fn netmask(prefix: u8) -> String {
    let bits = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
    std::net::Ipv4Addr::from_bits(bits).to_string()
}
