//! The control plane's objects: raw as they are written (serde), and linked as they are used.
//!
//! `raw` is the wire shape of a snapshot. [`link()`] turns it into a [`Snapshot`] whose mappings point at references and
//! whose entities carry their effective fields, so that nothing later re-checks: what cannot be linked is either a reason
//! to refuse the whole snapshot (strict) or is set aside with everything that depends on it.

mod account;
pub mod address;
mod api_key;
mod auth;
mod destination;
mod entity;
mod field;
mod link;
mod location;
mod mapping;
mod names;
mod raw;
mod reference;
mod seals;
mod snapshot;
mod status;
mod window;

pub use account::{Account, AccountKind};
pub use api_key::{
    ApiKey, Counted, Defaults, KeyHash, NANODOLLARS, RateLimit, RateUnit, Reset, Scope, Scopes, Spent, UsageLimit,
};
pub use auth::{
    Auth, AuthConfig, AuthError, AwsAuth, AwsMethod, AzureAuth, AzureMethod, GcpAuth, GcpMethod, ManagerType,
    OpenedAuth, VaultAuth, VaultMethod, inspect_auth,
};
pub use destination::fault as destination_fault;
pub use entity::{Deployment, Entity, EntityField, EntityKind, FieldValue};
pub use field::{FIELDS, FieldRole, FieldSet, FieldSpec};
pub use link::{Admission, LinkRules, Problem, SnapshotError, link};
pub use location::{LocationError, MAX_PATH_BYTES, SecretLocation, VersionSelector};
pub use mapping::{Mapping, TargetField, ValueFormat};
pub use reference::{Identity, Reference, Workspaces};
pub use seals::Stored;
pub use snapshot::{Caller, Hidden, Snapshot, StoredConfig};
pub use status::Lifespan;
pub use window::{Window, next_midnight};
