//! A port of loopback where a scripted server answers, as long as the test holds it.

use std::{convert::Infallible, net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::AbortHandle};

/// A server that ends when this is dropped.
pub struct Listening {
    port: u16,
    task: AbortHandle,
}

impl Listening {
    /// Answers every request with `serve`, which shares `state`.
    pub async fn start<S, F>(state: &Arc<S>, serve: fn(Arc<S>, Request<Incoming>) -> F) -> Self
    where
        S: Send + Sync + 'static,
        F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::clone(state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                let service = service_fn(move |request| serve(Arc::clone(&state), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move { drop(connection.serve_connection(TokioIo::new(stream), service).await) });
            }
        });
        Self { port, task: task.abort_handle() }
    }

    /// Address and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of an address where nobody listens.
    pub fn nobody() -> String {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}
