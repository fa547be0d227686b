//! Reading goes on behind a fault, and shows nothing that is not its own.

use super::{super::tree, *};

fn reader<'a>(text: &str, variables: &[(&str, &str)]) -> Reader<'a> {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Reader::new("a.yaml", "full.yaml", tree::parse(text).unwrap(), variables.collect::<Vec<_>>())
}

fn problems(reader: Reader<'_>) -> Vec<String> {
    reader.finish().0.iter().map(ToString::to_string).collect()
}

fn any(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn no(_: &str) -> Result<String, String> {
    Err("is wrong; mend it".to_owned())
}

#[test]
fn types_and_ranges() {
    struct Case {
        text: &'static str,
        read: fn(&mut Reader<'_>) -> String,
        /// The value, or the problem.
        expected: Result<&'static str, &'static str>,
    }
    let whole = |reader: &mut Reader<'_>| reader.whole("n", 7, 1..=9).to_string();
    let ratio = |reader: &mut Reader<'_>| reader.ratio("n", 0.5, 0.0..=0.9).to_string();
    let flag = |reader: &mut Reader<'_>| reader.flag("n", false).to_string();
    let word = |reader: &mut Reader<'_>| reader.word("n", &[("pass", 1), ("reject", 2), ("ask", 3)]).to_string();
    let text = |reader: &mut Reader<'_>| reader.text("n", "d".to_owned(), any);
    let optional = |reader: &mut Reader<'_>| format!("{:?}", reader.optional("n", any));
    let list = |reader: &mut Reader<'_>| format!("{:?}", reader.list("n", Vec::new(), any));
    let one = |reader: &mut Reader<'_>| format!("{:?}", reader.one_or_more("n", "d".to_owned(), any));
    let cases = [
        Case { text: "", read: whole, expected: Ok("7") },
        Case { text: "n: 9", read: whole, expected: Ok("9") },
        Case { text: "n: 10", read: whole, expected: Err("a.yaml:1: n: 10 is out of range; use 1 to 9") },
        Case { text: "n: -1", read: whole, expected: Err("a.yaml:1: n: -1 is out of range; use 1 to 9") },
        Case {
            text: "n: 99999999999999999999999",
            read: whole,
            expected: Err("a.yaml:1: n: 100000000000000000000000 is out of range; use 1 to 9"),
        },
        Case { text: "n: 5m", read: whole, expected: Err("a.yaml:1: n: \"5m\" is not a whole number; use 1 to 9") },
        Case { text: "n: '5'", read: whole, expected: Err("a.yaml:1: n: \"5\" is not a whole number; use 1 to 9") },
        Case { text: "n: 5.5", read: whole, expected: Err("a.yaml:1: n: 5.5 is not a whole number; use 1 to 9") },
        Case { text: "n: [5]", read: whole, expected: Err("a.yaml:1: n: a list is not a whole number; use 1 to 9") },
        Case {
            text: "n:",
            read: whole,
            expected: Err("a.yaml:1: n: has no value; give one, or remove the key to have its default"),
        },
        Case { text: "n: 0.9", read: ratio, expected: Ok("0.9") },
        Case { text: "n: 0", read: ratio, expected: Ok("0") },
        Case { text: "n: 1", read: ratio, expected: Err("a.yaml:1: n: 1 is out of range; use 0 to 0.9") },
        Case { text: "n: -0.1", read: ratio, expected: Err("a.yaml:1: n: -0.1 is out of range; use 0 to 0.9") },
        Case { text: "n: half", read: ratio, expected: Err("a.yaml:1: n: \"half\" is not a number; use 0 to 0.9") },
        Case { text: "n: true", read: flag, expected: Ok("true") },
        Case { text: "n: yes", read: flag, expected: Err("a.yaml:1: n: \"yes\" is not a switch; use true or false") },
        Case { text: "n: 1", read: flag, expected: Err("a.yaml:1: n: 1 is not a switch; use true or false") },
        Case { text: "", read: word, expected: Ok("1") },
        Case { text: "n: reject", read: word, expected: Ok("2") },
        Case {
            text: "n: Reject",
            read: word,
            expected: Err("a.yaml:1: n: \"Reject\" is not known; use pass, reject or ask"),
        },
        Case { text: "n: x", read: text, expected: Ok("x") },
        Case { text: "n: 12", read: text, expected: Err("a.yaml:1: n: 12 is not text; put it in quotes") },
        Case { text: "n: {a: b}", read: text, expected: Err("a.yaml:1: n: a section is not text; give one value") },
        Case { text: "n: null", read: optional, expected: Ok("None") },
        Case { text: "n: x", read: optional, expected: Ok("Some(\"x\")") },
        Case { text: "n: [a, b]", read: list, expected: Ok("[\"a\", \"b\"]") },
        Case { text: "n: a", read: list, expected: Err("a.yaml:1: n: \"a\" is not a list; write [a, b]") },
        Case { text: "n:\n- a\n- 1", read: list, expected: Err("a.yaml:3: n: 1 is not text; put it in quotes") },
        Case { text: "", read: one, expected: Ok("[\"d\"]") },
        Case { text: "n: a", read: one, expected: Ok("[\"a\"]") },
        Case { text: "n: [a, b]", read: one, expected: Ok("[\"a\", \"b\"]") },
        Case { text: "n: []", read: one, expected: Err("a.yaml:1: n: is an empty list; give one value at least") },
    ];
    for Case { text, read, expected } in cases {
        let mut reader = reader(text, &[]);
        let value = read(&mut reader);
        match expected {
            Ok(expected) => assert_eq!((value.as_str(), problems(reader)), (expected, Vec::new()), "{text:?}"),
            Err(expected) => assert_eq!(problems(reader), [expected], "{text:?}"),
        }
    }
}

#[test]
fn everything_unknown_is_reported_with_what_was_meant() {
    let text = "cahce:\n  ttl_secs: sk-canary\ncache:\n  tll_secs: 1\n  ttl_secs: 2\n  ttl_secs: 3\nlisten: {a: 1}\ncache.ttl_secs: 4\n\
                snapshot: x\nlog:\n";
    let mut reader = reader(text, &[]);
    assert_eq!(reader.whole("cache.ttl_secs", 1, 0..=9), 2);
    reader.text("listen", String::new(), any);
    reader.optional("snapshot.file", any);
    reader.optional("log.level", any);
    assert_eq!(
        problems(reader),
        [
            "a.yaml:1: cahce: is not a key; did you mean cache?",
            "a.yaml:4: cache.tll_secs: is not a key; did you mean cache.ttl_secs?",
            "a.yaml:6: cache.ttl_secs: stands here again, first on line 5; remove one",
            "a.yaml:7: listen: a section is not text; give one value",
            "a.yaml:8: cache.ttl_secs: holds a dot; write one level per line, each indented below the last",
            "a.yaml:9: snapshot: is a section; write its keys on the lines below, indented",
        ]
    );
}

#[test]
fn variables_stand_above_the_file() {
    let variables = [
        ("SIDEKEY_CACHE__TTL_SECS", "60"),
        ("SIDEKEY_WORKSPACE", "123"),
        ("SIDEKEY_LISTEN", "[a, b]"),
        ("SIDEKEY_HOSTS", "[x, 'y']"),
        ("SIDEKEY_SERVICE_HOST", "10.0.0.1"),
        ("SIDEKEY_PORT_8900_TCP", "tcp://10.0.0.1:8900"),
        ("SIDEKEYS", "x"),
        ("PATH", "/bin"),
    ];
    let mut reader = reader("cache:\n  ttl_secs: not a number, and not read\nworkspace: a\n", &variables);
    assert_eq!(reader.whole("cache.ttl_secs", 1, 0..=90), 60);
    assert_eq!(reader.optional("workspace", any).as_deref(), Some("123"));
    assert_eq!(reader.one_or_more("listen", String::new(), any), ["a", "b"]);
    assert_eq!(reader.list("hosts", Vec::new(), any), ["x", "y"]);
    assert_eq!(problems(reader), [""; 0]);
}

#[test]
fn faults_of_variables_name_the_variable() {
    let variables = [
        ("SIDEKEY_CACHE", "{ttl_secs: 5}"),
        ("SIDEKEY_CACHE__TTL_SECS", "91"),
        ("SIDEKEY_CACHE__TLL_SECS", "1"),
        ("SIDEKEY_Cache__ttl_secs", "1"),
        ("SIDEKEY_FLAG", ""),
        ("SIDEKEY_HOSTS", "a, b"),
        ("SIDEKEY_GATE_SERVICE_HOST", "10.0.0.1"),
        ("SIDEKEY_SEALING__IDENTITY_FILE", "x"),
        ("SIDEKEY_ZZZZZZZZ", "sk-canary"),
    ];
    let mut reader = reader("", &variables);
    reader.whole("cache.ttl_secs", 1, 0..=90);
    assert!(reader.flag("flag", true), "an empty variable takes nothing away");
    reader.list("hosts", Vec::new(), any);
    reader.later("sealing", "not yet");
    assert_eq!(
        problems(reader),
        [
            "SIDEKEY_CACHE: names a section; name one key, with __ between the levels",
            "SIDEKEY_CACHE__TLL_SECS: names no key; did you mean SIDEKEY_CACHE__TTL_SECS?",
            "SIDEKEY_CACHE__TTL_SECS: cache.ttl_secs: 91 is out of range; use 0 to 90",
            "SIDEKEY_Cache__ttl_secs: names no key; did you mean SIDEKEY_CACHE__TTL_SECS?",
            "SIDEKEY_FLAG: flag: is empty; give a value, or unset the variable",
            "SIDEKEY_GATE_SERVICE_HOST: is no key but looks like a Kubernetes service link; set enableServiceLinks: false in the pod, or \
         rename the service",
            "SIDEKEY_HOSTS: hosts: \"a, b\" is not a list; write [a, b]",
            "SIDEKEY_SEALING__IDENTITY_FILE: sealing.identity_file: is not available in this version: not yet; remove it",
            "SIDEKEY_ZZZZZZZZ: names no key; unset it, full.yaml lists every key",
        ]
    );
}

#[test]
fn values_that_may_be_credentials_are_not_shown() {
    let text = "admin_token_file: sk-canary\ntls:\n  key_file: sk-canary\nurl: https://me:sk-canary@host\nsas: https://host?sig=sk-canary\n\
                secret_number: 4711\n";
    let mut reader = reader(text, &[("SIDEKEY_OTHER_TOKEN", "sk-canary")]);
    for key in ["admin_token_file", "tls.key_file", "url", "sas", "other_token"] {
        reader.optional(key, no);
    }
    reader.whole("secret_number", 1, 0..=9);
    let problems = problems(reader);
    assert_eq!(problems.len(), 6, "{problems:#?}");
    for problem in problems {
        assert!(
            problem.contains("the value (not shown)") && !problem.contains("canary") && !problem.contains("4711"),
            "{problem}"
        );
    }
}

#[test]
fn what_is_shown_is_short_and_on_one_line() {
    let long = format!("n: \"a\\n\\e[31m{}\"", "x".repeat(500));
    let mut reader = reader(&long, &[]);
    reader.optional("n", no);
    let problem = problems(reader).remove(0);
    assert!(problem.len() < 150 && !problem.contains(char::is_control), "{problem}");
}

#[test]
fn keys_that_are_not_built_are_refused_as_a_section() {
    let mut reader = reader("sealing:\n  identity_file: x\naudit: null\n", &[]);
    reader.later("sealing", "no seals yet");
    reader.later("audit", "no audit yet");
    assert_eq!(
        problems(reader),
        [
            "a.yaml:1: sealing: is not available in this version: no seals yet; remove it",
            "a.yaml:3: audit: is not available in this version: no audit yet; remove it",
        ]
    );
}

#[test]
fn relations_are_reported_where_the_key_stands() {
    let mut reader = reader("a:\n  b: 1\n", &[("SIDEKEY_C", "2")]);
    reader.whole("a.b", 1, 0..=9);
    reader.whole("c", 1, 0..=9);
    reader.whole("d", 1, 0..=9);
    for key in ["a.b", "c", "d"] {
        reader.problem(key, "does not fit");
    }
    assert_eq!(
        problems(reader),
        ["a.yaml: d: does not fit", "a.yaml:2: a.b: does not fit", "SIDEKEY_C: c: does not fit"]
    );
}

#[test]
fn a_document_that_is_no_section_is_refused() {
    for text in ["- a", "a", "5"] {
        let problems = problems(reader(text, &[]));
        assert_eq!(problems, ["a.yaml:1: is not a list of keys; see full.yaml for an example"], "{text}");
    }
}
