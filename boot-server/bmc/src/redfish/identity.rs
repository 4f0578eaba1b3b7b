//! Who the machine is: its system, its manager, its network ports.

use std::collections::BTreeSet;

use protocol::MacAddr;

use super::call::Call;
use super::json::View;
use super::tree::Tree;
use crate::{BmcError, Identity};

impl Call<'_> {
    pub(super) async fn identity(&self) -> Result<Identity, BmcError> {
        let (tree, system) = self.system().await?;
        let view = system.view(self.origin());
        let bmc_version = match &tree.manager {
            Some(link) => match self.get_optional(link).await? {
                Some(manager) => manager.view(self.origin()).string("FirmwareVersion")?,
                None => None,
            },
            None => None,
        };
        Ok(Identity {
            manufacturer: view.string("Manufacturer")?,
            model: view.string("Model")?,
            serial: view.string(tree.profile.system.serial.as_deref().unwrap_or("SerialNumber"))?,
            uuid: view.string("UUID")?.map(|u| u.to_lowercase()),
            macs: self.macs(&tree, &view).await?,
            bmc_version,
            bios_version: view.string("BiosVersion")?,
            protocol_version: tree.root.version.clone(),
            profile: Some(tree.profile.name.clone()),
        })
    }

    /// Addresses of the host's ports: its own list, else those of the adapters in its chassis.
    async fn macs(&self, tree: &Tree, system: &View<'_>) -> Result<Vec<MacAddr>, BmcError> {
        let mut macs = BTreeSet::new();
        for port in self.members_of(system, "EthernetInterfaces").await? {
            let view = port.view(self.origin());
            macs.extend(mac(view.text("PermanentMACAddress")?).or(mac(view.text("MACAddress")?)));
        }
        if macs.is_empty() {
            for chassis in self.get_all(&tree.chassis).await? {
                macs.extend(self.functions_of(&chassis.view(self.origin())).await?);
            }
        }
        Ok(macs.into_iter().collect())
    }

    /// Addresses of the functions of a chassis' network adapters.
    pub(super) async fn functions_of(&self, chassis: &View<'_>) -> Result<Vec<MacAddr>, BmcError> {
        let mut macs = Vec::new();
        for adapter in self.members_of(chassis, "NetworkAdapters").await? {
            for function in self.members_of(&adapter.view(self.origin()), "NetworkDeviceFunctions").await? {
                let ethernet = function.view(self.origin()).object("Ethernet")?;
                macs.extend(mac(ethernet.text("PermanentMACAddress")?).or(mac(ethernet.text("MACAddress")?)));
            }
        }
        Ok(macs)
    }
}

/// What is no address (`""`, `"N/A"`, all zero) is none.
fn mac(text: Option<&str>) -> Option<MacAddr> {
    text?.parse().ok().filter(MacAddr::is_station)
}
