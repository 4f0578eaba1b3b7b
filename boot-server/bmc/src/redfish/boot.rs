//! The boot override: `Boot` of the system (DSP0268, ComputerSystem).
//!
//! Some services hold these properties in a settings resource (`@Redfish.Settings`, DSP0266, section 9.10) that is
//! in force after the next restart. Each property is written where it is, and a read tells what will be.

use serde_json::{Map, Value, json};

use super::call::Call;
use super::json::{Resource, View};
use super::quirks::{Boot, Profile};
use crate::{BmcError, BootDevice, BootMode, BootOverride, Repeat};

const TARGET: &str = "BootSourceOverrideTarget";
const ENABLED: &str = "BootSourceOverrideEnabled";
const MODE: &str = "BootSourceOverrideMode";
const HTTP_URI: &str = "HttpBootUri";

impl Call<'_> {
    pub(super) async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        let (_, system) = self.system().await?;
        let settings = self.boot_settings(&system).await?;
        let merged = merged(&system, settings.as_ref());
        let boot = merged.view(self.origin()).object("Boot")?;
        let (repeat, enabled) = match boot.text(ENABLED)? {
            Some("Once") => (Repeat::Once, true),
            Some("Continuous") => (Repeat::Always, true),
            _ => (Repeat::Once, false),
        };
        let device = if enabled { device(boot.text(TARGET)?) } else { BootDevice::None };
        let mode = mode(boot.text(MODE)?);
        let http_uri =
            if device == BootDevice::Http { boot.text(HTTP_URI)?.map(str::to_owned) } else { None };
        Ok(BootOverride { device, repeat, mode, http_uri })
    }

    pub(super) async fn set_boot_override(&self, wanted: &BootOverride) -> Result<(), BmcError> {
        let (tree, system) = self.system().await?;
        let settings = self.boot_settings(&system).await?;
        // What the settings say goes before what the system says; iDRAC 10 tells allowable values only there.
        let merged = merged(&system, settings.as_ref());
        let wishes = self.wishes(&merged.view(self.origin()).object("Boot")?, wanted, tree.profile)?;
        let pending = settings.as_ref().and_then(|s| s.body.get("Boot")?.as_object());
        let is_pending = |name: &String| pending.is_some_and(|p| p.contains_key(name));
        let (later, now): (Map<_, _>, Map<_, _>) = wishes.into_iter().partition(|(name, _)| is_pending(name));
        for (resource, part) in [(settings.as_ref(), later), (Some(&system), now)] {
            if let (Some(resource), false) = (resource, part.is_empty()) {
                self.patch(resource, &json!({ "Boot": part })).await?;
            }
        }
        Ok(())
    }

    /// The settings resource, where it has to do with booting.
    async fn boot_settings(&self, system: &Resource) -> Result<Option<Resource>, BmcError> {
        let view = system.view(self.origin());
        let Some(settings) = self.get_linked(&view.object("@Redfish.Settings")?, "SettingsObject").await?
        else {
            return Ok(None);
        };
        let has_boot = settings.view(self.origin()).object("Boot")?.exists();
        system.view(self.origin()).object("Boot")?;
        Ok(has_boot.then_some(settings))
    }

    /// The properties to write.
    fn wishes(
        &self,
        boot: &View<'_>,
        wanted: &BootOverride,
        profile: &Profile,
    ) -> Result<Map<String, Value>, BmcError> {
        let allowed = boot.texts(&format!("{TARGET}@Redfish.AllowableValues"))?;
        let mut wishes = Map::new();
        if wanted.device == BootDevice::None {
            wishes.insert(ENABLED.into(), "Disabled".into());
            if allowed.as_ref().is_none_or(|a| a.contains(&"None")) {
                wishes.insert(TARGET.into(), "None".into());
            }
            return Ok(wishes);
        }
        let target = target(wanted.device, allowed.as_deref(), &profile.boot);
        let target = target.ok_or_else(|| self.unsupported(what(wanted.device)))?;
        wishes.insert(TARGET.into(), target.into());
        let repeat = match wanted.repeat {
            Repeat::Once => "Once",
            Repeat::Always => "Continuous",
        };
        self.check_repeat(boot, repeat)?;
        wishes.insert(ENABLED.into(), repeat.into());
        self.wish_mode(boot, wanted, &profile.boot, &mut wishes)?;
        self.wish_uri(boot, wanted, &mut wishes)?;
        Ok(wishes)
    }

    fn check_repeat(&self, boot: &View<'_>, repeat: &str) -> Result<(), BmcError> {
        match boot.texts(&format!("{ENABLED}@Redfish.AllowableValues"))? {
            Some(allowed) if !allowed.contains(&repeat) => {
                Err(self.unsupported("an override that holds that long"))
            }
            _ => Ok(()),
        }
    }

    /// The mode is written where it differs: many firmwares refuse to be told what they do already.
    fn wish_mode(
        &self,
        boot: &View<'_>,
        wanted: &BootOverride,
        quirk: &Boot,
        wishes: &mut Map<String, Value>,
    ) -> Result<(), BmcError> {
        let now = mode(boot.text(MODE)?);
        let text = |mode| match mode {
            BootMode::Uefi => "UEFI",
            BootMode::Legacy => "Legacy",
        };
        let wish = match wanted.mode {
            _ if quirk.mode_never => None,
            Some(mode) if now != Some(mode) || quirk.mode_always => Some(mode),
            None if quirk.mode_always => now,
            _ => None,
        };
        // A service without the property has one mode only; reading back shows which.
        if let (Some(mode), true) = (wish, boot.get(MODE)?.exists()) {
            wishes.insert(MODE.into(), text(mode).into());
        }
        Ok(())
    }

    fn wish_uri(
        &self,
        boot: &View<'_>,
        wanted: &BootOverride,
        wishes: &mut Map<String, Value>,
    ) -> Result<(), BmcError> {
        let known = boot.value().as_object().is_some_and(|b| b.contains_key(HTTP_URI));
        match &wanted.http_uri {
            Some(_) if !known => return Err(self.unsupported("HTTP boot from a given URI")),
            Some(uri) => wishes.insert(HTTP_URI.into(), uri.as_str().into()),
            // An old URI would go before what DHCP says.
            None if boot.text(HTTP_URI)?.is_some() => wishes.insert(HTTP_URI.into(), Value::Null),
            None => None,
        };
        Ok(())
    }
}

/// `Boot` of the system, and over it what is set and not null in `Boot` of the settings.
fn merged(system: &Resource, settings: Option<&Resource>) -> Resource {
    let boot = |r: &Resource| r.body.get("Boot").cloned().unwrap_or_default();
    let mut body = boot(system);
    let set = settings.map(boot);
    if let (Value::Object(body), Some(Value::Object(set))) = (&mut body, set) {
        body.extend(set.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Resource { link: system.link.clone(), etag: None, body: json!({ "Boot": body }) }
}

/// What we call a target. What we have no name for is told as [`BootDevice::None`]: it is not what anybody asked for.
fn device(target: Option<&str>) -> BootDevice {
    match target {
        Some("Pxe") => BootDevice::Pxe,
        Some("UefiHttp") => BootDevice::Http,
        Some("Hdd") => BootDevice::Disk,
        Some("Cd" | "UsbCd") => BootDevice::Cdrom,
        Some("BiosSetup") => BootDevice::Bios,
        _ => BootDevice::None,
    }
}

fn mode(text: Option<&str>) -> Option<BootMode> {
    match text {
        Some("UEFI") => Some(BootMode::Uefi),
        Some("Legacy") => Some(BootMode::Legacy),
        _ => None,
    }
}

fn what(device: BootDevice) -> &'static str {
    match device {
        BootDevice::None => "no boot override",
        BootDevice::Pxe => "booting by PXE",
        BootDevice::Http => "HTTP boot",
        BootDevice::Disk => "booting from disk",
        BootDevice::Cdrom => "booting from the virtual CD",
        BootDevice::Bios => "booting into the firmware's set-up",
    }
}

/// The target's name at this service.
fn target<'a>(device: BootDevice, allowed: Option<&[&str]>, quirk: &'a Boot) -> Option<&'a str> {
    let names: Vec<&str> = match device {
        BootDevice::None => vec!["None"],
        BootDevice::Pxe => vec!["Pxe"],
        BootDevice::Http => vec!["UefiHttp"],
        BootDevice::Disk => vec!["Hdd"],
        BootDevice::Cdrom => quirk.cdrom.iter().map(String::as_str).collect(),
        BootDevice::Bios => vec!["BiosSetup"],
    };
    let Some(allowed) = allowed else { return names.first().copied() };
    let listed = names.iter().find(|n| allowed.contains(n));
    listed.or_else(|| names.iter().find(|n| quirk.unlisted.iter().any(|u| u == *n))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_among_the_allowable_ones() {
        let plain = Boot::default();
        let all = ["None", "Pxe", "Cd", "UsbCd", "Hdd"];
        assert_eq!(target(BootDevice::Pxe, Some(&all), &plain), Some("Pxe"));
        assert_eq!(target(BootDevice::Http, Some(&all), &plain), None);
        assert_eq!(target(BootDevice::Http, None, &plain), Some("UefiHttp"));
        assert_eq!(target(BootDevice::Cdrom, Some(&["UsbCd"]), &plain), Some("UsbCd"));
        let usb_first = Boot { cdrom: vec!["UsbCd".into(), "Cd".into()], ..Boot::default() };
        assert_eq!(target(BootDevice::Cdrom, Some(&all), &usb_first), Some("UsbCd"));
        let unlisted = Boot { unlisted: vec!["Pxe".into()], ..Boot::default() };
        assert_eq!(target(BootDevice::Pxe, Some(&["Hdd"]), &unlisted), Some("Pxe"));
    }

    #[test]
    fn unknown_targets_are_no_override_of_ours() {
        for unknown in [None, Some("Usb"), Some("UefiTarget"), Some("ContosoCloud")] {
            assert_eq!(device(unknown), BootDevice::None);
        }
    }
}
