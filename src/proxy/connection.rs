//! One client connection: TLS, the choice between HTTP/1.1 and HTTP/2, and what is done with its requests.

mod codec;
mod driver;
mod io;

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::{
    driver::{Driver, End, IDLE},
    io::{ClientIo, Version},
};
use super::{
    Proxy, activity::Activity, body::ResponseBody, reject::Refusal, settings::Limits, stream::Stream, tls::Reloaded,
    turn::Streams,
};

/// How long writing a last reply may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What every connection needs.
#[derive(Debug)]
pub struct Connections {
    proxy: Arc<Proxy>,
    tls: Option<Arc<Reloaded<ServerConfig>>>,
    limits: Limits,
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
    closing: CancellationToken,
    cut: CancellationToken,
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its requests are served.
    Serve,
    /// One request is answered 503 `overloaded`.
    Shed,
}

// === impl Connections ===

impl Connections {
    /// Connections to `proxy`. Once `closing` is cancelled they finish what runs, once `cut` is they are dropped.
    pub fn new(
        proxy: Arc<Proxy>,
        tls: Option<Arc<Reloaded<ServerConfig>>>,
        limits: Limits,
        closing: CancellationToken,
        cut: CancellationToken,
    ) -> Self {
        let (http1, http2) = (codec::http1(&limits), codec::http2(&limits));
        Self { proxy, tls, limits, http1, http2, closing, cut }
    }

    /// Serves one to its end. `permit` is given back when the last request or tunnel on it has ended.
    pub async fn run(self: Arc<Self>, stream: Stream, permit: OwnedSemaphorePermit, purpose: Purpose) {
        let metrics = self.proxy.metrics().clone();
        let activity = Activity::new(metrics, permit, self.limits.max_in_flight);
        let opened = async {
            let stream = match (stream, &self.tls) {
                (Stream::Tcp(stream), Some(tls)) => {
                    stream.set_nodelay(true)?;
                    let accepting = TlsAcceptor::from(tls.current()).accept(stream);
                    let stream = timeout(self.limits.head_timeout, accepting).await??;
                    Stream::Tls(Box::new(TlsStream::Server(stream)))
                }
                (Stream::Tcp(stream), None) => {
                    // Without it a small event waits for the acknowledgement of the one before.
                    stream.set_nodelay(true)?;
                    Stream::Tcp(stream)
                }
                (stream @ (Stream::Unix(_) | Stream::Tls(_)), _) => stream,
            };
            let patience = match purpose {
                Purpose::Serve => IDLE,
                Purpose::Shed => self.limits.head_timeout,
            };
            timeout(patience, ClientIo::open(stream, &activity)).await?
        };
        let opened: std::io::Result<_> = tokio::select! {
            opened = opened => opened,
            () = self.closing.cancelled() => return,
        };
        match opened {
            Ok((io, version)) => self.serve(TokioIo::new(io), version, &activity, purpose).await,
            Err(error) => debug!(%error, "A connection ended before a request."),
        }
    }

    async fn serve(&self, io: TokioIo<ClientIo>, version: Version, activity: &Arc<Activity>, purpose: Purpose) {
        let Limits { head_timeout, stall_timeout, .. } = self.limits;
        let driver = Driver { activity, head_timeout, stall_timeout, closing: &self.closing, cut: &self.cut };
        let service = service_fn(|request: Request<Incoming>| {
            let in_flight = activity.begin();
            let proxy = self.proxy.clone();
            async move {
                if let Some(reason) = codec::ambiguity(&request) {
                    debug!(reason, "A request can be read in two ways, its connection is closed.");
                    return Ok::<_, Infallible>(closed(malformed().map(|body| body.counted(Some(in_flight)))));
                }
                Ok(match purpose {
                    Purpose::Serve if in_flight.is_admitted() => proxy.serve(request, in_flight).await,
                    Purpose::Serve => {
                        proxy.refuse(Some(&request), &Refusal::Overloaded).map(|body| body.counted(Some(in_flight)))
                    }
                    Purpose::Shed => closed(
                        proxy.refuse(Some(&request), &Refusal::Overloaded).map(|body| body.counted(Some(in_flight))),
                    ),
                })
            }
        });
        match (version, purpose) {
            (Version::Http1, _) => {
                let mut connection = self.http1.serve_connection(io, service).with_upgrades();
                let end = driver.run(Pin::new(&mut connection)).await;
                if let (End::HeadTimeout, Some(parts)) = (end, connection.into_parts())
                    // Else nothing of a head is there: what came in between was the rest of a body.
                    && !parts.read_buf.is_empty()
                {
                    let reply = self.proxy.refuse(None, &Refusal::RequestTimeout(self.limits.head_timeout));
                    let _ = timeout(FAREWELL, codec::write(parts.io.into_inner(), reply)).await;
                }
            }
            (Version::Http2, Purpose::Serve) => {
                driver.run(pin!(self.http2.serve_connection(io, service))).await;
            }
            // It would keep the place for as long as the client likes.
            (Version::Http2, Purpose::Shed) => {}
        }
    }
}

/// What the codec itself answers to what is no HTTP.
fn malformed() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// Tells the client that its connection ends here.
fn closed(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
