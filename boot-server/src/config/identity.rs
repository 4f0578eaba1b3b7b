//! `[identity]`: what an agent must have proven before something is handed to it.

use std::collections::BTreeMap;

use boot_server_core::names::PoolName;
use boot_server_core::node::{Level, Needs};
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// As it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Identity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<Level>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc_account: Option<Level>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_keys: Option<Level>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolIdentity>,
}

/// The same of machines of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct PoolIdentity {
    pub pool: PoolName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<Level>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_account: Option<Level>,
}

/// What the site wants of whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentitySettings {
    site: Needs,
    pools: BTreeMap<PoolName, Needs>,
}

impl IdentitySettings {
    /// Fills in what was left open.
    ///
    /// # Errors
    /// Where a secret would go to anybody.
    pub fn new(config: &Identity) -> Result<Self, ConfigError> {
        if config.disk_keys.is_some_and(|level| level != Level::T3) {
            return Err(refuse(
                "disk_keys",
                "can be nothing but \"t3\": a key of a disk is worth no less proof",
            ));
        }
        let needs = |user_data: Option<Level>, bmc_account: Option<Level>, of: Needs| {
            let needs = Needs {
                user_data: user_data.unwrap_or(of.user_data),
                bmc_account: bmc_account.unwrap_or(of.bmc_account),
            };
            match [needs.user_data, needs.bmc_account].contains(&Level::T0) {
                true => Err(refuse("user_data and bmc_account", "cannot be \"t0\": that is anybody")),
                false => Ok(needs),
            }
        };
        let site = needs(config.user_data, config.bmc_account, Needs::default())?;
        let mut pools = BTreeMap::new();
        for of in &config.pools {
            if pools.insert(of.pool.clone(), needs(of.user_data, of.bmc_account, site)?).is_some() {
                return Err(refuse("pools", &format!("has pool {} twice", of.pool)));
            }
        }
        Ok(Self { site, pools })
    }

    /// What is wanted of a machine of this pool.
    pub fn of(&self, pool: &PoolName) -> Needs {
        self.pools.get(pool).copied().unwrap_or(self.site)
    }
}

fn refuse(key: &str, why: &str) -> ConfigError {
    ConfigError::Identity { what: format!("identity.{key} {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<IdentitySettings, String> {
        let config: Identity = toml::from_str(text).map_err(|e| e.to_string())?;
        IdentitySettings::new(&config).map_err(|e| e.to_string())
    }

    #[test]
    fn a_pool_wants_what_the_site_wants_unless_it_says_otherwise() {
        let it = settings("user_data = \"t2\"\n[[pools]]\npool = \"gold\"\nbmc_account = \"t3\"\n").unwrap();
        let of = |name: &str| it.of(&name.parse().unwrap());
        assert_eq!(of("default"), Needs { user_data: Level::T2, bmc_account: Level::T1 });
        assert_eq!(of("gold"), Needs { user_data: Level::T2, bmc_account: Level::T3 });
        assert_eq!(settings("").unwrap().of(&PoolName::default_pool()), Needs::default());
    }

    #[test]
    fn what_would_give_secrets_to_anybody_is_refused() {
        for wrong in [
            "disk_keys = \"t2\"",
            "user_data = \"t0\"",
            "[[pools]]\npool = \"a\"\nbmc_account = \"t0\"",
            "[[pools]]\npool = \"a\"\n[[pools]]\npool = \"a\"",
            "[[pools]]\nuser_data = \"t2\"",
            "x = 1",
        ] {
            assert!(settings(wrong).is_err(), "{wrong}");
        }
        assert!(settings("disk_keys = \"t3\"").is_ok());
    }
}
