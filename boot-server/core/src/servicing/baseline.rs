//! Named baselines: how machines of a kind are to be set, and what a machine lacks of that.

use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::judge::{component, nearest, plain};
use super::{
    Attributes, BiosStep, FirmwareFact, FirmwareStep, SecureBootStep, ServiceStep, StepError, Transfer,
    Verdict, check_attributes,
};
use crate::words::Location;

/// Longest name, in octets.
const NAME_MAX: usize = 64;
/// Pieces of firmware in a baseline.
const FIRMWARE_MAX: usize = 12;

/// How machines are to be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Names it: 1 to 64 of `a-z`, `0-9`, `.`, `-`, `_`.
    pub name: String,
    /// Only for machines of this maker; for all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Only for machines of this model; for all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// BIOS attributes; all others stay as they are.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, Value>))]
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub bios: Attributes,
    /// Secure Boot; as it is if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// Expected firmware.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware: Vec<FirmwareWanted>,
    /// When it was last changed; the server's own word.
    #[serde(default)]
    pub changed: Timestamp,
}

/// An expected firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FirmwareWanted {
    /// Name or id of the part.
    pub component: String,
    /// Its version.
    pub version: String,
    /// The image with that version; without one the version is only compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Location>,
    /// SHA-256 of the image in the media directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// How the image comes to the controller.
    #[serde(default)]
    pub by: Transfer,
    /// The controller is told which part it is for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub target: bool,
}

/// Why a baseline cannot be, or cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BaselineError {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl From<StepError> for BaselineError {
    fn from(error: StepError) -> Self {
        Self { what: error.what, hint: error.hint.to_owned() }
    }
}

/// How a machine stands: what is `None` was not read, because the baseline does not speak of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Its maker.
    pub manufacturer: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// BIOS attributes in force.
    pub bios: Option<Attributes>,
    /// Secure Boot in force.
    pub secure_boot: Option<bool>,
    /// Its firmware.
    pub firmware: Option<Vec<FirmwareFact>>,
}

/// One line of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// `bios`, `secure_boot` or `firmware`.
    pub part: String,
    /// Name of the attribute or of the part.
    pub name: String,
    /// As it is; null where this machine does not have it.
    pub now: Option<Value>,
    /// As it is to be.
    pub wanted: Value,
    /// It is as it is to be.
    pub same: bool,
    /// Why it cannot become so, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What applying a baseline does to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<ServiceStep>,
}

fn bad(what: impl Into<String>, hint: impl Into<String>) -> BaselineError {
    BaselineError { what: what.into(), hint: hint.into() }
}

impl Baseline {
    /// Whether it can be one.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), BaselineError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let named = (1..=NAME_MAX).contains(&self.name.len()) && self.name.chars().all(plain);
        if !named {
            let hint = "use 1 to 64 of a-z, 0-9, `.`, `-`, `_`";
            return Err(bad(format!("`{}` is no name for a baseline", cut(&self.name)), hint));
        }
        if self.bios.is_empty() && self.secure_boot.is_none() && self.firmware.is_empty() {
            return Err(bad("the baseline says nothing", "name a BIOS attribute, Secure Boot or a firmware"));
        }
        if self.firmware.len() > FIRMWARE_MAX {
            return Err(bad(
                format!("a baseline has at most {FIRMWARE_MAX} pieces of firmware"),
                "make two of it",
            ));
        }
        for text in [&self.manufacturer, &self.model].into_iter().flatten() {
            if text.trim().is_empty() || text.len() > 255 {
                return Err(bad("maker or model is empty or too long", "correct it, or leave it out"));
            }
        }
        check_attributes(&self.bios)?;
        for wanted in &self.firmware {
            match wanted.step() {
                Some(step) => step.check()?,
                None if wanted.component.trim().is_empty() || wanted.version.trim().is_empty() => {
                    return Err(bad("a firmware has no component or no version", "give both"));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whether it is for this machine. What the machine does not tell cannot be compared, and then it is not.
    ///
    /// # Errors
    /// With what does not fit.
    pub fn fits(&self, standing: &Standing) -> Result<(), BaselineError> {
        let pairs =
            [("maker", &self.manufacturer, &standing.manufacturer), ("model", &self.model, &standing.model)];
        for (what, wanted, found) in pairs {
            let Some(wanted) = wanted else { continue };
            if !found.as_ref().is_some_and(|found| found.trim().eq_ignore_ascii_case(wanted.trim())) {
                let found = found.as_deref().unwrap_or("not told");
                return Err(bad(
                    format!(
                        "baseline {} is for the {what} {wanted}, and this machine's is {found}",
                        self.name
                    ),
                    "use a baseline for this kind of machine",
                ));
            }
        }
        Ok(())
    }

    /// Each attribute as it is and as it is to be.
    pub fn differences(&self, standing: &Standing) -> Vec<Difference> {
        let mut lines = Vec::new();
        if let Some(bios) = &standing.bios {
            lines.extend(self.bios.iter().map(|(name, wanted)| attribute(name, wanted, bios)));
        }
        if let (Some(wanted), Some(now)) = (self.secure_boot, standing.secure_boot) {
            lines.push(Difference {
                part: "secure_boot".to_owned(),
                name: "Secure Boot".to_owned(),
                now: Some(now.into()),
                wanted: wanted.into(),
                same: now == wanted,
                problem: None,
            });
        }
        if let Some(items) = &standing.firmware {
            lines.extend(self.firmware.iter().map(|wanted| wanted.compare(items)));
        }
        lines
    }

    /// What is to be done on a machine that stands so; nothing where it is as it is to be. Firmware first: a new BIOS may
    /// bring the attributes that are to be set.
    ///
    /// # Errors
    /// Where something cannot become so.
    pub fn plan(&self, standing: &Standing, firmware: bool) -> Result<Plan, BaselineError> {
        self.fits(standing)?;
        let lines = self.differences(standing);
        let open = || lines.iter().filter(|line| !line.same);
        if let Some((line, problem)) =
            open().filter(|l| firmware || l.part != "firmware").find_map(|l| Some((l, l.problem.clone()?)))
        {
            let hint = match line.part.as_str() {
                "firmware" => "give the image in the baseline, or apply it without firmware",
                _ => "correct the baseline",
            };
            return Err(bad(problem, hint));
        }
        let mut plan = Plan::default();
        if firmware {
            let differs = |wanted: &&FirmwareWanted| {
                open().any(|line| line.part == "firmware" && line.name == wanted.component)
            };
            plan.steps.extend(
                self.firmware
                    .iter()
                    .filter(differs)
                    .filter_map(FirmwareWanted::step)
                    .map(ServiceStep::Firmware),
            );
        }
        let attributes: Attributes = open()
            .filter(|line| line.part == "bios")
            .map(|line| (line.name.clone(), line.wanted.clone()))
            .collect();
        if !attributes.is_empty() {
            plan.steps.push(ServiceStep::Bios(BiosStep { attributes }));
        }
        if let Some(on) = self.secure_boot.filter(|_| open().any(|line| line.part == "secure_boot")) {
            plan.steps.push(ServiceStep::SecureBoot(SecureBootStep { on }));
        }
        Ok(plan)
    }
}

impl FirmwareWanted {
    fn step(&self) -> Option<FirmwareStep> {
        Some(FirmwareStep {
            component: self.component.clone(),
            version: self.version.clone(),
            image: self.image.clone()?,
            sha256: self.sha256,
            by: self.by,
            target: self.target,
        })
    }

    fn compare(&self, items: &[FirmwareFact]) -> Difference {
        let found = component(&self.component, items);
        let now = found.as_ref().ok().and_then(|item| item.version.clone());
        let same = now.as_ref() == Some(&self.version);
        let problem = match &found {
            Err(Verdict::Wrong { what, hint }) => Some(format!("{what} ({hint})")),
            _ if !same && self.image.is_none() => Some(format!(
                "firmware {} is {}, wanted is {}, and the baseline names no image",
                self.component,
                now.as_deref().unwrap_or("not told"),
                self.version
            )),
            _ => None,
        };
        Difference {
            part: "firmware".to_owned(),
            name: self.component.clone(),
            now: now.map(Value::from),
            wanted: self.version.clone().into(),
            same,
            problem,
        }
    }
}

fn attribute(name: &str, wanted: &Value, bios: &Attributes) -> Difference {
    let now = bios.get(name);
    let problem = match now {
        None => {
            let names: Vec<&str> = bios.keys().map(String::as_str).collect();
            let near = nearest(name, &names).map(|n| format!("; the nearest is `{n}`")).unwrap_or_default();
            Some(format!("this BIOS has no attribute `{name}`{near}"))
        }
        Some(now) if !now.is_null() && std::mem::discriminant(now) != std::mem::discriminant(wanted) => {
            Some(format!("`{name}` is {} now, and {} is another type", plain(now), plain(wanted)))
        }
        Some(_) => None,
    };
    Difference {
        part: "bios".to_owned(),
        name: name.to_owned(),
        now: now.cloned(),
        wanted: wanted.clone(),
        same: now == Some(wanted),
        problem,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn baseline(value: Value) -> Baseline {
        serde_json::from_value(value).unwrap()
    }

    fn standing() -> Standing {
        Standing {
            manufacturer: Some("Dell Inc.".into()),
            model: Some("PowerEdge R650".into()),
            bios: serde_json::from_value(json!({"NumCores": 16, "BootMode": "Uefi"})).unwrap(),
            secure_boot: Some(false),
            firmware: Some(vec![FirmwareFact {
                id: "/f/BIOS".into(),
                name: "BIOS".into(),
                version: Some("1".into()),
            }]),
        }
    }

    #[test]
    fn only_what_differs_is_done_firmware_first() {
        let wanted = baseline(json!({
            "name": "r650", "model": "poweredge r650", "bios": {"NumCores": 8, "BootMode": "Uefi"}, "secure_boot": true,
            "firmware": [{"component": "BIOS", "version": "2", "image": "b.exe", "sha256": "ab".repeat(32)}],
        }));
        wanted.check().unwrap();
        let plan = wanted.plan(&standing(), true).unwrap();
        let words: Vec<_> = plan.steps.iter().map(ServiceStep::words).collect();
        assert_eq!(words, ["firmware BIOS 2", "1 BIOS attribute", "Secure Boot on"]);
        assert_eq!(wanted.plan(&standing(), false).unwrap().steps.len(), 2);
        let done = Standing {
            bios: serde_json::from_value(json!({"NumCores": 8, "BootMode": "Uefi"})).unwrap(),
            secure_boot: Some(true),
            firmware: Some(vec![FirmwareFact {
                id: "/f/BIOS".into(),
                name: "BIOS".into(),
                version: Some("2".into()),
            }]),
            ..standing()
        };
        assert!(wanted.plan(&done, true).unwrap().steps.is_empty());
        assert!(wanted.differences(&done).iter().all(|line| line.same));
    }

    #[test]
    fn what_cannot_become_so_is_refused_with_the_name() {
        let why = |value: Value, firmware| baseline(value).plan(&standing(), firmware).unwrap_err().what;
        assert!(
            why(json!({"name": "b", "bios": {"NumCore": 8}}), true).ends_with("the nearest is `NumCores`")
        );
        assert!(why(json!({"name": "b", "bios": {"NumCores": "8"}}), true).contains("another type"));
        assert!(
            why(json!({"name": "b", "manufacturer": "HPE", "secure_boot": true}), true).contains("Dell Inc.")
        );
        let bare = json!({"name": "b", "firmware": [{"component": "BIOS", "version": "2"}]});
        assert!(why(bare.clone(), true).contains("names no image"));
        assert!(baseline(bare).plan(&standing(), false).unwrap().steps.is_empty());
        for bad in [
            json!({"name": "B", "secure_boot": true}),
            json!({"name": "b"}),
            json!({"name": "b", "bios": {"A": []}}),
        ] {
            assert!(baseline(bad.clone()).check().is_err(), "{bad}");
        }
    }
}
