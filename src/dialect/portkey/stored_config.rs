//! What may be kept as a stored config: what a request could bring as well, without a credential.
//!
//! A control plane keeps no credential that it could read, and inside of a config nobody seals one: a credential belongs in an
//! entity, which the config names.

use super::config_tree::{
    Tree,
    key::{camel, is_field, shown},
    node::Node,
};
use crate::model::{FIELDS, FieldSpec};

/// Under which name guardrails keep theirs, beside the fields of entities.
const CREDENTIALS: &str = "credentials";

/// Whether `text` may be kept as a config.
///
/// # Errors
/// What to mend. Names keys and no values.
pub fn check(text: &str) -> Result<(), String> {
    let Some(node) = Node::parse(text) else { return Err("is no JSON, or nested too deeply".to_owned()) };
    Tree::read(&node).map_err(|error| error.to_string())?;
    match credential(&node) {
        Some(key) => Err(format!(
            "holds a credential (`{}`); keep it in a virtual key or an integration, and name that here",
            shown(key)
        )),
        None => Ok(()),
    }
}

/// A key, at any depth, under which a credential stands.
fn credential<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    match node {
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => None,
        Node::List(items) => items.iter().find_map(credential),
        Node::Map(members) => members.iter().find_map(|(key, value)| match value {
            Node::Text(text) if text.is_empty() => None,
            Node::Null => None,
            _ if is_credential(key) => Some(&**key),
            _ => credential(value),
        }),
    }
}

fn is_credential(key: &str) -> bool {
    let camel = camel(key);
    let sensitive = FIELDS.iter().chain([FieldSpec::key()]).filter(|spec| spec.sensitive);
    camel == CREDENTIALS || sensitive.map(|spec| spec.name).any(|name| is_field(&camel, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_kept_if_a_request_could_bring_it_without_credentials() {
        // (config, part of the refusal)
        let cases = [
            (r#"{"retry":{"attempts":3}}"#, None),
            (r#"{"virtual_key":"openai-prod"}"#, None),
            (r#"{"provider":"@openai-prod","override_params":{"model":"gpt-4o","max_tokens":5}}"#, None),
            (r#"{"strategy":{"mode":"fallback"},"targets":[{"provider":"@a"},{"virtual_key":"b"}]}"#, None),
            (r#"{"provider":"openai","api_key":""}"#, None),
            (r#"{"provider":"openai","api_key":null}"#, None),
            ("nonsense", Some("is no JSON")),
            ("[]", Some("objects")),
            (r#"{"targets":[]}"#, Some("targets")),
            (r#"{"targets":[{}]}"#, Some("strategy.mode")),
            (r#"{"provider":7}"#, Some("`provider` is text")),
            (r#"{"custom_host":"a","customHost":"b"}"#, Some("spelled twice")),
            (r#"{"retry":{"attempts":1000}}"#, Some("retry.attempts")),
            (r#"{"provider":"openai","api_key":"sk-canary"}"#, Some("`api_key`")),
            (r#"{"provider":"openai","apiKey":"sk-canary"}"#, Some("`apiKey`")),
            (r#"{"strategy":{"mode":"single"},"targets":[{"aws_secret_access_key":"canary"}]}"#, Some("aws_secret")),
            (r#"{"vertex_service_account_json":{"private_key":"canary"}}"#, Some("vertex_service_account_json")),
            (r#"{"override_params":{"api_key":"canary"}}"#, Some("`api_key`")),
            (
                r#"{"before_request_hooks":[{"checks":[{"id":"x","parameters":{"credentials":{"apiKey":"canary"}}}]}]}"#,
                Some("`credentials`"),
            ),
        ];
        for (config, refusal) in cases {
            match (check(config), refusal) {
                (Ok(()), None) => {}
                (Err(reason), Some(part)) => {
                    assert!(reason.contains(part) && !reason.contains("canary"), "{config}: {reason}");
                }
                (result, _) => panic!("{config}: {result:?}"),
            }
        }
    }
}
