//! Which machine a card is in. What only one of them can have decides; where two fit, nobody does.

use std::collections::BTreeMap;
use std::fmt;

use protocol::NodeId;
use protocol::inventory::Inventory;

use super::Card;

/// PCI: Mellanox (pci.ids).
const VENDOR: u16 = 0x15b3;
/// Integrated ConnectX network controllers of BlueField, BlueField-2 and BlueField-3 (pci.ids).
const DEVICES: [u16; 3] = [0xa2d2, 0xa2d6, 0xa2dc];

/// A machine that may be the host.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Which.
    pub node: NodeId,
    /// Its name.
    pub name: &'a str,
    /// What it is made of, where somebody looked.
    pub inventory: Option<&'a Inventory>,
    /// Another DPU has it.
    pub taken: bool,
}

/// Why a machine is taken for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuPairedBy))]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// One of its NICs has the address of one of the card's functions.
    Mac,
    /// One of its NICs hears the card by LLDP.
    Lldp,
    /// It is the only machine without a DPU that has such a card on its bus.
    Pci,
    /// A person said so, and nothing speaks against it.
    Person,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mac => "a NIC of the machine has the address of one of its functions",
            Self::Lldp => "a NIC of the machine hears it by LLDP",
            Self::Pci => "it is the only machine without a DPU with such a card on its bus",
            Self::Person => "somebody said so",
        })
    }
}

/// A card and its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// The host.
    pub node: NodeId,
    /// Why.
    pub by: Vec<By>,
}

/// Why nobody can say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Nothing fits.
    #[error("no machine has a NIC with an address of this DPU, hears it, or has such a card")]
    Nobody,
    /// Several fit.
    #[error("{} may be its host", names(.0))]
    Several(Vec<(String, By)>),
    /// The one that fits has another DPU.
    #[error("{name} is its host ({by}), and has another DPU")]
    Taken {
        /// Its name.
        name: String,
        /// Why it is.
        by: By,
    },
    /// Somebody said another one.
    #[error("somebody said that {said} is its host, and it is {found} ({by})")]
    Other {
        /// What was said.
        said: String,
        /// What was found.
        found: String,
        /// Why.
        by: By,
    },
}

fn names(all: &[(String, By)]) -> String {
    all.iter().map(|(name, by)| format!("{name} ({by})")).collect::<Vec<_>>().join(" and ")
}

/// The host of a card; `said` is the one that a person named, `name` what the DPU calls itself.
///
/// # Errors
/// [`Doubt`].
pub fn pair(card: &Card, name: &str, hosts: &[Host<'_>], said: Option<NodeId>) -> Result<Paired, Doubt> {
    let mut sure: BTreeMap<NodeId, (&Host<'_>, Vec<By>)> = BTreeMap::new();
    for host in hosts {
        let Some(inventory) = host.inventory else { continue };
        let found = [(By::Mac, has_function(card, inventory)), (By::Lldp, hears(card, name, inventory))];
        let by: Vec<By> = found.into_iter().filter(|(_, so)| *so).map(|(by, _)| by).collect();
        if !by.is_empty() {
            sure.insert(host.node, (host, by));
        }
    }
    if sure.is_empty() {
        return by_bus(hosts, said);
    }
    let mut sure = sure.into_values();
    let (Some((host, by)), None) = (sure.next(), sure.next()) else {
        return Err(Doubt::Several(several(card, name, hosts)));
    };
    let first = by.first().copied().unwrap_or(By::Mac);
    if let Some(said) = said.filter(|said| *said != host.node) {
        let said = hosts.iter().find(|one| one.node == said).map_or("another one", |one| one.name);
        return Err(Doubt::Other { said: said.to_owned(), found: host.name.to_owned(), by: first });
    }
    if host.taken {
        return Err(Doubt::Taken { name: host.name.to_owned(), by: first });
    }
    Ok(Paired { node: host.node, by })
}

fn several(card: &Card, name: &str, hosts: &[Host<'_>]) -> Vec<(String, By)> {
    let why = |inventory: &Inventory| match () {
        () if has_function(card, inventory) => Some(By::Mac),
        () if hears(card, name, inventory) => Some(By::Lldp),
        () => None,
    };
    hosts.iter().filter_map(|host| Some((host.name.to_owned(), why(host.inventory?)?))).collect()
}

/// Where nothing is sure a person is believed, then a bus that no other machine has.
fn by_bus(hosts: &[Host<'_>], said: Option<NodeId>) -> Result<Paired, Doubt> {
    if let Some(node) = said {
        return Ok(Paired { node, by: vec![By::Person] });
    }
    let free = |host: &&Host<'_>| !host.taken && host.inventory.is_some_and(has_card);
    let fit: Vec<&Host<'_>> = hosts.iter().filter(free).collect();
    match fit.as_slice() {
        [] => Err(Doubt::Nobody),
        [host] => Ok(Paired { node: host.node, by: vec![By::Pci] }),
        many => Err(Doubt::Several(many.iter().map(|host| (host.name.to_owned(), By::Pci)).collect())),
    }
}

fn has_function(card: &Card, inventory: &Inventory) -> bool {
    let own = inventory.nics.iter().flat_map(|nic| [Some(nic.mac), nic.permanent_mac]).flatten();
    own.into_iter().any(|mac| card.functions.contains(&mac) || card.base_mac == Some(mac))
}

/// A chassis id is an address in most cases (IEEE 802.1AB, 8.5.2), else a name.
fn hears(card: &Card, name: &str, inventory: &Inventory) -> bool {
    let ids = [card.base_mac, card.oob_mac].into_iter().flatten().map(|mac| mac.to_string());
    let ids: Vec<String> = ids.collect();
    inventory.nics.iter().filter_map(|nic| nic.lldp.as_ref()).any(|heard| {
        ids.iter().any(|id| heard.chassis_id.eq_ignore_ascii_case(id))
            || heard.system_name.as_deref().is_some_and(|heard| heard == name)
    })
}

fn has_card(inventory: &Inventory) -> bool {
    inventory.pci.iter().any(|device| device.vendor == VENDOR && DEVICES.contains(&device.device))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn inventory(mac: &str, heard: Option<&str>, card: bool) -> Inventory {
        let lldp = heard.map(|id| json!({ "chassis_id": id, "port_id": "pf0hpf" }));
        let device = json!({ "address": "0000:03:00.0", "vendor": if card { VENDOR } else { 1 }, "device": DEVICES[2], "subsystem_vendor": 0, "subsystem_device": 0, "class": 0x020000 });
        let text = json!({ "nics": [{ "name": "eth0", "mac": mac, "carrier": true, "lldp": lldp }], "pci": [device] });
        serde_json::from_value(text).unwrap()
    }

    fn card() -> Card {
        let mac = |text: &str| text.parse().unwrap();
        Card {
            base_mac: Some(mac("38:25:f3:3a:ab:c4")),
            oob_mac: Some(mac("38:25:f3:3a:ab:d0")),
            functions: vec![mac("38:25:f3:3a:ab:ca"), mac("38:25:f3:3a:ab:cb")],
            ..Card::default()
        }
    }

    fn node(number: u128) -> NodeId {
        NodeId(Uuid::from_u128(number))
    }

    fn host(number: u128, name: &'static str, inventory: &'static Inventory) -> Host<'static> {
        Host { node: node(number), name, inventory: Some(inventory), taken: false }
    }

    fn leak(inventory: Inventory) -> &'static Inventory {
        Box::leak(Box::new(inventory))
    }

    #[test]
    fn what_only_one_can_have_decides() {
        let by_mac = host(1, "a", leak(inventory("38:25:f3:3a:ab:ca", None, true)));
        let by_lldp = host(2, "b", leak(inventory("02:00:00:00:00:02", Some("38:25:F3:3A:AB:D0"), true)));
        let by_name = host(3, "c", leak(inventory("02:00:00:00:00:03", Some("x"), false)));
        let by_bus = host(4, "d", leak(inventory("02:00:00:00:00:04", None, true)));
        let of = |hosts: &[Host<'_>], said| pair(&card(), "dpu-7", hosts, said);
        assert_eq!(of(&[by_mac, by_bus], None), Ok(Paired { node: node(1), by: vec![By::Mac] }));
        assert_eq!(of(&[by_lldp, by_bus], None), Ok(Paired { node: node(2), by: vec![By::Lldp] }));
        assert_eq!(of(&[by_bus, by_name], None), Ok(Paired { node: node(4), by: vec![By::Pci] }));
        assert_eq!(of(&[by_name], None), Err(Doubt::Nobody));
        assert_eq!(of(&[by_name], Some(node(3))), Ok(Paired { node: node(3), by: vec![By::Person] }));
        assert_eq!(of(&[by_mac], Some(node(1))), Ok(Paired { node: node(1), by: vec![By::Mac] }));
    }

    #[test]
    fn in_doubt_nobody_is() {
        let first = host(1, "a", leak(inventory("38:25:f3:3a:ab:ca", None, true)));
        let second = host(2, "b", leak(inventory("38:25:f3:3a:ab:cb", None, true)));
        let buses = [
            host(3, "c", leak(inventory("02:00:00:00:00:03", None, true))),
            host(4, "d", leak(inventory("02:00:00:00:00:04", None, true))),
        ];
        let of = |hosts: &[Host<'_>], said| pair(&card(), "dpu-7", hosts, said).unwrap_err();
        let text = of(&[first, second], None).to_string();
        assert!(text.starts_with("a (a NIC of the machine") && text.contains(" and b ("), "{text}");
        assert!(matches!(of(&buses, None), Doubt::Several(all) if all.len() == 2));
        assert!(matches!(of(&[first, second], Some(node(1))), Doubt::Several(_)));
        let other = of(&[first, buses[0]], Some(node(3)));
        assert_eq!(
            other.to_string(),
            "somebody said that c is its host, and it is a (a NIC of the machine has the address of one of its functions)"
        );
        assert!(matches!(of(&[Host { taken: true, ..first }], None), Doubt::Taken { .. }));
        assert_eq!(of(&[Host { taken: true, ..buses[0] }], None), Doubt::Nobody);
    }
}
