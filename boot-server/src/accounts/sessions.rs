//! Sessions: begun by signing in, kept in the database, ended by time, by word, with the password, or with the user.

use std::time::Duration;

use protocol::{Sha256, Timestamp, UserId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{AccountError, Accounts, At, KnownSession};
use crate::engine::{EngineError, lock, now};
use crate::principal::Principal;
use crate::secret;
use crate::store::credentials::{self as rows, Session};
use crate::view::SessionView;

/// How long somebody stays signed in.
pub(crate) const SESSION: Duration = Duration::from_hours(12);
/// Sessions of one user; the oldest makes room.
const SESSIONS_PER_USER: usize = 50;

impl Accounts {
    /// Begins a session of somebody who proved who they are.
    ///
    /// # Errors
    /// What the store says; [`AccountError::Wrong`] for who is disabled.
    pub(crate) async fn begin_session(
        &self,
        user: UserId,
        at: At,
    ) -> Result<(Principal, String), AccountError> {
        let text = secret::token().map_err(EngineError::from)?;
        let session = Session {
            id: Uuid::now_v7(),
            user,
            sha256: secret::hash(&text),
            created: now(),
            expires: now().after(SESSION),
            source: at.source.to_canonical().to_string(),
            agent: super::agent(&at.agent),
        };
        let _one = self.0.changes.lock().await;
        let mut own = self.sessions_of(user);
        while own.len() >= SESSIONS_PER_USER {
            if let Some(oldest) = own.pop() {
                self.remove(oldest.id).await?;
            }
        }
        let row = session.clone();
        self.0.store.write(move |db| rows::insert_session(db, &row)).await?;
        let sha256 = session.sha256;
        {
            let mut known = lock(&self.0.known);
            known.sessions.retain(|_, s| s.session.expires > now());
            known.sessions.insert(sha256, KnownSession { session, ended: CancellationToken::new() });
        }
        let who = self.with_hash(&sha256, now()).ok_or(AccountError::Wrong)?;
        Ok((who, text))
    }

    /// Whoever has the session whose secret has this hash.
    pub(crate) fn with_hash(&self, sha256: &Sha256, now: Timestamp) -> Option<Principal> {
        let (id, user, expires, ended) = {
            let known = lock(&self.0.known);
            let found = known.sessions.get(sha256).filter(|s| s.session.expires > now)?;
            (found.session.id, found.session.user, found.session.expires, found.ended.clone())
        };
        let mut who = self.0.tenancy.principal(user)?;
        who.ended.push(ended);
        Some(Principal { session: Some(id), expires: Some(expires), ..who })
    }

    /// Sessions of a user, newest first.
    pub fn sessions_of(&self, user: UserId) -> Vec<SessionView> {
        let known = lock(&self.0.known);
        let own = known.sessions.values().filter(|s| s.session.user == user && s.session.expires > now());
        let mut all: Vec<SessionView> = own
            .map(|s| SessionView {
                id: s.session.id,
                created: s.session.created,
                expires: s.session.expires,
                source: s.session.source.clone(),
                agent: s.session.agent.clone(),
                present: false,
            })
            .collect();
        all.sort_by_key(|s| std::cmp::Reverse((s.created, s.id)));
        all
    }

    /// Ends a session of a user: what it holds open is cut before this returns.
    ///
    /// # Errors
    /// [`AccountError::SessionNotFound`], or what the store says.
    pub async fn end_session(&self, user: UserId, reference: &str) -> Result<SessionView, AccountError> {
        let _one = self.0.changes.lock().await;
        let id: Option<Uuid> = reference.parse().ok();
        let found = self.sessions_of(user).into_iter().find(|s| Some(s.id) == id);
        let found = found.ok_or_else(|| AccountError::SessionNotFound(super::shown(reference)))?;
        self.remove(found.id).await?;
        Ok(found)
    }

    /// Ends all sessions of a user, but this one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn end_sessions(&self, user: UserId) -> Result<(), AccountError> {
        let _one = self.0.changes.lock().await;
        self.end_sessions_of(user, None).await
    }

    pub(super) async fn end_sessions_of(&self, user: UserId, but: Option<Uuid>) -> Result<(), AccountError> {
        for session in self.sessions_of(user).into_iter().filter(|s| Some(s.id) != but) {
            self.remove(session.id).await?;
        }
        Ok(())
    }

    async fn remove(&self, id: Uuid) -> Result<(), AccountError> {
        self.0.store.write(move |db| rows::delete_session(db, id)).await?;
        let mut known = lock(&self.0.known);
        let hash = known.sessions.iter().find(|(_, s)| s.session.id == id).map(|(hash, _)| *hash);
        if let Some(ended) = hash.and_then(|hash| known.sessions.remove(&hash)) {
            ended.ended.cancel();
        }
        Ok(())
    }
}
