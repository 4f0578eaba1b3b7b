//! What would become of an order for servers, asked before it is given: for the form of a project's people.

use std::collections::BTreeSet;

use boot_server_core::placement::{self, By, Domain, Group, Policy, Request, Wanted};
use protocol::{GroupId, ProjectId};

use super::servers::{Needs, NewServers};
use super::{Engine, EngineError};
use crate::store::servers::ServerFilter;

/// Members of one group that are looked at: as many as a project has servers.
const MEMBERS_MAX: usize = 10_000;

impl Engine {
    /// Whether machines would be found for this order as things stand; and how many fit beside those, or at all where
    /// not enough do. `group` is what the servers are to be in; without an id it is one that does not exist yet.
    ///
    /// # Errors
    /// Where flavor, machine or group do not exist, or the store cannot be read.
    pub async fn would_place(
        &self,
        project: ProjectId,
        wish: &NewServers,
        group: Option<(Policy, Domain, Option<GroupId>)>,
    ) -> Result<(bool, u64), EngineError> {
        let wanted = match (&wish.flavor, &wish.node) {
            (_, Some(node)) => Wanted::Node(self.node(node).await?.id),
            (flavor, None) => Wanted::Flavor(self.flavor(flavor.as_deref().unwrap_or_default()).await?),
        };
        let group = match group {
            None => None,
            Some((policy, domain, None)) => Some(Group { policy, domain, members: Vec::new() }),
            Some((_, _, Some(id))) => {
                let of = ServerFilter { group: Some(id), limit: MEMBERS_MAX, ..ServerFilter::default() };
                let nodes: Vec<_> = self.servers(project, of).await?.iter().map(|s| s.node).collect();
                Some(self.placement_group(project, id, &nodes).await?)
            }
        };
        let request = Request { by: By::Project(project), wanted, count: wish.count, pool: None, group };
        let (_, manifest) = self.resolve_image(&wish.image).await?;
        let mut candidates = self.candidates().await?;
        let networks = self.networks_of(project, &wish.networks)?;
        let needs = Needs { volume: wish.boot_volume.as_ref(), networks: &networks };
        // As when it is done: machines that were chosen and cannot be what is wished for make room for others.
        let placed = loop {
            let Ok(nodes) = placement::place(&request, &candidates) else { break false };
            let mut unfit = BTreeSet::new();
            for node in nodes {
                if self.takes(node, &manifest, needs).await?.is_err() {
                    unfit.insert(node);
                }
            }
            if unfit.is_empty() {
                break true;
            }
            candidates.retain(|candidate| !unfit.contains(&candidate.node));
        };
        let fitting = candidates.iter().filter(|candidate| placement::fits(&request, candidate)).count();
        let left = if placed { fitting.saturating_sub(wish.count) } else { fitting };
        Ok((placed, left as u64))
    }
}
