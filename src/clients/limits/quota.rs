//! What is left, in the headers clients know: those of OpenAI's API, which its SDKs and most tools read.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Check, Counter};
use crate::model::Counted;

/// `limit`, `remaining`, `reset` of requests and of tokens.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// What is left of the rate limits that a request is held to: of each kind the one with the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Of requests.
    pub requests: Option<Remaining>,
    /// Of tokens.
    pub tokens: Option<Remaining>,
}

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// How many per window.
    pub limit: u64,
    /// How many are left in this one.
    pub remaining: u64,
    /// Seconds until the next.
    pub reset_secs: u64,
}

/// A duration as Go prints it, which is what OpenAI sends: `6m0s`.
struct GoDuration(u64);

// === impl Quota ===

impl Quota {
    pub(super) fn of(checks: &[Check], admitted: bool, now: i64) -> Self {
        let least = |wanted: Counted| {
            let limits =
                checks.iter().filter(|check| matches!(check.counter, Counter::Rate(counts, _) if counts == wanted));
            let remaining = limits.map(|check| {
                let used = if admitted { check.before.saturating_add(check.takes) } else { check.before };
                let reset_secs = check.window.remaining_secs(now);
                Remaining { limit: check.limit, remaining: check.limit.saturating_sub(used), reset_secs }
            });
            // Of two that leave as much, the one that lasts longer holds the client back longer.
            remaining.min_by_key(|left| (left.remaining, std::cmp::Reverse(left.reset_secs)))
        };
        Self { requests: least(Counted::Requests), tokens: least(Counted::Tokens) }
    }

    /// Writes the headers, of each kind only where the answer has none: those of a provider stay as they are.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (names, left) in [(&REQUESTS, self.requests), (&TOKENS, self.tokens)] {
            let Some(Remaining { limit, remaining, reset_secs }) = left else { continue };
            if names.iter().any(|name| headers.contains_key(name)) {
                continue;
            }
            let [limit_name, remaining_name, reset_name] = names;
            headers.insert(limit_name, HeaderValue::from(limit));
            headers.insert(remaining_name, HeaderValue::from(remaining));
            if let Ok(reset) = HeaderValue::try_from(GoDuration(reset_secs).to_string()) {
                headers.insert(reset_name, reset);
            }
        }
    }
}

// === impl GoDuration ===

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        match (hours, minutes) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, _) => write!(f, "{minutes}m{seconds}s"),
            _ => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (seconds, text) in [(1, "1s"), (60, "1m0s"), (359, "5m59s"), (3600, "1h0m0s"), (604_800, "168h0m0s")] {
            assert_eq!(GoDuration(seconds).to_string(), text);
        }
    }

    #[test]
    fn headers_of_a_provider_stay() {
        let left = Remaining { limit: 10, remaining: 3, reset_secs: 60 };
        let quota = Quota { requests: Some(left), tokens: Some(left) };
        let mut headers = HeaderMap::from_iter([(TOKENS[1].clone(), HeaderValue::from_static("7"))]);
        quota.write(&mut headers);
        let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(value("x-ratelimit-remaining-requests"), Some("3"));
        assert_eq!(value("x-ratelimit-limit-requests"), Some("10"));
        assert_eq!(value("x-ratelimit-reset-requests"), Some("1m0s"));
        assert_eq!((value("x-ratelimit-remaining-tokens"), value("x-ratelimit-limit-tokens")), (Some("7"), None));
    }
}
