//! Canaries: unique secrets sent through every path, then looked for in everything Sidekey and the gateway say.
//!
//! Sidekey logs at trace level with every library's own lines switched on, so that nothing hides behind a filter. A canary
//! is searched as it is and as it looks in base64, hex, percent-encoding and as a list of bytes: the forms
//! a dump or a debug line would show.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    client::Call,
    process,
    provider::Answer,
    world::{CLIENT_KEY, World, mapping, push, virtual_key},
};

/// A client's own key on a request that names no entity.
const CLIENTS_OWN: &str = "sk-clients-own-canary-5f2c";
/// A literal of the snapshot.
const STORED: &str = "sk-stored-canary-77d1";
/// A text that no header can carry stands behind it.
const BROKEN: &str = "sk-broken-canary-90ab";
/// `RUST_LOG` with every library named: unnamed, they are held back.
pub const ALL_LOGS: &str = "trace,hyper=trace,hyper_util=trace,h2=trace,reqwest=trace,rustls=trace,vaultrs=trace,rustify=trace,\
                        moka=trace,notify=trace,sqlx=trace,axum=trace,tower=trace";

/// Every path of a credential, quiet and noisy, good and failing; nothing of it is said anywhere.
pub async fn is_said_nowhere() {
    let world = stage().await;
    let failing = |text: &'static str| Call::chat("gpt-4o-mini", text);
    // A provider that is indiscreet: it repeats what it received, in a body and in headers, with statuses of all sorts.
    world.provider.script("*", |request| {
        let status = match request.text() {
            text if text.contains("echo-401") => 401,
            text if text.contains("echo-500") => 500,
            text if text.contains("echo-200") => 200,
            _ => return None,
        };
        let authorization = request.header("authorization");
        let body = json!({"error": {"message": format!("bad credential {authorization}"), "headers": authorization}});
        Some(Answer::json(status, &body).header("x-echo", &authorization).header("www-authenticate", &authorization))
    });
    let by_slug = |call: Call, slug: &str| call.header("x-portkey-provider", format!("@{slug}"));
    let config = |value: Value| Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", value.to_string());
    let targets = json!([{"provider": "@openai-prod"}, {"virtual_key": "openai-backup"}, {"provider": "@stored"}]);
    let calls = [
        by_slug(failing("ping"), "openai-prod"),
        by_slug(failing("ping"), "anthropic-prod"),
        by_slug(failing("ping"), "bedrock-prod"),
        by_slug(failing("ping"), "azure-prod"),
        by_slug(failing("ping"), "stored"),
        by_slug(failing("ping"), "oracle"),
        by_slug(failing("ping"), "vertex"),
        by_slug(failing("ping"), "broken"),
        by_slug(failing("ping"), "absent"),
        by_slug(failing("ping"), "nothing"),
        by_slug(failing("echo-401"), "openai-prod"),
        by_slug(failing("echo-500"), "openai-prod"),
        by_slug(failing("echo-401"), "stored"),
        by_slug(failing("ping"), "openai-prod").header("x-portkey-custom-host", "http://evil.attacker.dev"),
        by_slug(failing("ping"), "openai-prod").header("authorization", format!("Bearer {CLIENT_KEY}")),
        by_slug(Call::post("/v1/chat/completions").body("application/json", "{not json"), "openai-prod"),
        by_slug(Call::get("/v1/unknown/route"), "openai-prod"),
        Call::new(http::Method::PUT, "/v1/chat/completions").header("x-portkey-provider", "@openai-prod"),
        config(json!({"strategy": {"mode": "fallback"}, "targets": targets})),
        config(json!({"strategy": {"mode": "loadbalance"}, "targets": targets, "retry": {"attempts": 2}})),
        config(json!({"strategy": {"mode": "nonsense"}, "targets": targets})),
        config(json!({"provider": "@openai-prod", "cache": {"mode": 7}})),
        config(json!({"provider": "@oracle"})),
        Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", "pc-fallback-1a2b3c"),
        Call::chat("@openai-prod/gpt-4o-mini", "echo-401"),
        failing("ping").header("x-portkey-provider", "openai").header("authorization", format!("Bearer {CLIENTS_OWN}")),
        failing("ping").header("x-portkey-config", json!({"provider": "openai", "api_key": CLIENTS_OWN}).to_string()),
        failing("ping").header("x-portkey-config", format!("{{\"provider\":\"openai\",\"api_key\":\"{CLIENTS_OWN}")),
    ];
    for (row, call) in calls.into_iter().enumerate() {
        let reply = call.header("x-portkey-api-key", CLIENT_KEY).send(world.sidekey.address).await;
        let text = format!("{:?}\n{:?}\n{}", reply.headers, reply.trailers, reply.text());
        assert_silent(&world, &format!("reply {row}"), &text);
    }
    assert!(world.sidekey.metric("sidekey_redactions_total").await > 0, "the indiscreet provider was not contained");
    for (what, text) in world.said().await {
        assert_silent(&world, what, &text);
    }
    assert!(world.sidekey.log().contains("\"level\":\"TRACE\""), "the log is not at trace level");
}

/// The other commands read the same files and say nothing either.
pub async fn commands_keep_quiet() {
    let world = stage().await;
    let config = world.sidekey.config_file.display().to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nx-portkey-provider: @stored\r\nauthorization: Bearer {CLIENTS_OWN}\r\n\
         x-portkey-api-key: {CLIENT_KEY}\r\ncontent-type: application/json\r\n\r\n{{\"model\":\"gpt-4o-mini\"}}"
    );
    for (arguments, input) in [
        (vec!["check", "--config", &config], ""),
        (vec!["check", "--config", &config, "--resolve"], ""),
        (vec!["explain", "--config", &config], request.as_str()),
        (
            vec!["explain", "--config", &config],
            "POST /v1/x HTTP/1.1\r\nx-portkey-config: {\"provider\":\"@oracle\"}\r\n\r\n",
        ),
    ] {
        let mut command = process::command(env!("CARGO_BIN_EXE_sidekey"));
        command.args(&arguments).env("RUST_LOG", ALL_LOGS).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("its input");
        // A command that does not read its input closes it early.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.expect("it ends");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!said.is_empty(), "{arguments:?}");
        assert_silent(&world, &format!("{arguments:?}"), &said);
    }
}

/// What the system shows of the process: no value in its arguments or environment, no core dump, no debugger.
pub async fn the_process_is_closed() {
    let mut world = stage().await;
    world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", "@openai-prod")).await.expect(200);
    let pid = world.sidekey.process().pid();
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    for name in ["cmdline", "environ"] {
        assert_silent(&world, name, &String::from_utf8_lossy(&read(name)));
    }
    let limits = String::from_utf8_lossy(&read("limits")).into_owned();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a core limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // What may not be dumped belongs to root in /proc, whoever runs it, and is attached to by nobody unprivileged.
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}/mem")).expect("a process"));
    assert_eq!(owner, 0, "/proc/{pid}/mem is its user's to read");
}

/// The world, logging all it can, with credentials of every kind.
async fn stage() -> World {
    let mut world = World::with(|setup| {
        setup.config["log"] = json!({"level": "trace", "format": "json"});
        setup.config["snapshot"]["strict"] = json!(false);
        setup.environment.push(("RUST_LOG".to_owned(), ALL_LOGS.to_owned()));
    })
    .await;
    // A real key: the gateway ends on one it cannot import.
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key").serialize_pem();
    let account =
        json!({"type": "service_account", "project_id": "proj", "client_email": "a@b.iam", "private_key": pem});
    world.bao.put("oracle", json!({"pem": pem})).await;
    world.bao.put("vertex", json!({"account": account})).await;
    world.bao.put("broken", json!({"api_key": format!("{BROKEN}\nsecond line")})).await;
    world.bao.put("nothing", json!({"api_key": null, "other": BROKEN})).await;
    for (slug, key) in
        [("oracle", "pem"), ("vertex", "account"), ("broken", "api_key"), ("nothing", "api_key"), ("absent", "x")]
    {
        let path = format!("secret/data/{slug}");
        let row = crate::world::reference(&format!("{slug}-ref"), world.bao.token_auth(), &path, Some(key));
        push(&mut world.snapshot, "secret_references", row);
    }
    let to = |field: &str, reference: &str| json!([mapping(field, reference, None)]);
    let oracle = json!({"oracleRegion": "us-chicago-1", "oracleTenancy": "t", "oracleUser": "u", "oracleFingerprint": "f",
                        "oracleCompartmentId": "c", "oracleVersion": "20231130"});
    let mut account = to("model_config.vertexServiceAccountJson", "vertex-ref");
    account[0]["value_format"] = json!("json");
    let mut stored = virtual_key("stored", None, Some("openai"), json!({}), json!([]));
    stored["key"] = json!(STORED);
    for row in [
        virtual_key("oracle", None, Some("oracle"), oracle, to("model_config.oraclePrivateKey", "oracle-ref")),
        virtual_key("vertex", None, Some("vertex-ai"), json!({"vertexRegion": "us-central1"}), account),
        virtual_key("broken", None, Some("openai"), json!({}), to("key", "broken-ref")),
        virtual_key("nothing", None, Some("openai"), json!({}), to("key", "nothing-ref")),
        virtual_key("absent", None, Some("openai"), json!({}), to("key", "absent-ref")),
        stored,
    ] {
        push(&mut world.snapshot, "virtual_keys", row);
    }
    world.replace_snapshot().await;
    world
}

/// Panics when a canary stands in `text`, in any form.
#[track_caller]
fn assert_silent(world: &World, what: &str, text: &str) {
    let more = [CLIENT_KEY, CLIENTS_OWN, STORED, BROKEN, &world.bao.token, &world.bao.secret_id];
    for canary in world.secrets.all().into_iter().chain(more) {
        for (form, shown) in forms(canary) {
            if let Some(at) = text.find(&shown) {
                let from = text[..at].char_indices().rev().nth(300).map_or(0, |(index, _)| index);
                panic!("{what} shows {canary} as {form}:\n…{}", &text[from..at + shown.len()]);
            }
        }
    }
}

/// How a value may look in a log or a dump.
pub fn forms(value: &str) -> Vec<(&'static str, String)> {
    let bytes = value.as_bytes();
    let list = bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut forms = vec![
        ("text", value.to_owned()),
        ("hex", bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        ("percent-encoding", bytes.iter().map(|byte| format!("%{byte:02X}")).collect()),
        ("a list of bytes", list),
    ];
    // Base64 depends on what stands before: three alignments, without the letters that neighbours share.
    for shift in 0..3 {
        let padded = [vec![b' '; shift], bytes.to_vec()].concat();
        let text = STANDARD.encode(&padded);
        let inner = &text[if shift == 0 { 0 } else { 4 }..text.len() - 4];
        forms.push(("base64", inner.to_owned()));
    }
    forms
}
