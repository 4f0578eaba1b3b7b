//! Who asks, and what they may do where.

use std::collections::BTreeMap;
use std::sync::Arc;

use boot_server_core::access::Role;
use protocol::{ProjectId, Timestamp, UserId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::engine::{Actor, now};

/// Who asks: the site's own token, a named one, or a user. Taken at the beginning of a request; whoever holds something open
/// (a console, a stream) waits for [`Principal::ended`].
#[derive(Debug, Clone)]
pub struct Principal {
    /// The name of token or user; empty for the site's own token.
    pub(crate) name: String,
    /// What they may do at the site, if anything.
    pub site: Option<Role>,
    /// What they were made in projects; see [`Principal::role_in`].
    pub(crate) projects: Arc<BTreeMap<ProjectId, Role>>,
    /// The named token.
    pub token: Option<Uuid>,
    /// The user: whoever signed in, or made the token.
    pub user: Option<UserId>,
    /// The session of whoever signed in by name and password, or at the site's OpenID provider.
    pub session: Option<Uuid>,
    /// Token, user and session, each of which can end.
    pub(crate) ended: Vec<CancellationToken>,
    pub(crate) expires: Option<Timestamp>,
}

impl Principal {
    /// Whoever has the site's own token, which does not end while the server runs.
    pub fn site() -> Self {
        Self {
            name: String::new(),
            site: Some(Role::Admin),
            projects: Arc::default(),
            token: None,
            user: None,
            session: None,
            ended: Vec::new(),
            expires: None,
        }
    }

    /// True for the site's own token.
    pub fn is_site(&self) -> bool {
        self.token.is_none() && self.user.is_none()
    }

    /// Tells them apart from all others, also from those who had the name before.
    pub fn key(&self) -> String {
        let token = self.token.map(|token| format!("token {token}"));
        token.or(self.user.map(|user| format!("user {user}"))).unwrap_or_else(|| "site".to_owned())
    }

    /// True where the role at the site covers this one.
    pub fn has(&self, role: Role) -> bool {
        self.site.is_some_and(|own| own.covers(role))
    }

    /// True where they may change machines.
    pub fn may_change(&self) -> bool {
        self.site.is_some_and(Role::may_change)
    }

    /// True where they may say what places the server connects to.
    pub fn may_name_places(&self) -> bool {
        self.site.is_some_and(Role::may_name_places)
    }

    /// The role in a project: what they were made there, or what comes with the role at the site, whichever is more.
    pub fn role_in(&self, project: ProjectId) -> Option<Role> {
        let (site, own) = (self.site.and_then(Role::in_every_project), self.projects.get(&project).copied());
        match (site, own) {
            (Some(site), Some(own)) if own.covers(site) => Some(own),
            (Some(site), _) => Some(site),
            (None, own) => own,
        }
    }

    /// The same person at the console of a machine that this project has: they type as far as they may change servers there.
    #[must_use]
    pub fn at_machine_of(&self, project: ProjectId) -> Self {
        let role = match self.role_in(project) {
            Some(role) if role.may_use() => Some(Role::Operator),
            Some(_) => Some(Role::Reader),
            None => None,
        };
        Self { site: role, ..self.clone() }
    }

    /// As the event list calls it.
    pub fn actor(&self) -> Actor {
        Actor::Operator(self.name.clone())
    }

    /// For people.
    pub fn name(&self) -> String {
        self.actor().name().to_owned()
    }

    /// True for all but the site's own token: what they hold open must be cut when they end.
    pub fn can_end(&self) -> bool {
        self.expires.is_some() || !self.ended.is_empty()
    }

    /// Resolves once they may be here no more, with the reason.
    pub async fn ended(&self) -> &'static str {
        let expired = async {
            match self.expires {
                Some(end) => tokio::time::sleep(end.since(now())).await,
                None => std::future::pending().await,
            }
        };
        let cut = async {
            if self.ended.is_empty() {
                std::future::pending::<()>().await;
            }
            let all = self.ended.iter().map(|ended| Box::pin(ended.cancelled()));
            futures_util::future::select_all(all).await;
        };
        match self.token {
            Some(_) => tokio::select! {
                () = cut => "the token was revoked",
                () = expired => "the token has expired",
            },
            None => tokio::select! {
                () = cut => "the session was ended, or what you may do was changed: sign in again",
                () = expired => "the session has expired: sign in again",
            },
        }
    }
}
