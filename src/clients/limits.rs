//! How much an account may ask for: rate limits per window, usage limits per period.
//!
//! A request is counted when it is let in, its tokens and its cost when its answer has said what they are. So requests are
//! never let in beyond a limit, and tokens and money by what is under way at most. All limits of all accounts of a request are
//! judged together: one that refuses leaves the others as they were.

mod memory;
mod quota;

pub use self::quota::{Quota, Remaining};

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tracing::{info, warn};

use self::memory::Memory;
use super::{Denied, window::Window};
use crate::{
    metric::{CountedLabels, Metrics},
    model::{Account, Counted, NANODOLLARS, RateUnit, Reset, Snapshot, Spent},
};

/// The limits of every account; one for the process.
#[derive(Debug)]
pub struct Limits {
    memory: Memory,
    metrics: Arc<Metrics>,
}

/// What a request has used, beyond being let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// One, for accounts whose part in it was not known when it was let in.
    pub requests: u64,
    /// Tokens, of question and answer.
    pub tokens: u64,
    /// Money, in [`NANODOLLARS`].
    pub cost: u64,
}

/// Which of an account's counters.
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
    /// Whose, as an index.
    pub(super) account: usize,
    pub(super) counter: Counter,
    pub(super) window: Window,
    pub(super) limit: u64,
    /// What letting the request in adds: one to requests; tokens and money are not known yet.
    pub(super) takes: u64,
    /// What the counter stood at when it was judged.
    pub(super) before: u64,
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

// === impl Limits ===

impl Limits {
    /// Nobody has asked for anything yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { memory: Memory::default(), metrics }
    }

    /// Lets a request in on behalf of `accounts`, and counts it; `spends` says whether it can use up a budget. Of accounts
    /// from `counted` on, the request is not counted yet.
    ///
    /// # Errors
    /// [`Denied::RateLimited`] or [`Denied::BudgetExhausted`]; nothing was counted.
    pub async fn admit(
        &self,
        accounts: &[Arc<Account>],
        counted: usize,
        spends: bool,
        now: OffsetDateTime,
    ) -> Result<Quota, Denied> {
        if spends && let Some(account) = accounts.iter().find(|account| account.exhausted) {
            return Err(Denied::BudgetExhausted { account: Arc::clone(account), counts: None, over_at: None });
        }
        let now = now.unix_timestamp();
        let mut checks = checks(accounts, counted, spends, now);
        if checks.is_empty() {
            return Ok(Quota::default());
        }
        let admitted = self.memory.admit(accounts, &mut checks);
        self.judge(accounts, &checks, admitted, now)
    }

    /// Adds what a request of `account` has used.
    pub fn settle(&self, account: &Arc<Account>, amounts: Amounts, now: OffsetDateTime) {
        let adds = adds(account, amounts, now.unix_timestamp());
        for (add, before) in adds.iter().zip(self.memory.add(&account.name, &adds)) {
            self.watch(account, add, before);
        }
    }

    /// Forgets windows that are over, and accounts that `snapshot` does not know.
    pub fn sweep(&self, snapshot: &Snapshot, now: OffsetDateTime) {
        self.memory.sweep(snapshot, now.unix_timestamp());
    }

    /// What the client is told.
    fn judge(&self, accounts: &[Arc<Account>], checks: &[Check], admitted: bool, now: i64) -> Result<Quota, Denied> {
        let quota = Quota::of(checks, admitted, now);
        if admitted {
            return Ok(quota);
        }
        let over = checks.iter().filter(|check| check.is_over());
        // A budget lasts longer than any rate: waiting out the rate would not help.
        let spent = over.clone().find_map(|check| match check.counter {
            Counter::Usage(counts, _) => Some((counts, check)),
            Counter::Rate(..) => None,
        });
        if let Some((counts, check)) = spent {
            let (account, over_at) = (Arc::clone(&accounts[check.account]), check.window.over_at());
            return Err(Denied::BudgetExhausted { account, counts: Some(counts), over_at });
        }
        let rates = over.filter_map(|check| match check.counter {
            Counter::Rate(counts, per) => Some((counts, per, check)),
            Counter::Usage(..) => None,
        });
        let Some((counts, per, check)) = rates.max_by_key(|(.., check)| check.window.end) else { return Ok(quota) };
        let retry_after = Duration::from_secs(check.window.remaining_secs(now));
        let account = Arc::clone(&accounts[check.account]);
        Err(Denied::RateLimited { account, counts, per, retry_after, quota: Box::new(quota) })
    }

    /// Says so when `add` has crossed a threshold: once in each period, by whoever crossed it.
    fn watch(&self, account: &Account, add: &Add, before: u64) {
        let Counter::Usage(counts, _) = add.counter else { return };
        let after = before.saturating_add(add.amount);
        let crossed = |line: u64| before < line && line <= after;
        let counts = counts.as_str();
        let (used, limit) = (shown(counts, after), shown(counts, add.limit));
        let account = &*account.name;
        if add.alert_threshold.is_some_and(crossed) {
            self.metrics.usage_alerts.get_or_create(&CountedLabels { counts }).inc();
            warn!(account, counts, used, limit, "A budget has reached its alert threshold.");
        }
        if crossed(add.limit) {
            info!(account, counts, used, limit, "A budget is used up.");
        }
    }
}

// === impl Check ===

impl Check {
    /// Whether there is no room for what it adds.
    pub(super) const fn is_over(&self) -> bool {
        // What is not known yet fits as long as there is room at all.
        let takes = if self.takes == 0 { 1 } else { self.takes };
        self.before.saturating_add(takes) > self.limit
    }
}

/// Whether a limit of `account` counts what only answers tell.
pub(super) fn needs_usage(account: &Account) -> bool {
    !account.usage_limits.is_empty() || account.rate_limits.iter().any(|limit| limit.counts == Counted::Tokens)
}

/// Tokens, or dollars.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn shown(counts: &str, amount: u64) -> f64 {
    if counts == Spent::Cost.as_str() { amount as f64 / NANODOLLARS as f64 } else { amount as f64 }
}

fn checks(accounts: &[Arc<Account>], counted: usize, spends: bool, now: i64) -> Vec<Check> {
    let mut checks = Vec::new();
    for (at, account) in accounts.iter().enumerate() {
        checks.extend(account.rate_limits.iter().map(|limit| Check {
            account: at,
            counter: Counter::Rate(limit.counts, limit.per),
            window: Window::of_rate(limit.per, now),
            limit: limit.value,
            takes: match limit.counts {
                Counted::Requests => u64::from(at < counted),
                Counted::Tokens => 0,
            },
            before: 0,
        }));
        if spends {
            checks.extend(account.usage_limits.iter().map(|limit| Check {
                account: at,
                counter: Counter::Usage(limit.counts, limit.reset),
                window: Window::of_usage(limit, now),
                limit: limit.limit,
                takes: 0,
                before: 0,
            }));
        }
    }
    checks
}

fn adds(account: &Account, amounts: Amounts, now: i64) -> Vec<Add> {
    let rates = account.rate_limits.iter().map(|limit| Add {
        counter: Counter::Rate(limit.counts, limit.per),
        window: Window::of_rate(limit.per, now),
        amount: match limit.counts {
            Counted::Requests => amounts.requests,
            Counted::Tokens => amounts.tokens,
        },
        alert_threshold: None,
        limit: limit.value,
    });
    let usages = account.usage_limits.iter().map(|limit| Add {
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
