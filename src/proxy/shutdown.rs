//! Shutting down in stages: running → draining → cut. Signals are `app`'s; it moves the stage, everybody else watches.
//!
//! Draining: `/readyz` is 503 at once, accepting goes on for `drain_delay`, then the listeners close and what runs may finish
//! within `drain`. Cut: whatever still runs is dropped.

use tokio::sync::watch;

/// Where the process is in its life. Only moves forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving.
    #[default]
    Running,
    /// The first signal came.
    Draining,
    /// The second signal came.
    Cut,
}

/// The handle that moves the stage and shows it. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Shutdown {
    stage: watch::Sender<Stage>,
}

// === impl Shutdown ===

impl Shutdown {
    /// A process that runs.
    pub fn new() -> Self {
        Self { stage: watch::Sender::new(Stage::Running) }
    }

    /// Starts draining; does nothing when that has begun.
    pub fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Cuts everything now.
    pub fn cut(&self) {
        self.advance(Stage::Cut);
    }

    /// The stage at this moment.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Waits until `stage` or a later one is reached.
    pub async fn reached(&self, stage: Stage) {
        // The sender is `self`, so that the channel cannot be closed while this waits.
        let _ = self.stage.subscribe().wait_for(|now| *now >= stage).await;
    }

    fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|now| {
            let forward = *now < to;
            if forward {
                *now = to;
            }
            forward
        });
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_only_move_forward_and_wake_those_who_wait() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.reached(Stage::Draining).await }
        });
        shutdown.cut();
        waiting.await.unwrap();
        shutdown.drain();
        assert_eq!(shutdown.stage(), Stage::Cut);
    }
}
