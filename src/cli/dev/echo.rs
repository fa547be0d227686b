//! A gateway that answers with what it received.
//!
//! It stands where the Portkey gateway stands, so that the whole way of a credential can be seen without an account. Header
//! values are shortened; the answer has the form of a chat completion, so that an SDK accepts it.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use super::shorten::shorten;

/// Requests told and not yet looked at; more are served and not told.
const UNTOLD: usize = 64;
/// Largest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Pause after an error of accepting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running echo. Dropping it stops it.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    /// What arrived.
    pub arrivals: mpsc::Receiver<Arrival>,
    // Held so that the task ends with it.
    _accepting: JoinSet<()>,
}

/// A request that arrived.
pub struct Arrival {
    /// `POST /v1/chat/completions`.
    pub line: String,
    /// The headers in order, values whole. Not to be printed.
    pub headers: Vec<(String, String)>,
}

// === impl Echo ===

impl Echo {
    /// Serves on `listener`.
    pub fn start(listener: TcpListener) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (told, arrivals) = mpsc::channel(UNTOLD);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, told));
        Ok(Self { address, arrivals, _accepting: accepting })
    }
}

// === impl Arrival ===

impl Arrival {
    /// The headers as they may be printed.
    pub fn shortened(&self) -> impl Iterator<Item = (&str, String)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), shorten(name, value)))
    }

    /// The value of the header `name`. Not to be printed.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

async fn accept(listener: TcpListener, told: mpsc::Sender<Arrival>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // There are no file descriptors left, most likely; some will come back.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let told = told.clone();
                let service = service_fn(move |request| answer(request, told.clone()));
                connections.spawn(async move {
                    let mut server = http1::Builder::new();
                    let connection = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
                    // The client sees for itself when its connection ends.
                    let _ = connection.await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>, told: mpsc::Sender<Arrival>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri);
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let arrival = Arrival { line, headers };
    let body =
        http_body_util::Limited::new(body, MAX_BODY_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
    let reply = reply(&arrival, &body.unwrap_or_default());
    // The sidecar asks for `/` to see whether the gateway is there; that is nobody's request.
    if head.uri.path().starts_with("/v1/") {
        // A full channel belongs to someone who looks away.
        let _ = told.try_send(arrival);
    }
    let mut response = Response::new(Full::from(reply));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn reply(arrival: &Arrival, body: &[u8]) -> String {
    let headers: Map<String, Value> =
        arrival.shortened().map(|(name, value)| (name.to_owned(), Value::String(value))).collect();
    let model = serde_json::from_slice::<Value>(body).ok().and_then(|body| body.get("model").cloned());
    let credential = headers.get("authorization").and_then(Value::as_str).unwrap_or("no authorization");
    let reply = json!({
        "id": "chatcmpl-echo",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{
            "index": 0,
            "finish_reason": "stop",
            "message": { "role": "assistant", "content": format!("The gateway received {credential}.") },
        }],
        "usage": { "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 },
        "received": { "request": arrival.line, "headers": headers, "body_bytes": body.len() },
    });
    format!("{reply:#}\n")
}
