//! A snapshot file: watched through symlink swaps, polled as a safety net, re-read on demand.
//!
//! Kubernetes projects a ConfigMap as `file → ..data/file` and swaps the link `..data`, so the parent directory is watched
//! and not the file. Events only say "look again"; whether anything changed is told by a hash of the content. Content that
//! was refused is not refused again until it changes.

mod disk;
mod watch;

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    disk::{Content, Digest, Stamp},
    watch::DirectoryWatch,
};
use super::Feed;
use crate::{
    metric::{Metrics, OutcomeLabels},
    model::{Admission, LinkRules, Problem, Snapshot, link},
    seal::opener::Opener,
};

pub use disk::{DEFAULT_MAX_BYTES, ReadError, read};

/// How often the file is looked at without an event: file systems without notification, links that point elsewhere.
const POLL: Duration = Duration::from_secs(30);
/// Quiet time after an event, so that a writer that needs several steps is read once.
const SETTLE: Duration = Duration::from_millis(100);
/// Faults written to the log in words for one attempt.
const MAX_LOGGED: usize = 50;

/// `snapshot.*`, as far as a file needs it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `snapshot.file`.
    pub path: PathBuf,
    /// `snapshot.strict`.
    pub strict: bool,
    /// `snapshot.last_good_file`: written 0600 after every swap, read at start when `path` cannot be loaded.
    pub last_good: Option<PathBuf>,
    /// `snapshot.max_age_secs`: older snapshots raise an alarm in the log; `None` = no alarm.
    pub max_age: Option<Duration>,
    /// Largest file that is read, in bytes.
    pub max_bytes: u64,
}

/// Whether this process may use a reference; what [`LinkRules::admit`] asks.
pub type Admit = Arc<Admission<'static>>;

/// Loads [`Settings::path`] into a [`Feed`] for as long as it runs.
pub struct FileSource {
    settings: Settings,
    admit: Admit,
    opener: Option<Arc<Opener>>,
    metrics: Arc<Metrics>,
    demand: Arc<Notify>,
    seen: Seen,
    retired: Vec<Arc<Snapshot>>,
}

/// Asks a running [`FileSource`] to read again, also what has not changed (SIGHUP). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reload(Arc<Notify>);

/// What earlier attempts saw.
#[derive(Default)]
struct Seen {
    /// Of the last attempt, unless it could not read.
    stamp: Option<Stamp>,
    /// What is loaded now.
    accepted: Option<Digest>,
    /// What was refused last.
    refused: Option<Digest>,
    overdue: bool,
}

/// Why an attempt is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Nothing was read yet.
    Start,
    /// Something happened in the directory.
    Event,
    /// Time went by.
    Poll,
    /// Somebody asked.
    Demand,
}

/// How an attempt ended.
enum Attempt {
    /// As at the last attempt.
    Unchanged,
    /// What is loaded already, perhaps after something else.
    Confirmed,
    Loaded(Content, Arc<Snapshot>),
    /// The digest is missing when there was nothing to read.
    Refused(Option<Digest>, Vec<Problem>),
}

// === impl Settings ===

impl Settings {
    /// The file at `path`, strict, nothing else.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), strict: true, last_good: None, max_age: None, max_bytes: DEFAULT_MAX_BYTES }
    }
}

// === impl FileSource ===

impl FileSource {
    /// A source that has read nothing yet.
    pub fn new(settings: Settings, admit: Admit, metrics: Arc<Metrics>) -> Self {
        let (demand, seen) = (Arc::new(Notify::new()), Seen::default());
        Self { settings, admit, opener: None, metrics, demand, seen, retired: Vec::new() }
    }

    /// The same, with somebody who opens sealed values.
    pub fn opening(self, opener: Option<Arc<Opener>>) -> Self {
        Self { opener, ..self }
    }

    /// A handle to ask for a fresh read.
    pub fn reload(&self) -> Reload {
        Reload(Arc::clone(&self.demand))
    }

    /// Loads the file now and after every change, until `cancel`. Never fails: what cannot be loaded is logged, counted and
    /// noted in the feed, and the last good snapshot stays.
    pub async fn run(mut self, feed: Arc<Feed>, cancel: CancellationToken) {
        let mut watch = DirectoryWatch::new(&self.settings.path);
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.reset();
        let mut cause = Cause::Start;
        loop {
            let attempt = tokio::select! {
                attempt = self.load(cause) => attempt,
                () = cancel.cancelled() => return,
            };
            self.conclude(attempt, cause, &feed).await;
            self.check_age(&feed);
            self.drop_retired();
            cause = tokio::select! {
                () = cancel.cancelled() => return,
                () = watch.changed() => {
                    sleep(SETTLE).await;
                    Cause::Event
                }
                () = self.demand.notified() => Cause::Demand,
                _ = poll.tick() => {
                    watch.renew();
                    Cause::Poll
                }
            };
        }
    }

    /// Reads and links away from the runtime's workers.
    async fn load(&mut self, cause: Cause) -> Attempt {
        let settings = self.settings.clone();
        let (admit, opener) = (Arc::clone(&self.admit), self.opener.clone());
        let forced = matches!(cause, Cause::Start | Cause::Demand);
        let known = self.seen.stamp.filter(|_| cause == Cause::Poll);
        let (accepted, refused) = (self.seen.accepted, self.seen.refused);
        let work = move || {
            let stamp = disk::stamp(&settings.path).ok();
            if stamp.is_some() && stamp == known {
                return (stamp, Attempt::Unchanged);
            }
            match disk::read(&settings.path, settings.max_bytes) {
                Err(error) => (None, Attempt::Refused(None, vec![error.problem(&settings.path)])),
                Ok(content) if !forced && Some(content.digest) == accepted => (stamp, Attempt::Confirmed),
                Ok(content) if !forced && Some(content.digest) == refused => (stamp, Attempt::Unchanged),
                Ok(content) => (stamp, link_content(content, settings.strict, &admit, opener.as_ref())),
            }
        };
        let interrupted = |_| {
            let at = self.settings.path.display().to_string();
            let message = "could not be read to its end".to_owned();
            (None, Attempt::Refused(None, vec![Problem { at, message }]))
        };
        let (stamp, attempt) = tokio::task::spawn_blocking(work).await.unwrap_or_else(interrupted);
        self.seen.stamp = stamp;
        attempt
    }

    async fn conclude(&mut self, attempt: Attempt, cause: Cause, feed: &Feed) {
        match attempt {
            Attempt::Unchanged => self.count("unchanged"),
            Attempt::Confirmed => {
                self.seen.refused = None;
                self.count("unchanged");
                feed.confirm();
            }
            Attempt::Loaded(content, snapshot) => {
                (self.seen.accepted, self.seen.refused) = (Some(content.digest), None);
                self.retired.extend(feed.current());
                feed.swap(Arc::clone(&snapshot));
                self.announce(&snapshot, "The snapshot is loaded.");
                self.keep(content).await;
            }
            Attempt::Refused(digest, problems) => {
                self.seen.refused = digest;
                if cause == Cause::Start {
                    self.restore(feed).await;
                }
                self.refuse(problems, feed);
            }
        }
    }

    /// At start, when the source cannot be loaded: what was good last.
    async fn restore(&mut self, feed: &Feed) {
        let Some(path) = self.settings.last_good.clone() else { return };
        let (strict, max_bytes) = (self.settings.strict, self.settings.max_bytes);
        let (admit, opener) = (Arc::clone(&self.admit), self.opener.clone());
        let file = path.clone();
        let work = move || match disk::read(&file, max_bytes) {
            Err(error) => Attempt::Refused(None, vec![error.problem(&file)]),
            Ok(content) => link_content(content, strict, &admit, opener.as_ref()),
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Attempt::Loaded(_, snapshot)) => {
                feed.restore(Arc::clone(&snapshot));
                self.announce(&snapshot, "The last good snapshot is loaded, because the source cannot be.");
            }
            Ok(Attempt::Refused(_, problems)) => {
                log_problems("The last good snapshot cannot be loaded.", &problems);
            }
            Ok(Attempt::Unchanged | Attempt::Confirmed) | Err(_) => {}
        }
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

    fn refuse(&self, problems: Vec<Problem>, feed: &Feed) {
        self.count("refused");
        let sentence = match feed.current() {
            Some(_) => "The snapshot is refused, the last good one stays.",
            None => "The snapshot is refused, and there is none.",
        };
        log_problems(sentence, &problems);
        feed.refuse(problems.into());
    }

    /// Writes what was just loaded to `snapshot.last_good_file`.
    async fn keep(&self, content: Content) {
        let Some(path) = self.settings.last_good.clone().filter(|path| *path != self.settings.path) else { return };
        let file = path.clone();
        let outcome = tokio::task::spawn_blocking(move || disk::replace(&file, &content.bytes)).await;
        if let Ok(Err(error)) = outcome {
            warn!(path = %path.display(), error = %error, "The last good snapshot could not be kept.");
        }
    }

    /// Raises and ends the alarm of `snapshot.max_age_secs`.
    fn check_age(&mut self, feed: &Feed) {
        let Some((max_age, age)) = self.settings.max_age.zip(feed.age()) else { return };
        let overdue = age > max_age;
        if overdue != self.seen.overdue {
            self.seen.overdue = overdue;
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
    fn drop_retired(&mut self) {
        let unused: Vec<_> = self.retired.extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1).collect();
        if !unused.is_empty() {
            tokio::task::spawn_blocking(move || drop(unused));
        }
    }

    fn count(&self, outcome: &'static str) {
        self.metrics.snapshot_loads.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl Reload ===

impl Reload {
    /// Asks for a fresh read; several requests before it starts are one.
    pub fn request(&self) {
        self.0.notify_one();
    }
}

fn link_content(content: Content, strict: bool, admit: &Admit, opener: Option<&Arc<Opener>>) -> Attempt {
    let rules = LinkRules { strict, admit: &|manager, auth, location| admit(manager, auth, location), opener };
    match link(&content.bytes, &rules) {
        Ok(snapshot) => Attempt::Loaded(content, Arc::new(snapshot)),
        Err(error) => Attempt::Refused(Some(content.digest), error.problems),
    }
}

fn log_problems(sentence: &str, problems: &[Problem]) {
    for problem in problems.iter().take(MAX_LOGGED) {
        error!(error = %problem, "{sentence}");
    }
    if problems.len() > MAX_LOGGED {
        error!(problems = problems.len(), "{sentence} `sidekey check` lists all problems.");
    }
}

#[cfg(test)]
mod tests;
