//! The whole picture of the README for one test: OpenBao, the provider, the gateway, and `sidekey sidecar` in front of it.
//!
//! The snapshot holds what [`Setup::new`] says; a test that needs more changes it before the start ([`World::with`]) or
//! while everything runs ([`World::replace_snapshot`]). All secrets are unique to the test, so that one found anywhere
//! outside of its place is a leak ([`Secrets::all`]).
//!
//! | virtual key | leads to | credential |
//! |---|---|---|
//! | `openai-prod`, integration `openai-main` | api.openai.com | reference `openai-key`: `secret/data/openai`, key `api_key` |
//! | `openai-backup`, stands alone | api.openai.com | reference `openai-backup-key`: `secret/data/openai-backup` |
//! | `anthropic-prod`, integration `anthropic-main` | api.anthropic.com | reference `anthropic-key`, logs in by AppRole |
//! | `bedrock-prod`, integration `bedrock-main` | bedrock-runtime.eu-west-1.amazonaws.com | two keys of the one JSON secret `aws-keys` |
//! | `azure-prod`, integration `azure-main` | myres.openai.azure.com | reference `azure-key` |
//!
//! The stored config `pc-fallback-1a2b3c` falls back from `openai-prod` to `openai-backup`.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use crate::{
    authority::Authority,
    client::{Call, Reply},
    components::{Gateway, OpenBao, free_address},
    harness,
    process::{Process, command},
    provider::Provider,
};

/// The Portkey API key that clients send; it must reach nobody.
pub const CLIENT_KEY: &str = "pk-client-key-of-this-test";

/// Everything that runs for one test.
pub struct World {
    pub provider: Provider,
    pub bao: OpenBao,
    pub gateway: Gateway,
    pub sidekey: Sidekey,
    pub secrets: Secrets,
    /// The snapshot in force; change it and call [`Self::replace_snapshot`].
    pub snapshot: Value,
}

/// What a test may change before Sidekey starts.
pub struct Setup {
    /// The configuration; written as JSON, which is YAML.
    pub config: Value,
    pub snapshot: Value,
    /// Variables of Sidekey's environment.
    pub environment: Vec<(String, String)>,
}

/// The values in OpenBao, and what they are made from.
#[derive(Clone, Debug)]
pub struct Secrets {
    pub openai: String,
    pub openai_backup: String,
    pub anthropic: String,
    pub aws_access_key_id: String,
    pub aws_secret_access_key: String,
    pub azure: String,
}

/// A running `sidekey sidecar`.
pub struct Sidekey {
    /// Where clients go.
    pub address: SocketAddr,
    /// Health, metrics and operator API.
    pub admin: SocketAddr,
    pub snapshot_file: PathBuf,
    pub config_file: PathBuf,
    process: Process,
}

// === impl World ===

impl World {
    /// The world as described above.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The world with a changed configuration or snapshot.
    pub async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let provider = Provider::start().await;
        let (bao, gateway) = tokio::join!(OpenBao::start(), Gateway::start(provider.authority_file()));
        let secrets = Secrets::new();
        secrets.store(&bao).await;
        let mut setup = Setup::new(&bao, &gateway);
        change(&mut setup);
        let snapshot = setup.snapshot.clone();
        let sidekey = Sidekey::start(&setup).await;
        Self { provider, bao, gateway, sidekey, secrets, snapshot }
    }

    /// Sends a request through Sidekey.
    pub async fn send(&self, call: Call) -> Reply {
        call.send(self.sidekey.address).await
    }

    /// Writes [`Self::snapshot`] as one atomic replacement and waits until Sidekey serves from it.
    pub async fn replace_snapshot(&mut self) {
        let next = self.snapshot["version"].as_u64().expect("a version") + 1;
        self.snapshot["version"] = json!(next);
        self.sidekey.write_snapshot(&self.snapshot.to_string());
        self.sidekey.until_metric(&format!("sidekey_snapshot_version {next}")).await;
    }

    /// Panics when a secret was received anywhere but over TLS at the host it is bound to, at any time of this test.
    ///
    /// Needs the whole record: do not [`Provider::take`] what is to be judged.
    #[track_caller]
    pub fn assert_bound(&self) {
        for request in self.provider.received() {
            for (secret, host) in self.secrets.bound() {
                let bound = request.scheme == "https" && request.host == host;
                assert!(bound || !request.contains(secret), "{secret} of {host} went elsewhere: {request:#?}");
            }
        }
    }

    /// All that Sidekey says on its own: its log, and every page of the admin listener.
    pub async fn said(&self) -> Vec<(&'static str, String)> {
        let mut said = vec![("the log", self.sidekey.log())];
        for page in ["/healthz", "/readyz", "/metrics", "/v1/secrets", "/"] {
            said.push((page, Call::get(page).send(self.sidekey.admin).await.text()));
        }
        said
    }

    /// Panics when a secret of this world, or the client's own key, stands in `text`.
    #[track_caller]
    pub fn assert_no_secret(&self, what: &str, text: &str) {
        for secret in self.secrets.all().into_iter().chain([CLIENT_KEY]) {
            assert!(!text.contains(secret), "{what} shows {secret}:\n{text}");
        }
    }
}

// === impl Setup ===

impl Setup {
    fn new(bao: &OpenBao, gateway: &Gateway) -> Self {
        let (listen, admin) = (free_address(), free_address());
        Self {
            config: json!({
                "listen": listen.to_string(),
                "admin_listen": admin.to_string(),
                "upstream": {"url": gateway.url()},
                "snapshot": {"file": harness::folder().join("snapshot.json")},
                "egress": {"allow_cidrs": ["127.0.0.1/32"]},
                "limits": {"drain_delay_secs": 0, "drain_secs": 5},
                "log": {"level": "debug", "format": "json"},
            }),
            snapshot: snapshot(bao),
            environment: Vec::new(),
        }
    }

    /// Adds a reference to a KV v2 secret below `secret/`, with the token of `bao`'s policy.
    pub fn reference(&mut self, slug: &str, bao: &OpenBao, path: &str, key: &str) {
        push(&mut self.snapshot, "secret_references", reference(slug, bao.token_auth(), path, Some(key)));
    }

    /// Adds a virtual key that stands alone; `model_config` are its fields.
    pub fn virtual_key(&mut self, slug: &str, provider: &str, model_config: Value, mappings: Value) {
        push(&mut self.snapshot, "virtual_keys", virtual_key(slug, None, Some(provider), model_config, mappings));
    }

    /// Lets Sidekey serve TLS; clients trust the authority in the file that comes back.
    pub fn serve_tls(&mut self) -> PathBuf {
        let authority = Authority::new("Sidekey test clients");
        let leaf = authority.issue(&["localhost", "127.0.0.1"]);
        let write = |name: &str, text: String| {
            let path = harness::folder().join(name);
            fs::write(&path, text).expect("the test's folder is writable");
            path
        };
        self.config["tls"] = json!({
            "cert_file": write("sidekey.crt", leaf.certificate_pem()),
            "key_file": write("sidekey.key", leaf.key_pem()),
        });
        write("sidekey-authority.pem", authority.certificate_pem())
    }
}

// === impl Secrets ===

impl Secrets {
    fn new() -> Self {
        let value = |name: &str| {
            let mut random = [0; 12];
            getrandom::fill(&mut random).expect("random bytes");
            let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name}-{random}")
        };
        Self {
            openai: value("sk-openai"),
            openai_backup: value("sk-backup"),
            anthropic: value("sk-ant"),
            aws_access_key_id: value("AKIA").replace('-', ""),
            aws_secret_access_key: value("aws"),
            azure: value("az"),
        }
    }

    async fn store(&self, bao: &OpenBao) {
        bao.put("openai", json!({"api_key": self.openai})).await;
        bao.put("openai-backup", json!({"api_key": self.openai_backup})).await;
        bao.put("anthropic", json!({"api_key": self.anthropic})).await;
        bao.put(
            "aws",
            json!({"access_key_id": self.aws_access_key_id, "secret_access_key": self.aws_secret_access_key}),
        )
        .await;
        bao.put("azure", json!({"api_key": self.azure})).await;
    }

    /// Every value with the one host that may receive it.
    pub fn bound(&self) -> [(&str, &'static str); 6] {
        let [openai, openai_backup, anthropic, aws_id, aws_key, azure] = self.all();
        let bedrock = "bedrock-runtime.eu-west-1.amazonaws.com";
        [
            (openai, "api.openai.com"),
            (openai_backup, "api.openai.com"),
            (anthropic, "api.anthropic.com"),
            (aws_id, bedrock),
            (aws_key, "nobody: it only signs"),
            (azure, "myres.openai.azure.com"),
        ]
    }

    /// All values.
    pub fn all(&self) -> [&str; 6] {
        let Self { openai, openai_backup, anthropic, aws_access_key_id, aws_secret_access_key, azure } = self;
        [openai, openai_backup, anthropic, aws_access_key_id, aws_secret_access_key, azure]
    }
}

// === impl Sidekey ===

impl Sidekey {
    /// Writes the files and waits for `/readyz`.
    pub async fn start(setup: &Setup) -> Self {
        let mut sidekey = Self::launch(setup);
        let admin = sidekey.admin;
        sidekey
            .process
            .until("ready", async || {
                let up = tokio::net::TcpStream::connect(admin).await.is_ok();
                (up && Call::get("/readyz").send(admin).await.status == 200).then_some(())
            })
            .await;
        sidekey
    }

    /// Writes the files and starts the program, whatever becomes of it.
    pub fn launch(setup: &Setup) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let address = |key: &str| setup.config[key].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let config_file = harness::folder().join(format!("sidekey-{number}.yaml"));
        let snapshot_file = PathBuf::from(setup.config["snapshot"]["file"].as_str().unwrap_or_default());
        fs::write(&config_file, setup.config.to_string()).expect("the test's folder is writable");
        if snapshot_file.parent().is_some_and(std::path::Path::exists) {
            fs::write(&snapshot_file, setup.snapshot.to_string()).expect("the test's folder is writable");
        }
        let mut program = command(program());
        program.args(["sidecar", "--config"]).arg(&config_file);
        program.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::start(&format!("sidekey-{number}"), program);
        Self { address: address("listen"), admin: address("admin_listen"), snapshot_file, config_file, process }
    }

    /// Replaces the snapshot file as a careful writer does: a new file, then a rename.
    pub fn write_snapshot(&self, text: &str) {
        let draft = self.snapshot_file.with_extension("draft");
        fs::write(&draft, text).expect("the test's folder is writable");
        fs::rename(&draft, &self.snapshot_file).expect("the test's folder is writable");
    }

    /// `/metrics`, as text.
    pub async fn metrics(&self) -> String {
        Call::get("/metrics").send(self.admin).await.expect(200).text()
    }

    /// The value of a metric, its labels written as in `/metrics`; 0 while it has none.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// Waits until `/metrics` has the line `wanted`.
    pub async fn until_metric(&mut self, wanted: &str) {
        let admin = self.admin;
        let has = async || {
            let text = Call::get("/metrics").send(admin).await.text();
            text.lines().any(|line| line == wanted).then_some(())
        };
        self.process.until(wanted, has).await;
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The log lines (JSON) of one request.
    pub fn log_of(&self, request_id: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(request_id));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The process, to signal it or wait for its end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The binary under test: this build's, or the one that a measurement names in `REAL_TESTS_PROGRAM`.
pub fn program() -> PathBuf {
    std::env::var_os("REAL_TESTS_PROGRAM").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sidekey")), PathBuf::from)
}

fn snapshot(bao: &OpenBao) -> Value {
    let key = |reference: &str| json!([mapping("key", reference, None)]);
    json!({
        "schema_version": 1,
        "version": 1,
        "generated_at": "2026-11-21T03:00:00.000Z",
        "organisation_id": "11111111-1111-4111-8111-111111111111",
        "workspaces": [{"id": "22222222-2222-4222-8222-222222222222", "slug": "ws-team-a", "name": "Team A"}],
        "secret_references": [
            reference("openai-key", bao.token_auth(), "secret/data/openai", Some("api_key")),
            reference("openai-backup-key", bao.token_auth(), "secret/data/openai-backup", Some("api_key")),
            reference("anthropic-key", bao.approle_auth(), "secret/data/anthropic", Some("api_key")),
            reference("aws-keys", bao.token_auth(), "secret/data/aws", None),
            reference("azure-key", bao.token_auth(), "secret/data/azure", Some("api_key")),
        ],
        "integrations": [
            integration("openai-main", "openai", json!({}), key("openai-key")),
            integration("anthropic-main", "anthropic", json!({}), key("anthropic-key")),
            integration(
                "bedrock-main",
                "bedrock",
                json!({"aws_auth_type": "accessKey", "aws_region": "eu-west-1"}),
                json!([
                    mapping("configurations.aws_access_key_id", "aws-keys", Some("access_key_id")),
                    mapping("configurations.aws_secret_access_key", "aws-keys", Some("secret_access_key")),
                ]),
            ),
            integration(
                "azure-main",
                "azure-openai",
                json!({"azure_auth_mode": "default", "azure_resource_name": "myres", "azure_deployment_config": [{
                    "azure_deployment_name": "dep-1", "azure_api_version": "2024-10-21",
                    "azure_model_slug": "gpt-4o-mini", "alias": "gpt-4o-mini", "is_default": true,
                }]}),
                key("azure-key"),
            ),
        ],
        "virtual_keys": [
            virtual_key("openai-prod", Some("openai-main"), None, json!({}), json!([])),
            virtual_key("openai-backup", None, Some("openai"), json!({}), key("openai-backup-key")),
            virtual_key("anthropic-prod", Some("anthropic-main"), None, json!({}), json!([])),
            virtual_key("bedrock-prod", Some("bedrock-main"), None, json!({}), json!([])),
            virtual_key("azure-prod", Some("azure-main"), None, json!({}), json!([])),
        ],
        "configs": [{
            "id": id("pc-fallback-1a2b3c"), "slug": "pc-fallback-1a2b3c", "workspace_id": null,
            "config": {
                "strategy": {"mode": "fallback"},
                "targets": [{"provider": "@openai-prod"}, {"provider": "@openai-backup"}],
            },
        }],
        "api_keys": [],
    })
}

/// A row of `secret_references`.
pub fn reference(slug: &str, auth: Value, path: &str, key: Option<&str>) -> Value {
    json!({
        "id": id(slug), "slug": slug, "manager_type": "hashicorp_vault", "auth_config": auth, "secret_path": path,
        "secret_key": key, "status": "active", "ttl_secs": null, "allow_all_workspaces": true, "allowed_workspaces": [],
        "allowed_providers": [], "allowed_hosts": [],
    })
}

/// A row of `integrations`.
pub fn integration(slug: &str, provider: &str, configurations: Value, mappings: Value) -> Value {
    json!({
        "id": id(slug), "slug": slug, "ai_provider_id": provider, "workspace_id": null, "status": "active", "key": null,
        "configurations": configurations, "allow_all_workspaces": true, "allowed_workspaces": [],
        "secret_mappings": mappings,
    })
}

/// A row of `virtual_keys`: linked to an integration, or alone with a provider.
pub fn virtual_key(
    slug: &str,
    integration: Option<&str>,
    provider: Option<&str>,
    model_config: Value,
    mappings: Value,
) -> Value {
    json!({
        "id": id(slug), "slug": slug, "integration_id": integration, "provider": provider, "workspace_id": null,
        "status": "active", "expires_at": null, "key": null, "model_config": model_config, "secret_mappings": mappings,
    })
}

/// A row of `secret_mappings`.
pub fn mapping(target_field: &str, reference: &str, key: Option<&str>) -> Value {
    json!({"target_field": target_field, "secret_reference_id": reference, "secret_key": key, "value_format": null})
}

/// Adds a row to a list of a snapshot.
pub fn push(snapshot: &mut Value, list: &str, row: Value) {
    snapshot[list].as_array_mut().expect("a list of the snapshot").push(row);
}

/// The row of a list of a snapshot, to change it.
pub fn find<'a>(snapshot: &'a mut Value, list: &str, slug: &str) -> &'a mut Value {
    let rows = snapshot[list].as_array_mut().expect("a list");
    rows.iter_mut().find(|row| row["slug"] == slug).unwrap_or_else(|| panic!("no {slug} in {list}"))
}

/// An id that differs from every slug, as in a real control plane, and is the same for the same slug.
fn id(slug: &str) -> String {
    let hash = slug
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{:08x}-0000-4000-8000-{:012x}", hash >> 32, hash & 0xffff_ffff_ffff)
}
