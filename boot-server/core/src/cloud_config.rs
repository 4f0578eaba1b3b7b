//! Files of the NoCloud data source (cloud-init). JSON is YAML, so every value is written by a JSON writer and no
//! text can become structure. What Billet adds goes into vendor data, which the user's own data overrides.

use std::collections::BTreeSet;
use std::net::IpAddr;

use protocol::{JobId, MacAddr};
use serde_json::{Map, Value, json};

use crate::deploy::DeployRefused;
use crate::node::network::DNS_MAX;
use crate::node::{HostAddress, StaticNetwork};

/// Who may log in.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// Host name.
    pub hostname: &'a str,
    /// User name.
    pub user: &'a str,
    /// SSH public keys.
    pub ssh_keys: &'a [String],
    /// Password as a crypt(5) hash.
    pub password_hash: Option<&'a str>,
}

/// SSH keys per user; more is a mistake.
const SSH_KEYS_MAX: usize = 64;

impl Login<'_> {
    /// Checks every value before it goes near a file.
    ///
    /// # Errors
    /// Names the value that cannot be used and says what it should look like.
    pub fn check(&self) -> Result<(), DeployRefused> {
        let refuse =
            |code, message: String, hint: &str| Err(DeployRefused { code, message, hint: hint.to_owned() });
        if !is_hostname(self.hostname) {
            return refuse(
                "hostname",
                format!("`{}` is not a host name", cut(self.hostname)),
                "use labels of a-z, 0-9 and -, as in RFC 1123",
            );
        }
        if !is_user(self.user) {
            return refuse(
                "user",
                format!("`{}` is not a user name", cut(self.user)),
                "use a-z, 0-9, _ and -, starting with a letter, at most 32 characters",
            );
        }
        if self.ssh_keys.len() > SSH_KEYS_MAX {
            return refuse(
                "ssh-key",
                format!("{} SSH keys are more than {SSH_KEYS_MAX}", self.ssh_keys.len()),
                "give fewer",
            );
        }
        if let Some(bad) = self.ssh_keys.iter().find(|k| !is_ssh_key(k)) {
            return refuse(
                "ssh-key",
                format!("`{}` is not an SSH public key", cut(bad)),
                "paste one line of a .pub file, such as `ssh-ed25519 AAAA… name`",
            );
        }
        if self.password_hash.is_some_and(|p| !is_crypt(p)) {
            return refuse(
                "password-hash",
                "the password hash is not a crypt(5) hash".to_owned(),
                "make one with `mkpasswd` or `openssl passwd -6`; never send the password itself",
            );
        }
        Ok(())
    }
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

/// True for host names by RFC 1123 section 2.1, at most 253 characters, labels of at most 63.
pub fn is_hostname(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    (1..=253).contains(&text.len()) && text.split('.').all(label)
}

fn is_user(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// True for one line of an OpenSSH public key file.
pub fn is_ssh_key(text: &str) -> bool {
    let mut words = text.split(' ').filter(|w| !w.is_empty());
    let kinds = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    let known = words.next().is_some_and(|w| kinds.iter().any(|k| w.starts_with(k)));
    let body = words.next().unwrap_or_default();
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    known
        && text.len() <= 16_384
        && body.len() >= 40
        && body.bytes().all(base64)
        && !text.contains(|c: char| c.is_control())
}

fn is_crypt(text: &str) -> bool {
    let kinds = ["$5$", "$6$", "$y$", "$2b$", "$2y$"];
    text.len() <= 256
        && kinds.iter().any(|k| text.starts_with(k))
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b':' && b != b'"' && b != b'\\')
}

/// `meta-data`.
pub fn meta_data(instance: JobId, hostname: &str) -> String {
    pretty(&json!({ "instance-id": instance.to_string(), "local-hostname": hostname }))
}

/// `meta-data` that leads to this server for everything else (seedfrom).
pub fn meta_data_elsewhere(instance: JobId, hostname: &str, url: &str) -> String {
    let id = instance.to_string();
    pretty(&json!({ "instance-id": id, "local-hostname": hostname, "seedfrom": url }))
}

/// Where an OS asks and reports; both with a token of its own.
#[derive(Debug, Clone, Copy)]
pub struct Urls<'a> {
    /// To say that it is up.
    pub phone_home: &'a str,
    /// Its metadata; ends with a slash.
    pub metadata: &'a str,
}

/// What cloud-init tells when it phones home (`cc_phone_home`).
const POSTED: [&str; 6] =
    ["pub_key_rsa", "pub_key_ecdsa", "pub_key_ed25519", "instance_id", "hostname", "fqdn"];

/// `vendor-data`: the user, the keys, growth of the root file system, and the call that says the OS is up.
pub fn vendor_data(login: &Login<'_>, urls: &Urls<'_>) -> String {
    let mut user = json!({
        "name": login.user,
        "ssh_authorized_keys": login.ssh_keys,
        "lock_passwd": login.password_hash.is_none(),
        "shell": "/bin/bash",
    });
    if login.user != "root" {
        user["sudo"] = Value::from("ALL=(ALL) NOPASSWD:ALL");
    }
    if let Some(hash) = login.password_hash {
        user["hashed_passwd"] = Value::from(hash);
    }
    let config = json!({
        "users": [user],
        "disable_root": login.user != "root",
        "ssh_pwauth": false,
        "growpart": { "mode": "auto", "devices": ["/"] },
        "phone_home": { "url": urls.phone_home, "post": POSTED, "tries": 60 },
        // For programs on the machine that ask for its metadata later; it names a secret.
        "write_files": [{
            "path": "/etc/billet/metadata-url",
            "permissions": "0600",
            "content": format!("{}\n", urls.metadata),
        }],
    });
    format!("#cloud-config\n{}", pretty(&config))
}

/// A port of a machine on a network where nobody answers DHCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedPort {
    /// Of the NIC.
    pub mac: MacAddr,
    /// Frames are tagged with this VLAN.
    pub tag: Option<u16>,
    /// Largest IP packet, in octets.
    pub mtu: u16,
    /// Addresses with the lengths of their networks' prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routers of those networks.
    pub gateways: Vec<IpAddr>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
}

impl SeedPort {
    /// Its first IPv4 address, for forms that know one alone.
    pub fn first_v4(&self) -> Option<StaticNetwork> {
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        if self.tag.is_some() {
            return None;
        }
        let mut addresses = self.addresses.iter();
        let (address, prefix) = addresses.find_map(|(address, prefix)| Some((v4(address)?, *prefix)))?;
        Some(StaticNetwork {
            address: HostAddress { address, prefix },
            gateway: self.gateways.iter().find_map(v4),
            mac: Some(self.mac),
            dns: self.dns.iter().filter_map(v4).take(DNS_MAX).collect(),
        })
    }
}

/// `network-config`, version 2, of a machine with these ports, in their order: the first router of each family is the way to everything
/// else.
pub fn ports_config(ports: &[SeedPort]) -> String {
    let (mut ethernets, mut vlans) = (Map::new(), Map::new());
    let mut families = BTreeSet::new();
    for (n, port) in ports.iter().enumerate() {
        let addresses: Vec<String> =
            port.addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect();
        let mut settings = json!({ "dhcp4": false, "dhcp6": false, "addresses": addresses, "mtu": port.mtu });
        // `default` is not known to cloud-init before 22.4.
        let routes = port.gateways.iter().filter(|gateway| families.insert(gateway.is_ipv6()));
        let routes: Vec<Value> = routes
            .map(|gateway| {
                let to = if gateway.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
                json!({ "to": to, "via": gateway })
            })
            .collect();
        if !routes.is_empty() {
            settings["routes"] = Value::from(routes);
        }
        if !port.dns.is_empty() {
            settings["nameservers"] = json!({ "addresses": port.dns });
        }
        let name = format!("port{n}");
        match port.tag {
            None => {
                settings["match"] = json!({ "macaddress": port.mac.to_string() });
                ethernets.insert(name, settings);
            }
            Some(tag) => {
                let link = ports.iter().position(|other| other.mac == port.mac && other.tag.is_none());
                settings["id"] = Value::from(tag);
                settings["link"] = Value::from(format!("port{}", link.unwrap_or(0)));
                vlans.insert(name, settings);
            }
        }
    }
    let mut config = json!({ "version": 2, "ethernets": ethernets });
    if !vlans.is_empty() {
        config["vlans"] = Value::from(vlans);
    }
    pretty(&config)
}

/// `network-config`, version 2, of a machine that gets no address by DHCP: for the port `mac`.
pub fn network_config(network: &StaticNetwork, mac: MacAddr) -> String {
    let mut port = json!({
        "match": { "macaddress": mac.to_string() },
        "dhcp4": false,
        "addresses": [network.address.to_string()],
    });
    if let Some(gateway) = network.gateway {
        // `default` is not known to cloud-init before 22.4.
        port["routes"] = json!([{ "to": "0.0.0.0/0", "via": gateway.to_string() }]);
    }
    if !network.dns.is_empty() {
        port["nameservers"] = json!({ "addresses": network.dns });
    }
    pretty(&json!({ "version": 2, "ethernets": { "port0": port } }))
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(n: u8, tag: Option<u16>, addresses: &[(&str, u8)], gateways: &[&str]) -> SeedPort {
        SeedPort {
            mac: MacAddr([2, 0, 0, 0, 0, n]),
            tag,
            mtu: 1500,
            addresses: addresses
                .iter()
                .map(|(address, prefix)| (address.parse().unwrap(), *prefix))
                .collect(),
            gateways: gateways.iter().map(|gateway| gateway.parse().unwrap()).collect(),
            dns: vec!["10.0.0.53".parse().unwrap()],
        }
    }

    #[test]
    fn ports_have_addresses_and_the_first_router_is_the_way_out() {
        let first = port(1, None, &[("10.0.0.2", 24), ("fd00::2", 64)], &["10.0.0.1", "fd00::1"]);
        let second = port(2, None, &[("10.1.0.2", 24)], &["10.1.0.1"]);
        let tagged = port(1, Some(101), &[("10.2.0.2", 24)], &[]);
        insta::assert_snapshot!(ports_config(&[first.clone(), second, tagged.clone()]));
        let one = first.first_v4().unwrap();
        assert_eq!(one.to_string(), "10.0.0.2/24 by 10.0.0.1 on 02:00:00:00:00:01");
        assert_eq!(tagged.first_v4(), None, "no form but netplan's knows tags here");
    }
}
