//! A server that speaks Vault's HTTP API as OpenBao 2.7 does, full envelopes included, and can be told to misbehave.
//!
//! Fresh: KV v2 at `secret/`, KV v1 at `kv1/`, AppRole and Kubernetes logins, one fixed token that may read everything.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract::listening::Listening;

pub const STATIC_TOKEN: &str = "s.static-canary";
pub const SECRET_ID: &str = "secret-id-canary";
pub const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl";

/// A running server; stops when dropped.
pub struct Server {
    listening: Listening,
    state: Arc<State>,
    folder: TempDir,
}

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// With the query.
    pub target: String,
    pub token: Option<String>,
    pub namespace: Option<String>,
    pub body: String,
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    never: bool,
}

struct State {
    secrets: Mutex<HashMap<String, Vec<String>>>,
    mounts: Mutex<HashMap<String, Value>>,
    scripts: Mutex<HashMap<String, Vec<Reply>>>,
    tokens: Mutex<HashSet<String>>,
    seen: Mutex<Vec<Seen>>,
}

// === impl Server ===

impl Server {
    pub async fn start() -> Self {
        let kv = |version: &str| json!({"type": "kv", "options": {"version": version}});
        let state = Arc::new(State {
            secrets: Mutex::default(),
            mounts: Mutex::new(HashMap::from([("secret/".to_owned(), kv("2")), ("kv1/".to_owned(), kv("1"))])),
            scripts: Mutex::default(),
            tokens: Mutex::new(HashSet::from([STATIC_TOKEN.to_owned()])),
            seen: Mutex::default(),
        });
        let listening = Listening::start(&state, serve).await;
        Self { listening, state, folder: tempfile::tempdir().unwrap() }
    }

    /// An address where nobody listens.
    pub fn nobody() -> String {
        Listening::nobody()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listening.host())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new version of the secret `secret/data/{name}`.
    pub fn put(&self, name: &str, map: &str) {
        self.write(&format!("secret/{name}"), map);
    }

    /// A new version of the secret at `path`, which begins with its mount and has no `data` in it.
    pub fn write(&self, path: &str, map: &str) {
        self.state.secrets.lock().unwrap().entry(path.to_owned()).or_default().push(map.to_owned());
    }

    /// Mounts something at `prefix` (with its slash), as `sys/internal/ui/mounts` describes it.
    pub fn mount(&self, prefix: &str, engine: Value) {
        self.state.mounts.lock().unwrap().insert(prefix.to_owned(), engine);
    }

    /// Answers `path` so from now on, whatever else would happen.
    pub fn answer(&self, path: &str, reply: Reply) {
        self.script(path, [reply]);
    }

    /// Answers `path` so, one after the other, the last one for ever.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let replies = replies.into_iter().collect();
        self.state.scripts.lock().unwrap().insert(path.to_owned(), replies);
    }

    /// Ends every token, the fixed one too.
    pub fn revoke_all(&self) {
        self.state.tokens.lock().unwrap().clear();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Targets of the requests that `wanted` accepts, in order, without `/v1/`.
    pub fn targets(&self, wanted: &str) -> Vec<String> {
        let target = |seen: Seen| seen.target.strip_prefix("/v1/").unwrap_or(&seen.target).to_owned();
        self.seen().into_iter().map(target).filter(|target| target.contains(wanted)).collect()
    }
}

// === impl Reply ===

impl Reply {
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned(), never: false }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    /// No answer at all.
    pub fn never() -> Self {
        Self { never: true, ..Self::text(200, "") }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// What the access rules say.
    pub fn denied_by_policy() -> Self {
        Self::json(403, &json!({"errors": ["1 error occurred:\n\t* permission denied\n\n"]}))
    }

    /// What a token gets that is not known.
    pub fn unknown_token() -> Self {
        Self::json(403, &json!({"errors": ["permission denied"]}))
    }

    pub fn data(data: Value) -> Self {
        Self::text(200, &envelope(&data.to_string(), "null"))
    }
}

/// The envelope around every answer of 200; both parts are JSON text, so that numbers stay as they are.
fn envelope(data: &str, auth: &str) -> String {
    format!(
        r#"{{"request_id":"e9c5004f-9b10-d29a-c9f8-cdb30b19feb3","lease_id":"","renewable":false,"lease_duration":0,"data":{data},"wrap_info":null,"warnings":null,"auth":{auth}}}"#
    )
}

async fn serve(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        token: header("x-vault-token"),
        namespace: header("x-vault-namespace"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    state.seen.lock().unwrap().push(seen.clone());
    let reply = match header("x-vault-request").as_deref() {
        Some("true") => state.reply(&seen, head.uri.path(), head.uri.query()),
        _ => Reply::json(400, &json!({"errors": ["missing required 'X-Vault-Request' header"]})),
    };
    if reply.never {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(Bytes::from(reply.body))).unwrap())
}

// === impl State ===

impl State {
    fn reply(&self, seen: &Seen, path: &str, query: Option<&str>) -> Reply {
        if let Some(script) = self.scripts.lock().unwrap().get_mut(path) {
            return if script.len() > 1 { script.remove(0) } else { script[0].clone() };
        }
        let path = path.strip_prefix("/v1/").unwrap_or(path);
        if let Some(method) = path.strip_prefix("auth/").and_then(|path| path.strip_suffix("/login")) {
            return self.log_in(method, &seen.body);
        }
        if !seen.token.as_ref().is_some_and(|token| self.tokens.lock().unwrap().contains(token)) {
            return Reply::unknown_token();
        }
        match path {
            "auth/token/lookup-self" => Reply::data(json!({"ttl": 3600, "renewable": true, "id": seen.token})),
            "auth/token/renew-self" => self.token(seen.token.clone().unwrap()),
            _ => match path.strip_prefix("sys/internal/ui/mounts/") {
                Some(path) => self.describe(path),
                None => self.read(path, query),
            },
        }
    }

    fn log_in(&self, method: &str, body: &str) -> Reply {
        let wanted = match method {
            "approle" => json!({"role_id": "gw", "secret_id": SECRET_ID}),
            "kubernetes" | "k8s/prod" => json!({"role": "gw", "jwt": JWT}),
            _ => {
                return Reply::json(404, &json!({"errors": [format!("no handler for route \"auth/{method}/login\"")]}));
            }
        };
        if serde_json::from_str::<Value>(body).ok() != Some(wanted) {
            return Reply::json(400, &json!({"errors": ["invalid role or secret ID"]}));
        }
        let token = format!("s.canary-{}", self.seen.lock().unwrap().len());
        self.tokens.lock().unwrap().insert(token.clone());
        self.token(token)
    }

    fn token(&self, token: String) -> Reply {
        let auth = json!({
            "client_token": token, "accessor": "a", "policies": ["default"], "token_policies": ["default"],
            "metadata": null, "lease_duration": 3600, "renewable": true, "entity_id": "",
            "token_type": "service", "orphan": true, "mfa_requirement": null, "num_uses": 0,
        });
        Reply::text(200, &envelope("null", &auth.to_string()))
    }

    fn describe(&self, path: &str) -> Reply {
        let mounts = self.mounts.lock().unwrap();
        let found = mounts.iter().find(|(prefix, _)| format!("{path}/").starts_with(prefix.as_str()));
        let Some((prefix, engine)) = found else {
            let text = format!(
                "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}/\""
            );
            return Reply::json(403, &json!({"errors": [text]}));
        };
        let mut data = engine.clone();
        data["path"] = json!(prefix);
        data["accessor"] = json!("kv_05bea585");
        Reply::data(data)
    }

    fn read(&self, path: &str, query: Option<&str>) -> Reply {
        let path = percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned();
        let mounts = self.mounts.lock().unwrap();
        let secrets = self.secrets.lock().unwrap();
        let absent = || Reply::json(404, &json!({"errors": []}));
        let Some((prefix, engine)) = mounts.iter().find(|(prefix, _)| path.starts_with(prefix.as_str())) else {
            return Reply::json(
                404,
                &json!({"errors": [format!("no handler for route {path:?}. route entry not found.")]}),
            );
        };
        let rest = &path[prefix.len()..];
        if engine["options"]["version"] != "2" {
            let versions = secrets.get(&path);
            return versions.map_or_else(absent, |maps| Reply::text(200, &envelope(maps.last().unwrap(), "null")));
        }
        let Some(name) = rest.strip_prefix("data/") else {
            let warning = "Invalid path for a versioned K/V secrets engine.";
            return Reply::json(404, &json!({"request_id": "r", "data": null, "warnings": [warning], "auth": null}));
        };
        let Some(versions) = secrets.get(&format!("{prefix}{name}")) else { return absent() };
        let wanted = query.and_then(|query| query.strip_prefix("version=")).map_or(0, |number| number.parse().unwrap());
        let number = if wanted == 0 { versions.len() } else { wanted };
        let Some(map) = versions.get(number - 1) else { return absent() };
        let (status, map, deletion, destroyed) = match map.as_str() {
            "deleted" => (404, "null", "2026-11-25T07:54:25.960089561Z", false),
            "destroyed" => (404, "null", "", true),
            map => (200, map, "", false),
        };
        let data = format!(
            r#"{{"data":{map},"metadata":{{"created_time":"2026-11-25T07:54:25.616660783Z","custom_metadata":null,"deletion_time":"{deletion}","destroyed":{destroyed},"version":{number}}}}}"#
        );
        Reply::text(status, &envelope(&data, "null"))
    }
}
