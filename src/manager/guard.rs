//! What holds for every manager object: concurrency, the deadline of a fetch, metrics. Managers themselves need not care.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::Semaphore, time::Instant};

use super::{FailureClass, FetchError, Fetched, SecretManager, Settings, Version};
use crate::{
    metric::{FetchLabels, ManagerLabels, Metrics},
    model::{ManagerType, SecretLocation},
};

/// A manager object with its bounds.
#[derive(Debug)]
pub(super) struct Guarded {
    inner: Arc<dyn SecretManager>,
    manager: &'static str,
    permits: Semaphore,
    deadline: Duration,
    metrics: Arc<Metrics>,
}

// === impl Guarded ===

impl Guarded {
    pub(super) fn new(
        inner: Arc<dyn SecretManager>,
        manager: ManagerType,
        bounds: &Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            inner,
            manager: manager.as_str(),
            permits: Semaphore::new(bounds.max_in_flight.max(1)),
            deadline: bounds.fetch_deadline,
            metrics,
        }
    }

    fn count(&self, outcome: &Result<Fetched, FetchError>, elapsed: Duration) {
        let class = outcome.as_ref().map_or_else(|error| error.class.as_str(), |_| "ok");
        self.metrics.fetches.get_or_create(&FetchLabels { manager: self.manager, class }).inc();
        let seconds = self.metrics.fetch_seconds.get_or_create(&ManagerLabels { manager: self.manager });
        seconds.observe(elapsed.as_secs_f64());
    }
}

#[async_trait]
impl SecretManager for Guarded {
    async fn fetch(&self, location: &SecretLocation, known: Option<&Version>) -> Result<Fetched, FetchError> {
        let started = Instant::now();
        let fetch = async {
            // Waiting for a turn is part of the fetch: whoever waits too long is told so like whoever is answered too late.
            let _permit = self.permits.acquire().await;
            self.inner.fetch(location, known).await
        };
        let late = || FetchError::new(FailureClass::Timeout).with_code("deadline");
        let outcome = tokio::time::timeout(self.deadline, fetch).await.unwrap_or_else(|_| Err(late()));
        self.count(&outcome, started.elapsed());
        outcome
    }

    fn identity(&self) -> Arc<str> {
        self.inner.identity()
    }
}
