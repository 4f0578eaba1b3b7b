//! Where networks of projects meet DPUs: a server's ports, as its DPU is to have them.

use boot_server_core::dpu::{HostPort, Overlay};
use boot_server_core::server::{Server, Spec};
use protocol::{NetworkId, ProjectId, ServerId};

use super::servers::ServerError;
use super::{Engine, EngineError};

impl Engine {
    /// The site's overlay, as DPUs are told of it.
    pub(super) fn overlay_of_dpus(&self) -> Option<Overlay> {
        None
    }

    /// A server's ports, in the order of its NICs.
    pub(super) async fn host_ports(&self, _server: ServerId) -> Result<Vec<HostPort>, EngineError> {
        Ok(Vec::new())
    }

    /// Networks that somebody named.
    pub(super) fn networks_of(
        &self,
        _project: ProjectId,
        names: &[String],
    ) -> Result<Vec<NetworkId>, EngineError> {
        match names.first() {
            None => Ok(Vec::new()),
            Some(name) => {
                Err(ServerError::NoSuch { what: "network", name: name.chars().take(80).collect() }.into())
            }
        }
    }

    /// Gives a server the ports that it was asked for with.
    pub(super) async fn plug_networks(&self, _server: &Server, _spec: &Spec) -> Result<(), EngineError> {
        Ok(())
    }

    /// Takes a server's ports from it.
    pub(super) async fn release_networks(&self, _server: &Server) -> Result<(), EngineError> {
        Ok(())
    }
}
