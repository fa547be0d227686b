//! Clients with API keys, through the running sidecar: who is let in, what each may use, and how much of it.

pub mod stage;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use serde_json::{Value, json};
use sidekey::{clients::Clock, model::Scope};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::stage::{hash, hash_under, key, snapshot, world};
use crate::harness::{Answer, Call, Reply, World, linked};

const PAST: &str = "2020-01-01T00:00:00Z";
const FUTURE: &str = "2100-01-01T00:00:00Z";

fn chat(world: &World, secret: &str, entity: &str) -> Call {
    let call = world.post("/v1/chat/completions").header("x-portkey-api-key", secret);
    call.header("x-portkey-provider", entity).json(&json!({"model": "gpt-4o", "messages": []}))
}

/// What a client can tell two answers apart by.
fn shape(reply: &Reply) -> (u16, Vec<(String, String)>, Value) {
    let mut body = reply.json();
    body["error"]["request_id"] = Value::Null;
    let headers = reply.headers.iter().filter(|(name, _)| *name != "date");
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (reply.status, headers.collect(), body)
}

#[tokio::test]
async fn a_key_lets_in_wherever_sdks_put_it_and_goes_no_further() {
    let world = world(vec![key("one", json!({"hashes": [hash_under("k2", "pk-one", Value::Null)]}))]).await;
    let cases: &[&[(&str, &str)]] = &[
        &[("x-portkey-api-key", "pk-one")],
        &[("authorization", "Bearer pk-one")],
        &[("x-portkey-api-key", ""), ("authorization", "bearer pk-one")],
        &[("x-portkey-api-key", "pk-one"), ("authorization", "Bearer OPENAI_API_KEY")],
        &[("x-portkey-api-key", "pk-one"), ("authorization", "Bearer pk-one"), ("x-api-key", "pk-one")],
        &[("authorization", "Bearer pk-one"), ("api-key", "pk-one"), ("x-goog-api-key", "Bearer pk-one")],
    ];
    for headers in cases {
        // With a credential of ours, and without one.
        for (entity, authorization) in [("@shared", Some("Bearer sk-shared")), ("openai", None)] {
            let mut call = world.post("/v1/chat/completions").header("x-portkey-provider", entity).json(&json!({}));
            for (name, value) in *headers {
                call = call.header(name, value);
            }
            let reply = call.send().await;
            assert_eq!(reply.status, 200, "{headers:?} {entity} {reply:?}");
            let seen = world.gateway.last();
            assert_eq!(seen.header("authorization"), authorization, "{headers:?} {entity}");
            let leaks = seen.headers.values().any(|value| value.to_str().unwrap().contains("pk-one"));
            assert!(!leaks, "{headers:?} {entity}: {seen:?}");
        }
    }
    assert!(!world.logs.text().contains("pk-one"), "the key is in the log");
    let access = world.access();
    assert!(access.iter().all(|line| line["client"] == "one"), "{access:?}");
}

#[tokio::test]
async fn a_client_brings_a_credential_of_its_own_beside_its_key() {
    let world = world(vec![key("one", json!({}))]).await;
    let call = world.post("/v1/chat/completions").header("x-portkey-provider", "openai").json(&json!({}));
    let reply = call.header("x-portkey-api-key", "pk-one").header("authorization", "Bearer sk-own").send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(world.gateway.last().header("authorization"), Some("Bearer sk-own"));
}

#[tokio::test]
async fn strangers_and_keys_that_ended_are_answered_alike() {
    let old = |at: &str| json!([hash_under("k1", "pk-old", json!(at)), hash("pk-new")]);
    let world = world(vec![
        key("good", json!({})),
        key("expired", json!({"expires_at": PAST})),
        key("revoked", json!({"status": "revoked"})),
        key("rotated", json!({"hashes": old(PAST)})),
        key("under-another-kid", json!({"hashes": [{"kid": "k3", "hmac_sha256": hash("pk-k3")["hmac_sha256"]}]})),
        key("broken-and-expired", json!({"expires_at": PAST, "defaults": {"metadata": {"a": "b"}}})),
    ])
    .await;
    let long = format!("pk-good{}", "x".repeat(600));
    let cases = [
        ("pk-stranger", "no such key"),
        ("pk-goo", "no such key"),
        ("pk-goodd", "no such key"),
        ("PK-good", "no such key"),
        (&*long, "no such key"),
        ("pk-expired", "expired"),
        ("pk-revoked", "not active"),
        ("pk-old", "expired"),
        ("pk-k3", "no such key"),
        ("pk-broken-and-expired", "expired"),
        ("OPENAI_API_KEY", "no key"),
        ("", "no key"),
    ];
    let mut shapes = Vec::new();
    for (secret, reason) in cases {
        let reply = chat(&world, secret, "@shared").send().await;
        assert_eq!((reply.status, reply.code()), (401, Some("unauthorized")), "{secret}: {reply:?}");
        let id = reply.json()["error"]["request_id"].as_str().unwrap().to_owned();
        let text = world.logs.text();
        let line = text.lines().find(|line| line.contains(&id)).unwrap();
        assert!(line.contains(reason), "{secret}: {line}");
        shapes.push(shape(&reply));
    }
    assert!(shapes.iter().all(|other| *other == shapes[0]), "{shapes:#?}");
    assert!(world.gateway.seen().is_empty());
}

#[tokio::test]
async fn two_secrets_live_while_a_key_rotates() {
    let hashes = |old: &str| {
        let hashes = json!([hash_under("k1", "pk-old", json!(old)), hash_under("k2", "pk-new", Value::Null)]);
        key("one", json!({"hashes": hashes}))
    };
    let world = world(vec![hashes(FUTURE)]).await;
    for secret in ["pk-old", "pk-new"] {
        assert_eq!(chat(&world, secret, "@shared").send().await.status, 200, "{secret}");
    }
    world.feed.swap(Arc::new(linked(&snapshot(vec![hashes(PAST)]))));
    for (secret, status) in [("pk-old", 401), ("pk-new", 200)] {
        assert_eq!(chat(&world, secret, "@shared").send().await.status, status, "{secret}");
    }
}

#[tokio::test]
async fn the_workspace_of_the_key_decides_what_it_may_use() {
    let world = world(vec![
        key("a", json!({"workspace_id": "a"})),
        key("b", json!({"workspace_id": "ws-b"})),
        key("none", json!({})),
    ])
    .await;
    #[rustfmt::skip]
    let cases = [
        ("pk-a", "@shared", 200), ("pk-a", "@of-a", 200), ("pk-a", "@of-b", 400),
        ("pk-b", "@shared", 200), ("pk-b", "@of-a", 400), ("pk-b", "@of-b", 200),
        ("pk-none", "@shared", 200), ("pk-none", "@of-a", 200), ("pk-none", "@of-b", 200),
    ];
    for (secret, entity, status) in cases {
        let reply = chat(&world, secret, entity).send().await;
        assert_eq!(reply.status, status, "{secret} {entity}: {reply:?}");
        if status == 400 {
            assert_eq!(reply.code(), Some("entity_not_found"), "{secret} {entity}");
        }
    }
    #[rustfmt::skip]
    let configs = [
        ("pk-a", "pc-shared", 200), ("pk-a", "pc-of-a", 200), ("pk-a", "pc-of-b", 400), ("pk-b", "pc-of-b", 200),
        ("pk-b", "pc-of-a", 400),
    ];
    for (secret, config, status) in configs {
        let call = world.post("/v1/chat/completions").header("x-portkey-api-key", secret).json(&json!({}));
        let reply = call.header("x-portkey-config", config).send().await;
        assert_eq!(reply.status, status, "{secret} {config}: {reply:?}");
    }
    assert_eq!(world.access()[0]["workspace"], "a");
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    #[rustfmt::skip]
    let paths = [
        ("completions.write", "POST", "/v1/chat/completions"), ("completions.write", "GET", "/v1/models"),
        ("prompts.create", "POST", "/v1/prompts"), ("prompts.read", "GET", "/v1/prompts/p"),
        ("prompts.update", "PUT", "/v1/prompts/p"), ("prompts.delete", "DELETE", "/v1/prompts/p"),
        ("prompts.list", "GET", "/v1/prompts"), ("prompts.publish", "PUT", "/v1/prompts/p/makeDefault"),
        ("prompts.render", "POST", "/v1/prompts/p/render"),
        ("guardrails.create", "POST", "/v1/guardrails"), ("guardrails.read", "GET", "/v1/guardrails/g"),
        ("guardrails.update", "PUT", "/v1/guardrails/g"), ("guardrails.delete", "DELETE", "/v1/guardrails/g"),
        ("guardrails.list", "GET", "/v1/guardrails"), ("guardrails.invoke", "POST", "/v1/guardrails/g/invoke"),
        ("policies.create", "POST", "/v1/policies/usage-limits"), ("policies.read", "GET", "/v1/policies/usage-limits/p"),
        ("policies.update", "PUT", "/v1/policies/usage-limits/p"), ("policies.list", "GET", "/v1/policies/rate-limits"),
        ("policies.delete", "DELETE", "/v1/policies/usage-limits/p"),
        ("logs.export", "POST", "/v1/logs/exports"), ("logs.list", "GET", "/v1/logs"), ("logs.view", "GET", "/v1/logs/l"),
        ("logs.write", "POST", "/v1/logs"), ("analytics.view", "GET", "/v1/analytics/summary/all"),
        ("mcp.invoke", "POST", "/v1/mcp/s"), ("agents.invoke", "POST", "/v1/agents/a"),
        ("mcp_servers.create", "POST", "/v1/mcp-servers"), ("mcp_servers.read", "GET", "/v1/mcp-servers/s"),
        ("mcp_servers.update", "PUT", "/v1/mcp-servers/s"), ("mcp_servers.delete", "DELETE", "/v1/mcp-servers/s"),
        ("mcp_servers.list", "GET", "/v1/mcp-servers"),
        ("agent_servers.create", "POST", "/v1/agent-servers"), ("agent_servers.read", "GET", "/v1/agent-servers/s"),
        ("agent_servers.update", "PUT", "/v1/agent-servers/s"), ("agent_servers.delete", "DELETE", "/v1/agent-servers/s"),
        ("agent_servers.list", "GET", "/v1/agent-servers"), ("audit_logs.list", "GET", "/v1/audit-logs"),
    ];
    let scopes: BTreeSet<&str> = paths.iter().map(|(scope, ..)| *scope).collect();
    assert_eq!(scopes, Scope::ALL.iter().map(|scope| scope.as_str()).collect(), "every scope has a row");
    let mut keys: Vec<Value> = scopes.iter().map(|scope| key(scope, json!({"scopes": [scope]}))).collect();
    let others = |without: &str| scopes.iter().copied().filter(|scope| *scope != without).collect::<Vec<_>>();
    keys.extend(scopes.iter().map(|scope| key(&format!("not-{scope}"), json!({"scopes": others(scope)}))));
    keys.push(key("none", json!({"scopes": []})));
    let world = world(keys).await;
    for (scope, method, path) in paths {
        let ask = |secret: &str| {
            let call = world.call(method.parse().unwrap(), path).header("x-portkey-provider", "@shared");
            call.header("authorization", &format!("Bearer pk-{secret}")).send()
        };
        assert_eq!(ask(scope).await.status, 200, "{scope} {method} {path}");
        for secret in [&format!("not-{scope}"), "none"] {
            let reply = ask(secret).await;
            assert_eq!((reply.status, reply.code()), (403, Some("scope_not_allowed")), "{secret} {method} {path}");
            assert!(reply.text().contains(scope), "{secret} {method} {path}: {reply:?}");
        }
    }
    // The gateway's greeting is for anybody who has a key.
    for (secret, status) in [("pk-none", 200), ("pk-stranger", 401)] {
        assert_eq!(world.get("/").header("x-portkey-api-key", secret).send().await.status, status);
    }
}

#[tokio::test]
async fn defaults_are_what_a_request_starts_from() {
    let own = |more: Value| {
        let mut defaults = json!({"metadata": {"team": "a"}, "config_id": "c2"});
        defaults.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"workspace_id": "a", "defaults": defaults})
    };
    let world =
        world(vec![key("open", own(json!({}))), key("closed", own(json!({"allow_config_override": false})))]).await;
    struct Case {
        secret: &'static str,
        headers: &'static [(&'static str, &'static str)],
        status: u16,
        key: &'static str,
        metadata: &'static str,
    }
    const METADATA: &str = r#"{"team":"a"}"#;
    let cases = [
        Case { secret: "pk-open", headers: &[], status: 200, key: "sk-of-a", metadata: METADATA },
        Case {
            secret: "pk-open",
            headers: &[("x-portkey-config", "pc-shared"), ("x-portkey-metadata", r#"{"team":"b","_user":"u"}"#)],
            status: 200,
            key: "sk-shared",
            metadata: r#"{"_user":"u","team":"a"}"#,
        },
        Case {
            secret: "pk-open",
            headers: &[("x-portkey-config", r#"{"provider":"@shared"}"#)],
            status: 200,
            key: "sk-shared",
            metadata: METADATA,
        },
        Case { secret: "pk-closed", headers: &[], status: 200, key: "sk-of-a", metadata: METADATA },
        Case {
            secret: "pk-closed",
            headers: &[("x-portkey-provider", "@shared")],
            status: 200,
            key: "sk-of-a",
            metadata: METADATA,
        },
        Case {
            secret: "pk-closed",
            headers: &[("x-portkey-config", "pc-of-a")],
            status: 200,
            key: "sk-of-a",
            metadata: METADATA,
        },
        Case { secret: "pk-closed", headers: &[("x-portkey-config", "pc-shared")], status: 400, key: "", metadata: "" },
        Case { secret: "pk-closed", headers: &[("x-portkey-config", "{}")], status: 400, key: "", metadata: "" },
        Case { secret: "pk-open", headers: &[("x-portkey-metadata", "team=b")], status: 400, key: "", metadata: "" },
    ];
    for Case { secret, headers, status, key, metadata } in cases {
        let mut call = world.post("/v1/chat/completions").header("x-portkey-api-key", secret).json(&json!({}));
        for (name, value) in headers {
            call = call.header(name, value);
        }
        let reply = call.send().await;
        assert_eq!(reply.status, status, "{secret} {headers:?}: {reply:?}");
        if status == 200 {
            let seen = world.gateway.last();
            assert!(seen.header("x-portkey-config").unwrap().contains(key), "{secret} {headers:?}: {seen:?}");
            assert_eq!(seen.header("x-portkey-metadata"), Some(metadata), "{secret} {headers:?}");
        } else {
            let config = headers[0].0 == "x-portkey-config";
            let code = if config { "config_override_not_allowed" } else { "invalid_config" };
            assert_eq!(reply.code(), Some(code), "{secret} {headers:?}");
        }
    }
}

/// A wall clock for a test to move.
#[derive(Clone)]
pub struct Wall(Arc<AtomicI64>);

impl Wall {
    pub fn at(text: &str) -> Self {
        Self(Arc::new(AtomicI64::new(OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp())))
    }

    pub fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Clock::new(move || OffsetDateTime::from_unix_timestamp(seconds.load(Relaxed)).unwrap())
    }

    pub fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds, Relaxed);
    }
}

/// Each unit, of requests and of tokens, at the edges where calendars and clocks are changed.
#[tokio::test]
async fn each_unit_of_a_rate_ends_at_its_edge() {
    // Half a minute before a Sunday, a day, an hour and a minute begin; before a year does; while clocks in Europe are set
    // back and forth, and in New York.
    #[rustfmt::skip]
    let cases: [(&str, &[&str]); 5] = [
        ("2027-01-02T23:59:30Z", &["rps", "rpm", "rph", "rpd", "rpw"]),
        ("2026-12-31T23:59:30Z", &["rps", "rpm", "rph", "rpd"]),
        ("2026-10-25T00:59:30Z", &["rpm", "rph"]),
        ("2027-03-28T00:59:30Z", &["rpm", "rph"]),
        ("2026-11-01T05:59:30Z", &["rpm", "rph"]),
    ];
    for (start, units) in cases {
        for (unit, counts) in units.iter().flat_map(|unit| [(*unit, "requests"), (*unit, "tokens")]) {
            let wait = if unit == "rps" { 1 } else { 30 };
            let wall = Wall::at(start);
            let limit = json!({"rate_limits": [{"type": counts, "unit": unit, "value": 2}]});
            let mut setup = stage::setup(vec![key("one", limit), key("other", json!({}))]);
            setup.clients.clock = wall.clock();
            let world = World::start(setup).await;
            // An answer of one token.
            world.gateway.answer(|_| Answer::text(200, r#"{"usage":{"total_tokens":1}}"#));
            let (limit, remaining, reset) = (
                format!("x-ratelimit-limit-{counts}"),
                format!("x-ratelimit-remaining-{counts}"),
                format!("x-ratelimit-reset-{counts}"),
            );
            // What a request takes is known before; its tokens are not.
            for left in if counts == "requests" { ["1", "0"] } else { ["2", "1"] } {
                let reply = chat(&world, "pk-one", "@shared").send().await;
                assert_eq!(reply.status, 200, "{start} {counts} {unit}: {reply:?}");
                assert_eq!(reply.header(&remaining), Some(left), "{start} {counts} {unit}");
                assert_eq!(reply.header(&limit), Some("2"), "{start} {counts} {unit}");
            }
            for passed in 0..wait {
                let reply = chat(&world, "pk-one", "@shared").send().await;
                let answer = (reply.status, reply.code());
                assert_eq!(answer, (429, Some("rate_limited")), "{start} {counts} {unit} {passed}: {reply:?}");
                let left = (wait - passed).to_string();
                assert_eq!(reply.header("retry-after"), Some(&*left), "{start} {counts} {unit} {passed}");
                assert_eq!(reply.header(&reset), Some(&*format!("{left}s")), "{start} {counts} {unit} {passed}");
                assert_eq!(chat(&world, "pk-other", "@shared").send().await.status, 200, "{start} {counts} {unit}");
                wall.pass(1);
            }
            assert_eq!(chat(&world, "pk-one", "@shared").send().await.status, 200, "{start} {counts} {unit}");
        }
    }
}

/// Keys and secrets end at their second, keys that are revoked or moved with the snapshot that says so.
#[tokio::test]
async fn a_key_ends_at_its_second_and_with_its_snapshot() {
    let wall = Wall::at("2026-12-31T23:59:58Z");
    let (at, hash_at) =
        ("2027-01-01T00:00:00Z", json!([hash_under("k1", "pk-secret", json!("2027-01-01T01:00:00+01:00"))]));
    let keys = |status: &str, workspace: &str| {
        vec![
            key("expires", json!({"expires_at": at})),
            key("secret", json!({"hashes": hash_at})),
            key("revoked", json!({"status": status})),
            key("moved", json!({"workspace_id": workspace})),
        ]
    };
    let mut setup = stage::setup(keys("active", "a"));
    setup.clients.clock = wall.clock();
    let world = World::start(setup).await;
    let ask = async |secret: &str| chat(&world, secret, "@of-a").send().await.status;
    for _ in 0..2 {
        for secret in ["pk-expires", "pk-secret", "pk-revoked", "pk-moved"] {
            assert_eq!(ask(secret).await, 200, "{secret}");
        }
        wall.pass(1);
    }
    for (secret, status) in [("pk-expires", 401), ("pk-secret", 401), ("pk-revoked", 200), ("pk-moved", 200)] {
        assert_eq!(ask(secret).await, status, "{secret}");
    }
    world.feed.swap(Arc::new(linked(&snapshot(keys("revoked", "b")))));
    for (secret, status) in [("pk-expires", 401), ("pk-secret", 401), ("pk-revoked", 401), ("pk-moved", 400)] {
        assert_eq!(ask(secret).await, status, "{secret}");
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_counted_is_refused() {
    let world =
        world(vec![key("tokens", json!({"rate_limits": [{"type": "tokens", "unit": "rpd", "value": 1}]}))]).await;
    let call = world.get("/v1/realtime?model=gpt-4o").header("x-portkey-api-key", "pk-tokens");
    let call = call.header("x-portkey-provider", "@shared").header("connection", "upgrade");
    let call = call.header("upgrade", "websocket").header("sec-websocket-version", "13");
    let reply = call.header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==").send().await;
    assert_eq!((reply.status, reply.code()), (403, Some("session_not_metered")), "{reply:?}");
    assert!(reply.text().contains("tokens or money of the API key"), "{reply:?}");
    world.logged("cannot be counted in WebSocket sessions").await;
    assert!(world.gateway.seen().is_empty());
}

#[tokio::test]
async fn what_is_refused_is_not_counted() {
    let limit = json!({"rate_limits": [{"unit": "rpm", "value": 1}]});
    let mut setup = stage::setup(vec![key("one", limit)]);
    setup.clients.clock = Wall::at("2026-11-25T10:00:00Z").clock();
    let world = World::start(setup).await;
    let reply = world.get("/v1/logs").header("x-portkey-api-key", "pk-one").send().await;
    assert_eq!(reply.status, 403, "{reply:?}");
    assert_eq!(chat(&world, "pk-one", "@shared").send().await.status, 200);
    assert_eq!(chat(&world, "pk-one", "@shared").send().await.status, 429);
}

#[tokio::test]
async fn without_authentication_keys_do_not_matter() {
    let mut setup = stage::setup(vec![key("one", json!({}))]);
    setup.clients = sidekey::clients::Settings::default();
    let world = World::start(setup).await;
    for secret in ["pk-one", "pk-stranger", ""] {
        assert_eq!(chat(&world, secret, "@shared").send().await.status, 200, "{secret}");
    }
    assert_eq!(world.access()[0]["client"], Value::Null);
}
