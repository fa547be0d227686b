//! A scripted secret manager for tests and benchmarks.
//!
//! Each path has a script: the answers of its reads in order, the last one for all that follow. Answers may take time (on
//! tokio's clock, so a paused test does not wait), hang, or panic. Everything asked is recorded.
//!
//! ```
//! # use std::time::Duration;
//! # use sidekey::manager::{FailureClass, fake::{Answer, Fake, FakeManagers}};
//! let fake = Fake::new();
//! fake.script("secret/openai", [
//!     Answer::text("sk-1").version("1"),
//!     Answer::fail(FailureClass::Unavailable),
//!     Answer::map(r#"{"api_key": "sk-2"}"#).version("2").after(Duration::from_millis(50)),
//! ]);
//! let managers = FakeManagers::new(&fake);
//! # let _ = managers;
//! assert_eq!(fake.calls("secret/openai"), 0);
//! ```

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::time::sleep;

use super::{FailureClass, FetchError, Fetched, Managers, SecretManager, Version};
use crate::{
    model::{Reference, SecretLocation, VersionSelector},
    secret::SecretValue,
};

/// One identity with a script for each path. Clones share script and records. A path without a script is gone.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    paths: Arc<Mutex<HashMap<String, Path>>>,
}

/// One scripted answer.
#[derive(Clone, Debug)]
pub struct Answer {
    after: Duration,
    does: Does,
}

/// Finds the fake of a reference by its slug, else the one for all.
#[derive(Debug)]
pub struct FakeManagers {
    all: Fake,
    by_slug: HashMap<String, Option<Fake>>,
}

#[derive(Clone, Debug)]
enum Does {
    Document { value: Arc<[u8]>, map: bool, version: Option<Version>, not_after: Option<SystemTime> },
    Unchanged,
    Fail { class: FailureClass, retry_after: Option<Duration> },
    Hang,
    Panic,
}

#[derive(Debug, Default)]
struct Path {
    script: Vec<Answer>,
    next: usize,
    calls: usize,
    running: usize,
    peak: usize,
    known: Vec<Option<Version>>,
}

/// Counts a read as running until it ends or is cancelled.
struct Running {
    fake: Fake,
    path: String,
}

// === impl Fake ===

impl Fake {
    /// A manager where every path is gone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the answers for `path` from the next read on; the last one repeats. A version stands as `path?version=3`,
    /// `path?stage=x` or `path?previous`. Records of the path stay.
    pub fn script(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut paths = self.paths();
        let path = paths.entry(path.to_owned()).or_default();
        path.script = answers.into_iter().collect();
        path.next = 0;
    }

    /// Reads of `path` so far, those under way included.
    pub fn calls(&self, path: &str) -> usize {
        self.paths().get(path).map_or(0, |path| path.calls)
    }

    /// Reads of every path so far.
    pub fn total_calls(&self) -> usize {
        self.paths().values().map(|path| path.calls).sum()
    }

    /// Reads of `path` under way now.
    pub fn running(&self, path: &str) -> usize {
        self.paths().get(path).map_or(0, |path| path.running)
    }

    /// The most reads of `path` that were under way at once.
    pub fn peak(&self, path: &str) -> usize {
        self.paths().get(path).map_or(0, |path| path.peak)
    }

    /// The `known` version of each read of `path`.
    pub fn known(&self, path: &str) -> Vec<Option<Version>> {
        self.paths().get(path).map(|path| path.known.clone()).unwrap_or_default()
    }

    fn begin(&self, path: &str, known: Option<&Version>) -> (Answer, Running) {
        let mut paths = self.paths();
        let entry = paths.entry(path.to_owned()).or_default();
        let answer = entry.script.get(entry.next).or_else(|| entry.script.last()).cloned();
        entry.next += 1;
        entry.calls += 1;
        entry.running += 1;
        entry.peak = entry.peak.max(entry.running);
        entry.known.push(known.cloned());
        let running = Running { fake: self.clone(), path: path.to_owned() };
        (answer.unwrap_or_else(|| Answer::fail(FailureClass::Gone)), running)
    }

    fn paths(&self) -> MutexGuard<'_, HashMap<String, Path>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SecretManager for Fake {
    async fn fetch(&self, location: &SecretLocation, known: Option<&Version>) -> Result<Fetched, FetchError> {
        let (answer, _running) = self.begin(&path_of(location), known);
        if !answer.after.is_zero() {
            sleep(answer.after).await;
        }
        match answer.does {
            Does::Document { value, map, version, not_after } => {
                Ok(Fetched::Document { value: SecretValue::new(value.to_vec()), map, version, not_after })
            }
            Does::Unchanged => Ok(Fetched::Unchanged),
            Does::Fail { class, retry_after } => {
                Err(FetchError::new(class).with_code("scripted").with_retry_after(retry_after))
            }
            Does::Hang => pending().await,
            Does::Panic => panic!("scripted panic"),
        }
    }

    fn identity(&self) -> Arc<str> {
        "fake".into()
    }
}

// === impl Answer ===

impl Answer {
    /// A document that is text.
    pub fn text(text: &str) -> Self {
        Self::bytes(text.as_bytes())
    }

    /// A document that need not be text.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::does(Does::Document { value: bytes.into(), map: false, version: None, not_after: None })
    }

    /// A document that is a map by nature, as Vault's; `json` is its object.
    pub fn map(json: &str) -> Self {
        Self::does(Does::Document { value: json.as_bytes().into(), map: true, version: None, not_after: None })
    }

    /// The known version is still the current one.
    pub fn unchanged() -> Self {
        Self::does(Does::Unchanged)
    }

    /// An error of `class`.
    pub fn fail(class: FailureClass) -> Self {
        Self::does(Does::Fail { class, retry_after: None })
    }

    /// No answer, ever.
    pub fn hang() -> Self {
        Self::does(Does::Hang)
    }

    /// The manager panics.
    pub fn panic() -> Self {
        Self::does(Does::Panic)
    }

    /// Answers only after `time`.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self { after: time, ..self }
    }

    /// The document's version; no effect on other answers.
    #[must_use]
    pub fn version(mut self, name: &str) -> Self {
        if let Does::Document { version, .. } = &mut self.does {
            *version = Some(Version(name.into()));
        }
        self
    }

    /// The document's end of validity; no effect on other answers.
    #[must_use]
    pub fn not_after(mut self, end: SystemTime) -> Self {
        if let Does::Document { not_after, .. } = &mut self.does {
            *not_after = Some(end);
        }
        self
    }

    /// The error's time to wait; no effect on other answers.
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        if let Does::Fail { retry_after, .. } = &mut self.does {
            *retry_after = Some(time);
        }
        self
    }

    fn does(does: Does) -> Self {
        Self { after: Duration::ZERO, does }
    }
}

// === impl FakeManagers ===

impl FakeManagers {
    /// `fake` for every reference.
    pub fn new(fake: &Fake) -> Self {
        Self { all: fake.clone(), by_slug: HashMap::new() }
    }

    /// Another fake for the reference `slug`.
    #[must_use]
    pub fn with(mut self, slug: &str, fake: &Fake) -> Self {
        self.by_slug.insert(slug.to_owned(), Some(fake.clone()));
        self
    }

    /// No manager for the reference `slug`: it is misconfigured.
    #[must_use]
    pub fn without(mut self, slug: &str) -> Self {
        self.by_slug.insert(slug.to_owned(), None);
        self
    }
}

impl Managers for FakeManagers {
    fn manager(&self, reference: &Reference) -> Result<Arc<dyn SecretManager>, FetchError> {
        match self.by_slug.get(&*reference.slug) {
            Some(Some(fake)) => Ok(Arc::new(fake.clone())),
            Some(None) => Err(FetchError::new(FailureClass::Misconfigured).with_code("scripted")),
            None => Ok(Arc::new(self.all.clone())),
        }
    }
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(path) = self.fake.paths().get_mut(&self.path) {
            path.running -= 1;
        }
    }
}

fn path_of(location: &SecretLocation) -> String {
    let path = &location.path;
    match &location.version {
        VersionSelector::Current => path.to_string(),
        VersionSelector::Previous => format!("{path}?previous"),
        VersionSelector::Pinned(version) => format!("{path}?version={version}"),
        VersionSelector::Stage(stage) => format!("{path}?stage={stage}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> SecretLocation {
        SecretLocation { path: path.into(), version: VersionSelector::Current }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_in_order_and_repeats_the_last() {
        let fake = Fake::new();
        fake.script("a", [Answer::text("1").version("v1"), Answer::fail(FailureClass::Denied)]);
        let known = Version("v0".into());
        let Ok(Fetched::Document { value, map, version, .. }) = fake.fetch(&at("a"), Some(&known)).await else {
            panic!()
        };
        assert_eq!((value.expose(), map, version), (&b"1"[..], false, Some(Version("v1".into()))));
        for _ in 0..2 {
            assert_eq!(fake.fetch(&at("a"), None).await.unwrap_err().class, FailureClass::Denied);
        }
        assert_eq!(fake.fetch(&at("b"), None).await.unwrap_err().class, FailureClass::Gone);
        assert_eq!((fake.calls("a"), fake.calls("b"), fake.total_calls()), (3, 1, 4));
        assert_eq!(fake.known("a"), [Some(known), None, None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_read_is_no_longer_running() {
        let fake = Fake::new();
        fake.script("a", [Answer::hang()]);
        let location = at("a");
        {
            let read = tokio::time::timeout(Duration::from_secs(1), fake.fetch(&location, None));
            assert!(read.await.is_err());
        }
        assert_eq!((fake.running("a"), fake.peak("a"), fake.calls("a")), (0, 1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn versions_have_scripts_of_their_own() {
        let fake = Fake::new();
        fake.script("a", [Answer::text("now")]);
        fake.script("a?version=3", [Answer::text("then")]);
        let pinned = SecretLocation { version: VersionSelector::Pinned("3".into()), ..at("a") };
        let Ok(Fetched::Document { value, .. }) = fake.fetch(&pinned, None).await else { panic!() };
        assert_eq!(value.expose(), b"then");
    }
}
