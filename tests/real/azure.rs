//! `azure_kv` all the way: a request's credential comes from Key Vault, by each identity, under Azure's own names.
//!
//! Real: Sidekey's binary with Microsoft's libraries, the gateway, TLS, DNS, the address of instance metadata. Ours: Entra, the
//! vaults and the machine's identity service, which [`cloud`] plays behind [`Provider`](crate::provider::Provider).

#[path = "../it/contract/azure_kv/cloud.rs"]
#[allow(dead_code, reason = "offers what other tests need")]
mod cloud;

use std::{fs, sync::Arc};

use serde_json::{Value, json};

use self::cloud::{
    APP_SERVICE_HEADER, ASSIGNED, Asked, CLIENT, CLIENT_SECRET, Cloud, FEDERATED, FORBIDDEN, Reply, TENANT, now,
};
use crate::{
    client::Call,
    harness, process,
    provider::Answer,
    world::{Setup, World, mapping, push, reference},
};

const VALUE: &str = "sk-from-azure-5f1d";
const VAULT: &str = "kv1.vault.azure.net";
const METADATA: &str = "169.254.169.254";

/// A reference and a virtual key of the same name that uses it.
fn add(setup: &mut Setup, slug: &str, host: &str, identity: Value, path: &str) {
    let mut auth = identity;
    auth["azure_vault_url"] = json!(format!("https://{host}"));
    let mut row = reference(slug, auth, path, None);
    row["manager_type"] = json!("azure_kv");
    push(&mut setup.snapshot, "secret_references", row);
    setup.virtual_key(slug, "openai", json!({}), json!([mapping("key", slug, None)]));
    setup.config["managers"]["azure"]["ca_file"] = json!(harness::folder().join("authority.pem"));
}

fn entra() -> Value {
    json!({"azure_auth_mode": "entra", "azure_entra_tenant_id": TENANT, "azure_entra_client_id": CLIENT,
           "azure_entra_client_secret": CLIENT_SECRET})
}

/// Lets `cloud` answer for Azure's hosts, and the machine's own.
fn play(world: &World, cloud: &Arc<Cloud>) {
    // The public's own range: documentation addresses are closed to references.
    for host in [VAULT, "kv1.vault.usgovcloudapi.net", "foreign.vault.azure.net"] {
        world.provider.resolve(host, "20.0.0.4".parse().unwrap());
    }
    let cloud = Arc::clone(cloud);
    world.provider.script("*", move |received| {
        let host = received.host.split(':').next().unwrap_or_default();
        let is_machine = received.scheme == "http" && matches!(host, METADATA | "127.0.0.1");
        let is_azure = received.scheme == "https" && (host.contains(".vault.") || host.starts_with("login.microsoft"));
        if !is_machine && !is_azure {
            return None;
        }
        let headers = received.headers.iter().map(|(name, _)| (name.to_string(), received.header(name.as_str())));
        let asked = Asked {
            host: host.to_owned(),
            method: received.method.to_string(),
            target: received.target.clone(),
            headers: headers.collect(),
            body: received.text(),
        };
        let reply = match host {
            "foreign.vault.azure.net" => {
                let challenge =
                    r#"Bearer authorization="https://evil.example/t", resource="https://management.azure.com""#;
                Reply::json(401, &json!({})).header("www-authenticate", challenge)
            }
            _ => cloud.answer(&asked),
        };
        let answer = Answer::whole(reply.status, "application/json", reply.body);
        Some(reply.headers.iter().fold(answer, |answer, (name, value)| answer.header(name, value)))
    });
}

async fn ask(world: &World, slug: &str) -> crate::client::Reply {
    world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@{slug}"))).await
}

/// What the model API was told for `slug`.
async fn credential(world: &World, slug: &str) -> String {
    ask(world, slug).await.expect(200);
    let received = world.provider.received();
    received.iter().rfind(|received| received.host == "api.openai.com").expect("a request").header("authorization")
}

/// A client's secret: each cloud is logged in at by its own authority, what may not be used is refused, and a vault that asks
/// for other tokens gets none.
pub async fn by_client_secret() {
    let world = World::with(|setup| {
        setup.config["snapshot"]["strict"] = json!(true);
        setup.config["cache"] = json!({"ttl_secs": 0, "negative_ttl_secs": 1});
        for name in ["app", "disabled", "expired", "early", "absent", FORBIDDEN] {
            add(setup, name, VAULT, entra(), name);
        }
        add(setup, "by-address", VAULT, entra(), &format!("https://{VAULT}/secrets/app"));
        add(setup, "government", "kv1.vault.usgovcloudapi.net", entra(), "app");
        add(setup, "foreign", "foreign.vault.azure.net", entra(), "app");
    })
    .await;
    let cloud = Arc::new(Cloud::default());
    play(&world, &cloud);
    cloud.put("app", VALUE);
    cloud.put_with("disabled", VALUE, json!({"enabled": false}));
    cloud.put_with("expired", VALUE, json!({"exp": now() - 1}));
    cloud.put_with("early", VALUE, json!({"nbf": now() + 600}));
    for slug in ["app", "by-address", "government"] {
        assert_eq!(credential(&world, slug).await, format!("Bearer {VALUE}"), "{slug}");
    }
    #[rustfmt::skip]
    let rows = [
        // reference, code, manager's code
        ("disabled", "secret_disabled", "SecretDisabled"),
        ("expired", "secret_disabled", "expired"),
        ("early", "secret_disabled", "not_yet_valid"),
        ("absent", "secret_not_found", "SecretNotFound"),
        (FORBIDDEN, "secret_denied", "ForbiddenByRbac"),
        ("foreign", "reference_misconfigured", "foreign_challenge"),
    ];
    for (slug, code, manager_code) in rows {
        let reply = ask(&world, slug).await;
        assert_eq!(reply.header("x-sidekey-error"), code, "{slug}: {reply:?}");
        let request_id = reply.json()["error"]["request_id"].as_str().unwrap().to_owned();
        let lines = world.sidekey.log_of(&request_id);
        assert!(lines.iter().any(|line| line["manager_code"] == manager_code), "{slug}: {lines:#?}");
    }
    let received = world.provider.received();
    let logins = received.iter().filter(|received| received.target.contains("/oauth2/"));
    let mut hosts: Vec<_> = logins.map(|received| received.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    assert_eq!(hosts, ["login.microsoftonline.com", "login.microsoftonline.us"]);
    let foreign = received.iter().filter(|received| received.host == "foreign.vault.azure.net");
    assert!(foreign.map(|received| received.header("authorization")).all(|header| header.is_empty()));
    for (what, text) in world.said().await {
        for secret in [VALUE, CLIENT_SECRET, "eyJ"] {
            assert!(!text.contains(secret), "{what} shows {secret}");
        }
    }
}

/// The machine's identities, system-assigned and assigned, from an identity service that is still waking up; never through the
/// proxy.
pub async fn by_the_machine() {
    let world = World::with(|setup| {
        add(setup, "system", VAULT, json!({"azure_auth_mode": "managed"}), "app");
        add(
            setup,
            "assigned",
            VAULT,
            json!({"azure_auth_mode": "managed", "azure_managed_client_id": ASSIGNED}),
            "app",
        );
        add(setup, "stranger", VAULT, json!({"azure_auth_mode": "managed", "azure_managed_client_id": CLIENT}), "app");
        add(setup, "own", VAULT, json!({"azure_auth_mode": "default"}), "app");
    })
    .await;
    let cloud = Arc::new(Cloud::default());
    cloud.put("app", VALUE);
    let waking = Arc::clone(&cloud);
    play(&world, &cloud);
    // Not ready for the first two times.
    let tries = std::sync::atomic::AtomicU32::new(0);
    world.provider.script(METADATA, move |_| {
        let number = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (number < 2).then(|| Answer::json(410, &json!({"error": "not ready"})))
    });
    for slug in ["system", "assigned", "own"] {
        assert_eq!(credential(&world, slug).await, format!("Bearer {VALUE}"), "{slug}");
    }
    let reply = ask(&world, "stranger").await;
    assert_eq!(reply.header("x-sidekey-error"), "manager_unauthenticated", "{reply:?}");
    assert_eq!(waking.asked("/metadata/identity/oauth2/token"), 4, "two refusals never reached it");
    let said = world.sidekey.log();
    for identity in
        ["system-assigned managed identity by instance metadata", &format!("managed identity {ASSIGNED} by")]
    {
        assert!(said.contains(identity), "the log does not name {identity}");
    }
}

/// `default` takes what the environment names, in its order, and `check --resolve` says which that was.
pub async fn by_the_environment() {
    let token_file = harness::folder().join("federated");
    fs::write(&token_file, format!("{FEDERATED}\n")).unwrap();
    let token_file = token_file.to_str().unwrap();
    let world = World::with(|setup| add(setup, "own", VAULT, json!({"azure_auth_mode": "default"}), "app")).await;
    let cloud = Arc::new(Cloud::default());
    cloud.put("app", VALUE);
    play(&world, &cloud);
    let client = [("AZURE_TENANT_ID", TENANT), ("AZURE_CLIENT_ID", CLIENT)];
    let secret = ("AZURE_CLIENT_SECRET", CLIENT_SECRET);
    let file = ("AZURE_FEDERATED_TOKEN_FILE", token_file);
    let endpoint = ("IDENTITY_ENDPOINT", "http://127.0.0.1/msi/token");
    #[rustfmt::skip]
    let rows = [
        // environment, who won
        ([&client[..], &[secret, file]].concat(), format!("entra client {CLIENT} of {TENANT}")),
        ([&client[..], &[file, endpoint]].concat(), format!("workload identity {CLIENT} of {TENANT}")),
        (vec![endpoint, ("IDENTITY_HEADER", APP_SERVICE_HEADER)], "system-assigned managed identity by App Service".to_owned()),
        (vec![("AZURE_CLIENT_ID", ASSIGNED)], format!("managed identity {ASSIGNED} by instance metadata")),
        (vec![], "system-assigned managed identity by instance metadata".to_owned()),
    ];
    for (environment, winner) in rows {
        let mut command = process::command(env!("CARGO_BIN_EXE_sidekey"));
        command.args(["check", "--resolve", "--config"]).arg(&world.sidekey.config_file);
        let output = command.envs(environment.iter().copied()).output().await.expect("it starts");
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        let line = said.lines().find(|line| line.trim_start().starts_with("own")).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(&winner) && output.status.success(), "{winner} did not win: {said}");
        assert!(!said.contains(VALUE) && !said.contains(CLIENT_SECRET), "{said}");
    }
}
