//! Mirrors: copies of what ports send or receive, to where the site allows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use boot_server_core::network::{Direction, Mirror, Sink};
use protocol::{MirrorId, PortId, ProjectId};
use uuid::Uuid;

use super::{
    Actor, Engine, EngineError, Held, OverlayError, added, called, changed, line, optional_name, removed, row,
};
use crate::store::overlay::{Plug, Row};

/// Mirrors of a project.
const MIRRORS_MAX: usize = 200;
/// Ports of a mirror.
const PORTS_MAX: usize = 256;

/// A mirror to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMirror {
    /// Its name, if any.
    pub name: Option<String>,
    /// Which traffic.
    pub direction: Direction,
    /// Of which ports.
    pub ports: Vec<String>,
    /// Where the copies go.
    pub sink: Sink,
}

impl Engine {
    /// Makes a mirror.
    ///
    /// # Errors
    /// [`OverlayError`], [`EngineError::NameTaken`], or what the store says.
    pub async fn create_mirror(
        &self,
        project: ProjectId,
        actor: Actor,
        wish: NewMirror,
    ) -> Result<Arc<Row<Mirror>>, EngineError> {
        let name = optional_name(wish.name.as_deref())?;
        self.check_sink(&wish.sink)?;
        let turn = self.overlay_turn().await?;
        if self.0.overlay.known(|known| Mirror::shelf(known).count(project)) >= MIRRORS_MAX {
            return Err(OverlayError::Full { what: "mirrors", limit: MIRRORS_MAX }.into());
        }
        let ports = self.ports_named(project, &wish.ports)?;
        let mirror = Mirror { project, direction: wish.direction, ports, sink: wish.sink };
        let made = row(MirrorId(Uuid::now_v7()), project, name, mirror);
        let event = line(project, &actor, "mirror.created", format!("mirror {} was made", called(&made)));
        self.overlay_commit(turn, vec![added(made.clone())], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Gives a mirror another name or other ports; what is not given stays.
    ///
    /// # Errors
    /// As for making one.
    pub async fn change_mirror(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        (name, ports): (Option<String>, Option<Vec<String>>),
    ) -> Result<Arc<Row<Mirror>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Mirror>(project, reference)?;
        let name = match &name {
            Some(name) => optional_name(Some(name))?,
            None => before.name.clone(),
        };
        let mut value = before.value.clone();
        if let Some(ports) = &ports {
            value.ports = self.ports_named(project, ports)?;
        }
        if value == before.value && name == before.name {
            return Ok(before);
        }
        let (made, step) = changed(&before, name, value);
        let event = line(project, &actor, "mirror.changed", format!("mirror {} was changed", called(&made)));
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Removes a mirror.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`], or what the store says.
    pub async fn remove_mirror(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Mirror>(project, reference)?;
        let event =
            line(project, &actor, "mirror.removed", format!("mirror {} was removed", called(&before)));
        self.overlay_commit(turn, vec![removed::<Mirror>(before.id)], Some(event)).await
    }

    fn ports_named(&self, project: ProjectId, names: &[String]) -> Result<BTreeSet<PortId>, EngineError> {
        if names.len() > PORTS_MAX {
            let what = format!("a mirror has at most {PORTS_MAX} ports");
            return Err(OverlayError::bad(what, "make another mirror").into());
        }
        names.iter().map(|name| Ok(self.overlay_thing::<Plug>(project, name)?.id)).collect()
    }

    /// The machines would send copies wherever they are told: the site says where that may be.
    fn check_sink(&self, sink: &Sink) -> Result<(), EngineError> {
        let (Sink::Gre(address, _) | Sink::Erspan(address, _)) = sink;
        if self.overlay_settings()?.mirror_to.iter().any(|cidr| cidr.contains(*address)) {
            return Ok(());
        }
        Err(not_allowed(*address).into())
    }
}

fn not_allowed(address: IpAddr) -> OverlayError {
    OverlayError::bad(
        format!("copies of traffic may not go to {address}"),
        "the site allows addresses by [overlay] mirror_to",
    )
}
