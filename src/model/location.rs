//! Where a secret lies inside its manager: a path and the version wanted.

use std::sync::Arc;

/// A validated `secret_path`, without its version selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretLocation {
    /// Path, name or ARN as the manager writes it. Holds no `..` segment, no control character, at most 1024 bytes.
    pub path: Arc<str>,
    /// Which version.
    pub version: VersionSelector,
}

/// Which version of a secret is wanted. Part of the cache key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VersionSelector {
    /// What the manager calls current or latest.
    Current,
    /// The one before current (KV v2 n−1, `AWSPREVIOUS`).
    Previous,
    /// `?version=`: exactly this one.
    Pinned(Arc<str>),
    /// `?stage=`: an AWS staging label.
    Stage(Arc<str>),
}
