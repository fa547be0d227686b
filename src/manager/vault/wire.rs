//! Calls to one Vault server: vaultrs describes them, we carry them out.
//!
//! vaultrs' own executor reads answers without a bound, copies them into strings that are never wiped, drops `Retry-After`
//! and panics on a token that no header can carry. So only its endpoints are used, over [`Transport`].

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use rustify::endpoint::Endpoint;
use url::Url;
use zeroize::Zeroizing;

use super::answer;
use crate::{
    egress::{Answer, Bounds, Call, Reach, Transport},
    manager::{FailureClass, FetchError},
};

/// Largest answer, in bytes. Vault's own storage takes no larger entry, Consul's half of it.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Vault Agent refuses requests without it, against request forgery.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// One server, one namespace.
#[derive(Debug)]
pub(super) struct Wire {
    transport: Arc<Transport>,
    /// Scheme, host and port, which is all the endpoints are told.
    origin: Url,
    /// Path of the address without a slash at its end, then `/v1`.
    prefix: String,
    namespace: Option<HeaderValue>,
    attempt_timeout: Duration,
}

/// An address or a namespace that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WireError(&'static str);

// === impl Wire ===

impl Wire {
    /// A wire to `addr`. What the egress policy says is asked with each call.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) fn new(
        transport: Arc<Transport>,
        addr: &Url,
        namespace: Option<&str>,
        attempt_timeout: Duration,
    ) -> Result<Self, WireError> {
        if addr.query().is_some() || addr.fragment().is_some() {
            return Err(WireError("vault_addr must not hold a query or a fragment"));
        }
        if addr.cannot_be_a_base() || addr.host().is_none() {
            return Err(WireError("vault_addr must be a URL with a host"));
        }
        let namespace = namespace.map(|name| name.trim_matches('/')).filter(|name| !name.is_empty());
        let namespace = namespace
            .map(HeaderValue::from_str)
            .transpose()
            .map_err(|_| WireError("vault_namespace must be visible ASCII"))?;
        let prefix = format!("{}/v1", addr.path().trim_end_matches('/'));
        let mut origin = addr.clone();
        origin.set_path("");
        Ok(Self { transport, origin, prefix, namespace, attempt_timeout })
    }

    /// One read or renewal with `token`, bounded by the time of one attempt.
    ///
    /// # Errors
    /// [`FetchError`], classed by status and body.
    pub(super) async fn call<E: Endpoint>(&self, endpoint: &E, token: &HeaderValue) -> Result<Answer, FetchError> {
        answer::check(self.ask(endpoint, token).await?)
    }

    /// [`Wire::call`] without a judgement of the status.
    ///
    /// # Errors
    /// [`FetchError`] when there is no answer.
    pub(super) async fn ask<E: Endpoint>(&self, endpoint: &E, token: &HeaderValue) -> Result<Answer, FetchError> {
        self.send(endpoint, Some(token), Reach::Admitted, self.attempt_timeout).await
    }

    /// One login; `reach` says whom the proof may be shown, `timeout` is the whole login's.
    ///
    /// # Errors
    /// [`FetchError`] when there is no answer. The answer's status is the caller's to judge.
    pub(super) async fn present<E: Endpoint>(
        &self,
        endpoint: &E,
        reach: Reach,
        timeout: Duration,
    ) -> Result<Answer, FetchError> {
        self.send(endpoint, None, reach, timeout).await
    }

    async fn send<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&HeaderValue>,
        reach: Reach,
        timeout: Duration,
    ) -> Result<Answer, FetchError> {
        let misfit = || FetchError::new(FailureClass::Misconfigured).with_code("path");
        let (parts, body) = endpoint.request(self.origin.as_str()).map_err(|_| misfit())?.into_parts();
        let body = Zeroizing::new(body);
        let target = parts.uri.path_and_query().ok_or_else(misfit)?;
        let mut url = self.origin.clone();
        url.set_path(&format!("{}{}", self.prefix, target.path()));
        url.set_query(target.query().filter(|query| !query.is_empty()));
        if url.path().strip_prefix(&self.prefix) != Some(target.path()) {
            // A URL parser that tidies a path away would read another secret than the one written.
            return Err(misfit());
        }
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        headers.extend(self.namespace.clone().map(|namespace| (NAMESPACE, namespace)));
        headers.extend(token.cloned().map(|token| (TOKEN, token)));
        let call = Call { method: parts.method, url, headers, body, reach };
        let bounds = Bounds { timeout, max_body: MAX_ANSWER };
        self.transport.send(call, bounds).await.map_err(FetchError::from)
    }
}
