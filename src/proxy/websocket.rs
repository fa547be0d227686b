//! WebSockets: the handshake is planned like any request, what follows is passed on byte by byte.
//!
//! Frames, close codes and sub-protocols are never looked at. A session may be silent for as long as it likes; it ends with
//! either side, at `limits.session_max_secs`, or when the drain is over. HTTP/1.1 upgrades (RFC 6455) and extended CONNECT over
//! HTTP/2 (RFC 8441) come in; the gateway always sees an upgrade.

use std::{io, pin::pin, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
};
use hyper::{
    body::Incoming,
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;
use uuid::Uuid;

use super::{activity::InFlight, body::ResponseBody, hop, upstream::ReplyBody};

/// When one side has closed its direction, how long the other may take to say its last.
const FAREWELL: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client that asked for a WebSocket.
#[derive(Debug)]
pub struct Handshake {
    client: OnUpgrade,
    extended_connect: bool,
}

/// All sessions of the process.
#[derive(Clone, Debug)]
pub struct Sessions {
    tracker: TaskTracker,
    cut: CancellationToken,
    max: Option<Duration>,
    stall_timeout: Duration,
}

// === impl Handshake ===

impl Handshake {
    /// Recognises a handshake and gives it the form of HTTP/1.1, so that it is planned in one form. Call it before
    /// hop-by-hop headers are removed.
    pub fn take(request: &mut Request<Incoming>) -> Option<Self> {
        let headers = request.headers();
        let upgrade = request.version() == Version::HTTP_11
            && *request.method() == Method::GET
            && hop::lists(headers, &CONNECTION, "upgrade")
            && hop::lists(headers, &UPGRADE, "websocket");
        let protocol = request.extensions().get::<Protocol>();
        let extended_connect = *request.method() == Method::CONNECT
            && protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
        if !upgrade && !extended_connect {
            return None;
        }
        if extended_connect {
            *request.method_mut() = Method::GET;
            request.headers_mut().insert(SEC_WEBSOCKET_KEY, key());
        }
        Some(Self { client: hyper::upgrade::on(request), extended_connect })
    }

    /// Writes into a planned head that it is a handshake.
    pub fn write(&self, head: &mut Parts) {
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }

    /// Connects both sides once the gateway has agreed, and returns what the client is told.
    pub fn accept(
        self,
        mut response: Response<ReplyBody>,
        sessions: &Sessions,
        request_id: Uuid,
        in_flight: Option<InFlight>,
    ) -> Response<ResponseBody> {
        let gateway = hyper::upgrade::on(&mut response);
        sessions.run(self.client, gateway, request_id, in_flight);
        let (mut head, _) = response.into_parts();
        hop::strip_response(&mut head.headers);
        if self.extended_connect {
            head.status = StatusCode::OK;
            head.headers.remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        Response::from_parts(head, ResponseBody::empty())
    }
}

// === impl Sessions ===

impl Sessions {
    /// No session runs yet; each may last for `max`, and its client may take nothing for `stall_timeout` while bytes wait.
    pub fn new(max: Option<Duration>, stall_timeout: Duration) -> Self {
        Self { tracker: TaskTracker::new(), cut: CancellationToken::new(), max, stall_timeout }
    }

    /// Waits until the last session has ended.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Ends every session now.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    fn run(&self, client: OnUpgrade, gateway: OnUpgrade, request_id: Uuid, in_flight: Option<InFlight>) {
        let Self { cut, max, stall_timeout, .. } = self.clone();
        self.tracker.spawn(async move {
            // Held to the end: the session is a running request.
            let running = in_flight;
            let tunnel = async {
                let (client, gateway) = tokio::try_join!(client, gateway)?;
                Ok::<_, BoxError>(connect(TokioIo::new(client), TokioIo::new(gateway)).await?)
            };
            let limit = async {
                match max {
                    Some(max) => tokio::time::sleep(max).await,
                    None => std::future::pending().await,
                }
            };
            let stalled = async {
                match &running {
                    Some(running) => running.stalled(stall_timeout).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = tunnel => match ended {
                    Ok(()) => debug!(%request_id, "A WebSocket session ended."),
                    Err(error) => debug!(%request_id, %error, "A WebSocket session broke off."),
                },
                () = limit => debug!(%request_id, "A WebSocket session reached its longest time and was cut."),
                () = stalled => debug!(%request_id, "The client of a WebSocket session took nothing for too long."),
                () = cut.cancelled() => debug!(%request_id, "A WebSocket session was cut, the process ends."),
            }
        });
    }
}

/// Passes bytes both ways until one side has closed and the other has followed, or has had its time to.
async fn connect(client: TokioIo<Upgraded>, gateway: TokioIo<Upgraded>) -> io::Result<()> {
    let (client_read, client_write) = split(client);
    let (gateway_read, gateway_write) = split(gateway);
    let mut up = pin!(pass(client_read, gateway_write));
    let mut down = pin!(pass(gateway_read, client_write));
    let last = tokio::select! {
        closed = up.as_mut() => {
            closed?;
            timeout(FAREWELL, down).await
        }
        closed = down.as_mut() => {
            closed?;
            timeout(FAREWELL, up).await
        }
    };
    last.unwrap_or(Ok(()))
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// HTTP/2 has no key; the gateway's HTTP/1.1 needs one, and nobody compares the answer.
fn key() -> HeaderValue {
    let encoded = STANDARD.encode(Uuid::now_v7().as_bytes());
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}
