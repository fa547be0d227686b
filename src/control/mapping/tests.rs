//! A data plane reads a target as the control plane does: what one takes, the other takes, for the same field.

use proptest::{prelude::*, sample::select};
use serde_json::json;

use super::{prefixed, target};
use crate::{
    control::{
        provider_fields::Subject,
        store::{Kind, Object},
    },
    model::{EntityKind, FIELDS, LinkRules, link},
};

/// Every way to write a field, and what is none.
fn names() -> impl Strategy<Value = String> {
    let spellings = FIELDS.iter().flat_map(|spec| [Some(spec.name), spec.configurations, spec.model_config]).flatten();
    let spellings: Vec<&str> = spellings.chain(["key", "api_key", "deployments", ""]).collect();
    let prefixes = select(vec!["", "configurations.", "model_config.", "configurations.configurations.", "."]);
    let known = (prefixes, select(spellings)).prop_map(|(prefix, name)| format!("{prefix}{name}"));
    prop_oneof![9 => known, 1 => "[a-z_.]{0,24}"]
}

fn providers() -> impl Strategy<Value = &'static str> {
    let providers: Vec<&str> = FIELDS.iter().flat_map(|spec| spec.providers).copied().chain(["groq"]).collect();
    select(providers)
}

proptest! {
    #[test]
    fn both_planes_agree(name in names(), provider in providers(), of_integration: bool) {
        let kind = if of_integration { EntityKind::Integration } else { EntityKind::VirtualKey };
        let object = Object::new(Kind::Integration, "id".to_owned(), "slug".to_owned(), String::new());
        let subject = Subject { kind, provider, object: &object, inherits: false };
        let written = prefixed(&name, &subject);
        let ours = target(&written, &subject).map(|spec| spec.name).ok();

        let entity = json!([{"id": "e", "slug": "e", "ai_provider_id": provider, "provider": provider,
            "secret_mappings": [{"target_field": written, "secret_reference_id": "r"}]}]);
        let reference = json!([{"id": "r", "slug": "r", "manager_type": "file", "auth_config": {}, "secret_path": "x"}]);
        let list = if of_integration { "integrations" } else { "virtual_keys" };
        let snapshot = json!({"schema_version": 1, "secret_references": reference, list: entity}).to_string();
        // Half a set of credentials is a fault of the whole, not of the target.
        let theirs = match link(snapshot.as_bytes(), &LinkRules::STRICT) {
            Ok(_) => true,
            Err(error) => !error.problems.iter().any(|problem| problem.at.contains("target_field")),
        };
        prop_assert_eq!(ours.is_some(), theirs, "{} of {}", written, provider);
    }
}
