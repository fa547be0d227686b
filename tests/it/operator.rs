//! The operator API and its command: who may ask, what is told, and that no answer holds a value.

use std::{fs, net::SocketAddr, path::Path};

use http::Method;
use serde_json::{Value, json};
use sidekey::{
    admin::Operator,
    manager::{
        FailureClass,
        fake::{Answer, Fake},
    },
};
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{Call, Reply, Setup, World, within};

const TOKEN: &str = "an-operator-token-of-length";
const BEARER: &str = "Bearer an-operator-token-of-length";
/// A secret that no answer may hold.
const CANARY: &str = "sk-canary-op-5e";
/// Its fingerprint under the key `0123456789abcdef`.
const FINGERPRINT: &str = "e51b4b8d01ab5b47";

/// A world with two references, a folder with the token, and where the operator API is.
struct Stage {
    world: World,
    folder: TempDir,
    admin: SocketAddr,
}

impl Stage {
    async fn start() -> Self {
        let reference = |slug: &str| {
            json!({"id": format!("id-{slug}"), "slug": slug, "manager_type": "hashicorp_vault", "secret_path": slug,
                "status": if slug == "off" { "disabled" } else { "active" },
                "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.example:8200", "vault_token": "t"}})
        };
        let key = |slug: &str| {
            json!({"id": slug, "slug": slug, "provider": "openai", "status": "active",
                "secret_mappings": [{"target_field": "key", "secret_reference_id": slug}]})
        };
        // Two keys of one document.
        let picky = |slug: &str, secret_key: &str| {
            let mut key = key(slug);
            key["secret_mappings"] =
                json!([{"target_field": "key", "secret_reference_id": "pair", "secret_key": secret_key}]);
            key
        };
        let snapshot = json!({"schema_version": 1, "version": 7, "organisation_id": "o",
            "secret_references": [reference("a"), reference("b"), reference("off"), reference("pair")],
            "virtual_keys": [key("a"), key("b"), picky("left", "l"), picky("right", "r.key")]});
        let world = World::start(Setup { snapshot: Some(snapshot), ..Setup::default() }).await;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        fs::write(folder.path().join("key"), "0123456789abcdef").unwrap();
        let path = |name| Some(folder.path().join(name));
        let admin = world.operated(Operator::new(path("token"), path("key")).unwrap()).await;
        Self { world, folder, admin }
    }

    fn secrets(&self) -> &Fake {
        &self.world.secrets
    }

    /// A request with the token.
    fn call(&self, method: Method, target: &str) -> Call {
        Call::to(self.admin, method, target).header("authorization", BEARER)
    }

    async fn post(&self, target: &str, body: Value) -> Reply {
        let reply = self.call(Method::POST, target).json(&body).send().await;
        assert!(!reply.text().contains(CANARY), "{reply:?}");
        reply
    }

    /// The list, by reference.
    async fn state(&self, slug: &str) -> Value {
        let reply = self.call(Method::GET, "/v1/secrets").send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(!reply.text().contains(CANARY), "{reply:?}");
        let list = reply.json();
        assert_eq!(
            (&list["object"], &list["snapshot_version"], &list["total"]),
            (&json!("list"), &json!(7), &json!(4))
        );
        list["data"].as_array().unwrap().iter().find(|row| row["reference"] == slug).unwrap().clone()
    }

    /// A client's request that uses the virtual key `slug`: its status and the credential that arrived.
    async fn used(&self, slug: &str) -> (u16, Option<String>) {
        let before = self.world.gateway.seen().len();
        let call = self.world.get("/v1/models").header("x-portkey-provider", &format!("@{slug}"));
        let status = within(call.send()).await.status;
        let seen = self.world.gateway.seen();
        (status, seen[before..].iter().find_map(|seen| seen.header("authorization").map(str::to_owned)))
    }
}

#[tokio::test]
async fn only_who_has_the_token_may_ask() {
    let stage = Stage::start().await;
    struct Case {
        name: &'static str,
        headers: &'static [(&'static str, &'static str)],
        status: u16,
        code: &'static str,
    }
    let cases = [
        Case { name: "no token", headers: &[], status: 401, code: "unauthorized" },
        Case { name: "wrong", headers: &[("authorization", "Bearer x")], status: 401, code: "unauthorized" },
        Case { name: "basic", headers: &[("authorization", "Basic eDp5")], status: 401, code: "unauthorized" },
        Case {
            name: "a page",
            headers: &[("authorization", BEARER), ("origin", "https://evil.example")],
            status: 403,
            code: "scope_not_allowed",
        },
        Case {
            name: "a sandboxed page",
            headers: &[("authorization", BEARER), ("origin", "null")],
            status: 403,
            code: "scope_not_allowed",
        },
        Case { name: "a form", headers: &[("authorization", BEARER)], status: 400, code: "invalid_body" },
        Case {
            name: "text",
            headers: &[("authorization", BEARER), ("content-type", "text/plain")],
            status: 400,
            code: "invalid_body",
        },
    ];
    for Case { name, headers, status, code } in cases {
        let mut call = Call::to(stage.admin, Method::POST, "/v1/secrets/refresh").body(r#"{"all": true}"#);
        for (header, value) in headers {
            call = call.header(header, value);
        }
        let reply = call.send().await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &json!(code)), "{name}: {reply:?}");
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401, "{name}");
    }
    let counted = stage.world.metrics.encode();
    let unauthorized = r#"sidekey_operator_requests_total{operation="refresh",code="unauthorized"} 3"#;
    assert!(counted.contains(unauthorized), "{counted}");

    // A token that was replaced counts at once, and without a file nobody is let in.
    fs::write(stage.folder.path().join("token"), "another-token-of-some-length").unwrap();
    assert_eq!(stage.call(Method::GET, "/v1/secrets").send().await.status, 401);
    fs::remove_file(stage.folder.path().join("token")).unwrap();
    assert_eq!(stage.call(Method::GET, "/v1/secrets").send().await.status, 403);
    assert_eq!(Call::to(stage.admin, Method::GET, "/healthz").send().await.status, 200);
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_so() {
    let stage = Stage::start().await;
    for (method, target, body, status) in [
        (Method::GET, "/v1/secrets/refresh", json!({}), 405),
        (Method::POST, "/v1/secrets", json!({}), 405),
        (Method::DELETE, "/v1/secrets", json!({}), 405),
        (Method::POST, "/v1/secrets/refresh", json!({}), 400),
        (Method::POST, "/v1/secrets/refresh", json!([]), 400),
        (Method::POST, "/v1/secrets/refresh", json!({"reference": "a", "all": true}), 400),
        (Method::POST, "/v1/secrets/refresh", json!({"reference": "a", "value": "x"}), 400),
        (Method::POST, "/v1/secrets/refresh", json!({"all": false}), 400),
        (Method::POST, "/v1/secrets/refresh", json!({"reference": "nobody"}), 404),
        (Method::POST, "/v1/secrets/test", json!({"all": true}), 400),
        (Method::POST, "/v1/secrets/test", json!({"reference": "x".repeat(20_000)}), 400),
        (Method::POST, "/v1/secrets/test", json!({"reference": "nobody"}), 404),
        (Method::POST, "/v1/secrets/nothing", json!({}), 404),
    ] {
        let reply = stage.call(method.clone(), target).json(&body).send().await;
        assert_eq!(reply.status, status, "{method} {target} {body}");
    }
    assert_eq!(stage.secrets().total_calls(), 0);
}

#[tokio::test]
async fn states_are_told_as_a_request_would_find_them() {
    let stage = Stage::start().await;
    stage.secrets().script("a", [Answer::text(CANARY).version("3")]);
    stage.secrets().script("b", [Answer::fail(FailureClass::Denied)]);
    assert_eq!(stage.state("a").await["state"], "empty");
    assert_eq!(stage.used("a").await.0, 200);
    assert_eq!(stage.used("b").await.0, 502);
    let a = json!({"reference": "a", "manager": "hashicorp_vault", "state": "fresh", "age_secs": 0, "version": "3",
        "last_outcome": "ok", "failures": 0, "unusable": []});
    assert_eq!(stage.state("a").await, a);
    let b = json!({"reference": "b", "manager": "hashicorp_vault", "state": "refused", "age_secs": null, "version": null,
        "last_outcome": "denied", "failures": 1, "unusable": []});
    assert_eq!(stage.state("b").await, b);
}

#[tokio::test]
async fn a_refresh_is_felt_by_the_next_request() {
    let stage = Stage::start().await;
    stage.secrets().script("a", [Answer::text("sk-1")]);
    stage.secrets().script("b", [Answer::fail(FailureClass::Unavailable), Answer::text("sk-b")]);
    assert_eq!(stage.used("a").await.1.as_deref(), Some("Bearer sk-1"));
    stage.secrets().script("a", [Answer::text(CANARY).version("9")]);
    assert_eq!(stage.used("a").await.1.as_deref(), Some("Bearer sk-1"), "remembered");
    let reply = stage.post("/v1/secrets/refresh", json!({"reference": "id-a"})).await;
    assert_eq!(
        (reply.status, &reply.json()["version"], &reply.json()["last_outcome"]),
        (200, &json!("9"), &json!("ok"))
    );
    assert_eq!(stage.used("a").await.1, Some(format!("Bearer {CANARY}")));

    // A failure that is remembered is no reason not to try.
    assert_eq!(stage.used("b").await.0, 503);
    assert_eq!(stage.post("/v1/secrets/refresh", json!({"reference": "b"})).await.json()["last_outcome"], "ok");
    assert_eq!(stage.used("b").await.1.as_deref(), Some("Bearer sk-b"));

    // A read that fails leaves the value.
    stage.secrets().script("a", [Answer::fail(FailureClass::Timeout)]);
    let reply = stage.post("/v1/secrets/refresh", json!({"all": true})).await;
    assert_eq!((reply.status, &reply.json()["read"]), (200, &json!(1)));
    assert_eq!(reply.json()["failed"][0]["last_outcome"], "timeout");
    assert_eq!(stage.used("a").await.1, Some(format!("Bearer {CANARY}")));

    let reply = stage.post("/v1/secrets/refresh", json!({"reference": "off"})).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (403, &json!("entity_inactive")));
}

#[tokio::test]
async fn a_test_fetches_past_the_cache_and_leaves_it() {
    let stage = Stage::start().await;
    stage.secrets().script("a", [Answer::text("sk-1")]);
    assert_eq!(stage.used("a").await.0, 200);
    stage.secrets().script("a", [Answer::text(CANARY).version("4")]);
    let reply = stage.post("/v1/secrets/test", json!({"reference": "a"})).await;
    let mut told = reply.json();
    assert!(told["latency_ms"].is_number());
    told.as_object_mut().unwrap().remove("latency_ms");
    let expected = json!({"reference": "a", "manager": "hashicorp_vault", "identity": "fake", "class": "ok",
        "manager_code": null, "version": "4", "fingerprint": FINGERPRINT, "unusable": []});
    assert_eq!(told, expected);
    assert_eq!(stage.used("a").await.1.as_deref(), Some("Bearer sk-1"), "the cache is as it was");

    stage.secrets().script("a", [Answer::fail(FailureClass::Denied)]);
    let told = stage.post("/v1/secrets/test", json!({"reference": "a"})).await.json();
    assert_eq!((&told["class"], &told["fingerprint"]), (&json!("denied"), &Value::Null));
    let told = stage.post("/v1/secrets/test", json!({"reference": "off"})).await.json();
    assert_eq!((&told["class"], &told["manager_code"]), (&json!("misconfigured"), &json!("inactive")));
    assert_eq!(stage.used("a").await.1.as_deref(), Some("Bearer sk-1"));
}

#[tokio::test]
async fn a_key_that_a_document_lacks_is_told() {
    let stage = Stage::start().await;
    let folder = stage.folder.path();
    let configuration = format!("admin_listen: {}\nadmin_token_file: token\n", stage.admin);
    fs::write(folder.join("sidecar.yaml"), configuration).unwrap();
    let lacks = |entity: &str, reason: &str| json!({"entity": entity, "field": "api_key", "reason": reason});
    struct Case {
        name: &'static str,
        document: &'static str,
        state: &'static str,
        outcome: &'static str,
        unusable: Vec<Value>,
        left: u16,
    }
    let cases = [
        Case {
            name: "both",
            document: r#"{"l": "sk-canary-op-5e", "r": {"key": "2"}}"#,
            state: "fresh",
            outcome: "ok",
            unusable: vec![],
            left: 200,
        },
        Case {
            name: "one is missing",
            document: r#"{"l": "sk-canary-op-5e", "r": {}}"#,
            state: "refused",
            outcome: "malformed",
            unusable: vec![lacks("right", "the secret has no such key")],
            left: 200,
        },
        Case {
            name: "one is missing, the other is empty",
            document: r#"{"l": "", "x": "sk-canary-op-5e"}"#,
            state: "refused",
            outcome: "malformed",
            unusable: vec![lacks("left", "the value is empty"), lacks("right", "the secret has no such key")],
            left: 502,
        },
        Case {
            name: "no JSON",
            document: CANARY,
            state: "refused",
            outcome: "malformed",
            unusable: vec![lacks("left", "the secret is not JSON"), lacks("right", "the secret is not JSON")],
            left: 502,
        },
    ];
    for Case { name, document, state, outcome, unusable, left } in cases {
        let stage = Stage::start().await;
        stage.secrets().script("pair", [Answer::text(document)]);
        let refreshed = stage.post("/v1/secrets/refresh", json!({"reference": "pair"})).await.json();
        let told = (&refreshed["state"], &refreshed["last_outcome"], &refreshed["failures"]);
        assert_eq!(told, (&json!(state), &json!(outcome), &json!(0)), "{name}: {refreshed}");
        let mut listed = refreshed["unusable"].as_array().unwrap().clone();
        listed.sort_by_key(Value::to_string);
        assert_eq!(listed, unusable, "{name}");
        assert_eq!(stage.state("pair").await, refreshed, "{name}");
        let tested = stage.post("/v1/secrets/test", json!({"reference": "pair"})).await.json();
        assert_eq!((&tested["class"], &tested["unusable"]), (&json!(outcome), &refreshed["unusable"]), "{name}");
        let all = stage.post("/v1/secrets/refresh", json!({"all": true})).await.json();
        let broken = usize::from(!unusable.is_empty());
        assert_eq!((&all["read"], all["failed"].as_array().unwrap().len()), (&json!(1 - broken), broken), "{name}");
        assert_eq!(stage.used("left").await.0, left, "{name}: as a request finds it");
    }

    // The same on a screen, and as an exit status.
    stage.secrets().script("pair", [Answer::text(r#"{"l": "sk-canary-op-5e"}"#)]);
    for (arguments, ended) in [(&["refresh", "pair"][..], 1), (&["test", "pair"], 1), (&["list"], 0)] {
        let (status, out, err) = secrets(folder, &[arguments, &["--config", "sidecar.yaml"]].concat()).await;
        assert_eq!((status, &*err), (ended, ""), "{arguments:?}: {out}");
        assert!(out.contains("malformed") && !out.contains(CANARY), "{arguments:?}: {out}");
        assert!(out.contains("pair, api_key of @right: the secret has no such key"), "{arguments:?}: {out}");
    }
}

/// What the command printed, and how it ended.
async fn secrets(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    let ran = command.arg("secrets").args(arguments).current_dir(folder).env_clear().output();
    let ran = within(ran).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
}

#[tokio::test]
async fn the_command_asks_a_running_sidecar() {
    let stage = Stage::start().await;
    let folder = stage.folder.path();
    stage.secrets().script("a", [Answer::text(CANARY).version("3")]);
    stage.secrets().script("b", [Answer::fail(FailureClass::Denied)]);
    let configuration = format!("admin_listen: {}\nadmin_token_file: token\n", stage.admin);
    fs::write(folder.join("sidecar.yaml"), configuration).unwrap();
    let config = ["--config", "sidecar.yaml"];
    let (status, out, err) = secrets(folder, &[&["test", "a"], &config[..]].concat()).await;
    assert_eq!((status, &*err), (0, ""), "{out}");
    assert!(out.lines().nth(1).is_some_and(|row| row.contains(FINGERPRINT) && row.contains("ok")), "{out}");
    let (status, out, _) = secrets(folder, &[&["test", "b"], &config[..]].concat()).await;
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("denied"), "{out}");
    let (status, out, _) = secrets(folder, &[&["refresh", "a"], &config[..]].concat()).await;
    assert_eq!(status, 0, "{out}");
    let (status, out, _) = secrets(folder, &[&["refresh", "--all"], &config[..]].concat()).await;
    assert_eq!((status, &*out), (0, "1 read\n"));

    let address = stage.admin.to_string();
    let (status, out, err) = secrets(folder, &["list", "--admin", &address, "--token-file", "token"]).await;
    assert_eq!((status, &*err), (0, ""));
    let rows: Vec<Vec<_>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..3], ["a", "hashicorp_vault", "fresh"], "{out}");
    assert_eq!(rows[2], ["b", "hashicorp_vault", "empty", "-", "-", "-"], "{out}");
    assert!(!out.contains(CANARY));

    fs::write(folder.join("wrong"), "another-token-of-some-length").unwrap();
    for (arguments, status, shown) in [
        (&["list", "--admin", &*address, "--token-file", "wrong"][..], 1, "unauthorized"),
        (&["test", "nobody", "--config", "sidecar.yaml"], 1, "not_found"),
        (&["list", "--admin", &*address], 64, "no token"),
        (&["list", "--admin", &*address, "--token-file", "nowhere"], 64, "the token file cannot be read"),
        (&["list", "--admin", "127.0.0.1:1", "--token-file", "token"], 1, "does not answer"),
        (&["refresh", "--config", "sidecar.yaml"], 64, "required"),
        (&["refresh", "a", "--all", "--config", "sidecar.yaml"], 64, "cannot be used with"),
    ] {
        let (ended, _, err) = secrets(folder, arguments).await;
        assert_eq!(ended, status, "{arguments:?}: {err}");
        assert!(err.contains(shown), "{arguments:?}: {err}");
    }
}
