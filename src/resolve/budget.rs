//! How many reads of one kind an identity may cause: a burst, then so many a second.
//!
//! It stands above the managers' own budgets: what is read because somebody outside said so must not use up what requests
//! need.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::model::Identity;

/// The budgets of every identity that lately spent something.
#[derive(Debug)]
pub struct Budgets {
    burst: f64,
    per_second: f64,
    spent: HashMap<Identity, Budget>,
}

/// May be below zero: what was promised for later.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: f64,
    at: Instant,
}

// === impl Budgets ===

impl Budgets {
    /// Full ones: `burst` at once, `per_second` after that.
    pub fn new(burst: f64, per_second: f64) -> Self {
        Self { burst, per_second, spent: HashMap::new() }
    }

    /// Whether `identity` may now; counts it if so.
    pub fn spend(&mut self, identity: Identity, now: Instant) -> bool {
        let left = self.left(identity, now);
        let allowed = left >= 1.0;
        self.spent.insert(identity, Budget { left: if allowed { left - 1.0 } else { left }, at: now });
        allowed
    }

    /// Takes a turn that is granted in any case; how long it has to wait for it.
    pub fn reserve(&mut self, identity: Identity, now: Instant) -> Duration {
        let left = self.left(identity, now) - 1.0;
        self.spent.insert(identity, Budget { left, at: now });
        Duration::try_from_secs_f64((-left).max(0.0) / self.per_second).unwrap_or(Duration::MAX)
    }

    /// Forgets budgets that are full again.
    pub fn tidy(&mut self, now: Instant) {
        let Self { burst, per_second, spent } = self;
        spent.retain(|_, budget| budget.earned(*burst, *per_second, now) < *burst);
    }

    /// How many identities have spent something.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.spent.len()
    }

    fn left(&self, identity: Identity, now: Instant) -> f64 {
        self.spent.get(&identity).map_or(self.burst, |budget| budget.earned(self.burst, self.per_second, now))
    }
}

// === impl Budget ===

impl Budget {
    fn earned(&self, burst: f64, per_second: f64, now: Instant) -> f64 {
        (self.left + now.saturating_duration_since(self.at).as_secs_f64() * per_second).min(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_beyond_the_burst_stand_in_line() {
        let mut budgets = Budgets::new(2.0, 4.0);
        let identity = Identity([1; 32]);
        let mut wait = || budgets.reserve(identity, Instant::now()).as_millis();
        assert_eq!([wait(), wait(), wait(), wait()], [0, 0, 250, 500]);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(wait(), 500, "one was earned, one more is in line");
        assert!(!budgets.spend(identity, Instant::now()));
        assert_eq!(budgets.reserve(Identity([2; 32]), Instant::now()), Duration::ZERO, "another identity has its own");
        tokio::time::advance(Duration::from_secs(60)).await;
        budgets.tidy(Instant::now());
        assert_eq!(budgets.len(), 0);
    }
}
