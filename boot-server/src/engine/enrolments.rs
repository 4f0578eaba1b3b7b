//! Machines that somebody announces before they boot.

use std::collections::BTreeSet;

use boot_server_core::cloud_config::is_hostname;
use boot_server_core::node::{Claim, Node, Place, Severity};
use protocol::NodeId;
use uuid::Uuid;

use super::discoveries::Attempt;
use super::{Actor, BmcChange, Change, Engine, EngineError, boots, now};
use crate::store::queries::{self, NewEvent, NodeRow};

/// What is announced of a machine.
#[derive(Debug, Clone, Default)]
pub struct Enrolment {
    /// Its name; made of its first address if not given.
    pub name: Option<String>,
    /// What it will be known by when it boots.
    pub claim: Claim,
    /// Where it stands.
    pub place: Option<Place>,
    /// Its management controller.
    pub bmc: Option<BmcChange>,
}

impl Engine {
    /// Makes a node of a machine that nobody has seen yet: it is known by its addresses or its UUID when it boots. When
    /// this returns, the node is durable.
    ///
    /// # Errors
    /// [`EngineError::NodeKnown`] where a node answers to the same, [`EngineError::NameTaken`], [`EngineError::BadName`],
    /// [`EngineError::NoIdentity`], [`EngineError::BadBmc`], or what the store says; then there is no new node.
    pub async fn enroll(&self, actor: Actor, wanted: Enrolment) -> Result<Node, EngineError> {
        let Enrolment { name, claim, place, bmc } = wanted;
        if let Some(name) = &name
            && (!is_hostname(name) || name.contains('.') || name.parse::<NodeId>().is_ok())
        {
            return Err(EngineError::BadName(name.chars().take(80).collect()));
        }
        let claim = claim.cleaned();
        if claim.macs.is_empty() && claim.uuid.is_none() {
            return Err(EngineError::NoIdentity);
        }
        if let Some(bmc) = &bmc {
            // What the controller is must be right before a node is made for it.
            self.changed_row(NodeId(Uuid::nil()), None, bmc.clone())
                .and_then(|row| self.check_target(&row))?;
        }
        let message = "somebody announced it: it is known by its addresses when it boots";
        let event = NewEvent::new(now(), actor.name(), "node.enrolled", Severity::Info, message);
        // Ended also where whoever asked goes away meanwhile: else memory would be behind the database.
        let engine = self.clone();
        let node = tokio::spawn(async move { engine.add_node(name, claim, place, event).await }).await??;
        if let Some(bmc) = bmc {
            self.set_bmc(node.id, actor, bmc).await?;
        }
        Ok(node)
    }

    async fn add_node(
        &self,
        name: Option<String>,
        claim: Claim,
        place: Option<Place>,
        event: NewEvent,
    ) -> Result<Node, EngineError> {
        let known = || self.0.nodes.like(&claim).first().map(|node| node.name.clone());
        let taken = |name: &str| self.0.nodes.with_name(name).is_some();
        let choose = |coming: usize, names: &BTreeSet<String>| {
            if self.0.nodes.len() + coming >= boots::NODES_MAX {
                return Err(EngineError::Full("it has 20,000 nodes"));
            }
            match &name {
                Some(name) if names.contains(name) || taken(name) => {
                    Err(EngineError::NameTaken(name.clone()))
                }
                Some(name) => Ok(name.clone()),
                None => Ok(boots::fresh_name(&claim, |name| names.contains(name) || taken(name))),
            }
        };
        let reservation = match self.0.discoveries.reserve(&claim, known, choose).await? {
            Attempt::Known(other) => return Err(EngineError::NodeKnown(other)),
            Attempt::Reserved(reservation) => reservation,
        };
        let (id, at) = (NodeId(Uuid::now_v7()), now());
        let mut node = Node::discovered(id, reservation.name.clone(), claim.clone().into_identity(), at);
        node.place = place;
        let (stored, event) = (node.clone(), event.on(id));
        let row = event.clone();
        let number = self
            .0
            .store
            .write(move |db| {
                queries::insert_node(db, &stored)?;
                queries::insert_event(db, &row)
            })
            .await?;
        self.0.summaries.put(id, None);
        self.0.nodes.add(NodeRow { node: node.clone(), version: 1 });
        self.announce(Change::Node(id));
        self.announce_event(number, event);
        Ok(node)
    }
}
