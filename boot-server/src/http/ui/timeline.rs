//! The waterfall as bars, and a job as steps.

use protocol::Timestamp;

use super::format;
use crate::view::{JobView, PhaseView, TimelineView};

/// Width of the picture in its own units.
const WIDTH: u64 = 1000;
/// A bar is never so thin that it cannot be seen.
const BAR_MIN: u64 = 4;

/// One phase as a bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// What happened in it.
    pub label: &'static str,
    /// CSS class: who worked, and `open` while it lasts.
    pub class: String,
    /// Left edge, 0 to 1000.
    pub x: u64,
    /// Width, in the same units.
    pub width: u64,
    /// How long it took, in words.
    pub took: String,
}

/// The bars, and how long all took. `running` says that the last phase is still going on.
pub fn bars(timeline: &TimelineView, now: Timestamp, running: bool) -> (Vec<Bar>, String) {
    let Some(last) = timeline.phases.last() else { return (Vec::new(), String::new()) };
    let open = running && last.phase != "done";
    let so_far = u64::try_from(now.since(last.at).as_millis()).unwrap_or(u64::MAX);
    let total = last.offset_ms.saturating_add(if open { so_far } else { 0 });
    let scale = total.max(1);
    let bar = |phase: &PhaseView| {
        let lasts = phase.took_ms.is_none();
        let took = phase.took_ms.unwrap_or(if open { so_far } else { 0 });
        let x = (u128::from(phase.offset_ms) * u128::from(WIDTH) / u128::from(scale)) as u64;
        let width = (u128::from(took) * u128::from(WIDTH) / u128::from(scale)) as u64;
        let width = width.clamp(BAR_MIN, WIDTH);
        let (label, who) = words(&phase.phase, &timeline.title);
        Bar {
            label,
            class: if lasts { format!("{who} open") } else { who.to_owned() },
            x: x.min(WIDTH - width),
            width,
            took: if lasts && !open { String::new() } else { format::millis(took) },
        }
    };
    let bars = timeline.phases.iter().filter(|p| p.phase != "done").map(bar).collect();
    let total = if open { format!("{} so far", format::millis(total)) } else { format::millis(total) };
    (bars, total)
}

/// What went on between this mark and the next, and who did it.
fn words(phase: &str, title: &str) -> (&'static str, &'static str) {
    let looking = title == "discovery" || title == "inspect";
    match phase {
        "requested" => ("Power on, POST", "machine"),
        "dhcp" => ("DHCP", "machine"),
        "loader" => ("Boot loader", "machine"),
        "script" => ("Boot script", "machine"),
        "kernel" => ("Kernel, ramdisk", "machine"),
        "agent" if looking => ("Inspect", "agent"),
        "agent" => ("Agent ready", "agent"),
        "plan" if looking => ("Inspect", "agent"),
        "plan" => ("Plan", "agent"),
        "clean" => ("Wipe", "agent"),
        "write" => ("Write", "agent"),
        "verify" => ("Read back", "agent"),
        "customise" => ("Config, boot entry", "agent"),
        "written" => ("Restart, POST", "machine"),
        "restart" => ("Firmware", "machine"),
        "local_boot" => ("OS start", "os"),
        _ => ("Other", "machine"),
    }
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub label: &'static str,
    /// CSS class: `done`, `now` or nothing.
    pub class: &'static str,
}

/// The steps of a job and how far it is.
pub fn steps(job: &JobView) -> Vec<Step> {
    const BOOT: (&str, &[&str]) = ("Network boot", &["boot", "kernel", "assign"]);
    let steps: &[(&str, &[&str])] = match job.verb.as_str() {
        "deploy" => &[
            BOOT,
            ("Plan", &["plan"]),
            ("Write", &["write"]),
            ("Read back", &["verify"]),
            ("Config", &["customise"]),
            ("Restart", &["reboot", "restart"]),
            ("OS up", &["first_boot"]),
        ],
        "service" => &[
            ("Look", &["check"]),
            ("Apply", &["apply", "doubt"]),
            ("Update", &["task", "settle"]),
            ("Restart", &["restart", "recheck"]),
            ("Read back", &["verify"]),
        ],
        "clean" => &[BOOT, ("Wipe", &["clean", "plan"]), ("Read back", &["verify"])],
        _ => &[BOOT, ("Inspect", &["inspect", "plan"])],
    };
    let now = steps.iter().position(|(_, stages)| stages.contains(&job.stage.as_str()));
    let class = |i| match now {
        Some(now) if i < now => "done",
        Some(now) if i == now => "now",
        _ => "",
    };
    steps.iter().enumerate().map(|(i, (label, _))| Step { label, class: class(i) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(marks: &[(&str, u64)]) -> TimelineView {
        let phase = |(i, (name, at)): (usize, &(&str, u64))| PhaseView {
            phase: (*name).to_owned(),
            at: Timestamp(*at),
            offset_ms: at - marks[0].1,
            took_ms: marks.get(i + 1).map(|next| next.1 - at),
        };
        TimelineView { title: "deploy x".to_owned(), phases: marks.iter().enumerate().map(phase).collect() }
    }

    #[test]
    fn bars_fill_the_picture() {
        let done = timeline(&[("requested", 1000), ("dhcp", 3000), ("write", 4000), ("done", 11_000)]);
        let (bars, total) = bars(&done, Timestamp(99_000), false);
        assert_eq!(total, "10.0 s");
        assert_eq!(bars.len(), 3);
        assert_eq!((bars[0].x, bars[0].width), (0, 200));
        assert_eq!((bars[2].x, bars[2].width), (300, 700));
        assert_eq!(bars[2].took, "7.0 s");
    }

    #[test]
    fn the_last_phase_grows_while_it_lasts() {
        let running = timeline(&[("requested", 1000), ("write", 2000)]);
        let (bars, total) = bars(&running, Timestamp(11_000), true);
        assert_eq!(total, "10.0 s so far");
        assert_eq!((bars[1].x, bars[1].width, bars[1].class.as_str()), (100, 900, "agent open"));
    }

    #[test]
    fn a_bar_stays_inside_whatever_the_clock_says() {
        for marks in [&[("requested", 5u64)][..], &[("dhcp", 0), ("loader", 0), ("done", u64::MAX / 2)]] {
            for now in [0, 1, u64::MAX] {
                for bar in bars(&timeline(marks), Timestamp(now), true).0 {
                    assert!(bar.x + bar.width <= WIDTH, "{bar:?}");
                }
            }
        }
    }
}
