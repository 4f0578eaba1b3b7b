//! A set of addresses kept as runs: a pool of a million free addresses is one entry, and every operation is O(log n).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::net::Range;

/// The set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// First to last address of each run. Runs neither touch nor overlap.
    runs: BTreeMap<u32, u32>,
    len: u64,
}

impl Runs {
    /// How many addresses it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True where the address is one of it.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        self.run_of(ip.into()).is_some()
    }

    /// Adds a run that shares no address with the set.
    pub fn insert_range(&mut self, range: Range) {
        let (mut first, mut last) = (u32::from(range.first), u32::from(range.last));
        self.len += range.len();
        if let Some((before, end)) = self.runs.range(..first).next_back().map(|(f, l)| (*f, *l))
            && end.checked_add(1) == Some(first)
        {
            self.runs.remove(&before);
            first = before;
        }
        if let Some(end) = last.checked_add(1).and_then(|next| self.runs.remove(&next)) {
            last = end;
        }
        self.runs.insert(first, last);
    }

    /// Adds an address; nothing where it is there.
    pub fn insert(&mut self, ip: Ipv4Addr) {
        if !self.contains(ip) {
            self.insert_range(Range { first: ip, last: ip });
        }
    }

    /// Takes an address out; nothing where it is not there.
    pub fn remove(&mut self, ip: Ipv4Addr) {
        let ip = u32::from(ip);
        let Some((first, last)) = self.run_of(ip) else { return };
        self.len -= 1;
        self.runs.remove(&first);
        if first < ip {
            self.runs.insert(first, ip - 1);
        }
        if ip < last {
            self.runs.insert(ip + 1, last);
        }
    }

    /// The first address from `ip` on, else the first of all.
    pub fn from(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let ip = u32::from(ip);
        if self.run_of(ip).is_some() {
            return Some(ip.into());
        }
        let next = self.runs.range(ip..).next().or_else(|| self.runs.iter().next());
        next.map(|(first, _)| (*first).into())
    }

    fn run_of(&self, ip: u32) -> Option<(u32, u32)> {
        let (first, last) = self.runs.range(..=ip).next_back()?;
        (ip <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0u8..20), 0..80), ask in 0u8..22) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            let at = |n: u8| Ipv4Addr::new(10, 0, 0, n);
            for (add, n) in steps {
                if add {
                    runs.insert(at(n));
                    model.insert(at(n));
                } else {
                    runs.remove(at(n));
                    model.remove(&at(n));
                }
                prop_assert_eq!(runs.len(), model.len() as u64);
            }
            let next = model.range(at(ask)..).next().or_else(|| model.first()).copied();
            prop_assert_eq!(runs.from(at(ask)), next);
            for n in 0..22 {
                prop_assert_eq!(runs.contains(at(n)), model.contains(&at(n)));
            }
            let mut ends = runs.runs.iter().map(|(f, l)| (*f, *l)).collect::<Vec<_>>();
            ends.dedup_by(|b, a| a.1 + 1 >= b.0);
            prop_assert_eq!(ends.len(), runs.runs.len(), "runs do not touch");
        }
    }
}
