//! What people do with their servers.

use bmc::PowerAction;
use boot_server_core::cloud_config::is_hostname;
use boot_server_core::node::Severity;
use boot_server_core::server::{Phase, Server, Spec};
use protocol::ProjectId;
use protocol::limits::USER_DATA_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::create::{bad, check_login};
use super::{Actor, Engine, EngineError, ServerError, line, now};
use crate::power::PowerError;
use crate::store::StoreError;
use crate::view::PowerView;

/// How often a change is done again because the server went on meanwhile.
const CONFLICTS_MAX: usize = 8;

/// What to change of a server when it is installed anew; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reinstall {
    /// Another image.
    pub image: Option<String>,
    /// Other keys, by name.
    pub keys: Option<Vec<String>>,
    /// Other keys as they are.
    pub ssh_keys: Option<Vec<String>>,
    /// Other user data.
    pub user_data: Option<String>,
}

/// How to switch a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerPower {
    /// On.
    Start,
    /// Asks the OS to shut down.
    Stop,
    /// Off at once.
    StopHard,
    /// Restarts it at once.
    Reboot,
}

impl ServerPower {
    fn action(self) -> PowerAction {
        match self {
            Self::Start => PowerAction::On,
            Self::Stop => PowerAction::SoftOff,
            Self::StopHard => PowerAction::ForceOff,
            Self::Reboot => PowerAction::Reset,
        }
    }

    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Start => ("start", "server.start", "start asked for"),
            Self::Stop => ("stop", "server.stop", "shutdown asked for"),
            Self::StopHard => ("stop", "server.stop", "switching off asked for"),
            Self::Reboot => ("reboot", "server.reboot", "reboot asked for"),
        }
    }
}

impl Engine {
    /// Gives a server another name. Its OS keeps its host name until it is installed anew.
    ///
    /// # Errors
    /// [`ServerError::NotFound`], [`ServerError::BadName`], [`EngineError::NameTaken`], or where the store fails.
    pub async fn rename_server(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
        name: &str,
    ) -> Result<Server, EngineError> {
        if !is_hostname(name) || name.contains('.') {
            let short: String = name.chars().take(80).collect();
            return Err(ServerError::BadName(format!("`{short}` is not a name for a server")).into());
        }
        self.change_server(project, reference, |server| {
            if matches!(server.phase, Phase::Deleted | Phase::Deleting) {
                return Err(wrong("rename", server, "it is being given back"));
            }
            if server.name == name {
                return Ok(None);
            }
            let next = Server { name: name.to_owned(), ..server.clone() };
            let what = format!("renamed to {name}");
            Ok(Some((next, line(server, &actor, "server.renamed", Severity::Info, &what, now()))))
        })
        .await
    }

    /// Gives a server back: its machine's disks are wiped, then its claim and its usage end. Once asked for, it cannot be undone.
    ///
    /// # Errors
    /// [`ServerError::NotFound`], or where the store fails.
    pub async fn delete_server(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
    ) -> Result<Server, EngineError> {
        let lent = self.server(project, reference).await?;
        if !matches!(lent.phase, Phase::Deleted | Phase::Deleting) {
            // Here, and not where its machine is driven: the server does that by itself.
            self.check_server(&lent)?;
        }
        self.change_server(project, reference, |server| {
            if matches!(server.phase, Phase::Deleted | Phase::Deleting) {
                return Ok(None);
            }
            let next = Server { phase: Phase::Deleting, note: None, ..server.clone() };
            Ok(Some((
                next,
                line(server, &actor, "server.deleting", Severity::Info, "deletion asked for", now()),
            )))
        })
        .await
    }

    /// Puts the OS on a server anew, from the same image or another one. Its disk is erased.
    ///
    /// # Errors
    /// [`ServerError::WrongPhase`] unless it is active or stopped, or as for a deploy.
    pub async fn reinstall_server(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
        change: Reinstall,
    ) -> Result<Server, EngineError> {
        let server = self.server(project, reference).await?;
        if !matches!(server.phase, Phase::Active | Phase::Error) {
            return Err(wrong("reinstall", &server, "wait until it is active or has stopped").into());
        }
        let spec = self.changed_spec(&server, change).await?;
        let node = self.node(&server.node.to_string()).await?;
        self.check_server(&server)?;
        self.deploy_server(&server, &node, spec, actor).await
    }

    async fn changed_spec(&self, server: &Server, change: Reinstall) -> Result<Spec, EngineError> {
        let old = server.spec.clone();
        let (image, manifest) = match &change.image {
            Some(image) => self.resolve_image(image).await?,
            None => self.resolve_image(&old.image.to_string()).await?,
        };
        let mut ssh_keys = match (&change.ssh_keys, &change.keys) {
            (None, None) => old.ssh_keys,
            (given, _) => given.clone().unwrap_or_default(),
        };
        for name in change.keys.iter().flatten() {
            ssh_keys.push(self.key(server.project, name).await?.public_key);
        }
        let user = old.user.clone();
        check_login(&server.name, user.as_deref().or(manifest.default_user.as_deref()), &ssh_keys)?;
        if change.user_data.as_ref().is_some_and(|data| data.len() > USER_DATA_MAX) {
            return Err(
                bad(format!("user data is larger than {USER_DATA_MAX} bytes"), "make it smaller").into()
            );
        }
        Ok(Spec {
            image,
            image_name: format!("{} {}", manifest.name, manifest.version),
            hostname: server.name.clone(),
            user,
            ssh_keys,
            user_data: change.user_data.or(old.user_data),
            boot_volume: old.boot_volume,
            networks: old.networks,
        })
    }

    /// Switches a server's machine.
    ///
    /// # Errors
    /// [`ServerError::WrongPhase`] unless it is active, or what the controller says, in words for its project.
    pub async fn switch_server(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
        power: ServerPower,
    ) -> Result<PowerView, EngineError> {
        let server = self.server(project, reference).await?;
        let (verb, kind, what) = power.words();
        if server.phase != Phase::Active {
            return Err(wrong(verb, &server, "wait until it is active").into());
        }
        if power != ServerPower::Start {
            self.check_server(&server)?;
        }
        let event = line(&server, &actor, kind, Severity::Info, what, now());
        let row = event.clone();
        let id = self.store().write(move |db| crate::store::queries::insert_event(db, &row)).await?;
        self.announce_event(id, event);
        match self.switch(server.node, actor, power.action()).await {
            // The address of a controller is nothing for a project.
            Err(EngineError::Power(error)) => Err(hidden(&error).into()),
            other => other,
        }
    }

    /// Refuses what destroys something on a server whose machine needs two people, in words for its project.
    pub(super) fn check_server(&self, server: &Server) -> Result<(), EngineError> {
        self.check_approved(server.node).map_err(|_| EngineError::NeedsTwo(format!("server {}", server.name)))
    }

    async fn change_server(
        &self,
        project: ProjectId,
        reference: &str,
        change: impl Fn(&Server) -> Result<Option<(Server, crate::store::queries::NewEvent)>, ServerError>,
    ) -> Result<Server, EngineError> {
        for _ in 0..CONFLICTS_MAX {
            let server = self.server(project, reference).await?;
            let Some((next, event)) = change(&server)? else { return Ok(server) };
            let next = Server { version: server.version + 1, ..next };
            match self.put_server(next, Some(event)).await {
                Err(EngineError::Store(StoreError::Conflict)) => {}
                other => return other,
            }
        }
        Err(StoreError::Conflict.into())
    }
}

fn wrong(verb: &'static str, server: &Server, hint: &'static str) -> ServerError {
    ServerError::WrongPhase { verb, phase: server.phase.as_str(), hint }
}

fn hidden(error: &PowerError) -> ServerError {
    tracing::warn!(%error, "a server was not switched");
    ServerError::Bad {
        what: "its machine could not be switched".to_owned(),
        hint: "try again in a minute; if it stays so, report a fault (`billet server report`)",
    }
}
