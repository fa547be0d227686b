//! The two bodies of a request: towards the gateway and towards the client. Neither is buffered beyond what was looked at.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::{
    activity::InFlight,
    bill::Bill,
    peek::Hold,
    recovery::{Keeping, Kept},
    redact::{Redactor, Search},
    turn,
    upstream::ReplyBody,
};

/// What goes to the gateway.
#[derive(Debug)]
pub struct RequestBody {
    start: VecDeque<Bytes>,
    rest: Rest,
    length: Option<u64>,
    progress: Option<Arc<Progress>>,
    /// Keeps what was taken, in case it has to be sent again.
    kept: Option<Kept>,
    /// Released when the looked-at start has been written or dropped.
    hold: Option<Hold>,
}

/// What follows the start of a [`RequestBody`].
#[derive(Debug)]
pub enum Rest {
    /// More of the client's stream.
    Stream(Incoming),
    /// The stream has been read; these were its trailers.
    Trailers(HeaderMap),
    /// Nothing.
    End,
}

/// How far a request body has come, for those who wait for it.
#[derive(Debug, Default)]
pub struct Progress {
    pieces: AtomicU64,
    bytes: AtomicU64,
    /// Whether the gateway's side waits for the client's next piece.
    awaited: AtomicBool,
    over: AtomicBool,
}

/// What goes to the client.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    /// Searches trailers, when something was injected.
    redactor: Option<Redactor>,
    /// Reads along, when what the answer has used is charged.
    bill: Option<Bill>,
    /// Counts the request as running until the last byte.
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Source {
    /// Ours.
    Full(Option<Bytes>),
    /// The gateway's, as it comes.
    Stream(ReplyBody),
    /// The gateway's error, searched for what was injected.
    Searched { search: Box<Search>, stream: Option<ReplyBody>, trailers: Option<HeaderMap> },
}

// === impl RequestBody ===

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self::replay(VecDeque::new(), Rest::End, Some(0), None)
    }

    /// A body of ours.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Self::replay(VecDeque::from([bytes]), Rest::End, Some(length), None)
    }

    /// The client's stream, untouched.
    pub fn stream(body: Incoming) -> Self {
        let length = body.size_hint().exact();
        let rest = if body.is_end_stream() { Rest::End } else { Rest::Stream(body) };
        Self::replay(VecDeque::new(), rest, length, None)
    }

    /// A start that was already read, and what follows it. `length` is that of the whole, when it is known.
    pub(super) fn replay(start: VecDeque<Bytes>, rest: Rest, length: Option<u64>, hold: Option<Hold>) -> Self {
        let empty = start.is_empty() && matches!(rest, Rest::End);
        let progress = (!empty).then(Arc::default);
        Self { start, rest, length, progress, kept: None, hold }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.start.is_empty() && matches!(self.rest, Rest::End)
    }

    /// Shows how far it has come; `None` for an empty one.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    /// Keeps what is sent from here on.
    pub(super) fn keep(&mut self, keeping: &Keeping) -> Kept {
        let kept = keeping.begin(self.length);
        if self.is_empty() {
            kept.end(None);
        } else {
            self.kept = Some(kept.clone());
        }
        kept
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(piece) = self.start.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        self.hold = None;
        match std::mem::replace(&mut self.rest, Rest::End) {
            Rest::Stream(mut stream) => {
                let polled = Pin::new(&mut stream).poll_frame(cx);
                if !matches!(polled, Poll::Ready(None)) && !stream.is_end_stream() {
                    self.rest = Rest::Stream(stream);
                }
                polled
            }
            Rest::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Rest::End => Poll::Ready(None),
        }
    }

    /// A piece is on its way. `whole`: it was put together here, so that it is worth keeping as it is.
    fn took(&mut self, piece: &Bytes, whole: bool) {
        self.length = self.length.map(|length| length.saturating_sub(piece.len() as u64));
        if let Some(progress) = &self.progress {
            progress.pieces.fetch_add(1, Ordering::Relaxed);
            progress.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        if let Some(kept) = &self.kept {
            kept.piece(piece, whole);
        }
        // The codec does not ask for more than it announced.
        if self.is_empty() || self.length == Some(0) {
            self.end_kept(None);
        }
    }

    fn end_kept(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(kept) = self.kept.take() {
            kept.end(trailers.cloned());
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.over.store(true, Ordering::Release);
        }
        if let Some(kept) = &self.kept {
            kept.let_go();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let whole = !self.start.is_empty();
        let polled = self.next(cx);
        if let Some(progress) = &self.progress {
            progress.awaited.store(polled.is_pending(), Ordering::Relaxed);
        }
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.end_kept(None),
            Poll::Ready(Some(Err(_))) => {
                if let Some(kept) = self.kept.take() {
                    kept.let_go();
                }
            }
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(piece) => self.took(piece, whole),
                None => self.end_kept(frame.trailers_ref()),
            },
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}

// === impl Progress ===

impl Progress {
    /// How many pieces the connection has taken so far.
    pub fn pieces(&self) -> u64 {
        self.pieces.load(Ordering::Relaxed)
    }

    /// How many bytes these had.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the next piece is the client's to send: the gateway has room for it.
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Whether the connection has let go of the body: nothing more of it is read.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

// === impl ResponseBody ===

impl ResponseBody {
    /// No body.
    pub fn empty() -> Self {
        Self { source: Source::Full(None), redactor: None, bill: None, in_flight: None }
    }

    /// A body of ours.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Full(Some(bytes.into())), redactor: None, bill: None, in_flight: None }
    }

    /// What is left of a body of ours.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.source {
            Source::Full(bytes) => bytes.unwrap_or_default(),
            Source::Stream(_) | Source::Searched { .. } => Bytes::new(),
        }
    }

    /// The gateway's body as it comes; its trailers are searched by `redactor`.
    pub(super) fn stream(body: ReplyBody, redactor: Option<Redactor>) -> Self {
        Self { source: Source::Stream(body), redactor, bill: None, in_flight: None }
    }

    /// The gateway's body, of which the start is searched.
    pub(super) fn searched(body: ReplyBody, redactor: Redactor) -> Self {
        let search = Box::new(Search::new(&redactor));
        let source = Source::Searched { search, stream: Some(body), trailers: None };
        Self { source, redactor: Some(redactor), bill: None, in_flight: None }
    }

    /// Has `bill` read along and settles it at the end.
    #[must_use]
    pub(super) fn billed(mut self, bill: Option<Bill>) -> Self {
        self.bill = bill;
        if self.is_end_stream() {
            self.settle(true);
        }
        self
    }

    /// Counts the request as running until this body ends or is dropped.
    #[must_use]
    pub(super) fn counted(mut self, in_flight: Option<InFlight>) -> Self {
        self.in_flight = in_flight;
        self.in_flight.iter_mut().for_each(InFlight::answered);
        self
    }

    /// The next frame of whatever it is.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self;
        loop {
            let (search, stream, held) = match &mut this.source {
                Source::Full(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
                Source::Stream(stream) => {
                    let frame = ready!(Pin::new(stream).poll_frame(cx));
                    return Poll::Ready(frame.map(|frame| frame.map(|frame| this.frame(frame))));
                }
                Source::Searched { search, stream, trailers } => (search, stream, trailers),
            };
            let Some(open) = stream else {
                let trailers = held.take();
                return Poll::Ready(trailers.map(|trailers| Ok(this.frame(Frame::trailers(trailers)))));
            };
            match ready!(Pin::new(open).poll_frame(cx)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        let out = search.feed(piece);
                        // Everything may have been kept back, as the possible beginning of a match.
                        if !out.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(out))));
                        }
                    }
                    Err(frame) => *held = frame.into_trailers().ok(),
                },
                None => {
                    *stream = None;
                    let out = search.finish();
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(out))));
                    }
                }
            }
        }
    }

    fn settle(&mut self, ended: bool) {
        if let Some(mut bill) = self.bill.take() {
            bill.settle(ended);
        }
    }

    fn frame(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match (frame.into_trailers(), &self.redactor) {
            (Ok(mut trailers), Some(redactor)) => {
                redactor.headers(&mut trailers);
                Frame::trailers(trailers)
            }
            (Ok(trailers), None) => Frame::trailers(trailers),
            (Err(frame), _) => frame,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = self.poll_source(cx);
        turn::note(polled.is_ready());
        let polled = ready!(polled);
        if self.bill.is_some() {
            // What is charged is charged before the client can know that the answer is over.
            match &polled {
                Some(Ok(frame)) => {
                    if let (Some(bill), Some(piece)) = (&mut self.bill, frame.data_ref()) {
                        bill.feed(piece);
                    }
                    if self.is_end_stream() {
                        self.settle(true);
                    }
                }
                Some(Err(_)) => self.settle(false),
                None => self.settle(true),
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Stream(stream) => stream.is_end_stream(),
            Source::Searched { stream, trailers, .. } => stream.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Stream(stream) => stream.size_hint(),
            // A replacement changes the length.
            Source::Searched { .. } => SizeHint::default(),
        }
    }
}
