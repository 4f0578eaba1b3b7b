//! What makers do differently, as data: `quirks/*.toml`, one profile per family of controllers, with sources.
//!
//! A profile says only what the resources themselves do not: everything that a service tells (allowable values,
//! targets of actions, links) is read there.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// One family of controllers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) name: String,
    /// Where each quirk is published.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers, and for the test that there are some"))]
    pub(super) sources: Vec<String>,
    #[serde(default)]
    when: When,
    #[serde(default)]
    pub(super) http: Http,
    #[serde(default)]
    pub(super) session: Session,
    #[serde(default)]
    pub(super) errors: Errors,
    #[serde(default)]
    pub(super) etag: Etag,
    #[serde(default)]
    pub(super) system: System,
    #[serde(default)]
    pub(super) boot: Boot,
    #[serde(default)]
    pub(super) led: Led,
    #[serde(default)]
    pub(super) media: Media,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) bios: Bios,
    #[serde(default)]
    pub(super) console: Console,
    #[serde(default)]
    pub(super) update: Update,
    /// The machine is a DPU, and its controller sets it up.
    #[serde(default)]
    pub(super) card: Option<Card>,
}

/// Parts of names by which a controller is known, without regard to case; one is enough.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct When {
    /// `Vendor` of the service root.
    vendor: Vec<String>,
    /// `Product` of the service root.
    product: Vec<String>,
    /// Keys of `Oem` of the service root, or of the manager.
    oem: Vec<String>,
    /// `Manufacturer` of the system.
    manufacturer: Vec<String>,
    /// `Model` of the system.
    model: Vec<String>,
}

/// Transport.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    /// Whether `$expand` works where the service says so.
    pub(super) expand: bool,
    /// Requests at a time.
    pub(super) parallel: usize,
}

/// Logging in.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Session {
    /// Where sessions are made, for services that do not tell.
    pub(super) path: Option<String>,
}

/// `MessageId`s (their last part) that mean more than their HTTP status says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Errors {
    /// Try again later.
    pub(super) busy: Vec<String>,
}

/// `If-Match` of a PATCH.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Etag {
    /// What is sent where the resource has no ETag.
    pub(super) without: Option<String>,
    /// A weak ETag is sent as a strong one.
    pub(super) strong: bool,
    /// None is sent at all.
    pub(super) never: bool,
}

/// Which of several systems and managers is the machine.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct System {
    /// Ids in order of preference.
    pub(super) prefer: Vec<String>,
    /// Ids of what is no machine.
    pub(super) avoid: Vec<String>,
    /// The property that holds what SMBIOS calls the machine's serial number, where it is not `SerialNumber`.
    pub(super) serial: Option<String>,
}

/// The boot override.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Boot {
    /// Targets that work though the allowable values lack them.
    pub(super) unlisted: Vec<String>,
    /// Names of the virtual CD drive, in order of preference.
    pub(super) cdrom: Vec<String>,
    /// `BootSourceOverrideMode` is sent with each change, also where it stays.
    pub(super) mode_always: bool,
    /// `BootSourceOverrideMode` is never sent.
    pub(super) mode_never: bool,
}

/// The identify light.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Led {
    /// `IndicatorLED` for "on".
    pub(super) on: String,
}

/// Virtual media.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Media {
    /// What goes with `Image` into `InsertMedia`.
    pub(super) insert: BTreeMap<String, serde_json::Value>,
    /// `TransferProtocolType` goes with it, made of the URL's scheme.
    pub(super) protocol_type: bool,
    /// Ids of drives in order of preference.
    pub(super) prefer: Vec<String>,
    /// Parts of ids of drives that cannot fetch by themselves.
    pub(super) avoid: Vec<String>,
    /// An action where the standard one is missing: its name, below `Actions/Oem` or `Oem/*/Actions`.
    pub(super) insert_action: Option<String>,
    /// Its counterpart.
    pub(super) eject_action: Option<String>,
}

/// The event log.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// Ids of log services in order of preference.
    pub(super) prefer: Vec<String>,
}

/// BIOS attributes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Bios {
    /// `@Redfish.SettingsApplyTime` that a change must bring.
    pub(super) apply_time: Option<String>,
    /// Action below `Actions/Oem` of the settings that throws away an earlier change which blocks a new one.
    pub(super) clear_pending: Option<String>,
}

/// Firmware updates that the controller fetches.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Update {
    /// `ImageURI` has no scheme: `TransferProtocol` says it.
    pub(super) protocol_apart: bool,
    /// Targets begin without a slash.
    pub(super) bare_targets: bool,
}

/// How a DPU is set up. What is not named cannot be had.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Card {
    /// Key of `Oem` below which the system and the manager link to what is the maker's.
    pub(super) oem: String,
    /// Id of the chassis that is the card.
    pub(super) chassis: String,
    /// Id of the Ethernet interface that is its management port.
    pub(super) oob: String,
    /// The property with the first address.
    pub(super) base_mac: String,
    /// The property with the mode, and the parameter of its action.
    pub(super) mode: String,
    /// The action that sets it.
    pub(super) mode_action: String,
    /// The BIOS attribute with the mode, where there is no such action.
    pub(super) mode_attribute: String,
    /// Its words for a DPU and for a plain NIC.
    pub(super) modes: [String; 2],
    /// BIOS attributes with the privilege of the host, of which one is there.
    pub(super) privilege_attributes: Vec<String>,
    /// Its words for a host that may do anything, and for one that may not.
    pub(super) privileges: [String; 2],
    /// A change of the manager's own resource by which it, and not the host, has the boot stream.
    pub(super) take_boot_stream: serde_json::Value,
}

/// The serial console by SSH, for services that say only that there is one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Console {
    /// What leads from the controller's own shell to the console.
    pub(super) command: Option<String>,
    /// A port of the console's own.
    pub(super) port: Option<u16>,
}

impl Default for Http {
    fn default() -> Self {
        Self { expand: true, parallel: super::limits::CONNECTIONS }
    }
}

impl Default for Boot {
    fn default() -> Self {
        let cdrom = ["Cd", "UsbCd"].map(str::to_owned).into();
        Self { unlisted: Vec::new(), cdrom, mode_always: false, mode_never: false }
    }
}

impl Default for Led {
    fn default() -> Self {
        Self { on: "Blinking".to_owned() }
    }
}

/// The facts by which a profile is chosen.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) vendor: Option<&'a str>,
    pub(super) product: Option<&'a str>,
    pub(super) oem: &'a [&'a str],
    pub(super) manufacturer: Option<&'a str>,
    pub(super) model: Option<&'a str>,
}

impl When {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let has = |words: &[String], text: Option<&str>| {
            let text = text.unwrap_or_default().to_lowercase();
            words.iter().any(|w| text.contains(&w.to_lowercase()))
        };
        let oem = self.oem.iter().any(|w| facts.oem.iter().any(|o| o.eq_ignore_ascii_case(w)));
        oem || has(&self.vendor, facts.vendor)
            || has(&self.product, facts.product)
            || has(&self.manufacturer, facts.manufacturer)
            || has(&self.model, facts.model)
    }
}

/// The profiles, the more special ones first; the last one is that of the standard.
const FILES: [(&str, &str); 7] = [
    ("bluefield", include_str!("../../quirks/bluefield.toml")),
    ("dell-idrac", include_str!("../../quirks/dell-idrac.toml")),
    ("hpe-ilo", include_str!("../../quirks/hpe-ilo.toml")),
    ("supermicro", include_str!("../../quirks/supermicro.toml")),
    ("lenovo-xcc", include_str!("../../quirks/lenovo-xcc.toml")),
    ("openbmc", include_str!("../../quirks/openbmc.toml")),
    ("standard", include_str!("../../quirks/standard.toml")),
];

static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let read =
        |(name, text): &(&str, &str)| toml::from_str(text).map_err(|e| format!("quirks/{name}.toml: {e}"));
    let all: Result<Vec<Profile>, String> = FILES.iter().map(read).collect();
    all.expect("the embedded profiles are read by a test")
});

/// The profile of a controller.
pub(super) fn choose(facts: &Facts<'_>) -> &'static Profile {
    PROFILES.iter().find(|p| p.when.matches(facts)).unwrap_or_else(|| standard())
}

/// The profile that has no quirks.
pub(super) fn standard() -> &'static Profile {
    PROFILES.last().expect("there is one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_is_read_and_has_sources() {
        for (profile, (file, _)) in PROFILES.iter().zip(FILES) {
            assert_eq!(profile.name, file);
            assert!(!profile.sources.is_empty(), "{file} names no source");
            assert!((1..=8).contains(&profile.http.parallel), "{file}");
        }
    }

    #[test]
    fn profiles_are_chosen_by_what_a_service_says() {
        for (facts, name) in [
            (Facts { vendor: Some("Dell"), ..Facts::default() }, "dell-idrac"),
            (
                Facts { product: Some("Integrated Dell Remote Access Controller"), ..Facts::default() },
                "dell-idrac",
            ),
            (Facts { oem: &["Hpe"], ..Facts::default() }, "hpe-ilo"),
            (Facts { manufacturer: Some("Supermicro"), ..Facts::default() }, "supermicro"),
            (Facts { vendor: Some("Lenovo"), oem: &["Lenovo"], ..Facts::default() }, "lenovo-xcc"),
            (Facts { oem: &["OpenBmc"], ..Facts::default() }, "openbmc"),
            (
                Facts { product: Some("BlueField-3 SmartNIC"), oem: &["OpenBmc"], ..Facts::default() },
                "bluefield",
            ),
            (Facts { vendor: Some("Contoso"), ..Facts::default() }, "standard"),
            (Facts::default(), "standard"),
        ] {
            assert_eq!(choose(&facts).name, name, "{facts:?}");
        }
    }
}
