//! Health, readiness and metrics, on a listener of their own that clients do not reach.
//!
//! `/healthz` says that the process works, and asks nobody outside. `/readyz` says whether requests should come here, and
//! if not, why. `/metrics` is what is counted. Those three need no credential and show no secret; `/v1/secrets` is the operator
//! API, see [`operator`].

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};
use tracing::{debug, warn};

use self::probe::Probe;
use crate::{
    feed::Feed,
    metric::{Exposition, Metrics},
    proxy::{Heartbeat, Proxy, Shutdown, Stage},
    resolve::Resolver,
    seal::opener::Opener,
};

mod operator;
mod probe;
mod readiness;
mod token;

pub use self::{
    operator::{Operator, OperatorError},
    token::{TokenError, TokenFile},
};

/// A kubelet, a scraper and an operator. The oldest makes room for one more, or whoever opens connections and says nothing
/// would keep the kubelet waiting until it takes the process for dead.
const MAX_CONNECTIONS: usize = 64;
/// Between two requests, and for a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after an error of accepting: usually there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// From when on a missing heartbeat means that something hangs.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(15);

/// What the operator decides about the admin listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `admin_listen`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// How often the gateway is probed for `/readyz`. Not configurable; tests shorten it.
    pub probe_interval: Duration,
    /// `admin_token_file`: holds the bearer token of the operator API; `None` = that API is off.
    pub token_file: Option<PathBuf>,
}

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    probe_interval: Duration,
}

/// What there is to tell.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// Whom to ask whether the gateway answers.
    pub proxy: Arc<Proxy>,
    /// The snapshot.
    pub feed: Arc<Feed>,
    /// What is remembered of its references.
    pub resolver: Arc<Resolver>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the process ends.
    pub shutdown: Shutdown,
    /// What must not stand still, by name.
    pub heartbeats: Vec<(&'static str, Arc<Heartbeat>)>,
    /// Who may use the operator API.
    pub operator: Operator,
    /// Whether secrets are still being read ahead of the first request.
    pub prewarming: Arc<AtomicBool>,
    /// Who opens sealed values; `None` = nobody.
    pub opener: Option<Arc<Opener>>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8901));
        Self { listen, probe_interval: Duration::from_secs(5), token_file: None }
    }
}

// === impl Admin ===

impl Admin {
    /// Binds `admin_listen`.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(settings: &Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        Ok(Self { listener, probe_interval: settings.probe_interval })
    }

    /// Where it listens, with the port that was picked.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`. Keep it going while the proxy drains: that is when it is asked most.
    pub async fn run(self, vitals: Vitals, stop: impl Future<Output = ()>) {
        let probe = Arc::new(Probe::default());
        let mut stop = pin!(stop);
        let mut probing = pin!(probe.run(&vitals.proxy, self.probe_interval));
        let mut connections: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
        loop {
            let accepted = tokio::select! {
                () = stop.as_mut() => return,
                () = probing.as_mut() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "Accepting a connection to the admin listener failed.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (vitals, probe) = (vitals.clone(), probe.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (vitals, probe) = (vitals.clone(), probe.clone());
                async move { Ok::<_, Infallible>(answer(request, &vitals, &probe).await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            connections.retain(|connection| !connection.is_finished());
            if connections.len() == MAX_CONNECTIONS
                && let Some(oldest) = connections.pop_front()
            {
                oldest.abort();
            }
            let running = tokio::spawn(async move {
                if let Err(error) = serving.await {
                    debug!(%error, "A connection to the admin listener ended.");
                }
            });
            connections.push_back(running.abort_handle());
        }
    }
}

async fn answer(request: Request<Incoming>, vitals: &Vitals, probe: &Probe) -> Response<Full<Bytes>> {
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/healthz" | "/readyz" | "/metrics" if !reading => {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "not_found", "this path is read with GET");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        "/healthz" => {
            let late = late(vitals);
            let status = if late.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            reply(status, json!({ "alive": late.is_empty(), "late": late }))
        }
        "/readyz" => {
            let readiness = readiness::judge(vitals, probe.reachable(), &late(vitals));
            let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            reply(status, readiness.report())
        }
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let exposition = Exposition::accepted(accept);
            let age = vitals.feed.age().unwrap_or_default();
            vitals.metrics.snapshot_age_seconds.set(age.as_secs_f64());
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            vitals.metrics.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
            let unopened = vitals.opener.as_ref().map_or(0, |opener| opener.unopened().len());
            vitals.metrics.sealed_values_unopened.set(i64::try_from(unopened).unwrap_or(i64::MAX));
            let mut response = Response::new(Full::from(vitals.metrics.expose(exposition)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition.content_type()));
            response
        }
        _ => match vitals.operator.answer(request, vitals).await {
            Some(response) => response,
            None => failure(StatusCode::NOT_FOUND, "not_found", "the path is not served"),
        },
    }
}

/// What should have beaten and has not. What ends stands still, and must not be killed for it.
fn late(vitals: &Vitals) -> Vec<&'static str> {
    if vitals.shutdown.stage() > Stage::Running {
        return Vec::new();
    }
    let late = vitals.heartbeats.iter().filter(|(_, heartbeat)| heartbeat.age() > HEARTBEAT_LIMIT);
    late.map(|(name, _)| *name).collect()
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let error = json!({ "message": message, "type": "sidekey_error", "code": code });
    reply(status, json!({ "status": "failure", "message": message, "error": error }))
}

fn reply(status: StatusCode, body: Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
