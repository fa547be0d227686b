//! The scanner against serde_json: any document, cut into any chunks; and what a parser would reject or read differently.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// Scans `body` in chunks of `size` bytes.
fn scan_in(body: &[u8], size: usize, complete: bool) -> BodyPeek {
    let mut scan = JsonScan::default();
    for chunk in body.chunks(size.max(1)) {
        scan.feed(chunk);
    }
    scan.finish(complete)
}

/// Scans `body` at every chunk size and expects the same each time.
#[track_caller]
fn scan(body: &[u8], complete: bool) -> BodyPeek {
    let whole = scan_in(body, body.len(), complete);
    for size in 1..body.len().min(64) {
        assert_eq!(scan_in(body, size, complete), whole, "chunks of {size}: {}", String::from_utf8_lossy(body));
    }
    whole
}

#[track_caller]
fn model(body: &str) -> Option<String> {
    let peek = scan(body.as_bytes(), true);
    assert_eq!(peek.fault, None, "{body}");
    peek.model.map(|model| model.value)
}

#[test]
fn finds_the_top_level_model() {
    let long = "x".repeat(MAX_MODEL);
    let rows: Vec<(String, Option<&str>)> = vec![
        (r#"{"model":"@a/b"}"#.into(), Some("@a/b")),
        (" \t\r\n{ \"model\" :\n\"@a/b\" , \"x\":1}".into(), Some("@a/b")),
        (r#"{"messages":[{"role":"user","content":"model \" } ] \\"}],"model":"m","n":1}"#.into(), Some("m")),
        (r#"{"a":{"model":"no"},"b":[{"model":"no"}],"model":"yes"}"#.into(), Some("yes")),
        (r#"{"a":-1.5E+3,"b":true,"c":null,"d":false ,"model":"m"}"#.into(), Some("m")),
        (r#"{"m\u006fdel":"escaped key"}"#.into(), Some("escaped key")),
        (r#"{"\u006d\u006F\u0064\u0065\u006c":"all"}"#.into(), Some("all")),
        (r#"{"model":"a\"\\\/\b\f\n\r\té\u00e9\ud83d\ude00"}"#.into(), Some("a\"\\/\u{8}\u{c}\n\r\té\u{e9}😀")),
        ("\u{feff}{\"model\":\"mark\"}".into(), Some("mark")),
        ("\u{feff}\u{feff} {\"model\":\"mark\"}".into(), Some("mark")),
        (r#"{"model":""}"#.into(), Some("")),
        (format!(r#"{{"model":"{long}"}}"#), Some(&long)),
        (format!(r#"{{"model":"{long}y"}}"#), None),
        // JSON.parse takes lone halves of a pair; sent as UTF-8 they are U+FFFD.
        (r#"{"model":"a\ud800"}"#.into(), Some("a\u{fffd}")),
        (r#"{"model":"\ud800\ud800b"}"#.into(), Some("\u{fffd}\u{fffd}b")),
        (r#"{"model":"\ud800\n\udc00"}"#.into(), Some("\u{fffd}\n\u{fffd}")),
        (r#"{"model":"\ud83d\ud83d\ude00"}"#.into(), Some("\u{fffd}😀")),
        // Deeper than serde_json goes.
        (format!("{{\"a\":{}1{},\"model\":\"m\"}}", "[".repeat(5000), "]".repeat(5000)), Some("m")),
        // Not this field.
        (r#"{"Model":"x","model ":"x","models":"x","mode":"x","mod\u0065ls":"x","":"x"}"#.into(), None),
        (r#"{"a":{"model":"@a/b"}}"#.into(), None),
        (r#"{"a":"\"model\":\"@a/b\""}"#.into(), None),
        // Not a string.
        (r#"{"model":null}"#.into(), None),
        (r#"{"model":["@a/b"]}"#.into(), None),
        (r#"{"model":{"model":"@a/b"}}"#.into(), None),
        (r#"{"model":1}"#.into(), None),
        // Not an object, or nothing the gateway can parse.
        ("{}".into(), None),
        ("".into(), None),
        (" ".into(), None),
        (r#"["model","@a/b"]"#.into(), None),
        (r#"[{"model":"@a/b"}]"#.into(), None),
        (r#""model""#.into(), None),
        ("model=@a/b".into(), None),
        (r#"{model:"@a/b"}"#.into(), None),
        (r#"{'model':'@a/b'}"#.into(), None),
        (r#"{"a":1 "model":"@a/b"}"#.into(), None),
        (r#"{"a":,"model":"@a/b"}"#.into(), None),
        (r#"{,"model":"@a/b"}"#.into(), None),
        (r#"{"mo\x64el":"@a/b"}"#.into(), None),
        (r#"{"mo\u00zzdel":"@a/b"}"#.into(), None),
        (r#"{"a""model":"@a/b"}"#.into(), None),
        ("\u{fffe}{\"model\":\"@a/b\"}".into(), None),
    ];
    for (body, expected) in &rows {
        assert_eq!(model(body).as_deref(), *expected, "{body:.80}");
    }
    assert_eq!(scan(b"{\"model\":\"a\xff\xe2\x82b\"}", true).model.unwrap().value, "a\u{fffd}\u{fffd}b");
}

#[test]
fn says_when_a_model_cannot_be_read() {
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(MAX_MODEL + 1));
    for (body, expected) in [
        (r#"{"model":["a"]}"#, true),
        (r#"{"model":null}"#, true),
        (long.as_str(), true),
        (r#"{"model":"a"}"#, false),
        (r#"{"a":{"model":[]}}"#, false),
        ("[]", false),
    ] {
        assert_eq!(scan(body.as_bytes(), true).unreadable, expected, "{body:.40}");
    }
}

#[test]
fn refuses_a_second_model_and_what_breaks_after_one() {
    let rows = [
        (r#"{"model":"a","model":"b"}"#, DUPLICATE),
        (r#"{"model":"a","x":[{"y":"}"}],"m\u006fdel":"a"}"#, DUPLICATE),
        (r#"{"model":null,"model":"b"}"#, DUPLICATE),
        (r#"{"model":{"a":1},"model":[]}"#, DUPLICATE),
        (r#"{"model":"a""#, NOT_JSON),
        (r#"{"model":"a"#, NOT_JSON),
        (r#"{"model":"a","#, NOT_JSON),
        (r#"{"model":"a","b":"c"#, NOT_JSON),
        (r#"{"model":"a",}"#, NOT_JSON),
        (r#"{"model":"a" x}"#, NOT_JSON),
        (r#"{"model":"a\q"}"#, NOT_JSON),
        (r#"{"model":"a"]"#, NOT_JSON),
        (r#"{"model":nope?}"#, NOT_JSON),
    ];
    for (body, fault) in rows {
        assert_eq!(scan(body.as_bytes(), true).fault, Some(fault), "{body}");
    }
    let long = format!(r#"{{"model":"{}","model":"@a/b"}}"#, "x".repeat(MAX_MODEL + 1));
    assert_eq!(scan(long.as_bytes(), true).fault, Some(DUPLICATE));
}

#[test]
fn a_cut_off_body_says_so() {
    let rows = [
        // body, model found, truncated
        (r#"{"messages":[{"con"#, None, true),
        (r#"{"a":1,"model":"@a/b"#, None, true),
        (r#"{"a":1,"model":"@a/b""#, Some("@a/b"), true),
        (r#"{"model":"@a/b","messages":["#, Some("@a/b"), true),
        // A first member cannot be cut before the comma is seen.
        (r#"{"model":"@a/b""#, None, true),
        (r#"{"model":"@a/b" "#, None, true),
        (r#"{"model":"@a/b"}"#, Some("@a/b"), false),
        ("[1,2", None, false),
        ("", None, true),
    ];
    for (body, model, truncated) in rows {
        let peek = scan(body.as_bytes(), false);
        assert_eq!((peek.model.map(|model| model.value).as_deref(), peek.truncated), (model, truncated), "{body}");
        assert_eq!(peek.fault, None, "{body}");
    }
}

#[test]
fn stops_at_the_end_of_the_object_only() {
    let mut scan = JsonScan::default();
    assert_eq!(scan.is_object(), None);
    assert_eq!(scan.feed(b" \n"), Progress::More);
    assert_eq!(scan.is_object(), None);
    assert_eq!(scan.feed(b"{\"model\":\"a\","), Progress::More);
    assert_eq!(scan.is_object(), Some(true));
    assert_eq!(scan.feed(b"\"b\":1}"), Progress::Done);
    assert_eq!(scan.feed(b"\"model\":\"c\""), Progress::Done);
    assert_eq!(scan.is_object(), Some(true));
    assert_eq!(scan.finish(true).fault, None);
    let mut scan = JsonScan::default();
    assert_eq!(scan.feed(b"--boundary"), Progress::Done);
    assert_eq!(scan.is_object(), Some(false));
}

fn cut(body: &str, range: std::ops::Range<usize>, replacement: &str) -> String {
    format!("{}{replacement}{}", &body[..range.start], &body[range.end..])
}

/// JSON values with keys and texts that look like the thing searched for.
fn arbitrary_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just("model".to_owned()),
        Just("\"model\":\"@a/b\"".to_owned()),
        Just("@slug/gpt-4o".to_owned()),
        ".{0,12}".prop_map(|text: String| text),
        "[\\\\\"{}\\[\\],:u0-9d]{0,12}".prop_map(|text: String| text),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// Writes JSON with random white space and random escapes, which serde_json never writes.
fn write(value: &Value, noise: &mut impl Iterator<Item = u8>, out: &mut String) {
    let mut space = |out: &mut String| out.push_str(["", "", " ", "\n\t"][usize::from(noise.next().unwrap_or(0) & 3)]);
    space(out);
    match value {
        Value::Object(members) => {
            out.push('{');
            for (index, (key, member)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(&json!(key), noise, out);
                out.push(':');
                write(member, noise, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, noise, out);
            }
            out.push(']');
        }
        Value::String(text) => {
            out.push('"');
            for char in text.chars() {
                match (char, noise.next().unwrap_or(0) % 4) {
                    ('"' | '\\' | '\0'..='\x1f', _) | (_, 0) => {
                        for unit in char.encode_utf16(&mut [0; 2]) {
                            out.push_str(&format!("\\u{unit:04x}"));
                        }
                    }
                    _ => out.push(char),
                }
            }
            out.push('"');
        }
        other => out.push_str(&other.to_string()),
    }
    let mut space = |out: &mut String| out.push_str(["", "", "", "\r\n "][usize::from(noise.next().unwrap_or(0) & 3)]);
    space(out);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn agrees_with_serde_json(
        value in arbitrary_json(),
        own in prop::option::of(".{0,20}"),
        noise in prop::collection::vec(any::<u8>(), 64),
        size in 1_usize..40,
    ) {
        let mut value = value;
        if let (Some(object), Some(own)) = (value.as_object_mut(), &own) {
            object.insert("model".to_owned(), json!(own));
        }
        let mut body = String::new();
        write(&value, &mut noise.into_iter().cycle(), &mut body);
        let mut value: Value = serde_json::from_str(&body).unwrap();
        let peek = scan_in(body.as_bytes(), size, true);
        prop_assert_eq!(peek.fault, None);
        prop_assert!(!peek.truncated);
        let expected = value.as_object().and_then(|object| object.get("model")).and_then(Value::as_str);
        prop_assert_eq!(peek.model.as_ref().map(|model| model.value.as_str()), expected);
        let Some(model) = peek.model else { return Ok(()) };
        prop_assert_eq!(serde_json::from_str::<String>(&body[model.value_span.clone()]).unwrap(), model.value);
        let removed: Value = serde_json::from_str(&cut(&body, model.member_span, "")).unwrap();
        let replaced: Value = serde_json::from_str(&cut(&body, model.value_span, "\"other\"")).unwrap();
        value["model"] = json!("other");
        prop_assert_eq!(replaced, value.clone());
        value.as_object_mut().unwrap().remove("model");
        prop_assert_eq!(removed, value);
    }

    #[test]
    fn never_panics_and_never_depends_on_chunks(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "\"", "\\", "model", "\"model\"", "\"a\"", "\\u006", "\\ud83d", "1", "true", " ", "\u{feff}", "é",
        ]), 0..24),
        size in 1_usize..9,
        complete in any::<bool>(),
    ) {
        let body = pieces.concat();
        let whole = scan_in(body.as_bytes(), usize::MAX, complete);
        prop_assert_eq!(&scan_in(body.as_bytes(), size, complete), &whole);
        // Whatever serde_json can parse and we could not is a model lost.
        if let Ok(value) = serde_json::from_str::<Value>(&body) {
            let expected = value.get("model").and_then(Value::as_str);
            if complete && whole.fault != Some(DUPLICATE) {
                prop_assert_eq!(whole.model.as_ref().map(|model| model.value.as_str()), expected);
            }
        }
    }
}
