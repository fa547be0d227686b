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

/// Reads a sidecar allows itself, by kind of manager.
///
/// Source of the usual ones: the quota page of each service. A quota of a whole account or vault is shared by all replicas and
/// by whoever else reads there, so that one sidecar takes a part of it; a burst is what a start needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budgets {
    /// Of 10,000 a second for the account.
    pub aws_sm: Budget,
    /// Of 40 calls a second for the account and Region, of ten reads each. The manager counts the calls; this is the ten.
    pub aws_ssm: Budget,
    /// Of 4,000 in ten seconds for a vault.
    pub azure_kv: Budget,
    /// Of 90,000 a minute for the project.
    pub gcp_sm: Budget,
    /// At the operator's own server.
    pub hashicorp_vault: Budget,
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

// === impl Budgets ===

impl Budgets {
    /// The documented defaults.
    pub const USUAL: Self = Self {
        aws_sm: Budget { per_second: 100.0, burst: 500.0 },
        aws_ssm: Budget { per_second: 200.0, burst: 1000.0 },
        azure_kv: Budget { per_second: 50.0, burst: 400.0 },
        gcp_sm: Budget { per_second: 100.0, burst: 500.0 },
        hashicorp_vault: Budget { per_second: 200.0, burst: 1000.0 },
    };

    /// That of one kind of manager; `None` = no limit.
    pub const fn of(&self, manager: ManagerType) -> Option<Budget> {
        match manager {
            ManagerType::AwsSm => Some(self.aws_sm),
            ManagerType::AwsSsm => Some(self.aws_ssm),
            ManagerType::AzureKv => Some(self.azure_kv),
            ManagerType::GcpSm => Some(self.gcp_sm),
            ManagerType::HashicorpVault => Some(self.hashicorp_vault),
            ManagerType::File => None,
        }
    }
}

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
