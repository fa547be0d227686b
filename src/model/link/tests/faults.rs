//! What is wrong, where it is said, and what it takes with it.

use super::*;
use crate::model::Hidden;

/// Refused whole in either mode: the document has no meaning.
#[test]
fn a_document_without_a_meaning_is_refused_whole() {
    let twice = |list: &str, value: Value| changed(&[(&format!("/{list}/-"), value)]).to_string();
    let config = json!({"id": "c1", "slug": "pc-a", "config": {}});
    #[rustfmt::skip]
    let cases = [
        // document                                                                    said at
        ("".to_owned(),                                                                "snapshot"),
        ("{".to_owned(),                                                               "snapshot"),
        ("[]".to_owned(),                                                              "snapshot"),
        ("null".to_owned(),                                                            "snapshot"),
        (r#"{"schema_version": 1} x"#.to_owned(),                                      "snapshot"),
        (r#"{"schema_version": 1, "configs": [], "configs": []}"#.to_owned(),          "snapshot"),
        ("{}".to_owned(),                                                              "schema_version"),
        (r#"{"schema_version": 2}"#.to_owned(),                                        "schema_version"),
        (r#"{"schema_version": "1"}"#.to_owned(),                                      "schema_version"),
        (r#"{"schema_version": 1, "virtual_keys": {}}"#.to_owned(),                    "virtual_keys"),
        (r#"{"schema_version": 1, "secret_references": "x"}"#.to_owned(),              "secret_references"),
        (twice("workspaces", json!({"id": "wa", "slug": "ws-c"})),                     "workspaces[2].id (ws-c)"),
        (twice("workspaces", json!({"id": "wc", "slug": "ws-a"})),                     "workspaces[2].slug (ws-a)"),
        (twice("secret_references", json!({"id": "r2", "slug": "c", "manager_type": "file", "secret_path": "c"})),
                                                                                       "secret_references[2].id (c)"),
        (twice("secret_references", json!({"id": "r3", "slug": "ref-two", "manager_type": "file", "secret_path": "c"})),
                                                                                       "secret_references[2].slug (ref-two)"),
        (twice("integrations", json!({"id": "i1", "slug": "c", "ai_provider_id": "x"})), "integrations[1].id (c)"),
        (twice("integrations", json!({"id": "i2", "slug": "int-one", "ai_provider_id": "x"})),
                                                                                       "integrations[1].slug (int-one)"),
        (twice("virtual_keys", json!({"id": "v1", "slug": "c", "provider": "x"})),     "virtual_keys[2].id (c)"),
        (twice("virtual_keys", json!({"id": "v3", "slug": "vk-one", "provider": "x"})), "virtual_keys[2].slug (vk-one)"),
        (changed(&[("/configs", json!([config, config]))]).to_string(),                "configs[1].id (pc-a)"),
    ];
    for (document, at) in cases {
        for rules in [LinkRules::STRICT, LinkRules::LENIENT] {
            let error = link(document.as_bytes(), &rules).expect_err(&document);
            assert!(error.problems.iter().any(|problem| problem.at == at), "{document}: {:#?}", error.problems);
        }
    }
}

#[test]
fn a_document_that_cannot_be_read_says_where_it_stops_and_nothing_of_what_stands_there() {
    #[rustfmt::skip]
    let cases = [
        // document                                                          said
        ("s3cret",                                                           "is no JSON object; begin it with `{`"),
        ("[\"s3cret\"]",                                                     "is no JSON object; begin it with `{`"),
        ("{\"schema_version\": 1,\n\"s3cret\" 2}",                          "is no JSON: see line 2, column 10; check"),
        ("{\"schema_version\": 1,\n\"configs\": [],\n}",                   "is no JSON: see line 3, column 1; check"),
        ("{\"schema_version\": 1,\n\"configs\": [\"s3cret\"",             "is no JSON: it ends too early, in line 2;"),
        ("{\"configs\": [],\n\"configs\": [\"s3cret\"]}",                 "names a list twice, see line 2, column 9;"),
    ];
    for (document, said) in cases {
        let problems = link(document.as_bytes(), &LinkRules::STRICT).expect_err(document).problems;
        let [problem] = &*problems else { panic!("{document}: {problems:?}") };
        assert!(problem.message.starts_with(said), "{document}: {problem}");
        assert!(!problem.to_string().contains("s3cret"), "{document}: {problem}");
    }
}

#[test]
fn a_slug_may_repeat_across_workspaces() {
    let key =
        |id: &str, workspace: &str| json!({"id": id, "slug": "vk-one", "provider": "x", "workspace_id": workspace});
    let mut document = changed(&[("/virtual_keys/-", key("v3", "wa")), ("/virtual_keys/-", key("v4", "ws-b"))]);
    strict(&document).unwrap();
    set(&mut document, "/virtual_keys/-", key("v5", "wb"));
    assert_eq!(strict(&document).unwrap_err().len(), 1);
}

/// Each fault refuses a strict document and is said at its place; otherwise it takes exactly what depends on it.
#[test]
fn one_bad_row_takes_only_what_depends_on_it() {
    let reference = |key: &str| format!("/secret_references/0/{key}");
    let auth = |key: &str| format!("/secret_references/0/auth_config/{key}");
    let integration = |key: &str| format!("/integrations/0/{key}");
    let first = |key: &str| format!("/virtual_keys/0/{key}");
    let second = |key: &str| format!("/virtual_keys/1/{key}");
    let r = |key: &str| format!("secret_references[0].{key} (ref-one)");
    let i = |key: &str| format!("integrations[0].{key} (int-one)");
    let v1 = |key: &str| format!("virtual_keys[0].{key} (vk-one)");
    let v2 = |key: &str| format!("virtual_keys[1].{key} (vk-two)");
    let sealed = || json!({"$sealed": "YWdlLWVuY3J5cHRpb24="});
    let all = "int-one vk-one";
    #[rustfmt::skip]
    let cases = [
        // change                                                      said at                              set aside
        (reference("manager_type"), Value::Null,                       r("manager_type"),                   all),
        (reference("manager_type"), json!("doppler"),                  r("manager_type"),                   all),
        (reference("manager_type"), json!("onepassword"),              r("manager_type"),                   all),
        (reference("manager_type"), json!("hashicorp"),                r("manager_type"),                   all),
        (reference("manager_type"), json!(["file"]),                   r("manager_type"),                   all),
        (reference("auth_config"),  json!("token"),                    r("auth_config"),                    all),
        (auth("vault_token"),       Value::Null,                       r("auth_config.vault_token"),        all),
        (auth("vault_token"),       sealed(),                          r("auth_config.vault_token"),        all),
        (auth("vault_addr"),        json!("vault"),                    r("auth_config.vault_addr"),         all),
        (reference("secret_path"),  Value::Null,                       r("secret_path"),                    all),
        (reference("secret_path"),  json!("a/../b"),                   r("secret_path"),                    all),
        (reference("secret_path"),  json!("a?version=1&version=2"),    r("secret_path"),                    all),
        (reference("secret_key"),   json!(5),                          r("secret_key"),                     all),
        (reference("secret_key"),   json!("k".repeat(256)),            r("secret_key"),                     all),
        (reference("status"),       json!(true),                       r("status"),                         all),
        (reference("expires_at"),   json!("tomorrow"),                 r("expires_at"),                     all),
        (reference("ttl_secs"),     json!(-1),                         r("ttl_secs"),                       all),
        (reference("ttl_secs"),     json!(40_000_000),                 r("ttl_secs"),                       all),
        (reference("allow_all_workspaces"), json!("yes"),              r("allow_all_workspaces"),           all),
        (reference("allowed_workspaces"), json!("ws-a"),               r("allowed_workspaces"),             all),
        (reference("allowed_hosts"), json!(["api.openai.com:443"]),    r("allowed_hosts[0]"),               all),
        (reference("allowed_hosts"), json!(["a", "https://b/"]),       r("allowed_hosts[1]"),               all),
        (reference("allowed_providers"), json!([1]),                   r("allowed_providers"),              all),
        (integration("ai_provider_id"), Value::Null,                   i("ai_provider_id"),                 all),
        (integration("workspace_id"), json!("ws-none"),                i("workspace_id"),                   all),
        (integration("status"),     json!(1),                          i("status"),                         all),
        (integration("key"),        json!(5),                          i("key"),                            all),
        (integration("key"),        sealed(),                          i("key"),                            all),
        (integration("key"),        json!({"value": "x"}),             i("key"),                            all),
        (integration("configurations"), json!([]),                     i("configurations"),                 all),
        (integration("configurations"), json!({"custom_host": {}, "openai_project": {"a": 1}}), i("configurations.openai_project"), all),
        (integration("configurations"), json!({"openai_project": "a\nb"}), i("configurations.openai_project"), all),
        (integration("configurations"), json!({"openai_project": "a", "openaiProject": "b"}), i("configurations.openai_project"), all),
        (integration("configurations"), json!({"custom_headers": {"x": 1}}), i("configurations.custom_headers"), all),
        (integration("configurations"), json!({"custom_headers": sealed()}), i("configurations.custom_headers"), all),
        (integration("secret_mappings"), json!({}),                    i("secret_mappings"),                all),
        (integration("secret_mappings"), json!(["key"]),               i("secret_mappings[0]"),             all),
        (integration("secret_mappings"), json!([map("key", "r1"), map("key", "r2")]), i("secret_mappings[1].target_field"), all),
        (integration("secret_mappings"), json!([{"target_field": "key"}]), i("secret_mappings[0].secret_reference_id"), all),
        (integration("secret_mappings"), json!([{"secret_reference_id": "r1"}]), i("secret_mappings[0].target_field"), all),
        (integration("secret_mappings"), json!([map("key", "ref-three")]), i("secret_mappings[0].secret_reference_id"), all),
        (integration("secret_mappings/0/value_format"), json!("yaml"), i("secret_mappings[0].value_format"), all),
        (integration("secret_mappings/0/secret_key"), json!({}),       i("secret_mappings[0].secret_key"),  all),
        (first("integration_id"),   json!("int-none"),                 v1("integration_id"),                "vk-one"),
        (first("integration_id"),   json!(7),                          v1("integration_id"),                "vk-one"),
        (first("integration_id"),   json!(""),                         v1("provider"),                      "vk-one"),
        (first("provider"),         json!("anthropic"),                v1("provider"),                      "vk-one"),
        (first("model_config"),     json!("x"),                        v1("model_config"),                  "vk-one"),
        (first("expires_at"),       json!("2026-13-01T00:00:00Z"),     v1("expires_at"),                    "vk-one"),
        (first("workspace_id"),     json!(5),                          v1("workspace_id"),                  "vk-one"),
        (second("provider"),        Value::Null,                       v2("provider"),                      "vk-two"),
        (second("slug"),            json!("vk/two"),                   "virtual_keys[1].slug (vk/two)".to_owned(), "vk/two"),
        (second("slug"),            json!("@vk"),                      "virtual_keys[1].slug (@vk)".to_owned(), "@vk"),
    ];
    for (pointer, value, at, set_aside) in cases {
        let document = changed(&[(&pointer, value.clone())]);
        let problems = link(document.to_string().as_bytes(), &LinkRules::STRICT).expect_err(&pointer).problems;
        assert!(problems.iter().any(|problem| problem.at == at), "{pointer} {value}: {problems:#?}");

        let snapshot = lenient(&document);
        let mut faulty: Vec<_> =
            snapshot.entities().filter(|entity| entity.fault.is_some()).map(|entity| &*entity.slug).collect();
        faulty.sort_unstable();
        assert_eq!(faulty.join(" "), set_aside, "{pointer} {value}");
        assert!(snapshot.entities().all(|entity| entity.fault.is_none() || entity.fields.is_empty()));
        assert_eq!(snapshot.set_aside, problems, "{pointer} {value}");
    }
}

#[test]
fn what_is_set_aside_stays_nameable_and_counted() {
    let document = changed(&[("/secret_references/0/secret_path", json!(".."))]);
    let snapshot = lenient(&document);
    let fault = snapshot.entity("vk-one", &nobody()).unwrap().fault.clone().unwrap();
    assert!(fault.contains("int-one"), "{fault}");
    assert_eq!(snapshot.objects_set_aside, 3);
    assert_eq!(snapshot.references.iter().map(|reference| &*reference.slug).collect::<Vec<_>>(), ["ref-two"]);
    assert_eq!(snapshot.entity("vk-two", &nobody()).unwrap().fault, None);
}

#[test]
fn a_row_that_cannot_be_read_takes_nothing_else() {
    for row in [json!(5), json!([]), json!({}), json!({"id": "", "slug": null})] {
        let document = changed(&[("/virtual_keys/-", row.clone()), ("/workspaces/-", row.clone())]);
        assert_eq!(strict(&document).unwrap_err().len(), 2, "{row}");
        let snapshot = lenient(&document);
        assert_eq!((snapshot.entities().count(), snapshot.objects_set_aside), (3, 2), "{row}");
    }
    let twice = base().to_string().replace(r#""slug":"vk-two""#, r#""slug":"vk-two","slug":"vk-three""#);
    let snapshot = link(twice.as_bytes(), &LinkRules::LENIENT).unwrap();
    assert_eq!(snapshot.entity("vk-two", &nobody()).unwrap_err(), Hidden::Unknown);
}

#[test]
fn all_faults_are_found_in_one_run() {
    let document = changed(&[
        ("/version", json!("x")),
        ("/workspaces/-", json!({"id": "wa"})),
        ("/secret_references/0/secret_path", json!("")),
        ("/secret_references/0/ttl_secs", json!("x")),
        ("/integrations/0/status", json!([])),
        ("/virtual_keys/1/secret_mappings/0/target_field", json!("model_config.aws_region")),
    ]);
    let at: Vec<_> =
        strict(&document).unwrap_err().iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect();
    let expected = [
        "version",
        "workspaces[2].id (wa)",
        "secret_references[0].secret_path (ref-one)",
        "secret_references[0].ttl_secs (ref-one)",
        "integrations[0].status (int-one)",
        "integrations[0].secret_mappings[0].secret_reference_id (int-one)",
        "virtual_keys[0].integration_id (vk-one)",
        "virtual_keys[1].secret_mappings[0].target_field (vk-two)",
    ];
    for expected in expected {
        assert!(at.iter().any(|at| at == expected), "{expected} is missing in {at:#?}");
    }
}

#[test]
fn a_dangling_workspace_in_an_allow_list_sets_nothing_aside() {
    let document = changed(&[("/secret_references/0/allowed_workspaces", json!(["ws-a", "ws-gone"]))]);
    assert_eq!(strict(&document).unwrap_err().len(), 1);
    let snapshot = lenient(&document);
    assert!(snapshot.entity("vk-one", &of("wa")).unwrap().fault.is_none());
    assert_eq!(snapshot.entity("vk-one", &of("wb")).unwrap_err(), Hidden::ReferenceClosed);
}

#[test]
fn both_forms_of_sharing_at_once_are_a_contradiction() {
    for (all, listed, is_fine) in [(true, json!([]), true), (true, json!(["wa"]), false), (false, json!(["wa"]), true)]
    {
        let document = changed(&[
            ("/integrations/0/allow_all_workspaces", json!(all)),
            ("/integrations/0/allowed_workspaces", listed.clone()),
        ]);
        assert_eq!(strict(&document).is_ok(), is_fine, "{all} {listed}");
    }
}

/// Every value of the example replaced by every kind of value: no panic, and both modes see the same.
#[test]
fn strict_and_lenient_differ_only_in_what_they_do() {
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                    found.push(at.clone());
                    pointers(member, &at, found);
                }
            }
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    found.push(format!("{at}/{index}"));
                    pointers(element, &format!("{at}/{index}"), found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document: Value = serde_json::from_str(EXAMPLE).unwrap();
    let mut found = Vec::new();
    pointers(&document, "", &mut found);
    let values = [
        Value::Null,
        json!(true),
        json!(-7),
        json!(""),
        json!("x\ny"),
        json!([]),
        json!({}),
        json!({"$sealed": "eA=="}),
    ];
    for (pointer, value) in found.iter().flat_map(|pointer| values.iter().map(move |value| (pointer, value))) {
        let mut changed = document.clone();
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        let text = changed.to_string();
        let strict = link(text.as_bytes(), &LinkRules::STRICT).map_err(|error| error.problems);
        match (strict, link(text.as_bytes(), &LinkRules::LENIENT).map_err(|error| error.problems)) {
            (Ok(_), Ok(lenient)) => assert_eq!(lenient.set_aside, [], "{pointer} {value}"),
            (Err(problems), Ok(lenient)) => assert_eq!(lenient.set_aside, problems, "{pointer} {value}"),
            (Err(strict), Err(lenient)) => assert_eq!(strict, lenient, "{pointer} {value}"),
            (Ok(_), Err(problems)) => panic!("only the lenient mode refuses {pointer} {value}: {problems:#?}"),
        }
    }
}

/// Whatever lies where, no problem quotes it.
#[test]
fn problems_never_quote_a_value() {
    let canary = || json!("sk-canary\n");
    let object = || json!({"sk-canary": "sk-canary"});
    let mut document = base();
    for (pointer, value) in [
        ("/generated_at", canary()),
        ("/secret_references/0/auth_config/vault_token", canary()),
        ("/secret_references/0/auth_config/vault_addr", json!("https://user:sk-canary@vault")),
        ("/secret_references/0/secret_path", canary()),
        ("/secret_references/0/secret_key", object()),
        ("/secret_references/0/status", object()),
        ("/secret_references/0/ttl_secs", canary()),
        ("/integrations/0/key", json!({"value": "sk-canary"})),
        ("/integrations/0/configurations", json!({"openai_project": "sk-canary\n", "custom_headers": "sk-canary"})),
        ("/virtual_keys/0/model_config", canary()),
        ("/virtual_keys/1/key", json!(["sk-canary"])),
        ("/virtual_keys/1/expires_at", canary()),
        ("/virtual_keys/-", canary()),
        ("/configs", json!([{"slug": "pc-a", "config": "sk-canary"}])),
    ] {
        set(&mut document, pointer, value);
    }
    let problems = strict(&document).unwrap_err();
    assert!(problems.len() >= 14, "{problems:#?}");
    assert!(problems.iter().all(|problem| !problem.contains("canary")), "{problems:#?}");
    let snapshot = lenient(&document);
    let shown = format!("{snapshot:?} {:?} {:?}", snapshot.entities().collect::<Vec<_>>(), snapshot.references);
    assert!(!shown.contains("canary"), "{shown}");
    let broken = document.to_string().replace("\"pc-a\"", "\"pc-a\" \"sk-canary\"");
    let problems = link(broken.as_bytes(), &LinkRules::STRICT).unwrap_err().problems;
    assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
}

#[test]
fn names_are_escaped_and_cut() {
    let document = changed(&[("/virtual_keys/1/integration_id", json!(format!("a`\n\u{1b}[31m{}", "x".repeat(500))))]);
    let problems = strict(&document).unwrap_err();
    assert!(problems[0].len() < 250 && !problems[0].contains(['\n', '\u{1b}']), "{problems:?}");
}

#[test]
fn the_list_of_faults_is_bounded() {
    let rows: Vec<_> = (0..20_000).map(|index| json!({"slug": format!("v{index}")})).collect();
    let problems = strict(&changed(&[("/virtual_keys", json!(rows))])).unwrap_err();
    assert_eq!(problems.len(), 10_001);
    assert!(problems[10_000].contains("10000 more"), "{}", problems[10_000]);
}

#[test]
fn admission_is_asked_for_every_reference_that_is_well_formed() {
    let refuse_files = |manager: ManagerType, _: &AuthConfig, location: Option<&SecretLocation>| {
        assert!(location.is_some_and(|location| !location.path.is_empty()));
        if manager == ManagerType::File { Err("managers.file.root is not set".to_owned()) } else { Ok(()) }
    };
    let rules = LinkRules { strict: false, admit: &refuse_files, opener: None };
    let snapshot = link(base().to_string().as_bytes(), &rules).unwrap();
    let at: Vec<_> = snapshot.set_aside.iter().map(ToString::to_string).collect();
    assert_eq!(at[0], "secret_references[1] (ref-two): managers.file.root is not set");
    assert!(snapshot.entity("vk-two", &nobody()).unwrap().fault.is_some());
    assert!(snapshot.entity("vk-one", &nobody()).unwrap().fault.is_none());
}

#[test]
fn an_address_is_judged_beside_a_path_that_is_no_path() {
    let refuse = |_: ManagerType, _: &AuthConfig, location: Option<&SecretLocation>| {
        if location.is_none() { Err("vault_addr: closed".to_owned()) } else { Ok(()) }
    };
    let rules = LinkRules { strict: true, admit: &refuse, opener: None };
    let document = changed(&[("/secret_references/0/secret_path", json!("secret/../x"))]);
    let error = link(document.to_string().as_bytes(), &rules).unwrap_err();
    let problems: Vec<_> = error.problems.iter().map(ToString::to_string).collect();
    assert!(problems[0].starts_with("secret_references[0].secret_path (ref-one): "), "{problems:?}");
    assert_eq!(problems[1], "secret_references[0] (ref-one): vault_addr: closed");
}
