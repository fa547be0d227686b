//! The other commands of the binary, against the same servers.

use std::process::Output;

use serde_json::json;

use crate::{
    process,
    world::{World, find},
};

/// The first command of the README: everything on loopback, one request, exit 0.
pub async fn dev_once() {
    let output = sidekey(&["dev", "--once"]).await;
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(said.contains("authorization"), "it shows what arrived: {said}");
}

/// Every reference is fetched and listed, never a value.
pub async fn check_resolves_every_reference() {
    let world = World::start().await;
    let config = world.sidekey.config_file.display().to_string();
    let output = sidekey(&["check", "--config", &config, "--resolve"]).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    for slug in ["openai-key", "openai-backup-key", "anthropic-key", "aws-keys", "azure-key"] {
        assert!(said.lines().any(|line| line.contains(slug)), "{slug} is not listed:\n{said}");
    }
    world.assert_no_secret("check --resolve", &said);
}

/// A reference that cannot be fetched fails the command and is named with the class of its failure.
pub async fn check_names_what_fails() {
    let mut world = World::start().await;
    find(&mut world.snapshot, "secret_references", "azure-key")["secret_path"] = json!("secret/data/nothing-here");
    world.replace_snapshot().await;
    let config = world.sidekey.config_file.display().to_string();
    let output = sidekey(&["check", "--config", &config, "--resolve"]).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said.lines().find(|line| line.contains("azure-key")).unwrap_or_else(|| panic!("not listed:\n{said}"));
    assert!(line.contains("gone"), "{line}");
}

async fn sidekey(arguments: &[&str]) -> Output {
    process::command(env!("CARGO_BIN_EXE_sidekey")).args(arguments).output().await.expect("it starts")
}
