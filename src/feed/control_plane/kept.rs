//! `snapshot.last_good_file` of a feed: the last whole document and the deltas since, each with its signature, so that what
//! is loaded from here is verified like what is fetched.
//!
//! A record is a line of JSON (`etag`, `signature`, `bytes`), the body, and the end of the line. A delta is appended; what a
//! crash left of one is cut off by whoever reads.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{task::JoinHandle, time::Instant};
use tracing::warn;

use super::{
    super::file::{ReadError, disk, read},
    answer::Answer,
    held::Held,
};

/// The first line.
const MAGIC: &str = "sidekey-feed 1\n";
/// Deltas behind a whole document before the whole is asked for anew.
const MAX_DELTAS: usize = 1000;
/// How much longer than the whole the deltas behind it may become, in bytes.
const DELTA_ROOM: usize = 1 << 20;
/// How often a file that could not be written is tried again with the whole, which has to be fetched for it.
const RETRY: Duration = Duration::from_secs(600);

/// Writes the file in the background, one update after the other.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    writing: Option<JoinHandle<()>>,
    /// Whether the file lacks an update, so that no delta may follow.
    broken: Arc<AtomicBool>,
    retried_at: Option<Instant>,
    deltas: usize,
    bytes: usize,
}

/// What was in the file.
#[derive(Debug)]
pub(super) struct Content {
    /// The whole document first.
    pub(super) answers: Vec<Answer>,
    /// Whether that is all of it, and a delta may be appended.
    complete: bool,
}

// === impl Keeper ===

impl Keeper {
    /// Goes on with the file that holds `content`.
    pub(super) fn after(content: &Content) -> Self {
        if !content.complete {
            return Self::broken();
        }
        let deltas = content.answers.iter().skip(1);
        Self { deltas: deltas.len(), bytes: deltas.map(|delta| delta.body().len()).sum(), ..Self::default() }
    }

    /// Goes on with a file that has to be written anew.
    pub(super) fn broken() -> Self {
        Self { broken: Arc::new(AtomicBool::new(true)), ..Self::default() }
    }

    /// Whether the whole should be asked for, although a delta would do.
    pub(super) fn wants_whole(&mut self, held: Option<&Held>) -> bool {
        let size = held.map_or(0, |held| held.document().len());
        if self.deltas >= MAX_DELTAS || self.bytes > size + DELTA_ROOM {
            return true;
        }
        let due = self.retried_at.is_none_or(|at| at.elapsed() >= RETRY);
        let wanted = self.broken.load(Ordering::Relaxed) && due;
        if wanted {
            self.retried_at = Some(Instant::now());
        }
        wanted
    }

    /// Begins to write what is `held` to `path`, by the `delta` that led to it if there is one.
    pub(super) fn keep(&mut self, path: &Path, held: Arc<Held>, delta: Option<Answer>) {
        match &delta {
            Some(delta) => {
                self.deltas += 1;
                self.bytes += delta.body().len();
            }
            None => (self.deltas, self.bytes) = (0, 0),
        }
        let (before, broken, path) = (self.writing.take(), Arc::clone(&self.broken), path.to_owned());
        self.writing = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let write = move || {
                let written = match (delta, held.told()) {
                    (Some(_), _) if broken.load(Ordering::Relaxed) => return,
                    (Some(delta), _) => append(&path, &delta),
                    (None, Some(whole)) => replace(&path, whole),
                    (None, None) => return,
                };
                broken.store(written.is_err(), Ordering::Relaxed);
                if let Err(error) = written {
                    warn!(path = %path.display(), %error, "The last good snapshot could not be kept.");
                }
            };
            let _ = tokio::task::spawn_blocking(write).await;
        }));
    }

    /// Waits until everything is written.
    pub(super) async fn settle(&mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
    }
}

#[derive(Deserialize, Serialize)]
struct Head {
    etag: String,
    signature: Option<String>,
    bytes: usize,
}

/// Replaces the file at `path` by `whole`. Blocks.
fn replace(path: &Path, whole: &Answer) -> io::Result<()> {
    let head = head(whole)?;
    disk::replace(path, &[MAGIC.as_bytes(), &head, whole.body(), b"\n"])
}

/// Appends `delta` to the file at `path`, which must be there. Blocks.
fn append(path: &Path, delta: &Answer) -> io::Result<()> {
    let mut record = head(delta)?;
    record.extend_from_slice(delta.body());
    record.push(b'\n');
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(&record)?;
    file.sync_data()
}

/// The updates in the file at `path`, the whole document first. Blocks.
///
/// # Errors
/// [`ReadError`] when the file cannot be read; a file that is no such file holds no update.
pub(super) fn load(path: &Path, max_bytes: u64) -> Result<Content, ReadError> {
    let content = read(path, max_bytes.saturating_mul(2))?;
    let mut answers = Vec::new();
    let mut rest = content.bytes.strip_prefix(MAGIC.as_bytes()).unwrap_or_default();
    while let Some((answer, after)) = next(rest) {
        answers.push(answer);
        rest = after;
    }
    Ok(Content { answers, complete: rest.is_empty() })
}

fn head(answer: &Answer) -> io::Result<Vec<u8>> {
    let Answer { etag, signature, .. } = answer;
    let head = Head { etag: etag.clone(), signature: signature.clone(), bytes: answer.body().len() };
    let mut line = serde_json::to_vec(&head)?;
    line.push(b'\n');
    Ok(line)
}

fn next(text: &[u8]) -> Option<(Answer, &[u8])> {
    let end = memchr::memchr(b'\n', text)?;
    let Head { etag, signature, bytes } = serde_json::from_slice(text.get(..end)?).ok()?;
    let body = text.get(end + 1..)?.get(..bytes)?;
    let rest = text.get(end + 1 + bytes..)?.strip_prefix(b"\n")?;
    let mut answer = Answer::begin(etag, signature, bytes);
    answer.push(body);
    Some((answer, rest))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn answer(etag: &str, body: &str) -> Answer {
        let mut answer = Answer::begin(etag.to_owned(), Some("ed25519=AAAA".to_owned()), body.len());
        answer.push(body.as_bytes());
        answer
    }

    fn told(path: &Path) -> Vec<(String, String)> {
        let answers = load(path, 1 << 20).unwrap().answers;
        let told = |answer: &Answer| (answer.etag.clone(), String::from_utf8(answer.body().to_vec()).unwrap());
        assert!(answers.iter().all(|answer| answer.signature.as_deref() == Some("ed25519=AAAA")));
        answers.iter().map(told).collect()
    }

    #[test]
    fn updates_come_back_and_a_broken_end_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        assert!(append(&path, &answer("\"1-2\"", "{}")).is_err(), "nothing to append to");
        replace(&path, &answer("\"1-1\"", "{\"a\":\"\n\"}")).unwrap();
        append(&path, &answer("\"1-2\"", "{}")).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let both = [("\"1-1\"".to_owned(), "{\"a\":\"\n\"}".to_owned()), ("\"1-2\"".to_owned(), "{}".to_owned())];
        assert_eq!(told(&path), both);
        let whole = fs::read(&path).unwrap();
        for cut in 1..30 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(told(&path), both[..1], "without the last {cut} bytes");
            assert!(!load(&path, 1 << 20).unwrap().complete, "a delta must not follow");
        }
        for other in ["", "{}", "sidekey-feed 2\n"] {
            fs::write(&path, other).unwrap();
            assert!(told(&path).is_empty(), "{other}");
        }
    }
}
