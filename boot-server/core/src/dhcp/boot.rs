//! Which boot file a client gets: one pure function from what the client says to a name or a URL.

use super::config::Config;
use super::request::{Request, Stage};

/// Processor and firmware of a network boot client (option 93; IANA "Processor Architecture Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Architecture(pub u16);

impl Architecture {
    /// x86 BIOS.
    pub const BIOS: Self = Self(0);
    /// x64 UEFI.
    pub const EFI_X64: Self = Self(7);
    /// EFI byte code, which x64 firmware sends too: RFC 4578 and IANA swapped 7 and 9 (erratum 4625).
    pub const EFI_BC: Self = Self(9);
    /// arm64 UEFI.
    pub const EFI_ARM64: Self = Self(11);
    /// x64 UEFI HTTP boot.
    pub const HTTP_X64: Self = Self(16);
    /// arm64 UEFI HTTP boot.
    pub const HTTP_ARM64: Self = Self(19);
}

/// Names of the first-stage loaders, as served by TFTP and below [`HTTP_PATH`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// x86 BIOS. `undionly.kpxe` uses the ROM's own network driver.
    pub bios: String,
    /// x64 UEFI. `snponly.efi` uses the firmware's driver; `ipxe.efi` brings its own.
    pub efi_x64: String,
    /// arm64 UEFI; `None` where no loader is there, so that such machines are not sent after a missing file.
    pub efi_arm64: Option<String>,
}

impl Default for BootFiles {
    fn default() -> Self {
        Self { bios: "undionly.kpxe".into(), efi_x64: "snponly.efi".into(), efi_arm64: None }
    }
}

/// Path below the base URL under which the boot files are served by HTTP.
pub const HTTP_PATH: &str = "/boot/files/";
/// Path below the base URL of the first iPXE script, the same for all machines ([`Script::Start`](crate::ipxe::Script)).
pub const START_PATH: &str = "/boot/start.ipxe";

/// What a client is told to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BootAnswer {
    /// A name to fetch by TFTP.
    Tftp(String),
    /// A URL, for firmware that boots by HTTP, which wants its vendor class back.
    HttpFirmware(String),
    /// A URL, for iPXE.
    Ipxe(String),
}

impl BootFiles {
    /// The loader for an architecture.
    pub fn name(&self, architecture: Architecture) -> Option<&str> {
        match architecture {
            Architecture::BIOS => Some(&self.bios),
            Architecture::EFI_X64 | Architecture::EFI_BC | Architecture::HTTP_X64 => Some(&self.efi_x64),
            Architecture::EFI_ARM64 | Architecture::HTTP_ARM64 => self.efi_arm64.as_deref(),
            _ => None,
        }
    }

    /// Every name that a client can be told, for the test that fetches them all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [Some(self.bios.as_str()), Some(self.efi_x64.as_str()), self.efi_arm64.as_deref()]
            .into_iter()
            .flatten()
    }
}

/// `None` for a client that does not boot from the network, or whose architecture has no loader.
pub(crate) fn answer(config: &Config, request: &Request<'_>) -> Option<BootAnswer> {
    let base = &config.http_base;
    // A client without option 93 that calls itself PXEClient is a BIOS of before RFC 4578.
    let loader = || config.boot.name(request.architecture.unwrap_or(Architecture::BIOS));
    match request.stage {
        Stage::Os => None,
        Stage::Ipxe => Some(BootAnswer::Ipxe(format!("{base}{START_PATH}"))),
        Stage::HttpClient => Some(BootAnswer::HttpFirmware(format!("{base}{HTTP_PATH}{}", loader()?))),
        Stage::Firmware => Some(BootAnswer::Tftp(loader()?.into())),
    }
}
