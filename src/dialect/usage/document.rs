//! JSON documents, one after the other: the few members that say what was used, wherever providers put them.
//!
//! A push parser with any chunk borders, no recursion and fixed memory: it knows where it stands only as far down as there is
//! something to find, and skips the rest. It does not validate; what is no JSON says nothing.

use memchr::memchr2;

use super::{Found, number::Number};

/// Levels that are followed: the document, an envelope, its usage, the details of that.
const LEVELS: usize = 4;
/// Longest name of a member that means something, `amazon-bedrock-invocationMetrics`.
const MAX_KEY: usize = 32;
/// Longest name of a model, in bytes; a longer one has no price.
const MAX_MODEL: usize = 128;
/// Base64 that is decoded at once, a multiple of four.
const BASE64_STEP: usize = 256;

/// What was found in the documents so far.
#[derive(Debug, Default)]
pub(super) struct Documents {
    state: State,
    levels: [Level; LEVELS],
    depth: usize,
    key: Short<MAX_KEY>,
    member: Member,
    number: Number,
    model: Short<MAX_MODEL>,
    named: Option<Box<str>>,
    found: Found,
    /// Documents inside of the `bytes` of messages, where there can be any.
    inner: Option<Box<Inner>>,
}

/// Documents in base64.
#[derive(Debug, Default)]
struct Inner {
    documents: Documents,
    /// Digits that make no whole group yet.
    digits: u32,
    count: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a value, or between documents.
    #[default]
    Value,
    /// Before the name of a member, or the end of the object.
    Key,
    KeyText {
        escaped: bool,
    },
    /// After a value or a name.
    After,
    /// A number that counts, or one in quotes.
    Number {
        quoted: bool,
    },
    /// The rest of a number or word that does not count.
    Literal,
    ModelText {
        escaped: bool,
    },
    BytesText,
    Text {
        escaped: bool,
    },
    Nested {
        depth: u32,
    },
    NestedText {
        depth: u32,
        escaped: bool,
    },
}

/// What an object is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    #[default]
    Document,
    /// `message` of Anthropic's first event, `response` of OpenAI's last, `delta` of Cohere's.
    Envelope,
    Usage,
    Details,
}

/// What a member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Member {
    #[default]
    Other,
    Object(Level),
    Count(Count),
    Model,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Input,
    Output,
    Total,
    Within,
    Beside,
    Written,
}

/// A text of a few bytes.
#[derive(Clone, Copy, Debug)]
struct Short<const N: usize> {
    bytes: [u8; N],
    length: usize,
    /// Whether it is longer, or written in a way that is not looked at.
    overflow: bool,
}

// === impl Documents ===

impl Documents {
    /// Documents that may carry others in `bytes`.
    pub(super) fn carrying() -> Self {
        Self { inner: Some(Box::default()), ..Self::default() }
    }

    /// A new document begins, whatever became of the last.
    pub(super) fn restart(&mut self) {
        self.state = State::Value;
        self.depth = 0;
        self.member = Member::Other;
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at = self.step(bytes, at);
        }
    }

    /// What was found.
    pub(super) fn finish(mut self) -> (Found, Option<Box<str>>) {
        if self.state == (State::Number { quoted: false }) {
            self.end_number();
        }
        match self.inner {
            None => (self.found, self.named),
            Some(inner) => {
                let (found, named) = inner.documents.finish();
                (self.found.or(found), self.named.or(named))
            }
        }
    }

    /// Reads from `bytes[at]` on and returns where the next step starts, which is further on.
    fn step(&mut self, bytes: &[u8], at: usize) -> usize {
        let byte = bytes[at];
        match self.state {
            State::Value => self.start_value(byte),
            State::Key => match byte {
                b'"' => {
                    self.key.clear();
                    self.state = State::KeyText { escaped: false };
                }
                b'}' => self.close(),
                _ => {}
            },
            State::KeyText { escaped } => {
                self.state = match byte {
                    b'"' if !escaped => {
                        self.member = self.member_of_key();
                        State::After
                    }
                    b'\\' if !escaped => {
                        // No name that means something is written so.
                        self.key.overflow = true;
                        State::KeyText { escaped: true }
                    }
                    _ => {
                        self.key.push(byte);
                        State::KeyText { escaped: false }
                    }
                };
            }
            State::After => match byte {
                b':' => self.state = State::Value,
                b',' => self.state = if self.depth == 0 { State::Value } else { State::Key },
                b'}' => self.close(),
                b'{' if self.depth == 0 => self.start_value(byte),
                _ => {}
            },
            State::Number { quoted } => {
                let goes_on = self.number.push(byte);
                self.state = match byte {
                    _ if goes_on => State::Number { quoted },
                    b'"' if quoted => {
                        self.end_number();
                        State::After
                    }
                    _ if quoted => {
                        self.state = State::Text { escaped: false };
                        return at;
                    }
                    b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' => {
                        self.end_number();
                        self.state = State::After;
                        return at;
                    }
                    _ => State::Literal,
                };
            }
            State::Literal => {
                if matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace() {
                    self.state = State::After;
                    return at;
                }
            }
            State::ModelText { escaped } => {
                self.state = match byte {
                    b'"' if !escaped => {
                        self.end_model();
                        State::After
                    }
                    b'\\' if !escaped => State::ModelText { escaped: true },
                    _ => {
                        // Of escapes, models have none but that of a slash.
                        self.model.overflow |= escaped && byte != b'/';
                        self.model.push(byte);
                        State::ModelText { escaped: false }
                    }
                };
            }
            State::BytesText => return self.read_bytes(bytes, at),
            State::Text { escaped } => {
                let (next, open) = skip_text(bytes, at, escaped);
                self.state = open.map_or(State::After, |escaped| State::Text { escaped });
                return next;
            }
            State::Nested { depth } => {
                let (next, state) = skip_nested(bytes, at, depth);
                self.state = state;
                return next;
            }
            State::NestedText { depth, escaped } => {
                let (next, open) = skip_text(bytes, at, escaped);
                self.state = open.map_or(State::Nested { depth }, |escaped| State::NestedText { depth, escaped });
                return next;
            }
        }
        at + 1
    }

    fn start_value(&mut self, byte: u8) {
        self.state = match (byte, self.member) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => return,
            // Documents may stand in a list.
            (b'[' | b',', _) if self.depth == 0 => return,
            (b'{', _) if self.depth == 0 => self.open(Level::Document),
            (b'{', Member::Object(level)) if self.depth < LEVELS => self.open(level),
            (b'{' | b'[', _) => State::Nested { depth: 1 },
            (b'"', Member::Model) => {
                self.model.clear();
                State::ModelText { escaped: false }
            }
            (b'"', Member::Bytes) => {
                self.inner.iter_mut().for_each(|inner| inner.restart());
                State::BytesText
            }
            (b'"', Member::Count(_)) => {
                self.number = Number::default();
                State::Number { quoted: true }
            }
            (b'"', _) => State::Text { escaped: false },
            (b'0'..=b'9', Member::Count(_)) => {
                self.number = Number::default();
                self.number.push(byte);
                State::Number { quoted: false }
            }
            (b'}', _) => return self.close(),
            _ => State::Literal,
        };
    }

    fn open(&mut self, level: Level) -> State {
        self.levels[self.depth] = level;
        self.depth += 1;
        State::Key
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.member = Member::Other;
        self.state = if self.depth == 0 { State::Value } else { State::After };
    }

    fn end_number(&mut self) {
        let Member::Count(count) = self.member else { return };
        let place = match count {
            Count::Input => &mut self.found.input,
            Count::Output => &mut self.found.output,
            Count::Total => &mut self.found.total,
            Count::Within => &mut self.found.within,
            Count::Beside => &mut self.found.beside,
            Count::Written => &mut self.found.written,
        };
        *place = (*place).max(self.number.value());
    }

    fn end_model(&mut self) {
        if self.named.is_none()
            && let Some(model) = self.model.text().filter(|model| !model.is_empty())
        {
            self.named = Some(model.into());
        }
    }

    /// Passes base64 on to the documents inside.
    fn read_bytes(&mut self, bytes: &[u8], at: usize) -> usize {
        let rest = &bytes[at..];
        let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        if let Some(inner) = &mut self.inner {
            inner.feed(&rest[..end]);
        }
        match rest.get(end) {
            None => bytes.len(),
            Some(b'"') => {
                self.inner.iter_mut().for_each(|inner| inner.end());
                self.state = State::After;
                at + end + 1
            }
            // An escaped slash is the only escape base64 has use for.
            Some(_) => at + end + 1,
        }
    }

    fn member_of_key(&self) -> Member {
        let (Some(key), Some(depth)) = (self.key.text(), self.depth.checked_sub(1)) else { return Member::Other };
        match self.levels[depth] {
            Level::Document => match key {
                "message" | "response" | "x_groq" | "delta" | "interaction" => Member::Object(Level::Envelope),
                "bytes" if self.inner.is_some() => Member::Bytes,
                _ => Member::of_envelope(key),
            },
            Level::Envelope => Member::of_envelope(key),
            Level::Usage => Member::of_usage(key),
            Level::Details => match key {
                "cached_tokens" => Member::Count(Count::Within),
                _ => Member::Other,
            },
        }
    }
}

// === impl Member ===

impl Member {
    fn of_envelope(key: &str) -> Self {
        match key {
            "usage" | "usageMetadata" | "amazon-bedrock-invocationMetrics" | "meta" => Self::Object(Level::Usage),
            "model" | "modelVersion" => Self::Model,
            _ => Self::Other,
        }
    }

    fn of_usage(key: &str) -> Self {
        Self::Count(match key {
            "prompt_tokens" | "input_tokens" | "inputTokens" | "inputTokenCount" | "promptTokenCount"
            | "total_input_tokens" => Count::Input,
            "completion_tokens"
            | "output_tokens"
            | "outputTokens"
            | "outputTokenCount"
            | "candidatesTokenCount"
            | "total_output_tokens" => Count::Output,
            "total_tokens" | "totalTokens" | "totalTokenCount" => Count::Total,
            "cached_tokens" | "cachedContentTokenCount" | "total_cached_tokens" => Count::Within,
            "cache_read_input_tokens" | "cacheReadInputTokens" | "cacheReadInputTokenCount" => Count::Beside,
            "cache_creation_input_tokens" | "cacheWriteInputTokens" | "cacheWriteInputTokenCount" => Count::Written,
            "prompt_tokens_details" | "input_tokens_details" | "input_token_details" => {
                return Self::Object(Level::Details);
            }
            // Cohere's: what the model read and wrote, and what of it is paid for.
            "tokens" | "billed_units" => return Self::Object(Level::Usage),
            _ => return Self::Other,
        })
    }
}

// === impl Inner ===

impl Inner {
    fn restart(&mut self) {
        self.documents.restart();
        (self.digits, self.count) = (0, 0);
    }

    fn feed(&mut self, base64: &[u8]) {
        for part in base64.chunks(BASE64_STEP) {
            let mut decoded = [0; BASE64_STEP];
            let mut length = 0;
            for digit in part.iter().filter_map(|&byte| digit(byte)) {
                self.digits = self.digits << 6 | u32::from(digit);
                self.count += 1;
                if self.count == 4 {
                    let [_, group @ ..] = self.digits.to_be_bytes();
                    decoded[length..length + 3].copy_from_slice(&group);
                    length += 3;
                    (self.digits, self.count) = (0, 0);
                }
            }
            self.documents.feed(&decoded[..length]);
        }
    }

    /// The last group may have fewer digits.
    fn end(&mut self) {
        let [_, group @ ..] = (self.digits << (6 * (4 - u32::from(self.count)))).to_be_bytes();
        let length = usize::from(self.count).saturating_sub(1);
        self.documents.feed(&group[..length]);
        (self.digits, self.count) = (0, 0);
    }
}

// === impl Short ===

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self { bytes: [0; N], length: 0, overflow: false }
    }
}

impl<const N: usize> Short<N> {
    fn clear(&mut self) {
        self.length = 0;
        self.overflow = false;
    }

    fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.length) {
            Some(place) => {
                *place = byte;
                self.length += 1;
            }
            None => self.overflow = true,
        }
    }

    fn text(&self) -> Option<&str> {
        if self.overflow { None } else { std::str::from_utf8(&self.bytes[..self.length]).ok() }
    }
}

/// The value of a base64 digit; `None` for everything else, padding included.
fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Skips a string whose opening quote is behind. `None` when it ended, else whether the next byte is escaped.
fn skip_text(bytes: &[u8], at: usize, escaped: bool) -> (usize, Option<bool>) {
    let mut next = at + usize::from(escaped);
    while let Some(found) = bytes.get(next..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        next += found;
        if bytes[next] == b'"' {
            return (next + 1, None);
        }
        next += 2;
    }
    (bytes.len(), Some(next > bytes.len()))
}

/// Skips inside a nested value, up to a string in it or its end.
fn skip_nested(bytes: &[u8], at: usize, mut depth: u32) -> (usize, State) {
    for (index, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'"' => return (index + 1, State::NestedText { depth, escaped: false }),
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' if depth == 1 => return (index + 1, State::After),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    (bytes.len(), State::Nested { depth })
}
