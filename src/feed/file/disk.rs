//! Snapshot files on disk: bounded reads into wiped buffers, private and atomic writes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::model::Problem;

/// Largest snapshot that is read by default, in bytes. A million virtual keys need about this much.
pub const DEFAULT_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A whole file. Snapshots may hold credentials, so the buffer is wiped.
pub struct Content {
    /// The bytes.
    pub bytes: Zeroizing<Vec<u8>>,
    pub(super) digest: Digest,
}

/// SHA-256 of a content.
pub(super) type Digest = [u8; 32];

/// What the file system says about a file without reading it. The change time moves with every write and cannot be set back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system refused.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// A directory, socket or device.
    #[error("is no regular file")]
    NotAFile,
    /// More bytes than allowed.
    #[error("is larger than {max_bytes} bytes")]
    TooLarge {
        /// The bound.
        max_bytes: u64,
    },
}

/// Reads the whole file at `path`, at most `max_bytes`. Blocks.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path, max_bytes: u64) -> Result<Content, ReadError> {
    // Opening a pipe would wait for a writer, so look first.
    let metadata = fs::metadata(path).map_err(ReadError::Io)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile);
    }
    let too_large = ReadError::TooLarge { max_bytes };
    let Some(size) = usize::try_from(metadata.len()).ok().filter(|_| metadata.len() <= max_bytes) else {
        return Err(too_large);
    };
    // One byte more than the file has, so that its end is seen without growing: growth would leave a copy behind.
    let mut bytes = Zeroizing::new(vec![0; size + 1]);
    let mut file = File::open(path).map_err(ReadError::Io)?;
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            // The file grew while it was read.
            let wanted = (bytes.len() * 2).min(usize::try_from(max_bytes).unwrap_or(usize::MAX).saturating_add(1));
            if wanted == bytes.len() {
                return Err(too_large);
            }
            let mut larger = Zeroizing::new(vec![0; wanted]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadError::Io(error)),
        }
    }
    bytes.truncate(filled);
    let digest = Sha256::digest(&bytes).into();
    Ok(Content { bytes, digest })
}

/// What the file system says about the file at `path`, links followed. Blocks.
pub(super) fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Replaces the file at `path` as a whole by `parts`, readable by its owner only. Blocks.
pub(in crate::feed) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = parent(path);
    let mut draft_name = std::ffi::OsString::from(".");
    draft_name.push(name);
    draft_name.push(".new");
    let draft = directory.join(draft_name);
    // A draft of a process that was killed; with create_new nothing that lies there is ever written through.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&draft, path)) {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    // Some file systems cannot sync a directory; the content itself is safe.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// The directory of `path`, for a bare name the current one.
pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

// === impl ReadError ===

impl ReadError {
    /// The same, as a fault of the file at `path`.
    pub fn problem(&self, path: &Path) -> Problem {
        let message = match self {
            // The standard library calls everything an entity; here that is a virtual key.
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => "does not exist".to_owned(),
            Self::Io(error) => format!("{self}: {}", error.kind()),
            Self::NotAFile | Self::TooLarge { .. } => self.to_string(),
        };
        Problem { at: path.display().to_string(), message }
    }
}

// === impl Content ===

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}
