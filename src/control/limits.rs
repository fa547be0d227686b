//! Usage and rate limits as the admin API takes and shows them. Whoever lets requests through enforces them.
//!
//! Either may be given as one object or as a list. A usage limit starts anew by word or by days, never both; when it does so
//! next is worked out where nobody says it, as a data plane reads it: at a midnight of UTC, weeks begin on Sunday.

use serde::{Deserialize, Serialize};
use serde_json::Number;
use time::{Date, Duration, Month, OffsetDateTime, Time, Weekday, format_description::well_known::Rfc3339};

use super::{
    answer::instant,
    fields::{Fields, Given, Length},
    store::now,
};
use crate::model::{self, NANODOLLARS, Reset, Spent};

/// Most of them for one object.
const MAX_LIMITS: usize = 10;
/// Largest `credit_limit` and `alert_threshold` in dollars, as a data plane takes it: it counts nano-dollars.
const MAX_AMOUNT: f64 = 1.0e9;
/// As `MAX_AMOUNT`, in tokens.
const MAX_TOKENS: f64 = 1.0e15;
/// Longest `periodic_reset_days`.
const MAX_DAYS: u16 = 365;

/// `usage_limits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageLimit {
    /// `cost` or `tokens`.
    #[serde(rename = "type")]
    pub counts: String,
    /// How much at most, in dollars or tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_limit: Option<Number>,
    /// From where on there is an alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_threshold: Option<Number>,
    /// `weekly` or `monthly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub periodic_reset: Option<String>,
    /// Every so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub periodic_reset_days: Option<u16>,
    /// When it starts anew next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_usage_reset_at: Option<String>,
}

/// `rate_limits[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// `requests` or `tokens`.
    #[serde(rename = "type")]
    pub counts: String,
    /// Per which time: `rps` to `rpw`.
    pub unit: String,
    /// How many.
    pub value: u64,
}

// === impl UsageLimit ===

impl UsageLimit {
    /// The rule as data planes have it, which says in which period a moment lies.
    pub fn rule(&self) -> model::UsageLimit {
        let counts = if self.counts == "tokens" { Spent::Tokens } else { Spent::Cost };
        let unit = if counts == Spent::Tokens { 1 } else { NANODOLLARS };
        let reset = match (self.periodic_reset.as_deref(), self.periodic_reset_days) {
            (Some("weekly"), _) => Reset::Weekly,
            (Some(_), _) => Reset::Monthly,
            (None, Some(days)) => Reset::Days(days),
            (None, None) => Reset::Never,
        };
        let next = self.next_usage_reset_at.as_deref().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        model::UsageLimit {
            counts,
            limit: units(self.credit_limit.as_ref(), unit).unwrap_or(u64::MAX),
            alert_threshold: units(self.alert_threshold.as_ref(), unit),
            reset,
            next_reset_at: next.map(model::next_midnight),
            reset_at: 0,
        }
    }
}

/// `usage_limits`, checked.
pub fn usage(fields: &mut Fields<'_>) -> Given<Vec<UsageLimit>> {
    let limits = read(fields, "usage_limits", |row| {
        // An empty object is how clients say that there is none.
        row.members().next()?;
        let counts = word(row, "type", &["cost", "tokens"])?.unwrap_or_else(|| "cost".to_owned());
        let most = if counts == "tokens" { MAX_TOKENS } else { MAX_AMOUNT };
        let credit_limit = amount(row, "credit_limit", most);
        let alert_threshold = amount(row, "alert_threshold", most);
        if let (Some(limit), Some(alert)) = (&credit_limit, &alert_threshold)
            && alert.as_f64() > limit.as_f64()
        {
            row.fault("alert_threshold", "must not be above credit_limit");
        }
        let periodic_reset = word(row, "periodic_reset", &["weekly", "monthly"])?;
        let days = row.typed::<u16>("periodic_reset_days", "must be a whole number of days, or null").value();
        if days.is_some_and(|days| !(1..=MAX_DAYS).contains(&days)) {
            row.fault("periodic_reset_days", format_args!("must be 1 to {MAX_DAYS}"));
        }
        if days.is_some() && periodic_reset.is_some() {
            row.fault("periodic_reset_days", "cannot be given beside periodic_reset");
        }
        let next_usage_reset_at =
            time(row, "next_usage_reset_at").value().or_else(|| next_reset(periodic_reset.as_deref(), days));
        let periodic_reset_days = days;
        Some(UsageLimit {
            counts,
            credit_limit,
            alert_threshold,
            periodic_reset,
            periodic_reset_days,
            next_usage_reset_at,
        })
    });
    if let Given::Value(limits) = &limits {
        let period =
            |limit: &UsageLimit| (limit.counts.clone(), limit.periodic_reset.clone(), limit.periodic_reset_days);
        let is_second = |(index, limit)| limits[..index].iter().any(|other| period(other) == period(limit));
        // A data plane has one counter for both.
        if limits.iter().enumerate().any(is_second) {
            fields.fault("usage_limits", "holds two limits of one type and period");
        }
    }
    limits
}

/// `rate_limits`, checked.
pub fn rates(fields: &mut Fields<'_>) -> Given<Vec<RateLimit>> {
    read(fields, "rate_limits", rate)
}

/// `rate_limits`, checked, where each says its type and unit.
pub fn explicit_rates(fields: &mut Fields<'_>) -> Given<Vec<RateLimit>> {
    read(fields, "rate_limits", |row| {
        for key in ["type", "unit"] {
            let given = row.raw(key);
            row.require(key, given);
        }
        rate(row)
    })
}

fn rate(row: &mut Fields<'_>) -> Option<RateLimit> {
    row.members().next()?;
    let counts = word(row, "type", &["requests", "tokens"])?.unwrap_or_else(|| "requests".to_owned());
    let unit = word(row, "unit", &["rps", "rpm", "rph", "rpd", "rpw"])?.unwrap_or_else(|| "rpm".to_owned());
    let value = row.typed::<u64>("value", "must be a whole number");
    let value = row.require("value", value)?;
    Some(RateLimit { counts, unit, value })
}

/// A time of RFC 3339, as it was given.
pub fn time(fields: &mut Fields<'_>, key: &'static str) -> Given<String> {
    let text = fields.text(key, Length(0, 64));
    match &text {
        Given::Value(text) if text.is_empty() => Given::Null,
        Given::Value(given) if OffsetDateTime::parse(given, &Rfc3339).is_err() => {
            fields.fault(key, "must be a time like 2026-11-21T03:00:00Z, or null");
            Given::Absent
        }
        _ => text,
    }
}

/// A time of RFC 3339 in milliseconds since 1970.
pub fn millis(time: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

fn read<T>(fields: &mut Fields<'_>, key: &'static str, one: impl Fn(&mut Fields<'_>) -> Option<T>) -> Given<Vec<T>> {
    let rows = match fields.one_or_more(key) {
        Given::Value(rows) => rows,
        Given::Null => return Given::Null,
        Given::Absent => return Given::Absent,
    };
    if rows.len() > MAX_LIMITS {
        fields.fault(key, format_args!("must be {MAX_LIMITS} at most"));
    }
    let mut limits = Vec::with_capacity(rows.len());
    for mut row in rows {
        limits.extend(one(&mut row));
        fields.absorb(row);
    }
    Given::Value(limits)
}

/// One of `words`; `None` when it is another.
#[expect(clippy::option_option, reason = "a fault is not an absent word")]
fn word(row: &mut Fields<'_>, key: &'static str, words: &[&str]) -> Option<Option<String>> {
    let given = row.text(key, Length(0, 64)).value().filter(|word| !word.is_empty());
    match given {
        Some(word) if !words.contains(&word.as_str()) => {
            row.fault(key, format_args!("must be one of {}", words.join(", ")));
            None
        }
        given => Some(given),
    }
}

fn amount(row: &mut Fields<'_>, key: &'static str, most: f64) -> Option<Number> {
    let amount = row.typed::<Number>(key, "must be a number, or null").value()?;
    let fits = amount.as_f64().is_some_and(|amount| amount > 0.0 && amount <= most);
    if !fits {
        row.fault(key, format_args!("must be above 0 and at most {most:.0}"));
    }
    fits.then_some(amount)
}

/// `amount` of what is counted in `unit`s. It was checked to be in range.
fn units(amount: Option<&Number>, unit: u64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "in range"
    )]
    Some((amount?.as_f64()? * unit as f64).round() as u64)
}

/// When a limit starts anew for the first time, if it does by itself.
fn next_reset(word: Option<&str>, days: Option<u16>) -> Option<String> {
    let today = OffsetDateTime::from_unix_timestamp(now() / 1000).ok()?.date();
    let next = match (word, days) {
        (Some("weekly"), _) => today.next_occurrence(Weekday::Sunday),
        (Some(_), _) => {
            let month = today.month().next();
            let year = if month == Month::January { today.year() + 1 } else { today.year() };
            Date::from_calendar_date(year, month, 1).ok()?
        }
        (None, Some(days)) => today.checked_add(Duration::days(days.into()))?,
        (None, None) => return None,
    };
    Some(instant(next.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp() * 1000))
}
