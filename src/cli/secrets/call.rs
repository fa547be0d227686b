//! One request to the operator API, and what can become of it.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, InvalidHeaderValue},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use zeroize::Zeroizing;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer: a refresh of everything waits for its managers.
const PATIENCE: Duration = Duration::from_secs(600);
/// Largest answer, in bytes: a million references.
const MAX_ANSWER: usize = 256 << 20;

/// Where the operator API is, and how to be let in.
#[derive(Debug)]
pub struct Call {
    address: SocketAddr,
    token: Zeroizing<Vec<u8>>,
}

/// There is no answer to show.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0} does not answer")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("{0} does not answer in time")]
    Late(SocketAddr),
    #[error("the request cannot be sent")]
    Request(#[from] http::Error),
    #[error("the token cannot be sent")]
    Token(#[from] InvalidHeaderValue),
    #[error("the connection broke")]
    Broken(#[from] hyper::Error),
    #[error("the answer cannot be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is not that of a sidecar of this version")]
    Answer(#[from] serde_json::Error),
    #[error("{code}: {message}")]
    Refused { code: String, message: String },
    #[error("the answer is {0}, which is not that of a sidecar")]
    Status(StatusCode),
}

/// The body of an error.
#[derive(Deserialize)]
struct Envelope {
    error: Told,
}

#[derive(Deserialize)]
struct Told {
    code: String,
    message: String,
}

// === impl Call ===

impl Call {
    /// To the sidecar whose admin listener is at `address`.
    pub fn new(address: SocketAddr, token: Zeroizing<Vec<u8>>) -> Self {
        Self { address, token }
    }

    /// Sends one request over a connection of its own.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, Failure> {
        let stream = timeout(CONNECT, TcpStream::connect(self.address)).await;
        let stream = stream.map_err(|_| Failure::Late(self.address))?;
        let stream = stream.map_err(|error| Failure::Connect(self.address, error))?;
        timeout(PATIENCE, self.exchange(stream, method, path, body)).await.map_err(|_| Failure::Late(self.address))?
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        stream: TcpStream,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, Failure> {
        let bearer = Zeroizing::new([b"Bearer ", self.token.as_slice()].concat());
        let mut authorization = HeaderValue::from_bytes(&bearer)?;
        authorization.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::<Bytes>::from(body.map(|body| body.to_string()).unwrap_or_default()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(Failure::Body)?.to_bytes();
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        Err(match serde_json::from_slice(&body) {
            Ok(Envelope { error: Told { code, message } }) => Failure::Refused { code, message },
            Err(_) => Failure::Status(status),
        })
    }
}
