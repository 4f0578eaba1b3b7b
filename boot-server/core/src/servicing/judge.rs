//! Whether what a controller shows is what is wanted, with the difference named.

use serde_json::Value;

use super::{Attributes, FirmwareStep, KeyReset, ServiceStep};

/// Differences that are named; the others are counted.
const NAMED_MAX: usize = 5;

/// What a controller shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    /// Its list of firmware.
    Firmware(Vec<FirmwareFact>),
    /// Its BIOS attributes, as they are in force.
    Bios(Attributes),
    /// Secure Boot in the boot that runs, and set-up mode where it tells.
    SecureBoot {
        /// On now.
        current: bool,
        /// On in the next boot.
        enabled: bool,
        /// No platform key is enrolled.
        setup_mode: Option<bool>,
    },
}

impl Facts {
    /// True where they tell of such a step.
    pub fn is_about(&self, step: &ServiceStep) -> bool {
        matches!(
            (self, step),
            (Self::Firmware(_), ServiceStep::Firmware(_))
                | (Self::Bios(_), ServiceStep::Bios(_))
                | (Self::SecureBoot { .. }, ServiceStep::SecureBoot(_) | ServiceStep::SecureBootKeys(_))
        )
    }
}

/// A piece of firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareFact {
    /// The controller's id of it.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
}

/// What facts say about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is as wanted.
    AsWanted,
    /// The controller does not tell.
    Untold,
    /// It is not, and this is the difference.
    Differs(String),
    /// It cannot be: the step names what this machine does not have.
    Wrong {
        /// What.
        what: String,
        /// What to do.
        hint: String,
    },
}

/// Compares a step with what its controller shows.
pub fn judge(step: &ServiceStep, facts: &Facts) -> Verdict {
    match (step, facts) {
        (ServiceStep::Firmware(step), Facts::Firmware(items)) => firmware(step, items),
        (ServiceStep::Bios(step), Facts::Bios(now)) => bios(&step.attributes, now),
        (ServiceStep::SecureBoot(step), Facts::SecureBoot { current, .. }) => {
            let word = |on| if on { "on" } else { "off" };
            if *current == step.on {
                return Verdict::AsWanted;
            }
            Verdict::Differs(format!("Secure Boot is {}, wanted is {}", word(*current), word(step.on)))
        }
        (ServiceStep::SecureBootKeys(step), Facts::SecureBoot { setup_mode, .. }) => match setup_mode {
            None => Verdict::Untold,
            Some(setup) if *setup == (step.to != KeyReset::Default) => Verdict::AsWanted,
            Some(true) => {
                Verdict::Differs("Secure Boot is in set-up mode: it has no platform key".to_owned())
            }
            Some(false) => {
                Verdict::Differs("Secure Boot is not in set-up mode: it has a platform key".to_owned())
            }
        },
        // Facts of another kind say nothing.
        _ => Verdict::Untold,
    }
}

/// The one piece of firmware that a step is about.
///
/// # Errors
/// With what there is, where none or several answer to the name.
pub fn component<'a>(name: &str, items: &'a [FirmwareFact]) -> Result<&'a FirmwareFact, Verdict> {
    let last = |id: &str| id.rsplit('/').next().unwrap_or_default().to_owned();
    let exact: Vec<_> = items.iter().filter(|i| i.id == name || last(&i.id) == name).collect();
    let named: Vec<_> = items.iter().filter(|i| i.name.eq_ignore_ascii_case(name)).collect();
    let found = if exact.is_empty() { named } else { exact };
    match found[..] {
        [one] => Ok(one),
        [] => {
            let names: Vec<&str> = items.iter().map(|i| i.name.as_str()).collect();
            let near = nearest(name, &names).map(|n| format!("; the nearest is `{n}`")).unwrap_or_default();
            Err(Verdict::Wrong {
                what: format!("the BMC lists no firmware `{name}`{near}"),
                hint: format!("it lists {}", list(&names)),
            })
        }
        _ => Err(Verdict::Wrong {
            what: format!("{} pieces of firmware are called `{name}`", found.len()),
            hint: format!(
                "name one by its id: {}",
                list(&found.iter().map(|i| i.id.as_str()).collect::<Vec<_>>())
            ),
        }),
    }
}

fn list(names: &[&str]) -> String {
    let mut text = names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 12 {
        text.push_str(&format!(" and {} more", names.len() - 12));
    }
    if text.is_empty() { "nothing".to_owned() } else { text }
}

fn firmware(step: &FirmwareStep, items: &[FirmwareFact]) -> Verdict {
    match component(&step.component, items) {
        Err(wrong) => wrong,
        Ok(item) if item.version.as_deref() == Some(step.version.as_str()) => Verdict::AsWanted,
        Ok(item) => Verdict::Differs(format!(
            "firmware {} is {}, wanted is {}",
            step.component,
            item.version.as_deref().unwrap_or("of no version that the BMC tells"),
            step.version
        )),
    }
}

fn bios(wanted: &Attributes, now: &Attributes) -> Verdict {
    let mut differences = Vec::new();
    for (name, value) in wanted {
        let Some(found) = now.get(name) else { return unknown(name, now) };
        let typed = found.is_null() || std::mem::discriminant(found) == std::mem::discriminant(value);
        if !typed {
            return Verdict::Wrong {
                what: format!("`{name}` is {found} now, and {value} is another type"),
                hint: "give the value as this BIOS has it".to_owned(),
            };
        }
        if found != value {
            differences.push(format!("{name} is {}, wanted is {}", plain(found), plain(value)));
        }
    }
    match differences.len() {
        0 => Verdict::AsWanted,
        count if count > NAMED_MAX => Verdict::Differs(format!(
            "{} and {} more",
            differences[..NAMED_MAX].join("; "),
            count - NAMED_MAX
        )),
        _ => Verdict::Differs(differences.join("; ")),
    }
}

fn unknown(name: &str, now: &Attributes) -> Verdict {
    let names: Vec<&str> = now.keys().map(String::as_str).collect();
    let near = nearest(name, &names).map(|n| format!("; the nearest is `{n}`")).unwrap_or_default();
    Verdict::Wrong {
        what: format!("this BIOS has no attribute `{name}`{near}"),
        hint: "`billet node bios` lists them".to_owned(),
    }
}

/// A value without the quotes of JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The name that was most likely meant.
pub fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    let near = names.iter().map(|name| (distance(name), *name)).min()?;
    (near.0 <= (wrong.chars().count() / 3).max(2)).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::servicing::{BiosStep, KeysStep, SecureBootStep, Transfer};

    fn attributes(value: Value) -> Attributes {
        serde_json::from_value(value).unwrap()
    }

    fn bios_step(value: Value) -> ServiceStep {
        ServiceStep::Bios(BiosStep { attributes: attributes(value) })
    }

    fn differs(verdict: Verdict) -> String {
        match verdict {
            Verdict::Differs(what) | Verdict::Wrong { what, .. } => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn attributes_are_compared_by_name_and_type() {
        let now =
            Facts::Bios(attributes(json!({"NumCores": 16, "Quiet": true, "BootMode": "Uefi", "Tag": null})));
        assert_eq!(judge(&bios_step(json!({"NumCores": 16, "Quiet": true})), &now), Verdict::AsWanted);
        assert_eq!(
            differs(judge(&bios_step(json!({"NumCores": 8, "BootMode": "Bios"})), &now)),
            "BootMode is Uefi, wanted is Bios; NumCores is 16, wanted is 8"
        );
        let slip = differs(judge(&bios_step(json!({"Numcore": 8})), &now));
        assert_eq!(slip, "this BIOS has no attribute `Numcore`; the nearest is `NumCores`");
        assert!(!differs(judge(&bios_step(json!({"Zzzzzzzzzzz": 8})), &now)).contains("nearest"));
        assert!(differs(judge(&bios_step(json!({"NumCores": "8"})), &now)).contains("another type"));
        assert!(matches!(judge(&bios_step(json!({"Tag": "x"})), &now), Verdict::Differs(_)));
    }

    #[test]
    fn firmware_is_found_by_id_or_name_and_never_guessed() {
        let item = |id: &str, name: &str, version: &str| FirmwareFact {
            id: format!("/redfish/v1/UpdateService/FirmwareInventory/{id}"),
            name: name.to_owned(),
            version: Some(version.to_owned()),
        };
        let items = vec![
            item("Installed-159-2.19.1", "BIOS", "2.19.1"),
            item("Previous-159-2.18.0", "BIOS", "2.18.0"),
            item("BMC", "iDRAC", "7.00"),
        ];
        let step = |component: &str, version: &str| {
            ServiceStep::Firmware(FirmwareStep {
                component: component.to_owned(),
                version: version.to_owned(),
                image: "bios.exe".parse().unwrap(),
                sha256: None,
                by: Transfer::Push,
                target: false,
            })
        };
        let facts = Facts::Firmware(items);
        assert_eq!(judge(&step("Installed-159-2.19.1", "2.19.1"), &facts), Verdict::AsWanted);
        assert_eq!(judge(&step("idrac", "7.00"), &facts), Verdict::AsWanted);
        let older = differs(judge(&step("iDRAC", "7.10"), &facts));
        assert_eq!(older, "firmware iDRAC is 7.00, wanted is 7.10");
        assert!(differs(judge(&step("BIOS", "3"), &facts)).starts_with("2 pieces"));
        assert!(differs(judge(&step("iDRAK", "3"), &facts)).contains("nearest is `iDRAC`"));
    }

    #[test]
    fn secure_boot_counts_as_it_is_in_force() {
        let facts = |current, setup_mode| Facts::SecureBoot { current, enabled: true, setup_mode };
        let on = ServiceStep::SecureBoot(SecureBootStep { on: true });
        assert_eq!(judge(&on, &facts(true, None)), Verdict::AsWanted);
        assert_eq!(differs(judge(&on, &facts(false, None))), "Secure Boot is off, wanted is on");
        let keys = |to| ServiceStep::SecureBootKeys(KeysStep { to });
        for (to, setup, wanted) in [
            (KeyReset::Default, Some(false), true),
            (KeyReset::Default, Some(true), false),
            (KeyReset::DeleteAll, Some(true), true),
            (KeyReset::DeletePk, Some(false), false),
        ] {
            assert_eq!(
                judge(&keys(to), &facts(true, setup)) == Verdict::AsWanted,
                wanted,
                "{to:?} {setup:?}"
            );
        }
        assert_eq!(judge(&keys(KeyReset::Default), &facts(true, None)), Verdict::Untold);
    }
}
