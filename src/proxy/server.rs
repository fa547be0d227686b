//! Listens, accepts, and lets go: connections and sessions up to `limits.max_connections`, drained in stages.
//!
//! Beyond the limit [`SHED_CONNECTIONS`] more are served 503 `overloaded`, so that clients hear it; after those nothing is
//! accepted and the kernel's queue fills. Nothing else is done per connection than what [`super::connection`] does.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response, header::CONNECTION};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    Proxy,
    activity::Activity,
    body::ResponseBody,
    connection::{ClientIo, Connection, Driver, End, IDLE, Version},
    heartbeat::Heartbeat,
    reject::Refusal,
    settings::{Limits, Settings},
    shutdown::{Shutdown, Stage},
    stream::Stream,
    tls::{self, Reloaded, TlsError},
};

/// Connections beyond the limit that are told so.
const SHED_CONNECTIONS: usize = 64;
/// Connections the kernel keeps for us while we are busy.
const BACKLOG: u32 = 1024;
/// From when on a silent client is asked whether it is still there; it has twice that long to answer.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Pause after an error of accepting: usually there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Streams one HTTP/2 connection may have open.
const H2_STREAMS: u32 = 256;
/// Streams a client may open and reset before we have begun them; more closes the connection (CVE-2023-44487).
const H2_PENDING_RESETS: usize = 32;
/// Streams we may have to reset for a client's faults; more closes the connection.
const H2_OUR_RESETS: usize = 256;
/// Finds HTTP/2 clients that vanished.
const H2_PING: Duration = Duration::from_secs(30);
/// The codec's own limit is this many times ours, so that a head that is a little too large gets our answer.
const HEAD_SLACK: usize = 2;
/// The codec's least buffer.
const LEAST_BUFFER: usize = 8 * 1024;
/// How long writing a last reply, or the end of what was cut, may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bound listeners that do not accept yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    tls: Option<Arc<Reloaded<ServerConfig>>>,
    limits: Limits,
    heartbeat: Arc<Heartbeat>,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// `tls.*` cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
}

/// What every connection needs.
#[derive(Debug)]
struct Shared {
    proxy: Arc<Proxy>,
    tls: Option<Arc<Reloaded<ServerConfig>>>,
    limits: Limits,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    /// Finish what runs.
    closing: CancellationToken,
    /// Drop what runs.
    cut: CancellationToken,
    connections: TaskTracker,
    serve: Arc<Semaphore>,
    shed: Arc<Semaphore>,
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Serve,
    Shed,
}

// === impl Server ===

impl Server {
    /// Binds every address of `settings` and reads its certificates.
    ///
    /// # Errors
    /// [`BindError`] for the first that fails.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let listeners = settings.listen.iter().map(|address| {
            listen(*address, &settings.listen).map_err(|source| BindError::Listen { address: *address, source })
        });
        Ok(Self {
            listeners: listeners.collect::<Result<_, _>>()?,
            tls: settings.tls.as_ref().map(Reloaded::server).transpose()?.map(Arc::new),
            limits: settings.limits,
            heartbeat: Arc::default(),
        })
    }

    /// Where it listens, with the ports that were picked.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Beats while connections are accepted, or could be.
    pub fn heartbeat(&self) -> Arc<Heartbeat> {
        self.heartbeat.clone()
    }

    /// Serves until `shutdown` has been gone through: accepting for `limits.drain_delay` after its first stage, then finishing
    /// for `limits.drain`, then cutting; or cutting at once at its second.
    pub async fn run(self, proxy: Arc<Proxy>, shutdown: Shutdown) {
        let Self { listeners, tls, limits, heartbeat } = self;
        let closing = CancellationToken::new();
        let cut = CancellationToken::new();
        let shared = Arc::new(Shared {
            tls,
            http1: http1_builder(&limits),
            http2: http2_builder(&limits),
            closing: closing.clone(),
            cut: cut.clone(),
            connections: TaskTracker::new(),
            serve: Arc::new(Semaphore::new(limits.max_connections)),
            shed: Arc::new(Semaphore::new(SHED_CONNECTIONS)),
            proxy: proxy.clone(),
            limits,
        });
        let acceptors = TaskTracker::new();
        for listener in listeners {
            acceptors.spawn(accept(listener, shared.clone(), heartbeat.clone()));
        }
        acceptors.spawn(refresh(shared.clone()));
        acceptors.close();

        shutdown.reached(Stage::Draining).await;
        info!(delay_secs = limits.drain_delay.as_secs(), "Shutting down, still accepting for a while.");
        let _ = timeout(limits.drain_delay, shutdown.reached(Stage::Cut)).await;
        closing.cancel();
        acceptors.wait().await;
        shared.connections.close();
        let finished = async { tokio::join!(shared.connections.wait(), proxy.sessions().ended()) };
        tokio::pin!(finished);
        let stopped = tokio::select! {
            _ = finished.as_mut() => true,
            () = tokio::time::sleep(limits.drain) => false,
            () = shutdown.reached(Stage::Cut) => false,
        };
        if !stopped {
            warn!(connections = shared.connections.len(), "Cutting what still runs.");
            cut.cancel();
            proxy.sessions().cut();
            // Tasks end at their next step; one that does not is left to the end of the process.
            let _ = timeout(FAREWELL, finished).await;
        }
        info!("Stopped serving.");
    }
}

// === impl Shared ===

impl Shared {
    fn serving_place(&self) -> Option<(OwnedSemaphorePermit, Purpose)> {
        self.serve.clone().try_acquire_owned().ok().map(|permit| (permit, Purpose::Serve))
    }

    /// A place for one more connection, and what is done with it.
    async fn place(&self) -> (OwnedSemaphorePermit, Purpose) {
        let (serve, shed) = (self.serve.clone(), self.shed.clone());
        tokio::select! {
            biased;
            Ok(permit) = serve.acquire_owned() => (permit, Purpose::Serve),
            Ok(permit) = shed.acquire_owned() => (permit, Purpose::Shed),
            // Nobody closes the semaphores.
            else => std::future::pending().await,
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, permit: OwnedSemaphorePermit, purpose: Purpose) {
        let activity = Activity::new(self.proxy.metrics().clone(), permit);
        let opened = async {
            // Without it a small event waits for the acknowledgement of the one before.
            stream.set_nodelay(true)?;
            let stream = match &self.tls {
                None => Stream::Plain(stream),
                Some(tls) => {
                    let accepting = TlsAcceptor::from(tls.current()).accept(stream);
                    let stream = timeout(self.limits.head_timeout, accepting).await??;
                    Stream::Tls(Box::new(TlsStream::Server(stream)))
                }
            };
            timeout(IDLE, ClientIo::open(stream, &activity)).await?
        };
        let opened: io::Result<_> = tokio::select! {
            opened = opened => opened,
            () = self.closing.cancelled() => return,
        };
        match opened {
            Ok((io, version)) => self.serve(TokioIo::new(io), version, &activity, purpose).await,
            Err(error) => debug!(%error, "A connection ended before a request."),
        }
    }

    async fn serve(&self, io: TokioIo<ClientIo>, version: Version, activity: &Arc<Activity>, purpose: Purpose) {
        let driver =
            Driver { activity, head_timeout: self.limits.head_timeout, closing: &self.closing, cut: &self.cut };
        let service = service_fn(|request: Request<Incoming>| {
            let in_flight = activity.begin();
            let proxy = self.proxy.clone();
            async move {
                Ok::<_, Infallible>(match purpose {
                    Purpose::Serve => proxy.serve(request, in_flight).await,
                    Purpose::Shed => {
                        closed(proxy.refuse(&request, &Refusal::Overloaded).map(|body| body.counted(Some(in_flight))))
                    }
                })
            }
        });
        match version {
            Version::Http1 => {
                let mut connection = self.http1.serve_connection(io, service).with_upgrades();
                if driver.run(Pin::new(&mut connection)).await == End::HeadTimeout
                    && let Some(parts) = connection.into_parts()
                {
                    let refusal = Refusal::RequestTimeout(self.limits.head_timeout);
                    let _ = timeout(FAREWELL, write(parts.io.into_inner(), &refusal)).await;
                }
            }
            Version::Http2 => {
                let connection = pin!(self.http2.serve_connection(io, service));
                driver.run(connection).await;
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, heartbeat: Arc<Heartbeat>) {
    let mut beat = tokio::time::interval(Heartbeat::INTERVAL);
    let mut place = None;
    loop {
        let accepted = tokio::select! {
            () = shared.closing.cancelled() => return,
            _ = beat.tick() => {
                heartbeat.beat();
                continue;
            }
            found = shared.place(), if place.is_none() => {
                place = Some(found);
                continue;
            }
            accepted = listener.accept(), if place.is_some() => accepted,
        };
        match (accepted, place.take()) {
            (Ok((stream, _)), Some(place)) => {
                // A better place may have become free while nobody came.
                let (permit, purpose) = match place {
                    (permit, Purpose::Serve) => (permit, Purpose::Serve),
                    (permit, Purpose::Shed) => shared.serving_place().unwrap_or((permit, Purpose::Shed)),
                };
                shared.connections.spawn(shared.clone().connection(stream, permit, purpose));
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                warn!(%error, "Accepting a connection failed.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Looks for changed certificates until the server closes.
async fn refresh(shared: Arc<Shared>) {
    let mut look = tokio::time::interval(tls::POLL);
    loop {
        tokio::select! {
            () = shared.closing.cancelled() => return,
            _ = look.tick() => {
                if let Some(tls) = &shared.tls {
                    tls.refresh();
                }
                shared.proxy.refresh();
            }
        }
    }
}

fn listen(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it: a silent WebSocket whose client vanished must end.
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, TCP_KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, TCP_KEEP_ALIVE / 3)?;
    sockopt::set_tcp_keepcnt(&socket, 3)?;
    // `[::]` takes IPv4 too, unless that has an address of its own.
    let both = all.contains(&SocketAddr::new(IpAddr::from([0, 0, 0, 0]), address.port()));
    if address.ip() == IpAddr::from([0_u16; 8]) && both {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size((HEAD_SLACK * limits.max_head_bytes).max(LEAST_BUFFER));
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(HEAD_SLACK * limits.max_head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_local_error_reset_streams(H2_OUR_RESETS)
        .keep_alive_interval(H2_PING)
        .enable_connect_protocol();
    builder
}

/// Tells the client of a shed connection to open another.
fn closed(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("close"));
    response
}

/// Writes a refusal to a client whose request the codec never saw as a whole.
async fn write(mut io: impl AsyncWrite + Unpin, refusal: &Refusal) -> io::Result<()> {
    let (head, body) = refusal.respond(uuid::Uuid::now_v7()).into_parts();
    let length = body.size_hint().exact().unwrap_or_default();
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut text =
        format!("HTTP/1.1 {} {reason}\r\ncontent-length: {length}\r\nconnection: close\r\n", head.status.as_u16());
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    text.push_str("\r\n");
    io.write_all(text.as_bytes()).await?;
    io.write_all(&body.into_bytes()).await?;
    io.shutdown().await
}

impl<S> Connection for http1::UpgradeableConnection<TokioIo<ClientIo>, S>
where
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Connection for http2::Connection<TokioIo<ClientIo>, S, TokioExecutor>
where
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
