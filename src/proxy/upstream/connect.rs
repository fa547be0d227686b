//! Connects to the gateway: name, TCP and TLS within one time.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, TlsStream};
use tower_service::Service;

use crate::proxy::{stream::Stream, tls::Reloaded};

/// Finds a gateway host that vanished while a request waits for it.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Makes connections to one place; cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    tcp: HttpConnector,
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
    /// Connects within `timeout`, inside TLS when `tls` is given.
    pub fn new(tls: Option<Arc<Reloaded<ClientConfig>>>, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(TCP_KEEP_ALIVE / 3));
        tcp.set_keepalive_retries(Some(3));
        // One address of several must not use up the whole time.
        tcp.set_connect_timeout(Some(timeout));
        Self { tcp, tls, timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.tcp.poll_ready(cx).map_err(|error| ConnectError::Tcp(error.into()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        let timeout = self.timeout;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tcp = self.tcp.call(uri);
        let connect = async move {
            let tcp = tcp.await.map_err(|error| ConnectError::Tcp(error.into()))?.into_inner();
            let Some(tls) = tls else { return Ok(Stream::Plain(tcp)) };
            let name = ServerName::try_from(host).map_err(|_| ConnectError::Name)?;
            let tls = TlsConnector::from(tls.current()).connect(name, tcp).await.map_err(ConnectError::Tls)?;
            Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
        };
        Box::pin(async move {
            match tokio::time::timeout(timeout, connect).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(ConnectError::Timeout(timeout)),
            }
        })
    }
}
