//! The rest of the internet, as one test sees it: answers for every host, and remembers every request.
//!
//! Any name resolves here and any address ends here, on ports 80 and 443 (TLS with a certificate for whatever name was
//! asked), so a credential that leaves for a wrong place is caught, not lost. Model APIs are answered in their own shape
//! (`answer`), everything else with a small JSON object. A request takes the following orders in its text:
//!
//! - `gate:NAME`: a streamed answer sends its first event, and each further one only after [`Provider::release`] or
//!   `POST http://provider.test/gate/NAME`. Whoever buffers anywhere on the way makes the test hang.
//! - [`Provider::script`] decides from Rust what a host answers, for one test.

mod answer;
pub mod aws;
mod name;
mod realtime;

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UdpSocket},
    sync::Semaphore,
};
use tokio_rustls::LazyConfigAcceptor;

use crate::{
    authority::Authority,
    client::{Call, Reply},
    harness,
};

/// What the test's own scripts call to open a gate.
const CONTROL_HOST: &str = "provider.test";

/// Where names lead that no test asked to lead elsewhere: an address of a documentation range (RFC 5737).
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// All hosts of the world.
pub struct Provider {
    world: Arc<World>,
    authority_file: PathBuf,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub scheme: &'static str,
    /// The `host` header; the authority of an absolute target otherwise.
    pub host: String,
    /// Where the connection was made to, after name resolution.
    pub address: SocketAddr,
    pub method: Method,
    /// Path and query as sent.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a host answers.
pub enum Answer {
    Whole {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
    /// One piece per event; gated when the request asked for it.
    Events {
        headers: HeaderMap,
        events: Vec<Bytes>,
    },
    /// What a future comes to, for scripts that ask another server.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// Nothing: the connection is closed.
    Hangup,
}

type Script = Arc<dyn Fn(&Received) -> Option<Answer> + Send + Sync>;

#[derive(Default)]
struct World {
    received: Mutex<Vec<Received>>,
    scripts: Mutex<Vec<(String, Script)>>,
    gates: Mutex<HashMap<String, Arc<Semaphore>>>,
    names: Mutex<HashMap<String, Ipv4Addr>>,
    tls: Mutex<HashMap<String, Arc<ServerConfig>>>,
    authority: Option<Authority>,
}

// === impl Provider ===

impl Provider {
    /// Opens the listeners and the name server. Once per test.
    pub async fn start() -> Self {
        let authority = Authority::new("Sidekey test internet");
        let authority_file = harness::folder().join("authority.pem");
        fs::write(&authority_file, authority.certificate_pem()).expect("the test's folder is writable");
        let world = Arc::new(World { authority: Some(authority), ..World::default() });

        let names = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).await.expect("port 53 of a network of our own");
        tokio::spawn(name::serve(names, world.clone()));
        let provider = Self { world, authority_file };
        provider.listen(80).await;
        provider.listen(443).await;
        provider
    }

    /// Opens one more port, on every address; TLS when a client starts so.
    pub async fn listen(&self, port: u16) {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.expect("a port of a network of our own");
        let world = self.world.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let world = world.clone();
                tokio::spawn(async move {
                    let address = stream.local_addr().expect("an address");
                    let mut first = [0];
                    match stream.peek(&mut first).await {
                        // The first byte of a TLS record that carries a handshake.
                        Ok(1) if first == [0x16] => serve_tls(stream, address, world).await,
                        Ok(1) => serve(stream, "http", address, world).await,
                        _ => {}
                    }
                });
            }
        });
    }

    /// The certificate authority of every host, in a PEM file.
    pub fn authority_file(&self) -> &std::path::Path {
        &self.authority_file
    }

    /// Every request so far, oldest first.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.world.received).clone()
    }

    /// Every request so far; the record starts anew.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut lock(&self.world.received))
    }

    /// The one request since the record started; panics when there is none or more.
    #[track_caller]
    pub fn take_one(&self) -> Received {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "one request was expected: {all:#?}");
        all.remove(0)
    }

    /// From now on `host` (any host: `*`) answers what `script` gives; `None` leaves it to earlier scripts, then to the
    /// ordinary answers.
    pub fn script(&self, host: &str, script: impl Fn(&Received) -> Option<Answer> + Send + Sync + 'static) {
        lock(&self.world.scripts).push((host.to_owned(), Arc::new(script)));
    }

    /// `name` leads to `address` instead of [`ANYWHERE`].
    pub fn resolve(&self, name: &str, address: Ipv4Addr) {
        lock(&self.world.names).insert(name.to_ascii_lowercase(), address);
    }

    /// Lets a stream behind `gate:NAME` send one more event.
    pub fn release(&self, gate: &str) {
        self.world.gate(gate).add_permits(1);
    }
}

// === impl Received ===

impl Received {
    /// A header as text, empty when absent; several are joined with `, `.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Whether `text` stands anywhere in it: target, header or body.
    pub fn contains(&self, text: &str) -> bool {
        let has = |bytes: &[u8]| memchr::memmem::find(bytes, text.as_bytes()).is_some();
        has(self.target.as_bytes()) || has(&self.body) || self.headers.values().any(|value| has(value.as_bytes()))
    }

    /// The same request, to be sent to another server. The length is told anew: the body may be changed.
    pub fn again(&self) -> Call {
        let mut call = Call::new(self.method.clone(), &self.target);
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
            call = call.header(name.as_str(), value);
        }
        call.with_body(self.body.clone())
    }

    fn gate(&self) -> Option<String> {
        let text = self.text();
        let (_, name) = text.split_once("gate:")?;
        Some(name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect())
    }
}

// === impl Answer ===

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, "application/json", body.to_string())
    }

    pub fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        Self::Whole { status, headers: HeaderMap::new(), body: body.into() }.header("content-type", content_type)
    }

    pub fn events(content_type: &str, events: Vec<Bytes>) -> Self {
        Self::Events { headers: HeaderMap::new(), events }.header("content-type", content_type)
    }

    /// What another server answered.
    pub fn relayed(reply: &Reply) -> Self {
        let type_ = reply.header("content-type");
        Self::whole(reply.status.as_u16(), &type_, reply.body.clone())
    }

    /// Adds a response header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Whole { headers, .. } | Self::Events { headers, .. } = &mut self {
            let name = header::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            headers.append(name, value.parse().expect("a header value"));
        }
        self
    }
}

// === impl World ===

impl World {
    fn address_of(&self, name: &str) -> Ipv4Addr {
        lock(&self.names).get(name).copied().unwrap_or(ANYWHERE)
    }

    fn gate(&self, name: &str) -> Arc<Semaphore> {
        lock(&self.gates).entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(0))).clone()
    }

    /// What the server of `name` shows; made on first use.
    fn tls(&self, name: &str) -> Arc<ServerConfig> {
        let mut known = lock(&self.tls);
        let make = || self.authority.as_ref().expect("an authority").issue(&[name]).server();
        known.entry(name.to_owned()).or_insert_with(make).clone()
    }

    fn answer(&self, request: &Received) -> Answer {
        let scripts: Vec<Script> = lock(&self.scripts)
            .iter()
            .rev()
            .filter(|(host, _)| host == "*" || *host == request.host)
            .map(|(_, script)| script.clone())
            .collect();
        scripts.iter().find_map(|script| script(request)).unwrap_or_else(|| answer::ordinary(request))
    }
}

async fn serve_tls(stream: tokio::net::TcpStream, address: SocketAddr, world: Arc<World>) {
    let Ok(hello) = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await else { return };
    let name = hello.client_hello().server_name().map_or_else(|| address.ip().to_string(), str::to_owned);
    if let Ok(stream) = hello.into_stream(world.tls(&name)).await {
        serve(stream, "https", address, world).await;
    }
}

async fn serve<S>(stream: S, scheme: &'static str, address: SocketAddr, world: Arc<World>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| respond(request, scheme, address, world.clone()));
    let server = hyper::server::conn::http1::Builder::new();
    // A client that breaks off is none of our business.
    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// Why a connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
struct Hangup;

async fn respond(
    mut request: Request<Incoming>,
    scheme: &'static str,
    address: SocketAddr,
    world: Arc<World>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Hangup> {
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let host = head.headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let received = Received {
        scheme,
        host: host.or_else(|| head.uri.authority().map(ToString::to_string)).unwrap_or_default(),
        address,
        method: head.method,
        target: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body: body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
    };
    if received.host == CONTROL_HOST {
        let gate = received.path().trim_start_matches("/gate/");
        world.gate(gate).add_permits(1);
        return Ok(Response::new(Full::default().boxed_unsync()));
    }
    lock(&world.received).push(received.clone());
    if let Some(upgrade) = upgrade {
        return Ok(realtime::accept(&received, upgrade).map(|()| Full::default().boxed_unsync()));
    }
    let mut answer = world.answer(&received);
    while let Answer::Later(later) = answer {
        answer = later.await;
    }
    let (status, headers, body) = match answer {
        Answer::Whole { status, headers, body } => (status, headers, Full::new(body).boxed_unsync()),
        Answer::Events { headers, events } => {
            let gate = received.gate().map(|name| world.gate(&name));
            (StatusCode::OK, headers, paced(events, gate).boxed_unsync())
        }
        Answer::Hangup | Answer::Later(_) => return Err(Hangup),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A body of one frame per event; behind a gate, every event but the first waits for a permit.
fn paced(
    events: Vec<Bytes>,
    gate: Option<Arc<Semaphore>>,
) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>>> {
    StreamBody::new(stream::unfold((events.into_iter(), gate, true), |(mut events, gate, first)| async move {
        let event = events.next()?;
        if let (Some(gate), false) = (&gate, first) {
            gate.acquire().await.expect("never closed").forget();
        }
        Some((Ok(Frame::data(event)), (events, gate, false)))
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}
