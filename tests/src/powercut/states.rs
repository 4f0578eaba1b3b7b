//! All states that a log of writes can leave a disk in: whole prefixes, and torn ones, a sample of what lies between two flushes.
//!
//! ```text
//!  ── flushed ──┤ w1  w2  w3  w4 ├─ flush ──
//!               prefixes: 0, 1, 2, 3, 4 of them
//!               torn: one of them alone · all but one · one cut after a sector · some sectors of one · some of all, each cut
//! ```

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{Disk, Entry, Judge, Log, SECTOR, Verdict};
use crate::fleet::rng::Rng;

/// How many violations are described; the rest is counted.
const SHOWN_MAX: usize = 10;

/// How much is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Names the sample.
    pub seed: u64,
    /// Writes of one interval between flushes that are torn; of more, these many are drawn. The first and the last always are.
    pub writes: usize,
    /// Random mixtures of one interval.
    pub mixtures: usize,
}

impl Depth {
    /// What the short form looks at.
    pub fn short(seed: u64) -> Self {
        Self { seed, writes: 6, mixtures: 4 }
    }

    /// What the whole form looks at.
    pub fn whole(seed: u64) -> Self {
        Self { seed, writes: 200, mixtures: 40 }
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// States that were judged.
    pub states: u64,
    /// Those of them right at a flush.
    pub flushed: u64,
    /// Those of them that were torn.
    pub torn: u64,
    /// How many do not boot.
    pub dark: u64,
    /// How many are complete.
    pub complete: u64,
    /// How many hide a complete OS behind a first sector that is not there.
    pub behind: u64,
    /// How many boot and are incomplete.
    pub incomplete: u64,
    /// The first of these, in words.
    pub shown: Vec<String>,
}

impl Report {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.states += other.states;
        self.flushed += other.flushed;
        self.torn += other.torn;
        self.dark += other.dark;
        self.complete += other.complete;
        self.behind += other.behind;
        self.incomplete += other.incomplete;
        let room = SHOWN_MAX.saturating_sub(self.shown.len());
        self.shown.extend(other.shown.iter().take(room).cloned());
    }

    fn count(&mut self, verdict: Verdict, what: impl FnOnce() -> String) {
        self.states += 1;
        match verdict {
            Verdict::Dark => self.dark += 1,
            Verdict::Complete(_) => self.complete += 1,
            Verdict::Behind(_) => self.behind += 1,
            Verdict::Incomplete(why) => {
                self.incomplete += 1;
                if self.shown.len() < SHOWN_MAX {
                    self.shown.push(format!("{}: {why}", what()));
                }
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, flushed, torn, dark, complete, behind, incomplete, .. } = self;
        write!(
            f,
            "{states} states ({flushed} at a flush, {torn} torn): {dark} do not boot, {complete} complete, \
             {behind} complete behind a first sector that is not there, {incomplete} bootable and incomplete"
        )
    }
}

/// A state that is worth a look by a real firmware.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What it is.
    pub name: String,
    /// What the judge says.
    pub verdict: Verdict,
    /// The disk.
    pub bytes: Vec<u8>,
}

/// Judges every prefix of `log` on `disk`, and torn states; `disk` is then what the log leaves. States that `keep` wants are
/// returned whole.
pub fn search(
    disk: &mut Disk,
    log: &Log,
    judge: &Judge,
    depth: Depth,
    keep: &mut dyn FnMut(&str, &Verdict, &Disk),
) -> Report {
    let mut report = Report::default();
    report.count(judge.judge(disk), || "before the first write".into());
    let mut writes: Vec<(u64, Arc<[u8]>)> = Vec::new();
    let rng = Rng::new(depth.seed);
    for (number, entry) in log.0.iter().enumerate() {
        match entry {
            Entry::Write { offset, data } => {
                disk.write(*offset, data);
                writes.push((*offset, data.clone()));
                let name = format!("after write {number} ({} octets at {offset})", data.len());
                let verdict = judge.judge(disk);
                keep(&name, &verdict, disk);
                report.count(verdict, || name);
            }
            Entry::Flush if writes.is_empty() => {}
            Entry::Flush => {
                disk.take_back();
                let mut torn = Torn {
                    disk: &mut *disk,
                    judge,
                    report: &mut report,
                    keep: &mut *keep,
                    number,
                    rng: rng.fork(number as u64),
                };
                torn.all(&writes, depth);
                for (offset, data) in writes.drain(..) {
                    disk.write(offset, &data);
                }
                disk.settle();
                report.flushed += 1;
            }
        }
    }
    report
}

/// One interval between two flushes.
struct Torn<'a> {
    disk: &'a mut Disk,
    judge: &'a Judge,
    report: &'a mut Report,
    keep: &'a mut dyn FnMut(&str, &Verdict, &Disk),
    number: usize,
    rng: Rng,
}

impl Torn<'_> {
    fn all(&mut self, writes: &[(u64, Arc<[u8]>)], depth: Depth) {
        for index in self.drawn(writes.len(), depth.writes) {
            let (offset, data) = &writes[index];
            let sectors = data.len().div_ceil(SECTOR);
            let some = self.some(sectors);
            for (name, range) in [
                ("one alone", 0..sectors),
                ("its first sector", 0..1),
                ("all but its first", 1..sectors),
                ("all but its last", 0..sectors - 1),
                ("cut somewhere", 0..some.start),
                ("a piece of it", some),
            ] {
                self.disk.write_sectors(*offset, data, range);
                self.judge_as(&format!("write at {offset}, {name}"));
            }
            for (other, (offset, data)) in writes.iter().enumerate() {
                if other != index {
                    self.disk.write(*offset, data);
                }
            }
            self.judge_as(&format!("all but the write at {offset}"));
        }
        for mixture in 0..depth.mixtures {
            let mut order: Vec<usize> = (0..writes.len()).filter(|_| self.rng.chance(0.6)).collect();
            for last in (1..order.len()).rev() {
                order.swap(last, self.rng.below(last as u64 + 1) as usize);
            }
            for index in order {
                let (offset, data) = &writes[index];
                let sectors = data.len().div_ceil(SECTOR);
                let range = if self.rng.chance(0.5) { 0..sectors } else { self.some(sectors) };
                self.disk.write_sectors(*offset, data, range);
            }
            self.judge_as(&format!("mixture {mixture}"));
        }
    }

    fn judge_as(&mut self, what: &str) {
        let name = format!("before flush {}: {what}", self.number);
        let verdict = self.judge.judge(self.disk);
        (self.keep)(&name, &verdict, self.disk);
        self.report.torn += 1;
        self.report.count(verdict, || name);
        self.disk.take_back();
    }

    /// Some consecutive sectors, at least one.
    fn some(&mut self, sectors: usize) -> Range<usize> {
        let start = self.rng.below(sectors as u64) as usize;
        start..start + 1 + self.rng.below((sectors - start) as u64) as usize
    }

    /// Up to `most` of `count` places, the first and the last among them.
    fn drawn(&mut self, count: usize, most: usize) -> Vec<usize> {
        if count <= most {
            return (0..count).collect();
        }
        let mut drawn = vec![0, count - 1];
        while drawn.len() < most {
            let place = self.rng.below(count as u64) as usize;
            if !drawn.contains(&place) {
                drawn.push(place);
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::whole;
    use super::*;
    use crate::powercut::Complete;

    const MIB: usize = 1 << 20;

    /// Body, then the ends without the first sector, then that; each flushed.
    fn pieces() -> [(u64, Vec<u8>); 4] {
        let disk = whole();
        let end = disk.len() - MIB;
        [
            (MIB as u64, disk[MIB..end].to_vec()),
            (end as u64, disk[end..].to_vec()),
            (512, disk[SECTOR..MIB].to_vec()),
            (0, disk[..SECTOR].to_vec()),
        ]
    }

    fn log(order: &[usize], flush_each: bool) -> Log {
        let pieces = pieces();
        let mut log = Log::default();
        for piece in order {
            let (offset, data) = &pieces[*piece];
            log.0.push(Entry::Write { offset: *offset, data: data.clone().into() });
            if flush_each {
                log.0.push(Entry::Flush);
            }
        }
        log.0.push(Entry::Flush);
        log
    }

    fn found(log: &Log) -> Report {
        let judge = Judge::new(vec![Complete { name: "new", bytes: whole() }]);
        let mut disk = Disk::blank(8 * MIB);
        let report = search(&mut disk, log, &judge, Depth::whole(7), &mut |_, _, _| ());
        assert!(disk.bytes() == whole(), "the log leaves the whole disk");
        report
    }

    #[test]
    fn the_right_order_leaves_nothing_that_boots_half() {
        let report = found(&log(&[0, 1, 2, 3], true));
        assert_eq!(report.incomplete, 0, "{report}: {:?}", report.shown);
        assert!(report.complete > 0 && report.dark > 0 && report.behind > 0 && report.torn > 20, "{report}");
        assert_eq!(report.flushed, 4);
    }

    /// Wrong orders are found: the first MiB first, a missing flush, a first sector together with the rest of its MiB.
    #[test]
    fn wrong_orders_are_found() {
        for (name, log) in [
            ("first sector first", log(&[3, 0, 1, 2], true)),
            ("table first", log(&[2, 0, 1, 3], true)),
            ("backup table first", log(&[1, 0, 2, 3], true)),
            ("no flush between", log(&[0, 1, 2, 3], false)),
        ] {
            let report = found(&log);
            assert!(report.incomplete > 0 && !report.shown.is_empty(), "{name}: {report}");
        }
        let [body, tail, ..] = pieces();
        let mut one = Log::default();
        for (offset, data) in [body, tail, (0, whole()[..MIB].to_vec())] {
            one.0.extend([Entry::Write { offset, data: data.into() }, Entry::Flush]);
        }
        assert!(found(&one).incomplete > 0, "a first MiB in one write is torn");
    }
}
