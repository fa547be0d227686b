//! Everything that a query or a body can name beside the path: what is a neighbour's is answered like what does
//! not exist, the id that was sent apart, and changes nothing. It covers `/openapi.json`: an operation without a row fails,
//! and so does an id of a schema that no row names. The rows are in [`rows`].

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Value, json};

use self::rows::{rows, with};
use super::Neighbours;
use crate::{control::stage::Stage, harness::Reply};

mod rows;

/// Nobody's, in both forms that a name can have.
const NOBODY: [&str; 2] = ["no-such-name", "01234567-89ab-7def-8123-456789abcdef"];
/// Ids that stand for nothing that is kept here.
const OUTSIDE: [&str; 1] = ["ai_provider_id"];
/// Ids at a secret manager.
const OF_A_MANAGER: &str = "auth_config.";
/// What only the path names.
const NOTHING: [&str; 27] = [
    "GET /admin/workspaces",
    "GET /admin/workspaces/{workspaceId}",
    "DELETE /admin/workspaces/{workspaceId}",
    "GET /admin/workspaces/{workspaceId}/users",
    "PUT /admin/workspaces/{workspaceId}/users/{userId}",
    "DELETE /admin/workspaces/{workspaceId}/users/{userId}",
    "GET /admin/workspaces/{workspaceId}/users/{userId}",
    "GET /api-keys/{id}",
    "DELETE /api-keys/{id}",
    "POST /api-keys/{id}/rotate",
    "DELETE /configs/{slug}",
    "GET /configs/{slug}",
    "GET /configs/{slug}/versions",
    "GET /data-planes",
    "POST /data-planes",
    "GET /data-planes/{name}",
    "DELETE /data-planes/{name}",
    "POST /data-planes/{name}/rotate",
    "DELETE /integrations/{slug}",
    "GET /integrations/{slug}/models",
    "PUT /integrations/{slug}/models",
    "DELETE /integrations/{slug}/models",
    "GET /integrations/{slug}/workspaces",
    "GET /secret-references",
    "GET /secret-references/{secretReferenceId}",
    "DELETE /secret-references/{secretReferenceId}",
    // A version is no name; whose snapshot it is, the token says. Its own test is in `feed`.
    "GET /snapshot",
];

/// Something that a call can name.
struct Row {
    /// As the document has it.
    operation: &'static str,
    /// The key in the body, or `?` and the parameter.
    at: &'static str,
    /// The body; `NAME` stands for the name.
    body: Value,
    /// Names that are another's.
    foreign: &'static [&'static str],
    answer: Answer,
}

/// What becomes of a call that names what does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// 400, or 403 for whom the route is not at all.
    Refused,
    /// 200: a name that nobody looks up, or a filter that finds nothing.
    Taken,
    /// 400 for a key of the organisation; nobody looks it up for a workspace's, which knows its place.
    Either,
}

/// Who calls, and what of its own stands in the path.
struct Neighbour {
    key: String,
    own: BTreeMap<&'static str, String>,
}

/// An ADMIN of `ws-a`, and an OWNER of another organisation with one of everything.
async fn callers(neighbours: &Neighbours) -> [Neighbour; 2] {
    let Neighbours { stage, a, stranger, .. } = neighbours;
    let own = |names: [(&'static str, &str); 6]| names.map(|(kind, name)| (kind, name.to_owned())).into();
    let of_a = Neighbour {
        key: a.clone(),
        own: own([
            ("admin", "ws-a"),
            ("api-keys", neighbours.id("key-a")),
            ("configs", neighbours.id("config-a")),
            ("integrations", "int-a"),
            ("secret-references", "ref-a"),
            ("virtual-keys", "vk-a"),
        ]),
    };
    let make = async |path: &str, body: Value| {
        let reply = stage.send_as(stranger, Method::POST, path, body).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()["id"].as_str().unwrap().to_owned()
    };
    make("/v1/admin/workspaces", json!({"name": "s", "slug": "ws-s"})).await;
    let reference =
        json!({"name": "s", "slug": "ref-s", "manager_type": "file", "auth_config": {}, "secret_path": "a"});
    make("/v1/secret-references", reference).await;
    let integration = json!({"name": "s", "slug": "int-s", "ai_provider_id": "openai", "key": "sk"});
    make("/v1/integrations", integration).await;
    make("/v1/virtual-keys", json!({"name": "s", "slug": "vk-s", "provider": "openai", "key": "sk"})).await;
    let config = make("/v1/configs", json!({"name": "s", "config": {"retry": {"attempts": 1}}})).await;
    let api_key = make("/v1/api-keys/organisation/service", json!({"name": "s", "scopes": []})).await;
    let strangers = Neighbour {
        key: stranger.clone(),
        own: own([
            ("admin", "ws-s"),
            ("api-keys", &api_key),
            ("configs", &config),
            ("integrations", "int-s"),
            ("secret-references", "ref-s"),
            ("virtual-keys", "vk-s"),
        ]),
    };
    [of_a, strangers]
}

// === impl Row ===

impl Row {
    /// Sends it with `name` in its place, with the `token` of a data plane if only those call.
    async fn send(&self, stage: &Stage, by: &Neighbour, token: &str, name: &str) -> Reply {
        let (method, path) = self.operation.split_once(' ').unwrap();
        let kind = path.split('/').nth(1).unwrap();
        let own = |kind: &str| by.own.get(if kind == "providers" { "virtual-keys" } else { kind });
        let path = match path {
            "/api-keys/{type}/{sub-type}" if self.at == "user_id" => "/api-keys/workspace/user".to_owned(),
            "/api-keys/{type}/{sub-type}" if by.own["admin"] == "ws-a" => "/api-keys/workspace/service".to_owned(),
            "/api-keys/{type}/{sub-type}" => "/api-keys/organisation/service".to_owned(),
            path => path
                .split('/')
                .map(|part| if part.starts_with('{') { own(kind).unwrap().as_str() } else { part })
                .collect::<Vec<_>>()
                .join("/"),
        };
        let query = self.at.strip_prefix('?').map(|parameter| format!("?{parameter}={name}")).unwrap_or_default();
        let mut body = self.body.to_string().replace("NAME", name).replace("OWN", &by.own["integrations"]);
        body = body.replace("CALLER", &by.own["admin"]);
        if self.at == "user_id" && by.own["admin"] == "ws-s" {
            // A person's key belongs to a workspace.
            body = with(body.parse().unwrap(), json!({"workspace_id": "ws-s"})).to_string();
        }
        let method: Method = method.parse().unwrap();
        let key = if self.operation == "POST /usage" { token } else { &by.key };
        let call = stage.call_as(key, method, &format!("/v1{path}{query}"));
        let call = call.header("authorization", &format!("Bearer {key}"));
        if body == "null" { call.send().await } else { call.json(&body.parse::<Value>().unwrap()).send().await }
    }
}

/// What a caller can tell an answer by, the name it sent apart; of what was done, what it says and not which it was.
fn tells(reply: &Reply, name: &str) -> (u16, Value) {
    fn shape(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                Value::Object(members.into_iter().map(|(key, value)| (key, shape(value))).collect())
            }
            Value::Array(items) => items.into_iter().map(shape).collect(),
            Value::String(_) => "text".into(),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }
    match reply.status {
        200 => (200, shape(reply.json())),
        status => (status, reply.text().replace(name, "NAME").into()),
    }
}

#[tokio::test]
async fn what_a_body_or_a_query_names_of_anothers_is_answered_like_what_does_not_exist() {
    let neighbours = Neighbours::move_in().await;
    let stage = &neighbours.stage;
    let callers = callers(&neighbours).await;
    // The other organisation's; that of this one may report on every workspace.
    let made = stage.send_as(&callers[1].key, Method::POST, "/v1/data-planes", json!({"name": "fleet"})).await;
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let before = belongings(&neighbours).await;
    let mut wrong = Vec::new();
    let open = ["vk-open", "ref-a", "int-open", "config-open", "ws-a"].map(|name| neighbours.name(name));
    for row in rows() {
        for by in &callers {
            let mut expected = None;
            let foreign = row.foreign.iter().flat_map(|slug| [*slug, neighbours.id(slug)]);
            // A stranger may know of nothing here.
            let open = open.iter().map(String::as_str).filter(|_| by.own["admin"] == "ws-s");
            for name in NOBODY.into_iter().chain(foreign).chain(open) {
                let told = tells(&row.send(stage, by, &token, name).await, name);
                let is_fit = match row.answer {
                    Answer::Refused => matches!(told.0, 400 | 403),
                    Answer::Taken => matches!(told.0, 200 | 403),
                    Answer::Either => told.0 == if by.own["admin"] == "ws-a" { 200 } else { 400 },
                };
                if !is_fit || *expected.get_or_insert_with(|| told.clone()) != told {
                    let owner = &by.own["admin"];
                    wrong.push(format!("{} {} {name} of {owner}: {told:?}, not {expected:?}", row.operation, row.at));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(belongings(&neighbours).await, before, "something of a neighbour's has changed");
}

/// All that is the neighbours', as their OWNER sees it.
async fn belongings(neighbours: &Neighbours) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "virtual-keys/vk-b",
        "integrations/int-b",
        "integrations/int-closed",
        "integrations/int-closed/workspaces",
        "secret-references/ref-b",
        "secret-references/ref-closed",
        "admin/workspaces/ws-b",
        "admin/workspaces/ws-b/users",
    ] {
        all.push(neighbours.stage.done(Method::GET, &format!("/v1/{path}"), Value::Null).await);
    }
    for (kind, name) in [("configs", "config-b"), ("api-keys", "key-b"), ("api-keys", "key-organisation")] {
        all.push(neighbours.stage.done(Method::GET, &format!("/v1/{kind}/{}", neighbours.id(name)), Value::Null).await);
    }
    all
}

#[tokio::test]
async fn every_id_that_an_operation_takes_has_a_row() {
    let stage = Stage::start().await;
    let document = stage.done(Method::GET, "/openapi.json", Value::Null).await;
    let rows = rows();
    let mut missing = Vec::new();
    let mut said = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{} {path}", method.to_uppercase());
            let named: BTreeSet<&str> = rows.iter().filter(|row| row.operation == name).map(|row| row.at).collect();
            if named.is_empty() && !NOTHING.contains(&name.as_str()) {
                missing.push(format!("{name}: no row, and it is not among those that name nothing"));
            }
            let mut taken = BTreeSet::new();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let parameter = resolved(&document, parameter);
                if parameter["in"] == "query" {
                    taken.insert(format!("?{}", parameter["name"].as_str().unwrap()));
                }
            }
            let body = resolved(&document, &operation["requestBody"]);
            for content in body["content"].as_object().into_iter().flatten() {
                properties(&document, &content.1["schema"], "", &mut taken, 0);
            }
            let ids = taken.iter().filter(|at| is_id(at) && !named.contains(at.as_str()));
            missing.extend(ids.map(|at| format!("{name}: {at} has no row")));
            said.insert(name);
        }
    }
    let served = |operation: &&str| !said.contains(*operation);
    missing.extend(NOTHING.iter().filter(|name| served(name)).map(|name| format!("{name}: is not served")));
    let operations = rows.iter().map(|row| &row.operation).filter(|name| served(name));
    missing.extend(operations.map(|name| format!("{name}: is not served")));
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Every property of a schema, by its path.
fn properties(document: &Value, schema: &Value, at: &str, found: &mut BTreeSet<String>, depth: usize) {
    if depth > 12 {
        return;
    }
    let schema = resolved(document, schema);
    for choice in ["allOf", "oneOf", "anyOf"].into_iter().flat_map(|key| schema[key].as_array().into_iter().flatten()) {
        properties(document, choice, at, found, depth + 1);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        found.insert(format!("{at}{name}"));
        properties(document, property, &format!("{at}{name}."), found, depth + 1);
    }
    if schema["items"].is_object() {
        properties(document, &schema["items"], &format!("{at}[]."), found, depth + 1);
    }
}

/// Whether a property of that name stands for something that is kept here.
fn is_id(at: &str) -> bool {
    let name = at.rsplit(['.', '?']).next().unwrap_or_default();
    let is_name = name == "id"
        || name.ends_with("_id")
        || name.ends_with("_ids")
        || (name.ends_with("workspaces") && !name.starts_with("allow_all"))
        || ["users", "user_api_key_config", "config"].contains(&name);
    is_name && !OUTSIDE.contains(&name) && !at.starts_with(OF_A_MANAGER) && !of_a_provider(at)
}

/// Ids at a provider: organisations, accounts, tenants.
fn of_a_provider(at: &str) -> bool {
    at.starts_with("configurations.") || at.starts_with("model_config.")
}
