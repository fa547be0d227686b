//! schemathesis, with calls that are right and calls that are wrong, against what the control plane says of itself and against
//! what Portkey says of the same paths.
//!
//! No call may end in a 5xx, and no answer may be of another shape than the document says. Where a call is refused or taken
//! although the document would have it otherwise, `tests/conformance/deviations.tsv` has a line with the reason.

use std::fs;

use http::Method;
use serde_json::{Value, json};

use super::{ControlPlane, Home, OWNER};
use crate::{
    client::Call,
    components::{Postgres, installed},
    harness, process,
};

/// Code of the check, a part of what it says, reason.
const DEVIATIONS: &str = include_str!("../../conformance/deviations.tsv");
/// The specification as it is published, cut down to the paths that are served.
const PORTKEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/portkey-openapi.yaml");
/// What may deviate: a call that is taken although it breaks a rule of the document, one that is refused although it keeps them
/// all, a detail of an answer.
const MAY_DEVIATE: [&str; 3] = ["ST201", "ST202", "ST108"];
/// What is asked of every answer.
const CHECKS: &str = "not_a_server_error,content_type_conformance,response_schema_conformance,negative_data_rejection,\
    positive_data_acceptance";
/// Of our own document, also that it names every status.
const CHECKS_OF_OURS: &str = "status_code_conformance,response_headers_conformance";
/// Calls of random content for each operation; the examples and the edges of each field come on top.
const RANDOM_CALLS: &str = "25";

/// The two documents.
#[derive(Clone, Copy)]
enum Document {
    Ours,
    Portkeys,
}

/// One thing that is otherwise than the document says.
#[derive(Debug)]
struct Finding {
    code: String,
    #[allow(dead_code, reason = "shown when it is not listed")]
    operation: String,
    parts: Vec<String>,
}

pub async fn is_kept_on_sqlite() {
    check(Home::on_sqlite(&harness::folder()), Document::Ours).await;
}

pub async fn is_kept_on_postgres() {
    let postgres = Postgres::start().await;
    check(Home::on_postgres(&harness::folder(), &postgres.url()), Document::Ours).await;
}

pub async fn of_portkey_is_kept_on_sqlite() {
    check(Home::on_sqlite(&harness::folder()), Document::Portkeys).await;
}

pub async fn of_portkey_is_kept_on_postgres() {
    let postgres = Postgres::start().await;
    check(Home::on_postgres(&harness::folder(), &postgres.url()), Document::Portkeys).await;
}

async fn check(home: Home, document: Document) {
    let schemathesis = installed("venv-schemathesis/bin/schemathesis");
    let plane = home.sealing().start("control-plane").await;
    furnish(&plane).await;
    let folder = harness::folder();
    let (file, checks) = match document {
        Document::Ours => {
            let said = Call::get("/openapi.json").send(plane.address).await.expect(200);
            fs::write(folder.join("openapi.json"), said.text()).expect("a file");
            (folder.join("openapi.json"), format!("{CHECKS},{CHECKS_OF_OURS}"))
        }
        Document::Portkeys => (PORTKEY.into(), CHECKS.to_owned()),
    };
    let report = folder.join("report.json");
    let mut command = process::command(schemathesis);
    command.arg("run").arg(file).args(["-u", &format!("http://{}/v1", plane.address)]);
    command.args(["-H", &format!("x-portkey-api-key: {OWNER}"), "-c", &checks]);
    // The feed is for data planes. MCP integrations are refused, whatever the call: nothing would inject their secrets.
    command.args([
        "--exclude-path",
        "/snapshot",
        "--exclude-path-regex",
        "/mcp-",
        "--phases",
        "examples,coverage,fuzzing",
        "-n",
        RANDOM_CALLS,
    ]);
    command.args(["--seed", "1", "--no-shrink", "--continue-on-failure", "--suppress-health-check", "all"]);
    command.args(["--output-truncate", "false", "--warnings", "off"]);
    command.args(["--report", "json", "--report-json-path"]).arg(&report).current_dir(&folder);
    let output = command.output().await.expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    fs::write(folder.join("schemathesis.log"), said.as_bytes()).expect("a log");
    let report = fs::read(&report).unwrap_or_else(|_| panic!("no report:\n{said}"));
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!((&report["complete"], &report["errors"]), (&json!(true), &json!([])), "{said}");
    assert!(report["operations"]["tested"].as_u64() >= Some(30), "{}", report["operations"]);
    println!("{} calls of {} operations", report["test_cases"]["generated"], report["operations"]["tested"]);

    let listed = deviations();
    let unlisted: Vec<_> = findings(&said).into_iter().filter(|finding| !finding.is_listed(&listed)).collect();
    assert!(unlisted.is_empty(), "no listed deviation, see schemathesis.log: {unlisted:#?}");
    // What was counted was read, too.
    let counted: usize = report["failures"]
        .as_array()
        .expect("failures")
        .iter()
        .map(|failure| failure["operations"].as_array().expect("operations").len())
        .sum();
    assert!(findings(&said).len() >= counted, "{counted} findings were counted:\n{said}");
}

/// What examples name.
async fn furnish(plane: &ControlPlane) {
    let body = json!({"name": "Shared", "slug": "ws-shared-123"});
    let call = Call::new(Method::POST, "/v1/admin/workspaces").header("x-portkey-api-key", OWNER).json(&body);
    call.send(plane.address).await.expect(200);
}

/// What the program says it found.
fn findings(said: &str) -> Vec<Finding> {
    let (mut findings, mut operation): (Vec<Finding>, _) = (Vec::new(), String::new());
    for line in said.lines() {
        let title = line.strip_prefix('_').map(|line| line.trim_matches(['_', ' ']));
        if let Some(title) = title.filter(|title| title.contains(" /")) {
            title.clone_into(&mut operation);
        } else if let Some(code) = line.strip_prefix("- ST") {
            let code = format!("ST{}", code.split(' ').next().unwrap_or_default());
            findings.push(Finding { code, operation: operation.clone(), parts: Vec::new() });
        } else if let Some(finding) = findings.last_mut() {
            finding.read(line);
        }
    }
    findings
}

// === impl Finding ===

impl Finding {
    /// Takes over what a line says of it.
    fn read(&mut self, line: &str) {
        let line = line.trim();
        let refused = line.strip_prefix("`{").and_then(|_| serde_json::from_str::<Value>(line.trim_matches('`')).ok());
        let message = refused.as_ref().and_then(|refused| refused["data"]["message"].as_str());
        match self.code.as_str() {
            "ST202" => {
                self.parts.extend(message.into_iter().flat_map(|message| message.split("; ")).map(str::to_owned));
            }
            "ST201" => self.parts.extend(line.strip_prefix("Invalid component: ").map(str::to_owned)),
            _ => self.parts.extend(
                [" is not ", " is valid under ", " is less "]
                    .into_iter()
                    .find_map(|text| line.contains(text).then(|| line.to_owned())),
            ),
        }
    }

    fn is_listed(&self, listed: &[(&str, &str)]) -> bool {
        let is_listed = |part: &String| listed.iter().any(|(code, text)| *code == self.code && part.contains(text));
        !self.parts.is_empty() && self.parts.iter().all(is_listed)
    }
}

/// Code and text of each line.
fn deviations() -> Vec<(&'static str, &'static str)> {
    let lines = DEVIATIONS.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &'static str| {
        let [code, text, reason] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("three columns: {line}") };
        assert!(MAY_DEVIATE.contains(&code) && !text.is_empty() && reason.len() > 20, "{line}");
        (code, text)
    };
    lines.map(row).collect()
}
