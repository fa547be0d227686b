//! Retries inside one fetch or one login: few, short, spread out, and never for an answer that would not change.
//!
//! Units: pauses are full jitter (uniform from zero) under a doubling bound.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{FailureClass, FetchError};

/// Attempts after the first.
const MAX_RETRIES: u32 = 2;

/// Upper bound of the first pause; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// All pauses of one fetch together.
const MAX_PAUSES: Duration = Duration::from_secs(2);

/// Longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

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

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3; its date form is one of RFC 2822's).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = SystemTime::from(OffsetDateTime::parse(text, &Rfc2822).ok()?);
            at.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        #[rustfmt::skip]
        let rows = [
            ("7", Some(7)), (" 0 ", Some(0)), ("999999999", Some(3600)), ("99999999999999999999999", None),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)), ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("Tue, 06 Nov 2035 08:50:07 GMT", Some(3600)), ("soon", None), ("-1", None), ("1.5", None), ("", None),
        ];
        for (text, seconds) in rows {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text:?}");
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
