//! Reads secrets before the first request asks for them: a few at a time, in an order of chance, within the managers' budgets.
//!
//! Many instances that start together neither read the same secret at the same moment nor all at once. What a manager or a
//! budget turns away, or what a manager does not answer, is tried again until the time is up, so that a rolling update waits for
//! a short outage; what fails otherwise is left to the first request.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use super::{Resolver, SlotState, Uses, slot::SlotKey};
use crate::{
    manager::FailureClass,
    model::{Reference, Snapshot},
};

/// Reads under way at once.
const CONCURRENT: usize = 16;
/// Longest pause before the first read, and between two tries of one that may come yet.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between two tries while the manager does not answer: pauses double, each failure is a line of the log.
const MAX_PAUSE: Duration = Duration::from_secs(4);

/// `prewarm*`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `prewarm` and `prewarm_list`.
    pub choice: Choice,
    /// `prewarm_file`: where the names of used references are remembered.
    pub file: Option<PathBuf>,
    /// `prewarm_max_secs`: readiness waits no longer than this.
    pub limit: Duration,
}

/// What is read at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    None,
    /// Every reference of the snapshot.
    All,
    /// What was in use before.
    Used,
    /// These references, by slug or id.
    List(Vec<String>),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Documents that are in memory now.
    pub read: usize,
    /// Documents that could not be read.
    pub failed: usize,
    /// Documents for which there was no time.
    pub left: usize,
}

// === impl Resolver ===

impl Resolver {
    /// Reads the documents of those references of `snapshot` that are named in `names`, by slug or id, until `limit` is over.
    pub async fn prewarm(&self, snapshot: &Snapshot, names: &HashSet<String>, limit: Duration) -> Warmed {
        let mut seen = HashSet::new();
        let mut wanted: Vec<Arc<Reference>> = snapshot
            .references
            .iter()
            .filter(|reference| names.contains(&*reference.slug) || names.contains(&*reference.id))
            .filter(|reference| seen.insert(SlotKey::of(reference)))
            .cloned()
            .collect();
        shuffle(&mut wanted);
        let end = Instant::now() + limit;
        let total = wanted.len();
        let mut warmed = Warmed::default();
        let all = async {
            if total > 0 {
                sleep(PAUSE.mul_f64(chance())).await;
            }
            let turns = Semaphore::new(CONCURRENT);
            let mut reads: FuturesUnordered<_> = wanted.iter().map(|reference| self.warm(reference, &turns)).collect();
            while let Some(read) = reads.next().await {
                if read { warmed.read += 1 } else { warmed.failed += 1 }
            }
        };
        // What is cut off here goes on as a flight of its own.
        let _ = timeout_at(end, all).await;
        Warmed { left: total - warmed.read - warmed.failed, ..warmed }
    }

    /// Reads one document unless it is there, in its turn; again for as long as it may come yet. Whether it is there.
    async fn warm(&self, reference: &Arc<Reference>, turns: &Semaphore) -> bool {
        let (mut pause, nothing) = (PAUSE, Uses::default());
        loop {
            // Whoever waits for another try lets the others go on.
            let turn = turns.acquire().await;
            let before = self.engine.status(reference, &nothing, Instant::now()).state;
            if matches!(before, SlotState::Fresh | SlotState::Stale) {
                return true;
            }
            let Ok(slot) = self.refresh(reference, &nothing).await else { return false };
            drop(turn);
            match slot.class {
                None => return true,
                Some(FailureClass::Throttled) => {}
                Some(FailureClass::Unavailable | FailureClass::Timeout) => pause = (2 * pause).min(MAX_PAUSE),
                Some(
                    FailureClass::Gone
                    | FailureClass::Denied
                    | FailureClass::Unauthenticated
                    | FailureClass::Disabled
                    | FailureClass::Malformed
                    | FailureClass::Misconfigured,
                ) => return false,
            }
            sleep(pause.mul_f64(0.5 + chance() / 2.0)).await;
        }
    }
}

/// An order of chance (Fisher and Yates).
fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let other = (chance() * (last + 1) as f64) as usize;
        items.swap(last, other.min(last));
    }
}

/// Uniform from zero to one; without randomness the middle is as good as any.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}
