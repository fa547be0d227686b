//! The rules of picking, one row each.

use super::*;

const KEY: Form = Form::JsonString;
const TEXT: Form = Form::Text;
const JSON: Form = Form::Structure;

/// What came out: text, a structure, or the reason.
#[derive(Debug, PartialEq)]
enum Got {
    Text(String),
    Json(String),
    No(PickError),
}

fn picked(document: &[u8], map: bool, key: Option<&str>, form: Form) -> Got {
    let wanted = Wanted { key: key.map(Arc::from), form };
    match pick(&SecretValue::new(document.to_vec()), map, &wanted) {
        Ok(credential) if credential.is_structured() => Got::Json(credential.expose().to_owned()),
        Ok(credential) => Got::Text(credential.expose().to_owned()),
        Err(error) => Got::No(error),
    }
}

fn text(text: &str) -> Got {
    Got::Text(text.to_owned())
}

fn json(json: &str) -> Got {
    Got::Json(json.to_owned())
}

#[test]
fn a_key_is_picked_from_any_json_object() {
    let document = br#"{
        "api_key": "sk-1", "a.b": "literal", "a": {"b": "path", "c": {"d": "deep"}, "n": null}, "x": {"y.z": "no"},
        "number": 12345678901234567890123, "float": 1.50, "yes": true, "null": null, "empty": "", "newline": "\n",
        "line": "v\n", "crlf": "v\r\n", "two": "v\n\n", "object": { "k": [1, "\u00e9", "\u00fc\u007f"] }, "none": {}, "list": [ ],
        "escaped\u0020key": "\u0073k", "half": "\ud800", "twice": "first", "twice": "last", "": "unnamed"
    }"#;
    struct Case {
        key: &'static str,
        want: Got,
    }
    #[rustfmt::skip]
    let cases = [
        Case { key: "api_key",     want: text("sk-1") },
        Case { key: "a.b",         want: text("literal") },
        Case { key: "a.c.d",       want: text("deep") },
        Case { key: "x.y.z",       want: Got::No(PickError::Absent) },
        Case { key: "a.b.c",       want: Got::No(PickError::Absent) },
        Case { key: "missing",     want: Got::No(PickError::Absent) },
        Case { key: "Api_Key",     want: Got::No(PickError::Absent) },
        Case { key: "number",      want: text("12345678901234567890123") },
        Case { key: "float",       want: text("1.50") },
        Case { key: "yes",         want: text("true") },
        Case { key: "null",        want: Got::No(PickError::Null) },
        Case { key: "a.n",         want: Got::No(PickError::Null) },
        Case { key: "empty",       want: Got::No(PickError::Empty) },
        Case { key: "newline",     want: Got::No(PickError::Empty) },
        Case { key: "line",        want: text("v") },
        Case { key: "crlf",        want: text("v") },
        Case { key: "two",         want: text("v\n") },
        Case { key: "object",      want: text(r#"{"k":[1,"\u00e9","\u00fc\u007f"]}"#) },
        Case { key: "none",        want: Got::No(PickError::Empty) },
        Case { key: "list",        want: Got::No(PickError::Empty) },
        Case { key: "escaped key", want: text("sk") },
        Case { key: "half",        want: Got::No(PickError::NotText) },
        Case { key: "twice",       want: text("last") },
        Case { key: "",            want: text("unnamed") },
    ];
    for Case { key, want } in cases {
        for map in [false, true] {
            assert_eq!(picked(document, map, Some(key), TEXT), want, "{key:?}, map: {map}");
        }
    }
}

#[test]
fn a_form_decides_what_a_value_becomes() {
    struct Case {
        document: &'static [u8],
        map: bool,
        key: Option<&'static str>,
        form: Form,
        want: Got,
    }
    #[rustfmt::skip]
    let cases = [
        // The whole document.
        Case { document: b"sk-1",                 map: false, key: None,      form: TEXT, want: text("sk-1") },
        Case { document: b"sk-1\n",               map: false, key: None,      form: TEXT, want: text("sk-1") },
        Case { document: b"sk-1\r\n",             map: false, key: None,      form: TEXT, want: text("sk-1") },
        Case { document: b"-----\nMII\n-----\n",  map: false, key: None,      form: TEXT, want: text("-----\nMII\n-----") },
        Case { document: b" sk-1 ",               map: false, key: None,      form: TEXT, want: text(" sk-1 ") },
        Case { document: b"{\"a\": 1}",           map: false, key: None,      form: TEXT, want: text("{\"a\": 1}") },
        Case { document: b"null",                 map: false, key: None,      form: TEXT, want: text("null") },
        Case { document: b"",                     map: false, key: None,      form: TEXT, want: Got::No(PickError::Empty) },
        Case { document: b"\n",                   map: false, key: None,      form: TEXT, want: Got::No(PickError::Empty) },
        Case { document: b"\xff\xfe",             map: false, key: None,      form: TEXT, want: Got::No(PickError::NotText) },
        Case { document: b"{\"a\": 1}",           map: true,  key: None,      form: TEXT, want: Got::No(PickError::KeyNeeded) },
        Case { document: b"{\"a\": 1}",           map: true,  key: None,      form: JSON, want: json("{\"a\":1}") },
        Case { document: b"{\"a\": \"\xc3\xa9\"}\n", map: false, key: None,   form: JSON, want: json("{\"a\":\"\\u00e9\"}") },
        Case { document: b"[1, 2]",               map: false, key: None,      form: JSON, want: json("[1,2]") },
        Case { document: b"\"{\\\"a\\\": 1}\"",   map: false, key: None,      form: JSON, want: json("{\"a\":1}") },
        Case { document: b"sk-1",                 map: false, key: None,      form: JSON, want: Got::No(PickError::NotJson) },
        Case { document: b"{\"a\": 1",            map: false, key: None,      form: JSON, want: Got::No(PickError::NotJson) },
        Case { document: b"{\"a\": 1} x",         map: false, key: None,      form: JSON, want: Got::No(PickError::NotJson) },
        Case { document: b"null",                 map: false, key: None,      form: JSON, want: Got::No(PickError::Null) },
        Case { document: b"{}",                   map: true,  key: None,      form: JSON, want: Got::No(PickError::Empty) },
        Case { document: b"",                     map: false, key: None,      form: JSON, want: Got::No(PickError::NotJson) },
        // A key of something without keys.
        Case { document: b"sk-1",                 map: false, key: Some("a"), form: TEXT, want: Got::No(PickError::NotJson) },
        Case { document: b"\"sk-1\"",             map: false, key: Some("a"), form: TEXT, want: Got::No(PickError::NotObject) },
        Case { document: b"[{\"a\": 1}]",         map: false, key: Some("a"), form: TEXT, want: Got::No(PickError::NotObject) },
        Case { document: b"{\"a\": \"\xff\"}",    map: false, key: Some("a"), form: TEXT, want: Got::No(PickError::NotText) },
        // A key, as a structure.
        Case { document: br#"{"a": {"b": "x"}}"#, map: true,  key: Some("a"), form: JSON, want: json(r#"{"b":"x"}"#) },
        Case { document: br#"{"a": "{\"b\": 1}"}"#, map: true, key: Some("a"), form: JSON, want: json(r#"{"b":1}"#) },
        Case { document: br#"{"a": "[1, 2]\n"}"#, map: true,  key: Some("a"), form: JSON, want: json("[1,2]") },
        Case { document: br#"{"a": "sk-1"}"#,     map: true,  key: Some("a"), form: JSON, want: Got::No(PickError::NotJson) },
        Case { document: br#"{"a": ""}"#,         map: true,  key: Some("a"), form: JSON, want: Got::No(PickError::Empty) },
        Case { document: br#"{"a": "null"}"#,     map: true,  key: Some("a"), form: JSON, want: Got::No(PickError::Null) },
        Case { document: br#"{"a": "\"sk\""}"#,   map: true,  key: Some("a"), form: JSON, want: text("sk") },
        Case { document: br#"{"a": 1e2}"#,        map: true,  key: Some("a"), form: JSON, want: json("1e2") },
        Case { document: br#"{"a": null}"#,       map: true,  key: Some("a"), form: JSON, want: Got::No(PickError::Null) },
        // The field `key` takes strings.
        Case { document: br#"{"a": "sk-1"}"#,     map: true,  key: Some("a"), form: KEY,  want: text("sk-1") },
        Case { document: br#"{"a": "123"}"#,      map: true,  key: Some("a"), form: KEY,  want: text("123") },
        Case { document: br#"{"a": 123}"#,        map: true,  key: Some("a"), form: KEY,  want: Got::No(PickError::NotString) },
        Case { document: br#"{"a": {"b": 1}}"#,   map: true,  key: Some("a"), form: KEY,  want: Got::No(PickError::NotString) },
        Case { document: br#"{"a": "{\"b\":1}"}"#, map: true, key: Some("a"), form: KEY,  want: Got::No(PickError::NotString) },
        Case { document: b"\"sk-1\"",             map: false, key: None,      form: KEY,  want: text("sk-1") },
        Case { document: b"sk-1",                 map: false, key: None,      form: KEY,  want: Got::No(PickError::NotJson) },
        Case { document: b"{\"a\": 1}",           map: true,  key: None,      form: KEY,  want: Got::No(PickError::NotString) },
    ];
    for Case { document, map, key, form, want } in cases {
        let shown = document.escape_ascii();
        assert_eq!(picked(document, map, key, form), want, "{shown} map: {map} {key:?} {form:?}");
    }
}

#[test]
fn reasons_show_no_value() {
    for document in ["sk-canary", r#""sk-canary""#, r#"{"sk-canary": 1"#] {
        let Got::No(error) = picked(document.as_bytes(), false, Some("a"), TEXT) else { panic!("{document}") };
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
}
