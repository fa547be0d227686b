//! Secret mappings → credentials: cache, freshness, coalesced fetch, pick.
//!
//! The unit of fetching and caching is the document (identity + path + version), so that five keys of one JSON secret cost
//! one read. Whether a remembered document may be served is decided by [`freshness`] alone.
//!
//! ```text
//! mapping → slot of its document → judge ─ fresh, stale ───────────────────→ pick → credential
//!                                        ├ refresh ahead, stale → flight, nobody waits for it
//!                                        ├ fetch → flight (one for each document) → next slot → pick
//!                                        └ refused → error
//! a provider refuses it → inquiry (one for each document): reads again → quest: what to send instead
//!                                                                      └ overlap: the version before
//! ```

mod budget;
mod cache;
mod denials;
mod document;
mod engine;
mod expiry;
mod flight;
pub mod freshness;
mod inquiry;
mod meter;
mod overlap;
pub mod pick;
pub mod prewarm;
mod quest;
mod slot;
mod uses;

pub use self::{
    expiry::Expiry,
    inquiry::Suspicion,
    quest::{Quest, Replacement},
    uses::{Unusable, Uses},
};

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::time::Instant;

use self::{
    document::Document,
    engine::{Engine, Look},
    flight::Answer,
    pick::Wanted,
    quest::Suspect,
    slot::SlotKey,
};
use crate::{
    manager::{FailureClass, FetchError, Fetched, Managers, Version},
    metric::Metrics,
    model::{Mapping, Reference, Snapshot},
    secret::Credential,
};

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
    /// `recovery.*`: what happens when a provider refuses a value.
    pub suspicion: Suspicion,
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

/// Resolves mappings. Holds every cached document of the process; share it as `Arc<Resolver>`.
pub struct Resolver {
    engine: Arc<Engine>,
}

/// What [`Resolver::probe`] saw.
#[derive(Debug)]
pub struct Probe {
    /// Who asked, as [`crate::manager::SecretManager::identity`] names it; `None` when there was nobody to ask as.
    pub identity: Option<Arc<str>>,
    /// How long the fetch took.
    pub elapsed: Duration,
    /// What came of it.
    pub outcome: Result<Probed, FetchError>,
}

/// What a probe that succeeded read. Prints no value.
#[derive(Debug)]
pub struct Probed {
    /// The manager's version.
    pub version: Option<Version>,
    /// The picked value (or whole document), for the caller to fingerprint.
    pub value: Arc<Credential>,
    /// The mappings that do not find theirs.
    pub unusable: Vec<Unusable>,
}

/// What is remembered for one reference. Never a value.
#[derive(Debug)]
pub struct SlotStatus {
    /// Which.
    pub reference: Arc<Reference>,
    /// What a request would find now; where its mappings differ, the one that is served worst.
    pub state: SlotState,
    /// Time since the fetch of the remembered document.
    pub age: Option<Duration>,
    /// Its version.
    pub version: Option<Version>,
    /// Failed reads in a row since.
    pub failures: u32,
    /// Class of the last of them; [`FailureClass::Malformed`] too when a mapping does not find its value in what was read.
    pub class: Option<FailureClass>,
    /// The mappings that do not.
    pub unusable: Vec<Unusable>,
    /// Whether a request asked for it since it was fetched.
    pub used: bool,
}

/// The state of a slot, as a request would find it; from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotState {
    /// Fresh.
    Fresh,
    /// Past its soft lifetime, before the hard bound.
    Stale,
    /// Nothing is remembered, or nothing that may be served: a request would wait for a read.
    Empty,
    /// Nothing may be served, and the last failure still stands.
    Refused,
}

// === impl Outcome ===

impl Outcome {
    /// The spelling of logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

// === impl Resolver ===

impl Resolver {
    /// A resolver with an empty cache. Starts its maintenance task, which ends with it.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(settings: Settings, managers: Arc<dyn Managers>, metrics: Arc<Metrics>) -> Self {
        let engine = Arc::new(Engine::new(settings, managers, metrics));
        tokio::spawn(engine::maintain(Arc::downgrade(&engine)));
        Self { engine }
    }

    /// Resolves `mappings` in parallel; the answer stands in the same order. A hit does not wait for anything.
    ///
    /// The caller has checked that whoever asks may use these mappings: the cache does not know workspaces.
    ///
    /// # Errors
    /// [`ResolveError`] of the first mapping that cannot be resolved.
    pub async fn resolve(&self, mappings: &[Arc<Mapping>]) -> Result<Vec<Resolved>, ResolveError> {
        let (now, wall_clock) = (Instant::now(), OffsetDateTime::now_utc());
        let mut resolved = Vec::with_capacity(mappings.len());
        let mut rest = mappings.iter();
        for mapping in rest.by_ref() {
            match self.engine.look(mapping, now, wall_clock)? {
                Look::Found(found) => resolved.push(found),
                Look::Awaits(flight) => {
                    // Every flight is in the air before the first is waited for.
                    let looks: Vec<_> =
                        rest.as_slice().iter().map(|mapping| self.engine.look(mapping, now, wall_clock)).collect();
                    resolved.push(self.engine.land(mapping, flight).await?);
                    for (mapping, look) in rest.zip(looks) {
                        resolved.push(match look? {
                            Look::Found(found) => found,
                            Look::Awaits(flight) => self.engine.land(mapping, flight).await?,
                        });
                    }
                    break;
                }
            }
        }
        Ok(resolved)
    }

    /// Drops every slot that nothing in `snapshot` names, and stores nothing of reads of such that are under way. Called after
    /// each swap.
    pub fn retain(&self, snapshot: &Snapshot) {
        let mut named = HashMap::with_capacity(snapshot.references.len());
        for reference in &snapshot.references {
            let ttl = reference.ttl.unwrap_or(self.engine.settings.ttl);
            let longest = named.entry(SlotKey::of(reference)).or_insert(ttl);
            *longest = ttl.max(*longest);
        }
        self.engine.overlaps.retain(|key| named.contains_key(key));
        self.engine.cache.retain(named);
        self.engine.tidy();
    }

    /// Reads every remembered document again, used or not, a few hundred at a time, and returns when all have landed. A read
    /// that fails leaves what is remembered as it would for a request.
    pub async fn refresh_all(&self) {
        self.engine.refresh_all().await;
    }

    /// The search for something to send in place of values that were refused: the mappings, and what was sent for each.
    pub fn quest(&self, refused: impl Iterator<Item = (Arc<Mapping>, Arc<Credential>)>) -> Quest {
        Quest::new(Arc::clone(&self.engine), refused)
    }

    /// Has a value that was refused looked after, for those who come later. Waits for nothing.
    pub fn report(&self, mapping: &Arc<Mapping>, refused: &Arc<Credential>) {
        Suspect::new(Arc::clone(mapping), Arc::clone(refused)).report(&self.engine);
    }

    /// What a signal from outside can do, and nothing more.
    pub fn expiry(&self) -> Expiry {
        Expiry::new(Arc::clone(&self.engine))
    }

    /// Reads the document of `reference` again now, whatever is remembered of it and however lately a read failed; joins a
    /// read that is under way. What is remembered then.
    ///
    /// # Errors
    /// [`FailureClass::Misconfigured`] when the reference is not active; nothing is read then.
    pub async fn refresh(&self, reference: &Arc<Reference>, uses: &Uses) -> Result<SlotStatus, FetchError> {
        usable(reference)?;
        self.engine.refresh(reference).await;
        Ok(self.engine.status(reference, uses, Instant::now()))
    }

    /// Fetches `reference` past the cache and leaves the cache as it was. For operators.
    pub async fn probe(&self, reference: &Reference, uses: &Uses) -> Probe {
        if let Err(error) = usable(reference) {
            return Probe { identity: None, elapsed: Duration::ZERO, outcome: Err(error) };
        }
        let Answer { result, identity, asked_at, at } = self.engine.ask(reference, &reference.location, None).await;
        let outcome = result.and_then(|fetched| {
            let Fetched::Document { value, map, version, not_after: _ } = fetched else {
                return Err(FetchError::new(FailureClass::Malformed).with_code("unchanged"));
            };
            let document = Document::new(value, map, version);
            let value = document
                .pick(&Wanted::by_reference(reference, map))
                .map_err(|error| FetchError::new(FailureClass::Malformed).with_source(error))?;
            let unusable = uses.unusable(reference, &document);
            Ok(Probed { version: document.version().cloned(), value, unusable })
        });
        Probe { identity, elapsed: at.saturating_duration_since(asked_at), outcome }
    }

    /// What is remembered for each reference of `snapshot`, in its order, as the mappings in `uses` see it.
    pub fn slots(&self, snapshot: &Snapshot, uses: &Uses) -> Vec<SlotStatus> {
        let now = Instant::now();
        snapshot.references.iter().map(|reference| self.engine.status(reference, uses, now)).collect()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("cache", &self.engine.cache).finish_non_exhaustive()
    }
}

/// Whether the control plane lets `reference` be used now.
fn usable(reference: &Reference) -> Result<(), FetchError> {
    if reference.lifespan.usable_at(OffsetDateTime::now_utc()) {
        return Ok(());
    }
    Err(FetchError::new(FailureClass::Misconfigured).with_code("inactive"))
}
