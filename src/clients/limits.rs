//! How much an account may ask for: rate limits per window, usage limits per period.
//!
//! A request is counted when it is let in, its tokens and its cost when its answer has said what they are. So requests are
//! never let in beyond a limit, and tokens and money by what is under way at most. All limits of all accounts of a request are
//! judged together: one that refuses leaves the others as they were.

mod memory;
mod quota;
mod shared;

pub use self::{
    quota::{Quota, Remaining},
    shared::{OnFailure, Shared, SharedSettings, StoreError, StoreSettings},
};

use std::{ops::Range, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use self::{
    memory::{Known, Memory},
    shared::{Row, Told},
};
use super::{
    Denied,
    alerts::{Alert, Alerts},
};
use crate::{
    egress::Transport,
    metric::{CountedLabels, Metrics},
    model::{Account, Counted, NANODOLLARS, RateUnit, Reset, Snapshot, Spent, Window},
};

/// Accounts that are told the store at once.
const BATCH: usize = 200;
/// How often a store that is away is tried.
const RETRY: Duration = Duration::from_secs(1);

/// The limits of every account; one for the process.
#[derive(Debug)]
pub struct Limits {
    memory: Memory,
    /// Counters of other replicas, if they are shared.
    shared: Option<Shared>,
    /// Who is told of budgets, beside log and metrics.
    alerts: Option<Alerts>,
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
    /// From where on there is an alert.
    pub(super) alert_threshold: Option<u64>,
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
    /// Nobody has asked for anything yet. `shared`: where other replicas count.
    pub fn new(shared: Option<Shared>, alerts: Option<Alerts>, metrics: Arc<Metrics>) -> Self {
        Self { memory: Memory::new(shared.is_some()), shared, alerts, metrics }
    }

    /// Delivers alerts, until it is dropped.
    pub async fn alert(&self, transport: &Transport) {
        if let Some(alerts) = &self.alerts {
            alerts.deliver(transport).await;
        }
    }

    /// Lets a request in on behalf of `accounts`, and counts it; `spends` says whether it can use up a budget. Of accounts
    /// from `counted` on, the request is not counted yet.
    ///
    /// # Errors
    /// [`Denied::RateLimited`] or [`Denied::BudgetExhausted`]; nothing was counted. [`Denied::Uncounted`] when the store is
    /// away, if that is how it is configured.
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
        let admitted = match &self.shared {
            Some(shared) => self.admit_shared(shared, accounts, &mut checks).await?,
            None => self.memory.admit(accounts, &mut checks),
        };
        self.judge(accounts, &checks, admitted, now)
    }

    /// By what is known, or by the store.
    async fn admit_shared(
        &self,
        shared: &Shared,
        accounts: &[Arc<Account>],
        checks: &mut [Check],
    ) -> Result<bool, Denied> {
        let rows = match self.memory.admit_known(accounts, checks, shared.staleness()) {
            Known::Admitted => return Ok(true),
            Known::Refused => return Ok(false),
            Known::Ask(rows) => rows,
        };
        if shared.is_up()
            && let Ok((admitted, told)) = shared.exchange(true, &rows).await
        {
            self.memory.told(&rows, &told, admitted);
            self.watch_told(&rows, &told);
            for (check, told) in checks.iter_mut().zip(&told) {
                check.before = told.total;
            }
            return Ok(admitted);
        }
        match shared.settings().on_failure {
            OnFailure::Local => Ok(self.memory.admit(accounts, checks)),
            OnFailure::Reject => Err(Denied::Uncounted),
        }
    }

    /// Tells the store what was counted, as often as it is configured, until it is dropped. Nothing to do where counters are not
    /// shared.
    pub async fn share(&self) {
        let Some(shared) = &self.shared else { return };
        let mut ticks = tokio::time::interval(shared.settings().sync);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tried = Instant::now();
        loop {
            ticks.tick().await;
            if !shared.is_up() && tried.elapsed() < RETRY {
                continue;
            }
            tried = Instant::now();
            self.tell(shared).await;
        }
    }

    /// Tells the store everything it does not know yet. With nothing to tell, a store that was away is asked for a sign of life.
    async fn tell(&self, shared: &Shared) {
        loop {
            let rows = self.memory.untold(BATCH);
            if rows.is_empty() && shared.is_up() {
                return;
            }
            match shared.exchange(false, &rows).await {
                Ok((_, told)) => {
                    self.memory.told(&rows, &told, false);
                    self.watch_told(&rows, &told);
                }
                Err(_) => return self.memory.still_untold(&rows),
            }
        }
    }

    /// Tells the store what is left, at the end.
    pub async fn farewell(&self) {
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) {
            self.tell(shared).await;
        }
    }

    /// Adds what a request of `account` has used.
    pub fn settle(&self, account: &Arc<Account>, amounts: Amounts, now: OffsetDateTime) {
        let adds = adds(account, amounts, now.unix_timestamp());
        let before = self.memory.add(&account.name, &adds);
        if self.shared.as_ref().is_some_and(Shared::is_up) {
            // The store says what all have used, and to one of them that it has crossed a line.
            return;
        }
        for (add, before) in adds.iter().zip(before) {
            let (after, lines) = (before.saturating_add(add.amount), (add.alert_threshold, add.limit));
            self.watch(&account.name, add.counter, before..after, lines);
        }
    }

    /// Forgets windows that are over, and accounts that `snapshot` does not know.
    pub fn sweep(&self, snapshot: &Snapshot, now: OffsetDateTime) {
        self.memory.sweep(snapshot, now.unix_timestamp());
    }

    /// Looks for a changed address of the store.
    pub fn refresh(&self) {
        if let Some(shared) = &self.shared {
            shared.refresh();
        }
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

    fn watch_told(&self, rows: &[Row], told: &[Told]) {
        for (row, told) in rows.iter().zip(told) {
            self.watch(&row.account, row.counter, told.before..told.total, (row.alert_threshold, row.limit));
        }
    }

    /// Says so when a threshold, or the end of a budget, was crossed: once in each period, by whoever crossed it.
    fn watch(&self, account: &str, counter: Counter, crossed: Range<u64>, (threshold, limit): (Option<u64>, u64)) {
        let Counter::Usage(counts, _) = counter else { return };
        let is_crossed = |line: u64| crossed.start < line && line <= crossed.end;
        let counts = counts.as_str();
        let (used, shown_limit) = (shown(counts, crossed.end), shown(counts, limit));
        let raise = |event| {
            if let Some(alerts) = &self.alerts {
                let (account, at) = (account.into(), OffsetDateTime::now_utc());
                let limit = (limit < u64::MAX).then_some(shown_limit);
                let alert_threshold = threshold.map(|threshold| shown(counts, threshold));
                alerts.raise(Alert { account, counts, event, used, limit, alert_threshold, at });
            }
        };
        if threshold.is_some_and(is_crossed) {
            self.metrics.usage_alerts.get_or_create(&CountedLabels { counts }).inc();
            warn!(account, counts, used, limit = shown_limit, "A budget has reached its alert threshold.");
            raise("threshold");
        }
        if is_crossed(limit) {
            info!(account, counts, used, limit = shown_limit, "A budget is used up.");
            raise("exhausted");
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
            alert_threshold: None,
            before: 0,
        }));
        if spends {
            checks.extend(account.usage_limits.iter().map(|limit| Check {
                account: at,
                counter: Counter::Usage(limit.counts, limit.reset),
                window: Window::of_usage(limit, now),
                limit: limit.limit,
                takes: 0,
                alert_threshold: limit.alert_threshold,
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
