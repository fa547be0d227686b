//! Floods: what is taken of each, how it ends, and that the next client is served.

use std::time::Duration;

use futures_util::future::join_all;
use rcgen::{CertificateParams, KeyPair};
use sidekey::proxy::{Settings, TlsSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    field, frame, kept, request,
};
use crate::harness::{Raw, Setup, Wire, World, within};

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n";
const POST: &str =
    "POST /v1/files HTTP/1.1\r\nhost: s\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const SOON: Duration = Duration::from_millis(100);
/// More than sockets and codecs buffer together.
const BUFFERS: usize = 16 << 20;
const CHUNKS: usize = 50_000;

async fn before(raw: &Raw, change: impl FnOnce(&mut Settings) + 'static) -> World {
    World::start(Setup { upstream: Some(raw.address), proxy: Box::new(change), ..Setup::default() }).await
}

/// How many bytes of `piece`, again and again, are taken before the other end closes.
async fn pour(wire: &mut Wire, piece: &str) -> usize {
    let many = piece.repeat(1 + 16_384 / piece.len());
    let mut sent = 0;
    within(async {
        while wire.stream.write_all(many.as_bytes()).await.is_ok() {
            sent += many.len();
        }
    })
    .await;
    sent
}

/// Waits for an answer with another status than 200, an error, or the end.
async fn refused(client: &mut Wire, what: &str) {
    loop {
        match frames::next(client).await {
            // `:status: 200` of the static table.
            (HEADERS, _, _, payload) => {
                assert_ne!(payload[0], 0x88, "{what}");
                return;
            }
            (RST_STREAM | GOAWAY, ..) => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_small_head_of_http2_does_not_grow_large() {
    // 12 KiB that stand for 48 MiB: each byte repeats a field of 4,000.
    let repeated = vec![0xbe; 12_000];
    // 80 KiB that stand for 300: a field counts 32 bytes more than it has.
    let crumbs = field(b"cookie", b"a=b").repeat(1300);
    for (what, fields, pieces) in [
        ("a field of the table, again and again", &repeated, 0),
        ("the same with CONTINUATION", &repeated, 4),
        ("cookies in crumbs", &crumbs, 4),
    ] {
        let world = World::start(Setup::default()).await;
        let mut client = world.wire().await;
        frames::begin(&mut client).await;
        let head = [request("GET", "/v1/models"), kept(b"x-a", &[b'a'; 4000])].concat();
        client.send(frame(HEADERS, END_STREAM, 1, &head)).await;
        for piece in 0..=pieces {
            let last = if piece == pieces { END_HEADERS } else { 0 };
            // It may have been closed by now.
            let _ = client.stream.write_all(&frame(CONTINUATION, last, 1, fields)).await;
        }
        refused(&mut client, what).await;
        assert!(world.gateway.seen().is_empty(), "{what}");
        assert_eq!(world.get("/v1/models").send().await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn cookies_in_crumbs_arrive_as_one() {
    let world = World::start(Setup::default()).await;
    let mut client = world.wire().await;
    frames::begin(&mut client).await;
    let head = [request("GET", "/v1/models"), field(b"cookie", b"a=b").repeat(100)].concat();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    while !matches!(frames::next(&mut client).await, (HEADERS, _, 1, _)) {}
    // RFC 9113 8.2.3.
    let cookie = vec!["a=b"; 100].join("; ");
    assert_eq!(world.gateway.last().header("cookie"), Some(&*cookie));
}

#[tokio::test]
async fn frames_that_mean_nothing_cost_nothing_or_end_the_connection() {
    let world = World::start(Setup::default()).await;
    let malformed = |stream| {
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &[request("GET", "/v1/x"), field(b"connection", b"x")].concat(),
        )
    };
    // Each of 20,000 at least.
    let window = |size: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
    for (what, each, ended) in [
        ("PRIORITY", &(|stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1])) as &dyn Fn(u32) -> Vec<u8>, false),
        ("SETTINGS that move every window", &|stream| window(stream % 65_000), false),
        (
            "WINDOW_UPDATE beyond what a window holds",
            &|_| frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            true,
        ),
        ("RST_STREAM of streams that never were", &|stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()), true),
        ("HEADERS that are no request, 256 times", &malformed, true),
        ("DATA of streams that never were", &|stream| frame(DATA, 0, stream, b"x"), true),
        ("a frame of no kind", &|stream| frame(0xee, 0, stream, b"x"), false),
    ] {
        let mut client = world.wire().await;
        frames::begin(&mut client).await;
        let mut read = true;
        for stream in 0..20_000 {
            read &= within(client.stream.write_all(&each(stream * 2 + 1))).await.is_ok();
        }
        if ended {
            let said = within(async {
                let mut said = Vec::new();
                while client.stream.read_buf(&mut said).await.is_ok_and(|got| got > 0) {}
                said
            });
            said.await;
        } else {
            assert!(read, "{what}");
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, 40_001, &request("GET", "/v1/models"))).await;
            within(async { while !matches!(frames::next(&mut client).await, (HEADERS, _, 40_001, _)) {} }).await;
        }
        assert_eq!(world.get("/v1/models").send().await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn bodies_in_chunks_of_a_byte_flow_and_the_others_are_served() {
    let raw = Raw::bind().await;
    let world = before(&raw, |_| {}).await;
    let mut client = world.wire().await;
    client.send(POST).await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    let (mut from_client, to_client) = client.stream.into_split();
    let (mut from_gateway, mut to_gateway) = gateway.stream.into_split();
    // Both at once: a body up and an answer down.
    to_gateway.write_all(CHUNKED.as_bytes()).await.unwrap();
    let writing = |mut to: tokio::net::tcp::OwnedWriteHalf| async move {
        for _ in 0..CHUNKS / 1000 {
            to.write_all("1\r\nx\r\n".repeat(1000).as_bytes()).await.unwrap();
        }
        to.write_all(b"0\r\n\r\n").await.unwrap();
        to
    };
    let counting = async |from: &mut tokio::net::tcp::OwnedReadHalf| {
        let (mut count, mut read) = (0, Vec::new());
        while !read.ends_with(b"0\r\n\r\n") {
            // Chunks may have been put together.
            if read.len() > 1 << 20 {
                let rest = read.split_off(read.len() - 5);
                count += read.iter().filter(|byte| **byte == b'x').count();
                read = rest;
            }
            assert!(from.read_buf(&mut read).await.unwrap() > 0, "cut");
        }
        count + read.iter().filter(|byte| **byte == b'x').count()
    };
    let sending = [tokio::spawn(writing(to_client)), tokio::spawn(writing(to_gateway))];
    let others = async {
        let mut other = world.wire().await;
        other.send(GET).await;
        let mut gateway = raw.accept().await;
        gateway.head().await;
        gateway.send(OK).await;
        other.until("ok").await;
        for _ in 0..20 {
            other.send(GET).await;
            gateway.head().await;
            gateway.send(OK).await;
            other.until("ok").await;
        }
    };
    let counted = async { tokio::join!(counting(&mut from_gateway), counting(&mut from_client), others) };
    let (up, down, ()) = within(counted).await;
    assert_eq!((up, down), (CHUNKS, CHUNKS));
    for sent in sending {
        sent.await.unwrap();
    }
}

#[tokio::test]
async fn what_surrounds_a_body_is_bounded() {
    for (what, start, piece, most) in [
        ("extensions of chunks", "", "1;a=bcdefgh\r\nx\r\n", BUFFERS),
        ("an extension without end", "1;a=", "b", BUFFERS),
        ("trailers", "0\r\n", "x-a: b\r\n", BUFFERS),
        ("a trailer without end", "0\r\nx-a: ", "b", BUFFERS),
        // Read and forgotten, until the body is noticed to stand still.
        ("a size without end", "", "0", usize::MAX),
    ] {
        let stall = |settings: &mut Settings| settings.limits.stall_timeout = SOON;
        let world = World::start(Setup { proxy: Box::new(stall), ..Setup::default() }).await;
        let mut client = world.wire().await;
        client.send(format!("{POST}{start}")).await;
        let sent = pour(&mut client, piece).await;
        assert!(sent < most, "{what}: {sent} bytes were taken");
        assert!(!client.rest().await.contains(" 200 "), "{what}");
        assert!(world.gateway.seen().is_empty(), "{what}");
        assert_eq!(world.get("/v1/models").send().await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn a_gateway_whose_head_does_not_end_is_left() {
    for (what, start, piece, status, ends) in [
        ("a line without end", "HTTP/1.1 200 OK\r\nx-a: ", "b", 502, true),
        ("lines without end", "HTTP/1.1 200 OK\r\n", "x-a: b\r\n", 502, true),
        ("a status line without end", "HTTP/1.1 200 ", "b", 502, true),
        ("heads of 1xx without end", "", "HTTP/1.1 103 Early Hints\r\nx-a: b\r\n\r\n", 504, false),
    ] {
        let raw = Raw::bind().await;
        let world = before(&raw, |settings| settings.upstream.response_head_timeout = SOON * 10).await;
        let mut client = world.wire().await;
        client.send(GET).await;
        let mut gateway = raw.accept().await;
        gateway.head().await;
        gateway.send(start).await;
        let pouring = tokio::spawn(async move { pour(&mut gateway, piece).await });
        // Another client meanwhile.
        let mut other = world.wire().await;
        other.send(GET).await;
        let mut answering = raw.accept().await;
        answering.head().await;
        answering.send(OK).await;
        assert!(other.head().await.starts_with("HTTP/1.1 200"), "{what}");

        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {head}");
        let sent = pouring.await.unwrap();
        assert!(!ends || sent < BUFFERS, "{what}: {sent} bytes were taken");
    }
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_end_gives_its_place_back() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
    let signer = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&signer).unwrap();
    std::fs::write(&certificate, signed.pem()).unwrap();
    std::fs::write(&key, signer.serialize_pem()).unwrap();
    let tls = TlsSettings { cert_file: certificate, key_file: key, client_ca_file: None };
    let setup = Setup {
        proxy: Box::new(move |settings| {
            settings.tls = Some(tls);
            (settings.limits.head_timeout, settings.limits.max_connections) = (SOON, 8);
        }),
        ..Setup::default()
    };
    let world = World::start(setup).await;
    // A record of 512 bytes is announced; a hello of 16 MiB; no TLS at all; nothing.
    let starts: [&[u8]; 4] =
        [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], &[0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], b"GET / HTTP/1.1\r\n\r\n", b""];
    let mut open = Vec::new();
    for start in starts.into_iter().cycle().take(200) {
        let mut client = world.wire().await;
        client.send(start).await;
        open.push(client);
    }
    // More than all places, those to be shed included; each is ended in its turn, none by the client.
    within(join_all(open.iter_mut().map(Wire::rest))).await;
    within(async {
        while world.metrics.connections.get() > 0 {
            tokio::time::sleep(SOON / 20).await;
        }
    })
    .await;
}
