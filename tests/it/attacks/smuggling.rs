//! Requests that two readers on the way could take for different ones.

use super::frames::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, field, frame, request};
use crate::harness::{Raw, Setup, World};

/// A request, if a body ends before it.
const HIDDEN: &str = "GET /v1/smuggled HTTP/1.1\r\nhost: s\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What becomes of a head with a body and [`HIDDEN`] behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The codec's 400, and nothing behind it is read.
    Refused,
    /// The gateway gets it with this body, and nothing behind it is read.
    Closed(&'static str),
    /// It can be read in one way only: the gateway gets it with this body, and then the next.
    Next(&'static str),
}

use End::{Closed, Next, Refused};

#[tokio::test]
async fn how_long_a_body_is_has_one_reading_or_ends_the_connection() {
    struct Case {
        what: &'static str,
        head: &'static str,
        body: &'static str,
        end: End,
    }
    const CHUNKED: &str = "transfer-encoding: chunked\r\n";
    let one = |what, head, body, end| Case { what, head, body, end };
    let cases = [
        one("fine", "content-length: 4\r\n", "abcd", Next("abcd")),
        one("fine, chunked", CHUNKED, "4\r\nabcd\r\n0\r\n\r\n", Next("abcd")),
        one("length: plus", "content-length: +4\r\n", "abcd", Refused),
        one("length: minus", "content-length: -4\r\n", "abcd", Refused),
        one("length: two numbers", "content-length: 4 4\r\n", "abcd", Refused),
        one("length: list", "content-length: 4, 4\r\n", "abcd", Refused),
        one("length: twice, the same", "content-length: 4\r\ncontent-length: 4\r\n", "abcd", Next("abcd")),
        one("length: twice, another", "content-length: 4\r\ncontent-length: 0\r\n", "abcd", Refused),
        one("length: hexadecimal", "content-length: 0x4\r\n", "abcd", Refused),
        one("length: empty", "content-length:\r\n", "", Refused),
        one("length: 2^64", "content-length: 18446744073709551616\r\n", "", Refused),
        one("length: space before the colon", "content-length : 4\r\n", "abcd", Refused),
        one("length and chunked", "content-length: 4\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", Closed("")),
        one("chunked and length", "transfer-encoding: chunked\r\ncontent-length: 4\r\n", "0\r\n\r\n", Closed("")),
        one("coding: unknown", "transfer-encoding: xchunked\r\n", "0\r\n\r\n", Refused),
        one("coding: unknown, and length", "transfer-encoding: x\r\ncontent-length: 4\r\n", "abcd", Refused),
        one("coding: none", "transfer-encoding: identity\r\n", "0\r\n\r\n", Refused),
        one("coding: chunked is not last", "transfer-encoding: chunked, identity\r\n", "0\r\n\r\n", Refused),
        one("coding: another before", "transfer-encoding: identity, chunked\r\n", "0\r\n\r\n", Refused),
        one("coding: not undone by us", "transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n", Refused),
        one("coding: chunked twice", "transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n", Refused),
        one("coding: two lines", "transfer-encoding: chunked\r\ntransfer-encoding: x\r\n", "0\r\n\r\n", Refused),
        one(
            "coding: two lines, turned",
            "transfer-encoding: x\r\ntransfer-encoding: chunked\r\n",
            "0\r\n\r\n",
            Refused,
        ),
        one("coding: parameter", "transfer-encoding: chunked;x=y\r\n", "0\r\n\r\n", Refused),
        one("coding: quoted", "transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n", Refused),
        one("coding: vertical tab", "transfer-encoding: \x0bchunked\r\n", "0\r\n\r\n", Refused),
        one("coding: space before the colon", "transfer-encoding : chunked\r\n", "0\r\n\r\n", Refused),
        one("coding: folded", "transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n", Refused),
        one("coding: other case, tab", "Transfer-Encoding:\tCHUNKED\r\n", "0\r\n\r\n", Next("")),
        // RFC 9112 2.2: a line may end so. It is written anew, as a line of its own.
        one("line feed alone", "x-a: b\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", Next("")),
        one("carriage return alone", "x-a: b\rtransfer-encoding: chunked\r\n", "", Refused),
        one("folded line", "x-a: b\r\n c: d\r\n", "", Refused),
        one("NUL", "x-a: b\0\r\n", "", Refused),
        one("another length", "content_length: 4\r\n", "", Next("")),
        one("host twice", "host: t\r\n", "", Refused),
        one("chunk: extension", CHUNKED, "1;a=\"b\"\r\nx\r\n0\r\n\r\n", Next("x")),
        one("chunk: line feed in an extension", CHUNKED, "1;a\nx\r\n0\r\n\r\n", Refused),
        one("chunk: line feed after the size", CHUNKED, "1\nx\r\n0\r\n\r\n", Refused),
        one("chunk: line feed at the end", CHUNKED, "0\n\n", Refused),
        one("chunk: longer than it says", CHUNKED, "1\r\nxy\r\n0\r\n\r\n", Refused),
        one("chunk: 0x", CHUNKED, "0x0\r\n\r\n", Refused),
        one("chunk: plus", CHUNKED, "+0\r\n\r\n", Refused),
        one("chunk: space before", CHUNKED, " 0\r\n\r\n", Refused),
        one("chunk: 2^64", CHUNKED, "10000000000000000\r\n", Refused),
        one("chunk: no size", CHUNKED, "\r\n\r\n", Refused),
        one("trailers about the body", CHUNKED, "0\r\ncontent-length: 9\r\nhost: t\r\n\r\n", Next("")),
    ];
    let world = World::start(Setup::default()).await;
    for Case { what, head, body, end } in cases {
        let before = world.gateway.seen().len();
        let mut client = world.wire().await;
        client.send(format!("POST /v1/files HTTP/1.1\r\nhost: s\r\n{head}\r\n{body}{HIDDEN}")).await;
        let first = client.head_or_end().await;
        let expected: &[(&str, &str)] = match end {
            Refused => {
                assert!(first.starts_with("HTTP/1.1 400") || first.starts_with("HTTP/1.1 431"), "{what}: {first}");
                client.rest().await;
                &[]
            }
            Closed(body) => {
                assert!(first.starts_with("HTTP/1.1 200"), "{what}: {first}");
                client.rest().await;
                &[("/v1/files", body)]
            }
            Next(body) => {
                assert!(first.starts_with("HTTP/1.1 200"), "{what}: {first}");
                client.until("HTTP/1.1 200").await;
                &[("/v1/files", body), ("/v1/smuggled", "")]
            }
        };
        let seen = world.gateway.seen();
        let seen: Vec<_> =
            seen[before..].iter().map(|seen| (&*seen.target, std::str::from_utf8(&seen.body).unwrap())).collect();
        assert_eq!(seen, expected, "{what}");
        assert!(world.gateway.seen()[before..].iter().all(|seen| seen.trailers.is_empty()), "{what}");
    }
}

#[tokio::test]
async fn a_request_line_has_one_reading() {
    let world = World::start(Setup::default()).await;
    for (line, target) in [
        ("GET /v1/x HTTP/1.1", Some("/v1/x")),
        // Where it goes is not the request's to say.
        ("GET http://evil.example/v1/x HTTP/1.1", Some("/v1/x")),
        ("GET /v1/x#y HTTP/1.1", Some("/v1/x")),
        ("GET /v1/x", None),
        ("GET /v1/x HTTP/0.9", None),
        ("GET /v1/x HTTP/1.2", None),
        ("GET /v1/x HTTP/2.0", None),
        ("GET  /v1/x HTTP/1.1", None),
        ("GET /v1/x HTTP/1.1 ", None),
        ("GET\t/v1/x\tHTTP/1.1", None),
        ("GET /v1/x y HTTP/1.1", None),
        ("GET v1/x HTTP/1.1", None),
        ("GET @evil.example/v1/x HTTP/1.1", None),
        ("G@T /v1/x HTTP/1.1", None),
        (" GET /v1/x HTTP/1.1", None),
        ("CONNECT evil.example:443 HTTP/1.1", None),
        ("OPTIONS * HTTP/1.1", None),
        ("GET //evil.example/v1/x HTTP/1.1", None),
        ("GET /v1/x%0d%0aa:b HTTP/1.1", None),
        ("GET /v1/\u{e9} HTTP/1.1", None),
    ] {
        let before = world.gateway.seen().len();
        let mut client = world.wire().await;
        client.send(format!("{line}\r\nhost: s\r\nconnection: close\r\n\r\n")).await;
        let reply = client.rest().await;
        assert_eq!(reply.starts_with("HTTP/1.1 200"), target.is_some(), "{line}: {reply}");
        let seen = world.gateway.seen();
        assert_eq!(seen.get(before).map(|seen| &*seen.target), target, "{line}");
        assert!(seen.iter().all(|seen| seen.header("host") == Some(&world.gateway.address.to_string())), "{line}");
    }
    let mut client = world.wire().await;
    client.send("GET /v1/x HTTP/1.1\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400"), "without a host");
    let mut client = world.wire().await;
    client.send("GET /v1/x HTTP/1.0\r\n\r\n").await;
    assert!(client.rest().await.contains(" 200 "), "without a host it was not yet known");
}

#[tokio::test]
async fn http2_does_not_write_a_second_request_into_http1() {
    let post = |more: &[(&str, &str)]| {
        let more = more.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes()));
        request("POST", "/v1/files").into_iter().chain(more).collect::<Vec<u8>>()
    };
    let bare = |fields: &[(&str, &str)]| {
        fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect::<Vec<u8>>()
    };
    let world = World::start(Setup::default()).await;
    for (what, head, body, taken) in [
        ("fine", post(&[]), "abcd", true),
        ("length: right, twice", post(&[("content-length", "4"), ("content-length", "4")]), "abcd", true),
        ("another host", post(&[("host", "evil.example")]), "abcd", true),
        ("length: less", post(&[("content-length", "2")]), "abcd", false),
        ("length: more", post(&[("content-length", "9")]), "abcd", false),
        ("length: plus", post(&[("content-length", "+4")]), "abcd", false),
        ("length: twice", post(&[("content-length", "4"), ("content-length", "5")]), "abcd", false),
        ("coding", post(&[("transfer-encoding", "chunked")]), "0\r\n\r\n", false),
        ("connection", post(&[("connection", "x-a")]), "", false),
        ("upgrade", post(&[("upgrade", "websocket")]), "", false),
        ("te", post(&[("te", "gzip")]), "", false),
        ("value: line end", post(&[("x-a", "b\r\nx-b: c")]), "", false),
        ("value: line feed", post(&[("x-a", "b\nx-b: c")]), "", false),
        ("value: NUL", post(&[("x-a", "b\0")]), "", false),
        ("name: line end", post(&[("x-a: b\r\nx-b", "c")]), "", false),
        ("name: colon", post(&[("x-a:", "b")]), "", false),
        ("name: upper case", post(&[("X-A", "b")]), "", false),
        ("name: none", post(&[("", "b")]), "", false),
        ("path: line end", request("POST", "/v1/files HTTP/1.1\r\nx: y\r\n\r\n"), "", false),
        ("path: space", request("POST", "/v1/files HTTP/1.1"), "", false),
        ("path: none", request("POST", ""), "", false),
        ("path: a host", request("POST", "http://evil.example/v1/files"), "", false),
        ("path: twice", post(&[(":path", "/v1/other")]), "", false),
        ("path: late", post(&[("x-a", "b"), (":path", "/v1/other")]), "", false),
        ("path: missing", bare(&[(":method", "GET"), (":scheme", "http"), (":authority", "s")]), "", false),
        ("method: a request line", request("POST /v1/x HTTP/1.1\r\n", "/v1/files"), "", false),
        (
            "scheme: a host",
            bare(&[(":method", "GET"), (":scheme", "http://evil.example/?"), (":path", "/v1/x")]),
            "",
            false,
        ),
        (
            "authority: line end",
            bare(&[(":method", "GET"), (":scheme", "http"), (":path", "/v1/x"), (":authority", "s\r\nx: y")]),
            "",
            false,
        ),
        ("unknown pseudo-header", post(&[(":evil", "a")]), "", false),
    ] {
        let before = world.gateway.seen().len();
        let mut client = world.wire().await;
        frames::begin(&mut client).await;
        client.send(frame(HEADERS, END_HEADERS, 1, &head)).await;
        client.send(frame(DATA, END_STREAM, 1, body.as_bytes())).await;
        let answered = loop {
            match frames::next(&mut client).await {
                // `:status: 200` of the static table.
                (HEADERS, _, 1, payload) => break payload.first() == Some(&0x88),
                (RST_STREAM, _, 1, _) | (GOAWAY, ..) => break false,
                _ => {}
            }
        };
        assert_eq!(answered, taken, "{what}");
        let seen = world.gateway.seen();
        assert_eq!(seen.len() - before, usize::from(taken), "{what}");
        if let Some(seen) = seen.get(before) {
            assert_eq!((&*seen.target, &*seen.body), ("/v1/files", body.as_bytes()), "{what}");
        }
    }
}

#[tokio::test]
async fn what_a_gateway_says_beyond_its_answer_is_nobodys() {
    let get = |path: &str| format!("GET /v1/{path} HTTP/1.1\r\nhost: s\r\n\r\n");
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for (what, answer, body) in [
        ("an answer too many", format!("{OK}{poison}"), "ok"),
        (
            "length and chunked",
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 60\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{poison}"
            ),
            "2\r\nok\r\n0\r\n\r\n",
        ),
        ("a body where none belongs", format!("HTTP/1.1 204 No Content\r\n\r\n{poison}"), ""),
    ] {
        let raw = Raw::bind().await;
        let world = World::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
        let mut first = world.wire().await;
        first.send(get("first")).await;
        let mut gateway = raw.accept().await;
        gateway.head().await;
        gateway.send(answer).await;
        let head = first.head().await;

        assert!(!(head.contains("content-length") && head.contains("transfer-encoding")), "{what}: {head}");
        assert_eq!(first.take(body.len()).await, body.as_bytes(), "{what}");

        let mut second = world.wire().await;
        second.send(get("second")).await;
        let mut other = raw.accept().await;
        assert!(other.head().await.starts_with("GET /v1/second"), "{what}");
        other.send(OK).await;
        assert!(second.until("ok").await.starts_with("HTTP/1.1 200"), "{what}");
    }
}
