//! Fixed windows of time, aligned to UTC: which one a moment lies in. Pure arithmetic on Unix seconds.
//!
//! Seconds, minutes, hours and days begin where UTC's do, weeks on Sunday, months on the first, at 00:00. UTC knows no
//! daylight saving, and leap seconds are not in Unix time, so that every window of a unit but the month is equally long. A reset
//! by hand begins a window anew within its edges.
//! Source: Portkey's limits (fixed windows; weekly budgets of keys and workspaces begin on Sunday).

use time::{Date, Duration, Month, OffsetDateTime, Time, UtcOffset};

use super::{RateUnit, Reset, UsageLimit};

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
/// The first Sunday of Unix time, 4 January 1970.
const FIRST_SUNDAY: i64 = 3 * DAY;

/// From `start` until before `end`, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first second; [`i64::MIN`] = no beginning.
    pub start: i64,
    /// The first second after it; [`i64::MAX`] = no end.
    pub end: i64,
    /// [`UsageLimit::reset_at`]: what was counted before another one does not count in it.
    pub reset_at: i64,
}

// === impl Window ===

impl Window {
    const EVER: Self = Self { start: i64::MIN, end: i64::MAX, reset_at: 0 };

    /// The window of a rate limit.
    pub fn of_rate(unit: RateUnit, now: i64) -> Self {
        match unit {
            RateUnit::Second => Self::aligned(now, 1, 0),
            RateUnit::Minute => Self::aligned(now, 60, 0),
            RateUnit::Hour => Self::aligned(now, 3600, 0),
            RateUnit::Day => Self::aligned(now, DAY, 0),
            RateUnit::Week => Self::aligned(now, WEEK, FIRST_SUNDAY),
        }
    }

    /// The period of a usage limit. A `next_reset_at` that lies ahead ends the current one, whatever the calendar says; one
    /// that has passed begins the days of `periodic_reset_days`.
    pub fn of_usage(limit: &UsageLimit, now: i64) -> Self {
        let next = limit.next_reset_at.map(OffsetDateTime::unix_timestamp);
        let regular = match limit.reset {
            Reset::Never => Self::EVER,
            Reset::Weekly => Self::aligned(now, WEEK, FIRST_SUNDAY),
            Reset::Monthly => Self::month(now),
            Reset::Days(days) => Self::aligned(now, i64::from(days.max(1)) * DAY, next.unwrap_or(0)),
        };
        let period = match next {
            Some(next) if now < next => Self { end: next, ..regular },
            Some(next) => Self { start: regular.start.max(next), ..regular },
            None => regular,
        };
        Self { reset_at: limit.reset_at, ..period }
    }

    /// Seconds from `now` until it is over, at least one.
    pub fn remaining_secs(&self, now: i64) -> u64 {
        u64::try_from(self.end.saturating_sub(now)).unwrap_or_default().max(1)
    }

    /// Whether what was counted in `self` counts in `other`, too.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.start, self.reset_at) == (other.start, other.reset_at)
    }

    /// When it is over; `None` = never.
    pub fn over_at(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.end).ok()
    }

    fn aligned(now: i64, length: i64, origin: i64) -> Self {
        let into = now.saturating_sub(origin).rem_euclid(length);
        let start = now.saturating_sub(into);
        Self { start, end: start.saturating_add(length), reset_at: 0 }
    }

    fn month(now: i64) -> Self {
        let Ok(moment) = OffsetDateTime::from_unix_timestamp(now) else {
            return Self::EVER;
        };
        let (year, month) = (moment.year(), moment.month());
        let first = |year: i32, month: Month| {
            let date = Date::from_calendar_date(year, month, 1).ok()?;
            Some(OffsetDateTime::new_utc(date, Time::MIDNIGHT).unix_timestamp())
        };
        let next_year = if month == Month::December { year + 1 } else { year };
        let (start, end) = (first(year, month), first(next_year, month.next()));
        Self { start: start.unwrap_or(i64::MIN), end: end.unwrap_or(i64::MAX), reset_at: 0 }
    }
}

/// The midnight of UTC at or after `instant`.
pub fn next_midnight(instant: OffsetDateTime) -> OffsetDateTime {
    let utc = instant.to_offset(UtcOffset::UTC);
    let midnight = utc.replace_time(Time::MIDNIGHT);
    if midnight < utc { midnight.checked_add(Duration::DAY).unwrap_or(midnight) } else { midnight }
}

#[cfg(test)]
mod tests;
