//! Every error of the contract, provoked through the running sidecar: what the client and the operator see of it.
//!
//! [`ROWS`] holds the causes that a test can play in this process. Those that take a real component (a sealed vault, a
//! gateway that was killed) are in `tests/real/errors.rs`.

mod page;
mod rows;
mod stage;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde_json::{Value, json};
use sidekey::{
    manager::fake::{Fake, FakeManagers},
    proxy::Code,
    telemetry::{self, Capture, Level},
};
use tracing_subscriber::fmt::MakeWriter;

use self::rows::{Ask, Behind, ROWS, Row};
use crate::harness::{Raw, Setup, Wire, World};

/// All codes that users were promised, by status.
const CONTRACT: [(u16, &[&str]); 13] = [
    (
        400,
        &[
            "entity_not_found",
            "invalid_config",
            "invalid_body",
            "no_entity",
            "no_deployment",
            "config_override_not_allowed",
        ],
    ),
    (401, &["unauthorized"]),
    (403, &["destination_not_allowed", "scope_not_allowed", "session_not_metered", "entity_inactive"]),
    (404, &["not_found"]),
    (408, &["request_timeout"]),
    (412, &["budget_exhausted"]),
    (413, &["body_too_large"]),
    (429, &["rate_limited"]),
    (431, &["head_too_large"]),
    (500, &["internal"]),
    (
        502,
        &[
            "secret_not_found",
            "secret_denied",
            "secret_disabled",
            "secret_malformed",
            "reference_misconfigured",
            "manager_unauthenticated",
            "upstream_unreachable",
        ],
    ),
    (503, &["manager_throttled", "manager_unavailable", "no_snapshot", "overloaded"]),
    (504, &["manager_timeout", "upstream_timeout"]),
];

/// A log whose writer panics, once, when a connection to the gateway breaks.
#[derive(Clone)]
struct Brittle {
    log: Capture,
    broke: Arc<AtomicBool>,
}

impl io::Write for Brittle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let breaks = String::from_utf8_lossy(bytes).contains("the request is repeated");
        assert!(!breaks || self.broke.swap(true, Relaxed), "no space left on device");
        self.log.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Brittle {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn every_code_of_the_contract_is_provoked() {
    let built: Vec<_> = Code::ALL.iter().map(|code| (code.status().as_u16(), code.as_str())).collect();
    for (status, code) in CONTRACT.iter().flat_map(|(status, codes)| codes.iter().map(|code| (*status, *code))) {
        let provoked = ROWS.iter().any(|row| row.code == code);
        assert!(built.contains(&(status, code)) && provoked, "{code} has no row, or not the status {status}");
    }
    for (status, code) in built {
        let promised = CONTRACT.iter().any(|(other, codes)| *other == status && codes.contains(&code));
        assert!(promised, "{code} with {status} was promised to nobody");
    }
}

#[tokio::test]
async fn each_cause_is_answered_and_logged_as_promised() {
    for row in ROWS {
        provoke(row).await;
    }
}

async fn provoke(row: &Row) {
    let what = format!("{}: {}", row.code, row.cause);
    let secrets = Fake::new();
    stage::secrets(&secrets);
    let managers = FakeManagers::new(&secrets).without("nobodys-key");
    let mut setup = Setup {
        snapshot: Some(stage::snapshot()),
        managers: Some(Arc::new(managers)),
        upstream: row.behind.open().await,
        ..Setup::default()
    };
    (row.change)(&mut setup);
    let world = World::start(setup).await;
    let log = Brittle { log: world.logs.clone(), broke: Arc::default() };
    let _log = row.brittle_log.then(|| {
        let brittle = telemetry::subscriber(Level::TRACE, Some("trace"), telemetry::Format::Json, log).unwrap();
        tracing::subscriber::set_default(brittle)
    });
    let _held = match row.before {
        Some(before) => {
            let mut connection = world.wire().await;
            connection.send(before.text()).await;
            assert!(connection.head().await.contains(" 200 "), "{what}");
            Some(connection)
        }
        None => None,
    };

    let mut client = world.wire().await;
    client.send(row.ask.text()).await;
    let head = client.head().await;
    let mut lines = head.lines();
    let code =
        Code::ALL.iter().find(|code| code.as_str() == row.code).unwrap_or_else(|| panic!("{what}: no such code"));
    let status = code.status().as_u16();
    assert!(lines.next().unwrap().starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {head}");
    let mut headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let value = |name: &str| headers.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    let body = client.take(value("content-length").unwrap().parse().unwrap()).await;
    let body: Value = serde_json::from_slice(&body).unwrap();

    let request_id = body["error"]["request_id"].as_str().unwrap_or_else(|| panic!("{what}: {body}")).to_owned();
    let error = json!({
        "message": row.message, "type": "sidekey_error", "code": row.code, "request_id": request_id,
    });
    assert_eq!(body, json!({ "status": "failure", "message": row.message, "error": error }), "{what}");

    // These headers and no other, so that nothing of a manager or the gateway comes along.
    headers.retain(|(name, _)| !matches!(*name, "content-length" | "date" | "connection"));
    headers.sort_unstable();
    let mut expected = vec![("content-type", "application/json")];
    // A final failure of ours: SDKs that knew better than to repeat it are told so.
    if status >= 500 && row.retry_after.is_none() {
        expected.extend([("x-portkey-gateway-exception", "true"), ("x-should-retry", "false")]);
    }
    headers.retain(|(name, _)| status != 429 || !name.starts_with("x-ratelimit-"));
    expected.extend((status == 401).then_some(("www-authenticate", "Bearer")));
    expected.extend(row.retry_after.map(|seconds| ("retry-after", seconds)));
    expected.push(("x-sidekey-error", row.code));
    expected.sort_unstable();
    assert_eq!(headers, expected, "{what}");

    let text = world.logs.text();
    let mine: Vec<Value> = text.lines().filter(|line| line.contains(&request_id)).map(parsed).collect();
    let [reason, access] = &mine[..] else { panic!("{what}: {mine:#?}") };
    assert_eq!(access["target"], "sidekey::access", "{what}: {access}");
    assert_eq!((&access["status"], &access["code"]), (&json!(status), &json!(row.code)), "{what}");
    assert_eq!(reason["code"], row.code, "{what}");
    for (field, value) in row.log {
        assert!(reason[*field].as_str().is_some_and(|text| text.contains(value)), "{what}: {field} in {reason}");
    }
    let again = world.access().iter().filter(|line| line["code"] == row.code).count();
    assert_eq!(again, 1, "{what}: one access line");
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

// === impl Ask ===

impl Ask {
    /// As it is written to the connection.
    fn text(self) -> String {
        let post = |path: &str, headers: &[&str], body: &str| {
            let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
            format!("POST {path} HTTP/1.1\r\nhost: s\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
        };
        match self {
            Self::Chat(header, body) => post("/v1/chat/completions", &["content-type: application/json", header], body),
            Self::Get(path) => format!("GET {path} HTTP/1.1\r\nhost: s\r\n\r\n"),
            Self::Long(bytes) => format!("GET /v1/models HTTP/1.1\r\nhost: s\r\nx-long: {}\r\n\r\n", "x".repeat(bytes)),
            Self::Raw(text) => text.to_owned(),
        }
    }
}

// === impl Behind ===

impl Behind {
    /// Where the gateway is; `None` = the one of the world.
    async fn open(self) -> Option<std::net::SocketAddr> {
        let says = match self {
            Self::Echo => return None,
            Self::Nobody => return Some(Raw::bind().await.address),
            Self::Silence => None,
            Self::Says(text) => Some(text),
        };
        let raw = Raw::bind().await;
        let address = raw.address;
        tokio::spawn(async move {
            let mut kept: Vec<Wire> = Vec::new();
            loop {
                let mut gateway = raw.accept().await;
                gateway.head().await;
                match says {
                    Some(text) => gateway.send(text).await,
                    None => kept.push(gateway),
                }
            }
        });
        Some(address)
    }
}
