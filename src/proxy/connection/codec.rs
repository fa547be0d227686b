//! The limits of HTTP/1.1 and HTTP/2, and what the codecs cannot say themselves.

use std::{io, pin::Pin, time::Duration};

use http::{
    Request, Response, Version,
    header::{HOST, TRANSFER_ENCODING},
};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::HttpService,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{driver::Connection, io::ClientIo};
use crate::proxy::{body::ResponseBody, settings::Limits, turn::Streams};

/// Streams one HTTP/2 connection may have open.
const H2_STREAMS: u32 = 256;
/// Streams a client may open and reset before we have begun them; more closes the connection (CVE-2023-44487).
const H2_PENDING_RESETS: usize = 32;
/// Streams we may have to reset for a client's faults; more closes the connection.
const H2_OUR_RESETS: usize = 256;
/// Finds HTTP/2 clients that vanished.
const H2_PING: Duration = Duration::from_secs(30);
/// The codec's own limit is this many times ours, so that a head that is a little too large gets our answer.
const HEAD_SLACK: usize = 2;
/// The codec's least buffer.
const LEAST_BUFFER: usize = 8 * 1024;

/// HTTP/1.1. Heads are timed by the driver, not here.
pub(super) fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size((HEAD_SLACK * limits.max_head_bytes).max(LEAST_BUFFER));
    builder
}

/// HTTP/2.
pub(super) fn http2(limits: &Limits) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams { patience: limits.stall_timeout });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(HEAD_SLACK * limits.max_head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_local_error_reset_streams(H2_OUR_RESETS)
        .keep_alive_interval(H2_PING)
        .enable_connect_protocol();
    builder
}

/// Why a head that the codec took is no HTTP/1.1 all the same: others on the way may read it in another way than we do.
///
/// Source: RFC 9112 3.2 (a server answers 400 to none or several `Host`), 6.1 and 7 (`chunked` once, and no coding that is not
/// understood). What else could be read in two ways the codec refuses itself, or, `Content-Length` beside `Transfer-Encoding`,
/// ends the connection after it.
pub(super) fn ambiguity<B>(request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    if request.version() == Version::HTTP_11 && headers.get_all(HOST).iter().count() != 1 {
        return Some("not one `host`");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => None,
        (Some(_), _) => Some("another `transfer-encoding` than `chunked`"),
    }
}

/// Writes a reply to a client whose request the codec never saw as a whole.
pub(super) async fn write(mut io: impl AsyncWrite + Unpin, reply: Response<ResponseBody>) -> io::Result<()> {
    let (head, body) = reply.into_parts();
    let length = body.size_hint().exact().unwrap_or_default();
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut text =
        format!("HTTP/1.1 {} {reason}\r\ncontent-length: {length}\r\nconnection: close\r\n", head.status.as_u16());
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    text.push_str("\r\n");
    io.write_all(text.as_bytes()).await?;
    io.write_all(&body.into_bytes()).await?;
    io.shutdown().await
}

impl<S> Connection for http1::UpgradeableConnection<TokioIo<ClientIo>, S>
where
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Connection for http2::Connection<TokioIo<ClientIo>, S, Streams>
where
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
