//! `[bmc]`: how management controllers are looked at, and whether machines make Billet an account on theirs.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use boot_server_core::dhcp::net::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Longest user name of IPMI 2.0 (section 22.28).
const USER_MAX: usize = 16;

/// `[bmc]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Bmc {
    pub poll_seconds: u32,
    pub health_seconds: u32,
    pub events_url: Option<String>,
    pub images_url: Option<String>,
    pub create_account: bool,
    pub account_user: String,
    pub account_networks: Vec<String>,
    pub account_opens_lan: bool,
}

impl Default for Bmc {
    fn default() -> Self {
        Self {
            poll_seconds: 60,
            health_seconds: 300,
            events_url: None,
            images_url: None,
            create_account: false,
            account_user: "billet".to_owned(),
            account_networks: Vec::new(),
            account_opens_lan: false,
        }
    }
}

/// What the server does with management controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmcSettings {
    /// Between two readings of a machine's power.
    pub poll: Duration,
    /// Between two looks at its sensors, parts and event log.
    pub health: Duration,
    /// Base URL at which controllers are asked to send their events.
    pub events: Option<String>,
    /// Base URL at which they fetch boot images, if not that of the provisioning listener.
    pub images: Option<String>,
    /// The account that agents make, where they do.
    pub account: Option<OwnAccount>,
}

/// An account of Billet's own on a machine's controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAccount {
    /// Its name.
    pub user: String,
    /// Controllers that get one by their address; all where it is empty.
    pub networks: Vec<Ipv4Net>,
    /// Access by LAN is switched on where it is off.
    pub opens_lan: bool,
}

impl OwnAccount {
    /// True where a controller at this address gets one.
    pub fn is_for(&self, address: Ipv4Addr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(address))
    }
}

impl BmcSettings {
    pub(super) fn new(bmc: &Bmc) -> Result<Self, ConfigError> {
        let user = &bmc.account_user;
        let fits = (1..=USER_MAX).contains(&user.len()) && user.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return Err(ConfigError::Bmc(format!(
                "account_user is `{user}`: it must be 1 to {USER_MAX} printable ASCII characters without spaces"
            )));
        }
        let network = |text: &String| {
            text.parse().map_err(|_| {
                ConfigError::Bmc(format!("account_networks: `{text}` is no IPv4 network such as 10.0.0.0/24"))
            })
        };
        let account = OwnAccount {
            user: user.clone(),
            networks: bmc.account_networks.iter().map(network).collect::<Result<_, _>>()?,
            opens_lan: bmc.account_opens_lan,
        };
        Ok(Self {
            poll: between("poll_seconds", bmc.poll_seconds, 5..=3600)?,
            health: between("health_seconds", bmc.health_seconds, 30..=86_400)?,
            events: base_url("events_url", bmc.events_url.as_deref())?,
            images: base_url("images_url", bmc.images_url.as_deref())?,
            account: bmc.create_account.then_some(account),
        })
    }
}

/// An option in seconds that must lie in a range.
fn between(key: &str, seconds: u32, range: RangeInclusive<u32>) -> Result<Duration, ConfigError> {
    if range.contains(&seconds) {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let (from, to) = range.into_inner();
    Err(ConfigError::Bmc(format!("{key} is {seconds}: it must be from {from} to {to}")))
}

/// A base URL at which controllers reach this server: scheme, host and port.
fn base_url(key: &str, url: Option<&str>) -> Result<Option<String>, ConfigError> {
    let Some(url) = url.map(|url| url.trim_end_matches('/')) else { return Ok(None) };
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
    if host.is_empty() || host.len() > 255 || !host.chars().all(plain) {
        return Err(ConfigError::Bmc(format!(
            "{key} is `{url}`: it must be http:// or https:// with a host and perhaps a port"
        )));
    }
    Ok(Some(url.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_to_a_base_url() {
        let of = |url| base_url("events_url", Some(url)).ok().flatten();
        assert_eq!(of("https://10.0.0.1:8443/").as_deref(), Some("https://10.0.0.1:8443"));
        assert_eq!(of("http://[fd77::1]:8080").as_deref(), Some("http://[fd77::1]:8080"));
        for wrong in ["", "10.0.0.1", "ftp://a", "https://", "https://a/b", "https://a?b", "https://a b"] {
            assert!(base_url("events_url", Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn accounts_are_made_only_where_somebody_said_so() {
        assert_eq!(BmcSettings::new(&Bmc::default()).unwrap().account, None);
        let on = Bmc { create_account: true, account_networks: vec!["10.9.0.0/16".into()], ..Bmc::default() };
        let account = BmcSettings::new(&on).unwrap().account.unwrap();
        assert!(account.is_for([10, 9, 3, 4].into()) && !account.is_for([10, 8, 0, 1].into()));
        assert!(!account.opens_lan);
        for wrong in [
            Bmc { account_user: String::new(), ..on.clone() },
            Bmc { account_user: "seventeen letters".into(), ..on.clone() },
            Bmc { account_networks: vec!["10.9.0.0".into()], ..on.clone() },
            Bmc { poll_seconds: 1, ..on },
        ] {
            assert!(BmcSettings::new(&wrong).is_err(), "{wrong:?}");
        }
    }
}
