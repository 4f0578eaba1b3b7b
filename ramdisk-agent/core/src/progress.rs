//! The reports of one job on their way to the server: numbered without gaps, kept until acknowledged, sent again with
//! the same numbers. Progress is thinned to one a second, and a progress that was not sent yet is replaced by the next.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::report::{Progress, Report, ReportBatch, ReportBody};
use protocol::{JobId, Timestamp, limits};

/// Least time between two progress reports.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Longest silence of a job that runs: a disk that zeroes or discards for many minutes changes no number, and the server
/// takes an agent that says nothing for five minutes for lost. It also learns with the answer that it is to stop.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Reports kept while the server is away; past it notes are dropped (stages, faults and results never are: there are
/// fewer than ten of them in a job).
const KEPT_MAX: usize = 1024;

/// Reports not yet acknowledged.
#[derive(Debug)]
pub struct Outbox {
    job: JobId,
    next_seq: u64,
    sent: u64,
    pending: VecDeque<Report>,
    last_progress: Option<(Timestamp, Progress)>,
}

impl Outbox {
    /// An empty outbox of this job.
    pub fn new(job: JobId) -> Self {
        Self { job, next_seq: 1, sent: 0, pending: VecDeque::new(), last_progress: None }
    }

    /// The job whose reports these are.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Something happened.
    pub fn handle_report(&mut self, now: Timestamp, body: ReportBody) {
        if matches!(body, ReportBody::Note { .. }) && self.pending.len() >= KEPT_MAX {
            return;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        self.pending.push_back(Report { seq, at: now, body });
    }

    /// The stage is this far. Kept only where it changed and a second passed, or where nothing was said for long.
    pub fn handle_progress(&mut self, now: Timestamp, progress: Progress) {
        if let Some((at, last)) = &self.last_progress {
            let due = if *last == progress { SILENCE_MAX } else { PROGRESS_EVERY };
            if now.since(*at) < due {
                return;
            }
        }
        self.last_progress = Some((now, progress));
        if let Some(last) = self.pending.back_mut()
            && last.seq > self.sent
            && matches!(last.body, ReportBody::Progress(_))
        {
            (last.at, last.body) = (now, ReportBody::Progress(progress));
        } else {
            self.handle_report(now, ReportBody::Progress(progress));
        }
    }

    /// What to send now; `None` where everything was acknowledged.
    pub fn poll_batch(&mut self) -> Option<ReportBatch> {
        let reports: Vec<_> = self.pending.iter().take(limits::REPORTS_MAX).cloned().collect();
        self.sent = self.sent.max(reports.last()?.seq);
        Some(ReportBatch { job: self.job, reports })
    }

    /// The server has everything up to `seq`.
    pub fn handle_acked(&mut self, seq: u64) {
        while self.pending.front().is_some_and(|r| r.seq <= seq) {
            self.pending.pop_front();
        }
    }

    /// True where the server has everything.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn outbox() -> Outbox {
        Outbox::new(JobId("67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<JobId>().unwrap().0))
    }

    fn note(n: u64) -> ReportBody {
        ReportBody::Note { message: n.to_string() }
    }

    #[test]
    fn unsent_progress_is_replaced_and_sent_progress_is_not() {
        let mut o = outbox();
        let at = |s: u64| Timestamp(s * 1000);
        let p = |bytes_done| Progress { bytes_done, ..Progress::default() };
        o.handle_progress(at(1), p(1));
        o.handle_progress(at(1), p(2));
        o.handle_progress(at(3), p(3));
        assert_eq!(o.poll_batch().unwrap().reports.len(), 1, "one within a second, one replaced");
        o.handle_progress(at(5), p(4));
        assert_eq!(o.poll_batch().unwrap().reports.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_stage_without_progress_is_not_silent() {
        let mut o = outbox();
        for second in 0..=600 {
            o.handle_progress(Timestamp(second * 1000), Progress::default());
            let Some(batch) = o.poll_batch() else { continue };
            assert!(second.is_multiple_of(30), "{second}");
            o.handle_acked(batch.reports.last().unwrap().seq);
        }
        assert_eq!(o.next_seq, 22, "one at the start, then one every 30 s for ten minutes");
    }

    proptest! {
        /// Whatever is lost on the way, the server in the end has every number once, in order.
        #[test]
        fn nothing_is_lost(steps in proptest::collection::vec(0u8..4, 1..200)) {
            let mut o = outbox();
            let mut stored = BTreeSet::new();
            let mut made = 0;
            for (i, step) in steps.into_iter().enumerate() {
                let now = Timestamp(i as u64 * 700);
                match step {
                    0 => { made += 1; o.handle_report(now, note(made)); }
                    1 => o.handle_progress(now, Progress { bytes_done: i as u64, ..Progress::default() }),
                    2 => drop(o.poll_batch()),
                    _ => if let Some(b) = o.poll_batch() {
                        stored.extend(b.reports.iter().map(|r| r.seq));
                        o.handle_acked(*stored.last().unwrap());
                    }
                }
            }
            if let Some(b) = o.poll_batch() {
                stored.extend(b.reports.iter().map(|r| r.seq));
            }
            prop_assert_eq!(stored.len() as u64, stored.last().copied().unwrap_or(0));
            prop_assert_eq!(stored.len() as u64, o.next_seq - 1);
        }
    }
}
