//! One read of one document, from the decision to read to the slot it leads to.
//!
//! A flight runs in its own task, so that a client that leaves does not take the read with it. It ends in time, also under
//! a manager that hangs or panics, and it always lands: as a value, or as a failure remembered beside the value.

use std::{
    cmp::Reverse,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::future::{FutureExt, join_all};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{
    Engine,
    cache::{Flight, Join, Lead},
    document::Document,
    freshness::{self, CONFIRM_AFTER, Effect, Failure, Held},
    slot::{Failed, Reading, Slot, SlotKey},
};
use crate::{
    manager::{FailureClass, FetchError, Fetched, Version},
    model::{Reference, SecretLocation},
};

/// What a manager may take beyond the deadline it keeps itself, before the read is cut.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// A read and who made it.
pub(super) struct Answer {
    /// What the manager said.
    pub(super) result: Result<Fetched, FetchError>,
    /// As whom it was asked; `None` when there was no manager to ask.
    pub(super) identity: Option<Arc<str>>,
    /// When it was asked.
    pub(super) asked_at: Instant,
    /// When it answered.
    pub(super) at: Instant,
}

// === impl Engine ===

impl Engine {
    /// The flight that leads to the next slot of `key`; `None` when the slot changed since `seen`.
    pub(super) fn board(
        self: &Arc<Self>,
        key: &SlotKey,
        seen: Option<&Arc<Slot>>,
        reference: &Arc<Reference>,
    ) -> Option<Flight> {
        match self.cache.join(key, seen) {
            Join::Lead(lead, flight) => {
                let (engine, seen, reference) = (Arc::clone(self), seen.cloned(), Arc::clone(reference));
                tokio::spawn(async move { engine.fly(lead, seen, reference).await });
                Some(flight)
            }
            Join::Follow(flight) => Some(flight),
            Join::Moved => None,
        }
    }

    /// Asks the manager of `reference` for the document at `location`, within the deadline and whatever the manager does.
    pub(super) async fn ask(
        &self,
        reference: &Reference,
        location: &SecretLocation,
        known: Option<&Version>,
    ) -> Answer {
        let asked_at = Instant::now();
        let mut identity = None;
        let read = async {
            let manager = self.managers.manager(reference)?;
            identity = Some(manager.identity());
            manager.fetch(location, known).await
        };
        let limit = self.settings.deadline.saturating_add(GRACE);
        // The panic's message is not looked at: it could quote the secret.
        let result = match timeout(limit, AssertUnwindSafe(read).catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(FetchError::new(FailureClass::Unavailable).with_code("panic")),
            Err(_) => Err(FetchError::new(FailureClass::Timeout).with_code("deadline")),
        };
        Answer { result, identity, asked_at, at: Instant::now() }
    }

    async fn fly(self: Arc<Self>, lead: Lead, seen: Option<Arc<Slot>>, reference: Arc<Reference>) {
        let key = lead.key().clone();
        let suspected = seen.as_ref().and_then(|slot| slot.denied_at());
        let landed = self.read(lead, seen, &reference).await;
        if let Some(denied_at) = landed.denied_at()
            && suspected.is_none()
        {
            self.confirm(&key, denied_at, &reference).await;
        }
    }

    /// Has others of the identity read beside one of its documents that is read for the second time: only then can be told
    /// whether it is the secret that was withdrawn or the identity that lost its rights, whenever the others would be read.
    fn board_others(self: &Arc<Self>, key: &SlotKey) -> Vec<Flight> {
        let now = Instant::now();
        let lacking = self.denials.lock().unwrap_or_else(PoisonError::into_inner).lacking(key, now);
        if lacking == 0 {
            return Vec::new();
        }
        // One that is under suspicion itself asks others in turn, and is not waited for.
        let others = self.cache.slots().filter(|(other, slot)| {
            let rests = slot.failed().is_some_and(|failed| !failed.failure.remaining(now).is_zero());
            other.identity == key.identity
                && **other != *key
                && slot.document().is_some()
                && slot.denied_at().is_none()
                && !rests
        });
        let mut others: Vec<_> = others.collect();
        // First those that could be read the last time, the latest first: they can tell best.
        others.sort_by_cached_key(|(_, slot)| {
            (slot.failed().is_some(), Reverse(slot.current().map(|(_, held)| held.fetched_at)))
        });
        let asked = others.iter().take(lacking);
        asked.filter_map(|(other, slot)| self.board(other, Some(slot), slot.reference())).collect()
    }

    /// Reads a second time, so that a withdrawn secret stops without waiting for a request to ask for it.
    async fn confirm(self: Arc<Self>, key: &SlotKey, denied_at: Instant, reference: &Arc<Reference>) {
        sleep_until(denied_at + CONFIRM_AFTER).await;
        while let Some(slot) = self.cache.get(key).filter(|slot| slot.denied_at() == Some(denied_at)) {
            match self.cache.join(key, Some(&slot)) {
                Join::Lead(lead, _) => {
                    self.read(lead, Some(slot), reference).await;
                    return;
                }
                Join::Follow(flight) => drop(flight.await),
                Join::Moved => {}
            }
        }
    }

    async fn read(self: &Arc<Self>, lead: Lead, seen: Option<Arc<Slot>>, reference: &Arc<Reference>) -> Arc<Slot> {
        let denied_at = seen.as_ref().and_then(|slot| slot.denied_at());
        let confirms = denied_at.is_some_and(|denied_at| denied_at.elapsed() >= CONFIRM_AFTER);
        let others = if confirms { self.board_others(lead.key()) } else { Vec::new() };
        let known = seen.as_ref().and_then(|slot| slot.document()).and_then(|document| document.version());
        let Answer { result, identity, asked_at, at } = self.ask(reference, &reference.location, known).await;
        if matches!(&result, Err(error) if error.class == FailureClass::Denied) {
            // They were asked at the same time, so that together it takes no longer than one read. Late or lost, the denial
            // counts alone.
            let limit = self.settings.deadline.saturating_add(GRACE);
            let _ = timeout_at(asked_at + limit, join_all(others)).await;
        }
        let slot = match result.and_then(|fetched| reading(fetched, seen.as_deref(), at)) {
            Ok(reading) => self.succeeded(&lead, seen.as_deref(), reading, reference),
            Err(error) => {
                let failed = Failed {
                    failure: Failure {
                        class: error.class,
                        at,
                        pause: freshness::pause(self.settings.negative_ttl, error.retry_after),
                    },
                    count: seen
                        .as_ref()
                        .and_then(|slot| slot.failed())
                        .map_or(0, |failed| failed.count)
                        .saturating_add(1),
                    error: Arc::new(error),
                    identity,
                };
                self.failed(&lead, seen.as_deref(), failed, asked_at, reference)
            }
        };
        lead.land(slot, reference.ttl.unwrap_or(self.settings.ttl))
    }

    fn succeeded(&self, lead: &Lead, seen: Option<&Slot>, reading: Reading, reference: &Arc<Reference>) -> Slot {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner).read(lead.key().identity);
        let earlier = seen.and_then(Slot::current);
        if earlier.is_none_or(|(document, _)| !document.same_value(&reading.document)) {
            self.overlaps.begin(lead.key(), earlier, reading.held.fetched_at);
        }
        let slot = Slot::after_reading(seen, reading, Arc::clone(reference), self.cache.seed(lead.key()));
        let (reference, manager) = (&*reference.slug, reference.manager_type.as_str());
        if seen.is_some_and(|seen| seen.failed().is_some()) {
            tracing::info!(reference, manager, "Secret is read again.");
        }
        for secret_key in slot.carried_keys() {
            tracing::warn!(
                reference,
                manager,
                secret_key,
                class = FailureClass::Malformed.as_str(),
                "The secret's new version cannot be used for a key, the earlier value stays in use.",
            );
        }
        slot
    }

    fn failed(
        &self,
        lead: &Lead,
        seen: Option<&Slot>,
        mut failed: Failed,
        asked_at: Instant,
        reference: &Arc<Reference>,
    ) -> Slot {
        let has_value = seen.is_some_and(|slot| slot.document().is_some());
        let mut many = false;
        if has_value && failed.failure.class == FailureClass::Denied {
            let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
            many = denials.denied(lead.key(), failed.failure.at);
        }
        if many {
            failed.failure.class = FailureClass::Unauthenticated;
        }
        let suspected_for =
            seen.and_then(Slot::denied_at).map(|denied_at| asked_at.saturating_duration_since(denied_at));
        let effect = freshness::effect(failed.failure.class, suspected_for);
        if effect == Effect::Evict {
            // What was withdrawn is not used in an earlier version either.
            self.overlaps.forget(lead.key());
        }
        let outcome = match (has_value, effect) {
            (false, _) => "nothing is remembered",
            (true, Effect::Keep) => "the last value stays in use",
            (true, Effect::Suspect) => "the last value stays until a second read confirms it",
            (true, Effect::Evict) => "the last value is forgotten",
        };
        tracing::warn!(
            reference = &*reference.slug,
            manager = reference.manager_type.as_str(),
            class = failed.failure.class.as_str(),
            identity = failed.identity.as_deref(),
            elapsed_ms = failed.failure.at.saturating_duration_since(asked_at).as_millis() as u64,
            failures = failed.count,
            outcome,
            error = &*failed.error as &(dyn std::error::Error + 'static),
            "Secret could not be read.",
        );
        if many {
            tracing::error!(
                manager = reference.manager_type.as_str(),
                identity = failed.identity.as_deref(),
                "Several secrets of one identity are denied at once: its rights seem lost, their values stay in use.",
            );
        }
        Slot::after_failure(seen, failed, effect, Arc::clone(reference))
    }
}

/// What an answer says about the document, given the one that is remembered.
fn reading(fetched: Fetched, seen: Option<&Slot>, at: Instant) -> Result<Reading, FetchError> {
    let remembered = seen.and_then(Slot::current);
    match fetched {
        Fetched::Unchanged => {
            let (document, held) =
                remembered.ok_or_else(|| FetchError::new(FailureClass::Malformed).with_code("unchanged"))?;
            Ok(Reading { document: Arc::clone(document), held: Held { fetched_at: at, ..held } })
        }
        Fetched::Document { value, map, version, not_after } => {
            let held = Held::until(at, not_after)?;
            // The same content keeps its picks and prepared header values.
            let document = match remembered {
                Some((document, _)) if document.same_as(&value, map, version.as_ref()) => Arc::clone(document),
                Some(_) | None => Arc::new(Document::new(value, map, version)),
            };
            Ok(Reading { document, held })
        }
    }
}

// === impl Held ===

impl Held {
    /// A document that was answered `at`, with the end of validity the manager states.
    ///
    /// # Errors
    /// [`FailureClass::Disabled`] when that end has passed.
    pub(super) fn until(at: Instant, not_after: Option<SystemTime>) -> Result<Self, FetchError> {
        let ends_at = match not_after.map(|end| end.duration_since(SystemTime::now())) {
            None => None,
            Some(Ok(left)) => at.checked_add(left),
            Some(Err(_)) => return Err(FetchError::new(FailureClass::Disabled).with_code("expired")),
        };
        Ok(Self { fetched_at: at, ends_at })
    }
}
