//! What an attacker tries: to make the gateway carry an injected credential somewhere else, to mix it with a credential of
//! its own, or to reach what only the pod may reach. The provider plays every host, so whatever leaves is seen.
//!
//! Each [`Attack`] that works against the bare gateway is first tried there, with the credential a careless operator would
//! have given it: a table row whose attack no longer leaks there proves nothing, and fails.

mod rows;

use serde_json::{Value, json};

use crate::{
    client::Call,
    world::{World, mapping, push, virtual_key},
};

/// One attempt against one entity.
pub struct Attack {
    /// What is tried.
    name: &'static str,
    /// The virtual key it is tried on.
    target: &'static str,
    /// The request; told how to name its entity.
    call: fn(&Named) -> Call,
    /// Whether the bare gateway lets the credential out or mixes it, so that the row can fail.
    works_without_us: bool,
    /// What Sidekey answers.
    bound: Bound,
}

/// What held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// Refused with this status and code; nothing is sent anywhere.
    Refused(u16, &'static str),
    /// Let through; only the bound destination received a credential, and no trace of the attacker's [`LOOT`].
    Harmless,
}

/// How a request names its entity: by slug to Sidekey, or with provider and credential to the bare gateway.
pub struct Named {
    provider: String,
    /// Leaf fields of a config.
    leaf: Value,
    /// Headers.
    headers: Vec<(&'static str, String)>,
}

/// A value of the attacker's that must not travel beside a credential of ours.
const LOOT: &str = "attackers-own-value";

/// The virtual keys beyond the world's own: slug, provider, fields, host its credential is bound to.
fn entities() -> [(&'static str, &'static str, Value, &'static str); 9] {
    [
        ("google-prod", "google", json!({}), "generativelanguage.googleapis.com"),
        ("cohere-prod", "cohere", json!({}), "api.cohere.ai"),
        (
            "azure-x",
            "azure-openai",
            json!({"resourceName": "myres", "deploymentName": "dep-1", "apiVersion": "2024-10-21"}),
            "myres.openai.azure.com",
        ),
        ("hf-prod", "huggingface", json!({}), "api-inference.huggingface.co"),
        (
            "foundry-prod",
            "azure-ai",
            json!({"azureFoundryUrl": "https://foundry.services.ai.azure.com/models"}),
            "foundry.services.ai.azure.com",
        ),
        ("vertex-prod", "vertex-ai", json!({"vertexProjectId": "proj"}), "us-central1-aiplatform.googleapis.com"),
        ("cf-prod", "workers-ai", json!({"workersAiAccountId": "acct"}), "api.cloudflare.com"),
        (
            "bedrock-key",
            "bedrock",
            json!({"awsAuthType": "apiKey", "awsRegion": "eu-west-1"}),
            "bedrock-runtime.eu-west-1.amazonaws.com",
        ),
        ("hosted-prod", "openai", json!({"customHost": "https://llm.corp.dev/v1"}), "llm.corp.dev"),
    ]
}

/// Every row of the table: the control at the bare gateway, then the same through Sidekey.
pub async fn nothing_leaves_for_another_place() {
    let (world, secrets) = stage().await;
    let mut wrong = Vec::new();
    for attack in rows::ATTACKS {
        let (secret, host) = secrets.of(attack.target);
        if attack.works_without_us {
            let named = secrets.bare(attack.target);
            let _ = (attack.call)(&named).send(world.gateway.address).await;
            let seen = world.provider.take();
            let leaked = seen.iter().any(|request| {
                let misplaced = request.host != host || request.contains(LOOT);
                misplaced && request.contains(secret)
            });
            if !leaked {
                wrong.push(format!("{}: no leak at the bare gateway: {seen:#?}", attack.name));
            }
        }
        let reply = (attack.call)(&Named::slug(attack.target)).send(world.sidekey.address).await;
        let seen = world.provider.take();
        for request in &seen {
            for (other, bound) in secrets.all() {
                let misplaced = request.host != bound || request.contains(LOOT);
                if request.contains(other) && misplaced {
                    wrong.push(format!("{}: {other} went to {}: {request:#?}", attack.name, request.host));
                }
            }
            for literal in ["undefined", "null", "[object Object]"] {
                if request.header("authorization").ends_with(literal) {
                    wrong.push(format!("{}: sent {literal} as a credential", attack.name));
                }
            }
        }
        world.assert_no_secret(attack.name, &format!("{:?} {}", reply.headers, reply.text()));
        let answered = (reply.status.as_u16(), reply.header("x-sidekey-error"));
        match attack.bound {
            Bound::Refused(status, code) => {
                if answered != (status, code.to_owned()) || !seen.is_empty() {
                    wrong.push(format!("{}: answered {answered:?} {}, sent {seen:#?}", attack.name, reply.text()));
                }
            }
            Bound::Harmless => {
                if !answered.1.is_empty() {
                    wrong.push(format!("{}: answered {answered:?} {}", attack.name, reply.text()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows::ATTACKS.len(), wrong.join("\n"));
}

/// A request that names no entity keeps its own credentials, and steers the gateway to nothing that only the pod may reach.
pub async fn unmatched_requests_reach_nothing_inside() {
    let (world, _) = stage().await;
    let admin = world.sidekey.admin;
    let inside = [
        format!("http://{admin}/v1"),
        format!("http://localhost:{}/v1", admin.port()),
        format!("http://127.1:{}/v1", admin.port()),
        format!("http://2130706433:{}/v1", admin.port()),
        format!("http://[::ffff:127.0.0.1]:{}/v1", admin.port()),
        "http://169.254.169.254/latest".to_owned(),
        "http://0xa9fea9fe/latest".to_owned(),
        "http://metadata.google.internal/v1".to_owned(),
        "http://169.254.169.254.nip.io/v1".to_owned(),
        "http://[fd00:ec2::254]/latest".to_owned(),
        "http://evil.attacker.dev/v1".to_owned(),
    ];
    for host in &inside {
        let chat = || Call::chat("gpt-4o-mini", "ping").header("authorization", "Bearer sk-clients-own");
        let target = json!({"provider": "openai", "api_key": "sk-clients-own", "custom_host": host});
        let camel = json!({"provider": "openai", "apiKey": "sk-clients-own", "customHost": host});
        let nested = json!({"strategy": {"mode": "fallback"}, "targets": [
            {"strategy": {"mode": "loadbalance"}, "targets": [target.clone()]}]});
        let calls = [
            chat().header("x-portkey-provider", "openai").header("x-portkey-custom-host", host),
            chat().header("x-portkey-config", target.to_string()),
            chat().header("x-portkey-config", camel.to_string()),
            chat().header("x-portkey-config", nested.to_string()),
            chat().header("x-portkey-provider", "huggingface").header("x-portkey-huggingface-base-url", host),
            chat().header("x-portkey-provider", "azure-ai").header("x-portkey-azure-foundry-url", host),
        ];
        for (row, call) in calls.into_iter().enumerate() {
            let reply = world.send(call).await;
            let answered = (reply.status.as_u16(), reply.header("x-sidekey-error"));
            assert_eq!(answered, (403, "destination_not_allowed".to_owned()), "{host} {row}: {}", reply.text());
            assert!(world.provider.take().is_empty(), "{host} {row}");
        }
    }
}

/// What cannot be resolved is an error: nothing is sent in its place.
pub async fn unresolved_is_never_sent() {
    let (mut world, _) = stage().await;
    for (slug, value) in [
        ("empty", json!({"api_key": ""})),
        ("nothing", json!({"api_key": null})),
        ("other", json!({"key": "sk-other"})),
    ] {
        world.bao.put(slug, value).await;
    }
    for slug in ["absent", "empty", "nothing", "other"] {
        let row = crate::world::reference(
            &format!("{slug}-key"),
            world.bao.token_auth(),
            &format!("secret/data/{slug}"),
            Some("api_key"),
        );
        push(&mut world.snapshot, "secret_references", row);
        let mappings = json!([mapping("key", &format!("{slug}-key"), None)]);
        push(&mut world.snapshot, "virtual_keys", virtual_key(slug, None, Some("openai"), json!({}), mappings));
    }
    world.replace_snapshot().await;
    for (slug, code) in [
        ("absent", "secret_not_found"),
        ("empty", "secret_malformed"),
        ("nothing", "secret_malformed"),
        ("other", "secret_malformed"),
    ] {
        let leaf = json!({"provider": format!("@{slug}")});
        let fallback = json!({"strategy": {"mode": "fallback"}, "targets": [leaf, {"provider": "@openai-prod"}]});
        for call in [
            Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@{slug}")),
            Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", fallback.to_string()),
            Call::post("/v1/anything").json(&json!({"model": format!("@{slug}/gpt-4o-mini")})),
        ] {
            let reply = world.send(call).await.expect(502);
            assert_eq!(reply.header("x-sidekey-error"), code, "{slug}");
            assert!(world.provider.take().is_empty(), "{slug}");
        }
    }
}

/// The world with the entities of [`entities`], each with a secret of its own.
async fn stage() -> (World, Keys) {
    let mut world = World::start().await;
    let mut keys = vec![
        ("openai-prod", world.secrets.openai.clone(), "api.openai.com", "openai", json!({})),
        ("anthropic-prod", world.secrets.anthropic.clone(), "api.anthropic.com", "anthropic", json!({})),
    ];
    for (slug, provider, fields, host) in entities() {
        let secret = format!("key-of-{slug}-{}", &world.secrets.azure["az-".len()..]);
        world.bao.put(slug, json!({"api_key": secret})).await;
        let reference = format!("{slug}-ref");
        let path = format!("secret/data/{slug}");
        let row = crate::world::reference(&reference, world.bao.token_auth(), &path, Some("api_key"));
        push(&mut world.snapshot, "secret_references", row);
        let mappings = json!([mapping("key", &reference, None)]);
        push(&mut world.snapshot, "virtual_keys", virtual_key(slug, None, Some(provider), fields.clone(), mappings));
        keys.push((slug, secret, host, provider, fields));
    }
    world.replace_snapshot().await;
    (world, Keys(keys))
}

/// Slug, secret, bound host, provider and stored fields of every entity of the stage.
struct Keys(Vec<(&'static str, String, &'static str, &'static str, Value)>);

// === impl Keys ===

impl Keys {
    fn row(&self, slug: &str) -> &(&'static str, String, &'static str, &'static str, Value) {
        self.0.iter().find(|row| row.0 == slug).expect("an entity of the stage")
    }

    fn of(&self, slug: &str) -> (&str, &'static str) {
        let row = self.row(slug);
        (&row.1, row.2)
    }

    fn all(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.0.iter().map(|row| (row.1.as_str(), row.2))
    }

    /// What a client of the bare gateway sends for the same entity.
    fn bare(&self, slug: &str) -> Named {
        let (_, secret, _, provider, fields) = self.row(slug);
        let mut headers = vec![("authorization", format!("Bearer {secret}"))];
        let mut leaf = json!({"provider": provider, "api_key": secret});
        for (stored, header, name) in [
            ("resourceName", "x-portkey-azure-resource-name", "resource_name"),
            ("deploymentName", "x-portkey-azure-deployment-id", "deployment_id"),
            ("apiVersion", "x-portkey-azure-api-version", "api_version"),
            ("awsAuthType", "x-portkey-aws-auth-type", "aws_auth_type"),
            ("vertexProjectId", "x-portkey-vertex-project-id", "vertex_project_id"),
        ] {
            if let Some(value) = fields[stored].as_str() {
                headers.push((header, value.to_owned()));
                leaf[name] = json!(value);
            }
        }
        Named { provider: (*provider).to_owned(), leaf, headers }
    }
}

// === impl Named ===

impl Named {
    fn slug(slug: &str) -> Self {
        Self { provider: format!("@{slug}"), leaf: json!({"provider": format!("@{slug}")}), headers: Vec::new() }
    }

    /// A small chat in header mode.
    fn chat(&self) -> Call {
        self.name(Call::chat("gpt-4o-mini", "ping"))
    }

    /// Names the entity on `call`.
    fn name(&self, call: Call) -> Call {
        let call = call.header("x-portkey-provider", &self.provider);
        self.headers.iter().fold(call, |call, (name, value)| call.header(name, value))
    }

    /// A small chat with a config.
    fn config(&self, config: &Value) -> Call {
        Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", config.to_string())
    }

    /// The leaf with more fields.
    fn leaf(&self, more: Value) -> Value {
        let mut leaf = self.leaf.clone();
        if let (Value::Object(leaf), Value::Object(more)) = (&mut leaf, more) {
            leaf.extend(more);
        }
        leaf
    }
}
