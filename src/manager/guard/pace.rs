//! How fast a manager may be asked, and when it is better left alone. Pure: time and chance come in as arguments.
//!
//! - [`Bucket`]: a token bucket, the budget of reads.
//! - [`CoolDown`]: the time a manager asked for, or a usual one, after it said that it is asked too much.
//! - [`Breaker`]: after failures in a row nobody asks for a moment, then exactly one does.
//!
//! Units: tokens are reads; rates are per second. Chance is uniform from zero to one.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open a breaker: more than the attempts of one fetch, few enough to spare a manager that is down.
const FAILURES: u32 = 5;
/// How long a breaker stays open at first; doubles with each probe that fails.
const FIRST_OPEN: Duration = Duration::from_millis(500);
/// The longest it stays open: a manager that is back is found within the time a failure is remembered by default.
const MAX_OPEN: Duration = Duration::from_secs(5);
/// When to come back while somebody else probes.
const WHILE_PROBED: Duration = Duration::from_secs(1);
/// Cool-down after a manager complained without saying for how long.
const USUAL_COOL_DOWN: Duration = Duration::from_secs(1);
/// A manager is obeyed up to here, so that one wrong header cannot shut it out for a day.
const MAX_COOL_DOWN: Duration = Duration::from_secs(60);

/// A budget of reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Reads a second in the long run.
    pub per_second: f64,
    /// Reads at once after a time of rest; at least one.
    pub burst: f64,
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    budget: Budget,
    tokens: f64,
    at: Instant,
}

/// Until when a manager is left alone because it said so.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoolDown(Option<Instant>);

/// Whether a manager that fails is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    failures: u32,
    /// How often it was opened since the last success.
    opened: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open(Instant),
    /// One read is on its way to find out.
    Probing,
}

/// What a read meant for the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The manager answers, if with a no.
    Alive,
    /// It does not.
    Dead,
    /// The read says nothing: it never got there, or was given up by whoever asked.
    None,
}

// === impl Bucket ===

impl Bucket {
    /// A full one.
    pub fn new(budget: Budget, now: Instant) -> Self {
        Self { budget, tokens: budget.burst, at: now }
    }

    /// Takes a token, or says how long until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.budget.per_second;
        self.tokens = (self.tokens + gained).min(self.budget.burst);
        self.at = self.at.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64((1.0 - self.tokens) / self.budget.per_second).unwrap_or(MAX_COOL_DOWN))
    }
}

// === impl CoolDown ===

impl CoolDown {
    /// The manager said that it is asked too much. Never shortens; spread by up to a quarter, so that not everybody comes back
    /// at once.
    pub fn start(&mut self, asked: Option<Duration>, chance: f64, now: Instant) {
        let wait = asked.unwrap_or(USUAL_COOL_DOWN).min(MAX_COOL_DOWN);
        let until = now + wait + wait.mul_f64(chance.clamp(0.0, 1.0) / 4.0);
        self.0 = Some(self.0.map_or(until, |before| before.max(until)));
    }

    /// Time until the manager may be asked again; zero when it may be now.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.0.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

// === impl Breaker ===

impl Breaker {
    /// Whether a read may go, or how long to wait. A read that may has to be followed by [`Breaker::note`].
    pub fn enter(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed => Ok(()),
            State::Open(until) if now >= until => {
                self.state = State::Probing;
                Ok(())
            }
            State::Open(until) => Err(until - now),
            State::Probing => Err(WHILE_PROBED),
        }
    }

    /// What became of a read that was let go.
    pub fn note(&mut self, sign: Sign, chance: f64, now: Instant) {
        match (sign, self.state) {
            (Sign::Alive, _) => *self = Self::default(),
            (Sign::Dead, State::Closed) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= FAILURES {
                    self.open(chance, now);
                }
            }
            (Sign::Dead, State::Probing) => self.open(chance, now),
            // The next one probes.
            (Sign::None, State::Probing) => self.state = State::Open(now),
            // Read before it was opened.
            (Sign::Dead, State::Open(_)) | (Sign::None, State::Closed | State::Open(_)) => {}
        }
    }

    /// Whether reads are held back.
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// For half of a doubling time at least, and all of it at most.
    fn open(&mut self, chance: f64, now: Instant) {
        let bound = FIRST_OPEN.saturating_mul(2u32.saturating_pow(self.opened)).min(MAX_OPEN);
        self.opened = self.opened.saturating_add(1);
        self.state = State::Open(now + bound.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_breaker_opens_after_failures_in_a_row_and_lets_one_find_out() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert!(breaker.enter(start).is_ok());
            breaker.note(Sign::Dead, 1.0, start);
        }
        breaker.note(Sign::Alive, 1.0, start);
        for _ in 0..FAILURES {
            assert!(breaker.enter(start).is_ok(), "a success starts the count anew");
            breaker.note(Sign::Dead, 1.0, start);
        }
        assert_eq!(breaker.enter(start), Err(ms(500)));
        assert_eq!(breaker.enter(start + ms(499)), Err(ms(1)));
        assert!(breaker.enter(start + ms(500)).is_ok(), "the probe");
        assert_eq!(breaker.enter(start + ms(60_000)), Err(WHILE_PROBED), "only one");
        breaker.note(Sign::Dead, 1.0, start + ms(600));
        assert_eq!(breaker.enter(start + ms(600)), Err(ms(1000)), "longer");
        assert!(breaker.enter(start + ms(1600)).is_ok());
        breaker.note(Sign::None, 1.0, start + ms(1600));
        assert!(breaker.enter(start + ms(1600)).is_ok(), "a probe that was given up is made by the next");
        breaker.note(Sign::Alive, 1.0, start + ms(1700));
        assert!(!breaker.is_open());
        assert!(breaker.enter(start + ms(1700)).is_ok() && breaker.enter(start + ms(1700)).is_ok());
    }

    #[test]
    fn a_cool_down_obeys_and_is_never_cut_short() {
        let now = Instant::now();
        let mut cool_down = CoolDown::default();
        assert_eq!(cool_down.remaining(now), Duration::ZERO);
        cool_down.start(Some(ms(20_000)), 0.0, now);
        cool_down.start(None, 0.0, now);
        assert_eq!(cool_down.remaining(now + ms(5000)), ms(15_000));
        cool_down.start(Some(ms(40_000)), 1.0, now);
        assert_eq!(cool_down.remaining(now), ms(50_000), "spread by a quarter");
        let mut wrong = CoolDown::default();
        wrong.start(Some(Duration::MAX), 0.0, now);
        assert_eq!(wrong.remaining(now), MAX_COOL_DOWN);
    }

    proptest! {
        #[test]
        fn no_more_than_burst_and_rate_are_taken(
            per_second in 0.1f64..5000.0, burst in 1.0f64..5000.0, steps in prop::collection::vec(0u64..2000, 1..400),
        ) {
            let start = Instant::now();
            let (mut now, mut taken) = (start, 0.0);
            let mut bucket = Bucket::new(Budget { per_second, burst }, start);
            for step in steps {
                now += ms(step);
                match bucket.take(now) {
                    Ok(()) => taken += 1.0,
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO);
                        let mut later = bucket;
                        prop_assert!(later.take(now + wait + ms(1)).is_ok(), "the wait is long enough");
                    }
                }
                let allowed = burst + (now - start).as_secs_f64() * per_second;
                prop_assert!(taken <= allowed + 1e-6, "{taken} of {allowed}");
            }
        }

        #[test]
        fn a_breaker_never_has_two_probes_and_never_shuts_for_ever(
            steps in prop::collection::vec((0u64..3000, 0u8..3, 0.0f64..1.0), 1..300),
        ) {
            let (mut now, mut breaker, mut under_way) = (Instant::now(), Breaker::default(), 0u32);
            for (step, sign, chance) in steps {
                now += ms(step);
                let was_open = breaker.is_open();
                match breaker.enter(now) {
                    Ok(()) => {
                        under_way += 1;
                        if was_open {
                            prop_assert!(breaker.enter(now).is_err(), "one probe");
                        }
                        let sign = [Sign::Alive, Sign::Dead, Sign::None][usize::from(sign)];
                        breaker.note(sign, chance, now);
                        under_way -= 1;
                        prop_assert!(sign != Sign::Alive || !breaker.is_open());
                    }
                    Err(wait) => prop_assert!(wait <= MAX_OPEN),
                }
                prop_assert_eq!(under_way, 0);
                let mut later = breaker;
                prop_assert!(later.enter(now + MAX_OPEN).is_ok());
            }
        }
    }
}
