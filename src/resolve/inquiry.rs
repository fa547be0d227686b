//! What a provider's refusal sets off: the secret is read again, and once more a moment later if it has not changed.
//!
//! One inquiry for each document at a time, in a task of its own; everyone whose request was refused waits for the same one.
//! An inquiry that finds nothing is followed by a rest: [`FIRST_REST`], then twice as long each time, up to
//! `recovery.cooldown_secs`; so one false alarm does not hide the rotation after it, and a stream of them soon costs little. All
//! inquiries of one identity share a budget. Whoever provokes refusals costs two reads (three with an overlap) for each
//! document and rest, and no more than [`BURST`] and then [`PER_SECOND`] inquiries for each identity, however many requests
//! he sends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Engine,
    budget::Budgets,
    document::Document,
    flight::{Answer, GRACE},
    freshness::Held,
    slot::{Slot, SlotKey},
};
use crate::{
    manager::Fetched,
    model::{Reference, SecretLocation, VersionSelector},
};

/// Inquiries of one identity at once: the secrets that one rotation changes together.
const BURST: f64 = 32.0;
/// Inquiries of one identity a second after that.
const PER_SECOND: f64 = 4.0;
/// The first rest, also after an inquiry that found a change: a secret that is new with every read must not be read by every
/// refusal.
const FIRST_REST: Duration = Duration::from_secs(1);

/// `recovery.*`, as far as it is about reading secrets again.
#[derive(Clone, Copy, Debug)]
pub struct Suspicion {
    /// `recovery.cooldown_secs`: longest rest of a document after an inquiry that found no change.
    pub cooldown: Duration,
    /// `recovery.second_look_ms`: pause before the second read; zero = no second read.
    pub second_look: Duration,
    /// `recovery.overlap_secs`: how long after a change the version before may be tried; zero = never.
    pub overlap: Duration,
}

/// Every inquiry, under way or resting.
#[derive(Debug)]
pub struct Inquiries {
    suspicion: Suspicion,
    table: Mutex<Table>,
}

/// Follows an inquiry.
pub type Following = watch::Receiver<Progress>;

/// How far an inquiry has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What was done.
    pub stage: Stage,
    /// The slot of the last read that landed.
    pub slot: Option<Arc<Slot>>,
}

/// The stages of an inquiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The first read is under way.
    #[default]
    Looking,
    /// The first read has landed, without a change; the version before is at hand, if there is an overlap.
    Looked,
    /// Nothing more will come.
    Done,
}

#[derive(Debug)]
struct Table {
    documents: HashMap<SlotKey, State>,
    budgets: Budgets,
}

#[derive(Debug)]
enum State {
    Running(Following),
    Resting {
        until: Instant,
        /// How long this rest is.
        rest: Duration,
    },
}

/// What asking for an inquiry came to.
enum Opened {
    /// Somebody's is under way.
    Joined(Following),
    /// Not now: the document rests, or the budget is spent.
    Refused,
    /// The caller has to make it.
    Begun(Duty, Following),
}

/// The duty to make an inquiry. Ends it when dropped.
#[derive(Debug)]
struct Duty {
    inquiries: Arc<Inquiries>,
    key: SlotKey,
    progress: watch::Sender<Progress>,
    rest: Duration,
}

// === impl Suspicion ===

impl Suspicion {
    /// The documented defaults.
    pub const DEFAULT: Self =
        Self { cooldown: Duration::from_secs(10), second_look: Duration::from_millis(250), overlap: Duration::ZERO };
}

impl Default for Suspicion {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// === impl Inquiries ===

impl Inquiries {
    /// None yet.
    pub fn new(suspicion: Suspicion) -> Self {
        let table = Table { documents: HashMap::new(), budgets: Budgets::new(BURST, PER_SECOND) };
        Self { suspicion, table: Mutex::new(table) }
    }

    /// `recovery.cooldown_secs`.
    pub fn cooldown(&self) -> Duration {
        self.suspicion.cooldown
    }

    /// Suspicion was justified: the next one is looked into as if it were the first.
    pub fn justified(&self, key: &SlotKey, now: Instant) {
        if let Some(State::Resting { until, rest }) = self.table().documents.get_mut(key) {
            *until = (*until).min(now + FIRST_REST);
            *rest = FIRST_REST.min(*rest);
        }
    }

    /// Forgets documents that have rested and budgets that are full.
    pub fn tidy(&self, now: Instant) {
        let mut table = self.table();
        table.documents.retain(|_, state| match state {
            State::Running(_) => true,
            // How long it rested counts for as long again.
            State::Resting { until, rest } => now < *until + *rest,
        });
        table.budgets.tidy(now);
    }

    fn open(self: &Arc<Self>, key: &SlotKey, now: Instant) -> Opened {
        let mut table = self.table();
        match table.documents.get(key) {
            Some(State::Running(following)) => return Opened::Joined(following.clone()),
            Some(State::Resting { until, .. }) if now < *until => return Opened::Refused,
            Some(State::Resting { .. }) | None => {}
        }
        let rest = match table.documents.get(key) {
            Some(State::Resting { until, rest }) if now < *until + *rest => *rest * 2,
            Some(_) | None => FIRST_REST,
        };
        if !table.budgets.spend(key.identity, now) {
            return Opened::Refused;
        }
        let (progress, following) = watch::channel(Progress::default());
        table.documents.insert(key.clone(), State::Running(following.clone()));
        let rest = rest.min(self.suspicion.cooldown);
        Opened::Begun(Duty { inquiries: Arc::clone(self), key: key.clone(), progress, rest }, following)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Duty ===

impl Duty {
    fn reach(&self, stage: Stage, slot: &Arc<Slot>) {
        self.progress.send_replace(Progress { stage, slot: Some(Arc::clone(slot)) });
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        let (until, rest) = (Instant::now() + self.rest, self.rest);
        self.inquiries.table().documents.insert(self.key.clone(), State::Resting { until, rest });
        self.progress.send_modify(|progress| progress.stage = Stage::Done);
    }
}

// === impl Engine ===

impl Engine {
    /// The inquiry into the document of `reference`, joined or begun; `None` when there is to be none now.
    pub(super) fn inquire(self: &Arc<Self>, key: &SlotKey, reference: &Arc<Reference>) -> Option<Following> {
        let now = Instant::now();
        let failed = self.cache.get(key).and_then(|slot| slot.failed().map(|failed| failed.failure));
        if failed.is_some_and(|failure| !failure.remaining(now).is_zero()) {
            return None;
        }
        match self.inquiries.open(key, now) {
            Opened::Joined(following) => Some(following),
            Opened::Refused => None,
            Opened::Begun(duty, following) => {
                let (engine, reference) = (Arc::clone(self), Arc::clone(reference));
                tokio::spawn(async move { engine.investigate(duty, &reference).await });
                Some(following)
            }
        }
    }

    async fn investigate(self: Arc<Self>, mut duty: Duty, reference: &Arc<Reference>) {
        let before = self.cache.get(&duty.key);
        let (slug, manager) = (&*reference.slug, reference.manager_type.as_str());
        for (stage, pause) in [(Stage::Looked, None), (Stage::Done, Some(self.inquiries.suspicion.second_look))] {
            match pause {
                Some(Duration::ZERO) => break,
                Some(pause) => sleep(pause).await,
                None => {}
            }
            if stage == Stage::Done && self.overlaps.prefers(&duty.key, Instant::now()) {
                // The version before was taken meanwhile.
                duty.rest = FIRST_REST.min(duty.rest);
                return;
            }
            let Some(slot) = self.read_again(&duty.key, reference).await else { break };
            if changed(before.as_deref(), &slot) {
                tracing::info!(reference = slug, manager, "A secret that was refused upstream has changed.");
                duty.rest = FIRST_REST.min(duty.rest);
                duty.reach(Stage::Done, &slot);
                return;
            }
            if slot.failed().is_some() {
                // Logged where it failed.
                return;
            }
            if stage == Stage::Looked {
                self.read_earlier(&duty.key, reference, &slot).await;
            }
            duty.reach(stage, &slot);
        }
        tracing::warn!(reference = slug, manager, "A secret was refused upstream, and its manager has no other value.");
    }

    async fn read_again(self: &Arc<Self>, key: &SlotKey, reference: &Arc<Reference>) -> Option<Arc<Slot>> {
        loop {
            let seen = self.cache.get(key);
            if let Some(flight) = self.board(key, seen.as_ref(), reference) {
                return timeout(self.settings.deadline.saturating_add(2 * GRACE), flight).await.ok()?.ok();
            }
        }
    }

    /// Has the version before at hand, if it may be of use.
    async fn read_earlier(&self, key: &SlotKey, reference: &Arc<Reference>, slot: &Slot) {
        let terms = self.terms(reference, Some(slot));
        if key.location.version != VersionSelector::Current || !self.overlaps.lacks_earlier(key, &terms, Instant::now())
        {
            return;
        }
        let location = SecretLocation { path: Arc::clone(&key.location.path), version: VersionSelector::Previous };
        let Answer { result, at, .. } = self.ask(reference, &location, None).await;
        match result {
            Ok(Fetched::Document { value, map, version, not_after }) => {
                if let Ok(held) = Held::until(at, not_after) {
                    self.overlaps.remember(key, Document::new(value, map, version), held);
                }
            }
            // A manager that keeps no versions says so, and one that lost the last one too.
            Ok(Fetched::Unchanged) => {}
            Err(error) => {
                let class = error.class.as_str();
                tracing::debug!(reference = &*reference.slug, class, "There is no version before the current one.");
            }
        }
    }
}

/// Whether the document of `slot` is another than the one before.
fn changed(before: Option<&Slot>, slot: &Slot) -> bool {
    match (before.and_then(Slot::document), slot.document()) {
        (Some(before), Some(now)) => !before.same_value(now),
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Identity;

    fn key(identity: u8, path: &str) -> SlotKey {
        let location = SecretLocation { path: path.into(), version: VersionSelector::Current };
        SlotKey { identity: Identity([identity; 32]), location }
    }

    fn inquiries() -> Arc<Inquiries> {
        Arc::new(Inquiries::new(Suspicion::DEFAULT))
    }

    fn begins(inquiries: &Arc<Inquiries>, key: &SlotKey) -> Option<Duty> {
        match inquiries.open(key, Instant::now()) {
            Opened::Begun(duty, _) => Some(duty),
            Opened::Joined(_) | Opened::Refused => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_inquiry_at_a_time_and_then_a_rest() {
        let inquiries = inquiries();
        let duty = begins(&inquiries, &key(1, "a")).unwrap();
        let Opened::Joined(mut following) = inquiries.open(&key(1, "a"), Instant::now()) else { panic!("it runs") };
        assert!(begins(&inquiries, &key(1, "b")).is_some(), "another document");
        drop(duty);
        let done = following.wait_for(|progress| progress.stage == Stage::Done).await;
        assert!(done.is_ok_and(|progress| progress.slot.is_none()));
        // The rests double, up to the cool-down; a quiet time makes the next one the first again.
        for rest in [1, 2, 4, 8, 10, 10] {
            tokio::time::advance(Duration::from_secs(rest) - Duration::from_millis(1)).await;
            assert!(begins(&inquiries, &key(1, "a")).is_none(), "before {rest} s");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(begins(&inquiries, &key(1, "a")).is_some(), "after {rest} s");
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        drop(begins(&inquiries, &key(1, "a")));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(begins(&inquiries, &key(1, "a")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn justified_suspicion_starts_anew() {
        let inquiries = inquiries();
        for rest in [1, 2, 4, 8] {
            assert!(begins(&inquiries, &key(1, "a")).is_some());
            tokio::time::advance(Duration::from_secs(rest)).await;
        }
        drop(begins(&inquiries, &key(1, "a")));
        inquiries.justified(&key(1, "a"), Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(begins(&inquiries, &key(1, "a")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_identity_has_a_budget() {
        let inquiries = inquiries();
        let begun = |identity, from: usize| {
            (from..from + 1000).filter(|n| begins(&inquiries, &key(identity, &n.to_string())).is_some()).count()
        };
        assert_eq!(begun(1, 0), 32);
        assert_eq!(begun(2, 0), 32, "another identity has its own");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(begun(1, 2000), 8);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(begun(1, 4000), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_rested_is_forgotten() {
        let inquiries = inquiries();
        drop(begins(&inquiries, &key(1, "a")));
        let remembered = || {
            inquiries.tidy(Instant::now());
            let table = inquiries.table();
            (table.documents.len(), table.budgets.len())
        };
        assert_eq!(remembered(), (1, 1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(remembered(), (0, 0));
    }
}
