//! How many reads each kind of manager can take, and who shares that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::time::Instant;

use super::pace::{Bucket, Budget, CoolDown};
use crate::{manager::BudgetKey, model::ManagerType};

/// Shared budgets looked through before those that nobody uses are let go.
const SWEEP: usize = 64;

/// Reads a sidecar allows itself; `None` = no limit.
///
/// Source: the quota page of each service. A quota of a whole account or vault is shared by all replicas and by whoever else
/// reads there, so that one sidecar takes a part of it; a burst is what a start needs.
pub(super) const fn usual(manager: ManagerType) -> Option<Budget> {
    match manager {
        // 10,000 a second for the account.
        ManagerType::AwsSm => Some(Budget { per_second: 100.0, burst: 500.0 }),
        // 40 calls a second for the account and Region, of ten reads each. The manager counts the calls; this is the ten.
        ManagerType::AwsSsm => Some(Budget { per_second: 200.0, burst: 1000.0 }),
        // 4,000 in ten seconds for a vault.
        ManagerType::AzureKv => Some(Budget { per_second: 50.0, burst: 400.0 }),
        // 90,000 a minute for the project.
        ManagerType::GcpSm => Some(Budget { per_second: 100.0, burst: 500.0 }),
        // The operator's own server.
        ManagerType::HashicorpVault => Some(Budget { per_second: 200.0, burst: 1000.0 }),
        ManagerType::File => None,
    }
}

/// What those who share a quota have left.
#[derive(Debug)]
pub(super) struct Purse {
    pub(super) bucket: Bucket,
    pub(super) cool_down: CoolDown,
}

/// The purses that several identities share, for as long as one of them lives.
#[derive(Debug, Default)]
pub(in crate::manager) struct Purses(Mutex<HashMap<Sharing, Weak<Mutex<Purse>>>>);

/// Those who share a purse.
type Sharing = (ManagerType, BudgetKey);

// === impl Purse ===

impl Purse {
    pub(super) fn new(budget: Budget) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { bucket: Bucket::new(budget, Instant::now()), cool_down: CoolDown::default() }))
    }
}

// === impl Purses ===

impl Purses {
    /// The purse of everyone at `manager` who names `key`.
    pub(super) fn shared(&self, manager: ManagerType, key: BudgetKey, budget: Budget) -> Arc<Mutex<Purse>> {
        let mut purses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if purses.len() >= SWEEP {
            purses.retain(|_, purse| purse.strong_count() > 0);
        }
        let slot = purses.entry((manager, key)).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let purse = Purse::new(budget);
            *slot = Arc::downgrade(&purse);
            purse
        })
    }
}
