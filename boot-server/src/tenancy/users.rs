//! Users: who they are, and what they may do at the site.

use boot_server_core::access::{Role, User, UserBody, is_text, is_token_name};
use protocol::UserId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::cut;
use super::{KnownUser, Tenancy, TenancyError, USERS_MAX};
use crate::engine::{lock, now};
use crate::store::tenancy as rows;
use crate::view::{ProjectRoleView, UserView};

impl Tenancy {
    /// All users, by name.
    pub fn users(&self) -> Vec<UserView> {
        let all: Vec<User> = lock(&self.0.known).users.values().map(|k| k.user.clone()).collect();
        let mut views: Vec<UserView> =
            all.iter().map(|user| UserView::of(user, self.projects_of(user.id))).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// True until the first user is added.
    pub fn has_no_users(&self) -> bool {
        lock(&self.0.known).users.is_empty()
    }

    /// A user by name or id.
    ///
    /// # Errors
    /// [`TenancyError::UserNotFound`].
    pub fn user(&self, reference: &str) -> Result<User, TenancyError> {
        let known = lock(&self.0.known);
        let id = reference.parse::<UserId>().ok();
        let found = match id {
            Some(id) => known.users.get(&id),
            None => known.users.values().find(|k| k.user.name == reference),
        };
        found.map(|k| k.user.clone()).ok_or_else(|| TenancyError::UserNotFound(cut(reference)))
    }

    /// The user as the API shows them.
    pub fn user_view(&self, user: &User) -> UserView {
        UserView::of(user, self.projects_of(user.id))
    }

    /// What a user is in projects that are not closed, by name.
    pub fn projects_of(&self, user: UserId) -> Vec<ProjectRoleView> {
        let known = lock(&self.0.known);
        let own = known.members.iter().filter(|((_, member), _)| *member == user);
        let mut all: Vec<ProjectRoleView> = own
            .filter_map(|((id, _), (role, _))| {
                let project = known.projects.get(id).filter(|p| p.closed.is_none())?;
                Some(ProjectRoleView { project: *id, name: project.name.clone(), role: *role })
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Adds a user, who cannot sign in before they have a password or an account at the site's provider.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn create_user(
        &self,
        name: &str,
        full_name: &str,
        site: Option<Role>,
    ) -> Result<User, TenancyError> {
        let _one = self.0.changes.lock().await;
        if !is_token_name(name) || Uuid::try_parse(name).is_ok() {
            return Err(TenancyError::UserName(cut(name)));
        }
        let full_name = checked(full_name, site)?;
        if lock(&self.0.known).users.len() >= USERS_MAX {
            return Err(TenancyError::Full(format!("{USERS_MAX} users")));
        }
        let body = UserBody { full_name };
        let id = UserId(Uuid::now_v7());
        self.put_user(User { id, name: name.to_owned(), site, created: now(), disabled: None, body }).await
    }

    /// Gives a user another name for people, and another role at the site.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn change_user(
        &self,
        id: UserId,
        full_name: &str,
        site: Option<Role>,
    ) -> Result<User, TenancyError> {
        let _one = self.0.changes.lock().await;
        let before = self.user(&id.to_string())?;
        let body = UserBody { full_name: checked(full_name, site)? };
        self.put_user(User { site, body, ..before }).await
    }

    /// Lets a user sign in no more, or again. Whatever they hold open is cut, and their tokens are good for nothing while they
    /// are disabled.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn set_disabled(&self, id: UserId, disabled: bool) -> Result<User, TenancyError> {
        let _one = self.0.changes.lock().await;
        let before = self.user(&id.to_string())?;
        let disabled = disabled.then(|| before.disabled.unwrap_or_else(now));
        self.put_user(User { disabled, ..before }).await
    }

    async fn put_user(&self, user: User) -> Result<User, TenancyError> {
        let row = user.clone();
        self.0.store.write(move |db| rows::put_user(db, &row)).await?;
        let mut known = lock(&self.0.known);
        let before = known.users.get(&user.id).map(|k| (k.user.site, k.user.disabled));
        let rights = known.users.get(&user.id).map_or_else(CancellationToken::new, |k| k.rights.clone());
        known.users.insert(user.id, KnownUser { user: user.clone(), rights });
        if before.is_some_and(|before| before != (user.site, user.disabled)) {
            known.cut(user.id);
        }
        Ok(user)
    }
}

fn checked(full_name: &str, site: Option<Role>) -> Result<String, TenancyError> {
    if site.is_some_and(|role| !role.is_of_site()) {
        return Err(TenancyError::SiteRole);
    }
    let full_name = full_name.trim();
    if is_text(full_name) { Ok(full_name.to_owned()) } else { Err(TenancyError::Text("full name")) }
}
