//! Parts with a state of their own, and where they sit.
//!
//! A part without a health, or with one that no schema has, is left out: nothing is known of it.

use super::call::Call;
use super::json::{Resource, View};
use super::readings::is_present;
use super::tree::Tree;
use crate::{BmcError, Component, ComponentKind, Health};

impl Call<'_> {
    pub(super) async fn components(&self) -> Result<Vec<Component>, BmcError> {
        let (tree, system) = self.system().await?;
        let view = system.view(self.origin());
        let mut out = Vec::new();
        out.extend(component(ComponentKind::System, &view)?);
        for (kind, name) in [(ComponentKind::Processor, "Processors"), (ComponentKind::Memory, "Memory")] {
            self.add(kind, &self.members_of(&view, name).await?, &mut out)?;
        }
        self.add(ComponentKind::Drive, &self.drives(&view).await?, &mut out)?;
        self.add_simple_drives(&view, &mut out).await?;
        self.add_chassis(&tree, &mut out).await?;
        if let Some(link) = &tree.manager
            && let Some(manager) = self.get_optional(link).await?
        {
            self.add(ComponentKind::Bmc, &[manager], &mut out)?;
        }
        Ok(out)
    }

    fn add(&self, kind: ComponentKind, parts: &[Resource], out: &mut Vec<Component>) -> Result<(), BmcError> {
        for part in parts {
            out.extend(component(kind, &part.view(self.origin()))?);
        }
        Ok(())
    }

    /// Drives are linked from each storage controller.
    async fn drives(&self, system: &View<'_>) -> Result<Vec<Resource>, BmcError> {
        let mut links = Vec::new();
        for storage in self.members_of(system, "Storage").await? {
            for drive in storage.view(self.origin()).links("Drives")? {
                if !links.contains(&drive) && links.len() < super::limits::MEMBERS {
                    links.push(drive);
                }
            }
        }
        self.get_all(&links).await
    }

    /// Controllers without drives of their own resources (`SimpleStorage`, `Devices`).
    async fn add_simple_drives(&self, system: &View<'_>, out: &mut Vec<Component>) -> Result<(), BmcError> {
        if out.iter().any(|c| c.kind == ComponentKind::Drive) {
            return Ok(());
        }
        for storage in self.members_of(system, "SimpleStorage").await? {
            for device in storage.view(self.origin()).list("Devices")? {
                out.extend(component(ComponentKind::Drive, &device)?);
            }
        }
        Ok(())
    }

    async fn add_chassis(&self, tree: &Tree, out: &mut Vec<Component>) -> Result<(), BmcError> {
        for chassis in self.get_all(&tree.chassis).await? {
            let view = chassis.view(self.origin());
            for (kind, old, list, new) in [
                (ComponentKind::Fan, "Thermal", "Fans", "ThermalSubsystem"),
                (ComponentKind::PowerSupply, "Power", "PowerSupplies", "PowerSubsystem"),
            ] {
                let before = out.len();
                if let Some(parts) = self.get_linked(&view, old).await? {
                    for part in parts.view(self.origin()).list(list)? {
                        out.extend(component(kind, &part)?);
                    }
                }
                if let (true, Some(subsystem)) = (out.len() == before, self.get_linked(&view, new).await?) {
                    self.add(kind, &self.members_of(&subsystem.view(self.origin()), list).await?, out)?;
                }
            }
            self.add(ComponentKind::Network, &self.members_of(&view, "NetworkAdapters").await?, out)?;
        }
        Ok(())
    }
}

pub(super) fn component(kind: ComponentKind, part: &View<'_>) -> Result<Option<Component>, BmcError> {
    let status = part.object("Status")?;
    // What hangs below is told by itself; of the machine as a whole only the roll-up tells.
    let own = match kind {
        ComponentKind::System => health(&status, "HealthRollup")?.or(health(&status, "Health")?),
        _ => health(&status, "Health")?,
    };
    let (Some(health), true) = (own, is_present(part)?) else { return Ok(None) };
    let name = part.string("Name")?.or(part.string("FanName")?).or(part.string("Id")?);
    let model =
        [part.string("Manufacturer")?, part.string("Model")?].into_iter().flatten().collect::<Vec<_>>();
    Ok(Some(Component {
        kind,
        name: name.or(part.string("MemberId")?).unwrap_or_default(),
        health,
        location: location(part)?,
        model: (!model.is_empty()).then(|| model.join(" ")),
        serial: part.string("SerialNumber")?,
        part_number: part.string("PartNumber")?,
    }))
}

/// Where it sits: the service label, which is what is printed on the machine; else older properties.
fn location(part: &View<'_>) -> Result<Option<String>, BmcError> {
    // `Location` is one object, but a list of them in Drive.
    let mut places = vec![part.object("PhysicalLocation")?];
    match part.get("Location")?.value().is_array() {
        true => places.extend(part.list("Location")?),
        false => places.push(part.object("Location")?),
    }
    for place in places {
        let label = place.object("PartLocation")?.string("ServiceLabel")?;
        if let Some(found) = label.or(place.string("Info")?) {
            return Ok(Some(found));
        }
    }
    Ok(part.string("DeviceLocator")?.or(part.string("Socket")?))
}

/// `Health` or `HealthRollup` of a status. Unknown words are `None`.
pub(super) fn health(status: &View<'_>, name: &str) -> Result<Option<Health>, BmcError> {
    Ok(match status.text(name)? {
        Some("OK") => Some(Health::Ok),
        Some("Warning") => Some(Health::Warning),
        Some("Critical") => Some(Health::Critical),
        _ => None,
    })
}
