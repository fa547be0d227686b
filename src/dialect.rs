//! How a gateway's requests name entities and receive credentials (one dialect so far: [`portkey`]), and how answers say what
//! they have used ([`usage`]).

pub mod portkey;
pub mod usage;

use std::sync::Arc;

/// Why a request was refused before anything was fetched. `proxy/reject.rs` turns each into status and code.
///
/// Fields hold names only, never a credential or a client's value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The path is not served.
    #[error("path is not served")]
    NotFound,
    /// Slugs that name nothing the caller may use. `reasons` are for the log.
    #[error("names nothing usable: {}", slugs.join(", "))]
    EntityNotFound {
        /// As the request wrote them, without `@`.
        slugs: Vec<String>,
        /// Why each is hidden, in the same order.
        reasons: Vec<String>,
    },
    /// The entity, or what it inherits from, is not active or has expired.
    #[error("entity {slug} is inactive")]
    EntityInactive {
        /// The entity.
        slug: Arc<str>,
    },
    /// The entity was set aside when the snapshot was loaded.
    #[error("entity {slug} is misconfigured: {reason}")]
    Misconfigured {
        /// The entity.
        slug: Arc<str>,
        /// Why, for the log.
        reason: Arc<str>,
    },
    /// `x-portkey-config` cannot be used.
    #[error("invalid config: {reason}")]
    InvalidConfig {
        /// What to mend; goes to the client, so it names keys and no values.
        reason: String,
    },
    /// The body cannot be used.
    #[error("invalid body: {reason}")]
    InvalidBody {
        /// What to mend; goes to the client.
        reason: String,
    },
    /// The request names no entity and `unmatched: reject` is set.
    #[error("names no entity")]
    NoEntity,
    /// As [`PlanError::NoEntity`], and the body was too large to look for one.
    #[error("body is too large to look for an entity")]
    BodyTooLarge,
    /// No Azure deployment matches the model and none is the default.
    #[error("no deployment of {slug} matches")]
    NoDeployment {
        /// The entity.
        slug: Arc<str>,
    },
    /// The request tries to choose where a credential goes, or to steer the gateway where it may not.
    #[error("destination not allowed by {input}")]
    DestinationNotAllowed {
        /// The header, config key, query or path element that tried.
        input: String,
    },
}
