//! The gateway: pooled HTTP/1.1 connections, bounded waits for the connection and the response head, none for bodies.
//!
//! A request is written at most once. The exceptions cannot be noticed at the other end: one that was never written because
//! its pooled connection had gone, and one without a body whose method may be repeated (RFC 9110 9.2.2).

mod connect;
mod pool;
mod reply;
mod writer;

pub use self::{pool::ExchangeError, reply::ReplyBody};

use std::{error::Error as _, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{HOST, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use tracing::debug;
use url::Url;

use self::{connect::Connector, pool::Pool};
use super::{
    body::RequestBody,
    settings::UpstreamSettings,
    tls::{Reloaded, TlsError},
};

/// What the codec adds to a head: `HTTP/1.1`, the framing of the body and line ends.
const FRAMING_BYTES: usize = 64;

/// Sends requests to one place.
#[derive(Debug)]
pub struct Upstream {
    pool: Arc<Pool>,
    host: HeaderValue,
    tls: Option<Arc<Reloaded<ClientConfig>>>,
    response_head_timeout: Duration,
    stall_timeout: Duration,
    max_head_bytes: usize,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// With what was injected, the head is larger than the gateway takes.
    #[error("the head has {bytes} bytes, the gateway takes {limit}")]
    HeadTooLarge {
        /// As it would have been written.
        bytes: usize,
        /// `upstream.max_head_bytes`.
        limit: usize,
    },
    /// No connection, or it broke before a reply.
    #[error("the gateway is unreachable")]
    Unreachable(#[source] ExchangeError),
    /// No reply in time.
    #[error("the gateway did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The client stopped in the middle of its body.
    #[error("the client sent nothing of its body for {} s", .0.as_secs())]
    ClientStalled(Duration),
    /// It switched protocols, and nobody had asked for that.
    #[error("the gateway switched protocols unasked")]
    UnaskedUpgrade,
    /// The client's body ended in an error, so that no complete request could be sent.
    #[error("the body of the request broke off")]
    ClientBody(#[source] ExchangeError),
}

/// Why an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Neither http(s) with a host and nothing more, nor `unix:` with an absolute path.
    #[error("the URL must be http(s)://host[:port] or unix:/path and nothing more")]
    Url,
    /// Its certificates cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
}

// === impl Upstream ===

impl Upstream {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// [`UpstreamError`] when the URL or the CA file cannot be used.
    pub fn new(settings: &UpstreamSettings) -> Result<Self, UpstreamError> {
        let url = &settings.url;
        if url.scheme() == "unix" {
            let path = socket_path(url).ok_or(UpstreamError::Url)?;
            let host = HeaderValue::from_static("localhost");
            return Ok(Self::through(Connector::unix(path, settings.connect_timeout), host, None, settings));
        }
        let bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UpstreamError::Url);
        }
        let authority = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        if !bare || authority.is_empty() {
            return Err(UpstreamError::Url);
        }
        let host = HeaderValue::from_str(&authority).map_err(|_| UpstreamError::Url)?;
        let uri: Uri = format!("{}://{authority}", url.scheme()).parse().map_err(|_| UpstreamError::Url)?;
        let tls = match url.scheme() == "https" {
            true => Some(Arc::new(Reloaded::client(settings.ca_file.clone())?)),
            false => None,
        };
        Ok(Self::through(Connector::new(uri, tls.clone(), settings.connect_timeout), host, tls, settings))
    }

    fn through(
        connector: Connector,
        host: HeaderValue,
        tls: Option<Arc<Reloaded<ClientConfig>>>,
        settings: &UpstreamSettings,
    ) -> Self {
        Self {
            pool: Arc::new(Pool::new(connector)),
            host,
            tls,
            response_head_timeout: settings.response_head_timeout,
            stall_timeout: Duration::MAX,
            max_head_bytes: settings.max_head_bytes,
        }
    }

    /// How long a client may send nothing of a body while the gateway waits for it; without it, for ever.
    #[must_use]
    pub fn patient(self, stall_timeout: Duration) -> Self {
        Self { stall_timeout, ..self }
    }

    /// Sends a request and waits for the response head. Dropping the future, or later the response, cancels the request.
    ///
    /// The path and query of `head` are written as they stand; host and version are ours.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent only in the case of [`SendError::HeadTooLarge`].
    pub async fn send(&self, mut head: Parts, body: RequestBody) -> Result<Response<ReplyBody>, SendError> {
        self.aim(&mut head)?;
        // A body that flows, however slowly, is no reason to give up: the wait starts anew whenever a piece was taken.
        let progress = body.progress();
        let upgrade = head.headers.contains_key(UPGRADE);
        let spare = (body.is_empty() && repeatable(&head.method)).then(|| copy(&head));
        let mut pending = pin!(self.attempt(head, body, spare));
        let state = || progress.as_ref().map(|progress| (progress.pieces(), progress.is_awaited()));
        let timeout = self.response_head_timeout;
        let look = if progress.is_some() { self.stall_timeout.min(timeout) } else { timeout };
        let mut quiet = Duration::ZERO;
        loop {
            let before = state();
            match tokio::time::timeout(look.min(timeout - quiet), &mut pending).await {
                Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS && !upgrade => {
                    return Err(SendError::UnaskedUpgrade);
                }
                Ok(sent) => return sent,
                Err(_) => match (before, state()) {
                    (Some((pieces, _)), Some((more, _))) if pieces != more => quiet = Duration::ZERO,
                    // Awaited before and after, and nothing came: for all of this time.
                    (Some((_, true)), Some((_, true))) if look == self.stall_timeout => {
                        return Err(SendError::ClientStalled(self.stall_timeout));
                    }
                    (_, _) => quiet += look,
                },
            }
            if quiet >= timeout {
                return Err(SendError::Timeout(timeout));
            }
        }
    }

    /// Looks for changed certificates.
    pub fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
    }

    async fn attempt(
        &self,
        head: Parts,
        body: RequestBody,
        spare: Option<Parts>,
    ) -> Result<Response<ReplyBody>, SendError> {
        let first = self.pool.exchange(Request::from_parts(head, body)).await;
        match (first, spare) {
            (Ok(response), _) => Ok(response),
            (Err(error), Some(spare)) if broke_off(&error) => {
                debug!(error = %super::tls::Chain(&error), "The connection broke before a reply, the request is repeated.");
                let second = self.pool.exchange(Request::from_parts(spare, RequestBody::empty())).await;
                second.map_err(SendError::Unreachable)
            }
            (Err(error), _) => Err(match &error {
                ExchangeError::Broken(cause) if cause.is_user() => SendError::ClientBody(error),
                ExchangeError::Broken(_) | ExchangeError::Connect(_) => SendError::Unreachable(error),
            }),
        }
    }

    /// Points `head` at the gateway and checks that it will be taken.
    fn aim(&self, head: &mut Parts) -> Result<(), SendError> {
        let target = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.headers.insert(HOST, self.host.clone());
        let bytes = head_bytes(&head.method, target.as_str(), &head.headers);
        if bytes > self.max_head_bytes {
            return Err(SendError::HeadTooLarge { bytes, limit: self.max_head_bytes });
        }
        // Origin form (RFC 9112 3.2.1).
        head.uri = Uri::from(target);
        // HTTP/1.1 in all cases: what a client spoke to us says nothing about the gateway.
        head.version = Version::HTTP_11;
        Ok(())
    }
}

/// The path of a `unix:` URL: absolute, without host, query or fragment.
pub fn socket_path(url: &Url) -> Option<PathBuf> {
    let bare = url.host_str().is_none_or(str::is_empty) && url.query().is_none() && url.fragment().is_none();
    let path = PathBuf::from(percent_decode_str(url.path()).decode_utf8().ok()?.into_owned());
    (bare && path.is_absolute() && path.file_name().is_some()).then_some(path)
}

/// The size of a head as it is written: request line and header lines, without what the codec adds for the body.
pub(super) fn head_bytes(method: &Method, target: &str, headers: &HeaderMap) -> usize {
    let lines: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    method.as_str().len() + target.len() + lines + FRAMING_BYTES
}

/// Methods that may be sent twice without harm (RFC 9110 9.2.2).
fn repeatable(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

/// The same head for another attempt, without the extensions of the first.
pub(super) fn copy(head: &Parts) -> Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = head.method.clone();
    copy.uri = head.uri.clone();
    copy.version = head.version;
    copy.headers = head.headers.clone();
    copy
}

/// Whether a connection that had been fine was closed before any reply.
fn broke_off(error: &ExchangeError) -> bool {
    let ExchangeError::Broken(error) = error else { return false };
    let reset = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    });
    error.is_incomplete_message() || error.is_closed() || reset
}
