//! Where networks of projects meet DPUs: a server's ports, as its DPU is to have them.

use boot_server_core::dpu::{Dpu, HostPort, NotDesired, Overlay, nics};
use boot_server_core::network::Encap;
use boot_server_core::server::{Server, Spec};
use protocol::dpu::EncapKind;
use protocol::{MacAddr, NetworkId, ProjectId, ServerId};

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

    /// A server's ports, made those of the DPU's host before: what its NIC sends is of the port's address, and no other DPU may carry
    /// them. Beside them, why some of its ports cannot be that.
    ///
    /// # Errors
    /// Where the store fails.
    pub(super) async fn host_ports(
        &self,
        server: ServerId,
        dpu: &Dpu,
    ) -> Result<(Vec<HostPort>, Option<NotDesired>), EngineError> {
        let macs: Vec<MacAddr> = nics(dpu).into_iter().map(|(_, mac)| mac).collect();
        let refused = self.dress_ports(server, &dpu.name, &macs).await?;
        let all = self.overlay_ports_of_server(server);
        let wanted = all.len();
        let own = all.into_iter().filter(|(_, port, _)| {
            port.chassis.as_deref() == Some(dpu.name.as_str()) && macs.contains(&port.mac)
        });
        let ports: Vec<_> = own
            .map(|(port, known, mtu)| HostPort { port, mac: known.mac, mtu, limits: known.limits })
            .collect();
        let kept = match refused {
            Some(refused) => Some(NotDesired::Ports(refused.to_string())),
            None if ports.len() < wanted => Some(NotDesired::Functions { wanted, have: macs.len() }),
            None => None,
        };
        Ok((ports, kept))
    }

    /// Networks that somebody named for a server.
    ///
    /// # Errors
    /// Where the project has no network of such a name, or may have no ports on it.
    pub(super) fn networks_of(
        &self,
        project: ProjectId,
        names: &[String],
    ) -> Result<Vec<NetworkId>, EngineError> {
        names.iter().map(|name| Ok(self.network_for_ports(project, name)?.id)).collect()
    }

    /// Gives a server the ports that it was asked for with, where it has them not yet.
    ///
    /// # Errors
    /// As for making a port.
    pub(super) async fn plug_networks(&self, server: &Server, spec: &Spec) -> Result<(), EngineError> {
        for network in &spec.networks {
            let has = self.ports_of(server.id).iter().any(|port| port.value.port.network == *network);
            if !has {
                self.check_nics(server)?;
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
