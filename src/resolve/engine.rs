//! What a request, a flight and the maintenance task share: look, board a flight, land, serve or refuse.
//!
//! [`Engine::look`] is the hit path: one look-up, one judgement, a few reference counts; it takes no lock of ours and waits
//! for nothing.

use std::{
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{
    Outcome, ResolveError, Resolved, Settings,
    cache::{Cache, Flight},
    denials::Denials,
    expiry::Expiries,
    flight::GRACE,
    freshness::{Decision, Terms},
    inquiry::Inquiries,
    meter::{Counted, Meter},
    overlap::Overlaps,
    pick::Wanted,
    slot::{Found, Sight, Slot, SlotKey},
};
use crate::{
    manager::{FailureClass, FetchError, Managers},
    metric::Metrics,
    model::{Mapping, Reference},
};

/// How often ended slots are wiped and used ones looked over for a refresh ahead of time.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// Refreshes started by one round of that, so that documents fetched together are not all read in one second.
const REFRESHES_A_ROUND: usize = 256;

/// What resolver, flights and maintenance share.
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) managers: Arc<dyn Managers>,
    pub(super) cache: Arc<Cache>,
    pub(super) denials: Mutex<Denials>,
    pub(super) inquiries: Arc<Inquiries>,
    pub(super) overlaps: Overlaps,
    pub(super) expiries: Arc<Expiries>,
    pub(super) meter: Meter,
}

/// What looking at a mapping came to.
pub enum Look {
    /// Served from memory.
    Found(Resolved),
    /// A read is needed, and under way.
    Awaits(Flight),
}

// === impl Engine ===

impl Engine {
    /// Over an empty cache.
    pub fn new(settings: Settings, managers: Arc<dyn Managers>, metrics: Arc<Metrics>) -> Self {
        let cache = Arc::new(Cache::new(&settings));
        let inquiries = Arc::new(Inquiries::new(settings.suspicion));
        let overlaps = Overlaps::new(settings.suspicion.overlap);
        let expiries = Arc::new(Expiries::new());
        let meter = Meter::new(metrics);
        Self { settings, managers, cache, denials: Mutex::default(), inquiries, overlaps, expiries, meter }
    }

    /// What memory says about `mapping`; starts whatever read it calls for. Never waits.
    ///
    /// Looks again only when a read landed between look-up and boarding, and each of those makes the memory newer.
    pub fn look(
        self: &Arc<Self>,
        mapping: &Mapping,
        now: Instant,
        wall_clock: OffsetDateTime,
    ) -> Result<Look, ResolveError> {
        let reference = &mapping.reference;
        if !reference.lifespan.usable_at(wall_clock) {
            return Err(self.refuse(reference, FailureClass::Misconfigured, None, &Sight::default(), now));
        }
        let (key, wanted) = (SlotKey::of(reference), Wanted::by_mapping(mapping));
        loop {
            let slot = self.cache.get(&key);
            if let Some(slot) = &slot {
                slot.mark_used(reference.ttl.unwrap_or(self.settings.ttl));
            }
            let mut sight = slot.as_deref().map(|slot| self.see(slot, &wanted)).unwrap_or_default();
            let terms = self.terms(reference, slot.as_deref());
            let decision = sight.memory.judge(&terms, now);
            let found =
                sight.found.take().map(|found| self.overlaps.preferred(&key, &wanted, &terms, now).unwrap_or(found));
            match (decision, found) {
                (Decision::Fresh, Some(found)) => {
                    return Ok(Look::Found(self.serve(reference, found, Outcome::Hit, Counted::Hit, now)));
                }
                (Decision::RefreshAhead, Some(found)) => {
                    drop(self.board(&key, slot.as_ref(), reference));
                    return Ok(Look::Found(self.serve(reference, found, Outcome::Hit, Counted::Refresh, now)));
                }
                (Decision::Stale { refresh }, Some(found)) => {
                    if refresh {
                        drop(self.board(&key, slot.as_ref(), reference));
                    }
                    return Ok(Look::Found(self.serve(reference, found, Outcome::Stale, Counted::Stale, now)));
                }
                (Decision::Refused(class), _) => {
                    return Err(self.refuse(reference, class, slot.as_deref(), &sight, now));
                }
                (Decision::Fetch, _) | (Decision::Fresh | Decision::RefreshAhead | Decision::Stale { .. }, None) => {
                    if let Some(flight) = self.board(&key, slot.as_ref(), reference) {
                        return Ok(Look::Awaits(flight));
                    }
                }
            }
        }
    }

    /// Waits for `flight` and takes from where it landed what `mapping` wants.
    pub async fn land(&self, mapping: &Mapping, flight: Flight) -> Result<Resolved, ResolveError> {
        let reference = &mapping.reference;
        // The flight keeps a limit of its own; this one is for a manager that blocks the thread the flight runs on.
        let limit = self.settings.deadline.saturating_add(2 * GRACE);
        let landed = timeout(limit, flight).await;
        let now = Instant::now();
        let slot = match landed {
            Ok(Ok(slot)) => slot,
            Ok(Err(_lost)) => return self.remembered(mapping, FailureClass::Unavailable, now),
            Err(_) => return self.remembered(mapping, FailureClass::Timeout, now),
        };
        let (wanted, terms) = (Wanted::by_mapping(mapping), self.terms(reference, Some(&slot)));
        let mut sight = self.see(&slot, &wanted);
        if let Some(found) = &mut sight.found
            && let Some(preferred) = self.overlaps.preferred(&SlotKey::of(reference), &wanted, &terms, now)
        {
            *found = preferred;
        }
        match (sight.memory.failure, sight.memory.judge(&terms, now), &sight.found) {
            // Read for this request: it may be served whatever its lifetime, zero included.
            (None, _, Some(found)) => Ok(self.serve(reference, found.clone(), Outcome::Miss, Counted::Miss, now)),
            (Some(_), Decision::Fresh | Decision::RefreshAhead | Decision::Stale { .. }, Some(found)) => {
                Ok(self.serve(reference, found.clone(), Outcome::Stale, Counted::Stale, now))
            }
            (failure, _, _) => {
                let class = failure.map_or(FailureClass::Malformed, |failure| failure.class);
                Err(self.refuse(reference, class, Some(&slot), &sight, now))
            }
        }
    }

    /// What a mapping receives when its read never landed: what is remembered, within its bound, else `class`.
    fn remembered(&self, mapping: &Mapping, class: FailureClass, now: Instant) -> Result<Resolved, ResolveError> {
        let reference = &mapping.reference;
        let slot = self.cache.get(&SlotKey::of(reference));
        let terms = self.terms(reference, slot.as_deref());
        let sight = slot.as_deref().map(|slot| self.see(slot, &Wanted::by_mapping(mapping))).unwrap_or_default();
        match &sight.found {
            Some(found) if found.held.servable(&terms, now) => {
                Ok(self.serve(reference, found.clone(), Outcome::Stale, Counted::Stale, now))
            }
            Some(_) | None => Err(self.refuse(reference, class, slot.as_deref(), &sight, now)),
        }
    }

    pub(super) fn see(&self, slot: &Slot, wanted: &Wanted) -> Sight {
        slot.look(wanted, self.settings.negative_ttl)
    }

    pub(super) fn terms(&self, reference: &Reference, slot: Option<&Slot>) -> Terms {
        Terms::new(&self.settings, reference.ttl, slot.map_or(0, Slot::seed))
    }

    fn serve(&self, reference: &Reference, found: Found, outcome: Outcome, counted: Counted, now: Instant) -> Resolved {
        let age = found.held.age(now);
        self.meter.count(reference.manager_type, counted);
        self.meter.served(age);
        Resolved { credential: found.credential, outcome, version: found.version, age }
    }

    /// The error for `reference`, with the failure that `slot` remembers or the reason why it does not yield the value.
    fn refuse(
        &self,
        reference: &Arc<Reference>,
        class: FailureClass,
        slot: Option<&Slot>,
        sight: &Sight,
        now: Instant,
    ) -> ResolveError {
        self.meter.count(reference.manager_type, Counted::Error);
        let failed = slot.and_then(Slot::failed);
        let unpicked = || Some(Arc::new(FetchError::new(class).with_source(sight.unpicked?)));
        // A value that cannot be picked was read by whoever the reference names.
        let reader =
            || sight.unpicked.and_then(|_| self.managers.manager(reference).ok()).map(|manager| manager.identity());
        ResolveError {
            reference: Arc::clone(reference),
            class,
            retry_after: sight.memory.failure.map(|failure| failure.remaining(now)),
            identity: failed.and_then(|failed| failed.identity.clone()).or_else(reader),
            source: failed.map(|failed| Arc::clone(&failed.error)).or_else(unpicked),
        }
    }

    /// Refreshes used slots before they go stale, and after a signal whose read failed, whether or not a request comes by.
    fn refresh_ahead(self: &Arc<Self>) {
        let (now, ahead) = (Instant::now(), self.settings.refresh_ahead_ratio > 0.0);
        let due = self.cache.slots().filter(|(_, slot)| {
            slot.used_by().is_some_and(|ttl| {
                let terms = Terms::new(&self.settings, Some(ttl), slot.seed());
                match slot.memory().judge(&terms, now) {
                    Decision::RefreshAhead => ahead,
                    Decision::Stale { refresh } => refresh && slot.is_expired(),
                    Decision::Fresh | Decision::Fetch | Decision::Refused(_) => false,
                }
            })
        });
        for (key, slot) in due.take(REFRESHES_A_ROUND) {
            drop(self.board(&key, Some(&slot), slot.reference()));
        }
    }

    /// Reads the document of `reference` and returns when it has landed; a read that is under way will do.
    pub async fn refresh(self: &Arc<Self>, reference: &Arc<Reference>) {
        let key = SlotKey::of(reference);
        loop {
            let seen = self.cache.get(&key);
            if let Some(flight) = self.board(&key, seen.as_ref(), reference) {
                // Lost or landed, the memory tells.
                let _ = flight.await;
                return;
            }
        }
    }

    /// Reads every remembered document again and returns when all have landed.
    pub async fn refresh_all(self: &Arc<Self>) {
        let slots: Vec<_> = self.cache.slots().collect();
        for round in slots.chunks(REFRESHES_A_ROUND) {
            let flights = round.iter().filter_map(|(key, slot)| self.board(key, Some(slot), slot.reference()));
            join_all(flights.collect::<Vec<_>>()).await;
        }
    }

    /// Wipes what has ended and counts what is left.
    pub fn tidy(&self) {
        self.meter.entries(self.cache.tidy());
        let now = Instant::now();
        self.overlaps.tidy(now);
        self.inquiries.tidy(now);
        self.expiries.tidy(now);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Tidies up as long as the resolver lives.
pub async fn maintain(engine: Weak<Engine>) {
    let mut round = interval(TIDY_EVERY);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let Some(engine) = engine.upgrade() else { return };
        engine.refresh_ahead();
        engine.tidy();
    }
}
