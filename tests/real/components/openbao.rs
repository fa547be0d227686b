//! OpenBao, the server with HashiCorp Vault's API: in memory, unsealed, with an audit log that counts reads.
//!
//! Fresh from [`OpenBao::start`]: KV v2 at `secret/`, KV v1 at `kv1/`, AppRole at `approle/`, the policy `sidekey` (reads
//! below both mounts) with a token and an AppRole that have it.

use std::{fs, net::SocketAddr, path::PathBuf};

use http::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{free_address, installed};
use crate::{
    client::{Call, Reply},
    harness,
    process::{Process, command},
};

/// A running server.
pub struct OpenBao {
    pub address: SocketAddr,
    pub root_token: String,
    /// A token that may read secrets and itself, nothing else.
    pub token: String,
    /// Credentials of the AppRole `sidekey`, which logs in as the same policy.
    pub role_id: String,
    pub secret_id: String,
    unseal_key: String,
    audit: PathBuf,
    process: Process,
}

const POLICY: &str = r#"
path "secret/*"    { capabilities = ["read"] }
path "kv1/*"       { capabilities = ["read"] }
path "secret/data/forbidden" { capabilities = ["deny"] }
"#;

impl OpenBao {
    /// Starts and prepares a server, in about half a second.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// [`Self::start`] with more of its configuration, a second listener for example.
    pub async fn start_with(more: &str) -> Self {
        Self::start_at(free_address(), more).await
    }

    /// Starts a server that was killed anew, at its address. It had everything in memory: secrets and tokens are gone.
    pub async fn start_again(&mut self) {
        *self = Self::start_at(self.address, "").await;
    }

    /// Kills the server.
    pub async fn kill(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.ended().await;
    }

    async fn start_at(address: SocketAddr, more: &str) -> Self {
        let program = installed("bao");
        let audit = harness::folder().join(format!("openbao-{}.audit", address.port()));
        let config = harness::folder().join(format!("openbao-{}.hcl", address.port()));
        let text = format!(
            r#"storage "inmem" {{}}
               listener "tcp" {{ address = "{address}" tls_disable = true }}
               audit "file" "reads" {{ options {{ file_path = "{}" }} }}
               api_addr = "http://{address}"
               {more}"#,
            audit.display()
        );
        fs::write(&config, text).expect("a configuration");
        let mut server = command(program);
        server.arg("server").arg("-config").arg(&config);
        let mut process = Process::start("openbao", server);
        process.until("listening", async || tokio::net::TcpStream::connect(address).await.ok()).await;

        let mut bao = Self {
            address,
            root_token: String::new(),
            token: String::new(),
            role_id: "sidekey-role".to_owned(),
            secret_id: "sidekey-secret".to_owned(),
            unseal_key: String::new(),
            audit,
            process,
        };
        let made = bao.call(Method::PUT, "sys/init", &json!({"secret_shares": 1, "secret_threshold": 1})).await;
        let made = made.expect(200).json();
        text_of(&made, "/root_token").clone_into(&mut bao.root_token);
        text_of(&made, "/keys/0").clone_into(&mut bao.unseal_key);
        bao.unseal().await;

        bao.write("sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})).await;
        bao.write("sys/mounts/kv1", json!({"type": "kv", "options": {"version": "1"}})).await;
        bao.write("sys/policies/acl/sidekey", json!({"policy": POLICY})).await;
        bao.write("sys/auth/approle", json!({"type": "approle"})).await;
        bao.write("auth/approle/role/sidekey", json!({"token_policies": "sidekey", "token_ttl": "60s"})).await;
        bao.write("auth/approle/role/sidekey/role-id", json!({"role_id": bao.role_id})).await;
        bao.write("auth/approle/role/sidekey/custom-secret-id", json!({"secret_id": bao.secret_id})).await;
        bao.token = bao.new_token(json!({"policies": ["sidekey"], "ttl": "1h"})).await;
        bao.versioned().await;
        bao
    }

    /// Waits until the KV v2 mount takes requests: a fresh one says "upgrading" for a moment.
    async fn versioned(&mut self) {
        let ask = Call::new(Method::GET, "/v1/secret/data/nothing").header("x-vault-token", &self.root_token);
        let address = self.address;
        let taken = async || (ask.clone().send(address).await.status == 404).then_some(());
        self.process.until("versioned", taken).await;
    }

    /// `http://address`, as in `vault_addr`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `auth_config` of a reference that uses [`Self::token`].
    pub fn token_auth(&self) -> Value {
        json!({"vault_auth_type": "token", "vault_addr": self.url(), "vault_token": self.token})
    }

    /// `auth_config` of a reference that logs in with the AppRole `sidekey`.
    pub fn approle_auth(&self) -> Value {
        json!({"vault_auth_type": "approle", "vault_addr": self.url(), "vault_role_id": self.role_id,
               "vault_secret_id": self.secret_id})
    }

    /// Writes a secret, or anything else of the API: `path` is what follows `/v1/`.
    ///
    /// A KV v2 secret at `secret/data/x` takes `{"data": {…}}`; [`Self::put`] does that.
    pub async fn write(&self, path: &str, body: Value) -> Value {
        let reply = self.call(Method::POST, path, &body).await;
        assert!(reply.status.is_success(), "{path}: {} {}", reply.status, reply.text());
        serde_json::from_slice(&reply.body).unwrap_or_default()
    }

    /// A new version of the KV v2 secret `name` below `secret/`.
    pub async fn put(&self, name: &str, data: Value) {
        self.write(&format!("secret/data/{name}"), json!({"data": data})).await;
    }

    /// A new token as `auth/token/create` makes it from `body`.
    pub async fn new_token(&self, body: Value) -> String {
        text_of(&self.write("auth/token/create", body).await, "/auth/client_token").to_owned()
    }

    /// Any call with the root token; the status is the caller's to judge.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Reply {
        Call::new(method, &format!("/v1/{path}"))
            .header("x-vault-token", &self.root_token)
            .json(body)
            .send(self.address)
            .await
    }

    /// Closes the vault: everything answers 503 until [`Self::unseal`].
    pub async fn seal(&self) {
        self.write("sys/seal", json!({})).await;
    }

    /// Opens the vault again, and waits until its mounts answer.
    pub async fn unseal(&self) {
        self.write("sys/unseal", json!({"key": self.unseal_key})).await;
    }

    /// How often clients read `path` (as in a policy: `secret/data/openai`), by the audit log.
    pub fn reads(&self, path: &str) -> usize {
        self.audited().iter().filter(|entry| entry["operation"] == "read" && entry["path"] == path).count()
    }

    /// How often clients logged in, by the audit log.
    pub fn logins(&self) -> usize {
        self.audited().iter().filter(|e| e["path"].as_str().is_some_and(|path| path.ends_with("/login"))).count()
    }

    /// Every request the audit log holds, oldest first.
    pub fn audited(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.audit).unwrap_or_default();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["type"] == "request").map(|mut entry| entry["request"].take()).collect()
    }

    /// When each path that begins with `start` was read, by the audit log, oldest first.
    pub fn read_times(&self, start: &str) -> impl Iterator<Item = (OffsetDateTime, String)> {
        let text = fs::read_to_string(&self.audit).unwrap_or_default();
        let reads = text.lines().filter(|line| line.contains(r#""type":"request""#)).filter_map(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let path = entry["request"]["path"].as_str().filter(|path| path.starts_with(start))?;
            let at = OffsetDateTime::parse(entry["time"].as_str()?, &Rfc3339).ok()?;
            (entry["request"]["operation"] == "read").then(|| (at, path.to_owned()))
        });
        reads.collect::<Vec<_>>().into_iter()
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to stop or pause it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn text_of<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}
