//! Counters shared by replicas: what is asked of the store, how often, and what happens while it is away.
//!
//! A replica knows what it has counted itself, and what the others had counted when it last asked. Far from a limit it decides
//! by that, without asking: between two exchanges it lets in up to a hundredth of what was left. Near a limit, for a
//! small limit, and when it has not asked for a while, it asks for each request, and the store decides for all replicas at one
//! moment. So a limit is exceeded by a hundredth for each replica but one, at most.
//!
//! What is counted goes to the store in the background. A store that is away is not waited for: one request meets the deadline, the
//! others decide by what is known, until an exchange in the background succeeds again.

mod store;

pub use self::store::{Settings as StoreSettings, StoreError};

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use self::store::Store;
use super::Counter;
use crate::{
    metric::{Metrics, OutcomeLabels},
    model::Window,
};

/// `limits.redis.*`.
#[derive(Clone, Debug)]
pub struct SharedSettings {
    /// Where the store is.
    pub store: StoreSettings,
    /// `deadline_ms`: longest wait of a request.
    pub deadline: Duration,
    /// `sync_ms`: how often what was counted is told, and how old what is known of others may be.
    pub sync: Duration,
    /// `on_failure`.
    pub on_failure: OnFailure,
}

/// What happens to requests while the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Each replica goes on by what it knows.
    Local,
    /// They are refused.
    Reject,
}

/// The counters of other replicas.
#[derive(Debug)]
pub struct Shared {
    store: Store,
    settings: SharedSettings,
    up: AtomicBool,
    metrics: Arc<Metrics>,
}

/// One counter, as it is told to the store.
#[derive(Clone, Debug)]
pub struct Row {
    /// [`crate::model::Account::name`].
    pub account: Arc<str>,
    /// Which of its counters.
    pub counter: Counter,
    /// Which window of it.
    pub window: Window,
    /// What this replica has counted in it.
    pub own: u64,
    /// What the request adds.
    pub takes: u64,
    /// The most that may be counted.
    pub limit: u64,
    /// From where on there is an alert.
    pub alert_threshold: Option<u64>,
}

/// One counter, as the store tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What all replicas had counted before this one told its own.
    pub before: u64,
    /// And with it, before the request.
    pub total: u64,
    /// This replica's part of that.
    pub mine: u64,
}

/// The store did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

// === impl Shared ===

impl Shared {
    /// A store by `settings`; it is not connected yet.
    ///
    /// # Errors
    /// [`StoreError`] when a file cannot be used.
    pub fn new(settings: SharedSettings, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let store = Store::new(settings.store.clone())?;
        metrics.limits_shared.set(1);
        Ok(Self { store, settings, up: AtomicBool::new(true), metrics })
    }

    /// The settings.
    pub fn settings(&self) -> &SharedSettings {
        &self.settings
    }

    /// Whether it answered last time.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Tells what was counted and asks what all have counted; `take` lets a request in, if every row has room for what it
    /// takes. Answers whether it was let in.
    ///
    /// # Errors
    /// [`Away`]; it may have been taken all the same, which the next exchange puts right.
    pub async fn exchange(&self, take: bool, rows: &[Row]) -> Result<(bool, Vec<Told>), Away> {
        let began = Instant::now();
        let asked = timeout(self.settings.deadline, self.store.exchange(take, rows)).await;
        self.metrics.limits_exchange_seconds.observe(began.elapsed().as_secs_f64());
        let (outcome, result) = match asked {
            Ok(Ok(told)) => ("ok", Ok(told)),
            Ok(Err(error)) => ("error", Err(error)),
            Err(_) => ("timeout", Err("no answer within the deadline".to_owned())),
        };
        self.metrics.limits_exchanges.get_or_create(&OutcomeLabels { outcome }).inc();
        match result {
            Ok(told) => {
                if !self.up.swap(true, Ordering::Relaxed) {
                    self.metrics.limits_shared.set(1);
                    info!("Counters of limits are shared again.");
                }
                Ok(told)
            }
            Err(error) => {
                if self.up.swap(false, Ordering::Relaxed) {
                    self.metrics.limits_shared.set(0);
                    let on_failure = self.settings.on_failure.as_str();
                    warn!(error, on_failure, "Counters of limits are not shared, their store does not answer.");
                }
                Err(Away)
            }
        }
    }

    /// Looks for a changed address.
    pub fn refresh(&self) {
        self.store.refresh();
    }

    /// How old what is known of others may be for a decision without asking.
    pub fn staleness(&self) -> Duration {
        // An exchange in the background may come a little late.
        self.settings.sync * 2
    }
}

// === impl OnFailure ===

impl OnFailure {
    /// The spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Reject => "reject",
        }
    }
}
