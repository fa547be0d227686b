//! Counters in this process: exact, lost when it ends, and its own; with a shared store also what others had counted.
//!
//! Accounts are spread over shards with a lock each, held for a handful of comparisons and never across an await. There is
//! an entry for each account that has asked for something, so that the snapshot bounds their number.

use std::{
    cell::LazyCell,
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Add, Check, Counter,
    shared::{Row, Told},
};
use crate::model::{Account, Snapshot, Window};

/// Locks. Twice as many as a large machine has cores.
const SHARDS: usize = 64;
/// The part of what is left that is used between two exchanges with a shared store.
pub(super) const SLACK_PARTS: u64 = 100;

/// Every counter.
#[derive(Debug)]
pub(super) struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: std::hash::RandomState,
    /// Whether what is counted has to be told.
    shared: bool,
}

/// What a decision without the shared store came to.
#[derive(Debug)]
pub(super) enum Known {
    /// The request is let in, and counted.
    Admitted,
    /// It is not.
    Refused,
    /// The store has to be asked, with these rows in the order of the checks.
    Ask(Vec<Row>),
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Arc<str>, Entry>,
    /// Accounts that have something to tell, each once.
    untold: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Entry {
    counts: Vec<Count>,
    /// Whether it is in [`Shard::untold`].
    untold: bool,
}

/// One counter in its current window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    counter: Counter,
    window: Window,
    /// What this process has counted.
    own: u64,
    /// What others had, when the store was last asked.
    others: u64,
    /// How much of `own` the store knows.
    told: u64,
    /// When it was last asked.
    asked: Option<Instant>,
    limit: u64,
    alert_threshold: Option<u64>,
}

/// Some shards, and which of them each account is in.
struct Locked<'m> {
    shards: Vec<MutexGuard<'m, Shard>>,
    of: Vec<usize>,
}

// === impl Memory ===

impl Memory {
    /// Nothing is counted yet. `shared`: what is counted is told a store.
    pub(super) fn new(shared: bool) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: std::hash::RandomState::new(), shared }
    }

    /// Judges every check, and takes them all if all fit, at one moment. Writes into them what the counters stood at.
    pub(super) fn admit(&self, accounts: &[Arc<Account>], checks: &mut [Check]) -> bool {
        let mut locked = self.lock(accounts);
        self.judge(&mut locked, accounts, checks)
    }

    /// As [`Memory::admit`], if what is known of others is not older than `staleness` and there is room for what they may have
    /// counted since.
    pub(super) fn admit_known(&self, accounts: &[Arc<Account>], checks: &mut [Check], staleness: Duration) -> Known {
        let mut locked = self.lock(accounts);
        let now = Instant::now();
        let mut rows = Vec::with_capacity(checks.len());
        let mut known = true;
        for check in &mut *checks {
            let name = &accounts[check.account].name;
            let count = locked.count(name, check);
            known &= count.is_known(check.takes, now, staleness);
            check.before = count.value();
            rows.push(count.row(name, check.takes));
        }
        if checks.iter().any(Check::is_over) {
            return Known::Refused;
        }
        if known && self.judge(&mut locked, accounts, checks) { Known::Admitted } else { Known::Ask(rows) }
    }

    /// Adds; returns what the counters stood at before.
    pub(super) fn add(&self, account: &Arc<str>, adds: &[Add]) -> Vec<u64> {
        let mut shard = lock(&self.shards[self.place(account)]);
        let before = adds.iter().map(|add| {
            let count = shard.entry(account).count(add.counter, add.window, add.limit, add.alert_threshold);
            let before = count.value();
            count.own = count.own.saturating_add(add.amount);
            before
        });
        let before = before.collect();
        if self.shared && !adds.is_empty() {
            shard.has_untold(account);
        }
        before
    }

    /// Remembers what the store said to `rows`; `admitted`: it has counted what they take.
    pub(super) fn told(&self, rows: &[Row], told: &[Told], admitted: bool) {
        let now = Instant::now();
        for (row, told) in rows.iter().zip(told) {
            let mut shard = lock(&self.shards[self.place(&row.account)]);
            let Some(entry) = shard.entries.get_mut(&row.account) else { continue };
            let same = |count: &&mut Count| count.counter == row.counter && count.window.is_same(&row.window);
            let Some(count) = entry.counts.iter_mut().find(same) else { continue };
            let takes = if admitted { row.takes } else { 0 };
            count.own = count.own.saturating_add(takes);
            count.told = count.told.max(row.own).saturating_add(takes);
            count.others = told.total.saturating_sub(told.mine);
            count.asked = Some(now);
        }
    }

    /// Up to `most` accounts that have something to tell, whole.
    pub(super) fn untold(&self, most: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut accounts = 0;
        for shard in &self.shards {
            let shard = &mut *lock(shard);
            let taken = shard.untold.len().min(most.saturating_sub(accounts));
            accounts += taken;
            for account in shard.untold.drain(..taken) {
                let Some(entry) = shard.entries.get_mut(&account) else { continue };
                entry.untold = false;
                rows.extend(entry.counts.iter().map(|count| count.row(&account, 0)));
            }
        }
        rows
    }

    /// `rows` could not be told.
    pub(super) fn still_untold(&self, rows: &[Row]) {
        for row in rows {
            lock(&self.shards[self.place(&row.account)]).has_untold(&row.account);
        }
    }

    /// Drops windows that are over at `now`, and accounts that `snapshot` does not know and that no window holds.
    pub(super) fn sweep(&self, snapshot: &Snapshot, now: i64) {
        let known = LazyCell::new(|| snapshot.accounts().map(|account| &*account.name).collect::<HashSet<&str>>());
        for shard in &self.shards {
            lock(shard).entries.retain(|account, entry| {
                entry.counts.retain(|count| match count.window.end {
                    i64::MAX => known.contains(&**account),
                    end => now < end,
                });
                !entry.counts.is_empty()
            });
        }
    }

    fn judge(&self, locked: &mut Locked<'_>, accounts: &[Arc<Account>], checks: &mut [Check]) -> bool {
        for check in &mut *checks {
            check.before = locked.count(&accounts[check.account].name, check).value();
        }
        if checks.iter().any(Check::is_over) {
            return false;
        }
        for check in checks.iter() {
            let name = &accounts[check.account].name;
            if check.takes > 0 {
                locked.count(name, check).own += check.takes;
            }
            if self.shared {
                locked.shards[locked.of[check.account]].has_untold(name);
            }
        }
        true
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

// === impl Locked ===

impl Locked<'_> {
    /// The counter of `check`, from zero in a new window.
    fn count(&mut self, account: &Arc<str>, check: &Check) -> &mut Count {
        let shard = &mut self.shards[self.of[check.account]];
        shard.entry(account).count(check.counter, check.window, check.limit, check.alert_threshold)
    }
}

// === impl Shard ===

impl Shard {
    fn entry(&mut self, account: &Arc<str>) -> &mut Entry {
        if !self.entries.contains_key(account) {
            self.entries.insert(Arc::clone(account), Entry::default());
        }
        self.entries.entry(Arc::clone(account)).or_default()
    }

    fn has_untold(&mut self, account: &Arc<str>) {
        if let Some(entry) = self.entries.get_mut(account)
            && !std::mem::replace(&mut entry.untold, true)
        {
            self.untold.push(Arc::clone(account));
        }
    }
}

// === impl Entry ===

impl Entry {
    fn count(&mut self, counter: Counter, window: Window, limit: u64, alert_threshold: Option<u64>) -> &mut Count {
        let at = self.counts.iter().position(|count| count.counter == counter).unwrap_or_else(|| {
            self.counts.push(Count::new(counter, window));
            self.counts.len() - 1
        });
        let count = &mut self.counts[at];
        count.turn_to(window);
        (count.limit, count.alert_threshold) = (limit, alert_threshold);
        count
    }
}

// === impl Count ===

impl Count {
    const fn new(counter: Counter, window: Window) -> Self {
        Self { counter, window, own: 0, others: 0, told: 0, asked: None, limit: 0, alert_threshold: None }
    }

    const fn value(&self) -> u64 {
        self.own.saturating_add(self.others)
    }

    /// Moves on to `window`. Whoever comes late, by a clock read before the edge or with limits from before a reset, counts
    /// into the current one; an end that was moved keeps what was counted.
    fn turn_to(&mut self, window: Window) {
        if window.reset_at < self.window.reset_at || window.end <= self.window.start {
            return;
        }
        if window.reset_at > self.window.reset_at || window.start >= self.window.end {
            *self = Self::new(self.counter, window);
        }
        self.window = window;
    }

    /// Whether a request that takes `takes` can be decided by what is known of others.
    fn is_known(&self, takes: u64, now: Instant, staleness: Duration) -> bool {
        let Some(asked) = self.asked else { return false };
        let left = self.limit.saturating_sub(self.told.saturating_add(self.others));
        let untold = self.own.saturating_sub(self.told);
        now.saturating_duration_since(asked) <= staleness
            && left >= SLACK_PARTS
            && untold.saturating_add(takes) <= left / SLACK_PARTS
    }

    fn row(&self, account: &Arc<str>, takes: u64) -> Row {
        Row {
            account: Arc::clone(account),
            counter: self.counter,
            window: self.window,
            own: self.own,
            takes,
            limit: self.limit,
            alert_threshold: self.alert_threshold,
        }
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
        let window = Window { start, end: start + 60, reset_at: 0 };
        Check { account, counter: REQUESTS, window, limit, takes: 1, alert_threshold: None, before: 0 }
    }

    #[test]
    fn a_window_turns_once_and_late_comers_do_not_turn_it_back() {
        let window = |(start, end, reset_at)| Window { start, end, reset_at };
        let mut count = Count { own: 5, ..Count::new(REQUESTS, window((60, 120, 0))) };
        for (next, value, current) in [
            ((60, 120, 0), 5, (60, 120, 0)),
            ((0, 60, 0), 5, (60, 120, 0)),
            ((60, 100, 0), 5, (60, 100, 0)),
            ((60, 140, 0), 5, (60, 140, 0)),
            ((140, 200, 0), 0, (140, 200, 0)),
            // Somebody has it start anew.
            ((140, 200, 7), 0, (140, 200, 7)),
            ((140, 200, 0), 5, (140, 200, 7)),
            ((200, 260, 0), 5, (140, 200, 7)),
            ((200, 260, 7), 0, (200, 260, 7)),
        ] {
            count.turn_to(window(next));
            assert_eq!((count.own, count.window), (value, window(current)), "{next:?}");
            count.own = 5;
        }
    }

    #[test]
    fn one_that_refuses_leaves_the_others_as_they_were() {
        let memory = Memory::new(false);
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
        let memory = Memory::new(false);
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
        let memory = Memory::new(false);
        let snapshot = Snapshot::default();
        let kept = |memory: &Memory| memory.shards.iter().map(|shard| lock(shard).entries.len()).sum::<usize>();
        memory.admit(&[account("k")], &mut [check(0, 0, 9)]);
        memory.sweep(&snapshot, 59);
        assert_eq!(kept(&memory), 1);
        memory.sweep(&snapshot, 60);
        assert_eq!(kept(&memory), 0);
    }

    /// Two replicas and a store that this test plays.
    #[tokio::test(start_paused = true)]
    async fn far_from_a_limit_nobody_is_asked_and_near_it_everybody() {
        let memory = Memory::new(true);
        let accounts = [account("k")];
        let staleness = Duration::from_millis(200);
        let ask = |limit: u64| memory.admit_known(&accounts, &mut [check(0, 0, limit)], staleness);
        let answer = |rows: &[Row], others: u64, admitted: bool| {
            let told = Told { before: others, total: others + rows[0].own, mine: rows[0].own };
            memory.told(rows, &[told], admitted);
        };
        // Nothing is known yet.
        let Known::Ask(rows) = ask(1000) else { panic!() };
        assert_eq!((rows[0].own, rows[0].takes), (0, 1));
        answer(&rows, 500, true);
        // A hundredth of what is left is for this replica.
        for _ in 0..4 {
            assert!(matches!(ask(1000), Known::Admitted));
        }
        let Known::Ask(rows) = ask(1000) else { panic!() };
        assert_eq!(rows[0].own, 5);
        answer(&rows, 900, true);
        // Near the limit each request asks.
        let Known::Ask(rows) = ask(1000) else { panic!() };
        answer(&rows, 994, false);
        assert!(matches!(ask(1000), Known::Refused));
        // Another limit, and what is known is old.
        tokio::time::advance(staleness + Duration::from_millis(1)).await;
        assert!(matches!(ask(1_000_000), Known::Ask(_)));
        // What was counted alone is told in the background, whole.
        let rows = memory.untold(10);
        assert_eq!((rows.len(), rows[0].own, rows[0].takes), (1, 6, 0));
        assert!(memory.untold(10).is_empty());
        memory.still_untold(&rows);
        assert_eq!(memory.untold(10).len(), 1);
    }

    #[test]
    fn what_is_told_of_a_window_that_is_over_does_not_count() {
        let memory = Memory::new(true);
        let accounts = [account("k")];
        let Known::Ask(rows) = memory.admit_known(&accounts, &mut [check(0, 0, 9)], Duration::ZERO) else { panic!() };
        assert!(memory.admit(&accounts, &mut [check(0, 60, 9)]));
        memory.told(&rows, &[Told { before: 9, total: 9, mine: 0 }], true);
        let mut next = [check(0, 60, 9)];
        assert!(memory.admit(&accounts, &mut next));
        assert_eq!(next[0].before, 1);
    }
}
