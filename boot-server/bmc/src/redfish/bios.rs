//! BIOS attributes, and the settings resource that is in force after the next restart (DSP0268, Bios).

use serde_json::{Value, json};

use super::call::Call;
use super::json::Resource;
use super::media::oem_action;
use crate::{BiosAttributes, BmcError};

impl Call<'_> {
    pub(super) async fn bios(&self) -> Result<BiosAttributes, BmcError> {
        let bios = self.bios_resource().await?;
        self.attributes(&bios)
    }

    pub(super) async fn set_bios(&self, changes: &BiosAttributes) -> Result<(), BmcError> {
        if changes.0.is_empty() {
            return Ok(());
        }
        let bios = self.bios_resource().await?;
        check(changes, &self.attributes(&bios)?)?;
        let settings = bios.view(self.origin()).object("@Redfish.Settings")?.link("SettingsObject")?;
        let target = match settings {
            Some(link) => self.get(&link).await?,
            None => bios,
        };
        let tree = self.tree().await?;
        let quirk = &tree.profile.bios;
        let mut body = json!({ "Attributes": changes.0 });
        if let Some(time) = &quirk.apply_time {
            body["@Redfish.SettingsApplyTime"] = json!({ "ApplyTime": time });
        }
        match (self.patch(&target, &body).await, quirk.clear_pending.as_deref()) {
            (Err(BmcError::Refused { .. } | BmcError::Busy { .. }), Some(name))
                if self.clear_pending(&target, name).await? =>
            {
                self.patch(&self.get(&target.link).await?, &body).await.map(|_| ())
            }
            (result, _) => result.map(|_| ()),
        }
    }

    /// Throws away a change that waits for a restart and blocks the next one. False where there is no such action.
    async fn clear_pending(&self, settings: &Resource, name: &str) -> Result<bool, BmcError> {
        match oem_action(&settings.view(self.origin()), name)? {
            Some(target) => self.post(&target, &json!({})).await.map(|_| true),
            None => Ok(false),
        }
    }

    async fn bios_resource(&self) -> Result<Resource, BmcError> {
        let (_, system) = self.system().await?;
        let bios = self.get_linked(&system.view(self.origin()), "Bios").await?;
        bios.ok_or_else(|| self.unsupported("BIOS attributes"))
    }

    fn attributes(&self, bios: &Resource) -> Result<BiosAttributes, BmcError> {
        let attributes = bios.view(self.origin()).object("Attributes")?;
        let Value::Object(map) = attributes.value() else { return Ok(BiosAttributes::default()) };
        let mut out = BiosAttributes::default();
        for (name, value) in map {
            if value.is_object() || value.is_array() {
                return Err(attributes.get(name)?.wrong("a text, a number or a boolean"));
            }
            out.0.insert(name.clone(), value.clone());
        }
        Ok(out)
    }
}

/// Names and types as the controller has them, so that a slip is told by name and not by "400 Bad Request".
fn check(changes: &BiosAttributes, present: &BiosAttributes) -> Result<(), BmcError> {
    let refuse = |why: String| Err(BmcError::Refused { what: "the BIOS attributes".to_owned(), why });
    for (name, value) in &changes.0 {
        let Some(now) = present.0.get(name) else {
            return refuse(format!("this BIOS has no attribute `{name}`; `billet bmc bios` lists them"));
        };
        let same = now.is_null() || std::mem::discriminant(now) == std::mem::discriminant(value);
        if !same {
            return refuse(format!("`{name}` is {now} now, and {value} is another type"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_checked_before_they_are_sent() {
        let of = |value: Value| BiosAttributes(serde_json::from_value(value).unwrap());
        let present = of(json!({"BootMode": "Uefi", "Cores": 4, "Quiet": true, "Tag": null}));
        assert!(
            check(&of(json!({"BootMode": "Bios", "Cores": 2, "Quiet": false, "Tag": "x"})), &present).is_ok()
        );
        for bad in [json!({"Bootmode": "Bios"}), json!({"Cores": "2"}), json!({"Quiet": 1})] {
            assert!(check(&of(bad.clone()), &present).is_err(), "{bad}");
        }
    }
}
