//! The network interfaces of this machine and the addresses that somebody gave them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::ConfigError;

/// Where Linux lists IPv6 addresses with their flags, which `getifaddrs` does not tell.
const IF_INET6: &str = "/proc/net/if_inet6";
/// The address does not end by itself: somebody configured it. One that came by router advertisement or DHCPv6 has an
/// end, and shows that another server manages the network (linux/if_addr.h).
const IFA_F_PERMANENT: u32 = 0x80;

/// An address and the length of its network prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network<A> {
    /// Our address.
    pub address: A,
    /// Length of the network prefix.
    pub prefix: u8,
}

impl<A: fmt::Display> fmt::Display for Network<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// An interface and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Such as `eth1`.
    pub name: String,
    /// Its first IPv4 address.
    pub ipv4: Option<Network<Ipv4Addr>>,
    /// Its configured IPv6 addresses of more than link-local scope, in the kernel's order.
    pub ipv6: Vec<Network<Ipv6Addr>>,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ipv4 = self.ipv4.iter().map(Network::to_string);
        let all: Vec<_> = ipv4.chain(self.ipv6.iter().map(Network::to_string)).collect();
        write!(f, "{} ({})", self.name, all.join(", "))
    }
}

/// Interfaces of this machine that have an address.
///
/// # Errors
/// Where the system does not list them.
pub fn interfaces() -> Result<Vec<Interface>, ConfigError> {
    let mut found: Vec<Interface> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs().map_err(ConfigError::Interfaces)? {
        let ipv4 = || {
            let address = entry.address?.as_sockaddr_in()?.ip();
            let mask = entry.netmask?.as_sockaddr_in()?.ip();
            let prefix = u8::try_from(u32::from(mask).leading_ones()).ok()?;
            Some(Network { address, prefix })
        };
        if let Some(ipv4) = ipv4() {
            of(&mut found, &entry.interface_name).ipv4.get_or_insert(ipv4);
        }
    }
    // The file is absent where the kernel has no IPv6.
    let text = std::fs::read_to_string(IF_INET6).unwrap_or_default();
    for (name, network) in text.lines().filter_map(configured) {
        of(&mut found, name).ipv6.push(network);
    }
    Ok(found)
}

fn of<'a>(found: &'a mut Vec<Interface>, name: &str) -> &'a mut Interface {
    let at = found.iter().position(|i| i.name == name).unwrap_or_else(|| {
        found.push(Interface { name: name.to_owned(), ipv4: None, ipv6: Vec::new() });
        found.len() - 1
    });
    &mut found[at]
}

/// One line of `/proc/net/if_inet6`: address, interface index, prefix length, scope and flags in hexadecimal, name.
/// `None` for addresses that are link-local, loopback, or not configured by somebody.
fn configured(line: &str) -> Option<(&str, Network<Ipv6Addr>)> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let [address, _, prefix, _, flags, name] = words[..] else { return None };
    let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
    let prefix = u8::from_str_radix(prefix, 16).ok()?;
    let permanent = u32::from_str_radix(flags, 16).ok()? & IFA_F_PERMANENT != 0;
    let usable = permanent && !address.is_unicast_link_local() && !address.is_loopback();
    usable.then_some((name, Network { address, prefix }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_addresses_are_told_from_the_others() {
        let line = |text| configured(text).map(|(name, network)| format!("{name} {network}"));
        let ours = "fd770000000000000000000000000001 0b 40 00 80      br0";
        assert_eq!(line(ours).as_deref(), Some("br0 fd77::1/64"));
        assert_eq!(line("fe80000000000000505400fffe770001 02 40 20 80     eth0"), None, "link-local");
        assert_eq!(line("20010db8000000000000000000000005 02 40 00 00     eth0"), None, "by SLAAC");
        assert_eq!(line("00000000000000000000000000000001 01 80 10 80       lo"), None, "loopback");
        for bad in ["", "zz 01 40 00 80 eth0", "fd77 01"] {
            assert_eq!(line(bad), None, "{bad}");
        }
    }
}
