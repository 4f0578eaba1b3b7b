//! The words of events and states (tables 42-1 to 42-3), as data.

use crate::Severity::{self, Critical, Ok, Warning};

/// Event/reading type: thresholds.
pub const THRESHOLD: u8 = 0x01;
/// Event/reading type: what an offset means depends on the sensor type.
pub const SENSOR_SPECIFIC: u8 = 0x6f;

/// A state: its offset, its words, and how bad it is that it holds.
type State = (u8, &'static str, Severity);

/// Sensor types (table 42-3).
const KINDS: &[(u8, &str)] = &[
    (0x01, "temperature"),
    (0x02, "voltage"),
    (0x03, "current"),
    (0x04, "fan"),
    (0x05, "chassis intrusion"),
    (0x06, "platform security"),
    (0x07, "processor"),
    (0x08, "power supply"),
    (0x09, "power unit"),
    (0x0a, "cooling device"),
    (0x0b, "sensor"),
    (0x0c, "memory"),
    (0x0d, "drive"),
    (0x0f, "system firmware"),
    (0x10, "event log"),
    (0x11, "watchdog 1"),
    (0x12, "system event"),
    (0x13, "critical interrupt"),
    (0x14, "button"),
    (0x15, "board"),
    (0x19, "chip set"),
    (0x1b, "cable"),
    (0x1d, "system start"),
    (0x1e, "boot"),
    (0x1f, "OS boot"),
    (0x20, "OS stop"),
    (0x21, "slot"),
    (0x22, "ACPI power state"),
    (0x23, "watchdog"),
    (0x28, "management subsystem"),
    (0x29, "battery"),
    (0x2b, "version change"),
    (0x2c, "FRU state"),
];

/// Thresholds (table 42-2, type 01h).
const THRESHOLDS: &[State] = &[
    (0, "below the lower warning threshold", Warning),
    (1, "below the lower warning threshold", Warning),
    (2, "below the lower critical threshold", Critical),
    (3, "below the lower critical threshold", Critical),
    (4, "below the lower non-recoverable threshold", Critical),
    (5, "below the lower non-recoverable threshold", Critical),
    (6, "above the upper warning threshold", Warning),
    (7, "above the upper warning threshold", Warning),
    (8, "above the upper critical threshold", Critical),
    (9, "above the upper critical threshold", Critical),
    (10, "above the upper non-recoverable threshold", Critical),
    (11, "above the upper non-recoverable threshold", Critical),
];

/// Generic types (table 42-2) and their states.
const GENERIC: &[(u8, &[State])] = &[
    (0x02, &[(0, "idle", Ok), (1, "active", Ok), (2, "busy", Ok)]),
    (0x03, &[(0, "state deasserted", Ok), (1, "state asserted", Ok)]),
    (0x04, &[(0, "no failure predicted", Ok), (1, "failure predicted", Warning)]),
    (0x05, &[(0, "limit not exceeded", Ok), (1, "limit exceeded", Warning)]),
    (0x06, &[(0, "performance met", Ok), (1, "performance lags", Warning)]),
    (
        0x07,
        &[
            (0, "changed to OK", Ok),
            (1, "changed to non-critical", Warning),
            (2, "changed to critical", Critical),
            (3, "changed to non-recoverable", Critical),
            (4, "changed to non-critical from worse", Warning),
            (5, "changed to critical from non-recoverable", Critical),
            (6, "changed to non-recoverable", Critical),
            (7, "monitor", Ok),
            (8, "informational", Ok),
        ],
    ),
    (0x08, &[(0, "absent", Ok), (1, "present", Ok)]),
    (0x09, &[(0, "disabled", Ok), (1, "enabled", Ok)]),
    (
        0x0b,
        &[
            (0, "fully redundant", Ok),
            (1, "redundancy lost", Critical),
            (2, "redundancy degraded", Warning),
            (3, "not redundant, enough resources", Warning),
            (4, "not redundant, enough resources (from worse)", Warning),
            (5, "not redundant, not enough resources", Critical),
            (6, "redundancy degraded from full", Warning),
            (7, "redundancy degraded from none", Warning),
        ],
    ),
    (
        0x0c,
        &[
            (0, "D0 power state", Ok),
            (1, "D1 power state", Ok),
            (2, "D2 power state", Ok),
            (3, "D3 power state", Ok),
        ],
    ),
];

/// States of sensor types (table 42-3, type 6Fh).
const SPECIFIC: &[(u8, &[State])] = &[
    (
        0x05,
        &[
            (0, "chassis opened", Warning),
            (1, "drive bay opened", Warning),
            (4, "LAN cable unplugged", Warning),
        ],
    ),
    (
        0x06,
        &[
            (0, "secure mode violated", Warning),
            (1, "wrong user password", Warning),
            (5, "wrong password", Warning),
        ],
    ),
    (
        0x07,
        &[
            (0, "internal error (IERR)", Critical),
            (1, "thermal trip", Critical),
            (2, "self-test failed", Critical),
            (3, "stuck in POST", Critical),
            (4, "initialisation failed", Critical),
            (5, "configuration error", Critical),
            (6, "SMBIOS uncorrectable error", Critical),
            (7, "present", Ok),
            (8, "disabled", Warning),
            (9, "terminator present", Ok),
            (10, "throttled", Warning),
            (11, "uncorrectable machine check", Critical),
            (12, "correctable machine check", Warning),
        ],
    ),
    (
        0x08,
        &[
            (0, "present", Ok),
            (1, "failed", Critical),
            (2, "failure predicted", Warning),
            (3, "input lost", Critical),
            (4, "input lost or out of range", Critical),
            (5, "input out of range", Warning),
            (6, "configuration error", Warning),
            (7, "in standby", Ok),
        ],
    ),
    (
        0x09,
        &[
            (0, "powered off", Ok),
            (1, "power cycled", Ok),
            (2, "240 VA power down", Critical),
            (3, "interlock power down", Critical),
            (4, "input lost", Critical),
            (5, "soft power control failed", Critical),
            (6, "failed", Critical),
            (7, "failure predicted", Warning),
        ],
    ),
    (
        0x0c,
        &[
            (0, "correctable error", Warning),
            (1, "uncorrectable error", Critical),
            (2, "parity error", Critical),
            (3, "scrub failed", Critical),
            (4, "disabled", Warning),
            (5, "correctable error limit reached", Critical),
            (6, "present", Ok),
            (7, "configuration error", Critical),
            (8, "spare", Ok),
            (9, "throttled", Warning),
            (10, "critical over-temperature", Critical),
        ],
    ),
    (
        0x0d,
        &[
            (0, "present", Ok),
            (1, "fault", Critical),
            (2, "failure predicted", Warning),
            (3, "hot spare", Ok),
            (4, "consistency check", Ok),
            (5, "in critical array", Critical),
            (6, "in failed array", Critical),
            (7, "rebuilding", Warning),
            (8, "rebuild aborted", Critical),
        ],
    ),
    (0x0f, &[(0, "POST error", Critical), (1, "firmware hang", Critical), (2, "firmware progress", Ok)]),
    (
        0x10,
        &[
            (0, "correctable memory error logging stopped", Warning),
            (1, "event type logging stopped", Warning),
            (2, "cleared", Ok),
            (3, "all event logging stopped", Warning),
            (4, "full", Warning),
            (5, "almost full", Warning),
        ],
    ),
    (
        0x12,
        &[
            (0, "reconfigured", Ok),
            (1, "OEM boot event", Ok),
            (2, "undetermined hardware failure", Critical),
            (5, "clock set", Ok),
        ],
    ),
    (
        0x13,
        &[
            (0, "front panel NMI", Warning),
            (1, "bus time-out", Critical),
            (2, "I/O channel check NMI", Critical),
            (3, "software NMI", Warning),
            (4, "PCI parity error", Critical),
            (5, "PCI system error", Critical),
            (7, "bus correctable error", Warning),
            (8, "bus uncorrectable error", Critical),
            (9, "fatal NMI", Critical),
            (10, "bus fatal error", Critical),
            (11, "bus degraded", Warning),
        ],
    ),
    (
        0x14,
        &[(0, "power button pressed", Ok), (1, "sleep button pressed", Ok), (2, "reset button pressed", Ok)],
    ),
    (0x1b, &[(0, "connected", Ok), (1, "wrongly connected", Critical)]),
    (
        0x1d,
        &[
            (0, "started by power-up", Ok),
            (1, "started by hard reset", Ok),
            (2, "started by warm reset", Ok),
            (3, "started by user's PXE request", Ok),
            (4, "started to diagnostics", Ok),
            (7, "restarted", Ok),
        ],
    ),
    (
        0x1e,
        &[
            (0, "no bootable media", Critical),
            (1, "diskette not bootable", Critical),
            (2, "PXE server not found", Critical),
            (3, "invalid boot sector", Critical),
            (4, "waits for the user to choose", Warning),
        ],
    ),
    (
        0x1f,
        &[
            (0, "A: booted", Ok),
            (1, "C: booted", Ok),
            (2, "PXE booted", Ok),
            (3, "diagnostics booted", Ok),
            (4, "CD booted", Ok),
            (5, "ROM booted", Ok),
            (6, "booted", Ok),
        ],
    ),
    (
        0x20,
        &[
            (0, "stopped while loading", Critical),
            (1, "stopped while running", Critical),
            (2, "stopped gracefully", Ok),
            (3, "shut down gracefully", Ok),
            (5, "agent does not respond", Warning),
        ],
    ),
    (
        0x21,
        &[(0, "fault", Critical), (2, "installed", Ok), (5, "powered off", Ok), (7, "removal requested", Ok)],
    ),
    (
        0x22,
        &[
            (0, "working (S0)", Ok),
            (5, "soft off (S5)", Ok),
            (6, "soft off (S4/S5)", Ok),
            (12, "legacy off", Ok),
        ],
    ),
    (
        0x23,
        &[
            (0, "expired", Warning),
            (1, "hard reset", Critical),
            (2, "power down", Critical),
            (3, "power cycle", Critical),
            (8, "timer interrupt", Warning),
        ],
    ),
    (
        0x28,
        &[
            (0, "sensor access degraded", Warning),
            (1, "controller access degraded", Warning),
            (2, "controller off line", Critical),
            (3, "controller unavailable", Critical),
        ],
    ),
    (0x29, &[(0, "low", Warning), (1, "failed", Critical), (2, "present", Ok)]),
    (
        0x2b,
        &[
            (0, "hardware change", Ok),
            (1, "firmware or software change", Ok),
            (7, "firmware or software changed", Ok),
        ],
    ),
];

/// The word for a sensor type.
pub fn kind(kind: u8) -> Option<&'static str> {
    KINDS.iter().find(|(n, _)| *n == kind).map(|(_, w)| *w)
}

/// The words of a state and how bad it is that it holds.
pub fn state(kind: u8, reading_type: u8, offset: u8) -> Option<(&'static str, Severity)> {
    let states = match reading_type {
        THRESHOLD => THRESHOLDS,
        SENSOR_SPECIFIC => lookup(SPECIFIC, kind)?,
        generic => lookup(GENERIC, generic)?,
    };
    states.iter().find(|(n, ..)| *n == offset).map(|(_, words, severity)| (*words, *severity))
}

fn lookup(table: &'static [(u8, &'static [State])], key: u8) -> Option<&'static [State]> {
    table.iter().find(|(n, _)| *n == key).map(|(_, states)| *states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_states_have_words_and_unknown_ones_none() {
        assert_eq!(state(0x01, THRESHOLD, 9), Some(("above the upper critical threshold", Critical)));
        assert_eq!(state(0x08, SENSOR_SPECIFIC, 1), Some(("failed", Critical)));
        assert_eq!(state(0x04, 0x0b, 1), Some(("redundancy lost", Critical)));
        assert_eq!(state(0x08, SENSOR_SPECIFIC, 14), None);
        assert_eq!(state(0xc0, SENSOR_SPECIFIC, 0), None);
        assert_eq!(kind(0x0d), Some("drive"));
    }

    #[test]
    fn every_table_names_each_number_once() {
        for table in GENERIC.iter().chain(SPECIFIC).map(|(_, states)| *states).chain([THRESHOLDS]) {
            assert!(table.windows(2).all(|w| w[0].0 < w[1].0), "{table:?}");
        }
        assert!(KINDS.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
