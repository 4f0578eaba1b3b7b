//! What a machine must be: each rule counts for itself, and says in words what a machine lacks.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use protocol::inventory::FirmwareMode;
use serde::{Deserialize, Serialize};

use super::{Billed, Bounds};
use crate::hardware::{CardFact, Hardware};
use crate::hardware::{DiskFact, DiskKind, NicFact};
use crate::names::{TAGS_MAX, Tag};

/// Highest number in a rule: sums of it over all machines of a site stay in 63 bits.
pub(super) const NUMBER_MAX: u64 = 1 << 40;
/// Rules of one kind.
const RULES_MAX: usize = 16;
/// Longest text to compare with.
const TEXT_MAX: usize = 128;

/// What a machine must be. What is not given is not asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Sockets.
    #[serde(skip_serializing_if = "Bounds::is_any")]
    pub sockets: Bounds,
    /// Cores of all sockets.
    #[serde(skip_serializing_if = "Bounds::is_any")]
    pub cores: Bounds,
    /// Memory in GiB, as it is bought.
    #[serde(skip_serializing_if = "Bounds::is_any")]
    pub memory_gib: Bounds,
    /// Disks. Each rule counts for itself: one disk can be counted by two of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskRule>,
    /// Network ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<NicRule>,
    /// GPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuRule>,
    /// DPUs.
    #[serde(skip_serializing_if = "Bounds::is_any")]
    pub dpus: Bounds,
    /// As `uname -m` says it: `x86_64` or `aarch64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// `bios` or `uefi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareMode>,
    /// Maker, letter for letter but for capitals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Model, letter for letter but for capitals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tags that it must have.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub required_tags: BTreeSet<Tag>,
    /// Tags that it must not have.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub forbidden_tags: BTreeSet<Tag>,
}

/// How many disks of a kind and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = FlavorDiskRule))]
#[serde(deny_unknown_fields)]
pub struct DiskRule {
    /// Of this kind; of any if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DiskKind>,
    /// Size of each in GiB (960 GB are 894 GiB).
    #[serde(default, skip_serializing_if = "Bounds::is_any")]
    pub gib: Bounds,
    /// How many.
    #[serde(default = "one")]
    pub count: Bounds,
}

/// How many network ports of a speed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NicRule {
    /// Speed of the link in Mbit/s.
    #[serde(default, skip_serializing_if = "Bounds::is_any")]
    pub speed_mbps: Bounds,
    /// With this kernel driver; with any if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// How many.
    #[serde(default = "one")]
    pub count: Bounds,
}

/// How many GPUs of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GpuRule {
    /// PCI vendor:device such as `10de:2330`, or a vendor such as `10de`; any if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How many.
    #[serde(default = "one")]
    pub count: Bounds,
}

fn one() -> Bounds {
    Bounds::at_least(1)
}

/// What a machine lacks of a rule, or has too much of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mismatch {
    /// What the rule is about: `cores`, `disks`, `tags`, …
    pub about: String,
    /// In words: `has 8 cores; at least 16 are wanted`.
    pub words: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// A rule that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No number lies in it.
    #[error("{0}: the least is more than the most")]
    Empty(&'static str),
    /// Too large a number.
    #[error("{0}: a number in a rule is at most {NUMBER_MAX}")]
    Number(&'static str),
    /// Too many.
    #[error("{0}: there are at most {RULES_MAX} rules of one kind")]
    TooMany(&'static str),
    /// A text that nothing can be equal to.
    #[error("{0}: a text of 1 to {TEXT_MAX} characters on one line")]
    Text(&'static str),
    /// Not a PCI id.
    #[error("a GPU is named by its PCI id: `10de:2330`, or `10de` for all of a maker")]
    Device,
    /// An architecture that Billet cannot boot.
    #[error("an architecture is x86_64 or aarch64")]
    Architecture,
    /// Too many tags.
    #[error("a flavor names at most {TAGS_MAX} tags that are wanted and {TAGS_MAX} that are not")]
    Tags,
    /// A tag that is both.
    #[error("tag {0} is both wanted and not wanted")]
    Both(Tag),
}

impl Rules {
    /// Why a machine does not match; nothing where it does.
    pub fn matches(&self, hardware: &Hardware) -> Vec<Mismatch> {
        let mut found = Vec::new();
        amount(&mut found, "sockets", "socket(s)", self.sockets, u64::from(hardware.sockets));
        amount(&mut found, "cores", "cores", self.cores, u64::from(hardware.cores));
        amount(&mut found, "memory", "GiB of memory", self.memory_gib, hardware.memory_bytes >> 30);
        for rule in &self.disks {
            let count = hardware.disks.iter().filter(|disk| rule.counts(disk)).count();
            amount(&mut found, "disks", &rule.what(), rule.count, count as u64);
        }
        for rule in &self.nics {
            let count = hardware.nics.iter().filter(|nic| rule.counts(nic)).count();
            amount(&mut found, "nics", &rule.what(), rule.count, count as u64);
        }
        for rule in &self.gpus {
            let count = hardware.gpus.iter().filter(|gpu| rule.counts(gpu)).count();
            amount(&mut found, "gpus", &rule.what(), rule.count, count as u64);
        }
        amount(&mut found, "dpus", "DPU(s)", self.dpus, hardware.dpus.len() as u64);
        text(&mut found, "architecture", self.architecture.as_deref(), hardware.architecture.as_deref());
        if let Some(wanted) = self.firmware.filter(|wanted| *wanted != hardware.firmware) {
            let words =
                format!("boots by {}; {} is wanted", firmware_word(hardware.firmware), firmware_word(wanted));
            found.push(mismatch("firmware", words));
        }
        text(&mut found, "vendor", self.vendor.as_deref(), hardware.vendor.as_deref());
        text(&mut found, "model", self.model.as_deref(), hardware.model.as_deref());
        for tag in self.required_tags.difference(&hardware.tags) {
            found.push(mismatch("tags", format!("does not have the tag {tag}")));
        }
        for tag in self.forbidden_tags.intersection(&hardware.tags) {
            found.push(mismatch("tags", format!("has the tag {tag}, which is not wanted")));
        }
        found
    }

    /// True where a machine matches.
    pub fn takes(&self, hardware: &Hardware) -> bool {
        self.matches(hardware).is_empty()
    }

    /// The rules in words, one for each.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut amount = |what: &str, bounds: Bounds| {
            if !bounds.is_any() {
                words.push(format!("{} {what}", bounds.words()));
            }
        };
        amount("socket(s)", self.sockets);
        amount("cores", self.cores);
        amount("GiB of memory", self.memory_gib);
        self.disks.iter().for_each(|rule| amount(&rule.what(), rule.count));
        self.nics.iter().for_each(|rule| amount(&rule.what(), rule.count));
        self.gpus.iter().for_each(|rule| amount(&rule.what(), rule.count));
        amount("DPU(s)", self.dpus);
        words.extend(self.architecture.clone());
        words.extend(self.firmware.map(|mode| firmware_word(mode).to_owned()));
        let maker: Vec<&str> =
            [&self.vendor, &self.model].into_iter().flatten().map(String::as_str).collect();
        if !maker.is_empty() {
            words.push(maker.join(" "));
        }
        words.extend(self.required_tags.iter().map(|tag| format!("tag {tag}")));
        words.extend(self.forbidden_tags.iter().map(|tag| format!("not tag {tag}")));
        words
    }

    /// What a machine has at least that matches.
    pub(crate) fn at_least(&self) -> Billed {
        let disks = |of: fn(&DiskRule) -> u64| self.disks.iter().fold(0_u64, |n, r| n.saturating_add(of(r)));
        let count = |rule: &DiskRule| rule.count.min.unwrap_or(0);
        Billed {
            cores: self.cores.min.unwrap_or(0),
            memory_mib: self.memory_gib.min.unwrap_or(0).saturating_mul(1024),
            disks: disks(count),
            disk_gib: disks(|rule| rule.count.min.unwrap_or(0).saturating_mul(rule.gib.min.unwrap_or(0))),
        }
    }

    /// GPUs and DPUs that are asked for at least.
    pub(crate) fn cards_at_least(&self) -> (u64, u64) {
        let gpus = self.gpus.iter().map(|rule| rule.count.min.unwrap_or(0)).max().unwrap_or(0);
        (gpus, self.dpus.min.unwrap_or(0))
    }

    pub(super) fn check(&self) -> Result<(), RuleError> {
        let amounts = [
            ("sockets", self.sockets),
            ("cores", self.cores),
            ("memory", self.memory_gib),
            ("DPUs", self.dpus),
        ];
        let disks = self.disks.iter().flat_map(|r| [("size of disks", r.gib), ("count of disks", r.count)]);
        let nics =
            self.nics.iter().flat_map(|r| [("speed of ports", r.speed_mbps), ("count of ports", r.count)]);
        let gpus = self.gpus.iter().map(|r| ("count of GPUs", r.count));
        for (what, bounds) in amounts.into_iter().chain(disks).chain(nics).chain(gpus) {
            if bounds.is_empty() {
                return Err(RuleError::Empty(what));
            }
            if bounds.min.max(bounds.max).is_some_and(|n| n > NUMBER_MAX) {
                return Err(RuleError::Number(what));
            }
        }
        let counts = [("disks", self.disks.len()), ("nics", self.nics.len()), ("gpus", self.gpus.len())];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count > RULES_MAX) {
            return Err(RuleError::TooMany(what));
        }
        let drivers = self.nics.iter().map(|rule| ("driver", rule.driver.as_deref()));
        let texts = [("vendor", self.vendor.as_deref()), ("model", self.model.as_deref())];
        for (what, text) in texts.into_iter().chain(drivers) {
            if text.is_some_and(|text| !is_line(text)) {
                return Err(RuleError::Text(what));
            }
        }
        if self.gpus.iter().filter_map(|rule| rule.device.as_deref()).any(|device| !is_device(device)) {
            return Err(RuleError::Device);
        }
        if self.architecture.as_deref().is_some_and(|a| !matches!(a, "x86_64" | "aarch64")) {
            return Err(RuleError::Architecture);
        }
        if self.required_tags.len().max(self.forbidden_tags.len()) > TAGS_MAX {
            return Err(RuleError::Tags);
        }
        match self.required_tags.intersection(&self.forbidden_tags).next() {
            Some(tag) => Err(RuleError::Both(tag.clone())),
            None => Ok(()),
        }
    }
}

impl DiskRule {
    fn counts(&self, disk: &DiskFact) -> bool {
        self.kind.is_none_or(|kind| kind == disk.kind) && self.gib.holds(disk.size_bytes >> 30)
    }

    fn what(&self) -> String {
        let kind = self.kind.map(|kind| format!("{kind} ")).unwrap_or_default();
        let size = if self.gib.is_any() { String::new() } else { format!(" of {} GiB", self.gib.words()) };
        format!("{kind}disk(s){size}")
    }
}

impl NicRule {
    fn counts(&self, nic: &NicFact) -> bool {
        let speed =
            self.speed_mbps.is_any() || nic.speed_mbps.is_some_and(|s| self.speed_mbps.holds(u64::from(s)));
        speed && self.driver.as_deref().is_none_or(|driver| nic.driver.as_deref() == Some(driver))
    }

    fn what(&self) -> String {
        let speed = if self.speed_mbps.is_any() {
            String::new()
        } else {
            format!(" with a link of {} Mbit/s", self.speed_mbps.words())
        };
        let driver = self.driver.as_ref().map(|driver| format!(" by driver {driver}")).unwrap_or_default();
        format!("network port(s){speed}{driver}")
    }
}

impl GpuRule {
    fn counts(&self, gpu: &CardFact) -> bool {
        let Some(device) = self.device.as_deref() else { return true };
        let vendor = gpu.device.split(':').next();
        if device.contains(':') {
            gpu.device.eq_ignore_ascii_case(device)
        } else {
            vendor.is_some_and(|vendor| vendor.eq_ignore_ascii_case(device))
        }
    }

    fn what(&self) -> String {
        match &self.device {
            Some(device) => format!("GPU(s) {device}"),
            None => "GPU(s)".to_owned(),
        }
    }
}

/// A text that is no rule for disks, ports or GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct BadRule {
    text: String,
    expected: &'static str,
}

/// The parts of a rule as people write it; what is left out is empty.
fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut parts = text.split(',').map(str::trim);
    let found = std::array::from_fn(|_| parts.next().unwrap_or_default());
    parts.next().is_none().then_some(found)
}

fn given(text: &str, otherwise: Bounds) -> Option<Bounds> {
    if text.is_empty() { Some(otherwise) } else { text.parse().ok() }
}

fn shown(bounds: Bounds) -> String {
    if bounds.is_any() { String::new() } else { bounds.to_string() }
}

impl FromStr for DiskRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let read = || {
            let [kind, gib, count] = parts(text)?;
            let kind = match kind {
                "" | "any" => None,
                "nvme" => Some(DiskKind::Nvme),
                "ssd" => Some(DiskKind::Ssd),
                "hdd" => Some(DiskKind::Hdd),
                _ => return None,
            };
            Some(Self { kind, gib: given(gib, Bounds::default())?, count: given(count, one())? })
        };
        let expected = "KIND,GIB,COUNT such as nvme,800..,2.. (kinds: nvme, ssd, hdd, any)";
        read().ok_or_else(|| BadRule { text: text.chars().take(80).collect(), expected })
    }
}

impl fmt::Display for DiskRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or("any", DiskKind::as_str);
        write!(f, "{kind},{},{}", shown(self.gib), shown(self.count))
    }
}

impl FromStr for NicRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let read = || {
            let [speed, count, driver] = parts(text)?;
            let driver = Some(driver.to_owned()).filter(|driver| !driver.is_empty());
            Some(Self { speed_mbps: given(speed, Bounds::default())?, driver, count: given(count, one())? })
        };
        let expected = "MBPS,COUNT,DRIVER such as 25000..,2..";
        read().ok_or_else(|| BadRule { text: text.chars().take(80).collect(), expected })
    }
}

impl fmt::Display for NicRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", shown(self.speed_mbps), shown(self.count))?;
        self.driver.as_ref().map_or(Ok(()), |driver| write!(f, ",{driver}"))
    }
}

impl FromStr for GpuRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let read = || {
            let [device, count] = parts(text)?;
            let device = Some(device.to_owned()).filter(|device| !device.is_empty() && device != "any");
            Some(Self { device, count: given(count, one())? })
        };
        let expected = "DEVICE,COUNT such as 10de:2330,4..";
        read().ok_or_else(|| BadRule { text: text.chars().take(80).collect(), expected })
    }
}

impl fmt::Display for GpuRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.device.as_deref().unwrap_or("any"), shown(self.count))
    }
}

fn is_line(text: &str) -> bool {
    (1..=TEXT_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn is_device(text: &str) -> bool {
    let hex = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
    text.split_once(':').map_or_else(|| hex(text), |(vendor, device)| hex(vendor) && hex(device))
}

fn firmware_word(mode: FirmwareMode) -> &'static str {
    match mode {
        FirmwareMode::Bios => "BIOS",
        FirmwareMode::Uefi => "UEFI",
    }
}

fn mismatch(about: &str, words: String) -> Mismatch {
    Mismatch { about: about.to_owned(), words }
}

fn amount(found: &mut Vec<Mismatch>, about: &str, what: &str, wanted: Bounds, has: u64) {
    if !wanted.holds(has) {
        found.push(mismatch(about, format!("has {has} {what}; wanted: {}", wanted.words())));
    }
}

fn text(found: &mut Vec<Mismatch>, about: &str, wanted: Option<&str>, has: Option<&str>) {
    let Some(wanted) = wanted else { return };
    match has {
        Some(has) if has.trim().eq_ignore_ascii_case(wanted.trim()) => {}
        Some(has) => {
            let has: String = has.chars().take(80).collect();
            found.push(mismatch(about, format!("its {about} is {has}; {wanted} is wanted")));
        }
        None => found.push(mismatch(about, format!("its {about} is not known; {wanted} is wanted"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flavor::Flavor;

    fn machine() -> Hardware {
        let disk = |kind, gib: u64| DiskFact { kind, size_bytes: gib << 30, model: None, serial: None };
        Hardware {
            vendor: Some("Dell Inc.".to_owned()),
            model: Some("PowerEdge R760".to_owned()),
            architecture: Some("x86_64".to_owned()),
            firmware: FirmwareMode::Uefi,
            sockets: 2,
            cores: 64,
            threads: 128,
            memory_bytes: 512 << 30,
            disks: vec![disk(DiskKind::Nvme, 894), disk(DiskKind::Nvme, 894), disk(DiskKind::Hdd, 7452)],
            nics: vec![
                NicFact { speed_mbps: Some(25_000), driver: Some("mlx5_core".to_owned()), device: None },
                NicFact { speed_mbps: None, driver: Some("mlx5_core".to_owned()), device: None },
            ],
            gpus: vec![CardFact { device: "10de:2330".to_owned(), name: None }; 4],
            tags: ["new".parse().unwrap()].into(),
            ..Hardware::default()
        }
    }

    fn words(rules: &str) -> Vec<String> {
        let rules: Rules = serde_json::from_str(rules).unwrap();
        assert_eq!(rules.check(), Ok(()));
        rules.matches(&machine()).into_iter().map(|m| m.words).collect()
    }

    #[test]
    fn a_machine_that_matches() {
        for rules in [
            "{}",
            r#"{"cores":{"min":64},"memory_gib":{"min":512,"max":512},"sockets":{"min":2,"max":2}}"#,
            r#"{"disks":[{"kind":"nvme","gib":{"min":800},"count":{"min":2}},{"kind":"hdd"}]}"#,
            r#"{"nics":[{"speed_mbps":{"min":10000}},{"driver":"mlx5_core","count":{"min":2,"max":2}}]}"#,
            r#"{"gpus":[{"device":"10DE:2330","count":{"min":4}},{"device":"10de"},{}],"dpus":{"max":0}}"#,
            r#"{"vendor":"dell inc.","model":"PowerEdge R760","architecture":"x86_64","firmware":"uefi"}"#,
            r#"{"required_tags":["new"],"forbidden_tags":["old"]}"#,
        ] {
            assert_eq!(words(rules), [""; 0], "{rules}");
        }
    }

    #[test]
    fn a_machine_that_does_not_says_why() {
        let rules = r#"{"sockets":{"min":1,"max":1},"cores":{"min":96},"memory_gib":{"max":256},
            "disks":[{"kind":"nvme","gib":{"min":1000},"count":{"min":2}}],
            "nics":[{"speed_mbps":{"min":100000}}],"gpus":[{"device":"1002"}],"dpus":{"min":1},
            "architecture":"aarch64","firmware":"bios","vendor":"HPE","required_tags":["gold"],
            "forbidden_tags":["new"]}"#;
        insta::assert_snapshot!(words(rules).join("\n"));
    }

    #[test]
    fn what_is_not_known_does_not_match() {
        let rules = Rules { model: Some("R760".to_owned()), ..Rules::default() };
        let found = rules.matches(&Hardware::default());
        assert_eq!(found[0].words, "its model is not known; R760 is wanted");
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        let wrong = |rules: &str| serde_json::from_str::<Rules>(rules).unwrap().check().unwrap_err();
        assert_eq!(wrong(r#"{"cores":{"min":2,"max":1}}"#), RuleError::Empty("cores"));
        assert_eq!(wrong(r#"{"cores":{"min":99999999999999}}"#), RuleError::Number("cores"));
        assert_eq!(wrong(r#"{"gpus":[{"device":"nvidia"}]}"#), RuleError::Device);
        assert_eq!(wrong(r#"{"architecture":"arm"}"#), RuleError::Architecture);
        assert_eq!(wrong(r#"{"vendor":"a\nb"}"#), RuleError::Text("vendor"));
        let both = wrong(r#"{"required_tags":["a"],"forbidden_tags":["a"]}"#);
        assert_eq!(both, RuleError::Both("a".parse().unwrap()));
        assert!(serde_json::from_str::<Rules>(r#"{"core":{"min":1}}"#).is_err(), "an unknown field");
    }

    #[test]
    fn rules_are_read_as_people_write_them() {
        for text in ["nvme,800..,2..", "any,,1..", "hdd,..9000,3", "ssd,,"] {
            let rule: DiskRule = text.parse().unwrap();
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
        }
        assert_eq!("".parse(), Ok(DiskRule { kind: None, gib: Bounds::default(), count: one() }));
        for text in ["25000..,2..", ",2,mlx5_core", ""] {
            let rule: NicRule = text.parse().unwrap();
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
        }
        for text in ["10de:2330,4..", "any,1", "10de"] {
            let rule: GpuRule = text.parse().unwrap();
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
        }
        for wrong in ["floppy", "nvme,x", "nvme,1..,1..,1"] {
            let told = wrong.parse::<DiskRule>().unwrap_err().to_string();
            assert!(told.contains("KIND,GIB,COUNT"), "{told}");
        }
        assert!("1,2,3,4".parse::<NicRule>().is_err() && "a,b".parse::<GpuRule>().is_err());
    }

    #[test]
    fn what_is_billed_is_what_is_asked_for_or_said() {
        let mut flavor = Flavor::new("c16".parse().unwrap());
        flavor.rules = serde_json::from_str(
            r#"{"cores":{"min":16},"memory_gib":{"min":64},"disks":[{"gib":{"min":800},"count":{"min":2}}]}"#,
        )
        .unwrap();
        let rules = Billed { cores: 16, memory_mib: 65536, disks: 2, disk_gib: 1600 };
        assert_eq!(flavor.billed(), rules);
        flavor.billed = Some(Billed { cores: 1, ..Billed::default() });
        assert_eq!(flavor.billed().cores, 1);
        assert_eq!(
            Billed::of(&machine()),
            Billed { cores: 64, memory_mib: 524_288, disks: 3, disk_gib: 9240 }
        );
    }

    proptest! {
        /// A rule that asks for less never refuses what one that asks for more took.
        #[test]
        fn less_is_never_harder(cores in 0_u32..100, min in 0_u64..100, less in 0_u64..100) {
            let hardware = Hardware { cores, ..Hardware::default() };
            let rules = |min| Rules { cores: Bounds::at_least(min), ..Rules::default() };
            if rules(min).matches(&hardware).is_empty() {
                prop_assert!(rules(min.saturating_sub(less)).matches(&hardware).is_empty());
            }
        }
    }
}
