//! What is done about a network boot without lending an address: beside the site's own DHCP server (ProxyDHCP, PXE 2.1
//! section 2.2.3) and as the boot server on port 4011 (section 2.2.4). A client that does not boot from the network never
//! hears anything from here.
//!
//! ```text
//!  client ──DISCOVER, option 60──▶ 67: OFFER without address ─┐   the site's server gives the address
//!  client ──REQUEST, unicast────▶ 4011: ACK with boot file ◀──┘   where the firmware asks (most UEFI)
//! ```

use super::answer::Silence;
use super::boot;
use super::config::Config;
use super::reply::Kind;
use super::request::{MessageType, Request, Stage};
use super::server::{Candidate, Decision};

/// Port 67 of a subnet in mode `proxy`.
pub(crate) fn on_67<'a>(
    config: &Config,
    request: &Request<'_>,
    place: Candidate<'a>,
) -> Result<Decision<'a>, Silence> {
    bootable(config, request)?;
    let ours = request.server_id == Some(config.server_ip);
    let kind = match request.message {
        MessageType::Discover => Kind::BootOffer,
        // A boot server is sought by broadcast too, to port 67 (PXE 2.1 table 2-4): a boot item tells this from a
        // request for an address, which is the site's server's.
        MessageType::Request | MessageType::Inform if ours || request.boot_item.is_some() => Kind::BootAck,
        MessageType::Request | MessageType::Inform => {
            return Err(request.server_id.map_or(Silence::NoReplyDue, Silence::OtherServer));
        }
        MessageType::Decline | MessageType::Release => return Err(Silence::NoReplyDue),
    };
    Ok(Decision { kind, place })
}

/// Port 4011, in every mode but `off`. Which server the request names does not matter: it was sent to us alone, and firmware
/// copies there what the DHCP server said of itself.
pub(crate) fn on_4011<'a>(
    config: &Config,
    request: &Request<'_>,
    place: Candidate<'a>,
) -> Result<Decision<'a>, Silence> {
    bootable(config, request)?;
    match request.message {
        MessageType::Discover | MessageType::Request | MessageType::Inform => {
            Ok(Decision { kind: Kind::BootAck, place })
        }
        MessageType::Decline | MessageType::Release => Err(Silence::NoReplyDue),
    }
}

fn bootable(config: &Config, request: &Request<'_>) -> Result<(), Silence> {
    if request.stage == Stage::Os {
        return Err(Silence::NotBooting);
    }
    boot::answer(config, request).map(drop).ok_or(Silence::NoLoader)
}
