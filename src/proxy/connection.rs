//! One client connection: TLS, the choice between HTTP/1.1 and HTTP/2, and how long it may be waited for.
//!
//! The codec's own head timer would also cut idle connections, so that a time fit for heads would break clients that keep
//! connections. Here a head is timed from its first byte, and an idle connection has [`IDLE`].

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    activity::{Activity, Waiting},
    stream::Stream,
};

/// Longer than what load balancers and SDKs keep idle connections for (60 to 90 s), so that they close first.
pub const IDLE: Duration = Duration::from_secs(120);
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
    /// Told about bytes that come in; not of HTTP/2, where they may be anything.
    activity: Option<Arc<Activity>>,
}

/// How the service of a connection is driven to its end.
#[derive(Debug)]
pub struct Driver<'a> {
    /// Whom to ask what is waited for.
    pub activity: &'a Activity,
    /// Longest time from the first to the last byte of a head.
    pub head_timeout: Duration,
    /// Finish what runs, then close.
    pub closing: &'a CancellationToken,
    /// Close.
    pub cut: &'a CancellationToken,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, whether well or not.
    Finished,
    /// A head was not complete in time; a reply can still be written.
    HeadTimeout,
    /// It has to be dropped.
    Cut,
}

/// A connection that can be asked to finish.
pub trait Connection: Future<Output = hyper::Result<()>> {
    /// No more requests after those that run.
    fn finish(self: Pin<&mut Self>);
}

/// The timer of one connection. It is set anew only when it has run out, so that a request costs none.
struct Watchdog {
    sleep: Pin<Box<Sleep>>,
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
        let activity = (version == Version::Http1).then(|| activity.clone());
        if let Some(activity) = &activity {
            activity.received();
        }
        Ok((Self { stream, start, activity }, version))
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
        if buf.filled().len() > before
            && let Some(activity) = &this.activity
        {
            activity.received();
        }
        polled
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

// === impl Driver ===

impl Driver<'_> {
    /// Runs `connection` until it ends or must end.
    pub async fn run<C: Connection>(&self, mut connection: Pin<&mut C>) -> End {
        let mut cut = pin!(self.cut.cancelled());
        let mut closing = pin!(self.closing.cancelled());
        let mut finishing = false;
        let mut finish_by = None;
        let mut watchdog = Watchdog { sleep: Box::pin(tokio::time::sleep(self.head_timeout)) };
        poll_fn(|cx| {
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Cut);
            }
            if !finishing && closing.as_mut().poll(cx).is_ready() {
                finishing = true;
                connection.as_mut().finish();
            }
            loop {
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(End::Finished);
                }
                let now = Instant::now();
                // Not to be exceeded, and not before which nothing has to be looked at again.
                let due = match (self.activity.waiting(), finish_by) {
                    (Waiting::Busy, _) => now + IDLE,
                    (Waiting::Head(since), _) if since + self.head_timeout <= now => {
                        return Poll::Ready(End::HeadTimeout);
                    }
                    (Waiting::Head(since), _) => since + self.head_timeout,
                    (Waiting::Idle(_), Some(by)) if by <= now => return Poll::Ready(End::Cut),
                    (Waiting::Idle(_), Some(by)) => by,
                    (Waiting::Idle(since), None) if since + IDLE <= now => {
                        // A client that does not answer a farewell is not waited for either.
                        finish_by = Some(now + self.head_timeout);
                        finishing = true;
                        connection.as_mut().finish();
                        continue;
                    }
                    (Waiting::Idle(since), None) => since + IDLE,
                };
                match watchdog.poll(cx, now, due) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

// === impl Watchdog ===

impl Watchdog {
    /// Makes sure that the task wakes at `due` or before. Ready: it is time to look again.
    fn poll(&mut self, cx: &mut Context<'_>, now: Instant, due: Instant) -> Poll<()> {
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
        match self.sleep.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if due <= now => Poll::Ready(()),
            Poll::Ready(()) => {
                self.sleep.as_mut().reset(due);
                self.sleep.as_mut().poll(cx)
            }
        }
    }
}

#[cfg(test)]
mod tests;
