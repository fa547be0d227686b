//! Keeps the calls of one account in one region under half of the quota that everything in that account shares.
//!
//! A bucket that fills at a steady rate, in the form of the generic cell rate algorithm: all there is to remember is the
//! time at which it will be full again. Source: Systems Manager quotas, "GetParameter, GetParameters (shared)": 40 a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::manager::{FailureClass, FetchError, aws::Region};

/// One call in this time: twenty a second.
const INTERVAL: Duration = Duration::from_millis(50);

/// Calls at once after a rest. With the twenty of the same second they stay below forty.
const BURST: u32 = 10;

/// Buckets remembered before full ones are forgotten; a full one is as good as none.
const MAX_BUCKETS: usize = 1024;

/// The budgets of all accounts.
#[derive(Debug)]
pub(super) struct Budget {
    /// Whoever would wait longer is told so at once.
    patience: Duration,
    full_at: Mutex<HashMap<(Arc<str>, String), Instant>>,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, full_at: Mutex::default() }
    }

    /// Waits for a turn of `account` in `region`.
    ///
    /// # Errors
    /// [`FailureClass::Throttled`] when it would take longer than anybody waits.
    pub(super) async fn turn(&self, account: &Arc<str>, region: &Region) -> Result<(), FetchError> {
        let wait = self.reserve(account, region).map_err(|wait| {
            FetchError::new(FailureClass::Throttled).with_code("account_budget").with_retry_after(Some(wait))
        })?;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// The time until the turn that is now taken, or until the one that was too far away.
    fn reserve(&self, account: &Arc<str>, region: &Region) -> Result<Duration, Duration> {
        let now = Instant::now();
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, full_at| *full_at > now);
        }
        let full_at = buckets.entry((Arc::clone(account), region.as_str().to_owned())).or_insert(now);
        let used = full_at.saturating_duration_since(now);
        let wait = used.saturating_sub(INTERVAL * (BURST - 1));
        if wait > self.patience {
            return Err(wait);
        }
        *full_at = now + used + INTERVAL;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::new(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_a_second_for_each_account_and_region() {
        let budget = Budget::new(Duration::from_secs(8));
        let (account, here) = (Arc::from("123456789012"), region("us-east-1"));
        let started = Instant::now();
        let mut turns = Vec::new();
        for _ in 0..100 {
            budget.turn(&account, &here).await.unwrap();
            turns.push(started.elapsed());
        }
        assert_eq!(turns[9], Duration::ZERO, "ten at once");
        // Time is paused but for the timer's own grain of a millisecond.
        let expected = INTERVAL * 90;
        assert!(turns[99] >= expected && turns[99] < expected + Duration::from_millis(100), "{:?}", turns[99]);
        let most = turns.iter().map(|turn| {
            turns.iter().filter(|other| **other >= *turn && **other < *turn + Duration::from_secs(1)).count()
        });
        assert!(most.max().unwrap() <= 30, "never more than thirty within a second");
        budget.turn(&account, &region("us-west-2")).await.unwrap();
        budget.turn(&Arc::from("210987654321"), &here).await.unwrap();
        assert_eq!(started.elapsed(), turns[99], "others have budgets of their own");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let budget = Budget::new(Duration::from_secs(1));
        let (account, here) = (Arc::from("own"), region("us-east-1"));
        let waits: Vec<_> = (0..40).map(|_| budget.reserve(&account, &here)).collect();
        let granted = waits.iter().filter(|wait| wait.is_ok()).count();
        assert_eq!(granted, 10 + 20, "ten at once, twenty within the second, and the rest is told");
        assert_eq!(waits.last(), Some(&Err(Duration::from_millis(1050))), "a refusal takes no turn");
        let error = budget.turn(&account, &here).await.unwrap_err();
        assert_eq!((error.class, error.retry_after), (FailureClass::Throttled, Some(Duration::from_millis(1050))));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(budget.reserve(&account, &here), Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_forgotten() {
        let budget = Budget::new(Duration::from_secs(1));
        for number in 0..MAX_BUCKETS {
            budget.reserve(&number.to_string().into(), &region("us-east-1")).unwrap();
        }
        tokio::time::advance(INTERVAL).await;
        budget.reserve(&"new".into(), &region("us-east-1")).unwrap();
        assert_eq!(budget.full_at.lock().unwrap().len(), 1);
    }
}
