//! Which boot file URL a client gets (RFC 5970; UEFI 2.10 section 24.3 for PXE and section 24.7 for HTTP boot): one pure
//! function from what the client says.

use super::config::Config;
use super::request::Request;
use crate::dhcp::boot::{Architecture, HTTP_PATH, START_PATH};
use crate::dhcp::request::Stage;

/// What a client is told to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootAnswer {
    /// The URL (option 59).
    pub url: String,
    /// The client boots by HTTP and wants its vendor class back (option 16).
    pub http_class: bool,
}

/// `None` for a client that does not boot from the network, or whose architecture has no loader.
pub(crate) fn answer(config: &Config, request: &Request<'_>) -> Option<BootAnswer> {
    let base = &config.http_base;
    // UEFI always sends option 61, and no BIOS speaks IPv6.
    let loader = || config.boot.name(request.architecture.unwrap_or(Architecture::EFI_X64));
    let url = match request.stage {
        Stage::Os => return None,
        Stage::Ipxe => format!("{base}{START_PATH}"),
        Stage::HttpClient => format!("{base}{HTTP_PATH}{}", loader()?),
        Stage::Firmware => format!("tftp://[{}]/{}", config.address, loader()?),
    };
    Some(BootAnswer { url, http_class: request.stage == Stage::HttpClient })
}
