//! What sensors measured: samples, the windows that they become, and how both are written small.
//!
//! ```text
//! poll ─▶ sample (24 h) ─ downsample ─▶ windows of 30 min: least, mean, greatest (30 days)
//!              └──────────── resample ◀────────┘      ─▶ points of one step, for graphs
//! ```
//!
//! A moment is kept in one of the two and never in both: a sample becomes part of a window when it is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::Timestamp;

/// Sensors of one machine whose history is kept; the largest machines have some 200.
pub const SENSORS_MAX: usize = 256;
/// How long samples are kept as they were read.
pub const SAMPLES_KEPT: Duration = Duration::from_hours(24);
/// How long windows are kept.
pub const WINDOWS_KEPT: Duration = Duration::from_hours(30 * 24);
/// Length of a window: six readings at the usual pace, and 1,440 windows in 30 days.
pub const WINDOW: Duration = Duration::from_mins(30);
/// Digits behind the point that are kept.
const DECIMALS_MAX: u8 = 3;
/// Greatest number that is written, as a count of thousandths: far beyond what a sensor says, and exact in an `f64`.
const COUNT_MAX: f64 = 1e15;

/// What a sensor measured in a time: of one reading all three are the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Least.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Greatest.
    pub max: f64,
}

/// What sensors measured at a moment, or from it on; by the number of the sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The moment, or the begin of the window.
    pub at: Timestamp,
    /// By number, ascending.
    pub values: Vec<(u16, Measured)>,
}

/// One point of a graph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Begin of its step.
    pub at: Timestamp,
    /// What was measured in it.
    pub measured: Measured,
}

impl From<f64> for Measured {
    fn from(value: f64) -> Self {
        Self { min: value, mean: value, max: value }
    }
}

/// Several, counted one after the other.
#[derive(Debug, Clone, Copy)]
struct Sum {
    min: f64,
    max: f64,
    sum: f64,
    count: u32,
}

impl Sum {
    fn add(sum: Option<Self>, m: Measured) -> Self {
        match sum {
            None => Self { min: m.min, max: m.max, sum: m.mean, count: 1 },
            Some(s) => {
                Self { min: s.min.min(m.min), max: s.max.max(m.max), sum: s.sum + m.mean, count: s.count + 1 }
            }
        }
    }

    fn measured(self) -> Measured {
        Measured { min: self.min, mean: self.sum / f64::from(self.count), max: self.max }
    }
}

/// The begin of the step that a moment lies in; steps are counted from 1970, so that they do not move with the question.
pub fn floor(at: Timestamp, step: Duration) -> Timestamp {
    let step = u64::try_from(step.as_millis()).unwrap_or(u64::MAX).max(1);
    Timestamp(at.0 - at.0 % step)
}

/// Makes windows of samples. The mean of a window counts each sample the same.
pub fn downsample(rows: &[Row], window: Duration) -> Vec<Row> {
    let mut windows: BTreeMap<Timestamp, BTreeMap<u16, Sum>> = BTreeMap::new();
    for row in rows {
        let sums = windows.entry(floor(row.at, window)).or_default();
        for (number, measured) in &row.values {
            let sum = Sum::add(sums.get(number).copied(), *measured);
            sums.insert(*number, sum);
        }
    }
    windows
        .into_iter()
        .map(|(at, sums)| Row { at, values: sums.into_iter().map(|(n, sum)| (n, sum.measured())).collect() })
        .collect()
}

/// The points of each sensor, one per step in which it was read; a step without a reading has none.
pub fn resample(rows: &[Row], step: Duration) -> BTreeMap<u16, Vec<Point>> {
    let mut series: BTreeMap<u16, Vec<Point>> = BTreeMap::new();
    for Row { at, values } in downsample(rows, step) {
        for (number, measured) in values {
            series.entry(number).or_default().push(Point { at, measured });
        }
    }
    series
}

/// Runs of points that belong together: where nothing was read for longer than `gap`, the line is broken.
pub fn runs(points: &[Point], gap: Duration) -> Vec<&[Point]> {
    points.chunk_by(|a, b| b.at.since(a.at) <= gap).collect()
}

/// Writes values: the number of the sensor as the difference to the one before, then the least value; in windows then what
/// the greatest is above it and, where that is not nothing, where between them the mean lies, as a 255th.
pub fn encode(values: &[(u16, Measured)], windows: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * if windows { 6 } else { 4 });
    let mut before = 0;
    for (number, Measured { min, mean, max }) in values {
        put(&mut bytes, u64::from(number.saturating_sub(before)));
        before = *number;
        put_number(&mut bytes, *min);
        if windows {
            put_number(&mut bytes, max - min);
            if rounded(max - min).0 != 0 {
                // In range: the mean lies between the two.
                bytes.push(((mean - min) / (max - min) * 255.0).round().clamp(0.0, 255.0) as u8);
            }
        }
    }
    bytes
}

/// Reads what [`encode`] wrote; `None` for anything else.
pub fn decode(mut bytes: &[u8], windows: bool) -> Option<Vec<(u16, Measured)>> {
    let mut values = Vec::new();
    let mut before = 0_u16;
    while !bytes.is_empty() && values.len() < SENSORS_MAX {
        before = before.checked_add(u16::try_from(take(&mut bytes)?).ok()?)?;
        let min = take_number(&mut bytes)?;
        let mut measured = Measured::from(min);
        if windows {
            let spread = take_number(&mut bytes)?;
            if spread != 0.0 {
                let (share, rest) = bytes.split_first()?;
                bytes = rest;
                measured.max = min + spread;
                measured.mean = min + spread * f64::from(*share) / 255.0;
            }
        }
        values.push((before, measured));
    }
    bytes.is_empty().then_some(values)
}

/// A value as a count of the largest unit of 1, 1/10, 1/100 or 1/1000 that it is whole in, and which of them that is.
fn rounded(value: f64) -> (i64, u8) {
    let thousandths = (value * 1000.0).round().clamp(-COUNT_MAX, COUNT_MAX);
    // Whole, and small enough for both types; what is no number becomes nothing.
    let mut count = thousandths as i64;
    let mut decimals = DECIMALS_MAX;
    while decimals > 0 && count % 10 == 0 {
        count /= 10;
        decimals -= 1;
    }
    (count, decimals)
}

fn put_number(bytes: &mut Vec<u8>, value: f64) {
    let (count, decimals) = rounded(value);
    // Zigzag: small numbers of either sign are short.
    let zigzag = (count.unsigned_abs() << 1) | u64::from(count < 0);
    put(bytes, (zigzag << 2) | u64::from(decimals));
}

fn take_number(bytes: &mut &[u8]) -> Option<f64> {
    let word = take(bytes)?;
    let (zigzag, decimals) = (word >> 2, (word & 3) as u8);
    // Below 2^61: exact enough, and what `put_number` wrote is exact.
    let size = (zigzag >> 1) as f64 / 10_f64.powi(i32::from(decimals));
    Some(if zigzag & 1 == 1 { -size } else { size })
}

/// A number in groups of seven bits, the least first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Names that tell sensors apart: of several with one name, the second is `… (2)`.
pub fn distinct<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    names
        .into_iter()
        .map(|name| {
            let count = seen.entry(name).or_default();
            *count += 1;
            if *count == 1 { name.to_owned() } else { format!("{name} ({count})") }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIN: u64 = 60_000;

    fn row(minutes: u64, values: &[(u16, f64)]) -> Row {
        Row { at: Timestamp(minutes * MIN), values: values.iter().map(|(n, v)| (*n, (*v).into())).collect() }
    }

    #[test]
    fn samples_become_windows() {
        let rows = [row(0, &[(0, 20.0), (1, 8000.0)]), row(29, &[(0, 30.0)]), row(30, &[(0, 50.0)])];
        let windows = downsample(&rows, WINDOW);
        assert_eq!(windows.iter().map(|w| w.at.0 / MIN).collect::<Vec<_>>(), [0, 30]);
        assert_eq!(windows[0].values[0], (0, Measured { min: 20.0, mean: 25.0, max: 30.0 }));
        assert_eq!(windows[0].values[1], (1, 8000.0.into()));
        assert_eq!(windows[1].values, [(0, 50.0.into())]);
        assert_eq!(downsample(&[], WINDOW), []);
    }

    #[test]
    fn a_pause_breaks_the_line() {
        let rows = [row(0, &[(0, 1.0)]), row(5, &[(0, 2.0)]), row(40, &[(0, 3.0)]), row(45, &[(1, 4.0)])];
        let series = resample(&rows, Duration::from_mins(5));
        assert_eq!((series[&0].len(), series[&1].len()), (3, 1));
        let runs = runs(&series[&0], Duration::from_mins(12));
        assert_eq!(runs.iter().map(|run| run.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_is_written_is_small_and_comes_back() {
        let values: Vec<(u16, Measured)> = [42.0, 42.5, 12.04, 3.312, 8640.0, -40.0, 0.0, 350.0]
            .into_iter()
            .map(Measured::from)
            .zip(0..)
            .map(|(m, n)| (n, m))
            .collect();
        let bytes = encode(&values, false);
        assert_eq!(decode(&bytes, false), Some(values));
        assert!(bytes.len() <= 28, "{} octets for eight sensors", bytes.len());
        let window = [(3, Measured { min: 41.0, mean: 42.5, max: 44.0 }), (9, 5.0.into())];
        let read = decode(&encode(&window, true), true).unwrap();
        assert_eq!((read[0].0, read[0].1.min, read[0].1.max, read[1]), (3, 41.0, 44.0, window[1]));
        assert!((read[0].1.mean - 42.5).abs() < 0.01);
    }

    /// What the guide says of the room that is taken: 60 sensors of a server of two sockets.
    #[test]
    fn sixty_sensors_take_some_hundred_octets() {
        let of = |n: u16, base: f64, spread: f64| {
            (n, Measured { min: base, mean: base + spread / 3.0, max: base + spread })
        };
        let values: Vec<_> = (0..60)
            .map(|n| match n % 6 {
                0 | 1 => of(n, 40.0 + f64::from(n), 3.0),
                2 => of(n, 8400.0, 240.0),
                3 => of(n, 12.04, 0.06),
                4 => of(n, 3.312, 0.0),
                _ => of(n, 220.0, 14.0),
            })
            .collect();
        let (sample, window) = (encode(&values, false).len(), encode(&values, true).len());
        assert!(sample <= 240 && window <= 380, "{sample} and {window} octets");
    }

    #[test]
    fn names_are_told_apart() {
        assert_eq!(distinct(["Temp", "Fan", "Temp", "Temp"]), ["Temp", "Fan", "Temp (2)", "Temp (3)"]);
    }

    proptest! {
        #[test]
        fn no_octets_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), windows: bool) {
            if let Some(values) = decode(&bytes, windows) {
                prop_assert!(values.len() <= SENSORS_MAX);
            }
        }

        #[test]
        fn thousandths_come_back(counts in prop::collection::vec(-10_000_000_i64..10_000_000, 0..80)) {
            let values: Vec<(u16, Measured)> =
                (0..).zip(counts.iter().map(|c| Measured::from(*c as f64 / 1000.0))).collect();
            prop_assert_eq!(decode(&encode(&values, false), false), Some(values));
        }

        #[test]
        fn windows_hold_what_they_are_made_of(values in prop::collection::vec((0_u64..300, -1e6..1e6_f64), 1..60)) {
            let mut rows: Vec<Row> = values.iter().map(|(at, v)| row(*at, &[(0, *v)])).collect();
            rows.sort_by_key(|row| row.at);
            for window in downsample(&rows, WINDOW) {
                let m = window.values[0].1;
                prop_assert!(m.min <= m.mean + 1e-6 && m.mean <= m.max + 1e-6);
                prop_assert!(window.at.0 % (30 * MIN) == 0);
                prop_assert!(rows.iter().any(|row| row.values[0].1.min == m.min));
            }
        }
    }
}
