//! What is another workspace's or organisation's is not there: on every route, in the same words as what does not exist.

mod named;

use http::Method;
use serde_json::{Value, json};
use sidekey::control::api_key::Role;

use super::stage::{Stage, refusal};
use crate::harness::Reply;

/// A call that names something.
struct Route {
    method: Method,
    /// `{}` stands for the name.
    path: &'static str,
    body: Value,
    /// Names that are another's.
    foreign: &'static [&'static str],
}

fn routes() -> Vec<Route> {
    let route = |method, path, body, foreign| Route { method, path, body, foreign };
    let (references, integrations, keys): (&[&str], &[&str], &[&str]) =
        (&["ref-b", "ref-closed"], &["int-b", "int-closed"], &["vk-b"]);
    let (workspaces, data_planes): (&[&str], &[&str]) = (&["ws-b"], &["fleet"]);
    let (configs, api_keys): (&[&str], &[&str]) = (&["config-b"], &["key-b", "key-organisation"]);
    let mut routes = vec![
        route(Method::PUT, "/v1/secret-references/{}", json!({"description": "x"}), references),
        route(Method::PUT, "/v1/integrations/{}", json!({"description": "x"}), integrations),
        route(Method::GET, "/v1/integrations/{}/workspaces", Value::Null, integrations),
        route(Method::PUT, "/v1/integrations/{}/workspaces", json!({"workspaces": []}), integrations),
        route(Method::GET, "/v1/integrations/{}/models", Value::Null, integrations),
        route(Method::PUT, "/v1/integrations/{}/models", json!({"allow_all_models": true}), integrations),
        route(Method::DELETE, "/v1/integrations/{}/models?slugs=x", Value::Null, integrations),
        route(Method::PUT, "/v1/virtual-keys/{}", json!({"note": "x"}), keys),
        route(Method::PUT, "/v1/providers/{}", json!({"note": "x"}), keys),
        route(Method::PUT, "/v1/configs/{}", json!({"name": "x"}), configs),
        route(Method::GET, "/v1/configs/{}/versions", Value::Null, configs),
        route(Method::PUT, "/v1/api-keys/{}", json!({"name": "x"}), api_keys),
        route(Method::POST, "/v1/api-keys/{}/rotate", json!({}), api_keys),
        route(Method::POST, "/v1/data-planes/{}/rotate", json!({}), data_planes),
        route(Method::PUT, "/v1/admin/workspaces/{}", json!({"description": "x"}), workspaces),
        route(Method::GET, "/v1/admin/workspaces/{}/users", Value::Null, workspaces),
        route(Method::POST, "/v1/admin/workspaces/{}/users", json!({"users": [{"id": "u"}]}), workspaces),
        route(Method::GET, "/v1/admin/workspaces/{}/users/user-1", Value::Null, workspaces),
        route(Method::PUT, "/v1/admin/workspaces/{}/users/user-1", json!({"role": "admin"}), workspaces),
        route(Method::DELETE, "/v1/admin/workspaces/{}/users/user-1", Value::Null, workspaces),
    ];
    for (path, foreign) in [
        ("/v1/secret-references/{}", references),
        ("/v1/integrations/{}", integrations),
        ("/v1/virtual-keys/{}", keys),
        ("/v1/providers/{}", keys),
        ("/v1/configs/{}", configs),
        ("/v1/api-keys/{}", api_keys),
        ("/v1/admin/workspaces/{}", workspaces),
        ("/v1/data-planes/{}", data_planes),
    ] {
        routes.push(route(Method::GET, path, Value::Null, foreign));
        routes.push(route(Method::DELETE, path, Value::Null, foreign));
    }
    routes
}

/// Two workspaces with one of everything, and a second organisation.
struct Neighbours {
    stage: Stage,
    /// An ADMIN key of `ws-a`.
    a: String,
    /// An OWNER key of another organisation.
    stranger: String,
    /// Names of everything that is not `ws-a`'s, slugs and ids.
    ids: Vec<(String, String)>,
}

impl Neighbours {
    async fn move_in() -> Self {
        let stage = Stage::start().await;
        let ws_a = stage.workspace("ws-a").await;
        let ws_b = stage.workspace("ws-b").await;
        let users = json!({"users": [{"id": "user-1"}]});
        stage.done(Method::POST, "/v1/admin/workspaces/ws-b/users", users).await;
        let mut ids = vec![("ws-b".to_owned(), ws_b.clone())];
        for (slug, workspace) in [("ref-a", "ws-a"), ("ref-b", "ws-b"), ("ref-closed", "ws-b")] {
            ids.push((slug.to_owned(), stage.reference(slug, json!({"allowed_workspaces": [workspace]})).await));
        }
        stage.reference("ref-open", json!({})).await;
        let fleet = stage.done(Method::POST, "/v1/data-planes", json!({"name": "fleet", "slug": "fleet"})).await;
        ids.push(("fleet".to_owned(), fleet["id"].as_str().unwrap().to_owned()));
        for (slug, workspace) in [("int-a", "ws-a"), ("int-b", "ws-b"), ("int-closed", ""), ("int-open", "")] {
            let body = json!({"name": slug, "slug": slug, "ai_provider_id": "openai", "key": "sk", "workspace_id": workspace,
                "create_default_provider": false});
            let made = stage.done(Method::POST, "/v1/integrations", body).await;
            ids.push((slug.to_owned(), made["id"].as_str().unwrap().to_owned()));
        }
        for (slug, workspaces) in [("int-closed", &["ws-b"][..]), ("int-open", &["ws-a", "ws-b"])] {
            let rows: Vec<_> = workspaces.iter().map(|id| json!({"id": id, "enabled": true})).collect();
            let body = json!({"workspaces": rows, "create_default_provider": false});
            stage.done(Method::PUT, &format!("/v1/integrations/{slug}/workspaces"), body).await;
        }
        for (slug, workspace) in [("vk-a", "ws-a"), ("vk-b", "ws-b"), ("vk-open", "")] {
            let body = json!({"name": slug, "slug": slug, "provider": "openai", "key": "sk", "workspace_id": workspace,
                    "usage_limits": {"type": "tokens", "credit_limit": 10}});
            let made = stage.done(Method::POST, "/v1/virtual-keys", body).await;
            ids.push((slug.to_owned(), made["id"].as_str().unwrap().to_owned()));
        }
        for (name, workspace) in [("config-a", "ws-a"), ("config-b", "ws-b"), ("config-open", "")] {
            let body = json!({"name": name, "config": {"retry": {"attempts": 1}}, "workspace_id": workspace});
            let made = stage.done(Method::POST, "/v1/configs", body).await;
            ids.push((name.to_owned(), made["id"].as_str().unwrap().to_owned()));
        }
        for (name, path, workspace) in [
            ("key-a", "workspace/service", "ws-a"),
            ("key-b", "workspace/service", "ws-b"),
            ("key-organisation", "organisation/service", ""),
        ] {
            let body = json!({"name": name, "scopes": [], "workspace_id": workspace});
            let made = stage.done(Method::POST, &format!("/v1/api-keys/{path}"), body).await;
            ids.push((name.to_owned(), made["id"].as_str().unwrap().to_owned()));
        }
        let a = stage.key("", &ws_a, Role::Admin, &[]).await;
        let other = stage.another_organisation().await;
        let stranger = stage.key(&other, "", Role::Owner, &[]).await;
        Self { stage, a, stranger, ids }
    }

    /// The slug, or the id of what has none that is known.
    fn name(&self, slug: &str) -> String {
        let has_slug = !["config", "key"].iter().any(|kind| slug.starts_with(kind));
        if has_slug { slug.to_owned() } else { self.id(slug).to_owned() }
    }

    fn id(&self, slug: &str) -> &str {
        &self.ids.iter().find(|(known, _)| known == slug).unwrap().1
    }
}

/// What a caller can tell an answer by.
fn tells(reply: &Reply) -> (u16, String) {
    (reply.status, reply.text())
}

#[tokio::test]
async fn what_is_anothers_is_answered_like_what_does_not_exist() {
    let neighbours = Neighbours::move_in().await;
    let Neighbours { stage, a, stranger, .. } = &neighbours;
    let before = stage.done(Method::GET, "/v1/virtual-keys", Value::Null).await;
    for Route { method, path, body, foreign } in routes() {
        for key in [a, stranger] {
            let nothing = stage.send_as(key, method.clone(), &path.replace("{}", "no-such-name"), body.clone()).await;
            let expected = tells(&nothing);
            for slug in foreign {
                for name in [*slug, neighbours.id(slug)] {
                    let reply = stage.send_as(key, method.clone(), &path.replace("{}", name), body.clone()).await;
                    assert_eq!(tells(&reply), expected, "{method} {path} of {name}");
                    assert!([403, 404].contains(&reply.status), "{method} {path} of {name}: {}", reply.text());
                }
            }
        }
    }
    let after = stage.done(Method::GET, "/v1/virtual-keys", Value::Null).await;
    assert_eq!(after, before, "something was written");
}

#[tokio::test]
async fn lists_hold_only_what_the_caller_may_know_of() {
    let neighbours = Neighbours::move_in().await;
    let Neighbours { stage, a, stranger, .. } = &neighbours;
    let cases: [(&str, &[&str]); 5] = [
        ("/v1/secret-references", &["ref-a", "ref-open"]),
        ("/v1/integrations", &["int-a", "int-open"]),
        ("/v1/virtual-keys", &["vk-a", "vk-open"]),
        ("/v1/providers", &["vk-a", "vk-open"]),
        ("/v1/admin/workspaces", &["ws-a"]),
    ];
    for (path, visible) in cases {
        for query in ["", "?page_size=100", "?search=", "?type=all"] {
            let reply = stage.send_as(a, Method::GET, &format!("{path}{query}"), Value::Null).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
            let list = reply.json();
            let mut slugs: Vec<_> =
                list["data"].as_array().unwrap().iter().map(|row| row["slug"].as_str().unwrap()).collect();
            slugs.sort_unstable();
            assert_eq!(slugs, visible, "{path}{query}");
            assert_eq!(list["total"], visible.len(), "{path}{query}");
        }
        let list = stage.send_as(stranger, Method::GET, path, Value::Null).await.json();
        assert_eq!((&list["total"], &list["data"]), (&json!(0), &json!([])), "{path}");
        if !path.contains("workspaces") && !path.contains("references") {
            let foreign = stage.send_as(a, Method::GET, &format!("{path}?workspace_id=ws-b"), Value::Null).await;
            let missing = stage.send_as(a, Method::GET, &format!("{path}?workspace_id=ws-none"), Value::Null).await;
            assert_eq!(tells(&foreign), tells(&missing), "{path}");
        }
    }
    for (path, visible) in [("/v1/configs", &["config-a", "config-open"][..]), ("/v1/api-keys", &["key-a"])] {
        let list = stage.send_as(a, Method::GET, path, Value::Null).await.json();
        let mut names: Vec<_> =
            list["data"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!((&*names, &list["total"]), (visible, &json!(visible.len())), "{path}");
        let foreign = stage.send_as(a, Method::GET, &format!("{path}?workspace_id=ws-b"), Value::Null).await;
        let missing = stage.send_as(a, Method::GET, &format!("{path}?workspace_id=ws-none"), Value::Null).await;
        assert_eq!(tells(&foreign), tells(&missing), "{path}");
        let list = stage.send_as(stranger, Method::GET, path, Value::Null).await.json();
        assert!(list["data"].as_array().unwrap().iter().all(|row| row["name"] == "test"), "{path}: {list}");
    }
    let log = stage.send_as(stranger, Method::GET, "/v1/audit-logs", Value::Null).await.json();
    assert!(log["records"].as_array().unwrap().iter().all(|record| record["resource_type"] == "api_key"), "{log}");
    assert_eq!(stage.send_as(a, Method::GET, "/v1/audit-logs", Value::Null).await.status, 403);
    // Of a shared integration a workspace sees its own access.
    let shared = stage.send_as(a, Method::GET, "/v1/integrations/int-open/workspaces", Value::Null).await.json();
    assert_eq!((&shared["total"], &shared["workspaces"][0]["slug"]), (&json!(1), &json!("ws-a")), "{shared}");
    let detail = stage.send_as(a, Method::GET, "/v1/integrations/int-open", Value::Null).await.json();
    assert_eq!(detail["workspace_count"], 1, "{detail}");
}

#[tokio::test]
async fn nothing_of_anothers_can_be_named_in_a_body() {
    let neighbours = Neighbours::move_in().await;
    let Neighbours { stage, a, .. } = &neighbours;
    let integration = json!({"name": "n", "ai_provider_id": "openai", "key": "sk"});
    let virtual_key = json!({"name": "n", "provider": "openai", "key": "sk"});
    let reference = json!({"name": "n", "manager_type": "file", "auth_config": {}, "secret_path": "a"});
    let provider = json!({"name": "n"});
    let mapping = |name: &str| json!([{"target_field": "key", "secret_reference_id": name}]);
    // (path, body, field, names of another's, how the field is written)
    type Write = fn(&str) -> Value;
    let api_key = json!({"name": "n", "scopes": []});
    let config = json!({"name": "n", "config": {"retry": {"attempts": 1}}});
    let cases: [(&str, &Value, &str, &[&str], Write); 9] = [
        ("/v1/configs", &config, "workspace_id", &["ws-b"], |name| json!(name)),
        ("/v1/api-keys/workspace/service", &api_key, "workspace_id", &["ws-b"], |name| json!(name)),
        ("/v1/api-keys/workspace/service", &api_key, "defaults", &["config-b"], |name| json!({"config_id": name})),
        ("/v1/integrations", &integration, "workspace_id", &["ws-b"], |name| json!(name)),
        ("/v1/virtual-keys", &virtual_key, "workspace_id", &["ws-b"], |name| json!(name)),
        ("/v1/providers", &provider, "integration_id", &["int-b", "int-closed"], |name| json!(name)),
        ("/v1/secret-references", &reference, "allowed_workspaces", &["ws-b"], |name| json!([name])),
        ("/v1/integrations", &integration, "secret_mappings", &["ref-b", "ref-closed"], |_| Value::Null),
        ("/v1/virtual-keys", &virtual_key, "secret_mappings", &["ref-b", "ref-closed"], |_| Value::Null),
    ];
    for (path, body, field, foreign, write) in cases {
        let with = |name: &str| {
            let mut body = body.clone();
            body[field] = if field == "secret_mappings" { mapping(name) } else { write(name) };
            stage.send_as(a, Method::POST, path, body)
        };
        let expected = tells(&with("no-such-name").await);
        assert_eq!(expected.0, 400, "{path} {field}: {}", expected.1);
        for slug in foreign {
            for name in [*slug, neighbours.id(slug)] {
                assert_eq!(tells(&with(name).await), expected, "{path} {field} {name}");
            }
        }
    }
}

#[tokio::test]
async fn a_workspace_writes_only_what_is_its_own() {
    let neighbours = Neighbours::move_in().await;
    let Neighbours { stage, a, .. } = &neighbours;
    let seen = [
        ("/v1/secret-references/ref-open", json!({"description": "x"})),
        ("/v1/integrations/int-open", json!({"description": "x"})),
        ("/v1/integrations/int-open/workspaces", json!({"workspaces": [{"id": "ws-a", "enabled": false}]})),
        ("/v1/integrations/int-open/models", json!({"allow_all_models": false})),
        ("/v1/virtual-keys/vk-open", json!({"note": "x"})),
        ("/v1/providers/vk-open", json!({"note": "x"})),
    ];
    for (path, body) in seen {
        let (status, code, _) = refusal(&stage.send_as(a, Method::PUT, path, body).await);
        assert_eq!((status, code.as_str()), (403, "AB03"), "{path}");
    }
    for path in ["/v1/integrations/int-open", "/v1/virtual-keys/vk-open", "/v1/providers/vk-open"] {
        assert_eq!(refusal(&stage.send_as(a, Method::DELETE, path, Value::Null).await).0, 403, "{path}");
    }
    for (method, path) in [(Method::POST, "/v1/admin/workspaces"), (Method::DELETE, "/v1/admin/workspaces/ws-a")] {
        let reply = stage.send_as(a, method, path, json!({"name": "ws-a", "force_delete": true})).await;
        assert_eq!(refusal(&reply).0, 403, "{path}");
    }
    // What it makes is its own without being said.
    let body = json!({"name": "n", "slug": "mine", "ai_provider_id": "openai", "key": "sk"});
    assert_eq!(stage.send_as(a, Method::POST, "/v1/integrations", body).await.status, 200);
    let mine = stage.send_as(a, Method::GET, "/v1/integrations/mine", Value::Null).await.json();
    assert_eq!(mine["type"], "workspace", "{mine}");
    let linked = json!({"name": "n", "slug": "linked", "integration_id": "int-open"});
    assert_eq!(stage.send_as(a, Method::POST, "/v1/providers", linked).await.status, 200);
    for path in ["/v1/providers/linked", "/v1/providers/mine", "/v1/integrations/mine", "/v1/virtual-keys/vk-a"] {
        let reply = stage.send_as(a, Method::DELETE, path, json!({})).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
}

/// A key with one scope, and the calls that it opens.
struct Scope {
    scope: &'static str,
    workspace: bool,
    opens: &'static [(Method, &'static str)],
}

#[tokio::test]
async fn scopes_open_what_they_name() {
    let neighbours = Neighbours::move_in().await;
    let stage = &neighbours.stage;
    let ws_a =
        stage.done(Method::GET, "/v1/admin/workspaces/ws-a", Value::Null).await["id"].as_str().unwrap().to_owned();
    let calls = [
        (Method::GET, "/v1/integrations"),
        (Method::GET, "/v1/integrations/int-a"),
        (Method::GET, "/v1/integrations/int-open"),
        (Method::PUT, "/v1/integrations/int-a"),
        (Method::GET, "/v1/virtual-keys"),
        (Method::GET, "/v1/providers/vk-a"),
        (Method::PUT, "/v1/virtual-keys/vk-a"),
        (Method::DELETE, "/v1/providers/vk-a"),
    ];
    let scopes = [
        Scope {
            scope: "organisation_integrations.read",
            workspace: false,
            opens: &[(Method::GET, "/v1/integrations/int-a"), (Method::GET, "/v1/integrations/int-open")],
        },
        Scope {
            scope: "workspace_integrations.read",
            workspace: false,
            opens: &[(Method::GET, "/v1/integrations/int-a")],
        },
        Scope {
            scope: "workspace_integrations.read",
            workspace: true,
            opens: &[(Method::GET, "/v1/integrations/int-a"), (Method::GET, "/v1/integrations/int-open")],
        },
        Scope { scope: "organisation_integrations.read", workspace: true, opens: &[] },
        Scope { scope: "workspace_integrations.list", workspace: true, opens: &[(Method::GET, "/v1/integrations")] },
        Scope {
            scope: "workspace_integrations.update",
            workspace: true,
            opens: &[(Method::PUT, "/v1/integrations/int-a")],
        },
        Scope { scope: "virtual_keys.list", workspace: true, opens: &[(Method::GET, "/v1/virtual-keys")] },
        Scope { scope: "virtual_keys.update", workspace: true, opens: &[(Method::PUT, "/v1/virtual-keys/vk-a")] },
        Scope { scope: "providers.read", workspace: true, opens: &[(Method::GET, "/v1/providers/vk-a")] },
        Scope { scope: "providers.delete", workspace: true, opens: &[(Method::DELETE, "/v1/providers/vk-a")] },
    ];
    for Scope { scope, workspace, opens } in scopes {
        let key = stage.key("", if workspace { &ws_a } else { "" }, Role::Member, &[scope]).await;
        for (method, path) in &calls {
            let body = if *method == Method::PUT { json!({"name": "renamed"}) } else { Value::Null };
            let reply = stage.send_as(&key, method.clone(), path, body).await;
            let expected = if opens.contains(&(method.clone(), *path)) { 200 } else { 403 };
            assert_eq!(reply.status, expected, "{scope} (workspace: {workspace}) {method} {path}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn a_workspace_goes_with_what_is_in_it_when_that_is_forced() {
    let neighbours = Neighbours::move_in().await;
    let stage = &neighbours.stage;
    let linked = json!({"name": "n", "slug": "linked-b", "integration_id": "int-open", "workspace_id": "ws-b",
        "secret_mappings": [{"target_field": "key", "secret_reference_id": "ref-b"}]});
    stage.done(Method::POST, "/v1/virtual-keys", linked).await;
    let target = "/v1/admin/workspaces/ws-b";
    let (status, code, message) = refusal(&stage.send(Method::DELETE, target, json!({"name": "ws-b"})).await);
    assert_eq!((status, code.as_str()), (409, "AB07"));
    for name in ["virtual key linked-b", "virtual key vk-b", "integration int-b"] {
        assert!(message.contains(name), "{message} does not name {name}");
    }
    let key_of_b = stage.key("", neighbours.id("ws-b"), Role::Admin, &[]).await;
    stage.done(Method::DELETE, target, json!({"name": "ws-b", "force_delete": true})).await;
    for gone in ["/v1/virtual-keys/vk-b", "/v1/virtual-keys/linked-b", "/v1/integrations/int-b", target] {
        assert_eq!(refusal(&stage.send(Method::GET, gone, Value::Null).await).0, 404, "{gone}");
    }
    assert_eq!(stage.send_as(&key_of_b, Method::GET, "/v1/virtual-keys", Value::Null).await.status, 401);
    // What was shared with it is not left open to an id that somebody could get.
    let shared = stage.done(Method::GET, "/v1/integrations/int-open/workspaces", Value::Null).await;
    let left: Vec<_> =
        shared["workspaces"].as_array().unwrap().iter().map(|row| row["slug"].as_str().unwrap()).collect();
    assert_eq!(left, ["ws-a"]);
    stage.done(Method::DELETE, "/v1/secret-references/ref-b", Value::Null).await;
    // Everything of the other workspace is there as before.
    for kept in ["/v1/virtual-keys/vk-a", "/v1/integrations/int-a", "/v1/secret-references/ref-a"] {
        stage.done(Method::GET, kept, Value::Null).await;
    }
}
