//! How values read on a page. Every function returns plain text; escaping is the templates' business.

use std::fmt::Display;

use bmc::{Health, Reading, Unit};
use boot_server_core::bmc::health::Part;
use boot_server_core::deploy;
use boot_server_core::node::{Severity, StateName};
use protocol::Timestamp;
use protocol::inventory::{Disk, DiskContent, FirmwareMode, PciDevice, Transport};

use crate::view::FaultReport;

/// A value, or a reference to it: templates hold either, by where they got it from.
pub trait Of<T> {
    /// The value.
    fn of(&self) -> T;
}

impl<T: Copy> Of<T> for T {
    fn of(&self) -> T {
        *self
    }
}

impl<T: Copy> Of<T> for &T {
    fn of(&self) -> T {
        **self
    }
}

impl<T: Copy> Of<T> for &&T {
    fn of(&self) -> T {
        ***self
    }
}

/// A state as it looks: never by colour alone, so each has an icon and a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// CSS class of its colours.
    pub tone: &'static str,
    /// Symbol in `icons.svg`.
    pub icon: &'static str,
    /// The word.
    pub label: &'static str,
}

/// How a state looks.
pub fn look(state: StateName) -> Look {
    let (tone, icon, label) = match state {
        StateName::Enroll => ("", "new", "Enroll"),
        StateName::Inspecting => ("tone-work", "work", "Inspecting"),
        StateName::Manageable => ("tone-ask", "ask", "Manageable"),
        StateName::Cleaning => ("tone-work", "work", "Cleaning"),
        StateName::Available => ("tone-ready", "ready", "Available"),
        StateName::Deploying => ("tone-work", "work", "Deploying"),
        StateName::Active => ("tone-good", "good", "Active"),
        StateName::Deleting => ("tone-work", "work", "Deleting"),
        StateName::Servicing => ("tone-work", "work", "Servicing"),
        StateName::Failed => ("tone-bad", "bad", "Failed"),
    };
    Look { tone, icon, label }
}

/// CSS class of a health's colours.
pub fn health_tone(health: impl Of<Health>) -> &'static str {
    match health.of() {
        Health::Ok => "tone-good",
        Health::Warning => "tone-ask",
        Health::Critical => "tone-bad",
    }
}

/// A health in a word.
pub fn health(health: impl Of<Health>) -> &'static str {
    match health.of() {
        Health::Ok => "OK",
        Health::Warning => "Warning",
        Health::Critical => "Critical",
    }
}

/// What to replace, and where it is: `rack R4, unit 12 · bay 3 · ACME 4T · serial S3 · part P-4T`. `None` for a reading.
pub fn whereabouts(part: &Part, report: &FaultReport) -> Option<String> {
    let named = |name: &str, text: &Option<String>| text.as_ref().map(|text| format!("{name} {text}"));
    let facts = [
        report.place.as_ref().map(ToString::to_string),
        part.place.clone(),
        part.model.clone(),
        named("serial", &part.serial),
        named("part", &part.part_number),
    ];
    part.replaceable
        .then(|| facts.into_iter().flatten().collect::<Vec<_>>().join(" · "))
        .filter(|t| !t.is_empty())
}

/// A text that begins with a capital letter.
pub fn capital(text: impl Display) -> String {
    let text = text.to_string();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The value of a sensor with its unit.
pub fn reading(reading: &Reading) -> String {
    reading.value.map_or_else(|| "–".to_owned(), |value| amount(value, reading.unit))
}

/// A value with its unit: `8,400 rpm`.
pub fn amount(value: f64, unit: Unit) -> String {
    format!("{} {}", plain(value), self::unit(unit)).trim_end().to_owned()
}

/// A value with as many decimals as it needs, at most two.
pub fn plain(value: f64) -> String {
    let hundredths = (value * 100.0).round();
    let decimals = if hundredths % 100.0 == 0.0 {
        0
    } else if hundredths % 10.0 == 0.0 {
        1
    } else {
        2
    };
    grouped(value, decimals)
}

/// A value with so many decimals, its thousands apart.
pub fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// A unit as it is written behind a value.
pub fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Celsius => "°C",
        Unit::Rpm => "rpm",
        Unit::Percent => "%",
        Unit::Volt => "V",
        Unit::Ampere => "A",
        Unit::Watt => "W",
        Unit::Other => "",
    }
}

/// The time of day in UTC: `14:05`.
pub fn clock_time(at: Timestamp) -> String {
    at_utc(at, "%H:%M")
}

/// The day in UTC: `27 Nov`.
pub fn day(at: Timestamp) -> String {
    at_utc(at, "%-d %b")
}

fn at_utc(at: Timestamp, form: &str) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "–".to_owned(), |t| t.strftime(form).to_string())
}

/// Every state, in the order in which people look for them.
pub const STATES: [StateName; 10] = [
    StateName::Failed,
    StateName::Manageable,
    StateName::Enroll,
    StateName::Inspecting,
    StateName::Cleaning,
    StateName::Deploying,
    StateName::Deleting,
    StateName::Servicing,
    StateName::Available,
    StateName::Active,
];

/// Disk and network sizes: decimal, as on labels.
pub fn bytes(n: impl Of<u64>) -> String {
    deploy::bytes(n.of())
}

/// Memory sizes: binary, as on modules.
pub fn memory(n: impl Of<u64>) -> String {
    let n = n.of();
    let (size, unit) = if n >= 1 << 40 {
        (1u64 << 40, "TiB")
    } else if n >= 1 << 30 {
        (1 << 30, "GiB")
    } else {
        (1 << 20, "MiB")
    };
    let tenths = n / (size / 10).max(1);
    if tenths >= 1000 || tenths.is_multiple_of(10) {
        format!("{} {unit}", (n + size / 2) / size)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// As [`memory`], of what may be little.
pub fn size_words(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..0x10_0000 => format!("{} KiB", n >> 10),
        _ => memory(n),
    }
}

/// A size as a form takes it, to the byte.
pub fn size_field(n: impl Of<u64>) -> String {
    let n = n.of();
    [(40, "T"), (30, "G"), (20, "M"), (10, "K")]
        .into_iter()
        .find(|(shift, _)| n > 0 && n.is_multiple_of(1 << shift))
        .map_or_else(|| n.to_string(), |(shift, unit)| format!("{}{unit}", n >> shift))
}

/// Whole per cent done, never 100 before the end.
pub fn percent(done: impl Of<u64>, total: impl Of<u64>) -> u64 {
    let (done, total) = (done.of(), (total.of()).max(1));
    u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total)).unwrap_or(100)
}

/// Seconds for people.
pub fn seconds(n: impl Of<u64>) -> String {
    match n.of() {
        n @ 0..60 => format!("{n} s"),
        n @ 60..3600 => format!("{} min {:02} s", n / 60, n % 60),
        n @ 3600..86_400 => format!("{} h {:02} min", n / 3600, n % 3600 / 60),
        n => format!("{} d {} h", n / 86_400, n % 86_400 / 3600),
    }
}

/// Milliseconds for people.
pub fn millis(n: u64) -> String {
    match n {
        0..1000 => format!("{n} ms"),
        1000..60_000 => format!("{}.{} s", n / 1000, n % 1000 / 100),
        _ => seconds(n / 1000),
    }
}

fn moment(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

/// RFC 3339, for the `datetime` attribute.
pub fn iso(at: impl Of<Timestamp>) -> String {
    moment(at.of()).map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

/// UTC for people; the page's script makes it "3 min ago".
pub fn utc(at: impl Of<Timestamp>) -> String {
    moment(at.of()).map(|t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default()
}

/// The ending of a plural.
pub fn s(n: impl TryInto<u64>) -> &'static str {
    match n.try_into() {
        Ok(1) => "",
        _ => "s",
    }
}

/// A value that may be missing.
pub fn or_dash(text: &Option<String>) -> &str {
    text.as_deref().map(str::trim).filter(|t| !t.is_empty()).unwrap_or("—")
}

/// Two values that may be missing, as one.
pub fn join(a: &Option<String>, b: &Option<String>) -> String {
    let text = [a, b]
        .into_iter()
        .flatten()
        .map(|t| t.trim())
        .filter(|t| !t.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if text.is_empty() { "—".to_owned() } else { text }
}

/// `bios` and `uefi` as people write them.
pub fn firmware(name: impl AsRef<str>) -> String {
    name.as_ref().to_uppercase()
}

/// Several of them.
pub fn firmwares(names: &[String]) -> String {
    if names.is_empty() {
        return "any firmware".to_owned();
    }
    names.iter().map(firmware).collect::<Vec<_>>().join(" and ")
}

/// How the machine boots.
pub fn firmware_mode(mode: impl Of<FirmwareMode>) -> &'static str {
    match mode.of() {
        FirmwareMode::Bios => "BIOS",
        FirmwareMode::Uefi => "UEFI",
    }
}

/// How a disk is attached, and what kind it is.
pub fn transport(disk: &Disk) -> String {
    let by = match disk.transport {
        Transport::Nvme => "NVMe",
        Transport::Sata => "SATA",
        Transport::Scsi => "SAS or RAID",
        Transport::Virtio => "virtio",
        Transport::Usb => "USB",
        Transport::Mmc => "SD or eMMC",
        Transport::Other => "other bus",
    };
    let kind = if disk.rotational { " · spinning" } else { "" };
    let removable = if disk.removable { " · removable" } else { "" };
    let locked = if disk.read_only { " · write protected" } else { "" };
    format!("{by}{kind}{removable}{locked}")
}

/// What a disk holds.
pub fn content(content: &DiskContent) -> String {
    deploy::describe(content)
}

/// Link speed from Mbit/s.
pub fn speed(mbps: impl Of<u32>) -> String {
    match mbps.of() {
        n if n >= 1000 && n.is_multiple_of(1000) => format!("{} Gbit/s", n / 1000),
        n if n >= 1000 => format!("{}.{} Gbit/s", n / 1000, n % 1000 / 100),
        n => format!("{n} Mbit/s"),
    }
}

/// Clock from MHz.
pub fn clock(mhz: impl Of<u32>) -> String {
    let mhz = mhz.of();
    format!("{}.{} GHz", mhz / 1000, mhz % 1000 / 100)
}

/// Name of a PCI function, or its class where the database has none.
pub fn pci_name(device: &PciDevice) -> String {
    if let Some(name) = device.name.as_deref().filter(|n| !n.trim().is_empty()) {
        return name.to_owned();
    }
    let class = match device.class >> 16 {
        0x01 => "Storage controller",
        0x02 => "Network controller",
        0x03 => "Display controller",
        0x04 => "Multimedia device",
        0x05 => "Memory controller",
        0x06 => "Bridge",
        0x07 => "Communication controller",
        0x08 => "System peripheral",
        0x0b => "Processor",
        0x0c => "Serial bus controller",
        0x10 => "Encryption controller",
        0x12 => "Accelerator",
        _ => "Device",
    };
    format!("{class} {}", pci_id(device))
}

/// `vendor:device` in hexadecimal.
pub fn pci_id(device: &PciDevice) -> String {
    format!("{:04x}:{:04x}", device.vendor, device.device)
}

/// True for what draws or computes: PCI base class 3 is display, 12h processing accelerators (PCI Code and ID
/// Assignment Specification 1.16).
pub fn is_gpu(device: &PciDevice) -> bool {
    matches!(device.class >> 16, 0x03 | 0x12)
}

/// CSS class and word of a severity.
pub fn severity(severity: impl Of<Severity>) -> &'static str {
    match severity.of() {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Symbol of a severity.
pub fn severity_icon(severity: impl Of<Severity>) -> &'static str {
    match severity.of() {
        Severity::Info => "dot",
        Severity::Warning => "warning",
        Severity::Error => "bad",
    }
}

/// A job's verb at the start of a sentence.
pub fn verb(verb: impl AsRef<str>) -> &'static str {
    match verb.as_ref() {
        "inspect" => "Inspect",
        "clean" => "Clean",
        "deploy" => "Deploy",
        "service" => "Service",
        _ => "Job",
    }
}

/// A job's verb within a sentence.
pub fn verb_lower(verb: impl AsRef<str>) -> &'static str {
    match verb.as_ref() {
        "inspect" => "the inspection",
        "clean" => "the cleaning",
        "deploy" => "the deploy",
        "service" => "servicing",
        _ => "the job",
    }
}

/// Stage of a job.
pub fn stage(stage: impl AsRef<str>) -> &'static str {
    match stage.as_ref() {
        "boot" => "Waiting for a network boot",
        "kernel" => "Loading kernel and ramdisk",
        "assign" => "Handing over the job",
        "inspect" => "Looking at the hardware",
        "plan" => "Checking disk and image",
        "clean" => "Wiping",
        "write" => "Writing",
        "verify" => "Reading back",
        "customise" => "Partition table and config",
        "check" | "doubt" | "recheck" => "Looking at the BMC",
        "apply" => "Telling the BMC",
        "task" | "settle" => "The BMC updates firmware",
        "reboot" | "restart" => "Restarting",
        "first_boot" => "Starting the OS",
        _ => "Working",
    }
}

/// A word as a shell takes it unchanged (POSIX 2.2.2, single quotes).
pub fn shell(word: impl Display) -> String {
    let word = word.to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_well() {
        assert_eq!(memory(16_777_216_000u64), "15.6 GiB");
        assert_eq!(memory(64u64 << 30), "64 GiB");
        assert_eq!(memory(512u64 << 20), "512 MiB");
        assert_eq!(seconds(5u64), "5 s");
        assert_eq!(seconds(125u64), "2 min 05 s");
        assert_eq!(millis(80), "80 ms");
        assert_eq!(millis(12_340), "12.3 s");
        assert_eq!(speed(25_000u32), "25 Gbit/s");
        assert_eq!(speed(2_500u32), "2.5 Gbit/s");
        assert_eq!(percent(999u64, 1000u64), 99);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(0u64, 0u64), 0);
        assert_eq!(utc(Timestamp(0)), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(Timestamp(u64::MAX)), "");
        assert_eq!(s(1u32), "");
        assert_eq!(s(2usize), "s");
    }

    #[test]
    fn a_word_stays_one_word_in_a_shell() {
        assert_eq!(shell("serial:S1"), "serial:S1");
        assert_eq!(shell("a b"), "'a b'");
        assert_eq!(shell("x'; rm -rf /; '"), r"'x'\''; rm -rf /; '\'''");
        assert_eq!(shell(""), "''");
    }
}
