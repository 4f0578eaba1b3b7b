//! The kernel's table of IPv4 neighbours, as `/proc/net/arp` has it (proc(5)).

use std::net::Ipv4Addr;

use protocol::MacAddr;

/// `ATF_COM` of `if_arp.h`: the entry has a hardware address.
const COMPLETE: u32 = 0x02;

/// The port that answers to `address` on `interface`, by the text of `/proc/net/arp`.
pub fn port_of(table: &str, address: Ipv4Addr, interface: &str) -> Option<MacAddr> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let [ip, _kind, flags, mac, _mask, device] = std::array::from_fn(|_| words.next());
        let flags = u32::from_str_radix(flags?.strip_prefix("0x")?, 16).ok()?;
        let matches = ip?.parse() == Ok(address) && device? == interface && flags & COMPLETE != 0;
        let mac: MacAddr = mac?.parse().ok()?;
        matches.then_some(mac).filter(|mac| mac.is_station())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
10.77.0.50       0x1         0x2         52:54:00:00:00:01     *        lab0
10.77.0.51       0x1         0x0         00:00:00:00:00:00     *        lab0
10.77.0.52       0x1         0x2         52:54:00:00:00:02     *        other0
10.77.0.53       0x1         0x6         52:54:00:00:00:03     *        lab0
broken
";

    #[test]
    fn only_complete_entries_of_the_interface_count() {
        let port = |ip: &str| port_of(TABLE, ip.parse().unwrap(), "lab0").map(|mac| mac.to_string());
        assert_eq!(port("10.77.0.50").as_deref(), Some("52:54:00:00:00:01"));
        assert_eq!(port("10.77.0.53").as_deref(), Some("52:54:00:00:00:03"));
        for none in ["10.77.0.51", "10.77.0.52", "10.77.0.5"] {
            assert_eq!(port(none), None, "{none}");
        }
        assert_eq!(port_of("", "10.77.0.50".parse().unwrap(), "lab0"), None);
    }
}
