//! One JSON string, decoded as it passes by and kept up to a limit.

use memchr::memchr2;

/// A JSON string being decoded, up to a limit.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// What was decoded, bytes that are no UTF-8 included.
    pub(super) bytes: Vec<u8>,
    limit: usize,
    /// Whether there was more than the limit.
    pub(super) overflow: bool,
    escape: Escape,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    Backslash,
    Unicode {
        digits: u8,
        unit: u16,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextEnd {
    /// Not yet.
    Open,
    /// With its quote.
    Closed,
    /// With an escape that JSON does not have.
    Broken,
}

// === impl Text ===

impl Text {
    /// Forgets the last string. The next may have `limit` bytes.
    pub(super) fn restart(&mut self, limit: usize) {
        self.bytes.clear();
        self.limit = limit;
        self.overflow = false;
        self.escape = Escape::None;
        self.high = None;
    }

    /// Decodes from `chunk[at]` on, up to and including the closing quote, and returns what comes next.
    pub(super) fn read(&mut self, chunk: &[u8], mut at: usize) -> (usize, TextEnd) {
        while at < chunk.len() {
            match self.escape {
                Escape::None => {
                    let rest = &chunk[at..];
                    let plain = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    if plain > 0 {
                        self.push(&rest[..plain]);
                    }
                    at += plain + 1;
                    match rest.get(plain) {
                        None => return (chunk.len(), TextEnd::Open),
                        Some(b'"') => {
                            self.push(&[]);
                            return (at, TextEnd::Closed);
                        }
                        Some(_) => self.escape = Escape::Backslash,
                    }
                }
                Escape::Backslash | Escape::Unicode { .. } => {
                    if !self.unescape(chunk[at]) {
                        return (at + 1, TextEnd::Broken);
                    }
                    at += 1;
                }
            }
        }
        (at, TextEnd::Open)
    }

    /// Takes the next byte of an escape; `false` when there is no such escape.
    fn unescape(&mut self, byte: u8) -> bool {
        if let Escape::Unicode { digits, unit } = self.escape {
            let Some(digit) = char::from(byte).to_digit(16) else { return false };
            let unit = unit << 4 | digit as u16;
            self.escape = Escape::Unicode { digits: digits + 1, unit };
            if digits == 3 {
                self.escape = Escape::None;
                self.push_unit(unit);
            }
            return true;
        }
        self.escape = Escape::None;
        match byte {
            b'"' | b'\\' | b'/' => self.push(&[byte]),
            b'b' => self.push(b"\x08"),
            b'f' => self.push(b"\x0c"),
            b'n' => self.push(b"\n"),
            b'r' => self.push(b"\r"),
            b't' => self.push(b"\t"),
            b'u' => self.escape = Escape::Unicode { digits: 0, unit: 0 },
            _ => return false,
        }
        true
    }

    /// Takes a UTF-16 unit. Half a pair that stands alone becomes U+FFFD, as it does when text is sent as UTF-8.
    fn push_unit(&mut self, unit: u16) {
        const LONE: char = char::REPLACEMENT_CHARACTER;
        let char = match (self.high, unit) {
            (Some(high), 0xdc00..=0xdfff) => {
                self.high = None;
                char::decode_utf16([high, unit]).next().and_then(Result::ok).unwrap_or(LONE)
            }
            (_, 0xd800..=0xdbff) => {
                self.push(&[]);
                self.high = Some(unit);
                return;
            }
            _ => char::from_u32(unit.into()).unwrap_or(LONE),
        };
        self.push(char.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// Takes text that continues no pair.
    fn push(&mut self, bytes: &[u8]) {
        if self.high.take().is_some() {
            self.append("\u{fffd}".as_bytes());
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = self.limit - self.bytes.len();
        self.overflow |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}
