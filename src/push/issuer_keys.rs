//! The public keys of an issuer of tokens, found by its well-known address and kept for a while.
//!
//! Fetched when a token needs them, one fetch at a time, and at most once in [`REST`]: whoever sends tokens with invented key
//! names costs the issuer a request in ten seconds and the managers nothing. A name that was looked for in vain is not looked
//! for again soon; of any other that is not among the keys nobody can tell before the next fetch, and its sender is told to
//! come back, so that inventors of names delay the first use of a new key, and cannot have it refused. Older keys are used on
//! while the issuer cannot be reached, up to [`HARD_LIFETIME`]. Sources: OpenID Connect Discovery 1.0, section 4; RFC 7517.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Method};
use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{debug, warn};
use url::Url;
use zeroize::Zeroizing;

use super::jwt::{Jwk, PublicKey, Token};
use crate::egress::{Bounds, Call, Reach, Transport};

/// From this age on keys are fetched again, beside their use.
const LIFETIME: Duration = Duration::from_secs(3600);
/// From this age on they are not used.
const HARD_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Least time between two fetches.
const REST: Duration = Duration::from_secs(10);
/// How long a key is not looked for that a fetch did not bring.
const STRANGE_FOR: Duration = Duration::from_secs(60);
/// Most names of keys that are remembered as not being there; the oldest makes room.
const MAX_STRANGE: usize = 64;
/// Longest name of a key that is remembered, bytes. Issuers write digests and UUIDs.
const MAX_KID_BYTES: usize = 256;
/// Least time between two fetches after one that failed.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Longest wait of a delivery for a fetch.
const PATIENCE: Duration = Duration::from_secs(6);
/// Of one request; a fetch makes two.
const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(3), max_body: 256 << 10 };
/// Most keys of one issuer.
const MAX_KEYS: usize = 64;

/// The keys of one issuer.
#[derive(Debug)]
pub struct IssuerKeys {
    source: KeySource,
    transport: Arc<Transport>,
    state: Mutex<State>,
}

/// Where the keys are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A discovery document that names the key set.
    Discovery(Url),
    /// The key set.
    KeySet(Url),
}

/// Whether a token is signed by the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Yes.
    Yes,
    /// No.
    No,
    /// It cannot be told before the next fetch.
    Unknown,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<Held>,
    /// When the next fetch may begin.
    rested: Option<Instant>,
    fetching: Option<watch::Receiver<()>>,
    /// Names that a fetch did not bring, and until when they are not looked for.
    strange: VecDeque<(Box<str>, Instant)>,
}

#[derive(Clone, Debug)]
struct Held {
    keys: Arc<[PublicKey]>,
    fetched_at: Instant,
}

#[derive(Deserialize)]
struct Discovery {
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

// === impl KeySource ===

impl KeySource {
    /// The discovery document of `issuer`; `None` when it is not an https URL.
    pub fn of_issuer(issuer: &str) -> Option<Self> {
        let url = Url::parse(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))).ok()?;
        (url.scheme() == "https").then_some(Self::Discovery(url))
    }
}

// === impl IssuerKeys ===

impl IssuerKeys {
    /// Nothing is fetched yet.
    pub fn new(source: KeySource, transport: Arc<Transport>) -> Self {
        Self { source, transport, state: Mutex::default() }
    }

    /// Whether `token` is signed by the issuer. Waits for a fetch where one is needed and may be made.
    pub async fn signed(self: &Arc<Self>, token: &Token<'_>) -> Signed {
        let now = Instant::now();
        if let Some(held) = self.held(now)
            && held.keys.iter().any(|key| token.fits(key))
        {
            if now.saturating_duration_since(held.fetched_at) >= LIFETIME {
                drop(self.fetch(now));
            }
            return Signed::of(token, &held.keys);
        }
        if self.state().is_strange(token, now) {
            return Signed::No;
        }
        let Some(mut fetching) = self.fetch(now) else { return Signed::Unknown };
        // It ends by being dropped.
        let _ = timeout(PATIENCE, async { while fetching.changed().await.is_ok() {} }).await;
        let later = Instant::now();
        match self.held(later).filter(|held| held.fetched_at >= now) {
            Some(held) if held.keys.iter().any(|key| token.fits(key)) => Signed::of(token, &held.keys),
            Some(_) => {
                self.state().note_strange(token, later);
                Signed::No
            }
            None => Signed::Unknown,
        }
    }

    fn held(&self, now: Instant) -> Option<Held> {
        let held = self.state().keys.clone();
        held.filter(|held| now.saturating_duration_since(held.fetched_at) < HARD_LIFETIME)
    }

    /// Joins the fetch under way or begins one; `None` while it is to rest. Ends with the sender.
    fn fetch(self: &Arc<Self>, now: Instant) -> Option<watch::Receiver<()>> {
        let mut state = self.state();
        if let Some(fetching) = &state.fetching {
            return Some(fetching.clone());
        }
        if state.rested.is_some_and(|rested| now < rested) {
            return None;
        }
        let (announce, fetching) = watch::channel(());
        state.fetching = Some(fetching.clone());
        let keys = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = keys.read().await;
            let now = Instant::now();
            let mut state = keys.state();
            state.fetching = None;
            state.rested = Some(now + if fetched.is_some() { REST } else { REST_AFTER_FAILURE });
            if let Some(fetched) = fetched {
                state.keys = Some(Held { keys: fetched, fetched_at: now });
            }
            drop(state);
            drop(announce);
        });
        Some(fetching)
    }

    async fn read(&self) -> Option<Arc<[PublicKey]>> {
        let address = match &self.source {
            KeySource::KeySet(url) => url.clone(),
            KeySource::Discovery(url) => Url::parse(&self.get::<Discovery>(url).await?.jwks_uri).ok()?,
        };
        let set = self.get::<KeySet>(&address).await?.keys;
        let jwks = set.into_iter().take(MAX_KEYS).filter_map(|jwk| serde_json::from_value::<Jwk>(jwk).ok());
        let keys: Arc<[_]> = jwks.filter_map(PublicKey::from_jwk).collect();
        debug!(issuer = address.host_str(), keys = keys.len(), "The keys of a token issuer were fetched.");
        if keys.is_empty() {
            warn!(issuer = address.host_str(), "A token issuer publishes no key that can be used.");
        }
        (!keys.is_empty()).then_some(keys)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &Url) -> Option<T> {
        let host = url.host_str();
        if url.scheme() != "https" {
            warn!(issuer = host, "The keys of a token issuer are not at an https address.");
            return None;
        }
        let call = Call {
            method: Method::GET,
            url: url.clone(),
            headers: HeaderMap::new(),
            body: Zeroizing::default(),
            reach: Reach::Fixed,
        };
        let answer = match self.transport.send(call, BOUNDS).await {
            Ok(answer) => answer,
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                warn!(issuer = host, error, "The keys of a token issuer cannot be fetched.");
                return None;
            }
        };
        let parsed = answer.status.is_success().then(|| serde_json::from_slice(&answer.body).ok()).flatten();
        if parsed.is_none() {
            let status = answer.status.as_u16();
            warn!(issuer = host, status, "A token issuer answered with something else than its keys.");
        }
        parsed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn is_strange(&self, token: &Token<'_>, now: Instant) -> bool {
        token.kid.as_deref().is_some_and(|kid| self.strange.iter().any(|(name, until)| **name == *kid && now < *until))
    }

    fn note_strange(&mut self, token: &Token<'_>, now: Instant) {
        self.strange.retain(|(_, until)| now < *until);
        let Some(kid) = token.kid.as_deref().filter(|kid| kid.len() <= MAX_KID_BYTES) else { return };
        if self.strange.len() == MAX_STRANGE {
            self.strange.pop_front();
        }
        self.strange.push_back((kid.into(), now + STRANGE_FOR));
    }
}

// === impl Signed ===

impl Signed {
    fn of(token: &Token<'_>, keys: &[PublicKey]) -> Self {
        if keys.iter().any(|key| token.signed_by(key)) { Self::Yes } else { Self::No }
    }
}
