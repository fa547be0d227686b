//! Listens, accepts, and lets go: one listener, HTTP/1.1 and HTTP/2, TLS where it is configured.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

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
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Control, Settings, routes::routes};

/// For a head, and between two calls.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an error of accepting: usually there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).await
}
