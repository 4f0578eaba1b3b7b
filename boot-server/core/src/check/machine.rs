//! How far a machine came that boots from the network, and why it may have gone no further.

use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::Timestamp;

use super::{Finding, Severity};

/// Silence after which the next step of a boot is missed: firmware asks again within 32 s, loaders start within seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// What was seen of the newest boot of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Story {
    /// First DISCOVER of this boot.
    pub first: Option<Timestamp>,
    /// Newest packet.
    pub last: Option<Timestamp>,
    /// It took an address from another server.
    pub elsewhere: Option<Ipv4Addr>,
    /// It was given an address by this server.
    pub address: Option<Timestamp>,
    /// It fetched a boot loader.
    pub loader: Option<Timestamp>,
    /// It asked for its script: the loader runs.
    pub script: bool,
}

/// What keeps the machine, as far as it can be told from here; `None` while it goes on, or once its loader runs.
pub fn story(story: &Story, interface: &str, now: Timestamp) -> Option<Finding> {
    let first = story.first.filter(|_| !story.script)?;
    let last = [story.last, story.address, story.loader].into_iter().flatten().fold(first, Timestamp::max);
    if let Some(server) = story.elsewhere {
        return Some(Finding::new(
            Severity::Error,
            "boot.other_server",
            format!("DISCOVER seen on {interface}, but it took the address that server {server} offered"),
            "switch that DHCP server off, or set dhcp.mode = \"proxy\"; `billet check-network` names it",
        ));
    }
    if now.since(last) < PATIENCE {
        return None;
    }
    let (code, what, todo) = match (story.address, story.loader) {
        (_, Some(_)) => (
            "boot.loader_silent",
            "it fetched its boot loader, then fell silent: Secure Boot may have refused it, or the loader lacks a driver",
            "look at its screen; with Secure Boot on set boot.secure_boot, or switch Secure Boot off in its firmware",
        ),
        (Some(_), None) => (
            "boot.no_loader",
            "it has an address, but did not fetch a boot loader: TFTP or HTTP does not reach this server",
            "check firewalls between it and this server (UDP 69 and the ports above 1024, TCP of the provisioning \
             listener), and whether a loader for its processor is installed",
        ),
        (None, None) => (
            "boot.no_request",
            "its DISCOVER was seen, but no REQUEST followed: another server answered, or the offer did not arrive",
            "run `billet check-network` to find other servers; behind a relay, check the route back to it",
        ),
    };
    let what = format!("on {interface}: {what}");
    Some(Finding::new(Severity::Warning, code, what, todo))
}
