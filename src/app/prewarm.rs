//! Prewarming of a sidecar: which references were in use, remembered as names in a private file, and when it is done.

use std::{
    collections::HashSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    feed::Feed,
    model::Snapshot,
    resolve::{
        Resolver, Uses,
        prewarm::{Choice, Settings},
    },
};

/// How often it is looked which references are in use. Shorter than the shortest sensible lifetime, since a refresh forgets.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How often the file is written, if something changed.
const LOOKS_A_WRITE: u32 = 20;
/// Names that are remembered, the last used ones first. What a start may read is bounded by this.
const MAX_NAMES: usize = 1000;
/// Largest file that is read, in bytes: a thousand names at their longest.
const MAX_BYTES: u64 = 512 * 1024;

/// The names of used references, the last used ones first.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names(Vec<Arc<str>>);

/// Prewarms once, when the first snapshot is there, then remembers what is used until `end`. `pending` falls when readiness
/// need not wait any more.
pub async fn run(
    settings: Settings,
    feed: Arc<Feed>,
    resolver: Arc<Resolver>,
    pending: Arc<AtomicBool>,
    end: CancellationToken,
) {
    let Settings { choice, file, limit } = settings;
    let mut names = match (&choice, &file) {
        (Choice::Used, Some(file)) => Names::read(file),
        (Choice::None | Choice::All | Choice::Used | Choice::List(_), _) => Names::default(),
    };
    let all = choice == Choice::All;
    let mut wanted: HashSet<String> = match choice {
        Choice::None | Choice::All => HashSet::new(),
        Choice::Used => names.0.iter().map(ToString::to_string).collect(),
        Choice::List(list) => list.into_iter().collect(),
    };
    let first = end.run_until_cancelled(async {
        let mut changes = feed.subscribe();
        // What it returns is a lock; not to be held.
        drop(changes.wait_for(|status| status.generation > 0).await);
        let Some(snapshot) = feed.current() else { return };
        if all {
            wanted = snapshot.references.iter().map(|reference| reference.id.to_string()).collect();
        }
        if wanted.is_empty() {
            return;
        }
        let started = Instant::now();
        let warmed = resolver.prewarm(&snapshot, &wanted, limit).await;
        let elapsed_ms = started.elapsed().as_millis() as u64;
        info!(read = warmed.read, failed = warmed.failed, left = warmed.left, elapsed_ms, "Secrets were read ahead.");
    });
    let first = first.await;
    pending.store(false, Ordering::Relaxed);
    let (Some(()), Some(file)) = (first, file) else { return };
    let mut looks = interval(LOOK_EVERY);
    let (mut looked, mut written) = (0u32, names.0.clone());
    loop {
        let over = end.run_until_cancelled(looks.tick()).await.is_none();
        if let Some(snapshot) = feed.current() {
            names.note(&resolver, &snapshot, &wanted);
        }
        looked = looked.wrapping_add(1);
        if names.0 != written && (over || looked % LOOKS_A_WRITE == 0) {
            match names.write(&file) {
                Ok(()) => written.clone_from(&names.0),
                Err(error) => warn!(file = %file.display(), %error, "The names of used secrets cannot be kept."),
            }
        }
        if over {
            return;
        }
    }
}

// === impl Names ===

impl Names {
    fn read(file: &Path) -> Self {
        let text = match fs::metadata(file) {
            Ok(metadata) if metadata.len() <= MAX_BYTES => fs::read_to_string(file),
            Ok(_) => Err(io::ErrorKind::FileTooLarge.into()),
            Err(error) => Err(error),
        };
        match text {
            Ok(text) => Self(text.lines().filter(|name| !name.is_empty()).take(MAX_NAMES).map(Arc::from).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                warn!(file = %file.display(), %error, "The names of used secrets cannot be read.");
                Self::default()
            }
        }
    }

    /// Puts what is in use now first, and forgets what `snapshot` does not name. What is remembered was asked for by a
    /// request, unless it was read `ahead`: then a request has to have asked since.
    fn note(&mut self, resolver: &Resolver, snapshot: &Snapshot, ahead: &HashSet<String>) {
        let read_ahead = |slug: &str, id: &str| ahead.contains(slug) || ahead.contains(id);
        let used = resolver.slots(snapshot, &Uses::default()).into_iter().filter_map(|slot| {
            let reference = slot.reference;
            let used = slot.used || slot.age.is_some() && !read_ahead(&reference.slug, &reference.id);
            used.then(|| Arc::clone(&reference.slug))
        });
        self.put_first(used.collect());
        let known: HashSet<&str> = snapshot.references.iter().map(|reference| &*reference.slug).collect();
        self.0.retain(|name| known.contains(&**name));
    }

    /// Puts these first, unless all of them are among the first already: the order within does not matter.
    fn put_first(&mut self, used: Vec<Arc<str>>) {
        let names: HashSet<_> = used.iter().cloned().collect();
        if self.0.iter().take(names.len()).all(|name| names.contains(name)) && self.0.len() >= names.len() {
            return;
        }
        let rest = self.0.drain(..).filter(|name| !names.contains(name)).collect::<Vec<_>>();
        self.0 = used.into_iter().chain(rest).take(MAX_NAMES).collect();
    }

    /// Replaces `file` as a whole, readable by its owner only.
    fn write(&self, file: &Path) -> io::Result<()> {
        let mut beside = file.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        for name in &self.0 {
            writeln!(out, "{name}")?;
        }
        out.sync_all()?;
        fs::rename(&beside, file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(names: &[&str]) -> Names {
        Names(names.iter().copied().map(Arc::from).collect())
    }

    #[test]
    fn the_last_used_come_first() {
        #[rustfmt::skip]
        let rows: [(&[&str], &[&str], &[&str]); 5] = [
            // remembered, used now, remembered then
            (&[], &["a"], &["a"]),
            (&["a", "b"], &["c"], &["c", "a", "b"]),
            (&["a", "b", "c"], &["c"], &["c", "a", "b"]),
            (&["a", "b", "c"], &["b", "a"], &["a", "b", "c"]),
            (&["a", "b"], &[], &["a", "b"]),
        ];
        for (before, used, after) in rows {
            let mut remembered = names(before);
            remembered.put_first(names(used).0);
            assert_eq!(remembered, names(after), "{before:?} {used:?}");
        }
        let mut many = Names((0..MAX_NAMES).map(|at| at.to_string().into()).collect());
        many.put_first(names(&["new"]).0);
        assert_eq!((many.0.len(), &*many.0[0]), (MAX_NAMES, "new"));
    }

    #[test]
    fn names_are_kept_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("used");
        assert_eq!(Names::read(&file), Names::default());
        names(&["a", "b"]).write(&file).unwrap();
        names(&["c"]).write(&file).unwrap();
        assert_eq!(Names::read(&file), names(&["c"]));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "x".repeat(MAX_BYTES as usize + 1)).unwrap();
        assert_eq!(Names::read(&file), Names::default());
    }
}
