//! Secret mappings → credentials: cache, freshness, coalesced fetch, pick.
//!
//! The unit of fetching and caching is the document (identity + path + version), so that five keys of one JSON secret cost
//! one read. Whether a remembered document may be served is decided by [`freshness`] alone.

use std::{sync::Arc, time::Duration};

use crate::{
    manager::{FailureClass, FetchError, Managers, Version},
    metric::Metrics,
    model::{Mapping, Reference, Snapshot},
    secret::Credential,
};

pub mod freshness;

/// `cache.*`.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `cache.ttl_secs`: soft lifetime; zero = fetch each time, coalesced.
    pub ttl: Duration,
    /// `cache.jitter_ratio`: a lifetime is shortened by up to this part, never lengthened.
    pub jitter_ratio: f64,
    /// `cache.refresh_ahead_ratio`: entries used since their fetch are refreshed from this part of their lifetime on; 0 = off.
    pub refresh_ahead_ratio: f64,
    /// `cache.stale_secs`: nothing older than fetch + ttl + this is ever served; zero = never stale.
    pub stale: Duration,
    /// `cache.negative_ttl_secs`: how long a failure is remembered.
    pub negative_ttl: Duration,
    /// `cache.max_entries`.
    pub max_entries: u64,
    /// `cache.max_bytes`.
    pub max_bytes: u64,
    /// `managers.deadline_secs`: managers keep it themselves; here it is the safety net under a manager that does not.
    pub deadline: Duration,
}

/// One resolved mapping, with where it came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What to inject.
    pub credential: Arc<Credential>,
    /// How it was found.
    pub outcome: Outcome,
    /// The manager's version.
    pub version: Option<Version>,
    /// Time since the fetch that brought it.
    pub age: Duration,
}

/// How a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Fresh, from memory.
    Hit,
    /// Fetched now (or waited for the fetch of another request).
    Miss,
    /// From memory, past its soft lifetime; a refresh is under way or failed.
    Stale,
}

/// Why a mapping could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("reference {} could not be resolved: {}", reference.slug, class.as_str())]
pub struct ResolveError {
    /// Which reference.
    pub reference: Arc<Reference>,
    /// What to answer.
    pub class: FailureClass,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// The identity that was used, for the log.
    pub identity: Option<Arc<str>>,
    /// The fetch error behind it, for the log; shared by everyone who waited for it.
    #[source]
    pub source: Option<Arc<FetchError>>,
}

/// Resolves mappings. Cheap to share; holds every cached document of the process.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    managers: Arc<dyn Managers>,
    metrics: Arc<Metrics>,
}

// === impl Resolver ===

impl Resolver {
    /// A resolver with an empty cache.
    pub fn new(settings: Settings, managers: Arc<dyn Managers>, metrics: Arc<Metrics>) -> Self {
        Self { settings, managers, metrics }
    }

    /// Resolves `mappings` in parallel; the answer stands in the same order. A hit does not wait for anything.
    ///
    /// # Errors
    /// [`ResolveError`] of the first mapping that cannot be resolved.
    pub async fn resolve(&self, mappings: &[Arc<Mapping>]) -> Result<Vec<Resolved>, ResolveError> {
        let _ = (mappings, &self.settings, &self.managers, &self.metrics);
        Ok(Vec::new())
    }

    /// Drops every slot that nothing in `snapshot` names. Called after each swap.
    pub fn retain(&self, snapshot: &Snapshot) {
        let _ = snapshot;
    }

    /// Fetches `reference` past the cache and leaves the cache as it was. For `check --resolve`.
    ///
    /// # Errors
    /// [`FetchError`], classed.
    pub async fn probe(&self, reference: &Reference) -> Result<Probe, FetchError> {
        let _ = reference;
        Err(FetchError::new(FailureClass::Unavailable))
    }
}

/// What [`Resolver::probe`] saw. Never a value.
#[derive(Debug)]
pub struct Probe {
    /// Who asked, as [`crate::manager::SecretManager::identity`] names it.
    pub identity: Arc<str>,
    /// The manager's version.
    pub version: Option<Version>,
    /// How long the fetch took.
    pub elapsed: Duration,
    /// The picked value (or whole document), for the caller to fingerprint.
    pub value: Arc<Credential>,
}
