//! AWS event streams (`application/vnd.amazon.eventstream`): the documents in the payloads of binary messages.
//!
//! A message is its length and that of its headers (32 bits each, big-endian), a checksum, headers, payload, a checksum.
//! Checksums are the client's to verify.

use super::{Found, document::Documents, events::Seen};

/// Lengths and their checksum.
const PRELUDE: usize = 12;
/// The checksum of a message.
const CHECKSUM: u32 = 4;
/// Bytes of a message that are neither headers nor payload.
const FRAME: u32 = PRELUDE as u32 + CHECKSUM;
/// Longest message; the encoding allows 16 MiB.
const MAX_MESSAGE: u32 = 16 << 20;

/// The documents of an AWS event stream.
#[derive(Debug)]
pub(super) struct Messages {
    documents: Documents,
    part: Part,
    seen: Seen,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Prelude {
        bytes: [u8; PRELUDE],
        length: usize,
    },
    Headers {
        left: u32,
        payload: u32,
    },
    Payload {
        left: u32,
    },
    Checksum {
        left: u32,
    },
    /// It is no such stream.
    Lost,
}

// === impl Messages ===

impl Default for Messages {
    fn default() -> Self {
        Self { documents: Documents::carrying(), part: Part::NEXT, seen: Seen::default() }
    }
}

impl Messages {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.part {
                Part::Prelude { bytes: prelude, length } => {
                    let taken = bytes.len().min(PRELUDE - *length);
                    prelude[*length..*length + taken].copy_from_slice(&bytes[..taken]);
                    *length += taken;
                    if *length == PRELUDE {
                        let prelude = *prelude;
                        self.begin(prelude);
                    }
                    taken
                }
                Part::Headers { left, payload } => {
                    let taken = take(left, bytes);
                    if *left == 0 {
                        self.part = Part::Payload { left: *payload };
                    }
                    taken
                }
                Part::Payload { left } => {
                    let taken = take(left, bytes);
                    let over = *left == 0;
                    self.documents.feed(&bytes[..taken]);
                    if over {
                        self.part = Part::Checksum { left: CHECKSUM };
                    }
                    taken
                }
                Part::Checksum { left } => {
                    let taken = take(left, bytes);
                    if *left == 0 {
                        self.part = Part::NEXT;
                    }
                    taken
                }
                Part::Lost => return,
            };
            bytes = &bytes[taken..];
        }
    }

    /// What was found.
    pub(super) fn finish(self) -> (Found, Option<Box<str>>) {
        self.documents.finish()
    }

    /// How many messages came.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    fn begin(&mut self, prelude: [u8; PRELUDE]) {
        let [a, b, c, d, e, f, g, h, ..] = prelude;
        let (total, headers) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let payload = total.checked_sub(FRAME).and_then(|rest| rest.checked_sub(headers));
        self.part = match payload {
            Some(payload) if total <= MAX_MESSAGE => {
                self.documents.restart();
                self.seen.add(payload.into());
                match (headers, payload) {
                    (0, 0) => Part::Checksum { left: CHECKSUM },
                    (0, left) => Part::Payload { left },
                    (left, payload) => Part::Headers { left, payload },
                }
            }
            _ => Part::Lost,
        };
    }
}

// === impl Part ===

impl Part {
    const NEXT: Self = Self::Prelude { bytes: [0; PRELUDE], length: 0 };
}

/// Takes up to `left` of `bytes`, and says how many.
fn take(left: &mut u32, bytes: &[u8]) -> usize {
    let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(*left);
    *left -= taken;
    taken as usize
}
