//! Finds the top-level `model` of a JSON object while its bytes pass by.
//!
//! Push parser: any chunk borders, no recursion, no copy of the body, memory bounded by [`MAX_MODEL`]. It accepts whatever
//! `JSON.parse` accepts (byte order mark, lone surrogates, any depth), so that the gateway never sees a `model` that was not
//! seen here. What it skips (numbers, nested values) is not validated: a body the gateway cannot parse goes nowhere. Spans
//! count bytes from the start of the body.
//!
//! Source: RFC 8259; the gateway's `JSON.parse` over a UTF-8 decoding that drops byte order marks and replaces bad bytes.

use memchr::memchr2;

use super::{BodyPeek, ModelField, Progress};

#[cfg(test)]
mod tests;
mod text;

use text::{Text, TextEnd};

/// Longest model that is looked at, in bytes after decoding. A longer one names no slug.
pub(super) const MAX_MODEL: usize = 512;

const KEY: &[u8] = b"model";
/// undici drops two of them, one on its own and one in its `TextDecoder`; more are no harm, as `JSON.parse` refuses them.
const BYTE_ORDER_MARK: &[u8; 3] = b"\xef\xbb\xbf";

const DUPLICATE: &str = "it holds more than one \"model\"";
const NOT_JSON: &str = "it is not JSON";

/// The scanner. Feed it the body, then [`finish`](Self::finish) it.
#[derive(Debug, Default)]
pub(super) struct JsonScan {
    state: State,
    /// Bytes in the chunks before the current one.
    offset: usize,
    is_object: Option<bool>,
    member: Member,
    text: Text,
    /// Whether a member called `model` was met, whatever its value.
    met: bool,
    model: Option<ModelField>,
    fault: Option<&'static str>,
}

/// What the next byte belongs to. Everything but `Nested*` is the outermost object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    FirstKey,
    Key,
    KeyText,
    Colon,
    Value,
    ModelText,
    SkippedText {
        escaped: bool,
    },
    Literal,
    Nested {
        depth: usize,
    },
    NestedText {
        depth: usize,
        escaped: bool,
    },
    AfterValue,
    End,
}

/// The member being read: where its parts stand.
#[derive(Debug, Default)]
struct Member {
    is_model: bool,
    /// The comma before it, unless it is the first.
    comma: Option<usize>,
    key: usize,
    value: usize,
}

// === impl JsonScan ===

impl JsonScan {
    /// Takes the next bytes of the body. After [`Progress::Done`] more of them change nothing.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Progress {
        let mut at = 0;
        while at < chunk.len() && self.state != State::End {
            at = self.step(chunk, at);
        }
        self.offset += chunk.len();
        if self.state == State::End { Progress::Done } else { Progress::More }
    }

    /// Whether the body is a JSON object; `None` until the first byte that tells.
    pub(super) fn is_object(&self) -> Option<bool> {
        self.is_object
    }

    /// What was found. `complete`: the body ended here; otherwise nobody wanted to keep more of it.
    pub(super) fn finish(mut self, complete: bool) -> BodyPeek {
        let truncated = self.state != State::End && !complete;
        if truncated && self.state == State::AfterValue && self.member.is_model && self.member.comma.is_none() {
            // A first member cannot be cut before it is known whether a comma follows.
            self.model = None;
        }
        if complete && self.state != State::End {
            self.break_off();
        }
        let unreadable = self.met && self.model.is_none();
        BodyPeek { model: self.model, fault: self.fault, truncated, unreadable }
    }

    /// Reads from `chunk[at]` on and returns where the next step starts, which is further on.
    fn step(&mut self, chunk: &[u8], at: usize) -> usize {
        match self.state {
            State::KeyText | State::ModelText => self.read_text(chunk, at),
            State::SkippedText { escaped } => {
                let (next, open) = skip_text(chunk, at, escaped);
                self.state = open.map_or(State::AfterValue, |escaped| State::SkippedText { escaped });
                next
            }
            State::NestedText { depth, escaped } => {
                let (next, open) = skip_text(chunk, at, escaped);
                self.state = open.map_or(State::Nested { depth }, |escaped| State::NestedText { depth, escaped });
                next
            }
            State::Nested { depth } => {
                let (next, state) = skip_nested(chunk, at, depth);
                self.state = state;
                next
            }
            State::Start
            | State::FirstKey
            | State::Key
            | State::Colon
            | State::Value
            | State::Literal
            | State::AfterValue
            | State::End => {
                self.read_structure(chunk[at], self.offset + at);
                at + 1
            }
        }
    }

    fn read_structure(&mut self, byte: u8, position: usize) {
        match (self.state, byte) {
            (State::Literal, b' ' | b'\t' | b'\n' | b'\r') => self.state = State::AfterValue,
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (State::Start, _) if byte == BYTE_ORDER_MARK[position % BYTE_ORDER_MARK.len()] => {}
            (State::Start, _) => {
                self.is_object = Some(byte == b'{');
                self.state = if byte == b'{' { State::FirstKey } else { State::End };
            }
            (State::FirstKey | State::Key, b'"') => {
                self.member.key = position;
                self.text.restart(KEY.len());
                self.state = State::KeyText;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Value, _) => self.start_value(byte, position),
            (State::Literal, b'0'..=b'9' | b'a'..=b'z' | b'+' | b'-' | b'.' | b'E') => {}
            (State::Literal | State::AfterValue, b',') => {
                if let Some(model) = self.model.as_mut().filter(|model| model.member_span.start == self.member.key) {
                    model.member_span.end = position + 1;
                }
                self.member.comma = Some(position);
                self.state = State::Key;
            }
            (State::Literal | State::AfterValue, b'}') | (State::FirstKey, b'}') => self.state = State::End,
            _ => self.break_off(),
        }
    }

    fn start_value(&mut self, byte: u8, position: usize) {
        self.member.value = position;
        if self.member.is_model && std::mem::replace(&mut self.met, true) {
            self.fault = Some(DUPLICATE);
            self.state = State::End;
            return;
        }
        self.state = match byte {
            b'"' if self.member.is_model => {
                self.text.restart(MAX_MODEL);
                State::ModelText
            }
            b'"' => State::SkippedText { escaped: false },
            b'{' | b'[' => State::Nested { depth: 1 },
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => State::Literal,
            _ => return self.break_off(),
        };
    }

    fn read_text(&mut self, chunk: &[u8], at: usize) -> usize {
        let (next, end) = self.text.read(chunk, at);
        match end {
            TextEnd::Open => {}
            TextEnd::Broken => self.break_off(),
            TextEnd::Closed if self.state == State::KeyText => {
                self.member.is_model = !self.text.overflow && self.text.bytes == KEY;
                self.state = State::Colon;
            }
            TextEnd::Closed => {
                self.end_model(self.offset + next);
                self.state = State::AfterValue;
            }
        }
        next
    }

    fn end_model(&mut self, end: usize) {
        if self.text.overflow {
            return;
        }
        self.model = Some(ModelField {
            value: String::from_utf8_lossy(&self.text.bytes).into_owned(),
            value_span: self.member.value..end,
            // With the comma before it, or, for a first member, with the one after it once that has been read.
            member_span: self.member.comma.unwrap_or(self.member.key)..end,
            json: true,
        });
    }

    /// The gateway will not parse this body. That is a fault only if something was already taken from it.
    fn break_off(&mut self) {
        if self.met {
            self.fault = Some(NOT_JSON);
        }
        self.state = State::End;
    }
}

// === free functions ===

/// Skips a string whose opening quote is behind. `None` when it ended, else whether the next byte is escaped.
fn skip_text(chunk: &[u8], at: usize, escaped: bool) -> (usize, Option<bool>) {
    let mut next = at + usize::from(escaped);
    while let Some(found) = chunk.get(next..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        next += found;
        if chunk[next] == b'"' {
            return (next + 1, None);
        }
        next += 2;
    }
    (chunk.len(), Some(next > chunk.len()))
}

/// Skips inside a nested value, up to a string in it or its end.
fn skip_nested(chunk: &[u8], at: usize, mut depth: usize) -> (usize, State) {
    for (index, byte) in chunk.iter().enumerate().skip(at) {
        match byte {
            b'"' => return (index + 1, State::NestedText { depth, escaped: false }),
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return (index + 1, State::AfterValue),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    (chunk.len(), State::Nested { depth })
}
