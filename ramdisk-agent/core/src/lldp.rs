//! What a neighbour says of itself in an LLDP frame (IEEE 802.1AB-2016). Bounded by the frame; a malformed TLV ends
//! the reading, and what was read before it counts only if chassis and port were among it.

use protocol::inventory::LldpNeighbour;

use crate::content::cut;

/// Destination of LLDP frames that stay on one link.
pub const MULTICAST: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];
/// EtherType of LLDP.
pub const ETHERTYPE: u16 = 0x88cc;
/// Organisationally specific TLV of IEEE 802.1: OUI 00-80-C2, subtype 1 is the port VLAN id (802.1Q Annex D.2.1).
const PORT_VLAN: [u8; 4] = [0x00, 0x80, 0xc2, 1];

/// Reads a whole Ethernet frame. `None` where it is no LLDP frame, or the neighbour takes its leave (TTL 0).
pub fn parse(frame: &[u8]) -> Option<LldpNeighbour> {
    if frame.get(12..14)? != ETHERTYPE.to_be_bytes() {
        return None;
    }
    let mut found = LldpNeighbour::default();
    let mut rest = frame.get(14..)?;
    while let Some((kind, value, next)) = tlv(rest) {
        rest = next;
        match (kind, value) {
            (0, _) => break,
            (1, [subtype, id @ ..]) => found.chassis_id = print_id(*subtype, 4, 5, id),
            (2, [subtype, id @ ..]) => found.port_id = print_id(*subtype, 3, 4, id),
            (3, [0, 0, ..]) => return None,
            (4, text) => found.port_description = Some(cut(&String::from_utf8_lossy(text))),
            (5, text) => found.system_name = Some(cut(&String::from_utf8_lossy(text))),
            (127, value) if value.starts_with(&PORT_VLAN) => {
                let id = value.get(4..6).map(|v| u16::from_be_bytes([v[0], v[1]]));
                found.vlan = id.filter(|v| (1..=4094).contains(v));
            }
            _ => {}
        }
    }
    (!found.chassis_id.is_empty() && !found.port_id.is_empty()).then_some(found)
}

/// Type (7 bits), length (9 bits), value (8.4).
fn tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let head = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    let len = usize::from(head & 0x1ff);
    Some(((head >> 9) as u8, bytes.get(2..2 + len)?, bytes.get(2 + len..)?))
}

/// An id by its subtype: a MAC address, a network address (family first, IANA: 1 is IPv4, 2 is IPv6), or text.
fn print_id(subtype: u8, mac: u8, network: u8, id: &[u8]) -> String {
    match id {
        [a, b, c, d, e, f] if subtype == mac => format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        [1, a, b, c, d] if subtype == network => format!("{a}.{b}.{c}.{d}"),
        [2, v6 @ ..] if subtype == network && v6.len() == 16 => {
            let octets: [u8; 16] = v6.try_into().unwrap_or_default();
            std::net::Ipv6Addr::from(octets).to_string()
        }
        text => cut(String::from_utf8_lossy(text).trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = [MULTICAST, [2; 6]].concat();
        out.extend(ETHERTYPE.to_be_bytes());
        for (kind, value) in tlvs {
            out.extend(((u16::from(*kind) << 9) | value.len() as u16).to_be_bytes());
            out.extend(*value);
        }
        out
    }

    #[test]
    fn reads_a_switch() {
        let f = frame(&[
            (1, &[4, 0, 0x1c, 0x73, 1, 2, 3]),
            (2, b"\x05Ethernet12/1"),
            (3, &[0, 120]),
            (5, b"leaf1"),
            (127, &[0, 0x80, 0xc2, 1, 0, 77]),
            (0, b""),
            (5, b"behind the end"),
        ]);
        let n = parse(&f).unwrap();
        assert_eq!((n.chassis_id.as_str(), n.port_id.as_str()), ("00:1c:73:01:02:03", "Ethernet12/1"));
        assert_eq!((n.system_name.as_deref(), n.vlan), (Some("leaf1"), Some(77)));
        assert_eq!(parse(&frame(&[(1, b"\x07c"), (2, b"\x05p"), (3, &[0, 0])])), None);
        assert_eq!(parse(&f[..40]).map(|n| n.system_name), Some(None), "cut behind the port");
        assert_eq!(parse(&f[..30]), None, "cut within the port");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            if bytes.len() > 14 {
                bytes[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
                let _ = parse(&bytes);
            }
        }
    }
}
