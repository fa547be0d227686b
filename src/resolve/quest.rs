//! For one request that was refused: what may be sent in place of the values that were.
//!
//! In this order: what memory has by now; what others found a provider to take; what the first read of the inquiry brings;
//! the version before, with an overlap; what the second read brings. Never a value that this request has tried.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{
    Engine, Outcome, Resolved,
    inquiry::{Following, Stage},
    pick::Wanted,
    slot::{Found, Slot, SlotKey},
};
use crate::{model::Mapping, secret::Credential};

/// The search for one request.
#[derive(Debug)]
pub struct Quest {
    engine: Arc<Engine>,
    began: Instant,
    suspects: Vec<Suspect>,
}

/// A value to send in place of another.
#[derive(Debug)]
pub struct Replacement {
    /// Which of the suspects, counted as [`Resolver::quest`](super::Resolver::quest) was given them.
    pub suspect: usize,
    /// What to send.
    pub resolved: Resolved,
    /// Whether it is of the version before the current one.
    pub earlier: bool,
}

/// A mapping whose value was refused.
#[derive(Debug)]
pub(super) struct Suspect {
    mapping: Arc<Mapping>,
    key: SlotKey,
    wanted: Wanted,
    refused: Vec<Arc<Credential>>,
    inquired: bool,
    inquiry: Option<Following>,
}

// === impl Quest ===

impl Quest {
    pub(super) fn new(engine: Arc<Engine>, suspects: impl Iterator<Item = (Arc<Mapping>, Arc<Credential>)>) -> Self {
        let suspects = suspects.map(|(mapping, refused)| Suspect::new(mapping, refused)).collect();
        Self { engine, began: Instant::now(), suspects }
    }

    /// What to send next; `None` when there is nothing, or nothing by `until`.
    pub async fn next(&mut self, until: Instant) -> Option<Vec<Replacement>> {
        let newer = self.newer();
        if newer.len() == self.suspects.len() {
            return Some(newer);
        }
        let preferred = self.earlier(true);
        if newer.is_empty() && !preferred.is_empty() {
            return Some(preferred);
        }
        for index in 0..self.suspects.len() {
            if self.suspects[index].inquired || newer.iter().any(|newer| newer.suspect == index) {
                continue;
            }
            let suspect = &mut self.suspects[index];
            suspect.inquired = true;
            suspect.inquiry = self.engine.inquire(&suspect.key, &suspect.mapping.reference);
        }
        self.reach(Stage::Looked, until).await;
        let newer = self.newer();
        if !newer.is_empty() {
            return Some(newer);
        }
        let earlier = self.earlier(false);
        if !earlier.is_empty() {
            return Some(earlier);
        }
        self.reach(Stage::Done, until).await;
        let newer = self.newer();
        (!newer.is_empty()).then_some(newer)
    }

    /// The provider took `sent`.
    pub fn accepted(&self, sent: &[Replacement]) {
        let now = Instant::now();
        for Replacement { suspect, earlier, .. } in sent {
            let Some(Suspect { key, wanted, mapping, .. }) = self.suspects.get(*suspect) else { continue };
            let (reference, manager) = (&*mapping.reference.slug, mapping.reference.manager_type.as_str());
            if !earlier {
                self.engine.overlaps.settle(key, wanted, now);
                continue;
            }
            self.engine.inquiries.justified(key, now);
            if self.engine.overlaps.prefer(key, wanted, now) {
                tracing::warn!(
                    reference,
                    manager,
                    "The provider does not take a secret's new version yet, the one before stays in use."
                );
            }
        }
    }

    /// The provider refused `sent` too.
    pub fn refused(&mut self, sent: Vec<Replacement>) {
        let now = Instant::now();
        for Replacement { suspect, resolved, earlier } in sent {
            let Some(suspect) = self.suspects.get_mut(suspect) else { continue };
            if earlier {
                self.engine.overlaps.refuse(&suspect.key, &suspect.wanted, now, self.engine.inquiries.cooldown());
            } else {
                self.engine.overlaps.doubt(&suspect.key, &suspect.wanted);
            }
            suspect.refused.push(resolved.credential);
        }
    }

    /// What memory has in place of what was refused.
    fn newer(&self) -> Vec<Replacement> {
        let now = Instant::now();
        let newer = self.suspects.iter().enumerate().filter_map(|(index, suspect)| {
            let found = suspect.newer(&self.engine, self.began, now)?;
            Some(replacement(index, found, false, now))
        });
        newer.collect()
    }

    /// What the version before has in place of it.
    fn earlier(&self, only_preferred: bool) -> Vec<Replacement> {
        let now = Instant::now();
        let earlier = self.suspects.iter().enumerate().filter_map(|(index, suspect)| {
            let (overlaps, terms) = (&self.engine.overlaps, self.engine.terms(&suspect.mapping.reference, None));
            let found = match only_preferred {
                true => overlaps.preferred(&suspect.key, &suspect.wanted, &terms, now),
                false => overlaps.candidate(&suspect.key, &suspect.wanted, &terms, now),
            };
            let found = found.filter(|found| !suspect.has_refused(&found.credential))?;
            Some(replacement(index, found, true, now))
        });
        earlier.collect()
    }

    /// Waits until every inquiry has come to `stage`.
    async fn reach(&mut self, stage: Stage, until: Instant) {
        for following in self.suspects.iter_mut().filter_map(|suspect| suspect.inquiry.as_mut()) {
            // Too late, or it was lost: what is there by now counts.
            let _ = timeout_at(until, following.wait_for(|progress| progress.stage >= stage)).await;
        }
    }
}

// === impl Suspect ===

impl Suspect {
    pub(super) fn new(mapping: Arc<Mapping>, refused: Arc<Credential>) -> Self {
        let (key, wanted) = (SlotKey::of(&mapping.reference), Wanted::by_mapping(&mapping));
        Self { mapping, key, wanted, refused: vec![refused], inquired: false, inquiry: None }
    }

    /// Sees to it that the value is looked after, without waiting: what is not tried again may be right for the next one.
    pub(super) fn report(&self, engine: &Arc<Engine>) {
        engine.overlaps.doubt(&self.key, &self.wanted);
        let now = Instant::now();
        if self.newer(engine, now, now).is_none() {
            drop(engine.inquire(&self.key, &self.mapping.reference));
        }
    }

    /// A value in memory that was not refused; of the last read of the inquiry if the cache does not keep it.
    fn newer(&self, engine: &Engine, began: Instant, now: Instant) -> Option<Found> {
        let inquired = self.inquiry.as_ref().and_then(|following| following.borrow().slot.clone());
        let slots = [engine.cache.get(&self.key), inquired];
        slots.into_iter().flatten().find_map(|slot| {
            let found = engine.see(&slot, &self.wanted).found?;
            let terms = engine.terms(&self.mapping.reference, Some(&slot));
            // Read for this request, it may be sent whatever its lifetime, zero included.
            let fits = found.held.servable(&terms, now) || is_own(&slot, began);
            (fits && !self.has_refused(&found.credential)).then_some(found)
        })
    }

    fn has_refused(&self, credential: &Credential) -> bool {
        self.refused.iter().any(|refused| refused.expose() == credential.expose())
    }
}

/// Whether `slot` was read since `began`.
fn is_own(slot: &Slot, began: Instant) -> bool {
    slot.current()
        .is_some_and(|(_, held)| held.fetched_at >= began && held.ends_at.is_none_or(|end| held.fetched_at < end))
}

fn replacement(suspect: usize, found: Found, earlier: bool, now: Instant) -> Replacement {
    let Found { credential, version, held } = found;
    let resolved = Resolved { credential, outcome: Outcome::Miss, version, age: held.age(now) };
    Replacement { suspect, resolved, earlier }
}
