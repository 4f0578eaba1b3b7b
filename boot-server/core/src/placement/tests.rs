//! Placement against what it must never do, and against looking at every choice there is.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::flavor::{Bounds, Rules};

const PROJECT: ProjectId = ProjectId(Uuid::from_u128(77));

fn id(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

fn pool(name: &str) -> Arc<Pool> {
    Arc::new(Pool::new(name.parse().unwrap()))
}

fn candidate(n: u128, cores: u32, rack: Option<u8>) -> Candidate {
    let place = rack.map(|rack| Place {
        rack: format!("R{rack}").parse().unwrap(),
        unit: None,
        height: None,
        room: Some(format!("hall {}", rack % 2).parse().unwrap()),
        power_feed: Some(format!("F{}", rack % 3).parse().unwrap()),
    });
    Candidate {
        node: id(n),
        name: format!("node-{n:02}"),
        pool: pool("default"),
        state: StateName::Available,
        maintenance: None,
        quarantined: None,
        retired: None,
        health: Some(Level::Ok),
        claimed: false,
        place,
        hardware: Some(Arc::new(Hardware { cores, ..Hardware::default() })),
    }
}

fn wants(cores: u64, count: usize, group: Option<(Policy, Domain)>) -> Request {
    let mut flavor = Flavor::new("c".parse().unwrap());
    flavor.rules = Rules { cores: Bounds::at_least(cores), ..Rules::default() };
    Request {
        by: By::Project(PROJECT),
        wanted: Wanted::Flavor(Arc::new(flavor)),
        count,
        pool: None,
        group: group.map(|(policy, domain)| Group { policy, domain, members: Vec::new() }),
    }
}

fn why(request: &Request, candidates: &[Candidate]) -> String {
    let rejected = place(request, candidates).unwrap_err();
    let line = |r: &Rejected| {
        let words: Vec<_> = r.reasons.iter().map(|r| format!("{}: {}", r.code.as_str(), r.words)).collect();
        format!("{}: {}", r.name, words.join("; "))
    };
    rejected.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_least_machine_that_does_is_taken() {
    let all =
        [candidate(1, 64, None), candidate(2, 16, None), candidate(3, 32, None), candidate(4, 16, None)];
    assert_eq!(place(&wants(8, 1, None), &all), Ok(vec![id(2)]));
    assert_eq!(place(&wants(17, 2, None), &all), Ok(vec![id(3), id(1)]));
    assert_eq!(place(&wants(8, 0, None), &all), Ok(vec![]));
    let mut sick = all.clone();
    sick[1].health = Some(Level::Warning);
    assert_eq!(place(&wants(8, 1, None), &sick), Ok(vec![id(4)]), "one that is well first");
    let mut dear = Pool::new("dear".parse().unwrap());
    dear.weights.base = 1000;
    let mut dearer = all;
    dearer[1].pool = Arc::new(dear);
    assert_eq!(place(&wants(8, 1, None), &dearer), Ok(vec![id(4)]), "a pool that comes later");
}

#[test]
fn each_machine_says_why_it_is_not_given() {
    let mut all: Vec<Candidate> = (1..=9).map(|n| candidate(n, 16, Some(1))).collect();
    let mut gold = Pool::new("gold".parse().unwrap());
    gold.offered = crate::pool::Offer::Projects([].into());
    all[0].pool = Arc::new(gold);
    all[1].claimed = true;
    all[2].state = StateName::Active;
    all[3].maintenance = Some("new fan".to_owned());
    all[4].quarantined = Some("DIMM A1 is missing".to_owned());
    all[5].health = Some(Level::Critical);
    all[6].hardware = None;
    all[7].hardware = Some(Arc::new(Hardware { cores: 4, ..Hardware::default() }));
    all[7].retired = Some("five years old".to_owned());
    insta::assert_snapshot!(why(&wants(8, 2, None), &all));
}

#[test]
fn a_group_says_what_it_wants() {
    let member = |rack| Member { node: id(99), place: candidate(99, 1, rack).place };
    let all =
        [candidate(1, 8, Some(1)), candidate(2, 8, Some(1)), candidate(3, 8, Some(2)), candidate(4, 8, None)];
    let mut request = wants(8, 3, Some((Policy::AntiAffinity, Domain::Rack)));
    insta::assert_snapshot!(why(&request, &all));
    request.count = 2;
    assert_eq!(place(&request, &all), Ok(vec![id(1), id(3)]));
    request.group.as_mut().unwrap().members.push(member(Some(1)));
    insta::assert_snapshot!(why(&request, &all));
    request.group.as_mut().unwrap().members.push(member(None));
    assert!(
        why(&request, &all).contains("it is not known in which rack machine 0000"),
        "nothing is promised"
    );
    let mut request = wants(8, 2, Some((Policy::Affinity, Domain::Room)));
    assert_eq!(place(&request, &all), Ok(vec![id(1), id(2)]));
    request.group.as_mut().unwrap().members.push(member(Some(2)));
    insta::assert_snapshot!(why(&request, &all));
}

#[test]
fn a_machine_that_is_asked_for_by_name() {
    let all = [candidate(1, 8, None), candidate(2, 8, None)];
    let mut request = wants(1, 1, None);
    request.wanted = Wanted::Node(id(2));
    assert_eq!(place(&request, &all), Ok(vec![id(2)]));
    request.pool = Some("gold".parse().unwrap());
    insta::assert_snapshot!(why(&request, &all));
}

#[test]
fn racks_of_one_name_in_two_rooms_are_two() {
    let (mut a, mut b) = (candidate(1, 8, Some(1)), candidate(2, 8, Some(1)));
    let request = wants(8, 2, Some((Policy::AntiAffinity, Domain::Rack)));
    assert!(place(&request, &[a.clone(), b.clone()]).is_err());
    b.place.as_mut().unwrap().room = Some("elsewhere".parse().unwrap());
    assert!(place(&request, &[a.clone(), b.clone()]).is_ok());
    a.place.as_mut().unwrap().room = None;
    assert!(place(&request, &[a, b]).is_ok());
}

#[test]
fn ten_thousand_machines() {
    let all: Vec<Candidate> =
        (0..10_000).map(|n| candidate(n, 8 + u32::try_from(n % 7).unwrap(), Some((n % 200) as u8))).collect();
    for policy in [Policy::AntiAffinity, Policy::Affinity, Policy::SoftAntiAffinity, Policy::SoftAffinity] {
        let chosen = place(&wants(8, 40, Some((policy, Domain::Rack))), &all).unwrap();
        assert_eq!(chosen.len(), 40);
    }
}

fn key(candidate: &Candidate, domain: Domain) -> Option<String> {
    domain.of(candidate.node, candidate.place.as_ref()).map(|key| format!("{key:?}"))
}

/// What a choice is worth: less is better. `None`: the policy does not allow it.
fn worth(request: &Request, chosen: &[&Candidate]) -> Option<(usize, usize, u64)> {
    let cost = |c: &&Candidate| {
        let fits = fit::fits(&Request { group: None, ..request.clone() }, std::slice::from_ref(*c));
        fits[0].cost
    };
    let cost: u64 = chosen.iter().map(cost).sum();
    let Some(group) = &request.group else { return Some((0, 0, cost)) };
    let mut loads: BTreeMap<Option<String>, usize> = BTreeMap::new();
    let homes: Vec<_> = group
        .members
        .iter()
        .map(|m| group.domain.of(m.node, m.place.as_ref()).map(|key| format!("{key:?}")))
        .collect();
    for home in &homes {
        *loads.entry(home.clone()).or_default() += 1;
    }
    let (mut crowd, mut outside, mut further, mut unknown) = (0, 0, std::collections::BTreeSet::new(), 0);
    for candidate in chosen {
        let own = key(candidate, group.domain);
        let load = loads.entry(own.clone()).or_default();
        crowd += *load;
        *load += 1;
        if own.is_none() || !homes.contains(&own) {
            outside += 1;
            unknown += usize::from(own.is_none());
            further.extend(own);
        }
    }
    let known = !loads.contains_key(&None);
    match group.policy {
        Policy::AntiAffinity => (known && loads.values().all(|n| *n <= 1)).then_some((0, 0, cost)),
        Policy::Affinity => (known && loads.len() <= 1).then_some((0, 0, cost)),
        Policy::SoftAntiAffinity => Some((crowd, 0, cost)),
        // The cost among as few domains as it goes is not promised.
        Policy::SoftAffinity => Some((outside, further.len() + unknown, 0)),
    }
}

/// The best of all choices.
fn brute(request: &Request, candidates: &[Candidate]) -> Option<(usize, usize, u64)> {
    let alone = Request { group: None, ..request.clone() };
    let usable: Vec<_> = candidates.iter().filter(|c| reasons(&alone, c).is_empty()).collect();
    (0_u32..1 << usable.len())
        .filter(|set| set.count_ones() as usize == request.count)
        .filter_map(|set| {
            let chosen: Vec<_> =
                usable.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, c)| *c).collect();
            worth(request, &chosen)
        })
        .min()
}

fn any_candidate(n: u128) -> impl Strategy<Value = Candidate> {
    let flags =
        (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (0_u32..6, prop::option::weighted(0.85, 0_u8..4), flags, 0_u8..8).prop_map(
        move |(cores, rack, (warning, claimed, foreign, away), odd)| {
            let mut made = candidate(n, cores, rack);
            made.claimed = claimed;
            made.health = Some(if warning { Level::Warning } else { Level::Ok });
            if foreign {
                let mut gold = Pool::new("gold".parse().unwrap());
                gold.offered = crate::pool::Offer::Projects([].into());
                made.pool = Arc::new(gold);
            }
            if away {
                made.state = StateName::Active;
            }
            match odd {
                0 => made.maintenance = Some("m".to_owned()),
                1 => made.quarantined = Some("q".to_owned()),
                2 => made.health = Some(Level::Critical),
                _ => {}
            }
            made
        },
    )
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    (0_usize..8).prop_flat_map(|count| (0..count as u128).map(any_candidate).collect::<Vec<_>>())
}

fn any_group() -> impl Strategy<Value = Group> {
    let policy = prop::sample::select(vec![
        Policy::AntiAffinity,
        Policy::Affinity,
        Policy::SoftAntiAffinity,
        Policy::SoftAffinity,
    ]);
    let domain = prop::sample::select(vec![Domain::Node, Domain::Rack, Domain::PowerFeed, Domain::Room]);
    let members = prop::collection::vec(prop::option::weighted(0.9, 0_u8..4), 0..3);
    (policy, domain, members).prop_map(|(policy, domain, members)| Group {
        policy,
        domain,
        members: (100_u128..)
            .zip(members)
            .map(|(n, rack)| Member { node: id(n), place: candidate(n, 1, rack).place })
            .collect(),
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    (0_u64..5, 0_usize..5, prop::option::of(any_group()))
        .prop_map(|(cores, count, group)| Request { group, ..wants(cores, count, None) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_looking_at_every_choice(request in any_request(), candidates in any_candidates()) {
        let best = brute(&request, &candidates);
        match place(&request, &candidates) {
            Ok(chosen) => {
                let chosen: Vec<_> = chosen
                    .iter()
                    .map(|node| candidates.iter().find(|c| c.node == *node).unwrap())
                    .collect();
                let names: std::collections::BTreeSet<_> = chosen.iter().map(|c| &c.name).collect();
                prop_assert_eq!(names.len(), request.count, "each once");
                for candidate in &chosen {
                    prop_assert!(!candidate.claimed && candidate.state == StateName::Available);
                    prop_assert!(candidate.maintenance.is_none() && candidate.quarantined.is_none());
                    prop_assert!(candidate.health != Some(Level::Critical) && candidate.pool.offers(PROJECT));
                    prop_assert_eq!(reasons(&request, candidate), vec![]);
                }
                prop_assert_eq!(worth(&request, &chosen), best);
            }
            Err(rejected) => {
                prop_assert_eq!(best, None, "there is a choice");
                prop_assert_eq!(rejected.len(), candidates.len());
                prop_assert!(rejected.iter().all(|r| !r.reasons.is_empty()));
            }
        }
    }

    #[test]
    fn order_of_candidates_changes_nothing(request in any_request(), candidates in any_candidates()) {
        let mut turned = candidates.clone();
        turned.reverse();
        prop_assert_eq!(place(&request, &candidates), place(&request, &turned));
    }

    /// More machines never make it impossible, nor does asking for fewer, nor asking for none together or apart.
    #[test]
    fn is_monotone(request in any_request(), candidates in any_candidates(), more in any_candidate(50)) {
        if place(&request, &candidates).is_ok() {
            let mut grown = candidates.clone();
            grown.push(more);
            prop_assert!(place(&request, &grown).is_ok());
            let fewer = Request { count: request.count.saturating_sub(1), ..request.clone() };
            prop_assert!(place(&fewer, &candidates).is_ok());
            let free = Request { group: None, ..request };
            prop_assert!(place(&free, &candidates).is_ok());
        }
    }
}
