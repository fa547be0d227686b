//! The current snapshot: one atomic pointer, filled from a watched file, keeping the last good one.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::model::Snapshot;

/// The current snapshot. One pointer load; hold the `Arc` for the length of a request.
#[derive(Debug, Default)]
pub struct Feed {
    current: ArcSwapOption<Snapshot>,
}

// === impl Feed ===

impl Feed {
    /// The current snapshot; `None` until one was loaded.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Replaces the current snapshot.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        self.current.store(Some(snapshot));
    }
}
