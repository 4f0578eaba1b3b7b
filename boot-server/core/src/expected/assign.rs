//! Which part that was found is meant by which one that is expected.

/// Matches `wanted` parts to `found` ones. `cost` says in how many ways two differ, `None` where they cannot be the same
/// part. As many as possible are matched at no cost (Kuhn's algorithm); the others take what is left and differs least.
pub(super) fn assign(
    wanted: usize,
    found: usize,
    cost: impl Fn(usize, usize) -> Option<u32>,
) -> Vec<Option<usize>> {
    let mut owner: Vec<Option<usize>> = vec![None; found];
    for want in 0..wanted {
        let mut seen = vec![false; found];
        augment(want, &|w, f| cost(w, f) == Some(0), &mut owner, &mut seen);
    }
    let mut of: Vec<Option<usize>> = vec![None; wanted];
    for (at, owner) in owner.iter().enumerate() {
        if let Some(want) = owner {
            of[*want] = Some(at);
        }
    }
    let open: Vec<usize> = (0..wanted).filter(|want| of[*want].is_none()).collect();
    let mut pairs: Vec<(u32, usize, usize)> = open
        .iter()
        .flat_map(|want| (0..found).map(move |at| (*want, at)))
        .filter(|(_, at)| owner[*at].is_none())
        .filter_map(|(want, at)| Some((cost(want, at)?, want, at)))
        .collect();
    pairs.sort_unstable();
    for (_, want, at) in pairs {
        if of[want].is_none() && owner[at].is_none() {
            of[want] = Some(at);
            owner[at] = Some(want);
        }
    }
    of
}

/// Finds a part for `want`, where needed by moving others to parts that fit them as well.
fn augment(
    want: usize,
    fits: &impl Fn(usize, usize) -> bool,
    owner: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for at in 0..owner.len() {
        if seen[at] || !fits(want, at) {
            continue;
        }
        seen[at] = true;
        let free = owner[at].is_none_or(|other| augment(other, fits, owner, seen));
        if free {
            owner[at] = Some(want);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_needs_one_part_gets_it() {
        // The first takes either, the second only the first part.
        let cost = |want: usize, at: usize| Some(u32::from(want == 1 && at == 1));
        assert_eq!(assign(2, 2, cost), [Some(1), Some(0)]);
        // Nothing fits the first as it is: it takes what differs least, and leaves the second its own.
        let cost = |want: usize, at: usize| if want == 0 { Some(2) } else { Some(u32::from(at != 0)) };
        assert_eq!(assign(2, 2, cost), [Some(1), Some(0)]);
        assert_eq!(assign(2, 1, |_, _| Some(0)), [Some(0), None]);
        assert_eq!(assign(1, 1, |_, _| None), [None]);
    }
}
