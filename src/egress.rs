//! Where managers may connect. Addresses in references come from tenants and are attack input: checked when a snapshot is
//! loaded and again on the resolved address when a connection is made (resolve once, check all, connect to the checked one).
//!
//! [`Policy`] judges URLs and addresses. [`Transport`] is the only way out: one TLS configuration, an HTTP client for each
//! [`Reach`] (every admitted host, only what the operator opened, only what no reference can name), no redirects, no proxy
//! variables, no unchecked name.

mod client;
mod lookup;
mod policy;
mod resolve;
mod trust;

pub use client::{Answer, Bounds, Call, SendError, Transport};
pub use lookup::{Lookup, SystemLookup};
pub use policy::{Policy, Reach, Refused, Settings};
pub use resolve::ResolveError;
pub use trust::TrustError;
