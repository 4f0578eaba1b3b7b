//! The catalogue of boot loaders: which files are served to firmware, where packages keep them, and which of them a
//! machine is told. DHCP, TFTP and HTTP all take the names from here, so that nothing is advertised that is not served.
//!
//! Kernel and ramdisk are not in it: they are named by the scripts.

use std::collections::BTreeSet;
use std::fmt;

/// Processor and firmware of a network boot client (option 93; IANA "Processor Architecture Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture(pub u16);

impl Architecture {
    /// x86 BIOS.
    pub const BIOS: Self = Self(0);
    /// 32-bit x86 UEFI.
    pub const EFI_IA32: Self = Self(6);
    /// x64 UEFI.
    pub const EFI_X64: Self = Self(7);
    /// EFI byte code, which x64 firmware sends too: RFC 4578 and IANA swapped 7 and 9 (erratum 4625).
    pub const EFI_BC: Self = Self(9);
    /// arm64 UEFI.
    pub const EFI_ARM64: Self = Self(11);
    /// 32-bit x86 UEFI HTTP boot.
    pub const HTTP_IA32: Self = Self(15);
    /// x64 UEFI HTTP boot.
    pub const HTTP_X64: Self = Self(16);
    /// arm64 UEFI HTTP boot.
    pub const HTTP_ARM64: Self = Self(19);

    /// What kind of machine it is, as far as boot files differ.
    pub fn platform(self) -> Option<Platform> {
        match self {
            Self::BIOS => Some(Platform::Bios),
            Self::EFI_X64 | Self::EFI_BC | Self::HTTP_X64 => Some(Platform::X64),
            Self::EFI_ARM64 | Self::HTTP_ARM64 => Some(Platform::Arm64),
            // 32-bit UEFI on servers is long gone, and no distribution has loaders and kernels for it.
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BIOS => f.write_str("x86 BIOS"),
            Self::EFI_IA32 => f.write_str("32-bit x86 UEFI"),
            Self::EFI_X64 | Self::EFI_BC => f.write_str("x64 UEFI"),
            Self::EFI_ARM64 => f.write_str("arm64 UEFI"),
            Self::HTTP_IA32 => f.write_str("32-bit x86 UEFI HTTP boot"),
            Self::HTTP_X64 => f.write_str("x64 UEFI HTTP boot"),
            Self::HTTP_ARM64 => f.write_str("arm64 UEFI HTTP boot"),
            Self(other) => write!(f, "architecture {other}"),
        }
    }
}

/// A kind of machine that has loaders of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// x86 BIOS.
    Bios,
    /// x64 UEFI.
    X64,
    /// arm64 UEFI.
    Arm64,
}

/// What x64 and arm64 UEFI machines are booted by. DHCP cannot see whether a machine checks signatures, so this is said
/// for the whole network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecureBoot {
    /// iPXE, which is not signed: machines with Secure Boot on refuse it.
    #[default]
    Off,
    /// Shim, signed by Microsoft, then the distribution's signed GRUB and kernel. Machines with Secure Boot off boot
    /// that way too.
    Shim,
    /// The site's own unified kernel image, signed by a key that the site enrolled.
    Uki,
}

/// One file that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootFile {
    /// Name by which it is served.
    pub name: &'static str,
    /// Name in the directories of loaders: that of the package.
    pub source: &'static str,
    /// Where it comes from, for the one who misses it.
    pub from: &'static str,
}

/// Uses the ROM's own network driver.
const UNDIONLY: BootFile = ipxe("undionly.kpxe");
/// Uses the firmware's network driver.
const SNPONLY: BootFile = ipxe("snponly.efi");
/// Brings its own network drivers.
const IPXE: BootFile = ipxe("ipxe.efi");
const SNPONLY_ARM64: BootFile =
    BootFile { name: "snponly-arm64.efi", source: "snponly-arm64.efi", from: "built from iPXE's source" };
/// Debian has it since release 13.
const IPXE_ARM64: BootFile =
    BootFile { name: "ipxe-arm64.efi", source: "ipxe-arm64.efi", from: "package ipxe of Debian 13" };
const SHIM: BootFile =
    BootFile { name: "shimx64.efi", source: "shimx64.efi.signed", from: "package shim-signed" };
/// Shim starts what is called so in the place that it came from itself.
const GRUB: BootFile =
    BootFile { name: "grubx64.efi", source: "grubnetx64.efi.signed", from: "package grub-efi-amd64-signed" };
/// The same for CDs: it looks for its files on the volume that it came from.
const GRUB_CD: BootFile =
    BootFile { name: "gcdx64.efi", source: "gcdx64.efi.signed", from: "package grub-efi-amd64-signed" };
/// Shim starts it to enrol a key (MOK), and where GRUB is refused.
const MOK_MANAGER: BootFile =
    BootFile { name: "mmx64.efi", source: "mmx64.efi.signed", from: "package shim-signed" };
const UKI_X64: BootFile = uki("uki-x64.efi");
const UKI_ARM64: BootFile = uki("uki-arm64.efi");

/// Every file that is served where it is there.
pub const CATALOGUE: &[BootFile] = &[
    UNDIONLY,
    SNPONLY,
    IPXE,
    SNPONLY_ARM64,
    IPXE_ARM64,
    SHIM,
    GRUB,
    GRUB_CD,
    MOK_MANAGER,
    UKI_X64,
    UKI_ARM64,
];

const fn ipxe(name: &'static str) -> BootFile {
    BootFile { name, source: name, from: "package ipxe" }
}

const fn uki(name: &'static str) -> BootFile {
    BootFile { name, source: name, from: "see docs/guide/secure-boot.md" }
}

/// The catalogue's file of this name.
pub fn file(name: &str) -> Option<&'static BootFile> {
    CATALOGUE.iter().find(|f| f.name == name)
}

/// Why a machine is told no boot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLoader {
    /// There is none in the catalogue.
    #[error("there is no boot loader for {0}")]
    Unsupported(Architecture),
    /// It is not installed.
    #[error("the boot loader for {0}, {name}, is missing on the server ({from})", name = .1.name, from = .1.from)]
    Missing(Architecture, BootFile),
}

/// Which of the catalogue's files are there, and what UEFI machines are booted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    secure_boot: SecureBoot,
    present: BTreeSet<&'static str>,
}

/// With what Debian 12's package ipxe has.
impl Default for BootFiles {
    fn default() -> Self {
        Self::new(SecureBoot::Off, [UNDIONLY.name, SNPONLY.name, IPXE.name])
    }
}

impl BootFiles {
    /// With the files of these names; others than the catalogue's are left out.
    pub fn new<'a>(secure_boot: SecureBoot, present: impl IntoIterator<Item = &'a str>) -> Self {
        let present = present.into_iter().filter_map(|name| Some(file(name)?.name)).collect();
        Self { secure_boot, present }
    }

    /// What UEFI machines are booted by.
    pub fn secure_boot(&self) -> SecureBoot {
        self.secure_boot
    }

    /// The loader for an architecture, if there is one.
    pub fn name(&self, architecture: Architecture) -> Option<&'static str> {
        self.loader(architecture).ok()
    }

    /// The loader for an architecture.
    ///
    /// # Errors
    /// [`NoLoader`] says what is missing.
    pub fn loader(&self, architecture: Architecture) -> Result<&'static str, NoLoader> {
        let platform = architecture.platform().ok_or(NoLoader::Unsupported(architecture))?;
        let chains = chains(platform, self.secure_boot);
        let complete = |chain: &&&[BootFile]| chain.iter().all(|f| self.present.contains(f.name));
        match chains.iter().find(complete).and_then(|chain| chain.first()) {
            Some(first) => Ok(first.name),
            None => {
                // The last resort is what packages ship everywhere.
                let resort = chains.last().into_iter().flat_map(|chain| chain.iter());
                let missing = resort.copied().find(|f| !self.present.contains(f.name));
                Err(missing
                    .map_or(NoLoader::Unsupported(architecture), |f| NoLoader::Missing(architecture, f)))
            }
        }
    }

    /// Every name that a client can be told, or asks for after that, for the test that fetches them all.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.present.iter().copied()
    }
}

/// What boots a platform, best first; each with the files that the first of them asks for.
fn chains(platform: Platform, secure_boot: SecureBoot) -> &'static [&'static [BootFile]] {
    match (platform, secure_boot) {
        (Platform::Bios, _) => &[&[UNDIONLY]],
        (Platform::X64, SecureBoot::Off) => &[&[SNPONLY], &[IPXE]],
        (Platform::X64, SecureBoot::Shim) => &[&[SHIM, GRUB]],
        (Platform::X64, SecureBoot::Uki) => &[&[UKI_X64]],
        // The signed loaders of arm64 are untried here.
        (Platform::Arm64, SecureBoot::Off | SecureBoot::Shim) => &[&[SNPONLY_ARM64], &[IPXE_ARM64]],
        (Platform::Arm64, SecureBoot::Uki) => &[&[UKI_ARM64]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let all: Vec<&str> = CATALOGUE.iter().map(|f| f.name).collect();
        let none: Vec<&str> = Vec::new();
        let mut table = String::new();
        for secure_boot in [SecureBoot::Off, SecureBoot::Shim, SecureBoot::Uki] {
            for (what, have) in [("all files", &all), ("no files", &none)] {
                table.push_str(&format!("{secure_boot:?}, {what}\n"));
                let files = BootFiles::new(secure_boot, have.iter().copied());
                for architecture in [0, 6, 7, 9, 10, 11, 15, 16, 17, 19, 20].map(Architecture) {
                    let told = files.loader(architecture).map_or_else(|e| e.to_string(), str::to_owned);
                    table.push_str(&format!("  {:>2} {told}\n", architecture.0));
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn the_second_choice_is_taken_where_the_first_is_missing() {
        let files = BootFiles::new(SecureBoot::Off, ["ipxe.efi", "ipxe-arm64.efi", "no-such-file"]);
        assert_eq!(files.name(Architecture::EFI_X64), Some("ipxe.efi"));
        assert_eq!(files.name(Architecture::HTTP_ARM64), Some("ipxe-arm64.efi"));
        assert_eq!(files.names().collect::<Vec<_>>(), ["ipxe-arm64.efi", "ipxe.efi"]);
    }

    #[test]
    fn a_chain_without_its_second_file_is_not_started() {
        let files = BootFiles::new(SecureBoot::Shim, ["shimx64.efi", "snponly.efi"]);
        assert_eq!(
            files.loader(Architecture::EFI_X64),
            Err(NoLoader::Missing(Architecture::EFI_X64, GRUB)),
            "iPXE instead would be refused by the machines that matter"
        );
    }

    #[test]
    fn every_name_is_one_segment_of_a_path() {
        assert!(CATALOGUE.len() > 5);
        for (i, file) in CATALOGUE.iter().enumerate() {
            for name in [file.name, file.source] {
                assert!(!name.is_empty() && !name.contains('/') && !name.starts_with('.'), "{name}");
            }
            assert!(CATALOGUE[..i].iter().all(|f| f.name != file.name), "{} twice", file.name);
        }
    }
}
