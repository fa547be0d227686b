//! `file`: a secret is a regular file below `managers.file.root`, read anew with each fetch.
//!
//! Nothing leaves the root: the kernel resolves the path beneath it (`openat2`), links included, so that a mounted
//! Kubernetes Secret (`key → ..data/key`) works and a link to the outside does not. Where the kernel has no such call, the
//! resolved path is compared instead.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
#[cfg(target_os = "linux")]
use rustix::fs::{ResolveFlags, openat2};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{FailureClass, FetchError, Fetched, SecretManager, Version};
use crate::{
    model::{SecretLocation, VersionSelector},
    secret::SecretValue,
};

/// Largest file that is read, in bytes. A Kubernetes Secret as a whole has at most as much.
const MAX_FILE: u64 = 1024 * 1024;

/// Files read at once. A reader occupies a thread, and a network file system may keep it.
const MAX_READERS: usize = 16;

/// Attempts at a file that changes while it is read.
const ATTEMPTS: usize = 3;

/// Not to follow: a FIFO must not block, a terminal must not become ours.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The files below one directory.
#[derive(Debug)]
pub(super) struct Files {
    root: Arc<Root>,
    readers: Arc<Semaphore>,
    identity: Arc<str>,
}

/// `managers.file.root` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("managers.file.root {} is not a readable directory", path.display())]
pub(super) struct RootError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
}

/// Why a file was not read.
#[derive(Debug)]
enum Fault {
    Io(io::Error),
    NotRegular,
    TooLarge,
    Empty,
    Changing,
    Outside,
}

/// A path below the root that a reference may name.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a>(&'a Path);

// === impl Files ===

impl Files {
    /// The files below `root`.
    ///
    /// # Errors
    /// [`RootError`] when it is not a directory.
    pub(super) fn open(root: &Path) -> Result<Self, RootError> {
        let fail = |source| RootError { path: root.to_owned(), source };
        open_root(root).map_err(|errno| fail(errno.into()))?;
        Ok(Self {
            root: Arc::new(Root { path: root.to_owned() }),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            identity: format!("file below {}", root.display()).into(),
        })
    }

    /// Whether a reference may name `location`.
    ///
    /// # Errors
    /// A reason for people.
    pub(super) fn admit(&self, location: &SecretLocation) -> Result<(), String> {
        Name::of(location).map(drop).map_err(str::to_owned)
    }
}

#[async_trait]
impl SecretManager for Files {
    async fn fetch(&self, location: &SecretLocation, _known: Option<&Version>) -> Result<Fetched, FetchError> {
        let misfit = |reason| FetchError::new(FailureClass::Misconfigured).with_code("path").with_source(reason);
        let name = Name::of(location).map_err(misfit)?.0.to_owned();
        let lost = |error: Box<dyn std::error::Error + Send + Sync>| {
            FetchError::new(FailureClass::Unavailable).with_source(error)
        };
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|error| lost(error.into()))?;
        let root = Arc::clone(&self.root);
        let read = move || {
            let _permit = permit;
            root.read(&name)
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| lost(error.into()))?
    }

    fn identity(&self) -> Arc<str> {
        Arc::clone(&self.identity)
    }
}

// === impl Name ===

impl<'a> Name<'a> {
    fn of(location: &'a SecretLocation) -> Result<Self, &'static str> {
        if location.version != VersionSelector::Current {
            return Err("a file has no versions");
        }
        if location.path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err("secret_path must be relative to managers.file.root, without empty, . or .. segments");
        }
        if location.path.contains('\0') {
            return Err("secret_path must not hold NUL");
        }
        Ok(Self(Path::new(&*location.path)))
    }
}

// === impl Root ===

impl Root {
    fn read(&self, name: &Path) -> Result<Fetched, FetchError> {
        let mut outcome = self.read_once(name);
        for _ in 1..ATTEMPTS {
            match outcome {
                // The path or the content changed under our hands.
                Err(Fault::Changing) => outcome = self.read_once(name),
                Ok(_) | Err(_) => break,
            }
        }
        outcome.map_err(FetchError::from)
    }

    fn read_once(&self, name: &Path) -> Result<Fetched, Fault> {
        let mut file = File::from(self.open(name)?);
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(Fault::NotRegular);
        }
        if before.len() > MAX_FILE {
            return Err(Fault::TooLarge);
        }
        // One byte more than it should need, so that the end is seen without growing.
        let room = usize::try_from(before.len()).unwrap_or_default() + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(room));
        file.by_ref().take(before.len() + 1).read_to_end(&mut content)?;
        let after = file.metadata()?;
        let stamp = |of: &Metadata| (of.len(), of.mtime(), of.mtime_nsec());
        if stamp(&before) != stamp(&after) || content.len() as u64 != after.len() {
            return Err(Fault::Changing);
        }
        if content.is_empty() {
            return Err(Fault::Empty);
        }
        // Which file and when it changed, and not a hash of the content: versions are logged.
        let version = format!("{}.{:09}-{}", after.mtime(), after.mtime_nsec(), after.ino());
        let value = SecretValue::new(std::mem::take(&mut *content));
        Ok(Fetched::Document { value, map: false, version: Some(Version(version.into())), not_after: None })
    }

    fn open(&self, name: &Path) -> Result<OwnedFd, Fault> {
        #[cfg(target_os = "linux")]
        {
            let root = open_root(&self.path)?;
            let stay = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match openat2(root, name, OPEN, Mode::empty(), stay) {
                // Older kernels, and sandboxes that do not know the call.
                Err(Errno::NOSYS | Errno::PERM) => {}
                outcome => return Ok(outcome?),
            }
        }
        self.open_compared(name)
    }

    /// Resolves first and compares then. Whoever may rename files below the root can race it, but not a tenant.
    fn open_compared(&self, name: &Path) -> Result<OwnedFd, Fault> {
        let root = self.path.canonicalize()?;
        let path = root.join(name).canonicalize()?;
        if !path.starts_with(&root) {
            return Err(Fault::Outside);
        }
        Ok(rustix::fs::open(&path, OPEN | OFlags::NOFOLLOW, Mode::empty())?)
    }
}

// === impl Fault ===

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Changing,
            Errno::XDEV | Errno::LOOP => Self::Outside,
            errno => Self::Io(errno.into()),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).map_or(Self::Io(error), Self::from)
    }
}

impl From<Fault> for FetchError {
    fn from(fault: Fault) -> Self {
        let failed = |class, code| Self::new(class).with_code(code);
        match fault {
            Fault::NotRegular => failed(FailureClass::Misconfigured, "not_a_file"),
            Fault::TooLarge => failed(FailureClass::Malformed, "too_large"),
            // A file that is being written anew: an empty value must not replace the one in memory.
            Fault::Empty => failed(FailureClass::Malformed, "empty"),
            Fault::Changing => failed(FailureClass::Unavailable, "changing"),
            Fault::Outside => failed(FailureClass::Misconfigured, "outside_root"),
            Fault::Io(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => failed(FailureClass::Gone, "absent"),
                io::ErrorKind::PermissionDenied => failed(FailureClass::Denied, "permission"),
                _ => failed(FailureClass::Unavailable, "io"),
            }
            .with_source(error),
        }
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
}

#[cfg(test)]
mod tests;
