//! How much a client may ask for: rate limits per window, usage limits per period.
//!
//! A request is counted when it is let in, its tokens and its cost when its answer has said what they are. So requests are
//! never let in beyond a limit, and tokens and money by what is under way at most. All limits of a key are judged together:
//! one that refuses leaves the others as they were.

mod memory;
mod quota;

pub use self::quota::{Quota, Remaining};

use std::sync::Arc;

use time::OffsetDateTime;
use tracing::{info, warn};

use self::memory::Memory;
use super::{Denied, window::Window};
use crate::{
    metric::{CountedLabels, Metrics},
    model::{ApiKey, Counted, NANODOLLARS, RateUnit, Reset, Snapshot, Spent},
};

/// The limits of every key; one for the process.
#[derive(Debug)]
pub struct Limits {
    memory: Memory,
    metrics: Arc<Metrics>,
}

/// What an answer has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Tokens, of question and answer.
    pub tokens: u64,
    /// Money, in [`NANODOLLARS`].
    pub cost: u64,
}

/// Which of a key's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Counter {
    /// Of a rate limit.
    Rate(Counted, RateUnit),
    /// Of a usage limit.
    Usage(Spent, Reset),
}

/// One limit at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) counter: Counter,
    pub(super) window: Window,
    pub(super) limit: u64,
    /// What letting the request in adds: one to requests; tokens and money are not known yet.
    pub(super) takes: u64,
}

/// One addition at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Add {
    pub(super) counter: Counter,
    pub(super) window: Window,
    pub(super) amount: u64,
    /// From where on there is an alert.
    pub(super) alert_threshold: Option<u64>,
    pub(super) limit: u64,
}

/// What a counter stood at, with the request in it, or why it was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It fits.
    Fits,
    /// It does not.
    Over,
}

// === impl Limits ===

impl Limits {
    /// No key has asked for anything yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { memory: Memory::default(), metrics }
    }

    /// Lets a request of `key` in and counts it; `spends` says whether it can use up a budget.
    ///
    /// # Errors
    /// [`Denied::RateLimited`] or [`Denied::BudgetExhausted`]; nothing was counted.
    pub async fn admit(&self, key: &ApiKey, spends: bool, now: OffsetDateTime) -> Result<Quota, Denied> {
        if spends && key.exhausted {
            return Err(Denied::BudgetExhausted { key: Arc::clone(&key.id), counts: None, over_at: None });
        }
        if key.rate_limits.is_empty() && key.usage_limits.is_empty() {
            return Ok(Quota::default());
        }
        let now = now.unix_timestamp();
        let checks = checks(key, spends, now);
        let (verdicts, counts) = self.memory.admit(&key.id, &checks);
        let over = |check: &&(Check, u64, Verdict)| check.2 == Verdict::Over;
        let judged: Vec<(Check, u64, Verdict)> =
            checks.iter().zip(counts).zip(verdicts).map(|((check, count), verdict)| (*check, count, verdict)).collect();
        // A budget lasts longer than any rate: waiting out the rate would not help.
        let spent = judged.iter().filter(over).find_map(|(check, ..)| match check.counter {
            Counter::Usage(counts, _) => Some((counts, check.window)),
            Counter::Rate(..) => None,
        });
        if let Some((counts, window)) = spent {
            let over_at = window.over_at();
            return Err(Denied::BudgetExhausted { key: Arc::clone(&key.id), counts: Some(counts), over_at });
        }
        let quota = Quota::of(&judged, now);
        let slowest = judged.iter().filter(over).max_by_key(|(check, ..)| check.window.end);
        match slowest {
            None => Ok(quota),
            Some((check, ..)) => {
                let Counter::Rate(counts, per) = check.counter else { return Ok(quota) };
                let retry_after = std::time::Duration::from_secs(check.window.remaining_secs(now));
                let quota = Box::new(quota);
                Err(Denied::RateLimited { key: Arc::clone(&key.id), counts, per, retry_after, quota })
            }
        }
    }

    /// Adds what an answer to `key` has cost.
    pub fn settle(&self, key: &ApiKey, amounts: Amounts, now: OffsetDateTime) {
        if key.rate_limits.is_empty() && key.usage_limits.is_empty() {
            return;
        }
        let adds = adds(key, amounts, now.unix_timestamp());
        for (add, before) in adds.iter().zip(self.memory.add(&key.id, &adds)) {
            self.watch(&key.id, add, before);
        }
    }

    /// Forgets windows that are over, and keys that `snapshot` does not know.
    pub fn sweep(&self, snapshot: &Snapshot, now: OffsetDateTime) {
        self.memory.sweep(snapshot, now.unix_timestamp());
    }

    /// Says so when `add` has crossed a threshold: once in each period, by whoever crossed it.
    fn watch(&self, key: &str, add: &Add, before: u64) {
        let Counter::Usage(counts, _) = add.counter else { return };
        let after = before.saturating_add(add.amount);
        let crossed = |line: u64| before < line && line <= after;
        let counts = counts.as_str();
        let (used, limit) = (shown(counts, after), shown(counts, add.limit));
        if add.alert_threshold.is_some_and(crossed) {
            self.metrics.usage_alerts.get_or_create(&CountedLabels { counts }).inc();
            warn!(client = key, counts, used, limit, "An API key has reached its alert threshold.");
        }
        if crossed(add.limit) {
            info!(client = key, counts, used, limit, "An API key has used up its budget.");
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether a counter at `count` takes what `check` adds.
    pub(super) const fn of(check: &Check, count: u64) -> Self {
        // What is not known yet fits as long as there is room at all.
        let takes = if check.takes == 0 { 1 } else { check.takes };
        if count.saturating_add(takes) > check.limit { Self::Over } else { Self::Fits }
    }
}

/// Whether a limit of `key` counts what only answers tell.
pub(super) fn needs_usage(key: &ApiKey) -> bool {
    !key.usage_limits.is_empty() || key.rate_limits.iter().any(|limit| limit.counts == Counted::Tokens)
}

/// Tokens, or dollars.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn shown(counts: &str, amount: u64) -> f64 {
    if counts == Spent::Cost.as_str() { amount as f64 / NANODOLLARS as f64 } else { amount as f64 }
}

fn checks(key: &ApiKey, spends: bool, now: i64) -> Vec<Check> {
    let rates = key.rate_limits.iter().map(|limit| Check {
        counter: Counter::Rate(limit.counts, limit.per),
        window: Window::of_rate(limit.per, now),
        limit: limit.value,
        takes: match limit.counts {
            Counted::Requests => 1,
            Counted::Tokens => 0,
        },
    });
    let usages = key.usage_limits.iter().filter(|_| spends).map(|limit| Check {
        counter: Counter::Usage(limit.counts, limit.reset),
        window: Window::of_usage(limit, now),
        limit: limit.limit,
        takes: 0,
    });
    rates.chain(usages).collect()
}

fn adds(key: &ApiKey, amounts: Amounts, now: i64) -> Vec<Add> {
    let rates = key.rate_limits.iter().filter(|limit| limit.counts == Counted::Tokens).map(|limit| Add {
        counter: Counter::Rate(limit.counts, limit.per),
        window: Window::of_rate(limit.per, now),
        amount: amounts.tokens,
        alert_threshold: None,
        limit: limit.value,
    });
    let usages = key.usage_limits.iter().map(|limit| Add {
        counter: Counter::Usage(limit.counts, limit.reset),
        window: Window::of_usage(limit, now),
        amount: match limit.counts {
            Spent::Cost => amounts.cost,
            Spent::Tokens => amounts.tokens,
        },
        alert_threshold: limit.alert_threshold,
        limit: limit.limit,
    });
    rates.chain(usages).filter(|add| add.amount > 0).collect()
}

#[cfg(test)]
mod tests;
