//! Switches that put hosts on networks, and where NICs are, as the API shows them.

use protocol::{MacAddr, NodeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::fabric::{NicCable, PortState, SwitchState, in_words};

/// A switch of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SwitchView {
    /// System name or chassis id, as LLDP tells it.
    pub name: String,
    /// Its OVSDB.
    pub address: String,
    /// The bridge with the hosts' ports.
    pub bridge: String,
    /// All switches of one fabric carry the same VLANs.
    pub fabric: String,
    /// The provisioning network's VLAN; untagged if null.
    pub provisioning_vlan: Option<u16>,
    /// VLANs of networks, such as `100-199`.
    pub vlans: String,
    /// How many of them networks have.
    pub vlans_used: usize,
    /// It answers.
    pub reached: bool,
    /// Why it does not.
    pub error: Option<String>,
    /// Ports that Billet keeps, as they are to be.
    pub ports: Vec<SwitchPortView>,
}

/// A port of a switch that Billet keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SwitchPortView {
    /// Its name.
    pub port: String,
    /// The machine at its other end.
    pub node: NodeId,
    /// Name of that.
    pub node_name: Option<String>,
    /// What it is to be in, in words: `VLAN 100`, `untagged`, `no VLAN`.
    pub carries: String,
    /// It is so, as the switch says.
    pub settled: bool,
    /// Why it is not.
    pub problem: Option<String>,
}

/// Where a NIC is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CableView {
    /// The NIC.
    pub mac: MacAddr,
    /// The switch, where it is known.
    pub switch: Option<String>,
    /// The port there.
    pub port: Option<String>,
    /// Who said so: `operator` or `lldp`.
    pub source: Option<String>,
    /// The switch is one of [[switches]] in the server's configuration.
    pub managed: bool,
}

impl SwitchView {
    /// Of a switch; `name` finds nodes.
    pub fn of(state: SwitchState, name: impl Fn(NodeId) -> Option<String>) -> Self {
        let SwitchState { settings, used, lost, ports } = state;
        let port = |state: PortState| SwitchPortView {
            node_name: name(state.want.node),
            carries: in_words(&state.want.member),
            port: state.port,
            node: state.want.node,
            settled: state.settled,
            problem: state.problem,
        };
        Self {
            address: settings.address.to_string(),
            bridge: settings.bridge,
            fabric: settings.fabric,
            provisioning_vlan: Some(settings.provisioning).filter(|vlan| *vlan != 0),
            vlans: format!("{}-{}", settings.vlans.first, settings.vlans.last),
            vlans_used: used,
            reached: lost.is_none(),
            error: lost,
            ports: ports.into_iter().map(port).collect(),
            name: settings.name,
        }
    }
}

impl From<NicCable> for CableView {
    fn from(nic: NicCable) -> Self {
        let NicCable { mac, cable, said, managed } = nic;
        let source = cable.as_ref().map(|_| if said { "operator" } else { "lldp" }.to_owned());
        let (switch, port) = cable.map(|cable| (cable.switch, cable.port)).unzip();
        Self { mac, switch, port, source, managed }
    }
}
