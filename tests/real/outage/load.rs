//! Requests at a steady pace over connections that stay open, and the time each took.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

/// A connection that sends one small chat request after the other.
pub struct Line {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Got {
    pub sent: Instant,
    pub took: Duration,
    pub status: u16,
    pub head: String,
}

/// The one `authorization`, in lower case, that a gateway takes; `None` = any.
pub type Accepted = Arc<Mutex<Option<String>>>;

/// Times in order.
pub struct Times(Vec<Duration>);

/// A gateway that answers everything at once, so that what is measured is Sidekey. Where it listens.
pub async fn quick_gateway() -> SocketAddr {
    quick_gateway_for(Accepted::default()).await
}

/// [`quick_gateway`] that answers 401 to a credential it does not take, and 101 to a handshake with one that it takes.
pub async fn quick_gateway_for(accepted: Accepted) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let accepted = Arc::clone(&accepted);
            tokio::spawn(async move {
                let answer = service_fn(async |request| Ok::<_, std::convert::Infallible>(answer(&accepted, &request)));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                connection.with_upgrades().await
            });
        }
    });
    address
}

fn answer(accepted: &Accepted, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let sent = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let taken =
        accepted.lock().expect("nobody panics with it").as_ref().is_none_or(|key| sent.eq_ignore_ascii_case(key));
    let upgrade = request.headers().get("upgrade").cloned();
    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"id\":\"1\"}")));
    match (taken || request.method() == http::Method::GET && upgrade.is_none(), upgrade) {
        (false, _) => *response.status_mut() = http::StatusCode::UNAUTHORIZED,
        (true, Some(protocol)) => {
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            *response.body_mut() = Full::default();
            response.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
            response.headers_mut().insert("upgrade", protocol);
        }
        (true, None) => {}
    }
    response
}

/// Sends `rate` requests a second over `lines` connections for this long; everything that came back.
pub async fn run(to: SocketAddr, slug: &str, lines: u32, rate: u32, time: Duration) -> Vec<Got> {
    let mut running = JoinSet::new();
    for _ in 0..lines {
        let mut line = Line::open(to, slug).await;
        running.spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) * lines / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (end, mut all) = (Instant::now() + time, Vec::new());
            while Instant::now() < end {
                ticks.tick().await;
                all.push(line.send().await);
            }
            all
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

// === impl Line ===

impl Line {
    /// To Sidekey, for a virtual key.
    pub async fn open(to: SocketAddr, slug: &str) -> Self {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"ping"}]}"#;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: sidekey.test\r\nx-portkey-provider: @{slug}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::of(to, request).await
    }

    /// To Sidekey, with the handshake of a WebSocket in place of the request.
    pub async fn handshake(to: SocketAddr, slug: &str) -> Self {
        let request = format!(
            "GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nhost: sidekey.test\r\nx-portkey-provider: @{slug}\r\n\
             connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        Self::of(to, request).await
    }

    async fn of(to: SocketAddr, request: String) -> Self {
        let stream = TcpStream::connect(to).await.expect("it listens");
        stream.set_nodelay(true).expect("an option of every socket");
        Self { stream, request: request.into_bytes(), buffer: Vec::new() }
    }

    /// Sends the request and reads its answer.
    pub async fn send(&mut self) -> Got {
        let sent = Instant::now();
        self.stream.write_all(&self.request).await.expect("the connection stays");
        self.buffer.clear();
        let head = loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the connection stays");
            assert!(read > 0, "the connection ended");
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        // A handshake that succeeded has no body.
        let length: usize = field(&text, "content-length").parse().unwrap_or_default();
        while self.buffer.len() < head + length {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the connection stays");
            assert!(read > 0, "the body ended");
        }
        let status = text.get(9..12).and_then(|status| status.parse().ok()).expect("a status line");
        Got { sent, took: sent.elapsed(), status, head: text }
    }
}

// === impl Got ===

impl Got {
    /// `x-sidekey-error`, empty when there is none.
    pub fn code(&self) -> &str {
        field(&self.head, "x-sidekey-error")
    }

    /// A header, empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        field(&self.head, name)
    }

    /// `age` of the provenance header, in seconds.
    pub fn age(&self) -> Option<u64> {
        self.header("x-sidekey-provenance").split(';').find_map(|part| part.strip_prefix("age="))?.parse().ok()
    }
}

// === impl Times ===

impl Times {
    pub fn of(all: &[Got]) -> Self {
        Self::new(all.iter().map(|got| got.took).collect())
    }

    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that this part of them did not exceed.
    pub fn part(&self, part: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
    }
}

/// `p50 | p99`, in milliseconds.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most] = [0.5, 0.99].map(|part| self.part(part).as_secs_f64() * 1e3);
        write!(f, "{half:.2} | {most:.2}")
    }
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}
