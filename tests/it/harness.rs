//! The sidecar in this process, between a gateway and clients that a test plays. Ports are picked by the system, logs are
//! captured, and nothing sleeps: a test waits for what it expects, and gives up after [`PATIENCE`].
//!
//! ```ignore
//! let world = World::start(Setup { snapshot: Some(json!({ … })), ..Setup::default() }).await;
//! let reply = world.post("/v1/chat/completions").header("x-portkey-provider", "@openai-prod").json(&json!({ … })).send().await;
//! assert_eq!(reply.status, 200, "{reply:?}");
//! assert_eq!(world.gateway.last().header("authorization"), Some("Bearer sk-1"));
//! ```
//!
//! [`Gateway`] echoes what it receives, or answers as told. Where the bytes themselves matter, [`Wire`] is either end of a
//! connection, and [`Raw`] a gateway made of it.
//!
//! Tests run on one thread each (`#[tokio::test]`), so that the captured log is that of the test.

#![allow(dead_code, reason = "a test takes what it needs")]

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sidekey::{
    admin::{self, Admin, Vitals},
    dialect::portkey::{self, Portkey},
    feed::Feed,
    manager::{FailureClass, FetchError, Managers, SecretManager},
    metric::Metrics,
    model::{LinkRules, Reference, Snapshot, link},
    proxy::{Heartbeat, Proxy, Server, Settings, Shutdown},
    resolve::{self, Resolver},
    telemetry::{self, Capture, Level},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tracing::subscriber::DefaultGuard;

/// Longest wait for anything. Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often the gateway is probed, once [`World::admin`] has been called.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// What a [`World`] is made of. Write the fields that matter, and `..Setup::default()`.
pub struct Setup {
    /// The snapshot; `None` = an empty one. See [`Setup::no_snapshot`].
    pub snapshot: Option<Value>,
    /// Start without any snapshot.
    pub no_snapshot: bool,
    /// Settings of the dialect.
    pub dialect: portkey::Settings,
    /// Settings of the cache.
    pub cache: resolve::Settings,
    /// Who resolves; by default nobody can.
    pub managers: Arc<dyn Managers>,
    /// The gateway, when it is not the echoing one.
    pub upstream: Option<SocketAddr>,
    /// Last changes to the proxy's settings.
    pub proxy: Box<dyn FnOnce(&mut Settings)>,
}

/// A running sidecar.
pub struct World {
    /// Where clients connect: the first of [`World::addresses`].
    pub address: SocketAddr,
    /// Everywhere they can.
    pub addresses: Vec<SocketAddr>,
    /// The gateway behind it; idle if [`Setup::upstream`] was given.
    pub gateway: Gateway,
    /// The log so far, JSON lines, from `trace` on.
    pub logs: Capture,
    /// The proxy itself.
    pub proxy: Arc<Proxy>,
    /// Beats while it accepts.
    pub heartbeat: Arc<Heartbeat>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The current snapshot.
    pub feed: Arc<Feed>,
    /// Starts the end.
    pub shutdown: Shutdown,
    /// Ends when everything has been drained or cut.
    pub served: JoinHandle<()>,
    _log: DefaultGuard,
}

/// A gateway that remembers what it received.
#[derive(Clone)]
pub struct Gateway {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Mutex<Answering>>,
}

type Answering = Box<dyn Fn(&Seen) -> Answer + Send>;

/// A request as the gateway received it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Trailers.
    pub trailers: HeaderMap,
}

/// What the gateway answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Bytes,
}

/// What a client received.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Trailers.
    pub trailers: HeaderMap,
}

/// A request being written.
pub struct Call {
    address: SocketAddr,
    request: Request<Full<Bytes>>,
}

/// One end of a connection, as bytes.
pub struct Wire<S = TcpStream> {
    /// The connection.
    pub stream: S,
    read: BytesMut,
}

/// A gateway whose connections the test plays.
pub struct Raw {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
}

/// Nobody: every reference is misconfigured.
#[derive(Debug)]
struct Nobody;

// === impl Setup ===

impl Default for Setup {
    fn default() -> Self {
        Self {
            snapshot: None,
            no_snapshot: false,
            dialect: portkey::Settings::default(),
            cache: cache(),
            managers: Arc::new(Nobody),
            upstream: None,
            proxy: Box::new(|_| {}),
        }
    }
}

// === impl World ===

impl World {
    /// Starts everything; returns when clients can connect.
    pub async fn start(setup: Setup) -> Self {
        let logs = Capture::default();
        let subscriber =
            telemetry::subscriber(Level::TRACE, Some("trace"), telemetry::Format::Json, logs.clone()).unwrap();
        let log = tracing::subscriber::set_default(subscriber);

        let gateway = Gateway::start().await;
        let metrics = Arc::new(Metrics::new());
        let feed = Arc::new(Feed::default());
        if !setup.no_snapshot {
            feed.swap(Arc::new(setup.snapshot.map_or_else(Snapshot::default, |snapshot| linked(&snapshot))));
        }
        let upstream = setup.upstream.unwrap_or(gateway.address);
        let mut settings = Settings::new(format!("http://{upstream}").parse().unwrap());
        settings.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        settings.limits.drain_delay = Duration::ZERO;
        (setup.proxy)(&mut settings);
        let resolver = Arc::new(Resolver::new(setup.cache, setup.managers, metrics.clone()));
        let proxy =
            Proxy::new(&settings, feed.clone(), Portkey::new(setup.dialect), resolver, metrics.clone()).unwrap();
        let server = Server::bind(&settings).unwrap();
        let addresses = server.addresses();
        let shutdown = Shutdown::new();
        let (proxy, heartbeat) = (Arc::new(proxy), server.heartbeat());
        let served = tokio::spawn(server.run(proxy.clone(), shutdown.clone()));
        Self {
            address: addresses[0],
            addresses,
            gateway,
            logs,
            proxy,
            heartbeat,
            metrics,
            feed,
            shutdown,
            served,
            _log: log,
        }
    }

    /// Starts the admin listener, which begins to probe the gateway.
    pub async fn admin(&self) -> SocketAddr {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let admin = Admin::bind(&admin::Settings { listen, probe_interval: PROBE_INTERVAL }).await.unwrap();
        let address = admin.address().unwrap();
        let vitals = Vitals {
            proxy: self.proxy.clone(),
            feed: self.feed.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            heartbeats: vec![("acceptor", self.heartbeat.clone())],
        };
        tokio::spawn(admin.run(vitals, std::future::pending()));
        address
    }

    /// A `GET`.
    pub fn get(&self, target: &str) -> Call {
        self.call(Method::GET, target)
    }

    /// A `POST`; give it a body.
    pub fn post(&self, target: &str) -> Call {
        self.call(Method::POST, target)
    }

    /// Any request.
    pub fn call(&self, method: Method, target: &str) -> Call {
        Call::to(self.address, method, target)
    }

    /// A connection to the sidecar.
    pub async fn wire(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// Waits until the log has `text` in it.
    pub async fn logged(&self, text: &str) {
        let found = async {
            while !self.logs.text().contains(text) {
                tokio::task::yield_now().await;
            }
        };
        let patience = tokio::time::timeout(PATIENCE, found).await;
        assert!(patience.is_ok(), "not logged: {text:?}, but {}", self.logs.text());
    }

    /// The access lines of the log, parsed.
    pub fn access(&self) -> Vec<Value> {
        self.log_lines("sidekey::access")
    }

    /// The lines of one log target, parsed.
    pub fn log_lines(&self, target: &str) -> Vec<Value> {
        let parsed = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        self.logs.text().lines().map(parsed).filter(|line| line["target"] == target).collect()
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts one that echoes.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo: Answering = Box::new(Seen::echo);
        let gateway = Self { address, seen: Arc::default(), answer: Arc::new(Mutex::new(echo)) };
        let serving = gateway.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let gateway = serving.clone();
                let service = service_fn(move |request| gateway.clone().serve(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        gateway
    }

    /// From now on it answers like this.
    pub fn answer(&self, answer: impl Fn(&Seen) -> Answer + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the gateway received nothing")
    }

    async fn serve(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let seen = Seen {
            method: head.method,
            target: head.uri.to_string(),
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        };
        let answer = (self.answer.lock().unwrap())(&seen);
        self.seen.lock().unwrap().push(seen);
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status.try_into().unwrap();
        for (name, value) in answer.headers {
            response.headers_mut().append(name, value.try_into().unwrap());
        }
        Ok(response)
    }
}

// === impl Seen ===

impl Seen {
    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        only(&self.headers, name)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// What the echoing gateway answers.
    pub fn echo(&self) -> Answer {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
            .collect();
        let body = json!({
            "method": self.method.as_str(),
            "target": self.target,
            "headers": headers,
            "body": String::from_utf8_lossy(&self.body),
        });
        Answer {
            status: 200,
            headers: vec![("content-type", "application/json".into())],
            body: body.to_string().into(),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// A text answer.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![("content-type", "text/plain".into())], body: body.into() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

// === impl Reply ===

impl Reply {
    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        only(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The code of an error of ours.
    pub fn code(&self) -> Option<&str> {
        self.header("x-sidekey-error")
    }

    async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = within(body.collect()).await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        Self { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), trailers }
    }
}

// === impl Call ===

impl Call {
    /// A request to any address.
    pub fn to(address: SocketAddr, method: Method, target: &str) -> Self {
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().unwrap();
        Self { address, request }
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
        self
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// A body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Full::new(body.into());
        self
    }

    /// Sends it over a connection of its own.
    pub async fn send(mut self) -> Reply {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let host = self.address.to_string().parse().unwrap();
        self.request.headers_mut().insert("host", host);
        Reply::read(within(client.send_request(self.request)).await.unwrap()).await
    }

    /// Sends it as HTTP/2 with prior knowledge.
    pub async fn send_http2(mut self) -> Reply {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{}{}", self.address, self.request.uri());
        *self.request.uri_mut() = uri.parse().unwrap();
        Reply::read(within(client.send_request(self.request)).await.unwrap()).await
    }
}

// === impl Wire ===

impl Wire {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Over any stream.
    pub fn new(stream: S) -> Self {
        Self { stream, read: BytesMut::new() }
    }

    /// Writes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads up to and including `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                let text = self.read.split_to(at + end.len());
                return String::from_utf8(text.to_vec()).unwrap();
            }
            let got = within(self.stream.read_buf(&mut self.read)).await.unwrap();
            assert!(got > 0, "closed before {end:?}, after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads a head, with the empty line that ends it. Names are in lower case, as we write them.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Reads exactly this many bytes.
    pub async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            let got = within(self.stream.read_buf(&mut self.read)).await.unwrap();
            assert!(got > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
        self.read.split_to(length).to_vec()
    }

    /// Reads a head, or to the end if that comes before.
    pub async fn head_or_end(&mut self) -> String {
        let end = b"\r\n\r\n";
        while !self.read.windows(end.len()).any(|window| window == end)
            && within(self.stream.read_buf(&mut self.read)).await.is_ok_and(|got| got > 0)
        {}
        String::from_utf8_lossy(&self.read.split()).into_owned()
    }

    /// Reads to the end, which has to come. A reset is an end.
    pub async fn rest(&mut self) -> String {
        while within(self.stream.read_buf(&mut self.read)).await.is_ok_and(|got| got > 0) {}
        String::from_utf8_lossy(&self.read.split()).into_owned()
    }
}

// === impl Raw ===

impl Raw {
    /// Listens.
    pub async fn bind() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The next connection.
    pub async fn accept(&self) -> Wire {
        Wire::new(within(self.listener.accept()).await.unwrap().0)
    }
}

// === impl Nobody ===

impl Managers for Nobody {
    fn manager(&self, _: &Reference) -> Result<Arc<dyn SecretManager>, FetchError> {
        Err(FetchError::new(FailureClass::Misconfigured))
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Gives up after [`PATIENCE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}

/// Lets this much time pass at once. Nothing may be waiting for a socket under a time limit meanwhile.
pub async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// The linked form of a snapshot, in which no fault is allowed.
pub fn linked(snapshot: &Value) -> Snapshot {
    let rules = LinkRules { strict: true, admit: &|_, _, _| Ok(()) };
    link(snapshot.to_string().as_bytes(), &rules).unwrap_or_else(|error| panic!("{:#?}", error.problems))
}

/// The documented defaults of `cache.*`.
pub fn cache() -> resolve::Settings {
    resolve::Settings {
        ttl: Duration::from_secs(300),
        jitter_ratio: 0.1,
        refresh_ahead_ratio: 0.8,
        stale: Duration::from_secs(3600),
        negative_ttl: Duration::from_secs(5),
        max_entries: 10_000,
        max_bytes: 64 << 20,
        deadline: Duration::from_secs(8),
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().unwrap();
    assert!(values.next().is_none(), "{name} stands more than once");
    Some(value)
}
