//! Machines as candidates for placement, what a request would get, and how many machines of each flavor there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use boot_server_core::flavor::Flavor;
use boot_server_core::names::{FlavorName, PoolName};
use boot_server_core::node::{Node, StateName};
use boot_server_core::placement::{self, By, Candidate, Group, Member, Request, Wanted};
use boot_server_core::pool::Pool;
use protocol::{NodeId, ProjectId};

use super::pools::{PlacingError, check_count};
use super::{Engine, EngineError, lock};
use crate::http::api::place_requests::PlacementRequest;
use crate::store::pools::Kept;
use crate::store::servers;
use crate::view::place::{
    Capacity, FlavorView, OfferView, PlacedView, PlacementView, PoolCapacity, PoolView,
};

/// Rejected machines that one answer has; the counts speak of all.
const REJECTED_MAX: usize = 1000;

impl Engine {
    /// Every machine as placement sees it, in no order that matters. From memory, but for who has which.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn candidates(&self) -> Result<Vec<Candidate>, EngineError> {
        let lent = self.lent().await?;
        Ok(self.candidates_beside(&lent))
    }

    /// The machines that servers have.
    pub(super) async fn lent(&self) -> Result<BTreeSet<NodeId>, EngineError> {
        Ok(self.0.store.read(servers::lent).await?)
    }

    fn candidates_beside(&self, lent: &BTreeSet<NodeId>) -> Vec<Candidate> {
        let nodes = self.0.nodes.all();
        let hardware = self.0.shelf.hardware(&nodes);
        let pools = self.0.shelf.pools();
        let health = lock(&self.0.health);
        // A pool that another server removed is offered to nobody.
        let lost = |name: PoolName| {
            let offered = boot_server_core::pool::Offer::Projects(BTreeSet::new());
            Arc::new(Pool { offered, ..Pool::new(name) })
        };
        let default = PoolName::default_pool();
        let candidate = |(node, hardware): (&Arc<Node>, _)| {
            let name = node.pool.as_ref().unwrap_or(&default);
            Candidate {
                node: node.id,
                name: node.name.clone(),
                pool: pools.get(name).map_or_else(|| lost(name.clone()), |pool| pool.value.clone()),
                state: node.state.name(),
                maintenance: node.maintenance.as_ref().map(|m| m.reason.clone()),
                quarantined: node.quarantine.as_ref().map(|q| q.words()),
                retired: node.retired.as_ref().map(|r| r.reason.clone()),
                health: health.get(&node.id).map(|known| known.verdict.level),
                claimed: lent.contains(&node.id),
                place: node.place.clone(),
                hardware,
            }
        };
        nodes.iter().zip(hardware).map(candidate).collect()
    }

    /// How many living servers have a flavor.
    pub(super) async fn servers_of_flavor(&self, flavor: &FlavorName) -> Result<u64, EngineError> {
        let name = flavor.to_string();
        Ok(self.0.store.read(move |db| servers::count_of_flavor(db, &name)).await?)
    }

    /// All pools as the API shows them.
    pub fn pool_views(&self) -> Vec<PoolView> {
        let mut counts = BTreeMap::<PoolName, u64>::new();
        for node in self.0.nodes.all() {
            *counts.entry(node.pool()).or_default() += 1;
        }
        let view = |kept: Kept<Arc<Pool>>| {
            let nodes = counts.get(&kept.value.name).copied().unwrap_or(0);
            PoolView::of(kept, nodes)
        };
        self.pools().into_iter().map(view).collect()
    }

    /// A pool as the API shows it.
    ///
    /// # Errors
    /// [`PlacingError::NoPool`].
    pub fn pool_view(&self, name: &str) -> Result<PoolView, EngineError> {
        let kept = self.pool(name)?;
        let nodes = self.0.nodes.all().iter().filter(|node| node.pool() == kept.value.name).count();
        Ok(PoolView::of(kept, nodes as u64))
    }

    /// All flavors as the API shows them.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn flavor_views(&self) -> Result<Vec<FlavorView>, EngineError> {
        let capacity: BTreeMap<_, _> =
            self.capacity(None).await?.into_iter().map(|it| (it.flavor.clone(), it)).collect();
        let view = |kept: Kept<Arc<Flavor>>| {
            let capacity = capacity.get(&kept.value.name).cloned();
            FlavorView::of(kept, capacity)
        };
        Ok(self.flavors().into_iter().map(view).collect())
    }

    /// A flavor as the API shows it.
    ///
    /// # Errors
    /// [`PlacingError::NoFlavor`], or where the store cannot be read.
    pub async fn flavor_view(&self, name: &str) -> Result<FlavorView, EngineError> {
        let kept = self.kept_flavor(name)?;
        let pools: Vec<_> = self.pools().into_iter().map(|pool| pool.value).collect();
        let capacity = capacity(&kept.value, &pools, &self.candidates().await?);
        Ok(FlavorView::of(kept, Some(capacity)))
    }

    /// What a project can ask for, with what is free.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn catalogue(&self, project: ProjectId) -> Result<Vec<OfferView>, EngineError> {
        let offers = self.capacity(Some(project)).await?.into_iter();
        let view = |capacity: Capacity| {
            let flavor = self.kept_flavor(capacity.flavor.as_str()).ok()?.value;
            Some(OfferView {
                name: flavor.name.clone(),
                description: flavor.description.clone(),
                counts: flavor.billed(),
                capacity,
            })
        };
        Ok(offers.filter_map(view).collect())
    }

    /// Whether a request would be placed, and why each machine is not among those that it would get.
    ///
    /// # Errors
    /// Where the request makes no sense, or the store cannot be read.
    pub async fn try_placement(
        &self,
        by: By,
        asked: &PlacementRequest,
    ) -> Result<PlacementView, EngineError> {
        let request = self.placement_request(by, asked).await?;
        let candidates = self.candidates().await?;
        let placed = placement::place(&request, &candidates);
        let (nodes, rejected) = match placed {
            Ok(nodes) => {
                let rejected = placement::others(&request, &candidates, &nodes);
                (nodes, rejected)
            }
            Err(rejected) => (Vec::new(), rejected),
        };
        let mut reasons = BTreeMap::<String, u64>::new();
        for reason in rejected.iter().flat_map(|r| r.reasons.iter().map(|r| r.code).collect::<BTreeSet<_>>())
        {
            *reasons.entry(reason.as_str().to_owned()).or_default() += 1;
        }
        let known: BTreeMap<NodeId, &Candidate> = candidates.iter().map(|c| (c.node, c)).collect();
        let chosen = nodes.iter().filter_map(|node| known.get(node)).map(|candidate| PlacedView {
            node: candidate.node,
            name: candidate.name.clone(),
            pool: candidate.pool.name.clone(),
            place: candidate.place.clone(),
        });
        let (spare, rejected): (Vec<_>, Vec<_>) = rejected.into_iter().partition(|r| r.reasons.is_empty());
        Ok(PlacementView {
            placed: !nodes.is_empty(),
            nodes: chosen.collect(),
            candidates: candidates.len() as u64,
            spare: spare.len() as u64,
            reasons,
            omitted: rejected.len().saturating_sub(REJECTED_MAX) as u64,
            rejected: rejected.into_iter().take(REJECTED_MAX).collect(),
        })
    }

    async fn placement_request(&self, by: By, asked: &PlacementRequest) -> Result<Request, EngineError> {
        check_count(asked.count)?;
        let wanted = match (&asked.flavor, &asked.node) {
            (Some(flavor), None) => Wanted::Flavor(self.flavor(flavor.as_str()).await?),
            (None, Some(node)) => Wanted::Node(self.node(node).await?.id),
            _ => {
                let what = "a flavor or a node is asked for".to_owned();
                return Err(PlacingError::Bad { what, hint: "give one of both" }.into());
            }
        };
        if let Some(pool) = &asked.pool {
            self.pool(pool.as_str())?;
        }
        let group = match (&asked.policy, asked.members.is_empty()) {
            (Some(policy), _) => {
                let mut members = Vec::with_capacity(asked.members.len());
                for reference in &asked.members {
                    members.push(member(&self.node(reference).await?));
                }
                Some(Group { policy: *policy, domain: asked.domain.unwrap_or_default(), members })
            }
            (None, true) => None,
            (None, false) => {
                let what = "members of a group need its policy".to_owned();
                return Err(PlacingError::Bad { what, hint: "give `policy`" }.into());
            }
        };
        Ok(Request { by, wanted, count: asked.count, pool: asked.pool.clone(), group })
    }

    /// Where these machines stand, as members of a group.
    pub(super) fn members(&self, nodes: &[NodeId]) -> Vec<Member> {
        let of = |id: &NodeId| {
            let place = self.0.nodes.get(*id).and_then(|node| node.place.clone());
            Member { node: *id, place }
        };
        nodes.iter().map(of).collect()
    }

    /// How many machines of each flavor there are, by pool. For a project: only what is offered to it.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn capacity(&self, of: Option<ProjectId>) -> Result<Vec<Capacity>, EngineError> {
        let candidates = self.candidates().await?;
        let flavors = self.flavors();
        let pools: Vec<Arc<Pool>> = self
            .pools()
            .into_iter()
            .map(|pool| pool.value)
            .filter(|pool| of.is_none_or(|project| pool.offers(project)))
            .collect();
        let offered = move |flavor: &Flavor| of.is_none() || !flavor.withdrawn;
        // Some milliseconds of arithmetic with ten thousand machines and many flavors.
        let count = move || {
            let flavors = flavors.into_iter().map(|flavor| flavor.value).filter(|flavor| offered(flavor));
            let capacity = |flavor: Arc<Flavor>| capacity(&flavor, &pools, &candidates);
            let all: Vec<Capacity> = flavors.map(capacity).collect();
            all.into_iter().filter(|capacity| of.is_none() || !capacity.pools.is_empty()).collect()
        };
        Ok(tokio::task::spawn_blocking(count).await?)
    }
}

fn member(node: &Node) -> Member {
    Member { node: node.id, place: node.place.clone() }
}

fn capacity(flavor: &Arc<Flavor>, pools: &[Arc<Pool>], candidates: &[Candidate]) -> Capacity {
    let request =
        Request { by: By::Site, wanted: Wanted::Flavor(flavor.clone()), count: 1, pool: None, group: None };
    let mut counts: BTreeMap<&PoolName, PoolCapacity> = pools
        .iter()
        .filter(|pool| flavor.takes_pool(&pool.name))
        .map(|pool| (&pool.name, PoolCapacity::new(&pool.name)))
        .collect();
    for candidate in candidates {
        let Some(count) = counts.get_mut(&candidate.pool.name) else { continue };
        let of_flavor = |hardware: &Arc<_>| flavor.rules.takes(hardware);
        if !candidate.hardware.as_ref().is_some_and(of_flavor) {
            continue;
        }
        count.total += 1;
        if candidate.claimed {
            count.used += 1;
        } else if candidate.state == StateName::Available && placement::fits(&request, candidate) {
            count.free += 1;
        }
    }
    let pools: Vec<_> = counts.into_values().collect();
    let sum = |of: fn(&PoolCapacity) -> u64| pools.iter().map(of).sum();
    Capacity {
        flavor: flavor.name.clone(),
        free: sum(|pool| pool.free),
        used: sum(|pool| pool.used),
        total: sum(|pool| pool.total),
        pools,
    }
}
