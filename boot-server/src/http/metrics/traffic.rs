//! Counters of ports and volumes in Prometheus's text format, by id.
//!
//! Each port has eight series and each volume eleven; of either the first [`MOST`] are told, in the order of their ids, and how many are
//! left out. A counter that goes back is one that began anew (`rate()` knows).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use boot_server_core::volume::Volume;
use protocol::counters::{DiskCounters, PortCounters, Requests};
use protocol::{PortId, ProjectId, ServerId, VolumeId};

use crate::engine::{Engine, KnownDpu};
use crate::store::overlay::Plug;

/// Ports, and volumes, that are told of: some 5 MB of text together.
const MOST: usize = 2000;

/// One thing with its counters.
struct Counted<T> {
    project: ProjectId,
    server: ServerId,
    of: T,
}

/// What is told of either.
struct Told<I, T> {
    word: &'static str,
    all: BTreeMap<I, Counted<T>>,
    left_out: usize,
}

/// A metric: its name without the beginning, what it says, and its label with values.
type Metric<T> = (&'static str, &'static str, &'static [(&'static str, fn(&T) -> u64)]);

const PORTS: &[Metric<PortCounters>] = &[
    ("bytes", "Octets of frames.", &[(FROM, |of| of.from_host.bytes), (TO, |of| of.to_host.bytes)]),
    ("packets", "Frames.", &[(FROM, |of| of.from_host.packets), (TO, |of| of.to_host.packets)]),
    (
        "dropped",
        "Frames that were dropped.",
        &[(FROM, |of| of.from_host.dropped), (TO, |of| of.to_host.dropped)],
    ),
    ("errors", "Frames that were broken.", &[(FROM, |of| of.from_host.errors), (TO, |of| of.to_host.errors)]),
];
const FROM: &str = "direction=\"from_host\"";
const TO: &str = "direction=\"to_host\"";

const VOLUMES: &[Metric<DiskCounters>] = &[
    (
        "requests",
        "Requests that were answered.",
        &[
            (READ, |of| of.read.requests),
            (WRITE, |of| of.write.requests),
            (ZERO, |of| of.zero.requests),
            (FLUSH, |of| flush(of).requests),
        ],
    ),
    (
        "bytes",
        "Bytes that were read and written.",
        &[(READ, |of| of.read.bytes), (WRITE, |of| of.write.bytes)],
    ),
    (
        "microseconds",
        "Time from request to answer, added up.",
        &[
            (READ, |of| of.read.micros),
            (WRITE, |of| of.write.micros),
            (ZERO, |of| of.zero.micros),
            (FLUSH, |of| flush(of).micros),
        ],
    ),
    ("errors", "Requests that were answered with an error.", &[("", |of| of.errors)]),
];
const READ: &str = "kind=\"read\"";
const WRITE: &str = "kind=\"write\"";
const ZERO: &str = "kind=\"zero\"";
const FLUSH: &str = "kind=\"flush\"";

fn flush(of: &DiskCounters) -> Requests {
    of.flush.unwrap_or_default()
}

/// What the DPUs that were heard of lately say of ports and volumes that are theirs.
pub(super) fn write(text: &mut String, engine: &Engine, dpus: &[KnownDpu], volumes: &[Volume]) {
    let mut ports = Told { word: "port", all: BTreeMap::<PortId, _>::new(), left_out: 0 };
    let mut disks = Told { word: "volume", all: BTreeMap::<VolumeId, _>::new(), left_out: 0 };
    let volumes: BTreeMap<VolumeId, &Volume> = volumes.iter().map(|volume| (volume.id, volume)).collect();
    for known in dpus {
        let Some(counted) = known.counted.as_ref().filter(|_| !engine.dpu_is_silent(known)) else { continue };
        for (id, of) in &counted.ports {
            let row = engine.overlay_by_id::<Plug>(*id);
            let row = row.filter(|row| row.value.port.chassis.as_ref() == Some(&known.dpu.name));
            if let Some((project, server)) = row.and_then(|row| Some((row.project, row.value.server?))) {
                ports.all.insert(*id, Counted { project, server, of: of.clone() });
            }
        }
        for (id, of) in &counted.volumes {
            let volume = volumes.get(id).filter(|volume| volume.presenter() == Some(known.dpu.id));
            if let Some((project, server)) =
                volume.and_then(|volume| Some((volume.project, volume.server()?)))
            {
                disks.all.insert(*id, Counted { project, server, of: *of });
            }
        }
    }
    ports.cut();
    disks.cut();
    ports.write(text, PORTS);
    disks.write(text, VOLUMES);
    let name = "billet_counters_left_out";
    let _ = writeln!(
        text,
        "# HELP {name} Ports and volumes with counters that are not told of.\n# TYPE {name} gauge"
    );
    for (word, count) in [(ports.word, ports.left_out), (disks.word, disks.left_out)] {
        let _ = writeln!(text, "{name}{{of=\"{word}\"}} {count}");
    }
}

impl<I: Copy + Ord + std::fmt::Display, T> Told<I, T> {
    fn cut(&mut self) {
        if let Some(first) = self.all.keys().nth(MOST).copied() {
            self.left_out = self.all.split_off(&first).len();
        }
    }

    fn write(&self, text: &mut String, metrics: &[Metric<T>]) {
        let word = self.word;
        for (metric, help, values) in metrics {
            let name = format!("billet_{word}_{metric}_total");
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (id, Counted { project, server, of }) in &self.all {
                for (label, value) in *values {
                    let comma = if label.is_empty() { "" } else { "," };
                    let _ = writeln!(
                        text,
                        "{name}{{{word}=\"{id}\",project=\"{project}\",server=\"{server}\"{comma}{label}}} {}",
                        value(of)
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::counters::Traffic;
    use uuid::Uuid;

    use super::*;

    fn told<T: Clone>(count: u128, of: &T) -> Told<PortId, T> {
        let (project, server) = (ProjectId(Uuid::from_u128(1)), ServerId(Uuid::from_u128(2)));
        let one = |n| (PortId(Uuid::from_u128(n)), Counted { project, server, of: of.clone() });
        Told { word: "port", all: (0..count).map(one).collect(), left_out: 0 }
    }

    #[test]
    fn counters_as_text() {
        let traffic = |n| Traffic { bytes: n, packets: n + 1, dropped: n + 2, errors: n + 3 };
        let port = PortId(Uuid::from_u128(0));
        let of = PortCounters { port, from_host: traffic(10), to_host: traffic(20) };
        let mut text = String::new();
        told(1, &of).write(&mut text, PORTS);
        let disk = DiskCounters { errors: 7, ..DiskCounters::default() };
        told(1, &disk).write(&mut text, VOLUMES);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_site_with_more_says_how_many_are_left_out() {
        let mut many = told(MOST as u128 + 5, &DiskCounters::default());
        many.cut();
        assert_eq!((many.all.len(), many.left_out), (MOST, 5));
        let mut few = told(3, &DiskCounters::default());
        few.cut();
        assert_eq!((few.all.len(), few.left_out), (3, 0));
    }
}
