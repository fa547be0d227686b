//! The control plane: Portkey's admin API over a store that keeps references and seals, and never a credential.
//!
//! # The map
//!
//! ```text
//! server   listens, TLS, drain → routes  method and path → one function of one resource; request id and log line
//!    → access    who calls (API key → organisation, workspace, role, scopes), what that caller may do and see
//!    → fields    the body, read where it stands; every fault at once       query  page and filters of a list
//!    → <resource>  secret_reference, workspace, integration, …: `Body` (what its rows hold), its rules, its handlers
//!    → sealing   a credential → its seal and its mask, or a refusal
//!    → feed      the snapshot, for those whom data_plane admits; woken by each commit
//!    → usage     what data planes have counted, and how far an account is with its budgets
//!    → store     one transaction a write: version, rows, audit record; everything through the organisation of the caller
//!    ← answer, refusal   the shapes and codes of the admin API
//! ```
//!
//! # To add a resource
//!
//! 1. [`store::Kind`] has its row. What only it has is a `Body` in a file of its own, `#[serde(default)]` on what comes later.
//! 2. Copy [`secret_reference`]: `create`, `list`, `read`, `update`, `delete` are the same five everywhere, in this order:
//!    `caller.may`, `fields`, `caller.write`, find, read every field, `fields.finish`, write, `commit(Change)`.
//! 3. What names another object is recorded with [`store::Write::set_uses`], so that the other cannot be removed under it.
//! 4. A credential goes through [`sealing::Sealer::seal`] from where it stands in the body, and nowhere else.
//! 5. A route in `routes`, a word about it in `openapi/operations.json`, a row in the isolation table of `tests/it/control`.
//!
//! The room may name rows 0 and 1 only, and of `seal` the closing half: it cannot reach a secret.

pub mod access;
pub mod answer;
pub mod api_key;
pub mod audit_log;
mod bootstrap;
pub mod config;
pub mod data_plane;
pub mod feed;
pub mod fields;
pub mod integration;
pub mod key;
pub mod limits;
pub mod mapping;
mod mcp;
mod openapi;
pub mod provider;
pub mod provider_fields;
pub mod query;
mod refusal;
mod routes;
pub mod sealing;
pub mod secret_reference;
mod server;
mod settings;
pub mod slug;
pub mod store;
pub mod usage;
pub mod virtual_key;
pub mod workspace;

pub use access::{Caller, Verb};
pub use answer::Answer;
pub use bootstrap::BootstrapError;
pub use refusal::Refusal;
pub use server::{Server, TlsSource};
pub use settings::{DataPlane, Settings};

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use url::Url;

use self::{feed::Feed, key::Hasher, sealing::Sealer, store::Store};

/// Whether a data plane, or the gateway behind it, may be sent to an address; the error is a reason for people.
pub type AdmitAddress = Arc<dyn Fn(&Url) -> Result<(), String> + Send + Sync>;

/// Whether a data plane would take this text as a config, and may keep it; the error is a reason for people.
pub type CheckConfig = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What only the data plane's side can judge; this room does not reach it.
#[derive(Clone)]
pub struct Judges {
    /// Of managers that a data plane reads from.
    pub admit_address: AdmitAddress,
    /// Of base URLs that the gateway sends credentials to. Those no credential may go to are refused without it.
    pub admit_base_url: AdmitAddress,
    /// Of stored configs.
    pub check_config: CheckConfig,
}

/// What every call is answered with.
pub struct Control {
    store: Store,
    sealer: Sealer,
    hasher: ArcSwap<Hasher>,
    feed: Feed,
    admit_address: AdmitAddress,
    admit_base_url: AdmitAddress,
    check_config: CheckConfig,
    leaving: AtomicBool,
}

// === impl Judges ===

impl fmt::Debug for Judges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judges").finish_non_exhaustive()
    }
}

// === impl Control ===

impl Control {
    /// A control plane over `store`.
    pub fn new(store: Store, sealer: Sealer, hasher: Hasher, feed: Feed, judges: Judges) -> Self {
        let Judges { admit_address, admit_base_url, check_config } = judges;
        Self {
            store,
            sealer,
            hasher: ArcSwap::from_pointee(hasher),
            feed,
            admit_address,
            admit_base_url,
            check_config,
            leaving: AtomicBool::new(false),
        }
    }

    /// Has `/readyz` say that calls should go elsewhere. They are answered all the same.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// What it remembers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What data planes are told.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    fn replace_hasher(&self, hasher: Hasher) {
        self.hasher.store(Arc::new(hasher));
        // What was found by a key that may be gone now.
        self.feed.grants().forget();
    }

    fn hasher(&self) -> Arc<Hasher> {
        self.hasher.load_full()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("store", &self.store).finish_non_exhaustive()
    }
}
