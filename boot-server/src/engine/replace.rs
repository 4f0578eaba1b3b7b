//! Replace by clone: a new machine takes the part of another one in one transaction, and is deployed as that was.

use std::sync::Arc;

use bmc::Secret;
use boot_server_core::deploy::{DeployRequest, is_candidate};
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Cleaning, Event, Node, State, StateName};
use boot_server_core::replace;
use boot_server_core::server::wiped;
use protocol::NodeId;
use protocol::inventory::Inventory;
use protocol::job::DiskTarget;

use super::{Actor, Engine, EngineError, PlannedDeploy, now};
use crate::store::{instances, last_deploys, servers};
use crate::vault::{Place as Sealed, Vault, VaultError};
use crate::view::ReplaceView;

/// Where the newest deploy of a node is sealed.
fn sealed_for(node: NodeId) -> Sealed {
    Sealed { row: node.0, column: "last_deploys.body" }
}

/// Seals a deploy, to be kept with its node.
pub(super) fn seal(vault: &Vault, node: NodeId, request: &DeployRequest) -> Result<String, EngineError> {
    let text = serde_json::to_string(request).map_err(|_| VaultError::Sealed)?;
    Ok(vault.seal(sealed_for(node), &Secret(text))?)
}

/// How a machine is to be replaced.
#[derive(Debug, Clone, Copy)]
pub struct Replacing {
    /// The new one stands where the old one stood.
    pub take_place: bool,
    /// Also where the new one is smaller.
    pub allow_smaller: bool,
    /// Nothing is changed: only say what would be done.
    pub dry_run: bool,
}

/// What the new machine gets.
struct Part {
    deploy: Option<(PlannedDeploy, DeployRequest)>,
    network: Option<boot_server_core::node::StaticNetwork>,
}

impl Engine {
    /// The newest deploy of a node, as it was asked for.
    async fn last_deploy(&self, node: NodeId) -> Result<Option<DeployRequest>, EngineError> {
        let Some(sealed) = self.0.store.read(move |db| last_deploys::of(db, node)).await? else {
            return Ok(None);
        };
        let text = self.0.vault.unseal(sealed_for(node), &sealed)?;
        serde_json::from_str(&text.0).map(Some).map_err(|_| VaultError::Sealed.into())
    }

    /// Lets `new` take the part of `old`: name, place, network settings, and the deploy. The old one is called
    /// `NAME-replaced`, is retired, and its OS is wiped once it boots from the network.
    ///
    /// # Errors
    /// [`EngineError::Misfit`] with every reason why not, or what the store says.
    pub async fn replace(
        &self,
        old: &Node,
        new: &Node,
        actor: Actor,
        how: Replacing,
    ) -> Result<ReplaceView, EngineError> {
        let mut reasons = standing(old, new);
        if let Err(error) = self.check_health(new, false) {
            reasons.push(error.to_string());
        }
        reasons.extend(self.unfit(old, new).await?);
        let (before, after) = (self.inventory(old.id).await?, self.inventory(new.id).await?);
        let part = match &after {
            None => {
                reasons.push(format!("{} was never inspected", new.name));
                None
            }
            Some(after) => {
                if let Some(before) = before.as_deref().filter(|_| !how.allow_smaller) {
                    reasons.extend(
                        replace::less(before, after).into_iter().map(|why| format!("{}: {why}", new.name)),
                    );
                }
                self.part(old, new, before.as_deref(), after, &mut reasons).await?
            }
        };
        let Some(part) = part.filter(|_| reasons.is_empty()) else {
            return Err(EngineError::Misfit(reasons));
        };
        let old_name = replace::old_name(&old.name, |name| self.0.nodes.with_name(name).is_some());
        // What a project had is erased as between tenants.
        let lent = self.server_of(old.id).await?.is_some();
        let (wipe, cleaning) = match before.as_deref() {
            Some(before) if lent => (wiped(before), Cleaning::Between),
            before => (wipe(old, before), Cleaning::Light),
        };
        let view = ReplaceView {
            node: old.name.clone(),
            with: new.name.clone(),
            old_name: old_name.clone(),
            image: part.deploy.as_ref().map(|(planned, _)| planned.order.spec.image_name.clone()),
            disk: part.deploy.as_ref().map(|(planned, _)| planned.order.spec.target.id.clone()),
            hostname: part.deploy.as_ref().map(|(planned, _)| planned.order.hostname.clone()),
            place: old.place.clone().filter(|_| how.take_place),
            wiped: wipe.iter().map(|disk| disk.id.clone()).collect(),
            dry_run: how.dry_run,
        };
        if how.dry_run {
            return Ok(view);
        }
        let old_events = leaving(old, &old_name, new, &actor, how.take_place, (wipe, cleaning));
        let mut new_events = vec![Event::Verb(Verb::Rename { name: old.name.clone() })];
        // It is offered as the old one was.
        let tags = new.tags.union(&old.tags).cloned().collect();
        new_events.push(Event::Verb(Verb::Pool { pool: old.pool() }));
        new_events.push(Event::Verb(Verb::Tags { tags }));
        if let Some(place) = &view.place {
            new_events.push(Event::Verb(Verb::Place { place: Some(place.clone()) }));
        }
        if part.network.is_some() {
            new_events.push(Event::Verb(Verb::Network { network: part.network.map(Box::new) }));
        }
        let (mut sealed, mut instance) = (None, None);
        if let Some((planned, request)) = part.deploy {
            sealed = Some(seal(&self.0.vault, new.id, &request)?);
            let row = self.seal_instance(new.id, &planned.instance, planned.metadata, planned.phone_home)?;
            instance = planned.order.phone_home.map(|_| row);
            new_events.push(Event::Verb(Verb::Deploy(Box::new(planned.order))));
        }
        let (old_id, new_id, at) = (old.id, new.id, now());
        let also = Arc::new(move |db: &_| {
            if let Some(sealed) = &sealed {
                last_deploys::put(db, new_id, at, sealed)?;
            }
            if let Some(instance) = &instance {
                instances::insert(db, instance)?;
            }
            // Its project keeps it, on the other machine.
            servers::move_to(db, old_id, new_id)?;
            last_deploys::forget(db, old_id)
        });
        // The old one first: it gives the name away.
        self.apply_together(actor, vec![(old_id, old_events), (new_id, new_events)], also).await?;
        self.compare_again(new_id).await?;
        Ok(view)
    }

    /// Why the server that a project has on the old machine cannot go on with the new one.
    async fn unfit(&self, old: &Node, new: &Node) -> Result<Vec<String>, EngineError> {
        let (old_id, new_id) = (old.id, new.id);
        let both = move |db: &crate::store::db::Connection| {
            Ok((servers::of_node(db, old_id)?, servers::of_node(db, new_id)?))
        };
        let (server, other) = self.0.store.read(both).await?;
        let mut reasons = Vec::new();
        if let Some(other) = other {
            reasons.push(format!("{} is lent: it is server {} of a project", new.name, other.name));
        }
        let Some(name) = server.and_then(|server| server.flavor) else { return Ok(reasons) };
        let facts = self.0.nodes.get(new_id).map(|node| self.0.shelf.hardware(&[node]));
        let Some(facts) = facts.into_iter().flatten().flatten().next() else { return Ok(reasons) };
        match self.flavor(&name).await {
            Ok(flavor) => {
                let why = flavor.matches(&facts);
                reasons.extend(why.iter().map(|why| format!("{} is no {name}: {why}", new.name)));
            }
            // A flavor that was removed asks for nothing any more.
            Err(error) if error.problem().status == 404 => {}
            Err(error) => return Err(error),
        }
        Ok(reasons)
    }

    /// What the new machine gets; reasons why it cannot are added.
    async fn part(
        &self,
        old: &Node,
        new: &Node,
        before: Option<&Inventory>,
        after: &Inventory,
        reasons: &mut Vec<String>,
    ) -> Result<Option<Part>, EngineError> {
        let ports = before.map(|before| replace::ports(before, after)).unwrap_or_default();
        let network = old.network.as_ref().map(|network| replace::network(network, &ports));
        let Some(request) = self.last_deploy(old.id).await? else {
            if old.installed.is_some() {
                reasons
                    .push(format!("how {} was deployed is not kept: deploy the new one by hand", old.name));
            }
            return Ok(Some(Part { deploy: None, network }));
        };
        let disk = match replace::disk(&request.disk, before, after) {
            Ok(disk) => disk,
            Err(why) => {
                reasons.push(format!("{}: {why}", new.name));
                return Ok(None);
            }
        };
        let hostname = old.installed.as_ref().map(|os| os.hostname.clone()).filter(|name| !name.is_empty());
        let request = DeployRequest {
            // The very image that it runs, not a newer one of the same name.
            image: old.installed.as_ref().map_or(request.image.clone(), |os| os.image.to_string()),
            disk,
            hostname: hostname.or(request.hostname),
            network_config: request.network_config.map(|text| replace::rewrite(&text, &ports)),
            confirm: Some(old.name.clone()),
            allow_critical: false,
            ..request
        };
        let stand_in = Node { name: old.name.clone(), network: network.clone(), ..new.clone() };
        match self.plan(&stand_in, &request).await {
            Ok(planned) => Ok(Some(Part { deploy: Some((planned, request)), network })),
            Err(error @ (EngineError::Store(_) | EngineError::NoRandomness(_))) => Err(error),
            Err(error) => {
                reasons.push(format!("{}: {error}", new.name));
                Ok(None)
            }
        }
    }
}

/// Reasons in where the two stand.
fn standing(old: &Node, new: &Node) -> Vec<String> {
    let mut reasons = Vec::new();
    if old.id == new.id {
        reasons.push("a machine cannot take its own part".to_owned());
    }
    if old.state.is_busy() {
        reasons.push(format!("a job is on its way on {}: wait for its end, or abort it", old.name));
    }
    if new.state.name() != StateName::Available {
        reasons.push(format!("{} is {}, and not available", new.name, new.state.name()));
    }
    if let Some(why) = new.kept_out() {
        reasons.push(format!("{} is {why}", new.name));
    }
    reasons
}

/// The disks with the old machine's OS, as they were last seen.
fn wipe(old: &Node, inventory: Option<&Inventory>) -> Vec<DiskTarget> {
    let disks = inventory.map(|inventory| inventory.disks.as_slice()).unwrap_or_default();
    let target = |id: protocol::DiskId| {
        let disk =
            disks.iter().find(|disk| disk.id.as_ref() == Some(&id)).filter(|disk| is_candidate(disk))?;
        Some(DiskTarget { id, size_bytes: disk.size_bytes })
    };
    old.os_disks().into_iter().filter_map(target).collect()
}

/// What happens to the old machine. Retirement keeps it out from here on, so maintenance ends; and an OS with an identity
/// that now is another machine's must not come up again.
fn leaving(
    old: &Node,
    name: &str,
    new: &Node,
    actor: &Actor,
    gives_place: bool,
    (wipe, how): (Vec<DiskTarget>, Cleaning),
) -> Vec<Event> {
    let by = actor.name().to_owned();
    let mut verbs = vec![Verb::Rename { name: name.to_owned() }];
    if old.maintenance.is_some() {
        verbs.push(Verb::Maintenance { reason: None, until: None, by: Some(by.clone()) });
    }
    verbs.push(Verb::Retire { reason: Some(format!("replaced by {} (now {})", new.name, old.name)), by });
    if gives_place && old.place.is_some() {
        verbs.push(Verb::Place { place: None });
    }
    if old.network.is_some() {
        verbs.push(Verb::Network { network: None });
    }
    let had_os = match &old.state {
        State::Active => true,
        State::Failed(failure) => {
            matches!(failure.during, StateName::Deploying | StateName::Deleting | StateName::Cleaning)
        }
        _ => false,
    };
    if had_os && !wipe.is_empty() {
        verbs.push(Verb::Delete { wipe, how });
    }
    verbs.into_iter().map(Event::Verb).collect()
}
