//! The spellings under which a value may come back.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::SHORTEST;
use crate::secret::Credential;

/// Strings inside a JSON credential that are searched on their own: keys and their ids, not `"type"` or addresses.
const SHORTEST_INNER: usize = 32;
/// RFC 3986 unreserved characters stay.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What JavaScript's `encodeURIComponent` leaves beyond that.
const COMPONENT: &AsciiSet = &STRICT.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

/// Found spellings, each once.
#[derive(Default)]
struct Spellings(Vec<Zeroizing<String>>);

// === impl Spellings ===

impl Spellings {
    fn add(&mut self, spelling: String) {
        let spelling = Zeroizing::new(spelling);
        if !self.0.contains(&spelling) {
            self.0.push(spelling);
        }
    }
}

/// Shows every spelling of `credential` to `visit`, each once. A plain token has one, and costs nothing.
pub(super) fn each(credential: &Credential, mut visit: impl FnMut(&[u8])) {
    let value = credential.expose();
    if value.len() < SHORTEST {
        return;
    }
    visit(value.as_bytes());
    if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)) {
        return;
    }
    let mut spellings = Spellings::default();
    spell(value, &mut spellings);
    if credential.is_structured()
        && let Ok(structure) = serde_json::from_str(value)
    {
        inner(structure, &mut spellings);
    }
    for spelling in spellings.0.iter().filter(|spelling| spelling.as_str() != value) {
        visit(spelling.as_bytes());
    }
}

fn spell(value: &str, spellings: &mut Spellings) {
    spellings.add(value.to_owned());
    for once in json(value) {
        for twice in json(&once) {
            spellings.add(twice);
        }
        spellings.add(once);
    }
    for set in [STRICT, COMPONENT] {
        let upper = percent_encode(value.as_bytes(), set).to_string();
        spellings.add(upper.replace("%20", "+"));
        spellings.add(lower_hex(&upper));
        spellings.add(upper);
    }
}

/// Inside a JSON string: as most write it, in ASCII alone, and with `\/`.
fn json(text: &str) -> [String; 3] {
    let quoted = Zeroizing::new(serde_json::to_string(text).unwrap_or_default());
    let plain = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let mut ascii = String::with_capacity(plain.len());
    for character in plain.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    let slashes = plain.replace('/', "\\/");
    [plain, ascii, slashes]
}

fn inner(structure: Value, spellings: &mut Spellings) {
    match structure {
        Value::String(text) => {
            let text = Zeroizing::new(text);
            if text.len() >= SHORTEST_INNER && !text.starts_with("https://") {
                spell(&text, spellings);
            }
        }
        Value::Array(items) => items.into_iter().for_each(|item| inner(item, spellings)),
        Value::Object(members) => members.into_iter().for_each(|(_, member)| inner(member, spellings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn lower_hex(encoded: &str) -> String {
    let mut digits = 0;
    encoded
        .chars()
        .map(|character| match (character, digits) {
            ('%', _) => {
                digits = 2;
                character
            }
            (_, 0) => character,
            (_, _) => {
                digits -= 1;
                character.to_ascii_lowercase()
            }
        })
        .collect()
}
