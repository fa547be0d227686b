//! Webhooks as their sources send them, over the listener: what is believed, what it leads to, and what everything else costs.
//!
//! Tokens are signed by a key of the test, published by an issuer of the test on loopback over TLS.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256};
use rustls::{ServerConfig, crypto::aws_lc_rs as provider, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use sidekey::{
    egress::{self, Bounds, Policy, Reach, Transport},
    manager::fake::Answer,
    proxy::TlsSettings,
    push::{EventBridge, EventGrid, Hmac, Pubsub, Push, PushError, Settings, Synced},
    resolve::Uses,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::harness::{Call, Reply, Setup, World, pass, within};

const SECRET: &str = "a-shared-secret-of-length";
const OTHER: &str = "another-shared-secret-of-length";
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const EVENT_GRID: &str = "4962773b-9cdb-44cf-a8bf-237846a00ab7";
const ACCOUNT: &str = "push@my-project.iam.gserviceaccount.com";
const AUDIENCE: &str = "api://sidekey";
/// Between two looks at the keys of an issuer.
const REST: Duration = Duration::from_secs(10);

/// Making a key takes a moment, so that all tests share them.
static KEYS: LazyLock<[RsaKeyPair; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        RsaKeyPair::from_pkcs8(&key.serialize_der()).unwrap()
    })
});

/// An issuer of tokens; answers every path below any tenant with its discovery document or its keys.
struct Authority {
    address: SocketAddr,
    keys: Arc<Mutex<Vec<Value>>>,
    fetches: Arc<AtomicUsize>,
}

/// A delivery that is not from whom it should be: source, why, header, body.
type Forged<'a> = (&'a str, &'a str, Option<(&'a str, String)>, &'a str);

/// World, listener, and where its files are.
struct Stage {
    world: World,
    authority: Authority,
    address: SocketAddr,
    folder: TempDir,
}

impl Authority {
    async fn start(folder: &TempDir) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        fs::write(folder.path().join("ca.pem"), params.self_signed(&ca_key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        fs::write(folder.path().join("cert.pem"), leaf.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (keys, fetches) = (Arc::new(Mutex::new(vec![jwk(0, "k0")])), Arc::new(AtomicUsize::new(0)));
        let (published, counted) = (Arc::clone(&keys), Arc::clone(&fetches));
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    head.extend(byte);
                }
                let body = match String::from_utf8_lossy(&head).contains("/.well-known/openid-configuration ") {
                    true => json!({"jwks_uri": format!("https://localhost:{}/keys", address.port())}),
                    false => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        json!({"keys": *published.lock().unwrap()})
                    }
                };
                let body = body.to_string();
                let reply =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                stream.write_all(reply.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        Self { address, keys, fetches }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}

impl Stage {
    async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::start(&folder).await;
        let file = folder.path().join("secret");
        fs::write(&file, format!("{SECRET}\n{OTHER}\n")).unwrap();
        let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
        settings.eventbridge =
            Some(EventBridge::ApiKey { header: "x-sidekey-key".parse().unwrap(), file: file.clone() });
        settings.event_grid = Some(EventGrid {
            audience: AUDIENCE.to_owned(),
            tenant_id: TENANT.to_owned(),
            app_id: EVENT_GRID.to_owned(),
            authority_host: authority.url().parse().unwrap(),
        });
        settings.pubsub = Some(Pubsub {
            audience: AUDIENCE.to_owned(),
            service_account: ACCOUNT.to_owned(),
            issuer: authority.url(),
        });
        let synced = |reference: &str| Some(Synced { file: file.clone(), references: vec![reference.to_owned()] });
        settings.doppler = synced("vault");
        settings.infisical = synced("vault");
        settings.hmac = Some(Hmac { file: file.clone(), tolerance: Duration::from_secs(300) });
        change(&mut settings);
        let world = World::start(Setup { snapshot: Some(snapshot()), ..Setup::default() }).await;
        for reference in &world.feed.current().unwrap().references {
            let path = reference.location.path.to_string();
            world.secrets.script(&path, [Answer::text("1"), Answer::text("2")]);
            world.resolver.refresh(reference, &Uses::default()).await.unwrap();
        }
        let transport = transport(vec![folder.path().join("ca.pem")]);
        let (feed, metrics) = (Arc::clone(&world.feed), Arc::clone(&world.metrics));
        let push = Push::bind(&settings, &transport, feed, world.resolver.expiry(), metrics).await.unwrap();
        let address = push.address().unwrap();
        tokio::spawn(push.run(std::future::pending()));
        Self { world, authority, address, folder }
    }

    fn post(&self, source: &str) -> Call {
        Call::to(self.address, Method::POST, &format!("/v1/webhooks/{source}"))
    }

    /// The paths that were read again.
    fn read_again(&self) -> Vec<String> {
        let references = self.world.feed.current().unwrap();
        let paths = references.references.iter().map(|reference| reference.location.path.to_string());
        let mut paths: Vec<_> = paths.filter(|path| self.world.secrets.calls(path) > 1).collect();
        paths.dedup();
        paths
    }

    /// Waits until a signal has been answered.
    async fn answered(&self) {
        self.world.logged("as was signalled").await;
    }

    fn counted(&self, source: &str, outcome: &str) -> u64 {
        let name = format!("sidekey_webhooks_total{{source=\"{source}\",outcome=\"{outcome}\"}} ");
        let text = self.world.metrics.encode();
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
    }

    /// A token of Event Grid, of version 1.
    fn entra(&self) -> Value {
        json!({"iss": format!("https://sts.windows.net/{TENANT}/"), "aud": AUDIENCE, "tid": TENANT, "appid": EVENT_GRID,
            "nbf": seconds() - 5, "exp": seconds() + 3600})
    }

    /// A token of a push subscription.
    fn google(&self) -> Value {
        json!({"iss": self.authority.url(), "aud": AUDIENCE, "azp": "113774264463038321964", "sub": "113774264463038321964",
            "email": ACCOUNT, "email_verified": true, "iat": seconds(), "exp": seconds() + 3600})
    }
}

fn transport(ca_files: Vec<PathBuf>) -> Arc<Transport> {
    Arc::new(Transport::new(Policy::new(egress::Settings::default()), ca_files, Duration::from_secs(3)).unwrap())
}

fn snapshot() -> Value {
    let reference = |slug: &str, manager: &str, path: &str, auth: Value| {
        json!({"id": format!("id-{slug}"), "slug": slug, "manager_type": manager, "secret_path": path, "status": "active",
            "auth_config": auth})
    };
    let aws = json!({"aws_auth_type": "serviceRole", "aws_region": "us-west-2"});
    let azure = json!({"azure_auth_mode": "managed", "azure_vault_url": "https://sample-kv.vault.azure.net"});
    let gcp = json!({"gcp_auth_type": "workloadIdentity", "gcp_project_id": "my-project"});
    let vault = json!({"vault_auth_type": "token", "vault_addr": "https://vault.example:8200", "vault_token": "t"});
    json!({"schema_version": 1, "version": 1, "organisation_id": "o", "secret_references": [
        reference("aws", "aws_sm", "mySecret", aws.clone()),
        reference("ssm", "aws_ssm", "/team/openai", aws),
        reference("azure", "azure_kv", "newsecret", azure),
        reference("gcp", "gcp_sm", "my-secret", gcp),
        reference("vault", "hashicorp_vault", "secret/data/team/openai", vault.clone()),
        reference("left", "hashicorp_vault", "secret/data/other", vault),
    ]})
}

fn secret_manager() -> Value {
    json!({"version": "0", "id": "1", "detail-type": "Secret Label Updated", "source": "aws.secretsmanager",
        "account": "012345678901", "region": "us-west-2", "time": "2026-11-25T14:00:00Z",
        "resources": ["arn:aws:secretsmanager:us-west-2:012345678901:secret:mySecret-a1b2c3"],
        "detail": {"name": "mySecret", "labelUpdated": "AWSCURRENT", "versionId": "v2"}})
}

fn key_vault() -> Value {
    json!([{"id": "1", "topic": "/subscriptions/x", "subject": "newsecret", "eventType": "Microsoft.KeyVault.SecretNewVersionCreated",
        "eventTime": "2026-07-25T01:08:33Z", "dataVersion": "1", "metadataVersion": "1",
        "data": {"Id": "https://sample-kv.vault.azure.net/secrets/newsecret/ee059b2bb5bc48398a53b168c6cdcb10",
            "VaultName": "sample-kv", "ObjectType": "Secret", "ObjectName": "newsecret"}}])
}

fn notification() -> Value {
    json!({"message": {"attributes": {"eventType": "SECRET_VERSION_ADD", "secretId": "projects/my-project/secrets/my-secret"},
        "messageId": "1"}, "subscription": "projects/my-project/subscriptions/s"})
}

/// Seconds since 1970.
fn seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// The public part of a key of the test.
fn jwk(index: usize, kid: &str) -> Value {
    // RSAPublicKey (RFC 8017, A.1.1) of 2048 bits: a head of 9 bytes, 256 of the modulus, then the exponent 65537.
    let der = KEYS[index].public_key().as_ref();
    assert_eq!((der.len(), &der[265..]), (270, &[2, 3, 1, 0, 1][..]));
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": encode(&der[9..265]), "e": encode(&[1, 0, 1])})
}

fn token(index: usize, kid: &str, claims: &Value) -> String {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": kid});
    let signed = [header.to_string(), claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = &KEYS[index];
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn hex_hmac(secret: &str, text: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Our own signature.
fn ours(secret: &str, time: i64, body: &str) -> String {
    format!("t={time},v1={}", hex_hmac(secret, &format!("{time}.{body}")))
}

fn changed(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

async fn send(call: Call) -> Reply {
    within(call.send()).await
}

#[tokio::test]
async fn each_source_has_its_secret_read_again_and_no_other() {
    let infisical =
        format!(r#"{{"event":"secrets.modified","project":{{"workspaceId":"w"}},"timestamp":{}}}"#, seconds() * 1000);
    let by_name = r#"{"references":["id-vault"]}"#;
    let by_path = r#"{"manager":"hashicorp_vault","paths":["secret/team"]}"#;
    type Make<'a> = Box<dyn Fn(&Stage) -> Call + 'a>;
    let parameter = json!({"version": "0", "detail-type": "Parameter Store Change", "source": "aws.ssm", "region": "us-west-2",
        "resources": ["arn:aws:ssm:us-west-2:012345678901:parameter/team/openai"], "detail": {"name": "/team/openai"}});
    #[rustfmt::skip]
    let rows: Vec<(&str, Make<'_>, &str)> = vec![
        ("eventbridge", Box::new(|s| s.post("eventbridge").header("x-sidekey-key", SECRET).json(&secret_manager())), "mySecret"),
        ("eventbridge", Box::new(|s| s.post("eventbridge").header("x-sidekey-key", OTHER).json(&parameter)), "/team/openai"),
        ("event_grid", Box::new(|s| s.post("event_grid").header("authorization", &token(0, "k0", &s.entra())).json(&key_vault())), "newsecret"),
        ("event_grid", Box::new(|s| {
            let v2 = format!("{}/{TENANT}/v2.0", s.authority.url());
            let claims = changed(changed(changed(s.entra(), "iss", v2), "azp", EVENT_GRID), "appid", Value::Null);
            s.post("event_grid").header("authorization", &token(0, "k0", &claims)).json(&key_vault()[0])
        }), "newsecret"),
        ("pubsub", Box::new(|s| s.post("pubsub").header("authorization", &token(0, "k0", &s.google())).json(&notification())), "my-secret"),
        ("doppler", Box::new(|s| s.post("doppler").header("x-doppler-signature", &format!("sha256={}", hex_hmac(SECRET, "{}"))).body("{}")), "secret/data/team/openai"),
        ("infisical", Box::new(|s| {
            let signature = format!("t={}000;{}", &infisical[infisical.len() - 14..infisical.len() - 4], hex_hmac(SECRET, &infisical));
            s.post("infisical").header("x-infisical-signature", &signature).body(infisical.clone())
        }), "secret/data/team/openai"),
        ("hmac", Box::new(|s| s.post("hmac").header("x-sidekey-signature", &ours(SECRET, seconds(), by_name)).body(by_name)), "secret/data/team/openai"),
        ("hmac", Box::new(|s| s.post("hmac").header("x-sidekey-signature", &ours(OTHER, seconds() - 290, by_path)).body(by_path)), "secret/data/team/openai"),
    ];
    for (source, make, path) in rows {
        let stage = Stage::start(|_| {}).await;
        let reply = send(make(&stage)).await;
        assert_eq!((reply.status, reply.text().as_str()), (202, ""), "{source} {path}");
        stage.answered().await;
        assert_eq!(stage.read_again(), [path], "{source}");
        assert_eq!(stage.counted(source, "signalled"), 1, "{source}");
    }
}

#[tokio::test]
async fn what_is_forged_is_refused_and_nothing_is_read() {
    let stage = Stage::start(|_| {}).await;
    let body = r#"{"references":["vault"]}"#;
    let (entra, google) = (stage.entra(), stage.google());
    let bearer = |claims: &Value| Some(("authorization", token(0, "k0", claims)));
    let now = seconds();
    let stale = format!(r#"{{"event":"secrets.modified","timestamp":{}}}"#, (now - 400) * 1000);
    let moved = format!(r#"{{"event":"secrets.modified","timestamp":{}}}"#, (now - 1) * 1000);
    #[rustfmt::skip]
    let rows: Vec<Forged<'_>> = vec![
        ("eventbridge", "no key", None, "{}"),
        ("eventbridge", "wrong key", Some(("x-sidekey-key", "a-shared-secret-of-lengtt".to_owned())), "{}"),
        ("eventbridge", "other header", Some(("x-api-key", SECRET.to_owned())), "{}"),
        ("eventbridge", "two secrets", Some(("x-sidekey-key", format!("{SECRET}\t{OTHER}"))), "{}"),
        ("event_grid", "no token", None, "[]"),
        ("event_grid", "no bearer", Some(("authorization", "Basic YTpi".to_owned())), "[]"),
        ("event_grid", "no jwt", Some(("authorization", "Bearer x".to_owned())), "[]"),
        ("event_grid", "other key of the same name", Some(("authorization", token(1, "k0", &entra))), "[]"),
        ("event_grid", "other audience", bearer(&changed(entra.clone(), "aud", "api://other")), "[]"),
        ("event_grid", "other tenant", bearer(&changed(entra.clone(), "tid", EVENT_GRID)), "[]"),
        ("event_grid", "other issuer", bearer(&changed(entra.clone(), "iss", "https://sts.windows.net/x/")), "[]"),
        ("event_grid", "other sender", bearer(&changed(entra.clone(), "appid", TENANT)), "[]"),
        ("event_grid", "azp is not the sender", bearer(&changed(entra.clone(), "azp", TENANT)), "[]"),
        ("event_grid", "expired", bearer(&changed(entra.clone(), "exp", now - 61)), "[]"),
        ("event_grid", "for ever", bearer(&changed(entra.clone(), "exp", Value::Null)), "[]"),
        ("event_grid", "not yet", bearer(&changed(entra.clone(), "nbf", now + 120)), "[]"),
        ("event_grid", "Google's", bearer(&google), "[]"),
        ("pubsub", "other account", bearer(&changed(google.clone(), "email", "x@y.iam.gserviceaccount.com")), "{}"),
        ("pubsub", "address not verified", bearer(&changed(google.clone(), "email_verified", false)), "{}"),
        ("pubsub", "other audience", bearer(&changed(google.clone(), "aud", "https://x")), "{}"),
        ("pubsub", "Entra's", bearer(&entra), "{}"),
        ("doppler", "no signature", None, body),
        ("doppler", "of another body", Some(("x-doppler-signature", format!("sha256={}", hex_hmac(SECRET, "{}")))), body),
        ("doppler", "other secret", Some(("x-doppler-signature", format!("sha256={}", hex_hmac("x", body)))), body),
        ("infisical", "too old", Some(("x-infisical-signature", format!("t={}000;{}", now - 400, hex_hmac(SECRET, &stale)))), &stale),
        ("infisical", "time moved", Some(("x-infisical-signature", format!("t={now}000;{}", hex_hmac(SECRET, &moved)))), &moved),
        ("infisical", "other secret", Some(("x-infisical-signature", format!("t={}000;{}", now - 1, hex_hmac("x", &moved)))), &moved),
        ("hmac", "no signature", None, body),
        ("hmac", "other secret", Some(("x-sidekey-signature", ours("x", now, body))), body),
        ("hmac", "of another body", Some(("x-sidekey-signature", ours(SECRET, now, "{}"))), body),
        ("hmac", "too old", Some(("x-sidekey-signature", ours(SECRET, now - 310, body))), body),
        ("hmac", "from the future", Some(("x-sidekey-signature", ours(SECRET, now + 310, body))), body),
        ("hmac", "time moved", Some(("x-sidekey-signature", format!("t={now},v1={}", hex_hmac(SECRET, &format!("{}.{body}", now - 1))))), body),
    ];
    let mut refused = BTreeMap::new();
    for (source, why, header, body) in &rows {
        let call = stage.post(source).body((*body).to_owned());
        let call = header.iter().fold(call, |call, (name, value)| call.header(name, value));
        assert_eq!(send(call).await.status, 401, "{source}: {why}");
        *refused.entry(*source).or_insert(0) += 1;
    }
    for (source, count) in refused {
        assert_eq!(stage.counted(source, "refused"), count, "{source}");
        assert_eq!(stage.world.log_lines("sidekey::push").iter().filter(|line| line["source"] == source).count(), 1);
    }
    assert_eq!(stage.read_again(), [""; 0]);
    assert!(!stage.world.metrics.encode().contains("sidekey_signals_total{"));
    assert_eq!(stage.authority.fetches.load(Ordering::SeqCst), 1, "of two issuers, one was asked for keys, once");
}

#[tokio::test]
async fn an_answer_does_not_tell_which_references_there_are() {
    let stage = Stage::start(|_| {}).await;
    let mut replies = Vec::new();
    for name in ["vault", "nobody"] {
        let body = json!({"references": [name]}).to_string();
        let call = stage.post("hmac").header("x-sidekey-signature", &ours(SECRET, seconds(), &body)).body(body);
        let reply = send(call).await;
        let mut headers = reply.headers.clone();
        headers.remove("date");
        replies.push((reply.status, headers, reply.body));
    }
    assert_eq!(replies[0], replies[1]);
    assert_eq!((stage.counted("hmac", "signalled"), stage.counted("hmac", "idle")), (1, 1));
}

#[tokio::test]
async fn a_delivery_is_good_once() {
    let stage = Stage::start(|_| {}).await;
    let body = r#"{"references":["vault"]}"#;
    let signature = ours(SECRET, seconds(), body);
    for _ in 0..3 {
        let call = stage.post("hmac").header("x-sidekey-signature", &signature).body(body);
        assert_eq!(send(call).await.status, 202, "whoever sends it again is told that it was taken");
    }
    assert_eq!((stage.counted("hmac", "signalled"), stage.counted("hmac", "repeated")), (1, 2));
}

#[tokio::test]
async fn event_grid_shakes_hands_in_both_schemas() {
    let stage = Stage::start(|_| {}).await;
    let validation = json!([{"id": "1", "topic": "/subscriptions/x", "subject": "", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6", "validationUrl": "https://rp-eastus2.eventgrid.azure.net/x"}}]);
    let call = || stage.post("event_grid").header("aeg-event-type", "SubscriptionValidation").json(&validation);
    let reply = send(call().header("authorization", &token(0, "k0", &stage.entra()))).await;
    assert_eq!(
        (reply.status, reply.json()),
        (200, json!({"validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}))
    );
    assert_eq!(send(call()).await.status, 401, "not for whoever asks");

    let options = |source: &str, origin: &str| {
        Call::to(stage.address, Method::OPTIONS, &format!("/v1/webhooks/{source}"))
            .header("webhook-request-origin", origin)
    };
    let reply = send(options("event_grid", "eventgrid.azure.net").header("webhook-request-rate", "120")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("webhook-allowed-origin"), Some("eventgrid.azure.net"));
    assert_eq!(reply.header("webhook-allowed-rate"), Some("*"));
    assert_eq!(send(options("event_grid", "evil.example")).await.status, 403);
    assert_eq!(send(options("pubsub", "eventgrid.azure.net")).await.status, 405);
    assert_eq!(stage.read_again(), [""; 0]);
}

#[tokio::test]
async fn what_is_not_served_large_or_odd_is_turned_away() {
    let stage = Stage::start(|settings| settings.infisical = None).await;
    let signed = |body: &str| {
        stage.post("hmac").header("x-sidekey-signature", &ours(SECRET, seconds(), body)).body(body.to_owned())
    };
    let large = "x".repeat(10 << 20);
    let known = |body: &str| stage.post("eventbridge").header("x-sidekey-key", SECRET).body(body.to_owned());
    #[rustfmt::skip]
    let rows = [
        ("source that is off", stage.post("infisical").body("{}"), 404),
        ("source that is none", stage.post("github").body("{}"), 404),
        ("other path", Call::to(stage.address, Method::GET, "/metrics"), 404),
        ("other method", Call::to(stage.address, Method::GET, "/v1/webhooks/hmac"), 405),
        ("no JSON", signed("x"), 400),
        ("unknown field", signed(r#"{"refs":["vault"]}"#), 400),
        ("no event", known("[]"), 400),
        ("ten megabytes", signed(&large), 413),
        ("ten megabytes of somebody known", known(&large), 413),
        ("ten megabytes of nobody", stage.post("eventbridge").body(large.clone()), 401),
    ];
    for (name, call, status) in rows {
        // What is cut off may not be read to its end by who sends it.
        let announced = call.header("expect", "100-continue");
        let reply = send(announced).await;
        assert_eq!(reply.status, status, "{name}");
    }
    assert_eq!((stage.counted("hmac", "too_large"), stage.counted("none", "refused")), (1, 3));
    assert_eq!(stage.read_again(), [""; 0]);
}

#[tokio::test]
async fn an_issuer_may_change_its_keys_and_an_invented_key_costs_one_look() {
    let stage = Stage::start(|_| {}).await;
    let fetches = || stage.authority.fetches.load(Ordering::SeqCst);
    let call = |index: usize, kid: &str| {
        stage.post("pubsub").header("authorization", &token(index, kid, &stage.google())).json(&notification())
    };
    *stage.authority.keys.lock().unwrap() = vec![jwk(1, "k1"), jwk(0, "k0")];
    assert_eq!(send(call(1, "k1")).await.status, 202);
    assert_eq!(send(call(0, "k0")).await.status, 202);
    assert_eq!(fetches(), 1, "kept for a while");
    // What cannot be told before the next look is not said to be wrong.
    for n in 0..50 {
        let reply = send(call(0, &format!("invented-{n}"))).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("10")));
    }
    assert_eq!(fetches(), 1, "rests for ten seconds");
    pass(REST).await;
    assert_eq!(send(call(0, "invented-0")).await.status, 401, "looked for in vain");
    for n in 1..50 {
        assert_eq!(send(call(0, &format!("invented-{n}"))).await.status, 503);
    }
    assert_eq!(fetches(), 2);
    // A key that is new now is not refused: its sender comes back, and is believed after the next look at the latest.
    stage.authority.keys.lock().unwrap().push(jwk(1, "k2"));
    assert_eq!(send(call(1, "k2")).await.status, 503);
    pass(REST).await;
    assert_eq!(send(call(0, "invented-0")).await.status, 401, "known as strange, and not looked for");
    assert_eq!(fetches(), 2);
    assert_eq!(send(call(1, "k2")).await.status, 202);
    assert_eq!(send(call(0, "k0")).await.status, 202);
    assert_eq!(fetches(), 3);
}

#[tokio::test]
async fn a_new_key_is_not_refused_because_its_issuer_does_not_answer() {
    let stage = Stage::start(|_| {}).await;
    let call = |index: usize, kid: &str| {
        stage.post("pubsub").header("authorization", &token(index, kid, &stage.google())).json(&notification())
    };
    assert_eq!(send(call(0, "k0")).await.status, 202);
    pass(REST).await;
    let published = std::mem::take(&mut *stage.authority.keys.lock().unwrap());
    assert_eq!(send(call(1, "k1")).await.status, 503);
    assert_eq!(send(call(0, "k0")).await.status, 202, "the older ones are used on");
    *stage.authority.keys.lock().unwrap() = [published, vec![jwk(1, "k1")]].concat();
    pass(REST).await;
    assert_eq!(send(call(1, "k1")).await.status, 202);
}

#[tokio::test]
async fn while_an_issuer_cannot_be_reached_senders_are_told_to_come_back() {
    let mut issuer = String::new();
    let stage = Stage::start(|settings| {
        // Nobody listens there; a port that was just free.
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        issuer = format!("https://localhost:{}", gone.port());
        settings.pubsub.as_mut().unwrap().issuer = issuer.clone();
    })
    .await;
    let call = |iss: &str| {
        let claims = changed(stage.google(), "iss", iss);
        stage.post("pubsub").header("authorization", &token(0, "k0", &claims)).json(&notification())
    };
    assert_eq!(send(call("https://other.example")).await.status, 401, "not its issuer's: nobody is asked");
    assert!(!stage.world.logs.text().contains("cannot be fetched"));
    let reply = send(call(&issuer)).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("10")));
    assert!(stage.world.logs.text().contains("cannot be fetched"));
    assert_eq!((stage.counted("pubsub", "refused"), stage.counted("pubsub", "unverifiable")), (1, 1));
    assert_eq!(stage.read_again(), [""; 0]);
}

#[tokio::test]
async fn an_oauth_connection_of_eventbridge_shows_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(&folder).await;
    for keys_url in [None, Some(format!("{}/keys", authority.url()).parse().unwrap())] {
        let discovered = keys_url.is_none();
        let stage = Stage::start(|settings| {
            // The stage trusts its own authority only, so that this one stands in its place.
            settings.eventbridge = None;
        })
        .await;
        let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
        settings.eventbridge =
            Some(EventBridge::OAuth { issuer: authority.url(), audience: AUDIENCE.to_owned(), keys_url });
        let transport = transport(vec![folder.path().join("ca.pem")]);
        let world = &stage.world;
        let (feed, metrics) = (Arc::clone(&world.feed), Arc::clone(&world.metrics));
        let push = Push::bind(&settings, &transport, feed, world.resolver.expiry(), metrics).await.unwrap();
        let address = push.address().unwrap();
        tokio::spawn(push.run(std::future::pending()));
        let call = |claims: &Value| {
            let call = Call::to(address, Method::POST, "/v1/webhooks/eventbridge");
            call.header("authorization", &token(0, "k0", claims)).json(&secret_manager())
        };
        let claims = json!({"iss": authority.url(), "aud": ["x", AUDIENCE], "exp": seconds() + 60});
        assert_eq!(send(call(&changed(claims.clone(), "aud", "x"))).await.status, 401);
        assert_eq!(send(call(&claims)).await.status, 202, "discovered: {discovered}");
        // Cognito's access tokens have a client id and no audience.
        let cognito = json!({"iss": authority.url(), "client_id": AUDIENCE, "exp": seconds() + 60});
        assert_eq!(send(call(&cognito)).await.status, 202);
        stage.answered().await;
        assert_eq!(stage.read_again(), ["mySecret"]);
    }
}

#[tokio::test]
async fn the_listener_speaks_tls_and_takes_its_files_from_the_configuration() {
    let stage = Stage::start(|_| {}).await;
    let path = |name: &str| stage.folder.path().join(name);
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
    settings.tls = Some(TlsSettings { cert_file: path("cert.pem"), key_file: path("key.pem"), client_ca_file: None });
    settings.hmac = Some(Hmac { file: path("secret"), tolerance: Duration::from_secs(300) });
    let bind = async |settings: &Settings| {
        let (feed, metrics) = (Arc::clone(&stage.world.feed), Arc::clone(&stage.world.metrics));
        Push::bind(settings, &transport(Vec::new()), feed, stage.world.resolver.expiry(), metrics).await
    };
    let push = bind(&settings).await.unwrap();
    let port = push.address().unwrap().port();
    tokio::spawn(push.run(std::future::pending()));
    let body = r#"{"references":["vault"]}"#;
    let signature = ours(SECRET, seconds(), body).parse().unwrap();
    let call = egress::Call {
        method: Method::POST,
        url: format!("https://localhost:{port}/v1/webhooks/hmac").parse().unwrap(),
        headers: HeaderMap::from_iter([("x-sidekey-signature".parse().unwrap(), signature)]),
        body: body.as_bytes().to_vec().into(),
        reach: Reach::Fixed,
    };
    let bounds = Bounds { timeout: Duration::from_secs(5), max_body: 1024 };
    let reply = within(transport(vec![path("ca.pem")]).send(call, bounds)).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.body.len()), (202, 0));
    stage.answered().await;
    assert_eq!(stage.read_again(), ["secret/data/team/openai"]);

    fs::write(path("short"), "short").unwrap();
    settings.hmac = Some(Hmac { file: path("short"), tolerance: Duration::from_secs(300) });
    let error = bind(&settings).await.unwrap_err();
    assert!(matches!(error, PushError::Secret(_)) && error.is_configuration(), "{error}");
    settings.hmac = None;
    settings.tls = Some(TlsSettings { cert_file: path("nowhere"), key_file: path("key.pem"), client_ca_file: None });
    assert!(matches!(bind(&settings).await.unwrap_err(), PushError::Tls(_)));
}
