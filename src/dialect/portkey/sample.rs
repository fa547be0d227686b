//! Snapshots for tests, linked as real ones are.

use std::sync::Arc;

use http::{Method, Request, request::Parts};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{BodyPeek, Injected, ModelField, Plan, Portkey, Settings};
use crate::{
    dialect::PlanError,
    model::{Caller, Entity, LinkRules, Snapshot, ValueFormat, link},
    secret::{Credential, SecretValue},
};

/// A snapshot under construction.
#[derive(Debug, Default)]
pub(super) struct Sample {
    references: Vec<Value>,
    integrations: Vec<Value>,
    virtual_keys: Vec<Value>,
    configs: Vec<Value>,
}

// === impl Sample ===

impl Sample {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A reference to a file.
    pub(super) fn reference(self, slug: &str) -> Self {
        self.reference_for(slug, &[], &[])
    }

    /// A reference that may be used for some providers and hosts only.
    pub(super) fn reference_for(mut self, slug: &str, providers: &[&str], hosts: &[&str]) -> Self {
        self.references.push(
            json!({ "id": format!("ref-{slug}"), "slug": slug, "manager_type": "file", "auth_config": {},
            "secret_path": slug, "secret_key": null, "status": "active", "allow_all_workspaces": true,
            "allowed_providers": providers, "allowed_hosts": hosts }),
        );
        self
    }

    /// An integration. `key`: a stored key, or `ref:slug` for a mapped one. `configurations`: JSON; a text value `ref:slug`
    /// is a mapping, `ref-json:slug` one with a structure.
    pub(super) fn integration(mut self, slug: &str, provider: &str, key: Option<&str>, configurations: &str) -> Self {
        let mut configurations: Value = serde_json::from_str(configurations).unwrap();
        let mut mappings = Vec::new();
        let key = key.and_then(|key| match key.strip_prefix("ref:") {
            Some(reference) => {
                mappings.push(json!({ "target_field": "key", "secret_reference_id": reference }));
                None
            }
            None => Some(key),
        });
        configurations.as_object_mut().unwrap().retain(|name, value| {
            let text = value.as_str().unwrap_or_default();
            let (format, reference) = match (text.strip_prefix("ref:"), text.strip_prefix("ref-json:")) {
                (Some(reference), _) => ("string", reference),
                (_, Some(reference)) => ("json", reference),
                (None, None) => return true,
            };
            mappings.push(json!({ "target_field": format!("configurations.{name}"), "secret_reference_id": reference,
                "value_format": format }));
            false
        });
        self.integrations
            .push(json!({ "id": format!("int-{slug}"), "slug": slug, "ai_provider_id": provider, "status": "active",
            "key": key, "configurations": configurations, "allow_all_workspaces": true, "secret_mappings": mappings }));
        self
    }

    /// A virtual key with this status that inherits everything.
    pub(super) fn virtual_key(mut self, slug: &str, integration: &str, status: &str) -> Self {
        self.virtual_keys
            .push(json!({ "id": format!("vk-{slug}"), "slug": slug, "integration_id": integration, "status": status,
            "secret_mappings": [] }));
        self
    }

    /// A stored config.
    pub(super) fn config(self, slug: &str, config: &str) -> Self {
        self.config_with_status(slug, "active", config)
    }

    /// A stored config with this status.
    pub(super) fn config_with_status(mut self, slug: &str, status: &str, config: &str) -> Self {
        let config: Value = serde_json::from_str(config).unwrap();
        self.configs.push(json!({ "id": format!("cfg-{slug}"), "slug": slug, "status": status, "config": config }));
        self
    }

    /// Links strictly: a sample holds no fault.
    pub(super) fn link(&self) -> Snapshot {
        self.link_with(true)
    }

    /// Links, setting faulty objects aside.
    pub(super) fn link_with(&self, strict: bool) -> Snapshot {
        let document = json!({ "schema_version": 1, "version": 1, "organisation_id": "org", "workspaces": [],
            "secret_references": self.references, "integrations": self.integrations, "virtual_keys": self.virtual_keys,
            "configs": self.configs });
        let rules = LinkRules { strict, admit: &|_, _, _| Ok(()), opener: None };
        link(document.to_string().as_bytes(), &rules).unwrap_or_else(|error| panic!("{:#?}", error.problems))
    }

    pub(super) fn entity(&self, slug: &str) -> Arc<Entity> {
        Arc::clone(self.link().entity(slug, &Caller::default()).unwrap())
    }
}

/// One OpenAI virtual key, `openai-prod`, whose key is `ref:openai-key`.
pub(super) fn openai() -> Sample {
    Sample::new()
        .reference("openai-key")
        .integration("openai-main", "openai", Some("ref:openai-key"), "{}")
        .virtual_key("openai-prod", "openai-main", "active")
}

/// Entities of many providers, each with mapped credentials; the slug is the provider's name.
pub(super) fn providers() -> Sample {
    openai()
        .reference("anthropic-key")
        .reference("azure-key")
        .reference("aws")
        .reference("vertex")
        .reference("oracle")
        .reference("google-key")
        .integration("anthropic", "anthropic", Some("ref:anthropic-key"), "{}")
        .integration("google", "google", Some("ref:google-key"), "{}")
        .integration(
            "azure",
            "azure-openai",
            Some("ref:azure-key"),
            r#"{"azure_resource_name":"res-1","azure_deployment_config":[
                {"azure_deployment_name":"dep-4o","azure_api_version":"2024-10-21","alias":"gpt-4o","azure_model_slug":"gpt-4o"},
                {"azure_deployment_name":"dep-35","azure_api_version":"2024-06-01","alias":"gpt-3.5","is_default":true}]}"#,
        )
        .integration(
            "bedrock",
            "bedrock",
            None,
            r#"{"aws_region":"eu-west-1","aws_access_key_id":"ref:aws","aws_secret_access_key":"ref:aws",
                "aws_session_token":"ref:aws","aws_s3_bucket":"our-bucket"}"#,
        )
        .integration(
            "bedrock-anywhere",
            "bedrock",
            None,
            r#"{"aws_access_key_id":"ref:aws","aws_secret_access_key":"ref:aws"}"#,
        )
        .integration(
            "vertex",
            "vertex-ai",
            None,
            r#"{"vertex_region":"us-central1","vertex_service_account_json":"ref-json:vertex"}"#,
        )
        .integration(
            "oracle",
            "oracle",
            None,
            r#"{"oracle_region":"us-ashburn-1","oracle_tenancy":"t","oracle_user":"u","oracle_fingerprint":"f",
                "oracle_private_key":"ref:oracle"}"#,
        )
        .integration("ollama", "ollama", None, r#"{"custom_host":"http://ollama.internal:11434"}"#)
}

/// A request head.
pub(super) fn head(method: Method, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, value.replace('\n', " "));
    }
    request.body(()).unwrap().into_parts().0
}

/// A chat completion with these headers.
pub(super) fn chat(headers: &[(&str, &str)]) -> Parts {
    head(Method::POST, "/v1/chat/completions", headers)
}

/// What a scanner saw of `{"model":"<model>","x":1}`.
pub(super) fn model(model: &str) -> BodyPeek {
    let end = 9 + model.len() + 2;
    let model = ModelField { value: model.to_owned(), value_span: 9..end, member_span: 1..end + 1, json: true };
    BodyPeek { model: Some(model), ..BodyPeek::default() }
}

/// Plans with the default settings.
pub(super) fn plan(snapshot: &Snapshot, head: &Parts, peek: &BodyPeek) -> Result<Plan, PlanError> {
    plan_with(Settings::default(), snapshot, head, peek)
}

/// Plans.
pub(super) fn plan_with(
    settings: Settings,
    snapshot: &Snapshot,
    head: &Parts,
    peek: &BodyPeek,
) -> Result<Plan, PlanError> {
    Portkey::new(settings).plan(head, peek, snapshot, &Caller::default(), OffsetDateTime::UNIX_EPOCH)
}

/// Credentials for the plan: `value` of each mapping's reference and field.
pub(super) fn resolve(plan: &Plan, value: impl Fn(&str, &str) -> String) -> Vec<Arc<Credential>> {
    let resolved = plan.mappings.iter().map(|mapping| {
        let text = SecretValue::from(value(&mapping.reference.slug, mapping.target.spec.name));
        Arc::new(match mapping.format {
            ValueFormat::String => Credential::text(text),
            ValueFormat::Json => Credential::structured(text),
        })
    });
    resolved.collect()
}

/// Resolves every mapping to `sk-<reference>-<field>`, structures to a service account, and applies.
pub(super) fn apply(plan: &Plan, head: &Parts) -> (Parts, Injected) {
    let credentials = resolve(plan, |reference, field| match field {
        "vertex_service_account_json" => r#"{"project_id":"p","private_key":"-----BEGIN-----\nMII\n"}"#.to_owned(),
        "oracle_private_key" => "-----BEGIN-----\nMII\n-----END-----".to_owned(),
        "custom_headers" => r#"{"x-team":"sk-team"}"#.to_owned(),
        _ => format!("sk-{reference}-{field}"),
    });
    let mut applied = head.clone();
    let injected = Portkey::new(Settings::default()).apply(plan, &credentials, &mut applied).unwrap();
    (applied, injected)
}

/// The config on a head.
pub(super) fn config(head: &Parts) -> Value {
    serde_json::from_slice(head.headers["x-portkey-config"].as_bytes()).unwrap()
}
