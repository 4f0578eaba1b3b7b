//! Where the time went: the phases of one piece of work, as the server saw them.

use serde_json::Value;

/// Width of the longest bar in characters.
const WIDTH: u64 = 48;

/// Milliseconds from the first `from` to the first `to`; `None` where one of them was not seen.
pub fn between(timeline: &Value, from: &str, to: &str) -> Option<u64> {
    let phases = timeline["phases"].as_array()?;
    let at = |name: &str| phases.iter().find(|p| p["phase"] == name)?["offset_ms"].as_u64();
    at(to)?.checked_sub(at(from)?)
}

/// The phases as lines with bars.
pub fn lines(timeline: &Value) -> Vec<String> {
    let Some(phases) = timeline["phases"].as_array() else { return Vec::new() };
    let millis = |phase: &Value, name: &str| phase[name].as_u64().unwrap_or(0);
    let total = phases.last().map_or(1, |p| millis(p, "offset_ms")).max(1);
    let line = |phase: &Value| {
        let (at, took) = (millis(phase, "offset_ms"), millis(phase, "took_ms"));
        let from = at * WIDTH / total;
        let to = ((at + took) * WIDTH).div_ceil(total).max(from + 1);
        let (space, bar) = (" ".repeat(from as usize), "█".repeat((to - from) as usize));
        let name = phase["phase"].as_str().unwrap_or("?");
        format!("  {name:<10} {:>7.1} {:>7.1}  {space}{bar}", seconds(at), seconds(took))
    };
    let head = format!("  {:<10} {:>7} {:>7}", "phase", "at s", "took s");
    std::iter::once(head).chain(phases.iter().map(line)).collect()
}

/// Milliseconds as seconds.
pub fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spans_and_bars() {
        let timeline = json!({ "title": "deploy", "phases": [
            { "phase": "requested", "offset_ms": 0, "took_ms": 2000 },
            { "phase": "write", "offset_ms": 2000, "took_ms": 6000 },
            { "phase": "done", "offset_ms": 8000, "took_ms": null },
        ]});
        assert_eq!(between(&timeline, "requested", "done"), Some(8000));
        assert_eq!(between(&timeline, "dhcp", "done"), None);
        let lines = lines(&timeline);
        assert_eq!(lines.len(), 4);
        assert!(lines[2].ends_with(&format!("  {}{}", " ".repeat(12), "█".repeat(36))), "{}", lines[2]);
    }
}
