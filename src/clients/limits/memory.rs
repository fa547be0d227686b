//! Counters in this process: exact, lost when it ends, and its own.
//!
//! Accounts are spread over shards with a lock each, held for a handful of comparisons and never across an await. There is
//! an entry for each account that has asked for something, so that the snapshot bounds their number.

use std::{
    cell::LazyCell,
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Add, Check, Counter};
use crate::{
    clients::window::Window,
    model::{Account, Snapshot},
};

/// Locks. Twice as many as a large machine has cores.
const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Vec<Count>>;

/// Some shards, and which of them each account is in.
struct Locked<'m> {
    shards: Vec<MutexGuard<'m, Shard>>,
    of: Vec<usize>,
}

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
    /// Judges every check, and takes them all if all fit, at one moment. Writes into them what the counters stood at.
    pub(super) fn admit(&self, accounts: &[Arc<Account>], checks: &mut [Check]) -> bool {
        let mut shards = self.lock(accounts);
        for check in &mut *checks {
            check.before = *counter(&mut shards, &accounts[check.account].name, check);
        }
        if checks.iter().any(Check::is_over) {
            return false;
        }
        for check in checks.iter().filter(|check| check.takes > 0) {
            *counter(&mut shards, &accounts[check.account].name, check) += check.takes;
        }
        true
    }

    /// Adds; returns what the counters stood at before.
    pub(super) fn add(&self, account: &Arc<str>, adds: &[Add]) -> Vec<u64> {
        let mut shard = lock(&self.shards[self.place(account)]);
        let counts = entry(&mut shard, account);
        let mut before = Vec::with_capacity(adds.len());
        for add in adds {
            let value = value(counts, add.counter, add.window);
            before.push(*value);
            *value = value.saturating_add(add.amount);
        }
        before
    }

    /// Drops windows that are over at `now`, and accounts that `snapshot` does not know and that no window holds.
    pub(super) fn sweep(&self, snapshot: &Snapshot, now: i64) {
        let known = LazyCell::new(|| snapshot.accounts().map(|account| &*account.name).collect::<HashSet<&str>>());
        for shard in &self.shards {
            lock(shard).retain(|account, counts| {
                counts.retain(|count| match count.window.end {
                    i64::MAX => known.contains(&**account),
                    end => now < end,
                });
                !counts.is_empty()
            });
        }
    }

    fn place(&self, account: &str) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a small number")]
        let place = (self.hasher.hash_one(account) % SHARDS as u64) as usize;
        place
    }

    /// The shards of `accounts`, locked in one order, so that nobody waits for somebody who waits for them.
    fn lock(&self, accounts: &[Arc<Account>]) -> Locked<'_> {
        let mut places: Vec<usize> = accounts.iter().map(|account| self.place(&account.name)).collect();
        let of = places.clone();
        places.sort_unstable();
        places.dedup();
        let shards: Vec<_> = places.iter().map(|place| lock(&self.shards[*place])).collect();
        let of = of.iter().map(|place| places.partition_point(|other| other < place)).collect();
        Locked { shards, of }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Counts are whole after every statement, so that a panic elsewhere spoils none.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entry<'s>(shard: &'s mut Shard, account: &Arc<str>) -> &'s mut Vec<Count> {
    if !shard.contains_key(account) {
        shard.insert(Arc::clone(account), Vec::new());
    }
    shard.entry(Arc::clone(account)).or_default()
}

/// The value of the counter of `check`, from zero in a new window.
fn counter<'s>(locked: &'s mut Locked<'_>, account: &Arc<str>, check: &Check) -> &'s mut u64 {
    let place = locked.of[check.account];
    value(entry(&mut locked.shards[place], account), check.counter, check.window)
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
    use crate::model::{AccountKind, Counted, RateUnit};

    const REQUESTS: Counter = Counter::Rate(Counted::Requests, RateUnit::Minute);

    fn account(id: &str) -> Arc<Account> {
        Account::closed(AccountKind::ApiKey, &id.into())
    }

    fn check(account: usize, start: i64, limit: u64) -> Check {
        let window = Window { start, end: start + 60 };
        Check { account, counter: REQUESTS, window, limit, takes: 1, before: 0 }
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
        let accounts = [account("one"), account("two")];
        for (admitted, before) in [(true, [0, 0]), (true, [1, 1]), (false, [2, 2]), (false, [2, 2])] {
            let mut checks = [check(0, 0, 9), check(1, 0, 2)];
            assert_eq!(memory.admit(&accounts, &mut checks), admitted);
            assert_eq!(checks.map(|check| check.before), before);
        }
        let mut checks = [check(0, 0, 9)];
        assert!(memory.admit(&[account("other")], &mut checks));
        assert_eq!(checks[0].before, 0);
    }

    /// Several accounts lie in one shard sooner or later.
    #[test]
    fn accounts_are_counted_apart_wherever_they_lie() {
        let memory = Memory::default();
        let accounts: Vec<_> = (0..200).map(|id| account(&id.to_string())).collect();
        let mut checks: Vec<_> = (0..200).map(|at| check(at, 0, 2)).collect();
        for before in [0, 1] {
            assert!(memory.admit(&accounts, &mut checks));
            assert!(checks.iter().all(|check| check.before == before));
        }
        assert!(!memory.admit(&accounts, &mut checks));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let memory = Memory::default();
        let snapshot = Snapshot::default();
        let kept = |memory: &Memory| memory.shards.iter().map(|shard| lock(shard).len()).sum::<usize>();
        memory.admit(&[account("k")], &mut [check(0, 0, 9)]);
        memory.sweep(&snapshot, 59);
        assert_eq!(kept(&memory), 1);
        memory.sweep(&snapshot, 60);
        assert_eq!(kept(&memory), 0);
    }
}
