//! What `tcpdump` wrote: the DHCP replies on the rack's segment.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

/// A DHCP server's reply as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpReply {
    /// Who sent it.
    pub from: Ipv4Addr,
    /// From which port.
    pub port: u16,
    /// Hardware address of the client.
    pub client: String,
    /// The address it gives, or unspecified.
    pub given: Ipv4Addr,
}

/// All DHCP replies in a capture, from ports 67 and 4011, in order. What was cut off at the end of the file is left out.
///
/// # Errors
/// Where the file cannot be read or is no capture in this machine's byte order.
pub fn dhcp_replies(path: &Path) -> Result<Vec<DhcpReply>> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let (header, mut rest) = bytes.split_at_checked(24).context("the capture has no header")?;
    anyhow::ensure!(header.starts_with(&0xa1b2_c3d4_u32.to_le_bytes()), "not a capture");
    let mut replies = Vec::new();
    while let Some((record, after)) = rest.split_at_checked(16) {
        let len = usize::try_from(u32::from_le_bytes([record[8], record[9], record[10], record[11]]))?;
        let Some((frame, after)) = after.split_at_checked(len) else { break };
        replies.extend(reply(frame));
        rest = after;
    }
    Ok(replies)
}

/// An Ethernet frame with IPv4 without options, UDP, and a BOOTREPLY.
fn reply(frame: &[u8]) -> Option<DhcpReply> {
    let ip = frame.strip_prefix(frame.get(..12)?)?.strip_prefix(&[8, 0])?;
    let (ip, udp) = (ip.get(..20)?, ip.get(20..)?);
    if ip[0] != 0x45 || ip[9] != 17 {
        return None;
    }
    let port = u16::from_be_bytes([*udp.first()?, *udp.get(1)?]);
    let bootp = udp.get(8..8 + 34).filter(|b| matches!(port, 67 | 4011) && b[0] == 2)?;
    let address = |b: &[u8]| <[u8; 4]>::try_from(b).ok().map(Ipv4Addr::from);
    let client = bootp[28..34].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    Some(DhcpReply { from: address(&ip[12..16])?, port, client, given: address(&bootp[16..20])? })
}
