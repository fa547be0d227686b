//! Limits that four sidecars share in one Redis, under load, while Redis is there, gone, and back with nothing in it.

use std::{
    convert::Infallible,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{net::TcpListener, time::Instant};

use crate::{
    authority::Authority,
    client::{Call, Reply},
    components::{Redis, free_address},
    harness,
    world::{Setup, Sidekey},
};

const SIDECARS: usize = 4;
/// Clients that ask each sidecar at once.
const CLIENTS: usize = 4;
/// Tokens of each answer.
const TOKENS: u64 = 60;
/// The model whose answers claim more than any model has ever written.
const CLAIMS: &str = "claims";
/// What may be let in beyond a limit, as documented: a hundredth for each replica but one.
const OVERSHOOT: f64 = 0.01 * (SIDECARS - 1) as f64;

/// The sidecars, their Redis, and a gateway that answers at once.
struct Stage {
    redis: Redis,
    sidecars: Vec<Sidekey>,
    /// Requests that reached the gateway.
    reached: Arc<AtomicU64>,
}

/// The sum of what four replicas let in is the limit and no request less; more than it only within what is documented.
pub async fn are_shared_by_replicas() {
    let stage = Stage::start(&[
        ("small", json!({"rate_limits": [{"type": "requests", "unit": "rpw", "value": 40}]})),
        ("large", json!({"rate_limits": [{"type": "requests", "unit": "rpw", "value": 1500}]})),
        ("tokens", json!({"usage_limits": {"type": "tokens", "credit_limit": 60_000, "alert_threshold": 30_000}})),
    ])
    .await;
    // A hundredth of a small limit is less than one request: each is asked for, none too many is let in.
    assert_eq!(stage.until_refused("small", 429).await, 40);
    let let_in = stage.until_refused("large", 429).await;
    println!("large: {let_in} of 1500 let in");
    assert!((1500..=most(1500)).contains(&let_in), "{let_in}");
    // Tokens come on top of requests that are under way.
    let answers = stage.until_refused("tokens", 412).await;
    let (spent, under_way) = (answers * TOKENS, (SIDECARS * CLIENTS) as u64 * TOKENS);
    println!("tokens: {spent} of 60000 spent");
    assert!((60_000..=most(60_000) + under_way).contains(&spent), "{spent}");
    assert_eq!(stage.reached.load(Relaxed), 40 + let_in + answers, "what was refused went nowhere");
    let alerts = stage.sum("sidekey_usage_alerts_total{counts=\"tokens\"}").await;
    assert_eq!(alerts, 1, "one of them says that the threshold was crossed");
    let exchanges = stage.sum("sidekey_limits_exchanges_total{outcome=\"ok\"}").await;
    println!("{exchanges} exchanges for {} requests", 40 + let_in + answers);
    // No key of Redis names a secret.
    let keys = stage.redis.call("KEYS *").await;
    assert!(keys.contains("sidekey:api_key/small:requests_rpw:") && !keys.contains("pk-"), "{keys}");
}

/// Over TLS and with a password; a store whose certificate is not trusted is none, and its password is told to nobody.
pub async fn are_shared_over_tls() {
    let (authority, other) = (Authority::new("Sidekey test store"), Authority::new("somebody else"));
    let redis = Redis::start_tls(&authority, "hidden").await;
    let url = format!("rediss://:hidden@localhost:{}/1", redis.address().port());
    let trusted = harness::folder().join("trusted.pem");
    fs::write(&trusted, authority.certificate_pem()).unwrap();
    let small = [("small", json!({"rate_limits": [{"type": "requests", "unit": "rpw", "value": 40}]}))];
    let mut stage = Stage::with(redis, &url, 2, &small).await;
    assert_eq!(stage.until_refused("small", 429).await, 40);
    for sidecar in &mut stage.sidecars {
        sidecar.until_metric("sidekey_limits_shared 1").await;
    }
    fs::write(&trusted, other.certificate_pem()).unwrap();
    let stranger = stage.sidecar(9, "reject").await;
    let refused = ask(stranger.address, "small").await.expect(503);
    assert_eq!(refused.header("x-sidekey-error"), "overloaded");
    let logs = stage.sidecars.iter().chain([&stranger]).map(Sidekey::log).collect::<String>();
    assert!(logs.contains("Counters of limits are not shared") && !logs.contains("hidden"), "{logs}");
}

/// Redis dies and comes back empty under load: no request is lost that has room, each replica goes on by what it knows, and
/// what was counted meanwhile is there in the end.
pub async fn survive_their_store() {
    let mut stage = Stage::start(&[
        ("roomy", json!({"rate_limits": [{"type": "requests", "unit": "rpw", "value": 1_000_000}]})),
        ("tight", json!({"rate_limits": [{"type": "requests", "unit": "rpw", "value": 30}]})),
    ])
    .await;
    let strict = stage.sidecar(SIDECARS, "reject").await;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = stage
        .sidecars
        .iter()
        .map(|sidecar| {
            let (address, stop) = (sidecar.address, Arc::clone(&stop));
            tokio::spawn(async move {
                let mut answered = 0_u64;
                while !stop.load(Relaxed) {
                    ask(address, "roomy").await.expect(200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for sidecar in &mut stage.sidecars {
        sidecar.until_metric("sidekey_limits_shared 1").await;
    }
    stage.redis.kill().await;
    for sidecar in &mut stage.sidecars {
        sidecar.until_metric("sidekey_limits_shared 0").await;
    }
    // Alone, each replica lets in as much as the limit says, and not more.
    let let_in = stage.until_refused("tight", 429).await;
    assert_eq!(let_in, 30 * SIDECARS as u64);
    // Or nothing, where that was chosen.
    let refused = ask(strict.address, "roomy").await.expect(503);
    assert_eq!(
        (refused.header("x-sidekey-error").as_str(), refused.header("retry-after").as_str()),
        ("overloaded", "1")
    );
    let warned = stage.sidecars[0].log().matches("Counters of limits are not shared").count();
    assert_eq!(warned, 1, "an outage is told once");

    stage.redis.start_again().await;
    for sidecar in &mut stage.sidecars {
        sidecar.until_metric("sidekey_limits_shared 1").await;
    }
    // Requests ask again where they have to.
    ask(strict.address, "roomy").await;
    stop.store(true, Relaxed);
    let mut answered = 0;
    for load in load {
        answered += load.await.expect("no request was lost");
    }
    // A Redis that has forgotten everything is told the whole again.
    let mut strict = strict;
    strict.until_metric("sidekey_limits_shared 1").await;
    let key = stage.redis.call("KEYS sidekey:api_key/roomy:*").await;
    let key = key.lines().find(|line| line.starts_with("sidekey:")).expect("a key").to_owned();
    let counted = async || {
        let sum = stage.redis.call(&format!("HGET {key} sum")).await;
        sum.lines().last().and_then(|sum| sum.parse::<u64>().ok()).unwrap_or_default()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while counted().await < answered {
        assert!(Instant::now() < deadline, "{} of {answered} are in Redis", counted().await);
        tokio::task::yield_now().await;
    }
    println!("{answered} requests, {} in Redis at the end", counted().await);
    // And those that were alone have no more room than the limit together.
    for sidecar in &stage.sidecars {
        ask(sidecar.address, "tight").await.expect(429);
    }
}

/// Answers that claim more tokens than there are numbers, and counters that somebody else has written, cost nobody the store.
pub async fn survive_what_is_claimed() {
    let mut stage = Stage::start(&[
        ("greedy", json!({"rate_limits": [{"type": "tokens", "unit": "rpw", "value": 1_000_000}]})),
        ("other", json!({"rate_limits": [{"type": "requests", "unit": "rpw", "value": 20}]})),
    ])
    .await;
    let strict = stage.sidecar(SIDECARS, "reject").await;
    for sidecar in &stage.sidecars {
        let call = Call::chat(CLAIMS, "ping").header("x-portkey-api-key", "pk-greedy");
        let reply = call.header("x-portkey-provider", "@v").send(sidecar.address).await;
        assert!(matches!(reply.status.as_u16(), 200 | 429), "{}", reply.status);
    }
    stage.until_refused("greedy", 429).await;
    // Each knew that by itself; they tell it in the background.
    let told = async || {
        let keys = stage.redis.call("KEYS *greedy*").await;
        let key = keys.lines().find(|line| line.contains("greedy"))?;
        let sum = stage.redis.call(&format!("HGET {key} sum")).await;
        sum.contains("9223372036854774784").then_some(())
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while told().await.is_none() {
        assert!(Instant::now() < deadline, "nobody has told what it counted");
        tokio::task::yield_now().await;
    }
    ask(strict.address, "greedy").await.expect(429);
    for _ in 0..10 {
        ask(strict.address, "other").await.expect(200);
    }
    let keys = stage.redis.call("KEYS *").await;
    let key = |of: &str| keys.lines().find(|line| line.contains(of)).expect("a key").to_owned();
    for written in [
        format!("SET {} x", key("other")),
        format!("HSET {} sum many", key("greedy")),
        format!("HSET {} sum -1", key("other")),
    ] {
        let said = stage.redis.call(&written).await;
        assert!(!said.contains("ERR"), "{written}: {said}");
        for id in ["greedy", "other"] {
            let reply = ask(strict.address, id).await;
            assert!(matches!(reply.status.as_u16(), 200 | 429), "{written}: {}", reply.status);
        }
    }
    stage.sidecars.push(strict);
    assert_eq!(stage.until_refused("other", 429).await, 20 - 10 - 3, "what is told again is not let in again");
    assert_eq!(stage.sum("sidekey_limits_exchanges_total{outcome=\"error\"}").await, 0);
}

// === impl Stage ===

impl Stage {
    async fn start(keys: &[(&str, Value)]) -> Self {
        let redis = Redis::start().await;
        let url = redis.url();
        Self::with(redis, &url, SIDECARS, keys).await
    }

    async fn with(redis: Redis, url: &str, sidecars: usize, keys: &[(&str, Value)]) -> Self {
        fs::write(harness::folder().join("redis-url"), url).unwrap();
        fs::write(harness::folder().join("hash-keys"), "k1 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").unwrap();
        let keys: Vec<Value> = keys.iter().map(|(id, limits)| key(id, limits)).collect();
        let snapshot = json!({"schema_version": 1, "version": 1, "organisation_id": "org", "api_keys": keys,
            "virtual_keys": [{"id": "v", "slug": "v", "provider": "openai", "key": "sk-1"}]});
        fs::write(harness::folder().join("keys.json"), snapshot.to_string()).unwrap();
        let reached = Arc::new(AtomicU64::new(0));
        let gateway = gateway(Arc::clone(&reached)).await;
        fs::write(harness::folder().join("gateway"), gateway.to_string()).unwrap();
        let mut stage = Self { redis, sidecars: Vec::new(), reached };
        for number in 0..sidecars {
            let sidecar = stage.sidecar(number, "local").await;
            stage.sidecars.push(sidecar);
        }
        stage
    }

    /// One more replica.
    async fn sidecar(&self, number: usize, on_failure: &str) -> Sidekey {
        let read = |name: &str| fs::read_to_string(harness::folder().join(name)).unwrap();
        let mut config = json!({
            "listen": free_address().to_string(),
            "admin_listen": free_address().to_string(),
            "upstream": {"url": format!("http://{}", read("gateway"))},
            "client_auth": "api_key",
            "api_key_hash_file": harness::folder().join("hash-keys"),
            "snapshot": {"file": harness::folder().join(format!("snapshot-{number}.json"))},
            // Machines that test are slower than those that serve.
            "limits": {"drain_delay_secs": 0, "redis": {"url_file": harness::folder().join("redis-url"),
                "deadline_ms": 1000, "on_failure": on_failure}},
            "log": {"level": "info", "format": "json"},
        });
        let trusted = harness::folder().join("trusted.pem");
        if trusted.exists() {
            config["limits"]["redis"]["ca_file"] = json!(trusted);
        }
        let snapshot = serde_json::from_str(&read("keys.json")).unwrap();
        Sidekey::start(&Setup { config, snapshot, environment: Vec::new() }).await
    }

    /// Clients of every sidecar ask until each of them is refused with `status`; how many were let in.
    async fn until_refused(&self, key: &str, status: u16) -> u64 {
        let clients = self.sidecars.iter().flat_map(|sidecar| std::iter::repeat_n(sidecar.address, CLIENTS));
        let clients = clients.map(async |address| {
            let mut answered = 0;
            loop {
                let reply = ask(address, key).await;
                if reply.status == status {
                    return answered;
                }
                reply.expect(200);
                answered += 1;
            }
        });
        join_all(clients).await.into_iter().sum()
    }

    /// The sum of a metric.
    async fn sum(&self, name: &str) -> u64 {
        join_all(self.sidecars.iter().map(|sidecar| sidecar.metric(name))).await.into_iter().sum()
    }
}

async fn ask(address: SocketAddr, key: &str) -> Reply {
    let call = Call::chat("gpt-4o", "ping").header("x-portkey-api-key", format!("pk-{key}"));
    call.header("x-portkey-provider", "@v").send(address).await
}

/// `limit` and what may come on top of it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
fn most(limit: u64) -> u64 {
    (limit as f64 * (1.0 + OVERSHOOT)) as u64
}

/// An API key with the secret `pk-ID`.
fn key(id: &str, limits: &Value) -> Value {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap();
    mac.update(format!("pk-{id}").as_bytes());
    let hash: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut key = json!({"id": id, "scopes": ["completions.write"], "hashes": [{"kid": "k1", "hmac_sha256": hash}]});
    key.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
    key
}

/// Answers everything with a completion of [`TOKENS`] tokens, or of what [`CLAIMS`] says.
async fn gateway(reached: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let reached = Arc::clone(&reached);
            let service = service_fn(move |request: Request<Incoming>| {
                let reached = Arc::clone(&reached);
                async move {
                    if request.method() == http::Method::POST {
                        reached.fetch_add(1, Relaxed);
                    }
                    let asked = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
                    let claims = asked.is_ok_and(|asked| String::from_utf8_lossy(&asked).contains(CLAIMS));
                    let mut body = json!({"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": TOKENS - 10, "completion_tokens": 10, "total_tokens": TOKENS}});
                    if claims {
                        body["usage"] =
                            json!({"prompt_tokens": 9e18, "completion_tokens": 1e30, "total_tokens": u64::MAX});
                    }
                    let response = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}
