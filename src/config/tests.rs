//! Relations between keys, and that every fault of a run is reported at once.

use super::*;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse("a.yaml", text, []).map_err(|invalid| invalid.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn nothing_is_a_configuration() {
    let config = parse("").unwrap();
    assert_eq!(config.proxy.listen[0].to_string(), "127.0.0.1:8900");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8901");
    assert_eq!(config.proxy.upstream.url.as_str(), "http://127.0.0.1:8787/");
    assert_eq!(config.cache.ttl.as_secs(), 300);
    assert!(config.snapshot.is_none());
}

#[test]
fn relations() {
    struct Case {
        text: &'static str,
        /// A part of the only problem; `None` = fine.
        problem: Option<&'static str>,
    }
    let cases = [
        Case { text: "listen: 0.0.0.0:8900", problem: Some("a.yaml:1: listen: 0.0.0.0:8900 is open to the network") },
        Case { text: "listen: [127.0.0.1:1, '[::]:1']", problem: Some("listen: [::]:1 is open to the network") },
        Case { text: "listen: 0.0.0.0:8900\nallow_unauthenticated: true", problem: None },
        Case { text: "listen: [127.0.0.1:1, '[::1]:1', 127.0.0.2:1]", problem: None },
        Case { text: "listen: [127.0.0.1:1, 127.0.0.1:1]", problem: Some("listen: names one address twice") },
        Case { text: "listen: [127.0.0.1:0, 127.0.0.1:0]", problem: None },
        Case { text: "admin_listen: 127.0.0.1:8900", problem: Some("admin_listen: is also in listen") },
        Case { text: "admin_listen: 0.0.0.0:8901", problem: None },
        Case { text: "client_auth: api_key", problem: Some("client_auth: needs api_key_hash_file") },
        Case {
            text: "client_auth: tokens",
            problem: Some("client_auth: \"tokens\" is not known; use none or api_key"),
        },
        Case { text: "client_auth: api_key\napi_key_hash_file: /dev/null", problem: None },
        Case { text: "client_auth: api_key\napi_key_hash_file: /dev/null\nlisten: 0.0.0.0:1", problem: None },
        Case { text: "api_key_hash_file: /dev/null", problem: Some("api_key_hash_file: has no effect") },
        Case {
            text: "client_auth: api_key\napi_key_hash_file: /dev/null\nworkspace: a",
            problem: Some("workspace: has no effect"),
        },
        Case {
            text: "snapshot: {file: a, last_good_file: a}",
            problem: Some("snapshot.last_good_file: is snapshot.file itself"),
        },
        Case { text: "client_auth: none", problem: None },
        Case { text: "upstream: {url: 'http://gateway:8787'}", problem: Some("upstream.url: is plain http") },
        Case { text: "upstream: {url: 'http://gateway:8787', allow_plaintext: true}", problem: None },
        Case { text: "upstream: {url: 'https://gateway'}", problem: None },
        Case { text: "upstream: {ca_file: /dev/null}", problem: Some("upstream.ca_file: has no effect") },
        Case { text: "tls: {cert_file: /dev/null}", problem: Some("tls.cert_file: needs tls.key_file") },
        Case { text: "tls: {key_file: /dev/null}", problem: Some("tls.key_file: needs tls.cert_file") },
        Case { text: "tls: {client_ca_file: /dev/null}", problem: Some("tls.client_ca_file: needs tls.cert_file") },
        Case {
            text: "tls: {cert_file: /dev/null, key_file: /nowhere}",
            problem: Some("tls.key_file: the value (not shown)"),
        },
        Case {
            text: "listen: 0.0.0.0:1\ntls: {cert_file: /dev/null, key_file: /dev/null, client_ca_file: /dev/null}",
            problem: None,
        },
        Case {
            text: "listen: 0.0.0.0:1\ntls: {cert_file: /dev/null, key_file: /dev/null}",
            problem: Some("listen: 0.0.0.0:1 is open"),
        },
        Case {
            text: "managers: {timeout_secs: 9}",
            problem: Some("managers.deadline_secs: 8 is shorter than one attempt, managers.timeout_secs 9"),
        },
        Case { text: "managers: {timeout_secs: 9, deadline_secs: 9}", problem: None },
        Case {
            text: "managers: {login_deadline_secs: 2}",
            problem: Some("managers.login_deadline_secs: 2 is shorter"),
        },
        Case { text: "prewarm: used", problem: Some("prewarm: `used` needs prewarm_file") },
        Case { text: "prewarm: list", problem: Some("prewarm: `list` needs prewarm_list") },
        Case { text: "prewarm_file: a", problem: Some("prewarm_file: has no effect") },
        Case { text: "prewarm: used\nprewarm_file: a", problem: None },
        Case { text: "prewarm: all", problem: None },
        Case { text: "prewarm: all\nprewarm_list: [a]", problem: Some("prewarm_list: has no effect") },
        Case { text: "prewarm: list\nprewarm_list: [a]", problem: None },
        Case { text: "egress: {allow_hosts: [vault], allow_cidrs: [10.0.0.0/8]}", problem: None },
        Case { text: "managers: {vault: {kubernetes_allow_addrs: ['https://vault:8200']}}", problem: None },
    ];
    for Case { text, problem } in cases {
        let problems = parse(text).err().unwrap_or_default();
        match problem {
            None => assert_eq!(problems, [""; 0], "{text:?}"),
            Some(part) => {
                assert_eq!(problems.len(), 1, "{text:?}: {problems:#?}");
                assert!(problems[0].contains(part), "{text:?}: {problems:#?}");
            }
        }
    }
}

#[test]
fn every_key_of_a_later_version_is_refused() {
    let later: Vec<_> = Config::keys().into_iter().filter(|key| !key.built).collect();
    for key in &later {
        let text = format!("{}: x", key.name.replace('.', ": {")) + &"}".repeat(key.name.matches('.').count());
        let problems = parse(&text).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.contains("is not available in this version")),
            "{text}: {problems:#?}"
        );
    }
    assert!(later.iter().any(|key| key.name == "control_plane"));
}

#[test]
fn every_fault_of_a_run_at_once() {
    let text = "listen: 8900\ncache: {ttl_secs: -1, stale: 5}\nmanagers:\n  timeout_secs: 0\nupstream: {url: x}\nwebhook_listen: x\n";
    let variables = [("SIDEKEY_LOG__LEVEL", "loud"), ("SIDEKEY_LOG__LEVLE", "info")];
    let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let invalid = Config::parse("a.yaml", text, variables).unwrap_err();
    let places: Vec<_> = invalid.problems.iter().map(|problem| format!("{} {}", problem.place, problem.key)).collect();
    assert_eq!(
        places,
        [
            "a.yaml:1 listen",
            "a.yaml:2 cache.ttl_secs",
            "a.yaml:2 cache.stale",
            "a.yaml:4 managers.timeout_secs",
            "a.yaml:5 upstream.url",
            "a.yaml:6 webhook_listen",
            "SIDEKEY_LOG__LEVEL log.level",
            "SIDEKEY_LOG__LEVLE ",
        ]
    );
    assert_eq!(invalid.to_string(), "8 problems in the configuration");
}

#[test]
fn a_source_of_webhooks_is_whole_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "0123456789abcdef").unwrap();
    let file = file.display();
    let tenant = "11111111-2222-3333-4444-555555555555";
    #[rustfmt::skip]
    let rows = [
        // what stands under `webhooks`, the listener, the keys with problems
        (format!("hmac: {{secret_file: {file}}}"), "127.0.0.1:0", ""),
        (format!("hmac: {{secret_file: {file}}}"), "null", "webhooks.hmac.secret_file"),
        (format!("hmac: {{secret_file: {file}}}"), "127.0.0.1:8901", "webhook_listen"),
        (format!("hmac: {{secret_file: {file}}}"), "0.0.0.0:8903", "webhook_listen"),
        (format!("{{allow_plaintext: true, hmac: {{secret_file: {file}}}}}"), "0.0.0.0:8903", ""),
        (format!("{{tls: {{cert_file: {file}, key_file: {file}}}, hmac: {{secret_file: {file}}}}}"), "0.0.0.0:8903", ""),
        (format!("{{tls: {{cert_file: {file}}}, hmac: {{secret_file: {file}}}}}"), "127.0.0.1:0", "webhooks.tls.cert_file"),
        ("{allow_plaintext: true}".to_owned(), "null", "webhooks.allow_plaintext"),
        ("{}".to_owned(), "127.0.0.1:0", "webhook_listen"),
        (format!("eventbridge: {{api_key_file: {file}, api_key_header: X-Sidekey-Key}}"), "127.0.0.1:0", ""),
        (format!("eventbridge: {{api_key_file: {file}, oauth_issuer: 'https://idp.example'}}"), "127.0.0.1:0", "webhooks.eventbridge.oauth_issuer webhooks.eventbridge.oauth_issuer"),
        ("eventbridge: {oauth_issuer: 'https://idp.example/', oauth_audience: sidekey}".to_owned(), "127.0.0.1:0", ""),
        ("eventbridge: {oauth_issuer: 'http://idp.example', oauth_audience: sidekey}".to_owned(), "127.0.0.1:0", "webhooks.eventbridge.oauth_issuer"),
        ("eventbridge: {oauth_keys_url: 'https://idp.example/keys'}".to_owned(), "127.0.0.1:0", "webhooks.eventbridge.oauth_keys_url"),
        (format!("{{eventbridge: {{api_key_header: x-other}}, hmac: {{secret_file: {file}}}}}"), "127.0.0.1:0", "webhooks.eventbridge.api_key_header"),
        (format!("event_grid: {{audience: 'api://sidekey', tenant_id: {tenant}}}"), "127.0.0.1:0", ""),
        ("event_grid: {audience: 'api://sidekey'}".to_owned(), "127.0.0.1:0", "webhooks.event_grid.audience"),
        ("event_grid: {audience: 'api://sidekey', tenant_id: common}".to_owned(), "127.0.0.1:0", "webhooks.event_grid.tenant_id"),
        (format!("{{event_grid: {{app_id: {tenant}}}, hmac: {{secret_file: {file}}}}}"), "127.0.0.1:0", "webhooks.event_grid.app_id"),
        ("pubsub: {audience: 'https://hooks.example', service_account: push@p.iam.gserviceaccount.com}".to_owned(), "127.0.0.1:0", ""),
        ("pubsub: {audience: 'https://hooks.example', service_account: push}".to_owned(), "127.0.0.1:0", "webhooks.pubsub.service_account"),
        (format!("doppler: {{secret_file: {file}, references: [openai]}}"), "127.0.0.1:0", ""),
        (format!("doppler: {{secret_file: {file}}}"), "127.0.0.1:0", "webhooks.doppler.references"),
        (format!("{{infisical: {{references: [openai]}}, hmac: {{secret_file: {file}}}}}"), "127.0.0.1:0", "webhooks.infisical.references"),
        ("hmac: {secret_file: /nowhere, tolerance_secs: 0}".to_owned(), "127.0.0.1:0", "webhooks.hmac.secret_file webhooks.hmac.tolerance_secs"),
    ];
    for (webhooks, listen, keys) in rows {
        let webhooks = if webhooks.starts_with('{') { webhooks } else { format!("{{{webhooks}}}") };
        let text = format!("webhook_listen: {listen}\nwebhooks: {webhooks}\n");
        let found = match Config::parse("a.yaml", &text, []) {
            Ok(config) => {
                assert_eq!(config.webhooks.is_some(), listen != "null", "{text}");
                String::new()
            }
            Err(invalid) => {
                let keys: Vec<_> = invalid.problems.iter().map(|problem| problem.key.to_string()).collect();
                keys.join(" ")
            }
        };
        assert_eq!(found, keys, "{text}");
    }
}

#[test]
fn a_syntax_error_shows_its_place_and_nothing_of_the_text() {
    let problems = parse("a: 1\nb: \"sk-canary\nc: sk-canary\n").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("a.yaml:") && !problems[0].contains("canary"), "{problems:?}");
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    for (content, part) in [(vec![0xff, 0xfe], "not UTF-8"), (vec![b'#'; (1 << 20) + 1], "larger than")] {
        std::fs::write(&file, content).unwrap();
        let problem = Config::load(&file, []).unwrap_err().problems[0].to_string();
        assert!(problem.contains(part), "{problem}");
    }
    let problem = Config::load(&folder.path().join("none.yaml"), []).unwrap_err().problems[0].to_string();
    assert!(problem.ends_with("none.yaml: cannot be read (no such file)"), "{problem}");
}

mod properties {
    use proptest::{prelude::*, sample::select};

    use super::*;

    /// A value no key expects everywhere.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            select(vec![
                "", "null", "true", "[]", "[a, 1]", "{a: 1}", "{}", "'x'", "-1", "0", "1", "1e400", "0x10", ".inf", "~"
            ])
            .prop_map(str::to_owned),
            any::<i128>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| number.to_string()),
            "[ -~]{0,20}".prop_map(|text| format!("{text:?}")),
        ]
    }

    proptest! {
        #[test]
        fn any_value_of_any_key_is_read_or_reported(
            entries in proptest::collection::vec((0_usize..80, value()), 0..20),
        ) {
            let keys = Config::keys();
            let mut text = String::new();
            for (at, value) in &entries {
                let parts: Vec<&str> = keys[at % keys.len()].name.split('.').collect();
                let (last, sections) = parts.split_last().unwrap();
                // In flow, so that one key takes one line, whatever its depth.
                let opened: String = sections.iter().map(|section| format!("{section}: {{")).collect();
                text.push_str(&format!("{opened}{last}: {value}{}\n", "}".repeat(sections.len())));
            }
            match parse_whole(&text) {
                Ok(_) => {}
                Err(invalid) => {
                    prop_assert!(!invalid.problems.is_empty());
                    for problem in &invalid.problems {
                        let shown = problem.to_string();
                        prop_assert!(!shown.contains('\n') && shown.len() < 600, "{shown}");
                        if let Place::Line { line, .. } = problem.place {
                            prop_assert!(line as usize <= text.lines().count(), "{shown}\n{text}");
                        }
                    }
                }
            }
        }

        #[test]
        fn any_text_is_read_or_reported(text in "[a-z:\\-\\[\\]{}\"'#&*!|>%@, \n\t0-9]{0,200}") {
            if let Err(invalid) = parse_whole(&text) {
                prop_assert!(!invalid.problems.is_empty());
            }
        }
    }

    fn parse_whole(text: &str) -> Result<Config, Invalid> {
        Config::parse("a.yaml", text, [])
    }
}
