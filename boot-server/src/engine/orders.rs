//! What machines are ordered to boot: checked as far as it can be before the machine tries, and what becomes of it.

use std::path::PathBuf;

use boot_server_core::deploy::DeployRefused;
use boot_server_core::node::boot::KernelBoot;
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Boot, Event, Node, Repeat, check_forget};
use boot_server_core::ordered::{For, script};
use boot_server_core::profile::Around;
use boot_server_core::words::{Location, MediaPath};
use protocol::NodeId;

use super::{Actor, Change, Engine, EngineError, lock, now};
use crate::asking::carried;
use crate::media;
use crate::secret;
use crate::store::queries::{self, NewEvent};
use boot_server_core::node::Severity;

/// The longest ticket's worth of room in a URL, to find out beforehand whether a script can be written.
const TICKET: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Engine {
    /// Where media for orders lie.
    pub fn media_dir(&self) -> PathBuf {
        self.settings().media.clone()
    }

    /// Orders a boot. `confirm` is the node's name, typed by whoever asks; it is needed for what erases a disk by itself.
    ///
    /// # Errors
    /// [`EngineError::DeployRefused`] where the order cannot be carried out, or what the state machine says.
    pub async fn order_boot(
        &self,
        node: &Node,
        actor: Actor,
        boot: Boot,
        repeat: Repeat,
        confirm: Option<&str>,
    ) -> Result<Node, EngineError> {
        // Whichever the machine comes by: if the longest fits, all do.
        let base = self.settings().provisioning_urls().max_by_key(String::len).unwrap_or_default();
        script(&boot, &For { node: &node.name, base: &base, ticket: TICKET })
            .map_err(|error| refused("boot-order", error.to_string(), "shorten it, or leave the word out"))?;
        if let Some(profile) = boot.profile() {
            profile.check(&node.name)?;
            if confirm != Some(node.name.as_str()) {
                let message =
                    format!("an installer erases a disk: `confirm` must be the node's name, {}", node.name);
                return Err(refused("confirm-missing", message, "type the node's name to confirm"));
            }
        }
        self.check_media(&boot).await?;
        self.apply(node.id, actor, Event::Verb(Verb::Boot { boot: Box::new(boot), repeat })).await
    }

    /// Every file of the media directory that the order names is there now.
    async fn check_media(&self, boot: &Boot) -> Result<(), EngineError> {
        let files = media_of(boot);
        let dir = self.media_dir();
        let missing = tokio::task::spawn_blocking(move || {
            files.into_iter().find_map(|file| Some((media::open(&dir, &file).err()?, file, dir.clone())))
        });
        match missing.await? {
            None => Ok(()),
            Some((error, file, dir)) => Err(refused(
                "media-not-found",
                format!("`{file}` cannot be read in {}: {error}", dir.display()),
                "put the file there (boot.media names the directory), or give a URL",
            )),
        }
    }

    /// A machine has loaded what its script told, and starts it.
    ///
    /// # Errors
    /// A refusal where the ticket is not that of the newest script.
    pub async fn boot_begun(&self, ticket: &str) -> Result<Node, EngineError> {
        let ticket = secret::hash(ticket);
        let id = self.node_of_ticket(ticket).ok_or(boot_server_core::node::Refused::StaleBoot)?;
        self.apply(id, Actor::Machine, Event::BootBegun { ticket }).await
    }

    /// The profile of a boot that has begun, for an installer that reached us at `base`, and its node.
    ///
    /// # Errors
    /// A refusal where the ticket is not that of such a boot.
    pub fn boot_profile(&self, ticket: &str, base: &str) -> Result<(String, Node), EngineError> {
        let stale = || EngineError::from(boot_server_core::node::Refused::StaleBoot);
        let id = self.node_of_ticket(secret::hash(ticket)).ok_or_else(stale)?;
        let node = self.0.nodes.get(id).ok_or_else(stale)?;
        let order = node.boot.as_ref().filter(|order| order.begun.is_some()).ok_or_else(stale)?;
        let profile = order.boot.profile().ok_or_else(stale)?;
        let to = For { node: &node.name, base, ticket };
        let phone_home = to.phone_home_url().map_err(|_| stale())?;
        let around = Around { node: &node.name, server: base, phone_home: &phone_home };
        Ok((profile.render(&around), Node::clone(&node)))
    }

    /// The node whose newest script has a ticket of this hash.
    pub(super) fn node_of_ticket(&self, ticket: protocol::Sha256) -> Option<NodeId> {
        let has = |node: &Node| {
            let known = node.boot.as_ref().and_then(|order| order.ticket);
            known.is_some_and(|known| secret::same(&known, &ticket))
        };
        self.0.nodes.with_secret(ticket).filter(|node| has(node)).map(|node| node.id)
    }

    /// Forgets a node that nobody uses: its row, its inventory and what was seen of it. Its events stay, and a machine
    /// that is still there comes back as a new node. Addresses that it holds stay lent until their leases end.
    ///
    /// # Errors
    /// A refusal while it runs an OS or a job, or what the store says.
    pub async fn forget(&self, node: &Node, actor: Actor) -> Result<Node, EngineError> {
        let (engine, id) = (self.clone(), node.id);
        // Ended also where whoever asked goes away meanwhile: memory must not know what the store has forgotten.
        tokio::spawn(carried(async move { engine.forget_now(id, &actor).await })).await?
    }

    async fn forget_now(&self, id: NodeId, actor: &Actor) -> Result<Node, EngineError> {
        let gone = || EngineError::NodeNotFound(id.to_string());
        let slot = self.0.nodes.slot(id).ok_or_else(gone)?;
        let _turn = slot.turn.lock().await;
        let node = Node::clone(&slot.row().node);
        check_forget(&node)?;
        let macs = node.identity.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("{} ({macs}) was forgotten", node.name);
        let event = NewEvent::new(now(), actor.name(), "node.forgotten", Severity::Info, message).on(id);
        let stored = event.clone();
        let number = self
            .0
            .store
            .write(move |db| {
                queries::delete_node(db, id)?;
                super::servers::check_not_lent(db, id)?;
                queries::insert_event(db, &stored)
            })
            .await?;
        self.0.nodes.remove(&slot);
        self.0.shelf.forget(id);
        self.bmc_gone(id);
        lock(&self.0.inventories).remove(&id);
        self.0.summaries.forget(id);
        lock(&self.0.sightings).forget(&node.identity.macs);
        self.announce(Change::Node(id));
        self.announce_event(number, event);
        Ok(node)
    }
}

fn refused(code: &'static str, message: String, hint: &str) -> EngineError {
    DeployRefused { code, message, hint: hint.to_owned() }.into()
}

/// The files of the media directory that an order names.
fn media_of(boot: &Boot) -> Vec<MediaPath> {
    let of = |location: &Location| match location {
        Location::Media(path) => Some(path.clone()),
        Location::Url(_) => None,
    };
    match boot {
        Boot::Kernel(order) => {
            let KernelBoot { kernel, initrds, .. } = &**order;
            std::iter::once(kernel).chain(initrds.iter().map(|i| &i.file)).filter_map(of).collect()
        }
        Boot::Iso(iso) => of(&iso.file).into_iter().collect(),
        Boot::Agent | Boot::LocalDisk | Boot::Iscsi(_) => Vec::new(),
    }
}
