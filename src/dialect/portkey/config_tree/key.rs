//! Config keys under their many spellings.
//!
//! The gateway camel-cases every key of a config (`custom_Host`, `custom_host` and `customHost` are one field, and the last
//! one wins), so keys are compared in that form only. Source: gateway 1.15.2 `src/utils.ts` `convertKeysToCamelCase`.

use std::borrow::Cow;

/// Keys below which the gateway keeps the spelling of children.
const PRESERVED: [&str; 12] = [
    "override_params",
    "params",
    "checks",
    "vertex_service_account_json",
    "vertexServiceAccountJson",
    "conditions",
    "input_guardrails",
    "output_guardrails",
    "default_input_guardrails",
    "default_output_guardrails",
    "integrationModelDetails",
    "cb_config",
];

/// The form in which the gateway reads `key`: each `_` is dropped and the word character behind it is upper-cased.
pub(in crate::dialect::portkey) fn camel(key: &str) -> Cow<'_, str> {
    if !key.contains('_') {
        return Cow::Borrowed(key);
    }
    let mut camel = String::with_capacity(key.len());
    let mut rest = key;
    while let Some((before, after)) = rest.split_once('_') {
        camel.push_str(before);
        rest = match after.as_bytes() {
            [next, ..] if is_word(*next) => {
                camel.push(char::from(next.to_ascii_uppercase()));
                after.get(1..).unwrap_or_default()
            }
            _ => {
                camel.push('_');
                after
            }
        };
    }
    camel.push_str(rest);
    Cow::Owned(camel)
}

/// Whether `camel` (already in the gateway's form) is the field `snake`. Asked for every key and every known field, so it
/// does not build anything.
pub(in crate::dialect::portkey) fn is_field(camel: &str, snake: &str) -> bool {
    let (mut read, mut written) = (camel.as_bytes(), snake.as_bytes());
    while let [byte, rest @ ..] = written {
        let (expected, rest) = match rest {
            [next, rest @ ..] if *byte == b'_' && is_word(*next) => (next.to_ascii_uppercase(), rest),
            _ => (*byte, rest),
        };
        match read {
            [byte, rest @ ..] if *byte == expected => read = rest,
            _ => return false,
        }
        written = rest;
    }
    read.is_empty()
}

/// A key as an error may show it: a client wrote it.
pub(in crate::dialect::portkey) fn shown(key: &str) -> String {
    key.chars().filter(char::is_ascii_graphic).take(64).collect()
}

/// Whether the gateway leaves the keys below `key` as they are.
pub(super) fn preserves_children(key: &str) -> bool {
    PRESERVED.contains(&key)
}

/// A word character of the gateway's pattern.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::FIELDS;

    #[test]
    fn spells_as_the_gateway_does() {
        for (key, expected) in [
            ("custom_host", "customHost"),
            ("custom_Host", "customHost"),
            ("customHost", "customHost"),
            ("custom__host", "custom_host"),
            ("_custom_host", "CustomHost"),
            ("custom_host_", "customHost_"),
            ("aws_s3_bucket", "awsS3Bucket"),
            ("a_1", "a1"),
            ("____proto____", "__proto__"),
            ("a_é", "a_é"),
            ("", ""),
        ] {
            assert_eq!(camel(key), expected, "{key}");
        }
    }

    #[test]
    fn every_field_is_recognised_by_its_camel_form() {
        for spec in FIELDS {
            assert!(is_field(&camel(spec.name), spec.name), "{}", spec.name);
            assert!(!is_field(&camel(spec.name), "weight"));
        }
    }

    proptest! {
        #[test]
        fn recognising_is_comparing_camel_forms(key in "[a-zA-Z_0-9\u{e9}]{0,4}", field in "[a-zA-Z_0-9\u{e9}]{0,4}") {
            prop_assert_eq!(is_field(&camel(&key), &field), camel(&key) == camel(&field));
        }
    }
}
