//! The rules for addresses that tenants write (CONTRACT 8): what a URL may look like, which names and addresses are refused,
//! what the operator may open.
//!
//! A private address is open when it lies in `allow_cidrs` or its host matches `allow_hosts`; either also permits http and
//! any port. Instance metadata, link-local and cluster-internal names stay closed whatever is opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

use crate::model::address::{Kind, canonical, kind};

/// Longest URL that is looked at, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// Ports of mail, file, database and cluster services: nobody serves a secret manager there (Portkey's custom-host rules).
const REFUSED_PORTS: [u16; 9] = [22, 25, 445, 3306, 5432, 6379, 6443, 9200, 27017];

/// Names of instance metadata and of a cluster's own API, by their beginning. Never opened.
const FORBIDDEN_NAMES: [&str; 3] = ["metadata", "instance-data", "kubernetes"];

/// Zones that answer with whatever address a name spells.
const WILDCARD_ZONES: [&str; 3] = [".nip.io", ".sslip.io", ".xip.io"];

/// `egress.*`: what the operator opened. The default opens nothing private.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `egress.allow_hosts`: exact, or a suffix with a leading dot. Compared without case.
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

/// What has to hold for every address that a checked URL's host resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public, or opened by the operator.
    Admitted,
    /// Opened by the operator: for http, for refused ports, and for the sidecar's own identity.
    Opened,
    /// Set by the operator or fixed by a cloud, no part of it by a reference: nothing is judged. Endpoints of
    /// `managers.*`, instance metadata, token services.
    Fixed,
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
        let tidy = |host: &String| host.trim_end_matches('.').to_ascii_lowercase();
        let allow_hosts =
            settings.allow_hosts.iter().map(tidy).filter(|host| !host.is_empty() && host != ".").collect();
        Self { settings: Settings { allow_hosts, ..settings } }
    }

    /// Everything that can be told from the URL alone, at load.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        self.reach(url).map(drop)
    }

    /// Whether a resolved address of `host` may be connected to.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        match kind(address) {
            Kind::Public => Ok(()),
            Kind::Private(what) if !self.opens_address(address) && !self.opens_host(host) => {
                Err(Refused::address(host, address, what, "; open it with egress.allow_cidrs or egress.allow_hosts"))
            }
            Kind::Private(_) => Ok(()),
            Kind::Forbidden(what) => Err(Refused::address(host, address, what, " and stays closed")),
        }
    }

    /// [`Policy::check_url`], with what must hold for the addresses the host resolves to.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub fn reach(&self, url: &Url) -> Result<Reach, Refused> {
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(Refused::new(format!("the address is longer than {MAX_URL_BYTES} bytes")));
        }
        if !matches!(url.scheme(), "https" | "http") {
            return Err(Refused::new("the address must be an https URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::new("the address must not hold a user name or password"));
        }
        if url.fragment().is_some() {
            return Err(Refused::new("the address must not hold a fragment"));
        }
        let host = url.host().ok_or_else(|| Refused::new("the address has no host"))?;
        self.check_host(&host)?;
        let unusual = if url.scheme() == "http" {
            Some("plain http".to_owned())
        } else {
            url.port().filter(|port| REFUSED_PORTS.contains(port)).map(|port| format!("port {port}"))
        };
        match unusual {
            None => Ok(Reach::Admitted),
            Some(_) if self.may_be_opened(&host) => Ok(Reach::Opened),
            Some(what) => Err(Refused::new(format!(
                "{what} is refused for {host}; open the host with egress.allow_cidrs or egress.allow_hosts"
            ))),
        }
    }

    /// [`Policy::reach`] for what may go only to hosts the operator opened.
    ///
    /// # Errors
    /// [`Refused`] when nothing can open the host.
    pub fn reach_opened(&self, url: &Url) -> Result<Reach, Refused> {
        self.reach(url)?;
        match url.host() {
            Some(host) if self.may_be_opened(&host) => Ok(Reach::Opened),
            Some(host) => {
                Err(Refused::new(format!("{host} is not opened by egress.allow_cidrs or egress.allow_hosts")))
            }
            None => Err(Refused::new("the address has no host")),
        }
    }

    /// Whether the operator opened this resolved address of `host`, public or not.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub fn check_opened(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        self.check_address(host, address)?;
        if self.opens_address(address) || self.opens_host(host) {
            return Ok(());
        }
        Err(Refused::address(host, address, "not opened", " by egress.allow_cidrs or egress.allow_hosts"))
    }

    /// `egress.proxy_url`.
    pub fn proxy_url(&self) -> Option<&Url> {
        self.settings.proxy_url.as_ref()
    }

    fn check_host(&self, host: &Host<&str>) -> Result<(), Refused> {
        match host {
            Host::Ipv4(address) => self.check_address(&address.to_string(), IpAddr::V4(*address)),
            Host::Ipv6(address) => self.check_address(&address.to_string(), IpAddr::V6(*address)),
            Host::Domain(name) => self.check_name(name),
        }
    }

    fn check_name(&self, name: &str) -> Result<(), Refused> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if name.is_empty() || name.len() > 253 {
            return Err(Refused::new("the address has no usable host name"));
        }
        if FORBIDDEN_NAMES.iter().any(|begin| name.starts_with(begin)) || name.ends_with(".metadata.google.internal") {
            return Err(Refused::new(format!(
                "{name} names instance metadata or a cluster's own API and stays closed"
            )));
        }
        // Whatever form of an address the URL parser did not already turn into one.
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
            return Err(Refused::new(format!("{name} is neither a host name nor an address")));
        }
        if self.opens_host(&name) {
            return Ok(());
        }
        if name.split('.').any(|label| label.starts_with("xn--")) {
            return Err(Refused::new(format!("{name} is an internationalised name; open it with egress.allow_hosts")));
        }
        let dotted = format!(".{name}");
        if WILDCARD_ZONES.iter().any(|zone| dotted.ends_with(zone)) {
            return Err(Refused::new(format!("{name} spells an address; open it with egress.allow_hosts")));
        }
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if dotted.ends_with(".localhost") && !loopback.into_iter().any(|address| self.opens_address(address)) {
            return Err(Refused::new(format!(
                "{name} is loopback; open it with egress.allow_cidrs or egress.allow_hosts"
            )));
        }
        Ok(())
    }

    /// Whether the operator may have opened `host`: for a name that only an address can tell, yes if a network is open.
    /// Behind a proxy no address is ever seen, so that only `allow_hosts` counts.
    fn may_be_opened(&self, host: &Host<&str>) -> bool {
        match host {
            Host::Ipv4(address) => self.opens_address(IpAddr::V4(*address)) || self.opens_host(&address.to_string()),
            Host::Ipv6(address) => self.opens_address(IpAddr::V6(*address)) || self.opens_host(&address.to_string()),
            Host::Domain(name) => {
                self.opens_host(name) || (!self.settings.allow_cidrs.is_empty() && self.settings.proxy_url.is_none())
            }
        }
    }

    fn opens_address(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.settings.allow_cidrs.iter().any(|net| net.contains(&address))
    }

    fn opens_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let literal = host.parse::<IpAddr>().is_ok();
        self.settings.allow_hosts.iter().any(|allowed| {
            if allowed.starts_with('.') { !literal && host.ends_with(allowed.as_str()) } else { *allowed == host }
        })
    }
}

// === impl Refused ===

impl Refused {
    /// A refusal for `reason`.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }

    fn address(host: &str, address: IpAddr, what: &str, advice: &str) -> Self {
        let at = if host.parse() == Ok(address) { String::new() } else { format!("{host} resolves to ") };
        Self { reason: format!("{at}{address}, which is {what}{advice}") }
    }
}

#[cfg(test)]
mod tests;
