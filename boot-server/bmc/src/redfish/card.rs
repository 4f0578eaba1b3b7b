//! The set-up of a DPU by its own controller: what it is, its mode, what its host may do, its boot stream. Where makers
//! have these is in their profile (`[card]` of `quirks/*.toml`); without it a controller is none of a DPU.

use protocol::MacAddr;
use serde_json::{Value, json};

use super::call::Call;
use super::json::{Resource, View};
use super::quirks;
use super::tree::Tree;
use crate::{BiosAttributes, BmcError, Card, CardChange, CardMode, HostPrivilege};

impl Call<'_> {
    pub(super) async fn card(&self) -> Result<Card, BmcError> {
        let (tree, system) = self.system().await?;
        let quirk = self.card_quirk(&tree)?;
        let view = system.view(self.origin());
        let mut card = Card {
            model: view.string("Model")?,
            serial: view.string("SerialNumber")?,
            part_number: view.string("PartNumber")?,
            boot: view.object("BootProgress")?.string("OemLastState")?,
            firmware: self.firmware().await?,
            ..Card::default()
        };
        self.of_oem(quirk, &view, &mut card).await?;
        self.of_bios(quirk, &mut card).await?;
        self.of_chassis(&tree, quirk, &mut card).await?;
        card.oob_mac = self.oob_mac(quirk, &view).await?;
        Ok(card)
    }

    pub(super) async fn change_card(&self, change: CardChange) -> Result<(), BmcError> {
        let (tree, system) = self.system().await?;
        let quirk = self.card_quirk(&tree)?;
        match change {
            CardChange::Mode(mode) => self.set_mode(quirk, &system, mode).await,
            CardChange::Privilege(privilege) => self.set_privilege(quirk, privilege).await,
            CardChange::TakeBootStream => self.take_boot_stream(quirk).await,
            CardChange::Restart(graceful) => self.restart_card(&system, graceful).await,
        }
    }

    fn card_quirk(&self, tree: &Tree) -> Result<&'static quirks::Card, BmcError> {
        tree.profile.card.as_ref().ok_or_else(|| self.unsupported("the set-up of a DPU"))
    }

    /// The maker's own resource behind `Oem`; an object that stands there whole is taken as it is.
    async fn oem_of(&self, quirk: &quirks::Card, view: &View<'_>) -> Result<Option<Resource>, BmcError> {
        match view.object("Oem")?.link(&quirk.oem)? {
            Some(link) => self.get_optional(&link).await,
            None => Ok(None),
        }
    }

    async fn of_oem(&self, quirk: &quirks::Card, system: &View<'_>, card: &mut Card) -> Result<(), BmcError> {
        let Some(oem) = self.oem_of(quirk, system).await? else { return Ok(()) };
        let oem = oem.view(self.origin());
        card.base_mac = oem.text(&quirk.base_mac)?.and_then(mac);
        card.mode = oem.text(&quirk.mode)?.and_then(|word| mode_of(quirk, word));
        Ok(())
    }

    /// Attributes that UEFI has not told yet are missing, and so may be all of them.
    async fn of_bios(&self, quirk: &quirks::Card, card: &mut Card) -> Result<(), BmcError> {
        let bios = match self.bios().await {
            Ok(bios) => bios,
            Err(BmcError::Unsupported { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let word = |name: &String| bios.0.get(name).and_then(Value::as_str);
        card.mode = card.mode.or_else(|| word(&quirk.mode_attribute).and_then(|word| mode_of(quirk, word)));
        let privilege = quirk.privilege_attributes.iter().find_map(word);
        card.privilege = privilege.and_then(|word| privilege_of(quirk, word));
        Ok(())
    }

    /// The card's own chassis tells what the system leaves out.
    async fn of_chassis(&self, tree: &Tree, quirk: &quirks::Card, card: &mut Card) -> Result<(), BmcError> {
        let Some(all) = &tree.root.chassis else { return Ok(()) };
        let links = self.member_links(all).await?;
        let Some(link) = links.iter().find(|link| link.last() == quirk.chassis) else { return Ok(()) };
        let Some(chassis) = self.get_optional(link).await? else { return Ok(()) };
        let view = chassis.view(self.origin());
        card.model = view.string("Model")?.or(card.model.take());
        card.serial = view.string("SerialNumber")?.or(card.serial.take());
        card.part_number = view.string("PartNumber")?.or(card.part_number.take());
        card.functions = self.functions_of(&view).await?;
        Ok(())
    }

    async fn oob_mac(&self, quirk: &quirks::Card, system: &View<'_>) -> Result<Option<MacAddr>, BmcError> {
        for port in self.members_of(system, "EthernetInterfaces").await? {
            if port.link.last() == quirk.oob {
                return Ok(port.view(self.origin()).text("MACAddress")?.and_then(mac));
            }
        }
        Ok(None)
    }

    async fn set_mode(
        &self,
        quirk: &quirks::Card,
        system: &Resource,
        mode: CardMode,
    ) -> Result<(), BmcError> {
        let word = &quirk.modes[usize::from(mode == CardMode::Nic)];
        if let Some(oem) = self.oem_of(quirk, &system.view(self.origin())).await?
            && let Some(action) =
                self.action(&oem.view(self.origin()), &quirk.mode_action, &quirk.mode).await?
        {
            let value = action.first_of(&[word]).ok_or_else(|| self.unsupported("this mode of the DPU"))?;
            return self.post(&action.target, &json!({ quirk.mode.as_str(): value })).await.map(drop);
        }
        self.set_attribute(std::slice::from_ref(&quirk.mode_attribute), word, "the mode of the DPU").await
    }

    async fn set_privilege(&self, quirk: &quirks::Card, privilege: HostPrivilege) -> Result<(), BmcError> {
        let word = &quirk.privileges[usize::from(privilege == HostPrivilege::Restricted)];
        self.set_attribute(&quirk.privilege_attributes, word, "the privilege of the host").await
    }

    /// Sets the first of these BIOS attributes that there is.
    async fn set_attribute(&self, names: &[String], word: &str, what: &'static str) -> Result<(), BmcError> {
        let present = self.bios().await?;
        let name = names.iter().find(|name| present.0.contains_key(*name));
        let name = name.ok_or_else(|| self.unsupported(what))?;
        self.set_bios(&BiosAttributes([(name.clone(), json!(word))].into())).await
    }

    async fn take_boot_stream(&self, quirk: &quirks::Card) -> Result<(), BmcError> {
        let (_, manager) = self.manager().await?;
        let oem = self.oem_of(quirk, &manager.view(self.origin())).await?;
        let oem = oem.ok_or_else(|| self.unsupported("the boot stream of the DPU"))?;
        self.patch(&oem, &quirk.take_boot_stream).await.map(drop)
    }

    async fn restart_card(&self, system: &Resource, graceful: bool) -> Result<(), BmcError> {
        let what = "a restart of the DPU's system";
        let action = self.action(&system.view(self.origin()), "#ComputerSystem.Reset", "ResetType").await?;
        let action = action.ok_or_else(|| self.unsupported(what))?;
        let kind = if graceful { "GracefulRestart" } else { "ForceRestart" };
        self.act(&action, "ResetType", &[kind], what).await.map(drop)
    }
}

fn mode_of(quirk: &quirks::Card, word: &str) -> Option<CardMode> {
    let [dpu, nic] = &quirk.modes;
    match () {
        () if word == dpu => Some(CardMode::Dpu),
        () if word == nic => Some(CardMode::Nic),
        () => None,
    }
}

fn privilege_of(quirk: &quirks::Card, word: &str) -> Option<HostPrivilege> {
    let [privileged, restricted] = &quirk.privileges;
    match () {
        () if word == privileged => Some(HostPrivilege::Privileged),
        () if word == restricted => Some(HostPrivilege::Restricted),
        () => None,
    }
}

/// An address with colons, or twelve digits (`BaseMAC`). What is no address of a station is none.
fn mac(text: &str) -> Option<MacAddr> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let octets: Vec<&str> = (0..6).map_while(|n| digits.get(2 * n..2 * n + 2)).collect();
    let whole = digits.len() == 12 && octets.len() == 6;
    whole.then(|| octets.join(":").parse().ok()).flatten().filter(MacAddr::is_station)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_colons() {
        let wanted = "38:25:f3:3a:ab:c4".parse::<MacAddr>().unwrap();
        for text in ["3825f33aabc4", "38:25:F3:3A:AB:C4", "38-25-f3-3a-ab-c4"] {
            assert_eq!(mac(text), Some(wanted), "{text}");
        }
        for text in ["", "N/A", "3825f33aabc", "000000000000", "3825f33aabc4ff"] {
            assert_eq!(mac(text), None, "{text}");
        }
    }
}
