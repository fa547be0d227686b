//! The use audit: what is recorded, that nothing of it is a value, and that a file that blocks holds up nobody.

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    sync::Arc,
};

use http::Method;
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};
use sidekey::{
    clients,
    manager::{
        FailureClass,
        fake::{Answer, Fake},
    },
    metric::Metrics,
    proxy::audit::{Audit, Event, Message, Record},
    telemetry::{AuditFile, AuditWriter},
};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::mpsc::Receiver,
};
use uuid::Uuid;

use crate::harness::{Call, Gateway, PATIENCE, Setup, World, still, within};

const CANARY: &str = "sk-canary-audit-3c";

/// A snapshot of two virtual keys over references, one with a stored key, and one of another workspace.
fn snapshot() -> Value {
    let reference = |slug: &str| {
        json!({"id": slug, "slug": slug, "manager_type": "hashicorp_vault", "secret_path": slug, "status": "active",
            "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.example:8200", "vault_token": "t"}})
    };
    let key = |slug: &str, more: Value| {
        let mut key = json!({"id": slug, "slug": slug, "provider": "openai", "status": "active"});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    };
    let mapped = |reference: &str| json!([{"target_field": "key", "secret_reference_id": reference}]);
    json!({"schema_version": 1, "version": 1, "organisation_id": "o",
    "workspaces": [{"id": "ws-a", "slug": "a", "name": "A"}, {"id": "ws-b", "slug": "b", "name": "B"}],
    "secret_references": [reference("one"), reference("two")],
    "virtual_keys": [
        key("first", json!({"secret_mappings": mapped("one")})),
        key("second", json!({"provider": "anthropic", "secret_mappings": mapped("two"),
            "model_config": {"customHost": "https://models.example/v1"}})),
        key("stored", json!({"key": CANARY})),
        key("theirs", json!({"workspace_id": "ws-b", "secret_mappings": mapped("one")})),
        key("off", json!({"status": "disabled", "secret_mappings": mapped("one")})),
    ]})
}

/// A world whose caller is of workspace `a`, and where its records arrive.
async fn world(provenance: bool) -> (World, Receiver<Message>) {
    let (audit, messages) = Audit::queue(Arc::new(Metrics::new()));
    let setup = Setup {
        snapshot: Some(snapshot()),
        audit: Some(audit),
        clients: clients::Settings {
            auth: clients::Auth::Open { workspace: Some("a".to_owned()) },
            ..clients::Settings::default()
        },
        proxy: Box::new(move |settings| settings.provenance = provenance),
        ..Setup::default()
    };
    let world = World::start(setup).await;
    script(&world.secrets);
    (world, messages)
}

fn script(secrets: &Fake) {
    secrets.script("one", [Answer::text(CANARY).version("7")]);
    secrets.script("two", [Answer::text(CANARY)]);
}

/// The lines that have been recorded, without what differs from run to run.
fn lines(messages: &mut Receiver<Message>) -> Vec<Value> {
    let mut text = Vec::new();
    while let Ok(message) = messages.try_recv() {
        let Message::Record(record) = message else { panic!("{message:?}") };
        record.write(&mut text).unwrap();
    }
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains(CANARY), "{text}");
    text.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let fields = line.as_object_mut().unwrap();
            assert_eq!(fields["target"], "sidekey::audit");
            for varying in ["timestamp", "target", "request_id"] {
                fields.remove(varying).unwrap();
            }
            fields.retain(|_, value| !value.is_null());
            // How long a request took is not what is looked at; that it is told is.
            if let Some(age) = fields.get_mut("age_secs") {
                assert!(age.as_f64().is_some_and(|age| (0.0..PATIENCE.as_secs_f64()).contains(&age)), "{age}");
                *age = json!(0.0);
            }
            line
        })
        .collect()
}

#[tokio::test]
async fn each_use_is_one_line() {
    let (world, mut messages) = world(false).await;
    let first = |outcome: &str| {
        json!({"event": "used", "workspace": "ws-a", "entity": "first", "provider": "openai", "field": "api_key",
            "reference": "one", "manager": "hashicorp_vault", "version": "7", "outcome": outcome, "age_secs": 0.0,
            "destination": "api.openai.com"})
    };
    let call = |name: &str| world.get("/v1/models").header("x-portkey-provider", name);
    assert_eq!(call("@first").send().await.status, 200);
    assert_eq!(lines(&mut messages), [first("miss")]);
    let reply = call("@first").send().await;
    assert_eq!(reply.header("x-sidekey-provenance"), None, "off unless asked for");
    assert_eq!(lines(&mut messages), [first("hit")]);
    call("@stored").send().await;
    let stored = json!({"event": "used", "workspace": "ws-a", "entity": "stored", "provider": "openai",
        "field": "api_key", "outcome": "stored", "destination": "api.openai.com"});
    assert_eq!(lines(&mut messages), [stored]);

    let config =
        json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "@first"}, {"provider": "@second"}]});
    let call = world.post("/v1/chat/completions").header("x-portkey-config", &config.to_string());
    assert_eq!(call.json(&json!({"model": "m", "messages": []})).send().await.status, 200);
    let both = lines(&mut messages);
    let told: Vec<_> = both.iter().map(|line| (&line["entity"], &line["reference"], &line["destination"])).collect();
    let (one, two, host, own) = (json!("one"), json!("two"), json!("api.openai.com"), json!("models.example"));
    assert_eq!(told, [(&json!("first"), &one, &host), (&json!("second"), &two, &own)]);

    world.get("/v1/models").header("authorization", "Bearer own").send().await;
    assert_eq!(lines(&mut messages), [] as [Value; 0], "nothing of ours was used");
}

#[tokio::test]
async fn what_is_not_used_is_recorded_with_its_reason() {
    let (world, mut messages) = world(false).await;
    let call = |name: &str| world.get("/v1/models").header("x-portkey-provider", name);
    struct Case {
        name: &'static str,
        status: u16,
        line: Value,
    }
    let cases = [
        Case {
            name: "@theirs",
            status: 400,
            line: json!({"event": "denied", "workspace": "ws-a", "entity": "theirs", "outcome": "entity_not_found",
                "reason": "it belongs to another workspace"}),
        },
        Case {
            name: "@nobody",
            status: 400,
            line: json!({"event": "denied", "workspace": "ws-a", "entity": "nobody", "outcome": "entity_not_found",
                "reason": "no such name"}),
        },
        Case {
            name: "@off",
            status: 403,
            line: json!({"event": "denied", "workspace": "ws-a", "entity": "off", "outcome": "entity_inactive",
                "reason": "it is not active"}),
        },
    ];
    for Case { name, status, line } in cases {
        assert_eq!(call(name).send().await.status, status, "{name}");
        assert_eq!(lines(&mut messages), [line], "{name}");
    }
    let reply = call("@first").header("x-portkey-custom-host", "https://evil.example").send().await;
    assert_eq!(reply.status, 403, "{reply:?}");
    let refused = lines(&mut messages);
    assert_eq!(
        (&refused[0]["event"], &refused[0]["outcome"]),
        (&json!("denied"), &json!("destination_not_allowed")),
        "{refused:?}"
    );
    assert!(!refused[0].to_string().contains("evil.example"), "a client's value is not repeated: {refused:?}");

    world.secrets.script("one", [Answer::fail(FailureClass::Denied)]);
    assert_eq!(call("@first").send().await.status, 502);
    let failed = json!({"event": "failed", "workspace": "ws-a", "entity": "first", "provider": "openai",
        "reference": "one", "manager": "hashicorp_vault", "outcome": "denied"});
    assert_eq!(lines(&mut messages), [failed]);
}

#[tokio::test]
async fn an_answer_tells_where_its_credentials_came_from_if_it_may() {
    let (world, _messages) = world(true).await;
    let call = |name: &str| world.get("/v1/models").header("x-portkey-provider", name);
    let told = async |name: &str| still(call(name).send()).await.header("x-sidekey-provenance").map(str::to_owned);
    assert_eq!(told("@first").await.as_deref(), Some(r#""one";outcome=miss;age=0;version="7""#));
    assert_eq!(told("@second").await.as_deref(), Some(r#""two";outcome=miss;age=0"#));
    assert_eq!(told("@stored").await, None);
    assert_eq!(told("@theirs").await, None);
    world.gateway.answer(|_| crate::harness::Answer::text(200, "").header("x-sidekey-provenance", "\"forged\""));
    assert_eq!(told("@stored").await, None, "only ours");
}

fn record() -> Record {
    let event = Event::Denied { entity: Some("x".into()), code: "entity_not_found", reason: "no such name".into() };
    let (at, request_id) = (OffsetDateTime::UNIX_EPOCH, Uuid::nil());
    Record { at, request_id, client_key: None, workspace: None, events: vec![event] }
}

/// A pipe that nobody reads stops the writer, and only the writer.
#[tokio::test]
async fn a_file_that_blocks_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let metrics = Arc::new(Metrics::new());
    let (audit, messages) = Audit::queue(Arc::clone(&metrics));
    let _writer = AuditWriter::start(&AuditFile::Path(pipe), messages, Arc::clone(&metrics)).unwrap().unwrap();
    let count = |outcome: &str| -> u64 {
        let series = format!("sidekey_audit_lines_total{{outcome=\"{outcome}\"}} ");
        metrics.encode().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
    };
    let mut recorded: u64 = 0;
    while count("dropped") < 100 {
        audit.record(record());
        recorded += 1;
        assert!(recorded < 1_000_000, "the queue has no end");
    }
    // Whoever waits for the last lines gives up by himself; as soon as somebody reads, they come.
    let flush = tokio::spawn(async move { audit.flush().await });
    let draining = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        let mut lines = 0;
        loop {
            let read = reader.read(&mut buffer).unwrap();
            lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
            if buffer[..read].ends_with(b"end\n") {
                return lines - 1;
            }
        }
    });
    within(flush).await.unwrap();
    let mut end = OpenOptions::new().append(true).open(folder.path().join("pipe")).unwrap();
    std::io::Write::write_all(&mut end, b"end\n").unwrap();
    let written = draining.join().unwrap();
    assert_eq!((count("written"), count("dropped")), (written, recorded - written));
}

/// A sidecar process over `folder`, and where its clients connect.
async fn process(
    folder: &Path,
) -> (tokio::process::Child, std::net::SocketAddr, tokio::io::Lines<BufReader<tokio::process::ChildStderr>>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(["sidecar", "--config", "sidecar.yaml"]).current_dir(folder).env_clear();
    let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = within(async {
        loop {
            let line: Value = serde_json::from_str(&log.next_line().await.unwrap().unwrap()).unwrap();
            if line["message"] == "Serving." {
                return line["listen"].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
            }
        }
    });
    let address = address.await;
    (child, address, log)
}

fn signal(child: &tokio::process::Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap(), signal).unwrap();
}

fn configure(folder: &Path, gateway: &Gateway, audit: &str) {
    let configuration = format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nupstream: {{url: 'http://{}'}}\nworkspace: a\n\
         snapshot: {{file: snapshot.json}}\nlimits: {{drain_delay_secs: 0}}\n{audit}\n",
        gateway.address
    );
    fs::write(folder.join("sidecar.yaml"), configuration).unwrap();
    let mut snapshot = snapshot();
    snapshot["secret_references"] = json!([]);
    let stored: Vec<_> =
        snapshot["virtual_keys"].as_array().unwrap().iter().filter(|key| key["slug"] == "stored").cloned().collect();
    snapshot["virtual_keys"] = stored.into();
    fs::write(folder.join("snapshot.json"), snapshot.to_string()).unwrap();
}

#[tokio::test]
async fn a_file_is_private_and_can_be_rotated() {
    let gateway = Gateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &gateway, "audit: {file: audit.log}");
    let (mut child, address, mut log) = process(folder.path()).await;
    let use_it = async || {
        let call = Call::to(address, Method::GET, "/v1/models").header("x-portkey-provider", "@stored");
        assert_eq!(call.send().await.status, 200);
    };
    let file = folder.path().join("audit.log");
    let count = |path: &Path| {
        let mut text = String::new();
        File::open(path).map(|mut file| file.read_to_string(&mut text)).ok();
        text.lines().filter(|line| line.contains(r#""entity":"stored""#)).count()
    };
    use_it().await;
    within(async {
        while count(&file) < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let old = folder.path().join("audit.log.1");
    fs::rename(&file, &old).unwrap();
    use_it().await;
    within(async {
        while count(&old) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    signal(&child, Signal::HUP);
    within(async { while !log.next_line().await.unwrap().unwrap().contains("Reading files and secrets again.") {} })
        .await;
    use_it().await;
    use_it().await;
    signal(&child, Signal::TERM);
    assert!(within(child.wait()).await.unwrap().success());
    assert_eq!((count(&old), count(&file)), (2, 2), "nothing is lost at the end");
}

#[tokio::test]
async fn lines_stand_in_the_log_unless_they_have_a_file_or_nobody_wants_them() {
    let gateway = Gateway::start().await;
    for (audit, expected) in [("", 1), ("audit: {file: none}", 0)] {
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path(), &gateway, audit);
        let (mut child, address, mut log) = process(folder.path()).await;
        let call = Call::to(address, Method::GET, "/v1/models").header("x-portkey-provider", "@stored");
        assert_eq!(call.send().await.status, 200);
        signal(&child, Signal::TERM);
        let mut found = 0;
        while let Some(line) = within(log.next_line()).await.unwrap() {
            let line: Value = serde_json::from_str(&line).unwrap();
            assert!(!line.to_string().contains(CANARY), "{line}");
            found += usize::from(line["target"] == "sidekey::audit" && line["event"] == "used");
        }
        assert!(within(child.wait()).await.unwrap().success());
        assert_eq!(found, expected, "{audit:?}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_stops_the_start() {
    let gateway = Gateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &gateway, "audit: {file: nowhere/audit.log}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(["sidecar", "--config", "sidecar.yaml"]).current_dir(folder.path()).env_clear();
    let ran = within(command.output()).await.unwrap();
    assert_eq!(ran.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("audit.file cannot be written"));
}
