//! Connections against a server that speaks by script.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;
use crate::proxy::body::Rest;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A gateway: how many connections it took, and what is heard of their ends.
struct Gateway {
    pool: Arc<Pool>,
    connections: Arc<AtomicUsize>,
    ended: mpsc::UnboundedReceiver<()>,
}

/// Serves every connection with `serve` and tells when it has returned.
async fn gateway<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Gateway
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (tell, ended) = mpsc::unbounded_channel();
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (serving, tell) = (serve(stream), tell.clone());
            tokio::spawn(async move {
                serving.await;
                let _ = tell.send(());
            });
        }
    });
    Gateway { pool: Arc::new(Pool::new(Connector::new(uri, None, Duration::from_secs(5)))), connections, ended }
}

/// Reads one head; `false` at the end of the stream.
async fn head(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => seen.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// Answers every request.
async fn answering(mut stream: TcpStream) {
    while head(&mut stream).await {
        stream.write_all(OK).await.unwrap();
    }
}

fn get() -> Request<RequestBody> {
    Request::get("/").header("host", "gateway").body(RequestBody::empty()).unwrap()
}

async fn whole(reply: Response<ReplyBody>) -> Bytes {
    reply.into_body().collect().await.unwrap().to_bytes()
}

impl Gateway {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn idle(&self) -> usize {
        self.pool.idle().links.len()
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let gateway = gateway(answering).await;
    for _ in 0..5 {
        assert_eq!(whole(gateway.pool.exchange(get()).await.unwrap()).await, "ok");
        assert_eq!(gateway.idle(), 1, "given back with the last byte");
    }
    let (one, two) = tokio::join!(gateway.pool.exchange(get()), gateway.pool.exchange(get()));
    assert_eq!((whole(one.unwrap()).await, whole(two.unwrap()).await), ("ok".into(), "ok".into()));
    assert_eq!((gateway.connections(), gateway.idle()), (2, 2), "what runs at once is not shared");
}

#[tokio::test]
async fn a_reply_that_is_dropped_takes_its_connection_along() {
    let mut gateway = gateway(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        // Returns only when the other end has closed.
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    drop(gateway.pool.exchange(get()).await.unwrap());
    gateway.ended.recv().await.unwrap();
    assert_eq!(gateway.idle(), 0);
}

#[tokio::test]
async fn a_request_that_is_dropped_takes_its_connection_along() {
    let mut gateway = gateway(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let left = tokio::time::timeout(Duration::from_millis(50), gateway.pool.exchange(get())).await;
    assert!(left.is_err());
    gateway.ended.recv().await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_not_used() {
    let mut gateway = gateway(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    for round in 1..=3 {
        assert_eq!(whole(gateway.pool.exchange(get()).await.unwrap()).await, "ok");
        gateway.ended.recv().await.unwrap();
        assert_eq!(gateway.connections(), round);
    }
}

#[tokio::test]
async fn a_connection_the_gateway_wants_closed_is_not_kept() {
    let gateway = gateway(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    assert_eq!(whole(gateway.pool.exchange(get()).await.unwrap()).await, "ok");
    assert_eq!(gateway.idle(), 0);
}

#[tokio::test]
async fn a_gateway_that_closes_without_a_reply_is_an_error() {
    let gateway = gateway(|mut stream| async move {
        head(&mut stream).await;
    })
    .await;
    let error = gateway.pool.exchange(get()).await.unwrap_err();
    assert!(matches!(&error, ExchangeError::Broken(error) if error.is_incomplete_message()), "{error:?}");
}

#[tokio::test]
async fn an_early_reply_does_not_stop_the_rest_of_the_upload() {
    const UPLOAD: usize = 8 << 20;
    let mut gateway = gateway(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        let mut taken = 0;
        let mut buffer = vec![0; 1 << 16];
        while taken < UPLOAD {
            match stream.read(&mut buffer).await.unwrap() {
                0 => return std::future::pending().await,
                read => taken += read,
            }
        }
    })
    .await;
    let start = VecDeque::from([Bytes::from(vec![b'x'; UPLOAD])]);
    let body = RequestBody::replay(start, Rest::End, Some(UPLOAD as u64), None);
    let request = Request::post("/").header("content-length", UPLOAD).body(body).unwrap();
    // Held and not read, as by a client that sends first.
    let reply = gateway.pool.exchange(request).await.unwrap();
    gateway.ended.recv().await.unwrap();
    assert_eq!(whole(reply).await, "ok");
}

#[tokio::test]
async fn a_waiting_request_takes_a_connection_that_becomes_free() {
    let gateway = gateway(answering).await;
    let reply = gateway.pool.exchange(get()).await.unwrap();
    // Nobody may open another one.
    let _all = gateway.pool.opening.acquire_many(u32::try_from(MAX_OPENING).unwrap()).await.unwrap();
    let pool = Arc::clone(&gateway.pool);
    let waiting = tokio::spawn(async move { whole(pool.exchange(get()).await.unwrap()).await });
    tokio::task::yield_now().await;
    assert_eq!(whole(reply).await, "ok");
    assert_eq!(waiting.await.unwrap(), "ok");
    assert_eq!(gateway.connections(), 1);
}

#[tokio::test]
async fn what_is_idle_for_too_long_is_closed() {
    let mut gateway = gateway(answering).await;
    assert_eq!(whole(gateway.pool.exchange(get()).await.unwrap()).await, "ok");
    assert_eq!(gateway.idle(), 1);
    tokio::time::pause();
    tokio::time::advance(IDLE + SWEEP).await;
    gateway.ended.recv().await.unwrap();
    assert_eq!(gateway.idle(), 0);
    tokio::time::resume();
    assert_eq!(whole(gateway.pool.exchange(get()).await.unwrap()).await, "ok");
    assert_eq!(gateway.connections(), 2);
}

#[tokio::test]
async fn a_place_to_connect_is_not_waited_for_for_ever() {
    let gateway = gateway(answering).await;
    let _all = gateway.pool.opening.acquire_many(u32::try_from(MAX_OPENING).unwrap()).await.unwrap();
    tokio::time::pause();
    let error = gateway.pool.exchange(get()).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Connect(ConnectError::Timeout(_))), "{error:?}");
    assert_eq!(gateway.connections(), 0);
}
