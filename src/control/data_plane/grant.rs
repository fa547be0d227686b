//! Whom a token stands for, remembered while no data plane changes, and how many calls of one there are.
//!
//! Thousands ask again after each write, and none of them is looked up in the database for it. What is remembered is found by
//! the digest of the token, so that neither the token nor a difference in time gives one away.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::control::{
    Control, DataPlane, Refusal,
    access::identify,
    key::{same, token_sha256},
    store::{Kind, Presented, now},
};

/// Tokens remembered at most; they are few.
const MAX_KNOWN: usize = 10_000;
/// Longest token that is hashed, in bytes; ours are far shorter.
const MAX_TOKEN_BYTES: usize = 512;

/// A data plane that is admitted.
#[derive(Clone, Debug)]
pub struct Grant {
    organisation: Arc<str>,
    /// Milliseconds since 1970; 0 = never.
    expires_at: i64,
    /// Of [`Grants`], when it was given.
    generation: u64,
    places: Arc<Semaphore>,
}

/// Who is admitted.
pub struct Grants {
    /// Whose those of the configuration are.
    organisation: Arc<str>,
    configured: Vec<DataPlane>,
    /// Calls at once of one data plane.
    most: usize,
    /// Another each time when data planes change.
    generation: AtomicU64,
    /// By digest of the token.
    known: Mutex<HashMap<String, Grant>>,
    /// By id; of those of the configuration by digest.
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
}

// === impl Grant ===

impl Grant {
    /// Whose snapshot it may read.
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    /// A place for one call.
    ///
    /// # Errors
    /// 429 when all are taken.
    pub fn take_place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| Refusal::too_many("this data plane has as many calls to the feed as limits.feed_connections"))
    }

    fn is_over(&self) -> bool {
        self.expires_at != 0 && self.expires_at <= now()
    }
}

// === impl Grants ===

impl Grants {
    /// Admits `configured` to what is `organisation`'s, and whom the store knows; each for `most` calls at once.
    pub fn new(organisation: String, configured: Vec<DataPlane>, most: usize) -> Self {
        Self {
            organisation: organisation.into(),
            configured,
            most,
            generation: AtomicU64::new(0),
            known: Mutex::default(),
            places: Mutex::default(),
        }
    }

    /// Something about data planes changed: nobody is known any more.
    pub fn forget(&self) {
        let mut known = lock(&self.known);
        self.generation.fetch_add(1, Ordering::SeqCst);
        known.clear();
    }

    /// Whether nothing has happened to `grant` since it was given.
    pub fn still_holds(&self, grant: &Grant) -> bool {
        grant.generation == self.generation.load(Ordering::SeqCst) && !grant.is_over()
    }

    fn remembered(&self, digest: &str) -> Option<Grant> {
        lock(&self.known).get(digest).filter(|grant| !grant.is_over()).cloned()
    }

    fn remember(&self, digest: String, grant: &Grant) {
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        // What was looked up before the last change says nothing about after it.
        if self.still_holds(grant) {
            known.insert(digest, grant.clone());
        }
    }

    fn is_configured(&self, digest: &str) -> bool {
        // All are compared, whichever it is.
        self.configured.iter().fold(false, |found, known| found | same(&known.token_sha256, digest))
    }

    fn places(&self, id: &str) -> Arc<Semaphore> {
        let new = || Arc::new(Semaphore::new(self.most));
        Arc::clone(lock(&self.places).entry(id.to_owned()).or_insert_with(new))
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants").field("configured", &self.configured.len()).finish_non_exhaustive()
    }
}

/// Whom `token` stands for.
///
/// # Errors
/// 500.
pub async fn admit(control: &Control, token: &str) -> Result<Option<Grant>, Refusal> {
    if token.len() > MAX_TOKEN_BYTES {
        return Ok(None);
    }
    let grants = control.feed().grants();
    let digest = token_sha256(token);
    if let Some(grant) = grants.remembered(&digest) {
        return Ok(Some(grant));
    }
    let generation = grants.generation.load(Ordering::SeqCst);
    let grant = if grants.is_configured(&digest) {
        Grant {
            organisation: Arc::clone(&grants.organisation),
            expires_at: 0,
            generation,
            places: grants.places(&digest),
        }
    } else {
        let Some(Presented { organisation, object, expires_at, .. }) =
            identify(control, Kind::DataPlane, token).await?
        else {
            return Ok(None);
        };
        Grant { organisation: organisation.into(), expires_at, generation, places: grants.places(&object.id) }
    };
    grants.remember(digest, &grant);
    Ok(Some(grant))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
