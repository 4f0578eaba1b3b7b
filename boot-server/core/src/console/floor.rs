//! Who types: one of those who look. The first who asks; another one takes over by saying so, and everybody is told.

use std::collections::BTreeMap;

/// Who looks at a console, and which of them types. `K` names a viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor<K> {
    may_write: BTreeMap<K, bool>,
    writer: Option<K>,
}

/// Why somebody may not type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused<K> {
    /// It may only look.
    #[error("this token may look at consoles, not type into them")]
    ReadOnly,
    /// Somebody else types.
    #[error("somebody else types")]
    Taken(K),
    /// It left, or was ended.
    #[error("this session has ended")]
    Gone,
}

impl<K: Ord + Copy> Default for Floor<K> {
    fn default() -> Self {
        Self { may_write: BTreeMap::new(), writer: None }
    }
}

impl<K: Ord + Copy> Floor<K> {
    /// Somebody comes to look.
    pub fn join(&mut self, viewer: K, may_write: bool) {
        self.may_write.insert(viewer, may_write);
    }

    /// Somebody leaves; true where it typed, so that the place is free now.
    pub fn leave(&mut self, viewer: K) -> bool {
        self.may_write.remove(&viewer);
        let wrote = self.writer == Some(viewer);
        if wrote {
            self.writer = None;
        }
        wrote
    }

    /// Somebody wants to type; true where it begins to, false where it did already.
    ///
    /// # Errors
    /// [`Refused`]; nothing changes then.
    pub fn ask(&mut self, viewer: K) -> Result<bool, Refused<K>> {
        match (self.may_write.get(&viewer), self.writer) {
            (None, _) => Err(Refused::Gone),
            (Some(false), _) => Err(Refused::ReadOnly),
            (Some(true), Some(writer)) if writer == viewer => Ok(false),
            (Some(true), Some(writer)) => Err(Refused::Taken(writer)),
            (Some(true), None) => {
                self.writer = Some(viewer);
                Ok(true)
            }
        }
    }

    /// Somebody types from now on, whoever did before; returns that one.
    ///
    /// # Errors
    /// [`Refused::ReadOnly`], [`Refused::Gone`]; nothing changes then.
    pub fn take(&mut self, viewer: K) -> Result<Option<K>, Refused<K>> {
        match self.ask(viewer) {
            Ok(_) => Ok(None),
            Err(Refused::Taken(before)) => {
                self.writer = Some(viewer);
                Ok(Some(before))
            }
            Err(other) => Err(other),
        }
    }

    /// Somebody no longer types, and stays; true where it did.
    pub fn release(&mut self, viewer: K) -> bool {
        let wrote = self.writer == Some(viewer);
        if wrote {
            self.writer = None;
        }
        wrote
    }

    /// Who types.
    pub fn writer(&self) -> Option<K> {
        self.writer
    }

    /// How many look.
    pub fn viewers(&self) -> usize {
        self.may_write.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_who_asks_types_until_another_takes_over() {
        let mut floor = Floor::default();
        floor.join(1, true);
        floor.join(2, true);
        floor.join(3, false);
        assert_eq!(floor.ask(1), Ok(true));
        assert_eq!(floor.ask(1), Ok(false));
        assert_eq!(floor.ask(2), Err(Refused::Taken(1)));
        assert_eq!(floor.take(3), Err(Refused::ReadOnly));
        assert_eq!(floor.take(2), Ok(Some(1)));
        assert_eq!(floor.ask(1), Err(Refused::Taken(2)));
        assert!(floor.leave(2) && !floor.leave(1));
        assert_eq!(floor.writer(), None);
        assert_eq!(floor.ask(2), Err(Refused::Gone));
    }

    proptest! {
        /// Whatever happens in whatever order: whoever types is there and may, and nobody loses the place but by
        /// leaving, by letting go, or to one who takes it.
        #[test]
        fn whoever_types_is_there_and_may(steps in prop::collection::vec((0_u8..5, 0_u8..4, any::<bool>()), 0..200)) {
            let mut floor = Floor::default();
            let mut here = BTreeMap::new();
            for (what, who, may) in steps {
                let before = floor.writer();
                match what {
                    0 => { if let std::collections::btree_map::Entry::Vacant(e) = here.entry(who) { e.insert(may); floor.join(who, may); } }
                    1 => { here.remove(&who); floor.leave(who); }
                    2 => { let _ = floor.ask(who); }
                    3 => { let _ = floor.take(who); }
                    _ => { floor.release(who); }
                }
                if let Some(writer) = floor.writer() {
                    prop_assert_eq!(here.get(&writer), Some(&true));
                }
                if let (Some(before), after) = (before, floor.writer()) && after != Some(before) {
                    prop_assert!((what == 3 && after == Some(who)) || (matches!(what, 1 | 4) && before == who));
                }
                prop_assert_eq!(floor.viewers(), here.len());
            }
        }
    }
}
