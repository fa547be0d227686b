//! The causes: what is different from an ordinary sidecar, what is asked, and what comes of it.

use std::time::Duration;

use serde_json::json;
use sidekey::clients::{Auth, Clock};
use time::OffsetDateTime;

use super::stage;
use crate::{
    clients::stage::{hash_file, key},
    harness::Setup,
};

/// One cause, and what comes of it.
pub struct Row {
    pub code: &'static str,
    /// In words, for the message of a test that fails.
    pub cause: &'static str,
    /// What is different from an ordinary sidecar.
    pub change: fn(&mut Setup),
    pub behind: Behind,
    /// Whether the log cannot be written any more when the gateway's connection breaks.
    pub brittle_log: bool,
    /// Asked and answered before, on a connection that stays open.
    pub before: Option<Ask>,
    pub ask: Ask,
    pub message: &'static str,
    /// Seconds.
    pub retry_after: Option<&'static str>,
    /// Fields of the log line that says why: a part of each value.
    pub log: &'static [(&'static str, &'static str)],
}

/// What a client sends.
#[derive(Clone, Copy)]
pub enum Ask {
    /// A chat completion: one header line, and the body.
    Chat(&'static str, &'static str),
    /// A path.
    Get(&'static str),
    /// A header of this many bytes.
    Long(usize),
    /// These bytes.
    Raw(&'static str),
}

/// The gateway.
#[derive(Clone, Copy)]
pub enum Behind {
    /// It answers.
    Echo,
    /// There is none.
    Nobody,
    /// It takes requests and does not answer.
    Silence,
    /// It says this to each request and hangs up.
    Says(&'static str),
}

const SOON: Duration = Duration::from_millis(50);
const UNAUTHORIZED: &str = "the API key is missing or not valid";
const MODELS: Ask = Ask::Get("/v1/models");

/// Nothing is wrong.
const ORDINARY: Row = Row {
    code: "",
    cause: "",
    change: |_| {},
    behind: Behind::Echo,
    brittle_log: false,
    before: None,
    ask: MODELS,
    message: "",
    retry_after: None,
    log: &[],
};

const fn chat(provider: &'static str) -> Ask {
    Ask::Chat(provider, "{}")
}

pub const ROWS: &[Row] = &[
    // === 400 ===
    Row {
        code: "entity_not_found",
        cause: "a slug that nothing has",
        ask: chat("x-portkey-provider: @nobody"),
        message: "Following keys are not valid: nobody",
        log: &[("slugs", r#"["nobody"]"#), ("reasons", "no")],
        ..ORDINARY
    },
    Row {
        code: "entity_not_found",
        cause: "two unknown slugs and a good one in a config",
        ask: chat(
            r#"x-portkey-config: {"strategy":{"mode":"fallback"},"targets":[{"provider":"@a"},{"provider":"@openai"},{"virtual_key":"b"}]}"#,
        ),
        message: "Following keys are not valid: a, b",
        log: &[("slugs", r#"["a", "b"]"#)],
        ..ORDINARY
    },
    Row {
        code: "entity_not_found",
        cause: "a virtual key of another workspace",
        change: |setup| setup.clients.auth = Auth::Open { workspace: Some("ws-a".to_owned()) },
        ask: chat("x-portkey-virtual-key: of-team-b"),
        message: "Following keys are not valid: of-team-b",
        log: &[("reasons", "workspace")],
        ..ORDINARY
    },
    Row {
        code: "invalid_config",
        cause: "a config that is no JSON",
        ask: chat("x-portkey-config: {provider: openai}"),
        message: "Invalid config passed: x-portkey-config is JSON or the name of a stored config",
        log: &[("error", "invalid config")],
        ..ORDINARY
    },
    Row {
        code: "invalid_config",
        cause: "a key that the gateway would take for another",
        ask: chat(
            r#"x-portkey-config: {"provider":"@openai","customHost":"https://a.test","custom_Host":"https://b.test"}"#,
        ),
        message: "Invalid config passed: `custom_Host` is spelled twice or may not stand there",
        ..ORDINARY
    },
    Row {
        code: "invalid_config",
        cause: "metadata that cannot be joined with that of an API key",
        change: with_keys,
        ask: Ask::Raw(
            "GET /v1/models HTTP/1.1\r\nhost: s\r\nauthorization: Bearer pk-metadata\r\nx-portkey-metadata: team=b\r\n\r\n",
        ),
        message: "Invalid config passed: x-portkey-metadata is one JSON object",
        ..ORDINARY
    },
    Row {
        code: "config_override_not_allowed",
        cause: "a config beside an API key that allows none",
        change: with_keys,
        ask: Ask::Raw(
            "GET /v1/models HTTP/1.1\r\nhost: s\r\nauthorization: Bearer pk-pinned\r\nx-portkey-config: {}\r\n\r\n",
        ),
        message: "the API key allows no config but its own; leave out x-portkey-config",
        log: &[("client", "pinned")],
        ..ORDINARY
    },
    Row {
        code: "unauthorized",
        cause: "no API key",
        change: with_keys,
        ask: MODELS,
        message: UNAUTHORIZED,
        log: &[("error", "no key")],
        ..ORDINARY
    },
    Row {
        code: "unauthorized",
        cause: "an unknown API key",
        change: with_keys,
        ask: chat("x-portkey-api-key: pk-stranger"),
        message: UNAUTHORIZED,
        log: &[("error", "no such key")],
        ..ORDINARY
    },
    Row {
        code: "unauthorized",
        cause: "an API key that has expired",
        change: with_keys,
        ask: chat("x-portkey-api-key: pk-expired"),
        message: UNAUTHORIZED,
        log: &[("error", "expired"), ("client", "expired")],
        ..ORDINARY
    },
    Row {
        code: "scope_not_allowed",
        cause: "an API key for logs",
        change: with_keys,
        ask: chat("x-portkey-api-key: pk-logs"),
        message: "the API key lacks the scope completions.write",
        log: &[("client", "logs")],
        ..ORDINARY
    },
    Row {
        code: "session_not_metered",
        cause: "a WebSocket of an API key with a budget",
        change: |setup| {
            with_keys(setup);
            let budget = key("budget", json!({"usage_limits": {"credit_limit": 1}}));
            setup.snapshot.as_mut().unwrap()["api_keys"].as_array_mut().unwrap().push(budget);
        },
        ask: Ask::Raw(
            "GET /v1/realtime HTTP/1.1\r\nhost: s\r\nauthorization: Bearer pk-budget\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        ),
        message: "tokens or money of the API key are limited, and not counted in WebSocket sessions",
        log: &[("client", "budget")],
        ..ORDINARY
    },
    Row {
        code: "rate_limited",
        cause: "an API key that may ask for nothing",
        change: |setup| {
            with_keys(setup);
            setup.clients.clock = Clock::new(|| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(3600 * 23));
        },
        ask: chat("x-portkey-api-key: pk-mute"),
        message: "the API key has reached its limit of requests per day",
        retry_after: Some("3600"),
        log: &[("client", "mute"), ("error", "rpd")],
        ..ORDINARY
    },
    Row {
        code: "budget_exhausted",
        cause: "an API key that the control plane calls exhausted",
        change: with_keys,
        ask: chat("x-portkey-api-key: pk-spent"),
        message: "the API key has used up its budget",
        log: &[("client", "spent")],
        ..ORDINARY
    },
    Row {
        code: "reference_misconfigured",
        cause: "an API key that was set aside",
        change: |setup| {
            let more = json!({"rate_limits": [{"value": "many"}]});
            setup.clients.auth = Auth::ApiKey { hash_file: hash_file() };
            setup.snapshot = Some(stage::with_keys(vec![key("faulty", more)]));
            setup.lenient = true;
        },
        ask: chat("x-portkey-api-key: pk-faulty"),
        message: "the API key is misconfigured",
        log: &[("client", "faulty"), ("reason", "rate_limits[0].value"), ("class", "misconfigured")],
        ..ORDINARY
    },
    Row {
        code: "invalid_body",
        cause: "two models",
        ask: Ask::Chat("x-portkey-provider: @openai", r#"{"model":"a","model":"@openai/b"}"#),
        message: "Invalid body passed: it holds more than one \"model\"",
        ..ORDINARY
    },
    Row {
        code: "invalid_body",
        cause: "a chunk without a length",
        ask: Ask::Raw(
            "POST /v1/embeddings HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nno\r\n",
        ),
        message: "the body broke off",
        log: &[("error", "the body broke off: ")],
        ..ORDINARY
    },
    Row {
        code: "no_entity",
        cause: "no name, where one is wanted",
        change: |setup| setup.dialect.reject_unmatched = true,
        ask: Ask::Chat("authorization: Bearer sk-clients-own", r#"{"model":"gpt-4o"}"#),
        message: "the request names no virtual key, provider slug, integration or config",
        ..ORDINARY
    },
    Row {
        code: "no_deployment",
        cause: "a model that no Azure deployment has, and no default",
        ask: Ask::Chat("x-portkey-provider: @azure", r#"{"model":"gpt-5"}"#),
        message: "no deployment of azure matches the model, and none is the default",
        ..ORDINARY
    },
    // === 403, 404 ===
    Row {
        code: "destination_not_allowed",
        cause: "a credential of ours and a host of the client's",
        ask: Ask::Chat("x-portkey-provider: @openai\r\nx-portkey-custom-host: https://evil.test/v1", "{}"),
        message: "the request may not choose a destination: x-portkey-custom-host",
        ..ORDINARY
    },
    Row {
        code: "destination_not_allowed",
        cause: "an unmatched request that steers to the metadata address",
        ask: Ask::Chat("x-portkey-provider: openai\r\nx-portkey-custom-host: http://169.254.169.254/v1", "{}"),
        message: "the request may not choose a destination: x-portkey-custom-host",
        ..ORDINARY
    },
    Row {
        code: "entity_inactive",
        cause: "a virtual key that was switched off",
        ask: chat("x-portkey-provider: @paused"),
        message: "paused is not active",
        ..ORDINARY
    },
    Row {
        code: "entity_inactive",
        cause: "a virtual key that has expired",
        ask: chat("x-portkey-provider: @expired"),
        message: "expired is not active",
        ..ORDINARY
    },
    Row {
        code: "entity_inactive",
        cause: "a virtual key whose reference was switched off",
        ask: chat("x-portkey-provider: @switched-off"),
        message: "switched-off is not active",
        ..ORDINARY
    },
    Row {
        code: "not_found",
        cause: "a path of the gateway that is not for clients",
        ask: Ask::Get("/log/stream"),
        message: "the path is not served",
        ..ORDINARY
    },
    Row {
        code: "not_found",
        cause: "the admin API without a control plane",
        ask: Ask::Get("/v1/virtual-keys"),
        message: "the path is not served",
        ..ORDINARY
    },
    // === 408, 413, 431, 500 ===
    Row {
        code: "request_timeout",
        cause: "a head that does not end",
        change: |setup| setup.proxy = Box::new(|settings| settings.limits.head_timeout = SOON),
        ask: Ask::Raw("GET /v1/models HTT"),
        message: "the request did not arrive in time",
        ..ORDINARY
    },
    Row {
        code: "request_timeout",
        cause: "a body that does not come",
        change: |setup| setup.proxy = Box::new(|settings| settings.limits.head_timeout = SOON),
        ask: Ask::Raw(
            "POST /v1/embeddings HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"mo",
        ),
        message: "the request did not arrive in time",
        ..ORDINARY
    },
    Row {
        code: "body_too_large",
        cause: "a model that may stand further back than is looked, where a name is wanted",
        change: |setup| {
            setup.dialect.reject_unmatched = true;
            setup.proxy = Box::new(|settings| settings.limits.model_peek_bytes = 16);
        },
        ask: Ask::Chat("accept: */*", r#"{"messages":[],"stream":false,"model":"@openai/gpt-4o"}"#),
        message: "the body is too large to look for the model in it",
        ..ORDINARY
    },
    Row {
        code: "head_too_large",
        cause: "more than we take",
        ask: Ask::Long(33 * 1024),
        message: "the request head is too large",
        log: &[("error", "the limit is 32768")],
        ..ORDINARY
    },
    Row {
        code: "head_too_large",
        cause: "more than the gateway takes",
        ask: Ask::Long(17 * 1024),
        message: "the request head is too large for the gateway once credentials are set",
        log: &[("error", "the gateway takes 16384")],
        ..ORDINARY
    },
    Row {
        code: "internal",
        cause: "a panic: the log cannot be written",
        behind: Behind::Says(""),
        brittle_log: true,
        message: "internal error",
        log: &[("error", "internal error")],
        ..ORDINARY
    },
    // === 502 ===
    Row {
        code: "secret_not_found",
        cause: "the manager has no such secret",
        ask: chat("x-portkey-provider: @gone"),
        message: "a secret does not exist",
        log: &[
            ("reference", "gone-key"),
            ("manager", "hashicorp_vault"),
            ("class", "gone"),
            ("manager_code", "scripted"),
            ("identity", "fake"),
        ],
        ..ORDINARY
    },
    Row {
        code: "secret_denied",
        cause: "the manager forbids the read",
        ask: chat("x-portkey-provider: @denied"),
        message: "a secret may not be read",
        log: &[("reference", "denied-key"), ("class", "denied"), ("manager_code", "scripted"), ("identity", "fake")],
        ..ORDINARY
    },
    Row {
        code: "secret_disabled",
        cause: "a secret whose validity has ended",
        ask: chat("x-portkey-provider: @ended"),
        message: "a secret is disabled or expired",
        log: &[("reference", "ended-key"), ("class", "disabled"), ("manager_code", "expired"), ("identity", "fake")],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "a key wanted of a secret that is no JSON",
        ask: chat("x-portkey-provider: @text"),
        message: "a secret does not have the shape that is needed",
        log: &[("reference", "text-key"), ("class", "malformed"), ("identity", "fake"), ("error", "is not JSON")],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "an empty secret",
        ask: chat("x-portkey-provider: @empty"),
        message: "a secret does not have the shape that is needed",
        log: &[
            ("reference", "empty-key"),
            ("class", "malformed"),
            ("identity", "fake"),
            ("error", "the value is empty"),
        ],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "a key of two lines",
        ask: chat("x-portkey-provider: @lines"),
        message: "a secret does not have the shape that is needed",
        log: &[("reference", "lines-key"), ("manager", "hashicorp_vault"), ("class", "malformed")],
        ..ORDINARY
    },
    Row {
        code: "secret_malformed",
        cause: "a key of two lines that stands in the snapshot itself",
        ask: chat("x-portkey-provider: @literal"),
        message: "a secret does not have the shape that is needed",
        log: &[("entity", "literal"), ("class", "malformed")],
        ..ORDINARY
    },
    Row {
        code: "reference_misconfigured",
        cause: "a reference that no manager can serve",
        ask: chat("x-portkey-provider: @nobodys"),
        message: "a secret reference is misconfigured",
        log: &[("reference", "nobodys-key"), ("class", "misconfigured"), ("manager_code", "scripted")],
        ..ORDINARY
    },
    Row {
        code: "manager_unauthenticated",
        cause: "the manager refuses the log-in",
        ask: chat("x-portkey-provider: @unauthenticated"),
        message: "a secret manager refused the log-in",
        log: &[("class", "unauthenticated"), ("manager_code", "scripted"), ("identity", "fake")],
        ..ORDINARY
    },
    Row {
        code: "upstream_unreachable",
        cause: "no gateway",
        behind: Behind::Nobody,
        message: "the gateway cannot be reached",
        log: &[("error", "refused")],
        ..ORDINARY
    },
    Row {
        code: "upstream_unreachable",
        cause: "a gateway that hangs up",
        behind: Behind::Says(""),
        ask: chat("x-portkey-provider: @openai"),
        message: "the gateway cannot be reached",
        ..ORDINARY
    },
    Row {
        code: "upstream_unreachable",
        cause: "a gateway that speaks no HTTP",
        behind: Behind::Says("220 mail.test ESMTP\r\n"),
        message: "the gateway cannot be reached",
        ..ORDINARY
    },
    Row {
        code: "upstream_unreachable",
        cause: "a gateway that switches protocols unasked",
        behind: Behind::Says("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
        message: "the gateway answered with something else",
        ..ORDINARY
    },
    Row {
        code: "upstream_unreachable",
        cause: "an error of the gateway that breaks off before it was searched for the credential",
        behind: Behind::Says("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 99\r\n\r\nBearer sk-"),
        ask: chat("x-portkey-provider: @openai"),
        message: "the reply of the gateway broke off",
        ..ORDINARY
    },
    // === 503, 504 ===
    Row {
        code: "manager_throttled",
        cause: "a quota of the manager, which says for how long",
        ask: chat("x-portkey-provider: @throttled"),
        message: "a secret manager limits requests",
        retry_after: Some("30"),
        log: &[("class", "throttled"), ("manager_code", "scripted"), ("identity", "fake")],
        ..ORDINARY
    },
    Row {
        code: "manager_unavailable",
        cause: "a manager that is down",
        ask: chat("x-portkey-provider: @unavailable"),
        message: "a secret manager is unavailable",
        retry_after: Some("5"),
        log: &[("class", "unavailable"), ("manager_code", "scripted"), ("identity", "fake")],
        ..ORDINARY
    },
    Row {
        code: "manager_unavailable",
        cause: "a manager that panics",
        ask: chat("x-portkey-provider: @panics"),
        message: "a secret manager is unavailable",
        retry_after: Some("5"),
        log: &[("class", "unavailable"), ("manager_code", "panic"), ("identity", "fake")],
        ..ORDINARY
    },
    Row {
        code: "manager_timeout",
        cause: "a manager that does not come to an end",
        change: |setup| setup.cache.deadline = SOON,
        ask: chat("x-portkey-provider: @hangs"),
        message: "a secret manager did not answer in time",
        log: &[("class", "timeout"), ("manager_code", "deadline"), ("identity", "fake")],
        ..ORDINARY
    },
    Row {
        code: "no_snapshot",
        cause: "nothing was loaded",
        change: |setup| setup.no_snapshot = true,
        message: "no snapshot of the control plane is loaded yet",
        retry_after: Some("5"),
        ..ORDINARY
    },
    Row {
        code: "overloaded",
        cause: "one connection more than are served",
        change: |setup| setup.proxy = Box::new(|settings| settings.limits.max_connections = 1),
        before: Some(MODELS),
        message: "too many requests at once",
        retry_after: Some("1"),
        ..ORDINARY
    },
    Row {
        code: "upstream_timeout",
        cause: "a gateway that does not answer",
        change: |setup| setup.proxy = Box::new(|settings| settings.upstream.response_head_timeout = SOON),
        behind: Behind::Silence,
        message: "the gateway did not answer in time",
        ..ORDINARY
    },
];

/// API keys are wanted, and these are known.
fn with_keys(setup: &mut Setup) {
    setup.clients.auth = Auth::ApiKey { hash_file: hash_file() };
    setup.snapshot = Some(stage::with_keys(vec![
        key("expired", json!({"expires_at": "2020-01-01T00:00:00Z"})),
        key("logs", json!({"scopes": ["logs.view"]})),
        key("pinned", json!({"defaults": {"allow_config_override": false}})),
        key("mute", json!({"rate_limits": [{"type": "requests", "unit": "rpd", "value": 0}]})),
        key("spent", json!({"status": "exhausted"})),
        key("metadata", json!({"defaults": {"metadata": {"team": "a"}}})),
    ]));
}
