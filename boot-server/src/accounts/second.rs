//! Second factors: setting one up, checking its codes, recovery codes.

use protocol::{Sha256, Timestamp, UserId};

use super::{AccountError, Accounts, totp};
use crate::engine::{EngineError, lock, now};
use crate::principal::Principal;
use crate::secret;
use crate::store::credentials::Credentials;
use crate::vault::{Place, Vault};

/// For so long a second factor may be on its way.
const ENROLMENT: std::time::Duration = std::time::Duration::from_mins(15);
/// Recovery codes that come with a second factor.
const RECOVERY: usize = 10;

/// A second factor on its way: whoever asked proves by a code that the authenticator has it.
#[derive(Debug, Clone)]
pub struct Enrolment {
    pub(super) key: Vec<u8>,
    until: Timestamp,
    /// For an authenticator that cannot see: the key in base32.
    pub secret: String,
    /// For one that can.
    pub uri: String,
}

pub(super) enum Second {
    Right,
    Missing,
    Wrong,
}

fn place(user: UserId) -> Place {
    Place { row: user.0, column: "credentials.totp" }
}

impl Accounts {
    /// Begins to set up a second factor, after the password was typed once more. Nothing is kept before
    /// [`Accounts::finish_enrolment`].
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn begin_enrolment(
        &self,
        who: &Principal,
        current: &str,
        source: std::net::IpAddr,
    ) -> Result<Enrolment, AccountError> {
        let user = self.prove(who, current, source).await?;
        let key = secret::random().map_err(EngineError::from)?[..totp::KEY].to_vec();
        let (secret, uri) = (totp::base32(&key), totp::uri(&key, &who.name));
        let begun = Enrolment { key, until: now().after(ENROLMENT), secret, uri };
        let mut known = lock(&self.0.known);
        known.enrolments.retain(|_, e| e.until > now());
        known.enrolments.insert(user, begun.clone());
        Ok(begun)
    }

    /// Ends it by the first code: from now on signing in needs one. The recovery codes are given once and never again.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn finish_enrolment(
        &self,
        vault: &Vault,
        who: &Principal,
        code: &str,
    ) -> Result<Vec<String>, AccountError> {
        let user = who.user.filter(|_| who.session.is_some()).ok_or(AccountError::NoUser)?;
        let _one = self.0.changes.lock().await;
        let begun = lock(&self.0.known).enrolments.get(&user).filter(|e| e.until > now()).cloned();
        let begun = begun.ok_or(AccountError::Code)?;
        let step = totp::check(&begun.key, code, now(), None).ok_or(AccountError::Code)?;
        let codes =
            (0..RECOVERY).map(|_| recovery()).collect::<Result<Vec<_>, _>>().map_err(EngineError::from)?;
        let sealed = vault.seal(place(user), &bmc::Secret(begun.secret)).map_err(EngineError::from)?;
        let it = Credentials {
            totp: Some(sealed),
            totp_step: Some(step),
            recovery: codes.iter().map(|code| hash(code)).collect(),
            ..self.credentials(user)
        };
        self.put(user, it).await?;
        lock(&self.0.known).enrolments.remove(&user);
        Ok(codes)
    }

    /// Takes the own second factor away, after the password was typed once more.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn remove_own_second(
        &self,
        who: &Principal,
        current: &str,
        source: std::net::IpAddr,
    ) -> Result<(), AccountError> {
        let user = self.prove(who, current, source).await?;
        self.remove_second(user).await
    }

    /// Takes a second factor away: somebody lost it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn remove_second(&self, user: UserId) -> Result<(), AccountError> {
        let _one = self.0.changes.lock().await;
        let it = Credentials { totp: None, totp_step: None, recovery: Vec::new(), ..self.credentials(user) };
        self.put(user, it).await
    }

    /// Checks a code, and uses it up.
    pub(super) async fn check_second(
        &self,
        vault: &Vault,
        user: UserId,
        code: &str,
    ) -> Result<Second, AccountError> {
        let _one = self.0.changes.lock().await;
        let it = self.credentials(user);
        let Some(sealed) = &it.totp else { return Ok(Second::Right) };
        if code.trim().is_empty() {
            return Ok(Second::Missing);
        }
        let key = vault.unseal(place(user), sealed).map_err(EngineError::from)?;
        let key = totp::from_base32(&key.0).unwrap_or_default();
        if let Some(step) = totp::check(&key, code, now(), it.totp_step) {
            self.put(user, Credentials { totp_step: Some(step), ..it }).await?;
            return Ok(Second::Right);
        }
        let typed = hash(code);
        if it.recovery.iter().any(|known| secret::same(known, &typed)) {
            let left = it.recovery.iter().filter(|known| **known != typed).copied().collect();
            self.put(user, Credentials { recovery: left, ..it }).await?;
            return Ok(Second::Right);
        }
        Ok(Second::Wrong)
    }
}

/// A recovery code: 100 random bits in four groups.
fn recovery() -> Result<String, secret::NoRandomness> {
    let text = totp::base32(&secret::random()?[..13]);
    Ok(text.as_bytes()[..20].chunks(5).map(String::from_utf8_lossy).collect::<Vec<_>>().join("-"))
}

fn hash(code: &str) -> Sha256 {
    let plain: String =
        code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).take(64).collect();
    secret::hash(&plain)
}
