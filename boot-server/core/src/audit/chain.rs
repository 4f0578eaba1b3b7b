//! Whether a chain is as it was written: a fold over its entries, which names the first bad number and what is wrong.
//!
//! The chain alone shows what was altered, taken out, moved or put in between. What was cut off at its end, or written anew
//! from some entry on, it cannot show: that takes a head that was kept elsewhere ([`Chain::expect`]).

use std::collections::BTreeMap;

use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};

use super::Entry;

/// A place in the chain: the hash of the entry with this number. 0 is before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = AuditAnchor))]
pub struct Anchor {
    /// The entry's number.
    pub number: u64,
    /// Its hash.
    pub hash: Sha256,
}

impl Anchor {
    /// Before the first entry.
    pub const START: Self = Self { number: 0, hash: Sha256([0; 32]) };
}

/// An entry with its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = AuditLink))]
pub struct Link {
    /// The entry.
    pub entry: Entry,
    /// As it was written.
    pub hash: Sha256,
}

impl Link {
    /// The entry behind `before`.
    pub fn after(before: &Anchor, fact: super::Fact) -> Self {
        let entry = Entry { number: before.number + 1, fact };
        Self { hash: entry.hash(&before.hash), entry }
    }

    /// Its place.
    pub fn anchor(&self) -> Anchor {
        Anchor { number: self.entry.number, hash: self.hash }
    }
}

/// A head that was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = AuditCheckpoint))]
pub struct Checkpoint {
    /// The head.
    pub head: Anchor,
    /// When.
    pub at: Timestamp,
    /// Ed25519 public key, 64 hexadecimal digits.
    pub key: String,
    /// Ed25519 signature of [`signed_text`], 128 hexadecimal digits.
    pub signature: String,
}

/// The text that a checkpoint signs.
pub fn signed_text(head: &Anchor, at: Timestamp) -> String {
    format!("billet audit head 1\n{}\n{}\n{}\n", head.number, head.hash, at.0)
}

/// A line of an export, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first: what the first entry stands behind.
    Anchor(Anchor),
    /// The second: where the chain ended when it was exported.
    Head(Anchor),
    /// Then heads that were signed.
    Checkpoint(Checkpoint),
    /// Then the entries.
    Link(Box<Link>),
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// What it says is not what was hashed.
    #[error("entry {number} was altered: its hash is not that of what it says behind entry {}", number - 1)]
    Altered {
        /// The entry.
        number: u64,
    },
    /// One or more are missing.
    #[error("entry {first} was removed{}: entry {found} follows entry {}", upto(*first, *found), first - 1)]
    Removed {
        /// The first that is missing.
        first: u64,
        /// The next that is there.
        found: u64,
    },
    /// It stands in another place.
    #[error("entry {number} was moved: it stands behind entry {behind}")]
    Moved {
        /// The entry.
        number: u64,
        /// What it was found behind.
        behind: u64,
    },
    /// It is there twice.
    #[error("entry {number} is there twice")]
    Twice {
        /// The entry.
        number: u64,
    },
    /// It came behind the end.
    #[error("entry {number} was appended: the chain ends with entry {head}")]
    Appended {
        /// The entry.
        number: u64,
        /// The end.
        head: u64,
    },
    /// The end is missing.
    #[error("entry {first} and all behind it are missing: the chain went up to entry {head}")]
    Truncated {
        /// The first that is missing.
        first: u64,
        /// The end.
        head: u64,
    },
    /// It fits what is before it, but it is not what it was when its hash was kept elsewhere.
    #[error("entry {number} is not what it was: the chain was written anew, up to that entry at least")]
    Rewritten {
        /// The entry.
        number: u64,
    },
}

fn upto(first: u64, found: u64) -> String {
    match found - 1 {
        last if last == first => String::new(),
        last => format!(" (and up to entry {last})"),
    }
}

impl Broken {
    /// The first entry that is bad.
    pub fn number(&self) -> u64 {
        match self {
            Self::Altered { number }
            | Self::Moved { number, .. }
            | Self::Twice { number }
            | Self::Appended { number, .. }
            | Self::Rewritten { number }
            | Self::Removed { first: number, .. }
            | Self::Truncated { first: number, .. } => *number,
        }
    }
}

/// A chain that is as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intact {
    /// Entries that were checked.
    pub entries: u64,
    /// The last of them.
    pub head: Anchor,
}

/// A chain while it is checked.
#[derive(Debug, Clone)]
pub struct Chain {
    last: Anchor,
    entries: u64,
    kept: BTreeMap<u64, Sha256>,
    end: Option<Anchor>,
    wrong: Option<Broken>,
}

impl Chain {
    /// A chain that begins behind `anchor`: [`Anchor::START`], or the last entry that was forgotten.
    pub fn behind(anchor: Anchor) -> Self {
        Self { last: anchor, entries: 0, kept: BTreeMap::new(), end: None, wrong: None }
    }

    /// A head that was kept elsewhere: the chain must have gone through it.
    pub fn expect(&mut self, head: Anchor) {
        if head == self.last || head.number < self.last.number {
            return; // forgotten since, or just there
        }
        if head.number == self.last.number {
            self.fail(Broken::Rewritten { number: head.number });
        }
        self.kept.insert(head.number, head.hash);
    }

    /// Where the chain must end.
    pub fn ends_with(&mut self, head: Anchor) {
        self.expect(head);
        self.end = Some(head);
    }

    /// True where it is known where the chain must end.
    pub fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// Takes the next entry in.
    pub fn take(&mut self, link: &Link) {
        let number = link.entry.number;
        if !self.is_next(number) {
            return;
        }
        if link.entry.hash(&self.last.hash) != link.hash {
            return self.fail(Broken::Altered { number });
        }
        if self.kept.get(&number).is_some_and(|kept| *kept != link.hash) {
            return self.fail(Broken::Rewritten { number });
        }
        self.last = link.anchor();
        self.entries += 1;
    }

    /// Takes the next entry in, of which no more can be read than its number: nobody writes such.
    pub fn take_unreadable(&mut self, number: u64) {
        if self.is_next(number) {
            self.fail(Broken::Altered { number });
        }
    }

    /// True where an entry with this number comes next; else the chain is broken here, or was before.
    fn is_next(&mut self, number: u64) -> bool {
        let expected = self.last.number + 1;
        if let Some(wrong) = &mut self.wrong {
            // The rest is looked at only for entries that seemed to be missing and stand elsewhere.
            if let Broken::Removed { first, found } = *wrong
                && (first..found).contains(&number)
            {
                *wrong = Broken::Moved { number: first, behind: found };
            }
            return false;
        }
        let wrong = match self.end {
            Some(end) if number > end.number => Broken::Appended { number, head: end.number },
            _ if number > expected => Broken::Removed { first: expected, found: number },
            _ if number == expected => return true,
            _ if number == self.last.number => Broken::Twice { number },
            _ => Broken::Moved { number, behind: self.last.number },
        };
        self.fail(wrong);
        false
    }

    fn fail(&mut self, wrong: Broken) {
        self.wrong.get_or_insert(wrong);
    }

    /// The verdict, once all entries were taken in.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn finish(self) -> Result<Intact, Broken> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let furthest = self.kept.keys().next_back().copied().unwrap_or_default();
        if furthest > self.last.number {
            return Err(Broken::Truncated { first: self.last.number + 1, head: furthest });
        }
        Ok(Intact { entries: self.entries, head: self.last })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Fact, Kind};
    use super::*;

    fn links(count: u64) -> Vec<Link> {
        let mut last = Anchor::START;
        (1..=count)
            .map(|n| {
                let link =
                    Link::after(&last, Fact::new(Timestamp(n), Kind::Change, "server", format!("x.{n}")));
                last = link.anchor();
                link
            })
            .collect()
    }

    fn check(links: &[Link], heads: &[Anchor]) -> Result<Intact, Broken> {
        let mut chain = Chain::behind(Anchor::START);
        heads.iter().for_each(|head| chain.expect(*head));
        links.iter().for_each(|link| chain.take(link));
        chain.finish()
    }

    #[test]
    fn an_untouched_chain_is_intact() {
        let links = links(5);
        let intact = Intact { entries: 5, head: links[4].anchor() };
        assert_eq!(check(&links, &[links[2].anchor(), links[4].anchor()]), Ok(intact));
        assert_eq!(check(&[], &[]), Ok(Intact { entries: 0, head: Anchor::START }));
        // Its beginning was forgotten; what is left still verifies behind the anchor.
        let mut rest = Chain::behind(links[1].anchor());
        rest.ends_with(links[4].anchor());
        links[2..].iter().for_each(|link| rest.take(link));
        assert_eq!(rest.finish(), Ok(Intact { entries: 3, head: links[4].anchor() }));
    }

    #[test]
    fn what_was_done_to_a_chain_is_named() {
        let whole = links(6);
        let with = |change: &dyn Fn(&mut Vec<Link>)| {
            let mut links = whole.clone();
            change(&mut links);
            let mut chain = Chain::behind(Anchor::START);
            chain.ends_with(whole[5].anchor());
            links.iter().for_each(|link| chain.take(link));
            chain.finish().unwrap_err()
        };
        assert_eq!(with(&|l| l[2].entry.fact.actor = "eve".into()), Broken::Altered { number: 3 });
        assert_eq!(with(&|l| l[2].hash.0[0] ^= 1), Broken::Altered { number: 3 });
        assert_eq!(with(&|l| drop(l.remove(2))), Broken::Removed { first: 3, found: 4 });
        assert_eq!(with(&|l| drop(l.drain(1..4))), Broken::Removed { first: 2, found: 5 });
        assert_eq!(with(&|l| l.swap(2, 3)), Broken::Moved { number: 3, behind: 4 });
        assert_eq!(with(&|l| l.insert(3, l[2].clone())), Broken::Twice { number: 3 });
        assert_eq!(with(&|l| drop(l.pop())), Broken::Truncated { first: 6, head: 6 });
        let more = Link::after(&whole[5].anchor(), whole[0].entry.fact.clone());
        assert_eq!(with(&|l| l.push(more.clone())), Broken::Appended { number: 7, head: 6 });
        // Written anew from the third on, in perfect order: only a head that was kept tells.
        let anew = |l: &mut Vec<Link>| {
            l[2].entry.fact.actor = "eve".into();
            for n in 2..6 {
                l[n].hash = l[n].entry.hash(&l[n - 1].hash);
            }
        };
        assert_eq!(with(&anew), Broken::Rewritten { number: 6 });
        let mut links = whole.clone();
        anew(&mut links);
        assert!(check(&links, &[]).is_ok(), "the chain alone cannot tell");
        assert_eq!(check(&links, &[whole[3].anchor()]), Err(Broken::Rewritten { number: 4 }));
        let text = Broken::Removed { first: 2, found: 5 }.to_string();
        assert_eq!(text, "entry 2 was removed (and up to entry 4): entry 5 follows entry 1");
    }

    #[test]
    fn lines_of_an_export_come_back() {
        let link = links(1).remove(0);
        for line in
            [Line::Anchor(Anchor::START), Line::Link(Box::new(link.clone())), Line::Head(link.anchor())]
        {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line, "{text}");
        }
        let text = serde_json::to_string(&Line::Link(Box::new(link))).unwrap();
        let more = text.replace("\"actor\"", "\"x\":1,\"actor\"");
        assert!(serde_json::from_str::<Line>(&more).is_err(), "what is not hashed is not taken: {more}");
    }

    proptest! {
        /// Whatever one octet of one entry becomes, that entry is named, or one before it.
        #[test]
        fn one_change_is_found_where_it_is(at in 0_usize..8, field in 0_u8..6, by in 1_u64..u64::MAX) {
            let mut links = links(8);
            let fact = &mut links[at].entry.fact;
            match field {
                0 => fact.at.0 = fact.at.0.wrapping_add(by),
                1 => fact.actor.push('x'),
                2 => fact.outcome = by.to_string(),
                3 => fact.status = Some(1),
                4 => fact.kind = Kind::Read,
                _ => links[at].hash.0[(by % 32) as usize] ^= 1,
            }
            let found = check(&links, &[]);
            prop_assert_eq!(found, Err(Broken::Altered { number: at as u64 + 1 }));
        }
    }
}
