//! Who is what in which project.

use boot_server_core::access::Role;
use protocol::{ProjectId, UserId};

use super::{MEMBERS_MAX, Tenancy, TenancyError};
use crate::engine::{lock, now};
use crate::store::tenancy::{self as rows, Membership};
use crate::view::MemberView;

impl Tenancy {
    /// Members of a project, by name.
    pub fn members(&self, project: ProjectId) -> Vec<MemberView> {
        let known = lock(&self.0.known);
        let own = known.members.iter().filter(|((p, _), _)| *p == project);
        let mut all: Vec<MemberView> = own
            .filter_map(|((_, id), (role, since))| {
                let user = &known.users.get(id)?.user;
                Some(MemberView {
                    user: *id,
                    name: user.name.clone(),
                    full_name: user.body.full_name.clone(),
                    role: *role,
                    since: *since,
                    disabled: user.disabled,
                })
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Takes a user into a project, or gives them another role in it. What they hold open is cut where the role changes.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn set_member(
        &self,
        project: ProjectId,
        user: UserId,
        role: Role,
    ) -> Result<MemberView, TenancyError> {
        let _one = self.0.changes.lock().await;
        let before = lock(&self.0.known).members.get(&(project, user)).copied();
        if before.is_none() && self.members(project).len() >= MEMBERS_MAX {
            return Err(TenancyError::Full(format!("{MEMBERS_MAX} members")));
        }
        let it = Membership { project, user, role, since: before.map_or_else(now, |(_, since)| since) };
        self.0.store.write(move |db| rows::put_membership(db, &it)).await?;
        {
            let mut known = lock(&self.0.known);
            known.members.insert((project, user), (role, it.since));
            if before.is_some_and(|(before, _)| before != role) {
                known.cut(user);
            }
        }
        let found = self.members(project).into_iter().find(|m| m.user == user);
        found.ok_or_else(|| TenancyError::UserNotFound(user.to_string()))
    }

    /// Takes a user out of a project; what they hold open is cut.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn remove_member(&self, project: ProjectId, user: UserId) -> Result<MemberView, TenancyError> {
        let _one = self.0.changes.lock().await;
        let found = self.members(project).into_iter().find(|m| m.user == user);
        let found = found.ok_or_else(|| TenancyError::MemberNotFound(user.to_string()))?;
        self.0.store.write(move |db| rows::delete_membership(db, project, user)).await?;
        let mut known = lock(&self.0.known);
        known.members.remove(&(project, user));
        known.cut(user);
        Ok(found)
    }
}
