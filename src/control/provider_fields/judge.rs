//! Asks the code of the data plane what it would make of an object, so that nothing is stored that it would set aside.
//!
//! The object goes through [`link`] in a snapshot that has nothing but what it needs; a text stands in the place of each seal.

use serde::Serialize;
use serde_json::{Value, json};

use super::Subject;
use crate::{
    control::fields::Fields,
    model::{EntityKind, FieldSpec, LinkRules, link},
};

/// Puts into `fields` what a data plane would say about `row`, and about the integration `parent` with it.
pub(crate) fn judge<R: Serialize>(
    fields: &mut Fields<'_>,
    subject: &Subject<'_>,
    row: &R,
    parent: Option<(&str, Value)>,
) {
    if !fields.is_clean() {
        return;
    }
    let mut own = serde_json::to_value(row).unwrap_or_default();
    unseal(&mut own, subject.kind.prefix(), subject.provider);
    let mut rows = vec![&own];
    let parent = parent.map(|(provider, mut row)| {
        unseal(&mut row, EntityKind::Integration.prefix(), provider);
        row
    });
    rows.extend(&parent);
    let mut references: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["secret_mappings"].as_array())
        .flatten()
        .filter_map(|mapping| mapping["secret_reference_id"].as_str())
        .collect();
    references.sort_unstable();
    references.dedup();
    let references: Vec<Value> = references
        .into_iter()
        .map(|id| json!({"id": id, "slug": id, "manager_type": "file", "auth_config": {}, "secret_path": "x"}))
        .collect();
    let workspaces: Vec<Value> = match subject.object.workspace_id.as_str() {
        "" => Vec::new(),
        id => vec![json!({ "id": id, "slug": id })],
    };
    let (integrations, virtual_keys) = match subject.kind {
        EntityKind::Integration => (vec![own], Vec::new()),
        EntityKind::VirtualKey => (parent.into_iter().collect(), vec![own]),
    };
    let list = match subject.kind {
        EntityKind::Integration => "integrations[0].",
        EntityKind::VirtualKey => "virtual_keys[0].",
    };
    let snapshot = json!({
        "schema_version": 1, "workspaces": workspaces, "secret_references": references,
        "integrations": integrations, "virtual_keys": virtual_keys,
    });
    let Err(error) = link(snapshot.to_string().as_bytes(), &LinkRules::STRICT) else { return };
    for problem in error.problems {
        let Some(at) = problem.at.strip_prefix(list) else { continue };
        // What follows is the slug of the object.
        let at = at.split_once(" (").map_or(at, |(at, _)| at);
        fields.fault(at, problem.message);
    }
}

/// Puts something of the right shape in the place of each seal, and leaves out workspaces that the snapshot has not.
fn unseal(row: &mut Value, prefix: &str, provider: &str) {
    if let Some(workspaces) = row.get_mut("allowed_workspaces") {
        *workspaces = json!([]);
    }
    let stands_in = |value: &mut Value, structured: bool| {
        if value.get("$sealed").is_some() {
            *value = if structured { json!({"sealed": "sealed"}) } else { json!("sealed") };
        }
    };
    stands_in(&mut row["key"], false);
    if let Some(members) = row[prefix].as_object_mut() {
        for (name, value) in members {
            stands_in(value, FieldSpec::stored(provider, name).is_some_and(|spec| spec.structured));
        }
    }
}
