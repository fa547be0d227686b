//! The configuration as an operator meets it: a file, the environment, and every fault at once.

use std::{ffi::OsString, fs};

use sidekey::config::Config;

/// A secret that stands next to faults.
const CANARY: &str = "sk-canary-5e1f";

#[test]
fn a_file_below_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    fs::write(&file, "cache:\n  ttl_secs: 60\n  stale_secs: 10\nlisten: [127.0.0.1:0, '[::1]:0']\n").unwrap();
    let variables =
        [("SIDEKEY_CACHE__TTL_SECS", "30"), ("SIDEKEY_EGRESS__ALLOW_HOSTS", "[.svc, vault]"), ("HOME", "/")];
    let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let config = Config::load(&file, variables).unwrap();
    assert_eq!((config.cache.ttl.as_secs(), config.cache.stale.as_secs()), (30, 10));
    assert_eq!(config.proxy.listen.len(), 2);
    assert!(format!("{:?}", config.managers.policy).contains(r#"[".svc", "vault"]"#));
}

#[test]
fn no_problem_shows_what_stands_beside_it() {
    let faults = [
        "cache: {ttl_secs: -1}",
        "cache: [",
        "cache:\n\tttl_secs: 1",
        "unknown: 1",
        "log: {level: loud, format: xml}",
        "listen: 8900\nlisten: 8901",
        "a: *b",
        "a: !b c",
        "? [a, b]\n: c",
        "a: \"\\q\"",
        "---\na: 1\n---\nb: 2",
    ];
    for fault in faults {
        for text in [
            format!("admin_token_file: {CANARY}\n{fault}\nsnapshot: {{file: {CANARY}}}\n"),
            format!("sealing:\n  identity_file: {CANARY}\n{fault}\n"),
            format!("{fault}\nunknown_key: {CANARY}\n"),
            format!("# {CANARY}\n{fault} # {CANARY}\ntls:\n  key_file: /nowhere/{CANARY}\n"),
        ] {
            let invalid = Config::parse("sidecar.yaml", &text, []).unwrap_err();
            let shown = format!("{invalid} {invalid:?}");
            assert!(!shown.contains(CANARY), "{text}\n{shown}");
        }
    }
}

#[test]
fn aliases_do_not_multiply() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let invalid = Config::parse("bomb.yaml", &text, []).unwrap_err();
    assert_eq!(invalid.problems.len(), 1, "{invalid:?}");
}
