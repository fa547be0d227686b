//! Retries inside one fetch or one login: few, short, spread out, and never for an answer that would not change.
//!
//! Units: pauses are full jitter (uniform from zero) under a doubling bound. Source: `backends.md` 3.13, column "retry".

use std::time::Duration;

use super::{FailureClass, FetchError};

/// Attempts after the first.
const MAX_RETRIES: u32 = 2;

/// Upper bound of the first pause; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// All pauses of one fetch together.
const MAX_PAUSES: Duration = Duration::from_secs(2);

/// Counts the retries of one fetch.
#[derive(Debug, Default)]
pub(super) struct Retries {
    used: u32,
    paused: Duration,
}

// === impl Retries ===

impl Retries {
    /// How long to wait before trying again after `error`; `None` = do not.
    pub(super) fn pause(&mut self, error: &FetchError) -> Option<Duration> {
        if !transient(error.class) || self.used >= MAX_RETRIES {
            return None;
        }
        let jittered = jitter(FIRST_PAUSE * 2u32.pow(self.used));
        // A manager that says when to come back is not asked earlier.
        let pause = error.retry_after.map_or(jittered, |wait| wait + jittered / 4);
        if self.paused + pause > MAX_PAUSES {
            return None;
        }
        self.used += 1;
        self.paused += pause;
        Some(pause)
    }
}

/// Whether asking again may help.
pub(super) const fn transient(class: FailureClass) -> bool {
    match class {
        FailureClass::Throttled | FailureClass::Unavailable | FailureClass::Timeout => true,
        FailureClass::Gone
        | FailureClass::Denied
        | FailureClass::Unauthenticated
        | FailureClass::Disabled
        | FailureClass::Malformed
        | FailureClass::Misconfigured => false,
    }
}

/// Uniform between zero and `bound`.
pub(super) fn jitter(bound: Duration) -> Duration {
    // Without randomness the middle is as good as any.
    let part = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    bound.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transient_failures_are_retried_and_only_briefly() {
        #[rustfmt::skip]
        let rows = [
            // class, retry-after, retries granted
            (FailureClass::Unavailable, None, 2),
            (FailureClass::Timeout, None, 2),
            (FailureClass::Throttled, None, 2),
            (FailureClass::Throttled, Some(1), 1), // a second second would be too long
            (FailureClass::Throttled, Some(30), 0),
            (FailureClass::Gone, None, 0), (FailureClass::Denied, None, 0), (FailureClass::Unauthenticated, None, 0),
            (FailureClass::Disabled, None, 0), (FailureClass::Malformed, None, 0), (FailureClass::Misconfigured, None, 0),
        ];
        for (class, retry_after, granted) in rows {
            let error = FetchError::new(class).with_retry_after(retry_after.map(Duration::from_secs));
            let mut retries = Retries::default();
            let pauses: Vec<_> = std::iter::from_fn(|| retries.pause(&error)).take(10).collect();
            assert!(pauses.iter().sum::<Duration>() <= MAX_PAUSES, "{class:?} {pauses:?}");
            assert!(pauses.iter().all(|pause| retry_after.is_none_or(|wait| pause.as_secs() >= wait)), "{pauses:?}");
            assert_eq!(pauses.len(), granted, "{class:?} {retry_after:?} {pauses:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn jitter_stays_below_its_bound(millis in 0u64..100_000) {
            let bound = Duration::from_millis(millis);
            proptest::prop_assert!(jitter(bound) <= bound);
        }
    }
}
