//! What is remembered of one document between two reads.
//!
//! A slot never changes (but for the marks of use and of a signal): each read makes the next slot from the one before it and what
//! the manager answered. So whoever holds a slot sees one consistent moment, and a hit needs no lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    document::Document,
    freshness::{self, Effect, Failure, Held, Memory},
    pick::{PickError, Wanted},
};
use crate::{
    manager::{FailureClass, FetchError, Version},
    model::{Identity, Reference, SecretLocation},
    secret::Credential,
};

/// Bytes a slot costs beside its document: itself, its key, the cache's own entry.
const OVERHEAD_BYTES: usize = 1024;
/// Of [`Slot::used_by`]: nobody.
const NOBODY: u64 = u64::MAX;
/// A document is remembered as it came, as picked text, and in up to two header forms.
const COPIES: usize = 4;

/// Names one document: who reads it, and what. Never shared between different credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// Manager type and the whole `auth_config`.
    pub identity: Identity,
    /// Path and version selector.
    pub location: SecretLocation,
}

/// The memory of one document.
#[derive(Debug)]
pub struct Slot {
    current: Option<Current>,
    carried: Vec<Carried>,
    failed: Option<Failed>,
    /// First denial that no second read has confirmed or cleared yet.
    denied_at: Option<Instant>,
    /// Whose read this was; a refresh that nobody asks for reads on its behalf.
    reference: Arc<Reference>,
    /// Decides the jitter of this fetch.
    seed: u64,
    /// Longest time since the fetch that any reference may still serve the document.
    keep: Duration,
    /// The shortest lifetime, in milliseconds, of the references that asked for the value since it was fetched.
    used_by: AtomicU64,
    /// A signal came after the read of the document began.
    expired: AtomicBool,
}

/// The last good document.
#[derive(Clone, Debug)]
struct Current {
    document: Arc<Document>,
    held: Held,
}

/// A value of an earlier document that the current one no longer yields: a rotation that broke a key does not take the
/// good value away before the hard bound, counted from the fetch that brought it.
#[derive(Clone, Debug)]
struct Carried {
    wanted: Wanted,
    found: Found,
}

/// A value that may be served, if its age allows.
#[derive(Clone, Debug)]
pub struct Found {
    /// The value.
    pub credential: Arc<Credential>,
    /// The version it was picked from.
    pub version: Option<Version>,
    /// Since when and until when.
    pub held: Held,
}

/// The failure of the last read.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What the judge needs to know.
    pub failure: Failure,
    /// Failures in a row.
    pub count: u32,
    /// What the manager said, for the log.
    pub error: Arc<FetchError>,
    /// Who asked, for the log.
    pub identity: Option<Arc<str>>,
}

/// What a slot knows about one wanted value.
#[derive(Debug, Default)]
pub struct Sight {
    /// For the judge.
    pub memory: Memory,
    /// The value behind [`Memory::value`].
    pub found: Option<Found>,
    /// Why the current document does not yield it.
    pub unpicked: Option<PickError>,
}

/// What a successful read brought.
#[derive(Debug)]
pub struct Reading {
    /// The document.
    pub document: Arc<Document>,
    /// When, and until when it is valid.
    pub held: Held,
}

// === impl SlotKey ===

impl SlotKey {
    /// The document that `reference` names.
    pub fn of(reference: &Reference) -> Self {
        Self { identity: reference.identity, location: reference.location.clone() }
    }
}

// === impl Slot ===

impl Slot {
    /// The slot after a read that succeeded.
    pub fn after_reading(previous: Option<&Self>, reading: Reading, reference: Arc<Reference>, seed: u64) -> Self {
        let carried = previous.map(|previous| previous.carry_into(&reading.document)).unwrap_or_default();
        Self {
            current: Some(Current { document: reading.document, held: reading.held }),
            carried,
            failed: None,
            denied_at: None,
            reference,
            seed,
            keep: Duration::ZERO,
            used_by: AtomicU64::new(NOBODY),
            expired: AtomicBool::new(false),
        }
    }

    /// The slot after a read that failed, with what `effect` leaves of the value.
    pub fn after_failure(previous: Option<&Self>, failed: Failed, effect: Effect, reference: Arc<Reference>) -> Self {
        let kept = previous.filter(|_| effect != Effect::Evict);
        let current = kept.and_then(|slot| slot.current.clone());
        let denied_at = match effect {
            // It is the identity that is refused; what was said of the secret counts no more.
            Effect::Keep if failed.failure.class == FailureClass::Unauthenticated => None,
            Effect::Keep => kept.and_then(|slot| slot.denied_at),
            Effect::Suspect if current.is_some() => kept.and_then(|slot| slot.denied_at).or(Some(failed.failure.at)),
            Effect::Suspect | Effect::Evict => None,
        };
        Self {
            current,
            carried: kept.map(|slot| slot.carried.clone()).unwrap_or_default(),
            failed: Some(failed),
            denied_at,
            reference,
            seed: previous.map_or(0, |slot| slot.seed),
            keep: Duration::ZERO,
            used_by: AtomicU64::new(previous.map_or(NOBODY, |slot| slot.used_by.load(Ordering::Relaxed))),
            expired: AtomicBool::new(previous.is_some_and(Self::is_expired)),
        }
    }

    /// What is remembered about `wanted`. A document that does not yield it counts as a failed read of its moment, so that
    /// a repaired secret is found after `negative_ttl` and not only after the lifetime of the broken one.
    pub fn look(&self, wanted: &Wanted, negative_ttl: Duration) -> Sight {
        let mut memory = self.memory();
        let Some(Current { document, held }) = &self.current else {
            return Sight { memory, found: None, unpicked: None };
        };
        match document.pick(wanted) {
            Ok(credential) => {
                let found = Found { credential, version: document.version().cloned(), held: *held };
                Sight { memory, found: Some(found), unpicked: None }
            }
            Err(error) => {
                let found = self.carried.iter().find(|carried| carried.wanted == *wanted).map(|c| c.found.clone());
                memory.value = found.as_ref().map(|found| found.held);
                memory.failure = memory.failure.or(Some(Failure {
                    class: FailureClass::Malformed,
                    at: held.fetched_at,
                    pause: freshness::pause(negative_ttl, None),
                }));
                Sight { memory, found, unpicked: Some(error) }
            }
        }
    }

    /// What is remembered about the document as a whole.
    pub fn memory(&self) -> Memory {
        Memory {
            value: self.current.as_ref().map(|current| current.held),
            failure: self.failed.as_ref().map(|failed| failed.failure),
            used: self.used_by().is_some(),
            expired: self.is_expired(),
        }
    }

    /// Notes a signal that the secret has changed.
    pub fn expire(&self) {
        self.expired.store(true, Ordering::Relaxed);
    }

    /// Whether one came since the read of the document began.
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Notes that a reference with this lifetime asked for the value.
    pub fn mark_used(&self, ttl: Duration) {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(NOBODY).min(NOBODY - 1);
        // Most find it marked already, and then the cache line stays shared.
        if ttl < self.used_by.load(Ordering::Relaxed) {
            self.used_by.fetch_min(ttl, Ordering::Relaxed);
        }
    }

    /// The shortest lifetime of the references that asked for the value since its fetch; `None` when nobody did.
    pub fn used_by(&self) -> Option<Duration> {
        Some(self.used_by.load(Ordering::Relaxed)).filter(|ttl| *ttl != NOBODY).map(Duration::from_millis)
    }

    /// The last good document.
    pub fn document(&self) -> Option<&Arc<Document>> {
        self.current.as_ref().map(|current| &current.document)
    }

    /// The last good document, and since when and until when it is valid.
    pub fn current(&self) -> Option<(&Arc<Document>, Held)> {
        self.current.as_ref().map(|current| (&current.document, current.held))
    }

    /// The failure of the last read.
    pub fn failed(&self) -> Option<&Failed> {
        self.failed.as_ref()
    }

    /// When the value came under suspicion.
    pub fn denied_at(&self) -> Option<Instant> {
        self.denied_at
    }

    /// Whose read this was.
    pub fn reference(&self) -> &Arc<Reference> {
        &self.reference
    }

    /// Decides the jitter of this fetch.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The keys whose earlier value is still in use.
    pub fn carried_keys(&self) -> impl Iterator<Item = &str> {
        self.carried.iter().map(|carried| carried.wanted.key.as_deref().unwrap_or_default())
    }

    /// The longest time since the fetch that any reference may serve the document.
    pub fn keep(&self) -> Duration {
        self.keep
    }

    /// Sets it, before the slot is shared.
    pub fn set_keep(&mut self, keep: Duration) {
        self.keep = keep;
    }

    /// The same memory, kept for another time.
    pub fn kept_for(&self, keep: Duration) -> Self {
        Self {
            current: self.current.clone(),
            carried: self.carried.clone(),
            failed: self.failed.clone(),
            denied_at: self.denied_at,
            reference: Arc::clone(&self.reference),
            seed: self.seed,
            keep,
            used_by: AtomicU64::new(self.used_by.load(Ordering::Relaxed)),
            expired: AtomicBool::new(self.is_expired()),
        }
    }

    /// Time from `now` until nothing in the slot can be of use any more.
    pub fn useful_for(&self, now: Instant) -> Duration {
        let value = self.current.as_ref().map(|current| self.keep.saturating_sub(current.held.age(now)));
        let failure = self.failed.as_ref().map(|failed| failed.failure.remaining(now));
        value.max(failure).unwrap_or_default()
    }

    /// An estimate of its size in memory, in bytes.
    pub fn weight(&self) -> usize {
        let document = self.document().map_or(0, |document| document.len());
        let carried: usize = self.carried.iter().map(|carried| carried.found.credential.expose().len()).sum();
        OVERHEAD_BYTES + COPIES * (document + carried)
    }

    /// The good values of this slot that `document` no longer yields.
    fn carry_into(&self, document: &Arc<Document>) -> Vec<Carried> {
        let Some(current) = &self.current else { return Vec::new() };
        if Arc::ptr_eq(&current.document, document) {
            return self.carried.clone();
        }
        let version = current.document.version();
        let picked = current.document.good_picks().map(|(wanted, credential)| Carried {
            wanted: wanted.clone(),
            found: Found { credential: Arc::clone(credential), version: version.cloned(), held: current.held },
        });
        picked.chain(self.carried.iter().cloned()).filter(|carried| document.pick(&carried.wanted).is_err()).collect()
    }
}
