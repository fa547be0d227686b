//! Values written into an entity itself: plain ones, credentials, and structures as compact ASCII JSON.

use std::sync::Arc;

use serde_json::{Value, value::RawValue};

use crate::{
    model::{
        FieldSpec, FieldValue, Stored,
        raw::{Members, RawSecret},
        seals::Seals,
    },
    seal::opener::Form,
    secret::{Credential, SecretValue, json::Literal},
};

const HEADER_SAFE: &str = "must be ASCII without line breaks and control characters: it travels in a header";

/// The value of `spec` as written in `field`, the path inside of its object. `Ok(None)`: null or empty, which counts as
/// absent.
///
/// # Errors
/// What the value must be; quotes nothing of it.
pub(super) fn value(
    spec: &FieldSpec,
    raw: &RawValue,
    field: &str,
    seals: &Seals<'_>,
) -> Result<Option<FieldValue>, &'static str> {
    if matches!(raw.get(), "null" | "\"\"" | "{}" | "[]") {
        return Ok(None);
    }
    match (spec.sensitive, spec.structured) {
        (false, _) => plain(raw).map(Some),
        (true, false) => {
            let stored = stored(raw, field, seals, credential)?.ok_or("must be text")?;
            Ok(Some(FieldValue::Stored(stored)))
        }
        (true, true) => {
            let stored = stored(raw, field, seals, structure)?.map_or_else(|| object(raw).map(Stored::clear), Ok)?;
            Ok(Some(FieldValue::Stored(stored)))
        }
    }
}

/// A credential, of which `form` makes what the field receives. `Ok(None)`: it is neither text nor sealed.
fn stored(raw: &RawValue, field: &str, seals: &Seals<'_>, form: Form) -> Result<Option<Stored>, &'static str> {
    Ok(match RawSecret::read(raw) {
        Some(RawSecret::Clear(text)) => Some(Stored::clear(form(text)?)),
        Some(RawSecret::Sealed(sealed)) => Some(Stored::sealed(seals.find(field, sealed)?, form)),
        None => None,
    })
}

fn credential(text: SecretValue) -> Result<Credential, &'static str> {
    if text.expose_str().is_none_or(str::is_empty) {
        return Err("must be text");
    }
    Ok(Credential::text(trimmed(text)))
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

const STRUCTURE: &str = "must be an object whose values are text";

/// Text that holds an object whose members are all text.
fn structure(text: SecretValue) -> Result<Credential, &'static str> {
    match text.expose_str().map(serde_json::from_str::<&RawValue>) {
        Some(Ok(inner)) if inner.get().starts_with('{') => object(inner),
        _ => Err(STRUCTURE),
    }
}

/// An object whose members are all text.
fn object(raw: &RawValue) -> Result<Credential, &'static str> {
    let members: Members<'_> = serde_json::from_str(raw.get()).map_err(|_| STRUCTURE)?;
    match members.iter().all(|(_, value)| value.get().starts_with('"')) {
        true => Ok(Credential::structured(SecretValue::new(Literal::from(raw).compact_ascii()))),
        false => Err(STRUCTURE),
    }
}
