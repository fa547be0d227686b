//! Whether the gateway answers, with hysteresis: one good answer makes it reachable, [`FAILURES`] failures in a row unreachable.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tracing::{info, warn};

use crate::proxy::Proxy;

/// One lost answer of a busy gateway takes no traffic away.
const FAILURES: u32 = 3;
/// Time between two questions while there is no answer: the gateway often starts after us.
const WHEN_AWAY: Duration = Duration::from_secs(1);
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the last probes found.
#[derive(Debug)]
pub struct Probe {
    /// Failures in a row.
    failures: AtomicU32,
}

// === impl Probe ===

impl Probe {
    /// Whether requests would find the gateway.
    pub fn reachable(&self) -> bool {
        self.failures.load(Relaxed) < FAILURES
    }

    /// Asks every `interval`, and more often while there is no answer, for ever.
    pub async fn run(&self, proxy: &Proxy, interval: Duration) {
        loop {
            match tokio::time::timeout(PATIENCE, proxy.probe()).await {
                Ok(Ok(())) => self.answered(),
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("it did not answer in time"),
            }
            tokio::time::sleep(if self.reachable() { interval } else { interval.min(WHEN_AWAY) }).await;
        }
    }

    fn answered(&self) {
        if self.failures.swap(0, Relaxed) >= FAILURES {
            info!("The gateway answers.");
        }
    }

    fn failed(&self, error: &str) {
        let failures = self.failures.load(Relaxed).saturating_add(1);
        self.failures.store(failures, Relaxed);
        if failures == FAILURES {
            warn!(error, "The gateway does not answer.");
        }
    }
}

impl Default for Probe {
    /// Unreachable until it has answered once.
    fn default() -> Self {
        Self { failures: AtomicU32::new(FAILURES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_several_failures_and_one_answer() {
        let probe = Probe::default();
        assert!(!probe.reachable(), "nobody has asked yet");
        probe.answered();
        for failure in 1..FAILURES {
            probe.failed("");
            assert!(probe.reachable(), "after {failure} failures");
        }
        probe.failed("");
        assert!(!probe.reachable());
        probe.answered();
        assert!(probe.reachable());
    }
}
