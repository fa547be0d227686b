//! A client that sends one request over a connection of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{only, within};

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
#[derive(Clone)]
pub struct Call {
    address: SocketAddr,
    request: Request<Full<Bytes>>,
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
        let executor = TokioExecutor::new();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{}{}", self.address, self.request.uri());
        *self.request.uri_mut() = uri.parse().unwrap();
        Reply::read(within(client.send_request(self.request)).await.unwrap()).await
    }
}
