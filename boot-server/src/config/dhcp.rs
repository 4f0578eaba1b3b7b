//! `[dhcp]`: the subnets that are served, checked as a whole.

use std::net::Ipv4Addr;
use std::time::Duration;

use boot_server_core::dhcp::{self, BootFiles, Ipv4Net, Machine, Mode, Range, Reservation, Subnet, limits};
use protocol::MacAddr;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ConfigError, Network};

/// `[dhcp]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Dhcp {
    pub enabled: bool,
    pub mode: Mode,
    pub probe: bool,
    pub range_start: Option<Ipv4Addr>,
    pub range_end: Option<Ipv4Addr>,
    pub router: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub lease_seconds: u32,
    pub subnets: Vec<FurtherSubnet>,
    pub reservations: Vec<ReservedAddress>,
}

/// `[[dhcp.subnets]]`, explained in `config/billet.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherSubnet {
    pub network: String,
    #[serde(default)]
    pub ranges: Vec<String>,
    #[serde(default)]
    pub router: Option<Ipv4Addr>,
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    #[serde(default)]
    pub lease_seconds: Option<u32>,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub on_interface: bool,
    #[serde(default)]
    pub relays: Vec<Ipv4Addr>,
}

/// `[[dhcp.reservations]]`, explained in `config/billet.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservedAddress {
    pub address: Ipv4Addr,
    #[serde(default)]
    pub mac: Option<MacAddr>,
    #[serde(default)]
    pub uuid: Option<Uuid>,
    #[serde(default)]
    pub client_id: Option<String>,
    #[serde(default)]
    pub hostname: Option<String>,
}

impl Default for Dhcp {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: Mode::Authoritative,
            probe: true,
            range_start: None,
            range_end: None,
            router: None,
            dns: Vec::new(),
            lease_seconds: 3600,
            subnets: Vec::new(),
            reservations: Vec::new(),
        }
    }
}

/// What DHCP does, as it follows from the file and the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lending {
    /// The interface's own subnet first.
    pub subnets: Vec<Subnet>,
    /// Addresses that were never used are probed before they are offered.
    pub probe: bool,
}

impl Lending {
    /// Fills in what the file leaves open, and checks it.
    ///
    /// # Errors
    /// [`ConfigError::Range`] with the first fault.
    pub fn new(config: &Dhcp, interface: &str, own: Network<Ipv4Addr>) -> Result<Self, ConfigError> {
        let mut subnets = vec![own_subnet(config, interface, own)?];
        for further in &config.subnets {
            subnets.push(further_subnet(config, further)?);
        }
        for reserved in &config.reservations {
            let subnet = subnets.iter_mut().find(|s| s.net.contains(reserved.address));
            let none = || fault(format!("no subnet holds the reserved address {}", reserved.address));
            subnet.ok_or_else(none)?.reservations.push(reservation(reserved)?);
        }
        let lending = Self { subnets, probe: config.probe };
        lending.core(own.address, "http://0".to_owned(), BootFiles::default())?;
        Ok(lending)
    }

    /// The configuration of the core.
    ///
    /// # Errors
    /// [`ConfigError::Range`] where it cannot be.
    pub fn core(
        &self,
        server_ip: Ipv4Addr,
        http_base: String,
        boot: BootFiles,
    ) -> Result<dhcp::Config, ConfigError> {
        let Self { subnets, probe } = self.clone();
        let config = dhcp::Config {
            server_ip,
            next_server: server_ip,
            http_base,
            firmware_base: None,
            boot,
            subnets,
            probe,
        };
        config.check().map_err(|error| fault(error.to_string()))?;
        Ok(config)
    }

    /// The interface's own subnet.
    pub fn own(&self) -> Option<&Subnet> {
        self.subnets.first()
    }

    /// One line per subnet, for people.
    pub fn lines(&self) -> Vec<String> {
        self.subnets.iter().map(line).collect()
    }
}

fn line(subnet: &Subnet) -> String {
    let pools =
        subnet.pools.iter().map(|p| format!("{} to {}", p.first, p.last)).collect::<Vec<_>>().join(", ");
    match subnet.mode {
        Mode::Authoritative => pools,
        Mode::Proxy => format!("proxy in {}", subnet.net),
        Mode::Reserved => format!("{pools} for known machines"),
        Mode::Off => format!("off in {}", subnet.net),
    }
}

/// The interface's subnet with the range as configured, else its upper half without the broadcast address.
fn own_subnet(config: &Dhcp, interface: &str, own: Network<Ipv4Addr>) -> Result<Subnet, ConfigError> {
    let Some(net) = Ipv4Net::new(own.address, own.prefix) else {
        return Err(fault(format!(
            "{own} on {interface} leaves no address to give out: use a larger subnet, or set dhcp.enabled = false"
        )));
    };
    let lends = matches!(config.mode, Mode::Authoritative | Mode::Reserved);
    if !lends && (config.range_start.is_some() || config.range_end.is_some()) {
        return Err(fault(
            "in mode proxy or off no addresses are given out: remove range_start and range_end".into(),
        ));
    }
    let pools = if lends { vec![own_range(config, interface, net)?] } else { Vec::new() };
    Ok(Subnet {
        router: config.router,
        dns: config.dns.clone(),
        mode: config.mode,
        ..Subnet::new(net, pools, Duration::from_secs(config.lease_seconds.into()))
    })
}

fn own_range(config: &Dhcp, interface: &str, net: Ipv4Net) -> Result<Range, ConfigError> {
    let hosts = net.hosts();
    // Of a very large network the last million.
    let upper = u32::try_from(hosts.len().div_ceil(2).min(limits::POOL_MAX)).unwrap_or(u32::MAX);
    let middle = u32::from(hosts.last).saturating_sub(upper.saturating_sub(1));
    let first = config.range_start.unwrap_or_else(|| middle.into());
    let last = config.range_end.unwrap_or(hosts.last);
    if let Some(bad) = [first, last].into_iter().find(|ip| !hosts.contains(*ip)) {
        return Err(fault(format!(
            "{bad} is not in the subnet {net} of {interface} ({} to {})",
            hosts.first, hosts.last
        )));
    }
    if first > last {
        return Err(fault(format!("range_start {first} comes after range_end {last}")));
    }
    Ok(Range { first, last })
}

fn further_subnet(config: &Dhcp, further: &FurtherSubnet) -> Result<Subnet, ConfigError> {
    let core = |error: dhcp::ConfigError| fault(error.to_string());
    let net: Ipv4Net = further.network.parse().map_err(core)?;
    let pools = further.ranges.iter().map(|r| r.parse().map_err(core)).collect::<Result<Vec<Range>, _>>()?;
    let lends = matches!(further.mode, Mode::Authoritative | Mode::Reserved);
    if lends == pools.is_empty() {
        let why =
            if lends { "needs ranges to give out" } else { "gives out no addresses: remove its ranges" };
        return Err(fault(format!("subnet {net} {why}")));
    }
    let lease = further.lease_seconds.unwrap_or(config.lease_seconds);
    Ok(Subnet {
        router: further.router,
        dns: further.dns.clone(),
        mode: further.mode,
        on_link: further.on_interface,
        relays: further.relays.clone(),
        ..Subnet::new(net, pools, Duration::from_secs(lease.into()))
    })
}

fn reservation(reserved: &ReservedAddress) -> Result<Reservation, ConfigError> {
    let ReservedAddress { address, mac, uuid, client_id, hostname } = reserved;
    let machine = match (mac, uuid, client_id) {
        (Some(mac), None, None) => Machine::Mac(*mac),
        (None, Some(uuid), None) => Machine::Uuid(*uuid),
        (None, None, Some(id)) => Machine::ClientId(client_id_octets(id)),
        _ => return Err(fault(format!("the reservation of {address} needs one of mac, uuid and client_id"))),
    };
    Ok(Reservation { machine, ip: *address, hostname: hostname.clone() })
}

/// Pairs of hexadecimal digits with colons between them are octets; anything else is text.
fn client_id_octets(id: &str) -> Vec<u8> {
    let pair = |p: &str| (p.len() == 2).then(|| u8::from_str_radix(p, 16).ok()).flatten();
    let octets: Option<Vec<u8>> = id.split(':').map(pair).collect();
    octets.unwrap_or_else(|| id.as_bytes().to_vec())
}

fn fault(message: String) -> ConfigError {
    ConfigError::Range(message)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Interface, Settings};
    use super::*;

    fn lending(text: &str) -> Result<Lending, String> {
        let mut config = Config::parse(text, "test").map_err(|e| e.to_string())?;
        config.provisioning.interface = Some("eth1".into());
        let ipv4 = Some(Network { address: [10, 77, 0, 1].into(), prefix: 24 });
        let interface = Interface { name: "eth1".into(), ipv4, ipv6: Vec::new() };
        let settings = Settings::new(&config, &[interface]).map_err(|e| e.to_string())?;
        settings.dhcp.ok_or_else(|| "off".into())
    }

    #[test]
    fn subnets_and_reservations() {
        let lending = lending(
            r#"
            [dhcp]
            mode = "reserved"
            probe = false
            [[dhcp.subnets]]
            network = "10.88.0.0/24"
            ranges = ["10.88.0.10-10.88.0.20", "10.88.0.30-10.88.0.40"]
            router = "10.88.0.1"
            lease_seconds = 600
            relays = ["10.99.0.1"]
            [[dhcp.subnets]]
            network = "10.89.0.0/24"
            mode = "proxy"
            on_interface = true
            [[dhcp.reservations]]
            address = "10.88.0.5"
            mac = "52:54:00:12:34:56"
            hostname = "db-1"
            [[dhcp.reservations]]
            address = "10.77.0.9"
            client_id = "00:77:65:62"
            [[dhcp.reservations]]
            address = "10.77.0.8"
            client_id = "web-1"
            "#,
        )
        .unwrap();
        assert_eq!(
            lending.lines(),
            [
                "10.77.0.128 to 10.77.0.254 for known machines",
                "10.88.0.10 to 10.88.0.20, 10.88.0.30 to 10.88.0.40",
                "proxy in 10.89.0.0/24",
            ]
        );
        let ids: Vec<_> = lending.subnets[0].reservations.iter().map(|r| r.machine.clone()).collect();
        assert_eq!(ids, [Machine::ClientId(b"\0web".to_vec()), Machine::ClientId(b"web-1".to_vec())]);
        assert_eq!(lending.subnets[1].reservations[0].hostname.as_deref(), Some("db-1"));
        assert!(!lending.probe && lending.subnets[2].on_link);
    }

    #[test]
    fn faults_are_named() {
        let subnet = |more: &str| {
            lending(&format!("[[dhcp.subnets]]\nnetwork = \"10.88.0.0/24\"\n{more}")).unwrap_err()
        };
        assert_eq!(subnet(""), "dhcp: subnet 10.88.0.0/24 needs ranges to give out");
        let range = "ranges = [\"10.88.0.9-10.88.0.10\"]\n";
        assert_eq!(
            subnet(&format!("{range}mode = \"proxy\"")),
            "dhcp: subnet 10.88.0.0/24 gives out no addresses: remove its ranges"
        );
        assert_eq!(
            subnet("ranges = [\"10.89.0.9-10.89.0.10\"]"),
            "dhcp: pool 10.89.0.9-10.89.0.10 is not within the hosts of 10.88.0.0/24"
        );
        assert_eq!(
            subnet("ranges = [\"10.88.0.9\"]"),
            "dhcp: `10.88.0.9` is not a range (such as 10.77.0.100-10.77.0.200)"
        );
        assert_eq!(
            subnet(&format!("{range}relays = [\"10.77.0.3\"]")),
            "dhcp: relay 10.77.0.3 is of a subnet already, which it selects by itself"
        );
        assert!(subnet(&format!("{range}mode = \"primary\"")).contains("unknown variant `primary`"));
        let twice =
            lending("[[dhcp.subnets]]\nnetwork = \"10.77.0.0/16\"\nranges = [\"10.77.9.1-10.77.9.2\"]");
        assert_eq!(twice.unwrap_err(), "dhcp: 10.77.0.0/24 and 10.77.0.0/16 overlap");
        let reserved = |more: &str| lending(&format!("[[dhcp.reservations]]\n{more}")).unwrap_err();
        let mac = "mac = \"52:54:00:00:00:01\"\n";
        assert_eq!(
            reserved("address = \"10.77.0.9\""),
            "dhcp: the reservation of 10.77.0.9 needs one of mac, uuid and client_id"
        );
        assert_eq!(
            reserved(&format!("address = \"10.78.0.9\"\n{mac}")),
            "dhcp: no subnet holds the reserved address 10.78.0.9"
        );
        assert_eq!(
            reserved(&format!("address = \"10.77.0.1\"\n{mac}")),
            "dhcp: reserved address 10.77.0.1 is this server's own"
        );
        assert_eq!(
            reserved(&format!("address = \"10.77.0.9\"\n{mac}hostname = \"a b\"")),
            "dhcp: `a b` is not a host name (letters, digits and hyphens, at most 63)"
        );
        assert_eq!(
            lending("[dhcp]\nmode = \"proxy\"\nrange_start = \"10.77.0.9\"").unwrap_err(),
            "dhcp: in mode proxy or off no addresses are given out: remove range_start and range_end"
        );
        assert_eq!(
            lending("[dhcp]\nlease_seconds = 60").unwrap_err(),
            "dhcp: a lease of 60 s is not within 120 s to 2592000 s"
        );
    }
}
