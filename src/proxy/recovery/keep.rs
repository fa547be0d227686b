//! Keeps what is sent to the gateway, so that it can be sent again. The pieces are shared with the stream, not copied, and the
//! stream does not wait.
//!
//! A body that grows beyond `recovery.max_body_bytes`, or that finds no room among all kept ones (`recovery.max_kept_bytes`), is
//! let go at once and flows on unkept.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::HeaderMap;

use crate::proxy::{
    body::{RequestBody, Rest},
    peek::Start,
};

/// How much is kept, of one body and of all together.
#[derive(Clone, Debug)]
pub struct Keeping {
    max_body: usize,
    room: Arc<Room>,
}

/// What is kept of one body. Shared by the body that is being sent and by whoever may send it again.
#[derive(Clone, Debug)]
pub struct Kept(Arc<Mutex<State>>);

#[derive(Debug)]
struct Room {
    max: usize,
    taken: AtomicUsize,
}

#[derive(Debug)]
enum State {
    /// More may come.
    Open { start: Start, held: Held, max: usize, length: Option<u64> },
    /// This was all.
    Whole { pieces: VecDeque<Bytes>, trailers: Option<HeaderMap>, length: Option<u64>, _held: Held },
    /// Let go, or broken off.
    Lost,
}

/// Room that is taken; given back when dropped.
#[derive(Debug)]
struct Held {
    room: Arc<Room>,
    bytes: usize,
}

// === impl Keeping ===

impl Keeping {
    /// Keeps bodies of up to `max_body` bytes, and `max_kept` bytes of all of them together.
    pub fn new(max_body: usize, max_kept: usize) -> Self {
        Self { max_body, room: Arc::new(Room { max: max_kept, taken: AtomicUsize::new(0) }) }
    }

    /// Starts to keep a body of this length, `None` when it is not known.
    pub fn begin(&self, length: Option<u64>) -> Kept {
        let fits = length.is_none_or(|length| length <= self.max_body as u64);
        let held = Held { room: Arc::clone(&self.room), bytes: 0 };
        let open = State::Open { start: Start::default(), held, max: self.max_body, length };
        Kept(Arc::new(Mutex::new(if fits { open } else { State::Lost })))
    }
}

// === impl Kept ===

impl Kept {
    /// A piece is on its way. `shared`: it is worth keeping as it is, whatever its size.
    pub(in crate::proxy) fn piece(&self, piece: &Bytes, shared: bool) {
        let mut state = self.state();
        let State::Open { start, held, max, length: _ } = &mut *state else { return };
        if held.bytes + piece.len() > *max || !held.take(piece.len()) {
            *state = State::Lost;
        } else if shared {
            start.share(piece.clone());
        } else {
            start.push(piece.clone());
        }
    }

    /// Nothing follows but these trailers.
    pub(in crate::proxy) fn end(&self, trailers: Option<HeaderMap>) {
        let mut state = self.state();
        if let State::Open { start, held, length, .. } = std::mem::replace(&mut *state, State::Lost) {
            *state = State::Whole { pieces: start.into_pieces(), trailers, length, _held: held };
        }
    }

    /// Keeps nothing any longer.
    pub fn let_go(&self) {
        *self.state() = State::Lost;
    }

    /// The same body once more; `None` unless all of it was kept.
    pub fn body(&self) -> Option<RequestBody> {
        match &*self.state() {
            State::Whole { pieces, trailers, length, .. } => {
                let rest = trailers.clone().map_or(Rest::End, Rest::Trailers);
                Some(RequestBody::replay(pieces.clone(), rest, *length, None))
            }
            State::Open { .. } | State::Lost => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn take(&mut self, bytes: usize) -> bool {
        let before = self.room.taken.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        before + bytes <= self.room.max
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    async fn again(kept: &Kept) -> Option<Vec<u8>> {
        Some(kept.body()?.collect().await.ok()?.to_bytes().to_vec())
    }

    #[tokio::test]
    async fn all_or_nothing_is_kept() {
        struct Case {
            name: &'static str,
            length: Option<u64>,
            pieces: &'static [usize],
            ends: bool,
            kept: bool,
        }
        let cases = [
            Case { name: "empty", length: Some(0), pieces: &[], ends: true, kept: true },
            Case { name: "up to the limit", length: None, pieces: &[5000, 1, 4999], ends: true, kept: true },
            Case { name: "beyond", length: None, pieces: &[5000, 1, 5000], ends: true, kept: false },
            Case { name: "known to be beyond", length: Some(10_001), pieces: &[], ends: true, kept: false },
            Case { name: "not ended", length: None, pieces: &[10], ends: false, kept: false },
        ];
        for Case { name, length, pieces, ends, kept } in cases {
            let keeping = Keeping::new(10_000, 1 << 20);
            let body = keeping.begin(length);
            for &bytes in pieces {
                body.piece(&vec![b'x'; bytes].into(), false);
            }
            if ends {
                body.end(None);
            }
            let expected = kept.then(|| vec![b'x'; pieces.iter().sum()]);
            for _ in 0..2 {
                assert_eq!(again(&body).await, expected, "{name}");
            }
            drop(body);
            assert_eq!(keeping.room.taken.load(Relaxed), 0, "{name}");
        }
    }

    #[tokio::test]
    async fn all_bodies_share_one_room() {
        let keeping = Keeping::new(600, 1000);
        let [first, second, third] = [(); 3].map(|()| keeping.begin(None));
        first.piece(&vec![b'x'; 600].into(), true);
        second.piece(&vec![b'x'; 600].into(), true);
        second.end(None);
        assert!(again(&second).await.is_none(), "no room left");
        assert_eq!(keeping.room.taken.load(Relaxed), 600, "and none is taken by it");
        first.let_go();
        third.piece(&vec![b'x'; 600].into(), true);
        third.end(None);
        assert_eq!(again(&third).await.map(|body| body.len()), Some(600));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_sent(pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()), 0..8)) {
            let body = Keeping::new(1 << 20, 1 << 20).begin(None);
            for (piece, shared) in &pieces {
                body.piece(&piece.clone().into(), *shared);
            }
            body.end(None);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let sent: Vec<u8> = pieces.into_iter().flat_map(|(piece, _)| piece).collect();
            prop_assert_eq!(runtime.block_on(again(&body)), Some(sent));
        }
    }
}
