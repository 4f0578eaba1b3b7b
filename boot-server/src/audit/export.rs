//! The chain as it lies in a database or an exported file: read in order, checked, and written as lines of JSON.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use boot_server_core::audit::chain::Checkpoint;
use boot_server_core::audit::{Anchor, Broken, Chain, Intact, Line};

use super::signing;
use crate::store::audit::{self as rows, AuditFilter, Found};
use crate::store::db::Connection;
use crate::store::{Store, StoreError};

/// Entries read at once.
const BATCH: usize = 2_000;
/// Longest line of an export, in octets: an entry has at most six texts of 2 KiB, each octet as six at most.
const LINE_MAX: u64 = 1 << 18;

/// Why a chain could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A line that is none of an export.
    #[error("line {line} is none of an export of the audit: {cause}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// The export does not say where its chain begins and ends.
    #[error("this is no export of the audit: its first two lines must be an anchor and a head")]
    Beginning,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The chain is as it was written, or what is wrong.
    pub chain: Result<Intact, Broken>,
    /// Behind what it begins: 0, or the last entry that was forgotten.
    pub anchor: Anchor,
    /// Checkpoints that it went through.
    pub checkpoints: usize,
    /// Public keys that signed them, each once.
    pub keys: Vec<String>,
    /// A checkpoint whose signature is not that of its key.
    pub forged: Option<u64>,
}

/// A check that goes on.
struct Check {
    chain: Chain,
    anchor: Anchor,
    checkpoints: usize,
    keys: Vec<String>,
    forged: Option<u64>,
}

impl Check {
    fn behind(anchor: Anchor, heads: &[Anchor]) -> Self {
        let mut chain = Chain::behind(anchor);
        heads.iter().for_each(|head| chain.expect(*head));
        Self { chain, anchor, checkpoints: 0, keys: Vec::new(), forged: None }
    }

    fn checkpoint(&mut self, it: &Checkpoint) {
        if !signing::is_signed(it) {
            self.forged.get_or_insert(it.head.number);
            return;
        }
        self.checkpoints += 1;
        if !self.keys.contains(&it.key) {
            self.keys.push(it.key.clone());
        }
    }

    fn finish(self) -> Verdict {
        let Self { chain, anchor, checkpoints, keys, forged } = self;
        Verdict { chain: chain.finish(), anchor, checkpoints, keys, forged }
    }
}

/// Where a chain stands in the database.
struct Ends {
    anchor: Anchor,
    head: Anchor,
    checkpoints: Vec<Checkpoint>,
}

fn ends(db: &Connection) -> Result<Ends, StoreError> {
    let (anchor, head) = (rows::anchor(db, "anchor")?, rows::anchor(db, "head")?);
    Ok(Ends { anchor, head, checkpoints: rows::checkpoints(db)? })
}

fn begin(ends: &Ends, heads: &[Anchor]) -> Check {
    let mut check = Check::behind(ends.anchor, heads);
    for it in &ends.checkpoints {
        check.checkpoint(it);
        check.chain.expect(it.head);
    }
    check.chain.ends_with(ends.head);
    check
}

fn take(check: &mut Check, found: &Found) {
    match found {
        Found::Link(link) => check.chain.take(link),
        Found::Unreadable(number) => check.chain.take_unreadable(*number),
    }
}

/// Checks the chain in a database that nothing writes to meanwhile, or inside one transaction of reading. `heads` were
/// kept elsewhere.
///
/// # Errors
/// Where it cannot be read.
pub fn check_database(db: &Connection, heads: &[Anchor]) -> Result<Verdict, StoreError> {
    let mut check = begin(&ends(db)?, heads);
    let mut after = i64::MIN;
    loop {
        let found = rows::lying(db, after, BATCH)?;
        let Some((last, _)) = found.last() else { return Ok(check.finish()) };
        after = *last;
        found.iter().for_each(|(_, found)| take(&mut check, found));
    }
}

/// Checks the chain of a running server, up to where it stands now.
///
/// # Errors
/// Where it cannot be read.
pub async fn check_store(store: &Store) -> Result<Verdict, StoreError> {
    let ends = store.read(ends).await?;
    let mut check = begin(&ends, &[]);
    let mut after = i64::MIN;
    loop {
        let found = store.read(move |db| rows::lying(db, after, BATCH)).await?;
        let Some((last, _)) = found.last() else { return Ok(check.finish()) };
        after = *last;
        // What came since is not looked at: it may go on for ever.
        let end = i64::try_from(ends.head.number).unwrap_or(i64::MAX);
        found.iter().filter(|(number, _)| *number <= end).for_each(|(_, found)| take(&mut check, found));
        if after >= end {
            return Ok(check.finish());
        }
    }
}

/// Checks an exported file.
///
/// # Errors
/// Where it cannot be read, or is no export.
pub fn check_file(path: &Path, heads: &[Anchor]) -> Result<Verdict, CheckError> {
    let fail = |cause| CheckError::File { path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut reader = io::BufReader::new(file);
    let mut check: Option<Check> = None;
    for line in 1.. {
        let mut text = String::new();
        io::Read::take(&mut reader, LINE_MAX).read_line(&mut text).map_err(fail)?;
        let bad = |cause: &str| CheckError::Line { line, cause: cause.to_owned() };
        if text.is_empty() {
            break;
        }
        let parsed: Line = serde_json::from_str(&text).map_err(|e| bad(&e.to_string()))?;
        match (parsed, &mut check) {
            (Line::Anchor(anchor), None) => check = Some(Check::behind(anchor, heads)),
            (Line::Anchor(_), Some(_)) => return Err(bad("there is an anchor already")),
            (_, None) => return Err(bad("the first line must be an anchor")),
            (Line::Head(head), Some(check)) => check.chain.ends_with(head),
            (Line::Checkpoint(it), Some(check)) => {
                check.checkpoint(&it);
                check.chain.expect(it.head);
            }
            (Line::Link(link), Some(check)) => check.chain.take(&link),
        }
    }
    let check = check.filter(|check| check.chain.has_end());
    check.map(Check::finish).ok_or(CheckError::Beginning)
}

/// The lines before the entries of an export, behind what these begin; none where no entry has the number `after`. And where the
/// chain ends.
pub type Beginning = (Option<(Vec<Line>, i64)>, Anchor);

/// How an export begins: behind the entry `after`, or the oldest that was forgotten.
///
/// # Errors
/// What the database says.
pub fn beginning(db: &Connection, after: Option<u64>) -> Result<Beginning, StoreError> {
    let (oldest, head) = (rows::anchor(db, "anchor")?, rows::anchor(db, "head")?);
    let anchor = match after {
        None => Some(oldest),
        Some(number) if number == oldest.number => Some(oldest),
        Some(number) => {
            let filter = AuditFilter {
                after: number.checked_sub(1),
                before: Some(number.saturating_add(1)),
                limit: 1,
                ..AuditFilter::default()
            };
            rows::entries(db, &filter)?.into_iter().find_map(|found| match found {
                Found::Link(link) if link.entry.number == number => Some(link.anchor()),
                _ => None,
            })
        }
    };
    let Some(anchor) = anchor else { return Ok((None, head)) };
    let signed = rows::checkpoints(db)?.into_iter().filter(|it| it.head.number > anchor.number);
    let mut lines = vec![Line::Anchor(anchor), Line::Head(head)];
    lines.extend(signed.map(Line::Checkpoint));
    Ok((Some((lines, i64::try_from(anchor.number).unwrap_or(i64::MAX))), head))
}

/// The next lines of an export behind `after`, and where to go on; `None` at the end. The caller puts an anchor before the first.
///
/// # Errors
/// What the database says.
pub fn lines(db: &Connection, after: i64, end: i64) -> Result<Option<(Vec<Line>, i64)>, StoreError> {
    let found = rows::lying(db, after, BATCH)?;
    let found: Vec<_> = found.into_iter().take_while(|(number, _)| *number <= end).collect();
    let Some((last, _)) = found.last() else { return Ok(None) };
    let last = *last;
    // An entry that cannot be read cannot be exported either: the gap tells.
    let links = found.into_iter().filter_map(|(_, found)| match found {
        Found::Link(link) => Some(Line::Link(link)),
        Found::Unreadable(_) => None,
    });
    Ok(Some((links.collect(), last)))
}
