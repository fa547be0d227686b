//! Connects to the gateway: name, TCP and TLS, or a Unix socket, within one time.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::UnixStream;
use tokio_rustls::{TlsConnector, TlsStream};
use tower_service::Service;

use crate::proxy::{stream::Stream, tls::Reloaded};

/// Finds a gateway host that vanished while a request waits for it.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Makes connections to one place.
#[derive(Debug)]
pub struct Connector {
    place: Place,
    timeout: Duration,
}

/// Where it connects.
#[derive(Debug)]
enum Place {
    Host { tcp: HttpConnector, uri: Uri, tls: Option<Arc<Reloaded<ClientConfig>>> },
    Socket(PathBuf),
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name, TCP or the socket.
    #[error("no connection")]
    Tcp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// TLS.
    #[error("no TLS session")]
    Tls(#[source] io::Error),
    /// The host is no name that a certificate could carry.
    #[error("the host cannot be verified by a certificate")]
    Name,
    /// All of it took too long.
    #[error("not connected within {} ms", .0.as_millis())]
    Timeout(Duration),
}

// === impl Connector ===

impl Connector {
    /// Connects to `uri` (scheme and authority) within `timeout`, inside TLS when `tls` is given.
    pub fn new(uri: Uri, tls: Option<Arc<Reloaded<ClientConfig>>>, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(TCP_KEEP_ALIVE / 3));
        tcp.set_keepalive_retries(Some(3));
        // One address of several must not use up the whole time.
        tcp.set_connect_timeout(Some(timeout));
        Self { place: Place::Host { tcp, uri, tls }, timeout }
    }

    /// Connects to the Unix socket at `path` within `timeout`.
    pub fn unix(path: PathBuf, timeout: Duration) -> Self {
        Self { place: Place::Socket(path), timeout }
    }

    /// Longest time for a connection, and for a place to open one.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self) -> Result<Stream, ConnectError> {
        let connect = async {
            let (tcp, uri, tls) = match &self.place {
                Place::Host { tcp, uri, tls } => (tcp, uri, tls),
                Place::Socket(path) => {
                    let socket = UnixStream::connect(path).await;
                    return socket.map(Stream::Unix).map_err(|error| ConnectError::Tcp(error.into()));
                }
            };
            // Ready at any time: resolving a name is part of the call.
            let tcp = tcp.clone().call(uri.clone()).await;
            let tcp = tcp.map_err(|error| ConnectError::Tcp(error.into()))?.into_inner();
            let Some(tls) = tls else { return Ok(Stream::Tcp(tcp)) };
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(|_| ConnectError::Name)?;
            let tls = TlsConnector::from(tls.current()).connect(name, tcp).await.map_err(ConnectError::Tls)?;
            Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
        };
        match tokio::time::timeout(self.timeout, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectError::Timeout(self.timeout)),
        }
    }
}
