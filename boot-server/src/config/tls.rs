//! TLS of the provisioning side, as it follows from the file.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{ConfigError, Provisioning};
use crate::tls::Source;

/// What TLS there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whose certificate it shows.
    pub source: Source,
    /// Firmware that boots by HTTP is sent here.
    pub for_firmware: bool,
}

impl Tls {
    /// `None` where no port is set.
    ///
    /// # Errors
    /// [`ConfigError::Tls`] where the keys do not go together.
    pub fn new(
        config: &Provisioning,
        own: IpAddr,
        also: Vec<IpAddr>,
        state_dir: &Path,
    ) -> Result<Option<Self>, ConfigError> {
        let Provisioning { tls_port, tls_certificate, tls_key, firmware_by_https, .. } = config;
        let fault = |text: &str| Err(ConfigError::Tls(text.to_owned()));
        let Some(port) = *tls_port else {
            return match (tls_certificate, tls_key, firmware_by_https) {
                (None, None, false) => Ok(None),
                _ => fault("tls_certificate, tls_key and firmware_by_https need tls_port (such as 8443)"),
            };
        };
        if port == config.listen_port {
            return fault("tls_port and listen_port must differ");
        }
        let source = match (tls_certificate, tls_key) {
            (Some(certificate), Some(key)) => {
                Source::Files { certificate: certificate.clone(), key: key.clone() }
            }
            (None, None) => {
                let mut addresses = vec![own];
                addresses.extend(also.into_iter().filter(|a| *a != own));
                Source::Own { directory: state_dir.join("tls"), addresses }
            }
            _ => return fault("tls_certificate and tls_key are given together, or neither"),
        };
        let listen = SocketAddr::from((own, port));
        Ok(Some(Self { listen, source, for_firmware: *firmware_by_https }))
    }

    /// Base URL, such as `https://10.77.0.1:8443`.
    pub fn url(&self) -> String {
        format!("https://{}", self.listen)
    }
}

/// Further addresses of an interface that a certificate can name: not those that are good on one link only.
pub fn addresses(interface: &str) -> Vec<IpAddr> {
    let Ok(found) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let of = |entry: nix::ifaddrs::InterfaceAddress| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        let v6 = address.as_sockaddr_in6().map(|a| a.ip()).filter(|a| !a.is_unicast_link_local());
        v4.or(v6.map(IpAddr::from))
    };
    found.filter(|entry| entry.interface_name == interface).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(change: impl FnOnce(&mut Provisioning)) -> Result<Option<Tls>, String> {
        let mut config = Provisioning::default();
        change(&mut config);
        let also = vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()];
        Tls::new(&config, [10, 77, 0, 1].into(), also, Path::new("/state")).map_err(|e| e.to_string())
    }

    #[test]
    fn keys_go_together() {
        assert_eq!(tls(|_| {}), Ok(None));
        let own = tls(|c| c.tls_port = Some(8443)).unwrap().unwrap();
        assert_eq!((own.url().as_str(), own.for_firmware), ("https://10.77.0.1:8443", false));
        let addresses = vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()];
        assert_eq!(own.source, Source::Own { directory: "/state/tls".into(), addresses });
        let given = tls(|c| {
            (c.tls_port, c.tls_certificate, c.tls_key) = (Some(443), Some("/c".into()), Some("/k".into()));
        });
        let files = Source::Files { certificate: "/c".into(), key: "/k".into() };
        assert_eq!(given.unwrap().unwrap().source, files);
        assert!(tls(|c| c.firmware_by_https = true).unwrap_err().contains("need tls_port"));
        assert!(tls(|c| c.tls_key = Some("/k".into())).unwrap_err().contains("need tls_port"));
        assert!(tls(|c| c.tls_port = Some(8080)).unwrap_err().contains("must differ"));
        let half = tls(|c| (c.tls_port, c.tls_key) = (Some(443), Some("/k".into())));
        assert!(half.unwrap_err().contains("together"));
    }
}
