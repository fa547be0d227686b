//! Event streams (SSE): the documents in `data:` lines.

use memchr::memchr2;

use super::{BYTES_PER_TOKEN, Found, document::Documents};

const DATA: &[u8] = b"data:";

/// The documents of an event stream.
#[derive(Debug, Default)]
pub(super) struct Events {
    documents: Documents,
    line: Line,
    /// Whether the last byte was a carriage return.
    after_return: bool,
    /// Whether a line of data came since the last empty line.
    open: bool,
    seen: Seen,
    /// Bytes of the data of this event.
    length: u64,
    /// Whether its data is a document; the last event, `[DONE]`, is none.
    is_document: bool,
}

/// How many events with data came, and how long they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    events: u64,
    bytes: u64,
    shortest: u64,
}

/// Where in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// This much of `data:` has come, and nothing else.
    Start(usize),
    Data,
    Other,
}

// === impl Events ===

impl Events {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if let Line::Start(matched) = self.line {
                let byte = rest[0];
                // The line feed after a carriage return ends no second line.
                let same_end = std::mem::take(&mut self.after_return) && byte == b'\n';
                self.line = match byte {
                    b'\n' | b'\r' => {
                        if matched == 0 && !same_end {
                            self.end_event();
                        }
                        self.after_return = byte == b'\r';
                        Line::Start(0)
                    }
                    _ if DATA[matched] != byte => Line::Other,
                    _ if matched + 1 < DATA.len() => Line::Start(matched + 1),
                    _ => {
                        self.begin_data();
                        Line::Data
                    }
                };
                at += 1;
                continue;
            }
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            if self.line == Line::Data {
                self.data(&rest[..end]);
            }
            if let Some(byte) = rest.get(end) {
                self.after_return = *byte == b'\r';
                self.line = Line::Start(0);
            }
            at += end + 1;
        }
    }

    /// What was found.
    pub(super) fn finish(self) -> (Found, Option<Box<str>>) {
        self.documents.finish()
    }

    /// How many events came, the one under way included.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = self.seen;
        if self.is_document {
            seen.add(self.length);
        }
        seen
    }

    fn begin_data(&mut self) {
        if !self.open {
            self.open = true;
            self.documents.restart();
            (self.length, self.is_document) = (0, false);
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        let text = if self.length == 0 { bytes.trim_ascii_start() } else { bytes };
        self.is_document |= self.length == 0 && text.first() == Some(&b'{');
        self.length += text.len() as u64;
        self.documents.feed(text);
    }

    fn end_event(&mut self) {
        if std::mem::take(&mut self.open) && std::mem::take(&mut self.is_document) {
            self.seen.add(self.length);
        }
    }
}

// === impl Seen ===

impl Seen {
    /// One more.
    pub(super) fn add(&mut self, bytes: u64) {
        self.shortest = if self.events == 0 { bytes } else { self.shortest.min(bytes) };
        self.events += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// The tokens they may have brought.
    pub(super) fn tokens(self) -> u64 {
        let envelopes = self.shortest.saturating_mul(self.events);
        self.events.max(self.bytes.saturating_sub(envelopes).div_ceil(BYTES_PER_TOKEN))
    }
}

// === impl Line ===

impl Default for Line {
    fn default() -> Self {
        Self::Start(0)
    }
}
