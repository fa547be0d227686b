//! What happens on one client connection, for those who must not be waited for too long and those who must be waited for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

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
pub struct InFlight(Arc<Activity>);

// === impl Activity ===

impl Activity {
    /// A connection that was just opened.
    pub fn new(metrics: Arc<Metrics>, permit: OwnedSemaphorePermit) -> Arc<Self> {
        metrics.connections.inc();
        Arc::new(Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
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
        self.metrics.requests_in_flight.inc();
        InFlight(self.clone())
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

impl Drop for InFlight {
    fn drop(&mut self) {
        let activity = &self.0;
        activity.idle_since.store(activity.millis(), Relaxed);
        activity.in_flight.fetch_sub(1, Relaxed);
        activity.metrics.requests_in_flight.dec();
    }
}
