//! A service account: a JSON object of strings that a config carries as such.
//!
//! Read without decoding the whole: a decoder would leave parts of the secret in its buffers.

use std::sync::Arc;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::config_tree::render;
use crate::secret::{Credential, SecretValue};

#[derive(Deserialize)]
struct Account<'j> {
    #[serde(borrow)]
    private_key: Option<&'j RawValue>,
}

/// The private key alone, as a reply may show it without the JSON around it.
pub(super) fn private_key(json: &str) -> Option<Arc<Credential>> {
    let account: Account<'_> = serde_json::from_str(json).ok()?;
    let quoted = account.private_key?.get();
    let text = unescaped(quoted.strip_prefix('"')?.strip_suffix('"')?)?;
    (!text.is_empty()).then(|| Arc::new(Credential::text(SecretValue::new(text.as_bytes().to_vec()))))
}

/// Writes a JSON object of strings, in ASCII and without white space between its tokens. The gateway's validator wants an
/// object here, and strings in it. Answers whether the text is one; otherwise what was written is of no use.
pub(super) fn write(json: &str, out: &mut dyn FnMut(&str)) -> bool {
    if serde_json::from_str::<IgnoredAny>(json).is_err() || !json.trim_ascii_start().starts_with('{') {
        return false;
    }
    let (mut in_string, mut escapes, mut objects) = (false, false, 0);
    for (at, char) in json.char_indices() {
        let token = json.get(at..at + char.len_utf8()).unwrap_or_default();
        match char {
            _ if in_string => {
                if char.is_ascii() {
                    out(token);
                } else {
                    render::escaped(token, out);
                }
                in_string = char != '"' || escapes;
                escapes = char == '\\' && !escapes;
                continue;
            }
            ' ' | '\t' | '\n' | '\r' => continue,
            '"' => in_string = true,
            '{' => objects += 1,
            '}' | ':' | ',' => {}
            // A number, a literal or an array.
            _ => return false,
        }
        out(token);
    }
    objects == 1
}

/// What stands between the quotes of a JSON string, decoded into a buffer that is wiped.
fn unescaped(escaped: &str) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(escaped.len()));
    let mut chars = escaped.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            text.push(char);
            continue;
        }
        text.push(match chars.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let mut unit = || (0..4).try_fold(0, |unit, _| Some(unit * 16 + chars.next()?.to_digit(16)?));
                let first = unit()?;
                match char::from_u32(first) {
                    Some(char) => char,
                    None => {
                        chars.next().filter(|&char| char == '\\')?;
                        chars.next().filter(|&char| char == 'u')?;
                        let second = (0..4).try_fold(0, |unit, _| Some(unit * 16 + chars.next()?.to_digit(16)?))?;
                        char::from_u32(0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff))?
                    }
                }
            }
            plain => plain,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(json: &str) -> Option<String> {
        let mut out = String::new();
        write(json, &mut |part| out.push_str(part)).then_some(out)
    }

    #[test]
    fn only_objects_of_strings() {
        for (json, expected) in [
            ("{}", Some("{}")),
            (" { \"a\" : \"b c\" ,\r\n\t\"d\":\"\\\"{1}\" } ", Some("{\"a\":\"b c\",\"d\":\"\\\"{1}\"}")),
            ("{\"a\":\"\\\\\",\"b\":\"\u{e9}\u{1f600}\"}", Some("{\"a\":\"\\\\\",\"b\":\"\\u00e9\\ud83d\\ude00\"}")),
            ("", None),
            ("\"a\"", None),
            ("[\"a\"]", None),
            ("null", None),
            ("{\"a\":1}", None),
            ("{\"a\":true}", None),
            ("{\"a\":null}", None),
            ("{\"a\":{}}", None),
            ("{\"a\":[\"b\"]}", None),
            ("{\"a\":\"b\"", None),
            ("{\"a\":\"b\"} {}", None),
        ] {
            assert_eq!(written(json).as_deref(), expected, "{json}");
        }
    }

    proptest! {
        #[test]
        fn writing_keeps_the_object(key in any::<String>(), value in any::<String>(), pretty in any::<bool>()) {
            let account = serde_json::json!({ key: value, "private_key": "k" });
            let json = if pretty { serde_json::to_string_pretty(&account) } else { serde_json::to_string(&account) }.unwrap();
            let out = written(&json).unwrap();
            prop_assert!(out.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), account);
        }

        #[test]
        fn the_private_key_is_decoded(key in any::<String>()) {
            let mut json = String::new();
            render::quoted(&key, &mut |part| json.push_str(part));
            for json in [json, serde_json::to_string(&key).unwrap()] {
                let found = private_key(&format!("{{\"type\":\"x\",\"private_key\":{json}}}"));
                prop_assert_eq!(found.as_ref().map(|found| found.expose()), Some(key.as_str()).filter(|key| !key.is_empty()));
            }
        }
    }
}
