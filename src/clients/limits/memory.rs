//! Counters in this process: exact, lost when it ends, and its own.
//!
//! Keys are spread over shards with a lock each, held for a handful of comparisons and never across an await. There is an
//! entry for each key with limits that has asked for something, so that the snapshot bounds their number.

use std::{
    cell::LazyCell,
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Add, Check, Counter, Verdict};
use crate::{clients::window::Window, model::Snapshot};

/// Locks. Twice as many as a large machine has cores.
const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Vec<Count>>;

/// Every counter.
#[derive(Debug)]
pub(super) struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: std::hash::RandomState,
}

/// One counter in its current window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    counter: Counter,
    window: Window,
    value: u64,
}

// === impl Memory ===

impl Default for Memory {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: std::hash::RandomState::new() }
    }
}

impl Memory {
    /// Judges every check, and takes them all if all fit. The second list is what the counters stand at before.
    pub(super) fn admit(&self, key: &Arc<str>, checks: &[Check]) -> (Vec<Verdict>, Vec<u64>) {
        let mut shard = self.shard(key);
        let counts = entry(&mut shard, key);
        let before: Vec<u64> = checks.iter().map(|check| *value(counts, check.counter, check.window)).collect();
        let verdicts: Vec<Verdict> =
            checks.iter().zip(&before).map(|(check, count)| Verdict::of(check, *count)).collect();
        if !verdicts.contains(&Verdict::Over) {
            for check in checks.iter().filter(|check| check.takes > 0) {
                *value(counts, check.counter, check.window) += check.takes;
            }
        }
        (verdicts, before)
    }

    /// Adds; returns what the counters stood at before.
    pub(super) fn add(&self, key: &Arc<str>, adds: &[Add]) -> Vec<u64> {
        let mut shard = self.shard(key);
        let counts = entry(&mut shard, key);
        let mut before = Vec::with_capacity(adds.len());
        for add in adds {
            let value = value(counts, add.counter, add.window);
            before.push(*value);
            *value = value.saturating_add(add.amount);
        }
        before
    }

    /// Drops windows that are over at `now`, and keys that `snapshot` does not know and that no window holds.
    pub(super) fn sweep(&self, snapshot: &Snapshot, now: i64) {
        let known = LazyCell::new(|| snapshot.api_keys().iter().map(|key| &*key.id).collect::<HashSet<&str>>());
        for shard in &self.shards {
            lock(shard).retain(|key, counts| {
                counts.retain(|count| match count.window.end {
                    i64::MAX => known.contains(&**key),
                    end => now < end,
                });
                !counts.is_empty()
            });
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a small number")]
        let at = (self.hasher.hash_one(key) % SHARDS as u64) as usize;
        lock(&self.shards[at])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Counts are whole after every statement, so that a panic elsewhere spoils none.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entry<'s>(shard: &'s mut Shard, key: &Arc<str>) -> &'s mut Vec<Count> {
    if !shard.contains_key(key) {
        shard.insert(Arc::clone(key), Vec::new());
    }
    shard.entry(Arc::clone(key)).or_default()
}

/// The counter's value in `window`, from zero in a new one.
fn value(counts: &mut Vec<Count>, counter: Counter, window: Window) -> &mut u64 {
    let at = counts.iter().position(|count| count.counter == counter).unwrap_or_else(|| {
        counts.push(Count { counter, window, value: 0 });
        counts.len() - 1
    });
    let count = &mut counts[at];
    count.turn_to(window);
    &mut count.value
}

// === impl Count ===

impl Count {
    /// Moves on to `window`. Whoever comes late, by a clock read before the edge, counts into the current one; an end that was
    /// moved keeps what was counted.
    fn turn_to(&mut self, window: Window) {
        if window.end <= self.window.start {
            return;
        }
        if window.start >= self.window.end {
            self.value = 0;
        }
        self.window = window;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Counted, RateUnit};

    const REQUESTS: Counter = Counter::Rate(Counted::Requests, RateUnit::Minute);

    fn check(start: i64, limit: u64) -> Check {
        Check { counter: REQUESTS, window: Window { start, end: start + 60 }, limit, takes: 1 }
    }

    #[test]
    fn a_window_turns_once_and_late_comers_do_not_turn_it_back() {
        let mut count = Count { counter: REQUESTS, window: Window { start: 60, end: 120 }, value: 5 };
        for ((start, end), value, window) in [
            ((60, 120), 5, (60, 120)),
            ((0, 60), 5, (60, 120)),
            ((60, 100), 5, (60, 100)),
            ((60, 140), 5, (60, 140)),
            ((140, 200), 0, (140, 200)),
        ] {
            count.turn_to(Window { start, end });
            assert_eq!(
                (count.value, count.window.start, count.window.end),
                (value, window.0, window.1),
                "{start} {end}"
            );
        }
    }

    #[test]
    fn one_that_refuses_leaves_the_others_as_they_were() {
        let memory = Memory::default();
        let key: Arc<str> = "k".into();
        let hourly = Check { counter: Counter::Rate(Counted::Requests, RateUnit::Hour), ..check(0, 2) };
        for (expected, before) in
            [(Verdict::Fits, [0, 0]), (Verdict::Fits, [1, 1]), (Verdict::Over, [2, 2]), (Verdict::Over, [2, 2])]
        {
            let (verdicts, counts) = memory.admit(&key, &[check(0, 9), hourly]);
            assert_eq!((verdicts, counts), (vec![Verdict::Fits, expected], before.to_vec()));
        }
        let (verdicts, counts) = memory.admit(&"other".into(), &[check(0, 9)]);
        assert_eq!((verdicts, counts), (vec![Verdict::Fits], vec![0]));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let memory = Memory::default();
        let (key, snapshot) = ("k".into(), Snapshot::default());
        memory.admit(&key, &[check(0, 9)]);
        memory.sweep(&snapshot, 59);
        assert_eq!(memory.shard("k").len(), 1);
        memory.sweep(&snapshot, 60);
        assert!(memory.shard("k").is_empty());
    }
}
