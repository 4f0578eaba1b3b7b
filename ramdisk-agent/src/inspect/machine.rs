//! The machine itself: SMBIOS, firmware, processors, memory, TPM.

use protocol::inventory::{Cpu, Firmware, FirmwareMode, Tpm};
use ramdisk_agent_core::cpu::{self, Thread};
use ramdisk_agent_core::smbios::{self, Smbios};

use super::tree::Tree;

/// Global variables of UEFI (UEFI 2.10, 3.3).
const EFI_GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// What SMBIOS says.
pub fn smbios(tree: &Tree, warnings: &mut Vec<String>) -> Smbios {
    let read = |name: &str| tree.bytes(format!("sys/firmware/dmi/tables/{name}"));
    let Some(table) = read("DMI") else {
        warnings.push("no SMBIOS tables: system, board and memory modules are unknown".to_owned());
        return Smbios::default();
    };
    smbios::parse(&read("smbios_entry_point").unwrap_or_default(), &table)
}

/// How the machine booted, added to what SMBIOS says.
pub fn firmware(tree: &Tree, known: Firmware) -> Firmware {
    if !tree.path("sys/firmware/efi").exists() {
        return Firmware { mode: FirmwareMode::Bios, ..known };
    }
    // Four bytes of attributes, then the value (Documentation/filesystems/efivarfs.rst).
    let variable = tree.bytes(format!("sys/firmware/efi/efivars/SecureBoot-{EFI_GLOBAL}"));
    let secure_boot = variable.and_then(|v| Some(*v.get(4)? == 1));
    Firmware { mode: FirmwareMode::Uefi, secure_boot: Some(secure_boot.unwrap_or(false)), ..known }
}

/// One entry per socket.
pub fn cpus(tree: &Tree, warnings: &mut Vec<String>) -> Vec<Cpu> {
    let base = "sys/devices/system/cpu";
    let threads: Vec<_> = tree
        .list(base)
        .iter()
        .filter_map(|name| {
            let processor = name.strip_prefix("cpu")?.parse().ok()?;
            let at = |leaf: &str| format!("{base}/{name}/topology/{leaf}");
            let (package, core) = (tree.number(at("physical_package_id"))?, tree.number(at("core_id"))?);
            Some(Thread { processor, package, core })
        })
        .collect();
    if threads.is_empty() {
        warnings.push("no processor topology".to_owned());
    }
    let info = String::from_utf8_lossy(&tree.bytes("proc/cpuinfo").unwrap_or_default()).into_owned();
    let max_khz = tree.number(format!("{base}/cpu0/cpufreq/cpuinfo_max_freq"));
    // A recorded tree does not say what machine it was of, but neither does it move between architectures.
    let architecture = tree.text("proc/sys/kernel/arch").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    cpu::packages(&info, &threads, max_khz, &architecture)
}

/// Usable memory in bytes.
pub fn memory(tree: &Tree, warnings: &mut Vec<String>) -> u64 {
    let text = String::from_utf8_lossy(&tree.bytes("proc/meminfo").unwrap_or_default()).into_owned();
    cpu::memory_bytes(&text).unwrap_or_else(|| {
        warnings.push("no MemTotal in /proc/meminfo".to_owned());
        0
    })
}

/// The TPM.
pub fn tpm(tree: &Tree) -> Option<Tpm> {
    let first = tree.list("sys/class/tpm").into_iter().find(|n| n.starts_with("tpm"))?;
    let known = tree.number(format!("sys/class/tpm/{first}/tpm_version_major"));
    // Kernels before 5.6 have no such file; only TPM 1.2 drivers have `caps`.
    let old = tree.path(format!("sys/class/tpm/{first}/device/caps")).exists();
    Some(Tpm { version_major: known.unwrap_or(if old { 1 } else { 2 }) })
}
