//! `scopes`: words like `completions.write`, which a data plane and this API look up. Tokens may write them with a prefix.
//!
//! A word that nobody knows allows nothing, so that scopes of a later Portkey may be given today; what cannot be one is a
//! slip and refused. Source: the public list of Portkey's API-key documentation.

/// Scopes of one key; the public list is shorter.
pub(super) const MAX: usize = 256;
/// Longest scope, in bytes.
const MAX_BYTES: usize = 128;
/// What tokens put before a scope.
const PREFIX: &str = "portkey.";

/// Whether `text` is a resource and a verb: `virtual_keys.create`.
pub(super) fn is_scope(text: &str) -> bool {
    let plain = text.strip_prefix(PREFIX).unwrap_or(text);
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    text.len() <= MAX_BYTES && plain.split_once('.').is_some_and(|(resource, verb)| is_word(resource) && is_word(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_resource_and_a_verb() {
        let long = format!("a.{}", "b".repeat(127));
        let cases = [
            ("completions.write", true),
            ("portkey.completions.write", true),
            ("workspace_service_api_keys.rotate", true),
            ("completions", false),
            ("completions.", false),
            (".write", false),
            ("Completions.write", false),
            ("completions.*", false),
            ("completions.write ", false),
            ("a.b.c", false),
            ("portkey.write", false),
            ("", false),
            (&long, false),
        ];
        for (text, expected) in cases {
            assert_eq!(is_scope(text), expected, "{text}");
        }
    }
}
