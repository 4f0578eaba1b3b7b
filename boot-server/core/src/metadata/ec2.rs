//! EC2's paths (AWS, "Instance metadata categories"), as far as there is something to say about a machine of one's own.

use std::net::Ipv4Addr;

use serde_json::json;

use super::{File, Instance, JSON, TEXT, pretty};

/// Versions that clients ask for by name: cloud-init's 2009-04-04 to 2021-03-23, and `latest`.
pub const VERSIONS: &[&str] =
    &["1.0", "2007-01-19", "2009-04-04", "2016-09-02", "2018-09-24", "2020-10-27", "2021-03-23", "latest"];

/// Where the machine stands, as clouds say it; Billet has one site.
const ZONE: &str = "site";

/// The files below a version.
pub(super) fn files(instance: &Instance, address: Option<Ipv4Addr>) -> Vec<File> {
    let text = |path: &str, text: &str| File::new(format!("meta-data/{path}"), TEXT, text);
    let id = instance.id.to_string();
    let address = instance.network.as_ref().map(|n| n.address.address).or(address);
    let mut files = vec![
        text("ami-id", &instance.image),
        text("ami-launch-index", "0"),
        text("hostname", &instance.hostname),
        text("instance-id", &id),
        text("instance-type", "baremetal"),
        text("local-hostname", &instance.hostname),
        text("placement/availability-zone", ZONE),
        File::new("dynamic/instance-identity/document", JSON, document(instance, address)),
    ];
    if let Some(address) = address {
        files.push(text("local-ipv4", &address.to_string()));
    }
    if let Some(mac) = instance.port.or(instance.macs.first().copied()) {
        let own = |name: &str| format!("network/interfaces/macs/{mac}/{name}");
        files.push(text("mac", &mac.to_string()));
        files.push(text(&own("mac"), &mac.to_string()));
        files.push(text(&own("device-number"), "0"));
        files.push(text(&own("local-hostname"), &instance.hostname));
        if let Some(address) = address {
            files.push(text(&own("local-ipv4s"), &address.to_string()));
        }
    }
    for (number, key) in instance.ssh_keys.iter().enumerate() {
        files.push(text(&format!("public-keys/{number}/openssh-key"), key));
    }
    if let Some(data) = &instance.user_data {
        files.push(File::new("user-data", "application/octet-stream", data.clone()).secret());
    }
    files
}

/// The identity document. It is not signed: nobody beside this server could check it.
fn document(instance: &Instance, address: Option<Ipv4Addr>) -> String {
    let architecture = if instance.architecture == "aarch64" { "arm64" } else { "x86_64" };
    pretty(&json!({
        "version": "2017-09-30",
        "instanceId": instance.id.to_string(),
        "imageId": instance.image,
        "instanceType": "baremetal",
        "architecture": architecture,
        "availabilityZone": ZONE,
        "region": ZONE,
        "privateIp": address.map(|a| a.to_string()),
    }))
}
