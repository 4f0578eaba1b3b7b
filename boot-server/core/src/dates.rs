//! Days of the calendar (Gregorian, UTC), for what is written on invoices: no time of day and no zone.

use std::fmt;
use std::str::FromStr;

use protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// Milliseconds of a day; UTC has no others.
const DAY_MS: u64 = 86_400_000;
/// First and last year: nothing older boots, and nothing is under warranty for longer.
const YEARS: std::ops::RangeInclusive<i64> = 1970..=2199;

/// Something that is no day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a day is written as 2027-03-31")]
pub struct BadDate;

/// A day: days since 1970-01-01. Written as `2027-03-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = Date))]
#[serde(try_from = "String", into = "String")]
pub struct Date(i64);

/// A moment to the minute, such as `2027-03-31 07:05 UTC`.
pub fn minute(at: Timestamp) -> String {
    let minutes = at.0 % DAY_MS / 60_000;
    format!("{} {:02}:{:02} UTC", Date::of(at), minutes / 60, minutes % 60)
}

impl Date {
    /// The day of a moment.
    pub fn of(at: Timestamp) -> Self {
        Self(i64::try_from(at.0 / DAY_MS).unwrap_or(i64::MAX))
    }

    /// Its first moment.
    pub fn start(self) -> Timestamp {
        Timestamp(u64::try_from(self.0).unwrap_or(0).saturating_mul(DAY_MS))
    }

    /// This day in another year; the 29th of February becomes the 28th where there is none.
    pub fn plus_years(self, years: i64) -> Self {
        let (year, month, day) = self.civil();
        Self::new(year + years, month, day).unwrap_or_else(|| Self(days(year + years, month, day - 1)))
    }

    /// So many days later, or before.
    pub fn plus_days(self, days: i64) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// Its quarter of a year, such as `2027-Q1`.
    pub fn quarter(self) -> String {
        let (year, month, _) = self.civil();
        format!("{year}-Q{}", (month - 1) / 3 + 1)
    }

    /// The first day of the quarter that is so many after its own.
    pub fn quarter_start(self, later: i64) -> Self {
        let (year, month, _) = self.civil();
        let quarters = year * 4 + (month - 1) / 3 + later;
        Self(days(quarters.div_euclid(4), quarters.rem_euclid(4) * 3 + 1, 1))
    }

    fn new(year: i64, month: i64, day: i64) -> Option<Self> {
        let date = Self(days(year, month, day));
        (date.civil() == (year, month, day)).then_some(date)
    }

    /// Year, month, day (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    fn civil(self) -> (i64, i64, i64) {
        let z = self.0 + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
        (yoe + era * 400 + i64::from(month <= 2), month, day)
    }
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

impl FromStr for Date {
    type Err = BadDate;

    fn from_str(text: &str) -> Result<Self, BadDate> {
        let text = text.trim();
        let digits = text.len() == 10
            && text.bytes().enumerate().all(|(at, c)| match at {
                4 | 7 => c == b'-',
                _ => c.is_ascii_digit(),
            });
        if !digits {
            return Err(BadDate);
        }
        let number = |part: &str| part.parse::<i64>().map_err(|_| BadDate);
        let (year, month, day) = (number(&text[..4])?, number(&text[5..7])?, number(&text[8..])?);
        if !YEARS.contains(&year) || !(1..=12).contains(&month) {
            return Err(BadDate);
        }
        Self::new(year, month, day).ok_or(BadDate)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl TryFrom<String> for Date {
    type Error = BadDate;

    fn try_from(text: String) -> Result<Self, BadDate> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn days_are_read_and_written() {
        assert_eq!(day("1970-01-01"), Date(0));
        assert_eq!(day("2026-11-27").start(), Timestamp(1_795_737_600_000));
        assert_eq!(Date::of(Timestamp(1_795_737_600_000 + DAY_MS - 1)).to_string(), "2026-11-27");
        assert_eq!(day("2024-02-29").plus_years(1).to_string(), "2025-02-28");
        assert_eq!(day("2024-02-29").plus_years(4).to_string(), "2028-02-29");
        for text in
            ["", "2023-02-29", "2026-13-01", "2026-1-1", "26-01-01", "2026/01/01", "+026-01-01", "1969-12-31"]
        {
            assert_eq!(text.parse::<Date>(), Err(BadDate), "{text}");
        }
    }

    #[test]
    fn quarters() {
        assert_eq!(day("2026-11-27").quarter(), "2026-Q4");
        assert_eq!(day("2027-03-31").quarter(), "2027-Q1");
        let starts: Vec<_> = (-1..3).map(|n| day("2026-11-27").quarter_start(n).to_string()).collect();
        assert_eq!(starts, ["2026-07-01", "2026-10-01", "2027-01-01", "2027-04-01"]);
    }

    proptest! {
        #[test]
        fn every_day_comes_back(days in 0_i64..84_000) {
            let date = Date(days);
            prop_assert_eq!(date.to_string().parse(), Ok(date));
            prop_assert_eq!(Date::of(date.start()), date);
            prop_assert!(date.plus_days(1).to_string() > date.to_string());
            prop_assert!(date.quarter_start(0) <= date && date < date.quarter_start(1));
        }
    }
}
