//! Where a stored entity may send a credential: judged when it is written, as addresses of managers are.

use http::Method;
use serde_json::{Value, json};

use super::stage::{Stage, refusal};

/// What is written, and what is said of it; `None` = it is taken.
struct Case {
    provider: &'static str,
    field: &'static str,
    value: &'static str,
    refused: Option<&'static str>,
}

const METADATA: &str = "stays closed";
const PRIVATE: &str = "open it with egress.allow_cidrs or egress.allow_hosts";
const PART: &str = "must be letters, digits,";
const NO_URL: &str = "must be an http or https URL";

fn cases() -> Vec<Case> {
    let case = |provider, field, value, refused| Case { provider, field, value, refused };
    let custom = |value, refused| case("openai", "custom_host", value, refused);
    vec![
        custom("https://llm.example/v1", None),
        custom("http://models.internal:11434/v1", None),
        custom("http://10.1.2.3:8000/v1", None),
        custom(
            "http://llm.example/v1",
            Some("plain http is refused for llm.example; open the host with egress.allow_"),
        ),
        custom("http://127.0.0.1:8901/v1", Some("127.0.0.1, which is loopback; open it with egress.allow_cidrs")),
        custom("https://2130706433/", Some("which is loopback")),
        custom("https://[::1]/", Some("which is loopback")),
        custom("https://localhost:8902/", Some(PRIVATE)),
        custom("https://192.168.0.1/v1", Some(PRIVATE)),
        custom("https://127.0.0.1.nip.io/", Some("open it with egress.allow_hosts")),
        custom("http://169.254.169.254/latest", Some(METADATA)),
        custom("https://0xa9fea9fe/", Some(METADATA)),
        custom("https://[::ffff:169.254.169.254]/", Some(METADATA)),
        custom("https://metadata.google.internal/", Some(METADATA)),
        custom("https://10.1.2.4.metadata.google.internal/", Some(METADATA)),
        custom("llm.example", Some(NO_URL)),
        case("azure-ai", "azure_foundry_url", "https://169.254.169.254/", Some(METADATA)),
        case("huggingface", "huggingface_base_url", "https://10.9.9.9/", Some(PRIVATE)),
        case("azure-openai", "azure_resource_name", "127.0.0.1:8901/#", Some(PART)),
        case("vertex-ai", "vertex_region", "169.254.169.254/#", Some(PART)),
        case("bedrock", "aws_region", "evil.example/#", Some(PART)),
        case("cortex", "snowflake_account", "evil.example?", Some(PART)),
        case("workers-ai", "workers_ai_account_id", "../../other", Some(PART)),
        case("cortex", "snowflake_account", "org_1-account.eu", None),
    ]
}

/// Writes all of them to a control plane with this `egress`; `expects` has the words of what is refused.
async fn write_all(egress: &str, expects: impl Fn(&Case) -> Option<&'static str>) {
    let stage = Stage::with(&format!("egress: {egress}\n")).await;
    for (index, case) in cases().into_iter().enumerate() {
        let refused = expects(&case);
        let Case { provider, field, value, .. } = case;
        let slug = format!("entity-{index}");
        let integration = json!({"name": "n", "slug": slug, "ai_provider_id": provider, "key": "sk",
            "configurations": {field: value}});
        let virtual_key = json!({"name": "n", "slug": slug, "provider": provider, "key": "sk",
            "model_config": {field: value}});
        for (path, body, prefix) in
            [("integrations", integration, "configurations"), ("virtual-keys", virtual_key, "model_config")]
        {
            let reply = stage.send(Method::POST, &format!("/v1/{path}"), body).await;
            let Some(expected) = refused else {
                assert_eq!(reply.status, 200, "{path} {field} {value}: {}", reply.text());
                continue;
            };
            let (status, code, message) = refusal(&reply);
            assert_eq!((status, code.as_str()), (400, "AB01"), "{path} {field} {value}");
            assert!(message.starts_with(&format!("{prefix}.")), "{path} {field} {value}: {message}");
            let is_said = message.contains(expected)
                || (expected == METADATA
                    && ["stay closed", "where no provider is"].iter().any(|said| message.contains(said)));
            assert!(is_said, "{path} {field} {value}: {message}");
        }
    }
}

#[tokio::test]
async fn a_stored_entity_sends_no_credential_to_what_the_operator_has_not_opened() {
    write_all("{allow_hosts: [models.internal, 10.1.2.3], restrict_base_urls: true}", |case| case.refused).await;
}

#[tokio::test]
async fn what_no_provider_is_stays_closed_without_being_told() {
    write_all("{}", |case| case.refused.filter(|said| [METADATA, PART, NO_URL].contains(said))).await;
}

#[tokio::test]
async fn an_update_moves_no_credential_there_either() {
    let stage = Stage::with("egress: {restrict_base_urls: true}\n").await;
    let body = json!({"name": "n", "slug": "n", "ai_provider_id": "openai", "key": "sk", "configurations":
        {"custom_host": "https://llm.example"}});
    stage.done(Method::POST, "/v1/integrations", body).await;
    for value in ["http://169.254.169.254/", "http://127.0.0.1:8901/", "https://10.0.0.1/"] {
        let body = json!({"configurations": {"custom_host": value}});
        assert_eq!(refusal(&stage.send(Method::PUT, "/v1/integrations/n", body).await).0, 400, "{value}");
    }
    let read = stage.done(Method::GET, "/v1/integrations/n", Value::Null).await;
    assert_eq!(read["configurations"]["custom_host"], "https://llm.example");
}
