//! What proves who a user is: passwords, one-time passwords, sessions. What they may do lies in `tenancy`.
//!
//! ```text
//! name, password, code ─▶ lock-out ─▶ argon2id (two at a time) ─▶ code ─▶ session ─▶ cookie, or bearer token
//! ```
//!
//! Passwords are kept as hashes, keys of second factors sealed, sessions and recovery codes as hashes. A name that nobody has takes
//! the same time as one that somebody has.

pub mod password;
mod second;
mod sessions;
pub mod totp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boot_server_core::lockout::Lockout;
use protocol::{Sha256, UserId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use second::Enrolment;

use crate::engine::{EngineError, lock, now};
use crate::principal::Principal;
use crate::store::credentials::{self as rows, Credentials, Session};
use crate::store::{Store, StoreError};
use crate::tenancy::Tenancy;
use crate::vault::Vault;
use crate::view::Problem;

/// Passwords that are hashed at once: each takes 19 MiB and a processor.
const HASHES: usize = 2;
/// Passwords that wait for their turn; more are turned away.
const WAITING: usize = 64;

/// Why somebody is not signed in, or what proves it was not changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Too many wrong passwords.
    #[error("too many wrong passwords: wait {} seconds", .0.as_secs().max(1))]
    Wait(Duration),
    /// Too many sign in at once.
    #[error("too many sign in at this moment")]
    Busy,
    /// Name or password, or the account may not be used; which, nobody is told.
    #[error("name, password or code is wrong")]
    Wrong,
    /// The password is right, and there is a second factor.
    #[error("this account needs the code of its authenticator too")]
    CodeMissing,
    /// It cannot be one.
    #[error(transparent)]
    Weak(#[from] password::Weak),
    /// There is no enrolment to finish.
    #[error("no second factor is being set up, or the code is not one of now")]
    Code,
    /// No such session.
    #[error("no session `{0}`")]
    SessionNotFound(String),
    /// It is for users.
    #[error("this is for whoever signed in by name")]
    NoUser,
    /// The database, the vault.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl AccountError {
    /// As the client gets it.
    pub fn problem(&self) -> Problem {
        let (status, code, hint) = match self {
            Self::Wait(_) => (429, "locked-out", "wait, or let an administrator give a new password"),
            Self::Busy => (503, "busy", "try again in some seconds"),
            Self::Wrong => (401, "wrong-password", "an administrator can give a new password"),
            Self::CodeMissing => (401, "code-missing", "send `code` with the six digits, or a recovery code"),
            Self::Weak(_) => (422, "weak-password", "take some words that nobody would guess"),
            Self::Code => (422, "code", "begin anew, and check the clock of the authenticator"),
            Self::SessionNotFound(_) => (404, "session-not-found", "list them with GET /api/v1/me/sessions"),
            Self::NoUser => (409, "no-user", "tokens have no password and no sessions"),
            Self::Engine(error) => return error.problem(),
        };
        Problem { status, code: code.to_owned(), message: self.to_string(), hint: hint.to_owned() }
    }
}

/// What somebody typed to sign in.
#[derive(Debug, Clone, Copy)]
pub struct Typed<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The password.
    pub password: &'a str,
    /// Of the authenticator, or a recovery code; empty where none was typed.
    pub code: &'a str,
}

/// Where somebody signs in.
#[derive(Debug, Clone)]
pub struct At {
    /// The address.
    pub source: IpAddr,
    /// What the browser or program calls itself.
    pub agent: String,
}

/// Passwords, second factors and sessions. Cheap to clone.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    store: Store,
    tenancy: Tenancy,
    known: Mutex<Known>,
    lockout: Mutex<Lockout>,
    hashing: Semaphore,
    waiting: Semaphore,
    /// One change at a time, so that memory and database agree on the order, and a code is used once.
    changes: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    credentials: BTreeMap<UserId, Credentials>,
    sessions: BTreeMap<Sha256, KnownSession>,
    /// Keys of second factors that are being set up.
    enrolments: BTreeMap<UserId, Enrolment>,
}

struct KnownSession {
    session: Session,
    ended: CancellationToken,
}

impl Accounts {
    /// Reads them.
    ///
    /// # Errors
    /// What the store says.
    pub async fn open(store: Store, tenancy: Tenancy) -> Result<Self, StoreError> {
        let at = now();
        let read = move |db: &_| Ok((rows::credentials(db)?, rows::sessions(db, at)?));
        let (credentials, sessions) = store.read(read).await?;
        let session =
            |session: Session| (session.sha256, KnownSession { session, ended: CancellationToken::new() });
        let known = Known {
            credentials: credentials.into_iter().collect(),
            sessions: sessions.into_iter().map(session).collect(),
            enrolments: BTreeMap::new(),
        };
        Ok(Self(Arc::new(Inner {
            store,
            tenancy,
            known: Mutex::new(known),
            lockout: Mutex::default(),
            hashing: Semaphore::new(HASHES),
            waiting: Semaphore::new(WAITING),
            changes: tokio::sync::Mutex::default(),
        })))
    }

    /// Signs somebody in: who it is, and the secret of the new session.
    ///
    /// # Errors
    /// [`AccountError`]; the same for a name that nobody has as for a wrong password, and after the same work.
    pub async fn sign_in(
        &self,
        vault: &Vault,
        typed: Typed<'_>,
        at: At,
    ) -> Result<(Principal, String), AccountError> {
        self.may_try(typed.name, at.source)?;
        let user = self.0.tenancy.user(typed.name).ok().filter(|user| user.name == typed.name);
        let kept = user.as_ref().and_then(|user| self.credentials(user.id).password);
        let right = self.verify(typed.name, typed.password, kept, at.source).await?;
        let user = user.filter(|user| right && user.disabled.is_none());
        let Some(user) = user else { return Err(self.failed(typed.name, at.source)) };
        match self.check_second(vault, user.id, typed.code).await? {
            second::Second::Right => {}
            second::Second::Missing => return Err(AccountError::CodeMissing),
            second::Second::Wrong => return Err(self.failed(typed.name, at.source)),
        }
        lock(&self.0.lockout).succeeded(typed.name, at.source);
        self.begin_session(user.id, at).await
    }

    /// Gives a user a password. All sessions end but this one.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn set_password(
        &self,
        user: UserId,
        text: &str,
        but: Option<uuid::Uuid>,
    ) -> Result<(), AccountError> {
        let name = self.0.tenancy.user(&user.to_string()).map_err(|_| AccountError::Wrong)?.name;
        password::check(text, &name)?;
        let text = text.to_owned();
        let hash = self.hashing(move || password::hash(&text)).await?.map_err(EngineError::from)?;
        let _one = self.0.changes.lock().await;
        self.put(user, Credentials { password: Some(hash), ..self.credentials(user) }).await?;
        self.end_sessions_of(user, but).await
    }

    /// Gives a user another password, for whoever knows the one before.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn change_password(
        &self,
        who: &Principal,
        current: &str,
        text: &str,
        source: IpAddr,
    ) -> Result<(), AccountError> {
        let user = self.prove(who, current, source).await?;
        self.set_password(user, text, who.session).await
    }

    /// The user who asks, after they typed their password once more.
    pub(super) async fn prove(
        &self,
        who: &Principal,
        current: &str,
        source: IpAddr,
    ) -> Result<UserId, AccountError> {
        let user = who.user.filter(|_| who.session.is_some()).ok_or(AccountError::NoUser)?;
        let name = who.name.clone();
        self.may_try(&name, source)?;
        let kept = self.credentials(user).password;
        if self.verify(&name, current, kept, source).await? {
            Ok(user)
        } else {
            Err(self.failed(&name, source))
        }
    }

    /// Whether a user has a password, and a second factor.
    pub fn has(&self, user: UserId) -> (bool, bool) {
        let it = self.credentials(user);
        (it.password.is_some(), it.totp.is_some())
    }

    fn credentials(&self, user: UserId) -> Credentials {
        lock(&self.0.known).credentials.get(&user).cloned().unwrap_or_default()
    }

    async fn put(&self, user: UserId, it: Credentials) -> Result<(), AccountError> {
        let row = it.clone();
        self.0.store.write(move |db| rows::put_credentials(db, user, &row)).await?;
        lock(&self.0.known).credentials.insert(user, it);
        Ok(())
    }

    fn may_try(&self, name: &str, source: IpAddr) -> Result<(), AccountError> {
        lock(&self.0.lockout).check(name, source, now()).map_err(AccountError::Wait)
    }

    /// True where this name is locked out at this address now.
    pub fn is_locked(&self, name: &str, source: IpAddr) -> bool {
        self.may_try(name, source).is_err()
    }

    /// Counts a failure, and says it.
    fn failed(&self, name: &str, source: IpAddr) -> AccountError {
        lock(&self.0.lockout).failed(name, source, now());
        AccountError::Wrong
    }

    async fn verify(
        &self,
        name: &str,
        text: &str,
        kept: Option<String>,
        source: IpAddr,
    ) -> Result<bool, AccountError> {
        // What is longer was never a password, and is not hashed.
        let text: String = text.chars().take(password::LENGTH_MAX + 1).collect();
        let _turn = self.turn().await?;
        // Whoever waited in a crowd of guesses is counted with them.
        self.may_try(name, source)?;
        let work = move || password::verify(&text, kept.as_deref());
        Ok(tokio::task::spawn_blocking(work).await.map_err(EngineError::from)?)
    }

    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AccountError> {
        let _turn = self.turn().await?;
        Ok(tokio::task::spawn_blocking(work).await.map_err(EngineError::from)?)
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, AccountError> {
        let _place = self.0.waiting.try_acquire().map_err(|_| AccountError::Busy)?;
        self.0.hashing.acquire().await.map_err(|_| AccountError::Busy)
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

/// A moment's worth of what a browser calls itself: bounded, and without control characters.
pub fn agent(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// A name that somebody typed, as it may stand in the event list.
pub fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests;
