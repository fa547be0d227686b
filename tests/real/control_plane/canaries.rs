//! Credentials on every route that takes one, then looked for in everything that is kept, told or said: the raw files of the
//! database with its journal, the feed and a sidecar's copy of it, logs at their most talkative, reads, refusals, the audit log.
//!
//! Every canary has one stem; it is searched for as text in either case, in hex, percent-encoding, base64 and as a list of bytes.
//! Secrets that the control plane itself makes are looked for, too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use http::Method;
use memchr::memmem;
use serde_json::{Value, json};

use super::{ControlPlane, Home, OWNER, TOKEN};
use crate::{
    canary::{ALL_LOGS, forms},
    client::{Call, Reply},
    components::{Postgres, free_address},
    harness,
    process::{Process, command},
    world::program,
};

/// What all canaries begin with; nothing else holds it.
const STEM: &str = "kqCANARYvz";
/// Stands for one more canary in what is posted.
const PLACE: &str = "$CANARY";
/// Posted where no credential belongs: it has to be found, or nothing can be.
const PLAIN: &str = "plain-as-day-4711";
/// The last write: whoever has it has all before it.
const LAST: &str = "ws-after-all-others";

/// What is taken, by the resource it makes.
const TAKEN: [(&str, &str); 27] = [
    // The nine ways to log in that Portkey has, and ours.
    (
        "secret-references",
        r#"{"manager_type": "aws_sm", "auth_config": {"aws_auth_type": "accessKey", "aws_region": "us-east-1",
        "aws_access_key_id": "$CANARY", "aws_secret_access_key": "$CANARY"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "aws_sm", "auth_config": {"aws_auth_type": "assumedRole", "aws_region": "us-east-1",
        "aws_role_arn": "arn:aws:iam::123456789012:role/$CANARY", "aws_external_id": "$CANARY"}}"#,
    ),
    ("secret-references", r#"{"manager_type": "aws_sm", "auth_config": {"aws_auth_type": "serviceRole"}}"#),
    (
        "secret-references",
        r#"{"manager_type": "azure_kv", "auth_config": {"azure_auth_mode": "entra", "azure_entra_tenant_id": "t",
        "azure_entra_client_id": "c", "azure_entra_client_secret": "$CANARY", "azure_vault_url": "https://a.vault.azure.net"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "azure_kv", "auth_config": {"azure_auth_mode": "managed",
        "azure_vault_url": "https://a.vault.azure.net"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "azure_kv", "auth_config": {"azure_auth_mode": "default",
        "azure_vault_url": "https://a.vault.azure.net"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "hashicorp_vault", "secret_path": "secret/data/a", "auth_config": {
        "vault_auth_type": "token", "vault_addr": "https://vault.example", "vault_token": "$CANARY"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "hashicorp_vault", "secret_path": "secret/data/a", "auth_config": {
        "vault_auth_type": "approle", "vault_addr": "https://vault.example", "vault_role_id": "r", "vault_secret_id": "$CANARY"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "hashicorp_vault", "secret_path": "secret/data/a", "auth_config": {
        "vault_auth_type": "kubernetes", "vault_addr": "https://vault.example", "vault_role": "r"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "gcp_sm", "auth_config": {"gcp_auth_type": "serviceAccountKey",
        "gcp_service_account_json": "{\"private_key\":\"$CANARY\"}"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "aws_ssm", "auth_config": {"aws_auth_type": "accessKey", "aws_region": "us-east-1",
        "aws_access_key_id": "$CANARY", "aws_secret_access_key": "$CANARY"}}"#,
    ),
    // Keys and fields of providers.
    (
        "integrations",
        r#"{"ai_provider_id": "openai", "key": "$CANARY", "configurations": {"openai_project": "p",
        "custom_headers": {"x-team-key": "$CANARY"}}}"#,
    ),
    (
        "integrations",
        r#"{"ai_provider_id": "openai", "key": "$CANARY", "configurations": {
        "custom_headers": "{\"x-team-key\": \"$CANARY\"}"}}"#,
    ),
    (
        "integrations",
        r#"{"ai_provider_id": "bedrock", "configurations": {"aws_auth_type": "accessKey", "aws_region": "us-east-1",
        "aws_access_key_id": "$CANARY", "aws_secret_access_key": "$CANARY", "aws_session_token": "$CANARY"}}"#,
    ),
    (
        "integrations",
        r#"{"ai_provider_id": "azure-openai", "key": "$CANARY", "configurations": {"azure_auth_mode": "entra",
        "azure_resource_name": "r", "azure_entra_tenant_id": "t", "azure_entra_client_id": "c",
        "azure_entra_client_secret": "$CANARY", "azure_ad_token": "$CANARY",
        "azure_deployment_config": [{"azure_deployment_name": "d", "azure_api_version": "v", "secret": "$CANARY"}]}}"#,
    ),
    (
        "integrations",
        r#"{"ai_provider_id": "vertex-ai", "configurations": {"vertex_region": "us-central1",
        "vertex_service_account_json": {"private_key": "$CANARY"}}}"#,
    ),
    (
        "integrations",
        r#"{"ai_provider_id": "oracle", "configurations": {"oracle_region": "us-chicago-1", "oracle_tenancy": "t",
        "oracle_user": "u", "oracle_fingerprint": "f", "oracle_compartment_id": "c", "oracle_version": "20231130",
        "oracle_private_key": "-----BEGIN PRIVATE KEY-----\n$CANARY\n-----END PRIVATE KEY-----",
        "oracle_key_passphrase": "$CANARY"}}"#,
    ),
    ("virtual-keys", r#"{"provider": "openai", "key": "$CANARY"}"#),
    (
        "virtual-keys",
        r#"{"provider": "openai", "key": "$CANARY", "model_config": {"customHeaders": {"x-team-key": "$CANARY"}}}"#,
    ),
    (
        "virtual-keys",
        r#"{"provider": "bedrock", "awsAccessKeyId": "$CANARY", "awsSecretAccessKey": "$CANARY", "awsRegion": "a"}"#,
    ),
    (
        "virtual-keys",
        r#"{"provider": "azure-openai", "key": "$CANARY", "resourceName": "r", "deploymentConfig": [
        {"apiVersion": "a", "alias": "b", "deploymentName": "c", "is_default": true, "key": "$CANARY"}]}"#,
    ),
    (
        "virtual-keys",
        r#"{"provider": "vertex-ai", "vertexRegion": "a", "vertexServiceAccountJson": {"private_key": "$CANARY"}}"#,
    ),
    // Where no credential is asked for, one that is given is no more than forgotten.
    ("virtual-keys", r#"{"provider": "openai", "key": "$CANARY", "api_key": "$CANARY", "masked_key": "$CANARY"}"#),
    ("data-planes", r#"{"token": "$CANARY"}"#),
    ("admin/workspaces", r#"{"key": "$CANARY"}"#),
    ("api-keys/organisation/service", r#"{"scopes": ["completions.write"], "key": "$CANARY"}"#),
    ("configs", r#"{"config": {"retry": {"attempts": 2}}, "api_key": "$CANARY"}"#),
];

/// What is refused, whether what is wrong is the credential or stands beside it.
const REFUSED: [(&str, &str); 15] = [
    ("configs", r#"{"config": {"provider": "openai", "api_key": "$CANARY"}}"#),
    (
        "configs",
        r#"{"config": {"strategy": {"mode": "fallback"}, "targets": [{"provider": "openai", "apiKey": "$CANARY"}]}}"#,
    ),
    ("configs", r#"{"config": "{\"provider\": \"bedrock\", \"aws_secret_access_key\": \"$CANARY\"}"}"#),
    ("configs", r#"{"config": {"$CANARY": }}"#),
    (
        "secret-references",
        r#"{"manager_type": "hashicorp_vault", "secret_path": "secret/data/a", "auth_config": {
        "vault_auth_type": "token", "vault_addr": "https://root:$CANARY@vault.example", "vault_token": "$CANARY"}}"#,
    ),
    (
        "secret-references",
        r#"{"manager_type": "aws_sm", "auth_config": {"aws_auth_type": "serviceRole", "token": "$CANARY"}}"#,
    ),
    ("secret-references", r#"{"manager_type": "$CANARY", "auth_config": {"aws_auth_type": "$CANARY"}}"#),
    ("secret-references", r#"{"manager_type": "aws_sm", "auth_config": "$CANARY"}"#),
    ("integrations", r#"{"ai_provider_id": "openai", "key": {"$sealed": "$CANARY"}}"#),
    ("integrations", r#"{"ai_provider_id": "openai", "key": "$CANARY", "configurations": {"pass_word": "$CANARY"}}"#),
    (
        "integrations",
        r#"{"ai_provider_id": "openai", "key": ["$CANARY"], "configurations": {"custom_headers": ["$CANARY"]}}"#,
    ),
    (
        "integrations",
        r#"{"ai_provider_id": "openai", "key": "$CANARY", "configurations": {
        "custom_host": "https://root:$CANARY@models.example/v1"}}"#,
    ),
    ("virtual-keys", r#"{"provider": "no such provider", "key": "$CANARY"}"#),
    ("virtual-keys", r#"{"provider": "openai", "key": "$CANARY", "key": "$CANARY"}"#),
    ("mcp-integrations", r#"{"secret_mappings": [], "key": "$CANARY"}"#),
];

/// Where something was kept, told or said, and what stands there.
type Place = (String, Vec<u8>);

/// A client that never says the same secret twice, and keeps what it is told.
struct Client<'a> {
    control: &'a ControlPlane,
    canaries: usize,
    answers: Vec<u8>,
    /// What the control plane made and showed once.
    shown: Vec<String>,
}

/// A sidecar that follows the feed.
struct Sidecar {
    config: PathBuf,
    admin: std::net::SocketAddr,
    last_good: PathBuf,
    process: Process,
}

pub async fn are_nowhere_on_sqlite() {
    let folder = harness::folder();
    are_nowhere(Home::on_sqlite(&folder).sealing().saying(ALL_LOGS), &folder, None).await;
}

pub async fn are_nowhere_on_postgres() {
    let (mut postgres, folder) = (Postgres::start().await, harness::folder());
    let home = Home::on_postgres(&folder, &postgres.url()).sealing().saying(ALL_LOGS);
    are_nowhere(home, &folder, Some(&mut postgres)).await;
}

async fn are_nowhere(home: Home, folder: &Path, postgres: Option<&mut Postgres>) {
    let control = home.start("control-plane").await;
    let mut sidecar = Sidecar::start(&control, folder);
    let mut client = Client { control: &control, canaries: 0, answers: Vec::new(), shown: Vec::new() };
    for (index, (path, body)) in TAKEN.iter().enumerate() {
        client.takes(index, path, body).await;
    }
    for (path, body) in REFUSED {
        let body = client.fill(body);
        client.call(Method::POST, path, body).await.expect(400);
    }
    client.says_it_elsewhere().await;
    client.reads_everything().await;
    client.call(Method::POST, "admin/workspaces", json!({"name": LAST, "slug": LAST}).to_string()).await.expect(200);
    let whole = control.feed("").await.expect(200).body.to_vec();
    let delta = control.feed(&format!("?since={}", sidecar.first_version(&whole))).await.expect(200).body.to_vec();
    let mut places = sidecar.follows().await;
    places.extend([("the feed".to_owned(), whole), ("a delta".to_owned(), delta)]);
    let Client { canaries, answers, shown, .. } = client;
    println!("{canaries} canaries posted, {} secrets made", shown.len());
    assert!(canaries >= 30 && shown.len() >= 4, "{canaries} {}", shown.len());
    places.push(("answers".to_owned(), answers));

    // As a thief would find it: the files, while everything runs.
    let mut stored = files(folder);
    if postgres.is_some() {
        stored.extend(files(Path::new("/mnt/data")));
    }
    assert!(stored.iter().any(|(name, _)| name.ends_with("control-plane.log")));
    assert!(stored.iter().any(|(name, _)| name.ends_with("last-good")));
    let holds = |(_, content): &Place| memmem::find(content, PLAIN.as_bytes()).is_some();
    let is_database = |(name, _): &&Place| name.contains("control.db") || name.starts_with("/mnt/data/");
    let found: Vec<_> = stored.iter().filter(is_database).filter(|place| holds(place)).map(|(name, _)| name).collect();
    println!("what is no secret was found in {found:?}");
    let journal = |name: &&&String| name.ends_with("control.db-wal") || name.contains("/pg_wal/");
    assert!(found.iter().any(|name| journal(&name)), "what is no secret is not found in the journal: {found:?}");
    places.extend(stored);
    for place in &places {
        assert_silent(place, &shown);
    }
}

// === impl Client ===

impl Client<'_> {
    /// Makes an object, reads it, changes it, and finds it in its list.
    async fn takes(&mut self, index: usize, path: &str, body: &str) {
        let named = json!({"name": format!("n-{index}"), "description": PLAIN, "note": PLAIN, "secret_path": "a"});
        let with_name = |body: String| {
            let mut all = named.clone();
            let body: Value = serde_json::from_str(&body).expect("JSON");
            all.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
            all.to_string()
        };
        let filled = self.fill(body);
        let made = self.makes(path, with_name(filled)).await;
        let resource = path.split('/').next().filter(|first| *first != "admin").unwrap_or(path);
        let name = if resource == "api-keys" { &made["id"] } else { &made["slug"] };
        let one = format!("{resource}/{}", name.as_str().expect("a name"));
        if resource == "data-planes" || resource == "api-keys" {
            self.makes(&format!("{one}/rotate"), "{}".to_owned()).await;
        }
        self.call(Method::GET, &one, String::new()).await.expect(200);
        self.call(Method::GET, &format!("{resource}?page_size=100"), String::new()).await.expect(200);
        if resource == "data-planes" {
            return;
        }
        // What reads show is posted back, and other secrets in the place of the first.
        let mut shown = self.call(Method::GET, &one, String::new()).await.expect(200).json();
        shown["name"] = json!("echoed");
        if resource == "configs" {
            shown = json!({"name": "echoed"});
        }
        self.call(Method::PUT, &one, shown.to_string()).await.expect(200);
        let filled = self.fill(body);
        self.call(Method::PUT, &one, with_name(filled)).await.expect(200);
        let filled = self.fill(body);
        let broken = with_name(filled);
        self.call(Method::PUT, &one, broken[..broken.len() - 1].to_owned()).await.expect(400);
    }

    /// As [`Client::call`], for what shows a secret once: that is kept apart from what is told.
    async fn makes(&mut self, path: &str, body: String) -> Value {
        let before = self.answers.len();
        let mut made = self.call(Method::POST, path, body).await.expect(200).json();
        for member in ["key", "token"] {
            if let Some(secret) = made[member].as_str().filter(|secret| !secret.is_empty()) {
                self.shown.push(secret.to_owned());
                self.answers.truncate(before);
                made[member] = Value::Null;
            }
        }
        made
    }

    /// Where no credential belongs: in an address, in a header of a stranger, in a name, in other media.
    async fn says_it_elsewhere(&mut self) {
        for target in [
            "secret-references?vault_token=$CANARY",
            "secret-references/$CANARY",
            "$CANARY",
            "configs/$CANARY/versions",
        ] {
            let target = self.fill(target);
            self.call(Method::GET, &target, String::new()).await;
        }
        for (name, value) in [
            ("x-portkey-api-key", "$CANARY"),
            ("authorization", "Bearer $CANARY"),
            ("authorization", "Basic $CANARY"),
            ("cookie", "session=$CANARY"),
        ] {
            let value = self.fill(value);
            for path in ["/v1/secret-references", "/v1/snapshot"] {
                let reply = Call::get(path).header(name, &value).send(self.control.address).await.expect(401);
                self.hears(&reply);
            }
        }
        for content_type in ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain"] {
            let body = self.fill("key=$CANARY");
            let call = Call::post("/v1/integrations").header("x-portkey-api-key", OWNER).body(content_type, body);
            let reply = call.send(self.control.address).await.expect(400);
            self.hears(&reply);
        }
        let body = self.fill(r#"{"name": "n", "ai_provider_id": "openai", "key": "$CANARY", "note": "PAD"}"#);
        let body = body.replace("PAD", &"x".repeat(2 << 20));
        self.call(Method::POST, "integrations", body).await.expect(413);
    }

    async fn reads_everything(&mut self) {
        for path in ["audit-logs?page_size=100", "audit-logs?page_size=100&current_page=1", "data-planes", "api-keys"] {
            self.call(Method::GET, path, String::new()).await.expect(200);
        }
        let reply = Call::get("/openapi.json").send(self.control.address).await;
        self.hears(&reply);
    }

    async fn call(&mut self, method: Method, path: &str, body: String) -> Reply {
        let mut call = Call::new(method, &format!("/v1/{path}")).header("x-portkey-api-key", OWNER);
        if !body.is_empty() {
            call = call.body("application/json", body);
        }
        let reply = call.send(self.control.address).await;
        self.hears(&reply);
        reply
    }

    fn hears(&mut self, reply: &Reply) {
        self.answers.extend(format!("{:?}\n", reply.headers).bytes().chain(reply.body.iter().copied()));
    }

    /// `text` with a canary of its own in each place.
    fn fill(&mut self, text: &str) -> String {
        let mut parts = text.split(PLACE);
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            // Long enough to have a mask, which shows two letters and three.
            filled.push_str(&format!("{STEM}{:04}mnop", self.canaries));
            filled.push_str(part);
            self.canaries += 1;
        }
        filled
    }
}

// === impl Sidecar ===

impl Sidecar {
    fn start(control: &ControlPlane, folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        fs::write(file("data-plane-token"), TOKEN).expect("a file");
        let (listen, admin, last_good) = (free_address(), free_address(), file("last-good"));
        let config = json!({
            "listen": listen, "admin_listen": admin, "sealing": {"identity_file": file("identity")},
            "snapshot": {"last_good_file": last_good, "control_plane": {"url": format!("http://{}", control.address),
                "token_file": file("data-plane-token"), "public_key_file": file("public.pem")}},
            "egress": {"allow_hosts": ["vault.example"]},
        });
        fs::write(file("sidecar.yaml"), config.to_string()).expect("a file");
        let mut sidecar = command(program());
        sidecar.args(["sidecar", "--config"]).arg(file("sidecar.yaml")).env("RUST_LOG", ALL_LOGS);
        Self { config: file("sidecar.yaml"), admin, last_good, process: Process::start("sidecar", sidecar) }
    }

    /// The version at which deltas of all that was written begin, as `since` takes it.
    fn first_version(&self, whole: &[u8]) -> String {
        let whole: Value = serde_json::from_slice(whole).expect("a snapshot");
        format!("{}-1", whole["epoch"].as_str().expect("an epoch"))
    }

    /// What it says when it has everything.
    async fn follows(&mut self) -> Vec<Place> {
        let last_good = self.last_good.clone();
        let has_all = async || {
            let kept = fs::read(&last_good).ok()?;
            memmem::find(&kept, LAST.as_bytes())
        };
        self.process.until("up to date", has_all).await;
        let mut places = Vec::new();
        for path in ["/readyz", "/metrics"] {
            places.push((path.to_owned(), Call::get(path).send(self.admin).await.body.to_vec()));
        }
        let mut check = command(program());
        let check = check.args(["check", "--config"]).arg(&self.config).output().await.expect("it starts");
        places.push(("check".to_owned(), [check.stdout, check.stderr].concat()));
        places
    }
}

/// Every file in `folder` that is not there to hold a secret, with its content.
fn files(folder: &Path) -> Vec<Place> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !matches!(name, "bootstrap-key" | "data-plane-token") {
            // Files come and go while a server runs.
            found.extend(fs::read(&path).ok().map(|content| (path.display().to_string(), content)));
        }
    }
    found
}

/// Panics if a canary, or one of the secrets that were `made`, stands in `place`.
#[track_caller]
fn assert_silent((name, content): &Place, made: &[String]) {
    let lower = content.to_ascii_lowercase();
    let is_there = |needle: &str| memmem::find(&lower, needle.to_ascii_lowercase().as_bytes());
    for (form, shown) in forms(STEM) {
        let at = if form == "base64" { memmem::find(content, shown.as_bytes()) } else { is_there(&shown) };
        if let Some(at) = at {
            let around = &content[at.saturating_sub(200)..(at + 100).min(content.len())];
            panic!("a canary is in {name} as {form}:\n…{}…", String::from_utf8_lossy(around));
        }
    }
    for secret in made.iter().map(String::as_str).chain([OWNER, TOKEN]) {
        assert!(is_there(secret).is_none(), "a secret that was made here is in {name}");
    }
}
