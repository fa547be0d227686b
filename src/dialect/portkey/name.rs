//! How a request without an authoritative config names its entity.
//!
//! First of: `x-portkey-provider: @slug`, `x-portkey-virtual-key`, the body's `model`, the query's `model`. The names that
//! lost are removed all the same: the gateway would pass them to the provider.

use bytes::Bytes;

use super::{BodyEdit, ModelField, config_tree::render, query::Query};

/// A `model` that names an entity: `@slug`, `@slug/rest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamedModel<'m> {
    /// The entity.
    pub(super) slug: &'m str,
    /// What remains for the provider; `None`: nothing, the field goes.
    pub(super) rest: Option<&'m str>,
}

/// Reads `model` as the name of an entity. `@cf/…` and `@hf/…` are models of Workers AI.
pub(super) fn in_model(model: &str) -> Option<NamedModel<'_>> {
    let name = model.strip_prefix('@')?;
    let (slug, rest) = match name.split_once('/') {
        Some(("cf" | "hf", _)) => return None,
        Some((slug, rest)) => (slug, Some(rest).filter(|rest| !rest.is_empty())),
        None => (name, None),
    };
    Some(NamedModel { slug, rest })
}

/// What is left of `model` for the provider.
pub(super) fn model_for_provider(model: &str) -> Option<&str> {
    match in_model(model) {
        Some(named) => named.rest,
        None => Some(model),
    }
}

/// Reads the value of `x-portkey-provider`; a plain provider names no entity.
pub(super) fn in_provider(provider: &str) -> Option<&str> {
    let name = provider.strip_prefix('@')?;
    Some(name.split('/').next().unwrap_or(name))
}

/// Reads a virtual key's slug; some clients write it as `@slug`.
pub(super) fn in_virtual_key(virtual_key: &str) -> Option<&str> {
    Some(virtual_key.strip_prefix('@').unwrap_or(virtual_key)).filter(|slug| !slug.is_empty())
}

/// The entity a request names outside of its config.
pub(super) fn of_request<'r>(
    provider: Option<&'r str>,
    virtual_key: Option<&'r str>,
    model: Option<&'r str>,
    query: &'r Query,
) -> Option<&'r str> {
    provider
        .and_then(in_provider)
        .or_else(|| virtual_key.and_then(in_virtual_key))
        .or_else(|| model.and_then(in_model).map(|named| named.slug))
        .or_else(|| query.named_model().map(|named| named.slug))
}

/// Removes a name from the body's model; `None`: it holds none.
pub(super) fn strip_body(field: &ModelField) -> Option<BodyEdit> {
    let named = in_model(&field.value)?;
    Some(match named.rest {
        None => BodyEdit { range: field.member_span.clone(), replacement: Bytes::new() },
        Some(rest) if field.json => {
            let mut json = String::with_capacity(rest.len() + 2);
            render::quoted(rest, &mut |text| json.push_str(text));
            BodyEdit { range: field.value_span.clone(), replacement: json.into() }
        }
        Some(rest) => {
            BodyEdit { range: field.value_span.clone(), replacement: Bytes::copy_from_slice(rest.as_bytes()) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_name_an_entity() {
        for (model, expected) in [
            ("gpt-4o", None),
            ("@openai-prod/gpt-4o", Some(("openai-prod", Some("gpt-4o")))),
            ("@openai-prod", Some(("openai-prod", None))),
            ("@openai-prod/", Some(("openai-prod", None))),
            ("@hub/meta/llama-3", Some(("hub", Some("meta/llama-3")))),
            ("@cf/meta/llama-3", None),
            ("@hf/thebloke/x", None),
            ("@workers/@cf/meta/llama-3", Some(("workers", Some("@cf/meta/llama-3")))),
            ("@cf", Some(("cf", None))),
            ("@", Some(("", None))),
            (" @openai-prod/x", None),
        ] {
            let named = in_model(model).map(|named| (named.slug, named.rest));
            assert_eq!(named, expected, "{model}");
        }
    }

    #[test]
    fn the_provider_header_is_cut_at_the_slash() {
        for (value, expected) in
            [("openai", None), ("@a", Some("a")), ("@a/gpt-4o", Some("a")), ("@a/b/c", Some("a")), ("@", Some(""))]
        {
            assert_eq!(in_provider(value), expected, "{value}");
        }
    }

    #[test]
    fn the_first_place_wins() {
        let query = Query::read(Some("model=@q/m"));
        let none = Query::read(None);
        for (provider, virtual_key, model, query, expected) in [
            (Some("@p"), Some("v"), Some("@b/m"), &query, Some("p")),
            (Some("openai"), Some("v"), Some("@b/m"), &query, Some("v")),
            (Some("openai"), Some("@v"), None, &none, Some("v")),
            (None, None, Some("@b/m"), &query, Some("b")),
            (None, None, Some("gpt-4o"), &query, Some("q")),
            (Some("openai"), None, Some("gpt-4o"), &none, None),
        ] {
            assert_eq!(of_request(provider, virtual_key, model, query), expected);
        }
    }

    #[test]
    fn names_leave_the_body() {
        let field = |value: &str, json: bool| ModelField {
            value: value.to_owned(),
            value_span: 9..20,
            member_span: 1..21,
            json,
        };
        for (value, json, expected) in [
            ("gpt-4o", true, None),
            ("@a/gpt-4o", true, Some((9..20, "\"gpt-4o\""))),
            ("@a/g\"\u{e9}", true, Some((9..20, "\"g\\\"\\u00e9\""))),
            ("@a/whisper-1", false, Some((9..20, "whisper-1"))),
            ("@a", true, Some((1..21, ""))),
            ("@a", false, Some((1..21, ""))),
            ("@cf/x", true, None),
        ] {
            let edit = strip_body(&field(value, json));
            let expected =
                expected.map(|(range, text)| BodyEdit { range, replacement: Bytes::from_static(text.as_bytes()) });
            assert_eq!(edit, expected, "{value}");
        }
    }
}
