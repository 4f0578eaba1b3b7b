//! The network settings of a machine that gets none by DHCP: the agent and the OS on it are given these.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use protocol::MacAddr;
use serde::{Deserialize, Serialize};

use crate::dhcp::Ipv4Net;
use crate::words::text_serde;

/// Name servers of one machine: what resolvers use (resolv.conf(5)).
pub const DNS_MAX: usize = 3;

/// An address and the length of its network's prefix, such as `10.77.0.50/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress {
    /// The machine's own.
    pub address: Ipv4Addr,
    /// Bits of the network, 1 to 30.
    pub prefix: u8,
}

impl HostAddress {
    fn net(self) -> Option<Ipv4Net> {
        Ipv4Net::new(self.address, self.prefix).filter(|_| self.prefix > 0)
    }

    /// True where that address is reached without a gateway.
    pub fn reaches(self, other: Ipv4Addr) -> bool {
        self.net().is_some_and(|net| net.contains(other))
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for HostAddress {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let form = || NetworkError::Form(text.chars().take(40).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(form)?;
        let address = address.parse().map_err(|_| form())?;
        let prefix = prefix.parse().map_err(|_| form())?;
        Ok(Self { address, prefix })
    }
}

text_serde!(HostAddress, ToString::to_string);

/// Settings of one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StaticNetwork {
    /// Address and length of the prefix, such as `10.77.0.50/24`.
    pub address: HostAddress,
    /// Router to everything else; it lies in the network of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub gateway: Option<Ipv4Addr>,
    /// The port, by its address; the first that reaches the server if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Name servers of the OS, at most three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub dns: Vec<Ipv4Addr>,
}

/// What is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum NetworkError {
    #[error("`{0}` is no address with the length of its prefix")]
    Form(String),
    #[error("`{0}` is no {1}")]
    Word(String, &'static str),
    #[error("{0} leaves no room for a machine and its gateway")]
    Prefix(HostAddress),
    #[error("{0} cannot be the address of a machine")]
    NoHost(HostAddress),
    #[error("the gateway {gateway} is not in the network of {address}")]
    GatewayOutside { gateway: Ipv4Addr, address: HostAddress },
    #[error("the gateway {0} is the machine's own address")]
    GatewayIsOwn(Ipv4Addr),
    #[error("{0} name servers are more than {DNS_MAX}")]
    Dns(usize),
    #[error("{0} cannot be the address of a network port")]
    Mac(MacAddr),
    #[error("{address} does not reach this server at {server} without a gateway")]
    NoWay { address: HostAddress, server: Ipv4Addr },
    #[error("{0} is the address of this server")]
    Servers(Ipv4Addr),
    #[error("DHCP may lend {0} to another machine: it is in a range of [dhcp]")]
    Lent(Ipv4Addr),
    #[error("{address} is reserved for another machine: {whose}")]
    Reserved { address: Ipv4Addr, whose: String },
    #[error("{address} is the address of node {node}")]
    Taken { address: Ipv4Addr, node: String },
    #[error("port {mac} is a port of node {node}")]
    OthersPort { mac: MacAddr, node: String },
}

impl NetworkError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Form(_) => "write it as 10.77.0.50/24",
            Self::Word(..) => "correct it, or leave it empty",
            Self::Prefix(_) => "use a prefix of 1 to 30 bits",
            Self::NoHost(_) => {
                "choose an address that is neither the network's own nor its broadcast address, and no multicast"
            }
            Self::GatewayOutside { .. } => "correct the gateway or the length of the prefix",
            Self::GatewayIsOwn(_) => "give the router's address, or none where there is none",
            Self::Dns(_) => "give fewer",
            Self::Mac(_) => "give the address that stands on the port, such as 52:54:00:12:34:56",
            Self::NoWay { .. } => "give the gateway that leads to the server",
            Self::Servers(_) | Self::Taken { .. } => "choose an address that nobody has",
            Self::Lent(_) => "choose one outside of the ranges, or make the range smaller",
            Self::Reserved { .. } => "choose another one, or take the reservation away",
            Self::OthersPort { .. } => "correct the MAC address, or set this on the other node",
        }
    }
}

impl StaticNetwork {
    /// Settings as somebody typed them; nothing at all is none. Name servers stand apart by spaces or commas.
    ///
    /// # Errors
    /// Names the first that cannot be read.
    pub fn typed(address: &str, gateway: &str, mac: &str, dns: &str) -> Result<Option<Self>, NetworkError> {
        let [address, gateway, mac] = [address, gateway, mac].map(str::trim);
        let servers = dns.split([' ', ',']).filter(|word| !word.is_empty());
        if address.is_empty() && gateway.is_empty() && mac.is_empty() && servers.clone().next().is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            address: address.parse()?,
            gateway: word(gateway, "address of a gateway")?,
            mac: word(mac, "MAC address")?,
            dns: servers
                .filter_map(|text| word(text, "address of a name server").transpose())
                .collect::<Result<_, _>>()?,
        }))
    }

    /// Checks the settings by themselves, for a server at this address.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(&self, server: Option<Ipv4Addr>) -> Result<(), NetworkError> {
        let host = self.address;
        let net = host.net().ok_or(NetworkError::Prefix(host))?;
        let ip = host.address;
        if !net.is_host(ip)
            || ip.is_loopback()
            || ip.is_multicast()
            || ip.octets()[0] == 0
            || ip.octets()[0] >= 240
        {
            return Err(NetworkError::NoHost(host));
        }
        if let Some(gateway) = self.gateway {
            if gateway == ip {
                return Err(NetworkError::GatewayIsOwn(gateway));
            }
            if !net.is_host(gateway) {
                return Err(NetworkError::GatewayOutside { gateway, address: host });
            }
        }
        if self.dns.len() > DNS_MAX {
            return Err(NetworkError::Dns(self.dns.len()));
        }
        if let Some(mac) = self.mac.filter(|mac| !mac.is_station()) {
            return Err(NetworkError::Mac(mac));
        }
        match server {
            Some(server) if server == ip => Err(NetworkError::Servers(ip)),
            Some(server) if self.gateway.is_none() && !net.contains(server) => {
                Err(NetworkError::NoWay { address: host, server })
            }
            _ => Ok(()),
        }
    }
}

fn word<T: FromStr>(text: &str, what: &'static str) -> Result<Option<T>, NetworkError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| NetworkError::Word(text.chars().take(40).collect(), what))
}

impl fmt::Display for StaticNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(gateway) = self.gateway {
            write!(f, " by {gateway}")?;
        }
        if let Some(mac) = self.mac {
            write!(f, " on {mac}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> StaticNetwork {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_wrong_is_named() {
        let server = "10.77.0.1".parse().ok();
        let check = |text: &str| network(text).check(server).map_err(|e| format!("{e}: {}", e.hint()));
        assert_eq!(check(r#"{"address":"10.77.0.50/24"}"#), Ok(()));
        assert_eq!(check(r#"{"address":"10.88.0.50/24","gateway":"10.88.0.1","dns":["9.9.9.9"]}"#), Ok(()));
        let mut table = String::new();
        for text in [
            r#"{"address":"10.77.0.50/31"}"#,
            r#"{"address":"10.77.0.50/0"}"#,
            r#"{"address":"10.77.0.255/24"}"#,
            r#"{"address":"10.77.0.0/24"}"#,
            r#"{"address":"127.0.0.2/8"}"#,
            r#"{"address":"224.0.0.2/8"}"#,
            r#"{"address":"10.77.0.1/24"}"#,
            r#"{"address":"10.88.0.50/24"}"#,
            r#"{"address":"10.77.0.50/24","gateway":"10.78.0.1"}"#,
            r#"{"address":"10.77.0.50/24","gateway":"10.77.0.50"}"#,
            r#"{"address":"10.77.0.50/24","mac":"01:00:5e:00:00:01"}"#,
            r#"{"address":"10.77.0.50/24","dns":["1.1.1.1","1.1.1.1","1.1.1.1","1.1.1.1"]}"#,
        ] {
            table.push_str(&format!("{text}\n  {}\n", check(text).unwrap_err()));
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn settings_are_read_as_they_are_typed() {
        let typed = StaticNetwork::typed;
        assert_eq!(typed(" ", "", "", " , "), Ok(None));
        let text = r#"{"address":"10.77.0.50/24","gateway":"10.77.0.1","dns":["10.77.0.53","9.9.9.9"]}"#;
        assert_eq!(typed(" 10.77.0.50/24", "10.77.0.1 ", "", "10.77.0.53, 9.9.9.9"), Ok(Some(network(text))));
        let wrong = |result: Result<_, NetworkError>| result.unwrap_err().to_string();
        assert_eq!(wrong(typed("", "10.77.0.1", "", "")), "`` is no address with the length of its prefix");
        assert_eq!(wrong(typed("10.77.0.50/24", "x", "", "")), "`x` is no address of a gateway");
        assert_eq!(wrong(typed("10.77.0.50/24", "", "x", "")), "`x` is no MAC address");
        assert_eq!(wrong(typed("10.77.0.50/24", "", "", "9.9.9.9 x")), "`x` is no address of a name server");
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let text = r#"{"address":"10.77.0.50/24","gateway":"10.77.0.1","mac":"52:54:00:12:34:56"}"#;
        let read = network(text);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.to_string(), "10.77.0.50/24 by 10.77.0.1 on 52:54:00:12:34:56");
        for bad in ["10.77.0.50", "10.77.0/24", "10.77.0.50/x", "10.77.0.50/300", "fd77::1/64", ""] {
            assert!(bad.parse::<HostAddress>().is_err(), "{bad}");
        }
    }
}
