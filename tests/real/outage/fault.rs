//! A proxy in front of OpenBao that lets it fail as servers and networks do, and counts what it is asked.
//!
//! Each has an address of its own (RFC 1918), so that it is an identity of its own to Sidekey and can be cut off the network
//! alone. A fault also cuts the connections that are open when it begins or ends, as a broken server does.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

/// Where the proxies are: private addresses, which the configuration has to open.
pub const NETWORK: &str = "10.66.0.0/24";

/// Time between two bytes of a trickle.
const DRIP: Duration = Duration::from_millis(100);

/// What goes wrong between Sidekey and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Everything, but this much later.
    Slow(Duration),
    /// Connections are reset when a request has come.
    Reset,
    /// There is no way to the host.
    Unreachable,
    /// 429 with `Retry-After: 1`.
    Limited,
    /// 500 as Vault words it.
    Failing,
    /// 200 with a page of HTML.
    Garbage,
    /// 404 with the page of a load balancer that has no server left.
    NoBackend,
    /// 451 of something in between that judges requests.
    Filtered,
    /// Bytes that are no HTTP.
    Noise,
    /// An answer that comes byte by byte and has no end.
    Trickle,
}

/// One proxy. Ends with the test.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    server: Mutex<Option<SocketAddr>>,
    fault: Mutex<Fault>,
    connections: Mutex<JoinSet<()>>,
    asked: Mutex<Vec<(Instant, String)>>,
}

// === impl Proxy ===

impl Proxy {
    /// At 10.66.0.`number`, in front of nothing yet.
    pub async fn start(number: u8) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(10, 66, 0, number), 0)).await.expect("every address is ours");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            server: Mutex::default(),
            fault: Mutex::new(Fault::None),
            connections: Mutex::default(),
            asked: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                lock(&shared.connections).spawn(async move { state.serve(stream).await });
            }
        });
        Self { address, state }
    }

    /// `http://address`, as in `vault_addr`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the server that is behind it.
    pub fn lead_to(&self, server: SocketAddr) {
        *lock(&self.state.server) = Some(server);
    }

    /// Sets what goes wrong from now on.
    pub fn set(&self, fault: Fault) {
        let before = std::mem::replace(&mut *lock(&self.state.fault), fault);
        lock(&self.state.connections).abort_all();
        if before == Fault::Unreachable {
            self.route("del");
        }
        if fault == Fault::Unreachable {
            self.route("add");
        }
    }

    /// What was asked so far: when, and which path.
    pub fn asked(&self) -> Vec<(Instant, String)> {
        lock(&self.state.asked).clone()
    }

    /// The routing table of local addresses is asked first, and there the longest prefix.
    fn route(&self, verb: &str) {
        let to = format!("{}/32", self.address.ip());
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let status = Command::new("ip")
            .env("PATH", path)
            .args(["route", verb, "unreachable", &to, "table", "local"])
            .status()
            .expect("ip runs");
        assert!(status.success(), "ip route {verb} {to}: {status}");
    }
}

// === impl State ===

impl State {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        // Whatever ends this connection before its time resets it.
        let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        let fault = *lock(&self.fault);
        match fault {
            Fault::Reset => drop(stream.read(&mut [0; 1024]).await),
            Fault::Noise => {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"\x00\x01\x02 this is not the protocol you are looking for\r\n").await;
                // Until the other side has had enough of it.
                let _ = stream.read(&mut [0; 1024]).await;
            }
            _ => {
                let answer = service_fn(|request| Arc::clone(&self).answer(request));
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
        lock(&self.asked).push((Instant::now(), request.uri().path().to_owned()));
        let fault = *lock(&self.fault);
        let html = |status, page: &'static str| Ok(whole(status, "text/html", page));
        match fault {
            Fault::Slow(wait) => {
                sleep(wait).await;
                self.pass(request).await
            }
            Fault::Limited => {
                let mut limited =
                    whole(429, "application/json", r#"{"errors":["request path \"x\": rate limit quota exceeded"]}"#);
                limited.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
                Ok(limited)
            }
            Fault::Failing => Ok(whole(500, "application/json", r#"{"errors":["internal error"]}"#)),
            Fault::Garbage => html(200, "<html><body>Welcome to the guest network!</body></html>"),
            Fault::NoBackend => html(404, "<html><body>404 page not found</body></html>"),
            Fault::Filtered => html(451, "<html><body>Blocked by policy 7.</body></html>"),
            Fault::Trickle => {
                let drips = stream::unfold((), |()| async {
                    sleep(DRIP).await;
                    Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
                });
                Ok(Response::new(StreamBody::new(drips).boxed_unsync()))
            }
            Fault::None | Fault::Unreachable | Fault::Reset | Fault::Noise => self.pass(request).await,
        }
    }

    /// The server's own answer.
    async fn pass(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
        let server = lock(&self.server).expect("it leads somewhere");
        let Ok(stream) = TcpStream::connect(server).await else { return Ok(whole(502, "text/plain", "")) };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection ends with its sender.
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes()).boxed_unsync()))
    }
}

fn whole(status: u16, content_type: &'static str, body: &'static str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(content_type));
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}
