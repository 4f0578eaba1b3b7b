//! The host's bus: which volumes are plugged into it.

use std::collections::BTreeMap;

use protocol::dpu::{Exporter, Function, Name, Volume};

/// What the bus says of devices that may be ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bus(
    /// By [`id`].
    pub BTreeMap<String, Found>,
);

/// What is on the bus for a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The host has the disk.
    Plugged,
    /// The host was asked to let go of it.
    Leaves,
    /// No disk, but a connection to the exporter is left.
    Remnant,
}

/// The buses of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Buses {
    /// Where disks by vhost-user are plugged in; `None` while it is out of reach, or where there is none.
    pub host: Option<Bus>,
    /// SNAP's own.
    pub snap: Option<Bus>,
}

impl Buses {
    /// The bus of a volume. A function that is always there has none: it has the disk for as long as that is served.
    pub fn of(&self, volume: &Volume) -> Option<&Bus> {
        match volume.exporter {
            Exporter::Snap { function: Function::Hotplug, .. } => self.snap.as_ref(),
            Exporter::Snap { .. } => None,
            _ => self.host.as_ref(),
        }
    }
}

impl Bus {
    /// What is there for a volume.
    pub fn of(&self, volume: &Name) -> Option<Found> {
        self.0.get(&id(volume)).copied()
    }
}

/// A volume's name on the bus: its own, unless it begins with a digit, which no device's name may.
pub fn id(volume: &Name) -> String {
    const PREFIX: &str = "vol-";
    let name = volume.as_str();
    // With the second condition no two volumes have one name.
    let takes = name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with(PREFIX);
    if takes { format!("{PREFIX}{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_bus() {
        for (name, on_bus) in [("boot", "boot"), ("5f6a", "vol-5f6a"), ("vol-5f6a", "vol-vol-5f6a")] {
            assert_eq!(id(&name.parse().unwrap()), on_bus);
        }
    }
}
