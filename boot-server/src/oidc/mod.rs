//! Signing in at the site's OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636), one provider.
//!
//! ```text
//! /oidc/login ─▶ provider (state, nonce, challenge) ─▶ /oidc/callback ─▶ code for ID token ─▶ checks ─▶ (issuer, subject) ─▶ user
//! ```
//!
//! A user is bound to issuer and subject, never to a name or an address of mail, which a provider may give to somebody else. What
//! somebody may do is said by grants in the configuration, and made so at each sign-in.

mod provider;
pub mod token;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boot_server_core::access::{Role, is_token_name};
use protocol::{Sha256, Timestamp, UserId};
use serde_json::Value;
use sha2::Digest as _;

pub use provider::ProviderError;

use crate::config::{Grant, OidcSettings};
use crate::engine::{EngineError, lock, now};
use crate::http::encode;
use crate::secret;
use crate::store::credentials as rows;
use crate::store::{Store, StoreError};
use crate::tenancy::{Tenancy, TenancyError};
use provider::{Asker, Document};
use token::{Claims, Expected, Keys, TokenError};

/// For so long somebody may be away to sign in.
const AWAY: Duration = Duration::from_mins(10);
/// People who are away at once; the one who went first makes room.
const AWAY_MAX: usize = 1000;
/// What the provider says of itself is asked for anew after so long.
const DOCUMENT: Duration = Duration::from_hours(1);
/// Keys are asked for anew, because of one that is unknown, not more often than this.
const KEYS: Duration = Duration::from_secs(10);
/// Values of the claim that are looked at.
const VALUES_MAX: usize = 2000;

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// It did not begin here, too long ago, or in another browser.
    #[error("this sign-in did not begin here, or too long ago")]
    Unknown,
    /// The provider sent somebody back with an error.
    #[error("the provider says `{0}`")]
    Denied(String),
    /// The provider is of no use.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The token is not to be believed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No grant is for them, or they are disabled.
    #[error("the provider knows {0}, whom nothing is granted here")]
    Nobody(String),
    /// Who is what could not be stored.
    #[error(transparent)]
    Tenancy(#[from] TenancyError),
    /// The database and the like.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl OidcError {
    /// In one word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "not-begun-here",
            Self::Denied(_) => "denied",
            Self::Provider(_) => "provider",
            Self::Token(_) => "bad-token",
            Self::Nobody(_) => "nobody",
            Self::Tenancy(_) | Self::Engine(_) => "not-stored",
        }
    }
}

impl From<StoreError> for OidcError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

/// Somebody who is away at the provider.
struct Away {
    nonce: String,
    verifier: String,
    next: String,
    /// Hash of a cookie: whoever comes back is the browser that went.
    browser: Sha256,
    until: Timestamp,
}

#[derive(Default)]
struct Known {
    away: BTreeMap<Sha256, Away>,
    document: Option<(Document, Timestamp)>,
    keys: Option<(Keys, Timestamp)>,
}

/// The provider. Cheap to clone.
#[derive(Clone)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    settings: OidcSettings,
    store: Store,
    tenancy: Tenancy,
    asker: Asker,
    known: Mutex<Known>,
    /// One at a time becomes a user.
    binding: tokio::sync::Mutex<()>,
}

/// Where to send a browser, and what it must bring back.
#[derive(Debug)]
pub struct Departure {
    /// The provider's page.
    pub url: String,
    /// Value of a cookie.
    pub browser: String,
}

impl Oidc {
    /// The provider of these settings; it is asked when the first person comes.
    pub fn new(settings: OidcSettings, store: Store, tenancy: Tenancy) -> Self {
        let asker = Asker::new(&settings);
        let (known, binding) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { settings, store, tenancy, asker, known, binding }))
    }

    /// Sends somebody to the provider.
    ///
    /// # Errors
    /// [`OidcError::Provider`] where it cannot be asked.
    pub async fn depart(&self, next: &str) -> Result<Departure, OidcError> {
        let document = self.document().await?;
        let fresh = || secret::token().map_err(|e| OidcError::Engine(e.into()));
        let (state, nonce, verifier, browser) = (fresh()?, fresh()?, fresh()?, fresh()?);
        let challenge = URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes()));
        let settings = &self.0.settings;
        let mark = if document.authorization_endpoint.contains('?') { '&' } else { '?' };
        let url = format!(
            "{}{mark}response_type=code&client_id={}&redirect_uri={}&scope={}&state={state}&nonce={nonce}\
             &code_challenge={challenge}&code_challenge_method=S256",
            document.authorization_endpoint,
            encode(&settings.client_id),
            encode(&settings.redirect),
            encode(&settings.scopes),
        );
        let away = Away {
            nonce,
            verifier,
            next: next.to_owned(),
            browser: secret::hash(&browser),
            until: now().after(AWAY),
        };
        let mut known = lock(&self.0.known);
        known.away.retain(|_, away| away.until > now());
        while known.away.len() >= AWAY_MAX {
            let first = known.away.iter().min_by_key(|(_, away)| away.until).map(|(state, _)| *state);
            first.map(|state| known.away.remove(&state));
        }
        known.away.insert(secret::hash(&state), away);
        Ok(Departure { url, browser })
    }

    /// Takes in whoever comes back: the user, and where they wanted to go.
    ///
    /// # Errors
    /// [`OidcError`].
    pub async fn arrive(
        &self,
        state: &str,
        browser: &str,
        result: Result<&str, &str>,
    ) -> Result<(UserId, String), OidcError> {
        // Whatever comes of it: it is good once.
        let away = lock(&self.0.known).away.remove(&secret::hash(state));
        let away =
            away.filter(|away| away.until > now() && secret::same(&away.browser, &secret::hash(browser)));
        let away = away.ok_or(OidcError::Unknown)?;
        let code = result.map_err(|error| OidcError::Denied(crate::accounts::shown(error)))?.to_owned();
        let document = self.document().await?;
        let (asker, settings) = (self.0.asker.clone(), self.0.settings.clone());
        let (asked, verifier) = (document.clone(), away.verifier.clone());
        let tokens = blocking(move || asker.redeem(&asked, &settings, &code, &verifier)).await??;
        let claims = self.check(&document, &tokens.id, &away.nonce).await?;
        let claims = self.complete(document, tokens.access, claims).await?;
        Ok((self.user(&claims).await?, away.next))
    }

    async fn check(&self, document: &Document, token: &str, nonce: &str) -> Result<Claims, OidcError> {
        let (issuer, client_id) = (self.0.settings.issuer.as_str(), self.0.settings.client_id.as_str());
        let expected = Expected { issuer, client_id, nonce, now: now() };
        let known = lock(&self.0.known).keys.clone();
        if let Some((keys, at)) = &known {
            let found = token::check(token, keys, expected);
            if found != Err(TokenError::NoKey) || now().since(*at) < KEYS {
                return Ok(found?);
            }
        }
        // The provider has other keys now, or is asked for them the first time.
        let (asker, document) = (self.0.asker.clone(), document.clone());
        let keys = blocking(move || asker.keys(&document)).await??;
        lock(&self.0.known).keys = Some((keys.clone(), now()));
        Ok(token::check(token, &keys, expected)?)
    }

    /// The claims with what the provider tells elsewhere: what follows from a scope need not be in an ID token (OpenID Connect
    /// Core 1.0, 5.4). What is in it counts.
    async fn complete(
        &self,
        document: Document,
        access: Option<String>,
        mut claims: Claims,
    ) -> Result<Claims, OidcError> {
        let (Some(access), true) = (access, claims.all[&self.0.settings.claim].is_null()) else {
            return Ok(claims);
        };
        let (asker, subject) = (self.0.asker.clone(), claims.subject.clone());
        let more = blocking(move || asker.user_info(&document, &access, &subject)).await??;
        if let Value::Object(all) = &mut claims.all {
            for (name, value) in more {
                all.entry(name).or_insert(value);
            }
        }
        Ok(claims)
    }

    async fn document(&self) -> Result<Document, OidcError> {
        let known = lock(&self.0.known).document.clone();
        if let Some((document, _)) = known.filter(|(_, at)| now().since(*at) < DOCUMENT) {
            return Ok(document);
        }
        let (asker, issuer) = (self.0.asker.clone(), self.0.settings.issuer.clone());
        let document = blocking(move || asker.document(&issuer)).await??;
        lock(&self.0.known).document = Some((document.clone(), now()));
        Ok(document)
    }

    /// The user whom the token is about, with what the grants say of them.
    async fn user(&self, claims: &Claims) -> Result<UserId, OidcError> {
        let _one = self.0.binding.lock().await;
        let (issuer, subject) = (self.0.settings.issuer.clone(), claims.subject.clone());
        let bound = {
            let (issuer, subject) = (issuer.clone(), subject.clone());
            self.0.store.read(move |db| rows::identity(db, &issuer, &subject)).await?
        };
        let granted = granted(&self.0.settings.grants, &values(&claims.all[&self.0.settings.claim]));
        let wanted = claims.all["preferred_username"].as_str().unwrap_or(&subject).to_owned();
        let user = match bound {
            Some(user) => user,
            // Who was made here first, and is granted nothing, does not become a user.
            None if granted.is_empty() => return Err(OidcError::Nobody(crate::accounts::shown(&wanted))),
            None => {
                let full = claims.all["name"].as_str().unwrap_or_default();
                let full: String = full.chars().filter(|c| !c.is_control()).take(200).collect();
                let user = self.0.tenancy.create_user(&self.free_name(&wanted), &full, None).await?.id;
                self.0.store.write(move |db| rows::insert_identity(db, &issuer, &subject, user)).await?;
                user
            }
        };
        self.make_so(user, &granted).await?;
        match self.0.tenancy.principal(user) {
            Some(who) if who.site.is_some() || !who.projects.is_empty() => Ok(user),
            _ => Err(OidcError::Nobody(crate::accounts::shown(&wanted))),
        }
    }

    /// Roles that grants speak of are those that the grants give; others stay as people made them.
    async fn make_so(&self, user: UserId, granted: &Granted) -> Result<(), OidcError> {
        let (tenancy, grants) = (&self.0.tenancy, &self.0.settings.grants);
        let now = tenancy.user(&user.to_string())?;
        if grants.iter().any(|grant| grant.site_role.is_some()) && now.site != granted.site {
            tenancy.change_user(user, &now.body.full_name, granted.site).await?;
        }
        for name in grants.iter().filter_map(|grant| grant.project.as_deref()) {
            let Some(project) = tenancy.project(name) else { continue };
            let members = tenancy.members(project.id);
            let own = members.iter().find(|member| member.user == user).map(|member| member.role);
            match (own, granted.projects.get(name).copied()) {
                (own, Some(role)) if own != Some(role) => {
                    tenancy.set_member(project.id, user, role).await?;
                }
                (Some(_), None) => {
                    tenancy.remove_member(project.id, user).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A name that nobody has, as near as can be to the one that the provider would like.
    fn free_name(&self, wanted: &str) -> String {
        let plain = wanted.to_lowercase();
        let plain: String =
            plain.chars().filter(|c| c.is_ascii_alphanumeric() || "._-@".contains(*c)).take(26).collect();
        let plain = plain.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let base = if is_token_name(plain) { plain } else { "user" };
        let numbered = (2..).map(|n: u32| format!("{base}-{n}"));
        let mut names = std::iter::once(base.to_owned()).chain(numbered);
        // `user` alone says nothing; with a number it says little, but is somebody's.
        let free = |name: &String| self.0.tenancy.user(name).is_err();
        names.find(free).unwrap_or_else(|| base.to_owned())
    }
}

/// What somebody is granted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Granted {
    site: Option<Role>,
    projects: BTreeMap<String, Role>,
}

impl Granted {
    fn is_empty(&self) -> bool {
        self.site.is_none() && self.projects.is_empty()
    }
}

fn granted(grants: &[Grant], values: &[&str]) -> Granted {
    let more = |old: Option<Role>, new: Role| Some(old.filter(|old| old.covers(new)).unwrap_or(new));
    let mut all = Granted::default();
    for grant in grants.iter().filter(|grant| values.contains(&grant.value.as_str())) {
        if let Some(role) = grant.site_role {
            all.site = more(all.site, role);
        }
        if let (Some(project), Some(role)) = (&grant.project, grant.role) {
            let old = all.projects.get(project).copied();
            all.projects.extend(more(old, role).map(|role| (project.clone(), role)));
        }
    }
    all
}

/// Values of a claim: one, or a list of them.
fn values(claim: &Value) -> Vec<&str> {
    match claim {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).take(VALUES_MAX).collect(),
        _ => Vec::new(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, OidcError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(EngineError::from)?)
}

#[cfg(test)]
mod tests {
    use boot_server_core::access::Scope;
    use serde_json::json;

    use super::*;

    fn grants() -> Vec<Grant> {
        let grant = |value: &str, site_role, project: Option<&str>, role| Grant {
            value: value.to_owned(),
            site_role,
            project: project.map(str::to_owned),
            role,
        };
        vec![
            grant("dc", Some(Role::Operator), None, None),
            grant("dc-read", Some(Role::Reader), None, None),
            grant("web", None, Some("web"), Some(Role::Member)),
            grant("web-admins", None, Some("web"), Some(Role::Admin)),
        ]
    }

    #[test]
    fn the_most_that_is_granted_counts() {
        let of = |values: &[&str]| granted(&grants(), values);
        assert!(of(&[]).is_empty() && of(&["other", "DC"]).is_empty());
        assert_eq!(of(&["dc-read", "dc"]).site, Some(Role::Operator));
        assert_eq!(of(&["dc", "dc-read"]).site, Some(Role::Operator));
        assert_eq!(of(&["web-admins", "web"]).projects, BTreeMap::from([("web".to_owned(), Role::Admin)]));
        assert_eq!(values(&json!("a")), ["a"]);
        assert_eq!(values(&json!(["a", 1, "b"])), ["a", "b"]);
        assert!(values(&json!({"a": 1})).is_empty());
    }

    #[tokio::test]
    async fn somebody_is_who_the_subject_says_and_no_name_takes_an_account_over() {
        let scratch = crate::store::tests::Scratch::new();
        let store = Store::open(&scratch.0.join("billet.db")).unwrap();
        let tenancy = Tenancy::open(store.clone()).await.unwrap();
        let project = tenancy.create_project("web", "").await.unwrap();
        let local = tenancy.create_user("alice", "", Some(Role::Admin)).await.unwrap();
        let settings = OidcSettings {
            issuer: "https://id.example".to_owned(),
            client_id: "billet".to_owned(),
            secret: None,
            redirect: String::new(),
            name: String::new(),
            scopes: String::new(),
            claim: "groups".to_owned(),
            authorities: None,
            grants: grants(),
        };
        let oidc = Oidc::new(settings, store, tenancy.clone());
        let claims = |subject: &str, groups: Value| Claims {
            subject: subject.to_owned(),
            all: json!({"preferred_username": "alice", "email": "alice@example", "groups": groups}),
        };
        assert!(matches!(oidc.user(&claims("s-0", json!([]))).await, Err(OidcError::Nobody(_))));
        assert_eq!(tenancy.users().len(), 1, "nobody was added");
        let first = oidc.user(&claims("s-1", json!(["web"]))).await.unwrap();
        assert_ne!(first, local.id);
        assert_eq!(tenancy.user(&first.to_string()).unwrap().name, "alice-2");
        assert_eq!(tenancy.role_of(first, Scope::Project(project.id)), Some(Role::Member));
        let second = oidc.user(&claims("s-2", json!(["dc"]))).await.unwrap();
        assert_eq!(tenancy.user(&second.to_string()).unwrap().name, "alice-3");
        // The same person, with other groups.
        assert_eq!(oidc.user(&claims("s-1", json!(["web-admins", "dc-read"]))).await.unwrap(), first);
        assert_eq!(tenancy.role_of(first, Scope::Project(project.id)), Some(Role::Admin));
        assert_eq!(tenancy.role_of(first, Scope::Site), Some(Role::Reader));
        assert!(matches!(oidc.user(&claims("s-1", json!([]))).await, Err(OidcError::Nobody(_))));
        assert_eq!(tenancy.role_of(first, Scope::Project(project.id)), None);
        assert_eq!(tenancy.role_of(local.id, Scope::Site), Some(Role::Admin), "untouched");
        tenancy.set_disabled(second, true).await.unwrap();
        assert!(matches!(oidc.user(&claims("s-2", json!(["dc"]))).await, Err(OidcError::Nobody(_))));
    }
}
