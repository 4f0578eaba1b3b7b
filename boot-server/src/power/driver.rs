//! Which driver speaks to a controller.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use bmc::fake::{self, Machine};
use bmc::redfish::{self, Redfish, Transport};
use bmc::{Bmc, BmcError, Credentials, DriverKind, Identity, ipmi, manual, wol};

use crate::engine::lock;

use super::Target;

/// A driver that was made.
#[derive(Clone)]
pub struct Made {
    /// The driver.
    pub bmc: Arc<dyn Bmc>,
    /// SHA-256 of the certificate that the controller showed, once it has; for drivers with TLS.
    pub certificate: Option<Arc<dyn Fn() -> Option<String> + Send + Sync>>,
}

impl Made {
    /// A driver without certificates.
    pub fn plain(bmc: impl Bmc + 'static) -> Self {
        Self { bmc: Arc::new(bmc), certificate: None }
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
        kg: None,
    };
    ipmi::Driver::new(&settings).map(Made::plain)
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
        transport: if target.options.plain_http { Transport::PlainAllowed } else { Transport::Tls },
        system: target.options.system.clone(),
    })?);
    let shown = driver.clone();
    let certificate = Arc::new(move || shown.certificate().map(|pin| pin.to_string()));
    Ok(Made { bmc: driver, certificate: Some(certificate) })
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
    fn ports_are_put_to_addresses() {
        let of = |address, port| with_port(address, port);
        assert_eq!(of("10.0.0.5", None), "10.0.0.5");
        assert_eq!(of("bmc.example", Some(8443)), "bmc.example:8443");
        assert_eq!(of("2001:db8::5", Some(8443)), "[2001:db8::5]:8443");
        assert_eq!(of("http://127.0.0.1", Some(8000)), "http://127.0.0.1:8000");
    }
}
