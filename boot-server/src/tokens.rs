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

use boot_server_core::access::{Role, Token, is_token_name};
use boot_server_core::node::Severity;
use protocol::{Sha256, Timestamp};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::engine::{Actor, Engine, EngineError, lock, now};
use crate::secret;
use crate::store::{Store, StoreError, tokens as rows};
use crate::view::{Problem, TokenView};

/// Tokens that hold at once: a site has tens of people and programs.
const TOKENS_MAX: usize = 1000;
/// For so long a token that ended stays in the list.
const KEPT: Duration = Duration::from_hours(24 * 90);

/// Who asks: the site's own token, or a named one.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The token's name; empty for the site's own.
    name: String,
    /// What it allows.
    pub role: Role,
    /// The named token.
    pub token: Option<Uuid>,
    ended: CancellationToken,
    expires: Option<Timestamp>,
}

impl Principal {
    /// Whoever has the site's own token, which does not end while the server runs.
    pub fn site() -> Self {
        Self {
            name: String::new(),
            role: Role::Admin,
            token: None,
            ended: CancellationToken::new(),
            expires: None,
        }
    }

    /// As the event list calls it.
    pub fn actor(&self) -> Actor {
        Actor::Operator(self.name.clone())
    }

    /// For people.
    pub fn name(&self) -> String {
        self.actor().name().to_owned()
    }

    /// Resolves once the token holds no more, with the reason.
    pub async fn ended(&self) -> &'static str {
        let expired = async {
            match self.expires {
                Some(end) => tokio::time::sleep(end.since(now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.ended.cancelled() => "the token was revoked",
            () = expired => "the token has expired",
        }
    }
}

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name cannot be one.
    #[error("`{0}` is no name for a token")]
    Name(String),
    /// The role is the site's own.
    #[error("a named token is `operator` or `reader`")]
    Role,
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
        Ok(Self(Arc::new(Inner { store, known: Mutex::new(known.collect()) })))
    }

    /// Makes a token. The text is given once and never again.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn create(
        &self,
        name: &str,
        role: Role,
        lasts: Option<Duration>,
    ) -> Result<(TokenView, String), TokenError> {
        if !is_token_name(name) {
            return Err(TokenError::Name(name.chars().take(80).collect()));
        }
        if role == Role::Admin {
            return Err(TokenError::Role);
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
            role,
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
    pub async fn revoke(&self, reference: &str) -> Result<TokenView, TokenError> {
        let at = now();
        let id = {
            let known = lock(&self.0.known);
            let named = known.values().find(|k| k.token.holds(at) && k.token.name == reference);
            let found = named.or_else(|| known.get(&reference.parse().ok()?));
            found.map(|k| k.token.id)
        };
        let id = id.ok_or_else(|| TokenError::NotFound(reference.chars().take(80).collect()))?;
        self.0.store.write(move |db| rows::revoke(db, id, at)).await?;
        let mut known = lock(&self.0.known);
        let known = known.get_mut(&id).ok_or_else(|| TokenError::NotFound(id.to_string()))?;
        known.token.revoked.get_or_insert(at);
        known.ended.cancel();
        Ok(TokenView::of(&known.token, at))
    }

    /// All of them, newest first.
    pub fn list(&self) -> Vec<TokenView> {
        let at = now();
        let mut all: Vec<TokenView> =
            lock(&self.0.known).values().map(|k| TokenView::of(&k.token, at)).collect();
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

    /// Whoever has the token with this name.
    pub fn with_name(&self, name: &str, now: Timestamp) -> Option<Principal> {
        self.find(now, |token| token.name == name)
    }

    fn find(&self, now: Timestamp, is: impl Fn(&Token) -> bool) -> Option<Principal> {
        let known = lock(&self.0.known);
        known.values().find(|k| k.token.holds(now) && is(&k.token)).map(Known::principal)
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

    fn principal(&self) -> Principal {
        Principal {
            name: self.token.name.clone(),
            role: self.token.role,
            token: Some(self.token.id),
            ended: self.ended.clone(),
            expires: self.token.expires,
        }
    }
}

impl TokenView {
    /// The token as the API shows it.
    pub fn of(token: &Token, now: Timestamp) -> Self {
        Self {
            id: token.id,
            name: token.name.clone(),
            role: token.role,
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
    engine.note(by, None, kind, Severity::Info, message).await
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
        assert_eq!((who.name().as_str(), who.role, who.token), ("alice", Role::Operator, Some(view.id)));
        assert!(tokens.with_hash(&secret::hash("other"), now()).is_none());
        let waiting = tokio::spawn(async move { who.ended().await });
        tokens.revoke("alice").await.unwrap();
        assert_eq!(waiting.await.unwrap(), "the token was revoked");
        assert!(tokens.with_id(view.id, now()).is_none());
        assert!(matches!(tokens.revoke("alice").await, Err(TokenError::NotFound(_))));
        let again = Tokens::open(tokens.0.store.clone()).await.unwrap();
        assert!(again.with_hash(&secret::hash(&text), now()).is_none());
        assert_eq!(again.list().len(), 1, "it stays in the list");
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
