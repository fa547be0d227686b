//! Signals from outside: somebody says that a secret has changed. The only thing that follows is that it is read again.
//!
//! What is remembered is served on, as a stale value, until the read is in: a signal never takes a value away and never makes a
//! request wait. Signals for one document coalesce: one read at a time, at most one in [`REST`], and a signal that comes while
//! it is read leads to another read after that. A read that brings nothing new is followed by one more after [`SECOND_LOOK`],
//! because managers announce a change before all of their machines know it. Reads of one identity share a budget. What is not
//! remembered is not read: the next request reads it anyway.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Engine,
    budget::Budgets,
    flight::GRACE,
    slot::{Slot, SlotKey},
};
use crate::model::Reference;

/// Reads of one identity at once: the secrets that one rotation changes together.
const BURST: f64 = 64.0;
/// Reads of one identity a second after that.
const PER_SECOND: f64 = 8.0;
/// Least time between two reads of one document.
const REST: Duration = Duration::from_secs(1);
/// Time from a read that brought nothing new to the one after it.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// What a signal can do: expire. Share it by cloning.
#[derive(Clone, Debug)]
pub struct Expiry {
    engine: Arc<Engine>,
}

/// The documents that are being read again, or lately were.
#[derive(Debug)]
pub struct Expiries {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    documents: HashMap<SlotKey, State>,
    budgets: Budgets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Somebody attends to it, or waits for its turn to.
    Attended {
        /// Another signal came since the last read began.
        again: bool,
    },
    /// It was read lately.
    Resting { until: Instant },
}

/// The duty to read one document again. Ends when dropped.
#[derive(Debug)]
struct Duty {
    expiries: Arc<Expiries>,
    key: SlotKey,
}

/// What a read after a signal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Changed,
    Unchanged,
    Failed,
    /// It is no longer remembered.
    Gone,
}

// === impl Expiry ===

impl Expiry {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// The secrets behind `references` have changed, it is said. Returns how many documents that concerns; never waits.
    pub fn expire<'r>(&self, references: impl IntoIterator<Item = &'r Arc<Reference>>) -> usize {
        let (now, wall_clock) = (Instant::now(), OffsetDateTime::now_utc());
        let mut seen = HashSet::new();
        for reference in references {
            let key = SlotKey::of(reference);
            if reference.lifespan.usable_at(wall_clock) && self.engine.cache.holds(&key) && seen.insert(key.clone()) {
                self.engine.signal(key, reference, now);
            }
        }
        seen.len()
    }
}

// === impl Expiries ===

impl Expiries {
    /// None yet.
    pub fn new() -> Self {
        let table = Table { documents: HashMap::new(), budgets: Budgets::new(BURST, PER_SECOND) };
        Self { table: Mutex::new(table) }
    }

    /// Forgets documents that have rested and budgets that are full.
    pub fn tidy(&self, now: Instant) {
        let mut table = self.table();
        table.documents.retain(|_, state| match state {
            State::Attended { .. } => true,
            State::Resting { until } => now < *until,
        });
        table.budgets.tidy(now);
    }

    /// The duty to attend to a document and when to begin; `None` when somebody does already.
    fn open(self: &Arc<Self>, key: SlotKey, now: Instant) -> Option<(Duty, Instant)> {
        let mut table = self.table();
        let rested = match table.documents.get_mut(&key) {
            Some(State::Attended { again }) => {
                *again = true;
                return None;
            }
            Some(State::Resting { until }) => (*until).max(now),
            None => now,
        };
        table.documents.insert(key.clone(), State::Attended { again: false });
        let turn = now + table.budgets.reserve(key.identity, now);
        Some((Duty { expiries: Arc::clone(self), key }, rested.max(turn)))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Duty ===

impl Duty {
    /// Every signal up to now is answered by what follows.
    fn begin(&self) {
        self.expiries.table().documents.insert(self.key.clone(), State::Attended { again: false });
    }

    /// When to read once more, if another signal came since; `None`: done, it rests.
    fn next(&self, now: Instant) -> Option<Instant> {
        let mut table = self.expiries.table();
        if table.documents.get(&self.key) == Some(&State::Attended { again: true }) {
            return Some(now + REST.max(table.budgets.reserve(self.key.identity, now)));
        }
        table.documents.insert(self.key.clone(), State::Resting { until: now + REST });
        None
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        // Still attended to: it ended by a fault.
        let mut table = self.expiries.table();
        if matches!(table.documents.get(&self.key), Some(State::Attended { .. })) {
            table.documents.remove(&self.key);
        }
    }
}

// === impl Outcome ===

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Gone => "dropped",
        }
    }
}

// === impl Engine ===

impl Engine {
    fn signal(self: &Arc<Self>, key: SlotKey, reference: &Arc<Reference>, now: Instant) {
        let Some((duty, at)) = self.expiries.open(key, now) else {
            self.meter.signal(reference.manager_type, "joined");
            return;
        };
        let (engine, reference) = (Arc::clone(self), Arc::clone(reference));
        tokio::spawn(async move { engine.attend(duty, at, &reference).await });
    }

    async fn attend(self: Arc<Self>, duty: Duty, mut at: Instant, reference: &Arc<Reference>) {
        let (slug, manager) = (&*reference.slug, reference.manager_type.as_str());
        loop {
            sleep_until(at).await;
            duty.begin();
            let mut outcome = self.read_signalled(&duty.key, reference).await;
            if outcome == Outcome::Unchanged {
                sleep(SECOND_LOOK).await;
                outcome = self.read_signalled(&duty.key, reference).await;
            }
            self.meter.signal(reference.manager_type, outcome.as_str());
            match outcome {
                Outcome::Changed => {
                    tracing::info!(reference = slug, manager, "A secret has changed, as was signalled.");
                }
                Outcome::Unchanged => {
                    tracing::debug!(reference = slug, manager, "A secret was signalled as changed and is what it was.");
                }
                // Logged where it failed.
                Outcome::Failed | Outcome::Gone => {}
            }
            match duty.next(Instant::now()) {
                Some(next) => at = next,
                None => return,
            }
        }
    }

    /// Expires the document and reads it. What began before does not count, so that it may take two reads.
    async fn read_signalled(self: &Arc<Self>, key: &SlotKey, reference: &Arc<Reference>) -> Outcome {
        if !self.cache.holds(key) {
            return Outcome::Gone;
        }
        let before = self.cache.get(key);
        self.cache.expire(key);
        loop {
            let seen = self.cache.get(key);
            let Some(flight) = self.board(key, seen.as_ref(), reference) else { continue };
            let limit = self.settings.deadline.saturating_add(2 * GRACE);
            let Ok(Ok(landed)) = timeout(limit, flight).await else { return Outcome::Failed };
            if landed.failed().is_some() {
                // It stays expired, so that whoever uses it has it read again when the failure is over.
                return Outcome::Failed;
            }
            if !landed.is_expired() {
                return outcome(before.as_deref(), &landed);
            }
            if self.cache.get(key).is_none() {
                return Outcome::Gone;
            }
        }
    }
}

fn outcome(before: Option<&Slot>, landed: &Slot) -> Outcome {
    match (before.and_then(Slot::document), landed.document()) {
        (Some(before), Some(now)) if before.same_value(now) => Outcome::Unchanged,
        (_, Some(_)) => Outcome::Changed,
        (_, None) => Outcome::Failed,
    }
}
