//! Whether the gateway answers, with hysteresis: one good answer makes it reachable, [`FAILURES`] failures in a row unreachable.

use std::{
    error::Error,
    iter,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
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
#[derive(Debug, Default)]
pub struct Probe {
    /// Whether it has ever answered: until then it is unreachable.
    known: AtomicBool,
    /// Failures in a row.
    failures: AtomicU32,
}

// === impl Probe ===

impl Probe {
    /// Whether requests would find the gateway. Not before it has answered once.
    pub fn reachable(&self) -> bool {
        self.known.load(Relaxed) && self.failures.load(Relaxed) < FAILURES
    }

    /// Asks every `interval`, and more often while there is no answer, for ever.
    pub async fn run(&self, proxy: &Proxy, interval: Duration) {
        loop {
            let failure = match tokio::time::timeout(PATIENCE, proxy.probe()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(causes(&error)),
                Err(_) => Some("it did not answer in time".to_owned()),
            };
            match failure {
                None if self.answered() => info!("The gateway answers."),
                Some(error) if self.failed() => warn!(error, "The gateway does not answer."),
                None | Some(_) => {}
            }
            tokio::time::sleep(if self.reachable() { interval } else { interval.min(WHEN_AWAY) }).await;
        }
    }

    /// Counts an answer. Whether that makes the gateway reachable.
    fn answered(&self) -> bool {
        let away = !self.reachable();
        self.failures.store(0, Relaxed);
        self.known.store(true, Relaxed);
        away
    }

    /// Counts a failure. Whether it is the one that makes the gateway unreachable, or is enough to say so.
    fn failed(&self) -> bool {
        let failures = self.failures.load(Relaxed).saturating_add(1);
        self.failures.store(failures, Relaxed);
        failures == FAILURES
    }
}

/// An error with its causes on one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
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
            probe.failed();
            assert!(probe.reachable(), "after {failure} failures");
        }
        probe.failed();
        assert!(!probe.reachable());
        probe.answered();
        assert!(probe.reachable());
    }

    #[test]
    fn each_change_is_said_once_and_a_gateway_that_never_came_too() {
        let probe = Probe::default();
        let failures = |count: usize| (0..count).map(|_| probe.failed()).collect::<Vec<_>>();
        assert_eq!(failures(5), [false, false, true, false, false], "it was never there");
        assert_eq!([probe.answered(), probe.answered()], [true, false]);
        assert_eq!(failures(2), [false; 2]);
        assert!(!probe.answered(), "it was not away long enough");
        assert_eq!(failures(4), [false, false, true, false], "it went");
    }
}
