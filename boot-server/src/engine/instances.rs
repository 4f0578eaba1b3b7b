//! Installed OSes that ask for their own data: whose it is, by a token or by the network.
//!
//! The network proves it only where three things agree: the address that the connection comes from, what Billet knows of
//! that address (its lease, or the settings of the node), and the port that the kernel's neighbour table has there. No
//! header is read.

use std::net::{IpAddr, Ipv4Addr};

use bmc::Secret;
use boot_server_core::metadata::{Instance, neighbour};
use boot_server_core::node::Node;
use protocol::{MacAddr, NodeId, Sha256};

use super::{Engine, EngineError};
use crate::secret;
use crate::store::instances::{self, InstanceRow};
use crate::vault::Place;

/// The kernel's neighbours.
const NEIGHBOURS: &str = "/proc/net/arp";

/// An OS that may be told of itself.
#[derive(Debug, Clone)]
pub struct Asker {
    /// What it may know.
    pub instance: Instance,
    /// Names it in what is signed for it.
    pub token: Sha256,
}

fn place(node: NodeId) -> Place {
    Place { row: node.0, column: "instances.sealed" }
}

impl Engine {
    /// The row of an OS that is about to be installed.
    pub(super) fn seal_instance(
        &self,
        node: NodeId,
        instance: &Instance,
        token: Sha256,
        phone_home: Sha256,
    ) -> Result<InstanceRow, EngineError> {
        let text = serde_json::to_string(instance).unwrap_or_default();
        let sealed = self.0.vault.seal(place(node), &Secret(text))?;
        Ok(InstanceRow { token, phone_home, node, created: instance.created, sealed })
    }

    pub(super) fn open_instance(&self, row: &InstanceRow) -> Result<Option<Instance>, EngineError> {
        let text = self.0.vault.unseal(place(row.node), &row.sealed)?;
        Ok(serde_json::from_str(&text.0).ok())
    }

    /// The OS with this token, as long as it may run.
    ///
    /// # Errors
    /// Where the store or the vault fails.
    pub async fn instance_of(&self, token: &str) -> Result<Option<Asker>, EngineError> {
        let hash = secret::hash(token);
        let row = self.0.store.read(move |db| instances::by_token(db, hash)).await?;
        let Some(row) = row else { return Ok(None) };
        let node = self.0.nodes.get(row.node);
        if !node.is_some_and(|node| node.living().contains(&row.phone_home)) {
            return Ok(None);
        }
        Ok(self.open_instance(&row)?.map(|instance| Asker { instance, token: row.token }))
    }

    /// The OS of the machine at this address, where the network proves that it is that machine. The inner error says what
    /// speaks against it, for the log.
    ///
    /// # Errors
    /// Where the store or the vault fails.
    pub async fn instance_at(&self, address: IpAddr) -> Result<Result<Asker, &'static str>, EngineError> {
        let IpAddr::V4(ip) = address.to_canonical() else {
            return Ok(Err("IPv6 proves nothing here"));
        };
        let port = self.neighbour(ip).await;
        let node = match self.node_at(ip, port).await? {
            Ok(node) => node,
            Err(why) => return Ok(Err(why)),
        };
        // Not the one that is being written while the one before it may still run.
        let living = node.installed.as_ref().and_then(|os| os.phone_home).or(node.living().first().copied());
        let id = node.id;
        let rows = self.0.store.read(move |db| instances::of_node(db, id)).await?;
        let Some(row) = rows.iter().find(|row| Some(row.phone_home) == living) else {
            return Ok(Err("no OS of Billet runs on it"));
        };
        let opened = self.open_instance(row)?;
        Ok(opened.map(|instance| Asker { instance, token: row.token }).ok_or("its data cannot be read"))
    }

    /// Which node has this address, by everything that is known: the port that answers there, and our own books.
    async fn node_at(
        &self,
        ip: Ipv4Addr,
        port: Option<MacAddr>,
    ) -> Result<Result<std::sync::Arc<Node>, &'static str>, EngineError> {
        let Some(port) = port else { return Ok(Err("no port of the provisioning network answers there")) };
        let Some(node) = self.0.nodes.with_mac(port) else {
            return Ok(Err("the port that answers there is no node's"));
        };
        let own = node.network.as_ref().is_some_and(|network| network.address.address == ip);
        match self.holder(ip.into()).await? {
            Some(holder) if !node.identity.macs.contains(&holder) => {
                tracing::warn!(%ip, %port, %holder, node = %node.name, "metadata asked for from the address of another machine");
                Ok(Err("the address is lent to another machine"))
            }
            Some(_) => Ok(Ok(node)),
            None if own => Ok(Ok(node)),
            None => Ok(Err("the address is neither lent to it nor set for it")),
        }
    }

    /// The port that answers to an address on the provisioning network.
    async fn neighbour(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        let table = match tokio::fs::read_to_string(NEIGHBOURS).await {
            Ok(table) => table,
            Err(error) => {
                tracing::error!(%error, "the kernel's neighbours cannot be read: metadata goes by token alone");
                return None;
            }
        };
        neighbour::port_of(&table, ip, &self.0.settings.interface)
    }

    /// A session of the EC2 protocol (IMDSv2), good for one OS at one address until `ends`. It is signed, not kept.
    pub fn metadata_session(&self, asker: &Asker, address: IpAddr, ends: u64) -> String {
        let what = format!("metadata session of {} at {} to {ends}", asker.token, address.to_canonical());
        format!("{ends}.{}", self.0.vault.name(&what))
    }

    /// True for a session that was given to this OS at this address and has not ended.
    pub fn metadata_session_holds(&self, asker: &Asker, address: IpAddr, given: &str) -> bool {
        let ends = given.split_once('.').and_then(|(ends, _)| ends.parse().ok());
        let Some(ends) = ends.filter(|ends| *ends > super::now().0) else { return false };
        let real = self.metadata_session(asker, address, ends);
        secret::same(&secret::hash(&real), &secret::hash(given))
    }
}

#[cfg(test)]
mod tests {
    use boot_server_core::node::{Claim, Identity, State};
    use protocol::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::engine::tests::engine;
    use crate::store::queries;
    use crate::store::tests::Scratch;

    const OWN: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const OTHERS: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

    async fn add(engine: &Engine, n: u8, address: &str) -> NodeId {
        let claim = Claim { uuid: None, serial: None, macs: vec![MacAddr([0x52, 0x54, 0, 0, 0, n])] };
        let identity: Identity = claim.into_identity();
        let id = NodeId(Uuid::from_u128(u128::from(n)));
        let mut node = Node::discovered(id, format!("n{n}"), identity, Timestamp(1));
        node.state = State::Available;
        node.network = serde_json::from_str(&format!(r#"{{"address":"{address}/24"}}"#)).unwrap();
        let stored = node.clone();
        engine.store().write(move |db| queries::insert_node(db, &stored)).await.unwrap();
        engine.0.nodes.add(queries::NodeRow { node, version: 1 });
        id
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_address_is_a_nodes_only_where_port_and_books_agree() {
        let scratch = Scratch::new();
        let engine = engine(&scratch).await;
        let first = add(&engine, 1, "10.77.0.201").await;
        add(&engine, 2, "10.77.0.202").await;
        let ip = |n| Ipv4Addr::new(10, 77, 0, n);
        let at = |address, port| {
            let engine = engine.clone();
            async move { engine.node_at(address, port).await.unwrap().map(|node| node.id) }
        };
        assert_eq!(at(ip(201), Some(OWN)).await, Ok(first));
        // A neighbour that took the address, one that asks from its own, a port that nobody knows, a table without it.
        assert!(at(ip(201), Some(OTHERS)).await.is_err());
        assert_ne!(at(ip(202), Some(OTHERS)).await, Ok(first));
        assert!(at(ip(201), Some(MacAddr([2; 6]))).await.is_err());
        assert!(at(ip(201), None).await.is_err());
        assert!(at(ip(203), Some(OWN)).await.is_err(), "an address that is not its own");
        engine.store().close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_is_for_one_os_at_one_address_for_a_while() {
        let scratch = Scratch::new();
        let engine = engine(&scratch).await;
        let asker = |n| Asker {
            token: Sha256([n; 32]),
            instance: serde_json::from_value(serde_json::json!({
                "id": Uuid::nil(), "hostname": "a", "image": "x 1", "architecture": "", "created": 1,
                "ssh_keys": [], "macs": [], "port": null, "network": null, "network_config": null,
                "user_data": null, "vendor_data": "",
            }))
            .unwrap(),
        };
        let address: IpAddr = [10, 77, 0, 50].into();
        let ends = crate::engine::now().0 + 60_000;
        let session = engine.metadata_session(&asker(1), address, ends);
        assert!(engine.metadata_session_holds(&asker(1), address, &session));
        assert!(!engine.metadata_session_holds(&asker(2), address, &session), "another OS");
        assert!(
            !engine.metadata_session_holds(&asker(1), [10, 77, 0, 51].into(), &session),
            "another address"
        );
        let longer = session.replacen(&ends.to_string(), &(ends + 1).to_string(), 1);
        assert!(!engine.metadata_session_holds(&asker(1), address, &longer), "a longer life");
        let past = engine.metadata_session(&asker(1), address, 1);
        assert!(!engine.metadata_session_holds(&asker(1), address, &past), "it has ended");
        for bad in ["", ".", "x.y", "99999999999999999999999.x"] {
            assert!(!engine.metadata_session_holds(&asker(1), address, bad), "{bad}");
        }
        engine.store().close();
    }
}
