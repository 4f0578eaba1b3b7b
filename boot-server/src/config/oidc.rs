//! `[oidc]`: signing in at the site's OpenID provider.

use std::path::PathBuf;

use bmc::Secret;
use boot_server_core::access::{Role, is_noun};
use serde::{Deserialize, Serialize};
use ureq::http::Uri;

use super::ConfigError;

/// Lines that give roles.
const GRANTS_MAX: usize = 500;

/// `[oidc]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Oidc {
    pub issuer: String,
    pub client_id: String,
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    pub url: String,
    #[serde(default = "name")]
    pub name: String,
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    #[serde(default = "claim")]
    pub claim: String,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub grants: Vec<Grant>,
}

fn name() -> String {
    "the OpenID provider".to_owned()
}

fn scopes() -> Vec<String> {
    ["openid", "profile"].map(str::to_owned).to_vec()
}

fn claim() -> String {
    "groups".to_owned()
}

/// `[[oidc.grants]]`: what somebody with a value of the claim may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "explained in config/billet.toml")]
pub struct Grant {
    pub value: String,
    #[serde(default)]
    pub site_role: Option<Role>,
    #[serde(default)]
    pub project: Option<String>,
    #[serde(default)]
    pub role: Option<Role>,
}

/// A provider, as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcSettings {
    /// Names it; what its tokens say of themselves.
    pub issuer: String,
    /// Our name there.
    pub client_id: String,
    /// Proves that it is us; without one, PKCE alone binds code and request.
    pub secret: Option<Secret>,
    /// Where people come back to.
    pub redirect: String,
    /// As people know it.
    pub name: String,
    /// What is asked for.
    pub scopes: String,
    /// The claim that grants go by.
    pub claim: String,
    /// Certificates that are trusted instead of the public ones (PEM).
    pub authorities: Option<Vec<u8>>,
    /// What its values mean.
    pub grants: Vec<Grant>,
}

/// Checks it and reads its files.
///
/// # Errors
/// [`ConfigError::Oidc`].
pub(super) fn settings(oidc: &Oidc) -> Result<OidcSettings, ConfigError> {
    let refuse = |why: String| ConfigError::Oidc(why);
    for (key, text) in [("issuer", &oidc.issuer), ("url", &oidc.url)] {
        if !may_be_asked(text) {
            return Err(refuse(format!("{key}: use https://host/…; http:// only on this machine itself")));
        }
    }
    if oidc.client_id.is_empty() {
        return Err(refuse("client_id is empty".to_owned()));
    }
    if !oidc.scopes.iter().any(|scope| scope == "openid") {
        return Err(refuse("scopes must have `openid`".to_owned()));
    }
    if oidc.grants.len() > GRANTS_MAX {
        return Err(refuse(format!("there are more than {GRANTS_MAX} grants")));
    }
    for grant in &oidc.grants {
        let whole = grant.project.is_some() == grant.role.is_some();
        if !whole || (grant.site_role.is_none() && grant.project.is_none()) {
            return Err(refuse(format!("grant `{}`: give site_role, or project and role", grant.value)));
        }
        if grant.site_role.is_some_and(|role| !role.is_of_site()) {
            return Err(refuse(format!("grant `{}`: nobody is `member` at the site", grant.value)));
        }
        if grant.project.as_ref().is_some_and(|name| !is_noun(name)) {
            return Err(refuse(format!("grant `{}`: that is no name for a project", grant.value)));
        }
    }
    let read = |key: &str, path: &PathBuf| {
        std::fs::read(path).map_err(|e| refuse(format!("cannot read {key} {}: {e}", path.display())))
    };
    let secret = oidc.client_secret_file.as_ref().map(|path| read("client_secret_file", path)).transpose()?;
    let secret = secret.map(|octets| String::from_utf8_lossy(&octets).trim().to_owned());
    if secret.as_ref().is_some_and(String::is_empty) {
        return Err(refuse("client_secret_file is empty".to_owned()));
    }
    Ok(OidcSettings {
        issuer: oidc.issuer.clone(),
        client_id: oidc.client_id.clone(),
        secret: secret.map(Secret),
        redirect: format!("{}/oidc/callback", oidc.url.trim_end_matches('/')),
        name: oidc.name.clone(),
        scopes: oidc.scopes.join(" "),
        claim: oidc.claim.clone(),
        authorities: oidc.ca_file.as_ref().map(|path| read("ca_file", path)).transpose()?,
        grants: oidc.grants.clone(),
    })
}

/// True for `https`, and for `http` on the loopback: what is said in clear text stays on this machine.
pub(crate) fn may_be_asked(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    let plain = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    plain
        && !host.is_empty()
        && (uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && loopback))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_checked_before_anybody_comes() {
        let good = "issuer = \"https://id.example/\"\nclient_id = \"billet\"\nurl = \"https://billet.example\"\n\
                    [[grants]]\nvalue = \"dc\"\nsite_role = \"operator\"\n\
                    [[grants]]\nvalue = \"web\"\nproject = \"web\"\nrole = \"member\"\n";
        let parsed = |text: &str| toml::from_str::<Oidc>(text).map_err(|e| e.to_string());
        let checked = |text: &str| settings(&parsed(text)?).map_err(|e| e.to_string());
        let fine = checked(good).unwrap();
        assert_eq!(
            (fine.redirect.as_str(), fine.scopes.as_str()),
            ("https://billet.example/oidc/callback", "openid profile")
        );
        for (from, to, why) in [
            ("https://id.example/", "http://id.example/", "issuer: use https"),
            ("https://id.example/", "https://a:b@id.example/", "issuer: use https"),
            ("\"billet\"", "\"\"", "client_id is empty"),
            ("\"operator\"", "\"member\"", "nobody is `member`"),
            ("\nrole = \"member\"", "", "give site_role, or project and role"),
            ("project = \"web\"", "project = \"Web\"", "no name for a project"),
            ("client_id", "klient_id", "klient_id"),
        ] {
            let error = checked(&good.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
