//! `aws_sm` as an operator sees it: `sidekey check --resolve` against MiniStack, which checks signatures, identity policies,
//! trust policies and external ids.
//!
//! Real: Sidekey's binary, Amazon's libraries in it, the emulator. The emulator refuses keys that it hands out itself by
//! container endpoint and instance metadata, so those two run against one that takes every key. What AWS answers and the
//! emulator does not (throttling, KMS, outages) is asked of the scripted server in `tests/it/contract/aws_sm`. A sidecar that
//! goes on serving is in [`running`].

pub mod running;

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{components::MiniStack, harness, process};

const ACCOUNT: &str = "000000000000";
const SECRET: &str = "sk-canary-aws-77aa";

/// What the command said, line by line, and its exit status.
struct Said {
    text: String,
    status: Option<i32>,
}

/// A configuration and snapshot of `references`, resolved once with `variables` in the environment.
async fn resolve(aws: &MiniStack, references: Vec<Value>, variables: &[(&str, &str)], more: &str) -> Said {
    let folder = harness::folder();
    let snapshot = folder.join("snapshot.json");
    fs::write(&snapshot, json!({"schema_version": 1, "version": 1, "secret_references": references}).to_string())
        .unwrap();
    let config = folder.join("sidekey.yaml");
    let (url, snapshot) = (aws.url(), snapshot.display());
    let text = format!(
        "snapshot: {{file: {snapshot}}}\nmanagers:\n  aws: {{endpoint_url: '{url}', sts_endpoint_url: '{url}'{more}}}\nlog: {{level: warn}}\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = process::command(env!("CARGO_BIN_EXE_sidekey"));
    command.args(["check", "--resolve", "--config"]).arg(&config).env("AWS_EC2_METADATA_DISABLED", "true");
    let output = command.envs(variables.iter().copied()).output().await.expect("it starts");
    let text = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(!text.contains(SECRET), "a value is shown: {text}");
    Said { text, status: output.status.code() }
}

impl Said {
    /// The line of this reference.
    fn line(&self, slug: &str) -> &str {
        let line = self.text.lines().find(|line| line.contains(slug));
        line.unwrap_or_else(|| panic!("{slug} is not listed:\n{}", self.text))
    }

    fn shows(&self, slug: &str, expected: &str) {
        let line = self.line(slug);
        assert!(line.contains(expected), "{slug} should be {expected}: {line}\n{}", self.text);
    }
}

fn reference(slug: &str, auth_config: Value, path: &str) -> Value {
    json!({"id": slug, "slug": slug, "manager_type": "aws_sm", "auth_config": auth_config, "secret_path": path, "status": "active"})
}

fn access_key(id: &str, secret: &str) -> Value {
    json!({"aws_auth_type": "accessKey", "aws_access_key_id": id, "aws_secret_access_key": secret, "aws_region": "us-east-1"})
}

fn assumed(role: &str, external_id: Option<&str>) -> Value {
    let role = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
    json!({"aws_auth_type": "assumedRole", "aws_role_arn": role, "aws_external_id": external_id, "aws_region": "us-east-1"})
}

fn own() -> Value {
    json!({"aws_auth_type": "serviceRole", "aws_region": "us-east-1"})
}

fn policy(action: &str, resource: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]})
}

/// Makes a secret; its ARN.
async fn put(aws: &MiniStack, name: &str) -> String {
    let made = aws.json("secretsmanager.CreateSecret", &json!({"Name": name, "SecretString": SECRET})).await;
    made["ARN"].as_str().unwrap().to_owned()
}

/// A role that `trust` may assume and that reads everything.
async fn role(aws: &MiniStack, name: &str, trust: &Value) {
    let trust = trust.to_string();
    aws.iam("CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", &trust)]).await;
    let policy = policy("secretsmanager:GetSecretValue", "*").to_string();
    let fields = [("RoleName", name), ("PolicyName", "read"), ("PolicyDocument", policy.as_str())];
    aws.iam("PutRolePolicy", &fields).await;
}

/// A role for web identities that reads everything, and what the environment of its pod says.
async fn web_identity(aws: &MiniStack) -> Vec<(String, String)> {
    let provider = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/oidc.example");
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
        "Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": provider}}]});
    role(aws, "pod", &trust).await;
    let token: PathBuf = harness::folder().join("web-identity");
    let claims = json!({"iss": "https://oidc.example", "sub": "system:serviceaccount:a:b", "aud": "sts.amazonaws.com"});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    fs::write(&token, format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims))).unwrap();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
        ("AWS_ROLE_ARN", format!("arn:aws:iam::{ACCOUNT}:role/pod")),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// By an access key: names, ARNs, versions and stages; and each way to be refused.
pub async fn by_access_key() {
    let aws = MiniStack::start().await;
    let arn = put(&aws, "app/key").await;
    let second = json!({"SecretId": "app/key", "SecretString": format!("{SECRET}-2")});
    let version = aws.json("secretsmanager.PutSecretValue", &second).await["VersionId"].as_str().unwrap().to_owned();
    let binary = json!({"Name": "app/binary", "SecretBinary": "c2stY2FuYXJ5LWF3cy03N2Fh"});
    aws.json("secretsmanager.CreateSecret", &binary).await;
    put(&aws, "app/leaving").await;
    aws.json("secretsmanager.DeleteSecret", &json!({"SecretId": "app/leaving", "RecoveryWindowInDays": 7})).await;
    put(&aws, "other/key").await;
    let readable =
        policy("secretsmanager:GetSecretValue", &format!("arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:app/*"));
    let (id, secret) = aws.user("reader", &readable).await;
    let (mine, wrong) = (access_key(&id, &secret), access_key(&id, "another-secret-entirely"));
    let unknown = access_key("AKIANOBODYKNOWSTHIS0", &secret);
    let said = resolve(
        &aws,
        vec![
            reference("by-name", mine.clone(), "app/key"),
            reference("by-arn", mine.clone(), &arn),
            reference("by-version", mine.clone(), &format!("app/key?version={version}")),
            reference("by-stage", mine.clone(), "app/key?stage=AWSPREVIOUS"),
            reference("of-bytes", mine.clone(), "app/binary"),
            reference("absent", mine.clone(), "app/absent"),
            reference("no-stage", mine.clone(), "app/key?stage=blue"),
            reference("leaving", mine.clone(), "app/leaving"),
            reference("closed", mine, "other/key"),
            reference("wrong-key", wrong, "app/key"),
            reference("unknown-key", unknown, "app/key"),
        ],
        // Never fallen back on.
        &[("AWS_ACCESS_KEY_ID", "AKIAROOTROOTROOT0001"), ("AWS_SECRET_ACCESS_KEY", "root")],
        "",
    )
    .await;
    assert_eq!(said.status, Some(1), "{}", said.text);
    for slug in ["by-name", "by-arn", "by-version", "by-stage", "of-bytes"] {
        said.shows(slug, " ok ");
    }
    said.shows("by-version", &version);
    for slug in ["absent", "no-stage", "leaving"] {
        said.shows(slug, "gone");
    }
    said.shows("closed", "denied");
    for slug in ["wrong-key", "unknown-key"] {
        said.shows(slug, "unauthenticated");
    }
}

/// A role is assumed by the sidecar's own identity: with its external id, without it, with another one, and one that is not.
pub async fn by_assumed_role() {
    let aws = MiniStack::start().await;
    put(&aws, "app/key").await;
    let (id, secret) = aws.user("sidecar", &policy("sts:AssumeRole", "*")).await;
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:root")},
        "Condition": {"StringEquals": {"sts:ExternalId": "org-4711"}}}]});
    role(&aws, "reader", &trust).await;
    let rows = || {
        vec![
            reference("right-id", assumed("reader", Some("org-4711")), "app/key"),
            reference("no-id", assumed("reader", None), "app/key"),
            reference("other-id", assumed("reader", Some("org-0815")), "app/key"),
            reference("no-role", assumed("nobody", Some("org-4711")), "app/key"),
        ]
    };
    let base = [("AWS_ACCESS_KEY_ID", id.as_str()), ("AWS_SECRET_ACCESS_KEY", secret.as_str())];
    let said = resolve(&aws, rows(), &base, "").await;
    said.shows("right-id", " ok ");
    said.shows("right-id", "role/reader");
    for slug in ["no-id", "other-id", "no-role"] {
        said.shows(slug, "unauthenticated");
    }

    // Fixed by the operator: sent where none is written, and another one is refused before anything is sent.
    let said = resolve(&aws, vec![rows().remove(1)], &base, ", external_id: org-4711").await;
    said.shows("no-id", " ok ");
    let said = resolve(&aws, vec![rows().remove(2)], &base, ", external_id: org-4711").await;
    assert!(said.text.contains("managers.aws.external_id"), "{}", said.text);
}

/// The sidecar's own identity, by whatever the environment names, and that it is told which one it was.
pub async fn by_service_role() {
    let aws = MiniStack::start().await;
    put(&aws, "app/key").await;
    let (id, secret) = aws.user("sidecar", &policy("secretsmanager:GetSecretValue", "*")).await;
    let keys = [("AWS_ACCESS_KEY_ID", id.as_str()), ("AWS_SECRET_ACCESS_KEY", secret.as_str())];
    let said = resolve(&aws, vec![reference("own", own(), "app/key")], &keys, "").await;
    said.shows("own", " ok ");
    said.shows("own", "environment");

    let irsa = web_identity(&aws).await;
    let irsa: Vec<_> = irsa.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let said = resolve(&aws, vec![reference("own", own(), "app/key")], &irsa, "").await;
    said.shows("own", " ok ");
    said.shows("own", "web identity");

    let said = resolve(&aws, vec![reference("own", own(), "app/key")], &[], "").await;
    said.shows("own", "unauthenticated");
}

/// Keys from a container endpoint and from instance metadata of the second version alone.
pub async fn by_the_machine() {
    let aws = MiniStack::trusting().await;
    put(&aws, "app/key").await;
    let endpoint = format!("{}/v2/credentials/x", aws.url());
    let said = resolve(
        &aws,
        vec![reference("own", own(), "app/key")],
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &endpoint)],
        "",
    )
    .await;
    said.shows("own", " ok ");
    said.shows("own", "container");

    let url = aws.url();
    let metadata = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()), ("AWS_EC2_METADATA_DISABLED", "false")];
    let said = resolve(&aws, vec![reference("own", own(), "app/key")], &metadata, "").await;
    said.shows("own", " ok ");
    said.shows("own", "metadata");
}
