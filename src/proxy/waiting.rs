//! How many requests may wait for secret managers, by identity: one tenant's slow manager must not take the places of all.
//!
//! Identities share a fixed number of counters, so that nothing grows with them; two that fall together have one share.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::FutureExt as _;

use super::reject::Refusal;
use crate::model::{Identity, Mapping};

/// Requests that wait for one identity, as a part of `limits.max_in_flight`.
const SHARE: usize = 4;
const COUNTERS: usize = 256;

/// Who waits for whom.
#[derive(Debug)]
pub struct Waiting {
    counters: Box<[AtomicUsize]>,
    share: usize,
}

/// One request among those that wait.
struct Places<'a> {
    waiting: &'a Waiting,
    taken: Vec<usize>,
}

// === impl Waiting ===

impl Waiting {
    /// Nobody waits; of `max_in_flight` requests a quarter may, for one identity.
    pub fn new(max_in_flight: usize) -> Self {
        let counters = (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect();
        Self { counters, share: (max_in_flight / SHARE).max(1) }
    }

    /// Waits for `resolving`, which resolves `mappings`; costs nothing when it does not have to wait.
    ///
    /// # Errors
    /// Its own, or [`Refusal::Overloaded`] when too many requests wait for one of the identities.
    pub async fn bound<T, E: Into<Refusal>>(
        &self,
        mappings: &[Arc<Mapping>],
        resolving: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Refusal> {
        let mut resolving = pin!(resolving);
        if let Some(resolved) = resolving.as_mut().now_or_never() {
            return resolved.map_err(Into::into);
        }
        let _places = self.take(mappings.iter().map(|mapping| &mapping.reference.identity))?;
        resolving.await.map_err(Into::into)
    }

    fn take<'a>(&self, identities: impl Iterator<Item = &'a Identity>) -> Result<Places<'_>, Refusal> {
        let mut counters: Vec<usize> = identities.map(|identity| usize::from(identity.0[0])).collect();
        counters.sort_unstable();
        counters.dedup();
        let mut places = Places { waiting: self, taken: Vec::with_capacity(counters.len()) };
        for counter in counters {
            let before = self.counters[counter].fetch_add(1, Relaxed);
            places.taken.push(counter);
            if before >= self.share {
                return Err(Refusal::Overloaded);
            }
        }
        Ok(places)
    }
}

// === impl Places ===

impl Drop for Places<'_> {
    fn drop(&mut self) {
        for counter in &self.taken {
            self.waiting.counters[*counter].fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_has_its_share_and_leaves_the_rest() {
        let waiting = Waiting::new(8);
        let (slow, other) = (Identity([1; 32]), Identity([2; 32]));
        let held: Vec<_> =
            (0..2).map(|_| waiting.take([&slow, &slow].into_iter()).unwrap_or_else(|_| panic!())).collect();
        assert!(matches!(waiting.take([&slow].into_iter()), Err(Refusal::Overloaded)));
        assert!(matches!(waiting.take([&other, &slow].into_iter()), Err(Refusal::Overloaded)));
        assert!(waiting.take([&other].into_iter()).is_ok());
        drop(held);
        assert!(waiting.counters.iter().all(|counter| counter.load(Relaxed) == 0), "every place was given back");
    }
}
