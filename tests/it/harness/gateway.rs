//! A gateway that echoes, or answers as told, and remembers what it received.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::only;

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
