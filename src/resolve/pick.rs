//! From a document to the one value a field receives.
//!
//! Rules (`secret_key`, `value_format`): the literal key, then the dotted path, for every manager. Without a key the whole
//! text, and of a map by nature only the JSON. Numbers, booleans and structures become JSON text; null, empty, absent or
//! not JSON is malformed. Of two members with one name the last counts, as in `JSON.parse`. JSON is always given out
//! compact and in ASCII, so that a header can carry it.
//!
//! The document is parsed in place: what is picked goes straight into one zeroizing buffer, and nothing else is copied.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::{
    model::{FieldSpec, Mapping, Reference, ValueFormat},
    secret::{
        Credential, SecretValue,
        json::{Kind, Literal},
    },
};

/// What to pick, and in which form. Together with a document it determines the value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// `secret_key`; `None` = the whole document.
    pub key: Option<Arc<str>>,
    /// The form.
    pub form: Form,
}

/// The form a value is wanted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `value_format: string`.
    Text,
    /// `value_format: json` for a field that takes a structure: a string that holds JSON is parsed.
    Structure,
    /// `value_format: json` for a field that takes a string: a structure is refused.
    JsonString,
}

/// Why a value cannot be picked. Every reason is [`crate::manager::FailureClass::Malformed`]; none shows the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// Bytes, or an escaped half of a surrogate pair.
    #[error("the secret is not valid text")]
    NotText,
    /// JSON is needed here.
    #[error("the secret is not JSON")]
    NotJson,
    /// A key is wanted of something without keys.
    #[error("the secret is not a JSON object, so it has no keys")]
    NotObject,
    /// Neither the literal key nor the dotted path exists.
    #[error("the secret has no such key")]
    Absent,
    /// It is there and null.
    #[error("the value is null")]
    Null,
    /// It is there and empty.
    #[error("the value is empty")]
    Empty,
    /// A map by nature, and neither `secret_key` nor `value_format: json`.
    #[error("the secret is a map: it needs a secret_key or value_format json")]
    KeyNeeded,
    /// The field takes a string.
    #[error("the value is a structure and the field takes a string")]
    NotString,
}

// === impl Wanted ===

impl Wanted {
    /// What `mapping` wants.
    pub fn by_mapping(mapping: &Mapping) -> Self {
        let form = match mapping.format {
            ValueFormat::String => Form::Text,
            // `target_field: key` takes a string and nothing else.
            ValueFormat::Json if mapping.target.spec.name == FieldSpec::key().name => Form::JsonString,
            ValueFormat::Json => Form::Structure,
        };
        Self { key: mapping.secret_key.clone(), form }
    }

    /// What a read without a mapping shows of a document of `reference`: its key, else all of it.
    pub fn by_reference(reference: &Reference, map: bool) -> Self {
        let form = if map && reference.secret_key.is_none() { Form::Structure } else { Form::Text };
        Self { key: reference.secret_key.clone(), form }
    }
}

/// Picks what is `wanted` of a document; `map` says that it is a map by nature.
///
/// # Errors
/// [`PickError`].
pub fn pick(document: &SecretValue, map: bool, wanted: &Wanted) -> Result<Credential, PickError> {
    let text = document.expose_str().ok_or(PickError::NotText)?;
    match (&wanted.key, wanted.form) {
        (Some(key), Form::Text) => as_text(member(text, key)?),
        (Some(key), form) => as_json(member(text, key)?, form),
        (None, Form::Text) if map => Err(PickError::KeyNeeded),
        (None, Form::Text) => whole(text),
        (None, form) => as_json(Literal::parse(text).ok_or(PickError::NotJson)?, form),
    }
}

/// The member `key`: literally, else by the dotted path.
fn member<'a>(text: &'a str, key: &str) -> Result<Literal<'a>, PickError> {
    let document = Literal::parse(text).ok_or(PickError::NotJson)?;
    if document.kind() != Kind::Object {
        return Err(PickError::NotObject);
    }
    if let Some(member) = document.member(key) {
        return Ok(member);
    }
    key.split('.').try_fold(document, Literal::member).ok_or(PickError::Absent)
}

fn whole(text: &str) -> Result<Credential, PickError> {
    let text = without_newline(text);
    if text.is_empty() {
        return Err(PickError::Empty);
    }
    Ok(Credential::text(SecretValue::new(text.as_bytes().to_vec())))
}

/// `value_format: string`.
fn as_text(literal: Literal<'_>) -> Result<Credential, PickError> {
    match literal.kind() {
        Kind::Null => Err(PickError::Null),
        Kind::String => string(literal),
        Kind::Object | Kind::Array | Kind::Scalar => Ok(Credential::text(compact(literal)?)),
    }
}

/// `value_format: json`: passes a structure through and parses a string that holds one.
fn as_json(literal: Literal<'_>, form: Form) -> Result<Credential, PickError> {
    if literal.kind() != Kind::String {
        return structure(literal, form);
    }
    let decoded = decoded(literal)?;
    let text = std::str::from_utf8(&decoded).map_err(|_| PickError::NotText)?;
    match Literal::parse(text) {
        Some(inner) if inner.kind().is_structure() => structure(inner, form),
        _ if form == Form::JsonString => string(literal),
        Some(inner) if inner.kind() == Kind::String => string(inner),
        Some(inner) => structure(inner, form),
        None if text.trim().is_empty() => Err(PickError::Empty),
        None => Err(PickError::NotJson),
    }
}

fn structure(literal: Literal<'_>, form: Form) -> Result<Credential, PickError> {
    match (literal.kind(), form) {
        (Kind::Null, _) => Err(PickError::Null),
        (_, Form::JsonString) => Err(PickError::NotString),
        (_, Form::Structure | Form::Text) => Ok(Credential::structured(compact(literal)?)),
    }
}

fn string(literal: Literal<'_>) -> Result<Credential, PickError> {
    let mut decoded = decoded(literal)?;
    let kept = std::str::from_utf8(&decoded).map(|text| without_newline(text).len()).map_err(|_| PickError::NotText)?;
    if kept == 0 {
        return Err(PickError::Empty);
    }
    decoded.truncate(kept);
    Ok(Credential::text(SecretValue::new(std::mem::take(&mut *decoded))))
}

fn decoded(literal: Literal<'_>) -> Result<Zeroizing<Vec<u8>>, PickError> {
    literal.decode().ok_or(PickError::NotText)
}

fn compact(literal: Literal<'_>) -> Result<SecretValue, PickError> {
    let json = literal.compact_ascii();
    // An empty structure is a secret somebody has yet to fill in.
    if matches!(json.as_slice(), b"{}" | b"[]") {
        return Err(PickError::Empty);
    }
    Ok(SecretValue::new(json))
}

/// `text` without one trailing newline, as editors and `echo` leave it.
fn without_newline(text: &str) -> &str {
    match text.strip_suffix('\n') {
        Some(line) => line.strip_suffix('\r').unwrap_or(line),
        None => text,
    }
}

#[cfg(test)]
mod tests;
