//! `webhook_listen` and `webhooks.*`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use http::HeaderName;
use url::Url;

use crate::proxy::TlsSettings;

/// What the operator decides about webhooks. A source that is `None` is not served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `webhook_listen`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// `webhooks.tls.*`; `None` = plain text.
    pub tls: Option<TlsSettings>,
    /// `webhooks.eventbridge.*`.
    pub eventbridge: Option<EventBridge>,
    /// `webhooks.event_grid.*`.
    pub event_grid: Option<EventGrid>,
    /// `webhooks.pubsub.*`.
    pub pubsub: Option<Pubsub>,
    /// `webhooks.doppler.*`.
    pub doppler: Option<Synced>,
    /// `webhooks.infisical.*`.
    pub infisical: Option<Synced>,
    /// `webhooks.hmac.*`.
    pub hmac: Option<Hmac>,
}

/// How the connection of an API destination authenticates.
#[derive(Clone, Debug)]
pub enum EventBridge {
    /// A header with a value that both sides know.
    ApiKey {
        /// `webhooks.eventbridge.api_key_header`.
        header: HeaderName,
        /// `webhooks.eventbridge.api_key_file`.
        file: PathBuf,
    },
    /// A bearer token that EventBridge gets from an authorization server of the operator's.
    OAuth {
        /// `webhooks.eventbridge.oauth_issuer`, as it stands in `iss`.
        issuer: String,
        /// `webhooks.eventbridge.oauth_audience`.
        audience: String,
        /// `webhooks.eventbridge.oauth_keys_url`; `None` = found by the issuer's discovery document.
        keys_url: Option<Url>,
    },
}

/// The Entra application that stands for the webhook, and who may hold a token for it.
#[derive(Clone, Debug)]
pub struct EventGrid {
    /// `webhooks.event_grid.audience`: its client id or application id URI, as the event subscription names it.
    pub audience: String,
    /// `webhooks.event_grid.tenant_id`.
    pub tenant_id: String,
    /// `webhooks.event_grid.app_id`: of whom delivers; Event Grid itself, or a managed identity.
    pub app_id: String,
    /// `webhooks.event_grid.authority_host`.
    pub authority_host: Url,
}

/// The identity of a push subscription.
#[derive(Clone, Debug)]
pub struct Pubsub {
    /// `webhooks.pubsub.audience`.
    pub audience: String,
    /// `webhooks.pubsub.service_account`.
    pub service_account: String,
    /// `webhooks.pubsub.issuer`.
    pub issuer: String,
}

/// A service that writes what it keeps into the manager of some references.
#[derive(Clone, Debug)]
pub struct Synced {
    /// `secret_file`.
    pub file: PathBuf,
    /// `references`: which, by slug or id.
    pub references: Vec<String>,
}

/// Our own scheme.
#[derive(Clone, Debug)]
pub struct Hmac {
    /// `webhooks.hmac.secret_file`.
    pub file: PathBuf,
    /// `webhooks.hmac.tolerance_secs`: how far the time in a signature may be from ours, either way.
    pub tolerance: Duration,
}

// === impl EventGrid ===

impl EventGrid {
    /// The application id of Event Grid in every tenant of Azure's public cloud.
    pub const APP_ID: &'static str = "4962773b-9cdb-44cf-a8bf-237846a00ab7";
    /// Entra in Azure's public cloud.
    pub const AUTHORITY: &'static str = "https://login.microsoftonline.com";
}

// === impl Pubsub ===

impl Pubsub {
    /// Who signs Google's tokens.
    pub const ISSUER: &'static str = "https://accounts.google.com";
}

// === impl Settings ===

impl Settings {
    /// A listener for no source yet.
    pub const fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            eventbridge: None,
            event_grid: None,
            pubsub: None,
            doppler: None,
            infisical: None,
            hmac: None,
        }
    }
}
