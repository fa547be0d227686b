//! `GET /v1/snapshot`: who is admitted, what is told, when, and how it is signed.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};
use sidekey::{
    app::ControlPlane,
    control::{api_key::Role, key::token_sha256, store::Head},
    model::{LinkRules, link},
    seal::signature::SigningKey,
};
use tokio::time::Instant;

use super::stage::{Stage, config, refusal};
use crate::harness::{Call, Reply, within};

/// The token of the data plane that is in the configuration.
const TOKEN: &str = "dp-sidekey-of-the-configuration";
const SNAPSHOT: &str = "/v1/snapshot";

async fn stage() -> Stage {
    stage_with("").await
}

async fn stage_with(more: &str) -> Stage {
    let digest = token_sha256(TOKEN);
    let planes = format!("data_planes: [{{name: fleet, token_sha256: {digest}}}]\n");
    Stage::with(&format!("egress: {{allow_hosts: [vault.internal]}}\n{planes}{more}")).await
}

fn ask(stage: &Stage, token: &str, query: &str) -> Call {
    let call = Call::to(stage.control.address(), Method::GET, &format!("{SNAPSHOT}{query}"));
    call.header("authorization", &format!("Bearer {token}"))
}

async fn get(stage: &Stage, query: &str) -> Reply {
    let reply = ask(stage, TOKEN, query).send().await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    check_signature(stage, &reply);
    reply
}

/// What `since` and `If-None-Match` are made of.
fn state(reply: &Reply) -> String {
    reply.header("etag").unwrap().trim_matches('"').to_owned()
}

#[track_caller]
fn check_signature(stage: &Stage, reply: &Reply) {
    let pem = fs::read_to_string(stage.folder.path().join("signing-key.pem")).unwrap();
    let key = SigningKey::parse(&pem).unwrap().verifying();
    let signature = reply.header("x-sidekey-signature").unwrap().strip_prefix("ed25519=").unwrap();
    let signed = format!("sidekey-snapshot-v1\n{}\n{}", reply.header("etag").unwrap(), reply.text());
    assert!(key.verifies(signed.as_bytes(), &STANDARD.decode(signature).unwrap()), "{signed}");
}

fn reference(slug: &str) -> Value {
    json!({"name": slug, "slug": slug, "manager_type": "hashicorp_vault", "secret_path": "secret/data/app",
        "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.internal", "vault_token": "hvs.canary"}})
}

async fn post_reference(stage: &Stage, slug: &str) -> String {
    let made = stage.done(Method::POST, "/v1/secret-references", reference(slug)).await;
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_whole_is_what_a_sidecar_reads() {
    let stage = stage().await;
    stage.done(Method::POST, "/v1/admin/workspaces", json!({"name": "Team A", "slug": "ws-a"})).await;
    let id = post_reference(&stage, "key").await;
    let reply = get(&stage, "").await;
    let snapshot = reply.json();
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(state(&reply), format!("{}-{}", snapshot["epoch"].as_str().unwrap(), snapshot["version"]));
    assert_eq!(snapshot["workspaces"][0]["slug"], "ws-a");
    let row = &snapshot["secret_references"][0];
    assert_eq!((&row["id"], &row["slug"], &row["status"]), (&json!(id), &json!("key"), &json!("active")));
    let members: Vec<_> = row["auth_config"]["vault_token"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["$sealed"], "the mask is nothing to a data plane");
    assert!(!reply.text().contains("canary"));
    let linked = link(&reply.body, &LinkRules::LENIENT).unwrap();
    assert_eq!(linked.version, snapshot["version"].as_u64().unwrap());
    assert_eq!(linked.workspace_id("ws-a").map(|id| &**id), snapshot["workspaces"][0]["id"].as_str());
}

#[tokio::test]
async fn what_is_held_is_not_sent_again() {
    let stage = stage().await;
    let held = get(&stage, "").await;
    let etag = held.header("etag").unwrap();
    for query in ["", "?wait=0", "?wait=1"] {
        let reply = ask(&stage, TOKEN, query).header("if-none-match", etag).send().await;
        assert_eq!((reply.status, reply.header("etag"), reply.body.len()), (304, Some(etag), 0), "{query}");
    }
    let reply = ask(&stage, TOKEN, &format!("?since={}", state(&held))).send().await;
    assert_eq!(reply.status, 304);
    for query in ["?wait=61", "?wait=x", "?since=now"] {
        assert_eq!(refusal(&ask(&stage, TOKEN, query).send().await).0, 400, "{query}");
    }
}

#[tokio::test]
async fn a_delta_tells_what_changed_and_what_went() {
    let stage = stage().await;
    let (kept, gone) = (post_reference(&stage, "kept").await, post_reference(&stage, "gone").await);
    let held = get(&stage, "").await;
    stage.done(Method::PUT, &format!("/v1/secret-references/{kept}"), json!({"secret_path": "secret/data/new"})).await;
    stage.done(Method::DELETE, &format!("/v1/secret-references/{gone}"), Value::Null).await;
    let workspace = stage.done(Method::POST, "/v1/admin/workspaces", json!({"name": "Team A", "slug": "ws-a"})).await;

    let reply = get(&stage, &format!("?since={}", state(&held))).await;
    let delta = reply.json();
    let held = held.json();
    assert_eq!(
        (&delta["since"], &delta["epoch"], &delta["schema_version"]),
        (&held["version"], &held["epoch"], &json!(1))
    );
    assert_eq!(delta["version"].as_i64(), held["version"].as_i64().map(|version| version + 3));
    assert_eq!(delta["changed"]["secret_references"].as_array().unwrap().len(), 1);
    assert_eq!(delta["changed"]["secret_references"][0]["secret_path"], "secret/data/new");
    assert_eq!(delta["changed"]["workspaces"][0]["id"], workspace["id"]);
    assert_eq!(delta["removed"], json!({ "secret_references": [gone] }));
    let whole = get(&stage, "").await;
    assert_eq!(whole.json()["secret_references"].as_array().unwrap().len(), 1);
    assert_eq!(whole.header("etag"), reply.header("etag"));

    // Of another epoch, or of a version that is too old to know what went: everything.
    for since in ["1-1".to_owned(), "0-0".to_owned()] {
        let reply = get(&stage, &format!("?since={since}")).await;
        assert!(reply.json()["since"].is_null() && reply.json()["workspaces"].is_array(), "{since}");
    }
}

#[tokio::test]
async fn who_waits_is_woken_by_a_write() {
    let stage = stage().await;
    let since = state(&get(&stage, "").await);
    let waiting: Vec<_> =
        (0..20).map(|_| tokio::spawn(ask(&stage, TOKEN, &format!("?wait=60&since={since}")).send())).collect();
    post_reference(&stage, "key").await;
    let mut bodies = Vec::new();
    for reply in waiting {
        let reply = within(reply).await.unwrap();
        assert_eq!(reply.json()["changed"]["secret_references"][0]["slug"], "key");
        bodies.push(reply.body);
    }
    // Encoded once: generated_at and the seals are the same in all.
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn a_burst_of_writes_is_few_steps() {
    const WRITES: usize = 40;
    let stage = stage().await;
    let mut since = state(&get(&stage, "").await);
    let begun = Instant::now();
    let writes: Vec<_> = (0..WRITES)
        .map(|index| {
            let body = json!({"name": "burst", "slug": format!("ws-{index}")});
            tokio::spawn(stage.call(Method::POST, "/v1/admin/workspaces").json(&body).send())
        })
        .collect();
    let (mut told, mut steps) = (0, 0);
    while told < WRITES {
        let reply = get(&stage, &format!("?wait=60&since={since}")).await;
        told += reply.json()["changed"]["workspaces"].as_array().map_or(0, Vec::len);
        since = state(&reply);
        steps += 1;
    }
    // A step begins when the pause of 50 ms after the one before is over.
    let possible = begun.elapsed().as_millis() / 50 + 2;
    assert!(steps <= possible, "{steps} steps in {:?}", begun.elapsed());
    for write in writes {
        assert_eq!(write.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_key_changes_with_its_workspace() {
    let stage = stage().await;
    stage.done(Method::POST, "/v1/admin/workspaces", json!({"name": "Team", "slug": "ws-team"})).await;
    let body = json!({"name": "key", "workspace_id": "ws-team", "scopes": ["completions.write"]});
    let made = stage.done(Method::POST, "/v1/api-keys/workspace/service", body).await;
    let row = |list: &Value| list.as_array().unwrap().iter().find(|row| row["id"] == made["id"]).unwrap().clone();
    let held = get(&stage, "").await;
    let hash = row(&held.json()["api_keys"])["hashes"][0]["hmac_sha256"].clone();
    assert_eq!(hash.as_str().map(str::len), Some(64));
    assert!(!held.text().contains(made["key"].as_str().unwrap()));

    let defaults = json!({"defaults": {"metadata": {"team": "a"}}});
    stage.done(Method::PUT, "/v1/admin/workspaces/ws-team", defaults).await;
    let delta = get(&stage, &format!("?since={}", state(&held))).await.json();
    let told = row(&delta["changed"]["api_keys"]);
    assert_eq!((&told["defaults"]["metadata"]["team"], &told["hashes"][0]["hmac_sha256"]), (&json!("a"), &hash));
    assert_eq!(row(&get(&stage, "").await.json()["api_keys"]), told, "whole and delta say the same");
}

#[tokio::test]
async fn a_reset_of_usage_is_told_where_usage_is_counted() {
    let stage = stage().await;
    let budget = json!({"credit_limit": 10});
    stage
        .done(Method::POST, "/v1/admin/workspaces", json!({"name": "a", "slug": "ws-a", "usage_limits": budget}))
        .await;
    let alone = json!({"name": "a", "slug": "vk-a", "provider": "openai", "key": "sk", "usage_limits": budget});
    stage.done(Method::POST, "/v1/virtual-keys", alone).await;
    stage
        .done(
            Method::POST,
            "/v1/integrations",
            json!({"name": "a", "slug": "int-a", "ai_provider_id": "openai", "key": "sk"}),
        )
        .await;
    let linked = json!({"name": "a", "slug": "vk-b", "integration_id": "int-a", "usage_limits": budget});
    stage.done(Method::POST, "/v1/providers", linked).await;
    let key = json!({"name": "a", "scopes": [], "workspace_id": "ws-a", "usage_limits": budget});
    let key = stage.done(Method::POST, "/v1/api-keys/workspace/service", key).await["id"].clone();
    let key = format!("/v1/api-keys/{}", key.as_str().unwrap());
    // (what is reset, its list)
    let cases = [
        ("/v1/admin/workspaces/ws-a", "workspaces"),
        ("/v1/virtual-keys/vk-a", "virtual_keys"),
        ("/v1/providers/vk-b", "virtual_keys"),
        (key.as_str(), "api_keys"),
    ];
    for (target, list) in cases {
        for (reset, is_told) in [(json!(false), false), (json!(true), true)] {
            let held = get(&stage, "").await;
            stage.done(Method::PUT, target, json!({"reset_usage": reset})).await;
            let delta = get(&stage, &format!("?since={}", state(&held))).await.json();
            let row = &delta["changed"][list][0];
            assert_eq!(row["usage_reset_at"].is_string(), is_told, "{target}: {delta}");
            let whole = get(&stage, "").await;
            let told = whole.json()[list].as_array().unwrap().iter().find(|other| other["id"] == row["id"]).cloned();
            assert_eq!(told.as_ref(), Some(row), "{target}: whole and delta say the same");
            let linked = link(&whole.body, &LinkRules::LENIENT).unwrap();
            assert!(!format!("{:?}{:?}", linked.set_aside, linked.ignored).contains("usage_reset_at"), "{target}");
        }
    }
    let shown = stage.done(Method::GET, "/v1/admin/workspaces/ws-a", Value::Null).await;
    assert!(shown["last_reset_at"].is_string(), "{shown}");
}

#[tokio::test]
async fn only_a_known_token_is_admitted() {
    let stage = stage().await;
    let made = stage.done(Method::POST, "/v1/data-planes", json!({"name": "Europe"})).await;
    let token = made["token"].as_str().unwrap();
    let owner = stage.owner.trim().to_owned();
    let cases = [
        ("of the configuration", TOKEN.to_owned(), 200),
        ("made by API", token.to_owned(), 200),
        ("none", String::new(), 401),
        ("unknown", format!("{token}x"), 401),
        ("an API key", owner, 401),
        ("a digest", token_sha256(TOKEN), 401),
    ];
    for (name, token, status) in cases {
        assert_eq!(ask(&stage, &token, "").send().await.status, status, "{name}");
    }
    let reply = stage.call_as(token, Method::GET, "/v1/secret-references").send().await;
    assert_eq!(reply.status, 401, "a token is no API key");
    for (name, content) in stage.kept().await {
        assert!(!content.windows(token.len()).any(|part| part == token.as_bytes()), "a token is in {name}");
    }
}

#[tokio::test]
async fn a_data_plane_sees_one_organisation() {
    let stage = stage().await;
    post_reference(&stage, "ours").await;
    let other = stage.another_organisation().await;
    let stranger = stage.key(&other, "", Role::Owner, &[]).await;
    let workspace = stage.workspace("ws-a").await;
    let admin = stage.key("", &workspace, Role::Admin, &[]).await;
    let call =
        |key: &str, method, target: &str| stage.call_as(key, method, target).json(&json!({"name": "DP", "slug": "dp"}));
    let made = call(&stranger, Method::POST, "/v1/data-planes").send().await.json();
    let reference = stage.call_as(&stranger, Method::POST, "/v1/secret-references").json(&reference("theirs"));
    assert_eq!(reference.send().await.status, 200);

    let theirs = ask(&stage, made["token"].as_str().unwrap(), "").send().await.json();
    let ours = get(&stage, "").await.json();
    for (snapshot, organisation, slug) in
        [(&theirs, &json!(other), "theirs"), (&ours, &ours["organisation_id"], "ours")]
    {
        let slugs: Vec<_> =
            snapshot["secret_references"].as_array().unwrap().iter().map(|row| row["slug"].clone()).collect();
        assert_eq!((&snapshot["organisation_id"], slugs), (organisation, vec![json!(slug)]));
    }
    assert_ne!(ours["organisation_id"], theirs["organisation_id"]);
    // (whose key, method, target, status): another organisation's does not exist, and a workspace's key has no business here.
    let cases = [
        (stage.owner.trim(), Method::GET, "/v1/data-planes/dp", 404),
        (stage.owner.trim(), Method::POST, "/v1/data-planes/dp/rotate", 404),
        (stage.owner.trim(), Method::DELETE, "/v1/data-planes/dp", 404),
        (&admin, Method::GET, "/v1/data-planes", 403),
        (&admin, Method::POST, "/v1/data-planes", 403),
    ];
    for (key, method, target, status) in cases {
        assert_eq!(call(key, method.clone(), target).send().await.status, status, "{method} {target}");
    }
    assert_eq!(stage.done(Method::GET, "/v1/data-planes", Value::Null).await["total"], 0);
}

#[tokio::test]
async fn a_token_is_replaced_and_revoked() {
    let stage = stage().await;
    let made = stage.done(Method::POST, "/v1/data-planes", json!({"name": "Europe", "slug": "eu"})).await;
    let first = made["token"].as_str().unwrap().to_owned();
    let rotated = stage.done(Method::POST, "/v1/data-planes/eu/rotate", Value::Null).await;
    let second = rotated["token"].as_str().unwrap().to_owned();
    assert!(rotated["token_transition_expires_at"].is_string(), "{rotated}");
    for token in [&first, &second] {
        assert_eq!(ask(&stage, token, "").send().await.status, 200, "both are valid");
    }
    let again = stage.send(Method::POST, "/v1/data-planes/eu/rotate", json!({})).await;
    assert_eq!(refusal(&again).0, 400, "two at most");
    let at_once = json!({"token_transition_period_ms": 0});
    let third = stage.done(Method::POST, "/v1/data-planes/eu/rotate", at_once).await["token"].clone();
    let third = third.as_str().unwrap();
    for (token, status) in [(first.as_str(), 401), (&second, 401), (third, 200)] {
        assert_eq!(ask(&stage, token, "").send().await.status, status);
    }
    let listed = stage.done(Method::GET, "/v1/data-planes", Value::Null).await;
    assert_eq!((&listed["total"], &listed["data"][0]["name"]), (&json!(1), &json!("Europe")));
    assert!(!listed.to_string().contains(third));

    let since = state(&ask(&stage, third, "").send().await);
    let waiting = tokio::spawn(ask(&stage, third, &format!("?wait=60&since={since}")).send());
    stage.done(Method::DELETE, "/v1/data-planes/eu", Value::Null).await;
    assert_eq!(refusal(&within(waiting).await.unwrap()).0, 401, "who waits is told");
    assert_eq!(ask(&stage, third, "").send().await.status, 401);
}

/// Waits for the state after `since`, again and again while there is no place.
async fn wait_for_a_place(call: Call) -> Reply {
    loop {
        let reply = call.clone().send().await;
        if reply.status != 429 {
            return reply;
        }
    }
}

/// The refusal of a call for which there is no place; returns when all places are taken by those who wait.
async fn until_refused(stage: &Stage) -> Reply {
    within(async {
        loop {
            let reply = ask(stage, TOKEN, "").send().await;
            if reply.status != 200 {
                return reply;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_data_plane_has_so_many_calls_at_once() {
    let stage = stage_with("limits: {feed_connections: 2}\n").await;
    let since = state(&get(&stage, "").await);
    let wait = format!("?wait=60&since={since}");
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(wait_for_a_place(ask(&stage, TOKEN, &wait)))).collect();
    // The other may stand outside for as long as the probe itself has the second place.
    let refused = until_refused(&stage).await;
    assert_eq!((refusal(&refused).0, refused.header("retry-after")), (429, Some("1")));
    post_reference(&stage, "key").await;
    for reply in waiting {
        assert_eq!(within(reply).await.unwrap().status, 200);
    }
    get(&stage, "").await;
}

#[tokio::test]
async fn a_database_that_was_put_back_begins_an_epoch() {
    let stage = stage().await;
    post_reference(&stage, "one").await;
    let held = get(&stage, "").await;
    let Head { epoch, version } = head(&held);
    // Held by a data plane, never written here.
    let reply = get(&stage, &format!("?since={epoch}-{}", version + 5)).await;
    assert!(head(&reply).epoch > epoch, "{}", reply.text());
    assert_eq!(reply.json()["secret_references"].as_array().unwrap().len(), 1, "told in full");
    // Not once more for each who holds it.
    let again = get(&stage, &format!("?since={epoch}-{}", version + 5)).await;
    assert_eq!(head(&again), head(&reply));
}

#[tokio::test]
async fn an_end_does_not_wait_for_those_who_wait() {
    let stage = stage_with("limits: {feed_connections: 1}\n").await;
    let since = state(&get(&stage, "").await);
    let waiting = tokio::spawn(wait_for_a_place(ask(&stage, TOKEN, &format!("?wait=60&since={since}"))));
    until_refused(&stage).await;
    let Stage { control, .. } = stage;
    within(control.stop()).await;
    assert_eq!(within(waiting).await.unwrap().status, 304);
}

#[tokio::test]
async fn a_restart_keeps_epoch_and_version() {
    let folder = tempfile::tempdir().unwrap();
    let recipient = "age1qk42aafh82ft543wgujtgudmn4t0223lan3v3spq26ffdmn0z3cqju5vlz";
    let planes = format!("data_planes: [{{name: fleet, token_sha256: {}}}]\n", token_sha256(TOKEN));
    let mut etags = Vec::new();
    for _ in 0..2 {
        let control = ControlPlane::start(config(folder.path(), recipient, &planes)).await.unwrap();
        let call = Call::to(control.address(), Method::GET, SNAPSHOT);
        let reply = call.header("authorization", &format!("Bearer {TOKEN}")).send().await;
        etags.push(reply.header("etag").unwrap().to_owned());
        control.stop().await;
    }
    assert_eq!(etags[0], etags[1]);
}

fn head(reply: &Reply) -> Head {
    let state = state(reply);
    let (epoch, version) = state.split_once('-').unwrap();
    Head { epoch: epoch.parse().unwrap(), version: version.parse().unwrap() }
}
