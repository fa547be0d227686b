//! Where managers may connect. Addresses in references come from tenants and are attack input: checked when a snapshot is
//! loaded and again on the resolved address when a connection is made (resolve once, check all, connect to the checked one).

use std::net::IpAddr;

use ipnet::IpNet;
use url::Url;

/// `egress.*`: what the operator opened. The default opens nothing private.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `egress.allow_hosts`: exact, or a suffix with a leading dot.
    pub allow_hosts: Vec<String>,
    /// `egress.allow_cidrs`.
    pub allow_cidrs: Vec<IpNet>,
    /// `egress.proxy_url`: an HTTP proxy for every manager, without user-info. The proxy resolves names, so that behind one
    /// only names and literal addresses can be checked.
    pub proxy_url: Option<Url>,
}

/// Decides whether a manager may connect to an address.
#[derive(Clone, Debug)]
pub struct Policy {
    settings: Settings,
}

/// Why an address is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// For people: what is refused and which setting would open it.
    pub reason: String,
}

// === impl Policy ===

impl Policy {
    /// The policy with `settings`.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Everything that can be told from the URL alone, at load.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        let _ = (url, &self.settings);
        Ok(())
    }

    /// Whether a resolved address of `host` may be connected to.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let _ = (host, address);
        Ok(())
    }
}
