//! Accounts: whose requests, tokens and money are counted, and how much each may use.
//!
//! API keys, virtual keys and workspaces have limits of one form. Amounts are whole: requests, tokens, and for money
//! nano-dollars, so that sums never round.

use std::sync::Arc;

use super::{RateLimit, UsageLimit};

/// Somebody or something with limits. What has none has no account.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    /// What it is.
    pub kind: AccountKind,
    /// Its id.
    pub id: Arc<str>,
    /// Kind and id, `api_key/ID`: what counters are known by, in this process and in a shared store. Never a secret.
    pub name: Arc<str>,
    /// Whether the control plane says that its budget is spent (status `exhausted`).
    pub exhausted: bool,
    /// How much per time; one for each unit and counted thing.
    pub rate_limits: Arc<[RateLimit]>,
    /// How much per period.
    pub usage_limits: Arc<[UsageLimit]>,
}

/// What an account is that of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountKind {
    /// `api_keys[]`.
    ApiKey,
    /// `virtual_keys[]`.
    VirtualKey,
    /// `workspaces[]`.
    Workspace,
}

// === impl Account ===

impl Account {
    /// An account; `None` when there is nothing to hold it to.
    pub fn new(
        kind: AccountKind,
        id: &Arc<str>,
        exhausted: bool,
        rate_limits: Vec<RateLimit>,
        usage_limits: Vec<UsageLimit>,
    ) -> Option<Arc<Self>> {
        if !exhausted && rate_limits.is_empty() && usage_limits.is_empty() {
            return None;
        }
        let name = format!("{}/{id}", kind.as_str()).into();
        let (rate_limits, usage_limits) = (rate_limits.into(), usage_limits.into());
        Some(Arc::new(Self { kind, id: Arc::clone(id), name, exhausted, rate_limits, usage_limits }))
    }

    /// An account that may use nothing: what limits it has could not be read.
    pub fn closed(kind: AccountKind, id: &Arc<str>) -> Arc<Self> {
        let name = format!("{}/{id}", kind.as_str()).into();
        let (rate_limits, usage_limits) = ([].into(), [].into());
        Arc::new(Self { kind, id: Arc::clone(id), name, exhausted: true, rate_limits, usage_limits })
    }
}

// === impl AccountKind ===

impl AccountKind {
    /// The spelling of names and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::VirtualKey => "virtual_key",
            Self::Workspace => "workspace",
        }
    }
}
