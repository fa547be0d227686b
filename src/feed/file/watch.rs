//! Notice of changes in one directory.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::warn;

use super::disk::parent;

/// Tells that something happened to a file, or to a link its directory is made of. May tell too often, and, on file systems
/// without notification, never.
pub(super) struct DirectoryWatch {
    directory: PathBuf,
    watcher: Option<RecommendedWatcher>,
    armed: bool,
    changed: Arc<Notify>,
}

// === impl DirectoryWatch ===

impl DirectoryWatch {
    /// Watches the directory of `path`.
    pub(super) fn new(path: &Path) -> Self {
        let changed = Arc::new(Notify::new());
        let notice = Arc::clone(&changed);
        let name = path.file_name().map(OsString::from).unwrap_or_default();
        let on_event = move |event: Result<Event, notify::Error>| match event {
            Ok(event) if !concerns(&event, &name) => {}
            // Errors mean that events may be lost: look.
            Ok(_) | Err(_) => notice.notify_one(),
        };
        let watcher = notify::recommended_watcher(on_event)
            .inspect_err(|error| warn!(error = %error, "No notice of file changes, polling only."))
            .ok();
        let mut watch = Self { directory: parent(path), watcher, armed: true, changed };
        watch.renew();
        watch
    }

    /// Resolves when something happened since the last call.
    pub(super) async fn changed(&mut self) {
        self.changed.notified().await;
    }

    /// Watches again: a directory that was replaced keeps its name and loses its watch.
    pub(super) fn renew(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let outcome = watcher.watch(&self.directory, RecursiveMode::NonRecursive);
        if let Err(error) = &outcome
            && self.armed
        {
            warn!(error = %error, "The directory of the snapshot cannot be watched, polling only.");
        }
        self.armed = outcome.is_ok();
    }
}

/// Whether `event` may have changed the file `name`. Reading is no change, or each read would cause the next; Kubernetes
/// swaps names that start with two dots.
fn concerns(event: &Event, name: &OsString) -> bool {
    !event.kind.is_access()
        && (event.paths.is_empty()
            || event.need_rescan()
            || event
                .paths
                .iter()
                .filter_map(|path| path.file_name())
                .any(|changed| changed == name.as_os_str() || changed.as_encoded_bytes().starts_with(b"..")))
}

#[cfg(test)]
mod tests {
    use notify::event::{
        AccessKind, AccessMode, CreateKind, DataChange, EventKind, Flag, ModifyKind, RemoveKind, RenameMode,
    };

    use super::*;

    #[test]
    fn only_changes_of_the_file_and_of_swapped_links_concern_it() {
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        #[rustfmt::skip]
        let cases = [
            // kind                                                     path                    concerns
            (written,                                                   "/dir/snapshot.json",   true),
            (renamed,                                                   "/dir/snapshot.json",   true),
            (EventKind::Create(CreateKind::Any),                        "/dir/snapshot.json",   true),
            (EventKind::Remove(RemoveKind::File),                       "/dir/snapshot.json",   true),
            (renamed,                                                   "/dir/..data",          true),
            (EventKind::Create(CreateKind::Folder),                     "/dir/..2026_11_21",    true),
            (written,                                                   "/dir/other.json",      false),
            (written,                                                   "/dir/.snapshot.json.new", false),
            (EventKind::Access(AccessKind::Read),                       "/dir/snapshot.json",   false),
            (EventKind::Access(AccessKind::Open(AccessMode::Read)),     "/dir/snapshot.json",   false),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)),    "/dir/snapshot.json",   false),
        ];
        let name = OsString::from("snapshot.json");
        for (kind, path, expected) in cases {
            let event = Event::new(kind).add_path(path.into());
            assert_eq!(concerns(&event, &name), expected, "{event:?}");
        }
        assert!(concerns(&Event::new(EventKind::Other).set_flag(Flag::Rescan), &name));
    }
}
