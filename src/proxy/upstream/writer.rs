//! A connection that shows whether something still waits to be written to it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::stream::Stream;

/// A [`Stream`] whose last write is remembered.
#[derive(Debug)]
pub struct Writer {
    stream: Stream,
    stuck: Stuck,
}

/// Whether the last write found no room. The codec writes until there is none or nothing is left.
#[derive(Clone, Debug, Default)]
pub struct Stuck(Arc<AtomicBool>);

// === impl Writer ===

impl Writer {
    /// `stream`, and where to look.
    pub fn new(stream: Stream) -> (Self, Stuck) {
        let stuck = Stuck::default();
        (Self { stream, stuck: stuck.clone() }, stuck)
    }

    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.stuck.0.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }
}

impl AsyncRead for Writer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS keeps what the socket did not take until here.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Stuck ===

impl Stuck {
    /// Whether something waits for room.
    pub fn is_stuck(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
