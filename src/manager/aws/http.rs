//! The SDK's way out: its requests go through [`Transport`], so that the egress policy, `egress.proxy_url` and
//! `egress.extra_ca_files` hold for AWS as for every other manager, and all identities share one pool of connections.
//!
//! An answer lies in a buffer that is wiped when the SDK lets go of it. What the SDK parses out of it is not ours to wipe.

use std::{sync::Arc, time::Duration};

use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, header::AUTHORIZATION};
use http_body_util::Full;
use url::Url;
use zeroize::Zeroizing;

use crate::egress::{Answer, Bounds, Call, Reach, SendError, Transport};

/// Largest answer, in bytes. A secret has at most 64 KiB, which JSON may write six times as long.
const MAX_ANSWER: usize = 512 * 1024;

/// Header fields that hold a credential: the signature, a session token, the token of the metadata service.
const SENSITIVE: [HeaderName; 3] = [
    AUTHORIZATION,
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-aws-ec2-metadata-token"),
];

/// [`Transport`] as the SDK wants it.
#[derive(Clone, Debug)]
pub(in crate::manager) struct SdkHttp {
    transport: Arc<Transport>,
    /// What must hold for the hosts this client asks.
    reach: Reach,
    /// One attempt, unless the SDK's own configuration bounds it.
    timeout: Duration,
}

// === impl SdkHttp ===

impl SdkHttp {
    pub(super) fn new(transport: &Arc<Transport>, reach: Reach, timeout: Duration) -> Self {
        Self { transport: Arc::clone(transport), reach, timeout }
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let (parts, body) = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| ConnectorError::user(error.into()))?;
        let body = body.bytes().ok_or_else(|| ConnectorError::user("a body that streams".into()))?;
        let call = Call {
            method: parts.method,
            url,
            headers: marked(parts.headers),
            body: Zeroizing::new(body.to_vec()),
            reach: self.reach,
        };
        let bounds = Bounds { timeout: self.timeout, max_body: MAX_ANSWER };
        answer(self.transport.send(call, bounds).await.map_err(unanswered)?)
    }
}

impl HttpConnector for SdkHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

impl HttpClient for SdkHttp {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // The providers of instance and container credentials ask machines nearby, and give up sooner.
        let read = settings.read_timeout();
        let own = read.map(|read| read + settings.connect_timeout().unwrap_or_default());
        SharedHttpConnector::new(Self { timeout: own.unwrap_or(self.timeout), ..self.clone() })
    }
}

fn marked(mut headers: HeaderMap) -> HeaderMap {
    for name in SENSITIVE {
        if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
    headers
}

fn answer(answer: Answer) -> Result<HttpResponse, ConnectorError> {
    // As a body that streams, although it is all there: a body in memory is printed by the SDK at trace level.
    let body = SdkBody::from_body_1_x(Full::new(Bytes::from_owner(answer.body)));
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
}

fn unanswered(error: SendError) -> ConnectorError {
    match &error {
        SendError::Timeout => ConnectorError::timeout(error.into()),
        SendError::Connect(_) | SendError::Tls(_) | SendError::Broken(_) => ConnectorError::io(error.into()),
        SendError::Refused(_) => ConnectorError::user(error.into()),
        SendError::TooLarge(_) => ConnectorError::other(error.into(), None),
    }
}
