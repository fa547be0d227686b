//! From bytes to the current snapshot, whatever the source: linked away from the workers, swapped, counted, named in the log.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::{error, info, warn};

use super::{Feed, Origin, aside::drop_aside};
use crate::{
    metric::{Metrics, OutcomeLabels},
    model::{Admission, LinkRules, Problem, Snapshot, link},
    seal::opener::Opener,
};

/// Whether this process may use a reference; what [`LinkRules::admit`] asks.
pub type Admit = Arc<Admission<'static>>;

/// Faults written to the log in words for one attempt.
const MAX_LOGGED: usize = 50;

/// How snapshots are linked in this process.
#[derive(Clone)]
pub struct Linker {
    /// Whether it may use a reference.
    pub admit: Admit,
    /// Who opens sealed values; `None` = nobody.
    pub opener: Option<Arc<Opener>>,
}

/// Publishes what a source loads.
pub(super) struct Publisher {
    metrics: Arc<Metrics>,
    max_age: Option<Duration>,
    overdue: bool,
    retired: Vec<Arc<Snapshot>>,
}

// === impl Linker ===

impl Linker {
    /// Links `bytes`. Blocks for as long as that takes.
    ///
    /// # Errors
    /// Every fault that refuses the whole.
    pub fn link(&self, bytes: &[u8], strict: bool) -> Result<Snapshot, Vec<Problem>> {
        let admit = &*self.admit;
        let rules = LinkRules {
            strict,
            admit: &|manager, auth, location| admit(manager, auth, location),
            opener: self.opener.as_ref(),
        };
        link(bytes, &rules).map_err(|error| error.problems)
    }
}

impl fmt::Debug for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linker").field("opener", &self.opener).finish_non_exhaustive()
    }
}

// === impl Publisher ===

impl Publisher {
    /// `max_age`: from when on the age of the snapshot is an alarm.
    pub(super) fn new(metrics: Arc<Metrics>, max_age: Option<Duration>) -> Self {
        Self { metrics, max_age, overdue: false, retired: Vec::new() }
    }

    /// Replaces the current snapshot.
    pub(super) fn publish(&mut self, feed: &Feed, snapshot: Arc<Snapshot>, origin: Origin) {
        self.retired.extend(feed.current());
        let sentence = match origin {
            Origin::Source => "The snapshot is loaded.",
            Origin::LastGood => "The last good snapshot is loaded, because the source cannot be.",
        };
        match origin {
            Origin::Source => feed.swap(Arc::clone(&snapshot)),
            Origin::LastGood => feed.restore(Arc::clone(&snapshot)),
        }
        self.announce(&snapshot, sentence);
    }

    fn announce(&self, snapshot: &Snapshot, sentence: &str) {
        self.count("swapped");
        let loaded_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.snapshot_version.set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        self.metrics.snapshot_loaded_timestamp_seconds.set(loaded_at.as_secs_f64());
        self.metrics.snapshot_set_aside.set(i64::try_from(snapshot.objects_set_aside).unwrap_or(i64::MAX));
        info!(
            version = snapshot.version,
            references = snapshot.references.len(),
            set_aside = snapshot.objects_set_aside,
            "{sentence}"
        );
        if !snapshot.set_aside.is_empty() {
            log_problems("A part of the snapshot is set aside.", &snapshot.set_aside);
        }
    }

    /// Notes that the last attempt changed nothing, and why; `outcome` is counted.
    pub(super) fn refuse(&self, feed: &Feed, outcome: &'static str, problems: Vec<Problem>) {
        self.count(outcome);
        let sentence = match feed.current() {
            Some(_) => "The snapshot is refused, the last good one stays.",
            None => "The snapshot is refused, and there is none.",
        };
        log_problems(sentence, &problems);
        feed.refuse(problems.into());
    }

    /// Raises and ends the alarm of `snapshot.max_age_secs`.
    pub(super) fn check_age(&mut self, feed: &Feed) {
        let Some((max_age, age)) = self.max_age.zip(feed.age()) else { return };
        let overdue = age > max_age;
        if overdue != self.overdue {
            self.overdue = overdue;
            if overdue {
                warn!(
                    age_secs = age.as_secs(),
                    max_age_secs = max_age.as_secs(),
                    "The snapshot is older than it should be."
                );
            } else {
                info!(age_secs = age.as_secs(), "The snapshot is young enough again.");
            }
        }
    }

    /// Drops earlier snapshots that no request holds any more. Taking a large one down takes long enough to be kept off the
    /// runtime's workers, so requests are never the last to hold one.
    pub(super) fn drop_retired(&mut self) {
        let unused: Vec<_> = self.retired.extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1).collect();
        if !unused.is_empty() {
            drop_aside(unused);
        }
    }

    pub(super) fn count(&self, outcome: &'static str) {
        self.metrics.snapshot_loads.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

/// Writes `problems` to the log.
pub(super) fn log_problems(sentence: &str, problems: &[Problem]) {
    for problem in problems.iter().take(MAX_LOGGED) {
        error!(error = %problem, "{sentence}");
    }
    if problems.len() > MAX_LOGGED {
        error!(problems = problems.len(), "{sentence} `sidekey check` lists all problems.");
    }
}
