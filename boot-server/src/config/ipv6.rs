//! `[ipv6]` and `[dhcp6]`, and what follows from them and the interface's addresses.

use std::net::Ipv6Addr;
use std::time::Duration;

use boot_server_core::dhcp6::limits;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Interface, Network};

/// `[ipv6]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Ipv6 {
    pub enabled: bool,
    pub address: Option<Ipv6Addr>,
    pub advertise: bool,
    pub autonomous: bool,
    pub router_seconds: u16,
}

/// `[dhcp6]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Dhcp6 {
    pub enabled: bool,
    pub range_start: Option<Ipv6Addr>,
    pub range_end: Option<Ipv6Addr>,
    pub dns: Vec<Ipv6Addr>,
    pub lease_seconds: u32,
}

impl Default for Ipv6 {
    fn default() -> Self {
        Self { enabled: true, address: None, advertise: true, autonomous: false, router_seconds: 0 }
    }
}

impl Default for Dhcp6 {
    fn default() -> Self {
        let lease_seconds = 3600;
        Self { enabled: true, range_start: None, range_end: None, dns: Vec::new(), lease_seconds }
    }
}

/// IPv6 on the provisioning interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6Settings {
    /// Our address.
    pub network: Network<Ipv6Addr>,
    /// What we advertise, unless another router does.
    pub advertise: Option<Advertise>,
    /// DHCPv6, unless it is off.
    pub dhcp: Option<Pool6>,
}

/// What router advertisements say beside the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertise {
    /// Machines make themselves addresses of the prefix (SLAAC).
    pub autonomous: bool,
    /// For how long we are a default router; zero: we are none.
    pub router: Duration,
}

/// What DHCPv6 gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool6 {
    /// First address.
    pub start: Ipv6Addr,
    /// Last address.
    pub end: Ipv6Addr,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Length of a lease.
    pub lease: Duration,
}

/// Fills in what was left open; `None` where IPv6 is off or the interface has no address for it.
pub(super) fn settings(
    ipv6: &Ipv6,
    dhcp6: &Dhcp6,
    interface: &Interface,
) -> Result<Option<Ipv6Settings>, ConfigError> {
    if !ipv6.enabled {
        return Ok(None);
    }
    let own = match ipv6.address {
        Some(wanted) => Some(interface.ipv6.iter().find(|n| n.address == wanted).ok_or_else(|| {
            ConfigError::Ipv6(format!(
                "{wanted} is not an address of {interface}: add it (`ip -6 address add {wanted}/64 dev {}`), \
                 or correct ipv6.address",
                interface.name
            ))
        })?),
        None => interface.ipv6.first(),
    };
    let Some(network) = own.copied() else { return Ok(None) };
    let dhcp = dhcp6.enabled.then(|| pool(dhcp6, &interface.name, network)).transpose()?;
    let router = Duration::from_secs(ipv6.router_seconds.into());
    let advertise = ipv6.advertise.then_some(Advertise { autonomous: ipv6.autonomous, router });
    Ok(Some(Ipv6Settings { network, advertise, dhcp }))
}

/// The range to give out: as configured, else `::1:0` to `::ffff:ffff` of the prefix: out of the way of addresses that
/// people write by hand, and short to read.
fn pool(config: &Dhcp6, interface: &str, own: Network<Ipv6Addr>) -> Result<Pool6, ConfigError> {
    let error = |text: String| Err(ConfigError::Ipv6(text));
    let host_bits = 128 - u32::from(own.prefix.min(128));
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    let network = u128::from(own.address) & mask;
    if (config.range_start.is_none() || config.range_end.is_none()) && host_bits < 32 {
        return error(format!(
            "{own} on {interface} is too small for a range of its own: set dhcp6.range_start and \
             dhcp6.range_end, or dhcp6.enabled = false"
        ));
    }
    let start = config.range_start.unwrap_or_else(|| (network | 0x1_0000).into());
    let end = config.range_end.unwrap_or_else(|| (network | 0xffff_ffff).into());
    if let Some(bad) = [start, end].into_iter().find(|ip| u128::from(*ip) & mask != network) {
        return error(format!("{bad} is not in the network of {own} on {interface}: correct dhcp6.range"));
    }
    if start > end {
        return error(format!("dhcp6.range_start {start} comes after dhcp6.range_end {end}"));
    }
    let lease = Duration::from_secs(config.lease_seconds.into());
    if !(limits::LEASE_MIN..=limits::LEASE_MAX).contains(&lease) {
        let (min, max) = (limits::LEASE_MIN.as_secs(), limits::LEASE_MAX.as_secs());
        return error(format!("dhcp6.lease_seconds must be {min} to {max}"));
    }
    Ok(Pool6 { start, end, dns: config.dns.clone(), lease })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings};

    fn of(text: &str, ipv6: &[(&str, u8)]) -> Result<Settings, ConfigError> {
        let mut config = Config::parse(text, "test").unwrap();
        config.provisioning.interface = Some("eth1".into());
        let network = |(a, prefix): &(&str, u8)| Network { address: a.parse().unwrap(), prefix: *prefix };
        let ipv6 = ipv6.iter().map(network).collect();
        Settings::new(&config, &[Interface { name: "eth1".into(), ipv4: None, ipv6 }])
    }

    fn pool(text: &str, own: (&str, u8)) -> Result<String, String> {
        let settings = of(text, &[own]).map_err(|e| e.to_string())?;
        let pool = settings.ipv6.unwrap().dhcp.ok_or("off")?;
        Ok(format!("{} {}", pool.start, pool.end))
    }

    #[test]
    fn an_interface_with_ipv6_alone_serves() {
        let settings = of("", &[("fd77::1", 64), ("2001:db8::1", 64)]).unwrap();
        assert_eq!((settings.ipv4, settings.dhcp.as_ref()), (None, None));
        assert_eq!(settings.provisioning_urls().collect::<Vec<_>>(), ["http://[fd77::1]:8080"]);
        let chosen =
            of("[ipv6]\naddress = \"2001:db8::1\"", &[("fd77::1", 64), ("2001:db8::1", 64)]).unwrap();
        assert_eq!(chosen.ipv6.unwrap().network.to_string(), "2001:db8::1/64");
        let wrong = of("[ipv6]\naddress = \"fd77::2\"", &[("fd77::1", 64)]).unwrap_err().to_string();
        assert!(wrong.contains("fd77::2 is not an address of eth1 (fd77::1/64)"), "{wrong}");
        for text in ["", "[ipv6]\nenabled = false"] {
            let have: &[_] = if text.is_empty() { &[] } else { &[("fd77::1", 64)] };
            assert!(matches!(of(text, have), Err(ConfigError::NoAddress { .. })), "{text}");
        }
    }

    #[test]
    fn the_pool_keeps_clear_of_written_addresses() {
        assert_eq!(pool("", ("fd77::1", 64)).unwrap(), "fd77::1:0 fd77::ffff:ffff");
        let range = "[dhcp6]\nrange_start = \"fd77::100\"\nrange_end = \"fd77::1ff\"";
        assert_eq!(pool(range, ("fd77::1", 120)).unwrap_err().split(':').next(), Some("ipv6"));
        assert_eq!(pool(range, ("fd77::1", 64)).unwrap(), "fd77::100 fd77::1ff");
        assert!(pool("", ("fd77::1", 112)).unwrap_err().contains("too small"));
        assert!(pool("[dhcp6]\nlease_seconds = 5", ("fd77::1", 64)).unwrap_err().contains("lease_seconds"));
        assert_eq!(pool("[dhcp6]\nenabled = false", ("fd77::1", 64)).unwrap_err(), "off");
    }
}
