//! A client's bytes, and the version of HTTP they are.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::proxy::{activity::Activity, stream::Stream};

/// How HTTP/2 with prior knowledge begins (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A client's bytes, with those put back that were read to tell the version.
#[derive(Debug)]
pub struct ClientIo {
    stream: Stream,
    start: BytesMut,
    version: Version,
    /// Told about bytes that come in, not of HTTP/2, where they may be anything; and whether those that go out are taken.
    activity: Arc<Activity>,
}

// === impl ClientIo ===

impl ClientIo {
    /// Reads as much as it takes to tell the version.
    ///
    /// # Errors
    /// The connection broke or ended before that.
    pub async fn open(mut stream: Stream, activity: &Arc<Activity>) -> io::Result<(Self, Version)> {
        let mut start = BytesMut::with_capacity(PREFACE.len());
        let version = loop {
            if stream.read_buf(&mut start).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let length = start.len().min(PREFACE.len());
            if start[..length] != PREFACE[..length] {
                break Version::Http1;
            }
            if length == PREFACE.len() {
                break Version::Http2;
            }
        };
        let io = Self { stream, start, version, activity: activity.clone() };
        io.received();
        Ok((io, version))
    }

    fn received(&self) {
        match self.version {
            Version::Http1 => self.activity.received(),
            Version::Http2 => {}
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.start.is_empty() {
            let length = this.start.len().min(buf.remaining());
            buf.put_slice(&this.start[..length]);
            this.start.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.received();
        }
        polled
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.activity.wrote(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.activity.wrote(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes bytes before the client does.
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.activity.wrote(polled.is_ready());
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
