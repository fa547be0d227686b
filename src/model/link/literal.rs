//! Values written into an entity itself: plain ones, credentials, and structures as compact ASCII JSON.

use std::sync::Arc;

use serde_json::{Value, value::RawValue};

use crate::{
    model::{
        FieldSpec, FieldValue,
        raw::{Members, RawSecret},
    },
    secret::{Credential, SecretValue},
};

const HEADER_SAFE: &str = "must be ASCII without line breaks and control characters: it travels in a header";

/// The value of `spec` as written. `Ok(None)`: null or empty, which counts as absent.
///
/// # Errors
/// What the value must be; quotes nothing of it.
pub(super) fn value(spec: &FieldSpec, raw: &RawValue) -> Result<Option<FieldValue>, &'static str> {
    if matches!(raw.get(), "null" | "\"\"" | "{}" | "[]") {
        return Ok(None);
    }
    match (spec.sensitive, spec.structured) {
        (false, _) => plain(raw).map(Some),
        (true, false) => match serde_json::from_str(raw.get()) {
            Ok(secret) => credential(secret).map(Some),
            Err(_) => Err("must be text"),
        },
        (true, true) => structure(raw).map(Some),
    }
}

/// A credential as written.
///
/// # Errors
/// As for [`value`].
pub(super) fn credential(secret: RawSecret) -> Result<FieldValue, &'static str> {
    match secret {
        RawSecret::Clear(text) => Ok(FieldValue::Stored(Arc::new(Credential::text(trimmed(text))))),
        RawSecret::Sealed => Err(RawSecret::SEALED),
    }
}

/// One trailing newline is an editor's, not the credential's.
fn trimmed(text: SecretValue) -> SecretValue {
    match text.expose() {
        [head @ .., b'\r', b'\n'] | [head @ .., b'\n'] => SecretValue::new(head.to_vec()),
        _ => text,
    }
}

/// A text that is no credential and travels in a header. `Ok(None)`: null or empty.
///
/// # Errors
/// As for [`value`].
pub(super) fn text(raw: &RawValue) -> Result<Option<Arc<str>>, &'static str> {
    match serde_json::from_str::<Option<String>>(raw.get()) {
        Ok(text) => match text.filter(|text| !text.is_empty()) {
            Some(text) if !is_header_safe(&text) => Err(HEADER_SAFE),
            text => Ok(text.map(Arc::from)),
        },
        Err(_) => Err("must be text"),
    }
}

fn is_header_safe(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

fn plain(raw: &RawValue) -> Result<FieldValue, &'static str> {
    let value: Value = serde_json::from_str(raw.get()).map_err(|_| "must be text, a number or true or false")?;
    match &value {
        Value::String(text) if !is_header_safe(text) => Err(HEADER_SAFE),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(FieldValue::Plain(Arc::new(value))),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("must be text, a number or true or false"),
    }
}

/// An object whose members are all text, or text that holds such an object.
fn structure(raw: &RawValue) -> Result<FieldValue, &'static str> {
    const EXPECTED: &str = "must be an object whose values are text";
    if let Ok(secret) = serde_json::from_str::<RawSecret>(raw.get()) {
        return match secret {
            RawSecret::Sealed => Err(RawSecret::SEALED),
            RawSecret::Clear(text) => match text.expose_str().map(serde_json::from_str::<&RawValue>) {
                Some(Ok(inner)) if inner.get().starts_with('{') => structure(inner),
                _ => Err(EXPECTED),
            },
        };
    }
    let members: Members<'_> = serde_json::from_str(raw.get()).map_err(|_| EXPECTED)?;
    match members.iter().all(|(_, value)| value.get().starts_with('"')) {
        true => Ok(FieldValue::Stored(Arc::new(Credential::structured(compact_ascii(raw.get()))))),
        false => Err(EXPECTED),
    }
}

/// `json` without white space between its parts, and with everything outside ASCII escaped. `json` must be valid.
///
/// Works on the text itself, because a parsed value would leave copies of a credential behind.
fn compact_ascii(json: &str) -> SecretValue {
    let mut in_string = false;
    let mut escaped = false;
    let mut each = |keep: &mut dyn FnMut(char)| {
        for char in json.chars() {
            match (in_string, char) {
                (false, char) if char.is_ascii_whitespace() => continue,
                (false, '"') => in_string = true,
                (true, '"') if !escaped => in_string = false,
                _ => {}
            }
            escaped = in_string && char == '\\' && !escaped;
            keep(char);
        }
    };
    let mut length = 0;
    each(&mut |char| length += if char.is_ascii() { 1 } else { 6 * char.len_utf16() });
    let mut bytes = Vec::with_capacity(length);
    each(&mut |char| match char.is_ascii() {
        true => bytes.push(char as u8),
        false => {
            for unit in char.encode_utf16(&mut [0; 2]) {
                bytes.extend_from_slice(b"\\u");
                bytes.extend((0..4).rev().map(|nibble| b"0123456789abcdef"[usize::from(*unit >> (4 * nibble) & 0xf)]));
            }
        }
    });
    SecretValue::new(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn compact_ascii_says_the_same() {
        for value in [
            json!({}),
            json!({"a": "b c", "d": "e\"f\\", "g": "\\\"", "h": "line\nbreak"}),
            json!({"clé": "ü𝄞", "private_key": "-----BEGIN\n\u{0}\t"}),
        ] {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let compact = compact_ascii(&text);
                let compact = compact.expose_str().unwrap();
                assert!(compact.is_ascii() && !compact.contains('\n'), "{compact}");
                assert_eq!(serde_json::from_str::<Value>(compact).unwrap(), value, "{compact}");
            }
        }
    }
}
