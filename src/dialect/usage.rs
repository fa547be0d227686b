//! How many tokens an answer has used, by what it says itself, while its bytes pass by.
//!
//! No byte is kept, copied or held back. The `usage` of JSON documents is read in whatever frames they come: one body,
//! `data:` lines of an event stream (SSE), messages of an AWS event stream. Numbers of later documents stand beside earlier ones,
//! the larger one counts: providers say the input first and the output last, or the whole again and again.
//!
//! Sources: OpenAI API (chat, completions, embeddings, responses), Anthropic Messages API (`message_start`, `message_delta`),
//! Amazon Bedrock (Converse, InvokeModel with its metrics and headers), Gemini API (`usageMetadata`, interactions), Cohere API
//! (chat, embed), WHATWG server-sent events, AWS event stream encoding; the shapes that gateway 1.15.2 makes of them.

use http::{
    HeaderMap, HeaderName,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

mod document;
mod events;
mod messages;
mod number;
#[cfg(test)]
mod tests;

use self::{document::Documents, events::Events, messages::Messages};

/// Bytes of text that make a token, where nobody has counted. English has four; fewer are on the safe side.
const BYTES_PER_TOKEN: u64 = 4;
/// Most tokens of a question nobody has counted, as pictures inside of JSON are not text.
const MAX_ESTIMATED_INPUT: u64 = 200_000;

const BEDROCK_INPUT: HeaderName = HeaderName::from_static("x-amzn-bedrock-input-token-count");
const BEDROCK_OUTPUT: HeaderName = HeaderName::from_static("x-amzn-bedrock-output-token-count");

/// Reads along with one answer.
#[derive(Debug)]
pub struct UsageScan {
    frames: Frames,
    /// What the head said.
    head: Found,
    bytes: u64,
}

/// What one answer has used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many tokens of each kind.
    pub tokens: Tokens,
    /// Whether they are an estimate: the answer does not say, or ended before it could.
    pub estimated: bool,
    /// Which model has answered, as the answer spells it.
    pub model: Option<Box<str>>,
}

/// Tokens by what they are charged as. No token stands in two of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read by the model.
    pub input: u64,
    /// Read from the provider's cache.
    pub cached: u64,
    /// Written into the provider's cache.
    pub written: u64,
    /// Written by the model, thoughts included.
    pub output: u64,
}

/// The numbers as they stand in answers; [`Found::tokens`] makes sense of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    /// Cached tokens that are among `input`, unless `total` says otherwise.
    within: Option<u64>,
    /// Cached tokens beside `input`.
    beside: Option<u64>,
    /// Tokens written into the cache, beside `input`.
    written: Option<u64>,
}

/// How the documents are packed.
#[derive(Debug)]
enum Frames {
    /// Not at all, or as an event stream; the first byte will tell.
    Unknown,
    Document(Box<Documents>),
    Events(Box<Events>),
    Messages(Box<Messages>),
    /// In no way that can be read: compressed, sound, pictures.
    Opaque,
}

// === impl UsageScan ===

impl UsageScan {
    /// For an answer with these headers.
    pub fn new(headers: &HeaderMap) -> Self {
        let number = |name| headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
        let head = Found { input: number(BEDROCK_INPUT), output: number(BEDROCK_OUTPUT), ..Found::default() };
        let encoded =
            headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
        let media = headers.get(CONTENT_TYPE).map(|value| essence(value.as_bytes())).unwrap_or_default();
        let frames = match media.as_str() {
            _ if encoded => Frames::Opaque,
            "application/vnd.amazon.eventstream" => Frames::Messages(Box::default()),
            "application/octet-stream" => Frames::Opaque,
            media if ["audio/", "image/", "video/"].iter().any(|kind| media.starts_with(kind)) => Frames::Opaque,
            _ => Frames::Unknown,
        };
        Self { frames, head, bytes: 0 }
    }

    /// Takes the next bytes of the body, at any border.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if let Frames::Unknown = self.frames {
            match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
                None => return,
                Some(b'{' | b'[') => self.frames = Frames::Document(Box::default()),
                Some(_) => self.frames = Frames::Events(Box::default()),
            }
        }
        match &mut self.frames {
            Frames::Document(documents) => documents.feed(bytes),
            Frames::Events(events) => events.feed(bytes),
            Frames::Messages(messages) => messages.feed(bytes),
            Frames::Unknown | Frames::Opaque => {}
        }
    }

    /// What was used. `ended`: the body came to its end; `asked`: bytes of text of the request, for an estimate.
    pub fn finish(self, ended: bool, asked: u64) -> Usage {
        let text = self.text_tokens();
        let (found, model) = match self.frames {
            Frames::Document(documents) => documents.finish(),
            Frames::Events(events) => events.finish(),
            Frames::Messages(messages) => messages.finish(),
            Frames::Unknown | Frames::Opaque => (Found::default(), None),
        };
        let found = found.or(self.head);
        let known = found.tokens();
        let tokens = match known {
            // Where there is a total, it is that of all that came.
            Some(known) if ended || found.total.is_some() => known,
            // What was written until the client left is paid for.
            Some(known) => Tokens { output: known.output.max(text), ..known },
            None => Tokens {
                input: asked.div_ceil(BYTES_PER_TOKEN).clamp(1, MAX_ESTIMATED_INPUT),
                output: text,
                ..Tokens::default()
            },
        };
        Usage { tokens, estimated: known.is_none_or(|known| known != tokens), model }
    }

    /// Tokens that the answer has at most, or nearly so, by its length: an event brings one at least, and what events are longer
    /// than the shortest of them is text.
    fn text_tokens(&self) -> u64 {
        match &self.frames {
            Frames::Document(_) => self.bytes.div_ceil(BYTES_PER_TOKEN),
            Frames::Events(events) => events.seen().tokens(),
            Frames::Messages(messages) => messages.seen().tokens(),
            Frames::Unknown | Frames::Opaque => 0,
        }
    }
}

// === impl Tokens ===

impl Tokens {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.cached).saturating_add(self.written).saturating_add(self.output)
    }
}

// === impl Found ===

impl Found {
    /// Each number of `self`, else of `other`.
    fn or(self, other: Self) -> Self {
        Self {
            input: self.input.or(other.input),
            output: self.output.or(other.output),
            total: self.total.or(other.total),
            within: self.within.or(other.within),
            beside: self.beside.or(other.beside),
            written: self.written.or(other.written),
        }
    }

    /// What the numbers mean; `None` when there are none.
    ///
    /// OpenAI counts cached tokens among the input, Anthropic and Bedrock beside it, and the gateway's OpenAI shape of their
    /// answers carries both spellings. The total tells which it is. What it has beyond input and output are thoughts.
    fn tokens(self) -> Option<Tokens> {
        if self.input.is_none() && self.output.is_none() && self.total.is_none() {
            return None;
        }
        let [input, output, total] = [self.input, self.output, self.total].map(Option::unwrap_or_default);
        let [within, beside, written] = [self.within, self.beside, self.written].map(Option::unwrap_or_default);
        let cached = within.max(beside);
        let apart = cached.saturating_add(written);
        let is_beside = beside > 0 || written > 0;
        let summed = input.saturating_add(apart).saturating_add(output);
        let input =
            if is_beside && (self.total.is_none() || summed <= total) { input } else { input.saturating_sub(apart) };
        let output = output.max(total.saturating_sub(input.saturating_add(apart)));
        Some(Tokens { input, cached, written, output })
    }
}

/// The lower-case media type without its parameters.
fn essence(value: &[u8]) -> String {
    let end = value.iter().position(|byte| matches!(byte, b';' | b',')).unwrap_or(value.len());
    String::from_utf8_lossy(value[..end].trim_ascii()).to_ascii_lowercase()
}
