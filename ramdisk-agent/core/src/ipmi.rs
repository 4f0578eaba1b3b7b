//! Answers of a management controller (IPMI 2.0): Get Device ID (20.1) and Get LAN Configuration Parameters (23.2).
//! Each begins with the completion code; 0 is success.

use std::net::Ipv4Addr;

use protocol::MacAddr;
use protocol::inventory::Bmc;

/// Channels that LAN interfaces are found on, the usual first.
pub const CHANNELS: [u8; 4] = [1, 2, 8, 3];
/// Network function and command of Get Device ID.
pub const DEVICE_ID: (u8, u8) = (0x06, 0x01);
/// Network function and command of Get LAN Configuration Parameters.
pub const LAN: (u8, u8) = (0x0c, 0x02);
/// Parameter selector of the IP address.
pub const LAN_ADDRESS: u8 = 3;
/// Parameter selector of the MAC address.
pub const LAN_MAC: u8 = 5;

/// Reads the answer to Get Device ID; `None` where the command failed.
pub fn device_id(answer: &[u8]) -> Option<Bmc> {
    let [0, _, _, major, minor, _, _, m0, m1, m2, ..] = answer else { return None };
    Some(Bmc {
        // The minor revision is BCD; bit 7 of the major says that an update runs.
        firmware: Some(format!("{}.{minor:02x}", major & 0x7f)),
        // 20 bits (20.1, bytes 8 to 10).
        manufacturer_id: Some(u32::from_le_bytes([*m0, *m1, *m2 & 0x0f, 0])),
        ..Bmc::default()
    })
}

/// Reads the IP address from the answer; `None` where it is not set.
pub fn lan_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let [0, _, a, b, c, d, ..] = answer else { return None };
    Some(Ipv4Addr::new(*a, *b, *c, *d)).filter(|a| !a.is_unspecified())
}

/// Reads the MAC address from the answer; `None` where it names no station.
pub fn lan_mac(answer: &[u8]) -> Option<MacAddr> {
    let [0, _, a, b, c, d, e, f, ..] = answer else { return None };
    Some(MacAddr([*a, *b, *c, *d, *e, *f])).filter(MacAddr::is_station)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_answers() {
        let bmc = device_id(&[0, 0x20, 1, 0x82, 0x57, 2, 0xbf, 0x57, 0x01, 0x00, 0, 0]).unwrap();
        assert_eq!((bmc.firmware.as_deref(), bmc.manufacturer_id), (Some("2.57"), Some(343)));
        assert_eq!(device_id(&[0xc1]), None);
        assert_eq!(lan_address(&[0, 0x11, 10, 0, 0, 9]), Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(lan_address(&[0, 0x11, 0, 0, 0, 0]), None);
        assert_eq!(lan_mac(&[0, 0x11, 0, 1, 2, 3, 4, 5]), Some(MacAddr([0, 1, 2, 3, 4, 5])));
        assert_eq!(lan_mac(&[0x80, 0x11, 0, 1, 2, 3, 4, 5]), None);
    }
}
