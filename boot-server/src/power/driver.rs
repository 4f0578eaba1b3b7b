//! Which driver speaks to a controller.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use bmc::fake::{self, Machine};
use bmc::redfish::{self, Redfish, Transport};
use bmc::{Bmc, BmcError, Credentials, DriverKind, Identity, Secret, ipmi, manual, wol};

use crate::engine::lock;

use super::Target;

/// A driver that was made.
#[derive(Clone)]
pub struct Made {
    /// The driver.
    pub bmc: Arc<dyn Bmc>,
    /// SHA-256 of the certificate that the controller showed, once it has; for drivers with TLS.
    pub certificate: Option<Shown>,
    /// Fingerprint of the SSH key that it showed, once it has; for drivers with consoles by SSH.
    pub host_key: Option<Shown>,
}

/// What a controller showed, once it has.
pub type Shown = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl Made {
    /// A driver without certificates.
    pub fn plain(bmc: impl Bmc + 'static) -> Self {
        Self { bmc: Arc::new(bmc), certificate: None, host_key: None }
    }
}

/// Makes drivers; tests give their own.
pub type Drivers = Arc<dyn Fn(&Target) -> Result<Made, BmcError> + Send + Sync>;

/// The drivers that this server has. `own` is its address on the machines' network, from which they are woken.
pub fn drivers(own: Option<Ipv4Addr>) -> Drivers {
    let machines = Mutex::<BTreeMap<String, Machine>>::default();
    Arc::new(move |target| match target.driver {
        DriverKind::Redfish => redfish(target),
        DriverKind::Ipmi => ipmi(target),
        DriverKind::Wol => wol(target, own),
        DriverKind::Manual => Ok(Made::plain(manual::Driver)),
        DriverKind::Fake => {
            let mut machines = lock(&machines);
            let machine =
                machines.entry(target.address.clone()).or_insert_with(|| Machine::new(Identity::default()));
            Ok(Made::plain(fake::Driver::new(machine.clone())))
        }
    })
}

fn ipmi(target: &Target) -> Result<Made, BmcError> {
    let address: IpAddr = target.address.parse().map_err(|_| BmcError::Unreachable {
        what: format!("`{}` is no IP address, and IPMI needs one", target.address),
    })?;
    let port = target.port.unwrap_or(ipmi::limits::PORT);
    let settings = ipmi::Settings {
        address: SocketAddr::new(address, port),
        credentials: credentials(target)?,
        kg: stored_kg(target)?,
    };
    ipmi::Driver::new(&settings).map(Made::plain)
}

fn stored_kg(target: &Target) -> Result<Option<Vec<u8>>, BmcError> {
    let octets = target.kg.as_ref().map(kg).transpose();
    octets.map_err(|why| BmcError::Refused { what: "K_g".to_owned(), why })
}

/// Octets of K_g: as a text, or in hexadecimal behind `0x`, for those that nobody can type.
///
/// # Errors
/// What is wrong with it, in words.
pub fn kg(key: &Secret) -> Result<Vec<u8>, String> {
    let octets = match key.0.strip_prefix("0x") {
        None => key.0.clone().into_bytes(),
        Some(digits) => {
            let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let whole = digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let octets: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(octet).collect();
            octets.filter(|_| whole).ok_or("behind 0x it needs hexadecimal digits, two for each octet")?
        }
    };
    if octets.len() > ipmi::limits::KG_MAX {
        return Err(format!("it has at most {} octets", ipmi::limits::KG_MAX));
    }
    Ok(octets)
}

fn wol(target: &Target, own: Option<Ipv4Addr>) -> Result<Made, BmcError> {
    let unusable = |what: &str| BmcError::Unreachable { what: what.to_owned() };
    let mac = target.macs.first().ok_or_else(|| unusable("the node has no Ethernet address to wake"))?;
    let own = own.ok_or_else(|| unusable("this server has no IPv4 address on the machines' network"))?;
    let mut settings = wol::Settings::new(*mac, own);
    if !target.address.is_empty() {
        let to = target.address.parse().map_err(|_| unusable("the broadcast address is no IPv4 address"))?;
        settings.to = SocketAddrV4::new(to, target.port.unwrap_or(settings.to.port()));
    }
    Ok(Made::plain(wol::Driver::new(settings)))
}

fn redfish(target: &Target) -> Result<Made, BmcError> {
    let malformed = |_| BmcError::Malformed {
        what: "the stored certificate".to_owned(),
        why: "it is no SHA-256".to_owned(),
    };
    let driver = Arc::new(Redfish::new(redfish::Options {
        address: with_port(&target.address, target.port),
        credentials: credentials(target)?,
        pin: target.certificate.as_deref().map(str::parse).transpose().map_err(malformed)?,
        host_key: target.host_key.clone(),
        kg: stored_kg(target)?,
        transport: if target.options.plain_http { Transport::PlainAllowed } else { Transport::Tls },
        system: target.options.system.clone(),
    })?);
    let (shown, key) = (driver.clone(), driver.clone());
    let certificate: Shown = Arc::new(move || shown.certificate().map(|pin| pin.to_string()));
    let host_key: Shown = Arc::new(move || key.host_key());
    Ok(Made { bmc: driver, certificate: Some(certificate), host_key: Some(host_key) })
}

fn credentials(target: &Target) -> Result<Credentials, BmcError> {
    target.credentials.clone().ok_or(BmcError::Login)
}

/// `10.0.0.5:8443`, and `[2001:db8::5]:8443` where the address has colons of its own.
fn with_port(address: &str, port: Option<u16>) -> String {
    match port {
        None => address.to_owned(),
        Some(port) if address.parse::<std::net::Ipv6Addr>().is_ok() => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bmc_key_is_text_or_octets() {
        let of = |key: &str| kg(&Secret(key.into())).ok();
        assert_eq!(of("secret"), Some(b"secret".to_vec()));
        assert_eq!(of("0x00ff10"), Some(vec![0, 0xff, 0x10]));
        for wrong in ["0x0", "0xzz", "0x+1", "0x0é", "a text that is too long"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ports_are_put_to_addresses() {
        let of = |address, port| with_port(address, port);
        assert_eq!(of("10.0.0.5", None), "10.0.0.5");
        assert_eq!(of("bmc.example", Some(8443)), "bmc.example:8443");
        assert_eq!(of("2001:db8::5", Some(8443)), "[2001:db8::5]:8443");
        assert_eq!(of("http://127.0.0.1", Some(8000)), "http://127.0.0.1:8000");
    }
}
