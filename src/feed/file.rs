//! A snapshot file: watched through symlink swaps, polled as a safety net, re-read on demand.
//!
//! Kubernetes projects a ConfigMap as `file → ..data/file` and swaps the link `..data`, so the parent directory is watched
//! and not the file. Events only say "look again"; whether anything changed is told by a hash of the content. Content that
//! was refused is not refused again until it changes.

pub(super) mod disk;
mod watch;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    disk::{Content, Digest, Stamp},
    watch::DirectoryWatch,
};
use super::{
    Feed, Origin,
    aside::{aside, give_way_for},
    publisher::{Linker, Publisher, log_problems},
};
use crate::{
    metric::Metrics,
    model::{Problem, Snapshot},
};

pub use disk::{DEFAULT_MAX_BYTES, ReadError, read};

/// How often the file is looked at without an event: file systems without notification, links that point elsewhere.
const POLL: Duration = Duration::from_secs(30);
/// Quiet time after an event, so that a writer that needs several steps is read once.
const SETTLE: Duration = Duration::from_millis(100);

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

/// Loads [`Settings::path`] into a [`Feed`] for as long as it runs.
pub struct FileSource {
    settings: Settings,
    linker: Linker,
    publisher: Publisher,
    demand: Arc<Notify>,
    seen: Seen,
}

/// Asks a running source to read again, also what has not changed (SIGHUP). Cheap to clone.
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
    pub fn new(settings: Settings, linker: Linker, metrics: Arc<Metrics>) -> Self {
        let publisher = Publisher::new(metrics, settings.max_age);
        Self { settings, linker, publisher, demand: Arc::new(Notify::new()), seen: Seen::default() }
    }

    /// A handle to ask for a fresh read.
    pub fn reload(&self) -> Reload {
        Reload::of(&self.demand)
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
            self.publisher.check_age(&feed);
            self.publisher.drop_retired();
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
        let linker = self.linker.clone();
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
                Ok(content) => (stamp, link_content(content, settings.strict, &linker)),
            }
        };
        let interrupted = || {
            let at = self.settings.path.display().to_string();
            let message = "could not be read to its end".to_owned();
            (None, Attempt::Refused(None, vec![Problem { at, message }]))
        };
        let (stamp, attempt) = aside(work).await.unwrap_or_else(interrupted);
        self.seen.stamp = stamp;
        attempt
    }

    async fn conclude(&mut self, attempt: Attempt, cause: Cause, feed: &Feed) {
        match attempt {
            Attempt::Unchanged => self.publisher.count("unchanged"),
            Attempt::Confirmed => {
                self.seen.refused = None;
                self.publisher.count("unchanged");
                feed.confirm();
            }
            Attempt::Loaded(content, snapshot) => {
                (self.seen.accepted, self.seen.refused) = (Some(content.digest), None);
                self.publisher.publish(feed, snapshot, Origin::Source);
                self.keep(content).await;
            }
            Attempt::Refused(digest, problems) => {
                self.seen.refused = digest;
                if cause == Cause::Start {
                    self.restore(feed).await;
                }
                self.publisher.refuse(feed, "refused", problems);
            }
        }
    }

    /// At start, when the source cannot be loaded: what was good last.
    async fn restore(&mut self, feed: &Feed) {
        let Some(path) = self.settings.last_good.clone() else { return };
        let (strict, max_bytes) = (self.settings.strict, self.settings.max_bytes);
        let linker = self.linker.clone();
        let file = path.clone();
        let work = move || match disk::read(&file, max_bytes) {
            Err(error) => Attempt::Refused(None, vec![error.problem(&file)]),
            Ok(content) => link_content(content, strict, &linker),
        };
        match aside(work).await {
            Some(Attempt::Loaded(_, snapshot)) => {
                self.publisher.publish(feed, snapshot, Origin::LastGood);
            }
            Some(Attempt::Refused(_, problems)) => {
                log_problems("The last good snapshot cannot be loaded.", &problems);
            }
            Some(Attempt::Unchanged | Attempt::Confirmed) | None => {}
        }
    }

    /// Writes what was just loaded to `snapshot.last_good_file`.
    async fn keep(&self, content: Content) {
        let Some(path) = self.settings.last_good.clone().filter(|path| *path != self.settings.path) else { return };
        let file = path.clone();
        let outcome = tokio::task::spawn_blocking(move || disk::replace(&file, &[&content.bytes])).await;
        if let Ok(Err(error)) = outcome {
            warn!(path = %path.display(), error = %error, "The last good snapshot could not be kept.");
        }
    }
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl Reload ===

impl Reload {
    /// Asks whoever waits for `demand`.
    pub(super) fn of(demand: &Arc<Notify>) -> Self {
        Self(Arc::clone(demand))
    }

    /// Asks for a fresh read; several requests before it starts are one.
    pub fn request(&self) {
        self.0.notify_one();
    }
}

fn link_content(content: Content, strict: bool, linker: &Linker) -> Attempt {
    give_way_for(content.bytes.len());
    match linker.link(&content.bytes, strict) {
        Ok(snapshot) => Attempt::Loaded(content, Arc::new(snapshot)),
        Err(problems) => Attempt::Refused(Some(content.digest), problems),
    }
}

#[cfg(test)]
mod tests;
