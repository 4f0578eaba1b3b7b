//! Which of the machines that fit are taken. Each policy takes the cheapest machine that it still allows, again and again.

use std::collections::{BTreeMap, BTreeSet};

use protocol::NodeId;

use super::fit::Fit;
use super::{Group, Key, Policy, Request};

/// `count` machines, or none. `fits` comes sorted.
pub(super) fn choose(request: &Request, fits: &[Fit<'_>]) -> Option<Vec<NodeId>> {
    let count = request.count;
    let chosen = match &request.group {
        None => first(fits, count),
        Some(group) => match group.policy {
            Policy::AntiAffinity => apart(fits, count),
            Policy::Affinity => together(fits, count),
            Policy::SoftAntiAffinity => spread(group, fits, count),
            Policy::SoftAffinity => gather(group, fits, count),
        },
    };
    (chosen.len() == count).then_some(chosen)
}

/// How many machines could be placed at most, for the words of a refusal.
pub(super) fn most(request: &Request, fits: &[Fit<'_>]) -> usize {
    match request.group.as_ref().map(|group| group.policy) {
        Some(Policy::AntiAffinity) => apart(fits, usize::MAX).len(),
        Some(Policy::Affinity) => domains(fits).values().map(Vec::len).max().unwrap_or(0),
        _ => fits.len(),
    }
}

fn first(fits: &[Fit<'_>], count: usize) -> Vec<NodeId> {
    fits.iter().take(count).map(|fit| fit.node).collect()
}

/// At most one per domain. Those of the members do not fit, and came no further than `fit`.
fn apart(fits: &[Fit<'_>], count: usize) -> Vec<NodeId> {
    let mut taken = BTreeSet::new();
    fits.iter().filter(|fit| taken.insert(fit.domain)).take(count).map(|fit| fit.node).collect()
}

/// All in one domain: the one in which they cost least.
fn together(fits: &[Fit<'_>], count: usize) -> Vec<NodeId> {
    let enough = domains(fits).into_values().filter(|inside| inside.len() >= count);
    let best = enough.min_by_key(|inside| {
        let taken = &inside[..count];
        let cost: u64 = taken.iter().map(|fit| fit.cost).fold(0, u64::saturating_add);
        (cost, taken.iter().map(|fit| fit.name).collect::<Vec<_>>())
    });
    best.map(|inside| inside.iter().take(count).map(|fit| fit.node).collect()).unwrap_or_default()
}

/// Each from the domain that has fewest servers of the group by then; of those, the cheapest.
fn spread(group: &Group, fits: &[Fit<'_>], count: usize) -> Vec<NodeId> {
    let mut load = loads(group);
    let mut waiting: BTreeMap<Option<Key<'_>>, std::vec::IntoIter<Fit<'_>>> =
        domains(fits).into_iter().map(|(domain, inside)| (domain, inside.into_iter())).collect();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let next = waiting.iter().filter_map(|(domain, rest)| {
            let fit = rest.as_slice().first()?;
            Some(((load.get(domain).copied().unwrap_or(0), fit.cost, fit.name), *domain))
        });
        let Some((_, domain)) = next.min() else { break };
        let Some(fit) = waiting.get_mut(&domain).and_then(Iterator::next) else { break };
        *load.entry(domain).or_default() += 1;
        chosen.push(fit.node);
    }
    chosen
}

/// Beside the members first; what is left, in as few further domains as it goes: the largest ones, ties by cost.
fn gather(group: &Group, fits: &[Fit<'_>], count: usize) -> Vec<NodeId> {
    let homes = loads(group);
    let mut chosen: Vec<NodeId> = fits
        .iter()
        .filter(|fit| fit.domain.is_some() && homes.contains_key(&fit.domain))
        .take(count)
        .map(|fit| fit.node)
        .collect();
    let mut further: Vec<Vec<Fit<'_>>> = domains(fits)
        .into_iter()
        .filter(|(domain, _)| domain.is_none() || !homes.contains_key(domain))
        // Where it is not known, each machine is a domain of its own.
        .flat_map(|(domain, inside)| match domain {
            Some(_) => vec![inside],
            None => inside.into_iter().map(|fit| vec![fit]).collect(),
        })
        .collect();
    while chosen.len() < count && !further.is_empty() {
        let left = count - chosen.len();
        // The last domain is the one in which what is left costs least; before that, the largest.
        let best = further.iter().enumerate().min_by_key(|(_, inside)| {
            let taken = &inside[..inside.len().min(left)];
            let cost: u64 = taken.iter().map(|fit| fit.cost).fold(0, u64::saturating_add);
            (left - taken.len(), cost, taken.iter().map(|fit| fit.name).collect::<Vec<_>>())
        });
        let Some((best, _)) = best else { break };
        chosen.extend(further.swap_remove(best).into_iter().take(left).map(|fit| fit.node));
    }
    chosen
}

/// The machines that fit by domain, each list sorted as they came.
fn domains<'a>(fits: &[Fit<'a>]) -> BTreeMap<Option<Key<'a>>, Vec<Fit<'a>>> {
    let mut domains: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for fit in fits {
        domains.entry(fit.domain).or_default().push(*fit);
    }
    domains
}

/// Servers of the group by domain.
fn loads(group: &Group) -> BTreeMap<Option<Key<'_>>, usize> {
    let mut loads = BTreeMap::new();
    for member in &group.members {
        let domain = group.domain.of(member.node, member.place.as_ref());
        *loads.entry(domain).or_default() += 1;
    }
    loads
}
