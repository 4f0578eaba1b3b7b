//! Network settings of machines that get none by DHCP: an address belongs to one of them, and to nobody else that Billet knows.

use std::net::Ipv4Addr;

use boot_server_core::dhcp::{Machine, Subnet};
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Event, NetworkError, Node, StaticNetwork};

use super::{Actor, Engine, EngineError};

impl Engine {
    /// Gives a node network settings, or leaves it to DHCP again.
    ///
    /// # Errors
    /// [`EngineError::Network`] where they cannot be, or what the store says.
    pub async fn set_network(
        &self,
        node: &Node,
        actor: Actor,
        network: Option<StaticNetwork>,
    ) -> Result<Node, EngineError> {
        // Two nodes must not take one address at the same time.
        let _turn = self.0.network_turn.lock().await;
        if let Some(network) = &network {
            self.check_network(Some(node), network)?;
        }
        let verb = Verb::Network { network: network.map(Box::new) };
        self.apply(node.id, actor, Event::Verb(verb)).await
    }

    /// Checks settings by themselves, and against everything that is known to have an address. `node` is `None` for one that is
    /// to be made.
    ///
    /// # Errors
    /// [`NetworkError`], what is wrong first.
    pub(super) fn check_network(
        &self,
        node: Option<&Node>,
        network: &StaticNetwork,
    ) -> Result<(), NetworkError> {
        network.check(self.settings().ipv4.map(|own| own.address))?;
        let address = network.address.address;
        let other = |other: &Node| node.is_none_or(|node| node.id != other.id);
        let has = |n: &Node| n.network.as_ref().is_some_and(|n| n.address.address == address);
        if let Some(taken) = self.0.nodes.find(|n| other(n) && has(n)) {
            return Err(NetworkError::Taken { address, node: taken.name.clone() });
        }
        if let Some(mac) = network.mac
            && let Some(owner) = self.0.nodes.with_mac(mac).filter(|owner| other(owner))
        {
            return Err(NetworkError::OthersPort { mac, node: owner.name.clone() });
        }
        let subnets = self.settings().dhcp.as_ref().map_or(&[][..], |dhcp| &dhcp.subnets);
        subnets.iter().try_for_each(|subnet| check_subnet(subnet, node, network.mac, address))
    }
}

/// A reserved address is never lent to others; one of a range may be.
fn check_subnet(
    subnet: &Subnet,
    node: Option<&Node>,
    port: Option<protocol::MacAddr>,
    address: Ipv4Addr,
) -> Result<(), NetworkError> {
    if let Some(reserved) = subnet.reservations.iter().find(|r| r.ip == address) {
        let identity = node.map(|node| &node.identity);
        let (own, whose) = match &reserved.machine {
            Machine::Mac(mac) => {
                (port == Some(*mac) || identity.is_some_and(|i| i.macs.contains(mac)), mac.to_string())
            }
            Machine::Uuid(uuid) => (identity.is_some_and(|i| i.uuid == Some(*uuid)), uuid.to_string()),
            Machine::ClientId(_) => (false, "a client identifier".to_owned()),
        };
        return if own { Ok(()) } else { Err(NetworkError::Reserved { address, whose }) };
    }
    match subnet.pools.iter().any(|pool| pool.contains(address)) {
        true => Err(NetworkError::Lent(address)),
        false => Ok(()),
    }
}
