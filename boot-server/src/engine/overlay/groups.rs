//! Security groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use boot_server_core::network::{Remote, Rule, SecurityGroup};
use protocol::{ProjectId, SecurityGroupId};
use uuid::Uuid;

use super::networks::unused;
use super::{
    Actor, Engine, EngineError, Held, OverlayError, added, called, changed, checked_name, line, removed, row,
};
use crate::store::overlay::Row;

/// What ports get that name no group.
pub(super) const DEFAULT: &str = "default";
/// Security groups of a project.
const GROUPS_MAX: usize = 1000;

impl Engine {
    /// Makes a security group.
    ///
    /// # Errors
    /// [`OverlayError`], [`EngineError::NameTaken`], or what the store says.
    pub async fn create_security_group(
        &self,
        project: ProjectId,
        actor: Actor,
        name: &str,
        rules: impl FnOnce(SecurityGroupId) -> Result<BTreeSet<Rule>, EngineError>,
    ) -> Result<Arc<Row<SecurityGroup>>, EngineError> {
        let name = checked_name(name)?;
        let id = SecurityGroupId(Uuid::now_v7());
        let rules = rules(id)?;
        let turn = self.overlay_turn().await?;
        if self.0.overlay.known(|known| SecurityGroup::shelf(known).count(project)) >= GROUPS_MAX {
            return Err(OverlayError::Full { what: "security groups", limit: GROUPS_MAX }.into());
        }
        let made = row(id, project, name.clone(), SecurityGroup { project, name: name.clone(), rules });
        let event =
            line(project, &actor, "security-group.created", format!("security group {name} was made"));
        self.overlay_commit(turn, vec![added(made.clone())], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Gives a security group another name or other rules; what is not given stays. It holds on ports that run at once.
    ///
    /// # Errors
    /// As for making one.
    pub async fn change_security_group(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        (name, rules): (Option<String>, Option<BTreeSet<Rule>>),
    ) -> Result<Arc<Row<SecurityGroup>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<SecurityGroup>(project, reference)?;
        let name = name.as_deref().map_or(Ok(before.name.clone()), checked_name)?;
        if before.name == DEFAULT && name != DEFAULT {
            return Err(OverlayError::Default.into());
        }
        let rules = rules.unwrap_or_else(|| before.value.rules.clone());
        let value = SecurityGroup { project, name: name.clone(), rules };
        if value == before.value {
            return Ok(before);
        }
        let (made, step) = changed(&before, name.clone(), value);
        let message = format!("security group {name} was changed: {}", plural(made.value.rules.len()));
        let event = line(project, &actor, "security-group.changed", message);
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Removes a security group.
    ///
    /// # Errors
    /// [`OverlayError::Used`] while a port has it or a rule of another group names it, [`OverlayError::Default`].
    pub async fn remove_security_group(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<SecurityGroup>(project, reference)?;
        if before.name == DEFAULT {
            return Err(OverlayError::Default.into());
        }
        let names_it =
            |group: &SecurityGroup| group.rules.iter().any(|rule| rule.remote == Remote::Group(before.id));
        let groups = self.overlay_things::<SecurityGroup>(project, None, usize::MAX, names_it).rows;
        let groups = groups.iter().filter(|row| row.id != before.id);
        let ports = turn.members_of(before.id).map(|id| format!("port {id}"));
        let users = ports.chain(groups.map(|row| format!("security group {}", row.name))).collect();
        unused(|| format!("security group {}", called(&before)), users)?;
        let message = format!("security group {} was removed", before.name);
        let event = line(project, &actor, "security-group.removed", message);
        self.overlay_commit(turn, vec![removed::<SecurityGroup>(before.id)], Some(event)).await
    }
}

fn plural(rules: usize) -> String {
    boot_server_core::plural::count(rules, "rule")
}
