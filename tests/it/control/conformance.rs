//! Every field and rule of the documents that Sidekey was made from has a test that proves it, or a reason.

use std::{collections::HashSet, fs, path::Path};

use http::Method;
use serde_json::{Value, json};

use super::stage::{Stage, refusal};

/// A line for each; the head of the file says how.
const PROMISES: &str = include_str!("../../conformance/sources.tsv");
/// What stands before a reason.
const NOT_SERVED: &str = "not served: ";

#[test]
fn every_promise_has_a_proof() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut seen, mut missing) = (HashSet::new(), Vec::new());
    for line in PROMISES.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<_> = line.split('\t').collect();
        let [source, promise, proof] = columns.as_slice() else { panic!("not three columns: {line}") };
        assert!(seen.insert((*source, *promise)), "twice: {line}");
        match proof.strip_prefix(NOT_SERVED) {
            Some(reason) => assert!(reason.len() > 20, "no reason: {line}"),
            None => {
                let (file, test) = proof.split_once("::").unwrap_or_else(|| panic!("no test: {line}"));
                let text = fs::read_to_string(root.join(file)).unwrap_or_default();
                let is_test = |line: &str| {
                    let name = line.trim_start().trim_start_matches("pub ").trim_start_matches("async ");
                    name.strip_prefix("fn ")
                        .and_then(|name| name.strip_prefix(test))
                        .is_some_and(|rest| rest.starts_with('('))
                };
                missing.extend((!text.lines().any(is_test)).then(|| line.to_owned()));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
    for source in ["000", "001", "003"] {
        assert!(seen.iter().filter(|(known, _)| *known == source).count() > 20, "{source}");
    }
}

#[tokio::test]
async fn an_organisation_that_is_named_is_the_callers() {
    let stage = Stage::start().await;
    let store = stage.control.control().store();
    let own = store.organisations().await.unwrap().remove(0);
    let other = stage.another_organisation().await;
    let reference = json!({"name": "n", "manager_type": "file", "auth_config": {}, "secret_path": "a"});
    let cases = [
        ("/v1/secret-references", reference),
        ("/v1/api-keys/organisation/service", json!({"name": "n", "scopes": []})),
    ];
    for (path, body) in cases {
        // (organisation, whether it is taken)
        for (organisation, taken) in
            [(json!(own), true), (Value::Null, true), (json!(other), false), (json!("none"), false)]
        {
            let mut body = body.clone();
            body["organisation_id"] = organisation.clone();
            let reply = stage.send(Method::POST, path, body).await;
            match taken {
                true => assert_eq!(reply.status, 200, "{path} {organisation}: {}", reply.text()),
                false => {
                    let (status, _, message) = refusal(&reply);
                    assert_eq!(status, 400, "{path} {organisation}");
                    assert_eq!(message, "organisation_id: is not the organisation of the key that asks");
                }
            }
        }
    }
}

#[tokio::test]
async fn sharing_with_all_forgets_the_workspaces() {
    let stage = Stage::start().await;
    let team = stage.done(Method::POST, "/v1/admin/workspaces", json!({"name": "Team", "slug": "ws-team"})).await;
    let reference = json!({"name": "n", "slug": "ref", "manager_type": "file", "auth_config": {}, "secret_path": "a"});
    stage.done(Method::POST, "/v1/secret-references", reference).await;
    // (what is sent, open to all, workspaces)
    let steps = [
        (json!({"allowed_workspaces": ["ws-team"]}), false, json!([team["id"]])),
        (json!({"allow_all_workspaces": true}), true, json!([])),
        (json!({"allow_all_workspaces": false}), false, json!([])),
        (json!({"allowed_workspaces": [team["id"]], "allow_all_workspaces": false}), false, json!([team["id"]])),
    ];
    for (sent, all, workspaces) in steps {
        stage.done(Method::PUT, "/v1/secret-references/ref", sent.clone()).await;
        let read = stage.done(Method::GET, "/v1/secret-references/ref", Value::Null).await;
        assert_eq!(read["allow_all_workspaces"], all, "{sent}");
        let (_, _, body) = stage.stored(sidekey::control::store::Kind::SecretReference, "ref").await;
        assert_eq!(body["allowed_workspaces"], workspaces, "{sent}");
    }
}
