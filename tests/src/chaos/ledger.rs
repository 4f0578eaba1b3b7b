//! What had an effect, counted where it has it: jobs at machines, starts at controllers, disks at real agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Jobs that were handed to a machine.
    pub handed: usize,
    /// Jobs whose end the server acknowledged.
    pub finished: usize,
    /// Of them, those that put an OS on a disk.
    pub deploys: usize,
    /// Machines that a controller started.
    pub starts: usize,
    /// Disks that a real agent wrote whole.
    pub written: usize,
    /// How often a real agent died before.
    pub killed: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Machine and kind of each job.
    handed: BTreeMap<String, (u8, bool)>,
    finished: BTreeSet<String>,
    counts: Counts,
    wrong: Vec<String>,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<State>);

impl Ledger {
    /// A machine is about to do a job; false where it was done before, and that was acknowledged.
    pub fn begin(&self, job: &str, machine: u8, is_deploy: bool) -> bool {
        let mut state = self.lock();
        if state.finished.contains(job) {
            state
                .wrong
                .push(format!("machine {machine} was handed job {job} again after its end was acknowledged"));
            return false;
        }
        let (other, _) = *state.handed.entry(job.to_owned()).or_insert((machine, is_deploy));
        if other != machine {
            state.wrong.push(format!("job {job} of machine {other} was handed to machine {machine}"));
        }
        true
    }

    /// Its end was acknowledged.
    pub fn finished(&self, job: &str) {
        self.lock().finished.insert(job.to_owned());
    }

    /// A controller started its machine.
    pub fn started(&self) {
        self.lock().counts.starts += 1;
    }

    /// A real agent wrote a disk whole, or died on the way.
    pub fn wrote(&self, whole: bool) {
        let counts = &mut self.lock().counts;
        if whole { counts.written += 1 } else { counts.killed += 1 }
    }

    /// Something was done that must not be.
    pub fn wrong(&self, what: String) {
        self.lock().wrong.push(what);
    }

    /// What was wrong since this was asked last.
    pub fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().wrong)
    }

    /// How many.
    pub fn counts(&self) -> Counts {
        let state = self.lock();
        let deploys = state.finished.iter().filter(|job| state.handed.get(*job).is_some_and(|(_, d)| *d));
        Counts {
            handed: state.handed.len(),
            finished: state.finished.len(),
            deploys: deploys.count(),
            ..state.counts
        }
    }

    /// Deploys that were handed out.
    pub fn deploys_handed(&self) -> usize {
        self.lock().handed.values().filter(|(_, is_deploy)| *is_deploy).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_twice_is_seen() {
        let ledger = Ledger::default();
        assert!(ledger.begin("a", 1, true) && ledger.begin("a", 1, true), "again before its end is no harm");
        ledger.finished("a");
        assert!(ledger.take_wrong().is_empty());
        assert!(!ledger.begin("a", 1, true));
        ledger.begin("b", 1, false);
        ledger.begin("b", 2, false);
        assert_eq!(ledger.take_wrong().len(), 2);
        assert_eq!((ledger.counts().handed, ledger.counts().deploys, ledger.deploys_handed()), (2, 1, 1));
    }
}
