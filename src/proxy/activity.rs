//! What happens on one client connection, for those who must not be waited for too long and those who must be waited for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until},
};

use crate::metric::Metrics;

/// The life of one connection. Counts it as open, and as one of `max_connections`, until the last holder lets go; a tunnel
/// holds it beyond the connection it began on.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds after `opened`, plus one; 0 = no head has begun.
    head_since: AtomicU64,
    /// Milliseconds after `opened`.
    idle_since: AtomicU64,
    /// Milliseconds after `opened`, plus one; 0 = the client takes what is written.
    stalled_since: AtomicU64,
    /// Requests that were taken back before they were answered, less those that were answered.
    taken_back: AtomicUsize,
    max_in_flight: i64,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Requests are running.
    Busy,
    /// A head has begun at this time.
    Head(Instant),
    /// Nothing has happened since this time.
    Idle(Instant),
}

/// One running request; lives until the last byte of the reply.
#[derive(Debug)]
pub struct InFlight {
    activity: Arc<Activity>,
    admitted: bool,
    answered: bool,
}

// === impl Activity ===

impl Activity {
    /// A connection that was just opened; `max_in_flight` is of the requests on all connections.
    pub fn new(metrics: Arc<Metrics>, permit: OwnedSemaphorePermit, max_in_flight: usize) -> Arc<Self> {
        metrics.connections.inc();
        Arc::new(Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            taken_back: AtomicUsize::new(0),
            max_in_flight: i64::try_from(max_in_flight).unwrap_or(i64::MAX),
            metrics,
            _permit: permit,
        })
    }

    /// Bytes came in. Between requests they are the beginning of a head.
    pub fn received(&self) {
        if self.in_flight.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.millis() + 1, Relaxed);
        }
    }

    /// A head is complete: a request begins.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        let admitted = self.metrics.requests_in_flight.inc() < self.max_in_flight;
        if !admitted {
            self.metrics.requests_in_flight.dec();
        }
        InFlight { activity: self.clone(), admitted, answered: false }
    }

    /// Whether the client took the last bytes that were written, or those of them for which there was room.
    pub fn wrote(&self, taken: bool) {
        match (taken, self.stalled_since.load(Relaxed)) {
            (false, 0) => self.stalled_since.store(self.millis() + 1, Relaxed),
            (true, since) if since > 0 => self.stalled_since.store(0, Relaxed),
            (true | false, _) => {}
        }
    }

    /// Since when the client has taken nothing while bytes wait for it.
    pub fn stalled_since(&self) -> Option<Instant> {
        let since = self.stalled_since.load(Relaxed).checked_sub(1)?;
        Some(self.opened + Duration::from_millis(since))
    }

    /// How many more requests were taken back before they were answered than were answered.
    pub fn taken_back(&self) -> usize {
        self.taken_back.load(Relaxed)
    }

    /// What the connection is waiting for.
    pub fn waiting(&self) -> Waiting {
        let at = |millis| self.opened + Duration::from_millis(millis);
        if self.in_flight.load(Relaxed) > 0 {
            return Waiting::Busy;
        }
        match self.head_since.load(Relaxed) {
            0 => Waiting::Idle(at(self.idle_since.load(Relaxed))),
            since => Waiting::Head(at(since - 1)),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

// === impl InFlight ===

impl InFlight {
    /// Whether fewer than `limits.max_in_flight` were running when it began. Otherwise it is told so, and not counted.
    pub fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// Its head has been answered.
    pub fn answered(&mut self) {
        self.answered = true;
    }

    /// Waits until the client has taken nothing of its connection for `patience` while bytes wait for it.
    pub async fn stalled(&self, patience: Duration) {
        loop {
            let due = self.activity.stalled_since().unwrap_or_else(Instant::now) + patience;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Self { activity, admitted, answered } = self;
        activity.idle_since.store(activity.millis(), Relaxed);
        activity.in_flight.fetch_sub(1, Relaxed);
        if *admitted {
            activity.metrics.requests_in_flight.dec();
        }
        let count = |back: usize| if *answered { back.checked_sub(1) } else { Some(back + 1) };
        // Nothing to write, in the usual case.
        let _ = activity.taken_back.fetch_update(Relaxed, Relaxed, count);
    }
}
