//! Limits of tokens and money, through the running sidecar: what answers use is counted as they pass, and a spent budget is
//! one before the client can know that the answer is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sidekey::{
    clients::{AlertSettings, Clients},
    dialect::usage::{Tokens, Usage},
    egress,
    metric::{Metrics, OutcomeLabels},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{
        Wall,
        stage::{self, key, setup},
    },
    harness::{Answer, Call, Gateway, Raw, Reply, Setup, World, linked},
};

const NOW: &str = "2026-11-25T10:00:00Z";

/// A completion of 60 tokens, of a model that costs 2.5 and 10 dollars for a million.
const DOCUMENT: &str = r#"{"model":"gpt-4o-2024-08-06","choices":[],"usage":{"prompt_tokens":40,"completion_tokens":20,"total_tokens":60}}"#;

async fn world(setup: Setup) -> (World, Wall) {
    let wall = Wall::at(NOW);
    let mut setup = setup;
    setup.clients.clock = wall.clock();
    let world = World::start(setup).await;
    world.gateway.answer(|_| json_answer(DOCUMENT));
    (world, wall)
}

fn json_answer(body: &str) -> Answer {
    Answer { headers: vec![("content-type", "application/json".into())], ..Answer::text(200, body.to_owned()) }
}

fn events(body: &str) -> Answer {
    Answer { headers: vec![("content-type", "text/event-stream".into())], ..Answer::text(200, body.to_owned()) }
}

fn chat(world: &World, secret: &str) -> Call {
    let call = world.post("/v1/chat/completions").header("x-portkey-api-key", secret);
    call.header("x-portkey-provider", "@shared").json(&json!({"model": "gpt-4o", "messages": []}))
}

fn tokens(value: u64) -> Value {
    json!({"rate_limits": [{"type": "tokens", "unit": "rph", "value": value}]})
}

fn answer(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status, reply.code())
}

#[tokio::test]
async fn tokens_are_counted_however_the_answer_comes() {
    let sse = "data: {\"choices\":[]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":20,\"total_tokens\":60}}\n\ndata: [DONE]\n\n";
    let messages = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":40,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":20}}\n\n";
    for (name, reply) in [("document", json_answer(DOCUMENT)), ("events", events(sse)), ("messages", events(messages))]
    {
        let (world, wall) = world(setup(vec![key("one", tokens(100))])).await;
        world.gateway.answer(move |_| Answer { status: 200, headers: reply.headers.clone(), body: reply.body.clone() });
        for remaining in ["100", "40"] {
            let reply = chat(&world, "pk-one").send().await;
            assert_eq!(reply.status, 200, "{name}: {reply:?}");
            assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some(remaining), "{name}");
            assert_eq!(reply.header("x-ratelimit-limit-tokens"), Some("100"), "{name}");
        }
        let reply = chat(&world, "pk-one").send().await;
        assert_eq!(answer(&reply), (429, Some("rate_limited")), "{name}: {reply:?}");
        assert_eq!(reply.header("retry-after"), Some("3600"), "{name}");
        assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some("0"), "{name}");
        assert!(reply.text().contains("tokens per hour"), "{name}: {reply:?}");
        assert!(world.gateway.last().header("accept-encoding").is_none(), "{name}: a compressed answer was asked for");
        wall.pass(3600);
        assert_eq!(chat(&world, "pk-one").send().await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn a_budget_of_money_ends_and_starts_anew() {
    // An answer costs 40 * 2.5 + 20 * 10 millionths of a dollar.
    let budget = json!({"usage_limits": {"type": "cost", "credit_limit": 0.0006, "alert_threshold": 0.0003, "periodic_reset": "monthly"}});
    let (world, wall) = world(setup(vec![key("one", budget)])).await;
    for _ in 0..2 {
        assert_eq!(chat(&world, "pk-one").send().await.status, 200);
    }
    world.logged("has reached its alert threshold").await;
    let reply = chat(&world, "pk-one").send().await;
    assert_eq!(answer(&reply), (412, Some("budget_exhausted")), "{reply:?}");
    assert!(reply.text().contains("2026-12-01"), "{reply:?}");
    assert_eq!(world.gateway.seen().len(), 2);
    assert_eq!(world.metrics.usage_unpriced.get(), 0);
    // Reading files spends nothing.
    let files = world.get("/v1/files").header("x-portkey-api-key", "pk-one").header("x-portkey-provider", "@shared");
    assert_eq!(files.send().await.status, 200);
    wall.pass(6 * 86_400);
    assert_eq!(chat(&world, "pk-one").send().await.status, 200);
}

#[tokio::test]
async fn what_an_answer_does_not_say_is_estimated_and_errors_cost_nothing() {
    struct Case {
        name: &'static str,
        answer: Answer,
        path: &'static str,
        /// Whether the next request still finds its ten tokens untouched.
        free: bool,
    }
    let silent = r#"{"choices":[{"message":{"content":"hello, how are you?"}}]}"#;
    let case = |name, answer, path, free| Case { name, answer, path, free };
    const CHAT: &str = "/v1/chat/completions";
    let cases = [
        case("a silent document", json_answer(silent), CHAT, false),
        case("a silent stream", events("data: {\"choices\":[]}\n\ndata: [DONE]\n\n"), CHAT, false),
        case("a compressed one", json_answer(DOCUMENT).header("content-encoding", "br"), CHAT, false),
        case(
            "sound",
            Answer { headers: vec![("content-type", "audio/mpeg".into())], ..Answer::text(200, "x") },
            "/v1/audio/speech",
            false,
        ),
        case("an error", Answer { status: 500, ..json_answer(r#"{"error":{}}"#) }, CHAT, true),
        case(
            "a model that is counted, not asked",
            json_answer(r#"{"input_tokens":4000}"#),
            "/v1/messages/count_tokens",
            true,
        ),
        case("a file", json_answer(r#"{"id":"file-1"}"#), "/v1/files", true),
    ];
    for Case { name, answer: given, path, free } in cases {
        let (world, _) = world(setup(vec![key("one", tokens(10))])).await;
        world.gateway.answer(move |_| Answer {
            status: given.status,
            headers: given.headers.clone(),
            body: given.body.clone(),
        });
        let ask = || {
            let call = world.post(path).header("x-portkey-api-key", "pk-one").header("x-portkey-provider", "@shared");
            call.json(&json!({"model": "m", "input": "x".repeat(60)})).send()
        };
        ask().await;
        let reply = ask().await;
        assert_eq!(reply.status == 429, !free, "{name}: {reply:?}");
        let remaining = if free { "10" } else { "0" };
        assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some(remaining), "{name}");
    }
}

/// Who may write a file cannot spend with it what others share.
#[tokio::test]
async fn what_a_stored_file_says_is_not_charged() {
    let poison = r#"{"usage":{"total_tokens":1e18},"model":"gpt-4o"}"#;
    for (path, free) in [
        ("/v1/files/f/content", true),
        ("/v1/batches/b/output", true),
        ("/v1/vector_stores/v/files/f/content", true),
        ("/v1/responses/r", false),
    ] {
        let (world, _) = world(setup(vec![key("one", tokens(100))])).await;
        world.gateway.answer(move |_| json_answer(poison));
        let read = world.get(path).header("x-portkey-api-key", "pk-one").header("x-portkey-provider", "@shared");
        let reply = read.send().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, poison), "{path}");
        let status = if free { 200 } else { 429 };
        assert_eq!(chat(&world, "pk-one").send().await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_what_it_asked() {
    let gateway = Raw::bind().await;
    let mut setup = setup(vec![key("one", tokens(8))]);
    setup.upstream = Some(gateway.address);
    let (world, _) = world(setup).await;
    let body = r#"{"model":"gpt-4o","messages":[]}"#;
    let mut client = world.wire().await;
    client
        .send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-portkey-api-key: pk-one\r\nx-portkey-provider: @shared\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    let mut asked = gateway.accept().await;
    asked.until(body).await;
    drop(client);
    let spent = async {
        while world.metrics.usage_answers.get_or_create(&OutcomeLabels { outcome: "estimated" }).get() == 0 {
            tokio::task::yield_now().await;
        }
    };
    crate::harness::within(spent).await;
    let reply = chat(&world, "pk-one").send().await;
    assert_eq!(answer(&reply), (429, Some("rate_limited")), "{reply:?}");
}

#[tokio::test]
async fn virtual_keys_and_workspaces_have_limits_of_the_same_kind() {
    let limited = |field: &str, at: &str, limit: Value| {
        let mut setup = setup(vec![key("a", json!({"workspace_id": "a"})), key("b", json!({"workspace_id": "b"}))]);
        let snapshot = setup.snapshot.as_mut().unwrap();
        snapshot.pointer_mut(at).unwrap()[field] = limit;
        setup
    };
    let requests = json!([{"type": "requests", "unit": "rpd", "value": 1}]);
    let budget = json!({"type": "tokens", "credit_limit": 50});
    let cases = [
        (
            "rate_limits",
            "/virtual_keys/0",
            requests.clone(),
            429,
            "the virtual key has reached its limit of requests per day",
            429,
        ),
        (
            "usage_limits",
            "/virtual_keys/0",
            budget.clone(),
            412,
            "the virtual key has used up its budget of tokens",
            412,
        ),
        ("rate_limits", "/workspaces/0", requests, 429, "the workspace has reached its limit of requests per day", 200),
        ("usage_limits", "/workspaces/0", budget, 412, "the workspace has used up its budget of tokens", 200),
    ];
    for (field, at, limit, status, message, other) in cases {
        let (world, _) = world(limited(field, at, limit)).await;
        assert_eq!(chat(&world, "pk-a").send().await.status, 200, "{field} {at}");
        let reply = chat(&world, "pk-a").send().await;
        assert_eq!(reply.status, status, "{field} {at}: {reply:?}");
        assert!(reply.text().contains(message), "{field} {at}: {reply:?}");
        // A virtual key is the same whoever uses it; a workspace is its own.
        assert_eq!(chat(&world, "pk-b").send().await.status, other, "{field} {at}");
    }
}

#[tokio::test]
async fn of_several_virtual_keys_the_one_that_was_used_is_charged() {
    let mut setup = setup(vec![key("one", json!({}))]);
    let keys = setup.snapshot.as_mut().unwrap()["virtual_keys"].as_array_mut().unwrap();
    for (at, value) in [(0, 3), (1, 1), (2, 9)] {
        keys[at]["rate_limits"] = json!([{"type": "requests", "unit": "rpd", "value": value}]);
    }
    let (world, _) = world(setup).await;
    let config = json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "@shared"}, {"provider": "@of-a"}]});
    let ask = || {
        let call = world.post("/v1/chat/completions").header("x-portkey-api-key", "pk-one");
        call.header("x-portkey-config", &config.to_string()).json(&json!({"model": "gpt-4o"})).send()
    };
    // The first target has room for three, the second for one; what has none is left out, and the other one stands in.
    let config =
        || -> Value { serde_json::from_str(world.gateway.last().header("x-portkey-config").unwrap()).unwrap() };
    for (used, status, targets) in [(0, 200, 2), (0, 200, 2), (1, 200, 2), (0, 200, 1), (0, 429, 1)] {
        world.gateway.answer(move |_| {
            json_answer(DOCUMENT).header("x-portkey-last-used-option-index", format!("config.targets[{used}]"))
        });
        let reply = ask().await;
        assert_eq!(reply.status, status, "{used} {targets}: {reply:?}");
        let config = config();
        assert_eq!(config["targets"].as_array().unwrap().len(), targets, "{config}");
        assert_eq!(config["targets"][0]["api_key"], "sk-shared", "{config}");
    }
    assert_eq!(world.gateway.seen().len(), 4, "what nobody has room for is not sent");
}

#[tokio::test]
async fn a_webhook_is_told_once_of_each_line_and_again_after_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "0123456789abcdef0123").unwrap();
    let receiver = Gateway::start().await;
    let failures = AtomicU64::new(0);
    receiver.answer(move |_| Answer::text(if failures.fetch_add(1, Relaxed) == 0 { 503 } else { 204 }, ""));
    let mut settings = setup(vec![]).clients;
    let webhook_url = format!("http://{}/alerts", receiver.address).parse().unwrap();
    settings.alerts = Some(AlertSettings { webhook_url, secret_file });
    settings.clock = Wall::at(NOW).clock();
    let metrics = Arc::new(Metrics::new());
    let clients = Arc::new(Clients::new(settings, Arc::clone(&metrics)).unwrap());
    let allow_cidrs = vec!["127.0.0.1/32".parse().unwrap()];
    let policy = egress::Policy::new(egress::Settings { allow_cidrs, ..egress::Settings::default() });
    let transport = Arc::new(egress::Transport::new(policy, Vec::new(), Duration::from_secs(3)).unwrap());
    let (alerting, end) = (Arc::clone(&clients), CancellationToken::new());
    let (until, _guard) = (end.clone(), end.drop_guard());
    tokio::spawn(async move { alerting.alert(transport, until).await });

    let budget = json!({"usage_limits": {"type": "tokens", "credit_limit": 100, "alert_threshold": 50}});
    let snapshot = linked(&stage::snapshot(vec![key("one", budget)]));
    let head = http::Request::post("/v1/chat/completions").header("x-portkey-api-key", "pk-one").body(()).unwrap();
    let client = clients.authenticate(&mut head.into_parts().0, &snapshot).unwrap();
    for _ in 0..5 {
        let admission = clients.admit(&client, &[], &snapshot, false).await;
        let tokens = Tokens { input: 30, ..Tokens::default() };
        if let Ok(admission) = admission {
            clients.settle(&admission, &Usage { tokens, ..Usage::default() }, None);
        }
    }
    let delivered = metrics.usage_notifications.get_or_create(&OutcomeLabels { outcome: "delivered" }).clone();
    crate::harness::within(async {
        while delivered.get() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let seen = receiver.seen();
    let events: Vec<_> = seen.iter().map(|seen| seen.json()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["usage.threshold", "usage.threshold", "usage.exhausted"]);
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
    assert_ne!(seen[1].header("webhook-id"), seen[2].header("webhook-id"));
    assert_eq!(
        (seen[1].json()["data"]["used"].as_f64(), seen[2].json()["data"]["used"].as_f64()),
        (Some(60.0), Some(120.0))
    );
    for seen in &seen {
        let (id, timestamp) = (seen.header("webhook-id").unwrap(), seen.header("webhook-timestamp").unwrap());
        let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef0123").unwrap();
        mac.update(format!("{id}.{timestamp}.{}", String::from_utf8_lossy(&seen.body)).as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(seen.header("webhook-signature"), Some(&*signature));
    }
}
