//! Where slots lie, and who is reading which document right now.
//!
//! moka bounds the slots by number and bytes and drops them at the end of their use; whether one may be *served* is never
//! its decision (its clock is not tokio's and it evicts lazily). Reads under way are kept apart, so that an eviction cannot
//! start a second read of the same document, and so that what a read brings is stored and announced in one step.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{FutureExt, Shared};
use moka::{Expiry, policy::EvictionPolicy};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Settings,
    slot::{Slot, SlotKey},
};

/// Nothing is kept longer than this, whatever lifetimes say.
const MAX_KEEP: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a slot is kept that the snapshot in force does not name: until the resolver hears of the swap that names it, or
/// until the last request of an earlier snapshot is through.
const UNNAMED_KEEP: Duration = Duration::from_secs(60);

/// Every slot of the process.
pub struct Cache {
    slots: moka::sync::Cache<SlotKey, Arc<Slot>>,
    table: Mutex<Table>,
    stale: Duration,
    seeds: RandomState,
    fetches: AtomicU64,
}

/// A read under way: resolves to the slot it leads to, for everyone who waits.
pub type Flight = Shared<oneshot::Receiver<Arc<Slot>>>;

/// How to come by the next slot of a document.
#[derive(Debug)]
pub enum Join {
    /// Nobody is reading it: the caller does, and waits for the flight like anybody else.
    Lead(Lead, Flight),
    /// Somebody is.
    Follow(Flight),
    /// A read landed since the caller looked: look again.
    Moved,
}

/// The duty to read one document. Dropped without landing, it lets the next caller read and tells those who wait.
#[derive(Debug)]
pub struct Lead {
    cache: Arc<Cache>,
    key: SlotKey,
    announce: Option<oneshot::Sender<Arc<Slot>>>,
}

#[derive(Default)]
struct Table {
    reads: HashMap<SlotKey, UnderWay>,
    /// The documents the snapshot in force names, with the longest `ttl` that a reference gives each; `None` before the
    /// first snapshot.
    named: Option<HashMap<SlotKey, Duration>>,
}

/// A read that has not landed yet.
struct UnderWay {
    flight: Flight,
    /// The snapshot was swapped for one that does not name the document: whoever waits is answered, nothing is stored.
    dropped: bool,
    /// A signal came after it began: what it brings may be what was there before.
    expired: bool,
}

/// Ends a slot when nothing in it can be of use any more. Never `None` (moka's path without an end had faults up to
/// 0.12.13), and set anew on update (moka would keep the remaining time of the slot that was replaced).
struct EndOfUse;

// === impl Cache ===

impl Cache {
    /// An empty cache.
    pub fn new(settings: &Settings) -> Self {
        let max_bytes = settings.max_bytes.max(1);
        // One weight bounds both: no slot weighs less than its share of the bytes.
        let share = max_bytes.div_ceil(settings.max_entries.max(1));
        let slots = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(move |_, slot: &Arc<Slot>| u32::try_from((slot.weight() as u64).max(share)).unwrap_or(u32::MAX))
            // A secret that was just read must be there for the next request: recency, not frequency.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(EndOfUse)
            .build();
        Self {
            slots,
            table: Mutex::default(),
            stale: settings.stale,
            seeds: RandomState::new(),
            fetches: AtomicU64::new(0),
        }
    }

    /// The slot of a document.
    pub fn get(&self, key: &SlotKey) -> Option<Arc<Slot>> {
        self.slots.get(key)
    }

    /// Takes part in the read of a document; `seen` is the slot the caller found too old.
    pub fn join(self: &Arc<Self>, key: &SlotKey, seen: Option<&Arc<Slot>>) -> Join {
        let mut table = self.table();
        if let Some(under_way) = table.reads.get(key) {
            return Join::Follow(under_way.flight.clone());
        }
        let now = self.slots.get(key);
        if now.as_ref().map(Arc::as_ptr) != seen.map(Arc::as_ptr) {
            return Join::Moved;
        }
        let (announce, landing) = oneshot::channel();
        let flight = landing.shared();
        table.reads.insert(key.clone(), UnderWay { flight: flight.clone(), dropped: false, expired: false });
        Join::Lead(Lead { cache: Arc::clone(self), key: key.clone(), announce: Some(announce) }, flight)
    }

    /// Whether a document is remembered, or being read right now.
    pub fn holds(&self, key: &SlotKey) -> bool {
        self.table().reads.contains_key(key) || self.slots.get(key).is_some_and(|slot| slot.document().is_some())
    }

    /// Marks what is remembered of a document as expired, and what a read under way is going to bring.
    pub fn expire(&self, key: &SlotKey) {
        let mut table = self.table();
        if let Some(under_way) = table.reads.get_mut(key) {
            under_way.expired = true;
        }
        if let Some(slot) = self.slots.get(key) {
            slot.expire();
        }
    }

    /// A number that differs from fetch to fetch and from process to process.
    pub fn seed(&self, key: &SlotKey) -> u64 {
        self.seeds.hash_one((key, self.fetches.fetch_add(1, Ordering::Relaxed)))
    }

    /// Drops what `named` does not name, also out of the hands of those who are reading it right now.
    pub fn retain(&self, named: HashMap<SlotKey, Duration>) {
        let mut table = self.table();
        for (key, slot) in &self.slots {
            match named.get(&*key) {
                None => self.slots.invalidate(&*key),
                Some(ttl) if self.keep(*ttl) != slot.keep() => {
                    self.slots.insert((*key).clone(), Arc::new(slot.kept_for(self.keep(*ttl))));
                }
                Some(_) => {}
            }
        }
        for (key, under_way) in &mut table.reads {
            under_way.dropped = !named.contains_key(key);
        }
        table.named = Some(named);
    }

    /// Wipes what has ended and evicts what is too much; moka does neither while nobody asks. Returns the number of slots.
    pub fn tidy(&self) -> u64 {
        self.slots.run_pending_tasks();
        self.slots.entry_count()
    }

    /// Every slot, in no order.
    pub fn slots(&self) -> impl Iterator<Item = (Arc<SlotKey>, Arc<Slot>)> + '_ {
        self.slots.iter()
    }

    fn keep(&self, ttl: Duration) -> Duration {
        ttl.saturating_add(self.stale)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("slots", &self.slots.entry_count()).finish_non_exhaustive()
    }
}

// === impl Lead ===

impl Lead {
    /// Which document.
    pub fn key(&self) -> &SlotKey {
        &self.key
    }

    /// Stores `slot`, unless the document was dropped meanwhile, and announces it to those who wait. `ttl` is the lifetime
    /// for which the reading reference keeps it.
    pub fn land(mut self, mut slot: Slot, ttl: Duration) -> Arc<Slot> {
        let mut table = self.cache.table();
        let under_way = table.reads.remove(&self.key);
        let dropped = under_way.as_ref().is_some_and(|under_way| under_way.dropped);
        if under_way.is_some_and(|under_way| under_way.expired) {
            slot.expire();
        }
        slot.set_keep(match &table.named {
            Some(named) => match named.get(&self.key) {
                Some(longest) => self.cache.keep(*longest),
                None => self.cache.keep(ttl).min(UNNAMED_KEEP),
            },
            None => {
                let before = self.cache.slots.get(&self.key).map_or(Duration::ZERO, |slot| slot.keep());
                self.cache.keep(ttl).max(before)
            }
        });
        let slot = Arc::new(slot);
        if !dropped {
            self.cache.slots.insert(self.key.clone(), Arc::clone(&slot));
        }
        drop(table);
        if let Some(announce) = self.announce.take() {
            // Nobody may be waiting any more.
            let _ = announce.send(Arc::clone(&slot));
        }
        slot
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // Still there: it did not land.
        if self.announce.is_some() {
            self.cache.table().reads.remove(&self.key);
        }
    }
}

// === impl EndOfUse ===

impl EndOfUse {
    fn after(slot: &Slot) -> Option<Duration> {
        Some(slot.useful_for(Instant::now()).min(MAX_KEEP))
    }
}

#[allow(clippy::disallowed_types, reason = "moka's signature; its clock is not looked at")]
impl Expiry<SlotKey, Arc<Slot>> for EndOfUse {
    fn expire_after_create(&self, _: &SlotKey, slot: &Arc<Slot>, _: std::time::Instant) -> Option<Duration> {
        Self::after(slot)
    }

    fn expire_after_update(
        &self,
        _: &SlotKey,
        slot: &Arc<Slot>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Self::after(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::{
        manager::{FailureClass, FetchError},
        model::{LinkRules, Reference, link},
        resolve::{
            document::Document,
            freshness::{Effect, Failure, Held},
            slot::{Failed, Reading},
        },
        secret::SecretValue,
    };

    const SETTINGS: Settings = Settings {
        ttl: Duration::from_secs(300),
        jitter_ratio: 0.0,
        refresh_ahead_ratio: 0.8,
        stale: Duration::from_secs(3600),
        negative_ttl: Duration::from_secs(5),
        max_entries: 100,
        max_bytes: 1 << 20,
        suspicion: crate::resolve::Suspicion::DEFAULT,
        deadline: Duration::from_secs(8),
    };

    fn reference() -> Arc<Reference> {
        let json = br#"{"schema_version": 1, "secret_references": [
            {"id": "1", "slug": "a", "manager_type": "file", "secret_path": "a", "auth_config": {}, "status": "active"}]}"#;
        let snapshot = link(json, &LinkRules { strict: true, admit: &|_, _, _| Ok(()), opener: None }).unwrap();
        Arc::clone(&snapshot.references[0])
    }

    fn slot(fetched_at: Instant) -> Slot {
        let document = Arc::new(Document::new(SecretValue::from("1".to_owned()), false, None));
        let reading = Reading { document, held: Held { fetched_at, ends_at: None } };
        Slot::after_reading(None, reading, reference(), 0)
    }

    fn failed(previous: Option<&Slot>, at: Instant) -> Slot {
        let failed = Failed {
            failure: Failure { class: FailureClass::Timeout, at, pause: Duration::from_secs(5) },
            count: 1,
            error: Arc::new(FetchError::new(FailureClass::Timeout)),
            identity: None,
        };
        Slot::after_failure(previous, failed, Effect::Keep, reference())
    }

    /// Stores `slot` and keeps nothing of it but a way to see whether it still lives.
    fn store(cache: &Arc<Cache>, slot: Slot) -> Weak<Slot> {
        let key = SlotKey::of(&reference());
        let Join::Lead(lead, _) = cache.join(&key, cache.get(&key).as_ref()) else { panic!("nobody else reads") };
        Arc::downgrade(&lead.land(slot, SETTINGS.ttl))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_ends_with_the_last_use_of_what_is_in_it() {
        struct Case {
            name: &'static str,
            slot: Slot,
            /// Lifetime and stale time together.
            keep: u64,
            want: u64,
        }
        let then = Instant::now();
        let now = then + Duration::from_secs(100);
        let cases = [
            Case { name: "new value", slot: slot(now), keep: 3900, want: 3900 },
            Case { name: "older value", slot: slot(then), keep: 3900, want: 3800 },
            Case { name: "value past its use", slot: slot(then), keep: 60, want: 0 },
            Case { name: "failure only", slot: failed(None, now), keep: 3900, want: 5 },
            Case { name: "failure over", slot: failed(None, then), keep: 3900, want: 0 },
            Case { name: "failure over a value", slot: failed(Some(&slot(then)), now), keep: 3900, want: 3800 },
            Case { name: "failure outlives a value", slot: failed(Some(&slot(then)), now), keep: 60, want: 5 },
            Case { name: "for ever", slot: slot(now), keep: u64::MAX, want: MAX_KEEP.as_secs() },
        ];
        tokio::time::advance(Duration::from_secs(100)).await;
        for Case { name, mut slot, keep, want } in cases {
            slot.set_keep(Duration::from_secs(keep));
            assert_eq!(EndOfUse::after(&slot), Some(Duration::from_secs(want)), "{name}");
            let (key, slot) = (SlotKey::of(&reference()), Arc::new(slot));
            assert_eq!(
                EndOfUse.expire_after_update(&key, &slot, now.into_std(), Some(Duration::ZERO)),
                EndOfUse::after(&slot)
            );
        }
    }

    /// moka frees by epochs that every thread of the process takes part in, so that it may take more than one round.
    fn freed(cache: &Cache, slot: &Weak<Slot>) -> bool {
        (0..10_000).any(|_| {
            cache.tidy();
            std::thread::yield_now();
            slot.upgrade().is_none()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_is_freed() {
        let cache = Arc::new(Cache::new(&SETTINGS));
        let first = store(&cache, slot(Instant::now()));
        assert!(first.upgrade().is_some());
        let second = store(&cache, slot(Instant::now()));
        assert!(freed(&cache, &first), "replaced");
        assert!(second.upgrade().is_some());
        cache.retain(HashMap::new());
        assert_eq!(cache.tidy(), 0);
        assert!(freed(&cache, &second), "no longer named");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lead_that_is_lost_is_not_in_the_way() {
        let cache = Arc::new(Cache::new(&SETTINGS));
        let key = SlotKey::of(&reference());
        let Join::Lead(lead, flight) = cache.join(&key, None) else { panic!("nobody else reads") };
        assert!(matches!(cache.join(&key, None), Join::Follow(_)));
        drop(lead);
        assert!(flight.await.is_err(), "those who wait are told");
        assert!(matches!(cache.join(&key, None), Join::Lead(..)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_kept_for_the_longest_lifetime_named() {
        let cache = Arc::new(Cache::new(&SETTINGS));
        let key = SlotKey::of(&reference());
        let keep = || cache.get(&key).unwrap().keep().as_secs();
        store(&cache, slot(Instant::now()));
        assert_eq!(keep(), 3900);
        cache.retain(HashMap::from([(key.clone(), Duration::from_secs(7200))]));
        assert_eq!(keep(), 10_800, "a snapshot names a longer one");
        store(&cache, slot(Instant::now()));
        assert_eq!(keep(), 10_800, "also for the next fetch, whoever makes it");
        cache.retain(HashMap::from([(key.clone(), Duration::from_secs(60))]));
        assert_eq!(keep(), 3660);

        cache.retain(HashMap::new());
        store(&cache, slot(Instant::now()));
        assert_eq!(keep(), 60, "read by a request whose snapshot is not the one in force");
        cache.retain(HashMap::from([(key.clone(), SETTINGS.ttl)]));
        assert_eq!(keep(), 3900, "which now is");
    }
}
