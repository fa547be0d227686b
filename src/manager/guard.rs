//! What holds for every manager object: concurrency, budget, cool-down, breaker, the deadline of a fetch, metrics. Managers
//! themselves need not care.
//!
//! A read that may not go is answered at once with the class that fits, and when to come back; whether an older value is
//! served meanwhile is for `resolve` to say. A file is not held back: nobody is spared by it.

mod budget;
mod pace;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use self::{
    budget::Purse,
    pace::{Breaker, Sign},
};
use super::{BudgetKey, FailureClass, FetchError, Fetched, SecretManager, Settings, Version};
use crate::{
    metric::{FetchLabels, ManagerLabels, Metrics, WithheldLabels},
    model::{ManagerType, SecretLocation},
};

pub(super) use self::budget::Purses;
pub use self::{budget::Budgets, pace::Budget};

/// A manager object with its bounds.
#[derive(Debug)]
pub(super) struct Guarded {
    inner: Arc<dyn SecretManager>,
    manager: ManagerType,
    permits: Semaphore,
    deadline: Duration,
    pace: Option<Pace>,
    metrics: Arc<Metrics>,
}

/// What holds a read back.
#[derive(Debug)]
struct Pace {
    budget: Budget,
    purses: Arc<Purses>,
    /// In use, and by which name it is shared; `None` = the identity's own.
    purse: Mutex<(Option<BudgetKey>, Arc<Mutex<Purse>>)>,
    breaker: Mutex<Breaker>,
}

/// The duty to tell the breaker what became of a read; dropped, it says that the read was given up.
struct Turn<'g> {
    guarded: &'g Guarded,
    pace: &'g Pace,
    told: bool,
}

// === impl Guarded ===

impl Guarded {
    /// `inner` within `bounds`; `purses` are those of the process.
    pub(super) fn new(
        inner: Arc<dyn SecretManager>,
        manager: ManagerType,
        bounds: &Settings,
        purses: &Arc<Purses>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let pace = bounds.budgets.of(manager).map(|budget| Pace {
            budget,
            purses: Arc::clone(purses),
            purse: Mutex::new((None, Purse::new(budget))),
            breaker: Mutex::default(),
        });
        let permits = Semaphore::new(bounds.max_in_flight.max(1));
        Self { inner, manager, permits, deadline: bounds.fetch_deadline, pace, metrics }
    }

    /// Whether a read may go now, by breaker, cool-down and budget. None of them is charged for one that may not.
    fn enter<'g>(&'g self, pace: &'g Pace) -> Result<Turn<'g>, FetchError> {
        let now = Instant::now();
        lock(&pace.breaker)
            .enter(now)
            .map_err(|wait| self.withheld(FailureClass::Unavailable, "breaker_open", wait))?;
        let turn = Turn { guarded: self, pace, told: false };
        let purse = pace.purse(self.manager, self.inner.budget());
        let mut purse = lock(&purse);
        let rest = purse.cool_down.remaining(now);
        if !rest.is_zero() {
            return Err(self.withheld(FailureClass::Throttled, "cool_down", rest));
        }
        purse.bucket.take(now).map_err(|wait| self.withheld(FailureClass::Throttled, "budget_empty", wait))?;
        Ok(turn)
    }

    fn withheld(&self, class: FailureClass, reason: &'static str, wait: Duration) -> FetchError {
        self.metrics.fetches_withheld.get_or_create(&WithheldLabels { manager: self.manager.as_str(), reason }).inc();
        FetchError::new(class).with_code(reason).with_retry_after(Some(wait))
    }

    fn count(&self, outcome: &Result<Fetched, FetchError>, elapsed: Duration) {
        let manager = self.manager.as_str();
        let class = outcome.as_ref().map_or_else(|error| error.class.as_str(), |_| "ok");
        self.metrics.fetches.get_or_create(&FetchLabels { manager, class }).inc();
        let seconds = self.metrics.fetch_seconds.get_or_create(&ManagerLabels { manager });
        seconds.observe(elapsed.as_secs_f64());
    }

    /// Tells the breaker, and counts it when that opens or closes it.
    fn note(&self, pace: &Pace, sign: Sign) {
        let mut breaker = lock(&pace.breaker);
        let before = breaker.is_open();
        breaker.note(sign, chance(), Instant::now());
        let after = breaker.is_open();
        drop(breaker);
        if before != after {
            let manager = self.manager.as_str();
            self.metrics.breakers_open.get_or_create(&ManagerLabels { manager }).inc_by(if after { 1 } else { -1 });
            let identity = &*self.inner.identity();
            if after {
                tracing::warn!(
                    manager,
                    identity,
                    "A secret manager fails again and again, it is left alone for a moment."
                );
            } else {
                tracing::info!(manager, identity, "A secret manager answers again.");
            }
        }
    }
}

#[async_trait]
impl SecretManager for Guarded {
    async fn fetch(&self, location: &SecretLocation, known: Option<&Version>) -> Result<Fetched, FetchError> {
        let turn = self.pace.as_ref().map(|pace| self.enter(pace)).transpose()?;
        let started = Instant::now();
        let until = started + self.deadline;
        let late = || FetchError::new(FailureClass::Timeout).with_code("deadline");
        // Waiting for a turn is part of the fetch: whoever waits too long is told so like whoever is answered too late, and
        // sends nothing when his turn comes at the very end.
        let permit = timeout_at(until, self.permits.acquire()).await;
        let permit = permit.ok().filter(|_| Instant::now() < until);
        let outcome = match &permit {
            Some(_) => timeout_at(until, self.inner.fetch(location, known)).await.unwrap_or_else(|_| Err(late())),
            None => Err(late()),
        };
        self.count(&outcome, started.elapsed());
        // What was never sent says nothing about the manager: it may be slow, and the queue long.
        if let Some(turn) = turn.filter(|_| permit.is_some()) {
            turn.tell(&outcome);
        }
        outcome
    }

    fn identity(&self) -> Arc<str> {
        self.inner.identity()
    }

    fn budget(&self) -> Option<BudgetKey> {
        self.inner.budget()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.pace.as_ref().is_some_and(|pace| lock(&pace.breaker).is_open()) {
            let manager = self.manager.as_str();
            self.metrics.breakers_open.get_or_create(&ManagerLabels { manager }).dec();
        }
    }
}

// === impl Pace ===

impl Pace {
    /// The purse of `key`. An account may be learned only with the first login, so that the purse may change.
    fn purse(&self, manager: ManagerType, key: Option<BudgetKey>) -> Arc<Mutex<Purse>> {
        let mut current = lock(&self.purse);
        if let Some(key) = key.filter(|key| current.0.as_ref() != Some(key)) {
            let purse = self.purses.shared(manager, key.clone(), self.budget);
            *current = (Some(key), purse);
        }
        Arc::clone(&current.1)
    }
}

// === impl Turn ===

impl Turn<'_> {
    fn tell(mut self, outcome: &Result<Fetched, FetchError>) {
        self.told = true;
        self.guarded.note(self.pace, sign(outcome));
        if let Err(error) = outcome
            && error.class == FailureClass::Throttled
        {
            let purse = self.pace.purse(self.guarded.manager, self.guarded.inner.budget());
            lock(&purse).cool_down.start(error.retry_after, chance(), Instant::now());
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.guarded.note(self.pace, Sign::None);
        }
    }
}

/// What a read says about whether the manager is there.
fn sign(outcome: &Result<Fetched, FetchError>) -> Sign {
    let Err(error) = outcome else { return Sign::Alive };
    match error.class {
        FailureClass::Unavailable | FailureClass::Timeout => Sign::Dead,
        FailureClass::Gone
        | FailureClass::Denied
        | FailureClass::Disabled
        | FailureClass::Malformed
        | FailureClass::Throttled => Sign::Alive,
        // May be said without asking: a login that rests, a path that cannot be.
        FailureClass::Unauthenticated | FailureClass::Misconfigured => Sign::None,
    }
}

/// Uniform from zero to one; without randomness the middle is as good as any.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
