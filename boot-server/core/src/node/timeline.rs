//! The waterfall of one piece of work: when each phase was first seen.

use protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// Phases in the order in which a good run passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Somebody asked for it.
    Requested,
    /// First DHCPDISCOVER of the firmware: the end of POST.
    Dhcp,
    /// First boot file asked for by TFTP or HTTP.
    Loader,
    /// iPXE asked for its script.
    Script,
    /// The kernel was asked for.
    Kernel,
    /// The agent said hello.
    Agent,
    /// The agent took the job.
    Plan,
    /// Wiping.
    Clean,
    /// Writing.
    Write,
    /// Reading back.
    Verify,
    /// Partition table, config partition, boot entry.
    Customise,
    /// Work of the agent is done.
    Written,
    /// The machine came back to the firmware.
    Restart,
    /// It was told to boot its disk.
    LocalBoot,
    /// The OS phoned home, or the work ended otherwise.
    Done,
}

/// First moment of each phase of the newest work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// What the work is, such as `deploy debian-12`.
    pub title: String,
    /// Phase and moment, in order of arrival; a phase stands once.
    pub marks: Vec<(Phase, Timestamp)>,
}

impl Timeline {
    /// An empty waterfall for new work.
    pub fn start(title: impl Into<String>) -> Self {
        Self { title: title.into(), marks: Vec::new() }
    }

    /// Notes the first moment of `phase`; a later one changes nothing.
    pub fn mark(&mut self, phase: Phase, at: Timestamp) {
        if self.at(phase).is_none() {
            self.marks.push((phase, at));
        }
    }

    /// Forgets `phase` and what follows it: the machine starts that part again.
    pub fn rewind(&mut self, phase: Phase) {
        self.marks.retain(|(p, _)| *p < phase);
    }

    /// When `phase` was first seen.
    pub fn at(&self, phase: Phase) -> Option<Timestamp> {
        self.marks.iter().find(|(p, _)| *p == phase).map(|(_, at)| *at)
    }
}
