//! Credentials out of several clouds in one request, and what stops a Key Vault from giving one. The identities of each cloud
//! have files of their own.
//!
//! Real: Sidekey with Microsoft's libraries in it, the gateway, TLS, and every name and address of Azure's public cloud. Key
//! Vault, Entra and the metadata service are played by [`Provider`] as the services are documented: a vault answers the first
//! call with a challenge and takes a token only for its own audience and before its end.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::{task::block_in_place, time::Instant};

use crate::{
    client::{Call, Reply},
    components::MiniStack,
    harness,
    provider::{Answer, Provider, Received},
    world::{Setup, World, find, mapping, push, reference},
};

const VAULT: &str = "kv1.vault.azure.net";
const LOGIN: &str = "login.microsoftonline.com";
const AUDIENCE: &str = "https://vault.azure.net";
/// Where vaults are: unlike the addresses that names lead to here otherwise, one that anybody may have.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(20, 50, 1, 1);
const VALUE: &str = "sk-from-key-vault-41c9";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token for `audience` that ends in `secs`. Nobody checks a signature here.
fn token(audience: &str, secs: u64) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.sig", part(&json!({"alg": "none"})), part(&json!({"aud": audience, "exp": now() + secs})))
}

/// Whether the bearer token of `received` is one that a vault takes.
fn lets_in(received: &Received) -> bool {
    let header = received.header("authorization");
    let claims = header.strip_prefix("Bearer ").and_then(|token| token.split('.').nth(1));
    let claims = claims.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Value = claims.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    claims["aud"] == AUDIENCE && claims["exp"].as_u64().is_some_and(|end| end > now())
}

fn with_header(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    if let Answer::Whole { headers, .. } = &mut answer {
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    answer
}

/// Plays the vault at `host`: its challenge names `resource`, and `answer` is what a call with a good token gets.
fn play_vault(
    provider: &Provider,
    host: &'static str,
    resource: &'static str,
    answer: impl Fn(&Received) -> Answer + Send + Sync + 'static,
) {
    provider.resolve(host, PUBLIC);
    provider.script(host, move |received| {
        assert_eq!(received.scheme, "https", "{received:?}");
        if lets_in(received) {
            return Some(answer(received));
        }
        let challenge = format!("Bearer authorization=\"https://{LOGIN}/tenant-1\", resource=\"{resource}\"");
        let error = json!({"error": {"code": "Unauthorized", "message": "AKV10000: no token"}});
        Some(with_header(Answer::json(401, &error), "www-authenticate", &challenge))
    });
}

fn secret(name: &str, value: &str, attributes: &Value) -> Answer {
    let id = format!("https://{VAULT}/secrets/{name}/0123456789abcdef0123456789abcdef");
    Answer::json(200, &json!({"value": value, "id": id, "attributes": attributes}))
}

/// The vault of most tests: one secret, `openai`.
fn play_usual_vault(provider: &Provider) {
    play_vault(provider, VAULT, AUDIENCE, |received| match received.path().trim_end_matches('/') {
        "/secrets/openai" => secret("openai", VALUE, &json!({"enabled": true})),
        _ => Answer::json(404, &json!({"error": {"code": "SecretNotFound", "message": "no"}})),
    });
}

/// Plays Entra: takes the client secret `right`, or any client assertion.
fn play_entra(provider: &Provider) {
    provider.script(LOGIN, |received| {
        let form: std::collections::HashMap<String, String> =
            url::form_urlencoded::parse(&received.body).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let known = field("client_secret") == "right~secret" || field("client_assertion") == "projected.jwt.token";
        if received.path() != "/tenant-1/oauth2/v2.0/token" || field("scope") != "https://vault.azure.net/.default" {
            return Some(Answer::json(400, &json!({"error": "invalid_request", "error_codes": [90002]})));
        }
        if !known {
            let refusal = json!({"error": "invalid_client", "error_description": "AADSTS7000215: no", "error_codes": [7_000_215]});
            return Some(Answer::json(401, &refusal));
        }
        let token = token(AUDIENCE, 3599);
        Some(Answer::json(200, &json!({"token_type": "Bearer", "expires_in": 3599, "access_token": token})))
    });
}

fn entra(secret: &str) -> Value {
    json!({"azure_auth_mode": "entra", "azure_vault_url": format!("https://{VAULT}"), "azure_entra_tenant_id": "tenant-1",
        "azure_entra_client_id": "client-1", "azure_entra_client_secret": secret})
}

/// Adds the reference `kv-key` to `path` and the virtual key `kv-prod` that uses it, and trusts the authority of the test.
fn add(setup: &mut Setup, auth: Value, path: &str) {
    let mut row = reference("kv-key", auth, path, None);
    row["manager_type"] = json!("azure_kv");
    push(&mut setup.snapshot, "secret_references", row);
    setup.virtual_key("kv-prod", "openai", json!({}), json!([mapping("key", "kv-key", None)]));
    setup.config["egress"]["extra_ca_files"] = json!([harness::folder().join("authority.pem")]);
}

async fn ask(world: &World) -> Reply {
    world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", "@kv-prod")).await
}

/// The credential that the model API is told.
async fn credential(world: &World) -> String {
    ask(world).await.expect(200);
    let received = world.provider.received();
    received.iter().rfind(|received| received.host == "api.openai.com").expect("a request").header("authorization")
}

/// A vault that asks for the tokens of somebody else gets none.
pub async fn a_foreign_challenge_gets_no_token() {
    let world = World::with(|setup| add(setup, entra("right~secret"), "openai")).await;
    play_vault(&world.provider, VAULT, "https://management.azure.com", |_| panic!("no token was to be sent"));
    play_entra(&world.provider);
    let reply = ask(&world).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
    let sent = world.provider.received();
    let told = sent.iter().filter(|received| received.host == VAULT && !received.header("authorization").is_empty());
    assert_eq!(told.count(), 0, "{sent:?}");
}

/// What a vault hands out and must not be used, what it refuses, and what it is too busy for.
pub async fn each_refusal_has_its_code() {
    let day = 24 * 3600;
    let world = World::with(|setup| {
        for slug in ["disabled", "disabled-later", "expired", "early", "closed", "absent", "busy"] {
            let mut row = reference(slug, entra("right~secret"), slug, None);
            row["manager_type"] = json!("azure_kv");
            push(&mut setup.snapshot, "secret_references", row);
            setup.virtual_key(&format!("vk-{slug}"), "openai", json!({}), json!([mapping("key", slug, None)]));
        }
        setup.config["egress"]["extra_ca_files"] = json!([harness::folder().join("authority.pem")]);
    })
    .await;
    play_entra(&world.provider);
    play_vault(&world.provider, VAULT, AUDIENCE, move |received| {
        let forbidden =
            |inner: &str| json!({"error": {"code": "Forbidden", "message": "no", "innererror": {"code": inner}}});
        match received.path().trim_end_matches('/').trim_start_matches("/secrets/") {
            "disabled" => Answer::json(403, &forbidden("SecretDisabled")),
            "disabled-later" => secret("x", VALUE, &json!({"enabled": false})),
            "expired" => secret("x", VALUE, &json!({"enabled": true, "exp": now() - day})),
            "early" => secret("x", VALUE, &json!({"enabled": true, "nbf": now() + day})),
            "closed" => Answer::json(403, &forbidden("ForbiddenByRbac")),
            "busy" => with_header(Answer::json(429, &json!({"error": {"code": "Throttled"}})), "retry-after", "17"),
            _ => Answer::json(404, &json!({"error": {"code": "SecretNotFound", "message": "no"}})),
        }
    });
    for (slug, status, code) in [
        ("disabled", 502, "secret_disabled"),
        ("disabled-later", 502, "secret_disabled"),
        ("expired", 502, "secret_disabled"),
        ("early", 502, "secret_disabled"),
        ("closed", 502, "secret_denied"),
        ("absent", 502, "secret_not_found"),
        ("busy", 503, "manager_throttled"),
    ] {
        let call = Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@vk-{slug}"));
        let reply = world.send(call).await;
        let told = (reply.status.as_u16(), reply.header("x-sidekey-error"));
        assert_eq!(told, (status, code.to_owned()), "{slug}: {}", reply.text());
        assert!(!reply.text().contains(VALUE), "{slug}");
        if slug == "busy" {
            let wait: u64 = reply.header("retry-after").parse().unwrap();
            assert!((10..=25).contains(&wait), "{wait}");
        }
    }
    assert!(!world.provider.received().iter().any(|received| received.host == "api.openai.com"), "nothing was sent");
}

/// A vault with a certificate that nobody vouches for is refused within the deadline.
pub async fn an_untrusted_vault_is_refused_in_time() {
    let world = World::with(|setup| {
        add(setup, entra("right~secret"), "openai");
        setup.config["egress"].as_object_mut().unwrap().remove("extra_ca_files");
        setup.config["managers"]["deadline_secs"] = json!(4);
    })
    .await;
    play_usual_vault(&world.provider);
    play_entra(&world.provider);
    let began = Instant::now();
    let reply = ask(&world).await;
    assert_eq!(reply.header("x-sidekey-error"), "manager_unavailable", "{}", reply.text());
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let sent = world.provider.received();
    assert!(sent.iter().all(|received| received.header("authorization").is_empty()), "{sent:?}");
}

/// A name that leads to a public address when the snapshot is loaded, and inside later, is left from then on.
pub async fn a_vault_that_moves_inside_is_left() {
    let world = World::with(|setup| {
        add(setup, entra("right~secret"), "openai");
        setup.config["cache"] = json!({"ttl_secs": 0, "stale_secs": 0});
    })
    .await;
    play_entra(&world.provider);
    play_vault(&world.provider, VAULT, AUDIENCE, |_| {
        let answer = secret("openai", VALUE, &json!({"enabled": true}));
        // So that the next read looks the name up again.
        with_header(answer, "connection", "close")
    });
    assert_eq!(credential(&world).await, format!("Bearer {VALUE}"));
    for inside in ["10.0.0.5", "192.168.0.9", "169.254.169.254", "100.64.0.1"] {
        world.provider.take();
        world.provider.resolve(VAULT, inside.parse().unwrap());
        let reply = ask(&world).await;
        assert_eq!(reply.header("x-sidekey-error"), "reference_misconfigured", "{inside}: {}", reply.text());
        let sent = world.provider.received();
        assert!(!sent.iter().any(|received| received.host == VAULT), "{inside} was asked: {sent:?}");
    }
    world.provider.resolve(VAULT, PUBLIC);
}

/// One fallback config over three managers: Bedrock by a secret of AWS, Azure OpenAI by a vault of Azure, OpenAI by Vault. They
/// are asked at the same time, so that the slowest is what a cold request waits for.
pub async fn three_managers_in_one_config() {
    const SECOND: &str = "kv2.vault.azure.net";
    /// Less than a read may take, so that a vault left alone ends as an error.
    const PATIENCE: Duration = Duration::from_secs(10);
    let aws = MiniStack::start().await;
    let pair = json!({"id": "AKIAFROMSECRETS00001", "key": "aws-secret-from-secrets-manager"});
    let made = json!({"Name": "bedrock", "SecretString": pair.to_string()});
    aws.json("secretsmanager.CreateSecret", &made).await;
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}]});
    let (id, key) = aws.user("gw", &policy).await;
    let url = aws.url();
    let world = World::with(|setup| {
        setup.config["managers"]["timeout_secs"] = json!(15);
        setup.config["managers"]["deadline_secs"] = json!(20);
        setup.config["managers"]["aws"] = json!({"endpoint_url": url, "sts_endpoint_url": url});
        setup.config["egress"]["extra_ca_files"] = json!([harness::folder().join("authority.pem")]);
        let row = find(&mut setup.snapshot, "secret_references", "aws-keys");
        row["manager_type"] = json!("aws_sm");
        row["secret_path"] = json!("bedrock");
        row["auth_config"] = json!({"aws_auth_type": "accessKey", "aws_access_key_id": id,
            "aws_secret_access_key": key, "aws_region": "us-east-1"});
        for mapping in
            find(&mut setup.snapshot, "integrations", "bedrock-main")["secret_mappings"].as_array_mut().unwrap()
        {
            let is_id = mapping["secret_key"] == "access_key_id";
            mapping["secret_key"] = json!(if is_id { "id" } else { "key" });
        }
        let row = find(&mut setup.snapshot, "secret_references", "azure-key");
        row["manager_type"] = json!("azure_kv");
        row["secret_path"] = json!("openai");
        row["secret_key"] = Value::Null;
        row["auth_config"] = entra("right~secret");
        let mut row = reference("second-vault", entra("right~secret"), "openai", None);
        row["manager_type"] = json!("azure_kv");
        row["auth_config"]["azure_vault_url"] = json!(format!("https://{SECOND}"));
        push(&mut setup.snapshot, "secret_references", row);
        setup.virtual_key("anthropic-kv", "anthropic", json!({}), json!([mapping("key", "second-vault", None)]));
    })
    .await;
    play_entra(&world.provider);
    // Neither vault answers before both were asked: that is what "at the same time" means, on a busy machine too.
    let meeting = Arc::new((Mutex::new(0), Condvar::new()));
    for vault in [VAULT, SECOND] {
        let meeting = meeting.clone();
        play_vault(&world.provider, vault, AUDIENCE, move |_| {
            let (asked, both) = &*meeting;
            let met = block_in_place(|| {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                both.notify_all();
                !both.wait_timeout_while(asked, PATIENCE, |asked| *asked < 2).unwrap().1.timed_out()
            });
            assert!(met, "asked one after the other");
            secret("openai", VALUE, &json!({"enabled": true}))
        });
    }
    let busy = || Some(Answer::json(429, &json!({"error": {"message": "slow down"}})));
    world.provider.script("bedrock-runtime.eu-west-1.amazonaws.com", move |_| busy());
    world.provider.script("myres.openai.azure.com", move |_| busy());
    world.provider.script("api.anthropic.com", move |_| busy());
    let config = json!({"strategy": {"mode": "fallback"}, "targets": [
        {"provider": "@bedrock-prod"}, {"provider": "@azure-prod"}, {"provider": "@anthropic-kv"}, {"provider": "@openai-prod"}]});
    world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-config", config.to_string())).await.expect(200);

    let received = world.provider.received();
    let at = |host: &str| {
        received.iter().find(|received| received.host == host).unwrap_or_else(|| panic!("nothing at {host}"))
    };
    let signed = at("bedrock-runtime.eu-west-1.amazonaws.com").header("authorization");
    assert!(signed.contains("AKIAFROMSECRETS00001"), "{signed}");
    assert_eq!(at("myres.openai.azure.com").header("api-key"), VALUE);
    assert_eq!(at("api.anthropic.com").header("x-api-key"), VALUE);
    assert_eq!(at("api.openai.com").header("authorization"), format!("Bearer {}", world.secrets.openai));
}
