//! Connects to the gateway: name, TCP and TLS within one time.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, TlsStream};
use tower_service::Service;

use crate::proxy::{stream::Stream, tls::Reloaded};

/// Finds a gateway host that vanished while a request waits for it.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Makes connections to one place.
#[derive(Debug)]
pub struct Connector {
    tcp: HttpConnector,
    uri: Uri,
    tls: Option<Arc<Reloaded<ClientConfig>>>,
    timeout: Duration,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name or TCP.
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
        Self { tcp, uri, tls, timeout }
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
            // Ready at any time: resolving a name is part of the call.
            let tcp = self.tcp.clone().call(self.uri.clone()).await;
            let tcp = tcp.map_err(|error| ConnectError::Tcp(error.into()))?.into_inner();
            let Some(tls) = &self.tls else { return Ok(Stream::Plain(tcp)) };
            let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
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
