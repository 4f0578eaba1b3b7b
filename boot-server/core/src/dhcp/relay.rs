//! What a relay or a switch says about where a machine is plugged in: option 82 (RFC 3046).

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use protocol::MacAddr;
use serde::{Deserialize, Serialize};

use super::limits;
use super::options::encapsulated;

/// Where a machine is plugged in, in the words of the relay or switch, made printable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Circuit id (sub-option 1): most often the switch's port.
    pub circuit: Option<String>,
    /// Remote id (sub-option 2): most often the switch.
    pub remote: Option<String>,
}

/// Option 82 as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RelayInfo {
    pub placement: Option<Placement>,
    /// Sub-option 5 (RFC 3527): an address of the client's subnet where `giaddr` is not one.
    pub link: Option<Ipv4Addr>,
    /// Sub-option 11 (RFC 5107): what the client shall take for the server, so that its renewals pass the relay too.
    pub server_id: Option<Ipv4Addr>,
}

impl RelayInfo {
    pub fn read(option: &[u8]) -> Self {
        let mut info = Self::default();
        let (mut circuit, mut remote) = (None, None);
        for (code, value) in encapsulated(option) {
            let address =
                || <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from).filter(|ip| !ip.is_unspecified());
            match code {
                1 => circuit = circuit_text(value),
                2 => remote = remote_text(value),
                5 => info.link = address(),
                11 => info.server_id = address(),
                _ => {}
            }
        }
        if circuit.is_some() || remote.is_some() {
            info.placement = Some(Placement { circuit, remote });
        }
        info
    }
}

/// Text as it is; the binary form that many switches share (type 0, length 4, VLAN, module, port) in words; else
/// hexadecimal digits.
fn circuit_text(value: &[u8]) -> Option<String> {
    match value {
        [0, 4, v1, v2, module, port] => {
            let vlan = u16::from_be_bytes([*v1, *v2]);
            Some(format!("vlan {vlan} port {module}/{port}"))
        }
        [1, len, name @ ..] if usize::from(*len) == name.len() && is_text(name) => text(name),
        _ => text(value),
    }
}

/// Text as it is; the switch's hardware address, with or without type 0 and length 6 before it, as such; else
/// hexadecimal digits.
fn remote_text(value: &[u8]) -> Option<String> {
    match value {
        [0, 6, mac @ ..] if mac.len() == 6 => remote_text(mac),
        [1, len, name @ ..] if usize::from(*len) == name.len() && is_text(name) => text(name),
        mac if !is_text(mac)
            && let Ok(mac) = <[u8; 6]>::try_from(mac) =>
        {
            Some(MacAddr(mac).to_string())
        }
        _ => text(value),
    }
}

fn is_text(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
}

fn text(value: &[u8]) -> Option<String> {
    // Some relays end the text with a zero.
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    if value.is_empty() {
        return None;
    }
    if is_text(value) {
        return Some(value.iter().take(limits::TEXT_MAX).map(|b| char::from(*b)).collect());
    }
    let mut hex = String::from("0x");
    for b in value.iter().take(limits::TEXT_MAX / 2 - 1) {
        let _ = write!(hex, "{b:02x}");
    }
    Some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_are_words() {
        let show = |option: &[u8]| {
            RelayInfo::read(option)
                .placement
                .map(|p| format!("{:?} {:?}", p.circuit, p.remote))
                .unwrap_or_default()
        };
        assert_eq!(show(b"\x01\x03br0\x02\x08switch-7"), r#"Some("br0") Some("switch-7")"#);
        assert_eq!(show(b"\x01\x0aEthernet1\0"), r#"Some("Ethernet1") None"#);
        let cisco = b"\x01\x06\x00\x04\x00\x0a\x01\x18\x02\x08\x00\x06\x00\x11\x22\xaa\xbb\xcc";
        assert_eq!(show(cisco), r#"Some("vlan 10 port 1/24") Some("00:11:22:aa:bb:cc")"#);
        assert_eq!(show(b"\x01\x05\x01\x03ge0\x02\x02\x80\x01"), r#"Some("ge0") Some("0x8001")"#);
        assert_eq!(show(&[1, 2, b'\x1b', b'[', 2, 0]), r#"Some("0x1b5b") None"#);
        assert_eq!((show(b""), show(b"\x05\x04\x0a\x00\x00\x01"), show(b"\x01\xffx")), Default::default());
        assert!(
            RelayInfo::read(&[&[1, 250][..], &[200; 250]].concat()).placement.unwrap().circuit.unwrap().len()
                <= 64
        );
    }

    #[test]
    fn link_and_server_override() {
        let info = RelayInfo::read(b"\x05\x04\x0a\x58\x00\x00\x0b\x04\x0a\x58\x00\x01");
        assert_eq!(info.link, Some(Ipv4Addr::new(10, 88, 0, 0)));
        assert_eq!(info.server_id, Some(Ipv4Addr::new(10, 88, 0, 1)));
        assert_eq!(RelayInfo::read(b"\x05\x03\x0a\x58\x00\x0b\x04\x00\x00\x00\x00"), RelayInfo::default());
    }
}
