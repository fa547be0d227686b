//! `gcp_sm` all the way: a request's credential comes from Google Secret Manager, by each identity.
//!
//! Real: Sidekey, the gateway, and in the first test drongo as Secret Manager. Google's token services, the metadata server
//! and, where a token has to be looked at, Secret Manager itself are played by [`Provider`] under their own names and
//! addresses, over TLS where they have it.

use std::{collections::HashMap, fs, path::PathBuf};

use http::Method;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::{
    client::Call,
    components::Drongo,
    harness,
    provider::{Answer, Provider, Received},
    world::{Setup, World, mapping, push, reference},
};

const VALUE: &str = "sk-from-google-5f1d";

/// Adds the reference `google-key` to `path` and the virtual key `google-prod` that uses it, and lets Sidekey trust `world`'s
/// authority, which the provider writes before anything starts.
fn add(setup: &mut Setup, auth: Value, path: &str) {
    let mut row = reference("google-key", auth, path, None);
    row["manager_type"] = json!("gcp_sm");
    push(&mut setup.snapshot, "secret_references", row);
    setup.virtual_key("google-prod", "openai", json!({}), json!([mapping("key", "google-key", None)]));
    setup.config["egress"]["extra_ca_files"] = json!([harness::folder().join("authority.pem")]);
}

fn key_file() -> String {
    json!({
        "type": "service_account", "project_id": "demo", "private_key_id": "k-1",
        "private_key": KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem(),
        "client_email": "gw@demo.iam.gserviceaccount.com", "token_uri": "https://evil.example/token",
    })
    .to_string()
}

fn write(name: &str, text: &str) -> PathBuf {
    let path = harness::folder().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn token(token: &str) -> Answer {
    Answer::json(200, &json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}))
}

fn form(received: &Received) -> HashMap<String, String> {
    url::form_urlencoded::parse(&received.body).into_owned().collect()
}

/// Plays Secret Manager at `host`: one secret, which only `token` may read.
fn play_secret_manager(provider: &Provider, host: &'static str, path: &'static str, token: &'static str) {
    provider.script(host, move |received| {
        let is_right = received.scheme == "https" && received.target == path && received.method == Method::GET;
        if !is_right || received.header("authorization") != format!("Bearer {token}") {
            let status = json!({"error": {"code": 401, "status": "UNAUTHENTICATED"}});
            return Some(Answer::json(401, &status));
        }
        // The base64 of VALUE and its CRC-32C, by other hands than ours.
        let payload = json!({"data": "c2stZnJvbS1nb29nbGUtNWYxZA==", "dataCrc32c": "1070420746"});
        Some(Answer::json(200, &json!({"name": "projects/1/secrets/openai/versions/3", "payload": payload})))
    });
}

/// Sends a request with `google-prod` and says what the model API was told.
async fn credential(world: &World) -> String {
    world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", "@google-prod")).await.expect(200);
    let received = world.provider.received();
    received.iter().rfind(|received| received.host == "api.openai.com").expect("a request").header("authorization")
}

/// A key is exchanged at Google's address, whatever it says itself; the secret and its versions come from the emulator.
pub async fn by_service_account_key() {
    let drongo = Drongo::start().await;
    drongo.put("openai", "sk-first").await;
    drongo.put("openai", VALUE).await;
    let auth =
        json!({"gcp_auth_type": "serviceAccountKey", "gcp_project_id": "demo", "gcp_service_account_json": key_file()});
    let world = World::with(|setup| {
        add(setup, auth.clone(), "openai");
        for (slug, path) in [("first", "openai?version=1"), ("absent", "projects/demo/secrets/absent")] {
            let mut row = reference(&format!("google-{slug}"), auth.clone(), path, None);
            row["manager_type"] = json!("gcp_sm");
            push(&mut setup.snapshot, "secret_references", row);
            let key = json!([mapping("key", &format!("google-{slug}"), None)]);
            setup.virtual_key(slug, "openai", json!({}), key);
        }
        setup.config["managers"] = json!({"gcp": {"endpoint_url": drongo.url()}});
        setup.config["cache"] = json!({"ttl_secs": 0});
    })
    .await;
    world.provider.script("oauth2.googleapis.com", |received| {
        let is_grant = form(received)["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer";
        Some(if is_grant { token("ya29.key") } else { Answer::json(400, &json!({"error": "invalid_request"})) })
    });
    assert_eq!(credential(&world).await, format!("Bearer {VALUE}"));
    let send = async |slug: &str| {
        world.send(Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@{slug}"))).await
    };
    send("first").await.expect(200);
    assert_eq!(send("absent").await.expect(502).header("x-sidekey-error"), "secret_not_found");
    drongo.call(Method::POST, "projects/demo/secrets/openai/versions/1:disable", &json!({})).await.expect(200);
    assert_eq!(send("first").await.expect(502).header("x-sidekey-error"), "secret_disabled");

    let received = world.provider.received();
    let logins = received.iter().filter(|received| received.host == "oauth2.googleapis.com");
    let logins: Vec<_> = logins.map(|received| (received.scheme, received.target.as_str())).collect();
    assert_eq!(logins, [("https", "/token")], "one login serves every reference of an identity");
    assert!(received.iter().all(|received| received.host != "evil.example"));
    let models = received.iter().filter(|received| received.host == "api.openai.com");
    let models: Vec<_> = models.map(|received| received.header("authorization")).collect();
    assert_eq!(models, [format!("Bearer {VALUE}"), "Bearer sk-first".to_owned()]);
}

/// Without a credentials file the metadata server says who we are; a region's secret is asked for at the region's own host.
pub async fn by_metadata_server() {
    let auth = json!({"gcp_auth_type": "workloadIdentity", "gcp_project_id": "demo", "gcp_location": "europe-west3"});
    let world = World::with(|setup| add(setup, auth, "openai")).await;
    world.provider.script("169.254.169.254", |received| {
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        let is_right = received.header("metadata-flavor") == "Google" && received.target == path;
        is_right.then(|| token("ya29.metadata").header("metadata-flavor", "Google"))
    });
    let path = "/v1/projects/demo/locations/europe-west3/secrets/openai/versions/latest:access";
    let host = "secretmanager.europe-west3.rep.googleapis.com";
    // A host that a reference has a word in is judged, and documentation addresses are closed.
    world.provider.resolve(host, "142.250.1.95".parse().unwrap());
    play_secret_manager(&world.provider, host, path, "ya29.metadata");
    assert_eq!(credential(&world).await, format!("Bearer {VALUE}"));
}

/// A token file is exchanged at Google's token service, and what comes back for the token of a service account.
pub async fn by_federation() {
    let token_file = write("subject", "eyJ.subject.token\n");
    let credentials = write(
        "credentials.json",
        &json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": token_file},
            "service_account_impersonation_url":
                "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/gw@demo.iam.gserviceaccount.com:generateAccessToken",
        })
        .to_string(),
    );
    let auth = json!({"gcp_auth_type": "workloadIdentity"});
    let world = World::with(|setup| {
        add(setup, auth, "projects/demo/secrets/openai");
        let path = credentials.to_str().unwrap().to_owned();
        setup.environment.push(("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), path));
    })
    .await;
    world.provider.script("sts.googleapis.com", |received| {
        let expected = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k"),
            ("scope", "https://www.googleapis.com/auth/cloud-platform"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("subject_token", "eyJ.subject.token"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let is_right =
            received.scheme == "https" && received.target == "/v1/token" && form(received) == HashMap::from(expected);
        Some(if is_right { token("ya29.federated") } else { Answer::json(400, &json!({"error": "invalid_grant"})) })
    });
    world.provider.script("iamcredentials.googleapis.com", |received| {
        let path = "/v1/projects/-/serviceAccounts/gw@demo.iam.gserviceaccount.com:generateAccessToken";
        let body = json!({"scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "3600s"});
        let is_right = received.scheme == "https" && received.target == path && received.json() == body;
        let is_known = received.header("authorization") == "Bearer ya29.federated";
        let issued = json!({"accessToken": "ya29.impersonated", "expireTime": "2099-01-01T00:00:00Z"});
        Some(if is_right && is_known { Answer::json(200, &issued) } else { Answer::json(403, &json!({"error": {}})) })
    });
    let path = "/v1/projects/demo/secrets/openai/versions/latest:access";
    play_secret_manager(&world.provider, "secretmanager.googleapis.com", path, "ya29.impersonated");
    assert_eq!(credential(&world).await, format!("Bearer {VALUE}"));
    let log = world.sidekey.log();
    for secret in ["ya29.", "eyJ.subject", VALUE] {
        assert!(!log.contains(secret), "{secret} stands in the log");
    }
}
