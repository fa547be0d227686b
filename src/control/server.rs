//! Listens, accepts, and lets go: one listener, HTTP/1.1 and HTTP/2, TLS where it is configured.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Control, Settings, routes::routes};

/// For a head, and between two calls; also before it is known which HTTP is spoken, and on a connection of HTTP/2 that
/// answers pings and asks nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an error of accepting: usually there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether calls run on a connection, and since when none does.
struct Calls(Mutex<(usize, Instant)>);

/// A call that runs, until the end of its answer.
struct Running(Arc<Calls>);

/// The certificates in force, asked for at each connection.
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// A bound listener that does not accept yet.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsSource>,
    max_connections: usize,
    drain: Duration,
}

// === impl Server ===

impl Server {
    /// Binds `listen`.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(settings: &Settings, tls: Option<TlsSource>) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        Ok(Self { listener, tls, max_connections: settings.max_connections, drain: settings.drain })
    }

    /// Where it listens, with the port that was picked.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`, then finishes what runs for `limits.drain_secs`.
    pub async fn run(self, control: Arc<Control>, stop: CancellationToken) {
        let Self { listener, tls, max_connections, drain } = self;
        let service = TowerToHyperService::new(routes(Arc::clone(&control)));
        let places = Arc::new(Semaphore::new(max_connections));
        let graceful = GracefulShutdown::new();
        let feeding = {
            let (control, stop) = (Arc::clone(&control), stop.clone());
            tokio::spawn(async move { control.feed().run(stop).await })
        };
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "Accepting a connection failed.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (service, tls, watcher) = (service.clone(), tls.clone(), graceful.watcher());
            tokio::spawn(async move {
                let served = match tls {
                    None => serve(stream, service, watcher).await,
                    Some(tls) => match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls()).accept(stream)).await {
                        Ok(Ok(stream)) => serve(stream, service, watcher).await,
                        Ok(Err(error)) => Err(error.into()),
                        Err(_) => Err("the handshake took too long".into()),
                    },
                };
                if let Err(error) = served {
                    debug!(%error, "A connection ended.");
                }
                drop(place);
            });
        }
        drop(listener);
        if timeout(drain, graceful.shutdown()).await.is_err() {
            warn!("Cutting what still runs.");
        }
        let _ = feeding.await;
        control.store().close().await;
        info!("Stopped serving.");
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).field("tls", &self.tls.is_some()).finish()
    }
}

// === impl Calls ===

impl Calls {
    fn begin(self: &Arc<Self>) -> Running {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
        Running(Arc::clone(self))
    }

    /// Returns when none has run for [`HEAD_TIMEOUT`].
    async fn are_over(&self) {
        loop {
            let (running, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            match running {
                0 if now >= since + HEAD_TIMEOUT => return,
                0 => sleep_until(since + HEAD_TIMEOUT).await,
                _ => sleep_until(now + HEAD_TIMEOUT).await,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut calls = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *calls = (calls.0 - 1, Instant::now());
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

async fn serve<S>(
    stream: S,
    service: TowerToHyperService<axum::Router>,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT);
    let calls = Arc::new(Calls(Mutex::new((0, Instant::now()))));
    let counted = service_fn(|request: Request<Incoming>| {
        let (running, answered) = (calls.begin(), service.call(request));
        async move {
            let answer: Response = answered.await?;
            Ok::<_, std::convert::Infallible>(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _until_the_last = &running;
                    frame
                }))
            }))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), counted).into_owned();
    tokio::select! {
        ended = watcher.watch(connection) => ended,
        () = calls.are_over() => Err("nothing was asked for too long".into()),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Whatever a client begins with and does not go on with, its place is free again; a call that takes long is not cut.
    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_is_let_go() {
        const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let slow = async || {
            tokio::time::sleep(HEAD_TIMEOUT * 5).await;
            "late"
        };
        let app = axum::Router::new().route("/", get(async || "here")).route("/slow", get(slow));
        // What is sent, the last of what comes back, how long the connection is kept, in HEAD_TIMEOUT.
        let cases = [
            ("", "", 1),
            ("P", "", 1),
            (PREFACE, "", 1),
            ("GET / HT", "", 1),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "here", 1),
            ("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n", "late", 6),
        ];
        for (sent, told, kept) in cases {
            let (mut client, server) = duplex(1 << 16);
            let (service, graceful) = (TowerToHyperService::new(app.clone()), GracefulShutdown::new());
            let serving = tokio::spawn(serve(server, service, graceful.watcher()));
            let began = Instant::now();
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            timeout(HEAD_TIMEOUT * 20, client.read_to_end(&mut answer)).await.expect("the place is kept").unwrap();
            let elapsed = began.elapsed();
            let _ = serving.await;
            let expected = HEAD_TIMEOUT * kept;
            assert!((expected..expected + HEAD_TIMEOUT * 2).contains(&elapsed), "{sent:?}: {elapsed:?}");
            assert!(String::from_utf8_lossy(&answer).ends_with(told), "{sent:?}");
        }
    }
}
