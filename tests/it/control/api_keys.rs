//! `/api-keys`: shapes, rules, who may give what, and what a rotation leaves.

use http::Method;
use serde_json::{Value, json};
use sidekey::{
    control::{
        api_key::rotate_due,
        store::{Action, Change, Hash, Kind, Object, now},
    },
    seal::Place,
};

use super::stage::{Stage, refusal};

const ROOT: &str = "/v1/api-keys";
const SERVICE: &str = "/v1/api-keys/organisation/service";
const DAY: i64 = 24 * 3600 * 1000;

async fn workspace(stage: &Stage, slug: &str, more: Value) -> String {
    let mut body = json!({"name": slug, "slug": slug});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stage.done(Method::POST, "/v1/admin/workspaces", body).await["id"].as_str().unwrap().to_owned()
}

/// Makes a key: its id and its secret.
async fn key(stage: &Stage, path: &str, body: Value) -> (String, String) {
    let made = stage.done(Method::POST, path, body).await;
    assert_eq!(made["object"], "api-key");
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

async fn read(stage: &Stage, id: &str) -> Value {
    stage.done(Method::GET, &format!("{ROOT}/{id}"), Value::Null).await
}

/// The status of a call with this key.
async fn status(stage: &Stage, key: &str, method: Method, target: &str, body: Value) -> u16 {
    let call = stage.call_as(key, method, target);
    if body.is_null() { call.send().await.status } else { call.json(&body).send().await.status }
}

async fn hashes(stage: &Stage, id: &str) -> Vec<Hash> {
    let store = stage.control.control().store();
    let organisation = store.organisations().await.unwrap().remove(0);
    let mut tenant = store.tenant(&organisation).await.unwrap();
    let object = tenant.get(Kind::ApiKey, id).await.unwrap().unwrap();
    tenant.hashes_of(&object).await.unwrap()
}

fn millis(value: &Value) -> i64 {
    let time = time::OffsetDateTime::parse(value.as_str().unwrap(), &time::format_description::well_known::Rfc3339);
    time.unwrap().unix_timestamp() * 1000
}

#[tokio::test]
async fn every_field_round_trips() {
    let stage = Stage::start().await;
    let home = workspace(&stage, "ws-home", json!({})).await;
    let config = json!({"name": "Retry", "workspace_id": "ws-home", "config": {"retry": {"attempts": 3}}});
    let config = stage.done(Method::POST, "/v1/configs", config).await["slug"].clone();
    let body = json!({
        "name": "Development API Key", "description": "for development", "organisation_id": null, "workspace_id": "ws-home",
        "user_id": "c3d4e5f6-a7b8-6c7d-0e1f-2a3b4c5d6e7f",
        "rate_limits": [{"type": "requests", "unit": "rpm", "value": 100}, {"type": "tokens", "unit": "rps", "value": 0},
            {"type": "requests", "unit": "rph", "value": 1}, {"type": "requests", "unit": "rpd", "value": 2},
            {"type": "requests", "unit": "rpw", "value": 3}],
        "usage_limits": {"credit_limit": 10, "type": "cost", "alert_threshold": 8, "periodic_reset_days": 30},
        "scopes": ["logs.view", "completions.write", "completions.write"],
        "defaults": {"metadata": {"environment": "development", "team": "backend"}, "config_id": config,
            "allow_config_override": false},
        "alert_emails": ["foo@bar.com"], "expires_at": "2999-12-31T23:59:59Z",
        "rotation_policy": {"rotation_period": "monthly", "key_transition_period_ms": 3_600_000}
    });
    let (id, secret) = key(&stage, "/v1/api-keys/workspace/user", body.clone()).await;
    let shown = read(&stage, &id).await;
    for name in ["name", "description", "user_id", "rate_limits", "defaults", "alert_emails", "expires_at"] {
        assert_eq!(shown[name], body[name], "{name}");
    }
    assert_eq!(shown["workspace_id"], home);
    assert_eq!(shown["scopes"], json!(["completions.write", "logs.view"]));
    assert_eq!(
        (&shown["type"], &shown["status"], &shown["object"], &shown["creation_mode"]),
        (&json!("workspace-user"), &json!("active"), &json!("api-key"), &json!("api"))
    );
    let usage = &shown["usage_limits"];
    assert_eq!(
        (&usage["credit_limit"], &usage["alert_threshold"], &usage["periodic_reset_days"]),
        (&json!(10), &json!(8), &json!(30))
    );
    let reset = millis(&usage["next_usage_reset_at"]);
    assert!(reset % DAY == 0 && (now() + 29 * DAY..=now() + 31 * DAY).contains(&reset), "{usage}");
    let policy = &shown["rotation_policy"];
    assert_eq!(
        (&policy["rotation_period"], &policy["key_transition_period_ms"]),
        (&json!("monthly"), &json!(3_600_000))
    );
    assert!(policy["next_rotation_at"].as_str().unwrap().ends_with("-01T00:00:00.000Z"), "{policy}");
    let mask = shown["key"].as_str().unwrap();
    assert!(mask.starts_with("sk*****") && mask.len() == 10 && secret.ends_with(&mask[7..]), "{mask}");
    assert!(shown.get("sealed_key").is_none() && shown.get("last_rotated_at").is_none());

    let listed =
        stage.done(Method::GET, &format!("{ROOT}?workspace_id=ws-home&page_size=5&current_page=0"), Value::Null).await;
    assert_eq!((&listed["total"], &listed["data"]), (&json!(1), &json!([shown])));

    // What is cleared, changed and kept.
    let target = format!("{ROOT}/{id}");
    let put = json!({"name": "Renamed", "description": null, "rate_limits": null, "usage_limits": null, "alert_emails": [],
        "defaults": {"config_id": null}, "expires_at": null, "rotation_policy": null, "scopes": ["completions.write"],
        "type": "organisation-service", "user_id": "another"});
    assert_eq!(stage.done(Method::PUT, &target, put).await, json!({}));
    let after = read(&stage, &id).await;
    assert_eq!((&after["name"], &after["scopes"]), (&json!("Renamed"), &json!(["completions.write"])));
    for name in ["description", "usage_limits", "expires_at", "rotation_policy"] {
        assert!(after.get(name).is_none(), "{name}: {after}");
    }
    assert_eq!((&after["rate_limits"], &after["alert_emails"]), (&json!([]), &json!([])));
    assert_eq!(after["defaults"], json!({"metadata": body["defaults"]["metadata"], "allow_config_override": false}));
    assert_eq!((&after["type"], &after["user_id"]), (&shown["type"], &shown["user_id"]), "these never change");
    assert_eq!(refusal(&stage.send(Method::PUT, &target, json!({})).await).2, "no field to update was given");
    assert_eq!(refusal(&stage.send(Method::PUT, &target, json!({"user_id": "x"})).await).0, 400);

    stage.done(Method::DELETE, &target, json!({})).await;
    assert_eq!(refusal(&stage.send(Method::GET, &target, Value::Null).await).1, "AB08");
    assert_eq!(status(&stage, &secret, Method::GET, ROOT, Value::Null).await, 401);
}

#[tokio::test]
async fn the_three_example_bodies_of_the_documentation_work() {
    let stage = Stage::start().await;
    workspace(&stage, "ws-shared-123", json!({})).await;
    let example = |name: &str, more: Value| {
        let mut body = json!({"name": name, "scopes": ["completions.write"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let bodies = [
        example("API_KEY_NAME_0909", json!({})),
        example(
            "Auto-rotating Key",
            json!({"rotation_policy": {"rotation_period": "monthly", "key_transition_period_ms": 3_600_000}}),
        ),
        example(
            "Budget-limited Key",
            json!({"usage_limits": {"type": "cost", "credit_limit": 100, "alert_threshold": 80,
            "periodic_reset": "monthly"}, "alert_emails": ["admin@example.com"]}),
        ),
    ];
    for body in &bodies {
        let (id, _) = key(&stage, SERVICE, body.clone()).await;
        let shown = read(&stage, &id).await;
        assert_eq!((&shown["name"], &shown["type"]), (&body["name"], &json!("organisation-service")));
    }
    let listed = stage.done(Method::GET, ROOT, Value::Null).await;
    assert_eq!(listed["total"], 4, "with the OWNER's");
    let usage = &listed["data"][0]["usage_limits"];
    assert!(usage["next_usage_reset_at"].as_str().unwrap().ends_with("-01T00:00:00.000Z"), "{usage}");
    for (kind, extra) in [("workspace/service", json!({})), ("workspace/user", json!({"user_id": "u-1"}))] {
        let mut body = bodies[0].clone();
        body["workspace_id"] = json!("ws-shared-123");
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let (id, _) = key(&stage, &format!("/api-keys/{kind}"), body).await;
        assert_eq!(read(&stage, &id).await["type"], kind.replace('/', "-"));
    }
    // SDKs repeat the path in the body.
    let repeated = json!({"name": "n", "type": "organisation", "sub-type": "service", "workspace_id": "ws-shared-123",
        "scopes": ["virtual_keys.copy"], "description": null, "rate_limits": null, "usage_limits": null, "defaults": null,
        "expires_at": null, "user_id": null});
    let (_, secret) = key(&stage, SERVICE, repeated).await;
    // A key of the organisation that names a workspace reaches no further than that.
    assert_eq!(status(&stage, &secret, Method::GET, ROOT, Value::Null).await, 403);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_every_reason() {
    let stage = Stage::start().await;
    workspace(&stage, "ws-short", json!({"api_key_max_ttl_days": 30})).await;
    let far = "2999-01-01T00:00:00Z";
    let with = |changes: Value| {
        let mut body = json!({"name": "n", "scopes": []});
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    let policy = |policy: Value| with(json!({ "rotation_policy": policy }));
    let usage = |usage: Value| with(json!({ "usage_limits": usage }));
    let rate = |rate: Value| with(json!({"rate_limits": [rate]}));
    // (path, body, parts of the message)
    let organisation: Vec<(Value, &[&str])> = vec![
        (json!({}), &["name: is missing", "scopes: is missing"]),
        (with(json!({"name": ""})), &["name: must be text of 1 to 255"]),
        (with(json!({"description": "x".repeat(1025)})), &["description: must be text"]),
        (with(json!({"scopes": null})), &["scopes: must not be null"]),
        (with(json!({"scopes": "completions.write"})), &["scopes: must be a list"]),
        (with(json!({"scopes": ["Canary"]})), &["scopes: must be scopes like"]),
        (with(json!({"organisation_id": "other"})), &["organisation_id: is not the organisation"]),
        (with(json!({"workspace_id": "canary"})), &["workspace_id: names a workspace that does not exist"]),
        (with(json!({"alert_emails": ["canary"]})), &["alert_emails: must be addresses"]),
        (with(json!({"alert_emails": ["a b@c"]})), &["alert_emails: must be addresses"]),
        (with(json!({"expires_at": "2020-01-01T00:00:00Z"})), &["expires_at: must lie ahead"]),
        (with(json!({"expires_at": "tomorrow"})), &["expires_at: must be a time"]),
        (with(json!({"defaults": {"config_id": "pc-canary"}})), &["defaults.config_id: names no config"]),
        (with(json!({"defaults": {"metadata": []}})), &["defaults.metadata: must be an object"]),
        (with(json!({"defaults": {"metadata": {"a": "x".repeat(5000)}}})), &["defaults.metadata: must be 4096 bytes"]),
        (with(json!({"defaults": {"allow_config_override": "no"}})), &["allow_config_override: must be true or false"]),
        (policy(json!({})), &["rotation_policy.rotation_period: or next_rotation_at has to be given"]),
        (policy(json!({"rotation_period": "daily"})), &["rotation_policy.rotation_period: must be weekly or monthly"]),
        (
            policy(json!({"rotation_period": "weekly", "next_rotation_at": far})),
            &["next_rotation_at: cannot be given beside"],
        ),
        (policy(json!({"next_rotation_at": "2020-01-01T00:00:00Z"})), &["next_rotation_at: must lie ahead"]),
        (
            policy(json!({"rotation_period": "weekly", "key_transition_period_ms": 1_799_999})),
            &["rotation_policy.key_transition_period_ms: must be 1800000 at least"],
        ),
        (
            policy(json!({"rotation_period": "weekly", "key_transition_period_ms": 7 * DAY})),
            &["key_transition_period_ms", "below 604800000"],
        ),
        (policy(json!({"rotation_period": "monthly", "key_transition_period_ms": 28 * DAY})), &["below 2419200000"]),
        (rate(json!({"unit": "rpm", "value": 1})), &["rate_limits[0].type: is missing"]),
        (rate(json!({"type": "requests", "value": 1})), &["rate_limits[0].unit: is missing"]),
        (rate(json!({"type": "requests", "unit": "rpm"})), &["rate_limits[0].value: is missing"]),
        (rate(json!({"type": "requests", "unit": "rpy", "value": 1})), &["rate_limits[0].unit: must be one of rps"]),
        (rate(json!({"type": "requests", "unit": "rpm", "value": -1})), &["rate_limits[0].value: must be a whole"]),
        (usage(json!({"type": "canary"})), &["usage_limits.type: must be one of cost, tokens"]),
        (usage(json!({"credit_limit": 0})), &["usage_limits.credit_limit: must be above 0"]),
        (usage(json!({"credit_limit": 1, "alert_threshold": 2})), &["alert_threshold: must not be above credit_limit"]),
        (
            usage(json!({"credit_limit": 1, "periodic_reset": "daily"})),
            &["periodic_reset: must be one of weekly, monthly"],
        ),
        (usage(json!({"credit_limit": 1, "periodic_reset_days": 366})), &["periodic_reset_days: must be 1 to 365"]),
        (
            usage(json!({"credit_limit": 1, "periodic_reset": "weekly", "periodic_reset_days": 7})),
            &["periodic_reset_days: cannot be given beside periodic_reset"],
        ),
        (usage(json!([{"credit_limit": 1}, {"credit_limit": 2}])), &["holds two limits of one type and period"]),
    ];
    let in_workspace: Vec<(&str, Value, &[&str])> = vec![
        ("workspace/service", with(json!({})), &["workspace_id: is missing"]),
        (
            "workspace/user",
            with(json!({"workspace_id": "ws-short", "expires_at": "2999-01-01T00:00:00Z"})),
            &["user_id: is missing", "expires_at: must lie within 30 days"],
        ),
        ("workspace/service", with(json!({"workspace_id": "ws-short"})), &["expires_at: must lie within 30 days"]),
        ("organisation/user", with(json!({})), &["use workspace/user"]),
        ("nothing/service", with(json!({})), &["the path must be organisation or workspace"]),
    ];
    let cases = organisation.into_iter().map(|(body, parts)| ("organisation/service", body, parts));
    for (path, body, parts) in cases.chain(in_workspace) {
        let reply = stage.send(Method::POST, &format!("{ROOT}/{path}"), body.clone()).await;
        let (status, code, message) = refusal(&reply);
        assert_eq!((status, code.as_str()), (400, "AB01"), "{path} {body}: {message}");
        for part in parts {
            assert!(message.contains(part), "{body}: {message:?} has no {part:?}");
        }
        assert!(!message.to_lowercase().contains("canary"), "{message}");
    }
    assert_eq!(stage.done(Method::GET, ROOT, Value::Null).await["total"], 1, "the OWNER's alone");
}

#[tokio::test]
async fn nobody_gives_more_than_it_has() {
    let stage = Stage::start().await;
    workspace(&stage, "ws-a", json!({})).await;
    let body = |scopes: &[&str]| json!({"name": "n", "scopes": scopes, "workspace_id": "ws-a"});
    let manager = ["create", "read", "update", "delete", "list", "rotate"]
        .map(|verb| format!("workspace_service_api_keys.{verb}"));
    let mut held: Vec<&str> = manager.iter().map(String::as_str).collect();
    held.push("completions.write");
    let (manager_id, manager) = key(&stage, "/v1/api-keys/workspace/service", body(&held)).await;
    let (strong, _) = key(&stage, "/v1/api-keys/workspace/service", body(&["secret_references.create"])).await;
    let (user_id, user) = {
        let mut body =
            body(&["workspace_user_api_keys.read", "workspace_user_api_keys.create", "workspace_user_api_keys.list"]);
        body["user_id"] = json!("u-1");
        key(&stage, "/v1/api-keys/workspace/user", body).await
    };
    let owner =
        stage.done(Method::GET, ROOT, Value::Null).await["data"].as_array().unwrap().last().unwrap()["id"].clone();
    let owner = owner.as_str().unwrap();
    let at = |id: &str| format!("{ROOT}/{id}");
    let rotate = |id: &str| format!("{ROOT}/{id}/rotate");
    struct Case<'a> {
        name: &'a str,
        key: &'a str,
        method: Method,
        target: String,
        body: Value,
        status: u16,
    }
    let service = "/v1/api-keys/workspace/service".to_owned();
    let case = |name, key, method, target: String, body, status| Case { name, key, method, target, body, status };
    let cases = [
        case("gives what it has", &*manager, Method::POST, service.clone(), body(&["completions.write"]), 200),
        case("as tokens spell it", &manager, Method::POST, service.clone(), body(&["portkey.completions.write"]), 200),
        case("gives what it has not", &manager, Method::POST, service.clone(), body(&["configs.create"]), 400),
        case(
            "adds what it has not",
            &manager,
            Method::PUT,
            at(&manager_id),
            json!({"scopes": ["configs.create"]}),
            400,
        ),
        case("renames a stronger one", &manager, Method::PUT, at(&strong), json!({"name": "x"}), 200),
        case(
            "keeps a stronger one's scopes",
            &manager,
            Method::PUT,
            at(&strong),
            json!({"scopes": ["secret_references.create"]}),
            200,
        ),
        case("is shown a stronger one's secret", &manager, Method::POST, rotate(&strong), Value::Null, 403),
        case("its own", &manager, Method::GET, at(&manager_id), Value::Null, 200),
        case("another type", &manager, Method::GET, at(&user_id), Value::Null, 403),
        case("the organisation's", &manager, Method::GET, at(owner), Value::Null, 404),
        case("makes one of the organisation", &manager, Method::POST, SERVICE.to_owned(), body(&[]), 403),
        case("a person reads the own one", &user, Method::GET, at(&user_id), Value::Null, 200),
        case("a person reads another", &user, Method::GET, at(&manager_id), Value::Null, 404),
        case("a person makes one", &user, Method::POST, "/v1/api-keys/workspace/user".to_owned(), body(&[]), 403),
        case("the OWNER's is not removed", &stage.owner, Method::DELETE, at(owner), Value::Null, 409),
        case(
            "the OWNER's does not end",
            &stage.owner,
            Method::PUT,
            at(owner),
            json!({"expires_at": "2999-01-01T00:00:00Z"}),
            400,
        ),
    ];
    for Case { name, key, method, target, body, status: expected } in cases {
        assert_eq!(status(&stage, key, method, &target, body).await, expected, "{name}");
    }
    let listed = stage.call_as(&user, Method::GET, ROOT).send().await.json();
    assert_eq!((&listed["total"], &listed["data"][0]["id"]), (&json!(1), &json!(user_id)));
    // An organisation's key with scopes does not reach the OWNER's.
    let rotator = json!({"name": "n", "scopes": ["organisation_service_api_keys.rotate", "organisation_service_api_keys.update"]});
    let (_, rotator) = key(&stage, SERVICE, rotator).await;
    assert_eq!(status(&stage, &rotator, Method::POST, &rotate(owner), Value::Null).await, 403);
    assert_eq!(status(&stage, &rotator, Method::PUT, &at(owner), json!({"name": "x"})).await, 403);
}

#[tokio::test]
async fn a_rotation_leaves_two_secrets_for_a_while() {
    let stage = Stage::start().await;
    let scopes = json!({"name": "n", "scopes": ["organisation_service_api_keys.list"]});
    let (id, old) = key(&stage, SERVICE, scopes).await;
    let target = format!("{ROOT}/{id}/rotate");
    for bad in [json!({"key_transition_period_ms": 1_799_999}), json!({"key_transition_period_ms": "x"}), json!([])] {
        assert_eq!(stage.send(Method::POST, &target, bad.clone()).await.status, 400, "{bad}");
    }
    let before = now();
    let rotated = stage.done(Method::POST, &target, json!({"key_transition_period_ms": 3_600_000})).await;
    let (new, end) = (rotated["key"].as_str().unwrap(), millis(&rotated["key_transition_expires_at"]));
    assert_eq!(rotated["id"], id);
    assert!((before + 3_600_000 - 1000..=now() + 3_600_000).contains(&end), "{rotated}");
    for secret in [&old, new] {
        assert_eq!(status(&stage, secret, Method::GET, ROOT, Value::Null).await, 200);
    }
    let shown = read(&stage, &id).await;
    assert_eq!(
        (&shown["id"], &shown["key_transition_expires_at"]),
        (&json!(id), &rotated["key_transition_expires_at"])
    );
    assert!(shown["last_rotated_at"].is_string() && new.ends_with(&shown["key"].as_str().unwrap()[7..]));
    let (status_, code, message) = refusal(&stage.send(Method::POST, &target, Value::Null).await);
    assert_eq!((status_, code.as_str()), (409, "AB07"), "{message}");
    let ends: Vec<_> = hashes(&stage, &id).await.iter().map(|hash| hash.expires_at != 0).collect();
    assert_eq!(ends, [false, true], "two hashes, the old one ends");

    // Another secret of one key whose transition is over: the old one is refused.
    end_transition(&stage, &id).await;
    assert_eq!(status(&stage, &old, Method::GET, ROOT, Value::Null).await, 401);
    assert_eq!(status(&stage, new, Method::GET, ROOT, Value::Null).await, 200);
    stage.done(Method::POST, &target, Value::Null).await;
    assert_eq!(hashes(&stage, &id).await.len(), 2, "what is over is forgotten");
}

/// Lets the secret before the last one be over by now.
async fn end_transition(stage: &Stage, id: &str) {
    let store = stage.control.control().store();
    let organisation = store.organisations().await.unwrap().remove(0);
    let mut write = store.write(&organisation, "test").await.unwrap();
    let object = write.get(Kind::ApiKey, id).await.unwrap().unwrap();
    let mut hashes = write.hashes_of(&object).await.unwrap();
    for hash in hashes.iter_mut().filter(|hash| hash.expires_at != 0) {
        hash.expires_at = 1;
    }
    write.set_hashes(&object, &hashes).await.unwrap();
    let change = Change::of(Action::Updated, &object, Vec::new());
    write.commit(change).await.unwrap();
}

#[tokio::test]
async fn the_schedule_rotates_once_and_seals_what_nobody_is_shown() {
    let stage = Stage::start().await;
    let body = json!({"name": "n", "scopes": ["organisation_service_api_keys.list"],
        "rotation_policy": {"rotation_period": "weekly", "key_transition_period_ms": 3_600_000}});
    let (id, old) = key(&stage, SERVICE, body).await;
    let control = stage.control.control();
    let due = millis(&read(&stage, &id).await["rotation_policy"]["next_rotation_at"]);
    assert_eq!(rotate_due(control, due - 1).await, 0, "before its time");
    // Two replicas look at once.
    let (one, other) = tokio::join!(rotate_due(control, due), rotate_due(control, due));
    assert_eq!(one + other, 1);
    assert_eq!(rotate_due(control, due).await, 0);

    let shown = read(&stage, &id).await;
    assert_eq!(millis(&shown["key_transition_expires_at"]), due + 3_600_000);
    assert_eq!(millis(&shown["rotation_policy"]["next_rotation_at"]), due + 7 * DAY);
    let (organisation, object_id, _) = stage.stored(Kind::ApiKey, &id).await;
    let place = Place { organisation: &organisation, object_id: &object_id, field: "key" };
    let new = stage.open(place, &shown["sealed_key"]);
    for secret in [&old, &new] {
        assert_eq!(status(&stage, secret, Method::GET, ROOT, Value::Null).await, 200);
    }
    assert!(!stage.log.text().contains(&new) && !stage.log.text().contains(&old));
    let listed = stage.done(Method::GET, ROOT, Value::Null).await;
    assert!(listed["data"][0].get("sealed_key").is_none(), "only where one key is read");
    let mut tenant = control.store().tenant(&organisation).await.unwrap();
    let record = tenant.audit(1).await.unwrap().remove(0);
    assert_eq!((record.actor.as_str(), record.action.as_str(), record.object_id), ("schedule", "rotated", id.clone()));
    drop(tenant);

    // By hand it has to wait; the next week takes the sealed one away.
    assert_eq!(stage.send(Method::POST, &format!("{ROOT}/{id}/rotate"), Value::Null).await.status, 409);
    end_transition(&stage, &id).await;
    stage.done(Method::POST, &format!("{ROOT}/{id}/rotate"), Value::Null).await;
    assert!(read(&stage, &id).await.get("sealed_key").is_none());
}

#[tokio::test]
async fn a_day_of_rotation_comes_once_and_survives_a_restart() {
    let stage = Stage::start().await;
    let at = now() + 2 * DAY;
    let day = time::OffsetDateTime::from_unix_timestamp(at / 1000).unwrap();
    let day = day.format(&time::format_description::well_known::Rfc3339).unwrap();
    let (id, _) =
        key(&stage, SERVICE, json!({"name": "n", "scopes": [], "rotation_policy": {"next_rotation_at": day}})).await;
    let (ending, _) = key(
        &stage,
        SERVICE,
        json!({"name": "n", "scopes": [], "expires_at": day,
        "rotation_policy": {"next_rotation_at": day}}),
    )
    .await;
    let (dropped, _) =
        key(&stage, SERVICE, json!({"name": "n", "scopes": [], "rotation_policy": {"next_rotation_at": day}})).await;
    stage.done(Method::PUT, &format!("{ROOT}/{dropped}"), json!({"rotation_policy": null})).await;
    // What is due stands in the database, not in the process.
    let due = stage.control.control().store().due(Kind::ApiKey, at, 10).await.unwrap();
    assert_eq!(due.iter().map(|(_, id)| id).collect::<Vec<_>>(), [&id]);
    assert_eq!(rotate_due(stage.control.control(), at).await, 1);
    let shown = read(&stage, &id).await;
    assert!(shown.get("rotation_policy").is_none() && shown["sealed_key"].is_object(), "{shown}");
    assert_eq!(rotate_due(stage.control.control(), at + 100 * DAY).await, 0);
    assert!(read(&stage, &ending).await.get("last_rotated_at").is_none(), "it ends first");
}

#[tokio::test]
async fn without_recipients_the_old_secret_ends_and_a_call_makes_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = super::stage::config(folder.path(), "", "");
    config.control.recipients = None;
    let plane = sidekey::app::ControlPlane::start(config).await.unwrap();
    let owner = std::fs::read_to_string(folder.path().join("bootstrap-key")).unwrap();
    let call = async |method: Method, target: String, body: Value| {
        let call = crate::harness::Call::to(plane.address(), method, &target).header("x-portkey-api-key", &owner);
        let reply = if body.is_null() { call.send().await } else { call.json(&body).send().await };
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let body = json!({"name": "n", "scopes": [], "rotation_policy": {"rotation_period": "monthly"}});
    let made = call(Method::POST, SERVICE.to_owned(), body).await;
    let target = format!("{ROOT}/{}", made["id"].as_str().unwrap());
    let due = millis(&call(Method::GET, target.clone(), Value::Null).await["rotation_policy"]["next_rotation_at"]);
    assert_eq!(rotate_due(plane.control(), due).await, 1);
    let shown = call(Method::GET, target.clone(), Value::Null).await;
    assert!(shown.get("sealed_key").is_none());
    assert_eq!(millis(&shown["key_transition_expires_at"]), due + 1_800_000);
    let rotated = call(Method::POST, format!("{target}/rotate"), Value::Null).await;
    assert!(rotated["key"].is_string());
    assert_eq!(rotated["key_transition_expires_at"], shown["key_transition_expires_at"], "the end stands");
}

#[tokio::test]
async fn a_key_that_ended_is_nobody_and_shown_as_that() {
    let stage = Stage::start().await;
    let (id, secret) =
        key(&stage, SERVICE, json!({"name": "n", "scopes": ["organisation_service_api_keys.list"]})).await;
    assert_eq!(status(&stage, &secret, Method::GET, ROOT, Value::Null).await, 200);
    let store = stage.control.control().store();
    let organisation = store.organisations().await.unwrap().remove(0);
    let change = async |alter: fn(&mut Object)| {
        let mut write = store.write(&organisation, "test").await.unwrap();
        let mut object = write.get(Kind::ApiKey, &id).await.unwrap().unwrap();
        alter(&mut object);
        write.update(&mut object).await.unwrap();
        let change = Change::of(Action::Updated, &object, Vec::new());
        write.commit(change).await.unwrap();
    };
    change(|object| "exhausted".clone_into(&mut object.status)).await;
    assert_eq!(read(&stage, &id).await["status"], "exhausted");
    stage.done(Method::PUT, &format!("{ROOT}/{id}"), json!({"reset_usage": true})).await;
    assert_eq!(read(&stage, &id).await["status"], "active");
    assert!(stage.stored(Kind::ApiKey, &id).await.2["usage_reset_at"].as_i64().unwrap() > 0);
    change(|object| {
        object.body = object.body.replace("\"expires_at\":null", "\"expires_at\":\"2020-01-01T00:00:00Z\"");
    })
    .await;
    assert_eq!(read(&stage, &id).await["status"], "expired");
    assert_eq!(status(&stage, &secret, Method::GET, ROOT, Value::Null).await, 401);
    stage.done(Method::PUT, &format!("{ROOT}/{id}"), json!({"expires_at": null})).await;
    assert_eq!(status(&stage, &secret, Method::GET, ROOT, Value::Null).await, 200);
}

#[tokio::test]
async fn no_secret_is_kept() {
    let stage = Stage::start().await;
    let (id, secret) = key(&stage, SERVICE, json!({"name": "n", "scopes": []})).await;
    let rotated = stage.done(Method::POST, &format!("{ROOT}/{id}/rotate"), Value::Null).await;
    let mut places = vec![("log".to_owned(), stage.log.text().into_bytes())];
    places.push(("answers".to_owned(), stage.done(Method::GET, ROOT, Value::Null).await.to_string().into_bytes()));
    places.extend(stage.kept().await);
    for secret in [secret.as_str(), rotated["key"].as_str().unwrap()] {
        for (name, content) in &places {
            assert!(!content.windows(secret.len()).any(|window| window == secret.as_bytes()), "{name}");
        }
    }
}
