//! Which boot file a client gets: one pure function from what the client says to a name or a URL.

pub use crate::boot_files::{Architecture, BootFiles};

use super::config::Config;
use super::request::{Request, Stage};

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

/// `None` for a client that does not boot from the network, or whose architecture has no loader.
pub(crate) fn answer(config: &Config, request: &Request<'_>) -> Option<BootAnswer> {
    let base = &config.http_base;
    // A client that calls itself PXEClient and names no architecture is a BIOS of before RFC 4578. Of several, the first
    // that there is a loader for.
    let architectures = || match request.architectures.as_slice() {
        [] => &[Architecture::BIOS],
        several => several,
    };
    let loader = || architectures().iter().find_map(|a| config.boot.name(*a));
    match request.stage {
        Stage::Os => None,
        Stage::Ipxe => Some(BootAnswer::Ipxe(format!("{base}{START_PATH}"))),
        Stage::HttpClient => {
            let base = config.firmware_base.as_ref().unwrap_or(base);
            Some(BootAnswer::HttpFirmware(format!("{base}{HTTP_PATH}{}", loader()?)))
        }
        Stage::Firmware => Some(BootAnswer::Tftp(loader()?.into())),
    }
}
