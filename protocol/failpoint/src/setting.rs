//! What is set for which point, as text.

use std::time::Duration;

use super::Point;

/// Longest wait, in milliseconds: longer is a mistake in a test.
const WAIT_MAX: u64 = 60_000;
/// `errno` of Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process ends at once, as by `kill -9`.
    Kill,
    /// The place fails with this `errno`.
    Error(i32),
    /// The thread waits.
    Wait(Duration),
}

/// At which times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Each time.
    Each,
    /// The n-th time alone, counted from 1.
    Nth(u64),
    /// The n-th time and all after it.
    From(u64),
}

impl Times {
    /// Whether the `n`-th time is one of them.
    pub fn contains(self, n: u64) -> bool {
        match self {
            Self::Each => true,
            Self::Nth(nth) => n == nth,
            Self::From(first) => n >= first,
        }
    }
}

/// One point's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Where.
    pub point: Point,
    /// What.
    pub action: Action,
    /// When.
    pub times: Times,
}

/// All that is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    points: Vec<Setting>,
    /// Milliseconds that the clock is wrong by, so long after the start.
    pub clock: (i64, Duration),
}

impl Settings {
    /// Reads the text of the variable.
    ///
    /// # Errors
    /// A sentence that says what of it is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, what) = part.split_once('=').ok_or_else(|| format!("`{part}` has no `=`"))?;
            if name == "clock" {
                settings.clock = clock(what).ok_or_else(|| format!("`{what}` is no offset of the clock"))?;
                continue;
            }
            let point = Point::named(name).ok_or_else(|| format!("there is no failpoint `{name}`"))?;
            let (action, times) = what.split_once('@').unwrap_or((what, ""));
            let action = self::action(action).ok_or_else(|| format!("`{action}` is no action"))?;
            let times = self::times(times).ok_or_else(|| format!("`{times}` is no number of a time"))?;
            settings.points.push(Setting { point, action, times });
        }
        Ok(settings)
    }

    /// What is set for a point: the first that names it.
    pub fn of(&self, point: Point) -> Option<&Setting> {
        self.points.iter().find(|setting| setting.point == point)
    }
}

fn action(text: &str) -> Option<Action> {
    Some(match text {
        "kill" => Action::Kill,
        "eio" => Action::Error(EIO),
        "enospc" => Action::Error(ENOSPC),
        wait => {
            let ms = wait.strip_prefix("wait:")?.parse().ok().filter(|ms| *ms <= WAIT_MAX)?;
            Action::Wait(Duration::from_millis(ms))
        }
    })
}

fn times(text: &str) -> Option<Times> {
    if text.is_empty() {
        return Some(Times::Each);
    }
    let (number, from) = match text.strip_suffix('+') {
        Some(number) => (number, true),
        None => (text, false),
    };
    let number = number.parse().ok().filter(|n| *n > 0)?;
    Some(if from { Times::From(number) } else { Times::Nth(number) })
}

/// `+3600000` or `-500/2000`.
fn clock(text: &str) -> Option<(i64, Duration)> {
    let (offset, after) = text.split_once('/').unwrap_or((text, "0"));
    Some((offset.parse().ok()?, Duration::from_millis(after.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let text =
            "store.commit.after=kill@3; agent.chunk.write=eio@2+;journal.append=wait:50;clock=-500/2000";
        let settings = Settings::parse(text).unwrap();
        let of = |name: &str| {
            let setting = settings.of(Point::named(name).unwrap())?;
            Some((setting.action, setting.times))
        };
        assert_eq!(of("store.commit.after"), Some((Action::Kill, Times::Nth(3))));
        assert_eq!(of("agent.chunk.write"), Some((Action::Error(EIO), Times::From(2))));
        assert_eq!(of("journal.append"), Some((Action::Wait(Duration::from_millis(50)), Times::Each)));
        assert_eq!(of("store.commit.before"), None);
        assert_eq!(settings.clock, (-500, Duration::from_secs(2)));
        assert!(Times::From(2).contains(7) && !Times::Nth(3).contains(2) && Times::Each.contains(1));
    }

    #[test]
    fn whatever_means_nothing_is_refused() {
        for text in [
            "store.commit.after",
            "store.commit=kill",
            "store.commit.after=die",
            "store.commit.after=kill@0",
            "store.commit.after=kill@x",
            "store.commit.after=wait:99999999",
            "clock=soon",
        ] {
            assert!(Settings::parse(text).is_err(), "{text}");
        }
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
    }
}
