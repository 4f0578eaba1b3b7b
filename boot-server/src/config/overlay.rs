//! `[overlay]`: networks of projects, which end on DPUs.

use boot_server_core::network::{Cidr, Encap, MTU_MAX, MTU_MIN};
use std::path::PathBuf;

use jsonrpc::{Address, Tls};
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[overlay]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Overlay {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub northbound: Option<String>,
    #[serde(default)]
    pub southbound: Option<String>,
    #[serde(default)]
    pub encap: Encap,
    #[serde(default = "mtu")]
    pub mtu: u16,
    #[serde(default)]
    pub gateways: Vec<String>,
    #[serde(default)]
    pub mirror_to: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<OverlayTls>,
}

/// `[overlay.tls]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct OverlayTls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

fn mtu() -> u16 {
    1500
}

/// Networks of projects, as the site has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySettings {
    /// OVN's northbound database; none where the site has no OVN.
    pub northbound: Option<Address>,
    /// OVN's southbound database, as DPUs are told it (`ovn-remote`).
    pub southbound: Option<String>,
    /// How frames travel.
    pub encap: Encap,
    /// Largest packet of a network in tunnels that says nothing else, in octets.
    pub mtu: u16,
    /// OVN's names of the machines that carry ways out, the best first.
    pub gateways: Vec<String>,
    /// Where copies of traffic may go.
    pub mirror_to: Vec<Cidr>,
}

/// Checks them. A site with managed switches has networks also where it says nothing of an overlay.
///
/// # Errors
/// [`ConfigError::Overlay`].
pub(super) fn settings(
    overlay: Option<&Overlay>,
    switched: bool,
) -> Result<Option<OverlaySettings>, ConfigError> {
    let without = || Overlay {
        northbound: None,
        southbound: None,
        encap: Encap::default(),
        mtu: mtu(),
        gateways: Vec::new(),
        mirror_to: Vec::new(),
        tls: None,
    };
    let overlay = overlay.cloned().or_else(|| switched.then(without));
    overlay.as_ref().map(checked).transpose()
}

fn checked(overlay: &Overlay) -> Result<OverlaySettings, ConfigError> {
    let refuse = |why: String| ConfigError::Overlay(why);
    let northbound = match &overlay.northbound {
        Some(text) => Some(northbound(text, overlay.tls.as_ref())?),
        None if overlay.tls.is_some() => return Err(refuse("tls: there is no northbound".to_owned())),
        None => None,
    };
    let remote = |text: &str| {
        let each = |part: &str| {
            part.split_once(':')
                .is_some_and(|(kind, rest)| matches!(kind, "tcp" | "ssl" | "unix") && !rest.is_empty())
        };
        text.split(',').all(each)
    };
    if let Some(southbound) = overlay.southbound.as_ref().filter(|text| !remote(text)) {
        return Err(refuse(format!("southbound: `{southbound}` is not written as tcp:192.0.2.1:6642")));
    }
    if !(MTU_MIN..=MTU_MAX).contains(&overlay.mtu) {
        return Err(refuse(format!("mtu: {} is not from {MTU_MIN} to {MTU_MAX}", overlay.mtu)));
    }
    if overlay.gateways.iter().any(String::is_empty) {
        return Err(refuse("gateways: a name is empty".to_owned()));
    }
    let cidr = |text: &String| text.parse().map_err(|error| refuse(format!("mirror_to: {error}")));
    let mirror_to = overlay.mirror_to.iter().map(cidr).collect::<Result<_, _>>()?;
    Ok(OverlaySettings {
        northbound,
        southbound: overlay.southbound.clone(),
        encap: overlay.encap,
        mtu: overlay.mtu,
        gateways: overlay.gateways.clone(),
        mirror_to,
    })
}

/// The database's address, with what TLS needs.
fn northbound(text: &str, tls: Option<&OverlayTls>) -> Result<Address, ConfigError> {
    let refuse = |why: String| ConfigError::Overlay(why);
    let address: Address = text.parse().map_err(|error| refuse(format!("northbound: {error}")))?;
    match (&address, tls) {
        (Address::Ssl(..), None) => {
            Err(refuse("northbound: ssl: needs [overlay.tls] with ca, certificate and key".to_owned()))
        }
        (Address::Ssl(..), Some(tls)) => {
            let OverlayTls { ca, certificate, key } = tls.clone();
            Ok(address.with_tls(Tls { ca, certificate, key }))
        }
        (_, Some(_)) => Err(refuse(format!("tls: {address} does not begin with ssl:"))),
        (_, None) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        let good = Overlay {
            northbound: Some("tcp:192.0.2.1:6641".to_owned()),
            southbound: Some("tcp:192.0.2.1:6642,tcp:192.0.2.2:6642".to_owned()),
            encap: Encap::Geneve,
            mtu: 1500,
            gateways: vec!["gw1".to_owned()],
            mirror_to: vec!["198.51.100.0/24".to_owned()],
            tls: None,
        };
        assert!(settings(Some(&good), false).is_ok());
        assert_eq!(settings(None, false).unwrap(), None);
        assert_eq!(settings(None, true).unwrap().unwrap().northbound, None);
        let tls = OverlayTls { ca: "/ca".into(), certificate: "/cert".into(), key: "/key".into() };
        let northbound = Some("ssl:192.0.2.1:6641".to_owned());
        let secure = Overlay { northbound: northbound.clone(), tls: Some(tls.clone()), ..good.clone() };
        let read = settings(Some(&secure), false).unwrap().unwrap();
        assert!(matches!(read.northbound, Some(Address::Ssl(_, 6641, Some(_)))));
        for (bad, word) in [
            (Overlay { northbound: Some("192.0.2.1".to_owned()), ..good.clone() }, "northbound"),
            (Overlay { southbound: Some("192.0.2.1".to_owned()), ..good.clone() }, "southbound"),
            (Overlay { northbound, ..good.clone() }, "northbound"),
            (Overlay { tls: Some(tls), ..good.clone() }, "tls"),
            (Overlay { mtu: 500, ..good.clone() }, "mtu"),
            (Overlay { gateways: vec![String::new()], ..good.clone() }, "gateways"),
            (Overlay { mirror_to: vec!["everywhere".to_owned()], ..good }, "mirror_to"),
        ] {
            let said = settings(Some(&bad), false).unwrap_err().to_string();
            assert!(said.starts_with(&format!("overlay: {word}")), "{said}");
        }
    }
}
