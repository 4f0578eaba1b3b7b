//! Asks the provider: what it is (OpenID Connect Discovery 1.0), its keys, and for a token in return for a code.
//! Blocking; bounded in time and size; follows no redirect.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::token::Keys;
use crate::config::{OidcSettings, may_be_asked};
use crate::http::encode;

/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest answer, in octets.
const ANSWER_MAX: u64 = 1 << 20;

/// Why the provider was of no use.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It cannot be reached, or breaks off.
    #[error("the provider cannot be asked for {what}")]
    Unreachable {
        /// Such as `its keys`.
        what: &'static str,
        /// Why.
        #[source]
        cause: Box<ureq::Error>,
    },
    /// It says no.
    #[error("the provider answers {status} when asked for {what}")]
    Refused {
        /// Such as `a token`.
        what: &'static str,
        /// HTTP status.
        status: u16,
    },
    /// It says something else.
    #[error("what the provider says of {what} makes no sense: {why}")]
    Nonsense {
        /// Such as `itself`.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// What a provider says of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Document {
    issuer: String,
    /// Where people sign in.
    pub authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Redeemed {
    id_token: Option<String>,
    access_token: Option<String>,
}

/// What a code was good for.
#[derive(Debug)]
pub struct Tokens {
    /// Says who somebody is.
    pub id: String,
    /// Lets us ask what the provider knows of them.
    pub access: Option<String>,
}

/// Asks one provider.
#[derive(Debug, Clone)]
pub struct Asker {
    agent: Agent,
}

impl Asker {
    /// For this provider.
    pub fn new(settings: &OidcSettings) -> Self {
        let mut tls = TlsConfig::builder();
        if let Some(pem) = &settings.authorities {
            let found = parse_pem(pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let found: Vec<Certificate<'static>> = found.collect();
            tls = tls.root_certs(RootCerts::Specific(Arc::new(found)));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(ANSWER))
            .tls_config(tls.build())
            .user_agent(concat!("billet/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().new_agent() }
    }

    /// What the provider says of itself.
    ///
    /// # Errors
    /// [`ProviderError`]; also where it calls itself by another name (Discovery, 4.3), or sends people or us to where others listen in.
    pub fn document(&self, issuer: &str) -> Result<Document, ProviderError> {
        let what = "itself";
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Document = read(what, self.agent.get(url).call())?;
        let nonsense = |why: &str| ProviderError::Nonsense { what, why: why.to_owned() };
        if found.issuer != issuer {
            return Err(nonsense(&format!("its name is `{}`", found.issuer)));
        }
        let endpoints = [&found.authorization_endpoint, &found.token_endpoint, &found.jwks_uri];
        for endpoint in endpoints.into_iter().chain(&found.userinfo_endpoint) {
            if !may_be_asked(endpoint) {
                return Err(nonsense(&format!("`{endpoint}` is not to be trusted")));
            }
        }
        Ok(found)
    }

    /// Its keys of now.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub fn keys(&self, document: &Document) -> Result<Keys, ProviderError> {
        read("its keys", self.agent.get(&document.jwks_uri).call())
    }

    /// Tokens in return for a code (RFC 6749, 4.1.3; RFC 7636, 4.5).
    ///
    /// # Errors
    /// [`ProviderError`].
    pub fn redeem(
        &self,
        document: &Document,
        settings: &OidcSettings,
        code: &str,
        verifier: &str,
    ) -> Result<Tokens, ProviderError> {
        let what = "a token";
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", settings.redirect.as_str()),
            ("code_verifier", verifier),
        ];
        let mut request = self.agent.post(&document.token_endpoint).header("accept", "application/json");
        // `client_secret_basic` is what every provider has, unless it says otherwise (Discovery, 3).
        let methods = document.token_endpoint_auth_methods_supported.as_deref();
        let basic = methods.is_none_or(|all| all.iter().any(|m| m == "client_secret_basic"));
        match &settings.secret {
            Some(secret) if basic => {
                let pair = format!("{}:{}", encode(&settings.client_id), encode(&secret.0));
                request = request.header("authorization", format!("Basic {}", STANDARD.encode(pair)));
            }
            Some(secret) => {
                form.extend([("client_id", settings.client_id.as_str()), ("client_secret", &secret.0)])
            }
            None => form.push(("client_id", &settings.client_id)),
        }
        let found: Redeemed = read(what, request.send_form(form))?;
        let none = || ProviderError::Nonsense { what, why: "there is no ID token".to_owned() };
        Ok(Tokens { id: found.id_token.ok_or_else(none)?, access: found.access_token })
    }

    /// What the provider tells of somebody beside the ID token, where it has a place for that (OpenID Connect Core 1.0, 5.3).
    ///
    /// # Errors
    /// [`ProviderError`]; also where it speaks of somebody else (5.3.2).
    pub fn user_info(
        &self,
        document: &Document,
        access: &str,
        subject: &str,
    ) -> Result<Map<String, Value>, ProviderError> {
        let what = "whoever signs in";
        let Some(endpoint) = &document.userinfo_endpoint else { return Ok(Map::new()) };
        let request = self.agent.get(endpoint).header("authorization", format!("Bearer {access}"));
        let found: Map<String, Value> = read(what, request.call())?;
        if found.get("sub").and_then(Value::as_str) != Some(subject) {
            return Err(ProviderError::Nonsense { what, why: "it speaks of somebody else".to_owned() });
        }
        Ok(found)
    }
}

fn read<T: DeserializeOwned>(
    what: &'static str,
    answer: Result<Response<ureq::Body>, ureq::Error>,
) -> Result<T, ProviderError> {
    let unreachable = |cause| ProviderError::Unreachable { what, cause: Box::new(cause) };
    let mut answer = answer.map_err(unreachable)?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(ProviderError::Refused { what, status });
    }
    let octets = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().map_err(unreachable)?;
    serde_json::from_slice(&octets).map_err(|e| ProviderError::Nonsense { what, why: e.to_string() })
}
