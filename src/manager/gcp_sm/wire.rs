//! Calls to Secret Manager: one GET, at the global endpoint, a region's own, or the operator's.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, header::AUTHORIZATION};
use url::Url;
use zeroize::Zeroizing;

use super::{answer, name::SecretName};
use crate::{
    egress::{Answer, Bounds, Call, Reach, Transport},
    manager::{FailureClass, FetchError},
};

/// Largest answer, in bytes: a payload of 64 KiB in base64, or a page of a hundred versions.
const MAX_ANSWER: usize = 256 * 1024;

/// Where Secret Manager is.
#[derive(Debug)]
pub(super) struct Wire {
    transport: Arc<Transport>,
    /// `managers.gcp.endpoint_url`.
    endpoint: Option<Url>,
    attempt_timeout: Duration,
}

// === impl Wire ===

impl Wire {
    /// `endpoint` stands for every endpoint of Google's, global and regional.
    pub(super) fn new(transport: Arc<Transport>, endpoint: Option<Url>, attempt_timeout: Duration) -> Self {
        Self { transport, endpoint, attempt_timeout }
    }

    /// `GET /v1/{resource}` of the secret `name`, bounded by the time of one attempt. `token` is the whole `Authorization`.
    ///
    /// # Errors
    /// [`FetchError`], classed by status and body.
    pub(super) async fn get(
        &self,
        name: &SecretName,
        resource: &str,
        query: Option<&str>,
        token: &HeaderValue,
    ) -> Result<Answer, FetchError> {
        let misfit = || FetchError::new(FailureClass::Misconfigured).with_code("path");
        let (mut url, reach) = self.place(name.region()).ok_or_else(misfit)?;
        let path = format!("/v1/{resource}");
        url.set_path(&path);
        url.set_query(query);
        if url.path() != path {
            // A URL parser that tidies a path away would read another secret than the one written.
            return Err(misfit());
        }
        let headers = HeaderMap::from_iter([(AUTHORIZATION, token.clone())]);
        let call = Call { method: Method::GET, url, headers, body: Zeroizing::default(), reach };
        let bounds = Bounds { timeout: self.attempt_timeout, max_body: MAX_ANSWER };
        answer::check(self.transport.send(call, bounds).await?)
    }

    /// Where the secrets of `region` are. A region is a reference's word, so that the host it stands in is judged.
    fn place(&self, region: Option<&str>) -> Option<(Url, Reach)> {
        let (url, reach) = match (&self.endpoint, region) {
            (Some(endpoint), _) => (Ok(endpoint.clone()), Reach::Fixed),
            (None, None) => (Url::parse("https://secretmanager.googleapis.com"), Reach::Fixed),
            (None, Some(region)) => {
                (Url::parse(&format!("https://secretmanager.{region}.rep.googleapis.com")), Reach::Admitted)
            }
        };
        Some((url.ok()?, reach))
    }
}
