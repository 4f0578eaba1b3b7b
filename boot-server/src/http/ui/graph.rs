//! What sensors measured, as pictures: which sensors are shown first, and the lines, ticks and words of each.

use std::fmt::Write as _;
use std::time::Duration;

use bmc::Unit;
use boot_server_core::bmc::history::{Measured, Point, floor, runs};
use protocol::Timestamp;

use super::format as f;
use crate::view::{MeasuredView, SensorHistory, SensorSeries};

/// Edges of the lines within a picture of 360 by 150; words stand around them.
const LEFT: f64 = 42.0;
const RIGHT: f64 = 350.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 128.0;
/// Steps between values that read well, for a span of one.
const NICE: [f64; 4] = [0.1, 0.2, 0.25, 0.5];
/// Lines across a picture, about.
const LINES: f64 = 4.0;
/// Pictures that are shown first.
const FIRST: usize = 6;
/// Readings that may be missed before the line is broken.
const MISSED: u32 = 3;

/// A time that can be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Hour,
    Day,
    Week,
    Month,
}

impl Span {
    /// All, the shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// As it is written in an address; a day for anything else.
    pub fn of(text: &str) -> Self {
        Self::ALL.into_iter().find(|span| span.key() == text).unwrap_or(Self::Day)
    }

    /// As it is written in an address and on the page.
    pub fn key(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Hour => "1 hour",
            Self::Day => "24 hours",
            Self::Week => "7 days",
            Self::Month => "30 days",
        }
    }

    /// How long it is.
    pub fn length(self) -> Duration {
        Duration::from_hours(match self {
            Self::Hour => 1,
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::Month => 30 * 24,
        })
    }

    /// Between two points. Windows are half an hour, so no picture of days has shorter steps.
    pub fn step(self, every: Duration) -> Duration {
        let fits = Duration::from_mins(match self {
            Self::Hour => 1,
            Self::Day => 10,
            Self::Week => 60,
            Self::Month => 240,
        });
        if self == Self::Hour { every.min(fits) } else { fits }
    }

    /// Between two ticks of the time axis.
    fn tick(self) -> Duration {
        Duration::from_hours(match self {
            Self::Hour => return Duration::from_mins(15),
            Self::Day => 4,
            Self::Week => 24,
            Self::Month => 5 * 24,
        })
    }
}

/// A line across or down, with its word.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Where, in units of the picture.
    pub place: String,
    /// What it stands for.
    pub label: String,
}

/// A limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// CSS class.
    pub class: &'static str,
    /// Where, in units of the picture.
    pub place: String,
    /// Where its word stands: at the right, and a warning's at the left, because it may be near to the critical one.
    pub word_place: String,
    /// Its word.
    pub word: String,
}

/// One picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Makes ids of it.
    pub number: usize,
    /// Name of the sensor.
    pub name: String,
    /// Newest value, with its unit; a dash where it is not read any more. Of days: from the least to the greatest.
    pub now: String,
    /// CSS class, where the newest value is beyond a limit.
    pub tone: &'static str,
    /// The unit, for the axis.
    pub unit: &'static str,
    /// Means, as the data of a path.
    pub line: String,
    /// Between least and greatest, as the data of a path; empty where they are the same.
    pub band: String,
    /// Lines across.
    pub values: Vec<Tick>,
    /// Marks of time.
    pub times: Vec<Tick>,
    /// Limits.
    pub limits: Vec<Limit>,
    /// All of it in words, for those who do not see it.
    pub words: String,
}

/// The pictures of a history, the most telling first; `all` of them or only the first.
pub fn graphs(history: &SensorHistory, span: Span, every: Duration, all: bool) -> Vec<Graph> {
    let mut series: Vec<&SensorSeries> = history.sensors.iter().collect();
    series.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    if !all {
        series = first(&series);
    }
    series.into_iter().enumerate().map(|(number, s)| graph(number, s, history, span, every)).collect()
}

/// Of each kind the most telling ones: three temperatures, two fans, one power; what is left goes to whoever has more.
fn first<'a>(series: &[&'a SensorSeries]) -> Vec<&'a SensorSeries> {
    let kind = |s: &SensorSeries| match s.unit {
        Unit::Celsius => 3,
        Unit::Rpm | Unit::Percent => 2,
        Unit::Watt => 1,
        _ => 0,
    };
    let mut taken = [0; 4];
    let mut shown = Vec::new();
    let mut rest = Vec::new();
    for s in series {
        let kind = kind(s);
        if beyond(s).is_some() || taken[kind] < kind {
            taken[kind] += 1;
            shown.push(*s);
        } else {
            rest.push(*s);
        }
    }
    shown.extend(rest);
    shown.truncate(FIRST);
    shown.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    shown
}

/// The limit that the newest value is beyond: CSS class of its colours.
fn beyond(series: &SensorSeries) -> Option<&'static str> {
    let last = series.points.last()?.mean;
    let above = |limit: Option<f64>| limit.is_some_and(|limit| last >= limit);
    if above(series.upper_critical) || series.lower_critical.is_some_and(|limit| last <= limit) {
        return Some("bad");
    }
    above(series.upper_warning).then_some("ask")
}

/// Less is shown earlier: what is beyond a limit, then by kind, then by how near the limit is.
fn rank(series: &SensorSeries) -> f64 {
    let last = series.points.last().map_or(0.0, |p| p.mean);
    let limit = series.upper_critical.or(series.upper_warning).filter(|limit| *limit > 0.0);
    let kind = match series.unit {
        Unit::Celsius => 0.0,
        Unit::Rpm => 10.0,
        Unit::Percent => 20.0,
        Unit::Watt => 30.0,
        Unit::Ampere => 40.0,
        Unit::Volt => 50.0,
        Unit::Other => 60.0,
    };
    // Within a kind between 0 and 2: 1 where there is no limit.
    let near = match (limit, series.unit) {
        (Some(limit), _) => 1.0 - (last / limit).clamp(-1.0, 1.0),
        (None, Unit::Watt) => 1.0 - (last / 1e5).clamp(0.0, 1.0),
        (None, _) => 1.0,
    };
    kind + near - if beyond(series).is_some() { 1000.0 } else { 0.0 }
}

/// What the axes span.
struct Axes {
    low: f64,
    high: f64,
    from: Timestamp,
    length: f64,
}

impl Axes {
    fn x(&self, at: Timestamp) -> f64 {
        let share = at.since(self.from).as_secs_f64() / self.length;
        LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
    }
}

fn graph(
    number: usize,
    series: &SensorSeries,
    history: &SensorHistory,
    span: Span,
    every: Duration,
) -> Graph {
    let limits = limits(series);
    let values =
        || series.points.iter().flat_map(|p| [p.min, p.max]).chain(limits.iter().map(|(_, _, v)| *v));
    let (low, high, step) =
        nice(values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max), series.unit);
    let axes =
        Axes { low, high, from: history.from, length: history.to.since(history.from).as_secs_f64().max(1.0) };
    let pause = every.max(Duration::from_secs(history.step_seconds)) * MISSED;
    let points: Vec<Point> = series.points.iter().map(|p| middle(p, history)).collect();
    let runs = runs(&points, pause);
    let last = series
        .points
        .last()
        .filter(|p| history.to.since(p.at) <= pause + Duration::from_secs(history.step_seconds));
    Graph {
        number,
        name: series.name.clone(),
        now: match (last, span) {
            (None, _) => "–".to_owned(),
            (Some(last), Span::Hour | Span::Day) => amount(last.mean, series.unit),
            (Some(_), Span::Week | Span::Month) => extent(series),
        },
        tone: last.and(beyond(series)).unwrap_or_default(),
        unit: f::unit(series.unit),
        line: runs.iter().map(|run| line(run, &axes)).collect(),
        band: runs.iter().map(|run| band(run, &axes)).collect(),
        values: value_ticks(&axes, step),
        times: time_ticks(&axes, history, span),
        words: words(series, &limits, runs.len(), span),
        limits: limits.into_iter().map(|(class, word, value)| limit(class, word, value, &axes)).collect(),
    }
}

/// A step's point stands in its middle.
fn middle(point: &MeasuredView, history: &SensorHistory) -> Point {
    let MeasuredView { at, min, mean, max } = *point;
    let at = at.after(Duration::from_secs(history.step_seconds) / 2).min(history.to);
    Point { at, measured: Measured { min, mean, max } }
}

/// Limits that are near enough to the values that they do not flatten the line.
fn limits(series: &SensorSeries) -> Vec<(&'static str, &'static str, f64)> {
    let greatest = series.points.iter().map(|p| p.max).fold(0.0, f64::max);
    let near = |limit: &f64| limit.is_finite() && *limit <= greatest * 3.0 && *limit >= greatest / 20.0;
    let of = |class, word, limit: Option<f64>| limit.filter(near).map(|limit| (class, word, limit));
    [
        of("critical", "critical", series.upper_critical),
        of("warning", "warning", series.upper_warning.filter(|w| Some(*w) != series.upper_critical)),
        of("critical", "critical below", series.lower_critical),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn limit(class: &'static str, word: &str, value: f64, axes: &Axes) -> Limit {
    let y = axes.y(value);
    // The word stands above its line, below it where there is no room.
    let word_place = if y - TOP < 10.0 { y + 10.0 } else { y - 3.0 };
    Limit {
        class,
        place: number(y),
        word_place: number(word_place),
        word: format!("{word} {}", f::plain(value)),
    }
}

/// A span that holds the values, with ends that read well, and the step of its lines.
fn nice(low: f64, high: f64, unit: Unit) -> (f64, f64, f64) {
    // Fans, power and shares are read against nothing; the others against themselves.
    let low = if matches!(unit, Unit::Rpm | Unit::Watt | Unit::Percent) { low.min(0.0) } else { low };
    // A value that never changes gets some room around it.
    let least = (high.abs().max(low.abs()) * 0.02).max(0.01);
    let (low, high) = if high - low < least { (low - least, high + least) } else { (low, high) };
    let raw = (high - low) / LINES;
    let size = 10_f64.powf(raw.log10().ceil());
    let step = size * NICE.into_iter().find(|nice| size * nice >= raw * 0.999).unwrap_or(1.0);
    ((low / step).floor() * step, (high / step).ceil() * step, step)
}

fn value_ticks(axes: &Axes, step: f64) -> Vec<Tick> {
    let decimals =
        (0..4).find(|d| ((step * 10_f64.powi(*d)).fract() * 1000.0).round() % 1000.0 == 0.0).unwrap_or(3);
    let decimals = usize::try_from(decimals).unwrap_or_default();
    // Few by the choice of the step.
    let count = ((axes.high - axes.low) / step).round().clamp(0.0, 12.0) as u32;
    (0..=count)
        .map(|n| axes.low + step * f64::from(n))
        .map(|value| Tick { place: number(axes.y(value)), label: f::grouped(value, decimals) })
        .collect()
}

fn time_ticks(axes: &Axes, history: &SensorHistory, span: Span) -> Vec<Tick> {
    let every = span.tick();
    let mut at = floor(history.from, every).after(every);
    let mut ticks = Vec::new();
    while at < history.to {
        let x = axes.x(at);
        // A word at the very edge would be cut.
        if (LEFT + 8.0..=RIGHT - 8.0).contains(&x) {
            let label = match span {
                Span::Hour | Span::Day => f::clock_time(at),
                Span::Week | Span::Month => f::day(at),
            };
            ticks.push(Tick { place: number(x), label });
        }
        at = at.after(every);
    }
    ticks
}

fn line(run: &[Point], axes: &Axes) -> String {
    let mut path = String::new();
    for (n, point) in run.iter().enumerate() {
        let (x, y) = (number(axes.x(point.at)), number(axes.y(point.measured.mean)));
        // Writing to a string does not fail.
        let _ = write!(path, "{}{x} {y}", if n == 0 { 'M' } else { 'L' });
    }
    if run.len() == 1 {
        // A single reading is a dot, by the round end of the line.
        path.push_str("h.01");
    }
    path
}

fn band(run: &[Point], axes: &Axes) -> String {
    if run.iter().all(|p| p.measured.max <= p.measured.min) {
        return String::new();
    }
    let corner = |p: &Point, value: f64| format!("{} {}", number(axes.x(p.at)), number(axes.y(value)));
    let above = run.iter().map(|p| corner(p, p.measured.max));
    let below = run.iter().rev().map(|p| corner(p, p.measured.min));
    format!("M{}Z", above.chain(below).collect::<Vec<_>>().join("L"))
}

fn words(series: &SensorSeries, limits: &[(&str, &str, f64)], runs: usize, span: Span) -> String {
    let mut text = format!("In the last {} {}.", span.words(), extent(series));
    for (_, word, value) in limits {
        let _ = write!(text, " Limit: {word} {}.", f::amount(*value, series.unit));
    }
    if runs > 1 {
        let _ = write!(text, " Not read {} time{}.", runs - 1, f::s(runs - 1));
    }
    text
}

/// From the least to the greatest: `52 to 70 °C`.
fn extent(series: &SensorSeries) -> String {
    let least = series.points.iter().map(|p| p.min).fold(f64::MAX, f64::min);
    let greatest = series.points.iter().map(|p| p.max).fold(f64::MIN, f64::max);
    format!("{} to {}", f::plain(round(least, series.unit)), amount(greatest, series.unit))
}

fn amount(value: f64, unit: Unit) -> String {
    f::amount(round(value, unit), unit)
}

/// As exact as a sensor of this kind is read.
fn round(value: f64, unit: Unit) -> f64 {
    let parts = match unit {
        Unit::Rpm | Unit::Watt | Unit::Percent => 1.0,
        Unit::Celsius => 10.0,
        Unit::Volt | Unit::Ampere | Unit::Other => 100.0,
    };
    (value * parts).round() / parts
}

/// A place in a picture, to a tenth.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const EVERY: Duration = Duration::from_mins(5);

    fn series(name: &str, unit: Unit, values: &[(u64, f64)]) -> SensorSeries {
        let point = |(minute, v): &(u64, f64)| MeasuredView {
            at: Timestamp(minute * MINUTE),
            min: *v,
            mean: *v,
            max: *v,
        };
        SensorSeries {
            name: name.to_owned(),
            unit,
            upper_warning: None,
            upper_critical: None,
            lower_critical: None,
            points: values.iter().map(point).collect(),
        }
    }

    fn history(sensors: Vec<SensorSeries>) -> SensorHistory {
        SensorHistory { from: Timestamp(0), to: Timestamp(1440 * MINUTE), step_seconds: 600, sensors }
    }

    #[test]
    fn a_gap_is_a_gap_and_limits_are_lines() {
        let mut cpu =
            series("CPU", Unit::Celsius, &[(0, 40.0), (10, 42.0), (20, 41.0), (200, 50.0), (1430, 88.0)]);
        (cpu.upper_warning, cpu.upper_critical) = (Some(85.0), Some(95.0));
        let graph = graphs(&history(vec![cpu]), Span::Day, EVERY, false).remove(0);
        assert_eq!(graph.line.matches('M').count(), 3, "{}", graph.line);
        assert_eq!(
            graph.limits.iter().map(|l| l.word.as_str()).collect::<Vec<_>>(),
            ["critical 95", "warning 85"]
        );
        assert_eq!((graph.now.as_str(), graph.tone, graph.unit), ("88 °C", "ask", "°C"));
        assert_eq!(
            graph.words,
            "In the last 24 hours 40 to 88 °C. Limit: critical 95 °C. Limit: warning 85 °C. Not read 2 times."
        );
        assert_eq!(
            graph.times.iter().map(|t| t.label.as_str()).collect::<Vec<_>>(),
            ["04:00", "08:00", "12:00", "16:00", "20:00"]
        );
        assert_eq!(
            graph.values.iter().map(|t| t.label.as_str()).collect::<Vec<_>>(),
            ["40", "60", "80", "100"]
        );
    }

    #[test]
    fn what_matters_comes_first() {
        let mut all: Vec<_> =
            (0..8).map(|n| series(&format!("T{n}"), Unit::Celsius, &[(1430, 30.0)])).collect();
        all[5].upper_critical = Some(35.0);
        all.extend((0..4).map(|n| series(&format!("Fan{n}"), Unit::Rpm, &[(1430, 8000.0)])));
        all[9].lower_critical = Some(9000.0);
        all.push(series("PSU", Unit::Watt, &[(1430, 300.0)]));
        all.push(series("12V", Unit::Volt, &[(1430, 12.0)]));
        let history = history(all);
        let names =
            |all| graphs(&history, Span::Day, EVERY, all).into_iter().map(|g| g.name).collect::<Vec<_>>();
        assert_eq!(names(false), ["Fan1", "T5", "T0", "T1", "Fan0", "PSU"]);
        assert_eq!(names(true).len(), 14);
    }

    #[test]
    fn axes_read_well() {
        let of = |low, high, unit| nice(low, high, unit);
        assert_eq!(of(8100.0, 8400.0, Unit::Rpm), (0.0, 10_000.0, 2500.0));
        assert_eq!(of(40.0, 95.0, Unit::Celsius), (40.0, 100.0, 20.0));
        for (low, high) in [(12.0, 12.0), (0.0, 0.0), (-5.0, -5.0), (1e9, 1e9), (3.3, 3.312)] {
            let (a, b, step) = of(low, high, Unit::Volt);
            assert!(
                a <= low && b >= high && step > 0.0 && (b - a) / step < 9.0,
                "{low} {high}: {a} {b} {step}"
            );
        }
    }

    #[test]
    fn a_sensor_that_is_not_read_any_more_shows_no_value() {
        let graph =
            graphs(&history(vec![series("CPU", Unit::Celsius, &[(0, 40.0)])]), Span::Day, EVERY, true)
                .remove(0);
        assert_eq!(graph.now, "–");
        assert!(graph.line.ends_with("h.01"));
    }
}
