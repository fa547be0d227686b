//! Finds the `model` part of a multipart form while its bytes pass by.
//!
//! Push parser: any chunk borders, contents are skipped and never copied, part headers are bounded. Every form that Node's
//! `formData()` accepts is read as Node reads it; forms it refuses are read as RFC 7578 says. Where the two could take
//! different parts for the model (bare line ends, folded or repeated headers, encoded contents), the form is refused. Spans
//! count bytes from the start of the body.
//!
//! Source: RFC 2046 section 5.1, RFC 7578; undici 6 `lib/web/fetch/formdata-parser.js`, which the gateway calls.

use std::ops::Range;

use memchr::memchr;

use super::{BodyPeek, ModelField, Progress, json_scan::MAX_MODEL};

mod disposition;
#[cfg(test)]
mod tests;

/// Longest header block of a part, in bytes.
const MAX_HEADERS: usize = 16 * 1024;

const NAME: &str = "model";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const DUPLICATE: &str = "it holds more than one \"model\" part";
const NOT_A_FORM: &str = "it is not a multipart form";
const HEADERS_TOO_LONG: &str = "the headers of a part are too long";
const AMBIGUOUS: &str = "the headers of a part are ambiguous";
const ENCODED: &str = "the \"model\" part is transfer-encoded";

/// The scanner. Feed it the body, then [`finish`](Self::finish) it.
#[derive(Debug, Default)]
pub(super) struct MultipartScan {
    /// CR, LF, two dashes, boundary.
    delimiter: Vec<u8>,
    /// How much of the delimiter was just seen. It holds a CR only at its start, so nothing else has to be remembered.
    matched: usize,
    state: State,
    /// Bytes in the chunks before the current one.
    offset: usize,
    headers: Vec<u8>,
    part: Part,
    /// Whether a part called `model` was met, whatever it holds.
    met: bool,
    model: Option<ModelField>,
    fault: Option<&'static str>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Preamble,
    DelimiterLine(Suffix),
    Headers,
    Content,
    End,
}

/// What followed a delimiter so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    Nothing,
    Padding,
    Dash,
    CarriageReturn,
}

/// The part being read: where it starts (at its dashes), where its content does, and the content if it is a model.
#[derive(Debug, Default)]
struct Part {
    start: usize,
    content: usize,
    model: Option<Vec<u8>>,
}

// === impl MultipartScan ===

impl MultipartScan {
    /// A scanner for forms with this boundary.
    pub(super) fn new(boundary: &str) -> Self {
        Self {
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            matched: 2, // the start of the body stands for a line end
            ..Self::default()
        }
    }

    /// Takes the next bytes of the body. After [`Progress::Done`] more of them change nothing.
    ///
    /// Done is said when the form ends, and when a file follows the model: a second model behind it is not looked for, as
    /// that would mean keeping the whole upload.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Progress {
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            at = match self.state {
                State::Preamble | State::Content => self.read_content(chunk, at),
                State::DelimiterLine(suffix) => {
                    self.read_delimiter_line(suffix, byte);
                    at + 1
                }
                State::Headers => {
                    self.read_header(byte, self.offset + at);
                    at + 1
                }
                State::End => break,
            };
        }
        self.offset += chunk.len();
        if self.state == State::End { Progress::Done } else { Progress::More }
    }

    /// What was found. `complete`: the body ended here; otherwise nobody wanted to keep more of it.
    pub(super) fn finish(mut self, complete: bool) -> BodyPeek {
        let open = self.state != State::End;
        if complete && open {
            self.break_off();
        }
        let unreadable = self.met && self.model.is_none();
        BodyPeek { model: self.model, fault: self.fault, truncated: open && !complete, unreadable }
    }

    /// Reads content from `chunk[at]` on, up to the next delimiter, and returns what comes next.
    fn read_content(&mut self, chunk: &[u8], start: usize) -> usize {
        let mut at = start;
        let mut found = false;
        while let Some(&byte) = chunk.get(at).filter(|_| !found) {
            if self.matched == 0 {
                let carriage_return = memchr(b'\r', &chunk[at..]);
                self.matched = usize::from(carriage_return.is_some());
                at = carriage_return.map_or(chunk.len(), |skipped| at + skipped + 1);
            } else if byte == self.delimiter[self.matched] {
                self.matched += 1;
                at += 1;
                found = self.matched == self.delimiter.len();
            } else {
                self.matched = 0;
            }
        }
        if let Some(content) = &mut self.part.model {
            let room = MAX_MODEL + self.delimiter.len() - content.len();
            content.extend_from_slice(&chunk[start..at.min(start + room)]);
        }
        if found {
            self.end_part(self.offset + at);
        }
        at
    }

    /// Closes the part before the delimiter that ends at `position`.
    fn end_part(&mut self, position: usize) {
        let next = position + 2 - self.delimiter.len(); // its dashes
        let value_span = self.part.content..next.saturating_sub(2);
        if let Some(content) = self.part.model.take().filter(|_| value_span.len() <= MAX_MODEL) {
            self.model = Some(model_field(&content, value_span, self.part.start..next));
        }
        self.part.start = next;
        self.matched = 0;
        self.state = State::DelimiterLine(Suffix::Nothing);
    }

    fn read_delimiter_line(&mut self, suffix: Suffix, byte: u8) {
        self.state = match (suffix, byte) {
            (Suffix::Nothing | Suffix::Padding, b' ' | b'\t') => State::DelimiterLine(Suffix::Padding),
            (Suffix::Nothing | Suffix::Padding, b'\r') => State::DelimiterLine(Suffix::CarriageReturn),
            (Suffix::Nothing, b'-') => State::DelimiterLine(Suffix::Dash),
            (Suffix::Dash, b'-') => State::End,
            (Suffix::CarriageReturn, b'\n') => {
                self.headers.clear();
                self.headers.extend_from_slice(b"\r\n");
                State::Headers
            }
            _ => return self.break_off(),
        };
    }

    fn read_header(&mut self, byte: u8, position: usize) {
        // Node skips two bytes where it expects a line end, whatever they are.
        if (self.headers.last() == Some(&b'\r')) != (byte == b'\n') {
            return self.refuse(AMBIGUOUS);
        }
        if self.headers.len() == MAX_HEADERS {
            return self.refuse(HEADERS_TOO_LONG);
        }
        self.headers.push(byte);
        if let Some(block) = self.headers.strip_suffix(b"\r\n\r\n") {
            let parsed = disposition::parse(block);
            self.start_content(parsed, position + 1);
        }
    }

    fn start_content(&mut self, parsed: disposition::Parsed, position: usize) {
        let headers = match parsed {
            disposition::Parsed::Headers(headers) => headers,
            disposition::Parsed::Ambiguous => return self.refuse(AMBIGUOUS),
            disposition::Parsed::Malformed => return self.break_off(),
        };
        self.part.content = position;
        self.state = State::Content;
        if headers.name.as_deref() == Some(NAME) {
            if std::mem::replace(&mut self.met, true) {
                return self.refuse(DUPLICATE);
            }
            if headers.encoded {
                return self.refuse(ENCODED);
            }
            self.part.model = (!headers.is_file).then(Vec::new);
        } else if self.met && headers.is_file {
            self.state = State::End;
        }
    }

    /// The gateway will not parse this body. That is a fault only if something was already taken from it.
    fn break_off(&mut self) {
        if self.met {
            self.fault = Some(NOT_A_FORM);
        }
        self.state = State::End;
    }

    fn refuse(&mut self, fault: &'static str) {
        self.fault = Some(fault);
        self.state = State::End;
    }
}

// === free functions ===

/// `content` may run on into the delimiter behind it.
fn model_field(content: &[u8], value_span: Range<usize>, member_span: Range<usize>) -> ModelField {
    let content = &content[..value_span.len().min(content.len())];
    // undici drops two marks, one on its own and one in its `TextDecoder`.
    let text = (0..2).fold(content, |text, _| text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text));
    ModelField { value: String::from_utf8_lossy(text).into_owned(), value_span, member_span, json: false }
}
