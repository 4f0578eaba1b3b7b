//! `[[switches]]`: switches that put hosts without a DPU on their networks.

use boot_server_core::network::fabric::{VLAN_MAX, VlanRange};
use jsonrpc::Address;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Switches of one site.
const SWITCHES_MAX: usize = 4096;
/// The fabric of a switch that names none.
const FABRIC: &str = "default";

/// `[[switches]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Switch {
    pub name: String,
    pub address: String,
    pub bridge: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_vlan: Option<u16>,
    pub vlans: String,
}

/// A switch of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchSettings {
    /// System name or chassis id, as LLDP tells it.
    pub name: String,
    /// Its OVSDB.
    pub address: Address,
    /// The bridge with the hosts' ports.
    pub bridge: String,
    /// All switches with this name carry the same VLANs.
    pub fabric: String,
    /// The provisioning network; untagged for 0.
    pub provisioning: u16,
    /// VLANs of networks, the same on all switches of the fabric.
    pub vlans: VlanRange,
}

/// Checks them.
///
/// # Errors
/// [`ConfigError::Switches`].
pub(super) fn settings(switches: &[Switch]) -> Result<Vec<SwitchSettings>, ConfigError> {
    if switches.len() > SWITCHES_MAX {
        return Err(ConfigError::Switches(format!("there are more than {SWITCHES_MAX}")));
    }
    let all: Vec<SwitchSettings> = switches.iter().map(one).collect::<Result<_, _>>()?;
    for (n, this) in all.iter().enumerate() {
        let refuse = |why: String| Err(ConfigError::Switches(format!("{}: {why}", this.name)));
        for other in &all[..n] {
            if other.name == this.name {
                return refuse("there are two of this name".to_owned());
            }
            if other.fabric == this.fabric && other.vlans != this.vlans {
                return refuse(format!("vlans: those of {}, of the same fabric, are others", other.name));
            }
        }
    }
    Ok(all)
}

fn one(switch: &Switch) -> Result<SwitchSettings, ConfigError> {
    let refuse = |why: String| ConfigError::Switches(format!("{}: {why}", switch.name));
    let fabric = switch.fabric.clone().unwrap_or_else(|| FABRIC.to_owned());
    let names = [("name", &switch.name), ("bridge", &switch.bridge), ("fabric", &fabric)];
    if let Some((key, _)) = names.iter().find(|(_, text)| text.is_empty() || text.contains([',', ':'])) {
        // A chassis id has colons.
        if *key != "name" || switch.name.is_empty() {
            return Err(refuse(format!("{key} is empty, or has `,` or `:` in it")));
        }
    }
    let vlans = VlanRange::parse(&switch.vlans)
        .ok_or_else(|| refuse(format!("vlans: `{}` is no range within 1-{VLAN_MAX}", switch.vlans)))?;
    let provisioning = switch.provisioning_vlan.unwrap_or(0);
    if switch.provisioning_vlan.is_some() && !(1..=VLAN_MAX).contains(&provisioning) {
        return Err(refuse(format!("provisioning_vlan: {provisioning} is not from 1 to {VLAN_MAX}")));
    }
    if vlans.contains(provisioning) {
        return Err(refuse(format!(
            "vlans: {} has the provisioning VLAN {provisioning} in it",
            switch.vlans
        )));
    }
    let address: Address = switch.address.parse().map_err(|error| refuse(format!("address: {error}")))?;
    if matches!(address, Address::Ssl(..)) {
        return Err(refuse("address: ssl: is not there for switches yet: use tcp: or unix:".to_owned()));
    }
    Ok(SwitchSettings {
        name: switch.name.clone(),
        address,
        bridge: switch.bridge.clone(),
        fabric,
        provisioning,
        vlans,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Switch {
        Switch {
            name: "sw-a1".to_owned(),
            address: "tcp:192.0.2.10:6640".to_owned(),
            bridge: "br0".to_owned(),
            fabric: None,
            provisioning_vlan: Some(10),
            vlans: "100-199".to_owned(),
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        let second = Switch { name: "b8:59:9f:aa:01:00".to_owned(), provisioning_vlan: None, ..good() };
        let read = settings(&[good(), second.clone()]).unwrap();
        assert_eq!((read[0].provisioning, read[1].provisioning, read[1].fabric.as_str()), (10, 0, "default"));
        for (bad, word) in [
            (Switch { name: String::new(), ..good() }, "name"),
            (Switch { address: "192.0.2.10".to_owned(), ..good() }, "address"),
            (Switch { address: "ssl:192.0.2.10:6640".to_owned(), ..good() }, "address"),
            (Switch { bridge: String::new(), ..good() }, "bridge"),
            (Switch { vlans: "0-10".to_owned(), ..good() }, "vlans"),
            (Switch { vlans: "1-20".to_owned(), ..good() }, "vlans"),
            (Switch { provisioning_vlan: Some(4095), ..good() }, "provisioning_vlan"),
        ] {
            let said = settings(std::slice::from_ref(&bad)).unwrap_err().to_string();
            assert!(said.starts_with(&format!("switches: {}: {word}", bad.name)), "{said}");
        }
        let twice = settings(&[good(), good()]).unwrap_err().to_string();
        assert!(twice.contains("two of this name"), "{twice}");
        let apart = Switch { vlans: "200-299".to_owned(), ..second };
        assert!(settings(&[good(), apart.clone()]).unwrap_err().to_string().contains("same fabric"));
        assert!(settings(&[good(), Switch { fabric: Some("other".to_owned()), ..apart }]).is_ok());
    }
}
