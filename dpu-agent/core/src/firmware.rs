//! What of a plan of functions is written into the DPU's firmware: settings of `mlxconfig`, and what of them differs.
//!
//! ```text
//!   plan ──▶ wanted settings ─┐
//!   `mlxconfig -e query` ─────┴─▶ to set; or written, and a reset is needed; or all is in force
//! ```
//!
//! Sources of the keys: NVIDIA, DOCA 3.2, *SNAP-4 Service Appendixes* (`SRIOV_EN`, `PCI_SWITCH_EMULATION_*`, `VIRTIO_BLK_EMULATION_*`); NVIDIA, BlueField Virtio-net 24.10,
//! *Virtio-net Deployment* (`VIRTIO_NET_EMULATION_*`); NVIDIA, MFT 4.31, *Examples of mlxconfig Usage* (`NUM_OF_VFS`, and the columns of a query with `-e`: default,
//! current, next boot). All are in force after a reset of the whole card, which is a power cycle of the host.

use std::fmt;

use protocol::functions::{FunctionPlan, FunctionsSeen, Model, SettingSeen, Virtio};

/// Lines of a query that are read: a card has some hundred settings.
const LINES_MAX: usize = 4096;

/// A setting with the value that it is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value.
    pub value: u64,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// A setting as the firmware has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: String,
    /// In force.
    pub current: Option<u64>,
    /// In force after the next reset.
    pub next: Option<u64>,
}

/// What a plan asks of the firmware; nothing of a DPU that has none.
pub fn wanted(plan: &FunctionPlan) -> Vec<Setting> {
    if plan.model == Model::Generic {
        return Vec::new();
    }
    let on = |yes: bool| u64::from(yes);
    let has = |virtio: &Virtio| virtio.pfs > 0 || plan.hotplug > 0;
    let any_vf = plan.vfs > 0 || plan.blk.vfs > 0 || plan.net.vfs > 0;
    // One port of the switch is that of all functions that are always there.
    let ports = if plan.hotplug > 0 { u64::from(plan.hotplug) + 1 } else { 0 };
    let set = |key, value| Setting { key, value };
    vec![
        set("SRIOV_EN", on(any_vf)),
        set("NUM_OF_VFS", plan.vfs.into()),
        set("PCI_SWITCH_EMULATION_ENABLE", on(plan.hotplug > 0)),
        set("PCI_SWITCH_EMULATION_NUM_PORT", ports),
        set("VIRTIO_BLK_EMULATION_ENABLE", on(has(&plan.blk))),
        set("VIRTIO_BLK_EMULATION_NUM_PF", plan.blk.pfs.into()),
        set("VIRTIO_BLK_EMULATION_NUM_VF", plan.blk.vfs.into()),
        set("VIRTIO_NET_EMULATION_ENABLE", on(has(&plan.net))),
        set("VIRTIO_NET_EMULATION_NUM_PF", plan.net.pfs.into()),
        set("VIRTIO_NET_EMULATION_NUM_VF", plan.net.vfs.into()),
    ]
}

/// Reads what `mlxconfig -e query` prints: behind a key its default, its current and its next value. Other lines are left.
pub fn parse(text: &str) -> Vec<Found> {
    let found = text.lines().take(LINES_MAX).filter_map(|line| {
        // A setting that differs from its default has a star.
        let mut words = line.trim_start_matches(['*', ' ', '\t']).split_whitespace();
        let (key, _default, current, next) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let is_key = key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        (is_key && words.next().is_none()).then(|| Found {
            key: key.to_owned(),
            current: value(current),
            next: value(next),
        })
    });
    found.collect()
}

/// `True(1)` is 1, `8` is 8.
fn value(word: &str) -> Option<u64> {
    let digits = word.rsplit_once('(').map_or(word, |(_, digits)| digits.trim_end_matches(')'));
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// What a plan and a firmware make together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// To be written.
    pub set: Vec<Setting>,
    /// What the firmware does not have, though the plan asks for more than none of it.
    pub missing: Vec<&'static str>,
    /// For the report.
    pub seen: FunctionsSeen,
}

/// What is to be written, and what is written already.
pub fn difference(plan: &FunctionPlan, found: &[Found]) -> Difference {
    let mut out = Difference::default();
    for setting in wanted(plan) {
        let Setting { key, value } = setting;
        let has = found.iter().find(|found| found.key == key);
        let (current, next) = has.map_or((None, None), |has| (has.current, has.next));
        match has {
            None if value == 0 => continue,
            None => out.missing.push(key),
            Some(_) if next != Some(value) => out.set.push(setting),
            Some(_) => out.seen.needs_reset |= current != Some(value),
        }
        out.seen.settings.push(SettingSeen { key: key.to_owned(), wanted: value, current, next });
    }
    out.seen.needs_reset &= out.set.is_empty();
    out
}

#[cfg(test)]
mod tests {
    use protocol::functions::DisksBy;

    use super::*;

    /// As MFT prints it (Examples of mlxconfig Usage; SNAP Deployment).
    const QUERY: &str = "\
Device #1:
----------

Device type:    BlueField3
Name:           900-9D3B6-00CV-AA0_Ax
Device:         /dev/mst/mt41692_pciconf0

Configurations:                                      Default         Current         Next Boot
*        NUM_OF_VFS                                  16              8               8
         SRIOV_EN                                    True(1)         True(1)         True(1)
         PCI_SWITCH_EMULATION_ENABLE                 False(0)        False(0)        False(0)
*        PCI_SWITCH_EMULATION_NUM_PORT               0               0               9
         VIRTIO_BLK_EMULATION_ENABLE                 False(0)        False(0)        False(0)
         VIRTIO_BLK_EMULATION_NUM_PF                 0               0               0
         VIRTIO_BLK_EMULATION_NUM_VF                 0               0               0
         PCI_DOWNSTREAM_PORT_OWNER                   Array[0..15]    Array[0..15]    Array[0..15]
The '*' shows parameters with next value different from default/current value.
";

    fn plan() -> FunctionPlan {
        FunctionPlan {
            model: Model::BlueField3,
            vfs: 8,
            blk: Virtio { pfs: 1, vfs: 0 },
            net: Virtio::default(),
            hotplug: 8,
            disks: DisksBy::Snap,
        }
    }

    #[test]
    fn a_query_is_read() {
        let found = parse(QUERY);
        let of =
            |key: &str| found.iter().find(|found| found.key == key).map(|found| (found.current, found.next));
        assert_eq!(of("NUM_OF_VFS"), Some((Some(8), Some(8))));
        assert_eq!(of("SRIOV_EN"), Some((Some(1), Some(1))));
        assert_eq!(of("PCI_SWITCH_EMULATION_NUM_PORT"), Some((Some(0), Some(9))));
        assert_eq!(of("PCI_DOWNSTREAM_PORT_OWNER"), Some((None, None)));
        assert_eq!(of("Device"), None);
    }

    #[test]
    fn only_what_differs_is_written() {
        let difference = difference(&plan(), &parse(QUERY));
        let set: Vec<String> = difference.set.iter().map(ToString::to_string).collect();
        assert_eq!(
            set,
            [
                "PCI_SWITCH_EMULATION_ENABLE=1",
                "VIRTIO_BLK_EMULATION_ENABLE=1",
                "VIRTIO_BLK_EMULATION_NUM_PF=1"
            ]
        );
        assert!(!difference.seen.needs_reset, "first all is written");
        assert_eq!(difference.missing, ["VIRTIO_NET_EMULATION_ENABLE"], "hot-plug is of both kinds");
        assert_eq!(wanted(&FunctionPlan { model: Model::Generic, ..plan() }), []);
    }

    #[test]
    fn what_is_written_needs_a_reset_until_it_is_in_force() {
        let found = |current: u64| -> Vec<Found> {
            let all = wanted(&plan()).into_iter();
            all.map(|s| Found {
                key: s.key.into(),
                current: Some(if s.key == "NUM_OF_VFS" { current } else { s.value }),
                next: Some(s.value),
            })
            .collect()
        };
        let written = difference(&plan(), &found(0));
        assert!(written.set.is_empty() && written.seen.needs_reset);
        let there = difference(&plan(), &found(8));
        assert!(there.set.is_empty() && !there.seen.needs_reset && there.missing.is_empty());
    }

    #[test]
    fn nothing_that_a_tool_prints_is_a_panic() {
        for text in [
            "",
            "*",
            "A (",
            "A ) ( (1 )",
            "KEY True( True( True(",
            "\u{1f600} 1 2 3",
            &"K 1 2 3\n".repeat(9000),
        ] {
            assert!(parse(text).len() <= LINES_MAX);
        }
    }
}
