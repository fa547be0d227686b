//! Tells one secret that was withdrawn from an identity that lost its rights.
//!
//! When several documents of one identity are denied and none is read in between, it is the identity that is refused: a
//! policy or role was broken, not each secret revoked. The denials then count as `unauthenticated` and take no value away.
//! So that this does not hang on when documents happen to be read, a denial is confirmed only when as many others were asked.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::slot::SlotKey;
use crate::model::Identity;

/// So many distinct documents …
const MANY: usize = 3;
/// … within this time.
const TOGETHER: Duration = Duration::from_secs(60);

/// Recent denials of documents whose value is remembered.
#[derive(Debug, Default)]
pub struct Denials {
    recent: HashMap<Identity, HashMap<SlotKey, Instant>>,
}

// === impl Denials ===

impl Denials {
    /// Notes a denial; true when it is one of many.
    pub fn denied(&mut self, key: &SlotKey, now: Instant) -> bool {
        self.recent.retain(|_, documents| {
            documents.retain(|_, at| now.saturating_duration_since(*at) < TOGETHER);
            !documents.is_empty()
        });
        let documents = self.recent.entry(key.identity).or_default();
        documents.insert(key.clone(), now);
        documents.len() >= MANY
    }

    /// How many documents beside `key` would have to be denied as well for its denial to be one of many.
    pub fn lacking(&self, key: &SlotKey, now: Instant) -> usize {
        let others = self.recent.get(&key.identity).map_or(0, |documents| {
            let recent = |at: &Instant| now.saturating_duration_since(*at) < TOGETHER;
            documents.iter().filter(|(other, at)| *other != key && recent(at)).count()
        });
        (MANY - 1).saturating_sub(others)
    }

    /// Notes that the identity could read something.
    pub fn read(&mut self, identity: Identity) {
        self.recent.remove(&identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SecretLocation, VersionSelector};

    fn key(identity: u8, path: &str) -> SlotKey {
        let location = SecretLocation { path: path.into(), version: VersionSelector::Current };
        SlotKey { identity: Identity([identity; 32]), location }
    }

    #[test]
    fn many_are_distinct_documents_of_one_identity_close_together() {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let mut denials = Denials::default();
        assert!(!denials.denied(&key(1, "a"), start));
        assert!(!denials.denied(&key(1, "a"), after(2)), "the same document twice is one");
        assert!(!denials.denied(&key(1, "b"), after(3)));
        assert!(!denials.denied(&key(2, "c"), after(4)), "another identity");
        assert!(denials.denied(&key(1, "c"), after(5)));
        assert!(denials.denied(&key(1, "b"), after(30)), "still together");
        assert!(!denials.denied(&key(1, "b"), after(65)), "the others are long ago");
        let lacking = |denials: &Denials, path: &str, secs: u64| denials.lacking(&key(1, path), after(secs));
        assert_eq!([lacking(&denials, "b", 70), lacking(&denials, "d", 70), lacking(&denials, "d", 125)], [2, 1, 2]);
    }

    #[test]
    fn one_read_clears_the_identity() {
        let now = Instant::now();
        let mut denials = Denials::default();
        denials.denied(&key(1, "a"), now);
        denials.denied(&key(1, "b"), now);
        denials.read(Identity([1; 32]));
        assert!(!denials.denied(&key(1, "c"), now));
    }
}
