//! Traces: the W3C context of a request (`traceparent`), and what is recorded of it while tracing is on.
//!
//! A request is followed when its client says so, or by chance where the client says nothing. Its spans are made once, at its end,
//! from times that were taken on the way, and put into a bounded queue: a request never waits for a collector.
//!
//! Source: W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

/// Who calls, and in which trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems tell each other; it goes with a [`TRACEPARENT`] that is understood.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Spans that wait for their export. More are dropped and counted.
const QUEUE: usize = 4096;
/// `traceparent` of version 00: `00-<32>-<16>-<2>`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// Names all spans of one request, in every process it passes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// Names one span.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span of the caller.
    pub parent: SpanId,
    /// Whether the caller records it.
    pub sampled: bool,
}

/// Something that took time.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace it belongs to.
    pub trace: TraceId,
    /// Its name in the trace.
    pub id: SpanId,
    /// The span it is part of; `None` = the trace begins here.
    pub parent: Option<SpanId>,
    /// What it is, in few words for many spans.
    pub name: &'static str,
    /// Its role.
    pub kind: Kind,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Whether it failed by a fault that is not the caller's.
    pub failed: bool,
    /// Facts. Never a query, a header, a body or a value.
    pub attributes: Vec<(&'static str, Fact)>,
}

/// The role of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work in between.
    Internal,
    /// A request that was received.
    Server,
    /// A request that was sent.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// A whole number.
    Whole(i64),
}

/// Follows requests. Share it as `Arc<Tracer>`.
pub struct Tracer {
    spans: mpsc::Sender<Span>,
    dropped: Counter,
    /// Of 2^64.
    share: u64,
    random: RandomState,
    turn: AtomicU64,
}

// === impl TraceId, SpanId ===

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Context ===

impl Context {
    /// The context in `headers`; `None` when there is none, several, or one that is not understood.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        match (given.next(), given.next()) {
            (Some(only), None) => Self::parse(only.as_bytes()),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let well_formed = |at: usize| text.get(at) == Some(&b'-');
        if !(well_formed(2) && well_formed(35) && well_formed(52)) {
            return None;
        }
        let [version] = hex::<1>(text.get(..2)?)?;
        // Later versions may append; this one may not.
        let length_fits = match version {
            0 => text.len() == LENGTH,
            0xff => false,
            _ => text.len() == LENGTH || well_formed(LENGTH),
        };
        let (trace, parent) = (TraceId(hex(&text[3..35])?), SpanId(hex(&text[36..52])?));
        let [flags] = hex::<1>(text.get(53..LENGTH)?)?;
        let named = trace != TraceId([0; 16]) && parent != SpanId([0; 8]);
        (length_fits && named).then_some(Self { trace, parent, sampled: flags & SAMPLED != 0 })
    }

    /// As it is written into a `traceparent`.
    pub fn header(&self) -> HeaderValue {
        let Self { trace, parent, sampled } = self;
        let text = format!("00-{trace}-{parent}-{:02x}", u8::from(*sampled));
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

// === impl Tracer ===

impl Tracer {
    /// Follows `ratio` (0 to 1) of the requests whose clients do not say; `dropped` counts spans that found no place in the
    /// queue, which is the other thing that comes back.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "saturates, as it should"
    )]
    pub fn new(ratio: f64, dropped: Counter) -> (Self, mpsc::Receiver<Span>) {
        let (spans, queue) = mpsc::channel(QUEUE);
        let share = (ratio * u64::MAX as f64) as u64;
        (Self { spans, dropped, share, random: RandomState::new(), turn: AtomicU64::new(0) }, queue)
    }

    /// Whether to follow a request whose client does not say.
    pub fn chance(&self) -> bool {
        self.random() <= self.share && self.share > 0
    }

    /// A name for a span.
    pub fn span_id(&self) -> SpanId {
        SpanId(self.random().max(1).to_be_bytes())
    }

    /// Has a span exported, or drops it.
    pub fn record(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    /// Nobody can foresee it, and it costs no system call: a counter under a keyed hash.
    fn random(&self) -> u64 {
        self.random.hash_one(self.turn.fetch_add(1, Relaxed))
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}

/// Lower-case hex, as the standard asks for.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn contexts_are_read_as_the_standard_has_them() {
        struct Case {
            given: &'static [&'static str],
            sampled: Option<bool>,
        }
        let cases = [
            Case { given: &[GIVEN], sampled: Some(true) },
            Case { given: &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"], sampled: Some(false) },
            Case { given: &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff"], sampled: Some(true) },
            Case { given: &["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"], sampled: Some(true) },
            Case { given: &["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"], sampled: Some(true) },
            Case { given: &["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more"], sampled: None },
            Case { given: &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"], sampled: None },
            Case { given: &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"], sampled: None },
            Case { given: &["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"], sampled: None },
            Case { given: &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"], sampled: None },
            Case { given: &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"], sampled: None },
            Case { given: &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"], sampled: None },
            Case { given: &[""], sampled: None },
            Case { given: &[], sampled: None },
            Case { given: &[GIVEN, GIVEN], sampled: None },
        ];
        for Case { given, sampled } in cases {
            let headers = given.iter().map(|text| (TRACEPARENT, HeaderValue::from_static(text))).collect();
            assert_eq!(Context::of(&headers).map(|context| context.sampled), sampled, "{given:?}");
        }
        assert_eq!(Context::parse(GIVEN.as_bytes()).unwrap().header(), GIVEN);
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_writes_is_a_fault_of_ours(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Context::parse(&text);
        }
    }

    #[test]
    fn a_share_is_followed_and_a_full_queue_drops() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1000, 1000)] {
            let (tracer, _queue) = Tracer::new(ratio, Counter::default());
            let followed = (0..1000).filter(|_| tracer.chance()).count();
            assert!((least..=most).contains(&followed), "{ratio}: {followed}");
        }
        let dropped = Counter::default();
        let (tracer, queue) = Tracer::new(1.0, dropped.clone());
        let now = SystemTime::now();
        for _ in 0..QUEUE + 3 {
            let (trace, id) = (TraceId([1; 16]), tracer.span_id());
            let kind = Kind::Internal;
            tracer.record(Span {
                trace,
                id,
                parent: None,
                name: "x",
                kind,
                start: now,
                end: now,
                failed: false,
                attributes: Vec::new(),
            });
        }
        assert_eq!((queue.len(), dropped.get()), (QUEUE, 3));
    }
}
