//! `rate_limits` and `usage_limits` → an [`Account`]: the same for API keys, virtual keys and workspaces.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{api_key::instant, findings::Report};
use crate::model::{
    Account, AccountKind, Counted, NANODOLLARS, RateLimit, RateUnit, Reset, Spent, UsageLimit,
    raw::{self, Given, Text},
    window::next_midnight,
};

/// Largest `credit_limit`, in dollars or tokens; sums of it fit every counter.
const MAX_CREDIT: f64 = 9e9;
const MAX_TOKENS: f64 = 9e15;
/// Days of the longest period.
const MAX_DAYS: u64 = 365;

/// The account of `owner`; `None` when it has no limit.
pub(super) fn account(
    (kind, id): (AccountKind, &Arc<str>),
    exhausted: bool,
    rate: Given<Vec<&RawValue>>,
    (usage, reset_at): (Given<&RawValue>, Given<Text<'_>>),
    report: &mut Report<'_>,
) -> Option<Arc<Account>> {
    let (rate, mut usage) = (rate_limits(rate, report), usage_limits(usage, report));
    if let Ok(Some(at)) = instant("usage_reset_at", reset_at, report) {
        let millis = i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        usage.iter_mut().for_each(|limit| limit.reset_at = millis);
    }
    Account::new(kind, id, exhausted, rate, usage)
}

fn rate_limits(given: Given<Vec<&RawValue>>, report: &mut Report<'_>) -> Vec<RateLimit> {
    let rows = report.value("rate_limits", given, "a list").unwrap_or_default();
    let mut limits: Vec<RateLimit> = Vec::with_capacity(rows.len());
    for (at, row) in rows.into_iter().enumerate() {
        let key = |member: &str| format!("rate_limits[{at}]{member}");
        let Some(row) = raw::row::<raw::RateLimit<'_>>(row) else {
            report.fault(key(""), "must be an object that names each of its fields once");
            continue;
        };
        let counts = match report.text(key(".type"), row.counts).as_deref() {
            None | Some("requests") => Some(Counted::Requests),
            Some("tokens") => Some(Counted::Tokens),
            Some(_) => {
                report.fault(key(".type"), "must be requests or tokens");
                None
            }
        };
        let per = match report.text(key(".unit"), row.unit) {
            None => Some(RateUnit::Minute),
            Some(text) => {
                let unit = RateUnit::ALL.into_iter().find(|unit| unit.as_str() == text);
                if unit.is_none() {
                    report.fault(key(".unit"), "must be rps, rpm, rph, rpd or rpw");
                }
                unit
            }
        };
        let value = match row.value {
            Given::Absent => {
                report.fault(key(".value"), "is missing");
                None
            }
            value => report.value(key(".value"), value, "a whole number"),
        };
        let (Some(counts), Some(per), Some(value)) = (counts, per, value) else { continue };
        match limits.iter_mut().find(|limit| (limit.counts, limit.per) == (counts, per)) {
            // One counter, so one limit: the tighter of the two holds anyway.
            Some(limit) => limit.value = limit.value.min(value),
            None => limits.push(RateLimit { counts, per, value }),
        }
    }
    limits
}

fn usage_limits(given: Given<&RawValue>, report: &mut Report<'_>) -> Vec<UsageLimit> {
    let raw = match given {
        Given::Value(raw) => raw,
        Given::Absent => return Vec::new(),
        Given::Unusable => {
            report.fault("usage_limits", "must be an object");
            return Vec::new();
        }
    };
    let rows: Vec<&RawValue> = match serde_json::from_str(raw.get()) {
        Ok(rows) => rows,
        Err(_) => vec![raw],
    };
    let mut limits: Vec<UsageLimit> = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(limit) = usage_limit(row, report) else { continue };
        if limits.iter().any(|other| (other.counts, other.reset) == (limit.counts, limit.reset)) {
            report.fault("usage_limits", "holds two limits of one type and period; remove one");
        }
        limits.push(limit);
    }
    limits
}

fn usage_limit(raw: &RawValue, report: &mut Report<'_>) -> Option<UsageLimit> {
    let Some(raw) = raw::row::<raw::UsageLimit<'_>>(raw) else {
        report.fault("usage_limits", "must be an object that names each of its fields once");
        return None;
    };
    let counts = match report.text("usage_limits.type", raw.counts).as_deref() {
        None | Some("cost") => Spent::Cost,
        Some("tokens") => Spent::Tokens,
        Some(_) => {
            report.fault("usage_limits.type", "must be cost or tokens");
            return None;
        }
    };
    let (unit, most) = match counts {
        Spent::Cost => (NANODOLLARS, MAX_CREDIT),
        Spent::Tokens => (1, MAX_TOKENS),
    };
    let mut amount = |key: &str, given: Given<f64>| {
        let amount = report.value(key, given, "a number")?;
        if amount > 0.0 && amount <= most {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
            return Some((amount * unit as f64).round() as u64);
        }
        report.fault(key, format_args!("must be above 0 and at most {most:.0}"));
        None
    };
    let limit = amount("usage_limits.credit_limit", raw.credit_limit);
    let alert_threshold = amount("usage_limits.alert_threshold", raw.alert_threshold);
    if limit.is_some_and(|limit| alert_threshold.is_some_and(|threshold| threshold > limit)) {
        report.fault("usage_limits.alert_threshold", "is above credit_limit; lower it");
    }
    let word = report.text("usage_limits.periodic_reset", raw.periodic_reset);
    let days = report.value("usage_limits.periodic_reset_days", raw.periodic_reset_days, "a whole number");
    let reset = match (word.as_deref(), days) {
        (None, None) => Reset::Never,
        (Some("weekly"), None) => Reset::Weekly,
        (Some("monthly"), None) => Reset::Monthly,
        (None, Some(days @ 1..=MAX_DAYS)) => Reset::Days(u16::try_from(days).unwrap_or(u16::MAX)),
        (None, Some(_)) => {
            report.fault("usage_limits.periodic_reset_days", format_args!("must be 1 to {MAX_DAYS}"));
            return None;
        }
        (Some(_), None) => {
            report.fault("usage_limits.periodic_reset", "must be weekly or monthly");
            return None;
        }
        (Some(_), Some(_)) => {
            report.fault("usage_limits.periodic_reset_days", "stands beside periodic_reset; remove one");
            return None;
        }
    };
    let next = instant("usage_limits.next_usage_reset_at", raw.next_usage_reset_at, report).ok()?;
    // No limit and no threshold: there is nothing to watch.
    (limit.is_some() || alert_threshold.is_some()).then_some(UsageLimit {
        counts,
        limit: limit.unwrap_or(u64::MAX),
        alert_threshold,
        reset,
        next_reset_at: next.map(next_midnight),
        reset_at: 0,
    })
}
