//! Errors whose cause is a component: OpenBao, a file or the gateway, each broken as it breaks in life.
//!
//! The causes that need none are in `tests/it/errors.rs`, where every code of the contract has one.

pub mod outage;
mod rows;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use sidekey::proxy::Code;

use self::rows::{Broken, ROWS, Row};
use crate::{
    client::{Call, Reply},
    harness,
    world::{World, find, mapping, push, reference, virtual_key},
};

/// Codes of secrets, managers and the gateway that no component here can cause.
const ELSEWHERE: [(&str, &str); 1] = [(
    "secret_disabled",
    "neither Vault nor a file can disable a secret; Key Vault does in azure.rs, Google in gcp.rs",
)];

/// Every row of the table, one after the other, against one world.
pub async fn each_cause_is_answered_and_logged_as_promised() {
    every_code_has_a_row();
    let files = harness::folder().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("plain"), "sk-without-braces").unwrap();
    let mut world = World::with(|setup| {
        setup.config["snapshot"]["strict"] = json!(false);
        setup.config["managers"] = json!({"timeout_secs": 2, "deadline_secs": 4, "file": {"root": files}});
        setup.config["upstream"]["response_head_timeout_secs"] = json!(1);
        let ordinary = find(&mut setup.snapshot, "secret_references", "openai-key")["auth_config"].clone();
        for (number, row) in ROWS.iter().enumerate() {
            let (slug, key) = (slug(number), format!("{}-key", slug(number)));
            let mut reference = reference(&key, ordinary.clone(), &format!("secret/data/{slug}"), Some("api_key"));
            (row.reference)(&mut reference);
            push(&mut setup.snapshot, "secret_references", reference);
            let mappings = json!([mapping("key", &key, None)]);
            push(&mut setup.snapshot, "virtual_keys", virtual_key(&slug, None, Some("openai"), json!({}), mappings));
        }
    })
    .await;
    world.provider.resolve("rebound.test", "169.254.169.254".parse().unwrap());
    world.bao.write("kv1/plain", json!({"api_key": "sk-1"})).await;
    world.bao.put("forbidden", json!({"api_key": "sk-1"})).await;
    for (number, row) in ROWS.iter().enumerate() {
        let secret: Value = serde_json::from_str(row.secret).unwrap();
        if !secret.is_null() {
            world.bao.put(&slug(number), secret).await;
        }
    }
    for (number, row) in ROWS.iter().enumerate() {
        row.broken.begin(&mut world, &slug(number)).await;
        let call = Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@{}", slug(number)));
        let reply = world.send(call).await;
        row.judge(&world, number, &reply);
        row.broken.end(&mut world).await;
    }
    let received = world.provider.take();
    assert!(received.is_empty(), "what was refused went nowhere: {received:#?}");
    for (what, text) in world.said().await {
        assert!(!text.contains("sk-good") && !text.contains("sk-without-braces"), "{what} shows a secret:\n{text}");
    }
}

/// Whatever a secret, its manager or the gateway may cause is caused here.
fn every_code_has_a_row() {
    let components = ["secret_", "reference_", "manager_", "upstream_"];
    for code in Code::ALL.iter().map(|code| code.as_str()) {
        let expected = components.iter().any(|start| code.starts_with(start));
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| *other == code);
        assert_eq!(ROWS.iter().any(|row| row.code == code), expected && !elsewhere, "{code}");
    }
}

/// The virtual key of a row.
fn slug(number: usize) -> String {
    format!("row-{number}")
}

// === impl Row ===

impl Row {
    /// Whether client and operator saw what they should.
    fn judge(&self, world: &World, number: usize, reply: &Reply) {
        let Self { code, cause, message, log, .. } = self;
        let what = format!("{code}: {cause}: {reply:?}");
        let promised = Code::ALL.iter().find(|other| other.as_str() == *code).expect("a code");
        assert_eq!(reply.status, promised.status(), "{what}");

        // This body and these headers, and nothing else: no word of a manager or the gateway.
        let body = reply.json();
        let request_id = body["error"]["request_id"].as_str().unwrap_or_else(|| panic!("{what}"));
        let error = json!({"message": message, "type": "sidekey_error", "code": code, "request_id": request_id});
        assert_eq!(body, json!({"status": "failure", "message": message, "error": error}), "{what}");
        let mut expected = vec!["content-length", "content-type", "date", "x-sidekey-error"];
        assert_eq!(
            (reply.header("content-type"), reply.header("x-sidekey-error")),
            ("application/json".into(), (*code).into())
        );
        if promised.retry_after().is_some() {
            expected.push("retry-after");
            let seconds: u64 = reply.header("retry-after").parse().unwrap_or_default();
            assert!((1..=60).contains(&seconds), "{what}");
        } else {
            expected.extend(["x-portkey-gateway-exception", "x-should-retry"]);
            assert_eq!(reply.header("x-portkey-gateway-exception"), "true", "{what}");
            assert_eq!(reply.header("x-should-retry"), "false", "{what}");
        }
        let mut names: Vec<_> = reply.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected, "{what}");

        // The audit's lines stand beside the log's and are judged elsewhere.
        let mut lines = world.sidekey.log_of(request_id);
        lines.retain(|line| line["target"] != "sidekey::audit");
        let [reason, access] = &lines[..] else { panic!("{what}: {lines:#?}") };
        assert_eq!(access["target"], "sidekey::access", "{what}: {access}");
        assert_eq!((&access["status"], &access["code"]), (&json!(reply.status.as_u16()), &json!(code)), "{what}");
        assert_eq!(reason["code"], *code, "{what}: {reason}");
        for (field, value) in *log {
            assert!(reason[*field].as_str().is_some_and(|text| text.contains(value)), "{what}: {field} in {reason}");
        }
        // Where it came to a reference, it is named; else the entity is.
        let key = format!("{}-key", slug(number));
        if reason["reason"].is_string() {
            assert_eq!(reason["entity"], slug(number), "{what}: {reason}");
            assert!(reason["reason"].as_str().unwrap().contains(&key), "{what}: {reason}");
        } else if reason["class"].is_string() {
            assert_eq!(reason["reference"], key, "{what}: {reason}");
            assert!(matches!(reason["manager"].as_str(), Some("hashicorp_vault" | "file")), "{what}: {reason}");
        }
    }
}

// === impl Broken ===

impl Broken {
    async fn begin(self, world: &mut World, slug: &str) {
        let path = format!("secret/data/{slug}");
        match self {
            Self::Nothing => {}
            Self::Deleted => drop(world.bao.call(Method::DELETE, &path, &json!({})).await.expect(204)),
            Self::Sealed => world.bao.seal().await,
            Self::UsedUp => {
                let quota = json!({"path": "secret/", "rate": 1, "interval": "1h"});
                world.bao.write("sys/quotas/rate-limit/tight", quota).await;
                while world.bao.call(Method::GET, &path, &json!({})).await.status != 429 {}
            }
            Self::Frozen => world.bao.process().pause(),
            Self::GatewayFrozen => world.gateway.process().pause(),
            Self::GatewayDead => {
                world.gateway.process().signal(Signal::KILL);
                world.gateway.process().ended().await;
            }
            Self::Dead => world.bao.kill().await,
        }
    }

    async fn end(self, world: &mut World) {
        match self {
            // The gateway stays as it is: awake, it would send on what its client has given up.
            Self::Nothing | Self::Deleted | Self::GatewayFrozen | Self::GatewayDead | Self::Dead => {}
            Self::Sealed => world.bao.unseal().await,
            Self::UsedUp => {
                drop(world.bao.call(Method::DELETE, "sys/quotas/rate-limit/tight", &json!({})).await.expect(204));
            }
            Self::Frozen => world.bao.process().signal(Signal::CONT),
        }
    }
}
