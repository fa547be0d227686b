//! A control plane, driven by what people have: Portkey's unmodified SDKs by base URL, and the curl lines of its pages.
//!
//! The scripts are `tests/sdk/control_*`; each of their cases says itself what it expects. What they post as a credential is
//! nowhere afterwards.

use std::{fs, net::SocketAddr, path::PathBuf};

use serde_json::Value;
use sidekey::seal::identity::Identity;

use crate::{
    components::free_address,
    harness,
    process::{Process, command},
    sdk,
};

/// A part of every credential that the scripts and lines below post.
const CANARY: &str = "canary-of-the-";

/// A running control plane that seals to somebody.
struct Control {
    address: SocketAddr,
    folder: PathBuf,
    owner: String,
    process: Process,
}

/// A call as Portkey's pages write it, with their example.
struct Line {
    path: &'static str,
    body: &'static str,
}

const LINES: [Line; 7] = [
    Line {
        path: "secret-references",
        body: r#"{"name": "my-aws-secret", "manager_type": "aws_sm", "auth_config": {"aws_auth_type": "accessKey",
            "aws_access_key_id": "AKIAEXAMPLE012345678", "aws_secret_access_key": "canary-of-the-line", "aws_region": "us-east-1"},
            "secret_path": "prod/api-keys/openai"}"#,
    },
    Line {
        path: "integrations",
        body: r#"{"name": "Production OpenAI", "slug": "my-openai-integration", "ai_provider_id": "openai",
            "key": "canary-of-the-line", "description": "Production OpenAI integration for customer-facing applications"}"#,
    },
    Line {
        path: "providers",
        body: r#"{"name": "My first provider", "note": "Provider description", "integration_id": "my-openai-integration",
            "usage_limits": {"credit_limit": 10, "periodic_reset": "monthly", "alert_threshold": 9},
            "workspace_id": "", "slug": "first-openai-provider"}"#,
    },
    Line {
        path: "virtual-keys",
        body: r#"{"name": "My first virtual key", "provider": "openai", "key": "canary-of-the-line",
            "note": "Virtual key description", "usage_limits": {"credit_limit": 10, "periodic_reset": "monthly",
            "alert_threshold": 9}, "workspace_id": ""}"#,
    },
    Line {
        path: "virtual-keys",
        body: r#"{"provider": "azure-openai", "key": "canary-of-the-line", "name": "Key 1 Azure Open AI",
            "note": "description", "deploymentConfig": [
            {"apiVersion": "a", "alias": "b", "deploymentName": "c", "is_default": true},
            {"apiVersion": "a", "alias": "b", "deploymentName": "c", "is_default": false}], "resourceName": "c"}"#,
    },
    Line {
        path: "virtual-keys",
        body: r#"{"provider": "bedrock", "key": "canary-of-the-line", "name": "Bedrock Key", "note": "description",
            "awsAccessKeyId": "a", "awsSecretAccessKey": "b", "awsRegion": "c"}"#,
    },
    Line {
        path: "virtual-keys",
        body: r#"{"provider": "vertex-ai", "key": "canary-of-the-line", "name": "Vertex AI Key", "note": "description",
            "vertexProjectId": "a", "vertexRegion": "b"}"#,
    },
];

pub async fn python() {
    script("control_python.py").await;
}

pub async fn node() {
    script("control_node.mjs").await;
}

/// The lines of the pages, with another host and key.
pub async fn curl() {
    let control = Control::start().await;
    for Line { path, body } in LINES {
        let mut program = command("curl");
        program.args(["-sS", "-X", "POST", &format!("http://{}/v1/{path}", control.address)]);
        program.args(["-H", &format!("x-portkey-api-key: {}", control.owner), "-H", "Content-Type: application/json"]);
        program.args(["-d", body, "-w", "\n%{http_code}"]);
        let output = program.output().await.expect("curl is installed");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (answer, status) = said.rsplit_once('\n').expect("a status");
        assert_eq!(status, "200", "{path}: {said}");
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        assert!(answer["id"].is_string() && answer["slug"].is_string(), "{path}: {answer}");
    }
    control.holds_no_canary();
}

async fn script(name: &str) {
    let control = Control::start().await;
    let mut program = sdk::script(name);
    program.env("BASE_URL", format!("http://{}", control.address)).env("CLIENT_KEY", &control.owner);
    let output = program.output().await.expect("the script starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    let cases: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("an outcome")).collect();
    assert!(cases.len() >= 9, "{said}{errors}");
    let wrong: Vec<_> = cases.iter().filter(|case| case["ok"] != true).map(Value::to_string).collect();
    assert!(wrong.is_empty(), "{} of {} cases failed:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    control.holds_no_canary();
}

// === impl Control ===

impl Control {
    async fn start() -> Self {
        let folder = harness::folder().join("control");
        fs::create_dir_all(&folder).expect("the test's folder is writable");
        let recipient = Identity::generate().expect("an identity").recipient();
        let address = free_address();
        let database = folder.join("control.db");
        let config = format!(
            "listen: {address}\ndatabase_file: {}\nsealing: {{recipients: [{recipient}]}}\n",
            database.display()
        );
        let file = folder.join("control-plane.yaml");
        fs::write(&file, config).expect("the test's folder is writable");
        let mut program = command(env!("CARGO_BIN_EXE_sidekey"));
        program.arg("control-plane").arg("--config").arg(file);
        let mut process = Process::start("control-plane", program);
        process.until("ready", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        let owner = fs::read_to_string(folder.join("bootstrap-key")).expect("the first key");
        Self { address, folder, owner, process }
    }

    /// What was posted is neither in the database, its journal or another file beside it, nor in the log.
    fn holds_no_canary(&self) {
        let mut places = vec![("the log".to_owned(), self.process.log().into_bytes())];
        for entry in fs::read_dir(&self.folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            places.push((path.display().to_string(), fs::read(path).expect("a file")));
        }
        assert!(places.iter().any(|(name, content)| name.contains("control.db") && !content.is_empty()));
        for (name, content) in places {
            let found = content.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
            assert!(!found, "a credential is in {name}");
        }
    }
}
