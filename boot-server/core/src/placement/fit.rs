//! Whether a machine fits at all, what it costs, and why it does not.

use super::{
    By, Candidate, Domain, Group, Key, Policy, Reason, ReasonCode, Rejected, Request, Wanted, choose,
};
use crate::bmc::health::Level;
use crate::flavor::Flavor;
use crate::hardware::Hardware;
use crate::node::StateName;
use crate::pool::Weights;

use protocol::NodeId;

/// What a machine costs whose health is not quite good: more than any machine that is well.
const UNWELL: u64 = 1 << 48;

/// A machine that fits when it is looked at alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit<'a> {
    pub node: NodeId,
    pub name: &'a str,
    pub cost: u64,
    /// Where it is, in what the group speaks of.
    pub domain: Option<Key<'a>>,
}

/// The candidates that fit, the cheapest first, ties by name.
pub(super) fn fits<'a>(request: &Request, candidates: &'a [Candidate]) -> Vec<Fit<'a>> {
    let domain = request.group.as_ref().map_or(Domain::Node, |group| group.domain);
    let mut fits: Vec<Fit<'a>> = candidates
        .iter()
        .filter(|candidate| is_fit(request, candidate))
        .map(|candidate| Fit {
            node: candidate.node,
            name: &candidate.name,
            cost: cost(request, candidate),
            domain: domain.of(candidate.node, candidate.place.as_ref()),
        })
        .collect();
    fits.sort_by_key(|fit| (fit.cost, fit.name, fit.node));
    fits
}

/// The same as that there are no [`reasons`], without writing them.
pub(super) fn is_fit(request: &Request, candidate: &Candidate) -> bool {
    // The cheap questions first: most machines of a site have somebody's server.
    !candidate.claimed
        && candidate.state == StateName::Available
        && candidate.maintenance.is_none()
        && candidate.quarantined.is_none()
        && candidate.retired.is_none()
        && reasons(request, candidate).is_empty()
}

pub(super) fn reasons(request: &Request, candidate: &Candidate) -> Vec<Reason> {
    let mut found = Vec::new();
    let mut add = |code, words: String| found.push(Reason { code, words });
    if matches!(request.wanted, Wanted::Node(node) if node != candidate.node) {
        add(ReasonCode::NotAsked, "another machine was asked for".to_owned());
        return found;
    }
    let pool = &candidate.pool;
    if let By::Project(project) = request.by
        && !pool.offers(project)
    {
        add(ReasonCode::Pool, format!("its pool {} is not offered to this project", pool.name));
    }
    if let Some(wanted) = request.pool.as_ref().filter(|wanted| **wanted != pool.name) {
        add(ReasonCode::Pool, format!("it is in pool {}; pool {wanted} was asked for", pool.name));
    }
    if candidate.claimed {
        add(ReasonCode::Claimed, "a server has it".to_owned());
    }
    if candidate.state != StateName::Available {
        add(ReasonCode::State, format!("it is {}, not available", candidate.state));
    }
    if let Some(reason) = &candidate.maintenance {
        add(ReasonCode::Maintenance, format!("under maintenance: {reason}"));
    }
    if let Some(reason) = &candidate.quarantined {
        add(ReasonCode::Quarantine, format!("quarantined: {reason}"));
    }
    if let Some(reason) = &candidate.retired {
        add(ReasonCode::Retired, format!("retired: {reason}"));
    }
    if candidate.health == Some(Level::Critical) {
        add(ReasonCode::Health, "its health is critical".to_owned());
    }
    if let Wanted::Flavor(flavor) = &request.wanted {
        of_flavor(&mut found, flavor, candidate);
    }
    if let Some(group) = &request.group {
        found.extend(of_group(group, candidate).map(|words| Reason { code: ReasonCode::Group, words }));
    }
    found
}

fn of_flavor(found: &mut Vec<Reason>, flavor: &Flavor, candidate: &Candidate) {
    if !flavor.takes_pool(&candidate.pool.name) {
        let words = format!("flavor {} takes no machine of pool {}", flavor.name, candidate.pool.name);
        found.push(Reason { code: ReasonCode::Pool, words });
    }
    match &candidate.hardware {
        Some(hardware) => {
            let mismatches = flavor.matches(hardware).into_iter();
            found.extend(mismatches.map(|m| Reason { code: ReasonCode::Flavor, words: m.words }));
        }
        None => {
            let words = "it was never inspected, so that nothing is known of it".to_owned();
            found.push(Reason { code: ReasonCode::Flavor, words });
        }
    }
}

/// Why a machine is not where the group's present members want it. What the batch itself wants is for `choose`.
fn of_group(group: &Group, candidate: &Candidate) -> Option<String> {
    if !group.policy.is_hard() {
        return None;
    }
    let (domain, what) = (group.domain, group.domain.words());
    let Some(own) = domain.of(candidate.node, candidate.place.as_ref()) else {
        return Some(format!("it is not known in which {what} it is, and the group wants {}", group.policy));
    };
    for member in &group.members {
        let Some(theirs) = domain.of(member.node, member.place.as_ref()) else {
            return Some(format!("it is not known in which {what} machine {} of the group is", member.node));
        };
        match group.policy {
            Policy::AntiAffinity if own == theirs => {
                return Some(format!("{what} {own} has a server of the group already"));
            }
            Policy::Affinity if own != theirs => {
                return Some(format!("it is in {what} {own}; the group has a server in {theirs}"));
            }
            _ => {}
        }
    }
    None
}

/// How much too good the machine is: what it has beyond what is asked, by its pool's weights.
fn cost(request: &Request, candidate: &Candidate) -> u64 {
    let unwell = if candidate.health == Some(Level::Warning) { UNWELL } else { 0 };
    let weights = candidate.pool.weights;
    let waste = match (&request.wanted, &candidate.hardware) {
        (Wanted::Flavor(flavor), Some(hardware)) => waste(flavor, hardware, weights),
        _ => 0,
    };
    unwell + waste.saturating_add(u64::from(weights.base)).min(UNWELL >> 10)
}

fn waste(flavor: &Flavor, hardware: &Hardware, weights: Weights) -> u64 {
    let asked = flavor.rules.at_least();
    let (gpus, dpus) = flavor.rules.cards_at_least();
    let parts = [
        (u64::from(hardware.cores), asked.cores, weights.core),
        (hardware.memory_bytes >> 30, asked.memory_mib >> 10, weights.memory_gib),
        (hardware.disks.len() as u64, asked.disks, weights.disk),
        (hardware.gpus.len() as u64, gpus, weights.gpu),
        (hardware.dpus.len() as u64, dpus, weights.dpu),
    ];
    parts.into_iter().fold(0_u64, |sum, (has, asked, weight)| {
        sum.saturating_add(has.saturating_sub(asked).saturating_mul(u64::from(weight)))
    })
}

/// Every candidate with its reasons, by name, where no placement was found.
pub(super) fn rejected(request: &Request, candidates: &[Candidate], fits: &[Fit<'_>]) -> Vec<Rejected> {
    let most = choose::most(request, fits);
    let with = |candidate: &Candidate| {
        let mut reasons = reasons(request, candidate);
        if reasons.is_empty() {
            let words = too_few(request, candidate, most);
            reasons.push(Reason { code: ReasonCode::TooFew, words });
        }
        Rejected { node: candidate.node, name: candidate.name.clone(), reasons }
    };
    by_name(candidates.iter().map(with).collect())
}

pub(super) fn others(request: &Request, candidates: &[Candidate], chosen: &[NodeId]) -> Vec<Rejected> {
    let with = |candidate: &Candidate| Rejected {
        node: candidate.node,
        name: candidate.name.clone(),
        reasons: reasons(request, candidate),
    };
    by_name(candidates.iter().filter(|candidate| !chosen.contains(&candidate.node)).map(with).collect())
}

fn by_name(mut rejected: Vec<Rejected>) -> Vec<Rejected> {
    rejected.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
    rejected
}

fn too_few(request: &Request, candidate: &Candidate, most: usize) -> String {
    let wanted = request.count;
    match &request.group {
        Some(group) if group.policy.is_hard() => {
            let what = group.domain.words();
            let own = group.domain.of(candidate.node, candidate.place.as_ref());
            let own = own.map(|own| format!(" (it is in {own})")).unwrap_or_default();
            let how = if group.policy == Policy::Affinity { "in one" } else { "each in its own" };
            format!("it fits, but {wanted} are wanted {how} {what}, and at most {most} can be{own}")
        }
        _ => format!("it fits, but {wanted} are wanted and {most} fit"),
    }
}
