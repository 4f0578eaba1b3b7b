//! Named tokens: who may come in beside the site's own token, and the moment when each of them may no more.
//!
//! ```text
//! bearer, cookie, SSH ─▶ Principal ── ended() ──▶ whatever it holds open (console, stream) is cut
//!                    revoke ─▶ database ─▶ memory ─┘
//! ```
//!
//! All tokens are in memory, so a request costs no query and a revocation is felt at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boot_server_core::access::{Role, Scope, Token, is_token_name};
use boot_server_core::node::Severity;
use protocol::{Sha256, Timestamp};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::engine::{Actor, Engine, EngineError, lock, now};
pub use crate::principal::Principal;
use crate::secret;
use crate::store::queries::NewEvent;
use crate::store::{Store, StoreError, tokens as rows};
use crate::tenancy::Tenancy;
use crate::view::{Problem, TokenView};

/// Tokens that hold at once: a site has tens of people and programs.
const TOKENS_MAX: usize = 1000;
/// For so long a token that ended stays in the list.
const KEPT: Duration = Duration::from_hours(24 * 90);

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name cannot be one.
    #[error("`{0}` is no name for a token")]
    Name(String),
    /// The role is the site's own.
    #[error("a named token of the site is `operator`, `auditor` or `reader`")]
    Role,
    /// Nobody gives what they do not have.
    #[error("whoever makes a token cannot give it more than they may themselves")]
    More,
    /// It would end before it begins, or never in practice.
    #[error("a token lasts from a minute to ten years")]
    Length,
    /// No such token.
    #[error("no token `{0}`")]
    NotFound(String),
    /// As many as there may be.
    #[error("there are {TOKENS_MAX} tokens already")]
    Full,
    /// The database.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for TokenError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl TokenError {
    /// As the client gets it.
    pub fn problem(&self) -> Problem {
        let (status, code, hint) = match self {
            Self::Name(_) => (
                422,
                "token-name",
                "use 1 to 32 of a-z, 0-9 and . _ - @, and none of operator, admin, agent, machine, server",
            ),
            Self::Role => (422, "token-role", "the role `admin` is that of the site's token file alone"),
            Self::More => (403, "token-role", "ask for a role that yours covers"),
            Self::Length => (422, "token-length", "give `expires_in_seconds` from 60 to 315360000, or none"),
            Self::NotFound(_) => (404, "token-not-found", "list them with `billet token list`"),
            Self::Full => (409, "tokens-full", "revoke those that nobody uses"),
            Self::Engine(error) => return error.problem(),
        };
        Problem { status, code: code.to_owned(), message: self.to_string(), hint: hint.to_owned() }
    }
}

/// All named tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    store: Store,
    tenancy: Tenancy,
    accounts: Accounts,
    known: Mutex<BTreeMap<Uuid, Known>>,
}

struct Known {
    token: Token,
    ended: CancellationToken,
}

impl Tokens {
    /// Reads them; forgets those that ended long ago.
    ///
    /// # Errors
    /// What the store says.
    pub async fn open(store: Store) -> Result<Self, StoreError> {
        let before = Timestamp(now().0.saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX)));
        store.write(move |db| rows::forget(db, before)).await?;
        let known = store.read(rows::tokens).await?.into_iter().map(|token| (token.id, Known::new(token)));
        let tenancy = Tenancy::open(store.clone()).await?;
        let accounts = Accounts::open(store.clone(), tenancy.clone()).await?;
        Ok(Self(Arc::new(Inner { store, tenancy, accounts, known: Mutex::new(known.collect()) })))
    }

    /// Projects, users and what they are there: a token is good for no more than its maker.
    pub fn tenancy(&self) -> &Tenancy {
        &self.0.tenancy
    }

    /// Passwords, second factors and sessions of users.
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// Makes a token of the site, as the site's own token does. The text is given once and never again.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn create(
        &self,
        name: &str,
        role: Role,
        lasts: Option<Duration>,
    ) -> Result<(TokenView, String), TokenError> {
        self.create_by(&Principal::site(), Scope::Site, name, role, lasts).await
    }

    /// Makes a token that is good in `scope`, for somebody with a role there that covers its role.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn create_by(
        &self,
        by: &Principal,
        scope: Scope,
        name: &str,
        role: Role,
        lasts: Option<Duration>,
    ) -> Result<(TokenView, String), TokenError> {
        let own = match scope {
            Scope::Site => by.site,
            Scope::Project(project) => by.role_in(project),
        };
        if !own.is_some_and(|own| own.covers(role)) {
            return Err(TokenError::More);
        }
        if !is_token_name(name) {
            return Err(TokenError::Name(name.chars().take(80).collect()));
        }
        if scope == Scope::Site && (role == Role::Admin || !role.is_of_site()) {
            return Err(TokenError::Role);
        }
        if scope == Scope::Site && self.0.tenancy.user(name).is_ok() {
            // The event list must not call two by one name.
            return Err(StoreError::NameTaken(name.to_owned()).into());
        }
        let year = Duration::from_hours(24 * 365);
        if lasts.is_some_and(|d| !(Duration::from_mins(1)..=year * 10).contains(&d)) {
            return Err(TokenError::Length);
        }
        let at = now();
        if lock(&self.0.known).values().filter(|k| k.token.holds(at)).count() >= TOKENS_MAX {
            return Err(TokenError::Full);
        }
        let text = secret::token().map_err(EngineError::from)?;
        let token = Token {
            id: Uuid::now_v7(),
            name: name.to_owned(),
            sha256: secret::hash(&text),
            scope,
            role,
            maker: by.user,
            created: at,
            expires: lasts.map(|d| at.after(d)),
            revoked: None,
        };
        let row = token.clone();
        self.0.store.write(move |db| rows::insert(db, &row)).await?;
        let view = TokenView::of(&token, at);
        lock(&self.0.known).insert(token.id, Known::new(token));
        Ok((view, text))
    }

    /// Ends a token, by name or id: its sessions, consoles and streams are cut before this returns.
    ///
    /// # Errors
    /// [`TokenError::NotFound`], or what the store says; then it still holds.
    pub async fn revoke(&self, scope: Scope, reference: &str) -> Result<TokenView, TokenError> {
        let at = now();
        let id = self.find_in(scope, reference).map(|token| token.id);
        let id = id.ok_or_else(|| TokenError::NotFound(reference.chars().take(80).collect()))?;
        self.0.store.write(move |db| rows::revoke(db, id, at)).await?;
        let mut known = lock(&self.0.known);
        let known = known.get_mut(&id).ok_or_else(|| TokenError::NotFound(id.to_string()))?;
        known.token.revoked.get_or_insert(at);
        known.ended.cancel();
        Ok(TokenView::of(&known.token, at))
    }

    /// A token of this scope, by name (one that holds) or id.
    pub fn find_in(&self, scope: Scope, reference: &str) -> Option<TokenView> {
        let at = now();
        let known = lock(&self.0.known);
        let own = |k: &&Known| k.token.scope == scope;
        let named = known.values().filter(own).find(|k| k.token.holds(at) && k.token.name == reference);
        let found = named.or_else(|| known.get(&reference.parse().ok()?).filter(own));
        found.map(|k| TokenView::of(&k.token, at))
    }

    /// All of this scope, newest first.
    pub fn list(&self, scope: Scope) -> Vec<TokenView> {
        let at = now();
        let known = lock(&self.0.known);
        let own = known.values().filter(|k| k.token.scope == scope);
        let mut all: Vec<TokenView> = own.map(|k| TokenView::of(&k.token, at)).collect();
        drop(known);
        all.sort_by_key(|t| std::cmp::Reverse((t.created, t.id)));
        all
    }

    /// Whoever has the token with this hash. A hash of 256 random bits is not found by trying, nor by timing.
    pub fn with_hash(&self, sha256: &Sha256, now: Timestamp) -> Option<Principal> {
        self.find(now, |token| secret::same(&token.sha256, sha256))
    }

    /// Whoever has the token with this id.
    pub fn with_id(&self, id: Uuid, now: Timestamp) -> Option<Principal> {
        self.find(now, |token| token.id == id)
    }

    /// Whoever has the token of the site with this name.
    pub fn with_name(&self, name: &str, now: Timestamp) -> Option<Principal> {
        self.find(now, |token| token.scope == Scope::Site && token.name == name)
    }

    fn find(&self, now: Timestamp, is: impl Fn(&Token) -> bool) -> Option<Principal> {
        let (token, ended) = {
            let known = lock(&self.0.known);
            let found = known.values().find(|k| k.token.holds(now) && is(&k.token))?;
            (found.token.clone(), found.ended.clone())
        };
        self.principal(token, ended)
    }

    /// Nobody, where the maker may not do any more what the token allows, or the project was closed.
    fn principal(&self, token: Token, ended: CancellationToken) -> Option<Principal> {
        let tenancy = &self.0.tenancy;
        let mut ended = vec![ended];
        if let Some(maker) = token.maker {
            ended.push(tenancy.rights_of(maker)?);
            tenancy.role_of(maker, token.scope).filter(|role| role.covers(token.role))?;
        }
        let (name, site, projects) = match token.scope {
            Scope::Site => (token.name, Some(token.role), BTreeMap::new()),
            Scope::Project(id) => {
                ended.push(tenancy.end_of(id)?);
                let project = tenancy.project_with_id(id)?;
                // No name of a site's token or of a user has a slash.
                (format!("{}/{}", project.name, token.name), None, BTreeMap::from([(id, token.role)]))
            }
        };
        Some(Principal {
            name,
            site,
            projects: Arc::new(projects),
            token: Some(token.id),
            user: token.maker,
            session: None,
            ended,
            expires: token.expires,
        })
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Known {
    fn new(token: Token) -> Self {
        Self { token, ended: CancellationToken::new() }
    }
}

impl TokenView {
    /// The token as the API shows it.
    pub fn of(token: &Token, now: Timestamp) -> Self {
        Self {
            id: token.id,
            name: token.name.clone(),
            project: token.scope.project(),
            role: token.role,
            maker: token.maker,
            created: token.created,
            expires: token.expires,
            revoked: token.revoked,
            holds: token.holds(now),
        }
    }
}

/// Notes in the event list what was done to a token.
///
/// # Errors
/// Where the store fails.
pub async fn note(engine: &Engine, by: Actor, kind: &str, token: &TokenView) -> Result<(), EngineError> {
    let done = if kind == "token.created" { "made" } else { "revoked" };
    let message = format!("token {} ({}) was {done}", token.name, token.role.as_str());
    let event = NewEvent::new(now(), by.name(), kind, Severity::Info, message);
    engine.record(NewEvent { project: token.project, ..event }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tokens() -> (Tokens, std::path::PathBuf) {
        let dir = std::env::temp_dir().join(format!("billet-tokens-{}", Uuid::new_v4()));
        let store = Store::open(&dir.join("billet.db")).unwrap();
        (Tokens::open(store).await.unwrap(), dir)
    }

    #[tokio::test]
    async fn a_revoked_token_is_felt_at_once_and_after_a_restart() {
        let (tokens, dir) = tokens().await;
        let (view, text) = tokens.create("alice", Role::Operator, None).await.unwrap();
        assert!(matches!(
            tokens.create("alice", Role::Reader, None).await,
            Err(TokenError::Engine(EngineError::NameTaken(_)))
        ));
        let who = tokens.with_hash(&secret::hash(&text), now()).unwrap();
        assert_eq!(
            (who.name().as_str(), who.site, who.token),
            ("alice", Some(Role::Operator), Some(view.id))
        );
        assert!(tokens.with_hash(&secret::hash("other"), now()).is_none());
        let waiting = tokio::spawn(async move { who.ended().await });
        tokens.revoke(Scope::Site, "alice").await.unwrap();
        assert_eq!(waiting.await.unwrap(), "the token was revoked");
        assert!(tokens.with_id(view.id, now()).is_none());
        assert!(matches!(tokens.revoke(Scope::Site, "alice").await, Err(TokenError::NotFound(_))));
        let again = Tokens::open(tokens.0.store.clone()).await.unwrap();
        assert!(again.with_hash(&secret::hash(&text), now()).is_none());
        assert_eq!(again.list(Scope::Site).len(), 1, "it stays in the list");
        again.create("alice", Role::Reader, None).await.unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_a_token_is_refused() {
        let (tokens, dir) = tokens().await;
        let code = |e: TokenError| e.problem().code;
        for (name, role, lasts, wanted) in [
            ("Alice", Role::Reader, None, "token-name"),
            ("server", Role::Reader, None, "token-name"),
            ("alice", Role::Admin, None, "token-role"),
            ("alice", Role::Reader, Some(Duration::from_secs(59)), "token-length"),
        ] {
            assert_eq!(code(tokens.create(name, role, lasts).await.unwrap_err()), wanted);
        }
        let (view, _) = tokens.create("bob", Role::Reader, Some(Duration::from_mins(1))).await.unwrap();
        assert!(tokens.with_name("bob", view.created).is_some());
        assert!(tokens.with_name("bob", view.created.after(Duration::from_mins(1))).is_none());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
