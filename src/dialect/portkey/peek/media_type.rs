//! `content-type` as undici reads it: first `boundary` wins, quoted strings are unescaped, bytes are Latin-1.
//!
//! Source: <https://mimesniff.spec.whatwg.org/#parsing-a-mime-type>.

use std::borrow::Cow;

/// A media type with the one parameter that matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// Type and subtype, lower case.
    pub(super) essence: String,
    pub(super) boundary: Option<String>,
}

// === impl MediaType ===

impl MediaType {
    pub(super) fn parse(value: &[u8]) -> Self {
        let text: Cow<'_, str> = match std::str::from_utf8(value) {
            Ok(text) if text.is_ascii() => text.into(),
            Ok(_) | Err(_) => value.iter().copied().map(char::from).collect(),
        };
        let (essence, mut rest) = text.split_once(';').unwrap_or((&text, ""));
        let mut boundary = None;
        while !rest.is_empty() {
            let parameter = rest.trim_start_matches(is_blank);
            let end = parameter.find([';', '=']).unwrap_or(parameter.len());
            let (name, behind) = parameter.split_at(end);
            let Some(behind) = behind.strip_prefix('=') else {
                rest = behind.strip_prefix(';').unwrap_or_default();
                continue;
            };
            let value;
            (value, rest) = match behind.strip_prefix('"') {
                Some(quoted) => {
                    let (value, behind) = unquote(quoted);
                    (Some(value), behind.split_once(';').unwrap_or_default().1)
                }
                None => {
                    let (token, rest) = behind.split_once(';').unwrap_or((behind, ""));
                    let token = token.trim_end_matches(is_blank);
                    (Some(token.to_owned()).filter(|token| !token.is_empty()), rest)
                }
            };
            if name.eq_ignore_ascii_case("boundary") {
                boundary = boundary.or(value);
            }
        }
        Self { essence: essence.trim_matches(is_blank).to_ascii_lowercase(), boundary }
    }

    pub(super) fn is(&self, essence: &str) -> bool {
        self.essence == essence
    }

    pub(super) fn is_audio(&self) -> bool {
        self.essence.starts_with("audio/")
    }
}

/// Whether a comma outside of quotes divides `value`.
pub(super) fn names_several(value: &[u8]) -> bool {
    let mut quoted = false;
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                bytes.next();
            }
            b',' if !quoted => return true,
            _ => {}
        }
    }
    false
}

/// The quoted string that starts here, unescaped, and what follows it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (text, &quoted[at + 1..]),
            '\\' => text.push(chars.next().map_or('\\', |(_, escaped)| escaped)),
            _ => text.push(char),
        }
    }
    (text, "")
}

fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\r' | '\n')
}
