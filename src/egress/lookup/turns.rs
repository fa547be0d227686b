//! Who may look up a name next: a zone may hold no more than a part of what is free.
//!
//! With `free` turns left, a zone that holds `free / `[`SHARE`] or more gets no other one. Alone it comes to a fifth of all, and ten
//! dead zones still leave some to the rest: a zone that holds none gets one as long as there is one. (Dynamic thresholds, as
//! for the buffers of a switch: Choudhury and Hahne, 1998.)

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// A zone holds less than one part in so many of what is free.
const SHARE: usize = 4;

/// All turns, and who waits for one.
pub struct Turns(Mutex<Table>);

struct Table {
    free: usize,
    zones: HashMap<Arc<str>, Zone>,
    /// The zones that wait, each once, in the order of their turns.
    waiting: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct Zone {
    held: usize,
    queue: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to look up a name. Goes to the next one when dropped.
pub struct Turn {
    turns: Arc<Turns>,
    zone: Arc<str>,
}

/// Turns that came too late for who waited. They must be dropped after the lock.
type Late = Vec<Turn>;

// === impl Turns ===

impl Turns {
    /// So many at once.
    pub fn new(free: usize) -> Self {
        Self(Mutex::new(Table { free, zones: HashMap::new(), waiting: VecDeque::new() }))
    }

    /// Waits for a turn.
    pub async fn turn(self: &Arc<Self>, zone: &str) -> Turn {
        let (sender, turn) = oneshot::channel();
        let late = {
            let mut table = self.table();
            table.enqueue(zone, sender);
            table.grant(self)
        };
        drop(late);
        match turn.await {
            Ok(turn) => turn,
            // A queue drops no sender while its table lives, and `self` holds the table.
            Err(_) => unreachable!("whoever waits gets a turn"),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("free", &self.table().free).finish_non_exhaustive()
    }
}

// === impl Table ===

impl Table {
    fn enqueue(&mut self, zone: &str, sender: oneshot::Sender<Turn>) {
        let zone = self.zones.get_key_value(zone).map_or_else(|| Arc::from(zone), |(zone, _)| Arc::clone(zone));
        let Zone { queue, .. } = self.zones.entry(Arc::clone(&zone)).or_default();
        if queue.is_empty() {
            self.waiting.push_back(zone);
        }
        if queue.len() == queue.capacity() {
            queue.retain(|sender| !sender.is_closed());
        }
        queue.push_back(sender);
    }

    /// Hands out what is free.
    fn grant(&mut self, turns: &Arc<Turns>) -> Late {
        let mut late = Late::new();
        // Only zones that hold something are passed over, and those are no more than there are turns.
        while let Some(at) = self.waiting.iter().position(|zone| self.fits(zone)) {
            let (Some(zone), free) = (self.waiting.remove(at), self.free) else { break };
            let Some(Zone { held, queue }) = self.zones.get_mut(&zone) else { continue };
            let next = std::iter::from_fn(|| queue.pop_front()).find(|sender| !sender.is_closed());
            if !queue.is_empty() {
                self.waiting.push_back(Arc::clone(&zone));
            }
            match next {
                Some(sender) => {
                    (self.free, *held) = (free - 1, *held + 1);
                    late.extend(sender.send(Turn { turns: Arc::clone(turns), zone }).err());
                }
                None => self.forget(&zone),
            }
        }
        late
    }

    fn fits(&self, zone: &str) -> bool {
        self.zones.get(zone).is_none_or(|zone| zone.held * SHARE < self.free)
    }

    fn forget(&mut self, zone: &str) {
        if self.zones.get(zone).is_some_and(|zone| zone.held == 0 && zone.queue.is_empty()) {
            self.zones.remove(zone);
        }
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        let late = {
            let mut table = self.turns.table();
            table.free += 1;
            if let Some(zone) = table.zones.get_mut(&self.zone) {
                zone.held -= 1;
            }
            let late = table.grant(&self.turns);
            table.forget(&self.zone);
            late
        };
        drop(late);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::BoxFuture};
    use proptest::prelude::*;

    use super::*;

    const ALL: usize = 64;

    /// Asks for a turn; the future has been polled.
    fn ask(turns: &Arc<Turns>, zone: &str) -> Result<Turn, BoxFuture<'static, Turn>> {
        let (turns, zone) = (Arc::clone(turns), zone.to_owned());
        let mut asking = async move { turns.turn(&zone).await }.boxed();
        (&mut asking).now_or_never().ok_or(asking)
    }

    fn held(turns: &Arc<Turns>, zone: &str) -> Vec<Turn> {
        (0..2 * ALL).filter_map(|_| ask(turns, zone).ok()).collect()
    }

    #[test]
    fn a_zone_gets_a_share_of_what_is_free() {
        let turns = Arc::new(Turns::new(ALL));
        let zones: Vec<_> = (0..12).map(|n| held(&turns, &format!("zone-{n}"))).collect();
        let counts: Vec<_> = zones.iter().map(Vec::len).collect();
        assert_eq!(counts, [13, 11, 8, 7, 5, 4, 4, 3, 2, 2, 1, 1]);
        assert_eq!(turns.table().free, 3);
        // Whoever holds nothing gets the last ones, and then everyone waits.
        let last: Vec<_> = (0..4).map(|n| ask(&turns, &format!("other-{n}"))).collect();
        assert_eq!(last.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false]);
        drop(zones);
        let last = last.into_iter().next_back().unwrap().err().unwrap();
        assert!(last.now_or_never().is_some(), "what is given back goes to who waits");
    }

    #[test]
    fn zones_that_wait_take_turns() {
        let turns = Arc::new(Turns::new(1));
        let first = ask(&turns, "a").ok().unwrap();
        let mut waiting: Vec<_> =
            ["a", "a", "b", "c", "a"].iter().map(|zone| (*zone, ask(&turns, zone).err().unwrap())).collect();
        let (mut order, mut turn) = (String::new(), first);
        while !waiting.is_empty() {
            drop(turn);
            let mut polled = waiting.iter_mut().enumerate().map(|(at, (_, asking))| (at, asking.now_or_never()));
            let (at, got) = polled.find_map(|(at, got)| got.map(|got| (at, got))).expect("one has got it");
            order.push_str(waiting.remove(at).0);
            turn = got;
        }
        assert_eq!(order, "abcaa");
    }

    proptest! {
        /// Whatever is asked for, given back and given up, in any order: none is lost, none is made, nothing is left behind.
        #[test]
        fn turns_are_neither_lost_nor_made(steps in prop::collection::vec((0..8_usize, 0..3_u8), 1..300)) {
            let turns = Arc::new(Turns::new(5));
            let (mut got, mut waiting) = (Vec::new(), Vec::new());
            for (number, step) in steps {
                match step {
                    0 => match ask(&turns, &format!("zone-{number}")) {
                        Ok(turn) => got.push(turn),
                        Err(asking) => waiting.push(asking),
                    },
                    1 if number < got.len() => drop(got.swap_remove(number)),
                    2 if number < waiting.len() => drop(waiting.swap_remove(number)),
                    _ => {}
                }
                let mut still = Vec::new();
                for mut asking in waiting.drain(..) {
                    match (&mut asking).now_or_never() {
                        Some(turn) => got.push(turn),
                        None => still.push(asking),
                    }
                }
                waiting = still;
                let free = turns.table().free;
                prop_assert_eq!(free + got.len(), 5);
                prop_assert!(waiting.is_empty() || free == 0 || !got.is_empty(), "nobody waits for nothing");
            }
            drop((got, waiting));
            let table = turns.table();
            prop_assert_eq!((table.free, table.zones.len(), table.waiting.len()), (5, 0, 0));
        }
    }
}
