//! What a server of a project has beside its machine: volumes and ports, and on its page the forms that give it more.

use boot_server_core::server::{Phase, Server};
use boot_server_core::volume::Status;
use protocol::ProjectId;

use super::networks::{PortRow, ports_of_server};
use super::volumes::{Row, rows};
use super::{Refusal, Ui};
use crate::store::overlay::Net;
use crate::store::servers::ServerFilter;
use crate::store::volumes::VolumeFilter;

/// As many can be chosen from in a form.
const CHOICES_MAX: usize = 500;

/// What a server has, and could have.
pub(super) struct Attached {
    /// Its machine has a DPU, so that it can have volumes.
    pub(super) takes: bool,
    pub(super) volumes: Vec<Row>,
    /// Volumes that nobody has: id and name.
    pub(super) free: Vec<(String, String)>,
    pub(super) ports: Vec<PortRow>,
    /// Ports that nobody is plugged into: id and words.
    pub(super) free_ports: Vec<(String, String)>,
    /// Networks of the project that a new port can be on: id and name.
    pub(super) networks: Vec<(String, String)>,
}

impl Attached {
    pub(super) async fn of(ui: &Ui, server: &Server) -> Result<Self, Refusal> {
        let (engine, project) = (&ui.engine, server.project);
        let takes = engine.dpu_of(server.node).is_some();
        let own = engine.volumes_of(server.id).await?;
        let filter = VolumeFilter { limit: CHOICES_MAX, ..VolumeFilter::default() };
        let all = if takes { engine.volumes(project, filter).await? } else { Vec::new() };
        let free = all.into_iter().filter(|volume| volume.status() == Status::Available);
        let (ports, free_ports) = ports_of_server(engine, project, server.id);
        Ok(Self {
            ports,
            free_ports,
            networks: networks_of(ui, project),
            takes,
            volumes: rows(engine, project, own).await?,
            free: free.map(|volume| (volume.id.to_string(), volume.name)).collect(),
        })
    }
}

/// Networks of a project that a port can be on: id and name.
pub(super) fn networks_of(ui: &Ui, project: ProjectId) -> Vec<(String, String)> {
    let own = ui.engine.overlay_things::<Net>(project, None, CHOICES_MAX, |_| true).rows;
    own.iter().map(|network| (network.id.to_string(), network.name.clone())).collect()
}

/// Servers of a project that can have volumes: id and name. Which machine has a DPU is not told, only which server can.
pub(super) async fn takers(ui: &Ui, project: ProjectId) -> Result<Vec<(String, String)>, Refusal> {
    let filter = ServerFilter { limit: CHOICES_MAX, ..ServerFilter::default() };
    let servers = ui.engine.servers(project, filter).await?.into_iter().filter(|server| {
        !matches!(server.phase, Phase::Deleting | Phase::Deleted) && ui.engine.dpu_of(server.node).is_some()
    });
    Ok(servers.map(|server| (server.id.to_string(), server.name)).collect())
}
