//! MiniStack, an emulator of AWS that checks signatures and policies: Parameter Store, Secrets Manager, STS, IAM.
//!
//! Its root key is taken at its word, whatever the signature, so that a test sets things up without signing.

use std::net::SocketAddr;

use serde_json::Value;

use super::{free_address, installed};
use crate::{
    client::{Call, Reply},
    harness,
    process::{Process, command},
};

const ROOT: &str = "AKIAROOTROOTROOT0001";

/// A running emulator.
pub struct MiniStack {
    address: SocketAddr,
    _process: Process,
}

impl MiniStack {
    /// One that checks signatures and policies.
    pub async fn start() -> Self {
        Self::with("true").await
    }

    /// One that takes every key, among them those it hands out as a container endpoint and as instance metadata, of which it
    /// has the second version only.
    pub async fn trusting() -> Self {
        Self::with("false").await
    }

    async fn with(auth: &str) -> Self {
        let address = free_address();
        let mut server = command(installed("venv-ministack/bin/ministack"));
        server
            .env("GATEWAY_PORT", address.port().to_string())
            .env("BIND_HOST", "127.0.0.1")
            .env("AUTH", auth)
            .env("MINISTACK_IMDS_V2_REQUIRED", "1")
            .env("AWS_ACCESS_KEY_ID", ROOT)
            .env("AWS_SECRET_ACCESS_KEY", "root")
            .env("S3_DATA_DIR", harness::folder().join("s3"))
            .env("TMPDIR", harness::folder())
            .env("IOT_MTLS_ENABLED", "0")
            .env("SFTP_ENABLED", "0");
        let mut process = Process::start("ministack", server);
        let is_up = async || {
            tokio::net::TcpStream::connect(address).await.ok()?;
            (Call::get("/_ministack/health").send(address).await.status == 200).then_some(())
        };
        process.until("listening", is_up).await;
        Self { address, _process: process }
    }

    /// `http://address`, as in `managers.aws.endpoint_url` and `.sts_endpoint_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A call of a JSON service as root: `AmazonSSM.PutParameter`, `secretsmanager.CreateSecret` …
    pub async fn json(&self, target: &str, body: &Value) -> Value {
        let service = target.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let call = self.as_root(&service).json(body).header("x-amz-target", target);
        let reply = call.send(self.address).await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
        serde_json::from_slice(&reply.body).unwrap_or_default()
    }

    /// A call of IAM as root; the answer is XML.
    pub async fn iam(&self, action: &str, fields: &[(&str, &str)]) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action).append_pair("Version", "2010-05-08").extend_pairs(fields);
        let call = self.as_root("iam").body("application/x-www-form-urlencoded", form.finish());
        let reply: Reply = call.send(self.address).await;
        assert_eq!(reply.status, 200, "{action}: {}", reply.text());
        reply.text()
    }

    /// A new user with one policy: id and secret of its access key.
    pub async fn user(&self, name: &str, policy: &Value) -> (String, String) {
        self.iam("CreateUser", &[("UserName", name)]).await;
        let policy = policy.to_string();
        let fields = [("UserName", name), ("PolicyName", "policy"), ("PolicyDocument", policy.as_str())];
        self.iam("PutUserPolicy", &fields).await;
        self.access_key(name).await
    }

    /// One more access key of a user: its id and secret.
    pub async fn access_key(&self, user: &str) -> (String, String) {
        let made = self.iam("CreateAccessKey", &[("UserName", user)]).await;
        let element = |name: &str| {
            let (_, rest) = made.split_once(&format!("<{name}>")).expect("such an element");
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        (element("AccessKeyId"), element("SecretAccessKey"))
    }

    /// Which service is meant stands in the scope of the signature.
    fn as_root(&self, service: &str) -> Call {
        let credential = format!("Credential={ROOT}/20260101/us-east-1/{service}/aws4_request");
        let authorization = format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host;x-amz-date, Signature=00");
        Call::post("/").header("authorization", authorization).header("x-amz-date", "20260101T000000Z")
    }
}
