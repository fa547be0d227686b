//! `api_keys[]`: who a client is, what it may do, and how much of it.
//!
//! A key's secret is nowhere in a snapshot; its keyed hash is (HMAC-SHA-256 of the secret's text, hexadecimal, with the id of
//! the key it was made under).

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::{Account, Lifespan};

/// One dollar, in the unit of [`UsageLimit::limit`] and every cost.
pub const NANODOLLARS: u64 = 1_000_000_000;

/// A linked API key.
#[derive(Debug)]
pub struct ApiKey {
    /// Stable id; what counters, logs and the audit know a client by.
    pub id: Arc<str>,
    /// The workspace it belongs to (id); `None` = none in force.
    pub workspace_id: Option<Arc<str>>,
    /// What it may do on the data plane.
    pub scopes: Scopes,
    /// Usable or not. A key that is exhausted counts as active here.
    pub lifespan: Lifespan,
    /// How much it may use; `None` = as much as it likes.
    pub account: Option<Arc<Account>>,
    /// What its requests start from.
    pub defaults: Defaults,
    /// Why it was set aside; its requests are answered `reference_misconfigured`. Never a secret.
    pub fault: Option<Arc<str>>,
}

/// One hash of one key. A rotated key has two for a while.
#[derive(Debug)]
pub struct KeyHash {
    /// Which line of `api_key_hash_file` it was made under.
    pub kid: Arc<str>,
    /// HMAC-SHA-256 of the secret.
    pub hmac_sha256: [u8; 32],
    /// End of this secret; `None` = that of the key.
    pub expires_at: Option<OffsetDateTime>,
    /// Whose it is.
    pub key: Arc<ApiKey>,
}

/// `defaults` of a key.
#[derive(Debug)]
pub struct Defaults {
    /// Joined with the request's `x-portkey-metadata`, above it.
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// Slug of the stored config for requests that bring none.
    pub config: Option<Arc<str>>,
    /// Whether a request may bring a config of its own.
    pub allow_config_override: bool,
}

/// `rate_limits[]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What is counted.
    pub counts: Counted,
    /// Per which time.
    pub per: RateUnit,
    /// How many, at most.
    pub value: u64,
}

/// What a rate limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Requests that were let in.
    Requests,
    /// Tokens of their replies.
    Tokens,
}

/// The window of a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// `rps`.
    Second,
    /// `rpm`.
    Minute,
    /// `rph`.
    Hour,
    /// `rpd`.
    Day,
    /// `rpw`.
    Week,
}

/// `usage_limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageLimit {
    /// What is counted.
    pub counts: Spent,
    /// `credit_limit`: how much at most, in tokens or [`NANODOLLARS`].
    pub limit: u64,
    /// `alert_threshold`, in the same unit: from here on there is an alert.
    pub alert_threshold: Option<u64>,
    /// When it starts anew.
    pub reset: Reset,
    /// `next_usage_reset_at`: when it starts anew next, at a midnight of UTC.
    pub next_reset_at: Option<OffsetDateTime>,
    /// `usage_reset_at` of the owner: when somebody last had it start anew, in milliseconds since 1970; 0 = nobody did. Two
    /// that differ are two beginnings, whatever a clock says.
    pub reset_at: i64,
}

/// What a usage limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spent {
    /// Money.
    Cost,
    /// Tokens.
    Tokens,
}

/// When a usage limit starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reset {
    /// Not by itself.
    Never,
    /// `weekly`: Sunday, 00:00 UTC.
    Weekly,
    /// `monthly`: the first of a month, 00:00 UTC.
    Monthly,
    /// `periodic_reset_days`: every so many days, 00:00 UTC.
    Days(u16),
}

/// A set of [`Scope`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u64);

/// Every hash of every key.
#[derive(Debug, Default)]
pub(super) struct ApiKeys {
    by_hash: HashMap<[u8; 32], KeyHash>,
    keys: Vec<Arc<ApiKey>>,
}

/// One list, so that no scope is spelled twice or left out of [`Scope::ALL`].
macro_rules! scopes {
    ($($name:ident = $text:literal,)*) => {
        /// A permission of Portkey's public list that bears on the data plane; the others are the control plane's to judge.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Scope {
            $(#[doc = concat!("`", $text, "`.")] $name,)*
        }

        impl Scope {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The spelling.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

scopes! {
    CompletionsWrite = "completions.write",
    PromptsCreate = "prompts.create",
    PromptsRead = "prompts.read",
    PromptsUpdate = "prompts.update",
    PromptsDelete = "prompts.delete",
    PromptsList = "prompts.list",
    PromptsPublish = "prompts.publish",
    PromptsRender = "prompts.render",
    GuardrailsCreate = "guardrails.create",
    GuardrailsRead = "guardrails.read",
    GuardrailsUpdate = "guardrails.update",
    GuardrailsDelete = "guardrails.delete",
    GuardrailsList = "guardrails.list",
    GuardrailsInvoke = "guardrails.invoke",
    PoliciesCreate = "policies.create",
    PoliciesRead = "policies.read",
    PoliciesUpdate = "policies.update",
    PoliciesDelete = "policies.delete",
    PoliciesList = "policies.list",
    LogsExport = "logs.export",
    LogsList = "logs.list",
    LogsView = "logs.view",
    LogsWrite = "logs.write",
    AnalyticsView = "analytics.view",
    McpInvoke = "mcp.invoke",
    McpServersCreate = "mcp_servers.create",
    McpServersRead = "mcp_servers.read",
    McpServersUpdate = "mcp_servers.update",
    McpServersDelete = "mcp_servers.delete",
    McpServersList = "mcp_servers.list",
    AgentsInvoke = "agents.invoke",
    AgentServersCreate = "agent_servers.create",
    AgentServersRead = "agent_servers.read",
    AgentServersUpdate = "agent_servers.update",
    AgentServersDelete = "agent_servers.delete",
    AgentServersList = "agent_servers.list",
    AuditLogsList = "audit_logs.list",
}

// === impl RateUnit ===

impl RateUnit {
    /// All of them, from the shortest on.
    pub const ALL: [Self; 5] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week];

    /// The spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "rps",
            Self::Minute => "rpm",
            Self::Hour => "rph",
            Self::Day => "rpd",
            Self::Week => "rpw",
        }
    }
}

// === impl Counted ===

impl Counted {
    /// The spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

// === impl Spent ===

impl Spent {
    /// The spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Tokens => "tokens",
        }
    }
}

// === impl Defaults ===

impl Default for Defaults {
    fn default() -> Self {
        Self { metadata: None, config: None, allow_config_override: true }
    }
}

// === impl Scopes ===

impl Scopes {
    /// Those of `words` that bear on the data plane. Tokens may write them with the prefix `portkey.`.
    pub fn parse<'w>(words: impl IntoIterator<Item = &'w str>) -> Self {
        let known = words.into_iter().filter_map(|word| Scope::parse(word.strip_prefix("portkey.").unwrap_or(word)));
        known.collect()
    }

    /// Whether `scope` is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | (1 << scope as u8)))
    }
}

impl std::fmt::Debug for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries(Scope::ALL.iter().filter(|scope| self.contains(**scope)).map(|scope| scope.as_str()))
            .finish()
    }
}

// === impl ApiKeys ===

impl ApiKeys {
    /// The entry of a hash. To be compared in constant time before it is believed.
    pub(super) fn find(&self, hmac_sha256: &[u8; 32]) -> Option<&KeyHash> {
        self.by_hash.get(hmac_sha256)
    }

    /// Whether no key has this hash yet.
    pub(super) fn is_free(&self, hmac_sha256: &[u8; 32]) -> bool {
        !self.by_hash.contains_key(hmac_sha256)
    }

    /// Adds a key with its hashes, which are [free](Self::is_free).
    pub(super) fn insert(&mut self, key: Arc<ApiKey>, hashes: Vec<(Arc<str>, [u8; 32], Option<OffsetDateTime>)>) {
        for (kid, hmac_sha256, expires_at) in hashes {
            self.by_hash.insert(hmac_sha256, KeyHash { kid, hmac_sha256, expires_at, key: Arc::clone(&key) });
        }
        self.keys.push(key);
    }

    /// Every key, in document order.
    pub(super) fn keys(&self) -> &[Arc<ApiKey>] {
        &self.keys
    }

    /// Makes room.
    pub(super) fn reserve(&mut self, keys: usize) {
        self.by_hash.reserve(keys);
        self.keys.reserve(keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_the_scopes_it_was_given() {
        assert!(Scope::ALL.len() <= 64);
        for &scope in Scope::ALL {
            let prefixed = format!("portkey.{}", scope.as_str());
            for word in [scope.as_str(), &prefixed] {
                let scopes = Scopes::parse([word, "workspaces.create", ""]);
                for &other in Scope::ALL {
                    assert_eq!(scopes.contains(other), other == scope, "{word} {other:?}");
                }
            }
        }
        assert_eq!(Scopes::parse(["Completions.write", "completions.*", "completions"]), Scopes::default());
    }
}
