//! The resolver's metrics, with every counter at hand: a hit must not look up a label set.

use std::{
    array,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

use crate::{
    metric::{Metrics, ResolutionLabels, SignalLabels},
    model::ManagerType,
};

/// Number of [`ManagerType`]s.
const MANAGERS: usize = 6;
/// Number of [`Counted`] outcomes.
const OUTCOMES: usize = 5;

/// What a resolution is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Fresh, from memory.
    Hit,
    /// Read now.
    Miss,
    /// Past its soft lifetime.
    Stale,
    /// Fresh, and a refresh was started ahead of time.
    Refresh,
    /// Not resolved.
    Error,
}

/// The resolver's share of [`Metrics`].
#[derive(Debug)]
pub struct Meter {
    metrics: Arc<Metrics>,
    resolutions: [[OnceLock<Counter>; OUTCOMES]; MANAGERS],
}

// === impl Counted ===

impl Counted {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Refresh => "refresh",
            Self::Error => "error",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Hit => 0,
            Self::Miss => 1,
            Self::Stale => 2,
            Self::Refresh => 3,
            Self::Error => 4,
        }
    }
}

// === impl Meter ===

impl Meter {
    /// Over `metrics`, with no counter made yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, resolutions: array::from_fn(|_| array::from_fn(|_| OnceLock::new())) }
    }

    /// Counts one resolution.
    pub fn count(&self, manager: ManagerType, counted: Counted) {
        let labels = || ResolutionLabels { manager: manager.as_str(), outcome: counted.as_str() };
        self.resolutions[index(manager)][counted.index()]
            .get_or_init(|| self.metrics.resolutions.get_or_create_owned(&labels()))
            .inc();
    }

    /// Counts what came of a signal.
    pub fn signal(&self, manager: ManagerType, outcome: &'static str) {
        self.metrics.signals.get_or_create_owned(&SignalLabels { manager: manager.as_str(), outcome }).inc();
    }

    /// Notes the age of a value that was served.
    pub fn served(&self, age: Duration) {
        // The bits of floats that are not negative are ordered like the floats.
        let (oldest, age) = (self.metrics.oldest_served_seconds.inner(), age.as_secs_f64().to_bits());
        if oldest.load(Ordering::Relaxed) < age {
            oldest.fetch_max(age, Ordering::Relaxed);
        }
    }

    /// Notes the number of slots.
    pub fn entries(&self, entries: u64) {
        self.metrics.cache_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
}

const fn index(manager: ManagerType) -> usize {
    match manager {
        ManagerType::HashicorpVault => 0,
        ManagerType::AwsSm => 1,
        ManagerType::AwsSsm => 2,
        ManagerType::AzureKv => 3,
        ManagerType::GcpSm => 4,
        ManagerType::File => 5,
    }
}
