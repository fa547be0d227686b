//! A client that sends exactly what it is told: no normalised paths, no added headers but `host` and `content-length`, a
//! connection per call. The SDKs are the friendly clients; this one is for everything they would never send.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};

/// A request under construction.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// A response whose body is read as it comes; dropping it closes the connection.
pub struct OpenReply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    _connection: Connection,
}

/// The task of a connection; closed when dropped, whatever is under way.
struct Connection(AbortHandle);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

// === impl Call ===

impl Call {
    /// A request for `target`, a path with its query, sent as it stands here.
    pub fn new(method: Method, target: &str) -> Self {
        Self { method, target: target.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub fn get(target: &str) -> Self {
        Self::new(Method::GET, target)
    }

    pub fn post(target: &str) -> Self {
        Self::new(Method::POST, target)
    }

    /// A small chat completion: `{"model": model, "messages": [{"role": "user", "content": text}]}`.
    pub fn chat(model: &str, text: &str) -> Self {
        Self::post("/v1/chat/completions")
            .json(&serde_json::json!({"model": model, "messages": [{"role": "user", "content": text}]}))
    }

    /// Adds a header; one that is there already stays.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).expect("a header value"));
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// A body whose type stands in the headers already.
    pub fn with_body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.headers.insert("content-type", HeaderValue::from_str(content_type).expect("a content type"));
        self.body = body.into();
        self
    }

    /// Sends the request and reads the whole answer.
    pub async fn send(self, to: SocketAddr) -> Reply {
        self.open(to).await.rest().await
    }

    /// As [`Self::send`]; `None` when there is nobody, or the answer does not come to its end.
    pub async fn try_send(self, to: SocketAddr) -> Option<Reply> {
        let stream = TcpStream::connect(to).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(stream)).await.ok()?;
        let _connection = Connection(tokio::spawn(connection).abort_handle());
        let mut request = Request::builder().method(self.method).uri(&self.target).body(Full::new(self.body)).ok()?;
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(HOST, HeaderValue::from_str(&to.to_string()).ok()?);
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Reply { status: head.status, headers: head.headers, body, trailers: None })
    }

    /// Sends the request and returns at the head of the answer.
    pub async fn open(self, to: SocketAddr) -> OpenReply {
        let stream = TcpStream::connect(to).await.unwrap_or_else(|error| panic!("{to}: {error}"));
        self.over(Box::new(stream), to.to_string()).await
    }

    /// Sends the request over TLS to `to`, whose certificate names `host` and comes from `authority`.
    pub async fn send_tls(self, to: SocketAddr, host: &str, authority: Arc<rustls::ClientConfig>) -> Reply {
        let stream = TcpStream::connect(to).await.unwrap_or_else(|error| panic!("{to}: {error}"));
        let name = ServerName::try_from(host.to_owned()).expect("a server name");
        let stream = tokio_rustls::TlsConnector::from(authority).connect(name, stream).await.expect("TLS");
        self.over(Box::new(stream), host.to_owned()).await.rest().await
    }

    async fn over(self, stream: Box<dyn Stream>, host: String) -> OpenReply {
        let (mut sender, connection) =
            hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(stream)).await.expect("a connection");
        let connection = Connection(tokio::spawn(connection).abort_handle());
        let mut request = Request::builder().method(self.method).uri(&self.target).body(Full::new(self.body));
        let request = request.as_mut().unwrap_or_else(|error| panic!("{}: {error}", self.target));
        *request.headers_mut() = self.headers;
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, HeaderValue::from_str(&host).expect("a host"));
        }
        let request = std::mem::replace(request, Request::new(Full::default()));
        let (head, body) = sender.send_request(request).await.expect("a response").into_parts();
        OpenReply { status: head.status, headers: head.headers, body, _connection: connection }
    }
}

// === impl Reply ===

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text()))
    }

    /// A header of the response as text, empty when absent.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// Panics, showing the answer, unless the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?} {}", self.headers, self.text());
        self
    }
}

// === impl OpenReply ===

impl OpenReply {
    /// The next piece of the body as it came over the wire, `None` at its end.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            match self.body.frame().await?.expect("the body does not break off").into_data() {
                Ok(data) => return Some(data),
                Err(_trailers) => {}
            }
        }
    }

    /// Reads until `text` has come; panics with what came instead when the body ends before.
    pub async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let chunk = self.chunk().await.unwrap_or_else(|| panic!("the body ended before {text:?}: {seen}"));
            seen.push_str(&String::from_utf8_lossy(&chunk));
        }
        seen
    }

    /// The rest of the body and the trailers.
    pub async fn rest(mut self) -> Reply {
        let mut body = Vec::new();
        let mut trailers = None;
        while let Some(frame) = self.body.frame().await {
            let frame = frame.expect("the body does not break off");
            match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Reply { status: self.status, headers: self.headers.clone(), body: body.into(), trailers }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}
