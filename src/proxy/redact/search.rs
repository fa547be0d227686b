//! Search and replace in a stream: a match may lie across any number of pieces.

use bytes::{Bytes, BytesMut};
use prometheus_client::metrics::counter::Counter;
use zeroize::Zeroizing;

use super::{MASK, Redactor, variant};

/// How much of a body is searched. A value that begins before this is found to its end.
pub const LIMIT: usize = 64 * 1024;

/// The state of one body.
pub struct Search {
    needles: Vec<Zeroizing<Vec<u8>>>,
    /// The end of what came so far, which may be the beginning of a value.
    kept: Bytes,
    /// How much came before `kept`.
    offset: usize,
    found: Counter,
}

// === impl Search ===

impl Search {
    /// Searches for everything that `redactor` knows.
    pub fn new(redactor: &Redactor) -> Self {
        let mut needles: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for credential in &redactor.injected.credentials {
            variant::each(credential, |needle| {
                if !needles.iter().any(|known| known.as_slice() == needle) {
                    needles.push(Zeroizing::new(needle.to_vec()));
                }
            });
        }
        Self { needles, kept: Bytes::new(), offset: 0, found: redactor.found.clone() }
    }

    /// Takes the next piece; returns what may be passed on. Nothing is copied when nothing is found.
    pub fn feed(&mut self, piece: Bytes) -> Bytes {
        let window = if self.kept.is_empty() {
            piece
        } else {
            let mut joined = BytesMut::with_capacity(self.kept.len() + piece.len());
            joined.extend_from_slice(&self.kept);
            joined.extend_from_slice(&piece);
            joined.freeze()
        };
        self.kept = Bytes::new();
        if self.offset >= LIMIT {
            return window;
        }
        self.replace(&window, true)
    }

    /// The body is over: what was kept back is passed on, searched.
    pub fn finish(&mut self) -> Bytes {
        let rest = std::mem::take(&mut self.kept);
        self.replace(&rest, false)
    }

    fn replace(&mut self, window: &Bytes, more: bool) -> Bytes {
        let mut out: Option<BytesMut> = None;
        let mut done = 0;
        let end = loop {
            let hit = self.first_match(window, done);
            let open = if more { self.open_end(window, done) } else { None };
            match (hit, open) {
                // The longest value at this place may not have ended yet.
                (Some((start, length)), open) if open.is_none_or(|open| start < open) => {
                    let out = out.get_or_insert_with(|| BytesMut::with_capacity(window.len()));
                    out.extend_from_slice(&window[done..start]);
                    out.extend_from_slice(MASK);
                    done = start + length;
                    self.found.inc();
                }
                (_, Some(open)) => break open,
                (_, None) => break window.len(),
            }
        };
        self.kept = window.slice(end..);
        self.offset += end;
        match out {
            None => window.slice(..end),
            Some(mut out) => {
                out.extend_from_slice(&window[done..end]);
                out.freeze()
            }
        }
    }

    /// The first value at or after `from`, the longest of those that begin there.
    fn first_match(&self, window: &[u8], from: usize) -> Option<(usize, usize)> {
        self.needles
            .iter()
            .filter_map(|needle| Some((memchr::memmem::find(&window[from..], needle)? + from, needle.len())))
            .min_by_key(|(start, length)| (*start, usize::MAX - length))
    }

    /// Where a value begins that goes on beyond the window.
    fn open_end(&self, window: &[u8], from: usize) -> Option<usize> {
        let first = |needle: &Zeroizing<Vec<u8>>| {
            let tail = from.max((window.len() + 1).saturating_sub(needle.len()));
            memchr::memchr_iter(needle[0], &window[tail..])
                .map(|at| at + tail)
                .find(|at| self.offset + at < LIMIT && needle.starts_with(&window[*at..]))
        };
        self.needles.iter().filter_map(first).min()
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("offset", &self.offset).finish_non_exhaustive()
    }
}
