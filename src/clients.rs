//! Clients: who asks, what it may do, and how much of it.
//!
//! ```text
//! authenticate   presented → hash_keys → the snapshot's key, in one way and time for every stranger
//!                scope     what the path needs, and whether the key has it
//!                defaults  the key's metadata and config onto the request
//! admit          limits     requests, tokens and money per window of time, of key, workspace and virtual keys
//! settle         prices     what the answer has used, and what that costs
//!                ledger     and what of it the control plane is told
//! ```
//!
//! With `client_auth: none` everybody is let in and belongs to the workspace that the configuration names, if any. Portkey's
//! public documentation is the source of scopes, precedence and limits.

mod alerts;
mod defaults;
mod hash_keys;
mod ledger;
mod limits;
mod presented;
mod prices;
mod scope;

pub use self::{
    alerts::{AlertError, AlertSettings},
    hash_keys::{HashKeyError, HashKeys},
    limits::{OnFailure, Quota, Remaining, SharedSettings, StoreError, StoreSettings},
    prices::PriceError,
};

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::request::Parts;
use subtle::{Choice, ConstantTimeEq};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use self::{
    alerts::Alerts,
    hash_keys::HashKey,
    ledger::Ledger,
    limits::{Amounts, Limits, Shared},
    prices::Prices,
};
use crate::{
    dialect::usage::Usage,
    egress::Transport,
    feed::control_plane::Reporter,
    metric::{Metrics, OutcomeLabels},
    model::{
        Account, AccountKind, ApiKey, Caller, Counted, Defaults, Entity, KeyHash, Lifespan, RateUnit, Scope, Scopes,
        Snapshot, Spent,
    },
};

/// What the operator decides about clients.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `client_auth`.
    pub auth: Auth,
    /// `limits.price_file`; `None` = the prices that are built in.
    pub price_file: Option<PathBuf>,
    /// `limits.redis.*`; `None` = this process counts for itself.
    pub shared: Option<SharedSettings>,
    /// `limits.alerts.*`; `None` = log and metrics alone.
    pub alerts: Option<AlertSettings>,
    /// How often somebody is told what is used ([`Clients::report`]); `None` = nobody is.
    pub reports: Option<Duration>,
    /// What the time is.
    pub clock: Clock,
}

/// The wall clock that expiries and limits go by; a test has its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

/// `client_auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Whoever can connect is let in.
    Open {
        /// `workspace`: id or slug of the workspace every request belongs to; `None` = none in force.
        workspace: Option<String>,
    },
    /// A key of the snapshot is needed.
    ApiKey {
        /// `api_key_hash_file`.
        hash_file: PathBuf,
    },
}

/// Lets clients in, or not; one for the process.
#[derive(Debug)]
pub struct Clients {
    gate: Gate,
    clock: Clock,
    limits: Limits,
    prices: Prices,
    /// What the control plane is told, and how often; `None` = there is none.
    ledger: Option<(Ledger, Duration)>,
    metrics: Arc<Metrics>,
}

/// A client that was let in.
#[derive(Clone, Debug)]
pub struct Client {
    /// On whose behalf the request is made.
    pub caller: Caller,
    /// Its key; `None` with `client_auth: none`.
    pub key: Option<Arc<ApiKey>>,
    /// Whether the request can use up a budget.
    pub spends: bool,
    /// Whether its answer uses tokens even if it does not say so.
    pub generates: bool,
    /// Whether what its answer says was used is charged.
    pub charged: bool,
}

/// A request that was let in: who is charged for it.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Key and workspace, then virtual keys.
    accounts: Vec<Arc<Account>>,
    /// For how many of them the request is counted already. Of several virtual keys, the reply tells which was used.
    counted: usize,
    /// Whether the answer uses tokens even if it does not say so.
    pub generates: bool,
    /// Whether what the answer says was used is charged.
    pub charged: bool,
    /// What is left, for the client.
    pub quota: Quota,
}

/// Why clients cannot be let in as configured.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// `api_key_hash_file`.
    #[error("the keys of hashes cannot be used")]
    HashKeys(#[from] HashKeyError),
    /// `limits.price_file`.
    #[error("the prices cannot be used")]
    Prices(#[from] PriceError),
    /// `limits.redis.*`.
    #[error("counters cannot be shared")]
    Store(#[from] StoreError),
    /// `limits.alerts.*`.
    #[error("alerts cannot be sent")]
    Alerts(#[from] AlertError),
}

/// Why a client was not let in. `proxy/reject.rs` turns each into status and code.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not a key, or none that can be used now. The reason is for the log alone.
    #[error("the client is not known: {reason}")]
    Unauthorized {
        /// Why, in fixed words.
        reason: &'static str,
        /// The key, when it is one.
        key: Option<Arc<str>>,
    },
    /// The key was set aside when the snapshot was loaded.
    #[error("API key {key} is misconfigured: {reason}")]
    Misconfigured {
        /// The key's id.
        key: Arc<str>,
        /// Why, for the log.
        reason: Arc<str>,
    },
    /// The key may not do this.
    #[error("API key {key} lacks the scope {}", needed.as_str())]
    Scope {
        /// The key's id.
        key: Arc<str>,
        /// What the path needs.
        needed: Scope,
    },
    /// The request brings a config, and the key allows none.
    #[error("API key {key} allows no config but its own")]
    ConfigOverride {
        /// The key's id.
        key: Arc<str>,
    },
    /// There were too many requests.
    #[error("{} has reached {} {}", account.name, counts.as_str(), per.as_str())]
    RateLimited {
        /// Whose limit it is.
        account: Arc<Account>,
        /// Which limit.
        counts: Counted,
        /// Which limit.
        per: RateUnit,
        /// When its window is over.
        retry_after: Duration,
        /// What is left of all.
        quota: Box<Quota>,
    },
    /// A budget is used up.
    #[error("{} has used up its budget", account.name)]
    BudgetExhausted {
        /// Whose budget it is.
        account: Arc<Account>,
        /// Of what; `None` = the control plane says so.
        counts: Option<Spent>,
        /// When it starts anew; `None` = not by itself.
        over_at: Option<OffsetDateTime>,
    },
    /// It asks for a WebSocket session, in which nobody counts what is limited.
    #[error("{} has limits of tokens or money, which cannot be counted in WebSocket sessions", account.name)]
    Session {
        /// Whose limits they are.
        account: Arc<Account>,
    },
    /// Counters are shared, their store is away, and nobody is to be let in without it.
    #[error("the shared counters of limits cannot be asked")]
    Uncounted,
    /// `x-portkey-metadata` cannot be joined with the key's.
    #[error("x-portkey-metadata is no JSON object, or stands twice")]
    Metadata,
}

#[derive(Debug)]
enum Gate {
    Open { workspace: Option<String> },
    ApiKey { keys: HashKeys },
}

/// What a stranger's secret is compared with, so that a hash that leads nowhere takes the way of one that does. It has
/// expired, so that it lets nobody in even if somebody knew a secret of this hash.
static NOBODY: LazyLock<KeyHash> = LazyLock::new(|| KeyHash {
    kid: "".into(),
    hmac_sha256: [0; 32],
    expires_at: Some(OffsetDateTime::UNIX_EPOCH),
    key: Arc::new(ApiKey {
        id: "".into(),
        workspace_id: None,
        scopes: Scopes::default(),
        lifespan: Lifespan { active: false, expires_at: None },
        account: None,
        defaults: Defaults::default(),
        fault: None,
    }),
});

// === impl Auth ===

impl Default for Auth {
    fn default() -> Self {
        Self::Open { workspace: None }
    }
}

// === impl Clock ===

impl Clock {
    /// A clock that shows what `read` returns.
    pub fn new(read: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(OffsetDateTime::now_utc)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

// === impl Denied ===

impl Denied {
    /// Whose limit it was that had no room.
    pub fn full(&self) -> Option<&Arc<Account>> {
        match self {
            Self::RateLimited { account, .. } | Self::BudgetExhausted { account, .. } => Some(account),
            Self::Unauthorized { .. }
            | Self::Misconfigured { .. }
            | Self::Scope { .. }
            | Self::ConfigOverride { .. }
            | Self::Session { .. }
            | Self::Uncounted
            | Self::Metadata => None,
        }
    }

    /// Id of the key, if it is known; for the log.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Unauthorized { key, reason: _ } => key.as_deref(),
            Self::Misconfigured { key, .. } | Self::Scope { key, .. } | Self::ConfigOverride { key } => Some(key),
            Self::RateLimited { account, .. } | Self::BudgetExhausted { account, .. } | Self::Session { account } => {
                match account.kind {
                    AccountKind::ApiKey => Some(&account.id),
                    AccountKind::VirtualKey | AccountKind::Workspace => None,
                }
            }
            Self::Uncounted | Self::Metadata => None,
        }
    }
}

// === impl ClientsError ===

impl ClientsError {
    /// The key of the configuration that is at fault.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::HashKeys(_) => "api_key_hash_file",
            Self::Prices(_) => "limits.price_file",
            Self::Store(_) => "limits.redis.url_file",
            Self::Alerts(_) => "limits.alerts.secret_file",
        }
    }
}

// === impl Settings ===

impl Settings {
    /// The workspace every request belongs to, as it is configured.
    pub fn workspace(&self) -> Option<&str> {
        match &self.auth {
            Auth::Open { workspace } => workspace.as_deref(),
            Auth::ApiKey { .. } => None,
        }
    }

    /// Whether clients have to show a key.
    pub const fn authenticates(&self) -> bool {
        match self.auth {
            Auth::Open { .. } => false,
            Auth::ApiKey { .. } => true,
        }
    }
}

// === impl Clients ===

impl Clients {
    /// Clients by `settings`.
    ///
    /// # Errors
    /// [`ClientsError`] when a file cannot be used.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, ClientsError> {
        let gate = match settings.auth {
            Auth::Open { workspace } => Gate::Open { workspace },
            Auth::ApiKey { hash_file } => Gate::ApiKey { keys: HashKeys::load(hash_file)? },
        };
        let prices = Prices::load(settings.price_file)?;
        let shared = settings.shared.map(|shared| Shared::new(shared, Arc::clone(&metrics))).transpose()?;
        let alerts = settings.alerts.map(|alerts| Alerts::new(alerts, Arc::clone(&metrics))).transpose()?;
        let limits = Limits::new(shared, alerts, Arc::clone(&metrics));
        let ledger = settings.reports.map(|every| (Ledger::default(), every));
        Ok(Self { gate, clock: settings.clock, limits, prices, ledger, metrics })
    }

    /// Decides whether the client of a request may make it, and puts what its key says onto the head.
    ///
    /// # Errors
    /// [`Denied`]; the request goes no further.
    pub fn authenticate(&self, head: &mut Parts, snapshot: &Snapshot) -> Result<Client, Denied> {
        let (method, path) = (&head.method, head.uri.path());
        let (spends, generates) = (scope::spends(method, path), scope::generates(method, path));
        let charged = scope::charged(method, path);
        let keys = match &self.gate {
            Gate::Open { workspace } => {
                // A workspace that the snapshot does not know stays in force under its name, and so may use nothing of its own.
                let workspace = workspace.as_deref().map(|configured| match snapshot.workspace_id(configured) {
                    Some(id) => id.clone(),
                    None => configured.into(),
                });
                return Ok(Client { caller: Caller { workspace }, key: None, spends, generates, charged });
            }
            Gate::ApiKey { keys } => keys,
        };
        let unauthorized = |reason, key| Denied::Unauthorized { reason, key };
        let now = self.now();
        let presented = presented::take(&mut head.headers).map_err(|reason| unauthorized(reason, None))?;
        let key = recognize(&keys.current(), presented.as_bytes(), |digest| snapshot.api_key(digest), now)
            .map_err(|(reason, id)| unauthorized(reason, (!id.is_empty()).then_some(id)))?;
        if let Some(reason) = &key.fault {
            return Err(Denied::Misconfigured { key: Arc::clone(&key.id), reason: Arc::clone(reason) });
        }
        if let Some(needed) = scope::needed(&head.method, head.uri.path())
            && !key.scopes.contains(needed)
        {
            return Err(Denied::Scope { key: Arc::clone(&key.id), needed });
        }
        defaults::apply(key, &mut head.headers)?;
        let caller = Caller { workspace: key.workspace_id.clone() };
        Ok(Client { caller, key: Some(Arc::clone(key)), spends, generates, charged })
    }

    /// Counts a request of `client` that is to be made with `entities`, if all that are charged for it have room for one;
    /// `session`: it asks for a WebSocket, along with which nobody reads.
    ///
    /// # Errors
    /// [`Denied`]; it goes no further, and is not counted.
    pub async fn admit(
        &self,
        client: &Client,
        entities: &[Arc<Entity>],
        snapshot: &Snapshot,
        session: bool,
    ) -> Result<Admission, Denied> {
        let workspace = client.caller.workspace.as_deref().and_then(|id| snapshot.workspace_account(id));
        let key = client.key.as_ref().and_then(|key| key.account.as_ref());
        let mut accounts: Vec<_> = key.into_iter().chain(workspace).cloned().collect();
        let mut counted = accounts.len();
        for account in entities.iter().filter_map(|entity| entity.account.as_ref()) {
            if !accounts.iter().any(|other| Arc::ptr_eq(other, account)) {
                accounts.push(Arc::clone(account));
            }
        }
        if entities.len() <= 1 {
            counted = accounts.len();
        }
        if session && let Some(account) = accounts.iter().find(|account| limits::needs_usage(account)) {
            return Err(Denied::Session { account: Arc::clone(account) });
        }
        let quota = self.limits.admit(&accounts, counted, client.spends, self.now()).await?;
        Ok(Admission { accounts, counted, generates: client.generates, charged: client.charged, quota })
    }

    /// Charges what the answer to a request has used; `asked` is the model that was asked for.
    pub fn settle(&self, admission: &Admission, usage: &Usage, asked: Option<&str>) {
        let (cost, listed) = self.prices.cost(usage.model.as_deref(), asked, &usage.tokens);
        if usage.tokens.total() > 0 {
            let outcome = if usage.estimated { "estimated" } else { "counted" };
            self.metrics.usage_answers.get_or_create(&OutcomeLabels { outcome }).inc();
            if !listed {
                self.metrics.usage_unpriced.inc();
            }
        }
        let now = self.now();
        for (at, account) in admission.accounts.iter().enumerate() {
            let requests = u64::from(at >= admission.counted);
            let amounts = Amounts { requests, tokens: usage.tokens.total(), cost };
            self.limits.settle(account, amounts, now);
            if let Some((ledger, _)) = &self.ledger {
                ledger.add(account, amounts, now);
            }
        }
    }

    /// Delivers alerts until `end`.
    pub async fn alert(&self, transport: Arc<Transport>, end: CancellationToken) {
        end.run_until_cancelled(self.limits.alert(&transport)).await;
    }

    /// Tells the control plane what is used until `end`, and then once more. Nothing to do where that is not set.
    pub async fn report(&self, to: Reporter, end: CancellationToken) {
        if let Some((ledger, every)) = &self.ledger {
            ledger.report(to, *every, &self.metrics, end).await;
        }
    }

    /// Shares counters until `end`, and then once more.
    pub async fn share(&self, end: CancellationToken) {
        end.run_until_cancelled(self.limits.share()).await;
        self.limits.farewell().await;
    }

    /// What the time is.
    pub fn now(&self) -> OffsetDateTime {
        (self.clock.0)()
    }

    /// Looks for changed files, and forgets what is over.
    pub fn refresh(&self, snapshot: Option<&Snapshot>) {
        match &self.gate {
            Gate::Open { .. } => {}
            Gate::ApiKey { keys } => keys.refresh(),
        }
        self.prices.refresh();
        self.limits.refresh();
        if let Some(snapshot) = snapshot {
            self.limits.sweep(snapshot, self.now());
        }
    }
}

// === impl Admission ===

impl Admission {
    /// Whether there is something to settle: tokens or money are limited, or it is not known yet whose request it was.
    pub fn is_open(&self) -> bool {
        self.counted < self.accounts.len() || (self.charged && self.counts_usage())
    }

    /// Whether tokens or money are limited.
    fn counts_usage(&self) -> bool {
        self.accounts.iter().any(|account| limits::needs_usage(account))
    }

    /// It turned out that of all virtual keys these were used.
    pub fn used(&mut self, entities: &[Arc<Entity>]) {
        let is_used = |account: &Arc<Account>| {
            entities.iter().filter_map(|entity| entity.account.as_ref()).any(|used| Arc::ptr_eq(used, account))
        };
        let mut at = 0;
        let counted = self.counted;
        self.accounts.retain(|account| {
            at += 1;
            at <= counted || is_used(account)
        });
    }
}

/// The key that `presented` is a live secret of. Strangers, wrong secrets and keys that ended all take the same steps: as
/// many hashes as there are lines in the hash file, one look-up and one comparison for each, one decision at the end.
fn recognize<'s>(
    keys: &[HashKey],
    presented: &[u8],
    find: impl Fn(&[u8; 32]) -> Option<&'s KeyHash>,
    now: OffsetDateTime,
) -> Result<&'s Arc<ApiKey>, (&'static str, Arc<str>)> {
    let nobody: &KeyHash = &NOBODY;
    let mut known: Option<&'s KeyHash> = None;
    for key in keys {
        let digest = key.hash(presented);
        let found = find(&digest);
        let candidate = found.unwrap_or(nobody);
        let equal = candidate.hmac_sha256.ct_eq(&digest)
            & candidate.kid.as_bytes().ct_eq(key.kid().as_bytes())
            & Choice::from(u8::from(presented::is_possible(presented)));
        known = if bool::from(equal) { found } else { known };
    }
    let hash = known.unwrap_or(nobody);
    let live = hash.expires_at.is_none_or(|end| now < end) & hash.key.lifespan.usable_at(now);
    match (live, known) {
        (true, Some(hash)) => Ok(&hash.key),
        (_, None) => Err(("no such key", Arc::clone(&hash.key.id))),
        (false, Some(_)) => Err(("the key is not active, or it or this secret has expired", Arc::clone(&hash.key.id))),
    }
}

#[cfg(test)]
mod tests;
