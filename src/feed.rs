//! The current snapshot: one atomic pointer, filled from a source, keeping the last good one.
//!
//! A source ([`mod@file`] or [`control_plane`]) loads and links away from the runtime's workers and calls [`Feed::swap`] or [`Feed::refuse`]; nothing
//! that fails ever replaces what is there. Readers take one pointer and hold it for the length of a request.

mod aside;
pub mod control_plane;
pub mod file;
mod publisher;

pub use publisher::{Admit, Linker};

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::model::{Problem, Snapshot};

/// The current snapshot. One pointer load; hold the `Arc` for the length of a request.
#[derive(Debug)]
pub struct Feed {
    current: ArcSwapOption<Snapshot>,
    status: watch::Sender<Status>,
}

/// `snapshot.*`: where snapshots come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// `snapshot.file`.
    File(file::Settings),
    /// `snapshot.control_plane`.
    ControlPlane(control_plane::Settings),
}

/// What is loaded and what went wrong last, for readiness, metrics and whoever waits for a swap.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Swaps so far. 0 = nothing was ever loaded.
    pub generation: u64,
    /// The current snapshot's load; `None` until one was loaded.
    pub loaded: Option<Loaded>,
    /// The last attempt, if it was refused; `None` again after the next success.
    pub refused: Option<Refused>,
}

/// How the current snapshot came here.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// When it was loaded.
    pub at: SystemTime,
    /// When the control plane made it, if it says so.
    pub generated_at: Option<SystemTime>,
    /// From where.
    pub origin: Origin,
    /// When the source last said that this is what it has; a file says nothing.
    pub confirmed_at: Option<SystemTime>,
}

/// Where a snapshot was loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configured source, like `snapshot.file`.
    Source,
    /// `snapshot.last_good_file`, because the source could not be loaded at start.
    LastGood,
}

/// An attempt that changed nothing.
#[derive(Clone, Debug)]
pub struct Refused {
    /// When.
    pub at: SystemTime,
    /// Why: all faults at once. Never a secret.
    pub problems: Arc<[Problem]>,
}

// === impl Feed ===

impl Feed {
    /// The current snapshot; `None` until one was loaded.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Replaces the current snapshot by one from the source; requests under way keep theirs.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        self.exchange(snapshot, Origin::Source);
    }

    /// Takes what was good last, while the source cannot be loaded; why it cannot stays noted.
    pub fn restore(&self, snapshot: Arc<Snapshot>) {
        self.exchange(snapshot, Origin::LastGood);
    }

    /// Notes an attempt that was refused. The current snapshot stays.
    pub fn refuse(&self, problems: Arc<[Problem]>) {
        self.status.send_modify(|status| status.refused = Some(Refused { at: SystemTime::now(), problems }));
    }

    /// Notes that the source says again what is loaded already.
    pub fn confirm(&self) {
        self.status.send_if_modified(|status| status.refused.take().is_some());
    }

    /// Notes that the source says now that what is loaded is what it has.
    pub fn confirm_now(&self) {
        self.status.send_modify(|status| {
            status.refused = None;
            if let Some(loaded) = &mut status.loaded {
                (loaded.origin, loaded.confirmed_at) = (Origin::Source, Some(SystemTime::now()));
            }
        });
    }

    /// What is loaded and what went wrong last.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Wakes after every change of [`Feed::status`]; compare [`Status::generation`] to tell a swap from a refusal. The
    /// pointer is exchanged before the wake-up.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Age of the current snapshot: time since the source said that it has no other; where it says nothing, since the
    /// snapshot was made; where that is not known, since it was loaded.
    pub fn age(&self) -> Option<Duration> {
        self.status.borrow().loaded.map(|loaded| loaded.age(SystemTime::now()))
    }

    fn exchange(&self, snapshot: Arc<Snapshot>, origin: Origin) {
        let generated_at = snapshot.generated_at.map(SystemTime::from);
        self.current.store(Some(snapshot));
        self.status.send_modify(|status| {
            status.generation += 1;
            status.loaded = Some(Loaded { at: SystemTime::now(), generated_at, origin, confirmed_at: None });
            match origin {
                Origin::Source => status.refused = None,
                Origin::LastGood => {}
            }
        });
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self { current: ArcSwapOption::empty(), status: watch::Sender::default() }
    }
}

// === impl Loaded ===

impl Loaded {
    /// Age at `now`, see [`Feed::age`]; zero for a snapshot from the future.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.confirmed_at.or(self.generated_at).unwrap_or(self.at)).unwrap_or_default()
    }
}

// === impl Origin ===

impl Origin {
    /// The spelling of logs and readiness answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::LastGood => "last_good_file",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems() -> Arc<[Problem]> {
        [Problem { at: "x".to_owned(), message: "y".to_owned() }].into()
    }

    #[test]
    fn a_refusal_stays_until_the_source_is_good_again() {
        let feed = Feed::default();
        assert!(feed.current().is_none() && feed.age().is_none());
        feed.refuse(problems());
        feed.restore(Arc::default());
        assert!(feed.current().is_some() && feed.status().refused.is_some());
        feed.swap(Arc::default());
        assert!(feed.status().refused.is_none());
        feed.refuse(problems());
        feed.confirm();
        let status = feed.status();
        assert!(status.refused.is_none());
        assert_eq!(status.generation, 2);
    }

    #[test]
    fn age_counts_from_when_it_was_made() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let made = |before: u64| Some(at - Duration::from_secs(before));
        for (generated_at, elapsed, age) in [(None, 5, 5), (made(100), 5, 105), (made(0), 0, 0)] {
            let loaded = Loaded { at, generated_at, origin: Origin::Source, confirmed_at: None };
            assert_eq!(loaded.age(at + Duration::from_secs(elapsed)), Duration::from_secs(age));
        }
        let from_the_future =
            Loaded { at, generated_at: Some(at + Duration::from_secs(60)), origin: Origin::Source, confirmed_at: None };
        assert_eq!(from_the_future.age(at), Duration::ZERO);
    }
}
