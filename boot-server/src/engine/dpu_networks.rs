//! Where networks of projects meet DPUs: a server's ports, as its DPU is to have them.

use boot_server_core::dpu::{Dpu, HostPort, Overlay};
use boot_server_core::network::Encap;
use boot_server_core::server::{Server, Spec};
use protocol::dpu::EncapKind;
use protocol::{NetworkId, ProjectId, ServerId};

use super::overlay::NewPort;
use super::{Actor, Engine, EngineError};

impl Engine {
    /// The site's overlay, as DPUs are told of it.
    pub(super) fn overlay_of_dpus(&self) -> Option<Overlay> {
        let settings = self.settings().overlay.as_ref()?;
        let encap = match settings.encap {
            Encap::Geneve => EncapKind::Geneve,
            Encap::Vxlan => EncapKind::Vxlan,
        };
        Some(Overlay { southbound: settings.southbound.clone()?, encap })
    }

    /// A server's ports, in the order of its NICs, made those of the DPU's host before: what its NIC sends is of the port's address, and no
    /// other DPU may carry them.
    ///
    /// # Errors
    /// Where the addresses cannot be those of the host, or the store fails.
    pub(super) async fn host_ports(&self, server: ServerId, dpu: &Dpu) -> Result<Vec<HostPort>, EngineError> {
        let macs: Vec<_> = dpu.facts.functions.iter().map(|function| function.mac).collect();
        self.dress_ports(server, &dpu.name, &macs).await?;
        let ports = self.overlay_ports_of_server(server).into_iter();
        let port = |(port, known, mtu): (_, boot_server_core::network::Port, _)| HostPort {
            port,
            mac: known.mac,
            mtu,
            limits: known.limits,
        };
        Ok(ports.map(port).collect())
    }

    /// Networks that somebody named.
    ///
    /// # Errors
    /// Where the project has no network of such a name, nor is one shared with it.
    pub(super) fn networks_of(
        &self,
        project: ProjectId,
        names: &[String],
    ) -> Result<Vec<NetworkId>, EngineError> {
        names.iter().map(|name| Ok(self.overlay_network(project, name)?.id)).collect()
    }

    /// Gives a server the ports that it was asked for with, where it has them not yet.
    ///
    /// # Errors
    /// As for making a port.
    pub(super) async fn plug_networks(&self, server: &Server, spec: &Spec) -> Result<(), EngineError> {
        for network in &spec.networks {
            let has = self.ports_of(server.id).iter().any(|port| port.value.port.network == *network);
            if !has {
                let wish = NewPort {
                    network: network.to_string(),
                    server: Some(server.id),
                    follows: true,
                    ..NewPort::default()
                };
                self.create_port(server.project, Actor::Server, wish).await?;
            }
        }
        Ok(())
    }

    /// Takes a server's ports from it.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn release_networks(&self, server: &Server) -> Result<(), EngineError> {
        self.release_ports(server.id).await
    }
}
