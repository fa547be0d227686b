//! Looks into the start of a body for the model, and puts the start back in front of the rest.
//!
//! Pieces are kept as they came, up to `limits.model_peek_bytes` for one request and [`TOTAL_BYTES`] for all of them together.
//! Only pieces under [`SMALL_BYTES`] are put together, so that a body in chunks of one byte costs no more than it has. A body
//! that is not looked into is not touched at all: not even `100 Continue` is sent for it here.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::{
    body::{RequestBody, Rest},
    reject::Refusal,
};
use crate::dialect::portkey::{BodyEdit, BodyPeek, BodyScan, PeekKind, Progress};

/// Bytes of looked-at bodies in memory, of all requests together. More is 503 `overloaded`.
pub const TOTAL_BYTES: usize = 256 * 1024 * 1024;
/// Pieces of fewer bytes are copied into one: what it takes to keep a piece would outweigh them.
const SMALL_BYTES: usize = 1024;
/// Bytes a second that a body which is looked into has to come with, on average: half of a modem's.
const LEAST_RATE: usize = 1024;

/// Counts the bytes of looked-at bodies that are in memory.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<AtomicUsize>);

/// Bytes taken from a [`Budget`], given back when this is dropped.
#[derive(Debug)]
pub struct Hold {
    budget: Budget,
    bytes: usize,
}

/// The start of a body, in pieces that are worth keeping apart.
#[derive(Debug, Default)]
pub struct Start {
    pieces: VecDeque<Bytes>,
    /// Small pieces that follow.
    small: BytesMut,
}

/// A body of which the start was looked at.
#[derive(Debug)]
pub struct Peeked {
    start: VecDeque<Bytes>,
    rest: Rest,
    length: Option<u64>,
    hold: Option<Hold>,
}

// === impl Start ===

impl Start {
    /// Adds a piece; a small one is copied to those before it.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() < SMALL_BYTES {
            self.small.extend_from_slice(&piece);
        } else {
            self.share(piece);
        }
    }

    /// Adds a piece as it is.
    pub fn share(&mut self, piece: Bytes) {
        self.close();
        self.pieces.push_back(piece);
    }

    /// Makes one piece of the small ones.
    fn close(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }

    /// All of them.
    pub fn into_pieces(mut self) -> VecDeque<Bytes> {
        self.close();
        self.pieces
    }
}

// === impl Peeked ===

impl Peeked {
    /// Reads as much of `body` as `kind` asks for. `patience` is the longest wait for the next piece, and for those before it
    /// together, with a second more for each [`LEAST_RATE`] bytes.
    ///
    /// # Errors
    /// [`Refusal::RequestTimeout`], [`Refusal::BodyBroken`], or [`Refusal::Overloaded`].
    pub async fn read(
        mut body: Incoming,
        kind: &PeekKind,
        limit: usize,
        patience: Duration,
        budget: &Budget,
    ) -> Result<(BodyPeek, Self), Refusal> {
        let length = body.size_hint().exact();
        if matches!(kind, PeekKind::None) {
            return Ok((
                BodyPeek::default(),
                Self { start: VecDeque::new(), rest: Rest::Stream(body), length, hold: None },
            ));
        }
        let mut scan = BodyScan::new(kind);
        let began = Instant::now();
        let mut hold = budget.hold();
        let mut start = Start::default();
        let (complete, rest) = loop {
            if body.is_end_stream() {
                break (true, Rest::End);
            }
            if hold.bytes >= limit {
                break (false, Rest::Stream(body));
            }
            let due = began + patience + Duration::from_secs((hold.bytes / LEAST_RATE) as u64);
            let frame = tokio::time::timeout_at(due.min(Instant::now() + patience), body.frame()).await;
            let frame = match frame.map_err(|_| Refusal::RequestTimeout(patience))? {
                None => break (true, Rest::End),
                Some(frame) => frame.map_err(Refusal::BodyBroken)?,
            };
            let piece = match frame.into_data() {
                Ok(piece) => piece,
                Err(frame) => break (true, frame.into_trailers().map_or(Rest::End, Rest::Trailers)),
            };
            let room = limit - hold.bytes;
            hold.take(piece.len())?;
            let progress = scan.feed(&piece[..piece.len().min(room)]);
            start.push(piece);
            match progress {
                Progress::Done => break (false, Rest::Stream(body)),
                Progress::More => {}
            }
        };
        // Bytes beyond the limit were kept, but not looked at.
        let peek = scan.finish(complete && hold.bytes <= limit);
        Ok((peek, Self { start: start.into_pieces(), rest, length, hold: Some(hold) }))
    }

    /// The body to send, with `edit` made in its start.
    pub fn into_body(mut self, edit: Option<&BodyEdit>) -> RequestBody {
        if let Some(edit) = edit {
            let (removed, added) = (edit.range.len() as u64, edit.replacement.len() as u64);
            self.length = self.length.map(|length| length.saturating_sub(removed) + added);
            self.start = edited(self.start, edit);
        }
        if let Rest::Stream(stream) = &self.rest
            && stream.is_end_stream()
        {
            self.rest = Rest::End;
        }
        if matches!(self.rest, Rest::End) {
            self.length = Some(self.start.iter().map(|piece| piece.len() as u64).sum());
        }
        RequestBody::replay(self.start, self.rest, self.length, self.hold)
    }
}

// === impl Budget ===

impl Budget {
    fn hold(&self) -> Hold {
        Hold { budget: self.clone(), bytes: 0 }
    }
}

// === impl Hold ===

impl Hold {
    fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.budget.0.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        if before + bytes > TOTAL_BYTES { Err(Refusal::Overloaded) } else { Ok(()) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Relaxed);
    }
}

/// `pieces` with `edit` made in them; what stays is not copied.
fn edited(pieces: VecDeque<Bytes>, edit: &BodyEdit) -> VecDeque<Bytes> {
    let BodyEdit { range, replacement } = edit;
    let mut out = VecDeque::with_capacity(pieces.len() + 2);
    let mut keep = |piece: Bytes| {
        if !piece.is_empty() {
            out.push_back(piece);
        }
    };
    let mut pending = Some(replacement.clone());
    let mut offset = 0;
    for piece in pieces {
        let end = offset + piece.len();
        keep(piece.slice(..range.start.clamp(offset, end) - offset));
        if range.start <= end {
            pending.take().into_iter().for_each(&mut keep);
        }
        keep(piece.slice(range.end.clamp(offset, end) - offset..));
        offset = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_edit_of_pieces_is_that_of_the_whole(
            pieces in prop::collection::vec("[a-z]{0,5}", 1..8),
            start in 0usize..40,
            length in 0usize..40,
            replacement in "[A-Z]{0,5}",
        ) {
            let whole = pieces.concat();
            let start = start.min(whole.len());
            let range = start..(start + length).min(whole.len());
            let mut expected = whole;
            expected.replace_range(range.clone(), &replacement);
            let edit = BodyEdit { range, replacement: replacement.into() };
            let edited = edited(pieces.into_iter().map(Bytes::from).collect(), &edit);
            prop_assert!(edited.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(edited.into_iter().collect::<Vec<_>>().concat(), expected.into_bytes());
        }
    }

    #[test]
    fn small_pieces_are_kept_as_one() {
        struct Case {
            sent: &'static [usize],
            kept: &'static [usize],
        }
        let cases = [
            Case { sent: &[], kept: &[] },
            Case { sent: &[0, 0], kept: &[] },
            Case { sent: &[1; 3000], kept: &[3000] },
            Case { sent: &[1023, 1023], kept: &[2046] },
            Case { sent: &[1024, 1024], kept: &[1024, 1024] },
            Case { sent: &[5000, 1, 2, 5000, 3], kept: &[5000, 3, 5000, 3] },
        ];
        for Case { sent, kept } in cases {
            let mut bytes = (0..=u8::MAX).cycle();
            let pieces: Vec<Bytes> = sent.iter().map(|&length| bytes.by_ref().take(length).collect()).collect();
            let mut start = Start::default();
            pieces.iter().cloned().for_each(|piece| start.push(piece));
            let out = start.into_pieces();
            assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), kept, "{sent:?}");
            assert_eq!(out.iter().flatten().collect::<Vec<_>>(), pieces.iter().flatten().collect::<Vec<_>>());
        }
    }
}
