//! WebSockets: both ways, over both versions of HTTP, and how they end.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::server::{Request as Offer, Response as Agreement},
        protocol::{CloseFrame, Role},
    },
};

use crate::harness::{Raw, Setup, Wire, World, pass, within};

type Socket<S = TcpStream> = WebSocketStream<S>;

async fn raw(change: impl FnOnce(&mut sidekey::proxy::Settings) + 'static) -> (World, Raw) {
    let raw = Raw::bind().await;
    let setup = Setup { upstream: Some(raw.address), proxy: Box::new(change), ..Setup::default() };
    (World::start(setup).await, raw)
}

/// A client and the gateway at the two ends of one session, and the handshake as the gateway saw it.
async fn session(world: &World, raw: &Raw) -> (Socket, Socket, Offer) {
    let mut request = format!("ws://{}/v1/realtime?model=gpt-4o", world.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "realtime, other".parse().unwrap());
    request.headers_mut().insert("x-custom", "1".parse().unwrap());
    let client = async {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let (client, reply) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(reply.headers()["sec-websocket-protocol"], "realtime");
        client
    };
    let (client, (gateway, offer)) = within(async { tokio::join!(client, agree(raw)) }).await;
    (client, gateway, offer)
}

/// The gateway's side of a handshake.
async fn agree(raw: &Raw) -> (Socket, Offer) {
    let mut seen = None;
    #[allow(clippy::result_large_err, reason = "the callback's type is the library's")]
    let callback = |offer: &Offer, mut agreement: Agreement| {
        seen = Some(offer.clone());
        agreement.headers_mut().insert("sec-websocket-protocol", "realtime".parse().unwrap());
        Ok(agreement)
    };
    let stream = raw.accept().await.stream;
    let socket = tokio_tungstenite::accept_hdr_async(stream, callback).await.unwrap();
    (socket, seen.unwrap())
}

async fn says(socket: &mut Socket<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>, message: &Message) {
    assert_eq!(&within(socket.next()).await.unwrap().unwrap(), message);
}

#[tokio::test]
async fn messages_and_close_codes_pass_both_ways() {
    let (world, raw) = raw(|_| {}).await;
    let (mut client, mut gateway, offer) = session(&world, &raw).await;
    assert_eq!(offer.uri(), "/v1/realtime?model=gpt-4o");
    assert_eq!(offer.headers()["upgrade"], "websocket", "the gateway compares it exactly");
    assert_eq!(offer.headers()["x-custom"], "1");
    assert_eq!(offer.headers()["host"], raw.address.to_string());
    for message in [Message::text("hällo"), Message::binary(vec![0; 100_000])] {
        client.send(message.clone()).await.unwrap();
        says(&mut gateway, &message).await;
        gateway.send(message.clone()).await.unwrap();
        says(&mut client, &message).await;
    }
    let close = CloseFrame { code: 4001.into(), reason: "session expired".into() };
    gateway.close(Some(close.clone())).await.unwrap();
    says(&mut client, &Message::Close(Some(close))).await;
    assert_eq!(world.access()[0]["status"], 101);
}

#[tokio::test]
async fn either_side_may_leave() {
    let (world, raw) = raw(|_| {}).await;
    let (client, mut gateway, _) = session(&world, &raw).await;
    drop(client);
    assert!(within(gateway.next()).await.unwrap().is_err());
    let (mut client, gateway, _) = session(&world, &raw).await;
    drop(gateway);
    assert!(within(client.next()).await.unwrap().is_err());
    // A client that does not close its side is not waited for.
    pass(Duration::from_secs(6)).await;
    within(async {
        while world.metrics.connections.get() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_does_not_agree_is_heard() {
    let (world, raw) = raw(|_| {}).await;
    let handshake = "GET /v1/realtime HTTP/1.1\r\nhost: s\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let mut client = world.wire().await;
    client.send(handshake).await;
    let mut gateway = raw.accept().await;
    let head = gateway.head().await;
    assert!(head.contains("connection: Upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    // That is all the gateway writes before it closes.
    gateway.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    drop(gateway);
    assert!(client.head().await.starts_with("HTTP/1.1 400 Bad Request\r\n"));
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_an_error() {
    let (world, raw) = raw(|_| {}).await;
    for asks in ["", "connection: upgrade\r\nupgrade: h2c\r\n"] {
        let mut client = world.wire().await;
        client.send(format!("GET /v1/models HTTP/1.1\r\nhost: s\r\n{asks}\r\n")).await;
        let mut gateway = raw.accept().await;
        assert!(!gateway.head().await.contains("upgrade"));
        gateway.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 502") && head.contains("upstream_unreachable"), "{head}");
    }
}

#[tokio::test]
async fn a_handshake_with_a_body_is_refused() {
    let (world, _raw) = raw(|_| {}).await;
    let mut client = world.wire().await;
    client
        .send(
            "GET /v1/realtime HTTP/1.1\r\nhost: s\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\ncontent-length: 4\r\n\r\nGET ",
        )
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 400") && head.contains("x-sidekey-error: invalid_body"), "{head}");
}

#[tokio::test]
async fn a_session_runs_on_while_the_rest_is_drained_and_is_waited_for() {
    let (world, raw) = raw(|_| {}).await;
    let (mut client, mut gateway, _) = session(&world, &raw).await;
    world.shutdown.drain();
    // Nothing else holds the process up, so that it would have ended if the session were not waited for.
    world.logged("Shutting down").await;
    for _ in 0..3 {
        client.send(Message::text("still here")).await.unwrap();
        says(&mut gateway, &Message::text("still here")).await;
    }
    assert!(!world.served.is_finished());
    client.close(None).await.unwrap();
    says(&mut gateway, &Message::Close(None)).await;
    drop((client, gateway));
    within(world.served).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_at_its_longest_time_and_with_the_process() {
    let (world, raw) = raw(|settings| settings.limits.session_max = Some(Duration::from_millis(20))).await;
    let (mut client, mut gateway, _) = session(&world, &raw).await;
    assert!(within(client.next()).await.unwrap().is_err());
    assert!(within(gateway.next()).await.unwrap().is_err());

    let (world, raw) = self::raw(|settings| settings.limits.drain = Duration::ZERO).await;
    let (mut client, _gateway, _) = session(&world, &raw).await;
    world.shutdown.drain();
    within(world.served).await.unwrap();
    assert!(within(client.next()).await.unwrap().is_err());
}

#[tokio::test]
async fn http2_clients_open_sessions_with_extended_connect() {
    let (world, raw) = raw(|_| {}).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    // The server says in its settings that it knows extended CONNECT; those have come with the first reply.
    let (status, _) = within(async { tokio::join!(sender.send_request(plain(&world)), not_found(&raw)) }).await;
    assert_eq!(status.unwrap().status(), 404);

    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = format!("http://{}/v1/realtime", world.address).parse().unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", "realtime".parse().unwrap());
    let (reply, (mut gateway, offer)) = within(async { tokio::join!(sender.send_request(request), agree(&raw)) }).await;
    let reply = reply.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["sec-websocket-protocol"], "realtime");
    assert!(!reply.headers().contains_key("sec-websocket-accept"));
    assert_eq!(offer.uri(), "/v1/realtime");

    let upgraded = within(hyper::upgrade::on(reply)).await.unwrap();
    let mut client = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    client.send(Message::text("up")).await.unwrap();
    says(&mut gateway, &Message::text("up")).await;
    gateway.send(Message::text("down")).await.unwrap();
    says(&mut client, &Message::text("down")).await;
}

#[tokio::test]
async fn connect_opens_nothing_else() {
    let (world, _raw) = raw(|_| {}).await;
    let mut client = world.wire().await;
    client.send("CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

fn plain(world: &World) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = format!("http://{}/v1/models", world.address).parse().unwrap();
    request
}

async fn not_found(raw: &Raw) -> Wire {
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    gateway
}
