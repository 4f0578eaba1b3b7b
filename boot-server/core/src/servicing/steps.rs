//! The steps of a servicing job. Whatever can be known to be wrong before anything is asked of a controller is refused here.

use std::collections::BTreeMap;

use protocol::Sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::words::Location;

/// Steps of one job: more is more than one person oversees.
pub const STEPS_MAX: usize = 16;
/// BIOS attributes of one step or baseline: the largest registries have about a thousand.
pub const ATTRIBUTES_MAX: usize = 1024;
/// Octets of a name or a text.
pub const TEXT_MAX: usize = 1024;

/// BIOS attributes by name; texts, numbers and booleans as the controller has them.
pub type Attributes = BTreeMap<String, Value>;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ServiceStep {
    /// Another firmware.
    Firmware(FirmwareStep),
    /// BIOS attributes.
    Bios(BiosStep),
    /// Secure Boot on or off.
    SecureBoot(SecureBootStep),
    /// The key databases of Secure Boot.
    SecureBootKeys(KeysStep),
}

/// Another firmware for a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FirmwareStep {
    /// Name or id of the part, as the controller's list of firmware has it.
    pub component: String,
    /// The version that it has afterwards; where it has it already, nothing is done.
    pub version: String,
    /// The image: a path in the media directory, or a URL that the controller can reach.
    pub image: Location,
    /// SHA-256 of the file in the media directory; checked before anything is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// How the image comes to the controller.
    #[serde(default)]
    pub by: Transfer,
    /// The controller is told which part it is for; else the image tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub target: bool,
}

/// How a firmware image comes to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Transfer {
    /// It is sent (`MultipartHttpPushUri`).
    #[default]
    Push,
    /// The controller fetches it (`SimpleUpdate`); a file of the media directory from the provisioning listener.
    Pull,
}

/// BIOS attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BiosStep {
    /// By name; all others stay as they are.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Value>))]
    pub attributes: Attributes,
}

/// Secure Boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SecureBootStep {
    /// On.
    pub on: bool,
}

/// Key databases of Secure Boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeysStep {
    /// What they are reset to.
    pub to: KeyReset,
}

/// What key databases are reset to (Redfish's `ResetKeysType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyReset {
    /// The maker's keys.
    Default,
    /// None at all (set-up mode).
    DeleteAll,
    /// All but the platform key (set-up mode).
    DeletePk,
}

/// Whether a machine that runs an OS may be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// It is not: settings wait for its next restart, and firmware is refused.
    #[default]
    Never,
    /// It is, once its OS had time to shut down.
    Allowed,
}

/// A job that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct StepError {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}

fn wrong(what: impl Into<String>, hint: &'static str) -> StepError {
    StepError { what: what.into(), hint }
}

/// Whether these can be the steps of a job.
///
/// # Errors
/// With what is wrong with the first that cannot.
pub fn check_steps(steps: &[ServiceStep]) -> Result<(), StepError> {
    if steps.is_empty() {
        return Err(wrong("there is nothing to do", "name at least one step"));
    }
    if steps.len() > STEPS_MAX {
        return Err(wrong(format!("a job has at most {STEPS_MAX} steps"), "make several jobs of it"));
    }
    steps.iter().try_for_each(ServiceStep::check)
}

/// Whether these can be attributes of a BIOS.
///
/// # Errors
/// With the first that cannot.
pub fn check_attributes(attributes: &Attributes) -> Result<(), StepError> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(wrong(format!("there are at most {ATTRIBUTES_MAX} BIOS attributes"), "leave some out"));
    }
    for (name, value) in attributes {
        text("the name of a BIOS attribute", name)?;
        match value {
            Value::String(text) if text.len() > TEXT_MAX => {
                return Err(wrong(format!("the value of `{name}` is too long"), "shorten it"));
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) => {}
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(wrong(format!("`{name}` is no text, number or boolean"), "give one of these"));
            }
        }
    }
    Ok(())
}

fn text(what: &str, text: &str) -> Result<(), StepError> {
    if text.trim().is_empty() || text.len() > TEXT_MAX || text.chars().any(char::is_control) {
        return Err(wrong(
            format!("{what} is empty, too long, or has control characters in it"),
            "correct it",
        ));
    }
    Ok(())
}

impl ServiceStep {
    fn check(&self) -> Result<(), StepError> {
        match self {
            Self::Firmware(step) => step.check(),
            Self::Bios(step) if step.attributes.is_empty() => {
                Err(wrong("no BIOS attribute is named", "name at least one"))
            }
            Self::Bios(step) => check_attributes(&step.attributes),
            Self::SecureBoot(_) | Self::SecureBootKeys(_) => Ok(()),
        }
    }

    /// What it is about, in words.
    pub fn words(&self) -> String {
        match self {
            Self::Firmware(step) => format!("firmware {} {}", step.component, step.version),
            Self::Bios(step) => match step.attributes.len() {
                1 => "1 BIOS attribute".to_owned(),
                count => format!("{count} BIOS attributes"),
            },
            Self::SecureBoot(step) => format!("Secure Boot {}", if step.on { "on" } else { "off" }),
            Self::SecureBootKeys(step) => match step.to {
                KeyReset::Default => "Secure Boot keys of the maker".to_owned(),
                KeyReset::DeleteAll => "no Secure Boot keys".to_owned(),
                KeyReset::DeletePk => "no Secure Boot platform key".to_owned(),
            },
        }
    }

    /// True where the machine must be restarted before the next step: what comes after may depend on it.
    pub fn stands_alone(&self) -> bool {
        matches!(self, Self::Firmware(_) | Self::SecureBootKeys(_))
    }
}

impl FirmwareStep {
    /// Whether it can be carried out.
    ///
    /// # Errors
    /// With what is missing.
    pub fn check(&self) -> Result<(), StepError> {
        text("the component", &self.component)?;
        text("the version", &self.version)?;
        match (&self.image, self.by, self.sha256) {
            (Location::Url(_), Transfer::Push, _) => Err(wrong(
                "an image that is sent must be a file in the media directory",
                "put it there, or let the controller fetch it (`pull`)",
            )),
            (Location::Url(_), Transfer::Pull, Some(_)) => Err(wrong(
                "the SHA-256 of what a controller fetches from elsewhere cannot be checked",
                "put the file into the media directory, or leave the SHA-256 out",
            )),
            (Location::Url(url), Transfer::Pull, None) if !url.to_string().starts_with("http") => {
                Err(wrong("a controller fetches images by http or https", "give such a URL"))
            }
            (Location::Media(_), _, None) => Err(wrong(
                "the SHA-256 of the firmware image is missing",
                "give it as the maker of the machine publishes it",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(value: Value) -> Result<ServiceStep, String> {
        let step: ServiceStep = serde_json::from_value(value).map_err(|e| e.to_string())?;
        step.check().map_err(|e| e.to_string())?;
        Ok(step)
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        let sha256 = "ab".repeat(32);
        for good in [
            json!({"kind": "firmware", "component": "BIOS", "version": "2", "image": "dell/bios.exe", "sha256": sha256}),
            json!({"kind": "firmware", "component": "BIOS", "version": "2", "image": "https://f.example/b", "by": "pull"}),
            json!({"kind": "bios", "attributes": {"NumCores": 8, "QuietBoot": true, "BootMode": "Uefi"}}),
            json!({"kind": "secure_boot", "on": true}),
            json!({"kind": "secure_boot_keys", "to": "delete_pk"}),
        ] {
            assert!(step(good.clone()).is_ok(), "{good}: {:?}", step(good.clone()));
        }
        for (bad, word) in [
            (json!({"kind": "firmware", "component": "BIOS", "version": "2", "image": "b.exe"}), "SHA-256"),
            (
                json!({"kind": "firmware", "component": "B", "version": "2", "image": "http://f.example/b"}),
                "media directory",
            ),
            (
                json!({"kind": "firmware", "component": "B", "version": "2", "image": "http://f.example/b", "by": "pull", "sha256": sha256}),
                "cannot be checked",
            ),
            (
                json!({"kind": "firmware", "component": "B", "version": "2", "image": "tftp://f.example/b", "by": "pull"}),
                "http",
            ),
            (
                json!({"kind": "firmware", "component": " ", "version": "2", "image": "b", "sha256": sha256}),
                "component",
            ),
            (
                json!({"kind": "firmware", "component": "B", "version": "2", "image": "../b", "sha256": sha256}),
                "media",
            ),
            (json!({"kind": "bios", "attributes": {}}), "no BIOS attribute"),
            (json!({"kind": "bios", "attributes": {"A": [1]}}), "`A`"),
            (json!({"kind": "bios", "attributes": {"A": null}}), "`A`"),
            (json!({"kind": "secure_boot", "on": true, "off": false}), "off"),
            (json!({"kind": "secure_boot_keys", "to": "some"}), "some"),
        ] {
            let why = step(bad.clone()).unwrap_err();
            assert!(why.contains(word), "{bad}: {why}");
        }
        assert!(check_steps(&[]).is_err());
    }
}
