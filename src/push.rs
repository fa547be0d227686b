//! Webhooks: a source says that a secret has changed, and what is remembered of it is read again. On a listener of their own.
//!
//! ```text
//! POST /v1/webhooks/<source> → head proves the sender → body, bounded → signature → what has changed
//!    → references of the snapshot that read it → Expiry: read again, within budget; nothing is ever taken away
//! ```
//!
//! A delivery that is not from whom it should be costs a comparison; an answer never says which references there are. What
//! this room can do to the rest of the process is [`Expiry`], and nothing more (`tests/it/layers.rs`).

mod bearer;
mod event;
mod issuer_keys;
mod jwt;
mod quiet;
mod settings;
mod shared_secret;
mod signature;
mod target;
mod verify;

pub use self::{
    settings::{EventBridge, EventGrid, Hmac, Pubsub, Settings, Synced},
    shared_secret::SecretError,
};

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use self::{
    quiet::Quiet,
    target::Changed,
    verify::{Refused, Said, Source, Verifiers},
};
use crate::{
    egress::Transport,
    feed::Feed,
    metric::{Metrics, WebhookLabels},
    proxy::{Reloaded, TLS_POLL, TlsError},
    resolve::Expiry,
};

/// Connections at once. The oldest makes room for one more: a delivery is short, and who opens connections and says nothing
/// must not keep sources out.
const MAX_CONNECTIONS: usize = 128;
/// For a handshake, a head, and a body, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest head, in bytes. A token has two thousand.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Pause after an error of accepting: usually there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Whose events the handshake of CloudEvents asks for.
const EVENT_GRID_ORIGIN: &str = "eventgrid.azure.net";

/// A bound listener that does not answer yet.
pub struct Push {
    listener: TcpListener,
    tls: Option<Reloaded<ServerConfig>>,
    desk: Arc<Desk>,
}

/// Why webhooks cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// `webhook_listen`.
    #[error("webhook_listen {address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// `webhooks.tls.*`.
    #[error("webhooks.tls cannot be set up")]
    Tls(#[from] TlsError),
    /// A file with shared secrets.
    #[error("the secrets of a webhook cannot be used")]
    Secret(#[from] SecretError),
    /// The issuer of a source's tokens has no https address.
    #[error("the issuer of webhooks.{0} has no https address where its keys could be found")]
    Issuer(&'static str),
}

/// What answers deliveries.
struct Desk {
    verifiers: Verifiers,
    feed: Arc<Feed>,
    expiry: Expiry,
    metrics: Arc<Metrics>,
    refusals: [Quiet; Source::ALL.len()],
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Signalled,
    Idle,
    Validated,
    Repeated,
    Refused,
    Unverifiable,
    Malformed,
    TooLarge,
}

// === impl Push ===

impl Push {
    /// Binds `webhook_listen` and reads every file. `transport` leads to issuers of tokens.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn bind(
        settings: &Settings,
        transport: &Arc<Transport>,
        feed: Arc<Feed>,
        expiry: Expiry,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PushError> {
        let verifiers = Verifiers::build(settings, transport)?;
        let tls = settings.tls.as_ref().map(Reloaded::server).transpose()?;
        let address = settings.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| PushError::Listen { address, source })?;
        let desk = Desk { verifiers, feed, expiry, metrics, refusals: Default::default() };
        Ok(Self { listener, tls, desk: Arc::new(desk) })
    }

    /// Where it listens, with the port that was picked.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, tls, desk } = self;
        let mut stop = pin!(stop);
        let mut look = interval(TLS_POLL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connections: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
        loop {
            let accepted = tokio::select! {
                () = stop.as_mut() => return,
                _ = look.tick() => {
                    // Small files, every few seconds.
                    desk.verifiers.refresh();
                    if let Some(tls) = &tls {
                        tls.refresh();
                    }
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "Accepting a connection to the webhook listener failed.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            connections.retain(|connection| !connection.is_finished());
            if connections.len() == MAX_CONNECTIONS
                && let Some(oldest) = connections.pop_front()
            {
                oldest.abort();
            }
            let (desk, tls) = (Arc::clone(&desk), tls.as_ref().map(|tls| http1_only(&tls.current())));
            let running = tokio::spawn(async move {
                let Some(tls) = tls else { return serve(stream, desk).await };
                match timeout(PATIENCE, TlsAcceptor::from(tls).accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, desk).await,
                    Ok(Err(error)) => debug!(%error, "A handshake at the webhook listener failed."),
                    Err(_) => {}
                }
            });
            connections.push_back(running.abort_handle());
        }
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").field("listener", &self.listener).field("tls", &self.tls).finish_non_exhaustive()
    }
}

// === impl PushError ===

impl PushError {
    /// Whether the configuration has to change; otherwise it is the machine, as when an address is in use.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Secret(_) | Self::Issuer(_) => true,
            Self::Listen { .. } => false,
        }
    }
}

// === impl Desk ===

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let source = Source::of_path(request.uri().path()).filter(|source| self.verifiers.serves(*source));
        let Some(source) = source else {
            self.count("none", Outcome::Refused);
            return failure(StatusCode::NOT_FOUND, "not_found", "the path is not served");
        };
        if source == Source::EventGrid && request.method() == Method::OPTIONS {
            return self.allow_origin(&request);
        }
        if request.method() != Method::POST {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "not_found", "deliveries are sent with POST");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (outcome, response) = self.take(source, request).await;
        self.count(source.as_str(), outcome);
        response
    }

    async fn take(&self, source: Source, request: Request<Incoming>) -> (Outcome, Response<Full<Bytes>>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (head, body) = request.into_parts();
        if let Err(refused) = self.verifiers.check_head(source, &head.headers, now).await {
            return self.refuse(source, refused);
        }
        let collected = timeout(PATIENCE, Limited::new(body, source.max_body()).collect()).await;
        let body = match collected {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let message = "the body is larger than a delivery of this source can be";
                let mut response = failure(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return (Outcome::TooLarge, response);
            }
            Ok(Err(_)) | Err(_) => return self.refuse(source, Refused::Malformed),
        };
        match self.verifiers.read(source, &head.headers, &body, now) {
            Ok(Said::Changed(targets)) => {
                let snapshot = self.feed.current();
                let references = snapshot.iter().flat_map(|snapshot| &snapshot.references);
                let changed = Changed::new(&targets);
                let documents = self.expiry.expire(references.filter(|reference| changed.concerns(reference)));
                debug!(source = source.as_str(), targets = targets.len(), documents, "A webhook was delivered.");
                // The same answer whatever it concerned.
                (if documents > 0 { Outcome::Signalled } else { Outcome::Idle }, taken())
            }
            Ok(Said::Repeated) => (Outcome::Repeated, taken()),
            Ok(Said::Validation(code)) => {
                info!(source = source.as_str(), "A subscription was validated.");
                (Outcome::Validated, json_response(StatusCode::OK, &json!({ "validationResponse": code })))
            }
            Err(refused) => self.refuse(source, refused),
        }
    }

    /// The handshake of CloudEvents webhooks, section 4 ("Abuse protection"). Says nothing that depends on who asks.
    fn allow_origin(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let asked = request.headers().get("webhook-request-origin").is_some_and(|origin| origin == EVENT_GRID_ORIGIN);
        self.count(Source::EventGrid.as_str(), if asked { Outcome::Validated } else { Outcome::Refused });
        if !asked {
            return failure(StatusCode::FORBIDDEN, "unauthorized", "events of this origin are not wanted");
        }
        let mut response = Response::new(Full::default());
        let headers = response.headers_mut();
        headers.insert("webhook-allowed-origin", HeaderValue::from_static(EVENT_GRID_ORIGIN));
        headers.insert("webhook-allowed-rate", HeaderValue::from_static("*"));
        headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        response
    }

    fn refuse(&self, source: Source, refused: Refused) -> (Outcome, Response<Full<Bytes>>) {
        let (outcome, mut response) = match refused {
            Refused::Unverified => {
                let message = "the delivery does not prove whom it is from";
                (Outcome::Refused, failure(StatusCode::UNAUTHORIZED, "unauthorized", message))
            }
            Refused::Unverifiable => {
                let message = "whom the delivery is from cannot be told just now";
                let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
                (Outcome::Unverifiable, response)
            }
            Refused::Malformed => {
                let message = "the body is not what this source sends";
                (Outcome::Malformed, failure(StatusCode::BAD_REQUEST, "invalid_body", message))
            }
        };
        // A body may be left that nobody reads.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(left_out) = self.refusals[source as usize].turn(Instant::now()) {
            let (source, outcome) = (source.as_str(), outcome.as_str());
            warn!(source, outcome, left_out, "A webhook delivery was not taken.");
        }
        (outcome, response)
    }

    fn count(&self, source: &'static str, outcome: Outcome) {
        self.metrics.webhooks.get_or_create_owned(&WebhookLabels { source, outcome: outcome.as_str() }).inc();
    }
}

// === impl Outcome ===

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Signalled => "signalled",
            Self::Idle => "idle",
            Self::Validated => "validated",
            Self::Repeated => "repeated",
            Self::Refused => "refused",
            Self::Unverifiable => "unverifiable",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, desk: Arc<Desk>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        debug!(%error, "A connection to the webhook listener ended.");
    }
}

/// The certificates of `config`, without HTTP/2.
fn http1_only(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn taken() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let error = json!({ "message": message, "type": "sidekey_error", "code": code });
    json_response(status, &json!({ "status": "failure", "message": message, "error": error }))
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
