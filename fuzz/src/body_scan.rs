//! Any body, as JSON and as a form: what is found does not depend on where the pieces end, lies inside the body, and for JSON
//! is what a parser finds.

use serde_json::Value;
use sidekey::dialect::portkey::{BodyPeek, BodyScan, PeekKind, Progress};

/// `input` is the length of the pieces, a byte, and the body.
pub fn check(input: &[u8]) {
    let Some((&step, body)) = input.split_first() else { return };
    for kind in [PeekKind::Json, PeekKind::Multipart("b".to_owned())] {
        let whole = scan(&kind, body.chunks(body.len().max(1)));
        assert_eq!(whole, scan(&kind, body.chunks(usize::from(step).max(1))), "{kind:?}");
        let Some(found) = &whole.model else { continue };
        assert!(found.member_span.end <= body.len() && found.value_span.start >= found.member_span.start);
        if let (true, None, Ok(Value::Object(members))) = (found.json, whole.fault, serde_json::from_slice(body)) {
            assert_eq!(members.get("model").and_then(Value::as_str), Some(found.value.as_str()));
        }
    }
}

fn scan<'a>(kind: &PeekKind, pieces: impl Iterator<Item = &'a [u8]>) -> BodyPeek {
    let mut scan = BodyScan::new(kind);
    for piece in pieces {
        if scan.feed(piece) == Progress::Done {
            break;
        }
    }
    scan.finish(true)
}
