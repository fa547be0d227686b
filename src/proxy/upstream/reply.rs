//! The body of a reply, which drives the connection it comes on and gives it back at its end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::pool::{Link, Pool};

/// What the gateway answers. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub struct ReplyBody {
    incoming: Incoming,
    /// `None` when the connection goes on by itself, has ended or was given back.
    link: Option<(Box<Link>, Arc<Pool>)>,
}

// === impl ReplyBody ===

impl ReplyBody {
    /// The body on `link`, which goes back to `pool`.
    pub fn begin(incoming: Incoming, link: Box<Link>, pool: &Arc<Pool>, cx: &mut Context<'_>) -> Self {
        let mut body = Self { incoming, link: Some((link, Arc::clone(pool))) };
        if body.incoming.is_end_stream() {
            body.give_back(cx);
        }
        body
    }

    /// A body whose connection goes on by itself.
    pub fn detached(incoming: Incoming) -> Self {
        Self { incoming, link: None }
    }

    /// Once nothing more comes. A connection that cannot take another request is closed.
    fn give_back(&mut self, cx: &mut Context<'_>) {
        if let Some((mut link, pool)) = self.link.take()
            && link.is_idle(cx)
        {
            pool.put(link);
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some((link, _)) = &mut self.link
        {
            link.drive(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        match &polled {
            Poll::Ready(Some(Err(_))) => self.link = None,
            Poll::Ready(None) => self.give_back(cx),
            Poll::Ready(Some(Ok(_))) if self.incoming.is_end_stream() => self.give_back(cx),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
