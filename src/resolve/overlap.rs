//! The version before the current one, for a provider that does not take the new one yet.
//!
//! A manager is often written first and the provider follows. Within `recovery.overlap_secs` after a document's new version
//! was first read, a value of the version before may be tried in place of one that a provider refused, and once it was taken
//! it is served first for [`PREFERRED_FOR`], so that not every request pays a refusal. Nothing here outlives the overlap, and
//! nothing past the hard bound of `freshness` is given out. Outside of a rotation the hit path sees one flag.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    document::Document,
    freshness::{Held, Terms},
    pick::Wanted,
    slot::{Found, SlotKey},
};

/// How long an earlier value that was taken is served first. Then the current one is tried again, by one request that may
/// have to be sent twice.
const PREFERRED_FOR: Duration = Duration::from_secs(60);
/// Documents in rotation that are remembered. More means that every secret changes at once, and they get no overlap.
const MAX_DOCUMENTS: usize = 10_000;

/// Every document whose current version is new.
#[derive(Debug)]
pub struct Overlaps {
    /// `recovery.overlap_secs`; zero = off.
    length: Duration,
    table: Mutex<HashMap<SlotKey, Overlap>>,
    /// Whether an earlier value may be preferred anywhere.
    preferring: AtomicBool,
}

/// One document in rotation.
#[derive(Debug)]
struct Overlap {
    /// When the current version was first read.
    since: Instant,
    earlier: Option<Earlier>,
    marks: Vec<Mark>,
}

/// The version before.
#[derive(Clone, Debug)]
struct Earlier {
    document: Arc<Document>,
    held: Held,
}

/// What is known about one value of the version before.
#[derive(Debug)]
struct Mark {
    wanted: Wanted,
    verdict: Verdict,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// A provider took it where it had refused the current one.
    Preferred,
    /// A provider refused it.
    Refused,
}

// === impl Overlaps ===

impl Overlaps {
    /// Overlaps of this length; zero = none.
    pub fn new(length: Duration) -> Self {
        Self { length, table: Mutex::default(), preferring: AtomicBool::new(false) }
    }

    /// Another version of a document was read at `now`, in place of `earlier` if one was remembered.
    pub fn begin(&self, key: &SlotKey, earlier: Option<(&Arc<Document>, Held)>, now: Instant) {
        if self.length.is_zero() {
            return;
        }
        let mut table = self.table();
        // What works stays, however often the manager is written before the provider follows.
        if table.get(key).is_some_and(|overlap| overlap.is_open(self.length, now) && overlap.prefers(now)) {
            return;
        }
        if table.len() >= MAX_DOCUMENTS && !table.contains_key(key) {
            return;
        }
        let earlier = earlier.map(|(document, held)| Earlier { document: Arc::clone(document), held });
        table.insert(key.clone(), Overlap { since: now, earlier, marks: Vec::new() });
    }

    /// Whether the version before is of use and not at hand.
    pub fn lacks_earlier(&self, key: &SlotKey, terms: &Terms, now: Instant) -> bool {
        !self.length.is_zero()
            && self.table().get(key).is_some_and(|overlap| {
                overlap.is_open(self.length, now)
                    && overlap.earlier.as_ref().is_none_or(|earlier| !earlier.held.servable(terms, now))
            })
    }

    /// Notes the version before, as the manager tells it.
    pub fn remember(&self, key: &SlotKey, document: Document, held: Held) {
        if let Some(overlap) = self.table().get_mut(key) {
            overlap.earlier = Some(Earlier { document: Arc::new(document), held });
        }
    }

    /// The earlier value, if it is to be served in place of the current one.
    pub fn preferred(&self, key: &SlotKey, wanted: &Wanted, terms: &Terms, now: Instant) -> Option<Found> {
        if !self.preferring.load(Relaxed) {
            return None;
        }
        self.found(key, wanted, terms, now, Some(Verdict::Preferred))
    }

    /// The earlier value, if it may be tried in place of the current one.
    pub fn candidate(&self, key: &SlotKey, wanted: &Wanted, terms: &Terms, now: Instant) -> Option<Found> {
        if self.length.is_zero() {
            return None;
        }
        self.found(key, wanted, terms, now, None)
    }

    /// Whether an earlier value of a document is preferred.
    pub fn prefers(&self, key: &SlotKey, now: Instant) -> bool {
        self.preferring.load(Relaxed) && self.table().get(key).is_some_and(|overlap| overlap.prefers(now))
    }

    /// Notes that a provider took the earlier value. True when that is news.
    pub fn prefer(&self, key: &SlotKey, wanted: &Wanted, now: Instant) -> bool {
        let mut table = self.table();
        let Some(overlap) = table.get_mut(key) else { return false };
        let known = overlap.verdict(wanted, now) == Some(Verdict::Preferred);
        overlap.mark(wanted, Verdict::Preferred, now + PREFERRED_FOR);
        self.preferring.store(true, Relaxed);
        !known
    }

    /// Notes that a provider refused the earlier value: it is not tried for this long.
    pub fn refuse(&self, key: &SlotKey, wanted: &Wanted, now: Instant, pause: Duration) {
        if let Some(overlap) = self.table().get_mut(key) {
            overlap.mark(wanted, Verdict::Refused, now + pause);
        }
    }

    /// Notes that a provider takes the current value where the earlier one was preferred: the rotation is over.
    pub fn settle(&self, key: &SlotKey, wanted: &Wanted, now: Instant) {
        if self.preferring.load(Relaxed)
            && let Some(overlap) = self.table().get_mut(key)
            && overlap.verdict(wanted, now) == Some(Verdict::Preferred)
        {
            let until = overlap.since + self.length;
            overlap.mark(wanted, Verdict::Refused, until);
        }
    }

    /// Serves the current value first again, without an opinion about the earlier one.
    pub fn doubt(&self, key: &SlotKey, wanted: &Wanted) {
        if self.preferring.load(Relaxed)
            && let Some(overlap) = self.table().get_mut(key)
        {
            overlap.marks.retain(|mark| mark.wanted != *wanted || mark.verdict != Verdict::Preferred);
        }
    }

    /// Drops what has ended, and with it the last holder of an earlier version.
    pub fn tidy(&self, now: Instant) {
        if self.length.is_zero() {
            return;
        }
        let mut table = self.table();
        table.retain(|_, overlap| overlap.is_open(self.length, now));
        self.preferring.store(table.values().any(|overlap| overlap.prefers(now)), Relaxed);
    }

    /// The document was withdrawn, and the version before with it.
    pub fn forget(&self, key: &SlotKey) {
        if !self.length.is_zero() {
            self.table().remove(key);
        }
    }

    /// Drops documents that are not `named` any more.
    pub fn retain(&self, named: impl Fn(&SlotKey) -> bool) {
        self.table().retain(|key, _| named(key));
    }

    fn found(
        &self,
        key: &SlotKey,
        wanted: &Wanted,
        terms: &Terms,
        now: Instant,
        only: Option<Verdict>,
    ) -> Option<Found> {
        let table = self.table();
        let overlap = table.get(key).filter(|overlap| overlap.is_open(self.length, now))?;
        let fits = match (overlap.verdict(wanted, now), only) {
            (Some(Verdict::Refused), _) | (None, Some(_)) => false,
            (Some(Verdict::Preferred), _) | (None, None) => true,
        };
        let Earlier { document, held } =
            overlap.earlier.clone().filter(|earlier| fits && earlier.held.servable(terms, now))?;
        drop(table);
        let credential = document.pick(wanted).ok()?;
        Some(Found { credential, version: document.version().cloned(), held })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SlotKey, Overlap>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Overlap ===

impl Overlap {
    fn is_open(&self, length: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < length
    }

    fn prefers(&self, now: Instant) -> bool {
        self.marks.iter().any(|mark| mark.verdict == Verdict::Preferred && now < mark.until)
    }

    fn verdict(&self, wanted: &Wanted, now: Instant) -> Option<Verdict> {
        self.marks.iter().find(|mark| mark.wanted == *wanted && now < mark.until).map(|mark| mark.verdict)
    }

    fn mark(&mut self, wanted: &Wanted, verdict: Verdict, until: Instant) {
        self.marks.retain(|mark| mark.wanted != *wanted);
        self.marks.push(Mark { wanted: wanted.clone(), verdict, until });
    }
}
