//! Loading, refusing and swapping a snapshot file, with a disk and a clock of the test's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::{feed::Status, metric::OutcomeLabels};

/// Longer than any machine needs, shorter than the poll: what arrives in time came by notice.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    feed: Arc<Feed>,
    metrics: Arc<Metrics>,
    reload: Reload,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(settings: Settings) -> Self {
        let (feed, metrics) = (Arc::new(Feed::default()), Arc::new(Metrics::new()));
        let linker = Linker { admit: Arc::new(|_, _, _| Ok(())), opener: None };
        let source = FileSource::new(settings, linker, Arc::clone(&metrics));
        let (reload, cancel) = (source.reload(), CancellationToken::new());
        let task = tokio::spawn(source.run(Arc::clone(&feed), cancel.clone()));
        Self { feed, metrics, reload, cancel, task }
    }

    async fn until(&self, reached: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.feed.subscribe();
        let reached = timeout(PATIENCE, status.wait_for(reached)).await;
        reached.expect("nothing happened in time").expect("the feed is alive").clone()
    }

    fn loads(&self, outcome: &'static str) -> u64 {
        self.metrics.snapshot_loads.get_or_create(&OutcomeLabels { outcome }).get()
    }

    fn version(&self) -> Option<u64> {
        self.feed.current().map(|snapshot| snapshot.version)
    }

    async fn stop(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.task).await.expect("it stops when told").unwrap();
    }
}

fn snapshot(version: u64) -> String {
    format!(r#"{{"schema_version":1,"version":{version}}}"#)
}

/// Replaces the file as a whole.
fn put(path: &Path, content: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, content).unwrap();
    fs::rename(draft, path).unwrap();
}

#[tokio::test]
async fn a_changed_file_is_swapped_in_and_a_broken_one_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("snapshot.json");
    put(&path, &snapshot(1));
    let running = Running::start(Settings::new(&path));
    running.until(|status| status.generation == 1).await;

    put(&path, &snapshot(2));
    running.until(|status| status.generation == 2).await;
    assert_eq!(running.version(), Some(2));

    put(&path, r#"{"schema_version":1,"version":-3,"generated_at":4}"#);
    let refused = running.until(|status| status.refused.is_some()).await.refused.unwrap();
    assert_eq!(refused.problems.len(), 2, "all faults: {:?}", refused.problems);
    assert_eq!(running.version(), Some(2));

    put(&path, &snapshot(2));
    let status = running.until(|status| status.refused.is_none()).await;
    assert_eq!(status.generation, 2, "the same content is no swap");

    fs::remove_file(&path).unwrap();
    running.until(|status| status.refused.is_some()).await;
    assert_eq!(running.version(), Some(2));
    running.stop().await;
}

#[tokio::test]
async fn every_swap_of_a_config_map_is_seen() {
    let dir = TempDir::new().unwrap();
    let project = |version: u64| {
        let content = format!("..content-{version}");
        fs::create_dir(dir.path().join(&content)).unwrap();
        fs::write(dir.path().join(&content).join("snapshot.json"), snapshot(version)).unwrap();
        symlink(content, dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    project(1);
    let path = dir.path().join("snapshot.json");
    symlink("..data/snapshot.json", &path).unwrap();
    let running = Running::start(Settings::new(&path));
    running.until(|status| status.generation == 1).await;
    for version in 2..=4 {
        project(version);
        running.until(|status| status.generation == version).await;
        assert_eq!(running.version(), Some(version));
    }
    running.stop().await;
}

/// The clock is paused: it jumps to the next poll whenever nothing else is to do.
#[tokio::test(start_paused = true)]
async fn a_change_without_notice_is_seen_by_polling() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (path, target) = (dir.path().join("snapshot.json"), elsewhere.path().join("snapshot.json"));
    put(&target, &snapshot(1));
    symlink(&target, &path).unwrap();
    let running = Running::start(Settings::new(&path));
    let mut status = running.feed.subscribe();
    status.wait_for(|status| status.generation == 1).await.unwrap();
    put(&target, &snapshot(2));
    status.wait_for(|status| status.generation == 2).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn reading_does_not_cause_the_next_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("snapshot.json");
    put(&path, &snapshot(1));
    let running = Running::start(Settings { last_good: Some(dir.path().join("good.json")), ..Settings::new(&path) });
    running.until(|status| status.generation == 1).await;
    for version in 2..=3 {
        put(&path, &snapshot(version));
        running.until(|status| status.generation == version).await;
    }
    let reads = running.loads("swapped") + running.loads("unchanged");
    assert!(reads <= 6, "{reads} reads for 3 contents");
    running.stop().await;
}

#[tokio::test]
async fn what_was_good_last_is_kept_privately_and_serves_a_start_without_source() {
    let dir = TempDir::new().unwrap();
    let (path, good) = (dir.path().join("snapshot.json"), dir.path().join("kept").join("good.json"));
    fs::create_dir(dir.path().join("kept")).unwrap();
    put(&path, &snapshot(7));
    let settings = Settings { last_good: Some(good.clone()), ..Settings::new(&path) };
    let running = Running::start(settings.clone());
    running.until(|status| status.generation == 1).await;
    running.stop().await;
    assert_eq!(fs::read_to_string(&good).unwrap(), snapshot(7));
    assert_eq!(fs::metadata(&good).unwrap().permissions().mode() & 0o777, 0o600);

    for broken in [None, Some("{"), Some(r#"{"schema_version":2}"#)] {
        match broken {
            None => fs::remove_file(&path).unwrap(),
            Some(content) => put(&path, content),
        }
        let running = Running::start(settings.clone());
        let status = running.until(|status| status.refused.is_some()).await;
        assert_eq!(status.loaded.expect("the last good one").origin, Origin::LastGood, "{broken:?}");
        assert_eq!(running.version(), Some(7));

        put(&path, &snapshot(8));
        let status = running.until(|status| status.generation == 2).await;
        assert_eq!(status.loaded.unwrap().origin, Origin::Source);
        assert!(status.refused.is_none());
        running.stop().await;
        put(&good, &snapshot(7));
    }
}

#[tokio::test]
async fn a_request_reads_again_what_has_not_changed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("snapshot.json");
    put(&path, "[]");
    let running = Running::start(Settings::new(&path));
    let first = running.until(|status| status.refused.is_some()).await.refused.unwrap().at;
    running.reload.request();
    running.until(|status| status.refused.as_ref().is_some_and(|refused| refused.at > first)).await;
    assert_eq!(running.loads("refused"), 2);
    assert!(running.feed.current().is_none());
    running.stop().await;
}

#[test]
fn reads_are_bounded() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "12345").unwrap();
    assert_eq!(&**read(&path, 5).unwrap().bytes, b"12345");
    assert!(matches!(read(&path, 4), Err(ReadError::TooLarge { max_bytes: 4 })));
    assert!(matches!(read(dir.path(), 5), Err(ReadError::NotAFile)));
    assert!(matches!(read(&dir.path().join("none"), 5), Err(ReadError::Io(_))));
    // Grows without end and says it is empty.
    assert!(matches!(read(Path::new("/proc/self/mountinfo"), 8), Err(ReadError::TooLarge { .. })));
}

#[test]
fn keeping_never_writes_through_what_lies_in_the_way() {
    let dir = TempDir::new().unwrap();
    let (victim, good) = (dir.path().join("victim"), dir.path().join("good.json"));
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, dir.path().join(".good.json.new")).unwrap();
    disk::replace(&good, &[b"content"]).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(&good).unwrap(), "content");
}
