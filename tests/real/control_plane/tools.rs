//! The tools that people have: unmodified SDKs, and the curl lines of the documents that Sidekey was made from.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use super::{ControlPlane, Home, OWNER};
use crate::{components::installed, harness, process};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");
/// Each says where its lines are from; each line ends in an answer.
const EXAMPLES: [(&str, &str); 4] = [
    (include_str!("../../conformance/secret_reference.sh"), "slug"),
    (include_str!("../../conformance/api_key_service.sh"), "key"),
    (include_str!("../../conformance/api_key_user.sh"), "key"),
    (include_str!("../../conformance/api_key_bodies.sh"), "key"),
];
/// The workspace that the examples name.
const WORKSPACE: &str = r#"curl -sS -X POST "$BASE_URL/v1/admin/workspaces" -H "x-portkey-api-key: $OWNER_KEY" \
    -H "Content-Type: application/json" -d '{"name":"Team","slug":"ws-team"}'"#;

/// `portkey-ai` for Python.
pub async fn portkey_python_drives_it() {
    let python = installed("venv-clients/bin/python");
    let plane = Home::on_sqlite(&harness::folder()).sealing().start("control-plane").await;
    let output = run(&plane, &python, &[&format!("{SCRIPTS}/admin_python.py")]).await;
    assert!(output.status.success() && said(&output).contains("done"), "{}", said(&output));
}

/// `portkey-ai` for Node.
pub async fn portkey_node_drives_it() {
    let modules = installed("npm-clients/node_modules");
    let plane = Home::on_sqlite(&harness::folder()).sealing().start("control-plane").await;
    // A module is looked for from where the script is.
    let folder = harness::folder();
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("a link");
    let script = folder.join("admin_node.mjs");
    fs::copy(format!("{SCRIPTS}/admin_node.mjs"), &script).expect("a copy");
    let output = run(&plane, Path::new("node"), &[script.to_str().expect("a path")]).await;
    assert!(output.status.success() && said(&output).contains("done"), "{}", said(&output));
}

/// The lines of the documents, apart from host, key, ids, and the continuation that some of their first lines lack.
pub async fn curl_examples_work() {
    let plane = Home::on_sqlite(&harness::folder()).sealing().start("control-plane").await;
    for (script, member) in [(WORKSPACE, "slug")].into_iter().chain(EXAMPLES) {
        let output = run(&plane, Path::new("bash"), &["-euc", script]).await;
        assert!(output.status.success(), "{script}: {}", said(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        let answers: Vec<Value> = serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect();
        assert!(!answers.is_empty(), "{script}: no answer");
        for answer in answers {
            assert!(answer[member].is_string(), "{script}: {answer}");
        }
    }
}

/// Runs `program`, with what it needs to find `plane` in its environment.
async fn run(plane: &ControlPlane, program: &Path, arguments: &[&str]) -> Output {
    let mut command = process::command(program);
    command.args(arguments).env("BASE_URL", format!("http://{}", plane.address)).env("OWNER_KEY", OWNER);
    command.output().await.expect("it starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
