//! A sign of life of something that must not stop, for `/healthz`.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

/// When something last showed that it is alive.
#[derive(Debug)]
pub struct Heartbeat {
    origin: Instant,
    /// Milliseconds after `origin`.
    last: AtomicU64,
}

// === impl Heartbeat ===

impl Heartbeat {
    /// How often one beats.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    /// It is alive.
    pub fn beat(&self) {
        self.last.store(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        self.origin.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }
}

impl Default for Heartbeat {
    /// Begins with a beat.
    fn default() -> Self {
        Self { origin: Instant::now(), last: AtomicU64::new(0) }
    }
}
